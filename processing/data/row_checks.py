"""What the parts of a row say of each other: cameras that fit their pictures, answers that fit boxes and points.

Refused while reading is what cannot be true: a focal length below 0, intrinsics of another picture size, a point that
its own camera sees elsewhere or that the answer text puts elsewhere. The rest is for `inspect_source`, which reports
it: boxes and frames in which text and fields differ (training reads the text, scores read the fields, and either may
be meant: `answer_contradictions`), and depth maps that disagree, which must be decoded (`depth_contradictions`).
"""

import math

import numpy as np

from ..answers_gap_mllm import parse_boxes, parse_frame, parse_points
from ..camera_geometry_gap_mllm import project_points
from .record_errors import RecordError
from .scene_sample import SceneSample
from .schema import POINT_TASKS
from .source_files import check_intrinsics, stored_header
from .upright_pictures import picture_orientation, quarter_turn_hint


TEXT_TOLERANCE = 0.06  # metres: a number that the text rounds to one decimal, and a little
# A point may be seen this far from its pixel: cameras of colour and depth are not quite in one place, poses drift.
PIXEL_TOLERANCE = 0.05  # of the picture's diagonal
ROUNDING_M = 0.01  # of answers with two decimals; near the camera that is many pixels
DEPTH_TOLERANCE, DEPTH_WINDOW = 0.2, 3  # relative; pixels to each side, so that an edge is no contradiction


def check_row(row: dict) -> None:
    """Refuse a row whose cameras do not fit its pictures, or whose answer does not fit its fields.

    Frame: as the schema has it. Units: metres, pixels.

    Args:
        row (`dict`): result of `complete_row`.
    Raises:
        RecordError: with the field.
    """
    for index, view in enumerate(row["views"]):
        for name, kind in (("intrinsics", "image"), ("depth_intrinsics", "depth")):
            if view[name] is not None:
                picture = view[kind]
                size = None if picture is None else stored_header(picture, f"views[{index}].{kind}")[0]
                file = None if picture is None or picture["bytes"] is not None else picture["path"]
                check_intrinsics(view[name], size, f"views[{index}].{name}", file)
        _check_depth_turn(view, f"views[{index}].depth")
    if row["answer"] is not None and row["task"] in POINT_TASKS:
        known = [(point["xyz"], point["label"]) for point in row["points"] if point["xyz"] is not None]
        said = [(point.point, point.label) for point in parse_points(row["answer"]).items]
        _refuse_other("point", said, known)
    if any(point["xyz"] is not None and point["pixel"] is not None for point in row["points"]):
        _check_points(row)


def _check_depth_turn(view, field):
    """A depth map that is turned by a quarter against its picture, where EXIF turns neither of them."""
    if view["image"] is None or view["depth"] is None:
        return
    size, (width, height) = (stored_header(view[name], field)[0] for name in ("image", "depth"))
    hint = quarter_turn_hint((height, width), size)
    if hint and all(picture_orientation(view[name]).is_upright for name in ("image", "depth")):
        raise RecordError(
            f"the depth map has {width} x {height} pixels and its picture {size[0]} x {size[1]}. {hint}Turn the map, "
            "with its intrinsics.",
            field,
        )


# Text and fields


def answer_contradictions(row: dict) -> list[RecordError]:
    """Find boxes and frames of an answer written in JSON that are not those of the fields beside it.

    Args:
        row (`dict`): result of `complete_row`.
    Returns:
        `list[RecordError]`: the first contradiction, or none; texts that are no JSON say nothing here.
    """
    try:
        if row["answer"] is not None:
            _check_boxes_and_frame(row)
    except RecordError as error:
        return [error.locate(row["source"], None, row["id"])]
    return []


def _check_boxes_and_frame(row):
    text, task = row["answer"], row["task"]
    if task in ("detection3d", "grounding_box", "grounding"):
        boxes = [box for box in row["boxes"] if box["frame"] == "camera"]
        known = [([*box["center"], *box["size"]], box["label"]) for box in boxes]
        said = [(box.bbox_3d[:6], box.label) for box in parse_boxes(text).items]
        _refuse_other("box", said, known)
    if task in ("grounding_frame", "grounding") and row["target_frame"] is not None:
        frames = parse_frame(text).items
        if frames and row["target_frame"] not in frames:
            raise RecordError(
                f"the answer says frame {frames[0]}, but the target is in frame {row['target_frame']}: they "
                "contradict each other.",
                "answer",
            )


