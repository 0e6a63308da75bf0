"""From a decoded frame to the picture that it shows: right colours, white behind it, square pixels, upright.

Colours are converted by FFmpeg's own `scale` filter: what PyAV's `reformat` makes of tags differs between releases.
"""

import re
import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image
from transformers.utils import logging

from .orientation_gap_mllm import EXIF_ORIENTATION, Orientation
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


__all__ = ["MAX_ASPECT", "AnimationFrame", "StoredFrame", "split_exif", "square_size"]
