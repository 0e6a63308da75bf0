"""Upright pictures of all eight EXIF orientations, with pixels, intrinsics, poses and depth turned alongside."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from gap_mllm.processing.camera_geometry_gap_mllm import is_rigid
from gap_mllm.processing.view_files_gap_mllm import EXIF_ORIENTATION, Orientation


SIZE = (7, 5)  # width and height as stored
CAMERA = np.array([[8.0, 0, 3.2], [0, 9, 1.7], [0, 0, 1]])
ROTATIONS, MIRRORED = (1, 3, 6, 8), (2, 4, 5, 7)


def stored_png(value):
    pixels = np.arange(35 * 3, dtype=np.uint8).reshape(5, 7, 3)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = value
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", exif=exif)
    return pixels, Image.open(buffer)


@pytest.mark.parametrize("value", range(1, 9))
def test_pixels_and_sizes_are_those_of_pillow(value):
    pixels, image = stored_png(value)
    turn, upright = Orientation.of_picture(image), np.asarray(ImageOps.exif_transpose(image))
    assert (turn.array(pixels) == upright).all()
    assert turn.size(SIZE) == upright.shape[1::-1]
    for x, y in ((0, 0), (6, 1), (2, 4)):
        column, row = turn.pixels([x, y], SIZE).astype(int)
        assert (upright[row, column] == pixels[y, x]).all()
    assert turn.is_mirrored == (value in MIRRORED) and turn.is_upright == (value == 1)


@pytest.mark.parametrize("value", ROTATIONS)
def test_a_point_of_the_world_is_seen_at_its_pixel(value):
    turn, pose = Orientation.from_exif(value), np.eye(4)
    pose[:3, :3], pose[:3, 3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [1, 2, 3]
    turned = turn.pose(pose)
    assert is_rigid(turned)
    camera = turn.intrinsics(CAMERA, SIZE)
    for pixel in ([0.0, 0.0], [5.0, 2.0]):
        ray = np.linalg.inv(CAMERA) @ [*pixel, 1]
        world = pose[:3, :3] @ (2.5 * ray) + pose[:3, 3]
        seen = camera @ (turned[:3, :3].T @ (world - turned[:3, 3]))
        assert np.allclose(seen[:2] / seen[2], turn.pixels(pixel, SIZE)) and np.isclose(seen[2], 2.5)


@pytest.mark.parametrize("value", MIRRORED)
def test_mirrored_pictures_have_intrinsics_and_no_pose(value):
    turn = Orientation.from_exif(value)
    camera = turn.intrinsics(CAMERA, SIZE)
    assert (np.diag(camera) > 0).all() and np.allclose(camera[:2, 2], turn.pixels(CAMERA[:2, 2], SIZE))
    with pytest.raises(ValueError, match="stored mirrored, and no rigid pose"):
        turn.pose(np.eye(4))


def test_skew():
    skewed = CAMERA + np.array([[0, 0.5, 0], [0, 0, 0], [0, 0, 0]])
    assert Orientation.from_exif(3).intrinsics(skewed, SIZE)[0, 1] == 0.5
    assert Orientation.from_exif(2).intrinsics(skewed, SIZE)[0, 1] == -0.5
    with pytest.raises(ValueError, match="intrinsics have skew 0.5, and the picture has to be turned by a quarter"):
        Orientation.from_exif(6).intrinsics(skewed, SIZE)


def test_values_that_exif_does_not_know_and_display_matrices():
    assert Orientation.from_exif(None).is_upright and Orientation.from_exif(9).is_upright
    assert Orientation.from_display_matrix([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30]) == Orientation.from_exif(6)
    assert Orientation.from_display_matrix([-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30]) == Orientation.from_exif(2)


@pytest.mark.parametrize("value", range(1, 9))
def test_axes_say_where_the_stored_right_and_down_point(value):
    turn = Orientation.from_exif(value)
    assert turn.exif_value == value
    first, right, down = turn.pixels(np.array([[5.0, 5.0], [6.0, 5.0], [5.0, 6.0]]), SIZE)
    assert (turn.axes()[:2, 0] == right - first).all() and (turn.axes()[:2, 1] == down - first).all()
    assert np.linalg.det(turn.axes()) == (-1 if turn.is_mirrored else 1)
