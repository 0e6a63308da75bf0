"""Questions about a reconstruction, whose answers follow from depth and cameras alone: no 3D annotation is needed.

Marked pixel, correspondence, depth order, camera motion, farthest view. What is ambiguous is not asked: each relation
has a margin, and what fell short of it is counted. Which pixels can be asked about is decided in pixels.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ...argument_checks import check_kinds, check_number
from ...camera_geometry_gap_mllm import invert_rigid, transform_points, view_to_first_view
from ...prompts_gap_mllm import prompt_text
from ..truth import LETTERS, Truth, answered, render_answer
from .pixels import LabelPixels, SeenPoint


Labeller = Callable[[Image.Image, tuple[int, int]], str | None]  # picture and pixel (x, y) -> what is seen there

# The prompt of stage 1 asks for a label; where nobody knows one, it must not.
POINT_ONLY_PROMPT = (
    "A {color} cross marks one pixel in one of the frames.\n"
    'Output a JSON dictionary with the 3D point of the marked pixel in "pointmap" '
    "in the camera coordinate system of the first frame.\n"
    "The 3D point format should be [x, y, z]."
)
# No text numbers a frame: marks tell which one is meant, so views can be dropped or reordered afterwards.
RELATION_PROMPTS = {
    "correspondence": (
        "A red cross marks a place in one of the frames. Which cross in another frame marks the same place?",
        "Which of the other crosses is on the place that the red cross marks?",
    ),
    "depth_nearer": (
        "A red and a blue cross mark two places in the same frame. Which of them is nearer to the camera?",
        "Two places are marked in one of the frames. Which one is closer to the camera of that frame?",
    ),
    "depth_farther": (
        "A red and a blue cross mark two places in the same frame. Which of them is farther from the camera?",
        "Two places are marked in one of the frames. Which one is more distant from the camera of that frame?",
    ),
    "camera_motion": (
        "One frame has a red cross in its middle, another a blue one. In which direction, as seen in the frame with "
        "the red cross, did the camera mostly move to the frame with the blue cross?",
        "Seen in the frame with the red cross, where was the camera of the frame with the blue cross?",
    ),
    "farthest_view": (
        "Some frames have crosses of different colours in their middle. Which of them was taken farthest from the "
        "place of the frame with the red cross?",
        "For which of the marked frames was the camera farthest from where it was in the frame with the red cross?",
    ),
}
OPTIONS_PROMPT = "{question}\nOptions:\n{options}\nAnswer with the option's letter from the given choices directly."
MARK_COLOR, OTHER_COLORS = "red", ("green", "blue", "yellow")
DIRECTIONS = ("right", "left", "down", "up", "forward", "backward")  # + and - along x, y, z of an OpenCV camera


class NoQuestionError(Exception):
    """A question could not be asked of what was drawn; its text is the reason, for counting."""


@dataclass(frozen=True)
class QuestionRules:
    """What makes a question worth asking.

    Args:
        depth_margin (`float`): depth order is asked where the farther place is at least this share farther.
        mark_gap (`float`): least distance of two marks in one picture, as a share of its diagonal.
        place_gap (`float`): least distance in 3D of a wrong place from the right one, as a share of the scene's size.
        min_motion (`float`): least camera motion, as a share of the median depth in the view that it is seen from.
        motion_margin (`float`): the camera must have moved this many times as far along the main direction as along
            the next.
        distance_margin (`float`): the farthest view must be this many times as far as the next.
        depth_tolerance (`float`), reprojection_px (`float`): of a correspondence, see `LabelPixels.match`.
        max_matches (`int`): other views in which the point of a marked-pixel question is stored.
        decimals (`int`): of the numbers in an answer.
    Raises:
        TypeError: if a value is of another type. ValueError: if a number is negative or not finite, or a factor is
            below 1.
    """

    depth_margin: float = 0.15
    mark_gap: float = 0.15
    place_gap: float = 0.1
    min_motion: float = 0.05
    motion_margin: float = 1.5
    distance_margin: float = 1.25
    depth_tolerance: float = 0.05
    reprojection_px: float = 1.5
    max_matches: int = 3
    decimals: int = 2

    def __post_init__(self):
        check_kinds(QuestionRules, vars(self))
        for name in self.__dataclass_fields__:
            check_number(name, getattr(self, name), least=1 if name in ("motion_margin", "distance_margin") else 0)


@dataclass
class LabelQuestion:
    """A question about some views of a scene.

    Frame: points in the camera of the first of these views, OpenCV axes. Views are counted among these views.

    Args:
        task, question_type, question (`str`): fields of a row.
        truth (`Truth`): what is answered.
        points, marks (`list[dict]`): parts of a row.
        choices (`list[str]`): "A. red", ..
        details (`dict`): what the answer was decided by, for metadata.
    """

    task: str
    question_type: str
    question: str
    truth: Truth
    points: list[dict] = field(default_factory=list)
    marks: list[dict] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)
    details: dict = field(default_factory=dict)

    @property
    def answer(self) -> str:
        """The answer as text."""
        return render_answer(self.truth)


@dataclass
class LabelClip:
    """Some views of a labelled scene, and the marks that earlier questions put on them.

    Args:
        pixels (`LabelPixels`): of the scene.
        views (`list[int]`): of the scene, in the order of the row; the first is the reference.
        images (`list[PIL.Image.Image]`): of these views.
        labeller (`Labeller`, *optional*): says what a pixel shows; None of it leaves the label out.
        rules (`QuestionRules`)
    """

    pixels: LabelPixels
    views: list[int]
    images: list[Image.Image]
    labeller: Labeller | None = None
    rules: QuestionRules = field(default_factory=QuestionRules)
    taken: dict[int, list] = field(default_factory=dict)

    @property
    def poses(self) -> np.ndarray:
        """Camera of each view to the camera of the first, `(V, 4, 4)`."""
        return view_to_first_view(self.pixels.reconstruction.camera_to_world[self.views])

    def draw(self, index: int, rng, taken=None) -> SeenPoint:
        """A usable pixel of view `index` of the clip, away from `taken` or else from earlier marked pixels."""
        point = self.pixels.draw(self.views[index], rng, self.taken.get(index, ()) if taken is None else taken)
        if point is None:
            raise NoQuestionError("view_without_usable_pixel")
        return point

    def row_point(self, point: SeenPoint, label=None, instance_id=None) -> dict:
        """A point as a row stores it: in the camera of the first view."""
        world_to_first = invert_rigid(self.pixels.reconstruction.camera_to_world[self.views[0]])
        return {
            "view": self.views.index(point.view),
            "pixel": point.pixel,
            "xyz": transform_points(world_to_first, point.xyz),
            "frame": "camera",
            "label": label,
            "instance_id": instance_id,
            "confidence": point.confidence,
        }

    def far_enough(self, index: int, pixel, others) -> bool:
        """Whether a mark on view `index` keeps its distance from others on the same picture."""
        gap = self.rules.mark_gap * np.hypot(*self.images[index].size)
        return all(np.hypot(*np.subtract(pixel, other)) >= gap for other in others)


def _mark(index, pixel, color):
    whole = [float(np.floor(value + 0.5)) for value in pixel]
    return {"view": index, "kind": "cross", "color": color, "xy": whole, "unit": "pixel"}


def _mark_frame(clip, index, color):
    """A mark that tells which frame is meant, in its middle."""
    return _mark(index, [(side - 1) // 2 for side in clip.images[index].size], color)


def _choose(kind, wording, choices, right, rng, **parts):
    """A question with lettered options, in an order drawn from `rng`."""
    texts = RELATION_PROMPTS[wording]
    order = rng.permutation(len(choices)).tolist()
    lettered = [f"{LETTERS[place]}. {choices[index]}" for place, index in enumerate(order)]
    truth = Truth("choice", choice=order.index(right))
    text = OPTIONS_PROMPT.format(question=texts[rng.integers(len(texts))], options="\n".join(lettered))
    return LabelQuestion("spatial_qa", kind, text, truth, choices=lettered, **parts)


def ask_marked_pixel(clip: LabelClip, rng: np.random.Generator, number: int) -> LabelQuestion:
    """Ask for the 3D point of a marked pixel, in view number modulo views; its matches in other views are stored, too.

    Raises:
        NoQuestionError: if that view has no usable pixel.
    """
    index = number % len(clip.views)
    point = clip.draw(index, rng)
    clip.taken.setdefault(index, []).append(point.pixel)
    pixel = tuple(int(value) for value in point.pixel)
    label = clip.labeller(clip.images[index], pixel) if clip.labeller is not None else None
    rules = clip.rules
    matches = [
        clip.pixels.match(point, view, rules.depth_tolerance, rules.reprojection_px)[0]
        for view in clip.views
        if view != point.view
    ]
    matches = sorted((match for match in matches if match is not None), key=lambda match: -match.confidence)
    place = f"marked-{number}" if matches[: rules.max_matches] else None
    seen = [point, *matches[: rules.max_matches]]
    points = [clip.row_point(one, label, place) for one in seen]
    question = POINT_ONLY_PROMPT.format(color=MARK_COLOR) if label is None else prompt_text("reconstruction")
    return LabelQuestion(
        task="reconstruction",
        question_type="marked_pixel",
        question=question,
        truth=Truth("point", answered([points[0]["xyz"]], [label]), decimals=rules.decimals),
        points=points,
        marks=[_mark(index, pixel, MARK_COLOR)],
        details={"num_matches": len(matches)},
    )


def ask_correspondence(clip: LabelClip, rng: np.random.Generator, number: int) -> LabelQuestion:
    """Ask which of several marks in one view is on the place that is marked in another view.

    Raises:
        NoQuestionError: if the drawn place is not verified in the other view, or there is no room for wrong marks.
    """
    index, other = (int(i) for i in rng.permutation(len(clip.views))[:2])
    point = clip.draw(index, rng)
    rules = clip.rules
    match, reason = clip.pixels.match(point, clip.views[other], rules.depth_tolerance, rules.reprojection_px)
    if match is None:
        raise NoQuestionError(reason)
    if not clip.pixels.has_margin(match.view, match.pixel):
        raise NoQuestionError("no_room_at_the_border")
    marked, wrong = [match.pixel], []
    for _ in range(8 * len(OTHER_COLORS)):
        if len(marked) == len(OTHER_COLORS):
            break
        candidate = clip.draw(other, rng, marked)
        is_elsewhere = np.linalg.norm(candidate.xyz - point.xyz) >= rules.place_gap * clip.pixels.size
        if is_elsewhere and clip.far_enough(other, candidate.pixel, marked):
            marked.append(candidate.pixel)
            wrong.append(candidate)
    if not wrong:
        raise NoQuestionError("no_room_for_wrong_marks")
    colors = rng.permutation(OTHER_COLORS).tolist()[: len(marked)]
    place = f"place-{number}"
    return _choose(
        "correspondence",
        "correspondence",
        colors,
        0,
        rng,
        points=[clip.row_point(one, None, place) for one in (point, match)],
        marks=[
            _mark(index, point.pixel, MARK_COLOR),
            *(_mark(other, pixel, c) for pixel, c in zip(marked, colors, strict=True)),
        ],
        details={"num_wrong": len(wrong)},
    )


def ask_depth_order(clip: LabelClip, rng: np.random.Generator, number: int) -> LabelQuestion:
    """Ask which of two marked places of one view is nearer to its camera, or farther from it.

    Raises:
        NoQuestionError: if their depths are within the margin, or the marks too close to each other.
    """
    index = number % len(clip.views)
    first = clip.draw(index, rng, ())
    second = clip.draw(index, rng, [first.pixel])
    if not clip.far_enough(index, second.pixel, [first.pixel]):
        raise NoQuestionError("marks_too_close")
    depths = [first.depth, second.depth]
    if max(depths) < (1 + clip.rules.depth_margin) * min(depths):
        raise NoQuestionError("within_depth_margin")
    is_nearer = bool(rng.integers(2))
    return _choose(
        "depth_order",
        "depth_nearer" if is_nearer else "depth_farther",
        ["red", "blue"],
        int(np.argmin(depths) if is_nearer else np.argmax(depths)),
        rng,
        points=[clip.row_point(first), clip.row_point(second)],
        marks=[_mark(index, first.pixel, "red"), _mark(index, second.pixel, "blue")],
        details={"depth_ratio": max(depths) / min(depths)},
    )


def ask_camera_motion(clip: LabelClip, rng: np.random.Generator, number: int) -> LabelQuestion:
    """Ask in which of six directions the camera mostly moved from one view to another, as the first of them sees it.

    Raises:
        NoQuestionError: if it hardly moved, or between two directions.
    """
    start, end = (int(index) for index in rng.permutation(len(clip.views))[:2])
    motion = (invert_rigid(clip.poses[start]) @ clip.poses[end])[:3, 3]
    size = np.sort(np.abs(motion))
    if np.linalg.norm(motion) < clip.rules.min_motion * _median_depth(clip, start):
        raise NoQuestionError("camera_stands_still")
    if size[2] < clip.rules.motion_margin * size[1]:
        raise NoQuestionError("between_two_directions")
    axis = int(np.argmax(np.abs(motion)))
    return _choose(
        "camera_motion",
        "camera_motion",
        list(DIRECTIONS),
        2 * axis + int(motion[axis] < 0),
        rng,
        marks=[_mark_frame(clip, start, MARK_COLOR), _mark_frame(clip, end, "blue")],
        details={"camera_motion": motion},
    )


def ask_farthest_view(clip: LabelClip, rng: np.random.Generator, number: int) -> LabelQuestion:
    """Ask which of two or three views was taken farthest from another one.

    Raises:
        NoQuestionError: if there are fewer than three views, the camera hardly moved, or two are about as far.
    """
    if len(clip.views) < 3:
        raise NoQuestionError("too_few_views")
    base, *others = rng.permutation(len(clip.views))[: 1 + len(OTHER_COLORS)].tolist()
    distance = np.linalg.norm(clip.poses[others, :3, 3] - clip.poses[base, :3, 3], axis=-1)
    ascending = np.sort(distance)
    if ascending[-1] < clip.rules.min_motion * _median_depth(clip, base):
        raise NoQuestionError("camera_stands_still")
    if ascending[-1] < clip.rules.distance_margin * ascending[-2]:
        raise NoQuestionError("about_as_far")
    colors = rng.permutation(OTHER_COLORS).tolist()[: len(others)]
    marks = [_mark_frame(clip, index, color) for index, color in zip(others, colors, strict=True)]
    return _choose(
        "farthest_view",
        "farthest_view",
        [f"the frame with the {color} cross" for color in colors],
        int(np.argmax(distance)),
        rng,
        marks=[_mark_frame(clip, base, MARK_COLOR), *marks],
        details={"distances": distance},
    )


def _median_depth(clip, index):
    depth = clip.pixels.reconstruction.depth[clip.views[index]]
    return float(np.median(depth[depth > 0])) if (depth > 0).any() else np.inf


QUESTIONS: dict[str, Callable[[LabelClip, np.random.Generator, int], LabelQuestion]] = {
    "marked_pixel": ask_marked_pixel,
    "correspondence": ask_correspondence,
    "depth_order": ask_depth_order,
    "camera_motion": ask_camera_motion,
    "farthest_view": ask_farthest_view,
}

__all__ = ["QUESTIONS", "LabelClip", "LabelQuestion", "Labeller", "NoQuestionError", "QuestionRules"]
