"""Rows of the schema as parquet: what `gap-mllm data convert` and `gap-mllm data label` write, or `datasets` itself.

Columns are checked in stored_schema.py, what a row says in stored_row_checks.py.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet
from transformers.utils import logging

from ....json_depth import decode_json
from ...former_names import FORMER_NAMES, with_task_names
from ...record_errors import RecordError
from ...schema import TASKS, complete_row
from ...source_builder import SceneSourceBuilder, SourceConfig
from ...source_files import check_depth_mode, find_file, stored_header
from ...stored_frames import stored_picture
from ..parquet_rows import iter_parquet_rows, parquet_errors
from .stored_row_checks import check_stored_row
from .stored_schema import check_columns


logger = logging.get_logger(__name__)

# train.parquet, train-00000-of-00002.parquet, and with the hash that older versions of datasets add
FILE_NAME = re.compile(r"(?P<split>\w+(\.\w+)*)(-(?P<index>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]{16})?)?\.parquet")
ROWS_AT_ONCE = 4  # a row may hold hundreds of pictures


@dataclass
class ParquetConfig(SourceConfig):
    """`SourceConfig`, and where pictures lie that rows name instead of holding them.

    Args:
        media_dir (`str`, *optional*): folder of these pictures; by default data_dir.
    """

    media_dir: str | None = None


class ParquetSource(SceneSourceBuilder):
    """Rows of the schema in parquet files, as `data convert`, `data label`, `to_parquet` and `push_to_hub` write them.

    Every file is `<split>.parquet` or `<split>-00000-of-0000N.parquet`, in the folder or its `data/`; a folder without
    such files is searched one level deeper, so that the labels of many videos are one data set. All shards must be
    there. Rows come back as they were stored, with their own `source` and `split`; pictures inside stay as they are,
    byte for byte, others are looked for below `media_dir`.
    """

    BUILDER_CONFIG_CLASS = ParquetConfig
    DEFAULT_WRITER_BATCH_SIZE = 16  # rows held while they are prepared; pictures are inside
    SOURCE = "parquet"
    TASKS = TASKS
    LAYOUT = "data/<split>-00000-of-0000N.parquet or <split>.parquet, also in folders of their own"

    def find_files(self, root: Path):
        files = _parquet_files(root) or [file for folder in self.subfolders(root) for file in _parquet_files(folder)]
        splits = {}
        for file in files:
            named = FILE_NAME.fullmatch(file.name)
            if named is None:
                problem = "the name says no split; expected <split>.parquet or <split>-00000-of-0000N.parquet."
                raise RecordError(problem, source=self.SOURCE, file=str(file))
            splits.setdefault(named["split"], []).append(file)
        return splits

    def prepare_file(self, split: str, file: Path):
        _refuse_missing_shards(file)
        with parquet_errors(file):
            schema = pyarrow.parquet.read_schema(file)
        check_columns(schema)

    def records(self, file: Path, skip: Callable):
        for index, record in iter_parquet_rows(file, ROWS_AT_ONCE, skip):
            yield record["id"] or f"{file.stem}-{index:07d}", record

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        if self.config.tasks is not None and not self.wants(record["task"]):
            return
        views = [self._view(view, f"views[{index}]") for index, view in enumerate(record["views"] or [])]
        row = complete_row(**{**record, "views": views})
        check_stored_row(row)
        if row["question_type"] in FORMER_NAMES:
            named = with_task_names(row["task"], row["question_type"], decode_json(row["metadata"] or "{}"))
            row = complete_row(**{**row, **named})
        yield row

    def warn_of_missing_views(self, has_video: bool):
        if has_video:
            logger.warning_once(
                f"{self.SOURCE}: rows name a video and have no views; they were converted without max_views. Convert "
                "their source again with max_views=N to store N frames of each video."
            )

    def _view(self, view, field):
        image = self._picture(view["image"], f"{field}.image")
        depth = self._picture(view["depth"], f"{field}.depth", is_depth=True)
        return {**view, "image": image, "depth": depth}

    def _picture(self, picture, field, is_depth=False):
        """A cell as the Image feature stores it, its header read; None stays None."""
        if picture is None:
            return None
        content, path = picture.get("bytes"), picture.get("path")
        if content is None:
            if not path:
                raise RecordError("it holds neither bytes nor a path.", field)
            path = str(self._find(path, field))
        picture = {"bytes": content, "path": path}
        _, mode = stored_header(picture, field)
        if is_depth:
            check_depth_mode(mode, path if content is None else None, field)
        return stored_picture(path) if content is None else picture

    def _find(self, path, field):
        media_dir = os.path.abspath(self.config.media_dir or self.root)
        if os.path.isabs(path):
            relative = os.path.relpath(path, media_dir)
            if relative.split(os.sep)[0] == os.pardir:
                raise RecordError(
                    f"the row names the picture {path}, which is not below {media_dir}. Give media_dir, the folder "
                    "that holds the pictures of these rows.",
                    field,
                )
            path = relative
        return find_file(media_dir, path, field=field)


def _parquet_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet")) + sorted((folder / "data").glob("*.parquet"))


def _refuse_missing_shards(file: Path) -> None:
    """Files of one split must be one whole set: rows would be missing, or come from two conversions."""
    own = FILE_NAME.fullmatch(file.name)
    others = [other for path in file.parent.glob("*.parquet") if (other := FILE_NAME.fullmatch(path.name))]
    same = [other for other in others if other["split"] == own["split"]]
    if len({other["count"] for other in same}) > 1:
        names = ", ".join(sorted(other.string for other in same))
        raise RecordError(f"split {own['split']!r} has files of different sets: {names}. Remove those of one.")
    if own["count"] is not None:
        there = {int(other["index"]) for other in same}
        lacking = [index for index in range(int(own["count"])) if index not in there]
        if lacking:
            names = ", ".join(f"{own['split']}-{index:05d}-of-{own['count']}.parquet" for index in lacking[:4])
            raise RecordError(
                f"{len(lacking)} of {int(own['count'])} shards of split {own['split']!r} are not there: {names}. Is "
                "the download complete?",
                missing=str(file.parent / f"{own['split']}-{lacking[0]:05d}-of-{own['count']}.parquet"),
            )
