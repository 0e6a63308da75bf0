"""What task makers know of a scene, what keeps a question from being asked, and how a question becomes a row."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps

import numpy as np
from PIL import Image

from ...prompts_gap_mllm import number_views
from ...visual_prompt_gap_mllm import MARK_COLORS
from ..cannot_ask import CannotAskError
from ..record_errors import RecordError
from ..scene_sample import Box, Point, SceneMark, SceneSample
from ..truth import Truth, render_answer, rounded_number
from .margins import MARGINS, TaskMargins
from .scene_cameras import SceneCamera, scene_cameras
from .scene_objects import COMPLETE_TASKS, TRUE_ROLES, SceneObject, SceneObjects, read_objects
from .templates import phrase, reword_ending


# A picture and a pixel (x, y) of it -> what is seen there, or None where that is not known.
Labeller = Callable[[Image.Image, tuple[int, int]], str | None]
LENGTHS = ("metres", "centimetres")
TYPICAL_DEPTH_M = 2.0  # what the median depth is taken for where a scene is not in metres; our choice
COLORS = tuple(color for color in MARK_COLORS if color != "orange")  # between red and yellow, and "an orange"


@dataclass
class Marked:
    """A marked pixel. Frame: `xyz` in the camera of view 0. Units: metres; pixel (x, y) of the colour picture.

    `text` is what is written beside the cross, the number of one of several.
    """

    view: int
    pixel: tuple[int, int]
    xyz: np.ndarray
    color: str
    item: SceneObject | None = None
    label: str | None = None
    text: str | None = None


@dataclass
class Draft:
    """A question before it is a row; fields as in `SceneSample`.

    Args:
        task (`str`), question_type (`str`): task and kind of question of the row.
        kind (`str`): key of `templates.TEMPLATES`.
        words (`dict`): what the template is filled with.
        truth (`Truth`): what is answered; its items are the targets, the marks or the points, in their order.
        targets, inputs (`list[SceneObject]`): objects of the answer, in its order, and objects that the text names.
        marks (`list[Marked]`): crosses, in the order of the text.
        points (`list[Marked]`): points of the answer that no cross marks.
        named_views (`list[int]`): views that the text names by number; they then carry their numbers in the prompt.
        facts (`dict`): the exact quantities that the answer came from.
        ending (`str`, defaults to ""): follows the text of the template.
        number_views (`bool`, defaults to False): views carry their numbers in any case, as where the answer is one.
    """

    task: str
    question_type: str
    kind: str
    words: dict = field(default_factory=dict)
    truth: Truth = field(default_factory=lambda: Truth("text", text=""))
    targets: list[SceneObject] = field(default_factory=list)
    inputs: list[SceneObject] = field(default_factory=list)
    marks: list[Marked] = field(default_factory=list)
    points: list[Marked] = field(default_factory=list)
    named_views: list[int] = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    ending: str = ""
    number_views: bool = False
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


class TaskScene:
    """A scene to ask about. Everything is computed when first needed.

    Frame: camera of view 0, OpenCV axes. Units: metres; where the sample's metadata says that it is not `is_metric`,
    its own, and then no question asks for metres, and margins count the median depth for `TYPICAL_DEPTH_M`.

    Args:
        sample (`SceneSample`): a row with views; boxes are used if its task lists all objects ("scene",
            "detection3d").
        margins (`TaskMargins`, *optional*): thresholds, by default the package's.
        mark_colors (`tuple[str, ...]`, defaults to `COLORS`): colours that crosses may have.
        labeller (`Labeller`, *optional*): names what marked pixels show, where the sample does not.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.processing.data.task_makers import TaskScene
        >>> scenes = load_multiview("rendered_rooms", split="train", num_rooms=1)
        >>> scene = TaskScene(scenes[0])
        >>> len(scene.cameras), scene.knows_objects, scene.has_up
        (4, True, True)

        ```
    """

    def __init__(
        self,
        sample: SceneSample,
        margins: TaskMargins | None = None,
        mark_colors: tuple[str, ...] | None = None,
        labeller: Labeller | None = None,
    ):
        self.sample, self.labeller = sample, labeller
        self.is_metric = sample.metadata.get("is_metric", True)
        margins = margins or MARGINS
        self.margins = margins if self.is_metric else margins.scaled(_metre_of(sample))
        self.mark_colors = list(COLORS if mark_colors is None else mark_colors)
        self.memo = {}  # of functions that are `remembered`
        self.taken: tuple[Marked, ...] = ()  # marks of other questions that are shown in the same pictures

    def take(self, marks: list[Marked]) -> None:
        """Keep colours and places of marks from the next questions, which are shown in the same pictures."""
        self.taken += tuple(marks)
        taken = {mark.color for mark in marks}
        self.mark_colors = [color for color in self.mark_colors if color not in taken]

    def draw_colors(self, rng: np.random.Generator, count: int, besides: str | None = None) -> list[str]:
        """Draw different colours of crosses.

        Args:
            rng (`numpy.random.Generator`), count (`int`)
            besides (`str`, *optional*): a colour that the question uses by name, and that must be there.
        Raises:
            CannotAskError: if there are too few.
        """
        rest = [color for color in self.mark_colors if color != besides]
        if len(rest) < count or (besides is not None and besides not in self.mark_colors):
            raise CannotAskError("too few colours of crosses are left")
        return draw_some(rest, count, rng)

    def label_of(self, mark: Marked) -> str | None:
        """The label of a mark: its own, or what the labeller says."""
        if mark.label is None and self.labeller is not None:
            mark.label = self.labeller(self.sample.views[mark.view].image, mark.pixel)
        return mark.label

    @cached_property
    def cameras(self) -> list[SceneCamera | None]:
        """One for each view; raises CannotAskError if view 0 has no pose."""
        cameras = scene_cameras(self.sample, self.margins)
        if not cameras:
            raise CannotAskError("the row has no views")
        if cameras[0] is None:
            raise CannotAskError("view 0 has no pose or no intrinsics")
        return cameras

    @cached_property
    def measured(self) -> list[SceneCamera]:
        """The cameras with a depth map; raises CannotAskError if there is none."""
        found = [camera for camera in self.cameras if camera is not None and camera.depth_m is not None]
        if not found:
            raise CannotAskError("no view has both a pose and a depth map")
        return found

    @cached_property
    def objects(self) -> SceneObjects:
        """The objects and where they are seen; raises CannotAskError if they are not known."""
        _ = self.measured
        if self.sample.task not in COMPLETE_TASKS:
            raise CannotAskError("boxes of this task need not be all objects of the scene")
        if any(not box.label for box in self.sample.boxes if box.role in TRUE_ROLES):
            raise CannotAskError("a box has no label, so that names do not tell objects apart")
        try:
            items = read_objects(self.sample, self.margins)
        except RecordError:
            raise CannotAskError("the boxes are in a frame that the poses do not reach") from None
        if not items:
            raise CannotAskError("the row has no boxes of objects")
        return SceneObjects(items, self.cameras, self.margins)

    @property
    def knows_objects(self) -> bool:
        """Whether `objects` can be had."""
        try:
            return self.objects is not None
        except CannotAskError:
            return False

    @property
    def all_seen(self) -> SceneObjects:
        """`objects`; raises CannotAskError unless every view has pose and depth: nothing unknown may be seen."""
        objects = self.objects
        if not objects.is_complete:
            raise CannotAskError("not every view has a pose and a depth map")
        return objects

    @property
    def has_up(self) -> bool:
        """Whether the direction of gravity is known."""
        return self.sample.pose_frame == "aligned" or self.sample.world_to_aligned is not None

    @cached_property
    def up(self) -> np.ndarray:
        """Unit vector against gravity; raises CannotAskError if the aligned world is not known."""
        _ = self.cameras
        if not self.has_up:
            raise CannotAskError("the direction of gravity is not known")
        return self.sample.camera_to("aligned", 0)[2, :3]

    def pose(self, draft: Draft, rng: np.random.Generator, phrasings: str = "all") -> SceneSample:
        """Make a row of a draft.

        Args:
            draft (`Draft`)
            rng (`numpy.random.Generator`): chooses among the phrasings.
            phrasings (`str`, defaults to "all"): "all", "first" or "held_out", as for `make_tasks`.
        Returns:
            `SceneSample`: without id. Boxes are in the camera of view 0, angles "zxy".
        Raises:
            CannotAskError: if the answer is a length in metres, which the scene's lengths are not in.
        """
        if not self.is_metric and draft.facts.get("unit") in LENGTHS:
            raise CannotAskError("lengths of the scene are not in metres")
        template, text = phrase(draft.kind, rng, phrasings, **draft.words)
        if draft.number_views or any(view > 0 for view in draft.named_views):
            text = number_views(text, len(self.sample.views))
        metadata = {"template": template, "maker_facts": draft.facts, "scene_row": self.sample.id}
        if draft.named_views:
            metadata["named_views"] = sorted(set(draft.named_views))
        metadata["keep_views"] = self._kept_views(draft)
        if "augmentation" in self.sample.metadata:
            metadata["augmentation"] = self.sample.metadata["augmentation"]
        kept = ("source", "split", "scene_id", "views", "world_to_aligned", "pose_frame", "system", "cross_size")
        boxes = [self._box(item, "target") for item in draft.targets]
        boxes += [self._box(item, "input") for item in draft.inputs if item not in draft.targets]
        return SceneSample(
            **{name: getattr(self.sample, name) for name in kept},
            task=draft.task,
            question=text + reword_ending(draft.ending, draft.choices, rng, phrasings),
            answer=render_answer(draft.truth),
            truth=draft.truth,
            references=draft.references,
            boxes=tuple(boxes),
            scene_boxes=self.sample.boxes,
            points=tuple(_point(mark) for mark in (*draft.marks, *draft.points)),
            marks=tuple(SceneMark(mark.view, "cross", mark.color, mark.pixel, text=mark.text) for mark in draft.marks),
            target_frame=draft.truth.frame,
            choices=draft.choices,
            choice_index=draft.truth.choice,
            number=None if draft.truth.number is None else rounded_number(draft.truth),
            question_type=draft.question_type,
            metadata=metadata,
        )

    def _kept_views(self, draft):
        """The views without which text or answer would not be true: all where objects are spoken of.

        Views before a named one stay too, so that its number does not change.
        """
        if draft.targets or draft.inputs:
            return list(range(len(self.sample.views)))
        return list(range(max([0, *draft.named_views]) + 1))

    def _box(self, item: SceneObject, role: str) -> Box:
        in_reference = bool(self.objects.is_visible[item.index, 0])
        return Box(item.numbers, "zxy", "camera", 0, item.label, item.instance_id, role, in_reference)


def _metre_of(sample: SceneSample) -> float:
    """What a metre is in the unit of a scene that does not know: by the median depth."""
    depths = [view.depth_m[view.depth_m > 0] for view in sample.views if view.depth_picture is not None]
    known = np.concatenate([*depths, np.zeros(0)])
    return float(np.median(known)) / TYPICAL_DEPTH_M if len(known) else 1.0


def _point(mark: Marked) -> Point:
    instance = mark.item.instance_id if mark.item else None
    return Point(mark.view, mark.pixel, mark.xyz, "camera", mark.label, instance)


def remembered(function: Callable) -> Callable:
    """A function of a scene, objects and views that computes each result once; results must not be changed."""

    @wraps(function)
    def recall(scene, *arguments):
        key = (function.__name__, *arguments)
        if key not in scene.memo:
            scene.memo[key] = function(scene, *arguments)
        return scene.memo[key]

    return recall


def view_name(view: int) -> str:
    """How texts call a view: "the first frame", "Frame-3"."""
    return "the first frame" if view == 0 else f"Frame-{view}"


def draw_some(items: list, count: int, rng: np.random.Generator) -> list:
    """So many of the items, or all, in an order by chance."""
    return [items[int(place)] for place in rng.permutation(len(items))[:count]]


def draw_one(candidates: list, rng: np.random.Generator, reason: str):
    """One of the candidates; CannotAskError with the reason if there is none."""
    if not candidates:
        raise CannotAskError(reason)
    return candidates[int(rng.integers(len(candidates)))]
