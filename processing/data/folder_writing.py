"""Writing files and folders that are there whole or not at all, by one process at a time, and clearing up after it.

A folder `out` grows as `.out.<host>-<process>.part` beside it, while `.out.lock` is held; the system lets go of a lock
when its process ends, however it ends. Who holds the lock of `out` knows that parts of `out` from this host are left
over. A part from another host, whose lock may not be seen here, is left over when nobody touched it for a day.
"""

import contextlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ..input_checks_gap_mllm import whole_text


try:
    import fcntl
except ImportError:  # Windows: writers are told apart by the last step alone, and nothing is cleared up
    fcntl = None

STALE_AFTER_S = 24 * 3600  # for parts of other hosts
_FILE_PART = re.compile(r".+\.((?P<host>[\w-]+)-)?(?P<pid>\d+)\.part")  # earlier ones tell no host
_PART = re.compile(r"\.(?P<name>.+)\.(?P<host>[\w-]+)-(?P<pid>\d+)\.part")


@contextlib.contextmanager
def hold_folder(output_dir: str | Path, doing: str) -> Iterator[None]:
    """Keep other processes out of a folder that is written; what is in it, or whether it exists, does not matter.

    Args:
        output_dir (`str` or `Path`): folder to write into.
        doing (`str`): word for what is done with the folder, as "writing".
    Raises:
        FileExistsError: if another process holds this folder; it is named.
    """
    output_dir = Path(os.path.realpath(output_dir))
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with _held_lock(output_dir) as is_free:
        if not is_free:
            raise FileExistsError(
                f"another process is {doing} {output_dir} now{_writer(output_dir)}; wait for it, or give another "
                "folder."
            )
        yield


@contextlib.contextmanager
def write_folder(output_dir: str | Path) -> Iterator[Path]:
    """Give a scratch folder; what the block makes in its `result` becomes `output_dir` at the end, in one step.

    Nothing is left behind if the block fails. What killed writers left in the same place is removed first.

    Args:
        output_dir (`str` or `Path`): folder that does not exist, or is empty.
    Raises:
        FileExistsError: if another process is writing this folder, or has written it meanwhile.
    """
    output_dir = Path(os.path.realpath(output_dir))  # a link that the user made stays a link
    with contextlib.ExitStack() as stack:
        stack.enter_context(hold_folder(output_dir, "writing"))
        _remove_leftovers(output_dir)
        scratch = output_dir.parent / f".{output_dir.name}.{_host()}-{os.getpid()}.part"
        scratch.mkdir()
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        yield scratch
        _move(scratch / "result", output_dir)


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file that is there either whole or not at all; text as UTF-8, halves of characters as U+FFFD."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = file_part(path)
    try:
        with open(part, "wb") as file:
            file.write(whole_text(content).encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)  # makes room on a full disk
        raise


def file_part(path: Path) -> Path:
    """Where this process writes a file before it gets its place, for `os.replace`; `remove_file_parts` knows it."""
    return path.with_name(f"{path.name}.{_host()}-{os.getpid()}.part")


def remove_file_parts(folder: str | Path, is_held: bool = False) -> None:
    """Remove what killed processes left of files (`file_part`, as of `write_atomically`) straight in a folder.

    Parts of a process that lives on this host stay, and those of other hosts, until nobody touched them for a day.

    Args:
        folder (`str` or `Path`): folder.
        is_held (`bool`, defaults to False): whether this process alone may write there (`hold_folder`): all go then.
    """
    for part in Path(folder).glob("*.part"):
        named = _FILE_PART.fullmatch(part.name)
        if named is None or not part.is_file():
            continue
        is_dead = named["host"] in (None, _host()) and not _is_alive(int(named["pid"]))
        with contextlib.suppress(FileNotFoundError):  # its writer has just finished, or another sweeps as well
            if is_held or is_dead or _is_old(part):
                part.unlink()


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def _move(result, output_dir):
    try:
        if output_dir.exists():
            output_dir.rmdir()
        os.replace(result, output_dir)
    except OSError as error:
        if not output_dir.exists():
            raise
        raise FileExistsError(
            f"another process has written into {output_dir} meanwhile; its files stay, and nothing of this run is "
            "kept. Give another folder."
        ) from error


def _host():
    return re.sub(r"[^\w-]", "_", socket.gethostname())


def _lock_file(output_dir):
    return output_dir.parent / f".{output_dir.name}.lock"


def _writer(output_dir):
    """Who holds the lock, as far as it is known."""
    try:
        text = _lock_file(output_dir).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return f" ({text})" if text else ""


@contextlib.contextmanager
def _held_lock(output_dir) -> Iterator[bool]:
    """Hold the lock of a folder and remove its file at the end; False if another process holds it."""
    if fcntl is None:
        yield True
        return
    path = _lock_file(output_dir)
    stream = _take(path)
    if stream is None:
        yield False
        return
    os.register_at_fork(after_in_child=stream.close)  # else workers of a killed process would go on holding it
    with stream:
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {_host()}")
        stream.flush()
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _take(path):
    """The open lock file, or None. A file that its holder removed meanwhile is no lock any more."""
    while True:
        stream = open(path, "a", encoding="utf-8")  # noqa: SIM115  stays open while the lock is held
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
                return stream
        stream.close()


def _remove_leftovers(output_dir):
    """Remove parts of dead writers in this place: of this folder, whose lock is held, and of others nobody holds."""
    if fcntl is None:
        return
    for part in list(output_dir.parent.glob(".*.part")):
        named = _PART.fullmatch(part.name)
        if named is None or not part.is_dir() or part.is_symlink():
            continue
        other = part.parent / named["name"]
        with contextlib.nullcontext(True) if other == output_dir else _held_lock(other) as is_free:
            if is_free and (named["host"] == _host() or _is_old(part)):
                shutil.rmtree(part, ignore_errors=True)


def _is_old(folder):
    """Whether nothing in a folder was touched for a day."""
    paths = [folder, *(Path(place, name) for place, _, names in os.walk(folder) for name in names)]
    return time.time() - max(os.lstat(path).st_mtime for path in paths) > STALE_AFTER_S
