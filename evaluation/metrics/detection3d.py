"""3D object detection in text answers: precision, recall and F1 over three lists of categories, AP at 0.25 and 0.5.

Source: VG-LLM's and GAP-MLLM's evaluators on ScanNet, which mode "reference" follows; see box_overlaps.py for the
overlaps and reference_answers.py for their reading of text.

Where nothing counts a rate is NaN and in no mean: precision, recall and F1 of a category that is neither in the truth
nor in an answer, AP of one without true boxes, and all of them without scenes. Mode "reference" has 0 instead for
precision, recall and F1, which counts in the means, as published. Within a category that does occur, what is missing
is 0: precision without answers, recall without truths.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean

from ...processing.answers_gap_mllm import parse_boxes
from .average_precision import average_precision
from .box_overlaps import box_overlaps, check_mode, check_order, match_in_order
from .records import as_text, check_equal_lengths, mean_of_known
from .reference_answers import DetectedObjects, reference_detections
from .reference_checks import check_record, check_true_text, is_number, naming, shorten, true_box


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
NO_LABEL = "(unreadable)"
_LABEL = re.compile(r"""["']label["']\s*:\s*(["'])(.*?)\1""")
_EMPTY_LIST = re.compile(r"\[\s*\]")


@dataclass(frozen=True)
class SceneDetections:
    """One scene's answer beside its truth: per label the places of its objects in the answer, and their overlaps."""

    objects: DetectedObjects
    is_unparsed: bool
    overlaps: dict  # label -> (places, (n, m) array)

    def counts(self, threshold: float = 0.25, rejected_as_fp: bool = False) -> dict:
        """tp, fp and fn of each label, greedily in text order; `rejected_as_fp` adds what could not be read to fp."""
        counts = {}
        for label, (places, overlaps) in self.overlaps.items():
            hits = sum(column >= 0 for column in match_in_order(overlaps, threshold))
            counts[label] = {"tp": hits, "fp": len(places) - hits, "fn": overlaps.shape[1] - hits}
        if rejected_as_fp:
            for rejection in self.objects.rejected:
                found = _LABEL.search(rejection.text)
                label = found.group(2) if found else NO_LABEL
                counts.setdefault(label, {"tp": 0, "fp": 0, "fn": 0})["fp"] += 1
        return counts


def read_detections(text: str, mode: str = "corrected") -> DetectedObjects:
    """Read the objects of a detection answer.

    Frame: camera of the first view. Units: metres and radians.

    Args:
        text (`str`): a generated answer; what is no text, as None, holds no objects.
        mode (`str`): "corrected" (`parse_boxes`: every well-formed object) or "reference" (`reference_detections`).
    Returns:
        `DetectedObjects`.
    Raises:
        ValueError: on another mode.
    """
    check_mode(mode)
    if as_text(text) is None:
        return DetectedObjects()
    if mode == "reference":
        return reference_detections(text)
    parsed = parse_boxes(text, require_label=True)
    labels, boxes = [item.label for item in parsed.items], [item.bbox_3d for item in parsed.items]
    return DetectedObjects(tuple(labels), tuple(boxes), parsed.rejected, parsed.truncated)


def detect_scene(text: str, boxes, mode: str = "corrected", euler_order: str | None = None) -> SceneDetections:
    """Compare a scene's answer with its true boxes, label by label (exact text: case and blanks count).

    Frame: camera of the first view. Units: metres and radians.

    Args:
        text (`str`): the model's answer.
        boxes (list of `dict`): "label" and "bbox_3d" (nine numbers) of every true object.
        mode (`str`), euler_order (`str`, *optional*): of `read_detections` and `box_overlaps`.
    Returns:
        `SceneDetections`.
    Raises:
        ValueError: on another mode or order, or if a true box lacks a key, its label is no text, or it is not nine
            finite numbers of positive size; the message names the box.
    """
    check_order(euler_order)
    objects = read_detections(text, mode)
    _check_truths(boxes)
    places, truths = defaultdict(list), defaultdict(list)
    for place, label in enumerate(objects.labels):
        places[label].append(place)
    for box in boxes:
        truths[box["label"]].append(box["bbox_3d"])
    overlaps = {}
    for label in dict.fromkeys([*truths, *places]):
        answered = [objects.boxes[place] for place in places[label]]
        overlaps[label] = (places[label], box_overlaps(answered, truths[label], mode, euler_order))
    is_empty_list = as_text(text) is not None and _EMPTY_LIST.search(text) and not objects.rejected
    is_unparsed = not objects.labels and not is_empty_list
    return SceneDetections(objects, is_unparsed, overlaps)


def detection_counts(text: str, boxes, mode="corrected", euler_order=None, threshold=0.25, rejected_as_fp=False):
    """Hits, false positives and misses of one scene. Arguments and errors: see `detect_scene`, `detection_score`.

    Returns:
        `dict` of label to {"tp", "fp", "fn"}.
    """
    return detect_scene(text, boxes, mode, euler_order).counts(threshold, rejected_as_fp)


