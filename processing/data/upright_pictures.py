"""Stored pictures that EXIF says to turn: how, from their headers alone, and the upright picture to store instead.

What belongs to such a picture is turned in upright_rows.py.
"""

import io
import os
import stat
from functools import lru_cache

import numpy as np
from PIL import Image

from ..view_files_gap_mllm import Orientation, open_picture, stored_size
from ..visual_prompt_gap_mllm import to_rgb_image
from .file_guards import file_state
from .record_errors import RecordError
from .source_files import encode_png, stored_header


MAX_SHAPE_DIFFERENCE = 0.05  # of width over height, between a picture and its depth map
MAX_PNG_PIXELS = 1 << 21  # of an upright picture that is stored without loss, a few megabytes
JPEG_QUALITY = 95  # of larger ones, as of frames of a video
KEPT_PICTURES = 64  # upright ones that are remembered: many rows show the same views
_PNG_TEXTS = (b"Raw profile type", b"XML:com.adobe.xmp")  # how texts begin that may hold an orientation


def picture_orientation(picture: object) -> Orientation:
    """How a picture as rows and views hold it has to be turned to be upright; only its header is read.

    Args:
        picture (`dict`, `str`, `PIL.Image.Image`, `np.ndarray`, *optional*): bytes and path as stored, a path, or a
            picture in memory.
    Returns:
        `Orientation`: upright also where nothing is there or nothing can be read, which decoding says better.
    """
    if isinstance(picture, dict):
        content = picture.get("bytes")
        picture = picture.get("path") if content is None else content
    try:
        if isinstance(picture, bytes):
            return _read_orientation(io.BytesIO(picture))
        if isinstance(picture, str | os.PathLike):
            state = file_state(picture)
            is_file = state is not None and stat.S_ISREG(state.st_mode)
            return _file_orientation(str(picture), _version(state)) if is_file else Orientation()
        if isinstance(picture, Image.Image):
            return Orientation.of_picture(picture)
    except (RecordError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        pass
    return Orientation()


def _version(state):
    """What a cached reading of a file is valid for."""
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=65536)
def _file_orientation(path, version):
    with open(path, "rb") as stream:
        return _read_orientation(stream)


def _read_orientation(stream):
    may_be_turned = _may_be_turned(stream)
    stream.seek(0)
    if not may_be_turned:
        return Orientation()
    with open_picture(stream) as image:
        return Orientation.of_picture(image)


def _may_be_turned(stream) -> bool:
    """Whether the parts of a JPEG or PNG can hold an orientation; looking costs far less than opening it does."""
    start = stream.read(8)
    if start == b"\x89PNG\r\n\x1a\n":
        return _png_may_be_turned(stream)
    if start.startswith(b"\xff\xd8"):
        stream.seek(2)
        return _jpeg_may_be_turned(stream)
    return True


def _png_may_be_turned(stream):
    while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"eXIf":
            return True
        looked_at = stream.read(min(length, 20)) if kind in (b"tEXt", b"zTXt", b"iTXt") else b""
        if looked_at.startswith(_PNG_TEXTS):
            return True
        stream.seek(length - len(looked_at) + 4, os.SEEK_CUR)  # 4: the checksum
    return False


def _jpeg_may_be_turned(stream):
    while len(head := stream.read(4)) == 4:
        if head[0] != 0xFF or head[1] in (0xE1, 0xFF):  # APP1 holds EXIF or XMP; other bytes are left to Pillow
            return True
        if head[1] == 0xDA:  # the picture itself
            return False
        stream.seek(int.from_bytes(head[2:], "big") - 2, os.SEEK_CUR)
    return False


def stored_picture_size(picture: object) -> tuple[int, int]:
    """Width and height of a picture as rows and views hold it, before any turn; raises as `stored_header`."""
    if isinstance(picture, Image.Image):
        return stored_size(picture)
    if isinstance(picture, np.ndarray):
        return picture.shape[1], picture.shape[0]
    picture = picture if isinstance(picture, dict) else {"path": str(picture)}
    return stored_header({"bytes": picture.get("bytes"), "path": picture.get("path")})[0]


