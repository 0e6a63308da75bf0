"""Frames out of a video file, by PyAV: counted by decoding, upright, and none of what is damaged.

What a container says of its length is not used. Which frames to take is decided in frame_sampling_gap_mllm.py, and how
a frame becomes a picture in video_decoding_gap_mllm.py.

Also from a decoded frame to the picture that it shows: right colours, white behind it, square pixels, upright.
"""

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers.utils import logging

from .camera_geometry_gap_mllm import scale_intrinsics
from .view_files_gap_mllm import EXIF_ORIENTATION, Orientation, file_content, is_heif, is_wide
from .visual_prompt_gap_mllm import to_rgb_image


logger = logging.get_logger(__name__)

MAX_ASPECT = 4  # of a pixel; real formats stay below 2
HD_HEIGHT, HD_WIDTH = 720, 1280  # from these on, video that says nothing of its colours is BT.709
# Numbers of H.273, as FFmpeg has them.
MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
UNSPECIFIED = (0, 2)  # 0 is RGB, which no picture of brightness and colour can be
BT2020, LIMITED = 9, 1
HDR_CURVES = {16: "PQ", 18: "HLG"}
MAX_UNKNOWN_KINDS = 16


@dataclass(frozen=True)
class StoredFrame:
    """A frame as it is stored in a video, and what makes a picture of it.

    Args:
        index (`int`): place in the video, from 0.
        seconds (`float`): time since frame 0.
        frame (`av.VideoFrame`): the decoded frame.
        aspect (`Fraction`): width of a stored pixel over its height.
        name (`str`): path of the video, for warnings.
        tags (`av.VideoCodecContext`): where tags of colours stand that older releases of PyAV do not show at frames.
        exif (`int`, *optional*): EXIF orientation of a frame of Motion-JPEG.
    """

    index: int
    seconds: float
    frame: Any
    aspect: Fraction
    name: str
    tags: Any
    exif: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.frame.width, self.frame.height

    @property
    def square_size(self) -> tuple[int, int]:
        """Width and height with square pixels, before the frame is turned."""
        return square_size(self.size, self.aspect)

    @cached_property
    def orientation(self) -> Orientation:
        """What makes the frame upright: its display matrix, as the container or the codec has it, else EXIF."""
        for entry in _known_side_data(self.frame):
            if entry.type.name == "DISPLAYMATRIX":
                return Orientation.from_display_matrix(np.frombuffer(bytes(entry), np.int32))
        return Orientation.from_exif(self.exif)

    def picture(self) -> Image.Image:
        """The upright RGB picture of square pixels."""
        image = to_rgb_image(Image.fromarray(self._pixels()), self.name)
        return _upright(image, self.square_size, self.orientation)

    def _pixels(self):
        """`(H, W, 3)` or, where something may show through, `(H, W, 4)`; 8 bits."""
        shape = self.frame.format
        if shape.name.startswith("gray"):
            return self._grey_pixels()
        is_rgb = shape.is_rgb or shape.has_palette
        has_alpha = shape.has_palette or any(part.is_alpha for part in shape.components)
        scale = "flags=bilinear" if is_rgb else f"flags=bilinear:in_color_matrix={self._matrix()}"
        return _converted(self.frame, scale, "rgba" if has_alpha else "rgb24")

    def _grey_pixels(self):
        """Grey is taken as full range by some releases of FFmpeg whatever its tag says, so it is widened here."""
        pixels = _converted(self.frame, "flags=bilinear:in_range=pc", "rgb24")
        if self.frame.color_range != LIMITED:
            return pixels
        return ((pixels - 16.0) * 255 / 219).round().clip(0, 255).astype(np.uint8)

    def _matrix(self):
        """Name of the colour matrix, by the tags, else by the size."""
        curve, matrix = self._tag("color_trc"), int(self.frame.colorspace)
        if curve in HDR_CURVES:
            logger.warning_once(
                f"{self.name} is HDR video ({HDR_CURVES[curve]}); its brightness is taken as it is stored, without "
                "tone mapping, so pictures look pale. Convert it to BT.709 for colours as on screen."
            )
        if matrix in UNSPECIFIED:
            if curve in HDR_CURVES or self._tag("color_primaries") == BT2020:
                return MATRICES[BT2020]
            is_hd = self.frame.height >= HD_HEIGHT or self.frame.width >= HD_WIDTH
            return "bt709" if is_hd else "bt601"
        if matrix not in MATRICES:
            logger.warning_once(f"{self.name} has colours of matrix {matrix} (H.273), which are read as BT.709.")
        return MATRICES.get(matrix, "bt709")

    def _tag(self, name):
        return int(getattr(self.frame, name, None) or getattr(self.tags, name, None) or 0)


