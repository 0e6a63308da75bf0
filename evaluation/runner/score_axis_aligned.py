"""Answered boxes held to axis-aligned ones of whole scenes: ScanRefer, Nr3D and Multi3DRefer; see score_points.py.

An answer is in the camera of a view, the truth along the axes of the aligned world. The answered box is moved there,
and its bounds along these axes are compared: published figures of these benchmarks are those of axis-aligned boxes.
The overlap of the box as it stands, which VG-LLM reports, is beside it under "oriented_...", the published arithmetic
of axis-aligned boxes under "reference_...".
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from ...processing.answers_gap_mllm import format_boxes, parse_boxes
from ...processing.camera_geometry_gap_mllm import box_corners, transform_box
from ...processing.data.scene_sample import SceneSample
from ...processing.scores.box_overlaps import OVERLAP_SLACK
from ...processing.scores.point_answers import why_rejected
from ..intervals import with_interval
from ..metrics.grounding3d import grounding_score
from ..metrics.grounding_axis_aligned import axis_aligned_overlaps, grounding_axis_aligned_score
from ..metrics.hits import THRESHOLDS
from ..metrics.multi3drefer import QUESTION_TYPES, multi3drefer_f1, multi3drefer_score
from . import score_grounding
from .score_grounding import aligned_target, grounded_boxes, grounding_record, in_order


ANSWER_ORDER = "zxy"  # of the angles that questions for any number of boxes ask for
MAX_M, MIN_SIZE_M = 1e6, 1e-6  # a box beyond these overlaps nothing, and cannot be reckoned with
_EMPTY_LIST = re.compile(r"\[\s*\]")


def score(
    samples: Sequence[SceneSample],
    texts: Sequence[str],
    seed: int = 0,
    frames: Sequence[int] | None = None,
    nr3d: bool = False,
):
    """Score answers about single objects: a view, and the box of the object in its camera.

    Frame: answers in the camera of the view that they name, truths in the aligned world. Units: metres and radians.

    Args:
        samples (`list[SceneSample]`), texts (`list[str]`), seed (`int`), frames (`list[int]`, *optional*): of
            score_grounding.py's `score`.
        nr3d (`bool`): read types of questions as Nr3D's, see `grounding_axis_aligned_score`.
    Returns:
        `tuple[dict, list[dict]]`: what `grounding_axis_aligned_score` gives, "acc25", "acc50" and "miou" with their
        intervals; records.
    Raises:
        RecordError: if a sample has no poses or no alignment. ValueError: if it has no target box.
    """
    answers = [
        replace(answer, iou=0.0, rejected="no box of this world") if _is_absurd(answer.bbox_3d) else answer
        for answer in grounded_boxes(samples, texts, frames)
    ]
    targets = [aligned_target(sample) for sample in samples]
    truths = [bounds(numbers, order) for numbers, order in targets]
    boxes = [
        None if answer.rejected else bounds(answer.bbox_3d, order)
        for answer, (_, order) in zip(answers, targets, strict=True)
    ]
    kinds = [sample.question_type or "all" for sample in samples]
    metrics = grounding_axis_aligned_score(boxes, truths, kinds, nr3d=nr3d)
    metrics |= _floats("oriented", grounding_score(answers))
    metrics |= _floats("reference", grounding_axis_aligned_score(boxes, truths, mode="reference"))
    overlaps, _ = axis_aligned_overlaps(boxes, truths)
    records = [
        {**grounding_record(answer, sample), "score": float(iou), "iou": float(iou), "oriented_iou": float(answer.iou)}
        for answer, sample, iou in zip(answers, samples, overlaps, strict=True)
    ]
    hits = {f"acc{round(100 * level)}": overlaps >= level - OVERLAP_SLACK for level in THRESHOLDS}
    scenes = [str(sample.scene_id) for sample in samples]
    for name, values in {**hits, "miou": overlaps}.items():
        metrics |= with_interval(name, np.asarray(values, dtype=float), np.mean, scenes, seed)
    return metrics, records


def score_nr3d(
    samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0, frames: Sequence[int] | None = None
):
    """`score`, by Nr3D's difficulty and viewpoint."""
    return score(samples, texts, seed, frames, nr3d=True)


def _is_absurd(box):
    return box is not None and not (np.abs(box[:6]).max() <= MAX_M and min(box[3:6]) >= MIN_SIZE_M)  # also of NaN


def bounds(numbers: ArrayLike, euler_order: str) -> np.ndarray:
    """The axis-aligned box around a box, `(6,)`: centre and full sizes.

    Frame: that of the box. Units: metres.
    """
    corners = box_corners(np.asarray(numbers, dtype=np.float64), euler_order)
    low, high = corners.min(0), corners.max(0)
    return np.concatenate([(low + high) / 2, high - low])


def _floats(prefix, values):
    return {f"{prefix}_{name}": value for name, value in values.items() if isinstance(value, float)}


# Any number of objects


