"""The builder that all sources of public 3D data share: finds files, reads records, and says what is wrong with them.

A source is a subclass in sources/: it names its files and turns one raw record into rows. Strictness, reports,
duplicate ids, tasks and the number of views are handled here.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
from tqdm.auto import tqdm
from transformers.utils import logging

from ..argument_checks import check_counts
from ..input_checks_gap_mllm import check_count, check_flag
from .file_guards import file_state, list_folder, walk_files
from .former_names import task_name
from .prepared_source import PreparedSourceBuilder
from .read_log import TrackedPath
from .record_errors import ReadReport, RecordError
from .row_checks import check_row
from .scene_sample import SceneSample
from .schema import complete_row, scene_features
from .upright_rows import upright_row, upright_sample
from .view_selection import select_views, spread_views


logger = logging.get_logger(__name__)

# What reading a record of another form ends in; RecordError is a ValueError and caught before.
_BAD_FORM = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)


@dataclass
class SourceConfig(datasets.BuilderConfig):
    """What to read of a source, and how strictly.

    Args:
        tasks (`tuple[str, ...]` or `str`, *optional*): names from the source's `TASKS`; all by default.
        max_views (`int`, *optional*): rows with more views are thinned evenly; view 0 and the views that marks, points
            and answers speak of stay. For videos: how many frames are decoded and stored as views.
        skip_bad_samples (`bool`, defaults to False): leave bad records out, counted, logged and listed in
            `report_file`, instead of raising at the first.
        report_file (`str`, *optional*): where events are listed, one JSON object a line.
    A subclass names the values of an option that has few in `CHOICES`, those that count something in `COUNTS`.

    Raises:
        TypeError: if `max_views` is no integer, or `skip_bad_samples` no bool.
        ValueError: if `max_views` is or another count is below 1, or an option is none of its choices.
    """

    CHOICES = {}  # option -> values
    COUNTS = ()  # options that are whole numbers of 1 or more, or None

    tasks: tuple | None = None
    max_views: int | None = None
    skip_bad_samples: bool = False
    report_file: str | None = None

    def __post_init__(self):
        super().__post_init__()
        self.tasks = (self.tasks,) if isinstance(self.tasks, str) else self.tasks
        self.tasks = None if self.tasks is None else tuple(map(task_name, self.tasks))
        if self.max_views is not None:
            self.max_views = check_count("max_views", self.max_views)
        check_flag("skip_bad_samples", self.skip_bad_samples)
        check_counts(**{name: getattr(self, name) for name in self.COUNTS})
        for name, known in self.CHOICES.items():
            if (value := getattr(self, name)) not in known:
                listed = ", ".join(choice for choice in known if choice is not None)
                or_none = " or None" if None in known else ""
                raise ValueError(f"{name} is {value!r}; expected one of {listed}{or_none}.")

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None):
        # The report is a by-product: it must not change which cached data set is found.
        kwargs = {name: value for name, value in config_kwargs.items() if name != "report_file"}
        return super().create_config_id(kwargs, custom_features)


class SceneSourceBuilder(PreparedSourceBuilder):
    """Base of the builders in sources/; see the module.

    A subclass sets `SOURCE` (its registry key), `TASKS`, `LAYOUT` (what is looked for below data_dir) and implements
    `find_files` and `rows`; `records` reads JSON arrays and lines unless overridden.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = SourceConfig
    SOURCE = ""
    TASKS = ()
    LAYOUT = ""
    LICENSE = ""
    warns_of_missing_views = False  # while rows are streamed; prepared ones are looked through afterwards

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        tasks = self.config.tasks
        unknown = [task for task in tasks or () if task not in self.TASKS]
        if unknown or tasks == ():
            raise ValueError(f"tasks is {list(tasks)}; source {self.SOURCE!r} has {list(self.TASKS)}.")

    # What a source implements

    def find_files(self, root: Path) -> dict[str, list[Path]]:
        """Return the files (or folders) of each split below `root`; splits without files are left out."""
        raise NotImplementedError

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object) -> Iterator[dict]:
        """Yield the rows of one record, as fields for `complete_row`; raise RecordError for a bad one."""
        raise NotImplementedError

    def records(self, file: Path, skip: Callable) -> Iterator[tuple[str, object]]:
        """Yield (record id, record) of a file; `skip`, if not None, takes what is wrong with single records."""
        from .source_files import iter_records

        for index, record in iter_records(file, skip):
            yield f"{file.stem}-{index:07d}", record

    def prepare_file(self, split: str, file: Path):
        """Return what must be known of a whole file before its records are read; the `context` of `rows`."""
        return None

    # What is shared

    @property
    def root(self) -> Path:
        """The folder that the user gave."""
        if not self.config.data_dir:
            raise ValueError(f"source {self.SOURCE!r} needs data_dir, the folder that holds {self.LAYOUT}.")
        root = TrackedPath(self.config.data_dir)
        if not root.is_dir():
            raise FileNotFoundError(f"data_dir {root} of source {self.SOURCE!r} is no folder.")
        return root

    def subfolders(self, folder: str | Path) -> list[Path]:
        """The folders in a folder, sorted, through links; none where it is not there.

        Raises:
            RecordError: if one cannot be read; lenient reading lists it and goes on.
        """
        if not Path(folder).is_dir():
            return []
        found = []
        for path in list_folder(folder, self._pass_over):
            state = file_state(path)
            if state is not None and stat.S_ISDIR(state.st_mode) and self._can_read(path):
                found.append(path)
        return found

    def files_below(self, folder: str | Path, *suffixes: str) -> list[Path]:
        """The files of these suffixes in a folder and in all below it, sorted; raises as `subfolders`."""
        return list(walk_files(folder, suffixes, self._pass_over))

    def _can_read(self, folder):
        try:
            list_folder(folder)
            file_state(os.path.join(folder, "."))  # names may be read and what they name not
        except RecordError as error:
            self._pass_over(error)
            return False
        return True

    def _pass_over(self, error):
        seen = self.__dict__.setdefault("_passed_over", set())  # files are looked for more than once
        if not self.config.skip_bad_samples or error.file not in seen:
            seen.add(error.file)
            self._refuse(error, error.file, None)

    def _mark_once(self, name, file, detail=None):
        marked = self.__dict__.setdefault("_marked", set())
        if (name, str(file), detail) not in marked:
            marked.add((name, str(file), detail))
            self.mark(name, file, detail=detail)

    def wants(self, task: str) -> bool:
        """Whether rows of this task were asked for."""
        return self.config.tasks is None or task in self.config.tasks

    def mark(self, name: str, file: str | Path, record_id: str | None = None, detail: str | None = None) -> None:
        """Count something normal that a user should know of; see `ReadReport.mark`."""
        self.report.mark(name, file, record_id, detail)

    def warn_of_missing_views(self, has_video: bool) -> None:
        """Warn that rows have no views, once for each source, where an option would give them some."""
        if has_video:
            warn_of_videos(self.SOURCE)
        elif getattr(self.config, "posed_root", "") is None and self.scenes is None:
            logger.warning_once(
                f"{self.SOURCE}: rows have no views, as {self.root} holds no frames of their scenes. Pass posed_root, "
                "the folder with scannet/posed_images."
            )

    @property
    def report(self) -> ReadReport:
        """The counts of this process."""
        if not hasattr(self, "_report"):
            self._report = ReadReport(self.config.report_file)
        return self._report

    def _info(self):
        # Texts throughout: where sources are joined, datasets joins what these say, and None is no text.
        return datasets.DatasetInfo(
            description=self.__doc__ or "", features=scene_features(), license=self.LICENSE or ""
        )

    def _files(self):
        files = {split: list(found) for split, found in self.find_files(self.root).items() if found}
        if not files:
            raise FileNotFoundError(f"{self.root} holds nothing of source {self.SOURCE!r}; expected {self.LAYOUT}.")
        return files

    def split_names(self):
        return list(self._files())

    def _split_generators(self, dl_manager):
        return self.wanted_splits(
            [
                datasets.SplitGenerator(
                    name=split, gen_kwargs={"split": split, "files": [str(file) for file in found]}
                )
                for split, found in self._files().items()
            ]
        )

    def _generate_examples(self, split, files):
        with self.reading():
            try:
                yield from self._unique_rows(split, files)
            except RecordError as error:
                self.report.refuse(error)
                raise

    def _unique_rows(self, split, files):
        # Streaming calls this once for each file, and again in every epoch; `ids` knows in which reading of which
        # file an id came first.
        ids = self.__dict__.setdefault("_ids", {}).setdefault(split, {})
        for name in files:
            file, reading = TrackedPath(name), [name]
            with tqdm(desc=f"{self.SOURCE} {file.name}", unit=" records", delay=2, leave=False) as progress:
                for record_id, rows in self._read_file(split, file):
                    progress.update()
                    for row in rows:
                        key = hash_id(row["id"])
                        first = ids.get(key)
                        if first is reading or (first is not None and first[0] != name):
                            problem = f"the id {row['id']!r} is there twice in split {split!r}; first in {first[0]}."
                            self._refuse(RecordError(problem, "id"), file, record_id)
                            continue
                        ids[key] = reading
                        yield row["id"], row

    def _read_file(self, split, file):
        def skip_line(error: Exception):
            self._refuse(error, file, None)

        skip = skip_line if self.config.skip_bad_samples else None
        try:
            context = self.prepare_file(split, file)
            for record_id, record in self.records(file, skip):
                try:
                    yield (
                        record_id,
                        [
                            self._finish(row, split, record_id)
                            for row in self.rows(split, file, record_id, record, context)
                        ],
                    )
                except RecordError as error:
                    self._refuse(error, file, record_id)
                except (*_BAD_FORM, FileNotFoundError) as error:
                    problem = f"the record has not the form of {self.SOURCE!r}: {type(error).__name__}: {error}."
                    self._refuse(RecordError(problem), file, record_id, error)
                except PermissionError as error:
                    self._refuse(unreadable(error, file), file, record_id, error)
        except RecordError as error:
            raise error.locate(self.SOURCE, file, None) from None
        except PermissionError as error:
            raise unreadable(error, file).locate(self.SOURCE, file, None) from error
        except UnicodeError as error:  # of the file, or of one that belongs to it
            raise RecordError(f"this is no UTF-8 text: {error}.").locate(self.SOURCE, file, None) from error

    def _finish(self, fields, split, record_id):
        row = complete_row(**{"id": record_id, "source": self.SOURCE, "split": split, **fields})
        check_row(row)
        if self.warns_of_missing_views and not row["views"]:
            self.warn_of_missing_views(row["video"] is not None)
        if self.config.max_views and len(row["views"]) > self.config.max_views:
            sample = SceneSample.as_stored(row)
            return upright_sample(select_views(sample, spread_views(sample, self.config.max_views))).to_row()
        return upright_row(row)

    def _refuse(self, error, file, record_id, cause=None):
        error.locate(self.SOURCE, file, record_id)
        if not self.config.skip_bad_samples:
            raise error from cause
        self.report.skip(error)


def unreadable(error: OSError, file: str | Path) -> RecordError:
    """What is wrong with a file or folder that may not be read."""
    return RecordError(f"it cannot be read: {error.strerror or error}.", file=str(error.filename or file))


def warn_of_videos(source: str) -> None:
    """Warn, once for each source, that rows name a video and have no views."""
    logger.warning_once(
        f"{source}: rows name a video and have no views; they hold nothing but its path on this machine. Pass "
        "max_views=N to store N frames of each video as views."
    )


def hash_id(row_id: str) -> int:
    """64 bits of an id: millions of ids are remembered to find those that are there twice."""
    return int.from_bytes(hashlib.blake2b(row_id.encode(), digest_size=8).digest(), "little")
