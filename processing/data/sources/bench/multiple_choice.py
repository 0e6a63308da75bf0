"""Multiple choice on embedded pictures, as CV-Bench, BLINK and MMSI-Bench have it: options, letters, rows."""

import re
from collections.abc import Callable
from pathlib import Path

from ...record_errors import RecordError
from ...source_builder import SceneSourceBuilder
from ..parquet_rows import embedded_view, iter_parquet_rows
from ..wordings import letter_prompt


LETTERS = "ABCDEF"
_ANSWER = re.compile(r"\(?([A-Z])\)?")


class MultipleChoiceSource(SceneSourceBuilder):
    """Base of the sources of questions with letters: parquet files with the pictures in them.

    The question of a row is the whole prompt; what else the file says of it stays in metadata.
    """

    TASKS = ("spatial_qa",)
    USED_KEYS = frozenset()  # of a record, which a row holds elsewhere

    def records(self, file: Path, skip: Callable):
        yield from ((f"{file.stem}-{index:07d}", record) for index, record in iter_parquet_rows(file, skip=skip))

    def choice_row(
        self,
        record: dict,
        pictures: dict[str, object],
        options: list[str],
        letter: str,
        question_type: str,
        image_path: str | None = None,
        **fields,
    ) -> dict:
        """The fields of a row.

        Args:
            record (`dict`): record of the file.
            pictures (`dict[str, object]`): cells with pictures, by what an error calls them.
            options (`list[str]`): options with their letters; empty if they could not be told apart.
            letter (`str`, *optional*): letter of the right one; None where it is not published.
            question_type (`str`), image_path (`str`, *optional*): what the file calls its one picture.
            **fields: id and scene_id.
        Raises:
            RecordError: if `max_views` is below the number of pictures, or one is none.
        """
        refuse_fewer_views(len(pictures), self.config.max_views)
        style = getattr(self.config, "prompt_style", self.SOURCE)
        return {
            **fields,
            "task": "spatial_qa",
            "views": [embedded_view(cell, field, image_path) for field, cell in pictures.items()],
            "question": letter_prompt(self.SOURCE, style, record, options, question_type),
            "answer": letter,
            "references": [] if letter is None else [letter],
            "choices": options,
            "choice_index": LETTERS.index(letter) if letter and options else None,
            "question_type": question_type,
            "metadata": {key: value for key, value in record.items() if key not in self.USED_KEYS},
        }


def lettered(choices: list[str]) -> list[str]:
    """Write options with their letters, as "A. chair".

    Args:
        choices (`list[str]`)
    Returns:
        `list[str]`.
    Raises:
        RecordError: if they are not two to six texts.
    """
    is_list = isinstance(choices, list) and all(isinstance(choice, str) and choice.strip() for choice in choices)
    if not is_list or not 2 <= len(choices) <= len(LETTERS):
        raise RecordError(f"expected 2 to {len(LETTERS)} texts, got {choices!r}.", "choices")
    return [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]


def right_letter(answer: str, num_choices: int) -> str:
    """The letter of an answer that is written as "(B)" or "B".

    Args:
        answer (`str`), num_choices (`int`)
    Returns:
        `str`: a capital.
    Raises:
        RecordError: if it is no letter, or none of the offered ones.
    """
    found = _ANSWER.fullmatch(answer.strip()) if isinstance(answer, str) else None
    if found is None or found[1] not in LETTERS[:num_choices]:
        raise RecordError(f'expected one of {LETTERS[:num_choices]}, as "(B)" or "B", got {answer!r}.', "answer")
    return found[1]


def refuse_fewer_views(num_views: int, max_views: int | None) -> None:
    """Raise RecordError if `max_views` would take away pictures that a question speaks of one by one."""
    if max_views is not None and num_views > max_views:
        raise RecordError(
            f"max_views={max_views}, but the question speaks of its {num_views} pictures one by one; raise max_views.",
            "views",
        )
