"""One answer that lists objects as boxes, beside the true objects of its scene: what was read, and how it overlaps.

The text is read once and every overlap worked out once, in one call for all scenes; counts at any threshold, average
precision and curves are taken from that. What is averaged over scenes is in evaluation/metrics/detection3d.py.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..answers_gap_mllm import parse_boxes
from .box_overlaps import check_mode, match_in_order, overlaps_of_groups
from .exact_iou import read_boxes
from .reference_answers import DetectedObjects, reference_detections
from .reference_checks import as_text, check_equal_lengths, check_record, check_true_text, map_named, shorten, true_box


NO_LABEL = "(unreadable)"
_LABEL = re.compile(r"""["']label["']\s*:\s*(["'])(.*?)\1""")
_EMPTY_LIST = re.compile(r"\[\s*\]")


@dataclass(frozen=True)
class SceneDetections:
    """One scene's answer beside its truth.

    Args:
        objects (`DetectedObjects`): what was read, in text order.
        overlaps (`dict`): places of the objects of each label in the answer, and their IoU with its true boxes,
            `(n, m)`.
    """

    objects: DetectedObjects
    overlaps: dict[str, tuple[list[int], np.ndarray]]

    @property
    def is_unparsed(self) -> bool:
        """Whether nothing could be read in what is no empty list either."""
        return self.objects.is_unparsed

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
        mode (`str`, defaults to "corrected"): "corrected" (`parse_boxes`: every well-formed object) or "reference"
            (`reference_detections`).
    Returns:
        `DetectedObjects`.
    Raises:
        ValueError: on another mode.

    Example:
        ```python
        >>> from gap_mllm.evaluation import read_detections
        >>> read_detections('[{"label": "bed", "bbox_3d": [0, 0, 2, 1, 2, 1, 0, 0, 0]}]').labels
        ('bed',)

        ```
    """
    check_mode(mode)
    if as_text(text) is None:
        return DetectedObjects(is_unparsed=True)
    if mode == "reference":
        objects = reference_detections(text)
    else:
        parsed = parse_boxes(text, require_label=True)
        labels, boxes = (tuple(getattr(item, name) for item in parsed.items) for name in ("label", "bbox_3d"))
        objects = DetectedObjects(labels, boxes, parsed.rejected, parsed.truncated)
    is_empty_list = _EMPTY_LIST.search(text) and not objects.rejected
    return replace(objects, is_unparsed=not objects.labels and not is_empty_list)


def detect_scene(
    text: str, boxes: Sequence[dict], mode: str = "corrected", euler_order: str | None = None
) -> SceneDetections:
    """Compare a scene's answer with its true boxes, label by label (exact text: case and blanks count).

    Frame: camera of the first view. Units: metres and radians.

    Args:
        text (`str`): the model's answer.
        boxes (list of `dict`): "label" and "bbox_3d" (nine numbers) of every true object.
        mode (`str`, defaults to "corrected"): the reading of text and of boxes; or "reference".
        euler_order (`str`, *optional*): "zxy" or "ZXY" for answer and truth, instead of the mode's.
    Returns:
        `SceneDetections`.
    Raises:
        ValueError: on another mode or order, or if a true box lacks a key, its label is no text, or it is not nine
            finite numbers of positive size; the message names the box.

    Example:
        ```python
        >>> from gap_mllm.processing.scores import detect_scene
        >>> bed = {"label": "bed", "bbox_3d": [0, 0, 2, 1, 2, 1, 0, 0, 0]}
        >>> detect_scene('[{"label": "bed", "bbox_3d": [0, 0, 2, 1, 2, 1, 0, 0, 0]}]', [bed]).counts()
        {'bed': {'tp': 1, 'fp': 0, 'fn': 0}}

        ```
    """
    objects = read_detections(text, mode)
    return _with_overlaps([(objects, _places_and_truths(objects, boxes))], mode, euler_order)[0]


def detect_scenes(
    texts: Sequence[str],
    boxes: Sequence[Sequence[dict]],
    mode: str = "corrected",
    euler_order: str | None = None,
) -> list[SceneDetections]:
    """Apply `detect_scene` to the answers about many scenes, with all overlaps worked out in one call.

    Args:
        texts (sequence of `str`): the model's answers, one a scene.
        boxes (sequence of lists of `dict`): the true objects of each scene.
        mode (`str`, defaults to "corrected"), euler_order (`str`, *optional*): arguments of `detect_scene`.
    Returns:
        `list[SceneDetections]`.
    Raises:
        ValueError: if the two differ in length, and as `detect_scene`, with the number of the scene.

    Example:
        ```python
        >>> from gap_mllm.processing.scores import detect_scenes
        >>> [scene.is_unparsed for scene in detect_scenes(["[]", "no idea"], [[], []])]
        [False, True]

        ```
    """
    return compare_detections([read_detections(text, mode) for text in texts], boxes, mode, euler_order)


def compare_detections(
    answers: Sequence[DetectedObjects],
    boxes: Sequence[Sequence[dict]],
    mode: str = "corrected",
    euler_order: str | None = None,
) -> list[SceneDetections]:
    """Hold answers that were read to the truth, with all overlaps worked out in one call; see `detect_scenes`.

    Args:
        answers (sequence of `DetectedObjects`): what `read_detections` gave, one a scene, by the same mode.
        boxes (sequence of lists of `dict`), mode (`str`, defaults to "corrected"), euler_order (`str`, *optional*):
            arguments of `detect_scenes`.
    Returns:
        `list[SceneDetections]`.
    Raises:
        ValueError: as `detect_scenes`.
    """
    check_equal_lengths(predictions=answers, boxes=boxes)
    labels = map_named("scene", _places_and_truths, answers, boxes)
    return _with_overlaps(list(zip(answers, labels, strict=True)), mode, euler_order)


def _places_and_truths(objects, boxes):
    """For each label the places of its objects and its truths."""
    _check_truths(boxes)
    places, truths = defaultdict(list), defaultdict(list)
    for place, label in enumerate(objects.labels):
        places[label].append(place)
    for box in boxes:
        truths[box["label"]].append(box["bbox_3d"])
    return {label: (places[label], truths[label]) for label in dict.fromkeys([*truths, *places])}


def _with_overlaps(scenes, mode, euler_order):
    groups = [
        ([objects.boxes[place] for place in places], truths)
        for objects, labels in scenes
        for places, truths in labels.values()
    ]
    matrices = iter(overlaps_of_groups(groups, mode, euler_order))
    results = []
    for objects, labels in scenes:
        overlaps = {label: (places, next(matrices)) for label, (places, _) in labels.items()}
        results.append(SceneDetections(objects, overlaps))
    return results


def _check_truths(boxes):
    if not isinstance(boxes, list | tuple):
        raise ValueError(f"the true boxes are {shorten(boxes)}; expected a list of dicts.")
    for place, box in enumerate(boxes):
        name = f"true box {place}"
        check_record(box, {"label": "text", "bbox_3d": "nine numbers"}, name)
        check_true_text(box["label"], f"the label of {name}")
        true_box(box["bbox_3d"], f"bbox_3d of {name}", 9)
    read_boxes("true boxes", [box["bbox_3d"] for box in boxes], 9)  # sizes that float64 volumes hold
