"""Masks that grow from 3D points: over a box in a room, into other views, and not over floor, walls or gaps."""

import math

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing import draw_masks, segment_from_points
from gap_mllm.processing.data import render_room
from gap_mllm.processing.scores import mask_overlap


@pytest.fixture(scope="module")
def room():
    return render_room(2)


def cameras(room):
    return room.depth_m, room.intrinsics, room.camera_to_world


def largest(room):
    """The piece of furniture that the views show most of, its mask, and a point in the middle of what is seen."""
    counts = np.bincount(room.instance_ids[room.instance_ids > 0])
    number = int(counts.argmax())
    truth = room.instance_ids == number
    view = int(truth.sum((1, 2)).argmax())
    rows, columns = np.nonzero(truth[view])
    middle = np.hypot(rows - rows.mean(), columns - columns.mean()).argmin()
    return truth, room.points_in_first_view()[view, rows[middle], columns[middle]]


def test_a_piece_of_furniture_is_segmented_in_all_views(room):
    truth, seed = largest(room)
    masks = segment_from_points([seed], *cameras(room))
    overlap = mask_overlap(masks, truth)
    assert overlap.iou > 0.85 and masks.dtype == bool and masks.shape == truth.shape
    shown = truth.mean((1, 2)) > 0.01
    assert shown.sum() > 1 and (np.array(overlap.view_ious)[shown] > 0.7).all()


def test_nothing_depends_on_the_world_of_the_poses(room):
    _, seed = largest(room)
    moved = np.eye(4)
    moved[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    moved[:3, 3] = (3, -2, 1)
    expected = segment_from_points([seed], *cameras(room))
    depth, intrinsics, poses = cameras(room)
    again = segment_from_points([seed], depth, intrinsics[0], moved @ poses)
    assert (expected == again).mean() > 0.999


def scene(depth):
    """Two cameras that see one depth map from one place."""
    intrinsics = np.array([[40.0, 0, 31.5], [0, 40.0, 31.5], [0, 0, 1]])
    return np.stack([depth, depth]), intrinsics, np.stack([np.eye(4)] * 2)


def wall_with_box(gap=0.5):
    depth = np.full((64, 64), 3.0)
    depth[20:44, 20:44] = 3.0 - gap
    return depth


def test_growth_stops_at_steps_of_depth_and_fills_the_surface():
    masks = segment_from_points([[0, 0, 2.5]], *scene(wall_with_box()))
    expected = np.zeros((64, 64), dtype=bool)
    expected[20:44, 20:44] = True
    assert (masks == expected).all()
    behind = segment_from_points([[2, 0, 3.0]], *scene(wall_with_box()), max_radius_m=6.0)
    assert (behind == ~expected).all()


def test_floor_and_what_stands_on_it_are_apart_without_a_step():
    rows = np.arange(64)[:, None] * np.ones((1, 64))
    floor = np.where(rows > 32, 40.0 / np.maximum(rows - 31.5, 0.5), 20.0)  # 1 m below the camera
    depth = np.minimum(floor, 20.0)
    stands = depth[50, 0]  # an upright board whose lower edge is on the floor
    depth[25:51, 25:40] = stands
    masks = segment_from_points([[0, 0.2, stands]], *scene(depth))[0]
    assert masks[25:50, 25:40].all() and not masks[:, :24].any() and not masks[53:].any()


def test_hidden_pixels_of_another_view_are_left_out():
    depths, intrinsics, poses = scene(wall_with_box())
    depths[1, :, 32:] = 1.0  # something stands before the right half
    masks = segment_from_points([[0, 0, 2.5]], depths, intrinsics, poses)
    assert masks[0, 20:44, 20:44].all() and masks[1, 20:44, 20:32].all() and not masks[1, :, 32:].any()


def test_points_go_to_the_nearest_surface_within_reach():
    on = segment_from_points([[0, 0, 2.5]], *scene(wall_with_box()))
    assert (segment_from_points([[0, 0, 2.3]], *scene(wall_with_box())) == on).all()
    with pytest.raises(ValueError, match=r"point 2, \[0.0, 0.0, 1.0\], is 1.50 m from all .* reach_m=0.5"):
        segment_from_points([[0, 0, 2.5], [0, 0, 1.0]], *scene(wall_with_box()))
    assert (segment_from_points([[0, 0, 1.0]], *scene(wall_with_box()), reach_m=None) == on).all()
    near = segment_from_points([[0, 0, 2.5]], *scene(wall_with_box()), max_radius_m=0.3)
    assert 0 < near.sum() < on.sum() and not near[~on].any()


def test_a_point_whose_pixel_has_no_reading_takes_the_nearest_that_has():
    depth = wall_with_box()
    depth[28:36, 28:36] = (0.0, np.nan, -1.0, np.inf) * 2
    masks = segment_from_points([[0, 0, 2.5]], *scene(depth))
    assert masks[0, 20:28, 20:44].all() and not masks[0, 28:36, 28:36].any()


def test_noisy_depth_is_averaged_within_a_surface():
    depth, intrinsics, poses = scene(wall_with_box())
    noisy = depth * (1 + 0.003 * np.random.default_rng(0).standard_normal(depth.shape))
    rough, smooth = (
        segment_from_points([[0, 0, 2.5]], noisy, intrinsics, poses, smoothing_px=reach)[0] for reach in (0, 1)
    )
    truth = depth[0] < 2.9
    assert mask_overlap(smooth[None], truth[None]).iou > 0.95
    exact = segment_from_points([[0, 0, 2.5]], depth, intrinsics, poses, smoothing_px=2)[0]
    assert (exact == truth).all() and not (smooth & ~truth).any() and rough.sum() <= smooth.sum()


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (np.zeros((0, 3)), {}, r"points has shape \(0, 3\)"),
        ([1.0, 2.0, 3.0], {}, r"points has shape \(3,\)"),
        ([[1.0, math.nan, 3.0]], {}, "expected finite numbers"),
        ([[0, 0, 2.5]], {"reach_m": 0}, "reach_m is 0; expected a positive finite number"),
        ([[0, 0, 2.5]], {"max_radius_m": math.inf}, "max_radius_m is inf"),
        ([[0, 0, 2.5]], {"smoothing_px": -1}, "smoothing_px is -1; expected 0 or more"),
        ([[0, 0, 2.5]], {"smoothing_px": 1, "depth_m": np.ones((64, 64))}, r"depth_m has shape \(64, 64\)"),
        ([[0, 0, 2.5]], {"depth_m": np.zeros((2, 64, 64))}, "none of 2 views has a reading of depth"),
        ([[0, 0, 2.5]], {"depth_m": np.ones((64, 64))}, r"depth_m has shape \(64, 64\)"),
        ([[0, 0, 2.5]], {"camera_to_world": np.eye(4)}, r"camera_to_world has shape \(4, 4\)"),
        ([[0, 0, 2.5]], {"camera_to_world": np.stack([np.eye(4), np.diag([1, 1, -1, 1.0])])}, "camera_to_world"),
        ([[0, 0, 2.5]], {"intrinsics": np.ones((4, 4))}, r"intrinsics has shape \(4, 4\)"),
    ],
)
def test_wrong_input_is_named(points, options, message):
    depth_m, intrinsics, poses = scene(wall_with_box())
    given = {"depth_m": depth_m, "intrinsics": intrinsics, "camera_to_world": poses} | options
    with pytest.raises(ValueError, match=message):
        segment_from_points(points, **given)


