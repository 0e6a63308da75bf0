"""The correspondence score against values of 3DRS's release, and its relation to task scores."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gap_mllm.evaluation import correspondence_score, relate_to_task, token_points
from gap_mllm.training.losses import VOXEL_EXTENT_M, voxel_ids, voxel_indices


@pytest.fixture(scope="module")
def golden():
    return load_file(Path(__file__).parents[2] / "fixtures" / "distill" / "threedrs_correspondence.safetensors")


@pytest.mark.parametrize("extent", [None, VOXEL_EXTENT_M])  # the room lies within the release's bounds
def test_scores_are_those_of_the_release(golden, extent):
    features, points = golden["features"].flatten(0, 2), golden["patch_coords"].flatten(0, 2)
    views = torch.arange(32).repeat_interleave(196)
    released = correspondence_score(features, points, extent_m=extent, cross_view_only=False)
    assert released.voxel_mean == pytest.approx(float(golden["score_eval_formula"]), rel=1e-9)
    assert released.voxel_mean == pytest.approx(float(golden["score_eval_ref_fp32"]), rel=1e-5)
    score = correspondence_score(features, points, views, extent_m=extent)
    assert score.voxel_mean == pytest.approx(float(golden["score_voxel_mean_formula"]), rel=1e-9)
    assert score.pair_mean == pytest.approx(float(golden["score_pair_mean_formula"]), rel=1e-9)
    assert (score.num_pairs, score.num_voxels) == (golden["num_pairs"], golden["num_voxels_with_pairs"])


def test_cells_and_voxels_are_those_of_the_release(golden):
    cells = token_points(golden["avg_in"].double(), (2, 2), cell_size=27)
    torch.testing.assert_close(cells, golden["avg_out"].double(), rtol=1e-5, atol=1e-5)  # summed in float32 there
    indices = voxel_indices(golden["quant_in"], extent_m=VOXEL_EXTENT_M)
    assert torch.equal(indices, golden["quant_out"].long())
    coordinates = golden["patch_coords"]
    assert torch.equal(voxel_indices(coordinates, extent_m=VOXEL_EXTENT_M), golden["voxel_index"].long())
    ids = voxel_ids(coordinates.flatten(0, 2), extent_m=VOXEL_EXTENT_M)
    assert len(ids.unique()) == len(torch.stack([ids, golden["voxel_id"].long()], 1).unique(dim=0)) == 1224


def test_pairs_are_counted_as_by_loops():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    points, views = torch.rand(40, 3, generator=generator) * 0.2, torch.randint(3, (40,), generator=generator)
    points[::7] = torch.nan
    cosine = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=-1)
    cells = [tuple((point / 0.1).round().tolist()) for point in points]
    by_voxel, rest = {}, []
    for i in range(40):
        for j in range(i + 1, 40):
            if views[i] != views[j] and not points[[i, j]].isnan().any():
                rest.append(float(cosine[i, j]))
                if cells[i] == cells[j]:
                    by_voxel.setdefault(cells[i], []).append(float(cosine[i, j]))
    score = correspondence_score(features, points, views)
    assert score.num_pairs == sum(map(len, by_voxel.values())) and score.num_voxels == len(by_voxel) > 3
    assert score.voxel_mean == pytest.approx(np.mean([np.mean(part) for part in by_voxel.values()]))
    assert score.pair_mean == pytest.approx(np.mean([each for part in by_voxel.values() for each in part]))
    assert score.any_pair_mean == pytest.approx(np.mean(rest))


def test_tokens_without_depth_have_no_part():
    points = torch.zeros(4, 4, 3)
    points[..., 2] = 2.0
    points[0, 0] = torch.nan
    points[2:, 2:] = torch.nan
    cells = token_points(points, (2, 2))
    assert cells[..., 2].nan_to_num(-1).tolist() == [[2.0, 2.0], [2.0, -1.0]]
    assert token_points(points, (2, 2), min_valid=1.0).isnan().all(-1).tolist() == [[True, False], [False, True]]
    assert token_points(points, (2, 2), min_valid=0.0)[1, 1].isnan().all()
    with pytest.raises(ValueError, match="points have 4 x 4 pixels, too few for 2 x 2 tokens: give 6 x 6 or more"):
        token_points(points, (2, 2), cell_size=3)
    same = torch.ones(4, 3)
    score = correspondence_score(same, cells.flatten(0, 1), torch.arange(4))
    assert score.num_pairs == 3 and score.voxel_mean == pytest.approx(1.0)
    nothing = correspondence_score(same, cells.flatten(0, 1), torch.zeros(4, dtype=torch.long))
    assert np.isnan(nothing.voxel_mean) and nothing.num_pairs == 0
    with pytest.raises(ValueError, match="views are missing"):
        correspondence_score(same, cells.flatten(0, 1))
    with pytest.raises(ValueError, match="features has shape .4,. and points .3,."):
        correspondence_score(same, torch.zeros(3, 3), torch.zeros(4, dtype=torch.long))


def test_relation_to_task_scores():
    scores = [0.9, 0.1, 0.5, float("nan"), 0.3, 0.7, 0.2, 0.8, 0.6]
    errors = [0.1, np.inf, 0.5, 9.0, 0.7, 0.3, 0.9, 0.2, 0.4]
    related = relate_to_task(scores, errors)
    assert (related["num_samples"], related["num_left_out"]) == (8, 1)
    assert related["spearman"] == pytest.approx(-1.0) and related["spearman_p"] < 1e-6
    assert [group["n"] for group in related["groups"]] == [2, 2, 2, 2]
    assert [group["value"] for group in related["groups"][1:]] == pytest.approx([0.6, 0.35, 0.15])
    assert related["groups"][0]["value"] == np.inf  # an answer that could not be read stays one
    assert np.isnan(relate_to_task([0.1, 0.2, 0.3, 0.4], [1.0] * 4)["spearman"])
    with pytest.raises(ValueError, match="3 samples have a correspondence score, 1 have none; 4 groups need as many"):
        relate_to_task(scores[:4], errors[:4])
    with pytest.raises(ValueError, match="values .9,. and 1 times NaN"):
        relate_to_task(scores, [np.nan, *errors[1:]])
