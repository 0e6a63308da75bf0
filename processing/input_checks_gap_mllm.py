"""Checks of what callers pass: numbers, flags, keys in the parts of a chat that nothing reads, and texts that were cut
within a character. Checks of other arguments are in argument_checks.py.
"""

import math
import operator
import re
from collections.abc import Iterable
from numbers import Real

import numpy as np
from transformers.utils import logging


class WrongKindError(TypeError, ValueError):
    """An argument of the wrong kind. A ValueError, too: the command line reports those in one line."""


def check_flag(name: str, value: object) -> bool:
    """Return a flag; texts and numbers are none, as "no" counts as true.

    Raises:
        TypeError: if it is no bool.
    """
    if not isinstance(value, bool | np.bool_):
        raise WrongKindError(f"{name} is {value!r}; expected True or False.")
    return bool(value)


def check_count(name: str, value: object, least: int | None = 1) -> int:
    """Return a whole number of at least `least`, or any for None, as an `int`.

    Raises:
        TypeError: if it is no integer (a bool is none, nor is 2.0). ValueError: if it is below `least`.
    """
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None:
        bound = "" if least is None else f" of at least {least}"
        raise WrongKindError(f"{name} is {value!r}; expected an integer{bound}.")
    if least is not None and count < least:
        raise ValueError(f"{name} is {value}; expected {least} or more.")
    return count


def check_number(name: str, value: object, least: float = -math.inf, most: float = math.inf) -> float:
    """Return a finite number of a range, both ends included, as a `float`.

    Raises:
        TypeError: if it is no number (a bool is none). ValueError: if it is NaN, infinite or out of range.
    """
    expected = f"a finite number of at least {least:g}" if math.isfinite(least) else "a finite number"
    if math.isfinite(most):
        expected = f"a number from {least:g} to {most:g}"
    return _check_real(name, value, lambda number: math.isfinite(number) and least <= number <= most, expected)


def _check_real(name, value, is_good, expected):
    if isinstance(value, bool) or not isinstance(value, Real):
        raise WrongKindError(f"{name} is {value!r}; expected {expected}.")
    if not is_good(value):
        raise ValueError(f"{name} is {value}; expected {expected}.")
    return float(value)


def check_positive(name: str, value: object) -> float:
    """Return a finite number above 0 as a `float`.

    Raises:
        TypeError: if it is no number (a bool is none). ValueError: if it is NaN, infinite, 0 or negative.
    """
    return _check_real(name, value, lambda number: 0 < number < math.inf, "a positive finite number")


logger = logging.get_logger(__name__)

# qwen_vl_utils' keys, which it reads before a processor comes into play
FRAME_KEYS = ("fps", "nframes", "num_frames", "min_frames", "max_frames", "video_start", "video_end")
FRAME_KEYS += ("sample_fps", "raw_fps")
SIZE_KEYS = ("min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width")
READ_KEYS = {
    "image": ("image", "url", "path", "base64", "image_url"),
    "image_url": ("image", "url", "path", "base64", "image_url"),
    "video": ("video", "url", "path"),
}


def warn_of_unread_keys(parts: Iterable[dict]) -> None:
    """Warn of keys in the parts of a chat that choose no frames, set no size, or are not read at all.

    Args:
        parts (iterable of `dict`): parts of all turns; None for a key says that it is not given.
    """
    unread = {key for part in parts for key in _unread(part)}
    frames, sizes = sorted(unread.intersection(FRAME_KEYS)), sorted(unread.intersection(SIZE_KEYS))
    others = sorted(unread.difference(FRAME_KEYS, SIZE_KEYS))
    if frames:
        logger.warning_once(
            f"{', '.join(frames)} in the parts of a chat choose no frames: pass processor_kwargs, as "
            "{'num_frames': 16} or {'fps': 2}, for all videos of a call; to ask() these go as num_frames=16 or fps=2."
        )
    if sizes:
        logger.warning_once(
            f"{', '.join(sizes)} in the parts of a chat set no size: pass processor_kwargs, as {{'size': "
            "{'shortest_edge': 176 * 32 * 32, 'longest_edge': 518 * 392}}, the fewest and most pixels of each picture "
            "of a call; for ask(), which has none, set processor.image_processor.size or load the processor with it."
        )
    if others:
        logger.warning_once(f"{', '.join(others)} in the parts of a chat are not read and change nothing.")


def _unread(part):
    """Keys of a part that are given and not read; those of a nested address, as OpenAI writes it, too."""
    read = READ_KEYS.get(part.get("type"))
    if read is None:
        return []
    address = part.get("image_url")
    nested = [key for key in address if key != "url"] if isinstance(address, dict) else []
    given = [key for key, value in part.items() if value is not None]
    return nested + [key for key in given if key not in (*read, "type", "text")]


REPLACEMENT = "\ufffd"
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_UNDECODED = re.compile("[\udc80-\udcff]{2,}")  # bytes of a command line or file name, as Python keeps them
_HALF = re.compile("[\ud800-\udfff]")


def find_half(text: str) -> str | None:
    """Return the first half of a character in a text, as it is written in JSON ("\\ud83d"); None without any."""
    if text.isascii():
        return None
    half = _HALF.search(text)
    return None if half is None else f"\\u{ord(half[0]):04x}"


def whole_text(text: str) -> str:
    """Return a text that every file and tokenizer takes.

    Two halves that belong together become their character, bytes that are UTF-8 the characters that they are (a
    command line under LC_ALL=C), and every half that is left U+FFFD.

    Args:
        text (`str`): any text.
    Returns:
        `str`: the text itself where it holds no half.
    """
    if find_half(text) is None:
        return text
    text = _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    return _HALF.sub(REPLACEMENT, _UNDECODED.sub(_decoded, text))


def _decoded(found):
    return found[0].encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def mend_text(text: str, name: str = "text") -> str:
    """As `whole_text`, with a warning where something of the text is lost.

    Args:
        text (`str`): any text.
        name (`str`, defaults to "text"): what the warning calls it, as "question".
    Returns:
        `str`.
    """
    whole = whole_text(text)
    lost = whole.count(REPLACEMENT) - text.count(REPLACEMENT)
    if lost:
        logger.warning_once(
            f"the {name} holds halves of characters, as {find_half(text)}, which no tokenizer takes: {lost} replaced "
            "by U+FFFD. A text that was cut in UTF-16 loses half an emoji; cut it between characters."
        )
    return whole


def mend_chat(chat: list) -> list:
    """Return a chat, or a list of chats, whose texts are whole; `mend_text` warns. Pictures and paths stay.

    Args:
        chat (`list`): messages, whose content is a text or a list of parts.
    Returns:
        `list`: the chat itself where nothing had to be mended.
    """
    mended = [_mend_part(part) for part in chat]
    return chat if all(new is old for new, old in zip(mended, chat, strict=True)) else mended


def _mend_part(part):
    """A chat of several, a message, or a part of one."""
    if isinstance(part, list | tuple):
        return mend_chat(part)
    if not isinstance(part, dict):
        return part
    changed = {}
    for key in part.keys() & {"content", "text"}:
        value = part[key]
        changed[key] = mend_text(value, "chat") if isinstance(value, str) else _mend_part(value)
    return part if all(changed[key] is part[key] for key in changed) else {**part, **changed}
