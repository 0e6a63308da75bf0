"""`load_multiview`: any source of public multi-view 3D data by its name, in the one schema."""

import dataclasses
import shutil
from collections import Counter
from importlib import import_module
from pathlib import Path

import datasets
from transformers.utils import logging

from .record_errors import RecordError, read_report
from .source_builder import SourceConfig, hash_id
from .sources import SOURCES


logger = logging.get_logger(__name__)


def source_builder_class(name: str):
    """Return the builder class of a source.

    Args:
        name (`str`): a key of `SOURCES`.
    Raises:
        ValueError: if there is no such source; the message lists them.
    """
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

    Args:
        name (`str`): a key of `SOURCES`, as "scannet" or "gap_mllm"; "synthetic_rooms" needs no data_dir.
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
            files.
        refresh (`bool`): read the files again.
        **options: of the source's own config.
    Returns:
        `datasets.Dataset` or `IterableDataset`, or a dict of them without `split`.
    Raises:
        ValueError: on an unknown source, split, task or option.
        FileNotFoundError: if data_dir does not hold the source.
        RecordError: for a bad record, with source, file, record id and field (strict reading).
    """
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
        _set_report(builder, Path(report_file or f"{builder.cache_dir.rstrip('/')}.streamed.jsonl"), is_new=True)
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
            _copy_report(report, Path(report_file))
    _log_report(builder, report_file or report)
    if num_proc is not None and num_proc > 1:
        _refuse_duplicates(builder)
    _known_split(builder, split)
    if split is None:
        return datasets.DatasetDict({name: _prepared_split(builder, name) for name in builder.info.splits})
    return _prepared_split(builder, split)


def open_source(
    name: str, data_dir=None, tasks=None, max_views=None, skip_bad_samples=False, cache_dir=None, **options
):
    """Return the `datasets` builder of a source for a folder; nothing is read yet. See `load_multiview`.

    Raises:
        ValueError: on an unknown source, task or option, or without data_dir.
    """
    builder_class, known = source_builder_class(name), source_options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"source {name!r} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}.")
    if name == "synthetic_rooms" and max_views is not None:
        raise ValueError(f"max_views is {max_views}, but rooms are rendered: give num_views.")
    given = {"max_views": max_views, "tasks": (tasks,) if isinstance(tasks, str) else tasks}
    given = {key: tuple(value) if key == "tasks" else value for key, value in given.items() if value is not None}
    if name != "synthetic_rooms":
        if data_dir is None:
            raise ValueError(f"source {name!r} needs data_dir, the folder that holds {builder_class.LAYOUT}.")
        given["skip_bad_samples"] = skip_bad_samples
    data_dir = None if data_dir is None else str(Path(data_dir).absolute())
    return builder_class(
        data_dir=data_dir, cache_dir=None if cache_dir is None else str(cache_dir), **given, **options
    )


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
        raise ValueError(f"split {unknown[0]!r} is not in {builder.config.data_dir}; there are {', '.join(known)}.")


__all__ = ["load_multiview", "open_source", "source_builder_class", "source_options"]
