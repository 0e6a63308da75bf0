"""Data of any source as sharded parquet with the pictures inside: a folder that `datasets.load_dataset` reads, also
from the Hub and streaming. The text of its README is in dataset_card.py.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow.parquet
from datasets.table import embed_table_storage
from datasets.utils.py_utils import convert_file_size_to_int
from tqdm.auto import tqdm
from transformers.utils import logging

from ..argument_checks import check_output_file, check_output_folder, check_path, check_text
from ..input_checks_gap_mllm import WrongKindError, check_count, check_flag
from .dataset_card import write_dataset_card
from .folder_writing import write_folder
from .loading import load_multiview, source_builder_class
from .picture_checks import PictureChecks
from .record_errors import ReadReport, RecordError
from .schema import scene_features
from .source_builder import warn_of_videos
from .upright_pictures import picture_orientation
from .upright_rows import upright_row


logger = logging.get_logger(__name__)

ROW_GROUP_BYTES = 64_000_000  # of pictures; within a group a picture that many rows share is stored once
MAX_GROUP_ROWS = 1000


@dataclass
class ExportedSplit:
    """What was written of a split.

    Args:
        num_rows (`int`), num_left_out (`int`): rows written, and left out for pictures that cannot be decoded.
        num_without_views (`int`): rows that name a video and hold no pictures.
        num_bytes (`int`): size of the files.
        files (`list[str]`): relative to the folder.
        tasks (`dict[str, int]`): rows of each task.
    """

    num_rows: int
    num_left_out: int
    num_without_views: int
    num_bytes: int
    files: list[str]
    tasks: dict[str, int]


def convert_to_parquet(
    name: str,
    data_dir: str | Path,
    output_dir: str | Path,
    split: str | None = None,
    max_shard_size: int | str = "500MB",
    check_pictures: bool = True,
    license: str | None = None,
    skip_bad_samples: bool = False,
    report_file: str | Path | None = None,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
    refresh: bool = False,
    **options,
) -> dict[str, ExportedSplit]:
    """Write a source as `data/<split>-00000-of-0000N.parquet` with pictures inside, and a dataset card.

    The folder is read by `load_multiview("parquet", output_dir)` and `datasets.load_dataset(output_dir)`, and can be
    uploaded to the Hub as it is; rows and pixels are those of `load_multiview`. Nothing is left behind if it fails;
    what a killed conversion left in the same place is removed by the next.

    Args:
        name (`str`), data_dir (`str` or `Path`, *optional*): arguments of `load_multiview`.
        output_dir (`str` or `Path`): folder to make; it must not exist, or be empty.
        split (`str`, *optional*): split to write, or a part of it as "train[:1000]"; all by default.
        max_shard_size (`int` or `str`, defaults to "500MB"): size of the pictures in a file, before sharing, as
            "500MB".
        check_pictures (`bool`, defaults to True): decode every picture first, once; else broken ones are copied as
            they are.
        license (`str`, *optional*): identifier for the card; by default what is known of the source's.
        skip_bad_samples (`bool`, defaults to False): leave bad records out, and rows with a picture that cannot be
            decoded.
        report_file (`str` or `Path`, *optional*): lists what was left out and what is marked, see `read_report`; by
            default `<output_dir>.report.jsonl`, if there is anything to list.
        cache_dir (`str` or `Path`, *optional*): where the data is prepared; by default a temporary folder.
        num_proc (`int`, *optional*), refresh (`bool`, defaults to False), **options: arguments of `load_multiview`.
    Returns:
        `dict[str, ExportedSplit]`.
    Raises:
        FileExistsError: if `output_dir` holds something, or another process is writing it or has written it meanwhile.
        RecordError: for a bad record or picture, without `skip_bad_samples`.
        TypeError, ValueError, OSError: as `load_multiview`; ValueError also on a sum of splits, a size that is none, a
            report inside `output_dir`, or if there are no rows.
    """
    if split is not None and "+" in check_text("split", split, 'the name of a split, as "train"'):
        raise ValueError(f"split is {split!r}; give one split, or none to convert all.")
    output_dir, split_name = check_path("output_dir", output_dir, "the folder to make"), split and split.split("[")[0]
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"output_dir {output_dir} is there already and not empty; give another one.")
    check_output_folder("output_dir", output_dir)
    default_report = f"{output_dir}.report.jsonl"
    report_file = check_output_file("report_file", default_report if report_file is None else report_file)
    if output_dir.absolute() in report_file.absolute().parents:
        raise ValueError(f"report_file {report_file} is inside output_dir {output_dir}; give another place.")
    _size_in_bytes(max_shard_size)
    check_flag("check_pictures", check_pictures)
    check_flag("skip_bad_samples", skip_bad_samples)
    if license is not None:
        check_text("license", license, "the identifier of a licence, as the Hub has it")
    if num_proc is not None:
        check_count("num_proc", num_proc)
    with write_folder(output_dir) as scratch:
        report_file.unlink(missing_ok=True)
        options = options if name == "synthetic_rooms" else {**options, "report_file": report_file}
        rows = load_multiview(
            name,
            data_dir,
            split,
            skip_bad_samples=skip_bad_samples,
            cache_dir=cache_dir or scratch / "cache",
            num_proc=num_proc,
            refresh=refresh,
            **options,
        )
        splits = {split_name: rows} if split else rows
        report = ReadReport(report_file) if skip_bad_samples else None
        written = write_parquet(splits, scratch / "result", max_shard_size, check_pictures, report)
        write_dataset_card(scratch / "result", name, source_builder_class(name), written, license)
    if report_file.is_file() and not report_file.stat().st_size:
        report_file.unlink()
    return written


def write_parquet(
    splits: dict,
    output_dir: str | Path,
    max_shard_size: int | str = "500MB",
    check_pictures: bool = True,
    report: ReadReport | None = None,
) -> dict[str, ExportedSplit]:
    """Write splits of the schema as parquet files with their pictures inside; empty ones are left out.

    Rows of pictures that EXIF says to turn are turned upright with them, see `upright_row`.

    Args:
        splits (`dict[str, datasets.Dataset]`): rows of each split, with the features of `scene_features`.
        output_dir (`str` or `Path`): `data/` is made in it.
        max_shard_size (`int` or `str`, defaults to "500MB"), check_pictures (`bool`, defaults to True): see
            `convert_to_parquet`.
        report (`ReadReport`, *optional*): rows with a picture that cannot be decoded, or not turned upright, are left
            out and listed there.
    Returns:
        `dict[str, ExportedSplit]`.
    Raises:
        RecordError: for a picture that cannot be decoded, or a row that cannot be turned, without `report`.
        TypeError: if `max_shard_size` is neither text nor integer.
        ValueError: if no split has rows, `max_shard_size` is no positive size, or features are others.
    """
    limit = _size_in_bytes(max_shard_size)
    checks, written = PictureChecks() if check_pictures else None, {}
    for split, rows in splits.items():
        if rows.features != scene_features():
            raise ValueError(f"split {split!r} has other features than scene_features().")
        kept, sizes, left_out, turned = _look_through(rows, split, checks, report)
        if kept:
            shards = list(_divide(kept, sizes, limit))
            names = [f"data/{split}-{index:05d}-of-{len(shards):05d}.parquet" for index in range(len(shards))]
            with tqdm(total=len(kept), desc=f"Writing {split}", unit=" rows") as progress:
                for file, shard in zip(names, shards, strict=True):
                    _write_shard(rows, shard, sizes, turned, Path(output_dir) / file, progress)
            written[split] = _describe(rows, kept, left_out, output_dir, names)
        else:
            logger.warning(f"split {split!r} has no rows to write ({left_out} were left out).")
    if not written:
        raise ValueError("there are no rows to write.")
    return written


def _size_in_bytes(max_shard_size) -> int:
    """500_000_000 of "500MB"."""
    expected = 'expected a positive number of bytes, or a whole number with a unit, as "500MB"'
    if isinstance(max_shard_size, bool) or not isinstance(max_shard_size, int | str):
        raise WrongKindError(f"max_shard_size is {max_shard_size!r}; {expected}.")
    try:
        size = convert_file_size_to_int(max_shard_size)
    except ValueError:
        size = 0
    if size < 1:
        raise ValueError(f"max_shard_size is {max_shard_size!r}; {expected}.")
    return size


def _look_through(rows, split, checks, report):
    """Indices of the rows to write, the bytes of the pictures of all rows, how many are left out, which are turned."""
    kept, sizes, left_out, turned = [], [], 0, set()
    file_sizes = {}
    for index, row in enumerate(_stored_rows(rows, f"Checking {split}")):
        errors = checks.errors(row) if checks else []
        size = 0
        if not errors:
            try:
                pictures = [view[name] for view in row["views"] for name in ("image", "depth")]
                size = sum(_picture_size(picture, file_sizes) for picture in pictures if picture is not None)
                if not all(picture_orientation(picture).is_upright for picture in pictures):
                    upright_row(_stored_row(rows, index))  # raises for one that cannot be turned
                    turned.add(index)
            except RecordError as error:
                errors = [error.locate(row["source"], None, row["id"])]
        if errors and report is None:
            raise errors[0]
        for error in errors[:1]:
            report.skip(error)
        left_out += bool(errors)
        sizes.append(size)
        if not errors:
            kept.append(index)
    return kept, sizes, left_out, turned


def _stored_row(rows, index):
    return rows.with_format("arrow")[index].to_pylist()[0]


def _stored_rows(rows, text):
    """Rows with pictures as they are stored, not decoded."""
    columns = rows.select_columns(["id", "source", "views"]).with_format("arrow")
    with tqdm(total=len(rows), desc=text, unit=" rows") as progress:
        for table in columns.iter(batch_size=1):  # a row may hold hundreds of pictures
            for row in table.to_pylist():
                yield row
                progress.update()


def _picture_size(picture, file_sizes):
    if picture["bytes"] is not None:
        return len(picture["bytes"])
    path = picture["path"]
    if path not in file_sizes:
        if not os.path.isfile(path):
            raise RecordError(f"the picture {path} is not there.", "views", missing=path)
        file_sizes[path] = os.path.getsize(path)
    return file_sizes[path]


def _write_shard(rows, shard, sizes, turned, file, progress):
    file.parent.mkdir(parents=True, exist_ok=True)
    # Pictures are long, so the usual bound of a dictionary would end it after a few of them.
    settings = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "write_page_index": True}
    with pyarrow.parquet.ParquetWriter(file, scene_features().arrow_schema, **settings) as writer:
        for group in _divide(shard, sizes, ROW_GROUP_BYTES, MAX_GROUP_ROWS):
            writer.write_table(embed_table_storage(_group_table(rows, group, turned)))
            progress.update(len(group))


def _group_table(rows, group, turned):
    """Rows as a table, with those turned upright whose pictures EXIF says to turn."""
    if turned.isdisjoint(group):
        return rows.with_format("arrow")[group]
    upright = [upright_row(_stored_row(rows, index)) for index in group]
    return datasets.Dataset.from_list(upright, features=scene_features()).data.table


def _divide(rows, sizes, limit, most=None):
    """Rows in their order, in groups of as many as `limit` bytes and `most` rows allow, at least one."""
    group, filled = [], 0
    for index in rows:
        if group and (filled + sizes[index] > limit or len(group) == most):
            yield group
            group, filled = [], 0
        group.append(index)
        filled += sizes[index]
    yield group


def _describe(rows, kept, left_out, output_dir, names):
    facts = rows.select_columns(["task", "views", "video"]).with_format("arrow")
    tasks, num_without_views = Counter(), 0
    for table in facts.select(kept).iter(batch_size=1000):
        tasks.update(table["task"].to_pylist())
        lengths, videos = table["views"].combine_chunks().value_lengths().to_pylist(), table["video"].to_pylist()
        num_without_views += sum(
            video is not None and not length for length, video in zip(lengths, videos, strict=True)
        )
    if num_without_views:
        warn_of_videos(rows.select_columns("source")[kept[0]]["source"])
    num_bytes = sum((Path(output_dir) / name).stat().st_size for name in names)
    return ExportedSplit(len(kept), left_out, num_without_views, num_bytes, names, tasks)
