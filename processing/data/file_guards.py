"""What is looked at before a foreign file is opened: what kind of thing it is, and how many pixels it would take.

Opening a FIFO waits for ever, and a picture of a few kilobytes may unpack to gigabytes; both are refused by name here.
Links are followed: whoever gave the folder made them. One that leads back to itself is an error.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from .read_log import TrackedPath, note_read
from .record_errors import RecordError


# Of one picture, depth map or video frame: 8000 x 8000. As RGB that is 192 MB, and several copies are made of it.
MAX_PICTURE_PIXELS = 64_000_000
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def file_state(path: str | Path, field: str | None = None) -> os.stat_result | None:
    """Return the state of what a path leads to, links followed; None where nothing is there.

    Raises:
        RecordError: if a link leads back to itself, or a folder on the way may not be read.
    """
    note_read(path)
    try:
        return os.stat(str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = f"it cannot be looked at: {error.strerror or error}."
        if error.errno == errno.ELOOP:
            reason = "a link on this path leads back to itself (a loop); point it at the data."
        raise RecordError(reason, field, file=str(path)) from None


def is_data_file(path: str | Path, field: str | None = None) -> bool:
    """Whether there is a file, links followed; what is there and cannot hold data is refused instead of overlooked.

    Args:
        path (`str` or `Path`), field (`str`, *optional*): path to look at, and the name that errors call its field.
    Raises:
        RecordError: if it is a folder, FIFO, socket or device; or as `file_state`.
    """
    state = file_state(path, field)
    if state is None:
        return False
    refuse_special(state, path, field)
    return True


def refuse_special(state: os.stat_result, path: str | Path, field: str | None = None) -> None:
    """Raise a `RecordError` if this is the state of anything but a file of data."""
    if not stat.S_ISREG(state.st_mode):
        kind = next((name for holds, name in _KINDS if holds(state.st_mode)), "no file")
        raise RecordError(f"this is {kind} and no readable file; it was not opened.", field, file=str(path))


def refuse_special_file(path: str | Path, field: str | None = None) -> None:
    """Raise a `RecordError` if there is anything but a file; nothing happens where nothing is there."""
    is_data_file(path, field)


def check_pixel_count(size: tuple[int, int], path: str | Path | None = None, field: str | None = None) -> None:
    """Refuse a picture, from its header alone, of more than `MAX_PICTURE_PIXELS`.

    Args:
        size (`tuple[int, int]`): width and height.
        path (`str` or `Path`, *optional*), field (`str`, *optional*): path to look at, and the name that errors call
            its field.
    Raises:
        RecordError: if it is larger.
    """
    width, height = size
    if width * height > MAX_PICTURE_PIXELS:
        raise RecordError(
            f"the picture has {width} x {height} pixels, {width * height / 1e6:.1f} million; expected at most "
            f"{MAX_PICTURE_PIXELS / 1e6:g} million (MAX_PICTURE_PIXELS of {__name__}). Scale it down.",
            field,
            file=None if path is None else str(path),
        )


def walk_files(folder: str | Path, suffixes: tuple[str, ...], on_unreadable: Callable | None = None) -> Iterator[Path]:
    """Yield the files of a folder and of all folders below it, in order of their paths, through links as well.

    Args:
        folder (`str` or `Path`): where to begin; nothing comes if it is not there.
        suffixes (`tuple[str, ...]`): endings of the names wanted.
        on_unreadable (`Callable[[RecordError]]`, *optional*): takes the error of a folder that may not be read, which
            is passed over then; without it the error is raised.
    Raises:
        RecordError: if a link leads back to a folder that holds it, or, without `on_unreadable`, for a folder that
            may not be read.
    """
    yield from _walk(TrackedPath(folder), tuple(suffixes), on_unreadable, ())


def _walk(folder, suffixes, on_unreadable, above):
    state = file_state(folder)
    if state is None:
        return
    identity = state.st_dev, state.st_ino
    if identity in above:
        raise RecordError(
            "this link leads back to a folder that holds it (a loop); remove it, or point it at the data.",
            file=str(folder),
        )
    for path in list_folder(folder, on_unreadable):
        inner = file_state(path)
        if inner is not None and stat.S_ISDIR(inner.st_mode):
            yield from _walk(path, suffixes, on_unreadable, (*above, identity))
        elif path.suffix in suffixes:
            yield path


def list_folder(folder: str | Path, on_unreadable: Callable | None = None) -> list[Path]:
    """What a folder holds, sorted.

    Args:
        folder (`str` or `Path`), on_unreadable (`Callable[[RecordError]]`, *optional*): arguments of `walk_files`.
    Raises:
        RecordError: if the folder may not be read, without `on_unreadable`.
    """
    try:
        with os.scandir(TrackedPath(folder)) as entries:
            return sorted(TrackedPath(folder, entry.name) for entry in entries)
    except OSError as error:
        problem = RecordError(f"the folder cannot be read: {error.strerror or error}.", file=str(folder))
        if on_unreadable is None:
            raise problem from None
        on_unreadable(problem)
        return []
