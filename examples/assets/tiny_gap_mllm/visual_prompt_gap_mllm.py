"""From files and arrays to upright RGB pictures, marks drawn on them, and where a pixel goes when a view is resized.

Pixels are (x, y) = (column, row) of the upright picture, integer at pixel centres. The processor resizes afterwards.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from transformers.image_utils import load_image
from transformers.utils import logging

from .view_files_gap_mllm import open_picture


logger = logging.get_logger(__name__)

CAMERA_BITS = (8, 10, 12, 14)  # of values that are stored in 16
MARK_COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "orange": (255, 128, 0),
    "white": (255, 255, 255),
}
# Discs and outlines are drawn in the colours that SPAR's data was made with: PIL's own names, and where a label is
# written, OpenCV's.
PLAIN_COLORS = {**MARK_COLORS, "green": (0, 128, 0)}
LABELLED_COLORS = {**MARK_COLORS, "cyan": (0, 225, 225)}
MARK_KINDS = ("cross", "point", "box")
MARK_UNITS = ("pixel", "permille")
BOX_GROWTH = 0.875  # of the width of the outline; the outer edge lies that far outside of the box
LABELLED_BOX_GROWTH = 1.5
LABEL_SHARE = 0.5  # size of a cross's number as that of a disc's label, over the arm


@dataclass(frozen=True)
class Mark:
    """A cross on one pixel: index of the view, (x, y) in its upright picture, name of the colour or an RGB triple.

    `text`, the number of one of several marks, is written beside the cross.
    """

    view: int
    pixel: tuple[int, int]
    color: str | tuple[int, int, int] = "red"
    text: str | None = None


@dataclass(frozen=True)
class CrossSize:
    """How large the crosses are that a model knows.

    The defaults are those of the reference release: as many pixels on every picture, before any resizing. With
    `view_width` a cross grows with the width of its picture, so that it covers the share of it that training showed.

    Args:
        arm (`int`, defaults to 10): pixels to each side of the centre.
        half_thickness (`int`, defaults to 2): pixels to each side of the bar's middle line.
        view_width (`int`, *optional*): width of the picture that both are given for; None for any picture.
    Raises:
        ValueError: if one of them is no whole number, arm or view_width below 1, or half_thickness below 0.
    """

    arm: int = 10
    half_thickness: int = 2
    view_width: int | None = None

    def __post_init__(self):
        check_whole("arm", self.arm, at_least=1)
        check_whole("half_thickness", self.half_thickness)
        if self.view_width is not None:
            check_whole("view_width", self.view_width, at_least=1)

    def on_width(self, width: int) -> tuple[int, int]:
        """Arm and half thickness on a picture of this width, in its pixels; an arm is never less than 1.

        The whole thickness of a bar grows, 2 * half_thickness + 1, so that a line of one pixel does not fade away
        where a large picture is made smaller for the model.
        """
        if self.view_width is None:
            return self.arm, self.half_thickness
        scale = width / self.view_width
        return max(int(self.arm * scale + 0.5), 1), int((2 * self.half_thickness + 1) * scale / 2)


# Pictures


def to_rgb_image(image: Any, name: str = "the image") -> Image.Image:
    """Turn one picture of any usual kind into an upright 8-bit RGB PIL image.

    EXIF rotation is applied, transparency is put on white (as VGGT's loader does), 16-bit grey is scaled to 8 bits;
    values of a camera of 10, 12 or 14 bits are known by the largest of them, since files do not say so.
    Eight bits matter: the model rebuilds the geometry image from multiples of 1/255.

    Args:
        image: a PIL image of any mode; a path, URL or base64 text; a numpy array (rows, columns, channels) or
            torch tensor (channels, rows, columns), of 8-bit or 16-bit values or of floats within 0..1 or 0..255.
        name (`str`, defaults to "the image"): how error messages call it.
    Returns:
        `PIL.Image.Image`: mode RGB; the very object that was given where nothing had to be done.
    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if the file cannot be decoded or is larger than Pillow opens, or the array has no shape or values
            of a picture.
        TypeError: if it is none of the kinds above.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing import to_rgb_image
        >>> to_rgb_image(np.zeros((480, 640, 3), np.uint8)).size
        (640, 480)

        ```
    """
    if isinstance(image, str | os.PathLike):
        image, name = open_image(image, name)
    if isinstance(image, Image.Image):
        return _pil_to_rgb(image, name)
    if isinstance(image, torch.Tensor):
        return _array_to_rgb(image.detach().cpu().float().numpy(), name, str(image.dtype), channels_first=True)
    if isinstance(image, np.ndarray):
        return _array_to_rgb(image, name, str(image.dtype))
    kinds = "a PIL image, a path or URL, a numpy array or a torch tensor"
    raise TypeError(f"{name} is of type {type(image).__name__}, expected {kinds}.")


def is_remote(text: str) -> bool:
    """Whether a text is a URL of a picture or holds one."""
    return text.startswith(("http://", "https://", "data:image/"))


def open_image(source: str | os.PathLike, name: str = "the image") -> tuple[Image.Image, str]:
    """Open a picture as it is stored: not yet upright, and its pixels are read later.

    Args:
        source (`str` or `os.PathLike`): path, URL or base64 text.
        name (`str`, defaults to "the image"): how error messages call it.
    Returns:
        `tuple[PIL.Image.Image, str]`: the picture, and its name with the path.
    Raises:
        FileNotFoundError, ValueError: as `to_rgb_image`. ImportError: for HEIC without pillow-heif.
    """
    text = os.fspath(source)
    shown = text if len(text) <= 200 else text[:80] + "..."
    name = f"{name} ({shown!r})"
    is_local = not is_remote(text) and os.path.isfile(text)
    if not is_local and not is_remote(text) and (isinstance(source, os.PathLike) or len(text) < 200):
        raise FileNotFoundError(f"{name} does not exist; check the path, or pass a URL or a PIL image.")
    try:
        return (open_picture(text, name) if is_local else load_image(text)), name
    except Image.DecompressionBombError as error:  # neither of the errors below
        raise ValueError(f"{name} is too large, or damaged; give a smaller picture: {error}") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{name} cannot be read as a picture: {error}") from error


def _pil_to_rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        if image.mode == "RGB" and "transparency" not in image.info and image.getexif().get(0x0112, 1) == 1:
            return image
        image = ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError) as error:
        where = getattr(image, "filename", "")
        name = f"{name} ({where!r})" if where and repr(where) not in name else name
        raise ValueError(f"{name} cannot be decoded; the file is damaged or cut off: {error}") from error
    if image.mode.startswith("I;16"):
        return _array_to_rgb(np.asarray(image), name, "uint16")
    if image.mode in ("I", "F"):
        array = np.asarray(image)
        is_16_bit = image.mode == "I" and array.max(initial=0) > 255
        return _array_to_rgb(array, name, "uint16" if is_16_bit else str(array.dtype))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _array_to_rgb(array: np.ndarray, name: str, dtype: str, channels_first: bool = False) -> Image.Image:
    """An array (H, W), (H, W, C) or (C, H, W) with C of 1, 3 or 4; `channels_first` decides where both would fit."""
    shape = array.shape
    if array.ndim == 2:
        array = array[..., None]
    is_first, is_last = array.ndim == 3 and shape[0] in (1, 3, 4), array.ndim == 3 and array.shape[-1] in (1, 3, 4)
    if not (is_first or is_last) or array.size == 0:
        raise ValueError(f"{name} has shape {tuple(shape)}, expected (height, width) with 1, 3 or 4 channels.")
    if len(shape) == 3 and is_first and (channels_first or not is_last):
        array = np.moveaxis(array, 0, -1)
    array = np.ascontiguousarray(_to_8_bit(array, name, dtype.removeprefix("torch.")))
    if array.shape[-1] == 1:
        array = array.repeat(3, axis=-1)
    return _pil_to_rgb(Image.fromarray(array), name)


def _to_8_bit(array: np.ndarray, name: str, dtype: str) -> np.ndarray:
    """Values of a picture as uint8; what their range is follows from the type, and for floats from the values."""
    if dtype == "uint8":
        return array.astype(np.uint8)
    values = array.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if dtype == "bool" or ("float" in dtype and high <= 1):
        top = 1.0
    else:
        top = _top_of_16_bits(high, name) if dtype == "uint16" else 255.0
    if not (low >= 0 and high <= top):  # NaN is refused too
        ranges = "0..1 or 0..255" if "float" in dtype else f"0..{top:g}"
        raise ValueError(f"{name} of type {dtype} holds values from {low:g} to {high:g}, expected {ranges}.")
    return np.rint(values * (255.0 / top)).astype(np.uint8)


def _top_of_16_bits(high, name):
    """The white of a camera whose values are stored in 16 bits."""
    bits = next((bits for bits in CAMERA_BITS if high < 2**bits), 16)
    if bits < 16 and high > 0:
        logger.warning_once(
            f"{name} holds 16-bit values of at most {high:g}: taken as those of a camera of {bits} bits, whose white "
            f"is {2**bits - 1}. Scale them to 16 or 8 bits if the picture is dark instead."
        )
    return 2.0**bits - 1


# Marks


def draw_cross(
    image: Image.Image | np.ndarray | str | Path,
    pixel: Sequence[float],
    color: str = "red",
    arm: int = 10,
    half_thickness: int = 2,
):
    """Draw a plus sign centred on one pixel, clipped at the border.

    Source: the reference release (arms of 10 pixels to each side, 5 thick, pure red), drawn before any resizing.
    Differs: a pixel outside the picture raises; the reference then draws nothing, in silence.

    Args:
        image: one picture, as for `to_rgb_image`; it is not changed.
        pixel (pair of `int`): x (column) and y (row) in the upright picture.
        color (`str` or RGB triple, defaults to "red"): a name in `MARK_COLORS`, or three values 0..255.
        arm (`int`, defaults to 10): pixels to each side of the centre.
        half_thickness (`int`, defaults to 2): pixels to each side of the bar's middle line.
    Returns:
        `PIL.Image.Image` (RGB), or `np.ndarray` (height, width, 3) of uint8 if an array was given.
    Raises:
        ValueError: if the pixel lies outside, or is no pair of whole numbers, the colour is unknown, or the size of
            the cross is no whole number of at least 0.

    Example:
        ```python
        >>> from PIL import Image
        >>> from gap_mllm.processing import draw_cross
        >>> marked = draw_cross(Image.new("RGB", (640, 480)), (320, 240))
        >>> marked.getpixel((330, 240)), marked.getpixel((331, 240))  # the arm ends 10 pixels from the centre
        ((255, 0, 0), (0, 0, 0))

        ```
    """
    return _draw(image, pixel, color, arm, half_thickness, where="")


def apply_visual_prompt(
    images: Sequence,
    marks: Sequence,
    arm: int | None = None,
    half_thickness: int | None = None,
    cross_size: CrossSize | None = None,
) -> list:
    """Draw all marks of a scene.

    Args:
        images (list): the views of one scene, each as for `to_rgb_image`.
        marks (list of `Mark`, or of [view, x, y] triples as in the released `pixel_coords`): a single one will do.
        arm, half_thickness (`int`, *optional*): size of the cross in pixels of each view, see `draw_cross`; default:
            `cross_size`.
        cross_size (`CrossSize`, *optional*): what the model knows, see `GapMllmProcessor.cross_size`.
    Returns:
        `list`: marked views as new pictures; views without a mark are the objects that were given.
    Raises:
        TypeError: if `images` is a single picture.
        ValueError: if a mark names a view that is not there or a pixel outside it (view, pixel and size are named), is
            none of the forms above, or as `draw_cross`.

    Example:
        ```python
        >>> from PIL import Image
        >>> from gap_mllm.processing import Mark, apply_visual_prompt
        >>> views = [Image.new("RGB", (640, 480)) for _ in range(2)]
        >>> marked = apply_visual_prompt(views, [Mark(1, (320, 240))])
        >>> marked[1].getpixel((320, 240)), marked[0] is views[0]
        ((255, 0, 0), True)

        ```
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        raise TypeError(f"images must be a list of the views of one scene, got one {type(images).__name__}.")
    views = list(images)
    for mark in as_marks(marks):
        if not 0 <= mark.view < len(views):
            raise ValueError(
                f"mark {mark} is on view {mark.view}, but the scene has {len(views)} views (counted from 0)."
            )
        where = f"view {mark.view}: "
        sizes = (arm, half_thickness, where, cross_size)
        views[mark.view] = _draw(views[mark.view], mark.pixel, mark.color, *sizes, getattr(mark, "text", None))
    return views


def draw_point(
    image: Image.Image | np.ndarray | str | Path,
    pixel: Sequence[float],
    color: str = "red",
    radius: int = 20,
    text: str | None = None,
):
    """Draw a filled disc centred on one pixel, clipped at the border, with a label if asked for.

    Source: SPAR (arXiv:2503.22976) marks points so, on pictures in their full size. Its green is (0, 128, 0).
    Differs: labels are in the font that comes with PIL, white or black on the colour of the mark; SPAR has OpenCV's
    stroked letters, in two of its tasks green ones without a ground.

    Args:
        image: one picture, as for `to_rgb_image`; it is not changed.
        pixel (pair of `int`): x (column) and y (row) in the upright picture.
        color (`str` or RGB triple, defaults to "red"): a name in `PLAIN_COLORS` (in `LABELLED_COLORS` with a text), or
            three values.
        radius (`int`, defaults to 20): radius in pixels; labels grow with it.
        text (`str`, *optional*): label at the lower right of the disc.
    Returns:
        `PIL.Image.Image` (RGB), or `np.ndarray` (height, width, 3) of uint8 if an array was given.
    Raises:
        ValueError: if the pixel lies outside or is no pair of whole numbers, the colour is unknown, or the radius is
            no whole number of at least 0.

    Example:
        ```python
        >>> from PIL import Image
        >>> from gap_mllm.processing import draw_point
        >>> draw_point(Image.new("RGB", (640, 480)), (320, 240), color="green", text="A").getpixel((310, 240))
        (0, 255, 0)

        ```
    """
    check_whole("radius", radius)
    picture = to_rgb_image(image, "the image").copy()
    _disc(picture, _check_pixel(pixel, picture.size, ""), color, radius, text)
    return np.array(picture) if isinstance(image, np.ndarray) else picture


def draw_box(
    image: Image.Image | np.ndarray | str | Path,
    box: Sequence[float],
    color: str = "red",
    width: int = 20,
    text: str | None = None,
):
    """Draw the outline of a box, clipped at the border, with a label if asked for.

    Source: SPAR, on pictures in their full size. The outer edge lies 7/8 of the width outside of the box (17.5 pixels
    for 20), or 3/2 of it where there is a label; coordinates are cut to whole pixels towards 0.
    Differs: labels, as for `draw_point`; and corners of labelled boxes are square.

    Args:
        image: one picture, as for `to_rgb_image`; it is not changed.
        box (sequence of 4 numbers): x1, y1, x2, y2 in pixels of the upright picture.
        color (`str` or RGB triple, defaults to "red"): colour, as for `draw_point`.
        width (`int`, defaults to 20): width of the outline, in pixels; labels grow with it.
        text (`str`, *optional*): label below the lower right corner, above that edge where there is no room.
    Returns:
        As `draw_point`.
    Raises:
        ValueError: if the box is not x1 <= x2, y1 <= y2 in finite numbers or lies outside, the colour is unknown, or
            the width is no whole number of at least 1.

    Example:
        ```python
        >>> from PIL import Image
        >>> from gap_mllm.processing import draw_box
        >>> marked = draw_box(Image.new("RGB", (640, 480)), (100, 100, 300, 200), color="blue", width=4)
        >>> marked.getpixel((98, 150)), marked.getpixel((200, 150))
        ((0, 0, 255), (0, 0, 0))

        ```
    """
    check_whole("width", width, at_least=1)
    picture = to_rgb_image(image, "the image").copy()
    _outline(picture, _check_box(box, picture.size, ""), color, width, text)
    return np.array(picture) if isinstance(image, np.ndarray) else picture


def draw_scene_marks(
    images: Sequence,
    marks: Sequence,
    radius: int = 20,
    width: int = 20,
    arm: int | None = None,
    half_thickness: int | None = None,
    cross_size: CrossSize | None = None,
) -> list:
    """Draw the marks of a scene, of all kinds, one after the other.

    Args:
        images (list): the views of one scene, each as for `to_rgb_image`.
        marks (list): objects with `view`, `kind` ("cross", "point" or "box"), `color`, `xy` (x, y, or x1, y1, x2, y2),
            `unit` ("pixel", or "permille" of width and height) and `text` (None or a label), as `SceneMark`.
        radius, width (`int`, defaults to 20): sizes of `draw_point` and `draw_box`, in pixels.
        arm, half_thickness (`int`, *optional*), cross_size (`CrossSize`, *optional*): arguments of
            `apply_visual_prompt`.
    Returns:
        `list`: marked views as new pictures; views without a mark are the objects that were given.
    Raises:
        TypeError: if `images` is a single picture.
        ValueError: if a mark is on no view or outside it, its kind or unit is unknown, or as the three functions.

    Example:
        ```python
        >>> from PIL import Image
        >>> from gap_mllm.processing import draw_scene_marks
        >>> from gap_mllm.processing.data.scene_sample import SceneMark
        >>> box = SceneMark(0, "box", "red", (250, 250, 500, 500), "permille")
        >>> marked = draw_scene_marks([Image.new("RGB", (640, 480))], [box], width=4)
        >>> marked[0].getpixel((158, 150))
        (255, 0, 0)

        ```
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        raise TypeError(f"images must be a list of the views of one scene, got one {type(images).__name__}.")
    check_whole("radius", radius)
    check_whole("width", width, at_least=1)
    views = list(images)
    pictures = {}
    for mark in marks:
        if not 0 <= mark.view < len(views):
            raise ValueError(
                f"mark {mark} is on view {mark.view}, but the scene has {len(views)} views (counted from 0)."
            )
        where = f"view {mark.view}: "
        if mark.view not in pictures:
            pictures[mark.view] = to_rgb_image(views[mark.view], f"{where}the image").copy()
        picture = pictures[mark.view]
        xy = _mark_pixels(mark, picture.size, where)
        if mark.kind == "box":
            _outline(picture, _check_box(xy, picture.size, where), mark.color, width, mark.text)
        elif mark.kind == "point":
            _disc(
                picture,
                xy if mark.unit == "permille" else _check_pixel(xy, picture.size, where),
                mark.color,
                radius,
                mark.text,
            )
        else:
            pictures[mark.view] = _draw(picture, xy, mark.color, arm, half_thickness, where, cross_size, mark.text)
    for view, picture in pictures.items():
        views[view] = np.array(picture) if isinstance(views[view], np.ndarray) else picture
    return views


def _mark_pixels(mark, size: tuple[int, int], where: str) -> tuple:
    """Pixels of a mark; points of thousandths are cut to whole pixels, as SPAR does."""
    if mark.kind not in MARK_KINDS or mark.unit not in MARK_UNITS:
        kinds, units = ", ".join(MARK_KINDS), " or ".join(MARK_UNITS)
        raise ValueError(f"{where}mark of kind {mark.kind!r} in {mark.unit!r}; expected {kinds}, in {units}.")
    xy = tuple(float(value) for value in mark.xy)
    if len(xy) != (4 if mark.kind == "box" else 2):
        raise ValueError(f"{where}a {mark.kind} of {len(xy)} numbers; expected x, y, or x1, y1, x2, y2 of a box.")
    if mark.unit == "pixel":
        return xy
    scaled = tuple(value / 1000 * length for value, length in zip(xy, size * 2, strict=False))
    if mark.kind == "box":
        return scaled
    if not all(0 <= value <= 1000 for value in xy):
        raise ValueError(f"{where}{mark.kind} {xy} lies outside the picture; expected thousandths from 0 to 1000.")
    pixel = tuple(int(value) for value in scaled)
    return (
        pixel
        if mark.kind == "point"
        else tuple(min(value, length - 1) for value, length in zip(pixel, size, strict=True))
    )


def _disc(picture: Image.Image, pixel, color, radius: int, text: str | None) -> None:
    x, y = pixel
    rgb = _rgb(color, LABELLED_COLORS if text else PLAIN_COLORS)
    ImageDraw.Draw(picture).ellipse([x - radius, y - radius, x + radius, y + radius], fill=rgb)
    if text:
        _label(picture, text, rgb, radius, bottom=y + radius, right=x - radius, left=x + radius)


def _outline(picture: Image.Image, box, color, width: int, text: str | None) -> None:
    rgb = _rgb(color, LABELLED_COLORS if text else PLAIN_COLORS)
    growth = width * (LABELLED_BOX_GROWTH if text else BOX_GROWTH)
    x1, y1, x2, y2 = box
    outer = [int(x1 - growth), int(y1 - growth), int(x2 + growth), int(y2 + growth)]
    ImageDraw.Draw(picture).rectangle(outer, outline=rgb, width=width)
    if text:
        _label(picture, text, rgb, width, top=int(y2), right=int(x2))


def _label(picture, text, rgb, size: int, right: int, left=None, top=None, bottom=None, bright: int = 200) -> None:
    """Text about 2.2 `size` high on a ground, kept inside the picture where it is not larger.

    The ground begins at `left`, or ends at `right` where that is None or leaves no room; it begins at `top`, or ends
    there where it leaves no room, or ends at `bottom`. Letters are black on colours above `bright`, else white.
    """
    font = ImageFont.load_default(max(3.1 * size, 1))
    x1, y1, x2, y2 = font.getbbox(text)
    margin = size // 4
    width, height = int(x2 - x1) + 2 * margin, int(y2 - y1) + 2 * margin
    if left is None or left + width > picture.width:
        left = right - width
    if top is None or top + height > picture.height:
        top = (bottom if top is None else top) - height
    left, top = max(min(left, picture.width - width), 0), max(min(top, picture.height - height), 0)
    draw = ImageDraw.Draw(picture)
    draw.rectangle([left, top, left + width - 1, top + height - 1], fill=rgb)
    brightness = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    draw.text(
        (left + margin - x1, top + margin - y1), text, font=font, fill="black" if brightness > bright else "white"
    )


def check_whole(name: str, value: object, at_least: int = 0) -> None:
    """Raise ValueError unless it is a whole number of at least `at_least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} is {value!r}; expected a whole number of pixels, {at_least} or more.")