def _refuse_other(kind, said, known):
    """One of the two may hold more (objects without a word, or words of others), but not each what the other lacks."""
    lacking = [entry for entry in known if not any(_is_same(*entry, *other) for other in said)]
    for numbers, label in said if lacking else ():
        if not any(_is_same(numbers, label, *entry) for entry in known):
            raise RecordError(
                f"the answer says {kind} {_described(numbers, label)}, but the row has {kind} "
                f"{_described(*lacking[0])} in its place: they contradict each other.",
                "answer",
            )


def _described(numbers, label):
    return f"{label or ''} {[round(float(value), 3) for value in numbers]}".strip()


def _is_same(numbers, label, other, other_label):
    is_close = all(abs(a - b) <= TEXT_TOLERANCE for a, b in zip(numbers, other, strict=True))
    return is_close and (label is None or other_label is None or label == other_label)


# Points and cameras


def _check_points(row):
    sample = SceneSample.as_stored({**row, "metadata": None})
    for index, point in enumerate(sample.points):
        seen = _seen_at(sample, point)
        if seen is None:
            continue
        pixel, depth, allowed = seen
        if depth <= -ROUNDING_M:
            found = f"lies {-depth:.2f} m behind the camera"
        elif depth > ROUNDING_M and math.dist(pixel, point.pixel) > allowed:
            found = f"is seen at pixel ({pixel[0]:.0f}, {pixel[1]:.0f})"
        else:
            continue
        raise RecordError(
            f"the point {[round(float(value), 3) for value in point.xyz]} {found} of view {point.view}, but its pixel "
            f"is ({point.pixel[0]:g}, {point.pixel[1]:g}): answer and camera contradict each other.",
            f"points[{index}].xyz",
        )


def _seen_at(sample, point):
    """(pixel, depth in metres, pixels it may be off) by the camera of the point's view; None where that is unknown."""
    if point.xyz is None or point.pixel is None or point.view is None:
        return None
    intrinsics = sample.views[point.view].intrinsics
    try:
        in_camera = sample.point_in_view(point, point.view)
    except RecordError:  # no pose
        return None
    if intrinsics is None:
        return None
    pixel, depth = project_points(in_camera, intrinsics)
    diagonal = 2 * math.hypot(intrinsics[0, 2], intrinsics[1, 2])
    rounding = ROUNDING_M * max(intrinsics[0, 0], intrinsics[1, 1]) / max(float(depth), ROUNDING_M)
    return pixel.tolist(), float(depth), PIXEL_TOLERANCE * diagonal + rounding


def depth_contradictions(sample: SceneSample) -> list[RecordError]:
    """Find marked points whose depth is not that of the depth map at their pixel. Depth maps are decoded.

    Units: metres. The nearest and farthest reading around the pixel bound what is believed, so that a pixel at an edge
    is none; only rows of `POINT_TASKS` are looked at, whose points lie on what is seen.

    Args:
        sample (`SceneSample`)
    Returns:
        `list[RecordError]`: one for each such point; empty where depth, cameras or readings are not there.
    Raises:
        RecordError: if a depth map cannot be decoded.
    """
    found = []
    for index, point in enumerate(sample.points if sample.task in POINT_TASKS else ()):
        seen = _seen_at(sample, point)
        near_far = None if seen is None else _readings(sample.views[point.view], point.pixel)
        if near_far is None:
            continue
        (near, far), depth = near_far, seen[1]
        slack = DEPTH_TOLERANCE * depth + ROUNDING_M
        if not near - slack <= depth <= far + slack:
            measured = f"{near:.2f} m" if far - near < 0.01 else f"{near:.2f} to {far:.2f} m"
            reason = (
                f"the point is {depth:.2f} m deep in view {point.view}, where the depth map reads {measured} at its "
                f"pixel ({point.pixel[0]:g}, {point.pixel[1]:g}): answer and depth contradict each other."
            )
            found.append(RecordError(reason, f"points[{index}].xyz", sample.source, record_id=sample.id))
    return found


def _readings(view, pixel):
    """(nearest, farthest) reading around a pixel of the picture; None without any. One pose serves both cameras."""
    if view.depth_picture is None or view.depth_intrinsics is None:
        return None
    ray = np.linalg.solve(view.intrinsics, (*pixel, 1.0))
    column, row = (view.depth_intrinsics @ ray)[:2].round().astype(int).tolist()
    rows, columns = (slice(max(at - DEPTH_WINDOW, 0), max(at + DEPTH_WINDOW + 1, 0)) for at in (row, column))
    window = view.depth_m[rows, columns]
    readings = window[window > 0]
    return (float(readings.min()), float(readings.max())) if readings.size else None
