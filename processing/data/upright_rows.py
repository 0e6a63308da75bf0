"""Rows whose pictures EXIF says to turn: everything that belongs to the stored picture is turned together with it.

Sources speak of stored pictures: their pixels, intrinsics, depth maps and cameras are those of the file. Rows of the
schema and `SceneSample`s speak of upright ones. Here is the border between both.
Frame: OpenCV cameras. Units: metres, radians, pixels with integer centres.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..camera_geometry_gap_mllm import transform_box
from ..view_files_gap_mllm import Orientation
from .answer_texts import holds_numbers, match_parts, read_location, read_truth
from .augmentation.crops import depth_values, mark_pixels, place_mark
from .augmentation.texts import AugmentationRefused, check_coordinates
from .record_errors import RecordError
from .scene_sample import Box, Point, SceneMark, SceneSample, View
from .truth import render_answer
from .upright_pictures import picture_orientation, stored_picture_size, upright_depth


# A principal point so far from the middle (as a share of a side), and so much nearer to that of the upright picture,
# is one of the upright picture.
OFF_CENTER, NEARER = 0.1, 4


@dataclass(frozen=True)
class _Turn:
    """How a picture of (width, height) as stored is turned, and whether its depth map has EXIF of its own."""

    picture: Orientation
    size: tuple[int, int] | None
    has_own_depth: bool


def upright_row(row: dict) -> dict:
    """Turn a row that speaks of stored pictures, so that it speaks of upright ones.

    Of a view whose picture EXIF says to turn: the picture itself (see `store_upright`), intrinsics, pose, depth map
    (exactly) and its intrinsics, marks and pixels; of the camera of view 0, or of a box: points, boxes, and the
    numbers of answers and locations that are known to be theirs. A picture that no number belongs to stays a file.

    Args:
        row (`dict`): row of `complete_row`, with pictures as they are stored.
    Returns:
        `dict`: the very row where nothing has to be done.
    Raises:
        RecordError: if numbers cannot follow: a pose or box of a mirrored picture, skew, a depth map of another shape,
            intrinsics that are those of the upright picture, text with coordinates that no field of the row has. The
            picture and its EXIF orientation are named.

    Example:
        ```python
        >>> import io
        >>> from PIL import Image
        >>> from gap_mllm.processing.data import complete_row
        >>> from gap_mllm.processing.data.upright_rows import upright_row
        >>> photo, exif = io.BytesIO(), Image.Exif()
        >>> exif[0x0112] = 6  # held upright, stored lying on its side
        >>> Image.new("RGB", (640, 480)).save(photo, "JPEG", exif=exif)
        >>> view = {"image": {"bytes": photo.getvalue(), "path": None}}
        >>> mark = {"view": 0, "kind": "cross", "color": "red", "xy": [10, 20], "unit": "pixel"}
        >>> row = upright_row(complete_row(id="1", views=[view], marks=[mark]))
        >>> row["marks"][0]["xy"]
        [459.0, 10.0]

        ```
    """
    if all(_is_upright(view.get("image"), view.get("depth")) for view in row["views"]):
        return row
    stored = SceneSample.as_stored(row)
    upright = upright_sample(stored)
    return row if upright is stored else upright.to_row()


def upright_sample(sample: SceneSample) -> SceneSample:
    """The same for a `SceneSample` that still speaks of stored pictures, see `SceneSample.as_stored`."""
    turns = {index: turn for index, view in enumerate(sample.views) if (turn := _turn_of(view)) is not None}
    if not turns:
        return sample
    turned = replace(
        sample,
        views=_each(sample.views, lambda view, index: _turn_view(view, turns.get(index), index)),
        points=_each(sample.points, lambda point, _: _turn_point(sample, point, turns)),
        marks=_each(sample.marks, lambda mark, _: _turn_mark(mark, turns.get(mark.view))),
        boxes=_each(sample.boxes, lambda box, _: _turn_box(sample, box, turns)),
    )
    turned = _turn_texts(sample, turned, turns)
    if all(getattr(turned, name) is getattr(sample, name) for name in _CHANGED):
        return sample
    _refuse_coordinates(turned, turns)
    return turned


_CHANGED = ("views", "points", "marks", "boxes", "question", "answer", "references")


def _each(parts, change):
    """Changed parts; the very tuple where none has changed."""
    changed = tuple(change(part, index) for index, part in enumerate(parts))
    return parts if all(one is other for one, other in zip(changed, parts, strict=True)) else changed


def _is_upright(picture, depth):
    return picture_orientation(picture).is_upright and picture_orientation(depth).is_upright


def _turn_of(view: View) -> _Turn | None:
    turn, own = picture_orientation(view.picture), picture_orientation(view.depth_picture)
    if turn.is_upright and own.is_upright:
        return None
    size = None if view.picture is None else stored_picture_size(view.picture)
    return _Turn(turn, size, not own.is_upright)


def _refused(view: View, index: int, turn: Orientation, reason: str, field: str) -> RecordError:
    stored = view.picture if isinstance(view.picture, dict) else {}
    name = view.image_path or stored.get("path") or "its picture"
    return RecordError(
        f"view {index} ({name}) is stored with EXIF orientation {turn.exif_value}, and {reason} Save the picture "
        "upright, without EXIF orientation, and give the numbers of that picture.",
        field,
    )


# Views


def _turn_view(view, turn, index):
    if turn is None:
        return view
    try:
        changes = _depth_changes(view, turn)
        if not turn.picture.is_upright:
            changes |= _camera_changes(view, turn)
    except RecordError:
        raise
    except ValueError as error:
        raise _refused(view, index, turn.picture, str(error), f"views[{index}]") from None
    return replace(view, **changes) if changes else view


def _camera_changes(view, turn):
    changes = {}
    if view.intrinsics is not None:
        changes["intrinsics"] = _turn_intrinsics(view.intrinsics, turn)
    if view.camera_to_world is not None:
        changes["camera_to_world"] = turn.picture.pose(view.camera_to_world)
    return changes


def _turn_intrinsics(intrinsics, turn):
    """Raises ValueError for those of the upright picture, and for skew."""
    center, upright = intrinsics[:2, 2], turn.picture.size(turn.size)
    stored_off, upright_off = (np.abs(center / np.array(size) - 0.5).max() for size in (turn.size, upright))
    if stored_off > OFF_CENTER and stored_off > NEARER * upright_off:
        raise ValueError(
            f"its intrinsics have the principal point ({center[0]:.1f}, {center[1]:.1f}), the middle of the upright "
            f"picture of {upright[0]} x {upright[1]}, not of the stored one of {turn.size[0]} x {turn.size[1]}, which "
            "numbers belong to."
        )
    return turn.picture.intrinsics(intrinsics, turn.size)


def _depth_changes(view, turn):
    if view.depth_picture is None:  # intrinsics of a map that is not there belong to nothing
        return {} if view.depth_intrinsics is None else {"depth_intrinsics": None}
    values, camera = depth_values(view), view.depth_intrinsics
    own = picture_orientation(view.depth_picture)
    if camera is not None:
        camera = own.intrinsics(camera, own.size(values.shape[::-1]), "depth_intrinsics")
    if turn.size is not None:
        name = view.image_path or "its picture"
        upright, is_turned = upright_depth(values, turn.has_own_depth, turn.picture, turn.size, name)
        if camera is not None and is_turned:
            camera = turn.picture.intrinsics(camera, values.shape[::-1], "depth_intrinsics")
        values = upright
    return {"depth_picture": values, "depth_intrinsics": camera}


# What is seen in them


def _turn_point(sample, point: Point, turns):
    changes = {}
    if point.pixel is not None and point.view in turns and not turns[point.view].picture.is_upright:
        turn = turns[point.view]
        changes["pixel"] = tuple(turn.picture.pixels(np.array(point.pixel), turn.size).tolist())
    if point.xyz is not None and point.frame == "camera" and 0 in turns and not turns[0].picture.is_upright:
        changes["xyz"] = turns[0].picture.axes()[:3, :3] @ point.xyz + 0.0
    return replace(point, **changes) if changes else point


def _turn_mark(mark: SceneMark, turn):
    if turn is None or turn.picture.is_upright:
        return mark
    pixels = np.reshape(mark_pixels(mark, turn.size), (-1, 2))
    turned = turn.picture.pixels(pixels, turn.size)
    turned = np.sort(turned, axis=0) if mark.kind == "box" else turned
    return place_mark(mark, turned.reshape(-1).tolist(), turn.picture.size(turn.size))


def _turn_box(sample, box: Box, turns):
    index = box.frame_index or 0
    if box.frame != "camera" or index not in turns or turns[index].picture.is_upright:
        return box
    turn = turns[index].picture
    try:
        moved = transform_box(np.asarray(box.numbers, np.float64), turn.stored_to_upright(), box.euler_order)
    except ValueError as error:
        raise _refused(sample.views[index], index, turn, f"a box is in its camera: {error}", "boxes") from None
    return replace(box, numbers=moved)


# Texts


def _turn_texts(before, after, turns):
    """`after` with its answers, references and location in the numbers of its own boxes and points."""
    answer = _turn_text(before, after, before.answer, turns)
    references = _each(before.references, lambda text, _: _turn_text(before, after, text, turns))
    return replace(after, answer=answer, references=references, question=_turn_location(before, turns))


def _turn_text(before, after, text, turns):
    if not holds_numbers(text):
        return text
    view = None
    try:
        truth = read_truth(before, text)
        view = (before.target_frame or 0) if truth.camera == "answered" else 0
        if not truth.items or view not in turns or turns[view].picture.is_upright:
            return text
        return render_answer(match_parts(before, truth, text).moved(after, view))
    except ValueError as error:
        view = view if view in turns else min(turns)
        reason = f"its answer holds numbers that cannot be turned: {getattr(error, 'reason', error)}"
        raise _refused(before.views[view], view, turns[view].picture, reason, "answer") from None


def _turn_location(sample, turns):
    """The question, with the place of a caption's object turned: numbers change places and signs, and stay exact."""
    location = read_location(sample) if 0 in turns and not turns[0].picture.is_upright else None
    if location is None:
        return sample.question
    (item,) = location.items
    if len(item.numbers) != 3:
        reason = f"the location {''.join(item.spelt)!r} of its question is not three numbers."
        raise _refused(sample.views[0], 0, turns[0].picture, reason, "question")
    numbers = turns[0].picture.axes()[:3, :3] @ np.array(item.numbers) + 0.0
    return render_answer(replace(location, items=(replace(item, numbers=tuple(numbers.tolist())),)))


def _refuse_coordinates(sample, turns):
    """Text in words that holds coordinates, beside numbers that were turned."""
    turned = [index for index, turn in turns.items() if not turn.picture.is_upright]
    if not turned:
        return
    try:
        check_coordinates("turning upright", sample)
    except AugmentationRefused as error:
        index = turned[0]
        raise _refused(sample.views[index], index, turns[index].picture, error.reason, "question") from None
