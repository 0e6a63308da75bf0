"""Pictures of the answers of a session: views with marks, points and boxes, and the places seen from above.

Needs matplotlib (the extra "eval").
"""

import textwrap

import numpy as np

from .box_conventions_gap_mllm import OURS
from .camera_geometry_gap_mllm import box_corners, project_points, transform_points
from .data.box_projection import BOX_EDGES
from .drawing import MARK_COLOR, new_figure, project_wireframe
from .scene_results_gap_mllm import SceneAnswer, SceneCameras, frame_to_view, known_cameras


MAX_PICTURES, COLUMNS, WIDTH = 9, 5, 16  # inches
COLORS = ("#e65100", "#1f4e9c", "#008f30", "#8e24aa", "#00838f", "#c2185b", "#6d4c41", "#455a64")


def draw_result(result: SceneAnswer, path: str | None = None, cameras: SceneCameras | None = None):
    """Draw an answer about a scene; see `SceneAnswer.plot`.

    Args:
        result (`SceneAnswer`): an answer with its views.
        path (`str`, *optional*): picture file to write.
        cameras (`SceneCameras`, *optional*): cameras of the views; by default those that were given to the session.
    Returns:
        `matplotlib.figure.Figure`.
    Raises:
        ImportError: without matplotlib. ValueError: if the result holds no views.
    """
    if result.views is None:
        raise ValueError("this result holds no views to draw in; plot what a session returned.")
    cameras = cameras or known_cameras(result.views)
    boxes = list(getattr(result, "boxes", ()))
    points = [point for point in getattr(result, "points", ()) if point is not None]
    marks = getattr(result, "marks", ()) or [point.mark for point in points if point.mark]
    shown = _shown_views(result, boxes, marks)
    has_plan = bool(boxes or points)
    cells = len(shown) + has_plan
    columns = min(COLUMNS, cells)
    side = float(np.clip(WIDTH / columns, 3.2, 6.4))  # inches
    letters = int(11 * side * columns)
    lines = [line for text in str(result).splitlines()[:12] for line in textwrap.wrap(text, letters) or [""]]
    rows = -(-cells // columns)
    words = 0.9 + 0.2 * len(lines)
    height = 0.94 * side * rows + words
    figure = new_figure(side * columns, height)
    grid = figure.add_gridspec(rows, columns, top=1 - 0.5 / height, bottom=words / height, wspace=0.3)
    title = textwrap.shorten(" ".join(result.question.split()), int(0.77 * letters), placeholder=" ...")
    figure.suptitle(title, fontsize=12, parse_math=False)
    for place, view in enumerate(shown):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        _draw_view(axes, result, view, boxes, points, marks, cameras)
    if has_plan:
        _draw_plan(figure.add_subplot(grid[(cells - 1) // columns, (cells - 1) % columns]), boxes, points)
    figure.text(0.03, (words - 0.7) / height, "\n".join(lines), va="top", fontsize=9, parse_math=False)
    if path is not None:
        figure.savefig(path)
    return figure


def _shown_views(result, boxes, marks):
    """All views, or of many those that something is said of, then the first others."""
    views = range(len(result.views))
    named = {each.view for each in boxes} | {mark[0] for mark in marks}
    return sorted(sorted(views, key=lambda view: view not in named)[:MAX_PICTURES])


def _draw_view(axes, result, view, boxes, points, marks, cameras):
    camera, size = cameras.intrinsics[view], result.views.sizes[view]
    width, height = size
    axes.imshow(result.views.pictures[view], extent=result.views.extent(view))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_title(f"view {view}: {result.views.names[view]}", fontsize=8, parse_math=False)
    for number, box in enumerate(boxes):
        transform = None if box.view is None else frame_to_view(box.view, view, cameras)
        if camera is not None and transform is not None:
            segments = project_wireframe(box.box, camera, transform, OURS.box.euler_order)
            for segment in segments:
                axes.plot(*segment.T, color=_color(number), linewidth=1.6)
            if len(segments):
                _name(axes, segments.reshape(-1, 2).mean(0), box.label, _color(number), size)
    for mark in marks:
        if mark[0] == view:
            axes.plot(*mark[1:], "+", color=MARK_COLOR, markersize=14, markeredgewidth=2.5)
    for number, point in enumerate(points):
        if point.mark and point.mark[0] == view:
            _name(axes, point.mark[1:], point.label, _color(number), size, 7)
        transform = None if point.view is None else frame_to_view(point.view, view, cameras)
        if camera is not None and transform is not None:
            place = transform_points(transform, np.array([point.point]))
            pixel = project_points(place, camera)[0][0]
            if place[0, 2] > 0 and (pixel >= 0).all() and (pixel < size).all():
                axes.plot(*pixel, "X", color=_color(number), markersize=9, markeredgecolor="white")


def _draw_plan(axes, boxes, points):
    """Places in the frame of the answer from above: right and ahead of the camera."""
    axes.plot(0, 0, "k^", markersize=9)
    for number, box in enumerate(boxes):
        corners = box_corners(np.array(box.box), OURS.box.euler_order)[:, [0, 2]]
        for first, second, _ in BOX_EDGES:
            axes.plot(*corners[[first, second]].T, color=_color(number), linewidth=1.2)
        axes.annotate(box.label or "object", (box.box[0], box.box[2]), fontsize=7, parse_math=False)
    for number, point in enumerate(points):
        axes.plot(point.point[0], point.point[2], "X", color=_color(number), markersize=9)
        axes.annotate(point.label or "object", (point.point[0], point.point[2]), fontsize=7, parse_math=False)
    frame = (boxes or points)[0].view
    title, sides = f"from above, camera {frame}", ("right (m)", "ahead (m)")
    if frame is None:
        title, sides = "in the world", ("x (m)", "z (m)")
    axes.set(xlabel=sides[0], ylabel=sides[1])
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(title, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.margins(0.2)


def _name(axes, place, label, color, size, offset=0):
    """A label at a pixel, so many points to its upper right."""
    place = np.clip(place, 0, np.array(size) - 1)
    style = {"facecolor": "white", "alpha": 0.75, "edgecolor": color, "pad": 1.0}
    beside = {"xytext": (offset, offset), "textcoords": "offset points", "clip_on": True, "parse_math": False}
    axes.annotate(label or "object", place, color=color, fontsize=7, bbox=style, **beside)


def _color(number):
    return COLORS[number % len(COLORS)]
