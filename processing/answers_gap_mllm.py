"""The answer schema, both ways: numbers to the JSON text that the model learns, and generated text back to numbers.

This is the only place that knows how an answer is spelt. Text is never evaluated as code: JSON first, then Python
literals of bounded length. What cannot be read becomes a `Rejection` with its reason, so that a scorer can count it.
"""

import ast
import json
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar


POINT_KEY = "pointmap"
BOX_KEYS = ("bbox_3d", "box_3d")  # the detection prompt says box_3d, the released answers say bbox_3d
FRAME_KEY = "frame"
LABEL_KEY = "label"
BOX_LENGTH = 9
OUR_CONVENTIONS = ("ours", "gap-release")  # of `CONVENTIONS`; the others are read by other_answers_gap_mllm.py

_MAX_OBJECT_CHARS = 8192  # one object; the longest released one has about 150 characters
_MAX_LITERAL_CHARS = 2048
_MAX_OBJECT_HEIGHT = 4  # nested braces looked through from the inside out; keeps the work linear in the text length
_MAX_FRAME = 2**31 - 1
_REPORTED_CHARS = 200

T = TypeVar("T")


@dataclass(frozen=True)
class LabelledPoint:
    """One answered point. Frame: camera of the first view, OpenCV axes. Units: metres."""

    label: str | None
    point: tuple[float, float, float]


@dataclass(frozen=True)
class LabelledBox:
    """One answered 9-DoF box: centre, full sizes, yaw, pitch, roll (Euler order "zxy", extrinsic).

    Frame: camera of the first view, OpenCV axes. Units: metres and radians. Sizes are positive. The label may be None.
    """

    label: str | None
    bbox_3d: tuple[float, ...]


@dataclass(frozen=True)
class Rejection:
    """A part of an answer that could not be used (at most 200 characters of it), and why."""

    text: str
    reason: str


