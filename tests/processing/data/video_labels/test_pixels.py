"""Which pixels are asked about, what they see and where else they are seen: against rendered truth."""

import numpy as np
import pytest
import torch

from gap_mllm.processing.camera_geometry_gap_mllm import (
    project_points,
    scale_intrinsics,
    transform_points,
    unproject_depth,
    view_to_first_view,
)
from gap_mllm.processing.data import render_room
from gap_mllm.processing.data.video_labels.pixels import depth_edges, find_label_pixels
from gap_mllm.processing.data.video_labels.teacher_windows import reconstruct_in_windows
from tests.processing.data.rendered_teacher import RenderedTeacher, room_inputs


@pytest.fixture(scope="module")
def room():
    return render_room(1_100_013, num_views=5, height=84, width=112)


@pytest.fixture(scope="module")
def reconstruction(room):
    return reconstruct_in_windows(RenderedTeacher(room), room_inputs(room))[0]


@pytest.fixture(scope="module")
def pixels(reconstruction):
    return find_label_pixels(reconstruction, [(112, 84)] * 5)


def plane(slant, height=20, width=30):
    """Depth of a plane that is seen under a slant."""
    v, u = np.mgrid[0:height, 0:width]
    return (1.0 / (0.5 + slant * (u - width / 2) / width + 0.2 * v / height)).astype(np.float32)


def test_a_slanted_plane_has_no_edge_and_a_step_has_one():
    depth = plane(0.8)
    inner = np.zeros(depth.shape, bool)
    inner[2:-2, 2:-2] = True
    assert (depth_edges(depth, 0.05) == ~inner).all()
    stepped = depth.copy()
    stepped[:, 15:] *= 1.1
    found = depth_edges(stepped, 0.05)
    assert found[:, 13:17].all() and not found[2:-2, 2:12].any() and not found[2:-2, 18:-2].any()
    assert (depth_edges(stepped, 0.15) == ~inner).all()  # 10 % is no edge then


def test_a_hole_in_the_depth_is_an_edge():
    depth = plane(0.0)
    depth[10, 10] = 0
    found = depth_edges(depth, 0.05)
    assert found[8:13, 10].all() and found[10, 8:13].all() and not found[2:7, 2:7].any()


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


def test_a_pixel_sees_the_rendered_point(room, pixels):
    truth, rng = room.points_in_first_view(), np.random.default_rng(1)
    for view in range(5):
        for _ in range(20):
            point = pixels.draw(view, rng)
            x, y = (int(value) for value in point.pixel)
            np.testing.assert_allclose(point.xyz, truth[view, y, x], atol=1e-5)
            assert point.depth == pytest.approx(room.depth_m[view, y, x], rel=1e-6) and point.confidence == 2.0
    assert pixels.see(0, (0, 0)) is None  # at the border
    assert pixels.see(0, (500, 3)) is None


@pytest.mark.parametrize("size", [(320, 240), (60, 45)], ids=["larger picture", "smaller picture"])
def test_pixels_of_the_original_picture_lie_on_its_own_rays(room, reconstruction, size):
    pixels = find_label_pixels(reconstruction, [size] * 5)
    expected = scale_intrinsics(room.intrinsics, size[0] / 112, size[1] / 84)
    np.testing.assert_allclose(pixels.intrinsics, expected, rtol=1e-6)
    rng = np.random.default_rng(2)
    poses = view_to_first_view(room.camera_to_world)
    for view in range(5):
        taken = []
        for _ in range(15):
            point = pixels.draw(view, rng, taken)
            taken.append(point.pixel)
            assert all(value == int(value) for value in point.pixel)
            assert 0 <= point.pixel[0] < size[0] and 0 <= point.pixel[1] < size[1]
            in_camera = transform_points(np.linalg.inv(poses[view]), point.xyz)
            pixel, z = project_points(in_camera, expected[view])
            np.testing.assert_allclose(pixel, point.pixel, atol=1e-3)
            assert z == pytest.approx(point.depth, rel=1e-5)
        spread = np.array(taken)
        gaps = np.linalg.norm(spread[:, None] - spread, axis=-1) + 1e9 * np.eye(len(taken))
        assert gaps.min() > 0.02 * np.hypot(*size)  # spread, not heaped


