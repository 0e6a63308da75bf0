"""Texts without halves of characters: what UTF-16 cut in two, no file and no tokenizer takes.

Python reads such halves from JSON escapes ("\\ud83d"), and from command lines that are no UTF-8. Data refuses them
(`find_half`); a question gets U+FFFD in their place, with a warning (`mend_text`).
"""

import re

from transformers.utils import logging


logger = logging.get_logger(__name__)

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


__all__ = ["REPLACEMENT", "find_half", "mend_chat", "mend_text", "whole_text"]