@dataclass(frozen=True)
class ParsedAnswer(Generic[T]):
    """What an answer holds, in text order, and what was refused. `truncated`: some object was never closed.

    `entries` are both, items and rejections, in text order: the third is the answer about the third mark.
    """

    items: tuple[T, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    truncated: bool = False
    entries: tuple[T | Rejection, ...] = field(default=(), compare=False, repr=False)

    @property
    def first(self) -> T | None:
        """The first item, or None: the answer to a question that has exactly one."""
        return self.items[0] if self.items else None


# Parts of an answer

ANSWER_PARTS = ("words", "letter", "label", "number", "decimals", "frame_of_json", "opening")
_FENCE = "```json"
_JSON_PART = re.compile(r'"label": "(?P<label>[^"]*)"|-?(?P<number>\d+)(?:\.(?P<decimals>\d+))?')


def answer_parts(text: str) -> list[str]:
    """Say what each character of an answer in our form is, so that training can weigh its tokens.

    Args:
        text (`str`): an answer as the functions below write it, or a plain sentence.
    Returns:
        `list[str]`: for every character "words" (all of a plain sentence), "letter" (of an answer that is one capital
        letter), "label", "number" (sign, whole digits and point), "decimals" (digits after the point),
        "opening" (of JSON, with which its form is chosen) or "frame_of_json" (keys, brackets, the closing fence).
    """
    if re.fullmatch("[A-Z]", text):
        return ["letter"]
    if not text.startswith("```"):
        return ["words"] * len(text)
    parts = ["frame_of_json"] * len(text)
    for match in _JSON_PART.finditer(text):
        if match["label"] is not None:
            spans = {"label": match.span("label")}
        else:
            spans = {"number": match.span(), "decimals": match.span("decimals")}
        for part, (start, end) in spans.items():
            parts[start:end] = [part] * (end - start)
    key_digits = re.compile(r'"\w*\d\w*":')  # such as "bbox_3d"
    for match in key_digits.finditer(text):
        parts[match.start() : match.end()] = ["frame_of_json"] * (match.end() - match.start())
    parts[: len(_FENCE)] = ["opening"] * len(text[: len(_FENCE)])
    return parts


# Numbers to text


def format_point(label: str | None, point: Sequence[float], decimals: int = 2) -> str:
    """Write the stage 1 answer: the label and 3D point of a marked pixel.

    Frame: camera of the first view, OpenCV axes. Units: metres.

    Args:
        label (`str`, *optional*): category name; None leaves the key out.
        point (array-like of 3 floats): x, y, z.
        decimals (`int`, defaults to 2): digits after the decimal point.
    Returns:
        `str`: fenced JSON, one object.
    Raises:
        ValueError: if the point does not hold 3 finite numbers.

    Example:
        ```python
        >>> from gap_mllm.processing import format_point, parse_points
        >>> parse_points(format_point("bed", [0.504, 0.1, 2], decimals=2)).first.point
        (0.5, 0.1, 2.0)

        ```
    """
    return f"```json\n{_object_text(label, POINT_KEY, _finite(point, 3, POINT_KEY), decimals)}\n```"


def format_points(labels: Sequence[str], points: Sequence, decimals: int = 2) -> str:
    """Write the answer for several marked pixels: a list in the form of `format_boxes`.

    Frame: camera of the first view, OpenCV axes. Units: metres.

    Args:
        labels (list of `str` or None): one name per point; None leaves the key out.
        points (list of 3 floats each): x, y, z.
        decimals (`int`, defaults to 2): digits after the decimal point.
    Returns:
        `str`: fenced JSON list.
    Raises:
        ValueError: if the counts differ, or a point does not hold 3 finite numbers.

    Example:
        ```python
        >>> from gap_mllm.processing import format_points, parse_points
        >>> answer = parse_points(format_points(["bed", None], [[0.5, 0.1, 2], [0, 1, 3]]))
        >>> [item.label for item in answer.items]
        ['bed', None]

        ```
    """
    labels, points = list(labels), list(points)
    if len(labels) != len(points):
        raise ValueError(f"format_points got {len(labels)} labels and {len(points)} points; give one label per point.")
    pairs = zip(labels, points, strict=True)
    return _list_text(_object_text(label, POINT_KEY, _finite(point, 3, POINT_KEY), decimals) for label, point in pairs)


def format_boxes(labels: Sequence[str], boxes: Sequence, decimals: int = 2) -> str:
    """Write the detection answer: one tab-indented object a line, the closing fence right behind the bracket.

    Frame: camera of the first view, OpenCV axes. Units: metres and radians (order as in `LabelledBox`).
    Differs: a positive size that would round to zero is written as the smallest step, so that the text parses back.

    Args:
        labels (list of `str` or None): one name per box.
        boxes (list of 9 floats each): centre, sizes, angles.
        decimals (`int`, defaults to 2): digits after the decimal point.
    Returns:
        `str`: fenced JSON list; without boxes the list that the released data writes.
    Raises:
        ValueError: if the counts differ, or a box is not 9 finite numbers with positive sizes.

    Example:
        ```python
        >>> from gap_mllm.processing import format_boxes, parse_boxes
        >>> parse_boxes(format_boxes(["bed"], [[0, 0, 2, 1, 2, 0.5, 0, 0, 0]])).first.label
        'bed'

        ```
    """
    labels, boxes = list(labels), list(boxes)
    if len(labels) != len(boxes):
        raise ValueError(f"format_boxes got {len(labels)} labels and {len(boxes)} boxes; give one label per box.")
    pairs = zip(labels, boxes, strict=True)
    return _list_text(_object_text(label, BOX_KEYS[0], _box(box, decimals), decimals) for label, box in pairs)


def format_box(box: Sequence[float], decimals: int = 2) -> str:
    """Write the grounding answer of stage 2: one box without a label.

    Frame: camera of the first view, OpenCV axes. Units: metres and radians (order as in `LabelledBox`).

    Args:
        box (array-like of 9 floats): centre, sizes, angles.
        decimals (`int`, defaults to 2): digits after the decimal point.
    Returns:
        `str`: fenced JSON, one tab-indented object.
    Raises:
        ValueError: if the box is not 9 finite numbers with positive sizes.

    Example:
        ```python
        >>> from gap_mllm.processing import format_box, parse_boxes
        >>> parse_boxes(format_box([0, 0, 2, 1, 2, 0.5, 0, 0, 0])).first.bbox_3d
        (0.0, 0.0, 2.0, 1.0, 2.0, 0.5, 0.0, 0.0, 0.0)

        ```
    """
    return f"```json\n\t{_object_text(None, BOX_KEYS[0], _box(box, decimals), decimals)}\n```"


def format_frame(frame: int) -> str:
    """Write the grounding answer of stage 1: the index of a view, counted from 0.

    Args:
        frame (`int`): index of the view.
    Returns:
        `str`: fenced JSON, one tab-indented object.
    Raises:
        ValueError: if `frame` is not a whole number of at least 0.

    Example:
        ```python
        >>> from gap_mllm.processing import format_frame, parse_frame
        >>> parse_frame(format_frame(3)).first
        3

        ```
    """
    if isinstance(frame, bool) or frame != int(frame) or frame < 0:
        raise ValueError(f"frame must be a view index of at least 0, got {frame!r}.")
    return "```json\n\t" + json.dumps({FRAME_KEY: int(frame)}) + "\n```"


def format_frame_box(frame: int, box: Sequence[float], decimals: int = 2) -> str:
    """Write the answer of one-stage grounding: a view and the box in its camera.

    Frame: camera of the answered view, OpenCV axes. Units: metres and radians (order as in `LabelledBox`).

    Args:
        frame (`int`): index of the view, counted from 0.
        box (array-like of 9 floats): centre, sizes, angles.
        decimals (`int`, defaults to 2): digits after the decimal point.
    Returns:
        `str`: fenced JSON, one tab-indented object.
    Raises:
        ValueError: as `format_frame` and `format_box`.
    """
    shown = format_frame(frame).partition("{")[2].partition("}")[0]
    return format_box(box, decimals).replace("{", f"{{{shown}, ", 1)


def _list_text(objects) -> str:
    return "```json\n[\n\t" + ",\n\t".join(objects) + "\n]```"


def _finite(values, length: int, name: str) -> list[float]:
    """The values as `length` finite Python floats."""
    numbers = [float(value) for value in values]
    if len(numbers) != length or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} must be {length} finite numbers, got {numbers}.")
    return numbers


