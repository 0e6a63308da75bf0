"""Colour pixels, depth maps of another size, and which pixels may be marked."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.data import RecordError
from gap_mllm.processing.data.scene_sample import View
from gap_mllm.processing.data.task_makers.margins import TaskMargins
from gap_mllm.processing.data.task_makers.scene_cameras import scene_cameras
from tests.processing.data.task_makers.scenes import box_scene, cast, look_at


MARGINS = TaskMargins()
BOX = {"cabinet": [0, 0, 0.6, 1.0, 0.5, 1.2, 0.3]}
POSES = [look_at((2.5, -2.5, 1.5), (0, 0, 0.6)), look_at((1.0, -3.0, 1.2), (0, 0, 0.6))]


def test_points_of_colour_pixels_come_from_depth_maps_of_another_size_and_centre():
    sample, _ = box_scene(BOX, POSES, size=(96, 72))
    exact = scene_cameras(sample, MARGINS)
    sample, _ = box_scene(BOX, POSES, size=(96, 72), depth_size=(200, 150))
    intrinsics = sample.views[1].depth_intrinsics + np.array([[0, 0, 7.0], [0, 0, -4.0], [0, 0, 0]])
    shifted, _ = cast(POSES[1], intrinsics, (200, 150), [b.numbers for b in sample.boxes])
    millimetres = np.round(1000 * shifted).astype(np.uint16)
    views = (sample.views[0], replace(sample.views[1], depth_picture=millimetres, depth_intrinsics=intrinsics))
    cameras = scene_cameras(replace(sample, views=views), MARGINS)
    for camera, other in zip(exact, cameras, strict=True):
        assert other.depth_m.shape == (150, 200)
        both = camera.grid_markable & other.grid_markable
        assert both.mean() > 0.5
        distance = np.linalg.norm(camera.grid_points - other.grid_points, axis=-1)[both]
        assert np.percentile(distance, 99) < 0.01 and distance.max() < 0.05  # millimetres are rounded before


def test_points_lie_in_the_camera_of_view_0():
    sample, ids = box_scene(BOX, POSES)
    second = scene_cameras(sample, MARGINS)[1]
    world = second.grid_points @ POSES[0][:3, :3].T + POSES[0][:3, 3]
    floor = np.abs(world[..., 2]) < 0.003
    assert floor.sum() > 200 and (ids[1][floor] == -1).mean() > 0.99
    inside = np.abs(world - [0, 0, 0.6])[ids[1] == 0]
    assert (inside <= [0.66, 0.45, 0.605]).all()
    pixels, depth = second.project(second.grid_points)
    np.testing.assert_allclose(pixels, second.grid, atol=1e-6)
    np.testing.assert_allclose(depth, second.depth_at(second.grid), atol=1e-9)


def test_a_depth_map_without_intrinsics_is_taken_for_the_resized_view_if_its_sides_allow():
    sample, _ = box_scene(BOX, POSES[:1], depth_size=(192, 144))
    known = scene_cameras(sample, MARGINS)[0]
    (view,) = sample.views
    (guessed,) = scene_cameras(replace(sample, views=(replace(view, depth_intrinsics=None),)), MARGINS)
    np.testing.assert_allclose(guessed.depth_intrinsics[:2, 2], known.depth_intrinsics[:2, 2], atol=1e-9)
    cut = np.asarray(view.depth_picture)[:, :150]
    (other,) = scene_cameras(
        replace(sample, views=(replace(view, depth_intrinsics=None, depth_picture=cut),)), MARGINS
    )
    assert other.depth_m is None and np.isnan(other.grid_points).all() and not other.grid_markable.any()


def test_views_without_pose_or_reading_have_no_camera_or_no_depth():
    sample, _ = box_scene(BOX, [*POSES, *POSES], depths={1: None, 2: np.zeros((72, 96), np.uint16)})
    views = list(sample.views)
    views[3] = replace(views[3], camera_to_world=None)
    cameras = scene_cameras(replace(sample, views=tuple(views)), MARGINS)
    assert cameras[3] is None and cameras[1].depth_m is None and cameras[2].depth_m is None
    views[0] = replace(views[0], camera_to_world=None)
    assert scene_cameras(replace(sample, views=tuple(views)), MARGINS) == [None] * 4
    assert scene_cameras(replace(sample, views=()), MARGINS) == []


def test_marks_keep_away_from_depth_edges_borders_and_holes():
    sample, ids = box_scene(BOX, POSES[:1])
    depth = np.array(sample.views[0].depth_picture)
    depth[40:44, 20:24] = 0
    depth[10, 50] = 60000
    (view,) = sample.views
    (camera,) = scene_cameras(replace(sample, views=(replace(view, depth_picture=depth),)), MARGINS)
    markable = camera.grid_markable
    edges = np.argwhere(ids[0][:, 1:] != ids[0][:, :-1])
    for row, column in edges:
        if abs(float(depth[row, column]) - depth[row, column + 1]) > 300:
            assert not markable[row, max(column - 1, 0) : column + 3].any()
    assert not markable[39:45, 19:25].any() and not markable[9:12, 49:52].any()
    assert not markable[:, :2].any() and not markable[:2].any() and not markable[:, -2:].any()
    assert markable[ids[0] == 0].mean() > 0.3 and markable.mean() > 0.5


def test_wider_pictures_keep_a_wider_distance_from_edges():
    sample, _ = box_scene(BOX, POSES[:1])
    near = scene_cameras(sample, MARGINS)[0].grid_markable
    far = scene_cameras(sample, replace(MARGINS, edge_share=0.06))[0].grid_markable
    assert (far & ~near).sum() == 0 and 0 < far.sum() < near.sum()


def test_the_grid_is_coarse_on_large_pictures_only():
    sample, _ = box_scene(BOX, POSES[:1])
    camera = scene_cameras(sample, MARGINS)[0]
    assert camera.stride == 1 and camera.grid.shape == (72, 96, 2)
    large = replace(camera, size=(1296, 968))
    assert large.stride == 8 and large.grid.shape[0] * large.grid.shape[1] < 20_500
    assert (large.grid[0, 0] == 4).all() and (large.grid[-1, -1] < (1296, 968)).all()


def test_sizes_are_those_of_the_upright_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    assert View({"path": str(path), "bytes": None}).size == (30, 40)
    assert View({"path": None, "bytes": path.read_bytes()}).size == (30, 40)
    assert View(str(path)).size == (30, 40) == View(str(path)).image.size
    buffer = io.BytesIO()
    Image.new("RGB", (21, 9)).save(buffer, format="PNG")
    assert View({"path": None, "bytes": buffer.getvalue()}).size == (21, 9)
    assert View(Image.new("RGB", (5, 7))).size == (5, 7)


def test_pictures_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(RecordError, match="gone.jpg"):
        _ = View({"path": str(tmp_path / "gone.jpg"), "bytes": None}).size
