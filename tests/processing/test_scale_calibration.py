"""One known length scales all that is answered, and nothing moves in the picture of the first view."""

import numpy as np
import pytest

from gap_mllm.processing import (
    MetricScale,
    parse_boxes,
    parse_choice,
    parse_points,
    scale_from_distance,
    scale_from_size,
)
from gap_mllm.processing.answers_gap_mllm import Rejection
from gap_mllm.processing.camera_geometry_gap_mllm import (
    box_corners,
    project_points,
    transform_points,
    view_to_first_view,
)
from gap_mllm.processing.data import render_room
from gap_mllm.processing.data.video_labels import metric_scale


BOX = [0.5, 0.1, 3.0, 0.8, 2.0, 0.4, 0.3, -0.2, 0.1]


def test_two_points_or_a_size_tell_the_factor():
    answer = parse_points('[{"pointmap": [0, 0, 2]}, {"pointmap": [0, 3, 6]}]')
    scale = scale_from_distance(*answer.items, metres=2.0)
    assert scale.factor == 0.4 and scale.source == "known distance"
    assert scale.details == {"answered": 5.0, "metres": 2.0}
    assert scale_from_distance(np.array([0, 0, 2]), [0, 3, 6], 2).factor == 0.4
    (box,) = parse_boxes(f'{{"label": "door", "bbox_3d": {BOX}}}').items
    assert scale_from_size(box, 2.4).factor == pytest.approx(1.2)
    assert [scale_from_size(BOX, 0.8, side).factor for side in "xyz"] == pytest.approx([1.0, 0.4, 2.0])
    assert scale_from_size(box, 2.4).details["side"] == "longest"


def test_a_reconstruction_of_another_scale_is_metric_again():
    room, factor = render_room(0), 0.37
    points = factor * room.points_in_first_view()
    poses = view_to_first_view(room.camera_to_world)
    poses[:, :3, 3] *= factor
    a, b = (0, 90, 20), (2, 60, 100)
    true = np.linalg.norm(room.points_in_first_view()[a] - room.points_in_first_view()[b])
    scale = scale_from_distance(points[a], points[b], true)
    np.testing.assert_allclose(scale.scale_points(points), room.points_in_first_view(), atol=1e-9)
    np.testing.assert_allclose(scale.scale_points(factor * room.depth_m), room.depth_m, rtol=1e-6)
    np.testing.assert_allclose(scale.scale_poses(poses), view_to_first_view(room.camera_to_world), atol=1e-9)
    in_view = transform_points(np.linalg.inv(scale.scale_poses(poses)[1]), scale.scale_points(points[1]))
    again, depth = project_points(in_view, room.intrinsics[1])  # each view still sees its points at its pixels
    grid = np.stack(np.meshgrid(np.arange(128), np.arange(128)), -1)
    np.testing.assert_allclose(again, grid, atol=1e-4)  # pixels; depth maps are float32
    np.testing.assert_allclose(depth, room.depth_m[1], rtol=1e-6)


def test_boxes_stay_where_the_first_view_shows_them():
    scale = MetricScale(1.7, "test")
    intrinsics = np.array([[100.0, 0, 64], [0, 100.0, 64], [0, 0, 1]])
    boxes = np.array([BOX, BOX])
    before, _ = project_points(box_corners(boxes[0], "zxy"), intrinsics)
    after, _ = project_points(box_corners(scale.scale_boxes(boxes)[0], "zxy"), intrinsics)
    np.testing.assert_allclose(after, before, atol=1e-9)
    np.testing.assert_allclose(scale.scale_boxes(boxes)[1, 6:], BOX[6:])
    assert boxes[0, 0] == 0.5  # not changed in place


def test_answers_are_scaled_whole():
    answer = parse_points('[{"label": "a", "pointmap": [1, 2, 3]}, {"pointmap": [1]}, {"pointmap": [4, 5, 6]}]')
    scaled = MetricScale(2.0, "test").scale_answer(answer)
    assert [item.point for item in scaled.items] == [(2, 4, 6), (8, 10, 12)] and scaled.first.label == "a"
    assert isinstance(scaled.entries[1], Rejection) and scaled.entries[2].point == (8, 10, 12)
    assert scaled.rejected == answer.rejected
    boxes = MetricScale(2.0, "test").scale_answer(parse_boxes(f'[{{"label": "door", "bbox_3d": {BOX}}}]'))
    assert boxes.first.bbox_3d[:6] == tuple(2 * number for number in BOX[:6]) and boxes.first.label == "door"
    assert MetricScale(2.0, "test").scale_answer(parse_points("nothing")).items == ()
    with pytest.raises(TypeError, match="has no length"):
        MetricScale(2.0, "test").scale_answer(parse_choice("(B)"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scale_from_distance([0, 0, 1], [0, 0, 1], 1.0), "are 0 apart, of which no scale can be told"),
        (lambda: scale_from_distance([0, 0, 1], [0, 0, 1.0005], 1.0), "are 0.0005 apart"),
        (lambda: scale_from_distance([0, 0, 1], [0, 0, 2], 0), "metres is 0; expected a positive finite number"),
        (lambda: scale_from_distance([0, 0, 1], [0, 0, 2], float("inf")), "metres is inf"),
        (lambda: scale_from_distance([0, 0], [0, 0, 2], 1), r"a point is \[0.0, 0.0\]; expected 3 finite numbers"),
        (lambda: scale_from_distance([0, 0, float("nan")], [0, 0, 2], 1), "expected 3 finite numbers"),
        (lambda: scale_from_size(BOX[:6], 1), "expected 9 finite numbers"),
        (lambda: scale_from_size(BOX, 1, "height"), "side is 'height'; expected longest, x, y, z"),
        (lambda: scale_from_size([*BOX[:3], 1, 0, 1, *BOX[6:]], 1, "y"), "the y side of the box .* is 0"),
        (lambda: MetricScale(-1.0, "mine"), r"the scale factor \(mine\) is -1.0"),
        (lambda: MetricScale(2.0, "mine").scale_boxes([1, 2, 3]), r"boxes has shape \(3,\)"),
        (lambda: MetricScale(2.0, "mine").scale_poses(np.eye(3)), r"camera_to_world has shape \(3, 3\)"),
    ],
)
def test_what_tells_no_scale_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(TypeError, match="metres is 'one'"):
        scale_from_distance([0, 0, 1], [0, 0, 2], "one")


def test_labels_of_videos_use_the_same_type():
    assert metric_scale.MetricScale is MetricScale
