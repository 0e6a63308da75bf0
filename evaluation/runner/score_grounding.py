"""Answers that name a view and the box of one object in its camera, in one stage or two; see score_points.py."""

import numpy as np

from ...processing.answers_gap_mllm import format_box
from ...processing.camera_geometry_gap_mllm import transform_box
from ..intervals import with_interval
from ..metrics.grounding3d import ground_box, grounding_score


def score(samples, texts, seed: int = 0, frames=None):
    """Score grounded boxes by the corrected rule; the published one stands beside it under "reference_...".

    Frame: answers in the camera of the view that they name, truths in the aligned world. Units: metres and radians.

    Args:
        samples (`list[SceneSample]`): with one target box each, poses, and the alignment of the scan.
        texts (`list[str]`): their answers. seed (`int`): of the bootstrap over scenes.
        frames (`list[int]`, *optional*): views that a first stage chose; where None, the text names the view.
    Returns:
        `tuple[dict, list[dict]]`: what `grounding_score` gives, "miou" with its interval; records.
    Raises:
        RecordError: if a sample has no poses. ValueError: if it has no target box.
    """
    frames = frames or [None] * len(samples)
    answers, published, records = [], [], []
    for sample, text, frame in zip(samples, texts, frames, strict=True):
        truth, order = aligned_target(sample)
        poses, alignment = _poses(sample)
        answers.append(ground_box(text, truth, poses, alignment, frame, euler_order=order))
        published.append(ground_box(text, truth, poses, alignment, frame, mode="reference"))
        records.append(_record(answers[-1], sample))
    kinds = [sample.question_type or "all" for sample in samples]
    metrics = grounding_score(answers, kinds)
    reference = grounding_score(published)
    metrics |= {f"reference_{name}": value for name, value in reference.items() if isinstance(value, float)}
    scenes = [str(sample.scene_id) for sample in samples]
    metrics |= with_interval("miou", [answer.iou for answer in answers], np.mean, scenes, seed)
    return metrics, records


def aligned_target(sample):
    """The target box in the aligned world, `(9,)`, and its Euler order.

    Raises:
        ValueError: if the sample has no target box. RecordError: if it needs poses that are not there.
    """
    targets = [box for box in sample.boxes if box.role in (None, "target")]
    targets.sort(key=lambda box: box.frame != "aligned")
    if not targets:
        raise ValueError(f"question {sample.id!r} has no target box, so its answer cannot be scored.")
    box = targets[0]
    if box.frame == "aligned":
        return box.numbers, box.euler_order
    in_view = sample.box_in_view(box, 0)
    return transform_box(in_view, sample.camera_to("aligned", 0), box.euler_order), box.euler_order


def _poses(sample):
    """Poses of all views, NaN where one is not known, and the alignment of their world."""
    lost = np.full((4, 4), np.nan)
    poses = [lost if view.camera_to_world is None else view.camera_to_world for view in sample.views]
    return np.stack(poses), sample.world_to_aligned if sample.pose_frame == "scan" else None


def _record(answer, sample):
    parsed = None
    if answer.rejected is None:
        parsed = {"frame": answer.frame, "bbox_3d_aligned": [float(value) for value in answer.bbox_3d]}
    return {
        "parsed": parsed,
        "rejected": answer.rejected,
        "score": float(answer.iou),
        "category": sample.question_type,
        "iou": float(answer.iou),
    }


def constant(samples):
    """One answer to all: the first view, and the median of all boxes in its camera."""
    boxes = []
    for sample in samples:
        truth, order = aligned_target(sample)
        boxes.append(transform_box(truth, np.linalg.inv(sample.camera_to("aligned", 0)), order))
    text = format_box(np.median(boxes, axis=0)).replace('{"bbox_3d"', '{"frame": 0, "bbox_3d"')
    return lambda sample: text


__all__ = ["aligned_target", "constant", "score"]
