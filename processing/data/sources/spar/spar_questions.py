"""What SPAR's releases, and the files that others derive from them, share: questions, answers, pictures with cameras.

Frame: OpenCV cameras. Units: metres, thousandths of a picture for marks.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ....prompts_gap_mllm import IMAGE_TAG
from ...record_errors import RecordError
from ...source_files import find_file
from ...stored_frames import SPAR_IMAGES, SPAR_VIDEO, frame_view, posed_view
from ..chat.conversations import check_tags, read_conversation
from .spar_marks import MARK_KEYS, UNMARKED, spar_marks


MAX_PLAIN_VIEWS = 10  # questions about more pictures number them as frames
# Their text or answer speaks of pictures by number.
NUMBERED_TYPES = ("nav", "obj_frame_locate")
_LAYOUTS = {"image_color": SPAR_IMAGES, "video_color": SPAR_VIDEO}
_OPTION = re.compile(r"\(?([A-Z])[.):] *(.*)")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


def spar_prompt(question: str, question_type: str, num_views: int) -> str:
    """Place the pictures in a question as the release does: before it, or for videos as numbered frames.

    More than ten pictures, or the type "nav", give "Frame-1: <image>", "Frame-2: <image>", .. a line each, counted
    from 1. Otherwise the text is kept as it is, and the pictures come first.

    Args:
        question (`str`): question without tags, or with its own, which are kept.
        question_type (`str`), num_views (`int`)
    Returns:
        `str`.
    Raises:
        RecordError: if the text has tags, but not one for each picture.
    """
    check_tags(question, num_views)
    if IMAGE_TAG in question or not is_video_question(question_type, num_views):
        return question
    return "".join(f"Frame-{index}: {IMAGE_TAG}\n" for index in range(1, num_views + 1)) + question


def is_video_question(question_type: str, num_views: int) -> bool:
    """Whether the pictures are numbered frames of a video."""
    return num_views > MAX_PLAIN_VIEWS or question_type == "nav"


def check_view_limit(question_type: str, num_views: int, max_views: int | None) -> None:
    """Raise RecordError if `max_views` would take away pictures that the text or the answer speaks of by number."""
    if max_views is None or num_views <= max_views:
        return
    if question_type in NUMBERED_TYPES or not is_video_question(question_type, num_views):
        raise RecordError(
            f"max_views={max_views}, but questions of type {question_type!r} speak of their {num_views} pictures one "
            "by one; raise max_views, or leave such questions out with skip_bad_samples=True.",
            "views",
        )


def listed_options(question: str) -> list[str]:
    """Return the lines of a question that begin with A., B., .. in turn; none if there are not at least two."""
    options = []
    for line in question.split("\n"):
        found = _OPTION.fullmatch(line.strip())
        if found and found[1] == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[len(options)]:
            options.append(line.strip())
        elif options:
            break
    return options if len(options) > 1 else []


def spar_answer(question: str, answer: str | None, answer_format: str | None = None) -> dict:
    """Return the fields of a row that say what an answer means: choices and choice_index, or number.

    Args:
        question (`str`): question with its options, if any.
        answer (`str`, *optional*)
        answer_format (`str`, *optional*): "select", "fill", "sentence" or "judge"; None where it is not known.
    Returns:
        `dict`: fields for `complete_row`; empty for free text.
    Raises:
        RecordError: if the answer to a question of format "select" is none of its options.
    """
    options = listed_options(question) if answer_format in (None, "select") else []
    text = (answer or "").strip()
    if options:
        letters = [_OPTION.fullmatch(option)[1] for option in options]
        fitting = [
            index
            for index, (letter, option) in enumerate(zip(letters, options, strict=True))
            if text.strip("().") == letter or text in (option, _OPTION.fullmatch(option)[2])
        ]
        if len(fitting) == 1:
            return {"choices": options, "choice_index": fitting[0]}
        if answer is not None and answer_format == "select":
            raise RecordError(f"the answer {answer!r} is not among the options {options}.", "answer")
    return {"number": float(text)} if _NUMBER.fullmatch(text) else {}


def spar_view(path: Path, name: str, with_camera: bool = True, on_lost: Callable | None = None) -> dict:
    """Return a view of the schema from a picture `<part>/images/<scene>/image_color/<frame>.jpg` and its camera.

    Pose, intrinsics and depth come with SPAR-7M-RGBD only, and are read for its ScanNet part, where they are ScanNet's
    own (camera to world, millimetres); what the other parts hold is documented nowhere, so they have none.

    Args:
        path (`Path`): file of the picture.
        name (`str`): name in the record.
        with_camera (`bool`, defaults to True): whether to read them.
        on_lost (`Callable[[Path]]`, *optional*): called with the pose file where tracking was lost.
    Returns:
        `dict`: fields of a view.
    Raises:
        RecordError: if a file is there and cannot be read, or intrinsics are for another size of picture or depth map.
    """
    digits = re.findall(r"(?<!\d)\d{1,9}(?!\d)", path.stem)
    layout = _LAYOUTS.get(path.parent.name) if with_camera and path.parents[3].name == "scannet" else None
    view = frame_view(path, name) if layout is None else posed_view(path, name, on_lost, layout=layout)
    return {**view, "frame_id": int(digits[-1]) if digits else None}


def spar_fields(
    record: dict, info: dict, names: Sequence[str], field: str, media: Path, max_views: int | None, **view_options
) -> dict:
    """Return the fields of a row that all of SPAR's records share: views, marks, texts, and what the answer means.

    Args:
        record (`dict`): record with the conversation.
        info (`dict`): type and marks, which some files write into a text of the record.
        names (`list[str]`), field (`str`): the pictures, and what an error calls them.
        media (`Path`): folder that their paths start from.
        max_views (`int`, *optional*): see `check_view_limit`.
        **view_options: arguments of `spar_view`.
    Raises:
        RecordError: if the marks are none of the type, or a picture or its camera is broken; see `find_file`.
    """
    if not isinstance(names, list) or not names:
        raise RecordError(f"expected a list of paths, got {names!r}.", field)
    question_type = info.get("type")
    marks = spar_marks(question_type, info, len(names))
    check_view_limit(question_type, len(names), max_views)
    paths = [find_file(media, name, field=f"{field}[{index}]") for index, name in enumerate(names)]
    views = [spar_view(path, name, **view_options) for path, name in zip(paths, names, strict=True)]
    system, question, answer = read_conversation(record)
    used = {"conversations", "images", "image", "spar_info", "type", *(() if question_type in UNMARKED else MARK_KEYS)}
    return {
        "task": "spatial_qa",
        "scene_id": paths[0].parents[1].name,
        "views": views,
        "pose_frame": "scan" if any(view["camera_to_world"] is not None for view in views) else None,
        "marks": marks,
        "system": system,
        "question": spar_prompt(question, question_type, len(names)),
        "answer": answer,
        "references": [answer] if answer else [],
        "question_type": question_type,
        "metadata": {key: value for key, value in {**info, **record}.items() if key not in used},
    }
