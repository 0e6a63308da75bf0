"""Multi3DRefer: F1 of a set of boxes against a set of truths, none, one or many, after one-to-one assignment.

Source: 3DRS's evaluator. It selects boxes by scores of proposals, which a model that answers in text does not need.
"""

from collections.abc import Sequence

import numpy as np

from ...processing.scores.box_overlaps import EULER_ORDER_OF_MODE, OVERLAP_SLACK, check_mode, check_order
from ...processing.scores.exact_iou import box_iou_9dof, box_iou_axis_aligned
from ...processing.scores.reference_checks import (
    as_numbers,
    check_choices,
    check_equal_lengths,
    is_list,
    map_named,
    shorten,
    true_box,
)
from .grounding_axis_aligned import is_box
from .hits import THRESHOLDS
from .records import mean_or_nan, places_by_group, score_each


QUESTION_TYPES = ("zt_wo_d", "zt_w_d", "st_wo_d", "st_w_d", "mt")


def select_proposals(boxes: Sequence, scores: Sequence[float], temperature: float = 0.07, mass: float = 0.4) -> list:
    """Choose proposals by the published rule: the likeliest ones until they hold `mass` of the probability.

    Args:
        boxes (list): proposals, of any kind.
        scores (sequence of `float`): one a proposal, and last that of "nothing is meant".
        temperature (`float`, defaults to 0.07): temperature of the softmax over all scores.
        mass (`float`, defaults to 0.4): probability that is reached with the last box that is kept.
    Returns:
        list of the chosen proposals, likeliest first; empty if the last score is the highest.
    Raises:
        ValueError: if there is not one finite score a proposal and one more.

    Example:
        ```python
        >>> from gap_mllm.evaluation import select_proposals
        >>> select_proposals(["a", "b"], [0.9, 0.1, 0.0])
        ['a']

        ```
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(boxes) + 1,) or not np.isfinite(scores).all():
        raise ValueError(
            f"scores are {scores.tolist()} of {len(boxes)} proposals; expected one finite score for each and one more "
            "for no box, last."
        )
    if np.argmax(scores) == len(boxes):
        return []
    weights = np.exp((scores - scores.max()) / temperature)
    weights = (weights / weights.sum())[:-1]
    order = np.argsort(-weights, kind="stable")
    num_kept = int(np.searchsorted(np.cumsum(weights[order]), mass)) + 1
    return [boxes[index] for index in order[:num_kept]]


def multi3drefer_f1(
    boxes: Sequence | None, truths: Sequence, mode: str = "corrected", euler_order: str | None = None
) -> dict:
    """Return the F1 of one question at an IoU of 0.25 and 0.5 (reached, not exceeded).

    Boxes and truths are paired so that the sum of IoU is greatest, which is not always what gives most hits.
    Frame: any, the same for all. Units: metres, radians. Box: centre, full sizes, and three angles if and only if the
    truth has.

    Args:
        boxes (list of six or nine floats): answered boxes. One that is not so many finite numbers, or in mode
            "corrected" has a size that is not positive, overlaps nothing and counts as a false positive. What is no
            list, as None, is an answer that could not be read: it scores 0.
        truths (sequence of six or nine floats): all of one length.
        mode (`str`, defaults to "corrected"): "corrected" (exact) or "reference" (1e-8 in the denominator, IoU rounded
            to float32).
        euler_order (`str`, *optional*): order of boxes with angles, "zxy" by default.
    Returns:
        `dict`: "f1_25", "f1_50". Two empty sets score 1, one empty set 0.
    Raises:
        ValueError: on another mode or order, or a true box that is not six or nine finite numbers of positive size.

    Example:
        ```python
        >>> from gap_mllm.evaluation import multi3drefer_f1
        >>> cube = [0, 0, 0, 1, 1, 1]
        >>> multi3drefer_f1([cube], [cube])
        {'f1_25': 1.0, 'f1_50': 1.0}

        ```
    """
    from scipy.optimize import linear_sum_assignment  # of the extra "eval"

    check_mode(mode)
    check_order(euler_order)
    truths = _read_truths(truths)
    length = len(truths[0]) if truths else 6
    if not is_list(boxes):
        return {_name(level): 0.0 for level in THRESHOLDS}
    if not len(boxes) or not len(truths):
        score = float(len(boxes) == len(truths))
        return {_name(level): score for level in THRESHOLDS}
    overlaps = np.zeros((len(boxes), len(truths)))
    rows = [index for index, box in enumerate(boxes) if is_box(box, mode if length == 6 else "corrected", length)]
    if rows:
        overlaps[rows] = _overlaps([as_numbers(boxes[row]) for row in rows], truths, mode, euler_order)
    if mode == "reference":
        overlaps = overlaps.astype(np.float32)
    matched = overlaps[linear_sum_assignment(overlaps, maximize=True)]
    slack = 0.0 if mode == "reference" else OVERLAP_SLACK
    total = len(boxes) + len(truths)
    return {_name(level): 2 * int((matched >= level - slack).sum()) / total for level in THRESHOLDS}


def multi3drefer_score(
    boxes: Sequence,
    truths: Sequence,
    question_types: Sequence[str] | None = None,
    mode: str = "corrected",
    euler_order: str | None = None,
) -> dict:
    """Average `multi3drefer_f1` over questions, all and by type.

    Args:
        boxes, truths (lists of lists of boxes): boxes of each question. An answer that could not be read is None:
            it scores 0, also where nothing was to be found.
        question_types (sequence of `str`, *optional*): a name in `QUESTION_TYPES` for each.
        mode (`str`, defaults to "corrected"), euler_order (`str`, *optional*)
    Returns:
        `dict`: "f1_25", "f1_50" (NaN without questions), "n", "num_unparsed" (answers that are no list, or of whose
        boxes none can be read), "num_rejected" (boxes that cannot be read: false positives), and with types
        "per_type".
    Raises:
        ValueError: if lengths differ, on another type, and as `multi3drefer_f1`, with the number of the question.

    Example:
        ```python
        >>> from gap_mllm.evaluation import multi3drefer_score
        >>> cube = [0, 0, 0, 1, 1, 1]
        >>> multi3drefer_score([[cube], []], [[cube], []])["f1_50"]
        1.0

        ```
    """
    return multi3drefer_aggregate(multi3drefer_each(boxes, truths, mode, euler_order), question_types)


def multi3drefer_each(
    boxes: Sequence, truths: Sequence, mode: str = "corrected", euler_order: str | None = None
) -> list[dict]:
    """Score the questions one by one; arguments and errors as `multi3drefer_score`.

    Returns:
        `list[dict]`: "f1_25", "f1_50", "num_rejected" and "is_unparsed" of each question.
    """
    check_mode(mode)
    check_order(euler_order)
    check_equal_lengths(boxes=boxes, truths=truths)

    def score(answered: Sequence | None, truth: Sequence):
        f1 = multi3drefer_f1(answered, truth, mode, euler_order)
        if not is_list(answered):
            return {**f1, "num_rejected": 0, "is_unparsed": True}
        readable = [_is_readable(box, truth, mode) for box in answered]
        is_unparsed = bool(readable) and not any(readable)
        return {**f1, "num_rejected": readable.count(False), "is_unparsed": is_unparsed}

    return map_named("question", score, boxes, truths)


def multi3drefer_aggregate(scores: Sequence[dict], question_types: Sequence[str] | None = None) -> dict:
    """Average what `multi3drefer_each` gave; result and errors as `multi3drefer_score`."""
    counts = {"num_unparsed": "is_unparsed", "num_rejected": "num_rejected"}
    result = _means(scores) | {name: sum(score[key] for score in scores) for name, key in counts.items()}
    if question_types is None:
        return result
    check_equal_lengths(scores=scores, question_types=question_types)
    check_choices(question_types, "question type", QUESTION_TYPES)
    members = places_by_group(question_types).items()
    return {**result, "per_type": {kind: _means([scores[place] for place in places]) for kind, places in members}}


def multi3drefer_metric(
    predictions: Sequence,
    references: Sequence,
    question_types: Sequence[str] | None = None,
    scores: Sequence[Sequence[float]] | None = None,
    mode: str = "corrected",
    euler_order: str | None = None,
) -> dict:
    """Multi3DRefer: F1 of a set of boxes against a set of true ones (none, one or many) at an IoU of 0.25 and 0.5.

    Boxes are paired one to one with the greatest sum of IoU; two empty sets score 1, one empty set 0. Boxes that are
    not finite numbers or have no volume count as false positives.
    Frame: any, the same for all boxes of a question. Units: metres and radians.
    Source: 3DRS's evaluator of Multi3DRefer (arXiv:2309.05251).

    Args:
        predictions (sequence of lists of boxes): answered boxes of each question, six numbers (centre, full sizes) or
            nine (and angles). None stands for an answer that could not be read.
        references (sequence of lists of boxes): true boxes of each question.
        question_types (sequence of `str`, *optional*): zt_wo_d, zt_w_d, st_wo_d, st_w_d or mt of each.
        scores (sequence of lists of `float`, *optional*): scores of the answered boxes as proposals and, last, of
            "nothing is meant": boxes are then selected by `select_proposals`, as published.
        mode (`str`, defaults to "corrected"): "corrected" (exact), or "reference" (1e-8 in the denominator, float32).
        euler_order (`str`, *optional*): "zxy" (default) or "ZXY", for boxes with nine numbers.
    Returns:
        `dict`: as `multi3drefer_score`.
    Raises:
        ValueError: as `multi3drefer_score`, and as `select_proposals` with the number of the question.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> box, other = [0, 0, 0, 1, 1, 1], [3, 0, 0, 1, 1, 1]
        >>> result = load_metric("multi3drefer").compute(predictions=[[box]], references=[[box, other]])
        >>> round(result["f1_50"], 3)
        0.667

        ```
    """
    if scores is not None:
        predictions = score_each(_select, predictions=predictions, scores=scores)
    return multi3drefer_score(predictions, references, question_types, mode, euler_order)


def _select(boxes, scores):
    return boxes if boxes is None else select_proposals(boxes, scores)


def _is_readable(box, truths, mode):
    """As `multi3drefer_f1` takes boxes; where nothing is true, six numbers and nine are."""
    lengths = {len(truth) for truth in truths} or {6, 9}
    return any(is_box(box, mode if length == 6 else "corrected", length) for length in lengths)


def _read_truths(truths):
    if not is_list(truths):
        raise ValueError(f"the true boxes are {shorten(truths)}; expected a list of boxes.")
    numbers = [as_numbers(truth) for truth in truths]
    lengths = {0 if truth is None else len(truth) for truth in numbers}
    if not lengths <= {6} and not lengths <= {9}:
        raise ValueError(f"true boxes have {sorted(lengths)} numbers; expected 6 in all, or 9 in all.")
    return [true_box(truth, f"true box {index}", len(numbers[0])) for index, truth in enumerate(truths)]


def _means(scores):
    return {_name(level): mean_or_nan(score[_name(level)] for score in scores) for level in THRESHOLDS} | {
        "n": len(scores)
    }


def _name(level):
    return f"f1_{round(100 * level)}"


def _overlaps(boxes, truths, mode, euler_order):
    if len(truths[0]) == 9:
        return box_iou_9dof(boxes, truths, euler_order or EULER_ORDER_OF_MODE["corrected"], all_pairs=True)
    return box_iou_axis_aligned(boxes, truths, True, "reference" if mode == "reference" else "exact")
