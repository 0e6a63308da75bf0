"""CV-Bench: multiple choice on single pictures, counts and relations in 2D, depth and distance in 3D.

The real files were not at hand. Their names, and that the older release is one file, are those of the data set's pages
on the Hub; the columns and their values are those of a printed row, and of what lmms-eval and VG-LLM read. Unread
columns (bbox, target_class, target_size) are kept as they are.
"""

from dataclasses import dataclass

from ...record_errors import RecordError
from ...source_builder import SceneSourceBuilder, SourceConfig
from ..parquet_rows import embedded_view, iter_parquet_rows
from .multiple_choice import LETTER_LINE, lettered, only_respond_line, right_letter


FILE_PATTERNS = ("test_2d*.parquet", "test_3d*.parquet"), ("test*.parquet",)
PROMPT_STYLES = ("vgllm", "lmms")
TASKS = ("Count", "Relation", "Depth", "Distance")
PICTURE_SETS = ("ADE20K", "COCO", "Omni3D")
USED_KEYS = {"image", "task", "answer", "choices"}


@dataclass
class CvBenchConfig(SourceConfig):
    """`SourceConfig`, and how questions are asked.

    Args:
        prompt_style (`str`): "vgllm" (options below each other, as VSI-Bench has them) or "lmms" (the prompt of the
            file behind a note).
    Raises:
        ValueError: on another `prompt_style`.
    """

    prompt_style: str = "vgllm"

    def __post_init__(self):
        super().__post_init__()
        if self.prompt_style not in PROMPT_STYLES:
            raise ValueError(f"prompt_style is {self.prompt_style!r}; expected one of {', '.join(PROMPT_STYLES)}.")


class CvBenchSource(SceneSourceBuilder):
    """CV-Bench as downloaded: `test_2d.parquet` and `test_3d.parquet`, or the older `test.parquet`. Split "test".

    The pictures are in the files, with the boxes that questions speak of painted in. The question of a row is the
    whole prompt; the bare question, and of which picture set (`source`) it is, stay in metadata. Questions about one
    picture share their scene.
    """

    BUILDER_CONFIG_CLASS = CvBenchConfig
    SOURCE = "cv_bench"
    TASKS = ("spatial_qa",)
    LAYOUT = "test_2d.parquet and test_3d.parquet, or test.parquet"
    LICENSE = "apache-2.0"

    def find_files(self, root):
        for patterns in FILE_PATTERNS:
            found = [file for pattern in patterns for file in sorted(root.glob(pattern))]
            if found:
                return {"test": found}
        return {}

    def records(self, file, skip):
        yield from ((f"{file.stem}-{index:07d}", record) for index, record in iter_parquet_rows(file))

    def rows(self, split, file, record_id, record, context):
        task, picture_set, options = record["task"], record["source"], lettered(record["choices"])
        for field, value, known in (("task", task, TASKS), ("source", picture_set, PICTURE_SETS)):
            if value not in known:
                raise RecordError(f"expected one of {', '.join(known)}, got {value!r}.", field)
        letter = right_letter(record["answer"], len(options))
        name = record.get("filename")
        yield {
            "id": f"{record['type']}-{record['idx']}",  # each part may count from 0
            "task": "spatial_qa",
            "scene_id": f"{picture_set}/{record.get('source_filename') or name or record_id}",
            "views": [embedded_view(record["image"], "image", name)],
            "question": cv_bench_prompt(record["question"], options, record["prompt"], self.config.prompt_style),
            "answer": letter,
            "references": [letter],
            "choices": options,
            "choice_index": ord(letter) - ord("A"),
            "question_type": task,
            "metadata": {key: value for key, value in record.items() if key not in USED_KEYS},
        }


def cv_bench_prompt(question: str, options, prompt: str, style: str = "vgllm") -> str:
    """Write the prompt of a question, word for word as a code base has it, without the picture.

    Args:
        question (`str`): without options.
        options (`list[str]`): as "A. 3".
        prompt (`str`): of the file, with options.
        style (`str`): of `PROMPT_STYLES`.
    Returns:
        `str`.
    """
    if style == "lmms":
        return f"{only_respond_line(len(options))}\n{prompt}"
    return "\n".join(["These are frames of a video.", question, "Options:", *options, LETTER_LINE])


__all__ = ["PICTURE_SETS", "PROMPT_STYLES", "TASKS", "CvBenchConfig", "CvBenchSource", "cv_bench_prompt"]
