"""`load_multiview`: any source of public multi-view 3D data by its name, in the one schema."""

import dataclasses
import shutil
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import datasets
import pyarrow.compute
from transformers.utils import logging

from ..argument_checks import check_kinds, check_output_file, check_output_folder, check_path, check_text
from ..input_checks_gap_mllm import WrongKindError, check_count, check_flag, find_half
from .prepared_source import prepare_once
from .record_errors import RecordError, read_report
from .source_builder import SourceConfig, hash_id
from .sources import RENDERED, SOURCES


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
        raise ValueError(f"unknown source {name!r}; known are {', '.join([*SOURCES, *RENDERED])}.")
    return _named_class(SOURCES[name])


def _named_class(place):
    module, class_name = place
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
    if name in RENDERED:
        return {
            field.name: field for field in dataclasses.fields(_named_class(RENDERED[name])) if field.name != "split"
        }
    shared = {field.name for base in (datasets.BuilderConfig, SourceConfig) for field in dataclasses.fields(base)}
    fields = dataclasses.fields(source_builder_class(name).BUILDER_CONFIG_CLASS)
    return {field.name: field for field in fields if field.name not in shared}


def load_multiview(
    name: str,
    data_dir: str | Path | None = None,
    split: str | None = None,
    streaming: bool = False,
    tasks: list[str] | None = None,
    max_views: int | None = None,
    skip_bad_samples: bool = False,
    report_file: str | Path | None = None,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
    refresh: bool = False,
    **options,
) -> datasets.Dataset | datasets.IterableDataset | datasets.DatasetDict | datasets.IterableDatasetDict:
    """Load a source of multi-view 3D data; every row has the fields of `scene_features`.

    Pictures stay files in `data_dir` and are decoded on access. Each split is prepared when it is first asked for and
    cached by `datasets`, until something that was looked at for it is another (a file by its size and times, those of
    records by their content, too; a folder by the names in it; what was missing by being there) or the code that reads
    it is. Then it is prepared anew, in the place of the old.
    Rows that name a video have views with `max_views` only, rows about ScanNet scenes only where its frames are found;
    once for each source a warning says so (but for "vsibench", whose videos `gap-mllm evaluate` reads itself).

    Args:
        name (`str`): a key of `SOURCES`, as "scannet" or "gap_mllm"; "synthetic_rooms" takes no data_dir. Of
            "rendered_rooms" a split is given as a sequence of scenes that are rendered when asked for, with the
            options of `RenderedRooms`; nothing is prepared.
        data_dir (`str` or `Path`, *optional*): folder with the layout that the source has when it is downloaded.
        split (`str`, *optional*): None gives all splits as a dict. Prepared data takes "train[:100]" and "train+val",
            too.
        streaming (`bool`, defaults to False): read rows as they are asked for, without a cache; the rows are the same.
        tasks (`list[str]`, *optional*): tasks whose rows are read; all by default.
        max_views (`int`, *optional*): most views of a row, see `SourceConfig`; all by default.
        skip_bad_samples (`bool`, defaults to False): leave bad records out and list them in `report_file` instead of
            raising.
        report_file (`str` or `Path`, *optional*): written with one JSON line for each event, see `read_report`; by
            default beside the cached data.
        cache_dir (`str` or `Path`, *optional*), num_proc (`int`, *optional*): cache and processes of `datasets`; each
            process reads whole files. Streaming is by one process.
        refresh (`bool`, defaults to False): read the files again in any case.
        **options: options of the source's own config.
    Returns:
        `datasets.Dataset` or `IterableDataset`, or a dict of them without `split`.
    Raises:
        TypeError: if an argument or option is of another kind.
        ValueError: on an unknown source, split, task or option, or a value out of range.
        FileNotFoundError: if data_dir does not hold the source.
        IsADirectoryError, NotADirectoryError: if report_file or cache_dir cannot be written to.
        RecordError: for a bad record, with source, file, record id and field (strict reading).

    Example:
        ```python
        >>> import json
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from gap_mllm.processing.data import load_multiview
        >>> Image.new("RGB", (64, 48)).save("room.jpg")
        >>> turns = [{"from": "human", "value": "<image>How many chairs are there?"}, {"from": "gpt", "value": "Two."}]
        >>> records = [{"id": "1", "image": "room.jpg", "conversations": turns}]
        >>> written = Path("train.json").write_text(json.dumps(records))
        >>> rows = load_multiview("chat", data_dir=".", split="train", cache_dir="cache")
        >>> rows[0]["task"], rows[0]["answer"], rows[0]["views"][0]["image"].size
        ('spatial_qa', 'Two.', (64, 48))

        ```
    """
    if isinstance(name, str) and name in RENDERED:
        given = {"data_dir": data_dir, "tasks": tasks, "max_views": max_views, "report_file": report_file}
        given |= {"streaming": streaming or None, "num_proc": num_proc}
        return _render(name, split, [option for option, value in given.items() if value is not None], options)
    streaming, refresh = check_flag("streaming", streaming), check_flag("refresh", refresh)
    if split is not None:
        check_text("split", split, 'the name of a split, as "train"')
    if report_file is not None:
        report_file = check_output_file("report_file", report_file)
    if num_proc is not None and check_count("num_proc", num_proc) > 1 and streaming:
        raise ValueError(f"num_proc is {num_proc}, but rows are streamed by one process; leave one of the two out.")
    source = {"name": name, "data_dir": data_dir, "tasks": tasks, "max_views": max_views, **options}
    source |= {"skip_bad_samples": skip_bad_samples, "cache_dir": cache_dir}
    if streaming:
        builder = open_source(**source)
        _set_report(builder, report_file or Path(f"{builder.cache_dir.rstrip('/')}.streamed.jsonl"), is_new=True)
        builder.warns_of_missing_views = name not in READ_WHEN_ASKED
        return builder.as_streaming_dataset(split=split)
    try:
        reports = []
        splits = _load_splits(source, split, num_proc, refresh, reports, report_file)
    finally:
        if report_file is not None:
            _join_reports(reports, report_file)
    if split is None:
        return datasets.DatasetDict(splits)
    parts = _parts(split)
    chosen = [splits[part] for part in parts]
    if len(chosen) == 1:
        return chosen[0]
    return datasets.concatenate_datasets(chosen, info=chosen[0].info, split=datasets.NamedSplit("+".join(parts)))


