"""MMSI-Bench: four-way multiple choice on several pictures, how cameras, objects and regions lie and move.

The real file was not at hand. Its name, its columns and the prompt are those of the benchmark's own repository, where
pictures are plain bytes; options at the end of the question, on one line, are as users print them.
"""

import re
from pathlib import Path

from ...record_errors import RecordError
from .multiple_choice import LETTERS, MultipleChoiceSource, right_letter


FILE_NAME = "MMSI_Bench.parquet"
NUM_CHOICES = 4
_OPTION = re.compile(r"(?:^|[,;]\s*|\s)([A-F]):\s*")


class MmsiSource(MultipleChoiceSource):
    """MMSI-Bench as it is downloaded: `MMSI_Bench.parquet`. Split "test".

    The pictures are in the file, in the order that questions number them. The question of a row is the whole prompt;
    that of the file, and its reasoning (`thought`), stay in metadata. A question whose options cannot be told apart
    is kept without choices, and counted under "options_not_read": its answer is a letter all the same.
    """

    SOURCE = "mmsi"
    USED_KEYS = frozenset({"id", "images", "answer"})
    LAYOUT = f"{FILE_NAME} (or data/ with it)"
    LICENSE = "cc-by-nc-4.0"

    def find_files(self, root: Path):
        files = [folder / FILE_NAME for folder in (root, root / "data")]
        return {"test": [file for file in files if file.is_file()][:1]}

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        pictures, question = record["images"], record["question"]
        if not isinstance(pictures, list) or not pictures:
            raise RecordError("the question has no picture.", "images")
        letter, options = right_letter(record["answer"], NUM_CHOICES), listed_options(question)
        if not options:
            self.mark("options_not_read", file, record_id, question[-80:])
        cells = {f"images[{index}]": picture for index, picture in enumerate(pictures)}
        name = str(record["id"])
        yield self.choice_row(record, cells, options, letter, record["question_type"], id=name, scene_id=name)


def listed_options(question: str) -> list[str]:
    """Return the options behind "Options:", written "A: left, B: right", as "A. left"; none unless A to D follow.

    Args:
        question (`str`)
    Returns:
        `list[str]`.
    """
    parts = _OPTION.split(question.rpartition("Options:")[2].strip())
    letters, texts = parts[1::2], [text.strip() for text in parts[2::2]]
    if parts[0] or "".join(letters) != LETTERS[:NUM_CHOICES] or not all(texts):
        return []
    return [f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)]
