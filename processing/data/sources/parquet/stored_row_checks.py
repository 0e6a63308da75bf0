"""What must hold of a row that is stored in the schema before it may be trained on, whoever wrote it.

Types and shapes are checked by `complete_row`, pictures where they are opened; here it is what fields say of each
other.
"""

from ....json_depth import decode_json
from ...record_errors import RecordError
from ...schema import TASKS
from ...source_files import check_pose


BOX_FRAMES = POINT_FRAMES = ("camera", "scan", "aligned")
POSE_FRAMES = ("scan", "aligned")
EULER_ORDERS = ("zxy", "ZXY")


def check_stored_row(row: dict) -> None:
    """Refuse a row whose parts cannot be true together.

    Args:
        row (`dict`): row of `complete_row`.
    Raises:
        RecordError: with the field, if the id is empty, the task unknown, a pose not rigid, a frame or Euler order
            unknown, a size not positive, an index outside its list, or metadata no JSON object.
    """
    if not row["id"]:
        raise RecordError(f"the id is {row['id']!r}; expected a text that no other row has.", "id")
    _check_known("task", row["task"], TASKS)
    _check_known("pose_frame", row["pose_frame"], (None, *POSE_FRAMES))
    if row["world_to_aligned"] is not None:
        check_pose(row["world_to_aligned"], "world_to_aligned")
    for index, view in enumerate(row["views"]):
        if view["camera_to_world"] is not None:
            check_pose(view["camera_to_world"], f"views[{index}].camera_to_world")
    num_views = len(row["views"])
    for index, box in enumerate(row["boxes"]):
        _check_box(box, f"boxes[{index}]", num_views)
    for index, point in enumerate(row["points"]):
        _check_known(f"points[{index}].frame", point["frame"], (None, *POINT_FRAMES))
        _check_index(f"points[{index}].view", point["view"], num_views)
    for index, mark in enumerate(row["marks"]):
        _check_index(f"marks[{index}].view", mark["view"], num_views)
    _check_index("target_frame", row["target_frame"], num_views if num_views or row["video"] is None else None)
    _check_index("choice_index", row["choice_index"], len(row["choices"]))
    _check_metadata(row["metadata"])


def _check_box(box, field, num_views):
    for name in ("center", "size", "euler"):
        if box[name] is None:
            raise RecordError("a box needs center, size and euler.", f"{field}.{name}")
    if min(box["size"]) <= 0:
        raise RecordError(f"the box has sizes {box['size']}; expected positive ones.", f"{field}.size")
    _check_known(f"{field}.frame", box["frame"], BOX_FRAMES)
    _check_known(f"{field}.euler_order", box["euler_order"], EULER_ORDERS)
    _check_index(f"{field}.frame_index", box["frame_index"], num_views)


def _check_known(field, value, known):
    if value not in known:
        raise RecordError(f"{value!r} is not known; expected one of {', '.join(map(str, known))}.", field)


def _check_index(field, value, count):
    """None is no index; a count of None is not known."""
    if value is not None and (value < 0 or (count is not None and value >= count)):
        raise RecordError(f"the index is {value}, but there are {count} (counted from 0).", field)


def _check_metadata(text):
    try:
        is_object = text is None or isinstance(decode_json(text), dict)
    except ValueError as error:
        raise RecordError(f"it is no JSON: {error}.", "metadata") from None
    if not is_object:
        raise RecordError("it is no JSON object; expected {...}.", "metadata")