def score_any_number(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0):
    """Score lists of boxes against none, one or many true ones, as Multi3DRefer does.

    An empty list is an answer; text without any is wrong even where nothing was to be found. An object that cannot be
    read beside others counts as a box that overlaps nothing.
    Frame: answers in the camera of the first view, truths in the aligned world. Units: metres and radians.

    Args:
        samples (`list[SceneSample]`): with the boxes of all objects that are meant, and poses.
        texts (`list[str]`), seed (`int`)
    Returns:
        `tuple[dict, list[dict]]`: what `multi3drefer_score` gives, by type where all are the benchmark's;
        "f1_25" and "f1_50" with their intervals; records.
    Raises:
        RecordError: if a sample has no poses or no alignment.
    """
    read = [read_boxes(text) for text in texts]
    answered = [
        None if boxes is None else _moved(boxes, sample) for (boxes, _), sample in zip(read, samples, strict=True)
    ]
    truths = [true_boxes(sample) for sample in samples]
    flat_answers = [None if boxes is None else list(map(_bounds_or_none, boxes)) for boxes in answered]
    flat_truths = [[bounds(box, ANSWER_ORDER) for box in boxes] for boxes in truths]
    kinds = [sample.question_type for sample in samples]
    by_type = kinds if set(kinds) <= set(QUESTION_TYPES) else None
    metrics = multi3drefer_score(flat_answers, flat_truths, by_type)
    metrics |= _floats("oriented", multi3drefer_score(answered, truths, euler_order=ANSWER_ORDER))
    metrics |= _floats("reference", multi3drefer_score(flat_answers, flat_truths, mode="reference"))
    records = []
    for sample, (_, rejected), boxes, flat, truth in zip(
        samples, read, answered, flat_answers, flat_truths, strict=True
    ):
        f1 = {"f1_25": 0.0, "f1_50": 0.0} if flat is None else multi3drefer_f1(flat, truth)
        parsed = None if boxes is None else [_shown(box) for box in boxes if box is not None]
        row = {"parsed": parsed, "rejected": rejected, "score": f1["f1_25"], "category": sample.question_type}
        num_rejected = 0 if boxes is None else sum(box is None for box in boxes)
        records.append({**row, **f1, "num_rejected_objects": num_rejected})
    scenes = [str(sample.scene_id) for sample in samples]
    for name in ("f1_25", "f1_50"):
        metrics |= with_interval(name, [record[name] for record in records], np.mean, scenes, seed)
    return metrics, records


def read_boxes(text: str) -> tuple[list | None, str | None]:
    """Read the boxes that an answer lists.

    Returns:
        `tuple`: nine numbers or None (an object that cannot be read) each, and None; or None, and why nothing is read.
    """
    parsed = parse_boxes(text)
    if not parsed.items and (parsed.rejected or parsed.truncated or not _EMPTY_LIST.search(text)):
        return None, why_rejected(parsed)
    boxes = [None if _is_absurd(item.bbox_3d) else item.bbox_3d for item in parsed.items]
    return boxes + [None] * len(parsed.rejected), None


def true_boxes(sample: SceneSample) -> list[np.ndarray]:
    """The boxes of all objects that are meant, in the aligned world, `(9,)` each, angles in `ANSWER_ORDER`.

    Raises:
        ValueError: if there are not as many boxes as objects, or one is in another frame.
    """
    targets = [box for box in sample.boxes if box.role == "target"]
    named = sample.metadata.get("object_ids", targets)
    if len(targets) != len(named) or any(box.frame != "aligned" for box in targets):
        raise ValueError(
            f"question {sample.id!r} means {len(named)} objects and has {len(targets)} boxes of them; expected the "
            "box of each in the aligned frame."
        )
    return [in_order(box.numbers, box.euler_order, ANSWER_ORDER) for box in targets]


def check_any_number(sample: SceneSample) -> None:
    """Raise ValueError or RecordError if the answer to a question cannot be scored, as `score_any_number` does."""
    true_boxes(sample)
    sample.camera_to("aligned", 0)


def _moved(boxes, sample):
    pose = sample.camera_to("aligned", 0)
    return [None if box is None else transform_box(np.array(box), pose, ANSWER_ORDER) for box in boxes]


def _bounds_or_none(box):
    return None if box is None else bounds(box, ANSWER_ORDER)


def _shown(box):
    return {"frame": 0, "bbox_3d_aligned": [float(value) for value in box]}


def constant_any_number(samples: Sequence[SceneSample]):
    """One list to all: none, or the median of all boxes in the first camera, whichever fits these samples better."""
    boxes = []
    for sample in samples:
        to_camera = np.linalg.inv(sample.camera_to("aligned", 0))
        boxes += [transform_box(box, to_camera, ANSWER_ORDER) for box in true_boxes(sample)]
    lists = ["[]"] if not boxes else ["[]", format_boxes([None], [np.median(boxes, axis=0)])]
    fits = [score_any_number(samples, [text] * len(samples))[0]["f1_25"] for text in lists]
    text = lists[int(np.argmax(fits))]
    return lambda sample: text


constant, check = score_grounding.constant, score_grounding.check

__all__ = [
    "ANSWER_ORDER",
    "bounds",
    "check",
    "check_any_number",
    "constant",
    "constant_any_number",
    "read_boxes",
    "score",
    "score_any_number",
    "score_nr3d",
    "true_boxes",
]
