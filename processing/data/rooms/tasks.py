"""Questions and answers about a rendered room: marked pixel, detection list, grounding in two stages, caption.

The wording of questions is in prompts_gap_mllm.py and the spelling of answers in answers_gap_mllm.py; here it is
decided what is asked and what is true. Descriptions and captions are our own sentences.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ...camera_geometry_gap_mllm import transform_points, unproject_depth
from ...prompts_gap_mllm import prompt_text
from ...visual_prompt_gap_mllm import Mark
from ..cannot_ask import CannotAskError
from ..truth import Truth, answered, render_answer
from .attributes import AT_WALL_M, size_word, wall_gap
from .renderer import RoomScene


QUESTION_STREAM = 2  # of the room's seed; see layout.py
VISIBLE_SHARE = 0.004  # of a view's pixels: from here on a piece counts as visible
CLEAR_SHARE = 0.012  # ... as clearly visible
FURNITURE_SHARE = 0.6  # of the marked pixels
NO_FURNITURE = "no furniture is visible"


@dataclass
class RoomQuestion:
    """One question about a room, and the truth that its answer is worded from.

    Frame: camera of view 0, OpenCV axes. Units: metres, radians; Euler order "zxy". Pixels are (x, y) with integer
    centres.

    Args:
        task (`str`): "reconstruction", "detection3d", "grounding_frame", "grounding_box" or "dense_caption".
        question (`str`): text that follows the views.
        truth (`Truth`): what the model should answer.
        instances (`list[int]`): instance ids of what the answer is about, in the order of the answer.
        labels (`list[str]`): their labels.
        boxes (`numpy.ndarray` of shape `(K, 9)`): their boxes; none for a marked pixel.
        marks (`list[Mark]`): what to draw on the views; one cross for a marked pixel, else none.
        point (`numpy.ndarray` of shape `(3,)`, *optional*): what the marked pixel sees, or the centre of the object
            that a caption is asked for.
        target_frame (`int`, *optional*): the first view that shows the described object clearly.
        references (`list[str]`): captions, all true; the first is the answer.
    """

    task: str
    question: str
    truth: Truth
    instances: list[int]
    labels: list[str]
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 9)))
    marks: list[Mark] = field(default_factory=list)
    point: np.ndarray | None = None
    target_frame: int | None = None
    references: list[str] = field(default_factory=list)

    @property
    def answer(self) -> str:
        """The answer as text."""
        return render_answer(self.truth)

    @property
    def description(self) -> str | None:
        """What names exactly one piece of furniture, where one is asked for."""
        return self.truth.description


def make_question(scene: RoomScene, task: str, task_seed: int = 0, color: str = "red") -> RoomQuestion:
    """Ask one question about a room.

    Frame: see `RoomQuestion`. Source: GAP-MLLM (arXiv:2603.16461) for the five tasks; which pixel or object is asked
    for is our choice.

    Args:
        scene (`RoomScene`): the room.
        task (`str`): a key of `ROOM_TASKS`.
        task_seed (`int`, defaults to 0): same room and seed, same question; other seeds ask for other things.
            "detection3d" always asks for everything.
        color (`str`, defaults to "red"): colour of the mark; only for "reconstruction".
    Returns:
        `RoomQuestion`.
    Raises:
        ValueError: if the task is unknown or the seed negative. CannotAskError: if the views show no furniture
            (grounding, caption); `redraw.first_askable` goes on to another room.
    """
    if task not in ROOM_TASKS:
        raise ValueError(f"task is {task!r}; expected one of {list(ROOM_TASKS)}.")
    if task_seed < 0:
        raise ValueError(f"task_seed is {task_seed}; expected 0 or more.")
    rng = np.random.default_rng((scene.seed, QUESTION_STREAM, task_seed))
    return ROOM_TASKS[task](scene, rng, color)


def count_pixels(scene: RoomScene) -> np.ndarray:
    """Return how many pixels of each view show each piece of furniture, `(V, N)`."""
    num_pieces = len(scene.labels)
    ids = np.maximum(scene.instance_ids, 0).reshape(len(scene.instance_ids), -1)
    return np.stack([np.bincount(view, minlength=num_pieces + 1)[1:] for view in ids])


def visible_pieces(scene: RoomScene) -> list[int]:
    """Return the instance ids of the visible furniture in the order in which the views first show it.

    Visible is what covers `VISIBLE_SHARE` of a view; where nothing does, what covers most.
    """
    counts = count_pixels(scene)
    is_visible = counts >= max(1, min(VISIBLE_SHARE * scene.depth_m[0].size, counts.max()))
    first = np.where(is_visible.any(0), is_visible.argmax(0), len(is_visible))
    return [int(i) + 1 for i in np.argsort(first, kind="stable") if first[i] < len(is_visible)]


def _mark_pixel(scene, rng, color):
    """Stage 1: label and point of one marked pixel, on furniture in about 60 % of the questions."""
    inner = _inner_pixels(scene.instance_ids)
    if not inner.any():  # in tiny pictures every pixel may be at an edge; what it shows is true all the same
        inner = np.ones_like(inner)
    pieces = [i for i in visible_pieces(scene) if (inner & (scene.instance_ids == i)).any()]
    if pieces and rng.random() < FURNITURE_SHARE:
        candidates = inner & (scene.instance_ids == pieces[rng.integers(len(pieces))])
    else:
        candidates = inner & (scene.instance_ids <= 0)
        candidates = candidates if candidates.any() else inner
    places = np.argwhere(candidates)
    view, row, column = (int(i) for i in places[rng.integers(len(places))])
    instance = int(scene.instance_ids[view, row, column])
    point = pixel_in_first_view(scene, view, column, row)
    return RoomQuestion(
        task="reconstruction",
        question=prompt_text("reconstruction", color=color),
        truth=Truth("point", answered([point], [scene.label_of(instance)])),
        instances=[instance],
        labels=[scene.label_of(instance)],
        marks=[Mark(view, (column, row), color)],
        point=point,
    )


def _inner_pixels(ids):
    """Pixels whose four neighbours show the same thing: a mark there is not ambiguous. (V, H, W) bool."""
    inner = np.zeros(ids.shape, dtype=bool)
    middle = ids[:, 1:-1, 1:-1]
    is_same = (middle == ids[:, :-2, 1:-1]) & (middle == ids[:, 2:, 1:-1])
    inner[:, 1:-1, 1:-1] = is_same & (middle == ids[:, 1:-1, :-2]) & (middle == ids[:, 1:-1, 2:])
    return inner


def pixel_in_first_view(scene: RoomScene, view: int, x: int, y: int) -> np.ndarray:
    """Return the point that one pixel sees, `(3,)`. Frame: camera of view 0. Units: metres; integer pixel centres."""
    k = scene.intrinsics[view].copy()
    k[0, 2] -= x
    k[1, 2] -= y
    depth = scene.depth_m[view, y : y + 1, x : x + 1].astype(np.float64)
    return transform_points(scene.view_to_first_view[view], unproject_depth(depth, k)[0, 0])


def _detect(scene, rng, color):
    """All visible furniture, in first-seen order."""
    instances = visible_pieces(scene)
    labels = [scene.label_of(i) for i in instances]
    boxes = _boxes(scene, instances)
    truth = Truth("boxes", answered(boxes, labels))
    return RoomQuestion("detection3d", prompt_text("detection3d"), truth, instances, labels, boxes)


def _boxes(scene, instances):
    return scene.boxes_in_first_view()[np.array(instances, dtype=int) - 1]


def _draw_piece(scene, rng):
    """A visible piece, and the first view that shows it clearly."""
    pieces = visible_pieces(scene)
    if not pieces:
        views = "its one view" if len(scene.depth_m) == 1 else f"its {len(scene.depth_m)} views"
        raise CannotAskError(
            f"room {scene.seed} shows no furniture in {views}; take another room or view.", NO_FURNITURE
        )
    piece = pieces[rng.integers(len(pieces))]
    counts = count_pixels(scene)[:, piece - 1]
    enough = min(CLEAR_SHARE * scene.depth_m[0].size, 0.5 * counts.max())
    return piece, int(np.argmax(counts >= enough))


def _ground_frame(scene, rng, color):
    """Stage 2, first step: which view shows the described object first."""
    piece, frame = _draw_piece(scene, rng)
    description = describe(scene, piece, rng)
    question = prompt_text("grounding_frame", description=description)
    truth = Truth("frame", frame=frame, description=description)
    asked = {"instances": [piece], "labels": [scene.label_of(piece)], "boxes": _boxes(scene, [piece])}
    return RoomQuestion("grounding_frame", question, truth, **asked, target_frame=frame)


def _ground_box(scene, rng, color):
    """Stage 2, second step: the box of the described object.

    Differs: the reference puts the chosen view first; here the views keep their order, so that one encoding of the
    scene serves every task. `RoomScene.reorder_views` puts another view first.
    """
    piece, frame = _draw_piece(scene, rng)
    description = describe(scene, piece, rng)
    boxes = _boxes(scene, [piece])
    question = prompt_text("grounding_box", description=description)
    truth = Truth("box", answered(boxes), description=description)
    asked = {"instances": [piece], "labels": [scene.label_of(piece)], "boxes": boxes}
    return RoomQuestion("grounding_box", question, truth, **asked, target_frame=frame)


def _caption(scene, rng, color):
    """What stands at a given point: colour, size, place."""
    piece, _ = _draw_piece(scene, rng)
    boxes = _boxes(scene, [piece])
    references = captions(scene, piece)
    start = int(rng.integers(len(references)))
    references = references[start:] + references[:start]
    return RoomQuestion(
        task="dense_caption",
        question=prompt_text("dense_caption", location=boxes[0, :3]),
        truth=Truth("text", text=references[0]),
        instances=[piece],
        labels=[scene.label_of(piece)],
        boxes=boxes,
        point=boxes[0, :3],
        references=references,
    )


def _name(scene, piece):
    return f"{scene.colors[piece - 1]} {scene.labels[piece - 1]}"


def _relation(scene, piece):
    """Where a piece stands relative to its nearest neighbour, left and right as the first view sees them, or ""."""
    others = [i for i in visible_pieces(scene) if i != piece]
    if not others:
        return ""
    centers = scene.boxes[:, :2]
    distances = [np.linalg.norm(centers[i - 1] - centers[piece - 1]) for i in others]
    other = others[int(np.argmin(distances))]
    reach = (np.hypot(*scene.boxes[piece - 1, 3:5]) + np.hypot(*scene.boxes[other - 1, 3:5])) / 2
    if min(distances) < reach + 0.25:
        return f"next to the {_name(scene, other)}"
    here, there = scene.boxes_in_first_view()[[piece - 1, other - 1], :3]
    if min(here[2], there[2]) < 0.5:  # not both ahead of the first camera: no left and right
        return f"near the {_name(scene, other)}"
    if abs(here[0] - there[0]) > abs(here[2] - there[2]):
        side = "to the left of" if here[0] < there[0] else "to the right of"
    else:
        side = "in front of" if here[2] < there[2] else "behind"
    return f"{side} the {_name(scene, other)}"


def describe(scene: RoomScene, piece: int, rng: np.random.Generator) -> str:
    """Return a description that fits one piece of furniture only: colour and label name it, more may follow.

    Args:
        scene (`RoomScene`): the room; "left", "right", "behind" and "in front of" are seen from its view 0.
        piece (`int`): instance id.
        rng (`numpy.random.Generator`): chooses the wording.
    Returns:
        `str`: for instance "the tall red cabinet to the left of the blue bed".
    """
    size = size_word(scene.boxes[piece - 1, 3:6])
    relation = _relation(scene, piece)
    words = ["the"]
    if size and rng.random() < 0.5:
        words.append(size)
    words.append(_name(scene, piece))
    if relation and rng.random() < 0.5:
        words.append(relation)
    return " ".join(words)


def captions(scene: RoomScene, piece: int) -> list[str]:
    """Return true sentences about one piece of furniture: size, colour, label and place.

    Args:
        scene (`RoomScene`): the room; "left", "right", "behind" and "in front of" are seen from its view 0.
        piece (`int`): instance id.
    Returns:
        `list[str]`: two or three captions.
    """
    color, label = scene.colors[piece - 1], scene.labels[piece - 1]
    size = size_word(scene.boxes[piece - 1, 3:6])
    full_name = " ".join(word for word in (size, color, label) if word)
    places = [place for place in (_relation(scene, piece), _wall_place(scene, piece)) if place]
    where = " and ".join(places) or "free in the room"
    sentences = [
        f"This is a {full_name}. It stands {where}.",
        f"A {full_name} stands {where}.",
    ]
    if size:
        sentences.append(f"The {label} is {color} and {size}. It is standing {where}.")
    return sentences


def _wall_place(scene, piece):
    """The words for a piece whose box comes within 12 cm of a wall, else ""."""
    return "against the wall" if wall_gap(scene.boxes[piece - 1], scene.room_size) < AT_WALL_M else ""


ROOM_TASKS: dict[str, Callable[[RoomScene, np.random.Generator, str], RoomQuestion]] = {
    "reconstruction": _mark_pixel,
    "detection3d": _detect,
    "grounding_frame": _ground_frame,
    "grounding_box": _ground_box,
    "dense_caption": _caption,
}
