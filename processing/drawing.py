"""Pictures of answers about rooms: truth and answer drawn into the views and onto a floor plan.

Needs matplotlib (the extra "eval"). Figures are made without pyplot, so no window and no global state is touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .answers_gap_mllm import parse_boxes
from .camera_geometry_gap_mllm import box_corners, project_points, transform_points
from .data.box_projection import BOX_EDGES, cut_at_camera
from .data.rooms.renderer import RoomScene
from .data.scene_sample import SceneSample
from .scores.point_answers import read_point_answer


TRUE_COLOR, ANSWER_COLOR = "#008f30", "#e65100"
MARK_COLOR, VIEW_COLOR, FURNITURE_COLOR = "#e00000", "#1f4e9c", "#d9d2c5"
FLOOR_PLAN_MARGIN_M = 0.4
CAPTION_CHARS = 150
KEY = "Green: the truth. Orange: the model's answer. On the right the same room from above; arrows are the cameras."


@dataclass
class AnswerExample:
    """One answered question about a room, to be drawn.

    Args:
        scene (`RoomScene`): the room.
        question (`SceneSample`): question about this room ("reconstruction", "detection3d" or "grounding_box").
        text (`str`): the answer, whatever it holds.
    """

    scene: RoomScene
    question: SceneSample
    text: str


def new_figure(width: float, height: float):
    """A matplotlib figure of this size, in inches, that saves itself without a display; ImportError without it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib, which is not installed: pip install gap-mllm[eval]") from error
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure


# Wireframes


def project_wireframe(
    box: Sequence[float], intrinsics: np.ndarray, first_to_view: np.ndarray, euler_order: str = "zxy"
):
    """Return the edges of a 9-DoF box as line segments in a view, cut off at the near plane.

    Frame: the box in the camera of the first view, OpenCV axes; pixels with integer centres. Units: metres, radians,
    pixels.

    Args:
        box (array-like of shape `(9,)`): centre, full size, Euler angles.
        intrinsics (`numpy.ndarray` of shape `(3, 3)`): intrinsics of the view, in pixels.
        first_to_view (`numpy.ndarray` of shape `(4, 4)`): maps the first view's camera to that of the view.
        euler_order (`str`, defaults to "zxy"): "zxy" or "ZXY".
    Returns:
        `numpy.ndarray` of shape `(K, 2, 2)`: ends of the K edges, of 12, that lie at least partly in front; (x, y).

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.evaluation import project_wireframe
        >>> intrinsics = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
        >>> project_wireframe([0, 0, 3, 2, 2, 2, 0, 0, 0], intrinsics, np.eye(4)).shape
        (12, 2, 2)

        ```
    """
    corners = transform_points(first_to_view, box_corners(np.asarray(box, dtype=np.float64), euler_order))
    edges = [cut_at_camera(corners[first], corners[second]) for first, second, _ in BOX_EDGES]
    segments = [project_points(np.stack(ends), intrinsics)[0] for ends in edges if ends is not None]
    return np.array(segments).reshape(-1, 2, 2)


# Answers


def draw_answers(
    examples: list[AnswerExample], path: str, title: str = "What the model answers about rooms that it has never seen"
):
    """Draw answered questions for a reader who knows nothing: views, floor plan and a sentence for each.

    The floor plan looks straight down; its origin is the first camera, which looks up the page. (The camera's own x-z
    plane would be tilted, since it looks a little downwards.)

    Args:
        examples (`list[AnswerExample]`): a few; each takes a row.
        path (`str` or path): the PNG file to write.
        title (`str`, defaults to "What the model answers about rooms that it has never seen"): heading above all rows.
    Raises:
        ValueError: if there are no examples, or a question is of another task. ImportError: without matplotlib.

    Example:
        ```python
        >>> from gap_mllm.evaluation import AnswerExample, draw_answers, render_split
        >>> from gap_mllm.processing.data import make_question
        >>> room = next(render_split("test", 1))
        >>> question = make_question(room, "reconstruction")
        >>> draw_answers([AnswerExample(room, question, question.answer)], "answers.png")

        ```
    """
    if not examples:
        raise ValueError("there are no answers to draw.")
    drawers = {"reconstruction": _draw_point, "detection3d": _draw_boxes, "grounding_box": _draw_boxes}
    for example in examples:
        if example.question.task not in drawers:
            raise ValueError(f"task is {example.question.task!r}; can draw {', '.join(drawers)}.")
    num_views = max(len(example.scene.images) for example in examples)
    side, gap, head, foot = 3.0, 1.7, 1.4, 1.2  # inches: of a picture, between rows, above and below
    width, height = side * (num_views + 1.35) + 2.4, head + foot + (side + gap) * len(examples) - gap
    figure = new_figure(width, height)
    figure.suptitle(title, fontsize=17, fontweight="bold", y=1 - 0.2 / height)
    figure.text(0.5, 1 - 0.65 / height, KEY, fontsize=12.5, ha="center", va="top")
    grid = figure.add_gridspec(
        len(examples), num_views + 1, width_ratios=[1] * num_views + [1.3], left=0.15 / width, right=1 - 1.6 / width,
        top=1 - head / height, bottom=foot / height, hspace=gap / side, wspace=0.08,
    )  # fmt: skip
    for row, example in enumerate(examples):
        views = [figure.add_subplot(grid[row, view]) for view in range(len(example.scene.images))]
        plan = figure.add_subplot(grid[row, num_views])
        for number, (axes, image) in enumerate(zip(views, example.scene.images, strict=True), 1):
            _show_view(axes, image, number)
        _draw_plan(plan, example.scene)
        lines = drawers[example.question.task](example, views, plan)
        plan.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9, frameon=False, borderaxespad=0.3)
        box = grid[row, 0].get_position(figure)
        for number, (line, color) in enumerate(zip(lines, ("black", TRUE_COLOR, ANSWER_COLOR), strict=True)):
            style = {"fontsize": 13, "va": "top", "fontweight": "bold" if number else "normal", "parse_math": False}
            figure.text(box.x0, box.y0 - (0.12 + 0.27 * number) / height, line, color=color, **style)
    figure.savefig(path, format="png")


