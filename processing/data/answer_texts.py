"""Answers and locations that come as text, as sources write them: their numbers found, and what they stand for.

All that reads such text by patterns is here; what the package makes itself is a `Truth` from the start (truth.py). The
spelling is kept, so that an answer that did not change is written as it was.
"""

import re
from dataclasses import replace

import numpy as np

from ..answers_gap_mllm import BOX_KEYS, POINT_KEY, parse_boxes, parse_points
from ..camera_geometry_gap_mllm import euler_to_matrix
from .record_errors import RecordError
from .scene_sample import SceneSample
from .truth import FRAME_SLOT, Answered, Spelling, Truth, render_answer


_LIST = re.compile(rf'"(?P<key>{"|".join((*BOX_KEYS, POINT_KEY))})"\s*:\s*\[[^\[\]]*\]')
_LIST_OR_FRAME = re.compile(rf'"(?:{"|".join((*BOX_KEYS, POINT_KEY))})"\s*:\s*\[|"frame"\s*:\s*\d')
_FRAME = re.compile(r'(?P<head>"frame"\s*:\s*)(?P<frame>\d+)')
_OBJECT = re.compile(r"\{[^{}]*\}")
_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)")
_DECIMALS = re.compile(r"\d\.(\d+)")
_LOCATION = re.compile(r"(\[\s*-?\d[^\[\]]*\])")
_TASK_OF_TEXT = re.compile("Output a json", re.IGNORECASE)  # what follows a description
USUAL_DECIMALS = 2  # of all released answers
SLACK = 1e-3  # beyond the rounding of the text: stored numbers are float32


def holds_numbers(text: str | None) -> bool:
    """Whether a text is an answer whose numbers can be told: lists of a box or point, or the number of a view."""
    return bool(text and _LIST_OR_FRAME.search(text))


def num_decimals(text: str) -> int:
    """The largest number of digits after the point among the numbers of a text."""
    return max(map(len, _DECIMALS.findall(text)), default=0)


def in_answered_camera(sample: SceneSample) -> bool:
    """Whether the box of an answer is in the camera of the answered view, as in one-stage grounding."""
    if has_own_truth(sample):
        return sample.truth.camera == "answered"
    if sample.task != "grounding" or sample.target_frame is None:
        return False
    return "coordinate system of the first" not in (sample.question or "")


def has_own_truth(sample: SceneSample) -> bool:
    """Whether the sample's answer is the one that its `truth` gives, and not a text that was put in its place."""
    return sample.truth is not None and sample.answer == render_answer(sample.truth)


def read_truth(sample: SceneSample, text: str) -> Truth:
    """Find the truth that an answer (or reference) of a sample was worded from.

    Args:
        sample (`SceneSample`), text (`str`): one that `holds_numbers`.
    Returns:
        `Truth`: that of the sample, or one with the spelling of the text; `match_parts` tells which boxes it is about.
    Raises:
        ValueError: if the text has another form; the message is the reason.
    """
    if text == sample.answer and has_own_truth(sample):
        return sample.truth
    frames = sorted({int(found["frame"]) for found in _FRAME.finditer(text)})
    if len(frames) > 1:
        raise ValueError(f"its answer names the frames {frames}, expected one.")
    blank = _FRAME.sub(lambda found: found["head"] + FRAME_SLOT, text)
    objects = [found for found in _OBJECT.finditer(blank) if _LIST.search(found[0])]
    gaps = {blank[a.end() : b.start()] for a, b in zip(objects, objects[1:], strict=False)}
    lists = [found[0] for found in _LIST.finditer(blank)]
    if len(objects) != len(lists) or len(gaps) > 1:
        raise ValueError(f"its answer cannot be read: {text[:80]!r}.")
    start, end = (objects[0].start(), objects[-1].end()) if objects else (len(blank), len(blank))
    decimals = max(map(num_decimals, lists), default=0)
    numbers = [number for entry in lists for number in _NUMBER.findall(entry.partition(":")[2])]
    is_padded = decimals > 1 and any(
        number.endswith("0") and len(number.partition(".")[2]) == decimals for number in numbers
    )
    items = tuple(_read_object(found[0]) for found in objects)
    return Truth(
        kind=_kind(items, frames),
        items=items,
        camera="answered" if in_answered_camera(sample) else "first",
        frame=frames[0] if frames else None,
        decimals=decimals,
        spelling=Spelling(blank[:start], gaps.pop() if gaps else "", blank[end:], is_padded),
    )


def _kind(items, frames):
    if not items or frames:
        return "frame_box" if items else "frame"
    if items[0].is_box:
        return "box" if len(items) == 1 else "boxes"
    return "point" if len(items) == 1 else "points"


