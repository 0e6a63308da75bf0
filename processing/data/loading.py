"""`load_multiview`: any source of public multi-view 3D data by its name, in the one schema."""

import dataclasses
import shutil
from collections import Counter
from importlib import import_module
from pathlib import Path

import datasets
import pyarrow.compute
from transformers.utils import logging

from ..argument_checks import (
    WrongKindError,
    check_count,
    check_flag,
    check_kinds,
    check_output_file,
    check_output_folder,
    check_path,
    check_text,
)
from .record_errors import RecordError, read_report
from .source_builder import SourceConfig, hash_id
from .sources import SOURCES


logger = logging.get_logger(__name__)

ROOMS = "synthetic_rooms"
READ_WHEN_ASKED = ("vsibench",)  # `gap-mllm evaluate` reads the frames of its videos itself


def source_builder_class(name: str):
    """Return the builder class of a source.

    Args:
        name (`str`): a key of `SOURCES`.
    Raises:
        TypeError: if the name is no text. ValueError: if there is no such source. Messages list them.
    """
    if not isinstance(name, str):
        raise WrongKindError(f"name is {name!r}; expected that of a source: {', '.join(SOURCES)}.")
    if name not in SOURCES:
        raise ValueError(f"unknown source {name!r}; known are {', '.join(SOURCES)}.")
    module, class_name = SOURCES[name]
    return getattr(import_module(module), class_name)


def source_options(name: str) -> dict:
    """Return the options that only this source has: the fields of its config, by name.

    Args:
        name (`str`): a key of `SOURCES`.
    Returns:
        `dict[str, dataclasses.Field]`.
    Raises:
        ValueError: if there is no such source.
    """
    shared = {field.name for base in (datasets.BuilderConfig, SourceConfig) for field in dataclasses.fields(base)}
    fields = dataclasses.fields(source_builder_class(name).BUILDER_CONFIG_CLASS)
    return {field.name: field for field in fields if field.name not in shared}


def load_multiview(
    name: str,
    data_dir=None,
    split: str | None = None,
    streaming: bool = False,
    tasks=None,
    max_views: int | None = None,
    skip_bad_samples: bool = False,
    report_file=None,
    cache_dir=None,
    num_proc: int | None = None,
    refresh: bool = False,
    **options,
):
    """Load a source of multi-view 3D data; every row has the fields of `scene_features`.

    Pictures stay files in `data_dir` and are decoded on access. The prepared data set is cached by `datasets`; after a
    change of the files below `data_dir` pass `refresh=True`.
    Rows that name a video have views with `max_views` only, rows about ScanNet scenes only where its frames are found;
    once for each source a warning says so (but for "vsibench", whose videos `gap-mllm evaluate` reads itself).

    Args:
        name (`str`): a key of `SOURCES`, as "scannet" or "gap_mllm"; "synthetic_rooms" takes no data_dir.
        data_dir (`str` or `Path`): folder with the layout that the source has when it is downloaded.
        split (`str`, *optional*): None gives all splits as a dict. Prepared data takes "train[:100]" and "train+val",
            too.
        streaming (`bool`): read rows as they are asked for, without a cache; the rows are the same.
        tasks (`list[str]`, *optional*): only rows of these tasks.
        max_views (`int`, *optional*): at most this many views a row, see `SourceConfig`.
        skip_bad_samples (`bool`): leave bad records out and list them in `report_file` instead of raising.
        report_file (`str` or `Path`, *optional*): written with one JSON line for each event, see `read_report`; by
            default beside the cached data.
        cache_dir (`str` or `Path`, *optional*), num_proc (`int`, *optional*): of `datasets`; each process reads whole
            files. Streaming is by one process.
        refresh (`bool`): read the files again.
        **options: of the source's own config.
    Returns:
        `datasets.Dataset` or `IterableDataset`, or a dict of them without `split`.
    Raises:
        TypeError: if an argument or option is of another kind.
        ValueError: on an unknown source, split, task or option, or a value out of range.
        FileNotFoundError: if data_dir does not hold the source.
        IsADirectoryError, NotADirectoryError: if report_file or cache_dir cannot be written to.
        RecordError: for a bad record, with source, file, record id and field (strict reading).
    """
    streaming, refresh = check_flag("streaming", streaming), check_flag("refresh", refresh)
    if split is not None:
        check_text("split", split, 'the name of a split, as "train"')
    if report_file is not None:
        report_file = check_output_file("report_file", report_file)
    if num_proc is not None and check_count("num_proc", num_proc) > 1 and streaming:
        raise ValueError(f"num_proc is {num_proc}, but rows are streamed by one process; leave one of the two out.")
    builder = open_source(
        name,
        data_dir,
        tasks=tasks,
        max_views=max_views,
        skip_bad_samples=skip_bad_samples,
        cache_dir=cache_dir,
        **options,
    )
    if streaming:
        _set_report(builder, report_file or Path(f"{builder.cache_dir.rstrip('/')}.streamed.jsonl"), is_new=True)
        builder.warns_of_missing_views = name not in READ_WHEN_ASKED
        return builder.as_streaming_dataset(split=split)
    report = Path(f"{builder.cache_dir.rstrip('/')}.report.jsonl")
    _set_report(builder, report, is_new=refresh or not Path(builder.cache_dir).exists())
    mode = "force_redownload" if refresh else "reuse_dataset_if_exists"
    try:
        # no_checks: after a refresh there may be more rows than were cached before
        builder.download_and_prepare(download_mode=mode, num_proc=num_proc, verification_mode="no_checks")
    except datasets.exceptions.DatasetGenerationError as error:
        raise _what_is_wrong(error, report) from None
    finally:
        if report_file is not None:
            _copy_report(report, report_file)
    _log_report(builder, report_file or report)
    if num_proc is not None and num_proc > 1:
        _refuse_duplicates(builder)
    _known_split(builder, split)
    splits = {part: _prepared_split(builder, part) for part in (builder.info.splits if split is None else [split])}
    if name not in READ_WHEN_ASKED:
        _warn_of_missing_views(builder, splits.values())
    return datasets.DatasetDict(splits) if split is None else splits[split]


