"""Pictures of answers about rooms: truth and answer drawn into the views and onto a floor plan.

Needs matplotlib (the extra "eval"). Figures are made without pyplot, so no window and no global state is touched.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .answers_gap_mllm import parse_boxes, parse_points
from .camera_geometry_gap_mllm import box_corners, project_points, transform_points
from .data.box_projection import BOX_EDGES, cut_at_camera
from .data.rooms.renderer import RoomScene
from .data.scene_sample import SceneSample
from .data.truth import LETTERS
from .scores import box_iou_9dof, extract_choice, numbers_in
from .scores.point_answers import read_point_answer


TRUE_COLOR, ANSWER_COLOR, BLIND_COLOR = "#008f30", "#e65100", "#7a7a7a"
MARK_COLOR, VIEW_COLOR, FURNITURE_COLOR = "#e00000", "#1f4e9c", "#d9d2c5"
FLOOR_PLAN_MARGIN_M = 0.4
IMAGE_LINE = re.compile(r"(Frame-\d+: )?<image>\s*")
FRAME_NAME = re.compile(r"\bFrame-(\d+)")  # counted from 0
CAPTION_CHARS = 90
KEY = "Green: the truth. Orange: the model. Grey: a blind baseline. Arrows: cameras."


@dataclass
class AnswerExample:
    """One answered question about a room or about photographs, to be drawn.

    Args:
        scene (`RoomScene`, *optional*): the room; None for photographs, which only "reconstruction" is drawn of.
        question (`SceneSample`): question about this room ("reconstruction", "detection3d", "grounding_box", or one
            that is answered by an option or a number).
        text (`str`): the answer, whatever it holds.
        blind (`str`, *optional*): an answer without pictures, drawn beside it.
    """

    scene: RoomScene | None
    question: SceneSample
    text: str
    blind: str | None = None


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
    for example in examples:
        _drawer(example)  # says what cannot be drawn
    columns = min(2, len(examples))
    rows = -(-len(examples) // columns)
    side, thumb, gap, head = 3.6, 1.16, 0.5, 1.15  # inches: of a picture, of the other views, between cells, above
    wide, tall = side + thumb + side + 1.0, side + 2.0
    width, height = columns * (wide + gap) + gap, head + rows * tall
    figure = new_figure(width, height)
    figure.suptitle(title, fontsize=20, fontweight="bold", y=1 - 0.2 / height)
    figure.text(0.5, 1 - 0.68 / height, KEY, fontsize=13.5, ha="center", va="top")
    for number, example in enumerate(examples):
        left, top = gap + (number % columns) * (wide + gap), height - head - (number // columns) * tall - 0.55

        def axes_at(x: float, y: float, size: float, left=left, top=top):
            return figure.add_axes(((left + x) / width, (top - y - size) / height, size / width, size / height))

        pictures = [np.asarray(view.image) for view in example.question.views]
        shown = _main_view(example)
        views = [None] * len(pictures)
        views[shown] = axes_at(0, 0, side)
        others = [view for view in range(len(pictures)) if view != shown][:3]
        for place, view in enumerate(others):
            views[view] = axes_at(side + 0.07, place * (side - thumb) / 2, thumb)
        for view, axes in enumerate(views):
            if axes is not None:
                _show_view(axes, pictures[view], view, is_main=view == shown)
        plan = axes_at(side + thumb + 0.75, 0, side)
        _draw_plan(plan, example)
        lines = _drawer(example)(example, views, plan)
        style = {"fontsize": 13, "va": "top", "parse_math": False}
        figure.text(left / width, (top + 0.5) / height, lines[0], fontweight="bold", **style)
        for place, (line, color) in enumerate(zip(lines[1:], _LINE_COLORS, strict=False)):
            if line:
                y = (top - side - 0.32 - 0.26 * place) / height
                figure.text(left / width, y, line, color=color, fontweight="bold" if place == 1 else "normal", **style)
    figure.savefig(path, format="png")


_LINE_COLORS = TRUE_COLOR, ANSWER_COLOR, BLIND_COLOR


def _drawer(example):
    question = example.question
    if example.scene is None and question.task == "reconstruction":
        return _draw_photograph
    if example.scene is not None and question.task in _DRAWERS:
        return _DRAWERS[question.task]
    if example.scene is not None and question.truth is not None and question.truth.kind in ("choice", "number"):
        return _draw_words
    raise ValueError(
        f"task is {question.task!r}; can draw {', '.join(_DRAWERS)}, and answers by an option or a number, about "
        "rooms; of photographs reconstruction alone."
    )


def _main_view(example):
    """The view that is shown large: the marked one, else that of the most objects asked about, and most of them."""
    question = example.question
    if question.marks:
        return question.marks[0].view
    ids = [int(box.instance_id) for box in question.boxes if str(box.instance_id).isdigit()]
    pixels = np.array([(example.scene.instance_ids == each).sum((1, 2)) for each in ids]).reshape(len(ids), -1)
    return max(range(len(question.views)), key=lambda view: ((pixels[:, view] > 0).sum(), pixels[:, view].sum()))


def _show_view(axes, image, number, is_main):
    axes.imshow(image, interpolation="bicubic")
    height, width = image.shape[:2]
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
    axes.text(0.02, 0.98, f"view {number}" if is_main else str(number), transform=axes.transAxes, fontsize=10,
              va="top", bbox=box)  # fmt: skip


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


def _draw_plan(axes, example):
    """The room from above: walls, furniture, cameras; of photographs the first camera alone."""
    axes.set_xlabel("metres to the right of camera 0", fontsize=9)
    axes.set_ylabel("metres ahead of camera 0", fontsize=9)
    axes.tick_params(labelsize=8)
    scene = example.scene
    if scene is None:
        axes.annotate("", (0, 0.5), (0, 0), arrowprops={"arrowstyle": "-|>", "color": VIEW_COLOR, "lw": 1.6})
        axes.set(xlim=(-3, 3), ylim=(-0.7, 5.3), aspect="equal")
        axes.set_title("From above", fontsize=12)
        axes.grid(alpha=0.3)
        return
    level = _Level(scene)
    width, depth, _ = scene.room_size
    walls = level.from_world([[0, 0, 0], [width, 0, 0], [width, depth, 0], [0, depth, 0]])[:, :2]
    axes.fill(*walls.T, facecolor="#f7f5f0", edgecolor="black", linewidth=2, zorder=0)
    for box, label in zip(scene.boxes, scene.labels, strict=True):
        footprint = _outline(box, level.from_world, scene.euler_order)
        axes.fill(*footprint.T, facecolor=FURNITURE_COLOR, edgecolor="#8a8172", zorder=1)
        axes.text(*footprint.mean(0), label, ha="center", va="center", fontsize=8.5, color="#5a5346", zorder=5)
    for number, pose in enumerate(scene.camera_to_world):
        place, tip, beyond = level.from_world(pose[:3, 3] + np.array([[0.0], [0.7], [0.9]]) * pose[:3, 2])[:, :2]
        axes.annotate("", tip, place, arrowprops={"arrowstyle": "-|>", "color": VIEW_COLOR, "lw": 1.4}, zorder=3)
        axes.text(*beyond, str(number), ha="center", va="center", fontsize=9, color=VIEW_COLOR, zorder=3)
    middle = (walls.min(0) + walls.max(0)) / 2
    reach = (walls.max(0) - walls.min(0)).max() / 2 + FLOOR_PLAN_MARGIN_M
    low, high = middle - reach, middle + reach
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_title("The room from above", fontsize=12)


def _draw_cross(axes, mark):
    """A ring around the cross of a marked pixel, and the cross, which is as visible in a large picture."""
    axes.plot(*mark.xy, color="white", marker="o", markersize=34, fillstyle="none", markeredgewidth=5)
    axes.plot(*mark.xy, color=MARK_COLOR, marker="o", markersize=34, fillstyle="none", markeredgewidth=2.5)
    axes.plot(*mark.xy, color="white", marker="+", markersize=20, markeredgewidth=6)
    axes.plot(*mark.xy, color=MARK_COLOR, marker="+", markersize=18, markeredgewidth=3.5)


def _draw_point(example, views, plan):
    """A marked pixel: cross and ring in its view, the points in the views and on the plan. Returns four lines."""
    scene, question = example.scene, example.question
    level, mark, (truth,) = _Level(scene), question.marks[0], question.truth.items
    _draw_cross(views[mark.view], mark)
    true_place = level.from_camera(np.array(truth.numbers))
    lines = [
        f"What is at the red cross in view {mark.view}, and where is it?",
        f"Truth: {truth.label}, {_words(true_place)}",
    ]
    _plot_place(plan, true_place[:2], "o", TRUE_COLOR)
    for view, axes in enumerate(views):
        if view != mark.view:
            _plot_projected(axes, scene, view, truth.numbers, marker="o", color=TRUE_COLOR)
    for name, text, marker, color in (
        ("Model", example.text, "X", ANSWER_COLOR),
        ("Blind baseline", example.blind, "s", BLIND_COLOR),
    ):
        if text is None:
            lines.append("")
            continue
        answer = read_point_answer(text, truth.numbers, truth.label)
        if answer.point is None:
            lines.append(f"{name}: unreadable, counted as wrong: {_shorten(text)}")
            continue
        place = level.from_camera(answer.point)
        _plot_inside(plan, [true_place[:2], place[:2]], color=color, linewidth=1.5, linestyle=":", zorder=6)
        _plot_place(plan, place[:2], marker, color)
        for view, axes in enumerate(views):
            if text is example.text:  # a guess by the pixel would hide the cross
                _plot_projected(axes, scene, view, answer.point, marker=marker, color=color)
        verdict = "right name" if answer.is_right_label else "wrong name"
        lines.append(f"{name}: {answer.label or 'no name'}, {_words(place)} ({verdict}, {answer.error_m:.1f} m off)")
    return lines


def _draw_photograph(example, views, plan):
    """A marked pixel of a photograph, whose truth nobody knows. Returns four lines."""
    mark = example.question.marks[0]
    _draw_cross(views[mark.view], mark)
    asked = f"What is at the red cross in view {mark.view}, and where is it?"
    answer = parse_points(example.text).first
    if answer is None:
        return [asked, "Truth: not known", f"Model: unreadable: {_shorten(example.text)}", ""]
    right, down, ahead = answer.point  # of a camera that is held level
    place = right, ahead, -down
    _plot_place(plan, place[:2], "X", ANSWER_COLOR)
    return [asked, "Truth: not known", f"Model: {answer.label or 'no name'}, {_words(place)}", ""]


def _draw_words(example, views, plan):
    """A question that is answered by an option or a number. Returns four lines."""
    truth, question = example.question.truth, example.question

    def told(text):
        if truth.kind == "number":
            found = numbers_in(text)
            is_right = bool(found) and abs(found[0] - truth.number) <= 0.5 * 10**-truth.decimals
            return f"{found[0]:g}" if found else None, is_right
        letter = extract_choice(text, LETTERS[: len(question.choices)])
        index = None if letter is None else LETTERS.index(letter)
        return None if index is None else question.choices[index], index == truth.choice

    right = f"{truth.number:g}" if truth.kind == "number" else question.choices[truth.choice]
    asked = IMAGE_LINE.sub("", question.question).strip().splitlines()[0]
    asked = _shorten(FRAME_NAME.sub(lambda frame: f"view {frame[1]}", asked))
    lines = [asked, f"Truth: {right}"]
    for name, text in (("Model", example.text), ("Blind baseline", example.blind)):
        answer, is_right = (None, False) if text is None else told(text)
        shown = f"{answer} ({'right' if is_right else 'wrong'})" if answer else f"unreadable: {_shorten(text or '')}"
        lines.append("" if text is None else f"{name}: {shown}")
    return lines


def _plot_place(axes, place, marker, color):
    """A place on the plan; at its border where it lies outside."""
    style = {"markersize": 14, "markeredgecolor": "white", "linestyle": "", "zorder": 8}
    _plot_inside(axes, [place], marker=marker, color=color, **style)


def _plot_inside(axes, places, **style):
    """Plot places on a plan, those outside at its border."""
    places = np.asarray(places)
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    axes.plot(*np.clip(places, low + 0.1, high - 0.1).T, **style)


def _plot_projected(axes, scene, view, point, **style):
    """Where a view would see a point, if it is shown and the point lies inside, whatever stands in front of it."""
    if axes is None:
        return
    first_to_view = np.linalg.inv(scene.view_to_first_view[view])
    pixel, _ = project_points(transform_points(first_to_view, np.asarray(point)), scene.intrinsics[view])
    height, width = scene.images.shape[1:3]
    if np.isfinite(pixel).all() and -0.5 <= pixel[0] < width - 0.5 and -0.5 <= pixel[1] < height - 0.5:
        size = 15 if axes.get_window_extent().width > 200 else 8
        axes.plot(*pixel, markersize=size, markeredgecolor="white", markeredgewidth=1.2, **style)


def _words(place):
    """A level place in words, relative to the first camera."""
    right, ahead, up = (float(value) for value in place)
    depth = f"{abs(ahead):.1f} m {'ahead' if ahead >= 0 else 'behind'}"
    side = f"{abs(right):.1f} m {'right' if right >= 0 else 'left'}"
    height = f"{abs(up):.1f} m {'above' if up >= 0 else 'below'} camera 0"
    return f"{depth}, {side}, {height}"


def _shorten(text):
    text = " ".join(text.split()) or "(nothing)"
    return text if len(text) <= CAPTION_CHARS else text[:CAPTION_CHARS] + " ..."


def _draw_boxes(example, views, plan):
    """True and answered boxes as wireframes in the views and outlines on the plan. Returns four lines."""
    scene, question = example.scene, example.question
    level, truths = _Level(scene), [item.numbers for item in question.truth.items]
    told = [(TRUE_COLOR, "-", truths)]
    if question.task == "grounding_box":
        lines = [f"Where is {question.truth.description}, and how large is it?"]
    else:
        lines = ["Which furniture do you see, where, and how large?"]
    lines.append(f"Truth: {', '.join(box.label for box in question.boxes)}")
    for name, text, color in (("Model", example.text, ANSWER_COLOR), ("Blind baseline", example.blind, BLIND_COLOR)):
        if text is None:
            lines.append("")
            continue
        answers = parse_boxes(text).items
        told.append((color, "--" if color == ANSWER_COLOR else ":", [answer.bbox_3d for answer in answers]))
        if not answers:
            lines.append(f"{name}: no readable box: {_shorten(text)}")
        elif question.task == "grounding_box":
            overlap = box_iou_9dof(truths[0], answers[0].bbox_3d, scene.euler_order)
            off = np.linalg.norm(np.subtract(truths[0][:3], answers[0].bbox_3d[:3]))
            lines.append(f"{name}: box {off:.1f} m off, IoU {float(overlap):.2f}")
        else:
            lines.append(f"{name}: {_shorten(', '.join(answer.label or 'a box' for answer in answers))}")
    for color, style, boxes in reversed(told):
        for box in boxes:
            for view, axes in enumerate(views):
                first_to_view = np.linalg.inv(scene.view_to_first_view[view])
                for segment in project_wireframe(box, scene.intrinsics[view], first_to_view, scene.euler_order):
                    if axes is not None:
                        width = 2.4 if axes.get_window_extent().width > 200 else 1.1
                        axes.plot(*segment.T, color=color, linestyle=style, linewidth=width)
            outline = _outline(box, level.from_camera, scene.euler_order)
            plan.plot(*np.vstack([outline, outline[:1]]).T, color=color, linestyle=style, linewidth=2.4, zorder=6)
    return lines


_DRAWERS = {"reconstruction": _draw_point, "detection3d": _draw_boxes, "grounding_box": _draw_boxes}
