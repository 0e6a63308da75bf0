"""Preparing a source once: each split in a folder of its own, which holds until a file or the reader's code changes.

`datasets` finds prepared data by the arguments alone; here it is looked whether what was read then is still so
(read_log.py). What changed is prepared anew in the place of the old.
"""

import hashlib
import inspect
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import datasets
from filelock import FileLock
from transformers.utils import logging

from .read_log import current_log, keep_log, what_changed


logger = logging.get_logger(__name__)

READER_FILE = "reader.txt"


class PreparedSourceBuilder(datasets.GeneratorBasedBuilder):
    """Base of all builders: prepares one split alone where `only_split` says so, and logs what was read for it.

    A subclass implements `split_names`, passes its generators through `wanted_splits`, and reads within `reading`.
    """

    only_split = None
    _log_folder = None

    def split_names(self) -> list[str]:
        """The splits that there are; nothing else is read."""
        raise NotImplementedError

    def wanted_splits(self, generators: list) -> list:
        """Those of some `SplitGenerator`s that are to be prepared."""
        return [one for one in generators if self.only_split in (None, one.name)]

    @contextmanager
    def reading(self):
        """While rows are read: a process that helps to prepare keeps a log of its own."""
        if self._log_folder is None or current_log() is not None:
            yield
            return
        with keep_log() as log:
            yield
        log.save(Path(self._log_folder, f"reads-{uuid.uuid4().hex}.json"))

    def _download_and_prepare(self, dl_manager, verification_mode, **prepare_split_kwargs):
        self._log_folder = self._output_dir  # a temporary folder, which takes its name when all is done
        with keep_log() as log:
            super()._download_and_prepare(dl_manager, verification_mode, **prepare_split_kwargs)
        log.save(Path(self._log_folder, "reads-main.json"))
        Path(self._log_folder, READER_FILE).write_text(reader_code(type(self)), encoding="utf-8")
        self._log_folder = None


def prepare_once(
    builder: PreparedSourceBuilder, refresh: bool, prepare: Callable[[str], None], open_rows: Callable[[], object]
):
    """Prepare a builder's data unless it is there and nothing has changed, and open it.

    Only one process at a time does so; those that wait find what the first has prepared.

    Args:
        builder (`PreparedSourceBuilder`): builder with `only_split`.
        refresh (`bool`): prepare in any case.
        prepare (`Callable[[str], None]`): takes the `download_mode`.
        open_rows (`Callable[[], object]`): returns the rows.
    Returns:
        What `open_rows` does.
    """
    folder = Path(builder.cache_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        reason = "a refresh was asked for" if refresh else why_stale(builder)
        if reason is None:
            builder.download_and_prepare(verification_mode="no_checks")  # reads what there is to know of it
        else:
            if folder.exists():
                logger.info(f"{builder.dataset_name}, split {builder.only_split}: {reason}; preparing it again.")
            builder.info.splits = None  # of the old data
            prepare("force_redownload")
        return open_rows()


def why_stale(builder: PreparedSourceBuilder) -> str | None:
    """Say why a builder's prepared data must not be used; None if it may be."""
    folder = Path(builder.cache_dir)
    if not (folder / datasets.config.DATASET_INFO_FILENAME).is_file():
        return "it is not prepared yet"
    reader = folder / READER_FILE
    if not reader.is_file() or reader.read_text(encoding="utf-8") != reader_code(type(builder)):
        return "the code that reads it has changed"
    return what_changed(folder)


def reader_code(builder_class: type) -> str:
    """Hash of the code that makes rows: this package's processing/, and files of builder classes outside of it."""
    digest = hashlib.sha256(_package_code().encode())
    for base in builder_class.__mro__:
        if not base.__module__.startswith(("datasets", "builtins", "abc", f"{__package__.rpartition('.')[0]}.")):
            digest.update(Path(inspect.getfile(base)).read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _package_code():
    """Version of the package, and hash of all code of processing/: what a row depends on is spread over it."""
    try:
        digest = hashlib.sha256(version("gap-mllm").encode())
    except PackageNotFoundError:  # run out of a source tree
        digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
