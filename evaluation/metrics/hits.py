"""Accuracy at IoU thresholds, mean IoU, and their split by type of question."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ...processing.scores.box_overlaps import OVERLAP_SLACK
from ...processing.scores.reference_checks import check_equal_lengths
from .records import mean_or_nan, places_by_group


THRESHOLDS = (0.25, 0.5)


def overlap_summary(
    overlaps: ArrayLike, question_types: Sequence[str] | None = None, slack: float = OVERLAP_SLACK
) -> dict:
    """Return the share of overlaps that reach 0.25 and 0.5 (at the threshold is a hit), and their mean.

    Args:
        overlaps (sequence of `float`): IoU of each question, 0 for an answer that cannot be read.
        question_types (sequence of `str`, *optional*): one for each; None stands for no type.
        slack (`float`, defaults to `OVERLAP_SLACK`): taken as rounding, so that an exact IoU of 0.25 is one.
    Returns:
        `dict`: "acc25", "acc50", "miou" in 0..1 (NaN without questions), "n", and with types "per_type", the same for
        each.
    Raises:
        ValueError: if the lengths differ or an overlap is not finite.
    """
    overlaps = np.asarray(overlaps, dtype=np.float64)
    if not np.isfinite(overlaps).all():
        raise ValueError(f"overlap {int(np.argmin(np.isfinite(overlaps)))} is not finite; a failed answer counts 0.")
    result = {f"acc{round(100 * level)}": mean_or_nan(overlaps >= level - slack) for level in THRESHOLDS}
    result |= {"miou": mean_or_nan(overlaps), "n": len(overlaps)}
    if question_types is None:
        return result
    check_equal_lengths(overlaps=overlaps, question_types=question_types)
    members = {kind: rows for kind, rows in places_by_group(question_types).items() if kind is not None}
    return {
        **result,
        "per_type": {kind: overlap_summary(overlaps[rows], slack=slack) for kind, rows in members.items()},
    }
