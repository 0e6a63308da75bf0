"""Average precision of detections: the area under the precision-recall curve of one category."""

from collections.abc import Sequence

import numpy as np

from ...processing.scores.box_overlaps import match_in_order


def average_precision(overlaps: Sequence[np.ndarray], scores: Sequence[Sequence[float]], threshold: float) -> float:
    """Return the area under the curve of precision over recall, precision made non-increasing first.

    All detections of a category are ranked by score over all scenes. In a scene each takes the free true box of
    largest overlap if that is above the threshold, else it is a false positive.
    Source: the all-point area of PASCAL VOC 2010 that ScanNet detection reports. Detections of equal score enter the
    curve together, so that their order does not matter; if all are equal the area is precision times recall.

    Args:
        overlaps (list of `numpy.ndarray` of shape `(N_i, M_i)`): per scene, each detection with each true box.
        scores (list of sequences of `N_i` floats): higher is surer.
        threshold (`float`): an overlap must exceed it.
    Returns:
        `float` in 0..1; NaN if there are no true boxes, 0 if there are no detections.
    Raises:
        ValueError: if the counts differ or a score is not finite.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.evaluation import average_precision
        >>> average_precision([np.array([[0.9], [0.0]])], [[0.8, 0.3]], 0.5)
        1.0

        ```
    """
    if len(overlaps) != len(scores):
        raise ValueError(f"{len(overlaps)} scenes of overlaps came with {len(scores)} of scores.")
    num_truths, ranks, hits = 0, [], []
    for index, (matrix, surety) in enumerate(zip(overlaps, scores, strict=True)):
        surety = np.asarray(surety, dtype=np.float64)
        if surety.shape != (len(matrix),) or not np.isfinite(surety).all():
            raise ValueError(
                f"scene {index} has {len(matrix)} detections and scores {surety.tolist()}; expected one finite score "
                "each."
            )
        order = np.argsort(-surety, kind="stable")
        num_truths += matrix.shape[1]
        ranks.append(surety[order])
        hits.append(np.array(match_in_order(matrix[order], threshold), dtype=int) >= 0)
    if num_truths == 0:
        return float("nan")
    ranks, hits = np.concatenate(ranks), np.concatenate(hits)
    order = np.argsort(-ranks, kind="stable")
    ranks, hits = ranks[order], hits[order]
    last = np.flatnonzero(np.diff(ranks, append=-np.inf))  # the last of each run of equal scores
    found = np.cumsum(hits)[last]
    precision = np.maximum.accumulate((found / (last + 1))[::-1])[::-1]
    return float(np.sum(np.diff(found / num_truths, prepend=0.0) * precision))
