"""Questions about videos as LLaVA-style files write them: one tag for the whole video, options inside the text.

Reads the parts that the schema keeps apart (choices, their index, a number) and leaves the texts as they are.
"""

import re

from ....prompts_gap_mllm import IMAGE_TAG
from ...record_errors import RecordError


_OPTION = re.compile(r"([A-Z])[.)] ?(.*)")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


def one_tag_per_view(question: str, num_views: int) -> str:
    """Write one `<image>` tag for each view where a text has a single tag for the whole video.

    A tag stands for one view everywhere in this package. Without views, and where the tags fit already, the text comes
    back as it is.

    Args:
        question (`str`), num_views (`int`)
    Returns:
        `str`.
    Raises:
        RecordError: if the text has several tags, but not one for each view.
    """
    count = question.count(IMAGE_TAG)
    if num_views == 0 or count in (0, num_views):
        return question
    if count != 1:
        raise RecordError(f"the text holds {count} {IMAGE_TAG} tags for {num_views} views.", "conversations")
    return question.replace(IMAGE_TAG, IMAGE_TAG * num_views)


def read_options(question: str) -> list[str]:
    """Return the options of a multiple-choice question as they stand below "Options:", as "A. chair"; or none.

    Raises:
        RecordError: if there is such a list and its letters do not run from A on.
    """
    _, found, tail = question.partition("Options:")
    if not found:
        return []
    options = []
    for line in tail.strip("\n").split("\n"):
        if not _OPTION.fullmatch(line.strip()):
            break
        options.append(line.strip())
    letters = "".join(option[0] for option in options)
    if not letters or letters != "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(letters)]:
        raise RecordError(
            f"the options below 'Options:' begin with {list(letters)}; expected A, B, .., one a line.", "conversations"
        )
    return options


def read_video_answer(question: str, answer: str | None) -> dict:
    """Return the fields of a row that say what the answer means: choices and choice_index, or number.

    Args:
        question (`str`): question with its options, if any.
        answer (`str`, *optional*): a letter, an option's text, a number or free text.
    Returns:
        `dict`: fields for `complete_row`, empty for free text.
    Raises:
        RecordError: if the answer to a multiple-choice question is none of the options.
    """
    options = read_options(question)
    if not options:
        is_number = answer is not None and _NUMBER.fullmatch(answer.strip())
        return {"number": float(answer)} if is_number else {}
    if answer is None:
        return {"choices": options}
    text = answer.strip()
    names = [_OPTION.fullmatch(option).group(2) for option in options]
    fitting = [index for index, option in enumerate(options) if text.rstrip(".") == option[0] or text == option]
    fitting = fitting or [index for index, name in enumerate(names) if text == name]
    if len(fitting) != 1:
        raise RecordError(f"the answer {answer!r} is not one of the options {options}.", "conversations")
    return {"choices": options, "choice_index": fitting[0]}