@dataclass(frozen=True)
class AnimationFrame:
    """A picture of an animation, upright already, with what `StoredFrame` has; a TIFF has no times."""

    index: int
    seconds: float | None
    image: Image.Image
    orientation: Orientation

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.orientation.size(self.image.size)

    @property
    def square_size(self) -> tuple[int, int]:
        """As `size`: pixels of pictures are square."""
        return self.size

    def picture(self) -> Image.Image:
        """The upright RGB picture."""
        return to_rgb_image(self.image)


def square_size(size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    """Size with square pixels; the shorter side of a pixel grows, so that nothing is lost.

    Args:
        size (`tuple[int, int]`): width and height as stored.
        aspect (`Fraction`): width of a stored pixel over its height.
    Returns:
        `tuple[int, int]`: width and height.
    """
    width, height = size
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def split_exif(packet: Any) -> tuple[int | None, Any]:
    """Take EXIF out of a packet of Motion-JPEG.

    Releases of FFmpeg differ in what they make of it; newer ones put it before the display matrix of the container.

    Args:
        packet (`av.Packet`): a packet of a stream of JPEG.
    Returns:
        `tuple[int | None, av.Packet]`: the EXIF orientation, None where there is none that can be read, and the
        packet without EXIF.
    """
    data = bytes(packet)
    start, end = _exif_part(data)
    if start == end:
        return None, packet
    plain = import_module("av").Packet(data[:start] + data[end:])
    plain.pts, plain.dts, plain.time_base, plain.stream = packet.pts, packet.dts, packet.time_base, packet.stream
    return _exif_orientation(data[start + 4 : end]), plain


def _exif_orientation(data):
    exif = Image.Exif()
    try:
        exif.load(data)
        return exif.get(EXIF_ORIENTATION)
    except (LookupError, SyntaxError, TypeError, ValueError, struct.error):  # what Pillow raises for broken EXIF
        return None


def _exif_part(data):
    """From where to where EXIF stands in a JPEG, its marker included; equal places without."""
    place = 2
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != b"\xda":  # up to the pixels
        size = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1 : place + 2] == b"\xe1" and data[place + 4 : place + 10] == b"Exif\0\0":
            return place, place + 2 + size
        place += 2 + size
    return 0, 0


def _upright(image, size, orientation):
    image = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
    return image if orientation.is_upright else Image.fromarray(orientation.array(np.asarray(image)))


def _converted(frame, scale, pixel_format):
    """Pixels of a frame as `(H, W, 3)`, or `(H, W, 4)` with transparency, by options of the `scale` filter."""
    return _filtered(frame, ("scale", scale), ("format", f"pix_fmts={pixel_format}")).to_ndarray()


def _filtered(frame, *filters):
    """What filters of FFmpeg, given by name and options, make of a frame."""
    graph = import_module("av.filter").Graph()
    last = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    for name, options in (*filters, ("buffersink", None)):
        following = graph.add(name, options)
        last.link_to(following)
        last = following
    graph.configure()
    graph.push(frame)
    return graph.pull()