def _check_box(box, size: tuple[int, int], where: str) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in box)
    if (
        len(numbers) != 4
        or not (numbers[0] <= numbers[2] and numbers[1] <= numbers[3])
        or not np.isfinite(numbers).all()
    ):
        raise ValueError(f"{where}box {numbers} is not x1, y1, x2, y2 with x1 <= x2 and y1 <= y2.")
    if numbers[2] < 0 or numbers[3] < 0 or numbers[0] >= size[0] or numbers[1] >= size[1]:
        raise ValueError(f"{where}box {numbers} lies outside the picture of {size[0]} x {size[1]} (width x height).")
    return numbers


def as_marks(marks: Sequence) -> list[Mark]:
    """Marks in any of the forms that `apply_visual_prompt` takes, as a list."""
    # By attribute: a processor loaded as remote code has its own copy of the class.
    entries = list(marks) if isinstance(marks, Iterable) and not hasattr(marks, "pixel") else [marks]
    if entries and not any(hasattr(entry, "pixel") or np.ndim(entry) for entry in entries):
        entries = [entries]  # one released `pixel_coords`
    return [entry if hasattr(entry, "pixel") else _as_mark(entry) for entry in entries]


def _as_mark(entry) -> Mark:
    try:
        view, x, y = (float(value) for value in entry)
    except (TypeError, ValueError):
        raise ValueError(f"{entry!r} is no mark; expected a Mark, or view, x and y in whole numbers.") from None
    if not view.is_integer():
        raise ValueError(f"{entry!r} is no mark; its view must be a whole number.")
    return Mark(int(view), (x, y))


