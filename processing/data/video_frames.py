"""Frames out of a video file, or out of a folder that holds them as pictures.

Frames are counted by decoding: what a container says of its length is not used. Which frames to take is decided in
frame_sampling.py. Pictures come upright, turned and flipped as the file's metadata asks.
"""

import io
import re
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..frame_sampling import fps_sample, uniform_sample
from ..visual_prompt_gap_mllm import to_rgb_image
from .file_guards import check_pixel_count, file_state, refuse_special
from .read_log import TrackedPath
from .record_errors import RecordError
from .source_files import picture_header
from .stored_frames import frame_number, list_frames, stored_picture


JPEG_QUALITY = 95
MP4_PARTS = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"uuid", b"sidx")
EBML_HEADER, MATROSKA_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds.

    Args:
        num_frames (`int`): number of frames that can be decoded.
        fps (`float`, *optional*): mean rate by the timestamps; None for a folder or a single frame.
        width, height (`int`): size of the upright picture, in pixels.
        duration_s (`float`, *optional*): seconds from the first frame to the last; None for a folder.
    """

    num_frames: int
    fps: float | None
    width: int
    height: int
    duration_s: float | None


@dataclass(frozen=True)
class VideoFrame:
    """One frame: its place in the video from 0, seconds since frame 0 (None in a folder), and the upright picture."""

    index: int
    timestamp: float | None
    image: Image.Image


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
    times, size = [], None
    for _, seconds, frame, orientation in _decode(path):
        size = size or ((frame.height, frame.width) if orientation.is_swapped else (frame.width, frame.height))
        times.append(seconds)
    return VideoInfo(len(times), _mean_fps(times), *size, times[-1] - times[0])


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
        frames = {
            index: VideoFrame(index, None, _open_picture(files[index])) for index in wanted if 0 <= index < num_frames
        }
    else:
        frames, times = _pick(path, set(wanted), stop_early=True)
        num_frames = len(times)
    for index in wanted:
        if index not in frames:
            reason = f"frame {index} was asked for, but there are {num_frames}, counted from 0."
            raise RecordError(reason, "frame_id", file=str(path))
    return [frames[index] for index in wanted]


def read_video_views(
    path: str | Path, num_frames: int = 32, fps: float | None = None, skip: Callable | None = None
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
    Returns:
        `list[dict]`: `image`, `image_path` (of a folder), `frame_id` and `timestamp` (seconds since frame 0; None in a
        folder).
    Raises:
        FileNotFoundError, ImportError, RecordError: as `video_info`.
        ValueError: if `num_frames` is below 1, `fps` is not positive, or is asked of a folder.

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
    path = _existing(path)
    if path.is_dir():
        if fps is not None:
            raise ValueError(f"fps is {fps}, but {path} is a folder of frames, which have no times; leave fps out.")
        files = frame_files(path)
        views = (_folder_view(files[index], index, skip) for index in uniform_sample(len(files), num_frames))
        return [view for view in views if view is not None]
    chosen = _choose(_packet_times(path), num_frames, fps)
    frames, times = _pick(path, set(chosen), stop_early=False)
    exact = _choose(times, num_frames, fps)
    if exact != chosen:  # packets and decoded frames differ in number, as with hidden frames
        frames, _ = _pick(path, set(exact), stop_early=True)
    return [_video_view(frames[index]) for index in exact]


def frame_files(folder: str | Path) -> list[Path]:
    """Return the pictures of a folder, ordered by the numbers in their names, 2 before 10.

    Raises:
        RecordError: if the folder holds none.
    """
    return sorted(list_frames(folder), key=lambda path: (_natural(path.stem), path.name))


def _natural(text):
    """Numbers and the text between them, comparable in turn."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _existing(path) -> Path:
    path = TrackedPath(path)
    state = file_state(path, "video")
    if state is None:
        raise FileNotFoundError(f"{path} does not exist; expected a video file or a folder of frames.")
    if not stat.S_ISDIR(state.st_mode):
        refuse_special(state, path, "video")
    return path


def _choose(times, num_frames, fps):
    """Which frames to take, from the times of all."""
    video_fps = _mean_fps(times)
    if fps is None or video_fps is None:
        return uniform_sample(len(times), num_frames)
    return fps_sample(len(times), video_fps, fps, max_frames=num_frames)


def _mean_fps(times):
    seconds = times[-1] - times[0]
    return (len(times) - 1) / seconds if seconds > 0 else None


# Pictures


def _folder_view(file, index, skip):
    """A view of a picture; None if it cannot be read and `skip` took the reason."""
    try:
        image = stored_picture(file)
    except RecordError as error:
        if skip is None:
            raise
        skip(error)
        return None
    number = frame_number(file)
    return {"image": image, "image_path": file.name, "frame_id": index if number is None else number}


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


