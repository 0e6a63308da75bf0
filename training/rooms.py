"""Rendered rooms as training data: targets for a geometry encoder, and questions for GAP-MLLM.

The rooms come from a source, `load_multiview("rendered_rooms", ...)`; nothing is rendered here.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch.utils.data import Dataset

from ..geometry_views_gap_mllm import resize_to_grid
from ..processing.data import CannotAskError, RoomVariety, SceneSample, first_askable, make_tasks
from ..processing.data.former_names import task_name
from ..processing.data.task_makers import REPEATED, TASK_MAKERS
from ..processing.data.task_makers.templates import TRAINING_PHRASINGS, check_phrasings
from ..processing.data.truth import render_answer
from ..processing.visual_prompt_gap_mllm import MARK_COLORS, Mark, apply_visual_prompt
from .collation_events import COLLATION_EVENTS
from .point_targets import scene_targets
from .schedule import Schedule, is_scheduled, read_weight, value_at


ROOMS_PER_EPOCH = 1024  # of num_train_epochs, where nothing else is said
REVISIT_GAP = 8  # blocks between two visits of a room
VISION_PATCH_SIZE = 16  # of Qwen3-VL: pictures are made for its grid, the encoder's image is derived as in the model


class RoomGeometryDataset(Dataset):
    """Rooms as pictures with geometry targets, rendered when asked for; item i is always the same.

    `SceneGeometryDataset` does the same for any source, and resizes; here pictures have the size that they need.

    Args:
        rooms (`RenderedRooms`): source of the rooms; its variety draws crosses, too.
        patch_size (`int`, defaults to 14): patch size of the geometry encoder; its images are `patch_size / 16` of the
            rendered size.
    """

    def __init__(self, rooms: Sequence[SceneSample], patch_size: int = 14):
        self.rooms, self.patch_size = rooms, patch_size

    def __len__(self):
        return len(self.rooms)

    def __getitem__(self, index):
        _check_index(index, len(self))
        scene, rng = self.rooms.draw(index)
        images, variety = np.stack([view.picture for view in scene.views]), self.rooms.variety
        if variety is not None and rng.random() < variety.mark_share:
            images = np.stack(_mark(images, rng, variety))
        grid = tuple(side // VISION_PATCH_SIZE for side in images.shape[1:3])
        pictures = torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255
        size = tuple(side * self.patch_size for side in grid)
        targets = scene_targets(scene.views, [size] * len(images))
        return {
            "images": resize_to_grid(pictures, grid, self.patch_size),
            "sample_ids": scene.id,
            **{name: torch.stack(views) for name, views in targets.items()},
        }


def read_variety(settings: Mapping[str, object]) -> RoomVariety:
    """How the rooms of an encoder's training vary; the share of rooms in a style may follow the run.

    Args:
        settings (`dict`): fields of `RoomVariety`; `style_share` may be the mapping of a `Schedule`, as `{0: 0.5, 0.6:
            0.25, kind: step}`.
    Returns:
        `RoomVariety`.
    Raises:
        TypeError, ValueError: as `RoomVariety` and `Schedule`.
    """
    share = settings.get("style_share", 0.0)
    if isinstance(share, Mapping):
        settings = {**settings, "style_share": read_weight("variety.style_share", share, least=0.0)}
    return RoomVariety(**settings)


def _check_index(index, length):
    """What lets a loop over the items end: every index names a room."""
    if not 0 <= index < length:
        raise IndexError(f"item {index} of {length}")


def _mark(images, rng, variety):
    marks = []
    for color in rng.permutation(list(MARK_COLORS))[: rng.integers(1, len(MARK_COLORS) - 1)]:
        view, y, x = (int(rng.integers(side)) for side in images.shape[:3])
        marks.append(Mark(view, (x, y), str(color)))
    size = variety.draw_cross_size(rng)
    return apply_visual_prompt(list(images), marks, cross_size=size)


@dataclass
class RoomQuestions:
    """Which questions each training room carries.

    Args:
        counts (`dict[str, float | Schedule]`): questions of each task (`TASK_MAKERS`) about one room; all crosses
            have different colours. "grounding_frame" labels its views, so it stands in rooms of its own. A
            fraction is the share of blocks whose rooms have one more: 0.5 asks in every other block, by chance. Some
            task is asked always. A `Schedule`, or its mapping, runs over the rooms, from the first to the last.
        grounding_frame_share (`float`, defaults to 0.0): share of rooms that ask "grounding_frame" only,
            `grounding_frame_count` times (less often where the views show fewer objects clearly).
        mark_colors (`list[str]`): colours of the crosses of one room; fewer are told apart sooner.
        decimals (`int`, defaults to 2): digits after the point of all points and boxes in answers.
        phrasings (`str`, defaults to "first"): how questions are worded, as for `make_tasks`: "first" with the
            package's own prompts, "all" with one of many wordings, one time in three the first, "mixed" as that with
            words of some questions left out or changed (`mix_words`), so that wordings that are in no training are
            read.
        visits (`int`, defaults to 1): how often a room comes back, `REVISIT_GAP` blocks later and with other questions
            and crosses. One process that makes all batches in their order keeps the picture meanwhile and renders it
            once.
    Raises:
        ValueError: if a task is unknown, a count is negative, marked pixels are more than their colours, rooms would
            be asked nothing at some time, or `phrasings` is another word: "held_out" is for measuring; as `Schedule`.
    """

    counts: dict = field(default_factory=lambda: {"reconstruction": 6})
    grounding_frame_share: float = 0.0
    grounding_frame_count: int = 4
    mark_colors: list = field(default_factory=lambda: list(MARK_COLORS))
    decimals: int = 2
    phrasings: str = "first"
    visits: int = 1

    def __post_init__(self):
        self.counts = {task_name(name): count for name, count in self.counts.items()}
        unknown = [name for name in self.counts if name not in TASK_MAKERS]
        if unknown:
            raise ValueError(f"counts names {', '.join(map(repr, unknown))}; known are {', '.join(TASK_MAKERS)}.")
        check_phrasings(self.phrasings, TRAINING_PHRASINGS)
        mappings = {task: count for task, count in self.counts.items() if isinstance(count, dict | Schedule)}
        self.counts |= {task: read_weight(f"counts.{task}", count, least=0.0) for task, count in mappings.items()}
        if self.visits < 1:
            raise ValueError(f"visits is {self.visits}; expected 1 or more.")
        share = self.grounding_frame_share
        for done in np.linspace(0, 1, 1001) if mappings else (0,):
            counts = {task: value_at(count, done) for task, count in self.counts.items()}
            wrong = {task: count for task, count in counts.items() if not count >= 0}
            if wrong:
                raise ValueError(f"counts has {wrong}; expected 0 or more questions of each task.")
            if math.ceil(counts.get("reconstruction", 0)) > len(self.mark_colors):
                raise ValueError(
                    f"counts asks for {counts['reconstruction']} marked pixels, but mark_colors has "
                    f"{len(self.mark_colors)}; each needs a colour of its own."
                )
            if share < 1 and not any(count >= 1 for count in counts.values()):
                when = f" when {done:g} of the run is done" if mappings else ""
                raise ValueError(
                    f"counts is {counts}{when}; expected 1 or more of some task: every room asks something."
                )
        if share > 0 and self.grounding_frame_count < 1:
            raise ValueError(f"grounding_frame_count is {self.grounding_frame_count}; expected 1 or more.")


class RoomQuestionDataset(Dataset):
    """Rooms with questions; item i is always the same: a list of `SceneSample`s with the same views.

    Where the views drawn of a room do not show what a question needs (a single view of a bare corner, say), another
    room of the split is drawn for this item, of the same size and number of views and with the same tasks. Seed and
    index alone decide which. `redrawn`, a `Counter` by reason, says how often that came to pass in this process;
    so does `metadata["rooms_redrawn"]` of an item's first sample, so that the trainer logs what the loader's
    processes met.

    Args:
        rooms (`RenderedRooms`): source of the rooms, as many as there are items; with several visits the first of
            them, several times.
        questions (`RoomQuestions`, *optional*): what each is asked.
    Raises:
        CannotAskError: from an item, if no room in `redraw.MAX_DRAWS` shows what its questions need.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
        >>> rooms = load_multiview("rendered_rooms", split="train", num_rooms=8)
        >>> item = RoomQuestionDataset(rooms, RoomQuestions(counts={"reconstruction": 2, "detection3d": 1}))[0]
        >>> [sample.question_type for sample in item]
        ['reconstruction', 'reconstruction', 'detection3d']

        ```
    """

    def __init__(self, rooms: Sequence[SceneSample], questions: RoomQuestions | None = None):
        self.rooms, self.questions = rooms, questions or RoomQuestions()
        self.is_scheduled = is_scheduled(self.questions.counts)
        self._kept = {}  # rooms that will be visited again, by number
        self.redrawn = Counter()

    def __len__(self):
        return len(self.rooms)

    def __getitem__(self, index):
        _check_index(index, len(self))
        before = self.redrawn.total()
        samples = first_askable(partial(self.ask, index), self._count)
        first = {**samples[0].metadata, "rooms_redrawn": self.redrawn.total() - before}
        return [replace(samples[0], metadata=first), *samples[1:]]

    def _count(self, error):
        self.redrawn[error.reason] += 1

    def ask(self, index: int, attempt: int = 0) -> list[SceneSample]:
        """Ask the questions of one item.

        Args:
            index (`int`): number of the item.
            attempt (`int`, defaults to 0): 1, 2, .. ask about rooms that stand in for it.
        Returns:
            `list[SceneSample]`: the questions; they share the views, and the crosses of all have one size.
        Raises:
            CannotAskError: if the views of this room do not show what is asked for.
        """
        room, visit = self._room(index)
        scene, rng = self._visited(room, visit, attempt)
        if rng.random() < self.questions.grounding_frame_share:
            counts = {"grounding_frame": self.questions.grounding_frame_count}
        else:
            counts = self._whole_counts(index)
        colors = tuple(str(color) for color in self.questions.mark_colors)
        if self.rooms.variety is not None:
            scene = replace(scene, cross_size=self.rooms.variety.draw_cross_size(rng))
        seed = self.rooms.seed * self.questions.visits + visit
        phrasings = self.questions.phrasings
        made = make_tasks(scene, counts, seed=seed, phrasings=phrasings, mark_colors=colors, share_views=True)
        for maker, reason in made.refused:
            if reason != REPEATED:  # few objects may give fewer questions than counted
                shown = f"{scene.id} in its {len(scene.views)} views"
                raise CannotAskError(f"{shown} cannot be asked a question of {maker!r}: {reason}.", reason)
        return [_with_decimals(sample, self.questions.decimals) for sample in made]

    def _room(self, index):
        """The room of an item, and how often it was visited before."""
        visits, block_size = self.questions.visits, self.rooms.block_size
        batch, place = divmod(index, block_size)
        block, visit = divmod(batch, visits)
        num_blocks = math.ceil(len(self.rooms) / (visits * block_size))
        return (block - visit * REVISIT_GAP) % num_blocks * block_size + place, visit

    def _visited(self, room, visit, attempt=0):
        """A room as it was drawn, and a generator for what is asked now."""
        if attempt:  # rare, so not worth keeping
            scene, rng = self.rooms.draw(room, attempt)
        elif visit and room in self._kept:
            scene = self._kept[room] if visit + 1 < self.questions.visits else self._kept.pop(room)
        else:
            scene, rng = self.rooms.draw(room)
            if visit + 1 < self.questions.visits:
                self._kept[room] = scene
                if len(self._kept) > (REVISIT_GAP + 1) * self.questions.visits * self.rooms.block_size:
                    self._kept.pop(next(iter(self._kept)))  # the oldest; its visitor came by another process
        numbers = [self.rooms.seed, 2, room, visit, *([attempt] if attempt else [])]
        return scene, np.random.default_rng(numbers) if visit else rng

    def _whole_counts(self, index):
        """Questions of each task for the rooms of this item's block."""
        block = index // self.rooms.block_size
        rng, done = np.random.default_rng([self.rooms.seed, 3, block]), block * self.rooms.block_size / len(self)
        counts = {task: value_at(count, done) for task, count in self.questions.counts.items()}
        return {task: int(count) + int(rng.random() < count % 1) for task, count in counts.items()}


def _with_decimals(sample, decimals):
    """The sample with so many digits in the points and boxes of its answer."""
    if not sample.truth.items:
        return sample
    truth = replace(sample.truth, decimals=decimals)
    return replace(sample, truth=truth, answer=render_answer(truth))


def collate_scenes(samples: list[dict]) -> dict:
    """Stack scenes of equal size and number of views; keep lists of views where they differ."""
    batch = {"sample_ids": [sample["sample_ids"] for sample in samples]}
    shapes = {(len(sample["images"]), *view.shape) for sample in samples for view in sample["images"]}
    batch["scene_lengths"] = [len(sample["images"]) for sample in samples]
    for name in ("images", "depth", "points", "valid", "pose_enc"):
        views = [list(sample[name]) for sample in samples]
        is_even = len(shapes) == 1
        batch[name] = torch.stack([torch.stack(scene) for scene in views]) if is_even else sum(views, [])
    lacking = {"views_without_depth": sum(sample.get("views_without_depth", 0) for sample in samples)}
    batch["collation_counts"] = torch.tensor([lacking.get(event, 0) for event in COLLATION_EVENTS])
    return batch
