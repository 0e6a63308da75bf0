"""Whether samples with better correspondence are answered better: means of four groups, and a rank correlation."""

from collections.abc import Sequence

import numpy as np


def relate_to_task(correspondence: Sequence[float], values: Sequence[float], num_groups: int = 4) -> dict:
    """Sort samples by their correspondence score, cut them into groups of equal size, and average their task scores.

    Source: 3DRS (arXiv:2506.01946), four groups; no code of it was released, and the rank correlation is ours.

    Args:
        correspondence (sequence of `float`): score of each sample, as of `correspondence_score`; samples whose score
            is NaN are left out.
        values (sequence of `float`): task score or error of each sample; may be infinite, never NaN.
        num_groups (`int`, defaults to 4): groups.
    Returns:
        `dict`: "num_samples" and "num_left_out"; "groups" from low to high, each a dict of "n", "correspondence"
        (mean), "value" (mean) and "value_median"; "spearman" (rank correlation, NaN where all values are alike) and
        "spearman_p" (chance of one as strong among unrelated numbers).
    Raises:
        ValueError: if the lengths differ, a value is NaN, or fewer samples than groups have a score.

    Example:
        ```python
        >>> from gap_mllm.evaluation import relate_to_task
        >>> related = relate_to_task([0.1, 0.4, 0.2, 0.8], [0.0, 1.0, 0.5, 1.0])
        >>> [group["value"] for group in related["groups"]], round(related["spearman"], 3)
        ([0.0, 0.5, 1.0, 1.0], 0.949)

        ```
    """
    from scipy.stats import spearmanr

    scores, values = (np.asarray(given, dtype=np.float64) for given in (correspondence, values))
    if scores.ndim != 1 or scores.shape != values.shape or np.isnan(values).any():
        raise ValueError(
            f"correspondence has shape {scores.shape}, values {values.shape} and {np.isnan(values).sum()} times NaN; "
            "expected one number each for every sample."
        )
    is_known = ~np.isnan(scores)
    num_left_out, scores, values = int((~is_known).sum()), scores[is_known], values[is_known]
    if len(scores) < max(num_groups, 2):
        raise ValueError(
            f"{len(scores)} samples have a correspondence score, {num_left_out} have none; {num_groups} groups need "
            "as many. Ask more questions whose views have depth and poses and show a spot twice, or larger voxels."
        )
    groups = [
        {
            "n": len(places),
            "correspondence": float(scores[places].mean()),
            "value": float(values[places].mean()),
            "value_median": float(np.median(values[places])),
        }
        for places in np.array_split(scores.argsort(kind="stable"), num_groups)
    ]
    is_constant = (scores == scores[0]).all() or (values == values[0]).all()  # scipy warns of these
    spearman, p = (float("nan"), float("nan")) if is_constant else map(float, spearmanr(scores, values))
    found = {"num_samples": len(scores), "num_left_out": num_left_out, "groups": groups}
    return {**found, "spearman": spearman, "spearman_p": p}