def _box(box, decimals: int) -> list[float]:
    numbers = _finite(box, BOX_LENGTH, BOX_KEYS[0])
    if min(numbers[3:6]) <= 0:
        raise ValueError(f"{BOX_KEYS[0]} must have positive sizes (entries 3 to 5), got {numbers[3:6]}.")
    step = 10.0**-decimals
    return numbers[:3] + [max(size, step) for size in numbers[3:6]] + numbers[6:]


def _object_text(label: str | None, key: str, numbers: list[float], decimals: int) -> str:
    name = "" if label is None else f'"{LABEL_KEY}": {json.dumps(str(label), ensure_ascii=False)}, '
    rounded = [round(number, decimals) + 0.0 for number in numbers]  # + 0.0 turns -0.0 into 0.0
    return f'{{{name}"{key}": {json.dumps(rounded)}}}'


# Text to numbers


def parse_points(text: str, convention: str = "ours", **pictures: object) -> ParsedAnswer:
    """Read every `{"label", "pointmap"}` object of an answer, the label may be absent; or another's points.

    Frame: camera of the first view, OpenCV axes. Units: metres. Conventions that point into a picture give its pixels,
    and with depth and intrinsics 3D points.

    Args:
        text (`str`): a generated answer, whatever it holds.
        convention (`str`, defaults to "ours"): key of `CONVENTIONS` in which the answer is written.
        **pictures: fields of `Pictures`: what is known of the pictures, `image_size` at least for other conventions.
    Returns:
        `ParsedAnswer`: `LabelledPoint`s with 3 finite coordinates, or `ImagePoint`s, and the rest with reasons.
    Raises:
        TypeError: if `text` is not a string. ValueError: on an unknown convention, or one that needs more of the
            pictures (no string raises).

    Example:
        ```python
        >>> from gap_mllm.processing import parse_points
        >>> parse_points('{"label": "bed", "pointmap": [0.5, 0.1, 2.0]}').first
        LabelledPoint(label='bed', point=(0.5, 0.1, 2.0))

        ```
    """

    if convention not in OUR_CONVENTIONS or pictures:
        from .other_answers_gap_mllm import parse_other_points  # which imports this file

        return parse_other_points(text, convention, **pictures)

    def read(record: dict) -> LabelledPoint:
        return LabelledPoint(read_label(record), tuple(read_numbers(record[POINT_KEY], 3, POINT_KEY)))

    return read_objects(text, (POINT_KEY,), read)