def _show_view(axes, image, number):
    axes.imshow(image, interpolation="bicubic")
    height, width = image.shape[:2]
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_title(f"View {number}", fontsize=12)


class _Level:
    """Moves points of the first camera into a level frame: right, ahead, up; its origin is the first camera."""

    def __init__(self, scene):
        self.camera_to_world = scene.camera_to_world[0]
        ahead = self.camera_to_world[:2, 2]
        ahead = ahead / np.linalg.norm(ahead)
        self.axes = np.array([[ahead[1], -ahead[0], 0.0], [ahead[0], ahead[1], 0.0], [0.0, 0.0, 1.0]])

    def from_world(self, points: np.ndarray):
        return (np.asarray(points, dtype=np.float64) - self.camera_to_world[:3, 3]) @ self.axes.T

    def from_camera(self, points: np.ndarray):
        return self.from_world(transform_points(self.camera_to_world, np.asarray(points, dtype=np.float64)))


def _outline(box, from_frame, euler_order):
    """The footprint of a box on the floor plan, as a closed polygon (convex hull of its corners)."""
    places = from_frame(box_corners(np.asarray(box, dtype=np.float64), euler_order))[:, :2]
    return _convex_hull(places)


def _convex_hull(points):
    """Corners of the convex hull, counter-clockwise (monotone chain)."""
    points = sorted({(float(x), float(y)) for x, y in np.round(points, 6)})
    halves = []
    for side in (points, points[::-1]):
        hull = []
        for point in side:
            while len(hull) > 1 and _turn(hull[-2], hull[-1], point) <= 0:
                hull.pop()
            hull.append(point)
        halves += hull[:-1]
    return np.array(halves)


def _turn(a, b, c):
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _draw_plan(axes, scene):
    """The room from above: walls, furniture, cameras."""
    level = _Level(scene)
    width, depth, _ = scene.room_size
    walls = level.from_world([[0, 0, 0], [width, 0, 0], [width, depth, 0], [0, depth, 0]])[:, :2]
    axes.fill(*walls.T, facecolor="#f7f5f0", edgecolor="black", linewidth=2, zorder=0)
    for box, label in zip(scene.boxes, scene.labels, strict=True):
        footprint = _outline(box, level.from_world, scene.euler_order)
        axes.fill(*footprint.T, facecolor=FURNITURE_COLOR, edgecolor="#8a8172", zorder=1)
        axes.text(*footprint.mean(0), label, ha="center", va="center", fontsize=8.5, color="#5a5346", zorder=5)
    for number, pose in enumerate(scene.camera_to_world, 1):
        place, tip, beyond = level.from_world(pose[:3, 3] + np.array([[0.0], [0.7], [0.9]]) * pose[:3, 2])[:, :2]
        axes.annotate("", tip, place, arrowprops={"arrowstyle": "-|>", "color": VIEW_COLOR, "lw": 1.4}, zorder=3)
        axes.text(*beyond, str(number), ha="center", va="center", fontsize=9, color=VIEW_COLOR, zorder=3)
    arrow = {"marker": r"$\rightarrow$", "markersize": 13, "linestyle": ""}
    axes.plot([], [], color=VIEW_COLOR, label="camera of\neach view", **arrow)
    middle = (walls.min(0) + walls.max(0)) / 2
    reach = (walls.max(0) - walls.min(0)).max() / 2 + FLOOR_PLAN_MARGIN_M
    low, high = middle - reach, middle + reach
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_title("The room from above", fontsize=12)
    axes.set_xlabel("metres to the right of camera 1", fontsize=9)
    axes.set_ylabel("metres ahead of camera 1", fontsize=9)
    axes.tick_params(labelsize=8)


