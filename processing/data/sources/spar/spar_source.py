"""SPAR-7M (with or without depth and cameras) and SPAR-Bench: spatial questions with coloured marks on the pictures.

Marks are stored as coordinates, see spar_marks.py; `SceneSample.marked_images` draws them. The pictures of SPAR-Bench
come with their marks painted in.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers.utils import logging

from ...read_log import TrackedPath
from ...record_errors import RecordError
from ...source_builder import SceneSourceBuilder, SourceConfig
from ...source_files import find_file, iter_records, read_json
from ..chat.conversations import split_of
from ..parquet_rows import embedded_view, iter_parquet_rows
from ..wordings import bench_prompt
from .spar_questions import check_view_limit, spar_answer, spar_fields


logger = logging.get_logger(__name__)

RELEASES = ("7m", "bench")


@dataclass
class SparConfig(SourceConfig):
    """`SourceConfig`, and which of SPAR's files are read.

    Args:
        release (`str`, *optional*): "7m" or "bench"; by default what data_dir holds.
        index (`str`, *optional*): an index of SPAR-7M below data_dir, as "data_jsons/scannet_7799k.json", to read only
            the files that it lists. By default all of `qa_jsonl`, or where that is not there all of `data_jsons`.
        media_dir (`str`, *optional*): folder with the pictures' scenes; by default what the index says, or `images`
            beside `qa_jsonl`.
        cameras (`bool`, defaults to True): read pose, intrinsics and depth where they are known (SPAR-7M-RGBD, its
            ScanNet part).
    Raises:
        ValueError: on another `release`.
    """

    CHOICES = {"release": (None, *RELEASES)}

    release: str | None = None
    index: str | None = None
    media_dir: str | None = None
    cameras: bool = True


class SparSource(SceneSourceBuilder):
    """SPAR-7M: `spar/<part>/{images,qa_jsonl}`, or `data_jsons/*.json`. SPAR-Bench: `data/*.parquet`, split "test".

    `repeat_time` of an index is kept in metadata: rows are not repeated. The number in the name of a file of questions
    is how many it should hold; another number is warned of and marked as "row_count". Records without a known type are
    refused, since their text may speak of marks that nobody could see. `max_views` thins videos only.
    """

    BUILDER_CONFIG_CLASS = SparConfig
    SOURCE = "spar"
    TASKS = ("spatial_qa",)
    LAYOUT = "spar/<part>/qa_jsonl and images, data_jsons/*.json, or SPAR-Bench's data/*.parquet"

    def find_files(self, root: Path):
        release = self.config.release
        files = [] if release == "bench" else (self.tree_files or list(self.index_entries))
        if not files and release != "7m":
            files = sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")])
        if not files and release != "bench":
            files = sorted(root.glob("*.jsonl"))
        splits = sorted({spar_split(file) for file in files})
        return {split: [file for file in files if spar_split(file) == split] for split in splits}

    @cached_property
    def tree_files(self) -> list[Path]:
        """All files of questions in SPAR-7M's tree; none if an index was asked for."""
        if self.config.index is not None:
            return []
        folders = [folder for pattern in ("", "*/", "spar/*/") for folder in self.root.glob(f"{pattern}qa_jsonl")]
        return sorted({file for folder in folders for file in self.files_below(folder, ".jsonl")})

    @cached_property
    def index_entries(self) -> dict[Path, dict]:
        """What the index files say of each file of questions; empty where the whole tree is read."""
        if self.tree_files:
            return {}
        if self.config.index is not None:
            indexes = [find_file(self.root, self.config.index, field="index")]
        else:
            indexes = sorted(self.root.glob("data_jsons/*.json"))
        entries = {}
        for index in indexes:
            content = read_json(index)
            if not isinstance(content, dict):
                raise RecordError("expected {name: {root, annotation, ..}}.", source=self.SOURCE, file=str(index))
            for name, entry in content.items():
                try:
                    annotation = find_file(self.root, entry["annotation"], dropped=("spar/",), field="annotation")
                except (KeyError, TypeError):
                    raise RecordError(
                        "expected root and annotation.", source=self.SOURCE, file=str(index), record_id=name
                    ) from None
                except RecordError as error:
                    raise error.locate(self.SOURCE, index, name) from None
                entries[annotation] = entry
        return entries

    def records(self, file: Path, skip: Callable):
        if file.suffix == ".parquet":
            yield from ((f"{file.stem}-{index:07d}", record) for index, record in iter_parquet_rows(file, skip=skip))
            return
        count = 0
        for index, record in iter_records(file, skip):
            count += 1
            yield f"{file.stem}-{index:07d}", record
        expected = re.fullmatch(r"[a-z]+_(\d+)", file.stem) if TreePlace.of(file) is not None else None
        if expected and int(expected[1]) != count:
            detail = f"{count} records, {expected[1]} by the name of the file"
            logger.warning(f"{file}: {detail}. Is the download complete?")
            self.mark("row_count", file, detail=detail)

    def prepare_file(self, split: str, file: Path):
        place, entry = TreePlace.of(file), self.index_entries.get(file, {})
        if self.config.media_dir is not None:
            media = TrackedPath(self.config.media_dir)
        elif entry.get("root"):
            media = find_file(self.root, entry["root"], dropped=("spar/",), field="root")
        else:
            media = place.images if place is not None else self.root
        extra = {key: entry[key] for key in ("repeat_time", "length") if key in entry}
        if place is not None:
            extra |= {"part": place.part, "answer_format": place.answer_format}
        prefix = file.stem if place is None else f"{place.part}-{place.task}-{file.stem}"
        return media, prefix, extra

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        if not self.wants("spatial_qa"):
            return
        if file.suffix == ".parquet":
            yield self._bench_row(record_id, record)
        else:
            yield self._row(file, record_id, record, *context)

    def _row(self, file, record_id, record, media, prefix, extra):
        fields = spar_fields(
            record,
            record,
            record.get("image"),
            "image",
            media,
            self.config.max_views,
            with_camera=self.config.cameras,
            on_lost=lambda pose: self.mark("lost_tracking", file, record_id, str(pose)),
        )
        number = fields["metadata"].pop("id", None)
        return {
            **fields,
            "id": record_id if number is None else f"{prefix}-{number}",
            "metadata": fields["metadata"] | extra,
            **spar_answer(fields["question"], fields["answer"], extra.get("answer_format")),
        }

    def _bench_row(self, record_id, record):
        pictures, task, question = record["image"], record["task"], record["question"]
        check_view_limit(task, len(pictures), self.config.max_views)
        used = {"id", "image", "answer", "task"}
        return {
            "id": str(record["id"]) if record.get("id") is not None else record_id,
            "task": "spatial_qa",
            "views": [embedded_view(picture, f"image[{index}]") for index, picture in enumerate(pictures)],
            "question": bench_prompt(question, task, record["format_type"]),
            "answer": record["answer"],
            "references": [record["answer"]],
            "question_type": task,
            "metadata": {key: value for key, value in record.items() if key not in used},
            **spar_answer(question, record["answer"], record["format_type"]),
        }


@dataclass(frozen=True)
class TreePlace:
    """Where a file of questions stands: `<part>/qa_jsonl/<split>/<task>/<answer format>/<file>`, pictures beside."""

    part: str
    split: str
    task: str
    answer_format: str
    images: Path

    @classmethod
    def of(cls, file: Path) -> "TreePlace | None":
        """The place of a file; None if it stands elsewhere."""
        if len(file.parts) < 6 or file.parts[-5] != "qa_jsonl":
            return None
        part, _, split, task, answer_format = file.parts[-6:-1]
        return cls(part, split, task, answer_format, file.parents[4] / "images")


def spar_split(file: Path) -> str:
    """The split that a path says: SPAR-Bench is "test", everything that says nothing "train"."""
    place = TreePlace.of(file)
    if place is not None or file.suffix == ".parquet":
        return "test" if place is None else place.split
    return split_of(file)
