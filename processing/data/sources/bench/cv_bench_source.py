"""CV-Bench: multiple choice on single pictures, counts and relations in 2D, depth and distance in 3D.

The real files were not at hand. Their names, and that the older release is one file, are those of the data set's pages
on the Hub; the columns and their values are those of a printed row, and of what lmms-eval and VG-LLM read. Unread
columns (bbox, target_class, target_size) are kept as they are.
"""

from dataclasses import dataclass
from pathlib import Path

from ...record_errors import RecordError
from ...source_builder import SourceConfig
from ..wordings import LETTER_STYLES
from .multiple_choice import MultipleChoiceSource, lettered, right_letter


FILE_PATTERNS = ("test_2d*.parquet", "test_3d*.parquet"), ("test*.parquet",)
TASKS = ("Count", "Relation", "Depth", "Distance")
PICTURE_SETS = ("ADE20K", "COCO", "Omni3D")


@dataclass
class CvBenchConfig(SourceConfig):
    """`SourceConfig`, and how questions are asked.

    Args:
        prompt_style (`str`, defaults to "vgllm"): "vgllm" (options below each other, as VSI-Bench has them) or "lmms"
            (the prompt of the file behind a note).
    Raises:
        ValueError: on another `prompt_style`.
    """

    CHOICES = {"prompt_style": LETTER_STYLES}

    prompt_style: str = "vgllm"


class CvBenchSource(MultipleChoiceSource):
    """CV-Bench as downloaded: `test_2d.parquet` and `test_3d.parquet`, or the older `test.parquet`. Split "test".

    The pictures are in the files, with the boxes that questions speak of painted in. The question of a row is the
    whole prompt; the bare question, and of which picture set (`source`) it is, stay in metadata. Questions about one
    picture share their scene.
    """

    BUILDER_CONFIG_CLASS = CvBenchConfig
    SOURCE = "cv_bench"
    USED_KEYS = frozenset({"image", "task", "answer", "choices"})
    LAYOUT = "test_2d.parquet and test_3d.parquet, or test.parquet"
    LICENSE = "apache-2.0"

    def find_files(self, root: Path):
        for patterns in FILE_PATTERNS:
            found = [file for pattern in patterns for file in sorted(root.glob(pattern))]
            if found:
                return {"test": found}
        return {}

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        task, picture_set, options = record["task"], record["source"], lettered(record["choices"])
        for field, value, known in (("task", task, TASKS), ("source", picture_set, PICTURE_SETS)):
            if value not in known:
                raise RecordError(f"expected one of {', '.join(known)}, got {value!r}.", field)
        name = record.get("filename")
        yield self.choice_row(
            record,
            {"image": record["image"]},
            options,
            right_letter(record["answer"], len(options)),
            task,
            name,
            id=f"{record['type']}-{record['idx']}",  # each part may count from 0
            scene_id=f"{picture_set}/{record.get('source_filename') or name or record_id}",
        )
