"""Which pixels are sure, and what is stored of them: against rendered truth."""

import numpy as np
import pytest
import torch

from gap_mllm.processing.camera_geometry_gap_mllm import scale_intrinsics, unproject_depth
from gap_mllm.processing.data import render_room
from gap_mllm.processing.data.scene_sample import View
from gap_mllm.processing.data.task_makers import TaskScene
from gap_mllm.processing.data.task_makers.task_scene import Marked
from gap_mllm.processing.data.task_makers.visibility import find_again
from gap_mllm.processing.data.video_labels.labelled_scenes import clip_scenes, label_views
from gap_mllm.processing.data.video_labels.sure_pixels import find_label_pixels
from gap_mllm.processing.data.video_labels.teacher_windows import reconstruct_in_windows
from tests.processing.data.rendered_teacher import RenderedTeacher, room_inputs, room_pictures


@pytest.fixture(scope="module")
def room():
    return render_room(1_100_013, num_views=5, height=84, width=112)


@pytest.fixture(scope="module")
def reconstruction(room):
    return reconstruct_in_windows(RenderedTeacher(room), room_inputs(room))[0]


@pytest.fixture(scope="module")
def pixels(reconstruction):
    return find_label_pixels(reconstruction, [(112, 84)] * 5)


def test_pixels_are_counted_once_and_add_up(reconstruction):
    rng = np.random.default_rng(0)
    confidence = [rng.uniform(1, 3, part.shape).astype(np.float32) for part in reconstruction.depth]
    depth = [np.where(rng.random(part.shape) < 0.01, 0, part).astype(np.float32) for part in reconstruction.depth]
    changed = type(reconstruction)(depth, confidence, reconstruction.intrinsics, reconstruction.camera_to_world)
    pixels = find_label_pixels(changed, [(112, 84)] * 5, confidence_threshold=2.0)
    total = 5 * 84 * 112
    assert pixels.counts["total"] == total == sum(n for name, n in pixels.counts.items() if name != "total")
    assert pixels.counts["no_depth"] == sum(int((part == 0).sum()) for part in depth)
    assert pixels.counts["low_confidence"] == pytest.approx(0.5 * total, rel=0.05)
    assert pixels.counts["usable"] == sum(int(part.sum()) for part in pixels.usable)
    for usable, part, sure in zip(pixels.usable, depth, confidence, strict=True):
        assert (part[usable] > 0).all() and (sure[usable] >= 2.0).all()


def test_the_percentile_is_one_threshold_for_all_views(reconstruction):
    confidence = [np.full(part.shape, 1.0 + view, np.float32) for view, part in enumerate(reconstruction.depth)]
    changed = type(reconstruction)(
        reconstruction.depth, confidence, reconstruction.intrinsics, reconstruction.camera_to_world
    )
    pixels = find_label_pixels(changed, [(112, 84)] * 5, confidence_percentile=50)
    assert pixels.threshold == 3.0
    assert [bool(part.any()) for part in pixels.usable] == [False, False, True, True, True]


def test_a_second_opinion_can_reject_pixels(reconstruction):
    points = [part.copy() for part in reconstruction.world_points]
    points[2][:, :56] *= 1.2
    changed = type(reconstruction)(
        reconstruction.depth,
        reconstruction.confidence,
        reconstruction.intrinsics,
        reconstruction.camera_to_world,
        points,
    )
    strict = find_label_pixels(changed, [(112, 84)] * 5, max_head_gap=0.05)
    lax = find_label_pixels(changed, [(112, 84)] * 5)
    assert lax.counts["heads_disagree"] == 0 < strict.counts["heads_disagree"]
    assert not strict.usable[2][:, :56].any() and (strict.usable[3] == lax.usable[3]).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"confidence_threshold": 9.0}, "no pixel reaches the confidence threshold 9: the teacher's highest is 2, "),
        ({"confidence_percentile": 101}, "confidence_percentile is 101; expected 0 to 100"),
        ({"edge_tolerance": -1.0}, "no pixel can be used: .*'depth_edge': 47040"),
    ],
)
def test_no_usable_pixel_is_an_error(reconstruction, options, message):
    with pytest.raises(ValueError, match=message):
        find_label_pixels(reconstruction, [(112, 84)] * 5, **options)


