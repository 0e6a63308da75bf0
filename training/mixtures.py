"""Several sources in one training, each with its weight and limit: as items with places, and as a stream."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from itertools import count

import numpy as np
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ..processing.argument_checks import check_counts, check_names
from ..processing.input_checks_gap_mllm import WrongKindError
from .schedule import Schedule, draw_weighted, is_scheduled, read_weights, value_at
from .streams import EndlessRows, rows_of_process


class _Rounds(IterableDataset):
    """Items of one source, round after round: in each every row once, in an order of its own; also as a stream."""

    def __init__(self, items: Sequence, limit: int | None, seed: Sequence[int]):
        self.items, self.seed, self._orders = items, seed, {}
        self.has_rows = hasattr(items, "item_of")  # which asks about a row otherwise in each round
        size = len(items.rows) if self.has_rows else len(items)
        self.rows = np.random.default_rng(seed).permutation(size)[:limit]
        self.round_index, self.done, self.start, self.step = 0, 0.0, 0, 1

    def __len__(self):
        return len(self.rows)

    def draw(self, round_index, place, done):
        """Item at a place of a round."""
        if round_index not in self._orders:
            if len(self._orders) > 3:
                self._orders.clear()
            self._orders[round_index] = np.random.default_rng([*self.seed, round_index]).permutation(self.rows)
        row = int(self._orders[round_index][place])
        return self.items.item_of(row, round_index, done) if self.has_rows else self.items[row]

    def rows_of_process(self, rank, world_size):
        share = copy(self)
        share.start, share.step = rank, world_size
        return share

    def set_epoch(self, epoch):
        self.round_index = epoch

    def __iter__(self):
        worker = get_worker_info()
        id_, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for place in range(self.start + self.step * id_, len(self), self.step * num_workers):
            yield self.draw(self.round_index, place, self.done)


class MixedDataset(Dataset):
    """Items of several sources, drawn by weights; item i is always the same.

    Of each source every row comes once before one comes again, in an order that the seed decides; scenes are then
    asked other questions. Where weights follow the run, items must be read in their order: `GeometryAlignedTrainer`
    does so, a plain `Trainer` with `train_sampling_strategy="sequential"`.

    Args:
        sources (`dict[str, Dataset]`): datasets with lengths and places, as `SceneQuestionDataset`, each by a name.
        weights (`dict[str, float | Schedule]`, *optional*): shares of the items, in proportion; 1 for a source that is
            not named. Schedules run over the items, from the first to the last.
        limits (`dict[str, int]`, *optional*): most rows taken of a source, chosen by the seed; all by default.
        length (`int`, *optional*): number of items; by default as many as it takes, on average, until every row has
            been drawn.
        seed (`int`, defaults to 0): seed of draws and orders.
    Raises:
        TypeError: for a source without length and places. ValueError: if there is no source, or one has no rows; for
            a name that is not a source's, a number below 1, or as `read_weights`. As the sources, when indexed.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import MixedDataset, SceneQuestionDataset
        >>> rooms = load_multiview("rendered_rooms", split="train", num_rooms=8)  # or rows of any source
        >>> easy = SceneQuestionDataset(rooms, tasks=("object_count",), num_views=2)
        >>> hard = SceneQuestionDataset(rooms, tasks=("reconstruction",), num_views=2)
        >>> weights = {"easy": {0.0: 1.0, 0.5: 0.0}, "hard": {0.0: 0.0, 0.5: 1.0}}  # a curriculum
        >>> mixed = MixedDataset({"easy": easy, "hard": hard}, weights, length=1000)
        >>> len(mixed), mixed[0].metadata["maker"], mixed.count_items(start=500)
        (1000, 'object_count', {'easy': 0, 'hard': 500})

        ```
    """

    def __init__(
        self,
        sources: Mapping[str, Dataset],
        weights: Mapping[str, float | Schedule] | None = None,
        limits: Mapping[str, int | None] | None = None,
        length: int | None = None,
        seed: int = 0,
    ):
        self.weights, limits = _check(sources, weights, limits, length)
        for name, source in sources.items():
            if isinstance(source, IterableDataset) or not _has_places(source):
                raise WrongKindError(
                    f"the source {name!r} is a {type(source).__name__}, without number and places; put streams into a "
                    "MixedStream."
                )
        self._rounds = {name: _rounds(name, source, limits, seed) for name, source in sources.items()}
        self.length = length or self._whole_length()
        self.is_scheduled = is_scheduled(self.weights) or any(
            getattr(source, "is_scheduled", False) for source in sources.values()
        )
        uniform, done = np.random.default_rng([seed, 1]).random(self.length), np.arange(self.length) / self.length
        self._sources = draw_weighted(self.weights, uniform, done).astype(np.int16)
        self._numbers = np.empty(self.length, dtype=np.int32)  # how often its source was drawn before
        for source in range(len(self.weights)):
            chosen = self._sources == source
            self._numbers[chosen] = np.arange(chosen.sum())

    def _whole_length(self):
        """Items after which every row has been drawn, if each source comes by its mean share."""
        done = (np.arange(1000) + 0.5) / 1000
        values = np.array([np.broadcast_to(value_at(weight, done), done.shape) for weight in self.weights.values()])
        means = (values / values.sum(0)).mean(1)
        return max(
            int(np.ceil(len(rows) / mean)) for rows, mean in zip(self._rounds.values(), means, strict=True) if mean
        )

    def __len__(self):
        return self.length

    def count_items(self, start: int = 0, stop: int | None = None) -> dict[str, int]:
        """Count the items of each source, without making them.

        Args:
            start (`int`, defaults to 0), stop (`int`, *optional*): first item, and the one behind the last.
        Returns:
            `dict[str, int]`.
        """
        counts = np.bincount(self._sources[start:stop], minlength=len(self.weights))
        return dict(zip(self.weights, counts.tolist(), strict=True))

    def __getitem__(self, index):
        if not 0 <= index < self.length:
            raise IndexError(f"item {index} of {self.length}")
        rounds = list(self._rounds.values())[self._sources[index]]
        return rounds.draw(*divmod(int(self._numbers[index]), len(rounds)), index / self.length)


class MixedStream(IterableDataset):
    """Rows or items of several streams, drawn by weights, without an end: a source that ends is begun again.

    Each process has its share of every source, and in a round of a source no row goes to two. The draws of a process
    and of a worker of its loader are its own, and the same in every run.

    Args:
        sources (`dict[str, Iterable]`): streams that can be begun again, as `SceneQuestionStream`, or datasets with
            places, whose rows come in another order each round; each by a name.
        weights (`dict[str, float | Schedule]`, *optional*): shares of the rows, in proportion; 1 for a source that is
            not named.
        limits (`dict[str, int]`, *optional*): most rows that are taken of a dataset with places. Streams are limited
            before: `rows.take(5000)`.
        length (`int`, *optional*): rows that all processes take in the run, over which schedules run; None where
            nothing follows the run.
        seed (`int`, defaults to 0): seed of draws and orders.
    Raises:
        ValueError: as `MixedDataset`; for a limit of a stream; without `length` where a weight is a schedule. When
            iterated: for a source that has no rows for this process and worker.

    Example:
        ```python
        >>> from itertools import islice
        >>> from gap_mllm.training import MixedStream
        >>> mixed = MixedStream({"scans": [{"id": "a"}, {"id": "b"}], "rooms": [{"id": "c"}]}, {"scans": 3.0})
        >>> sorted({row["id"] for row in islice(mixed, 100)})  # a Trainer needs max_steps
        ['a', 'b', 'c']

        ```
    """

    def __init__(
        self,
        sources: Mapping[str, Iterable],
        weights: Mapping[str, float | Schedule] | None = None,
        limits: Mapping[str, int | None] | None = None,
        length: int | None = None,
        seed: int = 0,
    ):
        self.weights, limits = _check(sources, weights, limits, length)
        self.sources, self.length, self.seed = {}, length, seed
        for name, source in sources.items():
            is_stream = isinstance(source, IterableDataset) or not _has_places(source)
            if is_stream and limits.get(name) is not None:
                raise ValueError(f"the source {name!r} is streamed; limit its rows before: rows.take({limits[name]}).")
            self.sources[name] = source if is_stream else _rounds(name, source, limits, seed)
        is_changing = is_scheduled(self.weights) or any(getattr(each, "is_scheduled", 0) for each in sources.values())
        if is_changing and length is None:
            raise ValueError("weights follow the run; give length, the rows that all processes take in it.")
        self.process, self.num_processes = 0, 1

    def rows_of_process(self, rank: int, world_size: int):
        """The mixture of the rows that are this process's share; see `streams.rows_of_process`."""
        stream = copy(self)
        stream.sources = {name: rows_of_process(rows, rank, world_size) for name, rows in self.sources.items()}
        stream.process, stream.num_processes = rank, world_size
        return stream

    def __iter__(self):
        worker = get_worker_info()
        id_, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        rng = np.random.default_rng([self.seed, 2, self.process, id_])
        rounds = {name: iter(EndlessRows(rows, name)) for name, rows in self.sources.items()}
        for number in count():
            done = min(number * num_workers * self.num_processes / (self.length or np.inf), 1.0)
            name = list(rounds)[draw_weighted(self.weights, rng.random(1), done)[0]]
            if hasattr(self.sources[name], "done"):  # what it asks follows the run, too
                self.sources[name].done = done
            yield next(rounds[name])


def _check(sources, weights, limits, length):
    """Weights of all sources, and limits of those that have one."""
    if not isinstance(sources, Mapping) or not sources:
        raise WrongKindError(f"sources is {sources!r}; expected one or more datasets, each by a name.")
    weights, limits = weights or {}, limits or {}
    check_names("weights", weights, sources)
    check_names("limits", limits, sources)
    check_counts(length=length, **{f"the limit of {name!r}": limit for name, limit in limits.items()})
    return read_weights("weights", {name: weights.get(name, 1.0) for name in sources}), limits


def _has_places(source):
    return hasattr(source, "__len__") and hasattr(source, "__getitem__")


def _rounds(name, source, limits, seed):
    if not len(source):
        raise ValueError(f"the source {name!r} has no rows to draw from.")
    return _Rounds(source, limits.get(name), [seed, 3, zlib.crc32(name.encode())])