def _draw(image, pixel, color, arm: int | None, half_thickness: int | None, where: str, cross_size=None, text=None):
    picture = np.array(to_rgb_image(image, f"{where}the image"))  # (height, width, 3), a copy
    height, width = picture.shape[:2]
    known_arm, known_half_thickness = (cross_size or CrossSize()).on_width(width)
    arm = known_arm if arm is None else arm
    half_thickness = known_half_thickness if half_thickness is None else half_thickness
    check_whole("arm", arm)
    check_whole("half_thickness", half_thickness)
    x, y = _check_pixel(pixel, (width, height), where)
    for reach_x, reach_y in ((arm, half_thickness), (half_thickness, arm)):
        rows = slice(max(y - reach_y, 0), y + reach_y + 1)
        columns = slice(max(x - reach_x, 0), x + reach_x + 1)
        picture[rows, columns] = _rgb(color)
    if text:
        labelled = Image.fromarray(picture)
        reach = half_thickness + 2  # the label stands between two arms of the cross, off its centre
        size = max(round(LABEL_SHARE * arm), 1)
        _label(labelled, text, _rgb(color), size, right=x - reach, left=x + reach, top=y + reach, bright=120)
        picture = np.array(labelled)
    return picture if isinstance(image, np.ndarray) else Image.fromarray(picture)


