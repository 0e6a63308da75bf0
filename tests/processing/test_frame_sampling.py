"""Frame selection against golden choices of the reference, against plain loops, and by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gap_mllm.processing import (
    fps_sample,
    greedy_coverage,
    space_aware_sample,
    uniform_sample,
    voxelize_frames,
    world_points_from_depth,
)
from gap_mllm.processing.data import render_room
from gap_mllm.vggt_heads_gap_mllm import GapMllmVggtForReconstruction


FIXTURES = Path(__file__).parents[1] / "fixtures"
GOLDEN = json.loads((FIXTURES / "spatial" / "sampling.json").read_text())
CASES = pytest.mark.parametrize("case", list(GOLDEN["cases"]))
MODES = pytest.mark.parametrize("mode", ["robust", "reference"])
KINDS = pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])


@pytest.fixture(scope="module")
def scenes():
    with np.load(FIXTURES / "spatial" / "sampling.npz") as file:
        return {case: (file[f"{case}/world_points"], file[f"{case}/world_points_conf"]) for case in GOLDEN["cases"]}


def frames_at(*positions):
    """Frames of one row of pixels, each pixel at (x, 0, 0) .. of a list; all confidences 1."""
    points = np.zeros((len(positions), 1, max(len(row) for row in positions), 3))
    confidence = np.zeros(points.shape[:3])
    for index, row in enumerate(positions):
        points[index, 0, : len(row), 0] = row
        confidence[index, 0, : len(row)] = 1
    return points, confidence


# The published rule


@CASES
def test_voxels_of_the_reference(scenes, case):
    golden, voxels = GOLDEN["cases"][case], voxelize_frames(*scenes[case], mode="reference")
    assert voxels.confidence_threshold == golden["conf_threshold"]
    assert voxels.box_min.tolist() == golden["box_min"] and voxels.box_max.tolist() == golden["box_max"]
    assert voxels.voxel_size == golden["voxel_size"]
    assert [len(seen) for seen in voxels.voxels_per_frame] == golden["voxels_per_frame"]
    assert voxels.num_voxels == golden["total_voxels"] == len(set(np.concatenate(voxels.voxels_per_frame).tolist()))


@CASES
@pytest.mark.parametrize("num_frames", [4, 8, 16])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@KINDS
def test_choices_of_the_reference(scenes, case, num_frames, dtype, kind):
    golden = GOLDEN["cases"][case]["k"][str(num_frames)]
    scene = [kind(array.astype(dtype)) for array in scenes[case]]
    assert space_aware_sample(*scene, num_frames, mode="reference") == golden["selected_sorted"]
    voxels = voxelize_frames(*scene, mode="reference").voxels_per_frame
    assert greedy_coverage(voxels, num_frames) == (golden["greedy_order"], golden["gains"])


@pytest.mark.parametrize("case", GOLDEN["set_cover"], ids=lambda case: case["note"])
def test_greedy_on_small_sets(case):
    for num_frames, expected in case["k"].items():
        order, gains = greedy_coverage(case["sets"], int(num_frames))
        assert sorted(order) == expected
        assert sum(gains) == len({voxel for frame in order for voxel in case["sets"][frame]})


def plain_greedy(sets, num_frames):
    covered, order, gains = set(), [], []
    for _ in range(num_frames):
        new = [len(voxels - covered) for voxels in sets]
        if not new or max(new) == 0:
            break
        order.append(new.index(max(new)))
        gains.append(max(new))
        covered |= sets[order[-1]]
    return order, gains


@given(
    st.lists(st.lists(st.integers(-3, 12), max_size=10), max_size=9),
    st.integers(0, 10),
)
@settings(deadline=None)
def test_greedy_equals_the_plain_loop(lists, num_frames):
    """Repeated, negative and unsorted voxel numbers included."""
    assert greedy_coverage(lists, num_frames) == plain_greedy([set(voxels) for voxels in lists], num_frames)


def test_reference_gives_fewer_frames_where_nothing_is_new(scenes):
    scene = scenes["six_distinct_frames"]
    assert len(space_aware_sample(*scene, 16, mode="reference")) == 6


# The robust rule


def test_robust_is_the_default(scenes):
    scene = scenes["outliers_high_confidence"]
    assert space_aware_sample(*scene, 8) == space_aware_sample(*scene, 8, mode="robust")
    assert space_aware_sample(*scene, 8) != space_aware_sample(*scene, 8, mode="reference")


def test_wild_points_do_not_blow_up_the_voxels(scenes):
    scene = scenes["outliers_high_confidence"]
    assert voxelize_frames(*scene, mode="reference").voxel_size == pytest.approx(3.3, abs=0.05)
    robust = voxelize_frames(*scene)
    assert robust.voxel_size == pytest.approx(0.12, abs=0.01)
    points, confidence = scene
    is_wild = np.abs(points).max(-1) > 12
    assert is_wild.sum() > 30
    clean = voxelize_frames(points, np.where(is_wild, 0, confidence), voxel_size=0.12)

    def covered(frames):
        return len(np.unique(np.concatenate([clean.voxels_per_frame[frame] for frame in frames])))

    mine, theirs = (space_aware_sample(*scene, 8, mode=mode) for mode in ("robust", "reference"))
    assert covered(mine) > 1.05 * covered(theirs)


def test_points_a_little_outside_the_box_count():
    """One frame in 200 looks into a corridor: too few points for the percentiles, too near for a wild point."""
    rng = np.random.default_rng(0)
    points = np.tile(rng.uniform(0, 1, (1, 10, 10, 3)), (200, 1, 1, 1)) * [6, 4, 2.5]
    points[120, ..., 0] = rng.uniform(6.5, 8.5, (10, 10))
    assert voxelize_frames(points, np.ones(points.shape[:3])).box_max[0] < 6.5
    assert 120 in space_aware_sample(points, np.ones(points.shape[:3]), 2)
    points[120, ..., 0] += 40
    assert 120 not in space_aware_sample(points, np.ones(points.shape[:3]), 2)


def test_fill_up_takes_the_frames_farthest_in_time():
    points, confidence = frames_at(*[[0.0, 1.0]] * 9)
    expected = [[0], [0, 8], [0, 4, 8], [0, 2, 4, 8], [0, 2, 4, 6, 8], [0, 1, 2, 4, 6, 8]]
    for num_frames, frames in enumerate(expected, start=1):
        assert space_aware_sample(points, confidence, num_frames) == frames
    assert space_aware_sample(points, confidence, 9) == space_aware_sample(points, confidence, 99) == list(range(9))


def test_fill_up_keeps_what_the_greedy_chose(scenes):
    scene = scenes["six_distinct_frames"]
    assert space_aware_sample(*scene, 6) == [0, 4, 8, 12, 16, 20]
    assert space_aware_sample(*scene, 8) == [0, 2, 4, 8, 12, 16, 20, 23]


def test_fixed_voxel_size():
    scene = frames_at([0.0, 0.3, 0.6], [0.9, 2.5], [5.0], [1.5])
    assert [seen.tolist() for seen in voxelize_frames(*scene, voxel_size=10.0).voxels_per_frame] == [[0]] * 4
    fine = voxelize_frames(*scene, voxel_size=0.2)
    assert fine.voxel_size == 0.2 and fine.num_voxels == 7
    assert space_aware_sample(*scene, 2, voxel_size=0.2) == [0, 1]
    assert space_aware_sample(*scene, 2, voxel_size=1.0) == [1, 2]


def test_keep_first():
    scene = frames_at([0.0], [0.0, 1.0, 2.0], [5.0, 6.0], [2.0])
    assert space_aware_sample(*scene, 2) == [1, 2]
    assert space_aware_sample(*scene, 2, keep_first=True) == [0, 1]
    assert space_aware_sample(*scene, 1, keep_first=True) == [0]
    assert greedy_coverage([[0], [0, 1, 2], [5, 6]], 3, keep_first=True) == ([0, 1, 2], [1, 2, 2])
    assert greedy_coverage([[], [1]], 2, keep_first=True) == ([0, 1], [0, 1])


def test_flat_scene():
    """A wall: the published size is 0, or that of the noise; the robust one is a hundredth of the wall."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (10, 20, 20, 3)) * [4, 3, 0]
    points[5:, ..., :2] = points[5:, :1, :1, :2]  # the later frames see one point each
    voxels = voxelize_frames(points, np.ones(points.shape[:3]))
    assert voxels.voxel_size == pytest.approx(0.04, rel=0.1)
    assert set(space_aware_sample(points, np.ones(points.shape[:3]), 5)) == {0, 1, 2, 3, 4}
    points[..., 2] = rng.normal(0, 1e-4, points.shape[:3])
    assert voxelize_frames(points, np.ones(points.shape[:3])).voxel_size == pytest.approx(0.04, rel=0.1)
    assert voxelize_frames(points, np.ones(points.shape[:3]), mode="reference").voxel_size < 1e-4


