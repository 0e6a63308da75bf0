"""GAP-MLLM's detection: the boxes of all objects of a few ScanNet views, by the metrics of 3D detection.

Frame: camera of the first view. Units: metres and radians.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from ...processing.answers_gap_mllm import format_boxes
from ...processing.asking_gap_mllm import ANSWER_FORMS
from ...processing.data.scene_sample import Box, SceneSample
from ...processing.scores.detection_answers import compare_detections, read_detections
from ..metrics.detection3d import detection_aggregate, score_detected
from .benchmark import Benchmark
from .posed_boxes import answer_order


THRESHOLD = 0.25
CURVE_THRESHOLDS = [round(float(level), 2) for level in np.linspace(0.05, 0.95, 19)]


def read(sample: SceneSample, text: str) -> dict:
    """Read the objects of an answer by the corrected and by the published rule."""
    return {mode: read_detections(text, mode) for mode in ("corrected", "reference")}


def rate(samples: Sequence[SceneSample], answers: Sequence[dict], interval: Callable):
    """Score detections by the corrected rule; the published one stands beside it as "reference_f1".

    Args:
        samples (`list[SceneSample]`): questions of task "detection3d", their boxes in one Euler order.
        answers (`list[dict]`), interval (`Callable`): their readings, and see `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: what `detection_score` gives, "scene_f1", the mean F1 of the answers, with its
        interval, "reference_f1", and "precision_recall", both over all objects for each overlap; records. Objects that
        cannot be read are false positives, but in "reference_f1" and "without_rejected".
    Raises:
        ValueError: if boxes come in different Euler orders.
    """
    orders = {box.euler_order for sample in samples for box in sample.boxes}
    if len(orders) > 1:
        raise ValueError(f"the boxes of the benchmark come in Euler orders {sorted(orders)}; read them in one.")
    truths = [_truth(sample) for sample in samples]
    by_mode = {mode: [answer[mode] for answer in answers] for mode in ("corrected", "reference")}
    scenes = compare_detections(by_mode["corrected"], truths, euler_order=next(iter(orders), "zxy"))
    published = compare_detections(by_mode["reference"], truths, "reference")
    metrics = score_detected(scenes, threshold=THRESHOLD, rejected_as_fp=True)
    metrics["num_rejected_objects"] = metrics.pop("num_rejected")
    metrics["reference_f1"] = score_detected(published, mode="reference")["f1"]
    metrics["precision_recall"] = _precision_recall(scenes)
    records = [_record(scene) for scene in scenes]
    return metrics | interval("scene_f1", [record["score"] for record in records]), records


def _precision_recall(scenes):
    """Precision and recall over all objects at overlaps of 0.05 to 0.95."""
    counts = [[scene.counts(level, rejected_as_fp=True) for scene in scenes] for level in CURVE_THRESHOLDS]
    micro = [detection_aggregate(each)["micro"] for each in counts]
    return {"overlap": CURVE_THRESHOLDS} | {name: [rates[name] for rates in micro] for name in ("precision", "recall")}


def _truth(sample):
    return [{"label": box.label, "bbox_3d": sample.box_in_view(box, 0).tolist()} for box in sample.boxes]


def _record(scene):
    counts = scene.counts(THRESHOLD, rejected_as_fp=True)
    tp, fp, fn = (sum(values[name] for values in counts.values()) for name in ("tp", "fp", "fn"))
    objects = scene.objects
    rejected = None
    if scene.is_unparsed:
        rejected = objects.rejected[0].reason if objects.rejected else "cut off" if objects.truncated else "no object"
    best = {
        label: [float(value) for value in overlaps.max(axis=0, initial=0)]
        for label, (_, overlaps) in scene.overlaps.items()
    }
    boxes = [{"label": label, "bbox_3d": list(box)} for label, box in zip(objects.labels, objects.boxes, strict=True)]
    return {
        "parsed": None if scene.is_unparsed else boxes,
        "rejected": rejected,
        "score": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0,
        "category": None,
        "num_rejected_objects": len(objects.rejected),
        "counts": counts,
        "best_iou": best,
        "iou": float(np.mean([value for values in best.values() for value in values] or [0.0])),
    }


def constant(samples: Sequence[SceneSample]) -> Callable:
    """One list to all: the labels that more than half of the scenes have, or the commonest; medians of their boxes.

    The angles of a median box mean little; a blind baseline has none better.
    """
    boxes, scenes = defaultdict(list), Counter()
    for sample in samples:
        for box in _truth(sample):
            boxes[box["label"]].append(box["bbox_3d"])
        scenes.update({box.label for box in sample.boxes})
    if not boxes:
        return lambda sample: "[]"
    usual = [label for label, count in scenes.items() if count > len(samples) / 2]
    labels = sorted(usual) or [scenes.most_common(1)[0][0]]
    text = format_boxes(labels, [np.median(boxes[label], axis=0) for label in labels])
    return lambda sample: text


def draw(sample: SceneSample, parsed: list[dict]) -> list[Box]:
    """The answered boxes, to be drawn."""
    order = answer_order(sample)
    return [
        Box(np.asarray(box["bbox_3d"], float), order, "camera", 0, box["label"] or "", role="target") for box in parsed
    ]


GAP_MLLM_DETECTION = Benchmark(
    "gap_mllm_detection",
    "all objects of a few ScanNet views as boxes",
    source="gap_mllm",
    split="val",
    tasks=("detection3d",),
    read=read,
    rate=rate,
    constant=constant,
    headline="f1",
    forms=(ANSWER_FORMS["detection3d"],),
    draw=draw,
    shown="iou",
)
