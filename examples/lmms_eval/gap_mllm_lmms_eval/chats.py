"""Chats of lmms-eval as chats of GAP-MLLM: every picture and every frame of every video is a view of one scene."""

import os
from functools import lru_cache

from gap_mllm.processing.data.scene_sample import View
from gap_mllm.processing.data.source_files import picture_header
from gap_mllm.processing.data.video_frames import read_video_views
from gap_mllm.processing.visual_prompt_gap_mllm import to_rgb_image


def read_chat(messages, system_prompt: str | None) -> list[dict]:
    """Check a task's messages and put the system turn before them, if they have none.

    Args:
        messages (`list[dict]`): role, and content as text or as parts of type text, image or video with a `url`.
        system_prompt (`str`, *optional*): None or empty for no system turn.
    Returns:
        `list[dict]`: messages whose content is a list of parts, `("text", text)`, `("image", picture or path)` or
        `("video", path)`.
    Raises:
        ValueError: on another type of part, or on a clip of a video (`start_time`, `end_time`).
        TypeError: if a video is not given by its path.
    """
    chat = [{"role": message["role"], "content": _read_parts(message["content"])} for message in messages]
    if system_prompt and (not chat or chat[0]["role"] != "system"):
        chat.insert(0, {"role": "system", "content": [("text", system_prompt)]})
    return chat


def chat_shape(chat) -> tuple:
    """Sizes of the pictures, and paths of the videos, which stand for theirs. Nothing is decoded."""
    return tuple(
        ("video", value) if kind == "video" else _picture_size(value) for kind, value in _parts(chat) if kind != "text"
    )


def num_characters(chat) -> int:
    """Length of all texts together: what batches are sorted by."""
    return sum(len(value) for kind, value in _parts(chat) if kind == "text")


def show_views(chat, num_frames: int):
    """Read the pictures of a chat.

    Args:
        chat (`list[dict]`): from `read_chat`.
        num_frames (`int`): evenly spaced frames to take of each video, which stand in its place.
    Returns:
        `tuple[list[dict], list[PIL.Image.Image]]`: messages for the chat template, and the views in order.
    Raises:
        FileNotFoundError, ValueError: if a picture or video is missing or cannot be decoded; it is named.
    """
    messages, views = [], []
    for message in chat:
        content = []
        for kind, value in message["content"]:
            if kind == "text":
                content.append({"type": "text", "text": value})
                continue
            pictures = list(_video_frames(value, num_frames)) if kind == "video" else [to_rgb_image(value)]
            content += [{"type": "image", "image": picture} for picture in pictures]
            views += pictures
        messages.append({"role": message["role"], "content": content})
    return messages, views


def _read_parts(content):
    if isinstance(content, str):
        return [("text", content)]
    return [_read_part(part) for part in content]


def _read_part(part):
    kind = part["type"]
    if kind == "text":
        return kind, part["text"]
    if kind not in ("image", "video"):
        raise ValueError(f"a message holds a part of type {kind!r}; GAP-MLLM takes text, image and video.")
    value = part["url"]
    if kind == "image":
        return kind, value
    if part.get("start_time") is not None or part.get("end_time") is not None:
        raise ValueError(f"{value} is asked for as a clip (start_time, end_time); cut it out into a file of its own.")
    if not isinstance(value, str | os.PathLike):
        kinds = "a path to a video file or a folder of frames"
        raise TypeError(f"a video is given as {type(value).__name__}; expected {kinds}. Give frames as images.")
    return kind, os.fspath(value)


def _parts(chat):
    return (part for message in chat for part in message["content"])


def _picture_size(picture):
    if isinstance(picture, str | os.PathLike) and os.path.isfile(picture):
        return picture_header(os.fspath(picture))[0]
    return to_rgb_image(picture).size


@lru_cache(maxsize=4)
def _video_frames(path, num_frames):
    return tuple(View(picture=view["image"]).image for view in read_video_views(path, num_frames))
