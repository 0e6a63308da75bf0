"""Answers that list the boxes of all objects, by the metrics of 3D detection; see score_points.py."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from ...processing.answers_gap_mllm import format_boxes
from ...processing.data.scene_sample import SceneSample
from ...processing.scores.detection_answers import detect_scenes
from ..intervals import with_interval
from ..metrics.detection3d import detection_aggregate, detection_score, score_detected


THRESHOLD = 0.25
CURVE_THRESHOLDS = [round(float(level), 2) for level in np.linspace(0.05, 0.95, 19)]


def score(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0):
    """Score detection answers by the corrected rule; the published one stands beside it as "reference_f1".

    Frame: camera of the first view. Units: metres and radians.

    Args:
        samples (`list[SceneSample]`): questions of task "detection3d", their boxes in one Euler order.
        texts (`list[str]`): their answers.
        seed (`int`, defaults to 0): seed of the bootstrap over scenes.
    Returns:
        `tuple[dict, list[dict]]`: what `detection_score` gives, "scene_f1", the mean F1 of the answers, with its
        interval, "reference_f1", and "precision_recall", both over all objects for each overlap; records.
    Raises:
        ValueError: if boxes come in different Euler orders.
    """
    orders = {box.euler_order for sample in samples for box in sample.boxes}
    if len(orders) > 1:
        raise ValueError(f"the boxes of the benchmark come in Euler orders {sorted(orders)}; read them in one.")
    order = next(iter(orders), "zxy")
    truths = [_truth(sample) for sample in samples]
    answered = detect_scenes(texts, truths, euler_order=order)
    metrics = score_detected(answered, threshold=THRESHOLD)
    metrics["num_rejected_objects"] = metrics.pop("num_rejected")
    metrics["reference_f1"] = detection_score(texts, truths, mode="reference")["f1"]
    metrics["precision_recall"] = _precision_recall(answered)
    records = [_record(scene) for scene in answered]
    scenes = [str(sample.scene_id) for sample in samples]
    metrics |= with_interval("scene_f1", [record["score"] for record in records], np.mean, scenes, seed)
    return metrics, records


def _precision_recall(answered):
    """Precision and recall over all objects at overlaps of 0.05 to 0.95."""
    micro = [detection_aggregate([scene.counts(level) for scene in answered])["micro"] for level in CURVE_THRESHOLDS]
    return {"overlap": CURVE_THRESHOLDS} | {name: [rates[name] for rates in micro] for name in ("precision", "recall")}


def _truth(sample):
    return [{"label": box.label, "bbox_3d": sample.box_in_view(box, 0).tolist()} for box in sample.boxes]


def _record(scene):
    counts = scene.counts(THRESHOLD)
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


def constant(samples: Sequence[SceneSample]):
    """One list to all: the labels that more than half of the scenes have, or the commonest; medians of their boxes.

    The angles of a median box mean little; a blind guess has none better.
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


__all__ = ["constant", "score"]
