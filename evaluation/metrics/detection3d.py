"""3D object detection in text answers: precision, recall and F1 over three lists of categories, AP at 0.25 and 0.5.

Source: VG-LLM's and GAP-MLLM's evaluators on ScanNet, which mode "reference" follows; see box_overlaps.py for the
overlaps and reference_answers.py for their reading of text.

Where nothing counts a rate is NaN and in no mean: precision, recall and F1 of a category that is neither in the truth
nor in an answer, AP of one without true boxes, and all of them without scenes. Mode "reference" has 0 instead for
precision, recall and F1, which counts in the means, as published. Within a category that does occur, what is missing
is 0: precision without answers, recall without truths.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np

from ...processing.scores.box_overlaps import check_mode
from ...processing.scores.detection_answers import SceneDetections, detect_scene, detect_scenes
from ...processing.scores.reference_checks import check_equal_lengths, is_number
from .average_precision import average_precision
from .records import mean_of_known


CATE8 = ("chair", "cabinet", "table", "bin", "couch", "bed", "bathtub", "toilet")
CATE20 = (
    *("chair", "pillow", "cabinet", "table", "lamp", "couch", "desk", "stand", "bed", "backpack", "bathtub"),
    *("ottoman", "dresser", "bin", "toilet", "refrigerator", "stove", "microwave", "monitor", "computer"),
)
_OTHERS = ("window", "shelf", "curtain", "plant", "stairs", "picture", "book", "bottle")
# Differs: the published list of 31 names "lamp" twice and "towl" for "towel"; without both there are 30 categories.
CATEGORIES = {
    "reference": {"cate8": CATE8, "cate20": CATE20, "cate31": (*CATE20, *_OTHERS, "lamp", "towl", "sink")},
    "corrected": {"cate8": CATE8, "cate20": CATE20, "cate31": (*CATE20, *_OTHERS, "towel", "sink")},
}


def detection_counts(
    text: str,
    boxes: Sequence[dict],
    mode: str = "corrected",
    euler_order: str | None = None,
    threshold: float = 0.25,
    rejected_as_fp: bool = False,
):
    """Hits, false positives and misses of one scene. Arguments and errors: see `detect_scene`, `detection_score`.

    Returns:
        `dict` of label to {"tp", "fp", "fn"}.

    Example:
        ```python
        >>> from gap_mllm.evaluation import detection_counts
        >>> bed = {"label": "bed", "bbox_3d": [0, 0, 2, 1, 2, 1, 0, 0, 0]}
        >>> detection_counts("[]", [bed])
        {'bed': {'tp': 0, 'fp': 0, 'fn': 1}}

        ```
    """
    return detect_scene(text, boxes, mode, euler_order).counts(threshold, rejected_as_fp)


def detection_aggregate(counts: Iterable[dict], mode: str = "corrected") -> dict:
    """Sum the counts of scenes and average over categories.

    Args:
        counts (iterable of `dict`): what `detection_counts` gives, one a scene.
        mode (`str`, defaults to "corrected"): whose lists of categories, see `CATEGORIES`.
    Returns:
        `dict`: "per_category" with counts, precision, recall and f1 of every label, 0 where nothing counts; "cate8",
        "cate20", "cate31" with the means over these lists, which a category that never occurs lowers, as published;
        "occurring" with the means over the "num_categories" of the last list that truth or answers hold (NaN for
        none); "micro" over all objects of all labels; "num_other_truths" and "num_other_objects": true and answered
        boxes of labels outside that list, which count in "micro" alone.
    Raises:
        ValueError: on another mode.

    Example:
        ```python
        >>> from gap_mllm.evaluation import detection_aggregate
        >>> detection_aggregate([{"bed": {"tp": 1, "fp": 0, "fn": 1}}])["micro"]["recall"]
        0.5

        ```
    """
    check_mode(mode)
    lists = CATEGORIES[mode]
    totals = {label: {"tp": 0, "fp": 0, "fn": 0} for label in dict.fromkeys(lists["cate31"])}
    for scene in counts:
        for label, values in scene.items():
            total = totals.setdefault(label, {"tp": 0, "fp": 0, "fn": 0})
            for name in total:
                total[name] += values[name]
    per_category = {label: _rates(total) for label, total in totals.items()}
    means = {
        name: {rate: fmean(per_category[label][rate] for label in labels) for rate in _RATES}
        for name, labels in lists.items()
    }
    micro = _rates({name: sum(total[name] for total in totals.values()) for name in ("tp", "fp", "fn")})
    occurring = [label for label in dict.fromkeys(lists["cate31"]) if any(totals[label].values())]
    others = [total for label, total in totals.items() if label not in lists["cate31"]]
    return {
        **means,
        "occurring": {rate: mean_of_known(per_category[label][rate] for label in occurring) for rate in _RATES},
        "micro": micro,
        "per_category": per_category,
        "num_categories": len(occurring),
        "num_other_truths": sum(total["tp"] + total["fn"] for total in others),
        "num_other_objects": sum(total["tp"] + total["fp"] for total in others),
    }


def detection_score(
    predictions: Sequence[str],
    boxes: Sequence[Sequence[dict]],
    scores: Sequence[Sequence[float]] | None = None,
    mode: str = "corrected",
    euler_order: str | None = None,
    threshold: float = 0.25,
    rejected_as_fp: bool = False,
) -> dict:
    """Score the answers to a detection benchmark.

    Frame: camera of the first view of each scene. Units: metres and radians.

    Args:
        predictions (list of `str`): the model's texts, one a scene. What is no text, as None, is unparsed.
        boxes (list of lists of `dict`): "label" and "bbox_3d" of every true object of the scene.
        scores (list of lists of `float`, *optional*): how sure the model is of each object that is read, in text
            order. Without them all are equally sure: AP is then precision times recall.
        mode (`str`, defaults to "corrected"): "corrected", or "reference": published reading of text, Euler order
            "ZXY" on boxes that are "zxy", list with "lamp" twice and "towl".
        euler_order (`str`, *optional*): "zxy" or "ZXY" for answers and truths, instead of the mode's.
        threshold (`float`, defaults to 0.25): overlap that a hit of precision, recall and F1 must exceed, 0 to 1.
        rejected_as_fp (`bool`, defaults to False): whether objects that cannot be read count in all figures, see
            "with_rejected". The published evaluators drop them, which rewards malformed text.
    Returns:
        `dict`: what `detection_aggregate` gives; "precision", "recall" and "f1" as in "cate31"; "ap25" and "ap50",
        means over the categories of "cate31" that have true boxes (NaN without any), and each category's own;
        "with_rejected" and "without_rejected", each with "precision", "recall", "f1", "ap25", "ap50" and "micro", by
        one rule each, whatever `rejected_as_fp` says: with them, an object that cannot be read is a false positive of
        the label that it names, or where none is legible in "micro" alone; without them it is dropped, as published.
        "n" scenes, "num_truths", "num_objects" read, "num_rejected", "num_truncated" answers, and "num_unparsed":
        answers in which no object could be read and that are no empty list.
    Raises:
        ValueError: if lengths differ, a scene has not one finite score for each object read, on another mode or order
            or a threshold outside 0 to 1, and on a wrong true box as `detect_scene`, with the number of the scene.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"boxes": [{"label": "bed", "bbox_3d": [0, 0, 2, 1, 2, 1, 0, 0, 0]}]}]
        >>> text = '[{"label": "bed", "bbox_3d": [0, 0, 2, 1, 2, 1, 0, 0, 0]}]'
        >>> load_metric("detection3d").compute(predictions=[text], references=references)["micro"]["f1"]
        1.0

        ```
    """
    scenes = detect_scenes(predictions, boxes, mode, euler_order)
    return score_detected(scenes, scores, mode, threshold, rejected_as_fp)


def score_detected(
    scenes: Sequence[SceneDetections],
    scores: Sequence[Sequence[float]] | None = None,
    mode: str = "corrected",
    threshold: float = 0.25,
    rejected_as_fp: bool = False,
) -> dict:
    """Score answers that were read and compared already; what `detection_score` does after `detect_scenes`.

    Args:
        scenes (sequence of `SceneDetections`): the answers, one a scene.
        scores (sequence of lists of `float`, *optional*), mode (`str`, defaults to "corrected"), threshold (`float`,
            defaults to 0.25), rejected_as_fp (`bool`, defaults to False): arguments of `detection_score`; the mode
            chooses the lists of categories.
    Returns:
        `dict`: as `detection_score`.
    Raises:
        ValueError: as `detection_score`.
    """
    _check_threshold(threshold)
    is_ranked = scores is not None
    scores = [[1.0] * len(scene.objects.labels) for scene in scenes] if scores is None else scores
    check_equal_lengths(scenes=scenes, scores=scores)
    for index, (scene, surety) in enumerate(zip(scenes, scores, strict=True)):
        if len(surety) != len(scene.objects.labels):
            raise ValueError(
                f"scene {index} has {len(surety)} scores for the {len(scene.objects.labels)} objects that were read; "
                "give one for each, in text order."
            )
    dropped, counted = (
        detection_aggregate([scene.counts(threshold, is_counted) for scene in scenes], mode)
        for is_counted in (False, True)
    )
    for label, values in counted["per_category"].items():
        without = dropped["per_category"].get(label)
        num_rejected = values["fp"] - (without["fp"] if without else 0)
        values |= _average_precisions(label, scenes, scores, num_rejected, is_ranked)
        if without:
            without |= _average_precisions(label, scenes, scores, 0, is_ranked)
    for result in (dropped, counted):
        for name in ("ap25", "ap50"):
            result[name] = mean_of_known(
                result["per_category"][label][name] for label in dict.fromkeys(CATEGORIES[mode]["cate31"])
            )
    result = counted if rejected_as_fp else dropped
    return {
        **result["cate31"],
        **result,
        "num_other_objects": dropped["num_other_objects"],
        "with_rejected": _figures(counted),
        "without_rejected": _figures(dropped),
        "n": len(scenes),
        "num_truths": sum(overlaps.shape[1] for scene in scenes for _, overlaps in scene.overlaps.values()),
        "num_objects": sum(len(scene.objects.labels) for scene in scenes),
        "num_rejected": sum(len(scene.objects.rejected) for scene in scenes),
        "num_truncated": sum(scene.objects.truncated for scene in scenes),
        "num_unparsed": sum(scene.is_unparsed for scene in scenes),
    }


def _figures(result):
    return {**result["cate31"], **{name: result[name] for name in ("ap25", "ap50", "micro")}}


def _check_threshold(threshold):
    if not is_number(threshold) or not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold!r}; expected an overlap in 0..1, such as 0.25.")


def _average_precisions(label, scenes, scores, num_rejected, is_ranked):
    """AP of a category; objects that could not be read hit nothing, as sure as the others, or last of ranked ones."""
    overlaps, surety = [np.zeros((num_rejected, 0))], []
    for scene, values in zip(scenes, scores, strict=True):
        if label in scene.overlaps:
            places, matrix = scene.overlaps[label]
            overlaps.append(matrix)
            surety.append([values[place] for place in places])
    last = min((value for values in surety for value in values), default=1.0) - is_ranked
    surety.insert(0, [last] * num_rejected)
    return {f"ap{round(100 * level)}": average_precision(overlaps, surety, level) for level in (0.25, 0.5)}


_RATES = ("precision", "recall", "f1")


def _rates(counts):
    """The counts with precision, recall and F1, each 0 where nothing counts."""
    tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
    precision, recall = (tp / total if total else 0.0 for total in (tp + fp, tp + fn))
    f1 = 2 * precision * recall / (precision + recall) if tp else 0.0
    return {**counts, "precision": precision, "recall": recall, "f1": f1}
