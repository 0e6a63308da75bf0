"""The 3D view: points, boxes and cameras land where they belong in every form, and pages are whole by themselves."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import gap_mllm_cli
from gap_mllm.processing.camera_geometry_gap_mllm import euler_to_matrix, project_points, transform_points
from gap_mllm.processing.data import render_room
from gap_mllm.processing.scene_3d import (
    Box3D,
    Mark3D,
    Scene3D,
    View3D,
    load_scene,
    place_results,
    read_colmap,
    save_scene,
    scene_from_points,
    scene_from_sample,
    serve_viser,
    write_colmap,
    write_glb,
    write_html,
    write_ply,
    write_rerun,
    write_scene,
)
from gap_mllm.processing.scene_3d.scene_values import frustum_corners
from gap_mllm.processing.scene_results_gap_mllm import (
    GroundedObject,
    SceneBox,
    SceneBoxes,
    SceneCameras,
    ScenePoint,
    ScenePointMaps,
    ScenePoints,
)
from gap_mllm.processing.scene_views_gap_mllm import open_views


INTRINSICS = np.array([[50.0, 0, 19.5], [0, 40, 14.5], [0, 0, 1]])


@pytest.fixture
def scene():
    """Two views; the second is 1 m to the right of the first and looks to its left. One point, box and mark."""
    pose = np.eye(4)
    pose[:3, :3] = euler_to_matrix(np.array([0.0, 0.0, -np.pi / 2]), "zxy")  # about y: forward becomes -x
    pose[0, 3] = 1.0
    picture = Image.new("RGB", (40, 30), (10, 20, 30))
    point = (np.array([[1.0, 2, 3]], np.float32), np.array([[9, 8, 7]], np.uint8), np.array([0.5], np.float32))
    views = (View3D("a.jpg", picture, INTRINSICS, np.eye(4), *point), View3D("b.jpg", picture, INTRINSICS, pose))
    boxes = (Box3D("chair", (0, 0, 2, 1, 2, 3, 0.3, 0.1, -0.2), "true"), Box3D("bed", (1, 0, 4, 1, 1, 1, 0, 0, 0)))
    return Scene3D(views, boxes, (Mark3D("lamp", (0.5, -1, 2)),), (("Where?", "There."),), "two views")


@pytest.fixture(scope="module")
def room():
    return scene_from_sample(render_room(0).as_sample())


def test_points_of_a_room_are_those_of_its_depth(room):
    rendered = render_room(0)
    for view, points in zip(room.views, rendered.points_in_first_view(), strict=True):
        np.testing.assert_allclose(view.points, points.reshape(-1, 3), atol=1e-5)  # float32
    np.testing.assert_array_equal(room.views[1].colors, rendered.images[1].reshape(-1, 3))
    np.testing.assert_allclose([box.numbers for box in room.boxes], rendered.boxes_in_first_view(), atol=1e-9)
    np.testing.assert_allclose(room.up, rendered.camera_to_world[0][2, :3])
    other = scene_from_sample(rendered.as_sample(), reference_view=2)
    np.testing.assert_allclose(other.views[2].points[:, 2], rendered.depth_m[2].ravel(), atol=1e-5)


def test_boxes_of_another_euler_order_keep_their_corners():
    sample = render_room(0).as_sample()
    turned = replace(sample.boxes[0], numbers=np.array([0, 0, 2, 1, 2, 3, 0.3, 0.1, -0.2]), euler_order="ZXY")
    turned = replace(turned, frame="camera", frame_index=0)
    box = scene_from_sample(replace(sample, boxes=(turned,))).boxes[0]
    turn = euler_to_matrix(turned.numbers[6:], "ZXY")
    np.testing.assert_allclose(box.corners[6], [0, 0, 2] + turn @ [0.5, 1, 1.5], atol=1e-12)


def test_a_reference_view_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="reference_view is 9, but the sample has 4 views"):
        scene_from_sample(render_room(0).as_sample(), reference_view=9)


def test_views_without_depth_or_pose_show_their_picture():
    sample = render_room(0).as_sample()
    views = (replace(sample.views[0], depth_picture=None), replace(sample.views[1], camera_to_world=None))
    told = scene_from_sample(replace(sample, views=views, boxes=(), pose_frame=None))
    assert told.num_points == 0 and told.views[1].camera_to_reference is None and told.up == (0.0, -1.0, 0.0)


def test_glb_has_y_up_and_looks_along_minus_z(scene, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    glb = trimesh.load(write_glb(scene, tmp_path / "scene.glb"))
    parts = {name: (glb.geometry[part], transform) for name in glb.graph.nodes_geometry
             for transform, part in [glb.graph[name]]}  # fmt: skip
    assert all(np.allclose(transform, np.eye(4)) for _, transform in parts.values())
    points = parts["points of view 0"][0]
    np.testing.assert_allclose(points.vertices, [[1, -2, -3]])
    np.testing.assert_array_equal(points.colors[0, :3], [9, 8, 7])
    for name, box in (("true chair", scene.boxes[0]), ("predicted bed", scene.boxes[1])):
        corners = np.unique(np.round(np.asarray(parts[name][0].vertices), 5), axis=0)
        np.testing.assert_allclose(corners, np.unique(np.round(box.corners * [1, -1, -1], 5), axis=0), atol=2e-5)
        assert parts[name][0].is_watertight and parts[name][0].volume > 0  # seen from outside
    np.testing.assert_allclose(parts["predicted point lamp"][0].bounds.mean(0), [0.5, 1, -2], atol=1e-6)
    assert {"camera of view 0", "camera of view 1", "edges of true chair"} <= set(parts)
    np.testing.assert_allclose(parts["camera of view 1"][0].bounds[1][0], 1, atol=0.02)  # its tip; bars are thick


def test_nodes_of_one_label_have_names_of_their_own(scene, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    glb = trimesh.load(write_glb(replace(scene, boxes=scene.boxes[1:] * 3), tmp_path / "scene.glb"))
    assert {"predicted bed", "predicted bed #2", "predicted bed #3"} <= set(glb.graph.nodes_geometry)


def test_ply_keeps_the_axes(scene, room, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    points = trimesh.load(write_ply(scene, tmp_path / "points.ply"))
    np.testing.assert_allclose(points.vertices, [[1, 2, 3]])
    np.testing.assert_array_equal(points.colors[0, :3], [9, 8, 7])
    assert len(trimesh.load(write_ply(room, tmp_path / "room.ply")).vertices) == room.num_points
    header = (tmp_path / "points.ply").read_bytes().split(b"end_header\n")[0].decode()
    assert "property float confidence" in header and "property ushort view" in header


def test_colmap_poses_are_world_to_camera_with_pixel_centres_at_a_half(scene, tmp_path):
    folder = write_colmap(scene, tmp_path)
    assert "1 PINHOLE 40 30 50 40 20 15" in (folder / "cameras.txt").read_text()
    lines = (folder / "images.txt").read_text().splitlines()
    np.testing.assert_array_equal(np.array(lines[1].split()[1:8], float), [1, 0, 0, 0, 0, 0, 0])
    assert lines[2] == ""
    told = np.array(lines[3].split()[5:8], float)
    pose = scene.views[1].camera_to_reference
    np.testing.assert_allclose(told, -pose[:3, :3].T @ pose[:3, 3], atol=1e-9)
    back = read_colmap(folder)
    for own, read in zip(scene.views, back.views, strict=True):
        np.testing.assert_allclose(read.camera_to_reference, own.camera_to_reference, atol=1e-9)
        np.testing.assert_allclose(read.intrinsics, own.intrinsics, atol=1e-9)
        np.testing.assert_array_equal(np.asarray(read.picture), np.asarray(own.picture))
    np.testing.assert_allclose(back.views[0].points, [[1, 2, 3]])
    np.testing.assert_array_equal(back.views[0].colors, [[9, 8, 7]])


def test_pycolmap_projects_as_we_do(scene, tmp_path):
    pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap: make test-view")
    read = pycolmap.Reconstruction(str(write_colmap(scene, tmp_path)))
    place = np.array([-1.0, 0.3, 0.2])  # in front of view 1
    told = read.images[2].project_point(place)
    pose = np.linalg.inv(scene.views[1].camera_to_reference)
    np.testing.assert_allclose(told - 0.5, project_points(transform_points(pose, place), INTRINSICS)[0], atol=1e-6)


def test_what_colmap_cannot_hold_is_refused(scene, tmp_path):
    skewed = INTRINSICS + [[0, 3.0, 0], [0, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="a.jpg has skew 3"):
        write_colmap(replace(scene, views=(replace(scene.views[0], intrinsics=skewed),)), tmp_path)
    with pytest.raises(ValueError, match="no view of the scene has intrinsics and a pose"):
        write_colmap(replace(scene, views=(replace(scene.views[0], intrinsics=None),)), tmp_path)
    (write_colmap(scene, tmp_path / "model") / "cameras.txt").write_text("1 OPENCV 4 4 1 1 1 1 0 0 0 0\n")
    with pytest.raises(ValueError, match="is OPENCV; expected PINHOLE"):
        read_colmap(tmp_path / "model")


def test_the_page_is_whole_by_itself_and_says_what_it_holds(scene, room, tmp_path):
    evil = replace(scene, boxes=(Box3D("</script><b>", scene.boxes[1].numbers),), title="<i>&")
    text = write_html(evil, tmp_path / "scene.html").read_text()
    assert "http" not in text and "src=" not in text and "@import" not in text and "url(" not in text
    assert text.count("</script>") == 2 and "<title>&lt;i&gt;&amp;</title>" in text
    told = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    assert told["boxes"][0]["label"] == "</script><b>" and told["title"] == "<i>&"
    np.testing.assert_allclose(told["boxes"][0]["corners"], evil.boxes[0].corners)
    np.testing.assert_allclose(told["views"][1]["center"], [1, 0, 0])
    np.testing.assert_allclose(told["views"][1]["forward"], [-1, 0, 0], atol=1e-12)
    assert told["answers"] == [["Where?", "There."]]
    page = write_html(room, tmp_path / "room.html", max_points=1000)
    assert f"1000 points, sampled of {room.num_points}, 4 views" in page.read_text()


def test_pages_stay_below_five_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (600, 800, 3), np.uint8))  # noise is the largest JPEG
    points = rng.normal(size=(10_000, 3)).astype(np.float32)
    arrays = (points, np.zeros((10_000, 3), np.uint8), rng.random(10_000).astype(np.float32))
    views = tuple(View3D(f"view {i}", picture, INTRINSICS, np.eye(4), *arrays) for i in range(24))
    page = write_html(Scene3D(views), tmp_path / "scene.html")
    assert 2_000_000 < page.stat().st_size < 5_000_000


def test_a_frustum_is_what_the_picture_sees(scene):
    corners = frustum_corners(scene.views[0], 2.0)
    np.testing.assert_allclose(corners[0], [2 * -20 / 50, 2 * -15 / 40, 2])
    np.testing.assert_allclose(corners[2], [2 * 20 / 50, 2 * 15 / 40, 2])
    np.testing.assert_allclose(frustum_corners(scene.views[1], 2.0)[:, 0], -1)  # 2 m to the left of x = 1


def test_results_are_brought_to_the_reference_view(scene):
    numbers = (0.5, 0, 3, 1, 1, 1, 0, 0, 0)
    found = GroundedObject("the box", "..", boxes=(SceneBox("box", numbers, view=1),), view=1)
    marked = ScenePoints("?", "..", points=(ScenePoint("lamp", (0, 0, 1), (0, 7, 5)), None))
    placed, left_out = place_results(scene, [found, marked])
    pose = scene.views[1].camera_to_reference
    np.testing.assert_allclose(placed.boxes[-1].numbers[:3], pose[:3, :3] @ [0.5, 0, 3] + pose[:3, 3], atol=1e-12)
    assert placed.boxes[-1].kind == "predicted" and placed.marks[-1].pixel == (7, 5) and left_out == []
    assert placed.answers[-2] == ("the box", str(found))
    unposed = replace(scene, views=(scene.views[0], replace(scene.views[1], camera_to_reference=None)))
    in_world = SceneBoxes("?", "..", boxes=(SceneBox("bed", numbers, view=None),))
    same, left_out = place_results(unposed, [found, in_world])
    assert same.boxes == scene.boxes and "view 1, whose pose is not known" in left_out[0] and "world" in left_out[1]
    assert "--poses FILE" in left_out[0]


def test_point_maps_take_the_colours_of_their_picture():
    picture = Image.fromarray(np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3))
    points = np.ones((2, 4, 3))
    points[0, 1] = np.nan
    views = open_views([picture])
    maps = ScenePointMaps((points,), (np.full((2, 4), 2.0),), "encoder", views)
    told = scene_from_points(views, maps, SceneCameras((None,), (None,), ("", ""), (None,)))
    assert told.num_points == 7 and told.views[0].confidence[0] == 2
    np.testing.assert_array_equal(told.views[0].colors[1], [6, 7, 8])
    np.testing.assert_array_equal(told.views[0].camera_to_reference, np.eye(4))


def test_sampling_is_even_and_repeats_itself(room):
    few = room.sample_points(1000)
    assert few.num_points == 1000 and all(200 < len(view.points) < 300 for view in few.views)
    np.testing.assert_array_equal(few.views[1].points, room.sample_points(1000).views[1].points)
    assert room.sample_points(10**9) is room
    with pytest.raises(ValueError, match="max_points is 0"):
        room.sample_points(0)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda picture: View3D("a", picture, points=np.zeros((2, 3))), r"colors of a has shape \(0, 3\)"),
        (lambda picture: View3D("a", picture, camera_to_reference=-np.eye(4)), "camera_to_reference of a: matrix 0"),
        (lambda picture: View3D("a", picture, points=np.full((0, 3), 0.0), intrinsics=np.eye(4)), "intrinsics of a"),
        (lambda picture: Scene3D(()), "the scene has no views"),
        (lambda picture: Box3D("bed", (1, 2, 3)), "expected nine finite numbers"),
        (lambda picture: Box3D("bed", (0,) * 9, "maybe"), "kind is 'maybe'"),
        (lambda picture: Mark3D("bed", (0, 0, np.nan)), "expected three finite numbers"),
    ],
)
def test_wrong_parts_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make(Image.new("RGB", (4, 4)))


def test_a_saved_scene_comes_back(scene, tmp_path):
    back = load_scene(save_scene(scene, tmp_path / "scene.npz"))
    assert (back.boxes, back.marks, back.answers, back.title) == (scene.boxes, scene.marks, scene.answers, "two views")
    np.testing.assert_array_equal(back.views[1].camera_to_reference, scene.views[1].camera_to_reference)
    np.testing.assert_array_equal(back.views[0].points, scene.views[0].points)
    assert back.views[0].name == "a.jpg" and back.views[0].picture.size == (40, 30)
    (tmp_path / "other.npz").write_bytes(b"none")
    with pytest.raises(ValueError, match="other.npz is no scene"):
        load_scene(tmp_path / "other.npz")


def test_forms_that_need_an_extra_name_it(scene, tmp_path, monkeypatch):
    for module, write, words in (
        ("trimesh", lambda: write_glb(scene, tmp_path / "a.glb"), r"gap-mllm\[view\]"),
        ("rerun", lambda: write_rerun(scene, tmp_path / "a.rrd"), r"gap-mllm\[rerun\]"),
        ("viser", lambda: serve_viser(scene), r"gap-mllm\[viser\]"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=words):
            write()
    with pytest.raises(ValueError, match="unknown form 'obj'; known are glb, ply"):
        write_scene(scene, tmp_path, ["obj"])


def test_show_writes_a_room_and_shows_what_was_saved(tmp_path, capsys):
    pytest.importorskip("trimesh")
    assert gap_mllm_cli.main(["show", "rooms", "--index", "3", "--output", str(tmp_path / "room")]) == 0
    assert {path.name for path in (tmp_path / "room").iterdir()} == {"scene.glb", "points.ply", "colmap", "scene.html"}
    assert "4 views, 65536 points" in capsys.readouterr().out
    saved = tmp_path / "saved"
    saved.mkdir()
    save_scene(scene_from_sample(render_room(0).as_sample()), saved / "scene.npz")
    words = ["show", str(saved), "--output", str(tmp_path / "again"), "--forms", "html", "--max-points", "500"]
    assert gap_mllm_cli.main(words) == 0
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["scene.html"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["nothing"], "unknown source 'nothing'"),
        (["rooms", "--index", "-1"], "--index is -1"),
        (["rooms", "--forms", "obj"], "unknown form 'obj'"),
        (["rooms", "--split", "other"], "other"),
        (["rooms", "--max-points", "0"], "max_points is 0"),
        (["tests"], "tests holds no scene.npz"),
        (["rooms", "--points-from", "nowhere/at/all"], "nowhere/at/all is no folder"),
    ],
)
def test_bad_words_are_told_in_one_line(words, said, tmp_path, capsys):
    assert gap_mllm_cli.main(["show", *words, "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_show_takes_the_points_of_an_encoder(tmp_path):
    encoder = "examples/assets/tiny_geometry_encoder"
    words = ["show", "rooms", "--points-from", encoder, "--forms", "ply", "--output", str(tmp_path)]
    assert gap_mllm_cli.main(words) == 0 and (tmp_path / "points.ply").is_file()