@dataclass(frozen=True)
class _Orientation:
    """How a stored picture becomes upright: rows and columns exchanged first, then mirrored."""

    is_swapped: bool = False
    flip_columns: bool = False
    flip_rows: bool = False

    @classmethod
    def of(cls, frame):
        """From the display matrix [a b u; c d v; x y w]: the stored x axis points to (a, b), the y axis to (c, d)."""
        data = frame.side_data.get("DISPLAYMATRIX")
        if data is None:
            return cls()
        a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()
        is_swapped = abs(b) > abs(a)
        return cls(is_swapped, (c if is_swapped else a) < 0, (b if is_swapped else d) < 0)

    def apply(self, pixels: np.ndarray):
        """(H, W, 3) -> upright."""
        pixels = pixels.swapaxes(0, 1) if self.is_swapped else pixels
        return np.ascontiguousarray(pixels[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1])


# Decoding


def _pick(path, wanted, stop_early):
    """The wanted frames that exist, by index, and the times of all that were decoded."""
    frames, times = {}, []
    last = max(wanted, default=-1)
    for index, seconds, frame, orientation in _decode(path):
        times.append(seconds)
        if index in wanted:
            image = Image.fromarray(orientation.apply(frame.to_ndarray(format="rgb24")))
            frames[index] = VideoFrame(index, seconds, image)
        if stop_early and index >= last:
            break
    return frames, times


def _decode(path) -> Iterator[tuple]:
    """Yield (index, seconds since frame 0, frame, orientation) of all frames; RecordError at what is damaged."""
    with _open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        index, start, orientation = -1, 0, None
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise _damaged(path, f"the packet after frame {index} is cut off or damaged")
            for frame in packet.decode():
                index += 1
                if frame.is_corrupt:
                    raise _damaged(path, f"frame {index} is damaged")
                check_pixel_count((frame.width, frame.height), path, "video")  # it may grow on the way
                if orientation is None:
                    start, orientation = frame.pts or 0, _Orientation.of(frame)
                yield index, _seconds(frame, start, index, stream), frame, orientation
        if index < 0:
            raise _damaged(path, "it holds no frame")


def _packet_times(path):
    """Times of the packets that should become frames: a first guess at the frames, without decoding."""
    with _open_video(path) as (container, stream):
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        if not packets:
            raise _damaged(path, "it holds no frame")
        start = min((packet.pts for packet in packets if packet.pts is not None), default=0)
        return sorted(_seconds(packet, start, index, stream) for index, packet in enumerate(packets))


def _seconds(part, start, index, stream):
    """Seconds of a frame or packet since frame 0; raw streams have no times, their nominal rate takes the place."""
    if part.pts is None:
        return float(index / (stream.average_rate or stream.guessed_rate or 1))
    return float((part.pts - start) * part.time_base)


@contextmanager
def _open_video(path):
    """Open a container and its first video stream; every error of the library becomes one that names the path."""
    try:
        import av
    except ImportError:
        raise ImportError("reading videos needs PyAV; install it with `pip install gap-mllm[data]`.") from None
    _refuse_cut_file(path)
    try:
        # A playlist must not reach beyond files.
        with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
            if not container.streams.video:
                raise _damaged(path, "it holds no video stream")
            stream = container.streams.video[0]
            check_pixel_count((stream.width, stream.height), path, "video")
            yield container, stream
    except av.error.FFmpegError as error:
        raise _damaged(path, f"it is no video, damaged, or its end is missing ({error.strerror})") from None


def _refuse_cut_file(path):
    """Compare the file's size with what its outermost parts need; the library reads some cut files in silence."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        head = stream.read(4096)
        needed = _mp4_size(stream) if head[4:8] == b"ftyp" else _matroska_size(head)
    if size < needed:
        raise _damaged(path, f"the file has {size} bytes of {needed}")


def _mp4_size(stream):
    """Where the last known part of an MP4 ends, by its own length."""
    place = 0
    while True:
        stream.seek(place)
        size, kind, long_size = struct.unpack(">I4sQ", stream.read(16).ljust(16, b"\0"))
        size = long_size if size == 1 else size
        if kind not in MP4_PARTS or size < 8:  # a size of 0 means: to the end of the file
            return place
        place += size


def _matroska_size(head):
    """Where the body of a Matroska or WebM file ends, by its own length; 0 where it does not say."""
    place = head.find(MATROSKA_SEGMENT) + len(MATROSKA_SEGMENT)
    if not head.startswith(EBML_HEADER) or not len(MATROSKA_SEGMENT) <= place < len(head) - 8:
        return 0
    num_bytes = 9 - head[place].bit_length()  # a number of n bytes begins with n - 1 zero bits and a one
    unknown = (1 << 7 * num_bytes) - 1
    size = int.from_bytes(head[place : place + num_bytes], "big") & unknown
    return 0 if size == unknown else place + num_bytes + size


def _damaged(path, what):
    reason = f"the video cannot be decoded: {what}. Is the download complete? Fetch the file again."
    return RecordError(reason, "video", file=str(path))


__all__ = ["VideoFrame", "VideoInfo", "frame_files", "read_video_frames", "read_video_views", "video_info"]
