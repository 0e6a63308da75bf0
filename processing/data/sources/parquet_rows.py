"""Rows of parquet files that somebody else wrote, a few at a time, and the pictures in them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow
import pyarrow.parquet

from ..record_errors import RecordError
from ..source_files import refuse_lfs_pointer, stored_header


def iter_parquet_rows(path: Path, batch_size: int = 16, skip: Callable | None = None) -> Iterator[tuple[int, dict]]:
    """Yield (index from 0, row as plain Python) without holding the file in memory.

    Args:
        path (`str` or `Path`)
        batch_size (`int`, defaults to 16): rows that are held at once.
        skip (`Callable[[RecordError]]`, *optional*): called with what is wrong with a row, which is then left out;
            without it the error is raised.
    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if it is a git-lfs pointer, cut off, or no parquet file, or a text of a row is no UTF-8.
    """
    index = 0
    with parquet_errors(path) as progress, pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size):
            for row in _plain_rows(batch):
                if isinstance(row, UnicodeDecodeError):
                    problem = f"a text of row {index} is no UTF-8: {row}. Write the table again with whole texts."
                    problem = RecordError(problem, file=str(path), record_id=f"row {index}")
                    if skip is None:
                        raise problem
                    skip(problem)
                else:
                    yield index, row
                index += 1
                progress["rows"] = index


def _plain_rows(batch):
    """Rows as plain Python, or what is wrong with the texts of one."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as error:
        if len(batch) == 1:
            return [error]
    return [_plain_rows(batch.slice(index, 1))[0] for index in range(len(batch))]


@contextmanager
def parquet_errors(path: Path):
    """Turn what pyarrow says of a damaged file into a RecordError that names it; see `iter_parquet_rows`."""
    refuse_lfs_pointer(path)
    progress = {"rows": 0}
    try:
        yield progress
    except (pyarrow.ArrowException, OSError) as error:
        kind = Path(path).suffix.removeprefix(".") or "parquet"
        raise RecordError(
            f"no whole {kind} file, after {progress['rows']} rows: {error}. Is the download complete?", file=str(path)
        ) from None


def embedded_view(picture: dict | bytes, field: str, image_path: str | None = None) -> dict:
    """A view whose picture is in the table.

    Args:
        picture (`dict` of bytes and path, or `bytes`): picture of a cell.
        field (`str`): name that errors call the field.
        image_path (`str`, *optional*): what the table calls it; by default the path beside the bytes.
    Returns:
        `dict`: fields of a view; bytes are kept as they are.
    Raises:
        RecordError: if the bytes are no picture, or it has more than `MAX_PICTURE_PIXELS`.
    """
    content, path = (picture.get("bytes"), picture.get("path")) if isinstance(picture, dict) else (picture, None)
    name = image_path or path
    stored_header({"bytes": content or b"", "path": name}, field)
    return {"image": {"bytes": content, "path": None}, "image_path": name}
