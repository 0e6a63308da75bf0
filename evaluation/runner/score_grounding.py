"""Answers that name a view and the box of one object in its camera, in one stage or two; see score_points.py."""

from collections.abc import Sequence

import numpy as np

from ...processing.answers_gap_mllm import format_box
from ...processing.camera_geometry_gap_mllm import euler_to_matrix, matrix_to_euler, transform_box
from ...processing.data.record_errors import RecordError
from ...processing.data.scene_sample import SceneSample
from ...processing.scores.grounding_answers import GroundedBox
from ..intervals import with_interval
from ..metrics.grounding3d import ground_box, grounding_score


def score(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0, frames: Sequence[int] | None = None):
    """Score grounded boxes by the corrected rule; the published one stands beside it under "reference_...".

    Frame: answers in the camera of the view that they name, truths in the aligned world. Units: metres and radians.

    Args:
        samples (`list[SceneSample]`): with one target box each, poses, and the alignment of the scan.
        texts (`list[str]`): their answers.
        seed (`int`, defaults to 0): seed of the bootstrap over scenes.
        frames (`list[int]`, *optional*): views that a first stage chose; where None, the text names the view.
    Returns:
        `tuple[dict, list[dict]]`: what `grounding_score` gives, "miou" with its interval; records.
    Raises:
        RecordError: if a sample has no poses. ValueError: if it has no target box.
    """
    answers, published = (grounded_boxes(samples, texts, frames, mode) for mode in ("corrected", "reference"))
    records = [grounding_record(answer, sample) for answer, sample in zip(answers, samples, strict=True)]
    kinds = [sample.question_type or "all" for sample in samples]
    metrics = grounding_score(answers, kinds)
    reference = grounding_score(published)
    metrics |= {f"reference_{name}": value for name, value in reference.items() if isinstance(value, float)}
    scenes = [str(sample.scene_id) for sample in samples]
    metrics |= with_interval("miou", [answer.iou for answer in answers], np.mean, scenes, seed)
    return metrics, records


def grounded_boxes(
    samples: Sequence[SceneSample], texts: Sequence[str], frames: Sequence[int] | None = None, mode: str = "corrected"
) -> list:
    """Read the answers and move their boxes into the aligned world; arguments and errors as `score`, `ground_box`.

    Returns:
        `list[GroundedBox]`.
    """
    answers = []
    for sample, text, frame in zip(samples, texts, frames or [None] * len(samples), strict=True):
        truth, order = aligned_target(sample)
        order = order if mode == "corrected" else None  # the published one is its mode's
        answers.append(ground_box(text, truth, *_poses(sample), frame, mode, order))
    return answers


def check(sample: SceneSample) -> None:
    """Raise ValueError if a question has no target box, RecordError if its views have no poses or no alignment."""
    aligned_target(sample)
    poses, _ = _poses(sample)
    if not np.isfinite(poses).all((1, 2)).any():
        raise RecordError("no view has a pose.", "camera_to_world", record_id=sample.id)


def answer_order(sample: SceneSample) -> str:
    """The Euler order of answered boxes: that of the boxes in a camera, and "zxy" where there are none."""
    return next((box.euler_order for box in sample.boxes if box.frame == "camera"), "zxy")


def aligned_target(sample: SceneSample):
    """The target box in the aligned world, `(9,)`, and the Euler order in which it is given: that of the answers.

    Raises:
        ValueError: if the sample has no target box. RecordError: if it needs poses that are not there.
    """
    targets = [box for box in sample.boxes if box.role in (None, "target")]
    targets.sort(key=lambda box: box.frame != "aligned")
    if not targets:
        raise ValueError(f"question {sample.id!r} has no target box, so its answer cannot be scored.")
    box, order = targets[0], answer_order(sample)
    numbers = box.numbers
    if box.frame != "aligned":
        numbers = transform_box(sample.box_in_view(box, 0), sample.camera_to("aligned", 0), box.euler_order)
    return in_order(numbers, box.euler_order, order), order


def in_order(numbers: np.ndarray, euler_order: str, wanted: str) -> np.ndarray:
    """A box, `(9,)`, with its angles in the wanted Euler order; the solid is the same."""
    if euler_order == wanted:
        return numbers
    angles = matrix_to_euler(euler_to_matrix(numbers[6:], euler_order), wanted)
    return np.concatenate([numbers[:6], angles])


def _poses(sample):
    """Poses of all views, NaN where one is not known, and the alignment of their world."""
    if sample.pose_frame == "scan" and sample.world_to_aligned is None:
        raise RecordError(
            "poses are in the scan frame, but world_to_aligned is not there to compare boxes in the aligned one.",
            "world_to_aligned",
            record_id=sample.id,
        )
    lost = np.full((4, 4), np.nan)
    poses = [lost if view.camera_to_world is None else view.camera_to_world for view in sample.views]
    return np.stack(poses), sample.world_to_aligned if sample.pose_frame == "scan" else None


def grounding_record(answer: GroundedBox, sample: SceneSample) -> dict:
    """What predictions.jsonl holds of a `GroundedBox`."""
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


def constant(samples: Sequence[SceneSample]):
    """One answer to all: the first view, and the median of all boxes in its camera."""
    boxes = []
    for sample in samples:
        truth, order = aligned_target(sample)
        boxes.append(transform_box(truth, np.linalg.inv(sample.camera_to("aligned", 0)), order))
    text = format_box(np.median(boxes, axis=0)).replace('{"bbox_3d"', '{"frame": 0, "bbox_3d"')
    return lambda sample: text


__all__ = [
    "aligned_target",
    "answer_order",
    "check",
    "constant",
    "grounded_boxes",
    "grounding_record",
    "in_order",
    "score",
]
