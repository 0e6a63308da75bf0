"""`load_multiview`: any source of public multi-view 3D data by its name, in the one schema."""

from collections import Counter
from importlib import import_module
from pathlib import Path

import datasets
from transformers.utils import logging

from .record_errors import read_report
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
        split (`str`, *optional*): None gives all splits as a dict.
        streaming (`bool`): read rows as they are asked for, without a cache; the rows are the same.
        tasks (`list[str]`, *optional*): only rows of these tasks.
        max_views (`int`, *optional*): at most this many views a row, see `SourceConfig`.
        skip_bad_samples (`bool`): leave bad records out and list them in `report_file` instead of raising.
        report_file (`str` or `Path`, *optional*): one JSON line for each event; by default beside the cached data.
        cache_dir (`str` or `Path`, *optional*), num_proc (`int`, *optional*): of `datasets`.
        refresh (`bool`): read the files again.
        **options: of the source's own config.
    Returns:
        `datasets.Dataset` or `IterableDataset`, or a dict of them without `split`.
    Raises:
        ValueError: on an unknown source, split or task.
        FileNotFoundError: if data_dir does not hold the source.
        RecordError: for a bad record, with source, file, record id and field (strict reading).
    """
    builder_class = source_builder_class(name)
    given = {"tasks": None if tasks is None else tuple(tasks), "max_views": max_views}
    given = {key: value for key, value in given.items() if value is not None}
    if name != "synthetic_rooms":
        if data_dir is None:
            raise ValueError(f"source {name!r} needs data_dir, the folder that holds {builder_class.LAYOUT}.")
        given["skip_bad_samples"] = skip_bad_samples
    data_dir = None if data_dir is None else str(Path(data_dir).absolute())
    builder = builder_class(
        data_dir=data_dir, cache_dir=None if cache_dir is None else str(cache_dir), **given, **options
    )
    if name != "synthetic_rooms":
        report = Path(report_file) if report_file else Path(f"{builder.cache_dir.rstrip('/')}.report.jsonl")
        report.parent.mkdir(parents=True, exist_ok=True)
        builder.config.report_file = str(report)
    if streaming:
        _start_report(builder)
        _known_split(builder, split)
        return builder.as_streaming_dataset(split=split)
    mode = "force_redownload" if refresh else "reuse_dataset_if_exists"
    if refresh or not Path(builder.cache_dir).exists():
        _start_report(builder)
    try:
        builder.download_and_prepare(download_mode=mode, num_proc=num_proc)
    except datasets.exceptions.DatasetGenerationError as error:
        raise (error.__cause__ or error) from None  # what is wrong with the data, not that something is
    _log_report(builder)
    _known_split(builder, split)
    if split is None:
        return datasets.DatasetDict({name: _prepared_split(builder, name) for name in builder.info.splits})
    return _prepared_split(builder, split)


def _prepared_split(builder, split):
    """A split; an empty one, which datasets does not know, where every record was left out or of another task."""
    info = builder.info.splits.get(split)
    if info is not None and info.num_examples == 0:
        empty = {field: [] for field in builder.info.features}
        return datasets.Dataset.from_dict(empty, features=builder.info.features, split=split)
    return builder.as_dataset(split=split)


def _start_report(builder):
    path = getattr(builder.config, "report_file", None)
    if path:
        Path(path).unlink(missing_ok=True)


def _log_report(builder):
    path = getattr(builder.config, "report_file", None)
    events = Counter(event["event"] for event in read_report(path)) if path else {}
    if events:
        counts = ", ".join(f"{count} {name}" for name, count in events.items())
        logger.warning(f"{builder.SOURCE}: {counts}; listed in {path}.")


def _known_split(builder, split):
    """Refuse a split that the source does not have, before datasets does so obscurely."""
    if split is None:
        return
    known = list(builder.info.splits or {})
    if known and split.split("[")[0] not in known:
        raise ValueError(f"split {split!r} is not in {builder.config.data_dir}; there are {', '.join(known)}.")


__all__ = ["load_multiview", "source_builder_class"]
