"""Answers in conventions of others: text to our boxes and points, and back. Nothing is evaluated as code.

Which numbers a convention has is in box_conventions_gap_mllm.py; our own spelling, and the reading of JSON, in
answers_gap_mllm.py.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .answers_gap_mllm import (
    BOX_KEYS,
    LABEL_KEY,
    LabelledBox,
    LabelledPoint,
    ParsedAnswer,
    Rejection,
    as_answer,
    check_text,
    format_boxes,
    format_points,
    parse_points,
    read_label,
    read_numbers,
    read_objects,
    rejection,
)
from .box_conventions_gap_mllm import Pictures, convert, find_convention
from .camera_geometry_gap_mllm import invert_rigid, transform_box, transform_points


@dataclass(frozen=True)
class ImagePoint:
    """A point in a picture: `pixel` is (x, y) from its upper left corner, `view` the picture, counted from 0."""

    label: str | None
    view: int
    pixel: tuple[float, float]


@dataclass(frozen=True)
class ImageBox:
    """A box in a picture: `box_px` is (left, top, right, bottom) in pixels, `view` the picture, counted from 0."""

    label: str | None
    view: int
    box_px: tuple[float, float, float, float]


_NUMBER = r"[-+]?\d{1,12}(?:\.\d{0,12})?(?:[eE][-+]?\d{1,2})?"
_GAP = r"[^\d()\n+-]{0,24}"
_SPAR = re.compile(
    rf"(?i:(?P<label>[^\n:]{{0,80}}):\s?)?(?i:\bframe)\D{{0,6}}(?P<frame>\d{{1,6}}){_GAP}"
    rf"\(\s?(?P<u>{_NUMBER}),\s?(?P<v>{_NUMBER})\s?\){_GAP}(?P<depth>{_NUMBER})"
    rf"(?:{_GAP}\(\s?(?P<sizes>{_NUMBER},\s?{_NUMBER},\s?{_NUMBER})\s?\))?"
)
_OMNI_KEYS = ("center_cam", "dimensions", "R_cam")
_OMNI_LABELS = ("category_name", LABEL_KEY, "category")
_COORDS = re.compile(r"coords=\"([\d\t:;, .]*)\"")
_PERCENT = re.compile(r"\b([xy])(\d{0,4})=\"(\d{1,3}(?:\.\d{0,6})?)\"")
_NO_POINTS = "there are none"


# Boxes


def parse_other_boxes(text: str, convention: str, require_label: bool = False, **pictures: object) -> ParsedAnswer:
    """Read the 3D boxes of an answer in a convention; see `parse_boxes`."""
    found, known = find_convention(convention, "box"), Pictures(**pictures)
    form = found.box
    known.require(found.needs, f"a box of {found.name!r}")

    def solid(label: str | None, numbers: Sequence[float]) -> LabelledBox:
        if require_label and label is None:
            raise ValueError(f"{LABEL_KEY} is missing")
        box = convert(numbers, found.name, "ours", **vars(known))
        if form.spelling != "spar" and known.view:
            box = _to_first(box, known, found)
        return LabelledBox(label, tuple(box.tolist()))

    if form.spelling == "tag":
        return _read_tags(text, form.key, lambda label, body: solid(label, _split(body, len(form.names))))
    if form.spelling == "spar":
        return _read_spar(text, lambda label, numbers: solid(label, numbers), num_numbers=7)
    if form.spelling == "omni3d":
        return read_objects(text, (form.key,), lambda record: solid(_omni_label(record), _omni_numbers(record)))
    keys = BOX_KEYS if form.key in BOX_KEYS else (form.key,)

    def read(record: dict) -> LabelledBox:
        key = next(key for key in keys if key in record)
        return solid(read_label(record), read_numbers(record[key], len(form.names), key))

    return read_objects(text, keys, read)


def _to_first(box, pictures, convention):
    """A box in the camera of the view that the answer is about, moved to the first."""
    why = f"an answer of {convention.name!r} about view {pictures.view}"
    return transform_box(box, pictures.to_first_view(pictures.view, why), "zxy")


def _split(text, length):
    parts = text.replace(",", " ").split()
    if len(parts) != length:
        raise ValueError(f"holds {len(parts)} entries, expected {length}")
    if not all(re.fullmatch(_NUMBER, part) for part in parts):
        raise ValueError("holds an entry that is not a number")
    return [float(part) for part in parts]


def _omni_label(record):
    key = next((key for key in _OMNI_LABELS if key in record), None)
    return None if key is None else read_label({LABEL_KEY: record[key]})


def _omni_numbers(record):
    missing = [key for key in _OMNI_KEYS if key not in record]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    rows = record["R_cam"]
    flat = [entry for row in rows for entry in row] if _is_square(rows) else rows
    parts = (record["center_cam"], 3, "center_cam"), (record["dimensions"], 3, "dimensions"), (flat, 9, "R_cam")
    return [number for part in parts for number in read_numbers(*part)]


def _is_square(rows):
    return isinstance(rows, list | tuple) and all(isinstance(row, list | tuple) for row in rows)


def _read_tags(text, name, read, in_attributes=False):
    """Give each tag to `read`: the words before it on its line and its body, or its body and its attributes."""
    check_text(text)
    entries, truncated, last, label = [], False, 0, None
    for match in re.finditer(rf"<({name})\b([^<>]*)>(?:([^<]*)(</(?:{name})>)?)?", text):
        before = text[last : match.start()].rpartition("\n")
        label = before[2].strip(" :;,-*\t") or (None if before[1] else label)
        label, last = None if label == match[1] else label, match.end()
        is_closed = match[4] or match[2].endswith("/")
        truncated |= not is_closed
        try:
            if not is_closed:
                raise ValueError("is never closed")
            body = match[3].strip()
            entries.append(read(body or None, match[2]) if in_attributes else read(label, body))
        except ValueError as error:
            entries.append(rejection(match[0], error))
    return as_answer(entries, truncated or bool(re.search(rf"<(?:{name})\b[^<>]*\Z", text)))


def _read_spar(text, read, num_numbers):
    check_text(text)
    entries = []
    for match in _SPAR.finditer(text):
        numbers = [float(match[name]) for name in ("frame", "u", "v", "depth")]
        numbers += [float(size) for size in (match["sizes"] or "").split(",") if size]
        label = (match["label"] or "").strip(" -*\t") or None
        try:
            if len(numbers) < num_numbers:
                raise ValueError("has no sizes")
            entries.append(read(label, numbers[:num_numbers]))
        except ValueError as error:
            entries.append(rejection(match[0], error))
    return as_answer(entries)


# Points and boxes in pictures


def parse_other_points(text: str, convention: str, **pictures: object) -> ParsedAnswer:
    """Read the points of an answer in a convention; see `parse_points`."""
    found, known = find_convention(convention, "point"), Pictures(**pictures)
    form, why = found.point, f"a point of {found.name!r}"
    if form.order == "xyz":
        answer, to_first = parse_points(text), known.to_first_view(known.view, why)
        moved = [
            entry
            if isinstance(entry, Rejection)
            else LabelledPoint(entry.label, tuple(transform_points(to_first, np.array(entry.point)).tolist()))
            for entry in answer.entries
        ]
        return as_answer(moved, answer.truncated)

    def place(label: str | None, view: int, thousandths: Sequence[float], depth_m: float | None = None):
        if not all(0 <= value <= 1000 for value in thousandths):
            raise ValueError(f"{list(thousandths)} lies outside the picture, 0 to 1000")
        pixel = known.to_pixels(thousandths, view, why)
        if depth_m is None and known.depth_m is not None:
            depth_m = known.depth_at(pixel, view, why)
        if depth_m is None or known.intrinsics is None:
            return ImagePoint(label, view, tuple(pixel.tolist()))
        point = transform_points(known.to_first_view(view, why), known.lift(pixel, depth_m, view, why))
        if not np.isfinite(point).all():
            raise ValueError(f"has depth {depth_m}; expected a positive number")
        return LabelledPoint(label, tuple(point.tolist()))

    known.require(("image_size",), why)
    if form.spelling == "molmo":
        return _read_molmo(text, place)
    if form.spelling == "spar":
        return _read_spar(text, lambda label, row: place(label, int(row[0]), row[1:3], row[3]), num_numbers=4)

    def read(record: dict):
        pair = read_numbers(record[form.key], 2, form.key)
        return place(read_label(record), known.view, pair if form.order == "xy" else pair[::-1])

    return read_objects(text, (form.key,), read)


def parse_image_boxes(text: str, convention: str, **pictures: object) -> ParsedAnswer:
    """Read boxes in pictures: Qwen3-VL's `bbox_2d` (x first) and Gemini's `box_2d` (y first), in thousandths.

    Args:
        text (`str`): a generated answer, whatever it holds.
        convention (`str`): key of `CONVENTIONS`: "qwen3-vl-text", "qwen3-vl-code" or "gemini".
        **pictures: fields of `Pictures`: `image_size`, and `view` if it is not the first.
    Returns:
        `ParsedAnswer[ImageBox]`: boxes in pixels, and the rest with reasons.
    Raises:
        ValueError: if the convention is unknown or has no such boxes, or `image_size` is missing. TypeError: if `text`
            is not a string.

    Example:
        ```python
        >>> from gap_mllm.processing.boxes import parse_image_boxes
        >>> text = '[{"box_2d": [0, 250, 500, 750], "label": "bed"}]'
        >>> parse_image_boxes(text, "gemini", image_size=(640, 480)).first.box_px  # left, top, right, bottom
        (160.0, 0.0, 480.0, 240.0)

        ```
    """
    found, known = find_convention(convention, "point"), Pictures(**pictures)
    key, why = found.point.box_key, f"a box in a picture of {found.name!r}"
    if key is None:
        raise ValueError(f"convention {found.name!r} has no boxes in pictures; qwen3-vl-text and gemini have.")
    known.require(("image_size",), why)

    def read(record: dict) -> ImageBox:
        numbers = np.reshape(read_numbers(record[key], 4, key), (2, 2))[:, :: 1 if found.point.order == "xy" else -1]
        if not ((numbers >= 0) & (numbers <= 1000)).all() or not (numbers[0] < numbers[1]).all():
            raise ValueError(f"{record[key]} is no box within 0 to 1000")
        return ImageBox(
            read_label(record), known.view, tuple(known.to_pixels(numbers.ravel(), known.view, why).tolist())
        )

    return read_objects(text, (key,), read)


def _read_molmo(text, place):
    entries = []

    def read(label, attributes):
        coords, percent = _COORDS.search(attributes), _PERCENT.findall(attributes)
        if coords:
            return [place(label, *entry) for entry in _molmo_entries(coords[1])]
        if not percent:
            raise ValueError("has no coordinates")
        numbers = {(axis, index): 10 * float(value) for axis, index, value in percent}
        indices = dict.fromkeys(index for _, index in numbers)
        if any(("x", index) not in numbers or ("y", index) not in numbers for index in indices):
            raise ValueError("has an x without y, or y without x")
        return [place(label, 0, (numbers["x", index], numbers["y", index])) for index in indices]

    tags = _read_tags(text, "points?|tracks", read, in_attributes=True)
    for entry in tags.entries:
        entries += [entry] if isinstance(entry, Rejection) else entry
    return as_answer(entries, tags.truncated)


def _molmo_entries(coords):
    """(view, (x, y)) of each point of a list of views, "t id x y id x y", apart by tabs or punctuation."""
    for group in re.split(r"[\t:;,]", coords):
        numbers = group.split()
        if not numbers:
            continue
        if not re.fullmatch(r"0*[1-9]\d{0,6}", numbers[0]):
            raise ValueError(f"names picture {numbers[0]}, which is no number from 1 on: times of videos are not read")
        if len(numbers) < 4 or len(numbers) % 3 != 1:
            raise ValueError(f"holds {len(numbers) - 1} numbers behind the picture; expected id, x, y of each point")
        for place in range(2, len(numbers), 3):
            yield int(numbers[0]) - 1, tuple(map(float, numbers[place : place + 2]))


# To text


def format_answer(
    items: Sequence[LabelledBox | LabelledPoint | ImagePoint | ImageBox],
    convention: str = "ours",
    decimals: int | None = None,
    lossy: bool = False,
    **pictures: object,
) -> str:
    """Write boxes or points as an answer in a convention: what `parse_boxes` and its like read back.

    Frame: boxes and 3D points are ours, in the camera of the first view; with `view` they are written in that of
    another. Units: metres and radians, pixels.

    Args:
        items (list of `LabelledBox`, `LabelledPoint`, `ImagePoint` or `ImageBox`): boxes or points, all of one kind.
        convention (`str`, defaults to "ours"): key of `CONVENTIONS`.
        decimals (`int`, *optional*): digits after the decimal point, by default the convention's; thousandths of a
            picture are whole numbers unless it is given.
        lossy (`bool`, defaults to False): argument of `convert`.
        **pictures: fields of `Pictures`; places in a picture need `image_size`, and of 3D points `intrinsics`.
    Returns:
        `str`.
    Raises:
        TypeError: if items are of several kinds, or none of these. ValueError: if the convention is unknown or does
            not write such things, what it needs of the pictures is missing, or as `convert`.

    Example:
        ```python
        >>> from gap_mllm.processing import parse_boxes
        >>> from gap_mllm.processing.boxes import format_answer
        >>> items = parse_boxes('{"label": "bed", "bbox_3d": [0, 0, 2, 1, 2, 0.5, 0, 0, 1.57]}').items
        >>> format_answer(items, "seed1.5-vl")
        'bed: <3dbbox>0.0 0.0 2.0 1.0 2.0 0.5 0.0 0.5 0.0</3dbbox>'
        >>> parse_boxes(format_answer(items, "gemini"), convention="gemini").first.label
        'bed'

        ```
    """
    items = list(items)
    kinds = {type(item) for item in items}
    if len(kinds) > 1 or not kinds <= {LabelledBox, LabelledPoint, ImagePoint, ImageBox}:
        named = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"items are {named}; expected LabelledBox, LabelledPoint, ImagePoint or ImageBox, all alike.")
    kind, known = next(iter(kinds), LabelledBox), Pictures(**pictures)
    if kind is LabelledBox:
        found = find_convention(convention, "box" if items else None)
        return _boxes_text(items, found, decimals, lossy, known)
    found = find_convention(convention, "point")
    if found.point.order == "xyz":
        if kind is not LabelledPoint:
            raise ValueError(f"convention {found.name!r} writes 3D points, got {kind.__name__}s; lift them first.")
        shown = 2 if decimals is None else decimals
        return format_points([item.label for item in items], [item.point for item in items], shown)
    if kind is ImageBox:
        return _image_boxes_text(items, found, decimals, known)
    return _points_text(items, found, decimals, known)


def answer_records(items: Sequence, convention: str, decimals: int | None = None, **pictures: object) -> list[dict]:
    """Return the JSON objects of an answer in a convention that writes JSON; see `format_answer`.

    Example:
        ```python
        >>> from gap_mllm.processing.boxes import ImagePoint, answer_records
        >>> answer_records([ImagePoint("bed", 0, (320, 120))], "qwen3-vl-text", image_size=(640, 480))
        [{'point_2d': [500, 250], 'label': 'bed'}]

        ```
    """
    text = format_answer(items, convention, decimals, **pictures)
    return json.loads(text.removeprefix("```json\n").removesuffix("\n```"))


def _boxes_text(items, convention, decimals, lossy, pictures):
    form = convention.box
    if form is None:  # only for no items
        return _NO_POINTS.capitalize() + "."
    decimals = form.decimals if decimals is None else decimals
    boxes = [item.bbox_3d for item in items]
    if form.spelling != "spar" and pictures.view:
        why = f"an answer of {convention.name!r} about view {pictures.view}"
        to_view = invert_rigid(pictures.to_first_view(pictures.view, why))
        boxes = [transform_box(np.asarray(box), to_view, "zxy") for box in boxes]
    if convention.name in ("ours", "gap-release"):
        return format_boxes([item.label for item in items], boxes, decimals)
    rows = [
        _rounded(convert(box, "ours", convention.name, pictures.view, lossy, **vars(pictures)), form, decimals)
        for box in boxes
    ]
    pairs = list(zip((item.label for item in items), rows, strict=True))
    if form.spelling == "spar":
        return "\n".join(_spar_text(label, row) for label, row in pairs)
    if form.spelling == "tag":
        return "\n".join(f"{_before(label)}<{form.key}>{' '.join(map(str, row))}</{form.key}>" for label, row in pairs)
    if form.spelling == "omni3d":
        return _json_text([_omni_record(label, row) for label, row in pairs])
    return _json_text([_record(form.key, row, label) for label, row in pairs])


def _rounded(numbers, form, decimals):
    """The numbers as they are printed; a size that would vanish is the smallest step."""
    rounded = [round(float(number), decimals) + 0.0 for number in numbers]
    for place, name in enumerate(form.names):
        if name in ("x_size", "y_size", "z_size", "width", "height", "length"):
            rounded[place] = max(rounded[place], 10.0**-decimals)
        elif name == "frame":
            rounded[place] = int(rounded[place])
    return rounded


def _before(label):
    return "" if label is None else f"{label}: "


def _spar_text(label, row):
    sizes = f", size ({row[4]}, {row[5]}, {row[6]})" if len(row) > 4 else ""
    return f"{_before(label)}frame {row[0]}, ({row[1]}, {row[2]}), depth {row[3]}{sizes}"


def _omni_record(label, row):
    record = {} if label is None else {_OMNI_LABELS[0]: label}
    return record | {"center_cam": row[:3], "dimensions": row[3:6], "R_cam": [row[6:9], row[9:12], row[12:]]}


def _record(key, numbers, label):
    return {key: numbers} if label is None else {key: numbers, LABEL_KEY: label}


def _json_text(records):
    return "```json\n" + json.dumps(records, ensure_ascii=False) + "\n```"


def _grid(pixels, view, pictures, decimals, why):
    """Thousandths of pixels (x, y, ...), as they are printed."""
    numbers = pictures.to_thousandths(pixels, view, why)
    if not ((numbers >= 0) & (numbers <= 1000)).all():
        raise ValueError(f"{why} at pixel {np.round(pixels, 1).tolist()} lies outside its picture.")
    return [round(float(number), decimals) if decimals else round(float(number)) for number in numbers]


def _points_text(items, convention, decimals, pictures):
    form, why, rows = convention.point, f"a point of {convention.name!r}", []
    for item in items:
        view, depth_m = pictures.view, None
        if isinstance(item, LabelledPoint):
            to_view = invert_rigid(pictures.to_first_view(view, why))
            pixel, depth_m = pictures.drop(transform_points(to_view, np.asarray(item.point)), view, why)
        else:
            view, pixel = _view_of(item, form, pictures), item.pixel
            if form.spelling == "spar":
                depth_m = pictures.depth_at(pixel, view, why)
        rows.append((item.label, view, _grid(pixel, view, pictures, decimals, why), depth_m))
    if form.spelling == "spar":
        shown = 2 if decimals is None else decimals
        return "\n".join(_spar_text(label, (view, *xy, round(depth, shown))) for label, view, xy, depth in rows)
    if form.spelling == "molmo":
        return _molmo_text(rows)
    return _json_text([_record(form.key, xy if form.order == "xy" else xy[::-1], label) for label, _, xy, _ in rows])


def _view_of(item, form, pictures):
    """The view of an item; JSON names none, so there it must be the one that the answer is about."""
    if form.spelling == "json" and item.view != pictures.view:
        raise ValueError(f"{item} is in view {item.view}, the answer about view {pictures.view}, and JSON names none.")
    return item.view


def _molmo_text(rows):
    """One tag a label, its points by picture."""
    tags, number = [], 0
    for label in dict.fromkeys(row[0] for row in rows):
        groups: dict[int, list[str]] = {}
        for _, view, (x, y), _ in (row for row in rows if row[0] == label):
            number += 1
            groups.setdefault(view, []).append(f"{number} {x:03} {y:03}")
        coords = "\t".join(f"{view + 1} {' '.join(points)}" for view, points in sorted(groups.items()))
        tags.append(f'<points coords="{coords}">{label or ""}</points>')
    return " ".join(tags) or _NO_POINTS.capitalize() + "."


def _image_boxes_text(items, convention, decimals, pictures):
    form, why = convention.point, f"a box in a picture of {convention.name!r}"
    if form.box_key is None:
        raise ValueError(f"convention {convention.name!r} has no boxes in pictures; qwen3-vl-text and gemini have.")
    records = []
    for item in items:
        corners = np.reshape(_grid(item.box_px, _view_of(item, form, pictures), pictures, decimals, why), (2, 2))
        numbers = corners[:, :: 1 if form.order == "xy" else -1].ravel().tolist()
        records.append(_record(form.box_key, numbers, item.label))
    return _json_text(records)
