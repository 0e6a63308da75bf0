"""Turns of the chat records that this field shares, what they show, and which split a file of them is.

`conversations` is [{"from": "human" | "gpt", "value": text}] or [{"role": "user" | "assistant", "content": text}]; a
content may be a list of typed parts, too.
"""

import re
from pathlib import Path

from ....prompts_gap_mllm import IMAGE_TAG
from ...record_errors import RecordError


VIDEO_TAG = "<video>"
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_TAGS = {"image": IMAGE_TAG, "image_url": IMAGE_TAG, "video": VIDEO_TAG}
_MEDIA_KEYS = {IMAGE_TAG: ("images", "image"), VIDEO_TAG: ("videos", "video")}


def read_turns(record: dict) -> tuple[str | None, list[tuple[str, str]], list[tuple[str, object]]]:
    """Return the system text, the other turns, and what typed parts show.

    Args:
        record (`dict`): record with `conversations` or `messages`.
    Returns:
        `tuple`: system text or None; (role, text) of each turn, role "user" or "assistant", typed parts of pictures
        and videos written as tags; and (tag, path or None) of each such part.
    Raises:
        RecordError: if a turn has no known role, or its content is no text and no list of known parts.
    """
    turns, shown = record.get("conversations", record.get("messages")), []
    if not isinstance(turns, list):
        raise RecordError(f"expected a list of turns, got {type(turns).__name__}.", "conversations")
    read = []
    for index, turn in enumerate(turns):
        role = _ROLES.get(turn.get("from", turn.get("role"))) if isinstance(turn, dict) else None
        text = turn.get("value", turn.get("content")) if role else None
        if isinstance(text, list):
            text = "".join(_part_text(part, shown, index) for part in text)
        if not isinstance(text, str):
            raise RecordError(f"turn {index} has no known role and text.", "conversations")
        read.append((role, text))
    system = read.pop(0)[1] if read and read[0][0] == "system" else None
    return system, read, shown


def _part_text(part, shown, index):
    """Text of a typed part; a picture or video is noted in `shown`."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    if kind not in _TAGS:
        raise RecordError(f"turn {index} has a part that is no text, image or video: {part!r:.80}.", "conversations")
    shown.append((_TAGS[kind], next((part[key] for key in (kind, "path", "url") if part.get(key) is not None), None)))
    return _TAGS[kind]


def named_media(record: dict) -> list[tuple[str, str]]:
    """Return the pictures, or the one video, that a record names in its keys or in typed parts, as (tag, path).

    Raises:
        RecordError: if it names nothing, pictures and a video, several videos, or other files in its parts than in
            its keys; or as `read_turns`.
    """
    listed = {tag: _paths(record, *keys) for tag, keys in _MEDIA_KEYS.items()}
    shown = read_turns(record)[2] or [(tag, None) for tag, names in listed.items() for _ in names]
    media = [(tag, name if name or not listed[tag] else listed[tag].pop(0)) for tag, name in shown]
    num_videos = sum(tag == VIDEO_TAG for tag, _ in media)
    if not media:
        raise RecordError(f"the record names no video, and its image is {record.get('image')!r}.", "image")
    if any(listed.values()) or not all(isinstance(name, str) for _, name in media):
        raise RecordError("parts of the messages and the list of files differ in number.", "messages")
    if num_videos and len(media) > 1:
        named = f"{len(media) - num_videos} pictures and {num_videos} videos"
        raise RecordError(f"it names {named}; expected pictures, or one video.", "video")
    return media


def _paths(record, *keys):
    """The paths under the first of some keys that is there: one, or a list of them."""
    value = next((record[key] for key in keys if record.get(key) is not None), [])
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise RecordError(f"expected a path or a list of paths, got {value!r:.80}.", keys[1])
    return list(paths)


def read_conversation(record: dict) -> tuple[str | None, str, str | None]:
    """Return system text, question and answer, verbatim; an empty answer is None (test files have no answers).

    Raises:
        RecordError: if there is not one question followed by at most one answer, or parts name pictures.
    """
    system, read, shown = read_turns(record)
    if [role for role, _ in read] not in (["user"], ["user", "assistant"]):
        raise RecordError(
            f"expected one question and one answer, got turns of {[role for role, _ in read]}.", "conversations"
        )
    if shown:
        raise RecordError("parts of its turns name pictures; expected texts with tags.", "conversations")
    return system, read[0][1], (read[1][1] or None) if len(read) == 2 else None


def check_tags(question: str, num_views: int, tag: str = IMAGE_TAG) -> None:
    """Raise RecordError if a text has tags of views, but not one for each."""
    count = question.count(tag)
    if count and count != num_views:
        raise RecordError(f"the text holds {count} {tag} tags for {num_views} views.", "conversations")


def split_of(file: Path) -> str:
    """The split that a file name says, as "qa_val.json" and "mine-test.jsonl"; "train" where it says none."""
    words = re.split("[_.-]", file.stem.lower())
    return next((split for split in ("val", "test") if split in words), "train")