def test_all_points_in_one_place():
    scene = np.full((5, 2, 2, 3), 7.0), np.ones((5, 2, 2))
    assert voxelize_frames(*scene).voxel_size == 1.0
    assert space_aware_sample(*scene, 3) == [0, 2, 4]


def test_frames_without_points_come_last(scenes):
    points, confidence = (array.copy() for array in scenes["constant_confidence"])
    confidence[3:9] = 0
    points[3:9] = np.nan
    assert not set(space_aware_sample(points, confidence, 16)) & set(range(3, 9))
    assert space_aware_sample(points, confidence, 24) == list(range(24))


@st.composite
def random_scenes(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4)))
    points = rng.integers(0, draw(st.integers(1, 40)), (*shape, 3)) * rng.uniform(0.1, 1, 3)
    confidence = rng.integers(0, 4, shape).astype(float)
    confidence[rng.integers(shape[0]), 0, 0] = 3
    points[confidence == 0] = draw(st.sampled_from([0.0, np.nan, np.inf]))
    return points, confidence


@given(random_scenes(), st.integers(1, 14), st.booleans())
@settings(deadline=None)
def test_robust_choice_is_sorted_unique_and_complete(scene, num_frames, keep_first):
    frames = space_aware_sample(*scene, num_frames, keep_first=keep_first)
    assert all(type(frame) is int for frame in frames)
    assert frames == sorted(set(frames)) and set(frames) <= set(range(len(scene[0])))
    assert len(frames) == min(num_frames, len(scene[0]))
    assert not keep_first or frames[0] == 0