def _check_pixel(pixel, size: tuple[int, int], where: str) -> tuple[int, int]:
    numbers = tuple(float(value) for value in pixel)
    if len(numbers) != 2 or not all(number.is_integer() for number in numbers):
        raise ValueError(f"{where}pixel {tuple(pixel)} is no pair of whole numbers (x, y).")
    x, y = (int(number) for number in numbers)
    if not (0 <= x < size[0] and 0 <= y < size[1]):
        raise ValueError(
            f"{where}pixel (x={x}, y={y}) lies outside the picture of {size[0]} x {size[1]} (width x height)."
        )
    return x, y


def _rgb(color, names=MARK_COLORS) -> tuple[int, int, int]:
    if isinstance(color, str):
        if color not in names:
            raise ValueError(f"unknown mark colour {color!r}; known are {', '.join(names)}, or give an RGB triple.")
        return names[color]
    if len(color) != 3 or not all(0 <= value <= 255 for value in color):
        raise ValueError(f"a mark colour must be a name or three values 0..255, got {color!r}.")
    return tuple(color)


# Pixels through a resize


def pixel_to_token(
    pixel: Sequence[float], image_size: tuple[int, int], grid_hw: tuple[int, int], merge_size: int = 2
) -> int:
    """Find the merged visual token of a view that holds a pixel.

    Args:
        pixel (pair): x and y in the picture as given to the processor.
        image_size (pair of `int`): its width and height.
        grid_hw (pair of `int`): patch rows and columns of the view, `image_grid_thw[view, 1:]`.
        merge_size (`int`, defaults to 2): patches merged in each direction.
    Returns:
        `int`: index among the tokens of this view, row by row.
    Raises:
        ValueError: if the pixel lies outside the picture.

    Example:
        ```python
        >>> from gap_mllm.processing import pixel_to_token
        >>> pixel_to_token((40, 0), image_size=(160, 128), grid_hw=(8, 10))
        1

        ```
    """
    x, y = _check_pixel(pixel, image_size, "")
    rows, columns = int(grid_hw[0]) // merge_size, int(grid_hw[1]) // merge_size
    column = (2 * x + 1) * columns // (2 * int(image_size[0]))  # the centre of the pixel, in whole-number arithmetic
    row = (2 * y + 1) * rows // (2 * int(image_size[1]))
    return row * columns + column


