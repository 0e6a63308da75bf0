"""Synthetic rooms as training data: varied scenes, targets for a geometry encoder, and questions for GAP-MLLM."""

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch.utils.data import Dataset

from ..geometry_views_gap_mllm import resize_to_grid
from ..processing.data.augmentation import jitter_colors
from ..processing.data.rooms.layout import SPLIT_SEEDS, room_seed
from ..processing.data.rooms.redraw import first_askable
from ..processing.data.rooms.renderer import render_room
from ..processing.data.rooms.synthetic_rooms import room_question, room_sample, room_views
from ..processing.data.rooms.tasks import make_question
from ..processing.prompts_gap_mllm import number_views
from ..processing.visual_prompt_gap_mllm import MARK_COLORS, CrossSize, Mark, apply_visual_prompt
from .collation_events import COLLATION_EVENTS
from .point_targets import scene_targets


ROOMS_PER_EPOCH = 1024  # of num_train_epochs, where nothing else is said
REVISIT_GAP = 8  # blocks between two visits of a room
VISION_PATCH_SIZE = 16  # of Qwen3-VL: pictures are made for its grid, the encoder's image is derived as in the model


@dataclass
class RoomVariety:
    """How training rooms differ from the renderer's defaults. Rooms of one block share size and number of views.

    Args:
        sizes (`tuple`): heights and widths in pixels, multiples of 32; `size_shares` says how often each is drawn.
        num_views (`tuple`): numbers of views; `num_views_shares` says how often each is drawn.
        color_strength (`float`): up to this strength `jitter_colors` is applied.
        mark_share (`float`): share of rooms with crosses in the views, where the task itself draws none.
        mark_arms (`tuple[int, int]`): shortest and longest arm of a cross in pixels.
        mark_half_thickness (`int`, *optional*): of a cross; by default drawn from 0 to a quarter of the arm.
        shuffle_views (`bool`): whether any view may become the first.
    """

    sizes: tuple = ((128, 128), (96, 128), (128, 160))
    size_shares: tuple = (0.6, 0.2, 0.2)
    num_views: tuple = (4, 3, 2, 1)
    num_views_shares: tuple = (0.75, 0.1, 0.1, 0.05)
    color_strength: float = 1.0
    mark_share: float = 0.5
    mark_arms: tuple = (2, 7)
    mark_half_thickness: int | None = None
    shuffle_views: bool = True