@given(random_scenes(), st.integers(1, 14), st.sampled_from([0.25, 8.0]), st.integers(0, 99))
@settings(deadline=None)
def test_choice_depends_neither_on_the_unit_nor_on_the_order_of_pixels(scene, num_frames, unit, seed):
    points, confidence = scene
    num, height, width = confidence.shape
    order = np.random.default_rng(seed).permutation(height * width)
    moved = points.reshape(num, -1, 3)[:, order].reshape(points.shape) * unit
    shuffled = confidence.reshape(num, -1)[:, order].reshape(confidence.shape)
    assert space_aware_sample(moved, shuffled, num_frames) == space_aware_sample(points, confidence, num_frames)


def test_inputs_are_left_alone(scenes):
    points, confidence = (array.copy() for array in scenes["outliers_high_confidence"])
    space_aware_sample(points, confidence, 8)
    assert np.array_equal(points, scenes["outliers_high_confidence"][0])
    assert np.array_equal(confidence, scenes["outliers_high_confidence"][1])


# Where points come from


@torch.no_grad()
def test_output_of_vggt():
    model = GapMllmVggtForReconstruction.from_pretrained(FIXTURES / "vggt", dtype=torch.float32).eval()
    output = model(torch.rand(1, 5, 3, 28, 28, generator=torch.Generator().manual_seed(0)))
    frames = space_aware_sample(output.world_points[0], output.world_points_conf[0], 3)
    assert len(frames) == 3
    exact = [array[0].numpy() for array in (output.world_points, output.world_points_conf)]
    assert frames == space_aware_sample(*exact, 3)