def _draw_point(example, views, plan):
    """A marked pixel: cross and ring in its view, the points in the views and on the plan. Returns three lines."""
    scene, question = example.scene, example.question
    level, mark, (truth,) = _Level(scene), question.marks[0], question.truth.items
    ring = {"markersize": 26, "fillstyle": "none", "linestyle": "", "marker": "o"}
    axes = views[mark.view]
    axes.plot(*mark.xy, color="white", markeredgewidth=4.5, **ring)
    axes.plot(*mark.xy, color=MARK_COLOR, markeredgewidth=2.2, **ring)
    axes.plot(*mark.xy, color=MARK_COLOR, marker="+", markersize=13, markeredgewidth=3)
    axes.set_title(f"View {mark.view + 1}: the marked spot", fontsize=12, color=MARK_COLOR, fontweight="bold")
    answer = read_point_answer(example.text, truth.numbers, truth.label)
    true_place = level.from_camera(np.array(truth.numbers))
    lines = [
        f"Question: what is at the red cross in view {mark.view + 1}, and where is it?",
        f"Truth: {truth.label}, {_words(true_place)}.",
    ]
    plan.plot(*true_place[:2], marker="o", markersize=11, color=TRUE_COLOR, markeredgecolor="white", zorder=7,
              linestyle="", label="true place")  # fmt: skip
    if answer.point is None:
        return [*lines, f"Answer: unreadable, counted as wrong: {_shorten(example.text)}"]
    place = level.from_camera(answer.point)
    _plot_inside(plan, [true_place[:2], place[:2]], color=ANSWER_COLOR, linewidth=1.2, linestyle=":", zorder=6)
    _plot_inside(plan, [place[:2]], marker="X", markersize=11, color=ANSWER_COLOR, markeredgecolor="white",
                 linestyle="", zorder=8, label="answered place")  # fmt: skip
    for view, axes in enumerate(views):
        if view != mark.view:
            _plot_projected(axes, scene, view, truth.numbers, marker="o", color=TRUE_COLOR)
        _plot_projected(axes, scene, view, answer.point, marker="X", color=ANSWER_COLOR)
    verdict = "right name" if answer.is_right_label else "wrong name"
    lines.append(f"Answer: {answer.label or 'no name'}, {_words(place)} ({verdict}, {answer.error_m:.1f} m off).")
    return lines


def _plot_inside(axes, places, **style):
    """Plot places on a plan, those outside at its border."""
    places = np.asarray(places)
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    axes.plot(*np.clip(places, low + 0.1, high - 0.1).T, **style)


def _plot_projected(axes, scene, view, point, **style):
    """Where a view would see a point, if it lies inside; what stands in front of it does not matter."""
    first_to_view = np.linalg.inv(scene.view_to_first_view[view])
    pixel, _ = project_points(transform_points(first_to_view, np.asarray(point)), scene.intrinsics[view])
    height, width = scene.images.shape[1:3]
    if np.isfinite(pixel).all() and -0.5 <= pixel[0] < width - 0.5 and -0.5 <= pixel[1] < height - 0.5:
        axes.plot(*pixel, markersize=12, markeredgecolor="white", markeredgewidth=1.2, **style)


def _words(place):
    """A level place in words, relative to the first camera."""
    right, ahead, up = (float(value) for value in place)
    depth = f"{abs(ahead):.1f} m {'ahead' if ahead >= 0 else 'behind'}"
    side = f"{abs(right):.1f} m {'right' if right >= 0 else 'left'}"
    height = f"{abs(up):.1f} m {'above' if up >= 0 else 'below'} camera 1"
    return f"{depth}, {side}, {height}"


def _shorten(text):
    text = " ".join(text.split()) or "(nothing)"
    return text if len(text) <= CAPTION_CHARS else text[:CAPTION_CHARS] + " ..."


def _draw_boxes(example, views, plan):
    """True and answered boxes as wireframes in the views and outlines on the plan. Returns three lines."""
    scene, question = example.scene, example.question
    level = _Level(scene)
    answers = parse_boxes(example.text).items
    wanted = (
        [(TRUE_COLOR, "-", "true box", box) for box in (item.numbers for item in question.truth.items)]
        + [(ANSWER_COLOR, "--", "answered box", answer.bbox_3d) for answer in answers]
    )  # fmt: skip
    named = set()
    for color, style, name, box in wanted:
        for view, axes in enumerate(views):
            first_to_view = np.linalg.inv(scene.view_to_first_view[view])
            for segment in project_wireframe(box, scene.intrinsics[view], first_to_view, scene.euler_order):
                axes.plot(*segment.T, color=color, linestyle=style, linewidth=1.6)
        outline = _outline(box, level.from_camera, scene.euler_order)
        closed = np.vstack([outline, outline[:1]])
        label = None if name in named else name
        plan.plot(*closed.T, color=color, linestyle=style, linewidth=2, zorder=6, label=label)
        named.add(name)
    if question.task == "grounding_box":
        asked = f"where is {question.truth.description}, and how large is it?"
    else:
        asked = "which furniture do you see, where, and how large?"
    truth = ", ".join(box.label for box in question.boxes)
    answered = ", ".join(answer.label or "a box" for answer in answers)
    if not answers:
        answered = f"no readable box: {_shorten(example.text)}"
    return [f"Question: {asked}", f"Truth (full lines): {truth}.", f"Answer (dashed lines): {answered}."]


__all__ = ["AnswerExample", "draw_answers", "new_figure", "project_wireframe"]
