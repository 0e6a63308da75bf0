"""Errors of depth maps, worked out by hand."""

import math

import numpy as np
import pytest

from gap_mllm.evaluation.metrics import load_metric
from gap_mllm.evaluation.metrics.depth import depth_errors, depth_score


TRUTH = np.array([[1.0, 2.0], [4.0, 0.0]])


def test_errors_by_hand():
    errors = depth_errors([[1.0, 3.0], [5.0, 9.0]], TRUTH)  # ratios 1, 1.5, 1.25: the last is not below it
    assert errors["abs_rel"] == pytest.approx((0 + 0.5 + 0.25) / 3)
    assert errors["rmse_m"] == pytest.approx(math.sqrt(2 / 3))
    assert [errors[f"delta{k}"] for k in (1, 2, 3)] == pytest.approx([1 / 3, 1, 1])
    assert errors["coverage"] == 1 and errors["num_pixels"] == 3 and errors["scale"] == 1


@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_pixels_without_prediction_fail(missing):
    errors = depth_errors([[1.0, missing], [missing, missing]], TRUTH)
    assert errors["delta3"] == errors["coverage"] == pytest.approx(1 / 3)
    assert errors["abs_rel"] == errors["rmse_m"] == 0
    nothing = depth_errors(np.full((2, 2), missing), TRUTH, alignment="median")
    assert nothing["delta3"] == nothing["coverage"] == 0 and math.isnan(nothing["abs_rel"])


@pytest.mark.parametrize("unknown", [math.nan, math.inf, 0.0, -1.0])
def test_pixels_without_truth_do_not_count(unknown):
    errors = depth_errors([[1.0, 2.0]], [[1.0, unknown]])
    assert errors["num_pixels"] == 1 and errors["delta1"] == 1


def test_mask_and_largest_depth():
    guess = [[1.0, 9.0], [4.0, 1.0]]
    assert depth_errors(guess, TRUTH, mask=[[1, 0], [1, 1]])["abs_rel"] == 0
    assert depth_errors(guess, TRUTH, max_depth_m=1.5)["num_pixels"] == 1
    assert depth_errors(guess, TRUTH, max_depth_m=4.0)["num_pixels"] == 3


def test_median_alignment():
    errors = depth_errors(TRUTH * 3.0, TRUTH, alignment="median")
    assert errors["scale"] == pytest.approx(1 / 3) and errors["abs_rel"] == pytest.approx(0)
    assert depth_errors(TRUTH * 3.0, TRUTH)["abs_rel"] == pytest.approx(2)
    half_known = depth_errors([[2.0, math.nan], [8.0, 1.0]], TRUTH, alignment="median")
    assert half_known["scale"] == 0.5  # both medians over the pixels with a prediction


def test_maps_weigh_the_same():
    truths = [np.ones((1, 1)), np.ones((4, 4)), np.zeros((2, 2)), np.ones((1, 2))]
    guesses = [np.full((1, 1), 2.0), np.ones((4, 4)), np.ones((2, 2)), np.zeros((1, 2))]
    result = depth_score(guesses, truths)
    assert result["abs_rel"] == 0.5 and result["delta1"] == pytest.approx(1 / 3)
    assert result["coverage"] == pytest.approx(2 / 3) and result["n"] == 4
    assert result["num_without_truth"] == 1 and result["num_without_prediction"] == 1
    empty = depth_score([], [])
    assert empty["n"] == 0 and math.isnan(empty["abs_rel"])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="unknown alignment 'mean'; known are none, median"):
        depth_errors(TRUTH, TRUTH, alignment="mean")
    with pytest.raises(ValueError, match=r"map 0: prediction has shape \(1,\), truth \(2, 2\)"):
        depth_score([[1.0]], [TRUTH])
    with pytest.raises(ValueError, match="1 predictions, 0 truths, 0 masks"):
        depth_score([TRUTH], [])


def test_the_metric_agrees():
    metric = load_metric("depth")
    result = metric.compute(
        predictions=[(2 * TRUTH).tolist(), [[1.0]]], references=[TRUTH.tolist(), [[2.0]]], alignment="median"
    )
    assert result["abs_rel"] == pytest.approx(0) and result["n"] == 2
    masked = metric.compute(predictions=[[[1.0, 9.0]]], references=[[[1.0, 1.0]]], masks=[[[True, False]]])
    assert masked["abs_rel"] == 0