def detection_aggregate(counts, mode: str = "corrected") -> dict:
    """Sum the counts of scenes and average over categories.

    Args:
        counts (iterable of `dict`): of `detection_counts`.
        mode (`str`): whose lists of categories, see `CATEGORIES`.
    Returns:
        `dict`: "per_category" with counts, precision, recall and f1 of every label, 0 where nothing counts; "cate8",
        "cate20", "cate31" with the means over these lists, which a category that never occurs lowers, as published;
        "occurring" with the means over the "num_categories" of the last list that truth or answers hold (NaN for
        none); "micro" over all objects of all labels; "num_other_truths" and "num_other_objects": true and answered
        boxes of labels outside that list, which count in "micro" alone.
    Raises:
        ValueError: on another mode.
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
    predictions,
    boxes,
    scores=None,
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
        mode (`str`): "corrected", or "reference": published reading of text, Euler order "ZXY" on boxes that are
            "zxy", list with "lamp" twice and "towl".
        euler_order (`str`, *optional*): of answers and truths, instead of the mode's.
        threshold (`float`): overlap that a hit of precision, recall and F1 must exceed, 0 to 1.
        rejected_as_fp (`bool`): count objects that cannot be read as false positives of the label they name, where one
            is legible. The published evaluators drop them, which rewards malformed text.
    Returns:
        `dict`: what `detection_aggregate` gives; "precision", "recall" and "f1" as in "cate31"; "ap25" and "ap50",
        means over the categories of "cate31" that have true boxes (NaN without any), and each category's own; "n"
        scenes, "num_truths", "num_objects" read, "num_rejected", "num_truncated" answers, and "num_unparsed": answers
        in which no object could be read and that are no empty list.
    Raises:
        ValueError: if lengths differ, a scene has not one finite score for each object read, on another mode or order
            or a threshold outside 0 to 1, and on a wrong true box as `detect_scene`, with the number of the scene.
    """
    check_mode(mode)
    check_order(euler_order)
    if not is_number(threshold) or not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold!r}; expected an overlap in 0..1, such as 0.25.")
    check_equal_lengths(predictions=predictions, boxes=boxes)
    scenes = []
    for index, (text, truth) in enumerate(zip(predictions, boxes, strict=True)):
        with naming("scene", index):
            scenes.append(detect_scene(text, truth, mode, euler_order))
    scores = [[1.0] * len(scene.objects.labels) for scene in scenes] if scores is None else scores
    check_equal_lengths(predictions=predictions, scores=scores)
    for index, (scene, surety) in enumerate(zip(scenes, scores, strict=True)):
        if len(surety) != len(scene.objects.labels):
            raise ValueError(
                f"scene {index} has {len(surety)} scores for the {len(scene.objects.labels)} objects that were read; "
                "give one for each, in text order."
            )
    result = detection_aggregate([scene.counts(threshold, rejected_as_fp) for scene in scenes], mode)
    for label, values in result["per_category"].items():
        values |= _average_precisions(label, scenes, scores)
    for name in ("ap25", "ap50"):
        result[name] = mean_of_known(
            result["per_category"][label][name] for label in dict.fromkeys(CATEGORIES[mode]["cate31"])
        )
    return {
        **result["cate31"],
        **result,
        "n": len(scenes),
        "num_truths": sum(map(len, boxes)),
        "num_objects": sum(len(scene.objects.labels) for scene in scenes),
        "num_rejected": sum(len(scene.objects.rejected) for scene in scenes),
        "num_truncated": sum(scene.objects.truncated for scene in scenes),
        "num_unparsed": sum(scene.is_unparsed for scene in scenes),
    }


def _average_precisions(label, scenes, scores):
    overlaps, surety = [], []
    for scene, values in zip(scenes, scores, strict=True):
        if label in scene.overlaps:
            places, matrix = scene.overlaps[label]
            overlaps.append(matrix)
            surety.append([values[place] for place in places])
    return {f"ap{round(100 * level)}": average_precision(overlaps, surety, level) for level in (0.25, 0.5)}


_RATES = ("precision", "recall", "f1")


def _check_truths(boxes):
    if not isinstance(boxes, list | tuple):
        raise ValueError(f"the true boxes are {shorten(boxes)}; expected a list of dicts.")
    for place, box in enumerate(boxes):
        name = f"true box {place}"
        check_record(box, {"label": "text", "bbox_3d": "nine numbers"}, name)
        check_true_text(box["label"], f"the label of {name}")
        true_box(box["bbox_3d"], f"bbox_3d of {name}", 9)


def _rates(counts):
    """The counts with precision, recall and F1, each 0 where nothing counts."""
    tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
    precision, recall = (tp / total if total else 0.0 for total in (tp + fp, tp + fn))
    f1 = 2 * precision * recall / (precision + recall) if tp else 0.0
    return {**counts, "precision": precision, "recall": recall, "f1": f1}


__all__ = [
    "CATEGORIES",
    "SceneDetections",
    "detect_scene",
    "detection_aggregate",
    "detection_counts",
    "detection_score",
    "read_detections",
]