def marks_to_tokens(
    marks: Sequence, image_sizes: list[tuple[int, int]], image_grid_thw: torch.Tensor, merge_size: int = 2
) -> list[int]:
    """Find the visual tokens of a scene that hold its marks.

    Args:
        marks: marks of the scene, see `apply_visual_prompt`.
        image_sizes (list of pairs): width and height of every view, as given to the processor.
        image_grid_thw (array-like of shape `(views, 3)`): the processor's output for this scene.
        merge_size (`int`, defaults to 2): patches merged in each direction.
    Returns:
        `list[int]`: per mark, the index among all visual tokens of the scene, view after view.
    Raises:
        ValueError: if a mark is on no view or outside it.

    Example:
        ```python
        >>> from gap_mllm.processing import Mark, marks_to_tokens
        >>> grids = [[1, 8, 10], [1, 8, 10]]  # two views of 4 x 5 merged tokens each
        >>> marks_to_tokens([Mark(1, (0, 0))], [(160, 128)] * 2, grids)
        [20]

        ```
    """
    grids = [tuple(int(value) for value in grid) for grid in image_grid_thw]
    tokens = []
    for mark in as_marks(marks):
        if not 0 <= mark.view < len(grids):
            raise ValueError(
                f"mark {mark} is on view {mark.view}, but the scene has {len(grids)} views (counted from 0)."
            )
        before = sum(t * h * w for t, h, w in grids[: mark.view]) // merge_size**2
        tokens.append(before + pixel_to_token(mark.pixel, image_sizes[mark.view], grids[mark.view][1:], merge_size))
    return tokens
