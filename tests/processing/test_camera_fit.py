"""Intrinsics of another picture size are scaled where both sides agree, and refused else; poses of lost tracking."""

import numpy as np
import pytest
import torch

from gap_mllm.processing.camera_geometry_gap_mllm import (
    check_pose_known,
    check_rigid,
    fit_intrinsics,
    is_same_shape,
    lost_pose_reason,
)


def camera(focal, x, y):
    return np.array([[focal, 0.0, x], [0.0, focal, y], [0.0, 0.0, 1.0]])


def middle(width, height, focal=1000.0):
    return camera(focal, (width - 1) / 2, (height - 1) / 2)


@pytest.mark.parametrize(
    ("stated", "size", "expected"),
    [
        ((1920, 1440), (640, 480), [500.0, 500.0, 319.5, 239.5]),  # ARKit's; a third
        ((640, 480), (1920, 1440), [4500.0, 4500.0, 959.5, 719.5]),
        ((1957, 1091), (979, 546), [1500 * 979 / 1957, 1500 * 546 / 1091, 489.0, 272.5]),  # images_2: halves, rounded
        ((4946, 3286), (618, 410), [1500 * 618 / 4946, 1500 * 410 / 3286, 308.5, 204.5]),  # images_8: halves, floored
    ],
)
def test_a_stated_size_scales_each_axis_about_the_corner_of_the_picture(stated, size, expected):
    fitted, said = fit_intrinsics(middle(*stated, focal=1500.0), size, stated)
    np.testing.assert_allclose(fitted[[0, 1, 0, 1], [0, 1, 2, 2]], expected, rtol=1e-12)
    assert said == f"intrinsics: scaled from pictures of {stated[0]} x {stated[1]} to {size[0]} x {size[1]} pixels."


def test_intrinsics_of_the_stated_size_stay_as_they_are_wherever_their_principal_point_is():
    for given in (camera(500, 600, 20), torch.tensor(camera(500, 600, 20)), camera(500, 600, 20).tolist()):
        fitted, said = fit_intrinsics(given, (640, 480), (640, 480))
        assert said is None and fitted.tolist() == camera(500, 600, 20).tolist()


@pytest.mark.parametrize(
    ("stated", "size", "says"),
    [
        ((640, 480), (640, 360), "640 x 480 pixels .* the picture has 640 x 360.* cropped or squeezed"),
        ((1296, 968), (640, 480), "1296 x 968 .* 640 x 480.* cropped or squeezed"),  # 1296 x 0.4959 is 642.6
        ((640, 480), (480, 640), "the picture has 480 x 640. It is turned by a quarter"),
        ((1000, 800), (500, 402), "cropped or squeezed"),  # two pixels are no rounding
    ],
)
def test_another_shape_is_refused_with_both_sizes(stated, size, says):
    with pytest.raises(ValueError, match=f"cameras are of .*{says}"):
        fit_intrinsics(middle(*stated), size, stated, "cameras")
    assert not is_same_shape(stated, size)


def test_one_pixel_of_rounding_is_allowed_on_each_side():
    assert is_same_shape((1000, 800), (501, 399)) and not is_same_shape((1000, 800), (501, 398))
    assert is_same_shape((1000, 800), (500, 401)) and is_same_shape((1000, 800), (499, 400))


@pytest.mark.parametrize("ratio", [1.5, 2, 2.5, 3, 7.5, 16])
def test_a_size_that_nobody_states_is_inferred_from_the_principal_point(ratio):
    size = (640, 480)
    larger = middle(640 * ratio, 480 * ratio)
    fitted, said = fit_intrinsics(larger, size)
    np.testing.assert_allclose(fitted, middle(*size, focal=1000 / ratio), rtol=1e-12)
    assert f"a picture of {640 * ratio:g} x {480 * ratio:g} pixels, not of 640 x 480" in said
    assert "inferred; intrinsics_size=(width, height) states it" in said
    if ratio < 10:  # the other way around
        fitted, said = fit_intrinsics(middle(*size), (640 * ratio, 480 * ratio))
        np.testing.assert_allclose(fitted, middle(640 * ratio, 480 * ratio, 1000 * ratio), rtol=1e-12)
        assert said is not None


