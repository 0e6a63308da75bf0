"""Which points and boxes of a SPAR question are drawn on which of its pictures, in which colour.

The text of a question speaks of "the chair (red point)"; the record holds the coordinates, and its type says what to
draw where. Coordinates are thousandths of width and height.
Source: SPAR (arXiv:2503.22976), the drawing functions of its release; the pictures are drawn by `draw_scene_marks`.
"""

from collections.abc import Iterator

from ...record_errors import RecordError
from ...source_files import as_numbers


def _points(*colors, places=None):
    return [("point", color, f"{color}_point", place) for color, place in _placed(colors, places)]


def _boxes(*colors, places=None):
    return [("box", color, f"{color}_bbox", place) for color, place in _placed(colors, places)]


def _placed(colors, places):
    return zip(colors, places or [None] * len(colors), strict=True)


# type -> kind, colour, key and place in `point_img_idx` or `bbox_img_idx` (None: the first picture), in drawing order.
FIXED_MARKS = {
    "depth_prediction_oc": _points("red", "blue"),
    "depth_prediction_oo": _points("red", "blue", "green"),
    "distance_prediction_oc": _points("red"),
    "distance_prediction_oo": _points("red", "blue"),
    "distance_infer_center_oo": _points("red", "blue", "green"),
    "obj_spatial_relation_oo": _boxes("red", "blue"),
    "spatial_volume_infer": _boxes("red"),
    "spatial_imagination_oc": _boxes("red", "blue", "green"),
    "spatial_imagination_oo": _boxes("red", "blue", "green", "yellow"),
    "position_matching": _boxes("red"),
    "depth_prediction_oc_mv": _points("red", "blue", places=(0, 1)),
    "depth_prediction_oo_mv": _points("red", "blue", "green", places=(0, 1, 2)),
    "distance_prediction_oc_mv": _points("red", places=(0,)),
    "distance_prediction_oo_mv": _points("red", "blue", places=(0, 1)),
    "distance_prediction_oo_video": _points("red", "blue", places=(0, 1)),
    "distance_infer_center_oo_mv": _points("red", "green", "blue", places=(0, 1, 2)),
    "spatial_imagination_oc_mv": _boxes("red", "green", "blue", places=(2, 0, 1)),
    "spatial_imagination_oo_mv": _boxes("red", "green", "blue", "yellow", places=(2, 0, 1, 3)),
    "spatial_imagination_oc_video": _boxes("green", "blue", "red", places=(0, 1, 2)),
    "spatial_imagination_oo_video": _boxes("green", "blue", "red", "yellow", places=(0, 1, 2, 3)),
    "obj_frame_locate": _boxes("red", places=(0,)),
}
RELATION_COLORS = ("red", "blue", "green")
LISTED_MARKS = ("spatial_imagination_map_mv", "distance_infer_center_oo_video")
UNMARKED = (
    "distance_infer_center_oc",
    "distance_infer_center_oc_mv",
    "view_change_infer",
    "camera_motion_infer",
    "appearance_order",
    "room_size",
    "obj_count",
    "nav",
    "spatial_imagination_oc_video_hard",
    "spatial_imagination_oo_video_hard",
)
SPAR_TYPES = (*FIXED_MARKS, "obj_spatial_relation_oc_mv", "obj_spatial_relation_oo_mv", *LISTED_MARKS, *UNMARKED)
# Both carry the labels object0, object1, ..; the yellow one comes out cyan there, since its channels are exchanged.
LABELLED_TYPES = {
    "spatial_imagination_oc_video": ("object0", "object1", "object2"),
    "spatial_imagination_oo_video": ("object0", "object1", "object2", "object3"),
}
MARK_KEYS = (
    *(f"{color}_{kind}" for kind in ("point", "bbox") for color in (*RELATION_COLORS, "yellow")),
    *("point_list", "bbox_list", "point_img_idx", "bbox_img_idx"),
)


