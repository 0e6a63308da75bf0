"""Rows of parquet files that somebody else wrote, a few at a time."""

from collections.abc import Iterator

import pyarrow
import pyarrow.parquet

from ..record_errors import RecordError
from ..source_files import refuse_lfs_pointer


def iter_parquet_rows(path, batch_size: int = 16) -> Iterator[tuple[int, dict]]:
    """Yield (index from 0, row as plain Python) without holding the file in memory.

    Args:
        path (`str` or `Path`)
        batch_size (`int`): rows that are held at once.
    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if it is a git-lfs pointer, cut off, or no parquet file.
    """
    refuse_lfs_pointer(path)
    index = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size):
                for row in batch.to_pylist():
                    yield index, row
                    index += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise RecordError(
            f"no whole parquet file, after {index} rows: {error}. Is the download complete?", file=str(path)
        ) from None


__all__ = ["iter_parquet_rows"]