def _known_side_data(frame):
    """What stands beside the pixels of a frame, without kinds that this release of PyAV does not know.

    One such kind (EXIF of Motion-JPEG, the views of spatial video, ..) makes PyAV refuse all of them.
    """
    for _ in range(MAX_UNKNOWN_KINDS):
        try:
            return list(frame.side_data)
        except ValueError as error:
            kind = re.match(r"\d+", str(error))
            if kind is None:
                raise
            frame = _filtered(frame, ("sidedata", f"mode=delete:type={kind.group()}"))
    return list(frame.side_data)


MP4_PARTS = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"uuid", b"sidx")
EBML_HEADER, MATROSKA_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders of these drop what is transparent
ATTACHED_PICTURE = 0x400  # a cover, in FFmpeg's numbers of dispositions


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video, upright and with square pixels.

    Intrinsics and poses that are given for a video belong to its stored frames. `upright_intrinsics` and
    `orientation.pose` turn them into those of `image`.

    Args:
        index (`int`): place in the video, from 0.
        timestamp (`float`, *optional*): seconds since frame 0; None in a folder.
        image (`PIL.Image.Image`): upright RGB picture.
        orientation (`Orientation`): what made it upright, after its pixels were made square.
        stored_size (`tuple[int, int]`, *optional*): width and height of the stored frame, in its pixels; by default
            that of the picture, turned back.
        square_size (`tuple[int, int]`, *optional*): width and height with square pixels, before it was turned; by
            default the stored size. Their ratios are the stretch: `square_size[0] / stored_size[0]` along x.
    """

    index: int
    timestamp: float | None
    image: Image.Image
    orientation: Orientation = Orientation()
    stored_size: tuple[int, int] | None = None
    square_size: tuple[int, int] | None = None

    def __post_init__(self):
        stored = self.stored_size or self.orientation.size(self.image.size)
        object.__setattr__(self, "stored_size", stored)
        object.__setattr__(self, "square_size", self.square_size or stored)

    def upright_intrinsics(self, intrinsics: np.ndarray, name: str = "intrinsics") -> np.ndarray:
        """Turn intrinsics of the stored frame into those of the picture.

        Args:
            intrinsics (`np.ndarray` of shape `(3, 3)`): intrinsics in pixels of the stored frame.
            name (`str`, defaults to "intrinsics"): how the error calls them.
        Returns:
            `np.ndarray` of shape `(3, 3)`: intrinsics in pixels of `image`.
        Raises:
            ValueError: as `Orientation.intrinsics`.
        """
        stretch = [square / stored for square, stored in zip(self.square_size, self.stored_size, strict=True)]
        return self.orientation.intrinsics(scale_intrinsics(intrinsics, *stretch), self.square_size, name)


class VideoFile:
    """A video file to read frames from.

    Pictures are upright, have square pixels, and show white where the video is transparent. Colours are those that the
    file states; where it states none, BT.709 from 720 lines or 1280 columns on, else BT.601.

    Args:
        path (`str` or `Path`): a local file.
    Raises:
        ImportError: on reading, without the package `av`.
        ValueError: on reading, with the path, if the video is cut off, damaged, or none, or if its pixels are more
            than four times as long as wide.

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
        """Look at the size of a frame before it is decoded or resized, in pixels; refuses none."""

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
        for stored in self.decode():
            times.append(stored.seconds)
            if stored.index in wanted:
                frames[stored.index] = self._show(stored)
            if stop_early and stored.index >= last:
                break
        return frames, times

    def upright_size(self, stored: StoredFrame | AnimationFrame) -> tuple[int, int]:
        """Width and height of the picture of a frame."""
        with self._named_errors():
            return stored.orientation.size(stored.square_size)

    def decode(self) -> Iterator[StoredFrame | AnimationFrame]:
        """Yield all frames as they are stored."""
        last = None
        for last in self._decode_animation() if self._is_animation() else self._decode_video():
            yield last
        if last is None:
            raise self._damaged("it holds no frame")

    def packet_times(self) -> list[float]:
        """Times of the packets that should become frames: a first guess at the frames, without decoding."""
        if self._is_animation():
            return [stored.seconds for stored in self.decode()]
        with self._open() as (container, stream):
            packets = [packet for packet in self._packets(container, stream) if packet.size and not packet.is_discard]
            if not packets:
                raise self._damaged("it holds no frame")
            start = min((packet.pts for packet in packets if packet.pts is not None), default=0)
            return sorted(_seconds(packet, start, index, stream) for index, packet in enumerate(packets))

    def _show(self, stored):
        """The picture of a frame."""
        width, height = stored.square_size
        if (width, height) != stored.size:
            logger.warning_once(
                f"{self.path} has pixels that are not square ({stored.aspect.numerator}:{stored.aspect.denominator}): "
                f"its frames of {stored.size[0]}x{stored.size[1]} are stretched to {width}x{height}. Intrinsics of "
                "the stored frames have to be stretched with them."
            )
        with self._named_errors():
            image, orientation = stored.picture(), stored.orientation
        return VideoFrame(stored.index, stored.seconds, image, orientation, stored.size, stored.square_size)

    def _decode_video(self):
        with self._open() as (container, stream):
            # Not frames beside each other, where a frame can be given out before its neighbour is known to be damaged.
            stream.thread_type = "SLICE"
            index, start, decode = -1, 0, self._decoder(stream)
            container_aspect = _container_aspect(stream)
            for packet in self._packets(container, stream):
                if packet.is_corrupt:
                    raise self._damaged(f"the packet after frame {index} is cut off or damaged")
                with self._named_errors():
                    exif, packet = split_exif(packet) if stream.codec_context.name == "mjpeg" else (None, packet)
                    frames = decode(packet)
                for frame in frames:
                    index += 1
                    if frame.is_corrupt:
                        raise self._damaged(f"frame {index} is damaged")
                    if index == 0:
                        start = frame.pts or 0
                    seconds, codec = _seconds(frame, start, index, stream), stream.codec_context
                    aspect = container_aspect or codec.sample_aspect_ratio or Fraction(1)
                    stored = StoredFrame(index, seconds, frame, aspect, str(self.path), codec, exif)
                    self._check(stored)  # it may grow on the way
                    yield stored

    def _check(self, stored):
        """Refuse frames that are too large, or would be with square pixels."""
        self.check_size(*stored.size)
        if not Fraction(1, MAX_ASPECT) <= stored.aspect <= MAX_ASPECT:
            raise self.error(
                f"its pixels are {float(stored.aspect):g} times as wide as high; expected {1 / MAX_ASPECT:g} to "
                f"{MAX_ASPECT}. Is its sample aspect ratio right? Encode it anew with square pixels."
            )
        self.check_size(*stored.square_size)

    def _decoder(self, stream):
        """What makes frames of packets."""
        codec = stream.codec_context.name
        if stream.metadata.get("alpha_mode") != "1" or codec not in ALPHA_DECODERS:
            return lambda packet: packet.decode()
        av = import_module("av")
        try:
            return av.codec.CodecContext.create(ALPHA_DECODERS[codec], "r").decode
        except (av.error.FFmpegError, ValueError):  # this FFmpeg is built without it
            logger.warning_once(
                f"{self.path} is transparent, which FFmpeg reads by libvpx only; it is read as opaque."
            )
            return lambda packet: packet.decode()

    def _decode_animation(self):
        """Pictures of an animation, by Pillow, which composes them, and reads WebP and TIFF that FFmpeg does not."""
        self._refuse_cut_file()
        with self._named_errors():
            image = Image.open(self.path)
        with image:
            self.check_size(*image.size)
            milliseconds, orientation, has_times = 0, Orientation.of_picture(image), image.format != "TIFF"
            for index in range(getattr(image, "n_frames", 1)):
                with self._named_errors():
                    image.seek(index)
                    pixels = np.asarray(image if is_wide(image.mode) else image.convert("RGBA"))
                if has_times:  # Pillow turns a TIFF itself
                    pixels = orientation.array(pixels)
                shown = Image.fromarray(pixels)  # without EXIF
                yield AnimationFrame(index, milliseconds / 1000 if has_times else None, shown, orientation)
                milliseconds += image.info.get("duration", 0)

    def _packets(self, container, stream):
        packets = iter(container.demux(stream))
        while True:
            with self._named_errors():
                packet = next(packets, None)
            if packet is None:
                return
            yield packet

    def _is_animation(self):
        return file_content(self.path).kind == "animation"

    def _damaged(self, what):
        return self.error(f"the video cannot be decoded: {what}. Is the download complete? Fetch the file again.")

    @contextmanager
    def _named_errors(self):
        """Every error of the library becomes one that names the path; nothing but the library is called within."""
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:  # PyAV raises whatever meets a kind that it does not know
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise self._damaged(f"it is no video, damaged, or its end is missing ({reason})") from error

    @contextmanager
    def _open(self):
        """Open a container and its first video stream."""
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
        with self._named_errors():
            # A playlist must not reach beyond files.
            container = av.open(str(self.path), options={"protocol_whitelist": "file"})
        with container:
            with self._named_errors():
                stream = _first_video(container)
                size = None if stream is None else (stream.width, stream.height)
            if stream is None:
                raise self._damaged("it holds no video stream")
            self.check_size(*size)
            yield container, stream

    def _refuse_cut_file(self):
        """Compare the file's size with what its outermost parts need; the library reads some cut files in silence."""
        size = self.path.stat().st_size
        with open(self.path, "rb") as stream:
            head = stream.read(4096)
            if is_heif(head):  # of whose tiles the library makes a video
                raise self.error("this is a picture, HEIC, and no video; give it as an image.")
            needed = _webp_size(head) or (_mp4_size(stream) if head[4:8] == b"ftyp" else _matroska_size(head))
            stream.seek(max(0, size - 1024))
            tail = stream.read()
        if head.startswith(b"GIF8") and not tail.rstrip(b"\0").endswith(b";"):
            raise self._damaged("the end mark of the GIF is missing")
        if size < needed:
            raise self._damaged(f"the file has {size} bytes of {needed}")


