"""Evaluation by several processes: each row once, and as many batches in each process.

What processes do together in a forward pass (gathering weights that are split) needs equal numbers of batches; where
accelerate fills up with rows that were there before, and so counts them twice, a filling here counts nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from .streams import rows_of_process


def evaluation_rows_of_process(rows: Dataset, batch_size: int, rank: int, world_size: int) -> Dataset:
    """Return the rows that one of several processes evaluates: every `world_size`-th batch.

    Args:
        rows (`Dataset`): dataset with a length, or a stream, whose rows are shared as for training.
        batch_size (`int`): rows of a batch.
        rank (`int`), world_size (`int`): number of this process, and of all.
    Returns:
        `Dataset`: of the same kind.
    """
    if isinstance(rows, IterableDataset):
        return rows_of_process(rows, rank, world_size)
    return Subset(rows, [place for place in range(len(rows)) if place // batch_size % world_size == rank])


@contextmanager
def gathered_model(model: nn.Module) -> Iterator[nn.Module]:
    """Hold what FSDP2 splits as no layer of its own whole in a `with` block: answering calls the tower by itself.

    Args:
        model (`nn.Module`): model of a trainer, with its adapters; one that is not split stays as it is.
    """
    if not hasattr(model, "unshard"):  # torch.distributed.fsdp.FSDPModule's, which not every build of torch has
        yield model
        return
    model.unshard()
    try:
        yield model
    finally:
        model.reshard()


class EvenBatches:
    """The batches of one process, and then fillings until no process has any left.

    Args:
        loader (`DataLoader`): batches of this process.
        rows (`Dataset`): all rows, of which the first is the filling of a process that has no batch.
        collate (`Callable`): makes a batch of a list of rows.
        any_process (`Callable`): `any_process(flag) -> bool`, whether the flag is set in any process.
    """

    def __init__(
        self, loader: DataLoader, rows: Dataset, collate: Callable, any_process: Callable[[bool], bool]
    ) -> None:
        self.loader, self.dataset, self.collate, self.any_process = loader, rows, collate, any_process
        self.is_filling = False

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        batches, batch = iter(self.loader), None
        while True:
            following = next(batches, None)
            self.is_filling = following is None
            if not self.any_process(not self.is_filling):
                return
            batch = following or batch or self.collate([next(iter(self.dataset))])
            yield batch
