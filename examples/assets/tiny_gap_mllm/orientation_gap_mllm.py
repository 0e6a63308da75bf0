"""How a stored picture becomes upright, and everything that is known of its pixels and its camera with it.

Cameras and phones store what the sensor saw, and say beside it how to turn that: by EXIF in pictures, by a display
matrix in videos. What belongs to a stored picture (intrinsics, pose, depth, pixels) belongs to the stored pixels.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image


EXIF_ORIENTATION = 0x0112
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
HEIF_ORIENTATION = "original_orientation"  # of what pillow-heif notes beside a picture
# EXIF value -> (is_swapped, flip_columns, flip_rows); 1 is upright. Values 2, 4, 5 and 7 are mirrored.
_EXIF = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True)
class Orientation:
    """What makes a stored picture upright: rows and columns exchanged first, then mirrored.

    Frame: OpenCV cameras, of the stored picture and of the upright one; both look the same way, so z stays. Units:
    pixels with integer centres.

    Args:
        is_swapped (`bool`, defaults to False): whether rows and columns change places.
        flip_columns (`bool`, defaults to False): whether left and right change places afterwards.
        flip_rows (`bool`, defaults to False): whether top and bottom change places afterwards.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.orientation_gap_mllm import Orientation
        >>> turn = Orientation.from_exif(6)  # a phone held upright
        >>> turn.size((640, 480)), turn.pixels(np.array([10.0, 20.0]), (640, 480)).tolist()
        ((480, 640), [459.0, 10.0])

        ```
    """

    is_swapped: bool = False
    flip_columns: bool = False
    flip_rows: bool = False

    @classmethod
    def from_exif(cls, value: int | None) -> "Orientation":
        """Of an EXIF orientation; values that EXIF does not know mean upright, as Pillow takes them."""
        return cls(*_EXIF.get(value, _EXIF[1]))

    @classmethod
    def of_picture(cls, image: Image.Image) -> "Orientation":
        """Of a picture as Pillow opened it, which decodes a PNG; of HEIC, which pillow-heif has turned already."""
        turned_by_plugin = image.info.get(HEIF_ORIENTATION) if image.format == "HEIF" else None
        return cls.from_exif(turned_by_plugin or image.getexif().get(EXIF_ORIENTATION))

    @classmethod
    def from_display_matrix(cls, matrix) -> "Orientation":
        """Of a video's display matrix [a b u; c d v; x y w]: the stored x axis points to (a, b), the y axis to (c, d).

        Args:
            matrix (sequence of 9 numbers, of which the first five are read).
        """
        a, b, _, c, d = (float(number) for number in list(matrix)[:5])
        is_swapped = abs(b) > abs(a)
        return cls(is_swapped, (c if is_swapped else a) < 0, (b if is_swapped else d) < 0)

    @property
    def exif_value(self) -> int:
        """The EXIF orientation, 1 to 8."""
        return next(value for value in _EXIF if Orientation.from_exif(value) == self)

    @property
    def is_upright(self) -> bool:
        """Whether nothing has to be done."""
        return not (self.is_swapped or self.flip_columns or self.flip_rows)

    @property
    def is_mirrored(self) -> bool:
        """Whether the stored picture is a mirror image, which no turn of a camera makes upright."""
        return (self.is_swapped + self.flip_columns + self.flip_rows) % 2 == 1

    def array(self, values: np.ndarray) -> np.ndarray:
        """Turn a map or picture of shape `(H, W, ...)`."""
        values = values.swapaxes(0, 1) if self.is_swapped else values
        values = values[:, ::-1] if self.flip_columns else values
        return np.ascontiguousarray(values[::-1] if self.flip_rows else values)

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the upright picture, from those of the stored one."""
        return (size[1], size[0]) if self.is_swapped else (size[0], size[1])

    def pixels(self, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Turn pixels.

        Args:
            pixels (`np.ndarray` of shape `(..., 2)`): (x, y) in the stored picture.
            size (`tuple[int, int]`): width and height of the stored picture.
        Returns:
            `np.ndarray` of shape `(..., 2)`: (x, y) in the upright picture.
        """
        pixels = np.asarray(pixels, np.float64)
        turned = pixels[..., ::-1].copy() if self.is_swapped else pixels.copy()
        width, height = self.size(size)
        if self.flip_columns:
            turned[..., 0] = width - 1 - turned[..., 0]
        if self.flip_rows:
            turned[..., 1] = height - 1 - turned[..., 1]
        return turned

    def intrinsics(self, intrinsics: np.ndarray, size: tuple[int, int], name: str = "intrinsics") -> np.ndarray:
        """Turn intrinsics; focal lengths stay positive, since the axes of the camera turn with the picture.

        Args:
            intrinsics (`np.ndarray` of shape `(3, 3)`): intrinsics in pixels of the stored picture.
            size (`tuple[int, int]`): width and height of the stored picture.
            name (`str`, defaults to "intrinsics"): how the error calls them.
        Returns:
            `np.ndarray` of shape `(3, 3)`: intrinsics in pixels of the upright picture.
        Raises:
            ValueError: for skew where rows and columns change places: it would be one of the rows.
        """
        camera = np.array(intrinsics, np.float64)
        skew = camera[0, 1]
        if self.is_swapped and skew != 0:
            raise ValueError(
                f"{name} have skew {skew:g}, and the picture has to be turned by a quarter. Rectify it, or save it "
                "upright and give its intrinsics."
            )
        turned = np.eye(3)
        focal = camera[[0, 1], [0, 1]]
        turned[[0, 1], [0, 1]] = focal[::-1] if self.is_swapped else focal
        turned[:2, 2] = self.pixels(camera[:2, 2], size)
        turned[0, 1] = 0.0 - skew if self.flip_columns != self.flip_rows else skew
        return turned

    def axes(self) -> np.ndarray:
        """The matrix `(4, 4)` from the axes of the stored picture to those of the upright one, mirrored or not."""
        axes = np.eye(4)[[1, 0, 2, 3]] if self.is_swapped else np.eye(4)
        axes[0] *= -1 if self.flip_columns else 1
        axes[1] *= -1 if self.flip_rows else 1
        return axes

    def stored_to_upright(self) -> np.ndarray:
        """The transform `(4, 4)` from the camera of the stored picture to that of the upright one, about the z axis.

        Raises:
            ValueError: if the picture is mirrored: no rigid transform does that.
        """
        if self.is_mirrored:
            raise ValueError(
                "the picture is stored mirrored, and no rigid pose belongs to a mirror image. Save it upright, without"
                " its EXIF orientation or display matrix, and give the pose of what it shows then."
            )
        return self.axes()

    def pose(self, camera_to_world: np.ndarray) -> np.ndarray:
        """Turn a pose: the upright picture's camera to world, from the stored one's, both `(4, 4)`.

        Raises:
            ValueError: if the picture is mirrored.
        """
        return np.asarray(camera_to_world, np.float64) @ self.stored_to_upright().T


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a picture as it is stored, before its pixels are read.

    Pillow turns a TIFF itself when its pixels are read, and pillow-heif a HEIC; both give the upright size as soon as
    it is opened.

    Args:
        image (`PIL.Image.Image`): picture as Pillow opened it.
    """
    if image.format == "HEIF":
        return Orientation.of_picture(image).size(image.size)
    if image.format == "TIFF" and Orientation.of_picture(image).is_swapped:
        return image.tag_v2[TIFF_WIDTH], image.tag_v2[TIFF_HEIGHT]
    return image.size  # for other formats nothing else is read: Pillow decodes a PNG to look for its EXIF


__all__ = ["EXIF_ORIENTATION", "HEIF_ORIENTATION", "Orientation", "stored_size"]
