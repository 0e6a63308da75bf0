"""Boxes and points drawn into views: lines where the object is, nothing from behind the camera, honest about gaps."""

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.camera_geometry_gap_mllm import box_corners, project_points
from gap_mllm.processing.data import RecordError, SceneSample, load_multiview
from gap_mllm.processing.data.box_projection import (
    BOX_EDGES,
    NEAR_M,
    box_segments,
    cut_at_border,
    cut_at_camera,
    is_hidden,
)
from gap_mllm.processing.data.scene_sample import Box, Point, SceneMark, View
from gap_mllm.processing.data.view_overlay import OBJECT_COLORS, draw_view, object_colors, object_name
from tests.processing.data.formats import FORMATS


SIZE = (200, 150)
INTRINSICS = np.array([[150.0, 0, 99.5], [0, 150, 74.5], [0, 0, 1]])


def view_of(color="white", **fields):
    fields = {"intrinsics": INTRINSICS, "camera_to_world": np.eye(4), **fields}
    return View(picture=Image.new("RGB", SIZE, color), **fields)


def is_color(picture, pixel, color, tolerance=60):
    return (
        np.abs(np.subtract(picture.getpixel(tuple(int(round(float(value))) for value in pixel)), color)).max()
        < tolerance
    )


# Lines of boxes


def test_a_box_has_twelve_edges_between_two_faces_each():
    assert len(BOX_EDGES) == 12 and all(len(faces) == 2 for _, _, faces in BOX_EDGES)
    assert all(sum(corner in edge[:2] for edge in BOX_EDGES) == 3 for corner in range(8))


def test_edges_join_the_projected_corners():
    box = np.array([0.1, -0.1, 3, 1, 0.8, 0.6, 0.3, 0.2, -0.4])
    segments = box_segments(box, "zxy", INTRINSICS, SIZE)
    corners, _ = project_points(box_corners(box, "zxy"), INTRINSICS)
    assert len(segments) == 12
    for (start, end, _), (first, second, _) in zip(segments, BOX_EDGES, strict=True):
        assert np.allclose(start, corners[first]) and np.allclose(end, corners[second])


@pytest.mark.parametrize(
    ("center", "num_near"),
    [((0, 0, 3), 4), ((1.2, 0, 3), 7), ((1, 0.8, 3), 9), ((0, 0, 0.1), None)],
    ids=["one face", "two faces", "three faces", "from inside"],
)
def test_near_edges_belong_to_faces_turned_to_the_camera(center, num_near):
    segments = box_segments(np.array([*center, 0.6, 0.6, 0.6, 0, 0, 0]), "zxy", INTRINSICS, SIZE)
    near = [is_near for _, _, is_near in segments]
    assert all(near) if num_near is None else sum(near) == num_near


def test_what_is_behind_the_camera_is_not_drawn():
    behind = np.array([0.1, 0.1, -3, 1, 1, 1, 0.3, 0, 0])
    assert box_segments(behind, "zxy", INTRINSICS, SIZE) == []
    assert cut_at_camera(np.array([0, 0, -1.0]), np.array([0, 0, NEAR_M / 2])) is None
    start, end = cut_at_camera(np.array([0.0, 1, -1]), np.array([2.0, 1, 3]))
    assert np.allclose(start, [(1 + NEAR_M) / 2, 1, NEAR_M]) and end.tolist() == [2, 1, 3]


def test_lines_are_cut_at_the_border():
    start, end = cut_at_border(np.array([-100.0, 10]), np.array([300.0, 10]), SIZE)
    assert start.tolist() == [-0.5, 10] and end.tolist() == [199.5, 10]
    assert cut_at_border(np.array([-100.0, 10]), np.array([-50.0, 90]), SIZE) is None
    assert cut_at_border(np.array([-100.0, 500]), np.array([300.0, 500]), SIZE) is None
    start, end = cut_at_border(np.array([50.0, -1e7]), np.array([50.0, 1e7]), SIZE)
    assert np.allclose([start, end], [[50, -0.5], [50, 149.5]])
    same = np.array([3.0, 4.0])
    assert np.array_equal(cut_at_border(same, same, SIZE), [same, same])


