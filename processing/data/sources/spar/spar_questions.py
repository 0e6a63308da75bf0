"""What SPAR's releases, and the files that others derive from them, share: questions, answers, pictures with cameras.

Frame: OpenCV cameras. Units: metres, thousandths of a picture for marks.
"""

import re
from functools import lru_cache
from pathlib import Path

from ....prompts_gap_mllm import IMAGE_TAG
from ...file_guards import is_data_file
from ...record_errors import RecordError
from ...source_files import read_matrix
from ...stored_frames import frame_view, read_pose
from ..chat.conversations import check_tags


MAX_PLAIN_VIEWS = 10  # questions about more pictures number them as frames
# Their text or answer speaks of pictures by number.
NUMBERED_TYPES = ("nav", "obj_frame_locate")
_FOLDERS = {"image_color": ("pose", "image_depth"), "video_color": ("video_pose", "video_depth")}
_OPTION = re.compile(r"\(?([A-Z])[.):] *(.*)")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


def spar_prompt(question: str, question_type: str, num_views: int) -> str:
    """Place the pictures in a question as the release does: before it, or for videos as numbered frames.

    More than ten pictures, or the type "nav", give "Frame-1: <image>", "Frame-2: <image>", .. a line each, counted
    from 1. Otherwise the text is kept as it is, and the pictures come first.

    Args:
        question (`str`): without tags, or with its own, which are kept.
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
        question (`str`): with its options, if any.
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


def spar_view(path: Path, name: str, with_camera: bool = True, on_lost=None) -> dict:
    """Return a view of the schema from a picture `<part>/images/<scene>/image_color/<frame>.jpg` and its camera.

    Pose, intrinsics and depth come with SPAR-7M-RGBD only, and are read for its ScanNet part, where they are ScanNet's
    own (camera to world, millimetres); what the other parts hold is documented nowhere, so they have none.

    Args:
        path (`Path`): of the picture.
        name (`str`): as the record has it.
        with_camera (`bool`): whether to read them.
        on_lost (`Callable[[Path]]`, *optional*): called with the pose file where tracking was lost.
    Returns:
        `dict`: fields of a view.
    Raises:
        RecordError: if a file is there and cannot be read, or intrinsics are for another size of picture or depth map.
    """
    digits = re.findall(r"(?<!\d)\d{1,9}(?!\d)", path.stem)
    camera = {}
    if with_camera and path.parent.name in _FOLDERS and path.parents[3].name == "scannet":
        camera = _read_camera(path, on_lost)
    view = frame_view(path, name, **camera)
    return {**view, "frame_id": int(digits[-1]) if digits else None}


def _read_camera(path, on_lost):
    """Pose, intrinsics and depth map of a picture, as `frame_view` takes them."""
    scene = path.parents[1]
    pose_folder, depth_folder = _FOLDERS[path.parent.name]
    pose_file, depth_file = scene / pose_folder / f"{path.stem}.txt", scene / depth_folder / f"{path.stem}.png"
    has_depth = is_data_file(depth_file)
    return {
        "pose": read_pose(pose_file, on_lost) if is_data_file(pose_file) else None,
        "intrinsics": _intrinsics(scene / "intrinsic" / "intrinsic_color.txt"),
        "depth_path": depth_file if has_depth else None,
        "depth_intrinsics": _intrinsics(scene / "intrinsic" / "intrinsic_depth.txt") if has_depth else None,
    }


def _intrinsics(path):
    return _read_intrinsics(path, path.stat().st_mtime_ns) if is_data_file(path) else None


@lru_cache(maxsize=4096)
def _read_intrinsics(path, version):
    return read_matrix(path)[:3, :3]


__all__ = [
    "check_view_limit",
    "is_video_question",
    "listed_options",
    "spar_answer",
    "spar_prompt",
    "spar_view",
]
