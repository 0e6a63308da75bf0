"""Examples by use: their geometry against numbers worked out by hand, and each command on a rendered room."""

import csv
import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from PIL import Image

from gap_mllm.processing import parse_boxes
from gap_mllm.processing.data import render_room, room_seed


EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = [
    "ar_anchor",
    "driving_distances",
    "edit_layout",
    "robot_pick_point",
    "room_inventory",
    "route_between_objects",
]  # fmt: skip


@pytest.fixture
def example(monkeypatch):
    """A function name -> module of an example, as Python finds it when its file is run."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


@pytest.fixture
def run(example, monkeypatch, tmp_path, capsys):
    """A function (name, flags) -> what it printed, and its output folder."""

    def run(name, *flags):
        output = tmp_path / name
        monkeypatch.setattr("sys.argv", [f"{name}.py", "--output", str(output), *map(str, flags)])
        example(name).main()
        return capsys.readouterr().out, output

    return run


@pytest.fixture
def refused(example, monkeypatch, capsys):
    """A function (name, flags) -> the last line of the error that ends it."""

    def refused(name, *flags):
        monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, flags)])
        with pytest.raises(SystemExit) as ended:
            example(name).main()
        assert ended.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return refused


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def level_scene(**given):
    """A scene whose first camera stands level: right, ahead and up are +x, +z and -y."""
    return SimpleNamespace(level=np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), room=None, **given)


def box(right, ahead, up, width, depth, height):
    """A level box of sizes across, along and up, in the camera of `level_scene`."""
    return [right, -up, ahead, width, height, depth, 0, 0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_and_told(name):
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150 and text.startswith('"""') and f"python examples/{name}.py" in text
    assert f"`{name}.py`" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--room", "-1"], "index is -1"),
        (["--photos", "nowhere"], "nowhere"),
        (["--up", "0", "0", "0"], "expected a direction"),
        (["--model", str(EXAMPLES)], "config.json"),
        (["--at", "0,500,2"], "--at is 0,500,2; expected a view from 0 to 1 and a pixel inside of it"),
        (["--at", "middle"], "--at is 'middle'; expected VIEW,X,Y"),
    ],
)
def test_wrong_flags_are_told_in_a_line(flags, message, refused, tmp_path):
    assert message in refused("robot_pick_point", "--output", tmp_path, *flags)


@pytest.mark.slow
def test_photos_of_ones_own_are_asked(run, tmp_path):
    for number, picture in enumerate(render_room(1, 2).images):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{number}.png")
    said, output = run("robot_pick_point", "--photos", tmp_path / "photos", "--at", "1,60,70")
    told = read_json(output / "pick.json")
    assert told["mark"] == [1, 60, 70] and "true" not in told and "true" not in said
    said, output = run("room_inventory", "--photos", *sorted((tmp_path / "photos").iterdir()), "--labels", "fridge")
    assert "left out: 'fridge'" in said and "true" not in read_json(output / "inventory.json")


# Surfaces


