"""What a question asks for and what is true, before any words; and the one function that words an answer.

Whoever makes a question makes a `Truth`; a change of the views changes its numbers; `render_answer` comes last. What
comes as text is turned into a `Truth` in answer_texts.py.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..answers_gap_mllm import (
    BOX_KEYS,
    POINT_KEY,
    format_box,
    format_boxes,
    format_frame,
    format_frame_box,
    format_point,
    format_points,
)


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FRAME_SLOT = "\0"  # where the index of the answered view stands in a `Spelling`
MIRRORED = {POINT_KEY: (-1, 1, 1), **dict.fromkeys(BOX_KEYS, (-1, 1, 1, 1, 1, 1, -1, 1, -1))}  # signs, any Euler order


@dataclass(frozen=True)
class Answered:
    """One object or place of an answer.

    Args:
        numbers (`tuple[float, ...]`): x, y, z of a point, or nine of a box, in the frame of `Truth.camera`.
        label (`str`, *optional*)
        part (`int`, *optional*): which of the sample's boxes (or points) this is; None where that is not known.
        spelt (`tuple[str, ...]`, *optional*): text of an answer that was read, in turn words and numbers.
        key (`str`, defaults to `BOX_KEYS[0]`): "bbox_3d" or "pointmap", as the answer calls the numbers.
    """

    numbers: tuple[float, ...]
    label: str | None = None
    part: int | None = None
    spelt: tuple[str, ...] | None = None
    key: str = BOX_KEYS[0]

    @property
    def is_box(self) -> bool:
        """Whether the numbers are those of a box."""
        return self.key in BOX_KEYS


@dataclass(frozen=True)
class Spelling:
    """How an answer that was read is written around its objects: `FRAME_SLOT` is the index of the view.

    Args:
        head (`str`), between (`str`), tail (`str`): text before, between and after the objects.
        is_padded (`bool`, defaults to False): whether zeros fill up to the number of decimals.
    """

    head: str
    between: str
    tail: str
    is_padded: bool = False


@dataclass(frozen=True)
class Truth:
    """What is answered, as numbers and choices; also what it is about. Text is made of it by `render_answer`.

    Frame: numbers are in the camera of view 0, OpenCV axes, or in that of the answered view; angles in "zxy" unless
    the boxes of the sample say otherwise. Units: metres, radians.

    Args:
        kind (`str`): "point", "points", "box", "boxes", "frame", "frame_box", "choice", "number" or "text".
        items (`tuple[Answered, ...]`, defaults to `()`): points or boxes, in the order of the answer.
        camera (`str`, defaults to "first"): "first" or "answered", the view whose camera the numbers are in.
        frame (`int`, *optional*): index of the answered view.
        choice (`int`, *optional*): index of the right option.
        number (`float`, *optional*): exact; rounded when written.
        unit (`str`, *optional*): written behind the number.
        text (`str`, *optional*): words of a caption or another answer in words.
        description (`str`, *optional*): the words by which the question names its object.
        decimals (`int`, defaults to 2): digits after the point of all numbers.
        spelling (`Spelling`, *optional*): spelling of an answer that was read; None is the package's own.

    Example:
        ```python
        >>> from gap_mllm.processing.data.truth import Truth, render_answer
        >>> render_answer(Truth("number", number=1.234, unit="m"))
        '1.23 m'

        ```
    """

    kind: str
    items: tuple[Answered, ...] = ()
    camera: str = "first"
    frame: int | None = None
    choice: int | None = None
    number: float | None = None
    unit: str | None = None
    text: str | None = None
    description: str | None = None
    decimals: int = 2
    spelling: Spelling | None = None

    def mirrored(self) -> "Truth":
        """The truth of the mirrored scene, x to -x.

        Raises:
            ValueError: if an object has not the numbers of a point or box.
        """
        items = []
        for item in self.items:
            signs = MIRRORED[item.key]
            if len(item.numbers) != len(signs):
                raise ValueError(f"its text holds {len(item.numbers)} numbers in {item.key!r}, expected {len(signs)}.")
            items.append(replace(item, numbers=tuple(a * b + 0.0 for a, b in zip(item.numbers, signs, strict=True))))
        return replace(self, items=tuple(items))

    def moved(self, sample, view: int = 0) -> "Truth":
        """The truth with the numbers of the boxes and points of a changed sample, in the camera of one of its views.

        Boxes keep the sizes that they were read with. Raises RecordError as `SceneSample.box_in_view`.
        """
        items = []
        for item in self.items:
            if item.is_box:
                box = sample.box_in_view(sample.boxes[item.part], view)
                numbers = [*box[:3], *item.numbers[3:6], *box[6:]]
            else:
                numbers = sample.point_in_view(sample.points[item.part], view)
            items.append(replace(item, numbers=tuple(map(float, numbers))))
        return replace(self, items=tuple(items))

    def without(self, boxes: set[int]) -> "Truth":
        """The truth without the objects that are these boxes of the sample; the others count on."""
        if not boxes:
            return self
        kept = [item for item in self.items if not (item.is_box and item.part in boxes)]
        places = {item.part: item.part - sum(gone < item.part for gone in boxes) for item in kept if item.is_box}
        kept = [replace(item, part=places[item.part]) if item.is_box else item for item in kept]
        return replace(self, items=tuple(kept))


def answered(numbers: Iterable, labels: list | None = None) -> tuple[Answered, ...]:
    """Objects or places of an answer which are the first boxes or points of their sample, in order.

    Args:
        numbers (array-like of shape `(K, 9)` or `(K, 3)`): boxes or points.
        labels (`list`, *optional*): one for each, or None.
    Returns:
        `tuple[Answered, ...]`.
    """
    labels = [None] * len(numbers) if labels is None else labels
    return tuple(
        Answered(tuple(map(float, row)), label, part, key=POINT_KEY if len(row) == 3 else BOX_KEYS[0])
        for part, (row, label) in enumerate(zip(numbers, labels, strict=True))
    )


def render_answer(truth: Truth) -> str | None:
    """Word an answer: the only place where answers that the package makes or changes become text.

    Args:
        truth (`Truth`)
    Returns:
        `str`, or None where nothing is known.
    Raises:
        ValueError: if the kind is unknown, or its numbers are no point, box or view.
    """
    if truth.spelling is not None:
        return _spelt(truth)
    if truth.kind not in _WRITERS:
        raise ValueError(f"the kind of an answer is {truth.kind!r}; expected one of {', '.join(_WRITERS)}.")
    return _WRITERS[truth.kind](truth)


def rounded_number(truth: Truth) -> float:
    """The number as it is written."""
    return float(f"{truth.number:.{truth.decimals}f}")


def _number(truth):
    text = f"{truth.number:.{truth.decimals}f}"
    return text if truth.unit is None else f"{text} {truth.unit}"


def _columns(truth):
    return [item.label for item in truth.items], [item.numbers for item in truth.items]


_WRITERS = {
    "point": lambda truth: format_point(truth.items[0].label, truth.items[0].numbers, truth.decimals),
    "points": lambda truth: format_points(*_columns(truth), truth.decimals),
    "box": lambda truth: format_box(truth.items[0].numbers, truth.decimals),
    "boxes": lambda truth: format_boxes(*_columns(truth), truth.decimals),
    "frame": lambda truth: format_frame(truth.frame),
    "frame_box": lambda truth: format_frame_box(truth.frame, truth.items[0].numbers, truth.decimals),
    "choice": lambda truth: LETTERS[truth.choice],
    "number": _number,
    "text": lambda truth: truth.text,
}
KINDS = tuple(_WRITERS)


def _spelt(truth):
    """The answer as it was read, with other numbers; those that stay the same keep their spelling."""
    spelling, entries = truth.spelling, []
    for item in truth.items:
        pieces = list(item.spelt)
        numbers = zip(pieces[1::2], item.numbers, strict=True)
        pieces[1::2] = [write_number(*pair, truth.decimals, spelling.is_padded) for pair in numbers]
        entries.append("".join(pieces))
    text = spelling.head + spelling.between.join(entries) + spelling.tail
    return text.replace(FRAME_SLOT, str(truth.frame))


def write_number(old: str, number: float, decimals: int, is_padded: bool = False) -> str:
    """Write a number in the place of another one, whose spelling stays if it is the same number."""
    number = round(float(number), decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
    if number == float(old):
        return old
    return f"{number:.{decimals}f}" if is_padded or decimals == 0 else json.dumps(number)