def spar_marks(question_type: str, record: dict, num_views: int) -> list[dict]:
    """Return the marks of a SPAR record, as a row of the schema stores them, in the order in which they are drawn.

    What the release draws is kept, colour for colour: the numbered boxes of "spatial_imagination_map_mv" and points of
    "distance_infer_center_oo_video" are all blue, the yellow box of "spatial_imagination_oo_video" comes out cyan. Its
    green is the darker one of PIL where there is no label (`draw_point` knows).

    Units: thousandths of the width and height of the picture.

    Args:
        question_type (`str`): one of `SPAR_TYPES`.
        record (`dict`): record with the keys of its points or boxes, as `red_point` [[x, y]] and `point_img_idx`
            [[0, 2]].
        num_views (`int`): pictures of the record.
    Returns:
        `list[dict]`.
    Raises:
        RecordError: if the type is unknown, a point or box that it names is missing or no such numbers, or a mark is
            on a picture that is not there.
    """
    if question_type not in SPAR_TYPES:
        raise RecordError(
            f"unknown type {question_type!r}: what to draw for it is not known, and its text may speak of coloured "
            "marks. It is refused rather than shown without them.",
            "type",
        )
    return [_mark(record, num_views, *parts) for parts in _parts(question_type, record)]


def _parts(question_type, record) -> Iterator[tuple]:
    """Kind, colour, field, coordinates, place and label of each mark."""
    if question_type in FIXED_MARKS:
        labels = LABELLED_TYPES.get(question_type)
        for index, (kind, color, key, place) in enumerate(FIXED_MARKS[question_type]):
            drawn = "cyan" if labels and color == "yellow" else color
            yield kind, drawn, key, _only(record, key), place, labels[index] if labels else None
    elif question_type.startswith("obj_spatial_relation"):
        yield from _relation_parts(question_type, record)
    elif question_type in LISTED_MARKS:
        kind, key = ("box", "bbox_list") if "map" in question_type else ("point", "point_list")
        for index, xy in enumerate(_only(record, key)):
            label = f"object{index}" if kind == "box" else "objectA" if index == 0 else f"object{index - 1}"
            yield kind, "blue", f"{key}[0][{index}]", xy, index, label


def _relation_parts(question_type, record):
    """Seen from the camera: all boxes there are, on one picture. Between two objects: two boxes, on two pictures."""
    colors = [color for color in RELATION_COLORS if record.get(f"{color}_bbox")]
    is_pair = question_type == "obj_spatial_relation_oo_mv"
    if len(colors) == 0 or (is_pair and len(colors) != 2):
        keys = ", ".join(f"{color}_bbox" for color in RELATION_COLORS)
        found = ", ".join(f"{color}_bbox" for color in colors) or "none"
        raise RecordError(f"expected {'two' if is_pair else 'some'} of {keys}, got {found}.", "type")
    for place, color in enumerate(colors):
        key = f"{color}_bbox"
        yield "box", color, key, _only(record, key), place if is_pair else 0, None


def _only(record, key):
    """The one entry of a list of lists."""
    value = record.get(key)
    if value is None:
        raise RecordError(f"{key} is missing, but the type {record.get('type')!r} names it.", key)
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], list):
        raise RecordError(f"{key} is {value!r}; expected one list in a list.", key)
    return value[0]


def _mark(record, num_views, kind, color, field, xy, place, label):
    view = 0
    if place is not None:
        key = "bbox_img_idx" if kind == "box" else "point_img_idx"
        indices = _only(record, key)
        if place >= len(indices):
            raise RecordError(f"{key} is {indices}; expected a picture for mark {place} ({color} {kind}).", key)
        view = indices[place]
        if isinstance(view, bool) or not isinstance(view, int) or not 0 <= view < num_views:
            raise RecordError(f"the {color} {kind} is on picture {view!r} of {num_views}, counted from 0.", key)
    numbers = as_numbers(xy, (4,) if kind == "box" else (2,), field)
    if kind == "point" and not ((numbers >= 0) & (numbers <= 1000)).all():
        raise RecordError(f"point {xy} lies outside its picture; expected thousandths from 0 to 1000.", field)
    if kind == "box" and not _is_in_picture(numbers):
        raise RecordError(f"box {xy} is not x1, y1, x2, y2 in thousandths, partly inside its picture.", field)
    return {"view": view, "kind": kind, "color": color, "xy": numbers, "unit": "permille", "text": label}


def _is_in_picture(box):
    x1, y1, x2, y2 = box
    return x1 <= x2 and y1 <= y2 and x1 < 1000 and y1 < 1000 and x2 >= 0 and y2 >= 0
