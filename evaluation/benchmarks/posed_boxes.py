"""Answers that name a view and the box of one object in its camera: reading them into the aligned world.

Frame: answers in the camera of the view that they name, truths in the aligned world. Units: metres and radians.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ...processing.answers_gap_mllm import format_frame_box
from ...processing.asking_gap_mllm import ANSWER_FORMS
from ...processing.camera_geometry_gap_mllm import transform_box
from ...processing.data.box_rows import in_euler_order
from ...processing.data.record_errors import RecordError
from ...processing.data.scene_sample import Box, SceneSample
from ...processing.scores.grounding_answers import GroundedBox, ground_box
from .two_stage import answer_in_two_stages, two_stage_requests


def read_box(sample: SceneSample, text: str, frame: int | None = None, mode: str = "corrected") -> GroundedBox:
    """Read an answer, move its box into the aligned world and hold it to the truth.

    Args:
        sample (`SceneSample`): sample with one target box, poses, and the alignment of the scan.
        text (`str`), frame (`int`, *optional*), mode (`str`, defaults to "corrected"): arguments of `ground_box`; a
            first stage chose the frame, and where it is None the text names the view.
    Returns:
        `GroundedBox`.
    Raises:
        RecordError: if the sample has no poses or no alignment. ValueError: if it has no target box.
    """
    truth, order = aligned_target(sample)
    order = order if mode == "corrected" else None  # the published one is its mode's
    return ground_box(text, truth, *_poses(sample), frame, mode, order)


def check_posed(sample: SceneSample) -> None:
    """Raise ValueError if a question has no target box, RecordError if its views have no poses or no alignment."""
    aligned_target(sample)
    poses, _ = _poses(sample)
    if not np.isfinite(poses).all((1, 2)).any():
        raise RecordError(
            "no view has a pose, which boxes in the world are scored by; the source needs its folder of poses "
            "(posed_root, --posed-root).",
            "camera_to_world",
            record_id=sample.id,
        )


def answer_order(sample: SceneSample) -> str:
    """The Euler order of answered boxes: that of the boxes in a camera, and "zxy" where there are none."""
    return next((box.euler_order for box in sample.boxes if box.frame == "camera"), "zxy")


def aligned_target(sample: SceneSample) -> tuple[np.ndarray, str]:
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
    return in_euler_order(numbers, box.euler_order, order), order


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


def constant_box(samples: Sequence[SceneSample]) -> Callable:
    """One answer to all: the first view, and the median of all boxes in its camera."""
    boxes = []
    for sample in samples:
        truth, order = aligned_target(sample)
        boxes.append(transform_box(truth, np.linalg.inv(sample.camera_to("aligned", 0)), order))
    text = format_frame_box(0, np.median(boxes, axis=0))
    return lambda sample: text


def draw_aligned(sample: SceneSample, parsed: dict | list[dict]) -> list[Box]:
    """The answered box or boxes, to be drawn."""
    order, drawn = answer_order(sample), []
    for box in parsed if isinstance(parsed, list) else [parsed]:
        numbers = np.asarray(box["bbox_3d_aligned"], dtype=float)
        drawn.append(Box(numbers, order, "aligned", None, f"in view {box['frame']}", role="target"))
    return drawn


GROUNDING = {
    "tasks": ("grounding",),
    "constant": constant_box,
    "check": check_posed,
    "draw": draw_aligned,
    "shown": "iou",
}
ONE_STAGE = {"forms": (ANSWER_FORMS["grounding"],)}
TWO_STAGES = {
    "forms": (ANSWER_FORMS["grounding_frame"], ANSWER_FORMS["grounding_box"]),
    "ask": answer_in_two_stages,
    "requests": two_stage_requests,
    "answer_fields": ("text", "frame"),
}