def draw_shape(index, variety, block_size, seed):
    """Height, width and number of views of room `index`, and of all of its block."""
    rng = np.random.default_rng([seed, 0, index // block_size])
    height, width = variety.sizes[rng.choice(len(variety.sizes), p=variety.size_shares)]
    return height, width, int(rng.choice(variety.num_views, p=variety.num_views_shares))


def draw_room(split, index, variety=None, block_size=4, seed=0, attempt=0, use_colors=True):
    """Render room `index` of a split, varied by the block and the index alone: always the same for the same arguments.

    Args:
        split (`str`), index (`int`): see `room_seed`.
        variety (`RoomVariety`, *optional*): None gives the renderer's defaults.
        block_size (`int`): rooms that share size and number of views, so that batches of it waste nothing.
        seed (`int`): of the variety.
        attempt (`int`): 1, 2, .. render rooms that stand in for it, of the same size and number of views.
        use_colors (`bool`): see `render_room`.
    Returns:
        `tuple[RoomScene, numpy.random.Generator]`: the room, and a generator for what follows.
    """
    rng = _generator(seed, 1, index, attempt=attempt)
    number = room_seed(split, index, attempt)
    if variety is None:
        return render_room(number, use_colors=use_colors), rng
    height, width, num_views = draw_shape(index, variety, block_size, seed)
    scene = render_room(number, height=height, width=width, use_colors=use_colors)
    views = rng.permutation(len(scene.images)) if variety.shuffle_views else np.arange(len(scene.images))
    scene = scene.reorder_views([int(view) for view in views[:num_views]])
    images = jitter_colors(scene.images, rng, strength=variety.color_strength * rng.random())
    return replace(scene, images=images), rng


def _generator(*numbers, attempt):
    """A generator of its own for whatever stands in for a room."""
    return np.random.default_rng([*numbers, attempt] if attempt else list(numbers))


def draw_mark_style(rng, variety):
    """Arm and half thickness of the crosses of one room, in pixels."""
    arm = int(rng.integers(variety.mark_arms[0], variety.mark_arms[1] + 1))
    half_thickness = variety.mark_half_thickness
    return {
        "arm": arm,
        "half_thickness": int(rng.integers(0, 1 + arm // 4)) if half_thickness is None else half_thickness,
    }


class _RoomDataset(Dataset):
    """Rooms of a split, rendered when asked for; item i is always the same."""

    def __init__(self, split, num_scenes, variety, block_size, seed, use_colors):
        room_seed(split, num_scenes - 1)  # names a range that is too long
        self.split, self.num_scenes = split, num_scenes
        self.variety, self.block_size, self.seed, self.use_colors = variety, block_size, seed, use_colors

    def __len__(self):
        return self.num_scenes

    def _draw(self, index, attempt=0):
        return draw_room(self.split, index, self.variety, self.block_size, self.seed, attempt, self.use_colors)


class RoomGeometryDataset(_RoomDataset):
    """Rooms of a split as pictures with geometry targets, rendered when asked for; item i is always the same.

    Args:
        split (`str`): "train", "selection" or "test".
        num_scenes (`int`): length.
        patch_size (`int`): of the geometry encoder; its images are `patch_size / 16` of the rendered size.
        variety (`RoomVariety`, *optional*), block_size (`int`), seed (`int`), use_colors (`bool`): see `draw_room`.
    """

    def __init__(self, split, num_scenes, patch_size=14, variety=None, block_size=4, seed=0, use_colors=True):
        super().__init__(split, num_scenes, variety, block_size, seed, use_colors)
        self.patch_size = patch_size

    def __getitem__(self, index):
        scene, rng = self._draw(index)
        images = scene.images
        if self.variety is not None and rng.random() < self.variety.mark_share:
            images = np.stack(self._mark(images, rng))
        grid = tuple(side // VISION_PATCH_SIZE for side in images.shape[1:3])
        pictures = torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255
        size = tuple(side * self.patch_size for side in grid)
        targets = scene_targets(room_views(scene), [size] * len(images))
        return {
            "images": resize_to_grid(pictures, grid, self.patch_size),
            "sample_ids": f"room-{self.split}-{index}",
            **{name: torch.stack(views) for name, views in targets.items()},
        }

    def _mark(self, images, rng):
        marks = []
        for color in rng.permutation(list(MARK_COLORS))[: rng.integers(1, len(MARK_COLORS) - 1)]:
            view, y, x = (int(rng.integers(side)) for side in images.shape[:3])
            marks.append(Mark(view, (x, y), str(color)))
        return apply_visual_prompt(list(images), marks, **draw_mark_style(rng, self.variety))


@dataclass
class RoomQuestions:
    """Which questions each training room carries.

    Args:
        counts (`dict[str, float]`): questions of each task about one room; the marked pixels have crosses of different
            colours. "grounding_frame" labels its views, so it stands in rooms of its own. A fraction is the share of
            blocks whose rooms have one more: 0.5 asks in every other block, by chance. Some task is asked always.
        grounding_frame_share (`float`): share of rooms that ask "grounding_frame" only, `grounding_frame_count` times.
        mark_colors (`list[str]`): colours of the crosses of one room; fewer are told apart sooner.
        decimals (`int`): of all numbers in answers.
        visits (`int`): how often a room comes back, `REVISIT_GAP` blocks later and with other questions and crosses.
            One process that makes all batches in their order keeps the picture meanwhile and renders it once.
    Raises:
        ValueError: if a count is negative, or rooms would be asked nothing.
    """

    counts: dict = field(default_factory=lambda: {"reconstruction": 6})
    grounding_frame_share: float = 0.0
    grounding_frame_count: int = 4
    mark_colors: list = field(default_factory=lambda: list(MARK_COLORS))
    decimals: int = 2
    visits: int = 1

    def __post_init__(self):
        wrong = {task: count for task, count in self.counts.items() if not count >= 0}
        if wrong:
            raise ValueError(f"counts has {wrong}; expected 0 or more questions of each task.")
        if self.visits < 1:
            raise ValueError(f"visits is {self.visits}; expected 1 or more.")
        share = self.grounding_frame_share
        if share < 1 and not any(count >= 1 for count in self.counts.values()):
            raise ValueError(f"counts is {self.counts}; expected 1 or more of some task: every room asks something.")
        if share > 0 and self.grounding_frame_count < 1:
            raise ValueError(f"grounding_frame_count is {self.grounding_frame_count}; expected 1 or more.")


class RoomQuestionDataset(_RoomDataset):
    """Rooms of a split with questions; item i is always the same: a list of `SceneSample`s with the same views.

    Where the views drawn of a room do not show what a question needs (a single view of a bare corner, say), another
    room of the split is drawn for this item, of the same size and number of views and with the same tasks. Seed and
    index alone decide which. `redrawn`, a `Counter` by reason, says how often that came to pass in this process;
    so does `metadata["rooms_redrawn"]` of an item's first sample, so that the trainer logs what the loader's
    processes met.

    Args:
        split (`str`), num_scenes (`int`), variety (`RoomVariety`, *optional*), block_size (`int`), seed (`int`),
            use_colors (`bool`): as for `RoomGeometryDataset`.
        questions (`RoomQuestions`, *optional*)
    Raises:
        CannotAskError: from an item, if no room in `redraw.MAX_DRAWS` shows what its questions need.
    """

    def __init__(self, split, num_scenes, questions=None, variety=None, block_size=4, seed=0, use_colors=True):
        super().__init__(split, num_scenes, variety, block_size, seed, use_colors)
        self.questions = questions or RoomQuestions()
        self._kept = {}  # rooms that will be visited again, by number
        self.redrawn = Counter()

    def __getitem__(self, index):
        before = self.redrawn.total()
        asked = first_askable(partial(self.ask, index), self._count)
        return self._samples(*asked, self.redrawn.total() - before)

    def _count(self, error):
        self.redrawn[error.reason] += 1

    def ask(self, index, attempt=0):
        """Ask the questions of one item.

        Args:
            index (`int`): of the item.
            attempt (`int`, defaults to 0): 1, 2, .. ask about rooms that stand in for it.
        Returns:
            `tuple`: the `RoomScene`, a generator for what follows, and a list of colours of crosses and
            `RoomQuestion`s.
        Raises:
            CannotAskError: if the views of this room do not show what is asked for.
        """
        room, visit = self._room(index)
        scene, rng = self._visited(room, visit, attempt)
        if rng.random() < self.questions.grounding_frame_share:
            counts = {"grounding_frame": self.questions.grounding_frame_count}
        else:
            counts = self._whole_counts(index)
        colors = [str(color) for color in rng.permutation(self.questions.mark_colors)]
        asked = []
        for task, count in counts.items():
            first = visit * math.ceil(self.questions.counts.get(task, count))  # other questions than before
            for number in range(count):
                color = colors[number % len(colors)]
                asked.append((color, make_question(scene, task, task_seed=first + number, color=color)))
        return scene, rng, asked

    def _samples(self, scene, rng, asked, num_redrawn):
        """Questions about a room as samples that share its views, and are to have crosses of one size in them."""
        room = f"room-{self.split}-{scene.seed - SPLIT_SEEDS[self.split].start}"
        size = None if self.variety is None else CrossSize(**draw_mark_style(rng, self.variety))
        shown, samples = room_sample(scene, split=self.split), []
        for place, (_, question) in enumerate(asked):
            question = replace(question, truth=replace(question.truth, decimals=self.questions.decimals))
            changes = {"id": f"{room}/{question.task}-{place}", "cross_size": size}
            samples.append(room_question(shown, scene, question, **changes))
            if question.task == "grounding_frame":
                samples[-1] = replace(samples[-1], question=number_views(question.question, len(shown.views)))
        samples[0] = replace(samples[0], metadata={**samples[0].metadata, "rooms_redrawn": num_redrawn})
        return samples

    def _room(self, index):
        """The room of an item, and how often it was visited before."""
        visits = self.questions.visits
        batch, place = divmod(index, self.block_size)
        block, visit = divmod(batch, visits)
        num_blocks = math.ceil(self.num_scenes / (visits * self.block_size))
        return (block - visit * REVISIT_GAP) % num_blocks * self.block_size + place, visit

    def _visited(self, room, visit, attempt=0):
        """A room as it was drawn, and a generator for what is asked now."""
        if attempt:  # rare, so not worth keeping
            scene, rng = self._draw(room, attempt)
        elif visit and room in self._kept:
            scene = self._kept[room] if visit + 1 < self.questions.visits else self._kept.pop(room)
        else:
            scene, rng = self._draw(room)
            if visit + 1 < self.questions.visits:
                self._kept[room] = scene
                if len(self._kept) > (REVISIT_GAP + 1) * self.questions.visits * self.block_size:
                    self._kept.pop(next(iter(self._kept)))  # the oldest; its visitor came by another process
        return scene, _generator(self.seed, 2, room, visit, attempt=attempt) if visit else rng

    def _whole_counts(self, index):
        """Questions of each task for the rooms of this item's block."""
        rng = np.random.default_rng([self.seed, 3, index // self.block_size])
        return {task: int(count) + int(rng.random() < count % 1) for task, count in self.questions.counts.items()}


def collate_scenes(samples):
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


__all__ = [
    "RoomGeometryDataset",
    "RoomQuestionDataset",
    "RoomQuestions",
    "RoomVariety",
    "collate_scenes",
    "draw_room",
]
