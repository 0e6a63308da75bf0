"""Depth maps against measured depth: AbsRel, RMSE and the share of pixels within 1.25, 1.25^2 and 1.25^3.

Source: Eigen et al. (arXiv:1406.2283), averaged per map as usual since. Which pixels count, and whether scale is
aligned, is said in the call: published numbers differ in both.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ...processing.scores.reference_checks import (
    as_array,
    check_choice,
    check_equal_lengths,
    is_number,
    map_named,
    shorten,
    true_array,
)
from .records import mean_of_known, mean_or_nan


ALIGNMENTS = ("none", "median")
DELTA = 1.25
_DEPTH_RANGE_M = (1e-50, 1e50)
_MEANS = ("abs_rel", "rmse_m", "delta1", "delta2", "delta3", "coverage")


def depth_errors(
    prediction: ArrayLike | None,
    truth: ArrayLike,
    mask: ArrayLike | None = None,
    alignment: str = "none",
    max_depth_m: float | None = None,
) -> dict:
    """Compare one depth map with the truth, where the truth is known.

    A pixel counts if its true depth is finite and positive, it is in the mask, and it is not beyond `max_depth_m`.
    Frame: camera of the map; both are of the same kind, z-depth or along the ray. Units: metres.

    Args:
        prediction (array-like of shape `(H, W)` or any): a pixel without prediction is NaN, infinite, 0 or less; it
            fails all three deltas, lowers the coverage, and is left out of the means of errors. None, or what holds no
            numbers, predicts no pixel.
        truth (array-like of the same shape): 0, NaN or infinity where nothing was measured.
        mask (array-like of bool, same shape, *optional*)
        alignment (`str`, defaults to "none"): "none", or "median": predictions are scaled so that their median is the
            true one.
        max_depth_m (`float`, *optional*): pixels beyond it do not count.
    Returns:
        `dict`: "abs_rel", "rmse_m" (NaN without predictions), "delta1", "delta2", "delta3" and "coverage" in 0..1,
        "scale", "num_pixels" that count. All means are NaN if no pixel counts.
    Raises:
        ValueError: if shapes differ, the truth is no array of numbers, the alignment is another one, or the largest
            depth is not positive.

    Example:
        ```python
        >>> from gap_mllm.evaluation import depth_errors
        >>> depth_errors([[2.0, 4.0]], [[2.0, 0.0]])["abs_rel"]
        0.0

        ```
    """
    _check_options(alignment, max_depth_m)
    truth, prediction = true_array(truth, "truth"), as_array(prediction)
    if prediction is None or not prediction.ndim or not prediction.size:
        prediction = np.full(truth.shape, np.nan)
    mask = np.ones(truth.shape, dtype=bool) if mask is None else _read_mask(mask)
    if not prediction.shape == truth.shape == mask.shape:
        raise ValueError(
            f"prediction has shape {prediction.shape}, truth {truth.shape} and mask {mask.shape}; expected the same: "
            "resize the prediction to the measured map."
        )
    counts = mask & _is_depth(truth)
    if max_depth_m is not None:
        counts &= truth <= max_depth_m
    prediction, truth = prediction[counts], truth[counts]
    known = _is_depth(prediction)
    guess, true = prediction[known], truth[known]
    scale = float(np.median(true) / np.median(guess)) if alignment == "median" and len(guess) else 1.0
    guess = guess * scale
    ratio = np.maximum(guess / true, true / guess)
    deltas = {
        f"delta{power}": float((ratio < DELTA**power).sum() / len(truth)) if len(truth) else float("nan")
        for power in (1, 2, 3)
    }
    return {
        "abs_rel": mean_or_nan(np.abs(guess - true) / true),
        "rmse_m": float(np.sqrt(mean_or_nan((guess - true) ** 2))),
        **deltas,
        "coverage": mean_or_nan(known),
        "scale": scale,
        "num_pixels": len(truth),
    }


def depth_score(
    predictions: Sequence,
    truths: Sequence,
    masks: Sequence | None = None,
    alignment: str = "none",
    max_depth_m: float | None = None,
) -> dict:
    """Average `depth_errors` over maps; every map weighs the same.

    Args:
        predictions, truths (lists of array-likes), masks (list of array-likes, *optional*): one each for every map.
        alignment (`str`, defaults to "none"), max_depth_m (`float`, *optional*): arguments of `depth_errors`.
    Returns:
        `dict`: the means of "abs_rel", "rmse_m", "delta1", "delta2", "delta3" and "coverage"; "n" maps,
        "num_without_truth" (no pixel counts: in no mean), "num_without_prediction" (in no mean of errors, and all
        wrong in the deltas), "per_map".
    Raises:
        ValueError: if lengths differ, and as `depth_errors`, with the number of the map.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> load_metric("depth").compute(predictions=[[[1.0, 2.2]]], references=[[[1.0, 2.0]]])["delta1"]
        1.0

        ```
    """
    _check_options(alignment, max_depth_m)
    masks = [None] * len(truths) if masks is None else masks
    check_equal_lengths(predictions=predictions, truths=truths, masks=masks)
    options = {"alignment": alignment, "max_depth_m": max_depth_m}
    per_map = map_named("map", lambda *row: depth_errors(*row, **options), predictions, truths, masks)
    means = {name: mean_of_known(errors[name] for errors in per_map) for name in _MEANS}
    return {
        **means,
        "n": len(per_map),
        "num_without_truth": sum(errors["num_pixels"] == 0 for errors in per_map),
        "num_without_prediction": sum(errors["coverage"] == 0 for errors in per_map),
        "per_map": per_map,
    }


def _is_depth(values):
    """Positive and far from the limits of float64, so that no square is infinite; false for NaN."""
    return (values >= _DEPTH_RANGE_M[0]) & (values <= _DEPTH_RANGE_M[1])


def _check_options(alignment, max_depth_m):
    check_choice(alignment, "alignment", ALIGNMENTS)
    if max_depth_m is not None and not (is_number(max_depth_m) and max_depth_m > 0):
        raise ValueError(f"max_depth_m is {max_depth_m!r}; expected metres above 0, or None.")


def _read_mask(mask):
    try:
        return np.asarray(mask).astype(bool)
    except (TypeError, ValueError) as error:
        raise ValueError(f"mask is {shorten(mask)}; expected an array of true and false.") from error