def test_tensors_with_gradient_and_in_half_precision(scenes):
    points, confidence = (torch.as_tensor(array) for array in scenes["constant_confidence"])
    expected = space_aware_sample(points, confidence, 8)
    assert space_aware_sample(points.requires_grad_(), confidence, 8) == expected
    for dtype in (torch.bfloat16, torch.float16):
        rounded = points.detach().to(dtype)
        assert space_aware_sample(rounded, confidence, 8) == space_aware_sample(rounded.float(), confidence, 8)


@KINDS
def test_points_of_a_depth_sensor_by_hand(kind):
    depth = np.array([[[2.0, 0.0], [np.nan, 4.0]], [[1.0, -1.0], [np.inf, 1.0]]], dtype=np.float32)
    intrinsics = np.array([[2.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    poses = np.stack([np.eye(4), np.eye(4)])
    poses[1] = [[0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]]
    points, confidence = world_points_from_depth(kind(depth), kind(intrinsics), kind(poses))
    assert type(points) is type(confidence) is type(kind(depth))
    assert points.dtype == confidence.dtype == kind(depth).dtype
    assert np.asarray(confidence).tolist() == [[[1, 0], [0, 1]], [[1, 0], [0, 1]]]
    points = np.asarray(points)
    assert np.isnan(points[np.asarray(confidence) == 0]).all()
    assert points[0, 0, 0].tolist() == [0, 0, 2] and points[0, 1, 1].tolist() == [2, 1, 4]
    assert points[1, 0, 0].tolist() == [10, 20, 31] and points[1, 1, 1].tolist() == [9.75, 20.5, 31]
    one_each = kind(np.stack([intrinsics, intrinsics]))
    np.testing.assert_array_equal(world_points_from_depth(kind(depth), one_each, kind(poses))[0], points)


def test_sensor_depth_of_a_room_with_holes():
    room = render_room(3, num_views=8, height=24, width=32)
    depth = room.depth_m.copy()
    depth[:, ::2] = 0  # half of the readings are missing
    points, confidence = world_points_from_depth(depth, room.intrinsics, room.camera_to_world)
    assert confidence.mean() == 0.5
    seen = points[confidence > 0]
    assert (seen > -0.01).all() and (seen < room.room_size + 0.01).all()
    frames = space_aware_sample(points, confidence, 4)
    assert frames == space_aware_sample(points[:, 1::2], confidence[:, 1::2], 4)
    voxels = voxelize_frames(points, confidence).voxels_per_frame
    assert sorted(greedy_coverage(voxels, 4)[0]) == frames


# Evenly in time


@pytest.mark.parametrize(
    ("num_candidates", "num_frames", "expected"),
    [
        (10, 4, [0, 3, 6, 9]),
        (10, 3, [0, 4, 9]),
        (10, 1, [0]),
        (1, 5, [0]),
        (3, 8, [0, 1, 2]),
        (100, 8, [0, 14, 28, 42, 56, 70, 84, 99]),
    ],
)
def test_uniform_sample(num_candidates, num_frames, expected):
    assert uniform_sample(num_candidates, num_frames) == expected


@given(st.integers(1, 5000), st.integers(1, 5000))
@settings(deadline=None)
def test_uniform_sample_is_exact_and_without_repeats(num_candidates, num_frames):
    frames = uniform_sample(num_candidates, num_frames)
    assert len(set(frames)) == len(frames) == min(num_candidates, num_frames) and frames == sorted(frames)
    assert frames[0] == 0 and (len(frames) == 1 or frames[-1] == num_candidates - 1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((90, 30, 1), [0, 30, 60]),
        ((91, 30, 1), [0, 30, 60, 90]),
        ((8, 30, 12), [0, 2, 5, 7]),
        ((5, 24, 24), [0, 1, 2, 3, 4]),
        ((5, 24, 60), [0, 1, 2, 3, 4]),
        ((10, 0.3, 0.1), [0, 3, 6, 9]),
        ((50, 25, 1e-9), [0]),
        ((90, 30, 10, 4), [0, 29, 59, 89]),
        ((90, 30, 1, 8), [0, 30, 60]),
    ],
)
def test_fps_sample(arguments, expected):
    assert fps_sample(*arguments) == expected


# Errors


@MODES
@pytest.mark.parametrize(
    ("points_shape", "confidence_shape", "message"),
    [
        ((4, 3, 2, 3), (4, 3, 3), "equal S, H and W"),
        ((4, 3, 2, 3), (5, 3, 2), "equal S, H and W"),
        ((4, 3, 2, 2), (4, 3, 2), r"expected \(S, H, W, 3\)"),
        ((3, 2, 3), (3, 2), r"expected \(S, H, W, 3\)"),
        ((0, 3, 2, 3), (0, 3, 2), "none of them 0"),
        ((4, 0, 2, 3), (4, 0, 2), "none of them 0"),
        ((1, 4, 3, 2, 3), (1, 4, 3, 2), "index the batch dimension first"),
        ((4, 3, 2, 3), (1, 4, 3, 2), "index the batch dimension first"),
    ],
)
def test_shapes_that_do_not_fit(mode, points_shape, confidence_shape, message):
    with pytest.raises(ValueError, match=message):
        space_aware_sample(np.zeros(points_shape), np.ones(confidence_shape), 2, mode=mode)


@MODES
def test_values_that_are_not_numbers(scenes, mode):
    points, confidence = (array.copy() for array in scenes["constant_confidence"])
    points[5, 2, 3, 1] = np.nan
    points[5, 4, 4, 0] = np.inf
    with pytest.raises(ValueError, match="world_points of frame 5 is NaN or infinite at 2 pixels"):
        space_aware_sample(points, confidence, 4, mode=mode)
    confidence[5, 2, 3] = confidence[5, 4, 4] = 0
    assert len(space_aware_sample(points, confidence, 4, mode=mode)) == 4
    for bad in (np.nan, np.inf):
        confidence[7, 1, 1] = bad
        with pytest.raises(ValueError, match="confidence of frame 7 is NaN or infinite at 1 pixels"):
            space_aware_sample(points, confidence, 4, mode=mode)


@MODES
def test_no_point_to_go_by(mode):
    points = np.random.default_rng(0).uniform(0, 1, (4, 3, 3, 3))
    with pytest.raises(ValueError, match=r"confidence is 0\.1 at most"):
        space_aware_sample(points, np.full((4, 3, 3), 0.1, np.float32), 2, mode=mode)


@pytest.mark.parametrize("num_frames", [0, -3])
def test_too_few_frames_wanted(scenes, num_frames):
    message = f"num_frames is {num_frames}; expected 1 or more"
    with pytest.raises(ValueError, match=message):
        space_aware_sample(*scenes["constant_confidence"], num_frames)
    with pytest.raises(ValueError, match=message):
        uniform_sample(10, num_frames)
    with pytest.raises(ValueError, match="num_candidates is 0"):
        uniform_sample(0, 1)


def test_counts_that_are_not_integers(scenes):
    with pytest.raises(TypeError, match="num_frames is 2.5; expected an integer"):
        space_aware_sample(*scenes["constant_confidence"], 2.5)
    with pytest.raises(TypeError, match="num_candidates is '8'"):
        uniform_sample("8", 2)
    with pytest.raises(TypeError, match="max_frames is 2.0"):
        fps_sample(10, 30, 1, 2.0)
    with pytest.raises(TypeError, match="num_frames is True; expected an integer"):
        uniform_sample(8, True)


def test_flags_and_numbers_of_another_kind(scenes):
    scene = scenes["constant_confidence"]
    with pytest.raises(TypeError, match="keep_first is 'no'; expected True or False"):
        space_aware_sample(*scene, 4, keep_first="no")
    for size in ("0.1", True):
        with pytest.raises(TypeError, match="voxel_size is .*; expected a positive finite number"):
            space_aware_sample(*scene, 4, voxel_size=size)
    for rate in ("2", True, None):
        with pytest.raises(TypeError, match="target_fps is .*; expected a positive finite number"):
            fps_sample(10, 30, rate)
        with pytest.raises(TypeError, match="video_fps is .*; expected a positive finite number"):
            fps_sample(10, rate, 2)


def test_modes_and_their_options(scenes):
    scene = scenes["constant_confidence"]
    with pytest.raises(ValueError, match='mode is \'greedy\'; expected "robust" or "reference"'):
        space_aware_sample(*scene, 4, mode="greedy")
    with pytest.raises(ValueError, match='voxel_size is 0.1, but mode="reference"'):
        space_aware_sample(*scene, 4, mode="reference", voxel_size=0.1)
    with pytest.raises(ValueError, match='keep_first is True, but mode="reference"'):
        space_aware_sample(*scene, 4, mode="reference", keep_first=True)
    for size in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="voxel_size is .*; expected a positive finite number"):
            space_aware_sample(*scene, 4, voxel_size=size)
    with pytest.raises(ValueError, match="too many to number"):
        space_aware_sample(*scene, 4, voxel_size=1e-30)


def test_reference_on_a_flat_scene():
    points = np.random.default_rng(0).uniform(0, 1, (4, 3, 3, 3)) * [4, 3, 0]
    with pytest.raises(ValueError, match="no extent along one axis"):
        space_aware_sample(points, np.ones((4, 3, 3)), 2, mode="reference")


@pytest.mark.parametrize("rate", [0, -1.0, float("nan"), float("inf")])
def test_rates_that_are_none(rate):
    with pytest.raises(ValueError, match="video_fps is"):
        fps_sample(10, rate, 1)
    with pytest.raises(ValueError, match="target_fps is"):
        fps_sample(10, 30, rate)


def test_frame_rates_with_empty_videos_or_no_frames():
    with pytest.raises(ValueError, match="num_frames_total is 0"):
        fps_sample(0, 30, 1)
    with pytest.raises(ValueError, match="max_frames is 0"):
        fps_sample(10, 30, 1, 0)


def test_sensor_input_that_does_not_fit():
    depth, intrinsics, poses = np.ones((2, 4, 4)), np.eye(3), np.stack([np.eye(4)] * 2)
    with pytest.raises(ValueError, match=r"depth_m has shape \(4, 4\); expected \(S, H, W\)"):
        world_points_from_depth(depth[0], intrinsics, poses)
    with pytest.raises(ValueError, match=r"camera_to_world has shape \(1, 4, 4\); expected \(2, 4, 4\)"):
        world_points_from_depth(depth, intrinsics, poses[:1])
    with pytest.raises(ValueError, match=r"intrinsics has shape \(3, 3, 3\); expected \(3, 3\) or \(2, 3, 3\)"):
        world_points_from_depth(depth, np.stack([intrinsics] * 3), poses)
    with pytest.raises(TypeError, match="divide by the depth scale"):
        world_points_from_depth(depth.astype(np.uint16), intrinsics, poses)
    poses[1] = -np.inf
    with pytest.raises(ValueError, match="camera_to_world: matrix 1 is not rigid"):
        world_points_from_depth(depth, intrinsics, poses)