def test_a_plane_is_fitted_only_where_points_say_one(example):
    normal = example("example_geometry").plane_normal
    floor = np.array([[0, 1, 2], [0.2, 1, 2], [-0.2, 1, 2], [0, 1, 2.2], [0, 1, 1.8]])  # a metre below the camera
    np.testing.assert_allclose(normal(floor), [0, -1, 0], atol=1e-12)
    assert normal(floor[:3]) is None  # on a line
    assert normal(floor[[0, 1]]) is None
    assert normal(floor + [[0, 0.3, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]) is None  # no plane


def test_the_surface_of_a_pixel_is_asked_with_marks_inside_of_the_picture(example):
    asked = []

    def locate(*marks):
        asked.append(marks)
        points = [SimpleNamespace(point=(x / 100, 1.0, y / 100), label="rug") for _, x, y in
                  ([marks] if len(marks) == 3 else marks[0])]  # fmt: skip
        return SimpleNamespace(first=points[0]) if len(marks) == 3 else points

    session = SimpleNamespace(views=SimpleNamespace(sizes=[(100, 80)]), locate=locate)
    point, label, normal = example("example_geometry").surface_at(session, 0, 2, 79)
    assert point.tolist() == [0.02, 1.0, 0.79] and label == "rug"
    np.testing.assert_allclose(normal, [0, -1, 0], atol=1e-9)
    assert asked[1][0] == [[0, 2, 79], [0, 0, 79], [0, 7, 79], [0, 2, 74], [0, 2, 79]]


# A robot's pick point


def test_a_pick_in_the_base_of_the_robot(example):
    pick = example("robot_pick_point")
    above = {"camera_to_base": [[1, 0, 0, 0.5], [0, -1, 0, 0], [0, 0, -1, 1], [0, 0, 0, 1]]}  # looks straight down
    pose = pick.camera_to_base(above)
    told = pick.pick(np.array([0.1, 0.2, 0.8]), np.array([0.0, 0, -1]), pose, 0.1)
    np.testing.assert_allclose(told["point_base_m"], [0.6, -0.2, 0.2], atol=1e-12)
    np.testing.assert_allclose(told["approach_base"], [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(told["pre_grasp_base_m"], [0.6, -0.2, 0.3], atol=1e-12)
    np.testing.assert_allclose(told["grasp_base"], [[1, 0, 0, 0.6], [0, -1, 0, -0.2], [0, 0, -1, 0.2], [0, 0, 0, 1]],
                               atol=1e-12)  # fmt: skip
    ray = pick.pick(np.array([0.0, 0.6, 0.8]), None, pose, 0.1)
    np.testing.assert_allclose(ray["approach_base"], [0, -0.6, -0.8], atol=1e-12)
    assert ray["approach_from"] == "ray of the camera"
    arm = {"camera_to_gripper": np.eye(4).tolist(), "gripper_to_base": above["camera_to_base"]}
    np.testing.assert_array_equal(pick.camera_to_base(arm), pose)
    grasp = pick.grasp_pose(np.zeros(3), np.array([0.3, 0.4, -0.2]))[:3, :3]
    np.testing.assert_allclose(grasp.T @ grasp, np.eye(3), atol=1e-12)
    assert np.linalg.det(grasp) == pytest.approx(1) and grasp[2, 0] == 0


def test_a_pick_in_a_room_has_its_truth_beside(run):
    said, output = run("robot_pick_point", "--room", 3, "--at", "1,64,100")
    told, room = read_json(output / "pick.json"), render_room(room_seed("test", 3), 2)
    np.testing.assert_allclose(told["true"]["point_camera_m"], room.points_in_first_view()[1, 100, 64], atol=1e-6)
    assert told["true"]["label"] == room.label_of(room.instance_ids[1, 100, 64]) and "true " in said
    assert Image.open(output / "pick.png").width > 900


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"camera_to_gripper": []}, "['camera_to_gripper']; expected camera_to_base"),
        ({"camera_to_base": np.diag([1.0, 1, -1, 1]).tolist()}, "camera_to_base: matrix 0 is not rigid"),
    ],
)
def test_a_wrong_hand_eye_file_is_refused(given, message, refused, tmp_path):
    (tmp_path / "hand_eye.json").write_text(json.dumps(given), encoding="utf-8")
    assert message in refused("robot_pick_point", "--hand-eye", tmp_path / "hand_eye.json")


# An AR anchor


def test_an_anchor_stands_upright_in_the_axes_of_ar(example):
    anchor = example("ar_anchor")
    pose = anchor.level_world(level_scene().level)
    np.testing.assert_allclose(pose, np.eye(4), atol=1e-12)  # a level camera
    table = anchor.make_anchor(np.array([1.0, 0.5, 1.0]), np.array([0.0, -1, 0]), pose)
    assert table["position_m"] == [1.0, -0.5, -1.0] and table["surface"] == "horizontal"
    half = np.sqrt(0.5)
    np.testing.assert_allclose(np.array(table["matrix_rows"])[:3, 2], [-half, 0, half], atol=1e-12)  # to the camera
    np.testing.assert_allclose(table["rotation_xyzw"], [0, np.sin(-np.pi / 8), 0, np.cos(np.pi / 8)], atol=1e-12)
    wall = anchor.make_anchor(np.array([1.0, 0.5, 2.0]), np.array([0.0, 0, -1]), pose)
    assert wall["surface"] == "vertical" and wall["rotation_xyzw"] == [0, 0, 0, 1]  # away from the wall
    assert wall["matrix_columns"][3] == [1.0, -0.5, -2.0, 1.0] and wall["matrix_columns"][1] == [0, 1, 0, 0]
    turned = np.eye(4)
    turned[:3, :3], turned[:3, 3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], [0, 1.5, 0]  # looks along -x of its world
    assert anchor.make_anchor(np.array([0.0, 0.5, 2.0]), None, turned)["position_m"] == [-2.0, 1.0, 0.0]


def test_an_anchor_in_a_room_is_level(run, refused, tmp_path):
    said, output = run("ar_anchor", "--room", 2)
    told, room = read_json(output / "anchor.json"), render_room(room_seed("test", 2))
    view, x, y = told["mark"]
    assert room.instance_ids[view, y, x] > 0 and "true " in said
    seen = room.points_in_first_view()[view, y, x]
    in_world = room.camera_to_world[0][:3, :3] @ seen  # +z up, from the first camera
    assert told["true"]["position_m"][1] == pytest.approx(in_world[2], abs=1e-6)
    assert np.linalg.norm(told["true"]["position_m"]) == pytest.approx(np.linalg.norm(seen), abs=1e-6)
    (tmp_path / "pose.json").write_text("{}", encoding="utf-8")
    assert "expected {'camera_to_world': 4x4}" in refused("ar_anchor", "--camera-pose", tmp_path / "pose.json")


