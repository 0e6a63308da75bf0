"""Frames out of a video file, or out of a folder that holds them as pictures, as records need them.

Files are decoded in ../video_decoding_gap_mllm.py, and which frames to take is decided in
../frame_sampling_gap_mllm.py.
"""

import io
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..frame_sampling_gap_mllm import FrameChoice
from ..video_decoding_gap_mllm import VideoFile, VideoFrame, frame_rate
from ..view_files_gap_mllm import FolderViews, Orientation, folder_views, open_picture
from ..visual_prompt_gap_mllm import to_rgb_image
from .file_guards import check_pixel_count, file_state, list_folder, refuse_special
from .read_log import TrackedPath
from .record_errors import RecordError
from .source_files import picture_header
from .stored_frames import frame_number, stored_picture


JPEG_QUALITY = 95


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds.

    Args:
        num_frames (`int`): number of frames that can be decoded.
        fps (`float`, *optional*): mean rate by the timestamps; None for a folder or a single frame.
        width, height (`int`): size of the upright picture with square pixels, in pixels.
        duration_s (`float`, *optional*): seconds from the first frame to the last; None for a folder.
    """

    num_frames: int
    fps: float | None
    width: int
    height: int
    duration_s: float | None


def video_info(path: str | Path) -> VideoInfo:
    """Count the frames of a video, decoding all of it, or of a folder of pictures.

    Args:
        path (`str` or `Path`): video file, or folder of frames.
    Returns:
        `VideoInfo`.
    Raises:
        FileNotFoundError: if there is no such file or folder.
        ImportError: for a video without the package `av`.
        RecordError: with the path, if the video is cut off, damaged, no video or no file (a FIFO, ..), the folder
            holds no pictures, or pictures have more than `MAX_PICTURE_PIXELS`.
    """
    path = _existing(path)
    if path.is_dir():
        files = frame_files(path)
        width, height = _open_picture(files[0]).size
        return VideoInfo(len(files), None, width, height, None)
    video, times, size = _RecordedVideo(path), [], None
    for stored in video.decode():
        size = size or video.upright_size(stored)
        times.append(stored.seconds)
    return VideoInfo(len(times), frame_rate(times), *size, times[-1] - times[0])


def read_video_frames(path: str | Path, frame_indices: Sequence[int]) -> list[VideoFrame]:
    """Read some frames of a video, or of a folder of pictures. Nothing after the last of them is decoded.

    Args:
        path (`str` or `Path`): video file, or folder of frames.
        frame_indices (sequence of `int`): places counted from 0, in any order.
    Returns:
        `list[VideoFrame]` in the order asked for.
    Raises:
        FileNotFoundError, ImportError: as `video_info`.
        RecordError: as `video_info`, or if there is no frame of such an index.
    """
    path, wanted = _existing(path), [int(index) for index in frame_indices]
    if path.is_dir():
        files = frame_files(path)
        num_frames = len(files)
        frames = {index: _folder_frame(index, files[index]) for index in wanted if 0 <= index < num_frames}
    else:
        frames, times = _RecordedVideo(path).pick(set(wanted), stop_early=True)
        num_frames = len(times)
    for index in wanted:
        if index not in frames:
            reason = f"frame {index} was asked for, but there are {num_frames}, counted from 0."
            raise RecordError(reason, "frame_id", file=str(path))
    return [frames[index] for index in wanted]


def read_video_views(
    path: str | Path, num_frames: int = 32, fps: float | None = None, skip: Callable | None = None, **choice
) -> list[dict]:
    """Choose frames of a video and return them as views of the schema.

    Evenly spaced over all frames, first and last included, as `uniform_sample` has it. With `fps`, those on screen at
    0, 1 / fps, .. seconds, and evenly spaced again if these are more than `num_frames`. Frames of a video are stored
    as JPEG of quality 95; pictures of a folder stay files.

    Args:
        path (`str` or `Path`): video file, or folder of frames.
        num_frames (`int`, defaults to 32): most frames.
        fps (`float`, *optional*): frames per second wanted.
        skip (`Callable[[RecordError]]`, *optional*): takes what is wrong with single pictures of a folder, which are
            left out then; the others stay the same. A damaged video is refused in any case.
        **choice: further fields of `FrameChoice`, as `sampling` and `points_from`.
    Returns:
        `list[dict]`: `image`, `image_path` (of a folder), `frame_id` and `timestamp` (seconds since frame 0; None in a
        folder).
    Raises:
        FileNotFoundError, ImportError, RecordError: as `video_info`.
        TypeError, ValueError: as `FrameChoice`. ValueError: if `fps` is asked of a folder.

    Example:
        ```python
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from gap_mllm.processing.data import read_video_views
        >>> Path("frames").mkdir()
        >>> for number in range(9):
        ...     Image.new("RGB", (64, 48)).save(f"frames/{number}.jpg")
        >>> views = read_video_views("frames", num_frames=3)  # or a video file
        >>> [view["frame_id"] for view in views]
        [0, 4, 8]

        ```
    """
    path, choice = _existing(path), FrameChoice(num_frames, fps, **choice)
    if path.is_dir():
        if fps is not None:
            raise ValueError(f"fps is {fps}, but {path} is a folder of frames, which have no times; leave fps out.")
        files = frame_files(path)
        views = (_folder_view(files[index], index, skip) for index in choice.candidates([None] * len(files)))
        views = [view for view in views if view is not None]
        if not choice.is_space_aware:
            return views
        seen = [(view, image) for view in views if (image := _or_skip(_open_picture, path / view["image_path"], skip))]
    else:
        frames, _ = _RecordedVideo(path).read(choice.candidates)
        seen = [(_video_view(frame), frame.image) for frame in frames]
    return [seen[place][0] for place in choice.narrow(image for _, image in seen)]


def frame_files(folder: str | Path) -> list[Path]:
    """Return the pictures of a folder in natural order of their names, 2 before 10; see `frame_views`."""
    return list(frame_views(folder).pictures)


def frame_views(folder: str | Path) -> FolderViews:
    """Choose the views of a folder by `choose_views`, and say what is left out.

    Raises:
        RecordError: if the folder holds no picture, or cannot be read.
    """
    entries = list_folder(folder)
    try:
        return folder_views(folder, entries)
    except ValueError as error:
        raise RecordError(str(error), "views") from None


def _existing(path) -> Path:
    path = TrackedPath(path)
    state = file_state(path, "video")
    if state is None:
        raise FileNotFoundError(f"{path} does not exist; expected a video file or a folder of frames.")
    if not stat.S_ISDIR(state.st_mode):
        refuse_special(state, path, "video")
    return path


# Pictures


def _folder_view(file, index, skip):
    """A view of a picture; None if it cannot be read and `skip` took the reason."""
    image, number = _or_skip(stored_picture, file, skip), frame_number(file)
    if image is None:
        return None
    return {"image": image, "image_path": file.name, "frame_id": index if number is None else number}


def _folder_frame(index, file):
    picture = _open_picture(file)
    with open_picture(file) as stored:
        return VideoFrame(index, None, picture, Orientation.of_picture(stored))


def _or_skip(read, file, skip):
    """What is read of a picture; None if it cannot be and `skip` took the reason."""
    try:
        return read(file)
    except RecordError as error:
        if skip is None:
            raise
        skip(error)
        return None


def _video_view(frame):
    buffer = io.BytesIO()
    frame.image.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    stored = {"bytes": buffer.getvalue(), "path": None}
    return {"image": stored, "frame_id": frame.index, "timestamp": frame.timestamp}


def _open_picture(file):
    picture_header(str(file))  # refuses what must not be opened or decoded
    try:
        return to_rgb_image(file)
    except ValueError as error:
        raise RecordError(str(error), "image", file=str(file)) from None


class _RecordedVideo(VideoFile):
    """A video that a record names: what is wrong with it is a `RecordError`, and its frames may not be huge."""

    def error(self, reason):
        return RecordError(reason, "video", file=str(self.path))

    def check_size(self, width, height):
        check_pixel_count((width, height), self.path, "video")
