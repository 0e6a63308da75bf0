"""Grounding with axis-aligned boxes of six numbers: ScanRefer by type of question, Nr3D by difficulty and viewpoint.

Source: 3DRS's and Video-3D-LLM's evaluators, whose 1e-8 in the denominator mode "reference" keeps: an IoU of exactly
0.25 is a miss there.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ...processing.scores.box_overlaps import check_mode
from ...processing.scores.exact_iou import box_iou_axis_aligned
from ...processing.scores.reference_checks import as_numbers, check_equal_lengths, map_named, true_box
from .hits import overlap_summary


LARGEST_NUMBER, SMALLEST_SIZE_M = 1e50, 1e-50  # volumes stay within float64


def axis_aligned_overlaps(boxes: Sequence, truths: Sequence, mode: str = "corrected") -> tuple[np.ndarray, np.ndarray]:
    """Return the IoU of each answered box with its true one, and which answers are no box.

    Frame: any, the same for both. Units: metres. Box: centre, full sizes.

    Args:
        boxes (sequence of six floats or None): answers. Anything but six finite numbers is no box, as None or an empty
            list; in mode "corrected" so is a size that is not positive.
        truths (sequence of six floats)
        mode (`str`, defaults to "corrected"): "corrected" (exact) or "reference" (1e-8 added to the union).
    Returns:
        `tuple` of `numpy.ndarray` of shape `(N,)`: IoU, 0 where there is no box; bool.
    Raises:
        ValueError: on another mode, if the lengths differ, or a true box is not six finite numbers of positive size.
    """
    check_mode(mode)
    check_equal_lengths(boxes=boxes, truths=truths)
    truths = map_named("question", lambda truth: true_box(truth, "the true box", 6), truths)
    is_missing = np.array([not is_box(box, mode) for box in boxes], dtype=bool)
    overlaps, rows = np.zeros(len(boxes)), np.flatnonzero(~is_missing)
    answered = np.array([as_numbers(boxes[row]) for row in rows], dtype=np.float64).reshape(-1, 6)
    paired = np.array([truths[row] for row in rows], dtype=np.float64).reshape(-1, 6)
    overlaps[rows] = box_iou_axis_aligned(answered, paired, mode="reference" if mode == "reference" else "exact")
    return overlaps, is_missing


def is_box(box: ArrayLike | None, mode: str = "corrected", length: int = 6) -> bool:
    """Tell whether an answer is `length` numbers of up to 1e50, in mode "corrected" with positive sizes."""
    numbers = as_numbers(box)
    if numbers is None or len(numbers) != length or not (np.abs(numbers) <= LARGEST_NUMBER).all():
        return False
    return mode == "reference" or bool((numbers[3:6] >= SMALLEST_SIZE_M).all())


def grounding_axis_aligned_score(
    boxes: Sequence,
    truths: Sequence,
    question_types: Sequence[str] | None = None,
    mode: str = "corrected",
    nr3d: bool = False,
):
    """Accuracy at 0.25 and 0.5 (reached, not exceeded) and mean IoU of axis-aligned boxes.

    Args:
        boxes (sequence), truths (sequence), mode (`str`, defaults to "corrected"): arguments of
            `axis_aligned_overlaps`.
        question_types (sequence of `str`, *optional*): one for each question.
        nr3d (`bool`, defaults to False): read types as Nr3D's: "easy" or else "hard", "view-dep" or else "view-indep".
    Returns:
        `dict`: of `overlap_summary`, and "num_unparsed": answers that are no box; they count as wrong.
    Raises:
        ValueError: as `axis_aligned_overlaps`; if types are missing for `nr3d` or differ in number.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> metric = load_metric("grounding_axis_aligned")
        >>> metric.compute(predictions=[[0, 0, 0, 1, 1, 0.5]], references=[[0, 0, 0, 1, 1, 1]])["acc50"]
        1.0

        ```
    """
    return score_overlaps(*axis_aligned_overlaps(boxes, truths, mode), question_types, mode, nr3d)


def score_overlaps(
    overlaps: np.ndarray,
    is_missing: np.ndarray,
    question_types: Sequence[str] | None = None,
    mode: str = "corrected",
    nr3d: bool = False,
) -> dict:
    """Sum up what `axis_aligned_overlaps` gave; arguments and errors as `grounding_axis_aligned_score`."""
    slack = {"slack": 0.0} if mode == "reference" else {}
    if not nr3d:
        result = overlap_summary(overlaps, question_types, **slack)
    else:
        if question_types is None:
            raise ValueError("nr3d needs question_types, such as 'easy-view-dep'; got None.")
        result = overlap_summary(overlaps, **slack)
        kinds = [nr3d_types(kind) for kind in question_types]
        by_level, by_viewpoint = (
            overlap_summary(overlaps, [kind[place] for kind in kinds], **slack)["per_type"] for place in (0, 1)
        )
        result["per_type"] = {**by_level, **by_viewpoint}
    return {**result, "num_unparsed": int(is_missing.sum())}


def nr3d_types(question_type: str) -> tuple[str, str]:
    """Difficulty and viewpoint of an Nr3D question. Differs: the published code spells the last "vide-indep"."""
    level = "easy" if "easy" in question_type else "hard"
    return level, "view-dep" if "view-dep" in question_type else "view-indep"