def open_source(
    name: str, data_dir=None, tasks=None, max_views=None, skip_bad_samples=False, cache_dir=None, **options
):
    """Return the `datasets` builder of a source for a folder; nothing is read yet. See `load_multiview`.

    Raises:
        TypeError: if an argument or option is of another kind.
        ValueError: on an unknown source, task or option, without data_dir, or with one for rendered rooms.
        NotADirectoryError: if cache_dir is a file.
    """
    builder_class, known = source_builder_class(name), source_options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"source {name!r} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}.")
    given = {} if tasks is None else {"tasks": _task_names(tasks)}
    if max_views is not None:
        given["max_views"] = check_count("max_views", max_views)
    if name == ROOMS:
        check_flag("skip_bad_samples", skip_bad_samples)
        if data_dir is not None:
            raise ValueError(f"data_dir is {str(data_dir)!r}, but rooms are rendered and take none; leave it out.")
        if max_views is not None:
            raise ValueError(f"max_views is {max_views}, but rooms are rendered: give num_views.")
    else:
        if data_dir is None:
            raise ValueError(f"source {name!r} needs data_dir, the folder that holds {builder_class.LAYOUT}.")
        data_dir = str(check_path("data_dir", data_dir, "the folder that holds the source").absolute())
        given["skip_bad_samples"] = check_flag("skip_bad_samples", skip_bad_samples)
    check_kinds(builder_class.BUILDER_CONFIG_CLASS, options)
    cache_dir = None if cache_dir is None else str(check_output_folder("cache_dir", cache_dir))
    return builder_class(data_dir=data_dir, cache_dir=cache_dir, **given, **options)


def _task_names(tasks):
    """One task or several as a tuple."""
    if isinstance(tasks, str):
        return (tasks,)
    if not isinstance(tasks, list | tuple):
        raise WrongKindError(f"tasks is {tasks!r}; expected a list of names, or one name.")
    return tuple(tasks)


def _what_is_wrong(error, report):
    """What is wrong with the data, which datasets wraps; of another process only the report tells it."""
    cause = error.__cause__
    if cause is None or type(cause).__name__ == "RemoteTraceback":
        for event in read_report(report):
            if event["event"] == "refused":
                names = ("reason", "field", "source", "file", "record", "missing")
                return RecordError(*(event.get(name) for name in names))
        return error
    return cause


def _refuse_duplicates(builder):
    """Find ids that are there twice in files which different processes read."""
    for split in builder.info.splits:
        seen = set()
        for row_id in _prepared_split(builder, split)["id"]:
            key = hash_id(row_id)
            if key in seen:
                shutil.rmtree(builder.cache_dir)
                raise RecordError(
                    f"the id {row_id!r} is there twice in split {split!r}. Read with num_proc=1 to see in which file.",
                    "id",
                    builder.SOURCE,
                )
            seen.add(key)


def _prepared_split(builder, split):
    """A split; an empty one, which datasets does not know, where every record was left out or of another task."""
    info = builder.info.splits.get(split)
    if info is not None and info.num_examples == 0:
        empty = {field: [] for field in builder.info.features}
        return datasets.Dataset.from_dict(empty, features=builder.info.features, split=split)
    return builder.as_dataset(split=split)


def _warn_of_missing_views(builder, prepared):
    """Warn of rows without views; only their number is read, not the views themselves."""
    without = set()  # whether such rows name a video
    for rows in prepared:
        for views, videos in zip(*(rows.data.column(name).chunks for name in ("views", "video")), strict=True):
            is_empty = pyarrow.compute.equal(pyarrow.compute.list_value_length(views), 0)
            without.update(videos.is_valid().filter(is_empty).unique().to_pylist())
    for has_video in sorted(without):
        builder.warn_of_missing_views(has_video)


def _set_report(builder, path, is_new):
    if not hasattr(builder.config, "report_file"):
        return  # rendered rooms are never bad
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_new:
        path.unlink(missing_ok=True)
    builder.config.report_file = str(path)


def _copy_report(path, copy):
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(path.read_text(encoding="utf-8") if path.is_file() else "", encoding="utf-8")


def _log_report(builder, path):
    events = Counter(event["event"] for event in read_report(path))
    if events:
        counts = ", ".join(f"{count} {name}" for name, count in events.items())
        logger.warning(f"{builder.SOURCE}: {counts}; listed in {path}.")


def _known_split(builder, split):
    """Refuse a split that the source does not have, before datasets does so obscurely."""
    if split is None:
        return
    known = list(builder.info.splits)
    unknown = [part for part in split.split("+") if part.split("[")[0].strip() not in known]
    if unknown:
        place = builder.config.data_dir or "the source"
        raise ValueError(f"split {unknown[0]!r} is not in {place}; there are {', '.join(known)}.")


__all__ = ["load_multiview", "open_source", "source_builder_class", "source_options"]