def test_on_a_plane_the_depth_between_pixels_is_exact():
    room = render_room(1_100_003, num_views=2, height=84, width=112)
    rays = unproject_depth(np.ones((84, 112)), room.intrinsics[0])
    normal = np.array([0.3, -0.2, 1.0])
    flat = (2.0 / (rays @ normal)).astype(np.float32)

    def flatten(answer, views):
        answer.depth[0, ..., 0] = torch.tensor(flat)

    found, _ = reconstruct_in_windows(RenderedTeacher(room, change=flatten), room_inputs(room))
    pixels = find_label_pixels(found, [(320, 240)] * 2)
    for pixel in ((101, 87), (33.3, 150.9), (250, 20)):
        point = pixels.see(0, pixel)
        assert float(point.xyz @ normal) == pytest.approx(2.0, rel=1e-6)


def test_matches_are_true(room, pixels):
    truth, rng = room.points_in_first_view(), np.random.default_rng(3)
    reasons = set()
    num_matches = 0
    for number in range(400):
        point = pixels.draw(number % 5, rng)
        other = (number + 1 + number // 5 % 4) % 5
        match, reason = pixels.match(point, other)
        if match is None:
            reasons.add(reason)
            continue
        num_matches += 1
        x, y = (int(round(value)) for value in match.pixel)
        assert np.linalg.norm(truth[other, y, x] - point.xyz) < 0.12  # within a pixel of a far wall
        np.testing.assert_array_equal(match.xyz, point.xyz)
        assert match.view == other
    assert num_matches > 50
    assert {"outside_picture", "unusable_pixel"} <= reasons


def test_a_wall_in_between_is_told_by_the_depth(room, pixels):
    """A place that another view should see behind something nearer is not matched."""
    truth = room.points_in_first_view()
    to_view = np.linalg.inv(view_to_first_view(room.camera_to_world))
    reasons = []
    for view in range(5):
        for other in {*range(5)} - {view}:
            rows, columns = np.nonzero(pixels.usable[view])
            for row, column in list(zip(rows, columns, strict=True))[::23]:
                pixel, z = project_points(
                    transform_points(to_view[other], truth[view, row, column]), room.intrinsics[other]
                )
                if not (z > 0 and (pixel > 1).all() and pixel[0] < 110 and pixel[1] < 82):
                    continue
                x, y = (int(round(value)) for value in pixel)
                if room.depth_m[other, y, x] < 0.8 * z:
                    match, reason = pixels.match(pixels.see(view, (column, row)), other)
                    assert match is None
                    reasons.append(reason)
    assert len(reasons) > 20 and reasons.count("depth_disagrees") > 10


def test_a_place_behind_the_camera_is_not_matched(pixels):
    poses = pixels.reconstruction.camera_to_world.copy()
    poses[1] = poses[0] @ np.diag([-1.0, 1, -1, 1])  # looks back
    parts = pixels.reconstruction
    turned = type(parts)(parts.depth, parts.confidence, parts.intrinsics, poses)
    other = find_label_pixels(turned, pixels.image_sizes)
    assert other.match(other.draw(0, np.random.default_rng(4)), 1) == (None, "behind_camera")


def test_a_wrong_depth_map_fails_the_reprojection(room, reconstruction):
    """The depths agree within their tolerance, but the place lands elsewhere: a smaller tolerance in pixels tells."""
    depth = [part.copy() for part in reconstruction.depth]
    depth[3] *= np.float32(1.04)
    parts = reconstruction
    pixels = find_label_pixels(type(parts)(depth, *list(vars(parts).values())[1:]), [(112, 84)] * 5)
    rng, reasons = np.random.default_rng(5), []
    for _ in range(300):
        point = pixels.draw(0, rng)
        reasons.append(pixels.match(point, 3, depth_tolerance=0.05, reprojection_px=0.1)[1])
    assert "reprojection_off" in reasons