def test_no_depth_and_no_point_head_are_errors(reconstruction):
    bare = type(reconstruction)(
        [0 * part for part in reconstruction.depth],
        reconstruction.confidence,
        reconstruction.intrinsics,
        reconstruction.camera_to_world,
    )
    with pytest.raises(ValueError, match="gives no pixel a depth"):
        find_label_pixels(bare, [(112, 84)] * 5)
    with pytest.raises(ValueError, match="max_head_gap is 0.1, but this teacher gives no world_points"):
        find_label_pixels(bare, [(112, 84)] * 5, max_head_gap=0.1)


@pytest.mark.parametrize("size", [(320, 240), (60, 45)], ids=["larger picture", "smaller picture"])
def test_intrinsics_and_confidence_belong_to_the_original_pictures(room, reconstruction, size):
    confidence = [np.arange(part.size, dtype=np.float32).reshape(part.shape) + 1 for part in reconstruction.depth]
    parts = reconstruction
    changed = type(parts)(parts.depth, confidence, parts.intrinsics, parts.camera_to_world)
    pixels = find_label_pixels(changed, [size] * 5)
    np.testing.assert_allclose(
        pixels.intrinsics, scale_intrinsics(room.intrinsics, size[0] / 112, size[1] / 84), rtol=1e-6
    )
    for x, y in ((0, 0), (17, 31), (size[0] - 1, size[1] - 1)):
        column, row = (int((at + 0.5) * side / full) for at, side, full in zip((x, y), (112, 84), size, strict=True))
        assert pixels.confidence_at(2, (x, y)) == confidence[2][row, column]


def test_what_is_not_sure_is_not_stored_and_edges_are(reconstruction):
    contradicted = [np.zeros(part.shape, bool) for part in reconstruction.depth]
    contradicted[1][20:30] = True
    pixels = find_label_pixels(reconstruction, [(112, 84)] * 5, contradicted=contradicted)
    assert not pixels.sure[1][20:30].any() and pixels.sure[1][:20].all() and pixels.sure[0].all()
    assert not pixels.usable[0][0].any() and (pixels.usable[1] <= pixels.sure[1]).all()  # the border counts as an edge
    assert pixels.counts["views_disagree"] == 10 * 112


def camera_of(room, size=(112, 84), **teacher):
    """The cameras of a clip of the room, as task makers see it."""
    found, _ = reconstruct_in_windows(RenderedTeacher(room, **teacher), room_inputs(room))
    pixels = find_label_pixels(found, [size] * len(found))
    views, _ = label_views([View(picture=np.asarray(one.resize(size))) for one in room_pictures(room)], pixels)
    (scene,) = clip_scenes(views, "room", {})
    return TaskScene(scene)


def test_on_a_plane_the_depth_between_pixels_is_exact():
    room = render_room(1_100_003, num_views=2, height=84, width=112)
    rays = unproject_depth(np.ones((84, 112)), room.intrinsics[0])
    normal = np.array([0.3, -0.2, 1.0])
    flat = (2.0 / (rays @ normal)).astype(np.float32)

    def flatten(answer, views):
        answer.depth[0, ..., 0] = torch.tensor(flat)

    camera = camera_of(room, (320, 240), change=flatten).cameras[0]
    for pixel in ((101, 87), (33.3, 150.9), (250, 20)):
        assert float(camera.points_at(np.array(pixel)) @ normal) == pytest.approx(2.0, rel=1e-4)  # stored in 16 bits


def test_a_wall_in_between_is_told_by_the_depth(room):
    """A place that another view should see behind something nearer is not found again."""
    scene = camera_of(room)
    num_hidden = 0
    for camera in scene.cameras:
        points = camera.grid_points[camera.grid_markable][::23]
        for other in scene.cameras:
            pixels, z = other.project(points)
            inside = other.is_inside(pixels) & (camera is not other)
            nearest = np.rint(np.where(inside[:, None], pixels, 0)).astype(int)
            hidden = inside & (room.depth_m[other.index, nearest[:, 1], nearest[:, 0]] < 0.8 * z)
            for point in points[hidden]:
                assert find_again(scene, Marked(camera.index, (0, 0), point, ""), other.index) is None
                num_hidden += 1
    assert num_hidden > 20