def store_upright(picture: object) -> dict:
    """An upright picture to store in the place of one that has to be turned, with nothing left to turn.

    PNG, so that pixels stay as they are; JPEG of quality 95 where it has more than `MAX_PNG_PIXELS`, since photos of
    12 megapixels would grow fivefold. Transparency is put on white, as for the model.

    Args:
        picture (`dict`, `str` or `PIL.Image.Image`): picture as `picture_orientation` takes it.
    Returns:
        `dict`: bytes and path, as the Image feature stores it.
    Raises:
        RecordError: if it cannot be decoded.
    """
    if isinstance(picture, dict):
        content = picture.get("bytes")
        picture = picture.get("path") if content is None else io.BytesIO(content)
    if isinstance(picture, str | os.PathLike) and (state := file_state(picture)) is not None:
        return dict(_upright_file(str(picture), _version(state)))
    return _encode_upright(picture)


@lru_cache(maxsize=KEPT_PICTURES)
def _upright_file(path, version):
    return _encode_upright(path)


def _encode_upright(picture):
    try:
        upright = to_rgb_image(open_picture(picture) if isinstance(picture, io.BytesIO) else picture)
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        file = picture if isinstance(picture, str) else None
        raise RecordError(f"the picture cannot be decoded: {error}.", "image", file=file) from None
    if upright.width * upright.height <= MAX_PNG_PIXELS:
        return encode_png(np.asarray(upright))
    buffer = io.BytesIO()
    upright.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0, exif=b"")
    return {"bytes": buffer.getvalue(), "path": None}


def upright_depth(
    values: np.ndarray, is_turned: bool, turn: Orientation, size: tuple[int, int], name: str = "the picture"
) -> tuple[np.ndarray, bool]:
    """Turn a depth map with its picture.

    A map is of the stored picture. One that is upright by its own EXIF, or whose shape is that of the upright picture
    alone, is turned already.

    Args:
        values (`np.ndarray` of shape `(H, W)`): depth map, turned by its own EXIF.
        is_turned (`bool`): whether it had EXIF that turned it.
        turn (`Orientation`): orientation of the picture.
        size (`tuple[int, int]`): width and height of the picture as stored.
        name (`str`, defaults to "the picture"): how the error calls the picture.
    Returns:
        `tuple` of the upright map, and whether it was turned here.
    Raises:
        RecordError: if its shape fits neither the stored picture nor the upright one.
    """
    fits_stored = not is_turned and has_shape_of(values.shape, size)
    if fits_stored:
        return turn.array(values), True
    if has_shape_of(values.shape, turn.size(size)):
        return values, False
    height, width = values.shape
    raise RecordError(
        f"the depth map has {width} x {height} pixels, and {name} {size[0]} x {size[1]} as stored, "
        f"{turn.size(size)[0]} x {turn.size(size)[1]} upright: another shape, so that they do not meet. "
        f"{quarter_turn_hint(values.shape, turn.size(size))}Give the depth map of the whole picture, turned as it is.",
        "depth",
    )


def has_shape_of(map_shape: tuple[int, int], size: tuple[int, int], slack: float = 0.0) -> bool:
    """Whether a map has the shape of a picture, whatever their sizes.

    Args:
        map_shape (`tuple[int, int]`): height and width. size (`tuple[int, int]`): width and height of the picture.
        slack (`float`, defaults to 0): what width over height may differ by beyond 5 %.
    """
    (height, width), (picture_width, picture_height) = map_shape, size
    return abs(width * picture_height / (height * picture_width) - 1) <= MAX_SHAPE_DIFFERENCE + slack


def quarter_turn_hint(map_shape: tuple[int, int], size: tuple[int, int], slack: float = 0.0) -> str:
    """A sentence for errors where a map has the shape of a picture that is turned by a quarter, else nothing."""
    is_quarter = not has_shape_of(map_shape, size, slack) and has_shape_of(map_shape[::-1], size, slack)
    return "It is turned by 90 degrees against its picture. " if is_quarter else ""
