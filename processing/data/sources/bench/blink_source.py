"""BLINK: fourteen tasks of visual perception as multiple choice on one to four pictures.

The real files were not at hand. Folders and file names are those of the data set's pages on the Hub; the columns are
those of its card as others cite it, and of what lmms-eval, HELM and VG-LLM read; that answers of the test split are
the word "hidden" is what users report.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...record_errors import RecordError
from ...source_builder import SourceConfig
from ..wordings import LETTER_STYLES
from .multiple_choice import MultipleChoiceSource, lettered, right_letter


SUBTASKS = (
    "Art_Style",
    "Counting",
    "Forensic_Detection",
    "Functional_Correspondence",
    "IQ_Test",
    "Jigsaw",
    "Multi-view_Reasoning",
    "Object_Localization",
    "Relative_Depth",
    "Relative_Reflectance",
    "Semantic_Correspondence",
    "Spatial_Relation",
    "Visual_Correspondence",
    "Visual_Similarity",
)
SPLITS = ("val", "test")
HIDDEN = "hidden"
PICTURE_KEYS = tuple(f"image_{number}" for number in range(1, 5))


@dataclass
class BlinkConfig(SourceConfig):
    """`SourceConfig`, which tasks are read, and how questions are asked.

    Args:
        subtasks (`tuple[str, ...]`, *optional*): entries of `SUBTASKS`; all by default.
        prompt_style (`str`, defaults to "vgllm"): "vgllm" (the prompt of the file, then a line that asks for the
            letter) or "lmms" (a note, then the prompt).
    Raises:
        ValueError: on another `prompt_style` or task.
    """

    CHOICES = {"prompt_style": LETTER_STYLES}

    subtasks: tuple[str, ...] | None = None
    prompt_style: str = "vgllm"

    def __post_init__(self):
        super().__post_init__()
        for name in self.subtasks or ():
            if name not in SUBTASKS:
                raise ValueError(f"subtasks names {name!r}; expected some of {', '.join(SUBTASKS)}.")


class BlinkSource(MultipleChoiceSource):
    """BLINK as it is downloaded: a folder a task with `val-*.parquet` and `test-*.parquet`.

    The pictures are in the files, with the circles that questions speak of painted in; their order is kept. The
    question type is the folder's name. Answers of "test" are not published: rows without answer.
    """

    BUILDER_CONFIG_CLASS = BlinkConfig
    SOURCE = "blink"
    USED_KEYS = frozenset({*PICTURE_KEYS, "idx", "answer", "choices"})
    LAYOUT = "<task>/{val,test}-*.parquet, such as Relative_Depth/val-00000-of-00001.parquet"
    LICENSE = "apache-2.0"

    def find_files(self, root: Path):
        wanted = self.config.subtasks or SUBTASKS
        return {
            split: [file for name in wanted for file in sorted(root.glob(f"{name}/{split}-*.parquet"))]
            for split in SPLITS
        }

    def records(self, file: Path, skip: Callable):
        yield from ((f"{file.parent.name}-{record_id}", record) for record_id, record in super().records(file, skip))

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        options, answer, name = lettered(record["choices"]), record["answer"], file.parent.name
        letter = None if answer == HIDDEN and split == "test" else right_letter(answer, len(options))
        shown = [key for key in PICTURE_KEYS if record.get(key) is not None]
        if not shown:
            raise RecordError("the question has no picture.", PICTURE_KEYS[0])
        pictures = {key: record[key] for key in shown}
        yield self.choice_row(record, pictures, options, letter, name, id=record["idx"], scene_id=record["idx"])
