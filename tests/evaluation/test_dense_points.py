"""Dense point errors: summaries and poses by hand, models that know the truth, and geometry of another scene."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gap_mllm import GapMllmForPreTraining
from gap_mllm.evaluation import (
    evaluate_geometry_encoder,
    evaluate_point_maps,
    fit_baselines,
    geometry_of_other_scenes,
    pose_errors,
    summarize_errors,
)
from gap_mllm.evaluation.dense_points import _batches, _sample
from gap_mllm.processing.data import RenderedRooms
from gap_mllm.training import SceneCollator
from gap_mllm.training.rooms import RoomGeometryDataset


QUIET = {"show_progress": False}


def test_summary_by_hand():
    errors = np.array([[[1.0, 1.0, np.nan], [3.0, 5.0, 7.0]], [[2.0, 2.0, 2.0], [4.0, 4.0, 4.0]]])
    summary = summarize_errors(errors, "error")
    assert summary["error"] == 3.0  # of 1 1 2 2 2 3 4 4 4 5 7
    assert summary["error_later_views"] == 4.0
    assert summary["error_per_view"] == [2.0, 4.0]
    # The two scenes alone, and both: medians 3 (1 1 3 5 7), 3 and 3 (2 2 2 4 4 4); later views 5, 4 and 4.
    assert summary["error_ci95"] == [3.0, 3.0] and summary["error_later_views_ci95"] == [4.0, 5.0]
    assert "error_later_views" not in summarize_errors(errors[:, :1], "error")
    for wrong in (np.zeros((0, 4, 9)), np.full((1, 1, 2), np.nan), np.zeros(3)):
        with pytest.raises(ValueError, match="expected \\(scenes, views, pixels\\)"):
            summarize_errors(wrong)


def test_pose_errors_by_hand():
    pose = np.eye(4)[None].repeat(4, 0)
    pose[1, :3, 3] = 3.0, 4.0, 0.0
    pose[2, :2, :2] = [[0, -1], [1, 0]]
    pose[3, :3, :3] = np.diag([-1.0, -1.0, 1.0])
    translation, rotation = pose_errors(pose, np.eye(4))
    np.testing.assert_allclose(translation, [0, 5, 0, 0])
    np.testing.assert_allclose(rotation, [0, 0, 90, 180], atol=1e-6)


class TruthfulEncoder(torch.nn.Module):
    """Knows the test rooms: points 0.3 m beside the truth, depth 10 % too large, poses exact but in another world."""

    def __init__(self, depth_factor=1.1):
        super().__init__()
        self.depth_factor = depth_factor
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(patch_size=14)
        self.rooms = RoomGeometryDataset(RenderedRooms("test", 3))
        self.num_seen = 0

    def forward(self, images):
        rooms = [self.rooms[self.num_seen + index] for index in range(len(images))]
        self.num_seen += len(images)
        assert torch.equal(images, torch.stack([room["images"] for room in rooms]))
        truth = {name: torch.stack([room[name] for room in rooms]) for name in ("points", "depth", "pose_enc")}
        return SimpleNamespace(
            world_points=truth["points"] + torch.tensor([0.3, 0.0, 0.0]),
            depth=self.depth_factor * truth["depth"][..., None],
            pose_enc=truth["pose_enc"],
        )


@pytest.mark.slow
def test_an_encoder_that_knows_the_rooms(baselines):
    model = TruthfulEncoder()
    metrics = evaluate_geometry_encoder(model, num_scenes=3, batch_size=2, baselines=baselines, **QUIET)
    assert model.training and (metrics["n"], metrics["split"], metrics["num_baseline_scenes"]) == (3, "test", 24)
    assert metrics["dense_point_error_m"] == pytest.approx(0.3, abs=1e-5)
    np.testing.assert_allclose(metrics["dense_point_error_m_later_views_ci95"], [0.3, 0.3], atol=1e-5)
    np.testing.assert_allclose(metrics["dense_point_error_m_per_view"], [0.3] * 4, atol=1e-5)
    assert metrics["depth_abs_rel"] == pytest.approx(0.1, abs=1e-5)
    assert metrics["pose_translation_error_m"] == pytest.approx(0, abs=1e-5)
    assert metrics["pose_rotation_error_deg"] == pytest.approx(0, abs=1e-2)  # of a float32 quaternion
    assert 0.1 < metrics["no_motion_translation_error_m"] < 1.5 and 8 < metrics["no_motion_rotation_error_deg"] < 66
    assert all(metrics[f"pose_{axis}_error_m"] == pytest.approx(0, abs=1e-5) for axis in ("right", "down", "forward"))
    parts = [metrics[f"no_motion_{axis}_error_m"] for axis in ("right", "down", "forward")]
    assert max(parts) < metrics["no_motion_translation_error_m"] < sum(parts) + 0.2 and parts[1] == min(parts)
    assert metrics["constant_dense_point_error_m"] > metrics["dense_point_error_m"]
    assert metrics["pixel_prior_depth_abs_rel"] > 0.1 and len(metrics["pixel_prior_dense_point_error_m_per_view"]) == 4


def test_points_from_depth_and_cameras(baselines):
    errors = [
        evaluate_geometry_encoder(TruthfulEncoder(factor), num_scenes=3, batch_size=3, baselines=baselines, **QUIET)
        for factor in (1.0, 1.1)
    ]
    exact, far = (metrics["unprojected_point_error_m_per_view"] for metrics in errors)
    assert max(exact) < 0.05  # an encoding has no principal point, and the middle is half a pixel off
    assert 0.15 < min(far) and max(far) < 0.6


def test_training_rooms_are_refused():
    with pytest.raises(ValueError, match="split is 'train'"):
        evaluate_geometry_encoder(TruthfulEncoder(), split="train")


class TruthfulBase:
    """Encodes the true points of the batch as its geometry features, one row for each patch of a visual token."""

    def __init__(self, batches):
        self.batches, self.num_encoded = batches, 0

    def get_geometry_features(self, pixel_values, image_grid_thw, scene_lengths):
        self.num_encoded += 1
        return self.batches[float(pixel_values.sum())].flatten(1).repeat_interleave(4, 0)[None]


class GeometryReader(torch.nn.Module):
    """Answers what its geometry features say, or the same for every room."""

    def __init__(self, batches, reads_geometry=True):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(point_map_side=2)
        self.model = TruthfulBase(batches)
        self.reads_geometry = reads_geometry

    def forward(self, pixel_values, image_grid_thw, scene_lengths, geometry_features=None, **kwargs):
        if geometry_features is None:
            geometry_features = self.model.get_geometry_features(pixel_values, image_grid_thw, scene_lengths)
        points = geometry_features[0, ::4].view(-1, 2, 2, 3)
        visual = points if self.reads_geometry else torch.zeros_like(points)
        return SimpleNamespace(point_maps={"visual": visual, "language": visual + torch.tensor([0.0, 0.0, 0.5])})


@pytest.fixture
def true_batches(tiny_processor, test_rooms):
    """What `evaluate_point_maps` collates of the test rooms, two at a time, by the sum of the pixels."""
    collate = SceneCollator(tiny_processor, "block_mask", for_pretraining=True, point_map_side=2)
    batches = {}
    for rooms in _batches(test_rooms, 2):
        batch = collate([_sample(room) for room in rooms])
        batches[float(batch["pixel_values"].sum())] = batch["point_map_targets"]
    return batches


def test_another_scenes_geometry_raises_the_error_of_a_model_that_reads_it(true_batches, tiny_processor, test_rooms):
    model = GeometryReader(true_batches)
    metrics = evaluate_point_maps(model, tiny_processor, test_rooms, batch_size=2, **QUIET)
    assert (metrics["n"], model.model.num_encoded) == (4, 2)  # once for each batch, though it is measured twice
    assert metrics["dense_point_error_m"] == 0.0
    assert metrics["language_dense_point_error_m"] == pytest.approx(0.5)
    assert metrics["shuffled_geometry_dense_point_error_m"] > 0.5
    assert min(metrics["shuffled_geometry_dense_point_error_m_per_view"]) > 0.1
    blind = GeometryReader(true_batches, reads_geometry=False)
    metrics = evaluate_point_maps(blind, tiny_processor, test_rooms, batch_size=2, **QUIET)
    for end in ("", "_ci95", "_later_views", "_per_view"):
        name = f"dense_point_error_m{end}"
        assert metrics[name] == metrics[f"shuffled_geometry_{name}"]


def test_baselines_are_measured_on_the_same_points(true_batches, tiny_processor, test_rooms, baselines):
    model = GeometryReader(true_batches)
    own = replace(fit_baselines(test_rooms[:1], questions_per_scene=1, grid=(128, 128)), scene_ids=frozenset())
    metrics = evaluate_point_maps(model, tiny_processor, test_rooms[:2], own, batch_size=2, **QUIET)
    # A prior that was fitted on one of the two rooms knows half of the points, up to half a pixel of ray.
    points = np.stack([room.points_in_first_view()[:, 8::16, 8::16] for room in test_rooms[:2]])
    expected = np.linalg.norm(points - own.constant_dense_point, axis=-1)
    assert metrics["constant_dense_point_error_m"] == pytest.approx(np.median(expected), rel=0.02)
    room = test_rooms[0]
    batches = {}
    batch = SceneCollator(tiny_processor, "block_mask", for_pretraining=True, point_map_side=2)([_sample(room)])
    batches[float(batch["pixel_values"].sum())] = batch["point_map_targets"]
    alone = evaluate_point_maps(
        GeometryReader(batches), tiny_processor, [room], own, with_shuffled_geometry=False, **QUIET
    )
    assert max(alone["pixel_prior_dense_point_error_m_per_view"]) < 0.05
    with pytest.raises(ValueError, match="were used to fit"):
        evaluate_point_maps(
            model, tiny_processor, test_rooms, replace(own, scene_ids=frozenset([room.scene_id])), **QUIET
        )


def test_no_rooms_and_a_room_without_partner(tiny_model, tiny_processor, test_rooms):
    model = tiny_model(model_class=GapMllmForPreTraining)
    with pytest.raises(ValueError, match="no rooms"):
        evaluate_point_maps(model, tiny_processor, [], **QUIET)
    with pytest.raises(ValueError, match="Scene 0 of the batch has no partner of equal shape"):
        evaluate_point_maps(model, tiny_processor, test_rooms[:1], **QUIET)


def test_a_single_room_left_over_joins_a_batch():
    assert list(_batches(range(5), 2)) == [[0, 1], [2, 3, 4]]
    assert list(_batches(range(4), 2)) == [[0, 1], [2, 3]]
    assert list(_batches(range(1), 2)) == [[0]] and list(_batches([], 2)) == []


def test_the_swap_moves_whole_scenes_of_equal_shape():
    grid = torch.tensor([[1, 2, 2]] * 4 + [[1, 2, 4]] * 2)
    features = torch.arange(32.0)[None, :, None].expand(2, 32, 3)  # 2 views of 2 x 2 patches twice, then 1 of 2 x 4
    first, second, third, fourth = features.split([8, 8, 8, 8], dim=1)
    swapped = geometry_of_other_scenes(features, grid, torch.tensor([2, 2, 1, 1]))
    assert torch.equal(swapped, torch.cat([second, first, fourth, third], dim=1))


def test_camera_tokens_move_with_their_scene():
    features = torch.arange(6.0).view(1, 6, 1)  # two scenes of one view, its camera and 1 x 2 patches
    swapped = geometry_of_other_scenes(features, torch.tensor([[1, 1, 2]] * 2), torch.tensor([1, 1]))
    assert swapped.flatten().tolist() == [3, 4, 5, 0, 1, 2]


def test_a_real_model_is_measured_and_left_as_it_was(tiny_model, tiny_processor, test_rooms, baselines):
    model = tiny_model(model_class=GapMllmForPreTraining)
    metrics = evaluate_point_maps(model, tiny_processor, test_rooms[:3], baselines, batch_size=2, **QUIET)
    for source in ("", "language_", "shuffled_geometry_", "shuffled_geometry_language_", "pixel_prior_", "constant_"):
        assert np.isfinite(metrics[f"{source}dense_point_error_m"])
        assert len(metrics[f"{source}dense_point_error_m_per_view"]) == 4
    assert metrics["dense_point_error_m"] != metrics["shuffled_geometry_dense_point_error_m"]
