"""Streamed rows as training data: a share for each process, round after round, without an end."""

from collections.abc import Iterable
from itertools import count, islice

from torch.utils.data import IterableDataset, get_worker_info


def rows_of_process(rows: Iterable, rank: int, world_size: int):
    """Return the rows of a stream that one of several processes trains on; no row goes to two.

    Args:
        rows (iterable): `datasets.IterableDataset`, which then decodes the pictures of its own rows only, an object
            with a method `rows_of_process` of the same arguments, or any other.
        rank (`int`), world_size (`int`): number of this process, and of all.
    Returns:
        iterable of the same kind of rows.
    """
    if world_size == 1:
        return rows
    if hasattr(rows, "rows_of_process"):
        return rows.rows_of_process(rank, world_size)
    from datasets import IterableDataset as StreamedRows
    from datasets.distributed import split_dataset_by_node

    if isinstance(rows, StreamedRows):
        return split_dataset_by_node(rows, rank, world_size)
    return _EveryNth(rows, rank, world_size)


class _EveryNth(IterableDataset):
    """Rows `start`, `start + step`, ... of a stream that cannot be split otherwise."""

    def __init__(self, rows: Iterable, start: int, step: int):
        self.rows, self.start, self.step = rows, start, step

    def set_epoch(self, epoch: int):
        set_round(self.rows, epoch)

    def __iter__(self):
        return islice(iter(self.rows), self.start, None, self.step)


def set_round(rows: Iterable, number: int):
    """Tell a stream which round begins, if it wants to know: it may then shuffle or ask otherwise."""
    if hasattr(rows, "set_epoch"):
        rows.set_epoch(number)


class EndlessRows(IterableDataset):
    """A stream over and over: every process has a next batch until `max_steps`, however many rows it has.

    Without it one process would begin its next round, with a batch of other size or number, while another still
    waits for it to share the last step of this one.

    Args:
        rows (iterable): rows that can be begun again; `set_epoch(round)` is called before each round where there is
            one.
        name (`str`, *optional*): name of a source that every worker of a loader must have rows of; without one it is
            enough if the first has.
    Raises:
        ValueError: when iterated, if there are no rows.
    """

    def __init__(self, rows: Iterable, name: str | None = None):
        self.rows, self.name = rows, name

    def __iter__(self):
        for number in count():
            set_round(self.rows, number)
            is_empty = True
            for row in self.rows:
                is_empty = False
                yield row
            if is_empty:
                worker = get_worker_info()
                if self.name is None and worker is not None and worker.id > 0:
                    return  # fewer files than workers: the others have rows
                who = "train_dataset" if self.name is None else f"the source {self.name!r}"
                advice = "" if worker is None else " and worker; where files are few, lower dataloader_num_workers"
                raise ValueError(
                    f"{who} streams no rows (for this process, or not again in a second round). Give an iterable that "
                    f"can be begun again, with a row or more for each process{advice}."
                )
