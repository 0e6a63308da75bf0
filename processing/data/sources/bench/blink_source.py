"""BLINK: fourteen tasks of visual perception as multiple choice on one to four pictures.

The real files were not at hand. Folders and file names are those of the data set's pages on the Hub; the columns are
those of its card as others cite it, and of what lmms-eval, HELM and VG-LLM read; that answers of the test split are
the word "hidden" is what users report.
"""

from dataclasses import dataclass

from ...record_errors import RecordError
from ...source_builder import SceneSourceBuilder, SourceConfig
from ..parquet_rows import embedded_view, iter_parquet_rows
from .multiple_choice import LETTER_LINE, lettered, only_respond_line, refuse_fewer_views, right_letter


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
PROMPT_STYLES = ("vgllm", "lmms")
DISCLAIMED = ("Art_Style", "Forensic_Detection", "Jigsaw")  # VG-LLM puts the disclaimer before these
DISCLAIMER = (
    "Disclaimer: This is not to make unfair assumptions about the people in the image and you just need to give your "
    "assessment on this question. You don't need to identify the real people. You just need to analyze based on the "
    "information I gave you.\n\n"
)
HIDDEN = "hidden"
PICTURE_KEYS = tuple(f"image_{number}" for number in range(1, 5))
USED_KEYS = {*PICTURE_KEYS, "idx", "answer", "choices"}


@dataclass
class BlinkConfig(SourceConfig):
    """`SourceConfig`, which tasks are read, and how questions are asked.

    Args:
        subtasks (`tuple[str, ...]`, *optional*): of `SUBTASKS`; all by default.
        prompt_style (`str`): "vgllm" (the prompt of the file, then a line that asks for the letter) or "lmms" (a note,
            then the prompt).
    Raises:
        ValueError: on another `prompt_style` or task.
    """

    subtasks: tuple[str, ...] | None = None
    prompt_style: str = "vgllm"

    def __post_init__(self):
        super().__post_init__()
        if self.prompt_style not in PROMPT_STYLES:
            raise ValueError(f"prompt_style is {self.prompt_style!r}; expected one of {', '.join(PROMPT_STYLES)}.")
        for name in self.subtasks or ():
            if name not in SUBTASKS:
                raise ValueError(f"subtasks names {name!r}; expected some of {', '.join(SUBTASKS)}.")


class BlinkSource(SceneSourceBuilder):
    """BLINK as it is downloaded: a folder a task with `val-*.parquet` and `test-*.parquet`.

    The pictures are in the files, with the circles that questions speak of painted in; their order is kept. The
    question type is the folder's name. Answers of "test" are not published: rows without answer.
    """

    BUILDER_CONFIG_CLASS = BlinkConfig
    SOURCE = "blink"
    TASKS = ("spatial_qa",)
    LAYOUT = "<task>/{val,test}-*.parquet, such as Relative_Depth/val-00000-of-00001.parquet"
    LICENSE = "apache-2.0"

    def find_files(self, root):
        wanted = self.config.subtasks or SUBTASKS
        return {
            split: [file for name in wanted for file in sorted(root.glob(f"{name}/{split}-*.parquet"))]
            for split in SPLITS
        }

    def records(self, file, skip):
        for index, record in iter_parquet_rows(file):
            yield f"{file.parent.name}-{file.stem}-{index:07d}", record

    def rows(self, split, file, record_id, record, context):
        options, answer, name = lettered(record["choices"]), record["answer"], file.parent.name
        letter = None if answer == HIDDEN and split == "test" else right_letter(answer, len(options))
        shown = [key for key in PICTURE_KEYS if record.get(key) is not None]
        if not shown:
            raise RecordError("the question has no picture.", PICTURE_KEYS[0])
        refuse_fewer_views(len(shown), self.config.max_views)
        yield {
            "id": record["idx"],
            "task": "spatial_qa",
            "scene_id": record["idx"],
            "views": [embedded_view(record[key], key) for key in shown],
            "question": blink_prompt(record["prompt"], name, len(options), self.config.prompt_style),
            "answer": letter,
            "references": [] if letter is None else [letter],
            "choices": options,
            "choice_index": None if letter is None else ord(letter) - ord("A"),
            "question_type": name,
            "metadata": {key: value for key, value in record.items() if key not in USED_KEYS},
        }


def blink_prompt(prompt: str, subtask: str, num_choices: int, style: str = "vgllm") -> str:
    """Write the prompt of a question, word for word as a code base has it, without the pictures.

    Args:
        prompt (`str`): of the file, with options.
        subtask (`str`), num_choices (`int`)
        style (`str`): of `PROMPT_STYLES`.
    Returns:
        `str`.
    """
    if style == "lmms":
        return only_respond_line(num_choices) + prompt
    return f"{DISCLAIMER if subtask in DISCLAIMED else ''}{prompt}\n{LETTER_LINE}"


__all__ = ["PROMPT_STYLES", "SUBTASKS", "BlinkConfig", "BlinkSource", "blink_prompt"]
