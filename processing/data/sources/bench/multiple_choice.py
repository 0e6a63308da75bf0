"""Options and letters of multiple-choice questions about embedded pictures: CV-Bench, BLINK and MMSI-Bench."""

import re

from ...record_errors import RecordError


LETTERS = "ABCDEF"
LETTER_LINE = "Answer with the option's letter from the given choices directly."
_ANSWER = re.compile(r"\(?([A-Z])\)?")


def lettered(choices) -> list[str]:
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


def right_letter(answer, num_choices: int) -> str:
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


def only_respond_line(num_choices: int) -> str:
    """The line that lmms-eval puts before such questions; it names at most five letters."""
    return (
        f"Note: You only need to respond with {', '.join(LETTERS[:5][:num_choices])} without providing any additional "
        "information.\n"
    )


def refuse_fewer_views(num_views: int, max_views: int | None) -> None:
    """Raise RecordError if `max_views` would take away pictures that a question speaks of one by one."""
    if max_views is not None and num_views > max_views:
        raise RecordError(
            f"max_views={max_views}, but the question speaks of its {num_views} pictures one by one; raise max_views.",
            "views",
        )


__all__ = ["LETTERS", "LETTER_LINE", "lettered", "only_respond_line", "refuse_fewer_views", "right_letter"]