def parse_boxes(
    text: str, require_label: bool = False, convention: str = "ours", **pictures: object
) -> ParsedAnswer[LabelledBox]:
    """Read every object that holds a `bbox_3d` (or `box_3d`), as detection and grounding write them; or another's.

    Frame: camera of the first view, OpenCV axes. Units: metres and radians (order as in `LabelledBox`).

    Args:
        text (`str`): a generated answer, whatever it holds.
        require_label (`bool`, defaults to False): refuse boxes without a label (detection); grounding answers have
            none.
        convention (`str`, defaults to "ours"): key of `CONVENTIONS` in which the answer is written.
        **pictures: fields of `Pictures`: what is known of the pictures, where a convention needs it.
    Returns:
        `ParsedAnswer[LabelledBox]`: our boxes, of 9 finite numbers with positive sizes, and the rest with reasons.
    Raises:
        TypeError: if `text` is not a string. ValueError: on an unknown convention, or one that needs more of the
            pictures (no string raises).

    Example:
        ```python
        >>> from gap_mllm.processing import parse_boxes
        >>> answer = parse_boxes('[{"label": "bed", "bbox_3d": [0, 0, 2, 1, 2, 1, 0, 0, 0]}, {"bbox_3d": [1, 2]}]')
        >>> answer.first.label, answer.rejected[0].reason
        ('bed', 'bbox_3d holds 2 entries, expected 9')
        >>> parse_boxes("<3dbbox>0 0 2 1 2 1 0 0 0.5</3dbbox>", convention="seed1.5-vl").first.bbox_3d[6:]
        (1.5707963267948966, 0.0, 0.0)

        ```
    """
    if convention not in OUR_CONVENTIONS or pictures:
        from .other_answers_gap_mllm import parse_other_boxes  # which imports this file

        return parse_other_boxes(text, convention, require_label, **pictures)

    def read(record: dict) -> LabelledBox:
        key = next(key for key in BOX_KEYS if key in record)
        numbers = read_numbers(record[key], BOX_LENGTH, key)
        if min(numbers[3:6]) <= 0:
            raise _RejectedError(f"{key} has a size that is not positive: {numbers[3:6]}")
        label = read_label(record)
        if require_label and label is None:
            raise _RejectedError("label is missing")
        return LabelledBox(label, tuple(numbers))

    return read_objects(text, BOX_KEYS, read)


def parse_frame(text: str, num_frames: int | None = None) -> ParsedAnswer[int]:
    """Read the frame indices of an answer (grounding, stage 1); `.first` is the answer.

    Args:
        text (`str`): a generated answer, whatever it holds.
        num_frames (`int`, *optional*): number of views shown; higher indices are refused.
    Returns:
        `ParsedAnswer[int]`: indices from 0; whole numbers only, neither text, nor floats, nor true and false.
    Raises:
        TypeError: if `text` is not a string (no string raises).

    Example:
        ```python
        >>> from gap_mllm.processing import parse_frame
        >>> parse_frame('{"frame": 3}').first, parse_frame('{"frame": 3}', num_frames=2).first
        (3, None)

        ```
    """
    limit = _MAX_FRAME if num_frames is None else num_frames

    def read(record: dict) -> int:
        frame = record[FRAME_KEY]
        if isinstance(frame, bool) or not isinstance(frame, int):
            raise _RejectedError(f"{FRAME_KEY} is not a whole number")
        if not 0 <= frame < limit:
            raise _RejectedError(f"{FRAME_KEY} is outside 0..{limit - 1}")
        return frame

    return read_objects(text, (FRAME_KEY,), read)


_OPEN_TAG, _CLOSE_TAG = (re.compile(tag, re.IGNORECASE) for tag in ("<answer>", "</answer>"))


def last_answer_tag(text: str) -> str:
    """What the last `<answer>...</answer>` of a text holds, or the text itself without one.

    Args:
        text (`str`): a generated answer, whatever it holds.
    """
    # Cut at the tags, not matched in pairs: that takes quadratic time where many stay open.
    for part in reversed(_CLOSE_TAG.split(text)[:-1]):
        opened = _OPEN_TAG.search(part)
        if opened:
            return part[opened.end() :]
    return text