# An inventory


def test_sizes_and_matches_of_an_inventory(example):
    inventory, level = example("room_inventory"), level_scene().level
    row = inventory.measure("table", np.array(box(1, 2, -0.6, 0.8, 1.6, 0.7)), level)
    assert row == {"label": "table", "length_m": 1.6, "width_m": 0.8, "height_m": 0.7, "right_m": 1.0, "ahead_m": 2.0,
                   "up_m": -0.6}  # fmt: skip
    boxes = np.array([box(0, 1, 0, 1, 1, 1), box(0.5, 1, 0, 1, 1, 1), box(9, 9, 9, 1, 1, 1)])
    assert inventory.match(boxes, boxes[:1]) == [(0, 1.0), None, None]
    assert inventory.match(boxes[:0], boxes) == [] and inventory.match(boxes, boxes[:0]) == [None] * 3


def test_an_inventory_of_a_room_is_a_table(run):
    said, output = run("room_inventory", "--room", 1)
    told, room = read_json(output / "inventory.json"), render_room(room_seed("test", 1))
    assert [row["label"] for row in told["true"]] == room.labels and f"In the room stand ({len(room.labels)})" in said
    for row, size in zip(told["true"], room.boxes[:, 3:6], strict=True):  # upright, so that z is the height
        expected = [size[:2].max(), size[:2].min(), size[2]]
        np.testing.assert_allclose([row["length_m"], row["width_m"], row["height_m"]], expected, atol=6e-4)
    with open(output / "inventory.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [row["label"] for row in told["answered"]]


# A route


def test_a_route_goes_round_what_stands_in_the_way(example):
    route = example("route_between_objects")
    boxes = np.array([box(-2, 2, 0.5, 0.4, 0.4, 1), box(2, 2, 0.5, 0.4, 0.4, 1), box(0, 2, 0.5, 0.4, 3, 1)])
    walls = np.array([[-3.0, 0], [3, 0], [3, 6], [-3, 6]])
    told = route.plan_route(boxes, 0, 1, level_scene(), 0.2, 1.5, walls)
    ways = np.array(told["route"])
    assert ways[0, 0] < -1.4 and ways[-1, 0] > 1.4
    beside = np.abs(ways[:, 0]) < 0.2
    assert (ways[beside, 1] > 3.5 + 0.15).all() or (ways[beside, 1] < 0.5 - 0.15).all()  # past the middle one's ends
    assert np.linalg.norm(np.diff(ways, axis=0), axis=1).sum() == pytest.approx(told["length_m"], abs=2e-3)
    free = route.plan_route(boxes[:2], 0, 1, level_scene(), 0.2, 1.5, walls)["length_m"]
    assert free < 3.2 < told["length_m"]
    shelf = np.array([*boxes[:2], box(0, 2, 2.5, 0.4, 3, 1)])  # hangs 2 m above the floor
    assert route.plan_route(shelf, 0, 1, level_scene(), 0.2, 1.5, walls)["length_m"] == free
    across = np.array([*boxes[:2], box(0, 3, 0.5, 0.4, 6, 1)])
    assert route.plan_route(across, 0, 1, level_scene(), 0.2, 1.5, walls) is None
    assert route.plan_route(boxes, 0, 1, level_scene(), 3.5, 1.5, walls) is None  # too wide a robot


def test_a_route_in_a_room(run):
    room = render_room(room_seed("test", 0))
    said, output = run("route_between_objects", "--start", room.labels[0], "--goal", room.labels[1])
    told = read_json(output / "route.json")
    assert f"true: from {room.labels[0]} to {room.labels[1]}: {told['true']['length_m']:.2f} m" in said
    said, _ = run("route_between_objects", "--goal", "piano", "--radius", "0.1")
    assert "true: no route, since piano are not among" in said


# Distances on a street


def test_a_street_is_seen_by_the_camera_of_kitti(example):
    driving = example("driving_distances")
    pictures, depth, piece = driving.render_street()
    assert pictures.shape == (2, 375, 1242, 3) and depth.shape == piece.shape == (2, 375, 1242)
    _, fy, _, cy = driving.KITTI
    column = np.flatnonzero(piece[0, 374] == -1)[0]  # road
    assert depth[0, 374, column] == pytest.approx(driving.level_road_depth(374, fy, cy, 1.65), rel=1e-4)
    assert driving.level_road_depth(cy + 1, fy, cy, 1.65) == pytest.approx(1.65 * fy)
    assert driving.level_road_depth(cy, fy, cy, 1.65) is None
    marks = driving.marks_of_things(piece)
    assert [number for number, *_ in marks] == list(range(len(driving.THINGS)))
    for number, x, y in marks:
        label, _, along, _ = driving.THINGS[number]
        front = along - max(half[1] for half, _ in driving.SHAPES[label])
        assert depth[0, y, x] == pytest.approx(front, abs=1e-3)  # its side towards the camera
        assert depth[0, y, x] == pytest.approx(driving.level_road_depth(y + 0.5, fy, cy, 1.65), rel=0.02)
    assert depth[1][piece[1] == 0].min() == pytest.approx(depth[0][piece[0] == 0].min() - driving.STEP_M, abs=1e-3)


def test_distances_have_their_truth_beside(run, refused, tmp_path):
    said, output = run("driving_distances", "--at", "1,463,262", "--at", "0,20,20")
    road, wall = read_json(output / "distances.json")["things"]
    assert (
        road["mark"] == [1, 463, 262]
        and road["level_road_m"] == pytest.approx(1.65 * 721.5377 / (262 - 172.854), abs=0.006)
        and wall["level_road_m"] is None
    )
    assert wall["true_m"] > 1 and "true" in said and Image.open(output / "distances.png").width > 1000
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    assert "--photos needs --at" in refused("driving_distances", "--photos", tmp_path / "a.png")


# A layout


LAYOUT = np.array([box(0, 3, 0.3, 2, 1, 0.6), box(2, 1, 0.4, 0.5, 0.5, 0.8), box(-1.5, 3, 0.2, 0.4, 0.4, 0.4)])
LABELS, WALLS = ["bed", "chair", "stool"], np.array([[-4.0, 0], [4, 0], [4, 6], [-4, 6]])


def edited(example, text):
    layout = example("example_layout")
    return layout.solve(LAYOUT, layout.parse_edits(text, LABELS), level_scene().level, WALLS)


def test_edits_are_constraints_that_are_solved_without_overlaps(example):
    volume = example("edit_layout").shared_volume
    after = edited(example, "put the chair left of the bed, 0.5 m")  # the stool stands in the way: to its side
    assert after[1, 0] == pytest.approx(-1 - 0.5 - 0.25, abs=1e-3) and volume(after) == 0
    np.testing.assert_array_equal(after[[0, 2]], LAYOUT[[0, 2]])
    after = edited(example, "Move the chair in front of the bed, 0.2m; place the stool behind the bed")
    np.testing.assert_allclose(after[1:, 2], [2.5 - 0.2 - 0.25, 3.5 + 0.1 + 0.2], atol=1e-3)
    np.testing.assert_allclose(after[:, [1, 3, 4, 5, 6, 7, 8]], LAYOUT[:, [1, 3, 4, 5, 6, 7, 8]], atol=1e-9)
    assert volume(LAYOUT) == volume(after) == 0
    turned = edited(example, "turn the bed by 90 degrees")
    corners = example("example_geometry").footprint(turned[0], level_scene().level)
    np.testing.assert_allclose([corners.min(0), corners.max(0)], [[-0.5, 2], [0.5, 4]], atol=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("put the lamp left of the bed", "there is no 'lamp' among"),
        ("put the chair 2 left of the bed", "there is no 'chair 2' among"),
        ("make it nice", "'make it nice' is no edit; expected as"),
        ("put the chair left of the chair", "puts an object beside itself"),
        ("put the bed left of the chair, 9 m", "no place is free"),
    ],
)
def test_edits_that_cannot_be_are_refused(text, message, example):
    with pytest.raises(ValueError, match=message):
        edited(example, text)


def test_the_layout_of_a_room_is_edited(run, refused, tmp_path):
    said, output = run("edit_layout")
    told = read_json(output / "layout.json")
    named = trimesh.load_scene(output / "layout.glb").geometry
    assert any("(edited)" in name for name in named), list(named)
    before, after = np.array(told["before"]), np.array(told["after"])
    assert told["boxes_are"] == "true" and "True boxes: " in said and told["edit"] in said
    changed = ~np.isclose(before, after).all(1)
    assert changed.sum() == 1 and "moved by" in said
    np.testing.assert_allclose(before[:, 3:], after[:, 3:], atol=1e-9)
    assert [item.label for item in parse_boxes(told["answer"]).items] == told["labels"]
    assert "there is no 'piano'" in refused("edit_layout", "--edit", "turn the piano by 5 degrees")
