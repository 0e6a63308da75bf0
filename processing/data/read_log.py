"""What was looked at while a source was read, and whether it is still so: prepared data is used again only then.

Readers go about with `TrackedPath`s, which note themselves in the log of the moment whenever they are handed to the
operating system: files that were read, folders that were listed, and what was looked for and not found. What it costs
to look again is measured in examples/benchmarks/check_prepared.py.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path


# Files of records, which somebody may edit by hand: their content counts, too, so that an edit is seen which leaves
# size and times of the file as they were. Of all others (pictures, poses: hundreds in a scene) size and times do.
CONTENT_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".pkl", ".pth", ".parquet")
MAX_CONTENT_BYTES = 2**28  # of all files of a log; what is above counts by size and time alone
WHOLE_FILE_BYTES = 2**26  # of larger files, the content of both ends
END_BYTES = 2**20
LOG_FILES = "reads-*.json"
FORMAT = 1

_current: ContextVar["ReadLog | None"] = ContextVar("read_log", default=None)


class TrackedPath(type(Path())):
    """A `Path` that notes itself in the current log when it is handed to the operating system.

    Paths that are made from it (`/`, parent, with_suffix, iterdir, glob) do so, too; what is made of its text does
    not, see `note_read`.
    """

    __slots__ = ()

    def __fspath__(self):
        text = str(self)
        note_read(text)
        return text

    # Which folders are looked through is not left to how a version of Python goes about it.

    def glob(self, pattern: str, **kwargs):
        """As `Path.glob`; the folders that are looked through are noted."""
        if current_log() is not None:
            note_read(self)
            head = str(pattern).rpartition("/")[0]
            for folder in self.glob(head) if head else ():
                note_read(folder)
        return super().glob(pattern, **kwargs)

    def rglob(self, pattern: str, **kwargs):
        """As `Path.rglob`; the folders that are looked through are noted."""
        if current_log() is not None:
            for folder, _, _ in os.walk(str(self)):
                note_read(folder)
        return super().rglob(pattern, **kwargs)


def note_read(path: str | Path) -> None:
    """Note in the current log, if there is one, that a file or folder is about to be looked at."""
    log = _current.get()
    if log is not None:
        log.add(str(path))


def current_log() -> "ReadLog | None":
    """The log of this process, if one is kept."""
    log = _current.get()
    return None if log is None or log.process_id != os.getpid() else log


@contextmanager
def keep_log() -> Iterator["ReadLog"]:
    """Note all that is looked at within the context in a new log."""
    log = ReadLog()
    token = _current.set(log)
    try:
        yield log
    finally:
        _current.reset(token)


class ReadLog:
    """Paths with what they were when they were first looked at, one hash for each folder.

    States are hashed instead of kept, since a scan has hundreds of files; so a difference is known by its folder.
    """

    def __init__(self):
        self.process_id = os.getpid()
        self._folders, self._contents, self._num_bytes = {}, {}, 0

    def add(self, path: str) -> None:
        """Note a path, before it is read: what changes while it is read, changes later."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = {}, _folder_hash(folder)
        names, digest = self._folders[folder]
        if name in names:
            return
        names[name] = None  # in order, as a set is not
        size, text = _state(path)
        digest.update(_encoded(f"{name}\0{text}\0"))
        if size is not None and path.endswith(CONTENT_SUFFIXES):
            num_read = min(size, WHOLE_FILE_BYTES)
            if self._num_bytes + num_read <= MAX_CONTENT_BYTES:
                self._num_bytes += num_read
                self._contents[path] = content_hash(path, WHOLE_FILE_BYTES)

    def paths(self) -> list[str]:
        """All paths that were noted."""
        return [os.path.join(folder, name) for folder, (names, _) in self._folders.items() for name in names]

    def save(self, file: str | Path) -> None:
        """Write the log as JSON; names of a folder are one text, as there may be a million."""
        folders = {folder: ["/".join(names), digest.hexdigest()] for folder, (names, digest) in self._folders.items()}
        content = {"format": FORMAT, "folders": folders, "contents": self._contents}
        Path(file).write_text(json.dumps(content), encoding="utf-8")


def what_changed(folder: str | Path) -> str | None:
    """Say what is no longer as the logs in a folder have it; None where all is.

    Args:
        folder (`str` or `Path`): holds the files that `ReadLog.save` wrote as `LOG_FILES`.
    """
    files = sorted(Path(folder).glob(LOG_FILES))
    if not files:
        return "there is no log of what was read"
    return next((difference for file in files if (difference := _difference(file)) is not None), None)


def _difference(file):
    try:
        log = json.loads(file.read_text(encoding="utf-8"))
        if log["format"] != FORMAT:
            return f"{file} is of another version"
        for folder, (names, expected) in log["folders"].items():
            digest = _folder_hash(folder)
            for name in names.split("/"):
                digest.update(_encoded(f"{name}\0{_state(os.path.join(folder, name))[1]}\0"))
            if digest.hexdigest() != expected:
                return f"a file in {folder or '.'} was changed, added or removed"
        for path, expected in log["contents"].items():
            if content_hash(path, WHOLE_FILE_BYTES) != expected:
                return f"{path} was changed"
    except (OSError, ValueError, LookupError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _state(path):
    """(size of a file, None for all else; text of what a path is now): a file, a folder with names in it, or not."""
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            listed = hashlib.blake2b(_encoded("/".join(sorted(os.listdir(path)))), digest_size=16)
            return None, f"folder {os.path.realpath(path)} {listed.hexdigest()}"
    except (OSError, ValueError) as error:
        return None, f"none {getattr(error, 'errno', None)}"
    if not stat.S_ISREG(found.st_mode):
        return None, f"other {stat.S_IFMT(found.st_mode)}"
    return found.st_size, f"file {found.st_size} {_times(found)}"


def _times(found):
    """When a file was written, and when the system changed it: archives and copies set the first as they like."""
    return f"{found.st_mtime_ns} {found.st_ctime_ns}"


def _folder_hash(folder):
    """Begins with where a folder really is: links lead elsewhere."""
    return hashlib.blake2b(_encoded(f"{os.path.realpath(folder)}\0"), digest_size=16)


def _encoded(text):
    return text.encode("utf-8", "surrogateescape")


def content_hash(path: str | Path, whole_file_bytes: int | None = None) -> str:
    """Hash what a file holds.

    Args:
        path (`str` or `Path`)
        whole_file_bytes (`int`, *optional*): bound; of larger files only the length and `END_BYTES` at both ends.
    Returns:
        `str`: hexadecimal.
    Raises:
        OSError: if it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    with open(str(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if whole_file_bytes is None or size <= whole_file_bytes:
            while block := file.read(2**20):
                digest.update(block)
        else:
            digest.update(str(size).encode() + file.read(END_BYTES))
            file.seek(-END_BYTES, os.SEEK_END)
            digest.update(file.read(END_BYTES))
    return digest.hexdigest()
