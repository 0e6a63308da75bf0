"""Box answers as the published evaluators read them, quirk by quirk, without running any of the text.

Our own reading is in processing/answers_gap_mllm.py. These rules lose well-formed answers and keep malformed ones;
they are here so that published numbers can be met.

Source: VG-LLM and GAP-MLLM. `Differs:` they call eval() on the text. Here only Python literals are read: the same
values come out for data, and what only eval() could compute (arithmetic, calls, names) counts as unreadable.
"""

import ast
import json
import math
import warnings
from dataclasses import dataclass

import numpy as np

from ..answers_gap_mllm import BOX_KEYS, BOX_LENGTH, FRAME_KEY, LABEL_KEY, Rejection


_BOX_KEY = BOX_KEYS[0]
_MAX_LITERAL_CHARS = 8192  # bounds the nesting, and with it the stack of the parser
_REPORTED_CHARS = 200


@dataclass(frozen=True)
class DetectedObjects:
    """The boxes of one detection answer in text order, and what was not read.

    Frame: camera of the first view, OpenCV axes. Units: metres and radians. `boxes` holds nine floats each, or None
    for an object of mode "reference" that counts although it overlaps nothing (NaN, or not nine numbers).
    `is_unparsed` tells that nothing could be read in what is no empty list either.
    """

    labels: tuple = ()
    boxes: tuple[tuple[float, ...] | None, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    truncated: bool = False
    is_unparsed: bool = False


def read_literal(text: str):
    """Return the value of a Python literal: numbers, texts, lists, tuples, sets, dicts, True, False and None.

    Args:
        text (`str`): one expression; leading blanks are allowed.
    Raises:
        ValueError: if it is anything else, or longer than 8192 characters.
    """
    if len(text) > _MAX_LITERAL_CHARS:
        raise ValueError(f"the text has {len(text)} characters; expected up to {_MAX_LITERAL_CHARS}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser warns of odd escapes
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a literal: {text[:_REPORTED_CHARS]!r}.") from error


def reference_detections(text: str) -> DetectedObjects:
    """Read a detection answer line by line: one object a line, key `bbox_3d` only, any length of box.

    A list on one line is lost whole, and so is a line with null, NaN or a bracket of the list. Texts of numbers are
    numbers, None is NaN.

    Args:
        text (`str`): a generated answer.
    Returns:
        `DetectedObjects`: lost lines are the rejected ones; the published evaluators do not count them.
    """
    labels, boxes, rejected = [], [], []
    for line in _strip_fence(text).split("\n"):
        line = line.strip().strip(",")
        if _BOX_KEY not in line and LABEL_KEY not in line:
            continue
        try:
            record = read_literal(line)
            numbers = np.array(record[_BOX_KEY], dtype=float)
            label = record[LABEL_KEY]
            hash(label)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else "no object that the line-wise rule reads"
            rejected.append(Rejection(line[:_REPORTED_CHARS], reason))
            continue
        has_overlap = numbers.shape == (BOX_LENGTH,) and np.isfinite(numbers).all()
        labels.append(label)
        boxes.append(tuple(numbers.tolist()) if has_overlap else None)
    return DetectedObjects(tuple(labels), tuple(boxes), tuple(rejected))


def reference_frame_and_box(text: str, num_frames: int) -> tuple[int, tuple[float, ...]]:
    """Read a one-stage grounding answer: the first line that holds `bbox_3d`, which must hold the frame too.

    Args:
        text (`str`): a generated answer.
        num_frames (`int`): views shown.
    Returns:
        `tuple` of the view and nine floats. Raises ValueError with the reason where there is none.
    """
    line = next((line for line in _strip_fence(text).split("\n") if _BOX_KEY in line), None)
    if line is None:
        raise ValueError(f"no line has {_BOX_KEY}")
    record = _as_dict(read_literal(line.strip()))
    frame = record.get(FRAME_KEY)
    if not isinstance(frame, int) or not 0 <= frame < num_frames:  # True is an int, and so view 1
        raise ValueError(f"{FRAME_KEY} is {frame!r}, not a whole number in 0..{num_frames - 1}")
    return int(frame), _nine_numbers(record)


def reference_box(text: str) -> tuple[float, ...]:
    """Read a stage 2 grounding answer: the whole of it is one object with `bbox_3d`.

    Args:
        text (`str`): a generated answer.
    Returns:
        `tuple` of nine floats. Raises ValueError with the reason where there are none.
    """
    return _nine_numbers(_as_dict(read_literal(_strip_fence(text))))


def reference_frame(text: str, num_frames: int) -> int | None:
    """Read a stage 1 grounding answer by the release's rule: JSON, view 0 without it, negatives count from the end.

    Args:
        text (`str`): a generated answer.
        num_frames (`int`): views shown.
    Returns:
        `int` or None. `Differs:` None stands where the release stops with an error: JSON of another kind, a frame that
        is no whole number, or one beyond the views.
    """
    try:
        record = json.loads(_strip_fence(text))
    except (ValueError, RecursionError):
        return 0
    frame = record.get(FRAME_KEY, 0) if isinstance(record, dict) else None
    if not isinstance(frame, int) or not -num_frames <= frame < num_frames:
        return None
    return int(frame) % num_frames


def _strip_fence(text):
    """Take the fence off as published: `strip("json")` takes any of these letters off both ends."""
    return text.strip("\n").strip("`").strip("json").strip("\n")


def _as_dict(value):
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _nine_numbers(record):
    box = record.get(_BOX_KEY)
    if not isinstance(box, list) or len(box) != BOX_LENGTH:
        raise ValueError(f"{_BOX_KEY} is no list of {BOX_LENGTH}")
    if not all(isinstance(number, int | float) for number in box):
        raise ValueError(f"{_BOX_KEY} holds an entry that is not a number")
    try:
        numbers = tuple(float(number) for number in box)
    except OverflowError:
        numbers = (math.inf,)
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{_BOX_KEY} holds a number that is not finite")
    return numbers