def _read_object(text):
    """One object, with the text around its numbers."""
    found = _LIST.search(text)
    start, end = found.start() + found[0].index("["), found.end()
    item = _read_numbers(text[start:end], found["key"])
    spelt = list(item.spelt)
    spelt[0] = text[:start] + spelt[0]
    spelt[-1] += text[end:]
    return replace(item, spelt=tuple(spelt))


def _read_numbers(text, key):
    pieces = _NUMBER.split(text)
    return Answered(tuple(map(float, pieces[1::2])), spelt=tuple(pieces), key=key)


def match_parts(sample: SceneSample, truth: Truth, text: str) -> Truth:
    """Find the boxes and points of the sample that the numbers of an answer stand for.

    Args:
        sample (`SceneSample`), truth (`Truth`): result of `read_truth`. text (`str`): the answer.
    Returns:
        `Truth`: with `part` of every item; its numbers are still those of the text.
    Raises:
        ValueError: if the text is damaged, or no box or point has its numbers; the message is the reason.
    """
    boxes, points = parse_boxes(text), parse_points(text)
    num_boxes = sum(item.is_box for item in truth.items)
    if len(boxes.items) != num_boxes or len(points.items) != len(truth.items) - num_boxes or boxes.truncated:
        raise ValueError(f"its answer cannot be read: {text[:80]!r}.")
    view = sample.target_frame if truth.camera == "answered" else 0
    half_step, items = 0.5 * 10.0**-truth.decimals, []
    for item in truth.items:
        parts = dict(enumerate(sample.boxes if item.is_box else sample.points))
        if item.part in parts and _differs(sample, parts[item.part], item, view, half_step) <= 1:
            parts = {item.part: parts[item.part]}  # the one that it was made from, and still is
        errors = [(_differs(sample, part, item, view, half_step), index) for index, part in parts.items()]
        error, index = min(errors, default=(np.inf, None))
        if not error <= 1:
            raise ValueError(
                f"no {'box' if item.is_box else 'point'} of the sample has the numbers {list(item.numbers)} of its "
                "answer, so that they cannot be moved; give the row its boxes and points."
            )
        items.append(replace(item, part=index))
    truth = replace(truth, items=tuple(items))
    if truth.kind == "point":  # [1.0, 0.5, 2.0] happens to need fewer decimals than others: the exact numbers tell
        (item,) = truth.items
        usual = 0.5 * 10.0**-USUAL_DECIMALS
        if _differs(sample, sample.points[item.part], item, view, usual) <= 1:
            truth = replace(truth, decimals=max(truth.decimals, USUAL_DECIMALS))
    return truth


def _differs(sample, part, item, view, half_step):
    """How far a box or point is from the numbers of an answer, in units of what rounding explains."""
    slack, numbers = half_step + SLACK, np.array(item.numbers)
    try:
        own = sample.box_in_view(part, view) if item.is_box else sample.point_in_view(part, 0)
    except RecordError:
        return np.inf
    if not item.is_box:
        return np.abs(own - numbers).max() / slack
    least = min(2 * half_step, 1)  # answers write no size of 0
    turn = euler_to_matrix(own[6:], part.euler_order) - euler_to_matrix(numbers[6:], part.euler_order)
    return max(
        np.abs(own[:3] - numbers[:3]).max() / slack,
        np.abs(np.maximum(own[3:6], least) - np.maximum(numbers[3:6], least)).max() / slack,
        np.abs(turn).max() / (3 * slack),
    )


def renumber_frame(text: str, old: int, new: int) -> str:
    """An answer with the number of its view exchanged; other numbers stay."""
    return _FRAME.sub(lambda found: found["head"] + str(new) if int(found["frame"]) == old else found[0], text)


def read_description(sample: SceneSample) -> str:
    """The words by which a question of grounding names its object: those that it was made with, or after "Text:".

    Raises:
        ValueError: if there are none.
    """
    if sample.truth is not None and sample.truth.description:
        return sample.truth.description
    told = _TASK_OF_TEXT.split((sample.question or "").partition("Text:")[2])[0].strip()
    if not told:
        raise ValueError(f"question {sample.id!r} has no 'Text: ...' that describes the object.")
    return told


# Where an object is, in the question of a caption


def location_span(sample: SceneSample) -> tuple[int, int] | None:
    """Where the question of a caption holds the object's [x, y, z], or None."""
    found = _LOCATION.search(sample.question or "") if sample.task == "dense_caption" else None
    return found.span(1) if found else None


def read_location(sample: SceneSample) -> Truth | None:
    """The place that a caption's question gives, as a point in the camera of view 0; worded, it is the question."""
    span, question = location_span(sample), sample.question
    if span is None:
        return None
    text = question[slice(*span)]
    spelling = Spelling(question[: span[0]], "", question[span[1] :])
    return Truth("point", (_read_numbers(text, POINT_KEY),), decimals=num_decimals(text), spelling=spelling)
