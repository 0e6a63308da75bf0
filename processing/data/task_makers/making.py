"""From a scene to questions about it: the makers by name, and `make_tasks`, which runs them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...prompts_gap_mllm import IMAGE_TAG, number_views
from ...visual_prompt_gap_mllm import MARK_COLORS
from ..former_names import FORMER_NAMES, task_name
from ..scene_sample import SceneSample
from .camera import CAMERA_MAKERS
from .margins import TaskMargins
from .measurements import MEASUREMENT_MAKERS
from .objects import OBJECT_MAKERS
from .pixels import PIXEL_MAKERS
from .reasoning import REASONING_MAKERS
from .relations import RELATION_MAKERS
from .task_scene import CannotAskError, Draft, Labeller, TaskScene
from .templates import check_phrasings
from .visibility import VISIBILITY_MAKERS


TASK_MAKERS: dict[str, Callable[[TaskScene, np.random.Generator], Draft]] = {
    **PIXEL_MAKERS,
    **OBJECT_MAKERS,
    **MEASUREMENT_MAKERS,
    **RELATION_MAKERS,
    **CAMERA_MAKERS,
    **VISIBILITY_MAKERS,
    **REASONING_MAKERS,
}
REPEATED = "the same question was drawn before"
_DRAWS = 5  # of one question, before it counts as repeated
_STREAMS = {
    now: before for before, now in FORMER_NAMES.items()
}  # questions are drawn by name, and stay what they were


class MadeTasks(list):
    """The questions that were made, a list of `SceneSample`; `refused` counts those that were not.

    `refused` maps (maker, reason) to a number.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview, make_tasks
        >>> scenes = load_multiview("rendered_rooms", split="train", num_rooms=1)
        >>> made = make_tasks(scenes[0], ("object_count", "object_gap"))
        >>> len(made), dict(made.refused)
        (1, {('object_gap', 'no two objects are far enough apart'): 1})

        ```
    """

    def __init__(self, samples=(), refused=None):
        super().__init__(samples)
        self.refused: Counter = Counter(refused or {})


def make_tasks(
    sample: SceneSample,
    tasks: tuple[str, ...] | dict[str, int] | None = None,
    num_per_task: int = 1,
    seed: int = 0,
    margins: TaskMargins | None = None,
    phrasings: str = "all",
    mark_colors: tuple[str, ...] | None = None,
    share_views: bool = False,
    limit: int | None = None,
    labeller: Labeller | None = None,
) -> MadeTasks:
    """Make questions about a scene; their answers are computed from its depth, poses and boxes.

    What the scene does not allow, or does not decide by a margin, is not asked, and counted with the reason.
    Choose the views first, for instance by `load_multiview(max_views=...)`: what is visible, and so what is true,
    depends on all of them. `metadata["keep_views"]` lists those that a question cannot lose.
    Frame: boxes and points in the camera of view 0, OpenCV axes, angles "zxy". Units: metres, radians; questions that
    ask for centimetres or degrees say so.
    Source: GAP-MLLM (arXiv:2603.16461) for marked pixels, detection, grounding and captions; the others are usual
    kinds of spatial questions (VSI-Bench, SPAR), margins and wording are our choice.

    Args:
        sample (`SceneSample`): views with pose, intrinsics and depth. Objects are asked about if the row lists all of
            the scene's boxes, as rows of the tasks "scene" and "detection3d" do.
        tasks (`tuple[str, ...]` or `dict[str, int]`, *optional*): keys of `TASK_MAKERS`, perhaps with a number of
            questions for each; None is all of them. One that is named twice asks twice as much.
        num_per_task (`int`, defaults to 1): questions of each maker, where `tasks` has no numbers. One that was made
            before is not made again.
        seed (`int`, defaults to 0): same seed and sample id, same questions of a maker, whatever else is asked; the
            first of many are those of few.
        margins (`TaskMargins`, *optional*): how clear a thing must be.
        phrasings (`str`, defaults to "all"): "all" draws among many wordings, one time in three the first; "first"
            words every question in that way, which is the package's own prompt for the tasks of GAP-MLLM;
            "mixed" is "all" with words of some questions left out, or changed for others and for those of other
            questions, to learn from; "held_out" draws among wordings that "all" has not, to measure how a model takes
            them.
        mark_colors (`tuple[str, ...]`, *optional*): colours that crosses may have; None is all that are told apart.
        share_views (`bool`, defaults to False): the questions are to be shown on one set of pictures: no two crosses
            of all of them have one colour or come close, and all carry the views' numbers where one needs them. What
            needs more colours than are left is refused.
        limit (`int`, *optional*): most questions in all; makers after it are not asked.
        labeller (`Callable`, *optional*): picture and pixel (x, y) to the name of what a marked pixel shows, or None;
            asked where the sample does not say.
    Returns:
        `MadeTasks`: rows in the order of the makers, ids "<sample>/<maker>-<number>", with `refused`.
    Raises:
        ValueError: if a maker or colour is unknown, a number is too small, `phrasings` is another word, or the sample
            has neither id nor scene_id.
        RecordError: if a picture or depth map cannot be decoded.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview, make_tasks
        >>> scenes = load_multiview("rendered_rooms", split="train", num_rooms=1)
        >>> made = make_tasks(scenes[0], {"object_count": 1, "object_distance": 1}, seed=1)
        >>> [sample.question_type for sample in made]
        ['object_count', 'object_distance']

        ```
    """
    names = TASK_MAKERS if tasks is None else tasks
    counts = tasks.items() if isinstance(tasks, dict) else [(name, num_per_task) for name in names]
    counts = [(task_name(name), count) for name, count in counts]
    unknown = [name for name, _ in counts if name not in TASK_MAKERS]
    if unknown:
        raise ValueError(f"tasks names {', '.join(map(repr, unknown))}; known are {', '.join(TASK_MAKERS)}.")
    if num_per_task < 1 or seed < 0:
        raise ValueError(f"num_per_task is {num_per_task} and seed {seed}; expected at least 1 and at least 0.")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; expected 1 or more.")
    strange = [color for color in mark_colors or () if color not in MARK_COLORS]
    if strange or mark_colors == ():
        raise ValueError(f"mark_colors is {list(mark_colors)}; expected one or more of {', '.join(MARK_COLORS)}.")
    check_phrasings(phrasings)
    name = sample.id or sample.scene_id
    if not name:
        raise ValueError("the sample has neither id nor scene_id; questions are drawn by it, so give it one.")
    scene, made = TaskScene(sample, margins, mark_colors, labeller), MadeTasks()
    known, numbers = defaultdict(set), Counter()
    for maker in (maker for maker, count in counts for _ in range(count)):
        number = numbers[maker]
        numbers[maker] += 1
        stream = [seed, number, *_digest(name), *_digest(_STREAMS.get(maker, maker))]
        try:
            question, marks = _new_question(scene, maker, stream, phrasings, known[maker])
        except CannotAskError as error:
            made.refused[maker, error.reason] += 1
            continue
        if share_views:
            scene.take(marks)
        metadata = {**question.metadata, "maker": maker, "seed": seed, "number": number}
        made.append(replace(question, id=f"{name}/{maker}-{number}", metadata=metadata))
        if len(made) == limit:
            break
    if share_views and any(IMAGE_TAG in asked.question for asked in made):
        made[:] = [replace(asked, question=number_views(asked.question, len(sample.views))) for asked in made]
    return made


def _new_question(scene, maker, stream, phrasings, known):
    """A question that is not among the known ones, drawn again some times, and its marks; it is then known too."""
    for draw in range(_DRAWS):
        rng = np.random.default_rng([*stream, draw])
        draft = TASK_MAKERS[maker](scene, rng)
        question = scene.pose(draft, rng, phrasings)
        content = _content(question)
        if content not in known:
            known.add(content)
            return question, draft.marks
    raise CannotAskError(REPEATED)


def _digest(text: str) -> list[int]:
    """Four numbers that are the same for a text in every process."""
    digest = hashlib.sha256(text.encode()).digest()
    return [int.from_bytes(digest[start : start + 4], "little") for start in range(0, 16, 4)]


def _content(question: SceneSample):
    """What makes a question another one: its words without the options' order may repeat, marks and answers not."""
    marks = tuple((mark.view, mark.xy) for mark in question.marks)
    asked = question.metadata["maker_facts"]
    return marks, question.question_type, repr(sorted(asked.items())), tuple(box.label for box in question.boxes)