def test_cut_lines_hold_exactly_what_can_be_seen():
    """Boxes anywhere around the camera, also through it: points along the edges against the lines that are drawn."""
    rng = np.random.default_rng(0)
    num_cut = 0
    for _ in range(150):
        box = np.concatenate([rng.uniform(-1.5, 1.5, 3), rng.uniform(0.3, 2, 3), rng.uniform(-3, 3, 3)])
        corners = box_corners(box, "ZXY")
        segments = box_segments(box, "ZXY", INTRINSICS, SIZE)
        for start, end, _ in segments:
            assert (np.minimum(start, end) > -0.51).all() and (np.maximum(start, end) < np.array(SIZE) - 0.49).all()
        for first, second, _ in BOX_EDGES:
            along = corners[first] + np.linspace(0, 1, 60)[:, None] * (corners[second] - corners[first])
            pixels, depth = project_points(along, INTRINSICS)
            seen = pixels[
                (depth >= NEAR_M)
                & (np.nan_to_num(pixels, nan=-9) > -0.5).all(-1)
                & (pixels < np.array(SIZE) - 0.5).all(-1)
            ]
            num_cut += 0 < len(seen) < 60
            for pixel in seen:
                assert min(distance_to_line(pixel, start, end) for start, end, _ in segments) < 1e-6
    assert num_cut > 100


def distance_to_line(pixel, start, end):
    step = end - start
    place = np.clip((pixel - start) @ step / max(step @ step, 1e-12), 0, 1)
    return np.abs(start + place * step - pixel).max()


# Hidden points


def test_a_point_behind_the_measured_surface_is_hidden():
    depth = Image.fromarray(np.full((75, 100), 2000, np.uint16))
    half = np.array([[75.0, 0, 49.5], [0, 75, 37], [0, 0, 1]])
    view = view_of(depth_picture=depth, depth_scale=1000, depth_intrinsics=half)
    assert is_hidden(np.array([0, 0, 3.0]), view) and not is_hidden(np.array([0, 0, 2.05]), view)
    assert not is_hidden(np.array([0, 0, 1.0]), view)
    assert not is_hidden(np.array([9.0, 0, 3]), view)  # outside
    assert not is_hidden(np.array([0, 0, -3.0]), view)
    assert not is_hidden(np.array([0, 0, 3.0]), view_of())  # no depth
    nothing = Image.fromarray(np.zeros((75, 100), np.uint16))
    view = view_of(depth_picture=nothing, depth_scale=1000, depth_intrinsics=half)
    assert not is_hidden(np.array([0, 0, 3.0]), view)


# Drawing


@pytest.mark.parametrize("width", [200, 400, 150])
def test_boxes_are_drawn_where_they_project(width):
    box = Box(np.array([0, 0, 3.0, 1, 1, 1, 0, 0, 0]), "zxy", "camera", 0, label="chair")
    drawn = draw_view(SceneSample(views=(view_of(),), boxes=(box,)), 0, width)
    assert drawn.picture.size == (width, round(width * 0.75)) and (drawn.boxes, drawn.problems) == ([0], [])
    scale = width / 200
    corners, _ = project_points(box_corners(box.numbers, "zxy")[:4], INTRINSICS)  # the front face
    for place in np.linspace(0, 1, 9)[1:-1]:
        pixel = (corners[0] * place + corners[3] * (1 - place) + 0.5) * scale - 0.5
        assert is_color(drawn.picture, pixel, OBJECT_COLORS[0])
    assert is_color(drawn.picture, ((99.5 + 0.5) * scale - 0.5, (74.5 + 0.5) * scale - 0.5), (255, 255, 255))


def test_points_and_their_pixels_are_drawn():
    points = (Point(0, (120.0, 60.0), np.array([0.4, -0.3, 3]), label="wall"), Point(0, (30.0, 100.0), None))
    drawn = draw_view(SceneSample(views=(view_of(),), points=points), 0, 400)
    center = (99.5 + 150 * 0.4 / 3 + 0.5) * 2 - 0.5, (74.5 - 150 * 0.3 / 3 + 0.5) * 2 - 0.5
    assert is_color(drawn.picture, center, OBJECT_COLORS[0]) and (drawn.points, drawn.hidden) == ([0], [])
    assert is_color(drawn.picture, (60.5 - 8, 200.5), OBJECT_COLORS[1], 140)  # the left side of its square
    assert is_color(drawn.picture, (60.5, 200.5), (255, 255, 255))  # no dot: its place is not known


def test_a_hidden_point_is_a_ring():
    depth = Image.fromarray(np.full((150, 200), 1000, np.uint16))
    view = view_of(depth_picture=depth, depth_scale=1000, depth_intrinsics=INTRINSICS)
    points = (Point(1, None, np.array([0.4, -0.3, 3])),)
    drawn = draw_view(SceneSample(views=(view, view), points=points), 0, 400)
    center = (99.5 + 150 * 0.4 / 3 + 0.5) * 2 - 0.5, (74.5 - 150 * 0.3 / 3 + 0.5) * 2 - 0.5
    assert drawn.points == drawn.hidden == [0] and is_color(drawn.picture, center, (255, 255, 255))
    assert is_color(drawn.picture, (center[0] + 5, center[1]), OBJECT_COLORS[0], 120)