def parse_choice(text: str, letters: str = "ABCDEF") -> ParsedAnswer[str]:
    """Read the letter of a multiple-choice answer.

    Taken, in this order, from the last `<answer>` tag or else the whole text: nothing but the letter (in brackets,
    stars or quotes, any case), a leading capital before a delimiter, "answer is X" or "option X", the only stand-alone
    capital. An "A" before a lower-case word is an article, and a letter behind "not" is no answer.

    Args:
        text (`str`): a generated answer, whatever it holds.
        letters (`str`, defaults to "ABCDEF"): the capitals that are offered.
    Returns:
        `ParsedAnswer[str]`: one capital, or none and the reason.
    Raises:
        TypeError: if `text` is not a string (no string raises).
        ValueError: if `letters` is empty or holds anything but capitals A to Z.

    Example:
        ```python
        >>> from gap_mllm.processing import parse_choice
        >>> parse_choice("I think it is (B).").first
        'B'

        ```
    """
    check_text(text)
    if not re.fullmatch("[A-Z]+", letters):
        raise ValueError(f"letters must be capitals from A to Z, got {letters!r}.")
    body = last_answer_tag(text).strip()
    bare = body.strip("()[]{}*`\"'.: \t\r\n")
    if len(bare) == 1 and bare.isascii() and bare.upper() in letters:
        return ParsedAnswer((bare.upper(),))
    for pattern in (
        rf"\A[\s(\[*`\"']*([{letters}])[)\].:,*`\"']",
        rf"(?i:\b(?:answer|option|choice)\b(?:\s+is)?)\s*(?::\s*)?[(\[*`\"']*([{letters}])\b(?!\s[a-z])",
    ):
        found = re.search(pattern, body)
        if found:
            return ParsedAnswer((found.group(1),))
    alone = set(re.findall(rf"(?<![\w'])(?<!\bnot )([{letters}])(?![\w'])(?!(?<=A)\s+(?!and\b|or\b|is\b)[a-z])", body))
    if len(alone) == 1:
        return ParsedAnswer((alone.pop(),))
    reason = f"several letters stand alone: {', '.join(sorted(alone))}" if alone else f"none of the letters {letters}"
    return ParsedAnswer(rejected=(Rejection(body[:_REPORTED_CHARS], reason),))


class _RejectedError(Exception):
    """An object that cannot be used; the message is the reason."""


def check_text(text: str) -> None:
    """Raise TypeError unless an answer is a string."""
    if not isinstance(text, str):
        raise TypeError(f"text must be one generated answer as str, got {type(text).__name__}.")


def read_objects(text: str, keys: tuple[str, ...], read: Callable) -> ParsedAnswer:
    """Give every JSON object that holds one of `keys` to `read`; an outer object without the key is looked into.

    Args:
        text (`str`): a generated answer, whatever it holds.
        keys (`tuple[str, ...]`): keys of which an object needs one.
        read (`Callable`): function from such an object, a `dict`, to an item; its ValueError is the reason of a
            rejection.
    Returns:
        `ParsedAnswer`.
    Raises:
        TypeError: if `text` is not a string (no string raises).
    """
    check_text(text)
    spans, truncated = _find_objects(text)
    entries, taken_until = [], -1
    for start, end, height in sorted(spans, key=lambda span: (span[0], -span[1])):  # outer before inner
        if start < taken_until or height > _MAX_OBJECT_HEIGHT:
            continue
        fragment = text[start:end]
        try:
            record = _decode(fragment)
            if not any(key in record for key in keys):
                raise _RejectedError(f"has no {' or '.join(keys)}")
        except _RejectedError as error:
            if height == 1:
                entries.append(rejection(fragment, error))
            continue
        taken_until = end
        try:
            entries.append(read(record))
        except (_RejectedError, ValueError) as error:
            entries.append(rejection(fragment, error))
    return as_answer(entries, truncated)


def rejection(text: str, reason: object) -> Rejection:
    """What is kept of a part that was refused."""
    return Rejection(text[:_REPORTED_CHARS], str(reason))


def as_answer(entries: Sequence, truncated: bool = False) -> ParsedAnswer:
    """Items and rejections in text order as an answer."""
    items = tuple(entry for entry in entries if not isinstance(entry, Rejection))
    rejected = tuple(entry for entry in entries if isinstance(entry, Rejection))
    return ParsedAnswer(items, rejected, truncated, tuple(entries))


