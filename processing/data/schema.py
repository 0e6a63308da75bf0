"""The one schema of every 3D data source of this package: a row is one question about the views of one scene.

Each field is described where it is declared. Fields that a source does not know are None or empty, never invented.
"""

import functools
import json
import math
import os
import re

import numpy as np
from datasets import Array2D, Features, Image, List, Value

from ..input_checks_gap_mllm import find_half
from ..json_depth import decode_json
from .record_errors import RecordError


TASKS = (
    "reconstruction",  # marked pixel -> label and point
    "sparse_points",  # several marked pixels -> label and point of each
    "reasoning_segmentation",  # description -> points on the object, which masks grow from
    "detection3d",  # all objects as boxes
    "grounding",  # description -> view and box in one answer
    "grounding_frame",  # description -> view
    "grounding_box",  # description -> box
    "dense_caption",  # point -> description
    "spatial_qa",
    "scene_qa",
    "video_qa",
    "scene",  # views, poses, depth and boxes without a question; task makers draw questions from it
)


MARKED_TASKS = ("reconstruction", "sparse_points")  # whose points are what marked pixels see
POINT_TASKS = (*MARKED_TASKS, "reasoning_segmentation")  # whose answers are points that pixels see


def scene_features() -> Features:
    """Return the `datasets.Features` of a row.

    Frame: cameras are OpenCV (+x right, +y down, +z forward); a camera-frame box or point says which view's camera.
    Units: metres, radians, pixels with integer centres. Poses are float64: take relative poses before any cast
    (`with_format("torch")` casts to float32).

    Returns:
        `datasets.Features`.

    Example:
        ```python
        >>> from datasets import Dataset
        >>> from gap_mllm.processing.data import complete_row, scene_features
        >>> rows = Dataset.from_list([complete_row(id="1", answer="Two.")], features=scene_features())
        >>> rows[0]["answer"]
        'Two.'

        ```
    """
    vector = List(Value("float32"), length=3)
    matrix3 = Array2D((3, 3), "float32")
    matrix4 = Array2D((4, 4), "float64")
    view = {
        "image": Image(),
        "image_path": Value("string"),  # as the source writes it
        "frame_id": Value("int32"),  # number of the frame in its recording
        "timestamp": Value("float64"),  # seconds
        "depth": Image(),  # 16-bit PNG of z-depth, not ray length; 0 marks no measurement
        "depth_scale": Value("float32"),  # metres = value / depth_scale
        "intrinsics": matrix3,  # of the image
        "depth_intrinsics": matrix3,  # of the depth map, which may have another size
        "camera_to_world": matrix4,
    }
    box = {
        "center": vector,
        "size": vector,  # full extent along the axes of the box
        "euler": vector,  # angles about z, x, y
        "euler_order": Value("string"),  # "zxy" (extrinsic) or "ZXY" (intrinsic), as scipy reads them
        "frame": Value("string"),  # "aligned", "scan" or "camera"
        "frame_index": Value("int32"),  # which view's camera; None for a world frame
        "label": Value("string"),
        "instance_id": Value("string"),
        "role": Value("string"),  # "target", "input" or "proposal"
        "in_reference": Value("bool"),  # visible in view 0?
    }
    point = {
        "view": Value("int32"),
        "pixel": List(Value("float32"), length=2),  # (x, y) in that view
        "xyz": vector,
        "frame": Value("string"),  # as for boxes; "camera" is the camera of view 0
        "label": Value("string"),
        "instance_id": Value("string"),  # points that share it are one place, seen in several views
        "confidence": Value("float32"),  # of an estimated point, higher is surer; None for a measured one
    }
    mark = {
        "view": Value("int32"),
        "kind": Value("string"),  # "cross", "point" (a disc) or "box" (an outline)
        "color": Value("string"),
        "xy": List(Value("float32")),  # x, y or x1, y1, x2, y2
        "unit": Value("string"),  # "pixel" or "permille" of width and height
        "text": Value("string"),  # written beside the mark
    }
    return Features(
        {
            "id": Value("string"),  # unique in its source
            "source": Value("string"),  # which reader made the row
            "split": Value("string"),
            "task": Value("string"),  # one of TASKS
            "scene_id": Value("string"),  # rows of one scene share it
            "views": List(view),  # in prompt order, never sorted; view 0 is the reference
            "video": Value("string"),  # path, where views are sampled on loading
            "world_to_aligned": matrix4,  # scan frame to the frame with walls along the axes
            "pose_frame": Value("string"),  # "scan" or "aligned": the world of camera_to_world
            "system": Value("string"),
            "question": Value("string"),  # verbatim; <image> tags, if any, fix the places of the views
            "answer": Value("string"),  # verbatim
            "references": List(Value("string")),  # all accepted answers or captions
            "boxes": List(box),
            "points": List(point),
            "marks": List(mark),
            "target_frame": Value("int32"),  # index into views
            "choices": List(Value("string")),
            "choice_index": Value("int32"),
            "number": Value("float64"),
            "question_type": Value("string"),
            "metadata": Value("string"),  # JSON of everything else; is_metric false: lengths of no known unit
        }
    )