def test_depth_in_integers_is_refused():
    depth_m, intrinsics, poses = scene(wall_with_box())
    with pytest.raises(TypeError):
        segment_from_points([[0, 0, 2.5]], (1000 * depth_m).astype(np.uint16), intrinsics, poses)


def test_masks_are_drawn(room):
    masks = np.zeros((2, 64, 64), dtype=bool)
    masks[0, :32] = True
    views = [Image.new("RGB", (128, 128), "white")] * 2
    first, second = draw_masks(views, masks, "blue")
    assert first.getpixel((5, 5)) == (127, 127, 255) and first.getpixel((5, 100)) == (255, 255, 255)
    assert np.array_equal(second, views[1])
    with pytest.raises(ValueError, match="1 views and 2 masks"):
        draw_masks(views[:1], masks)
    with pytest.raises(ValueError, match="unknown colour 'mauve'"):
        draw_masks(views, masks, "mauve")


def test_overlaps_of_masks():
    truth = np.zeros((3, 4, 4), dtype=bool)
    truth[0, :2] = True
    half = truth.copy()
    half[0, 0] = False
    overlap = mask_overlap(half, truth)
    assert overlap.iou == 0.5 and overlap.view_ious[0] == 0.5 and overlap.mean_view_iou == 0.5
    assert all(math.isnan(value) for value in overlap.view_ious[1:])
    extra = truth.copy()
    extra[2] = True
    assert mask_overlap(extra, truth).view_ious[2] == 0 and mask_overlap(extra, truth).mean_view_iou == 0.5
    for masks, true, error in ((half[0], truth, ValueError), (half, ~truth & truth, ValueError)):
        with pytest.raises(error):
            mask_overlap(masks, true)
    with pytest.raises(TypeError, match="masks is float64"):
        mask_overlap(half.astype(float), truth)


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan])
def test_cameras_without_a_focal_length_are_refused(factor):
    room = render_room(0)
    seed = room.points_in_first_view()[0, 60, 60]
    with pytest.raises(ValueError, match="expected finite numbers and focal lengths above 0"):
        segment_from_points([seed], room.depth_m, room.intrinsics * factor, room.camera_to_world)
