"""Training questions drawn from scenes: views chosen, then changed, then asked about; new ones every time.

Rows of the task "scene" (views, poses, depth and boxes without a question) become questions of the task makers; rows
that have a question keep it, and are changed as far as it stays true. The result is for `SceneCollator`; pictures of
views that are not chosen are never decoded.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import islice

import datasets
import numpy as np
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ..processing.argument_checks import check_counts
from ..processing.data import CannotAskError, first_askable
from ..processing.data.augmentation import SceneAugmentation
from ..processing.data.former_names import task_name
from ..processing.data.record_errors import RecordError, names_record
from ..processing.data.scene_sample import SceneSample
from ..processing.data.task_makers import TASK_MAKERS, TaskMargins, make_tasks
from ..processing.input_checks_gap_mllm import WrongKindError
from .schedule import Schedule, draw_weighted, is_scheduled, read_weights
from .streams import rows_of_process, set_round


NUM_TRIES = 24  # choices of views and makers, before a scene counts as one that nothing can be asked about
MAKERS_A_QUESTION = 10  # drawn for each of several questions about the same views; what cannot be asked goes


def read_tasks(
    tasks: Sequence[str] | Mapping[str, float | Schedule] | None,
) -> tuple[tuple[str, ...], dict[str, float | Schedule] | None]:
    """Read which tasks are asked, and how often.

    Args:
        tasks (`tuple[str, ...]`, or `dict[str, float | Schedule]`, *optional*): names of `TASK_MAKERS`, or the weight
            of each; None is all.
    Returns:
        `tuple`: names, and weights or None where all come equally often.
    Raises:
        ValueError: if there are none, one is unknown, or as `read_weights`.
    """
    names = tuple(TASK_MAKERS) if tasks is None else tuple(map(task_name, tasks))
    if not names or not set(names) <= set(TASK_MAKERS):
        raise ValueError(f"tasks is {list(names)}; expected one or more of {', '.join(TASK_MAKERS)}.")
    if not isinstance(tasks, Mapping):
        return names, None
    return names, read_weights("tasks", dict(zip(names, tasks.values(), strict=True)))


class _SceneQuestions:
    """What both forms share: which questions are asked about a row."""

    def __init__(
        self,
        tasks,
        num_views: int | None,
        max_stride: int | None,
        margins,
        augmentation,
        seed,
        questions_per_scene,
        rounds: int | None,
    ):
        self.tasks, self.task_weights = read_tasks(tasks)
        self.is_scheduled = is_scheduled(self.task_weights or {})
        check_counts(
            num_views=num_views, max_stride=max_stride, questions_per_scene=questions_per_scene, rounds=rounds
        )
        self.margins, self.seed = margins, seed
        self.num_views, self.max_stride, self.augmentation = num_views, max_stride, augmentation
        self.questions_per_scene, self.rounds = questions_per_scene, rounds

    @names_record()
    def _sample(self, sample, number, key, round_index, done):
        """The item of a row: `number` tells its questions apart in their ids, `key` seeds the choices."""
        if sample.task == "scene":
            samples = self._ask(sample, number, np.random.default_rng([self.seed, *key]), round_index, done)
        else:
            samples = [self._augment(sample, round_index)]
        return samples[0] if self.questions_per_scene == 1 else samples

    def _augment(self, sample, round_index):
        return sample if self.augmentation is None else self.augmentation(sample, epoch=round_index)

    def _draw_tasks(self, rng, size, done):
        if self.task_weights is None:
            return rng.integers(len(self.tasks), size=size)
        return draw_weighted(self.task_weights, rng.random(size), done)

    def _ask(self, scene, number, rng, round_index, done):
        """Questions about some views of a scene; these are changed first, so that whatever is asked is true."""
        reasons, count = Counter(), self.questions_per_scene
        for attempt in range(NUM_TRIES):
            chosen = choose_views(scene.views, self.num_views, self.max_stride, rng)
            makers = self._draw_tasks(rng, 1 if count == 1 else MAKERS_A_QUESTION * count, done)
            asked = self._augment(replace(scene, id=f"{scene.id}/{number}-{attempt}", views=chosen), round_index)
            options = {"seed": self.seed, "margins": self.margins, "limit": count, "share_views": count > 1}
            made = make_tasks(asked, [self.tasks[maker] for maker in makers], **options)
            if made:
                return list(made)
            reasons.update(made.refused)
        told = "; ".join(f"{maker}: {reason} ({count} times)" for (maker, reason), count in reasons.most_common(4))
        raise RecordError(
            f"no question could be asked about this scene in {NUM_TRIES} tries: {told}. Leave it out, or ask other "
            "tasks.",
            source=scene.source,
            record_id=scene.id,
        )


class OpenedRows(Dataset):
    """Rows of a source as samples whose pictures are decoded when they are needed: those of thinned views never.

    Args:
        rows (sequence of `dict`): rows of the schema, as `load_multiview` gives them without streaming.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import OpenedRows
        >>> options = {"num_train": 1, "num_selection": 0, "num_test": 0, "cache_dir": "cache"}
        >>> rows = OpenedRows(load_multiview("synthetic_rooms", split="train", **options))  # for any Trainer
        >>> rows[0].task, len(rows[0].views)
        ('reconstruction', 4)

        ```
    """

    def __init__(self, rows: datasets.Dataset | Sequence):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return SceneSample.open(self.rows, index)


class SceneQuestionDataset(_SceneQuestions, Dataset):
    """Rows of a source as samples with questions; item i is always the same.

    Item i is about row i modulo the number of rows; later rounds ask other questions about other views. With several
    questions for each scene an item is a list of samples, for one encoding of their views by `SceneCollator`: marks
    of all have different colours and stand in the same pictures. There are fewer where the views do not allow as many.
    A row that brings a question gives a list of that one.

    Args:
        rows (sequence of `dict` or `SceneSample`): rows of the schema, as `load_multiview` gives them; streamed ones
            are for `SceneQuestionStream`. Where the source has others to stand in (`RenderedRooms.stand_in`), one of
            them is asked about in the place of a scene that nothing can be asked about.
        length (`int`, *optional*): number of items, by default one for each row.
        tasks (`tuple[str, ...]`, or `dict[str, float | Schedule]`, *optional*): keys of `TASK_MAKERS`, all equally
            often, or the weight of each; None is all of them. Schedules run over the items, from the first to the
            last, so read them in their order: `GeometryAlignedTrainer` does, a plain `Trainer` with
            `train_sampling_strategy="sequential"`.
        num_views (`int`, *optional*): views of a question about a scene; None shows all that the row has.
        max_stride (`int`, defaults to 3): the views chosen are neighbours in the row or up to this many apart, all
            alike.
        margins (`TaskMargins`, *optional*): how clear the answer of a made question must be.
        augmentation (`SceneAugmentation`, *optional*): applied to every sample; to scenes before they are asked about.
        seed (`int`, defaults to 0): seed of views, tasks and questions.
        questions_per_scene (`int`, defaults to 1): questions about the same views of a scene.
        rounds (`int`, *optional*): rounds with views, questions and augmentation of their own, after which the first
            comes back pixel for pixel (for `FrozenGeometry` with a cache); by default none comes back.
    Raises:
        TypeError: if rows have no length and places, as streamed ones. ValueError: if there are no rows, a task is
            unknown, or a number is below 1. When indexed: RecordError, with the reasons, for a scene that no question
            could be asked about.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import SceneQuestionDataset
        >>> scenes = load_multiview("rendered_rooms", split="train", num_rooms=2)  # or rows of any source
        >>> tasks = ("object_count", "object_distance")
        >>> questions = SceneQuestionDataset(scenes, 100_000, tasks, num_views=3, questions_per_scene=2)
        >>> len(questions), len(questions[0])  # an item is the questions about one scene
        (100000, 2)

        ```
    """

    def __init__(
        self,
        rows: datasets.Dataset | Sequence[dict],
        length: int | None = None,
        tasks: Sequence[str] | Mapping[str, float | Schedule] | None = None,
        num_views: int | None = None,
        max_stride: int = 3,
        margins: TaskMargins | None = None,
        augmentation: SceneAugmentation | None = None,
        seed: int = 0,
        questions_per_scene: int = 1,
        rounds: int | None = None,
    ):
        super().__init__(tasks, num_views, max_stride, margins, augmentation, seed, questions_per_scene, rounds)
        check_counts(length=length)
        if isinstance(rows, IterableDataset) or not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
            raise WrongKindError(
                f"rows is a {type(rows).__name__}, whose rows have no number and no places; give streamed rows to "
                "SceneQuestionStream, or load them without streaming."
            )
        if not len(rows):
            raise ValueError("there are no rows to draw questions from.")
        self.rows, self.length = rows, length or len(rows)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if not 0 <= index < self.length:
            raise IndexError(f"item {index} of {self.length}")
        round_index, row = divmod(index, len(self.rows))
        return self.item_of(row, round_index, index / self.length)

    def item_of(self, row: int, round_index: int = 0, done: float = 0.0) -> SceneSample | list[SceneSample]:
        """What is asked about a row in a round.

        Args:
            row (`int`): number of the row.
            round_index (`int`, defaults to 0): rounds before, each of which asks otherwise.
            done (`float`, defaults to 0.0): share of the run that is done, for tasks whose weights follow it.
        Returns:
            `SceneSample` or `list[SceneSample]`.
        """
        round_index %= self.rounds or round_index + 1
        index = round_index * len(self.rows) + row
        if not hasattr(self.rows, "stand_in"):
            return self._sample(SceneSample.open(self.rows, row), index, [index], round_index, done)

        def ask(attempt):
            try:
                return self._sample(self.rows.stand_in(row, attempt), index, [index], round_index, done)
            except RecordError as error:
                raise CannotAskError(str(error), "no question could be asked about a scene") from None

        return first_askable(ask)


class SceneQuestionStream(_SceneQuestions, IterableDataset):
    """Streamed rows as samples with questions, in the order of the rows; each round asks others.

    The question about a row depends on its id and on the round alone (`set_epoch`, which trainers call), not on the
    process or worker that asks it.

    Args:
        rows (iterable of `dict`): rows, as `load_multiview(..., streaming=True)` gives them; can be begun
            again. Shuffle them first where their order matters: `rows.shuffle(seed)`.
        tasks, num_views, max_stride, margins, augmentation, seed, questions_per_scene, rounds: arguments of
            `SceneQuestionDataset`.
    Raises:
        TypeError: if rows cannot be iterated. ValueError, RecordError: as `SceneQuestionDataset`. ValueError: when
            iterated, for tasks whose weights follow the run outside of a `MixedStream`, which knows how much is done.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import SceneQuestionStream
        >>> rows = list(load_multiview("rendered_rooms", split="train", num_rooms=2))  # or rows with streaming=True
        >>> questions = SceneQuestionStream(rows, ("object_count",), num_views=3)  # a Trainer needs max_steps
        >>> [sample.metadata["maker"] for sample in questions]
        ['object_count', 'object_count']

        ```
    """

    def __init__(
        self,
        rows: Iterable[dict],
        tasks: Sequence[str] | Mapping[str, float | Schedule] | None = None,
        num_views: int | None = None,
        max_stride: int = 3,
        margins: TaskMargins | None = None,
        augmentation: SceneAugmentation | None = None,
        seed: int = 0,
        questions_per_scene: int = 1,
        rounds: int | None = None,
    ):
        super().__init__(tasks, num_views, max_stride, margins, augmentation, seed, questions_per_scene, rounds)
        if not hasattr(rows, "__iter__") or isinstance(rows, str | bytes | dict):
            raise WrongKindError(f"rows is a {type(rows).__name__}; expected an iterable of rows of the schema.")
        self.rows, self.round_index = rows.decode(False) if isinstance(rows, datasets.IterableDataset) else rows, 0
        self.done = None  # share of the run, which a `MixedStream` tells

    def set_epoch(self, epoch: int):
        """Ask the questions of this round, and let the rows shuffle for it."""
        self.round_index = epoch % (self.rounds or epoch + 1)
        set_round(self.rows, epoch)

    def rows_of_process(self, rank: int, world_size: int):
        """The questions about the rows that are this process's share; see `streams.rows_of_process`."""
        stream = copy(self)
        stream.rows = rows_of_process(self.rows, rank, world_size)
        return stream

    def __iter__(self):
        if self.is_scheduled and self.done is None:
            raise ValueError("tasks has weights that follow the run: put the stream into a MixedStream with a length.")
        worker, rows = get_worker_info(), iter(self.rows)
        if worker is not None and not isinstance(self.rows, IterableDataset):  # those share among workers themselves
            rows = islice(rows, worker.id, None, worker.num_workers)
        for row in rows:
            sample = row if isinstance(row, SceneSample) else SceneSample.from_row(row)
            key = [self.round_index, zlib.crc32(str(sample.id).encode())]
            yield self._sample(sample, self.round_index, key, self.round_index, self.done)


def choose_views(views: Sequence, num_views: int | None, max_stride: int | None, rng: np.random.Generator):
    """Views at an even distance; boxes of scenes are in a world frame, so that any may come first.

    Args:
        views (`tuple`): views of a scene.
        num_views (`int`, *optional*): how many; None, or more than there are, is all.
        max_stride (`int`): neighbours, or up to this many apart.
        rng (`numpy.random.Generator`)
    Returns:
        `tuple`.
    """
    count = len(views)
    if num_views is None or count <= num_views:
        return views
    stride = int(rng.integers(1, min(max_stride, (count - 1) // max(num_views - 1, 1)) + 1))
    start = int(rng.integers(count - stride * (num_views - 1)))
    return tuple(views[start + stride * step] for step in range(num_views))