def test_points_behind_or_beside_are_not_drawn():
    points = (Point(0, None, np.array([0, 0, -2.0])), Point(0, None, np.array([5.0, 0, 2])))
    drawn = draw_view(SceneSample(views=(view_of(),), points=points), 0, 200)
    assert drawn.points == [] and np.asarray(drawn.picture).min() == 255


def test_objects_are_drawn_into_every_view_with_a_pose():
    moved = np.eye(4)
    moved[0, 3] = 0.5
    box = Box(np.array([0, 0, 3.0, 1, 1, 1, 0, 0, 0]), "zxy", "camera", 0)
    views = (view_of(), view_of(camera_to_world=moved), view_of(camera_to_world=None), view_of(intrinsics=None))
    point = Point(0, None, np.array([0.0, 0, 2]))
    sample = SceneSample(views=views, boxes=(box,), points=(point,), pose_frame="scan")
    drawn = [draw_view(sample, view, 200) for view in range(4)]
    assert [one.boxes for one in drawn] == [[0], [0], [], []] and [one.points for one in drawn] == [[0], [0], [], []]
    assert is_color(drawn[1].picture, (99.5 - 150 * 0.5 / 2, 74.5), OBJECT_COLORS[1])
    assert drawn[2].problems == ["view 2 has no pose."] and drawn[3].problems == ["no intrinsics"]


def test_a_box_without_an_order_is_a_problem_not_a_crash():
    box = Box(np.array([0, 0, 3.0, 1, 1, 1, 0, 0, 0]), None, "camera", 0)
    [problem] = draw_view(SceneSample(views=(view_of(),), boxes=(box,)), 0, 200).problems
    assert "order is None" in problem


def test_marks_are_those_that_the_model_sees():
    marks = (SceneMark(1, "cross", "red", (50, 60)),)
    sample = SceneSample(views=(view_of(), view_of()), marks=marks)
    assert is_color(draw_view(sample, 1, 200).picture, (58, 60), (255, 0, 0))
    assert np.asarray(draw_view(sample, 0, 200).picture).min() == 255
    outside = SceneSample(id="s", views=(view_of(),), marks=(SceneMark(0, "cross", "red", (500, 60)),))
    with pytest.raises(RecordError, match="view 0: .*outside") as caught:
        draw_view(outside, 0, 200)
    assert (caught.value.field, caught.value.record_id) == ("marks", "s")


def test_a_view_that_cannot_be_decoded_is_named(tmp_path):
    with pytest.raises(RecordError, match="none.jpg cannot be decoded"):
        draw_view(SceneSample(views=(View(picture=str(tmp_path / "none.jpg")),)), 0, 200)


def test_parts_of_one_object_share_a_colour():
    boxes = [Box(np.ones(9), "zxy", "scan", instance_id=name) for name in ("a", None, "b", "a")]
    points = [Point(0, None, None, instance_id=name) for name in ("b", None)]
    box_colors, point_colors = object_colors(SceneSample(boxes=tuple(boxes), points=tuple(points)))
    assert box_colors[0] == box_colors[3] and box_colors[2] == point_colors[0]
    assert len({*box_colors, *point_colors}) == 4
    many = SceneSample(boxes=tuple(Box(np.ones(9), "zxy", "scan") for _ in range(30)))
    assert object_colors(many)[0][12] == OBJECT_COLORS[0]
    assert object_name(boxes[0], 3) == "3"
    assert object_name(Box(np.ones(9), "zxy", "scan", role="input"), 1) == "1 input"


def test_boxes_of_the_fixtures_lie_on_the_objects(tmp_path):
    """Table and chair of the toy room are brown and blue; the middle of each box shows that colour."""
    rows = load_multiview("gap_mllm", FORMATS / "gap_mllm", "train", cache_dir=tmp_path, tasks=["detection3d"])
    num_seen = 0
    for sample in map(SceneSample.from_row, rows):
        for view, shown in enumerate(sample.views):
            for box in sample.boxes:
                pixel, depth = project_points(sample.box_in_view(box, view)[:3], shown.intrinsics)
                inside = depth > 0 and (pixel > 10).all() and (pixel < np.array(shown.image.size) - 10).all()
                if box.label in ("table", "chair") and inside:
                    red, _, blue = shown.image.getpixel(tuple(np.rint(pixel).astype(int).tolist()))
                    assert (red > blue + 40) if box.label == "table" else (blue > red + 40)
                    num_seen += 1
    assert num_seen >= 5