def open_source(
    name: str,
    data_dir: str | Path | None = None,
    tasks: Sequence[str] | None = None,
    max_views: int | None = None,
    skip_bad_samples: bool = False,
    cache_dir: str | Path | None = None,
    only_split: str | None = None,
    **options,
):
    """Return the `datasets` builder of a source for a folder; nothing is read yet. See `load_multiview`.

    Args:
        only_split (`str`, *optional*): the builder prepares this split alone, into a folder of its own.

    Raises:
        TypeError: if an argument or option is of another kind.
        ValueError: on an unknown source, task or option, without data_dir, with one that is no text, or with one for
            rendered rooms.
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
        if find_half(data_dir) is not None:
            raise ValueError(
                f"data_dir {data_dir!a} holds bytes that are no text, which rows cannot store; set PYTHONUTF8=1 where "
                "they are UTF-8, else rename the folder or give a link to it."
            )
        given["skip_bad_samples"] = check_flag("skip_bad_samples", skip_bad_samples)
    check_kinds(builder_class.BUILDER_CONFIG_CLASS, options)
    cache_dir = None if cache_dir is None else str(check_output_folder("cache_dir", cache_dir))
    builder = builder_class(data_dir=data_dir, cache_dir=cache_dir, hash=only_split, **given, **options)
    builder.only_split = only_split
    return builder


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


def _load_splits(source, split, num_proc, refresh, reports, report_file):
    """Rows of each part of `split`, as "train" or "val[:100]", or of all splits; `reports` gets the files written."""
    builder = open_source(**source)
    known = builder.split_names()
    parts = known if split is None else _parts(split)
    unknown = [part for part in parts if _split_name(part) not in known]
    if unknown:
        place = builder.config.data_dir or "the source"
        raise ValueError(f"split {unknown[0]!r} is not in {place}; there are {', '.join(known)}.")
    opened = {}
    for name in dict.fromkeys(_split_name(part) for part in parts):
        builder = open_source(**source, only_split=name)
        report = Path(f"{builder.cache_dir.rstrip('/')}.report.jsonl")
        reports.append(report)
        wanted = [part for part in parts if _split_name(part) == name]
        opened |= zip(wanted, _prepared_rows(builder, wanted, report, num_proc, refresh), strict=True)
        _log_report(builder, report, report_file or report)
    if source["name"] not in READ_WHEN_ASKED:
        _warn_of_missing_views(builder, opened.values())
    return opened


def _render(name, split, useless, options):
    """A source that makes its scenes when they are asked for."""
    known = source_options(name)
    unknown = [*useless, *(option for option in options if option not in known)]
    if unknown:
        raise ValueError(f"{name} takes no {', '.join(unknown)}; its options are split, {', '.join(known)}.")
    return _named_class(RENDERED[name])(split=split or "train", **options)


def _parts(split):
    """ "train[:100]" and "val" of "train[:100]+val"."""
    return [part.strip() for part in split.split("+")]


def _split_name(part):
    """ "train" of "train[:100]"."""
    return part.split("[")[0].strip()


def _prepared_rows(builder, parts, report, num_proc, refresh):
    """Rows of parts of a builder's one split, as "train[:100]", prepared before if need be."""

    def prepare(mode: str):
        _set_report(builder, report, is_new=True)
        try:
            # no_checks: there may be more rows than were prepared before
            builder.download_and_prepare(download_mode=mode, num_proc=num_proc, verification_mode="no_checks")
        except datasets.exceptions.DatasetGenerationError as error:
            raise _what_is_wrong(error, report) from None
        if num_proc is not None and num_proc > 1:
            _refuse_duplicates(builder)

    return prepare_once(builder, refresh, prepare, lambda: [_open_part(builder, part) for part in parts])


def _refuse_duplicates(builder):
    """Find ids that are there twice in files which different processes read."""
    seen, split = set(), builder.only_split
    for row_id in _open_part(builder, split)["id"]:
        key = hash_id(row_id)
        if key in seen:
            shutil.rmtree(builder.cache_dir)
            raise RecordError(
                f"the id {row_id!r} is there twice in split {split!r}. Read with num_proc=1 to see in which file.",
                "id",
                builder.SOURCE,
            )
        seen.add(key)


def _open_part(builder, part):
    """A split or slice; an empty one, which datasets does not know, where all records were left out or are of other
    tasks."""
    info = builder.info.splits.get(builder.only_split)
    if info is not None and info.num_examples == 0:
        empty = {field: [] for field in builder.info.features}
        return datasets.Dataset.from_dict(empty, features=builder.info.features, split=part)
    return builder.as_dataset(split=part)


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


def _join_reports(paths, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    texts = [path.read_text(encoding="utf-8") for path in paths if path.is_file()]
    file.write_text("".join(texts), encoding="utf-8")


def _log_report(builder, path, listed_in):
    events = Counter(event["event"] for event in read_report(path))
    if events:
        counts = ", ".join(f"{count} {name}" for name, count in events.items())
        logger.warning(f"{builder.SOURCE}: {counts}; listed in {listed_in}.")