class Quotes:
    """Whether the characters of a text, which come one by one, stand in quotes; a line end closes them."""

    def __init__(self):
        self._mark, self._is_escaped = None, False

    def read(self, character: str, may_open: bool) -> bool:
        """Read on; returns whether the character is within quotes, or one of their marks.

        Args:
            character (`str`): the next one.
            may_open (`bool`): whether it may open quotes, where none are open.
        """
        if self._mark is None:
            self._mark = character if may_open and character in "\"'" else None
            return self._mark is not None
        if self._is_escaped:
            self._is_escaped = False
        elif character == "\\":
            self._is_escaped = True
        elif character in (self._mark, "\n"):
            self._mark = None
        return True


class BraceReader:
    """Finds balanced braces in a text that comes piece by piece.

    Braces inside quotes do not count. Quotes matter only inside braces, and a line end closes them, so that a stray
    apostrophe costs one line at most. `spans` has (start, end, height) of each pair, height 1 having none inside;
    `closed_until` is the place after the last closing brace behind which none is open.
    """

    def __init__(self):
        self.spans, self.closed_until = [], 0
        self._open, self._quotes, self._position = [], Quotes(), 0

    @property
    def is_open(self) -> bool:
        """Whether a brace is open at the end of what was read."""
        return bool(self._open)

    def read(self, piece: str) -> None:
        """Read on."""
        for position, character in enumerate(piece, self._position):
            if self._quotes.read(character, may_open=bool(self._open)):
                continue
            if character == "{":
                self._open.append([position, 1])
            elif character == "}":
                self._close(position + 1)
        self._position += len(piece)

    def _close(self, end):
        if self._open:
            start, height = self._open.pop()
            self.spans.append((start, end, height))
            if self._open:
                self._open[-1][1] = max(self._open[-1][1], height + 1)
        if not self._open:
            self.closed_until = end


def _find_objects(text: str) -> tuple[list[tuple[int, int, int]], bool]:
    """Find balanced braces as `BraceReader` does, and whether one stayed open."""
    reader = BraceReader()
    reader.read(text)
    return reader.spans, reader.is_open


def _decode(fragment: str) -> dict:
    """JSON first, a Python literal second; raises `_RejectedError`, and nothing else, for anything but one object."""
    if len(fragment) > _MAX_OBJECT_CHARS:
        raise _RejectedError(f"object longer than {_MAX_OBJECT_CHARS} characters")
    try:
        return json.loads(fragment, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        pass
    if len(fragment) > _MAX_LITERAL_CHARS:
        raise _RejectedError("not JSON")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser warns of odd escapes
            tree = ast.parse(fragment, mode="eval")
        if not isinstance(tree.body, ast.Dict):
            raise _RejectedError("not an object")
        entries = zip(tree.body.keys, tree.body.values, strict=True)
        return _unique([(_literal_key(key), ast.literal_eval(value)) for key, value in entries])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _RejectedError("neither JSON nor a literal") from error


def _literal_key(node) -> str:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        raise _RejectedError("a key is not text")
    return node.value


def _unique(pairs: list) -> dict:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise _RejectedError("a key is given twice")
    return record


def read_label(record: dict) -> str | None:
    """The label of a decoded object, None without one; what is no text is refused."""
    if LABEL_KEY not in record:
        return None
    if not isinstance(record[LABEL_KEY], str):
        raise _RejectedError(f"{LABEL_KEY} is not text")
    return record[LABEL_KEY]


def read_numbers(value: object, length: int, name: str) -> list[float]:
    """Exactly `length` finite real numbers (no bool, no text) from a decoded list."""
    if not isinstance(value, list | tuple):
        raise _RejectedError(f"{name} is not a list")
    if len(value) != length:
        raise _RejectedError(f"{name} holds {len(value)} entries, expected {length}")
    if any(isinstance(entry, bool) or not isinstance(entry, int | float) for entry in value):
        raise _RejectedError(f"{name} holds an entry that is not a number")
    try:
        numbers = [float(entry) for entry in value]
    except OverflowError as error:
        raise _RejectedError(f"{name} holds a number that is not finite") from error
    if not all(math.isfinite(number) for number in numbers):
        raise _RejectedError(f"{name} holds a number that is not finite")
    return numbers