def test_the_camera_of_images_2_is_recognised():
    fitted, said = fit_intrinsics(camera(1000, 978, 545), (979, 546))
    np.testing.assert_allclose(fitted, camera(500, 488.75, 272.25))
    assert "1958 x 1092" in said


@pytest.mark.parametrize(("x", "y"), [(319.5, 239.5), (300, 260), (200, 330), (426, 300)])
def test_principal_points_in_the_middle_half_stay(x, y):
    fitted, said = fit_intrinsics(camera(500, x, y), (640, 480))
    assert said is None and fitted.tolist() == camera(500, x, y).tolist()


@pytest.mark.parametrize(
    ("given", "size", "says"),
    [
        (
            camera(1000, 958.5, 539.5),
            (640, 480),
            r"at \(958.5, 539.5\), far from the middle .* 640 x 480",
        ),  # 3 and 2.25
        (camera(1000, 639.5, 300), (640, 480), "State the size that they were made for, intrinsics_size="),
        (camera(1000, -20, 239.5), (640, 480), "far from the middle"),
        (camera(1.2, 0.5, 0.5), (512, 512), "shares of it: multiply them by its width and height"),
        (camera(1.2, 0.5, 0.5), (16, 16), "shares of it"),  # no camera of 2 x 2 pixels
        (camera(1000, 20 * 320, 20 * 240), (640, 480), "far from the middle"),
        (camera(np.nan, 320, 240), (640, 480), r"expected \(3, 3\) finite numbers"),
        (np.eye(4), (640, 480), r"expected \(3, 3\) finite numbers"),
    ],
)
def test_what_belongs_to_no_size_of_the_picture_is_refused(given, size, says):
    with pytest.raises(ValueError, match=f"intrinsics of view 2 .*{says}"):
        fit_intrinsics(given, size, name="intrinsics of view 2")


@pytest.mark.parametrize("size", [(0, 480), (640, -1), (640, np.nan), 640, (640, 480, 3), "ab"])
def test_sizes_are_two_numbers_above_0(size):
    for name, sizes in (("size", (size,)), ("intrinsics_size", ((640, 480), size))):
        with pytest.raises(ValueError, match=rf"^{name} is .*expected \(width, height\) in pixels"):
            fit_intrinsics(middle(640, 480), *sizes)


# Poses


def changed(place, value):
    pose = np.eye(4)
    pose[place] = value
    return pose


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    ("pose", "reason"),
    [
        (np.full((4, 4), -np.inf), "NaN or infinity"),  # ScanNet
        (np.full((4, 4), np.nan), "NaN or infinity"),
        (changed((0, 3), np.inf), "NaN or infinity"),
        (changed((3, 0), np.nan), "NaN or infinity"),
        (np.zeros((4, 4)), "a rotation of zeros"),
        (changed(slice(3), 0.0), "a rotation of zeros"),
    ],
)
def test_poses_of_lost_tracking_are_named_as_such(kind, pose, reason):
    with pytest.raises(ValueError, match=f"^poses of view 3 (hold|have) {reason}.*lost tracking; pass None for this"):
        check_pose_known(kind(pose), "poses of view 3")
    poses = np.stack([np.eye(4), pose])
    with pytest.raises(ValueError, match=f"camera_to_world: matrix 1 is not rigid: it .* {reason}.*lost tracking"):
        check_rigid(kind(poses), "camera_to_world")


def test_other_poses_are_known_whether_or_not_they_are_rigid():
    for pose in (np.eye(4), np.diag([1.0, 1, -1, 1]), 2 * np.eye(4), np.eye(4, dtype=int)):
        assert lost_pose_reason(pose) is None
        check_pose_known(pose)
