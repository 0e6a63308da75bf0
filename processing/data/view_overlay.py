"""Boxes and points of a sample drawn into one of its views, so that a person sees whether they lie on the objects.

Where lines run in the picture is in box_projection.py, the sheet of many views in contact_sheet.py. Frame: OpenCV
cameras, integer pixel centres.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..camera_geometry_gap_mllm import project_points, scale_intrinsics, scale_pixels
from ..visual_prompt_gap_mllm import draw_scene_marks
from .box_projection import NEAR_M, box_segments, is_hidden
from .record_errors import RecordError
from .scene_sample import SceneSample


OVERSAMPLING = 2  # drawn larger and made smaller again: smooth lines
# One colour an object, far apart from each other and from most furniture.
OBJECT_COLORS = (
    (255, 64, 64),
    (0, 200, 255),
    (255, 210, 0),
    (60, 220, 60),
    (255, 0, 220),
    (255, 140, 0),
    (90, 110, 255),
    (0, 225, 170),
    (200, 120, 255),
    (170, 230, 0),
    (255, 150, 170),
    (150, 90, 40),
)


@dataclass
class DrawnView:
    """A view with what was drawn on it.

    Args:
        picture (`PIL.Image.Image`): RGB.
        boxes, points (`list[int]`): indices of those to be seen in it, at least in part.
        hidden (`list[int]`): those of the points that lie behind the surface which the depth map shows.
        problems (`list[str]`): why others could not be drawn.
    """

    picture: Image.Image
    boxes: list[int] = field(default_factory=list)
    points: list[int] = field(default_factory=list)
    hidden: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def object_colors(sample: SceneSample) -> tuple[list, list]:
    """Choose a colour for every object: boxes and points that share an instance id are one object.

    Args:
        sample (`SceneSample`)
    Returns:
        `tuple`: the RGB colours of its boxes, and of its points.
    """
    places = {}

    def color(part, kind: str, index: int):
        key = ("instance", part.instance_id) if part.instance_id else (kind, index)
        return OBJECT_COLORS[places.setdefault(key, len(places)) % len(OBJECT_COLORS)]

    boxes = [color(box, "box", index) for index, box in enumerate(sample.boxes)]
    return boxes, [color(point, "point", index) for index, point in enumerate(sample.points)]


def draw_view(sample: SceneSample, view: int, width: int, colors: tuple | None = None) -> DrawnView:
    """Draw marks, boxes and points of a sample into one view.

    Boxes are wire frames with their label: edges of faces that are turned to the camera solid, others dashed. Points
    are dots, rings where the depth map shows something before them; a square stands on the pixel that the sample
    names for the point. They need the view's intrinsics and, unless they are given in its camera, its pose.

    Args:
        sample (`SceneSample`), view (`int`): index of the view.
        width (`int`): width of the picture that comes back, in pixels; its height follows.
        colors (`tuple`, *optional*): result of `object_colors`.
    Returns:
        `DrawnView`.
    Raises:
        RecordError: if the picture cannot be decoded, or a mark cannot be drawn.
    """
    original = _with_marks(sample, view)
    height = max(round(original.height * width / original.width), 1)
    large = (width * OVERSAMPLING, height * OVERSAMPLING)
    canvas = original.resize(large, Image.Resampling.LANCZOS if large < original.size else Image.Resampling.BICUBIC)
    drawn = DrawnView(canvas)
    scales = canvas.width / original.width, canvas.height / original.height
    box_colors, point_colors = object_colors(sample) if colors is None else colors
    draw, labels = ImageDraw.Draw(canvas), []
    for index, point in enumerate(sample.points):
        if point.view == view and point.pixel is not None:
            _draw_square(draw, scale_pixels(np.asarray(point.pixel, np.float64), *scales), point_colors[index])
    intrinsics = sample.views[view].intrinsics
    if intrinsics is None:
        if sample.boxes or any(point.xyz is not None for point in sample.points):
            drawn.problems.append("no intrinsics")
    else:
        intrinsics = scale_intrinsics(intrinsics, *scales)
        _draw_boxes(draw, sample, view, intrinsics, box_colors, drawn, labels)
        _draw_points(draw, sample, view, intrinsics, point_colors, drawn, labels)
    _draw_labels(draw, labels, canvas.size)
    drawn.picture = canvas.resize((width, height), Image.Resampling.LANCZOS)
    return drawn


def _with_marks(sample, view):
    image = sample.views[view].image
    marks = [replace(mark, view=0) for mark in sample.marks if mark.view == view]
    try:
        return draw_scene_marks([image], marks)[0]
    except ValueError as error:
        raise RecordError(f"view {view}: {error}", "marks", record_id=sample.id) from None


def _draw_boxes(draw, sample, view, intrinsics, colors, drawn, labels):
    for index, (box, color) in enumerate(zip(sample.boxes, colors, strict=True)):
        try:
            numbers = sample.box_in_view(box, view)
            segments = box_segments(numbers, box.euler_order, intrinsics, drawn.picture.size)
        except ValueError as error:  # RecordError is one
            _note(drawn, error)
            continue
        if not segments:
            continue
        drawn.boxes.append(index)
        for is_near in (False, True):  # near edges over the others
            for start, end, _ in (segment for segment in segments if segment[2] == is_near):
                _draw_edge(draw, start, end, color, is_near)
        top = min((point for start, end, _ in segments for point in (start, end)), key=lambda point: point[1])
        labels.append((tuple(top), object_name(box, index), color))


def _draw_points(draw, sample, view, intrinsics, colors, drawn, labels):
    for index, (point, color) in enumerate(zip(sample.points, colors, strict=True)):
        if point.xyz is None:
            continue
        try:
            place = sample.point_in_view(point, view)
            hidden = is_hidden(place, sample.views[view])
        except RecordError as error:
            _note(drawn, error)
            continue
        pixel, depth = project_points(place, intrinsics)
        if depth < NEAR_M or not ((pixel > -0.5) & (pixel < np.asarray(drawn.picture.size) - 0.5)).all():
            continue
        drawn.points.append(index)
        if hidden:
            drawn.hidden.append(index)
        _draw_dot(draw, pixel, color, hidden)
        labels.append(((pixel[0], pixel[1] - 12 * OVERSAMPLING), object_name(point, index), color))


def _note(drawn, error):
    reason = getattr(error, "reason", str(error))
    if reason not in drawn.problems:
        drawn.problems.append(reason)


def object_name(part, index: int) -> str:
    """What a box or point is called in a drawing and its legend: its number there, and its label or role."""
    return f"{index} {part.label or getattr(part, 'role', None) or ''}".strip()


def _draw_edge(draw, start, end, color, is_near):
    line = 2 * OVERSAMPLING if is_near else OVERSAMPLING
    if is_near:
        draw.line([*start, *end], fill=(0, 0, 0), width=line + OVERSAMPLING)
        draw.line([*start, *end], fill=color, width=line)
        return
    length = float(np.hypot(*(end - start)))
    dash = 5 * OVERSAMPLING
    for place in np.arange(0, length, 2 * dash):
        ends = [start + (end - start) * min(at, length) / length for at in (place, place + dash)]
        draw.line([*ends[0], *ends[1]], fill=color, width=line)


def _draw_dot(draw, pixel, color, is_hollow):
    radius = 5 * OVERSAMPLING
    around = [pixel[0] - radius, pixel[1] - radius, pixel[0] + radius, pixel[1] + radius]
    rim = OVERSAMPLING
    draw.ellipse([around[0] - rim, around[1] - rim, around[2] + rim, around[3] + rim], outline="black", width=rim)
    draw.ellipse(around, fill=None if is_hollow else color, outline=color if is_hollow else "white", width=2 * rim)


def _draw_square(draw, pixel, color):
    reach = 9 * OVERSAMPLING
    for grown, paint, line in ((reach + OVERSAMPLING, "black", 1), (reach, color, 2)):
        around = [pixel[0] - grown, pixel[1] - grown, pixel[0] + grown, pixel[1] + grown]
        draw.rectangle(around, outline=paint, width=line * OVERSAMPLING)


def _draw_labels(draw, labels, size):
    """Names beside their objects, each moved down until it covers no other; the last places are not fought for."""
    font = ImageFont.load_default(11 * OVERSAMPLING)
    taken = []
    for (x, y), text, color in sorted(labels, key=lambda label: label[0][1]):
        left, top, right, bottom = font.getbbox(text)
        wide, high = right - left + 4 * OVERSAMPLING, bottom - top + 4 * OVERSAMPLING
        x = min(max(x - wide / 2, 0), max(size[0] - wide, 0))
        y = min(max(y - high, 0), max(size[1] - high, 0))
        for place in np.arange(y, max(size[1] - high, 0) + 1, high / 2):
            if not any(_overlap((x, place, x + wide, place + high), other) for other in taken):
                y = place
                break
        taken.append((x, y, x + wide, y + high))
        draw.rectangle(taken[-1], fill=color)
        ink = "black" if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 130 else "white"
        draw.text((x + 2 * OVERSAMPLING - left, y + 2 * OVERSAMPLING - top), text, font=font, fill=ink)


def _overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
