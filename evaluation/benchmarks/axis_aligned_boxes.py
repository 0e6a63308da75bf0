"""Answered boxes held to axis-aligned ones of whole scenes: what ScanRefer, Nr3D and Multi3DRefer share.

An answer is in the camera of a view, the truth along the axes of the aligned world. The answered box is moved there,
and its bounds along these axes are compared: published figures of these benchmarks are those of axis-aligned boxes.
The overlap of the box as it stands, which VG-LLM reports, is beside it under "oriented_...", the published arithmetic
of axis-aligned boxes under "reference_...". Units: metres and radians.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ...processing.data.box_rows import axis_aligned_bounds
from ...processing.data.scene_sample import SceneSample
from ...processing.scores.box_overlaps import OVERLAP_SLACK
from ...processing.scores.grounding_answers import GroundedBox
from ..metrics.grounding3d import grounding_score
from ..metrics.grounding_axis_aligned import axis_aligned_overlaps, grounding_axis_aligned_score, score_overlaps
from ..metrics.hits import THRESHOLDS
from .posed_boxes import GROUNDING, aligned_target, grounding_record, read_box


MAX_M, MIN_SIZE_M = 1e6, 1e-6  # a box beyond these overlaps nothing, and cannot be reckoned with


def read_sane_box(sample: SceneSample, text: str, frame: int | None = None) -> GroundedBox:
    """`read_box`, that rejects boxes that are no part of this world."""
    answer = read_box(sample, text, frame)
    return replace(answer, iou=0.0, rejected="no box of this world") if is_absurd(answer.bbox_3d) else answer


def rate_bounds(
    samples: Sequence[SceneSample], answers: Sequence[GroundedBox], interval: Callable, nr3d: bool = False
):
    """Score answers about single objects by the bounds of their boxes.

    Args:
        samples (`list[SceneSample]`), answers (`list[GroundedBox]`), interval (`Callable`): questions, their readings,
            and see `Benchmark`.
        nr3d (`bool`, defaults to False): read types of questions as Nr3D's, see `grounding_axis_aligned_score`.
    Returns:
        `tuple[dict, list[dict]]`: what `grounding_axis_aligned_score` gives, "acc25", "acc50" and "miou" with their
        intervals; records.
    """
    targets = [aligned_target(sample) for sample in samples]
    truths = [axis_aligned_bounds(numbers, order) for numbers, order in targets]
    boxes = [
        None if answer.rejected else axis_aligned_bounds(answer.bbox_3d, order)
        for answer, (_, order) in zip(answers, targets, strict=True)
    ]
    overlaps, is_missing = axis_aligned_overlaps(boxes, truths)
    metrics = score_overlaps(overlaps, is_missing, [sample.question_type or "all" for sample in samples], nr3d=nr3d)
    metrics |= floats_of("oriented", grounding_score(answers))
    metrics |= floats_of("reference", grounding_axis_aligned_score(boxes, truths, mode="reference"))
    for level in THRESHOLDS:
        metrics |= interval(f"acc{round(100 * level)}", overlaps >= level - OVERLAP_SLACK)
    metrics |= interval("miou", overlaps)
    records = [
        {**grounding_record(answer, sample), "score": float(iou), "iou": float(iou), "oriented_iou": float(answer.iou)}
        for answer, sample, iou in zip(answers, samples, overlaps, strict=True)
    ]
    return metrics, records


def is_absurd(box: Sequence[float] | None) -> bool:
    """Whether a box is too large, too far away or too thin to be reckoned with."""
    return box is not None and not (np.abs(box[:6]).max() <= MAX_M and min(box[3:6]) >= MIN_SIZE_M)  # also of NaN


def floats_of(prefix: str, metrics: dict) -> dict:
    """The plain figures of some metrics, under names with a prefix."""
    return {f"{prefix}_{name}": value for name, value in metrics.items() if isinstance(value, float)}


AXIS_ALIGNED = {
    **GROUNDING,
    "read": read_sane_box,
    "rate": rate_bounds,
    "headline": "acc25",
    "options": {"prompt_style": "vgllm"},
}
