"""Frames out of a video file, by PyAV: counted by decoding, upright, and none of what is damaged.

What a container says of its length is not used. Which frames to take is decided in frame_sampling_gap_mllm.py.
"""

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image


MP4_PARTS = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"uuid", b"sidx")
EBML_HEADER, MATROSKA_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


@dataclass(frozen=True)
class VideoFrame:
    """One frame: its place in the video from 0, seconds since frame 0 (None in a folder), and the upright picture."""

    index: int
    timestamp: float | None
    image: Image.Image


class VideoFile:
    """A video file to read frames from.

    Args:
        path (`str` or `Path`): a local file.
    Raises:
        ImportError: on reading, without the package `av`.
        ValueError: on reading, with the path, if the video is cut off, damaged, or none.

    Example:
        ```python
        >>> from gap_mllm.processing.video_decoding_gap_mllm import VideoFile
        >>> VideoFile("missing.mp4").read(lambda seconds: [0])
        Traceback (most recent call last):
        FileNotFoundError: missing.mp4 does not exist; expected a video file.

        ```
    """

    def __init__(self, path: str | os.PathLike):
        self.path = path if isinstance(path, Path) else Path(path)

    def error(self, reason: str) -> Exception:
        """The error to raise for a reason."""
        return ValueError(f"{self.path}: {reason}")

    def check_size(self, width: int, height: int) -> None:
        """Look at the size of a frame before it is decoded, in pixels; refuses none."""

    def read(self, choose: Callable[[list[float]], list[int]]) -> tuple[list[VideoFrame], list[float]]:
        """Read the frames that a function chooses.

        Args:
            choose (`Callable`): takes the times of all frames, in seconds since frame 0, and gives the places wanted.
                It is asked twice where the packets do not tell how many frames there are.
        Returns:
            `tuple[list[VideoFrame], list[float]]`: the frames chosen, and the times of all.
        """
        chosen = choose(self.packet_times())
        frames, times = self.pick(set(chosen))
        exact = choose(times)
        if exact != chosen:  # packets and decoded frames differ in number, as with hidden frames
            frames, _ = self.pick(set(exact), stop_early=True)
        return [frames[index] for index in exact], times

    def pick(self, wanted: Iterable[int], stop_early: bool = False) -> tuple[dict[int, VideoFrame], list[float]]:
        """The wanted frames that exist, by place, and the times of all that were decoded."""
        frames, times = {}, []
        last = max(wanted, default=-1)
        for index, seconds, frame, orientation in self.decode():
            times.append(seconds)
            if index in wanted:
                image = Image.fromarray(orientation.apply(frame.to_ndarray(format="rgb24")))
                frames[index] = VideoFrame(index, seconds, image)
            if stop_early and index >= last:
                break
        return frames, times

    def decode(self) -> Iterator[tuple]:
        """Yield (index, seconds since frame 0, frame, orientation) of all frames."""
        with self._open() as (container, stream):
            # Not frames beside each other, where a frame can be given out before its neighbour is known to be damaged.
            stream.thread_type = "SLICE"
            index, start, orientation = -1, 0, None
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise self._damaged(f"the packet after frame {index} is cut off or damaged")
                for frame in packet.decode():
                    index += 1
                    if frame.is_corrupt:
                        raise self._damaged(f"frame {index} is damaged")
                    self.check_size(frame.width, frame.height)  # it may grow on the way
                    if orientation is None:
                        start, orientation = frame.pts or 0, _Orientation.of(frame)
                    yield index, _seconds(frame, start, index, stream), frame, orientation
            if index < 0:
                raise self._damaged("it holds no frame")

    def packet_times(self) -> list[float]:
        """Times of the packets that should become frames: a first guess at the frames, without decoding."""
        with self._open() as (container, stream):
            packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
            if not packets:
                raise self._damaged("it holds no frame")
            start = min((packet.pts for packet in packets if packet.pts is not None), default=0)
            return sorted(_seconds(packet, start, index, stream) for index, packet in enumerate(packets))

    def _damaged(self, what):
        return self.error(f"the video cannot be decoded: {what}. Is the download complete? Fetch the file again.")

    @contextmanager
    def _open(self):
        """Open a container and its first video stream; every error of the library becomes one that names the path."""
        try:
            av = import_module("av")  # by its text: loaders of remote code demand every package that they see imported
        except ImportError:
            raise ImportError(
                "reading videos needs PyAV; install it with `pip install gap-mllm[video]`, or gap-mllm[data]."
            ) from None
        if not self.path.is_file():
            kind = "is a folder" if self.path.is_dir() else "does not exist"
            raise FileNotFoundError(f"{self.path} {kind}; expected a video file.")
        self._refuse_cut_file()
        try:
            # A playlist must not reach beyond files.
            with av.open(str(self.path), options={"protocol_whitelist": "file"}) as container:
                if not container.streams.video:
                    raise self._damaged("it holds no video stream")
                stream = container.streams.video[0]
                self.check_size(stream.width, stream.height)
                yield container, stream
        except av.error.FFmpegError as error:
            raise self._damaged(f"it is no video, damaged, or its end is missing ({error.strerror})") from None

    def _refuse_cut_file(self):
        """Compare the file's size with what its outermost parts need; the library reads some cut files in silence."""
        size = self.path.stat().st_size
        with open(self.path, "rb") as stream:
            head = stream.read(4096)
            needed = _mp4_size(stream) if head[4:8] == b"ftyp" else _matroska_size(head)
            stream.seek(max(0, size - 1024))
            tail = stream.read()
        if head.startswith(b"GIF8") and not tail.rstrip(b"\0").endswith(b";"):
            raise self._damaged("the end mark of the GIF is missing")
        if size < needed:
            raise self._damaged(f"the file has {size} bytes of {needed}")


def frame_rate(seconds: list[float]) -> float | None:
    """Mean frames per second by the times of all frames, in seconds; None where they do not tell it."""
    total = seconds[-1] - seconds[0] if seconds else 0
    # To the nearest fraction as containers have it, 30000 / 1001 for one: counts of frames must not hang on rounding.
    return float(Fraction((len(seconds) - 1) / total).limit_denominator(1001)) if total > 0 else None


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


def _seconds(part, start, index, stream):
    """Seconds of a frame or packet since frame 0; raw streams have no times, their nominal rate takes the place."""
    if part.pts is None:
        return float(index / (stream.average_rate or stream.guessed_rate or 1))
    return float((part.pts - start) * part.time_base)


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


__all__ = ["VideoFile", "VideoFrame", "frame_rate"]
