"""Multi3DRefer: the boxes of all objects that a description fits, or of none, by axis-aligned bounds.

An empty list is an answer; text without any is wrong even where nothing was to be found. An object that cannot be
read beside others counts as a box that overlaps nothing.
Frame: answers in the camera of the first view, truths in the aligned world. Units: metres and radians.
Source: Multi3DRefer (arXiv:2309.05251).
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from ...processing.answers_gap_mllm import BOX_KEYS, format_boxes, parse_boxes
from ...processing.asking_gap_mllm import AnswerForm
from ...processing.camera_geometry_gap_mllm import transform_box
from ...processing.data.box_rows import axis_aligned_bounds, in_euler_order
from ...processing.data.scene_sample import SceneSample
from ...processing.scores.point_answers import why_rejected
from ..metrics.multi3drefer import QUESTION_TYPES, multi3drefer_aggregate, multi3drefer_each, multi3drefer_score
from .axis_aligned_boxes import floats_of, is_absurd
from .benchmark import Benchmark
from .posed_boxes import draw_aligned


ANSWER_ORDER = "zxy"  # of the angles that the questions ask for
_EMPTY_LIST = re.compile(r"\[\s*\]")


def read_boxes(text: str) -> tuple[list | None, str | None]:
    """Read the boxes that an answer lists.

    Returns:
        `tuple`: nine numbers or None (an object that cannot be read) each, and None; or None, and why nothing is read.
    """
    parsed = parse_boxes(text)
    if not parsed.items and (parsed.rejected or parsed.truncated or not _EMPTY_LIST.search(text)):
        return None, why_rejected(parsed)
    boxes = [None if is_absurd(item.bbox_3d) else item.bbox_3d for item in parsed.items]
    return boxes + [None] * len(parsed.rejected), None


def read(sample: SceneSample, text: str) -> tuple[list | None, str | None]:
    """`read_boxes`, moved into the aligned world."""
    boxes, rejected = read_boxes(text)
    if boxes is None:
        return None, rejected
    pose = sample.camera_to("aligned", 0)
    return [None if box is None else transform_box(np.array(box), pose, ANSWER_ORDER) for box in boxes], None


def rate(samples: Sequence[SceneSample], answers: Sequence[tuple], interval: Callable):
    """Score lists of boxes against none, one or many true ones, as Multi3DRefer does.

    Args:
        samples (`list[SceneSample]`): samples with the boxes of all objects that are meant, and poses.
        answers (`list[tuple]`), interval (`Callable`): their readings, and see `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: what `multi3drefer_score` gives, by type where all are the benchmark's;
        "f1_25" and "f1_50" with their intervals; records.
    Raises:
        RecordError: if a sample has no poses or no alignment.
    """
    answered, truths = [boxes for boxes, _ in answers], [true_boxes(sample) for sample in samples]
    flat_answers = [_all_bounds(boxes) for boxes in answered]
    flat_truths = [_all_bounds(boxes) for boxes in truths]
    each = multi3drefer_each(flat_answers, flat_truths)
    kinds = [sample.question_type for sample in samples]
    metrics = multi3drefer_aggregate(each, kinds if set(kinds) <= set(QUESTION_TYPES) else None)
    metrics |= floats_of("oriented", multi3drefer_score(answered, truths, euler_order=ANSWER_ORDER))
    metrics |= floats_of("reference", multi3drefer_score(flat_answers, flat_truths, mode="reference"))
    for name in ("f1_25", "f1_50"):
        metrics |= interval(name, [scores[name] for scores in each])
    return metrics, [_record(*row) for row in zip(samples, answers, each, strict=True)]


def _all_bounds(boxes):
    return (
        None if boxes is None else [None if box is None else axis_aligned_bounds(box, ANSWER_ORDER) for box in boxes]
    )


def _record(sample, answer, scores):
    boxes, rejected = answer
    known = [box for box in boxes or () if box is not None]
    return {
        "parsed": boxes if boxes is None else [{"frame": 0, "bbox_3d_aligned": box.tolist()} for box in known],
        "rejected": rejected,
        "score": scores["f1_25"],
        "category": sample.question_type,
        "f1_25": scores["f1_25"],
        "f1_50": scores["f1_50"],
        "num_rejected_objects": len(boxes or ()) - len(known),
    }


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
    return [in_euler_order(box.numbers, box.euler_order, ANSWER_ORDER) for box in targets]


def check(sample: SceneSample) -> None:
    """Raise ValueError or RecordError if the answer to a question cannot be scored, as `rate` does."""
    true_boxes(sample)
    sample.camera_to("aligned", 0)


def constant(samples: Sequence[SceneSample]) -> Callable:
    """One list to all: none, or the median of all boxes in the first camera, whichever fits these samples better."""
    boxes, truths = [], [true_boxes(sample) for sample in samples]
    for sample, members in zip(samples, truths, strict=True):
        to_camera = np.linalg.inv(sample.camera_to("aligned", 0))
        boxes += [transform_box(box, to_camera, ANSWER_ORDER) for box in members]
    texts = ["[]"] if not boxes else ["[]", format_boxes([None], [np.median(boxes, axis=0)])]
    flat = [_all_bounds(members) for members in truths]
    guesses = [[_all_bounds(read(sample, text)[0]) for sample in samples] for text in texts]
    text = texts[int(np.argmax([multi3drefer_score(guess, flat)["f1_25"] for guess in guesses]))]
    return lambda sample: text


MULTI3DREFER = Benchmark(
    "multi3drefer",
    "Multi3DRefer: the boxes of all objects that a description fits, or of none",
    source="multi3drefer",
    split="val",
    tasks=("grounding",),
    read=read,
    rate=rate,
    constant=constant,
    check=check,
    headline="f1_25",
    forms=(AnswerForm(640, BOX_KEYS, is_list=True, written=BOX_KEYS[:1]),),
    draw=draw_aligned,
    options={"prompt_style": "gap_mllm"},
)