def frame_rate(seconds: list[float]) -> float | None:
    """Mean frames per second by the times of all frames, in seconds; None where they do not tell it."""
    if not seconds or None in (seconds[0], seconds[-1]):
        return None
    total = seconds[-1] - seconds[0]
    # To the nearest fraction as containers have it, 30000 / 1001 for one: counts of frames must not hang on rounding.
    return float(Fraction((len(seconds) - 1) / total).limit_denominator(1001)) if total > 0 else None


def _first_video(container):
    """The first stream that is a video and no cover beside it; None without."""
    for stream in container.streams.video:
        disposition = getattr(stream, "disposition", 0)
        if not getattr(disposition, "value", disposition) & ATTACHED_PICTURE:
            return stream
    return None


def _container_aspect(stream):
    """Width of a pixel over its height where the container says it; the codec's own may change on the way."""
    guess = stream.sample_aspect_ratio
    return None if guess == stream.codec_context.sample_aspect_ratio else guess


def _seconds(part, start, index, stream):
    """Seconds of a frame or packet since frame 0; raw streams have no times, their nominal rate takes the place."""
    if part.pts is None:
        return float(index / (stream.average_rate or stream.guessed_rate or 1))
    return float((part.pts - start) * part.time_base)


def _webp_size(head):
    """Where a WebP ends, by its own length; 0 for other files."""
    return 8 + int.from_bytes(head[4:8], "little") if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else 0


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