_LISTS = ("views", "references", "boxes", "points", "marks", "choices")


def complete_row(**fields) -> dict:
    """Build a row: what is not given becomes None or an empty list, and numbers are those that will be stored.

    Streamed rows are not cast to their features, prepared ones are; a row of this function is the same in both.

    Args:
        **fields: fields of `scene_features`; "metadata" as a dict, "views", "boxes", "points" and "marks" as lists of
            dicts, matrices and vectors as arrays or nested lists.
    Returns:
        `dict` with every field of the schema.
    Raises:
        KeyError: if a field is not in the schema, also inside a view, box, point or mark.
        ValueError: if a value has another type or shape than its feature, is not finite, or would be rounded to a
            whole number; the field is named.
        RecordError: if a text, or the path of a picture, holds half of a character; the field is named.

    Example:
        ```python
        >>> from gap_mllm.processing.data import complete_row
        >>> row = complete_row(id="1", task="spatial_qa", question="How many chairs are there?", answer="Two.")
        >>> row["answer"], row["scene_id"], row["views"]
        ('Two.', None, [])

        ```
    """
    features = _cached_features()
    unknown = sorted(set(fields) - set(features))
    if unknown:
        raise KeyError(f"the schema has no field {', '.join(unknown)}; it has {', '.join(features)}.")
    if not isinstance(fields.get("metadata"), str | None):
        fields["metadata"] = _json(fields["metadata"])
    elif _ESCAPED_HALF.search(fields.get("metadata") or ""):
        _check_whole(_json(decode_json(fields["metadata"])), "metadata")
    row = {}
    for name, feature in features.items():
        value = fields.get(name)
        if name in _LISTS:
            row[name] = [_part(name, part, feature.feature) for part in _as_list(value, name)]
        else:
            row[name] = _stored(value, feature, name)
    return row


_cached_features = functools.cache(scene_features)
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a pair or not


def _as_list(value, name):
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} is a {type(value).__name__}, expected a list.")
    return value


def _part(name, part, feature):
    """A view, box, point or mark with all its fields, or one text of a list."""
    if not isinstance(feature, dict):
        return _stored(part, feature, name)
    unknown = sorted(set(part) - set(feature))
    if unknown:
        raise KeyError(f"{name} have no field {', '.join(unknown)}; they have {', '.join(feature)}.")
    return {key: _stored(part.get(key), inner, f"{name}.{key}") for key, inner in feature.items()}


def _stored(value, feature, name):
    """The value with the precision of its feature, as plain Python."""
    if isinstance(feature, Image):
        return _picture(value, name)
    if value is None:
        return value
    dtype = feature.feature.dtype if isinstance(feature, List) else feature.dtype
    if dtype == "string":
        return _check_whole(value if type(value) is str else _text(value, name), name)
    if isinstance(feature, Value) and type(value) is _PLAIN.get(dtype):  # the common case, without numpy
        if dtype != "int32" or -(2**31) <= value < 2**31:
            return value
    return _stored_array(value, feature, dtype, name)


_PLAIN = {"bool": bool, "int32": int}


def _stored_array(value, feature, dtype, name):
    try:
        given = np.asarray(value)
    except ValueError:  # lists of different lengths
        given = np.empty((), dtype=object)
    shape = feature.shape if isinstance(feature, Array2D) else ()
    if isinstance(feature, List):
        shape = (feature.length if feature.length >= 0 else len(value),)
    if given.shape != shape:
        raise ValueError(f"{name} has shape {given.shape}, expected {shape or 'one value'}.")
    stored = given.astype(dtype) if given.dtype.kind in ("b" if dtype == "bool" else "iuf") else None
    if stored is None or not math.isfinite(stored.sum()):  # one number that is not finite spoils the sum
        shown, expected = repr(given.tolist())[:80], "True or False" if dtype == "bool" else "finite numbers"
        raise ValueError(f"{name} is {shown}, expected {expected}.")
    if dtype.startswith("int") and not (given == stored).all():
        raise ValueError(f"{name} is {value!r}, expected {dtype}.")
    return stored.tolist()


def _text(value, name):
    """Text as it is, ids that are whole numbers and paths as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer | os.PathLike) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{name} is a {type(value).__name__}, expected text.")


def _picture(value, name):
    """A picture as it is; the path of one is stored as text."""
    path = value.get("path") if isinstance(value, dict) else value
    if isinstance(path, str | os.PathLike):
        _check_whole(os.fspath(path), f"{name}.path")
    return value


def _check_whole(text, name):
    half = find_half(text) if isinstance(text, str) else None
    if half is not None:
        raise RecordError(
            f"the text holds half of a character ({half}), as texts do that were cut in UTF-16 and names that are no "
            f"UTF-8: {ascii(text)[:80]}. Write the whole character, or leave it out.",
            name,
        )
    return text


def _json(metadata):
    try:
        return json.dumps(metadata, ensure_ascii=False, sort_keys=True, default=_plain, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise ValueError(f"metadata cannot be stored as JSON: {error}.") from None


def _plain(value):
    """Numpy values in metadata, as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"it holds a {type(value).__name__}")
