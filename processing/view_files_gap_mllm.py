"""What a file is to a scene (the one table of kinds), which files of a folder are its views, and in which order.

Sessions, `gap-mllm ask`, readers of data, labels of videos and the demo all choose by this file, so that the same
folder has the same views everywhere. Kinds are found by content; only maps of one channel need the name as well.

Also how a stored picture becomes upright, and all that is known of its pixels and its camera with it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError


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
        >>> from gap_mllm.processing.view_files_gap_mllm import Orientation
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


KINDS = ("picture", "animation", "video", "depth", "mask", "other")
PICTURE_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "PPM", "TGA", "JPEG2000", "AVIF", "HEIF", "GIF")
PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .tif .tiff .bmp .ppm .pgm .tga .jp2 .avif .heic .heif .gif".split()
)
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .qt .avi .mkv .webm .mpg .mpeg .mpe .vob .ts .mts .m2ts .3gp .3g2 .wmv .flv .ogv .h264 .h265 "
    ".hevc .y4m .mjpg .mjpeg".split()
)
RAW_SUFFIXES = frozenset(".dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .pef .srw".split())
MAP_SUFFIXES = frozenset(".exr .pfm .npy .npz .h5 .hdf .hdf5 .dpt .flo".split())  # of numbers, not opened here
MAP_WORDS = {"depth": "depth", "disparity": "depth", "mask": "mask"}  # anywhere in a name
MASK_BEGINNINGS = ("segment", "semantic", "instance", "label", "confidence", "silhouette")  # of a word of a name
SHORT_WORDS = {"disp": "depth"} | dict.fromkeys(("seg", "conf", "matte", "mattes", "alpha", "alphas"), "mask")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
MAX_FOLDER_WORDS = 2  # "depth", "lowres_depth": longer names of folders say too much to mean all their files
LFS_HEADER = b"version https://git-lfs.github.com/spec/"
HEIF_HEAD_BYTES = 1 << 18  # where the boxes lie that describe a picture
HEIF_TURNS = (1, 8, 3, 6)  # EXIF orientations of 0 to 3 quarter turns to the left
NUM_NAMED = 5  # files of a kind that a sentence names
WIDE_MODES = ("I", "F")  # of Pillow, with "I;16" and its kin: more than 8 bits of one channel
GREY_MODES = ("L", "1")


# Order


def natural_key(path: str | Path) -> tuple:
    """A key that sorts file names as people count: 2 before 10, by the name without its suffix first.

    Example:
        ```python
        >>> from gap_mllm.processing.view_files_gap_mllm import natural_key
        >>> sorted(["frame_10.jpg", "frame_2.jpg", "frame_1.jpg"], key=natural_key)
        ['frame_1.jpg', 'frame_2.jpg', 'frame_10.jpg']

        ```
    """
    path = Path(path)
    return _parts(path.stem), _parts(path.name), str(path.parent)


def _parts(text):
    """Numbers and the text between them, comparable in turn."""
    parts = [part for part in re.split(r"(\d+)", text) if part]
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


# Kinds


@dataclass(frozen=True)
class FileContent:
    """What a file holds by itself, before its neighbours are looked at.

    Args:
        kind (`str`): one of `KINDS`; "picture" for maps of one channel, too.
        channel (`str`, *optional*): "wide" of a map of one channel with more than 8 bits, "grey" of one with up to 8;
            None of colour.
        hint (`str`, *optional*): "depth" or "mask", if the name of the file or of its folder says so.
    """

    kind: str
    channel: str | None = None
    hint: str | None = None


def file_content(path: str | Path) -> FileContent:
    """Find out what a file holds, from its first bytes and the header of a picture.

    A file that is called a picture and is none is "picture" as well, so that opening it says what is wrong; one that
    is no file at all (a link to nothing, a FIFO) is "other".

    Args:
        path (`str` or `Path`): a local file.
    Returns:
        `FileContent`.
    """
    path = path if isinstance(path, Path) else Path(path)
    suffix, hint = path.suffix.lower(), _hint(path)
    if not path.is_file():
        return FileContent("other")
    if suffix in RAW_SUFFIXES:  # many begin as a TIFF, whose first picture is a small preview
        return FileContent("other")
    if suffix in MAP_SUFFIXES:
        return FileContent("depth" if hint == "depth" else "other")
    with open(path, "rb") as stream:
        head = stream.read(64)
    if is_heif(head):
        return FileContent("picture")
    if _is_video(head, suffix):
        return FileContent("video")
    return _picture_content(path, suffix, hint)


def _picture_content(path, suffix, hint):
    try:
        with Image.open(path, formats=_pillow_formats()) as image:
            if _has_several_pictures(image):
                return FileContent("animation")
            return FileContent("picture", _channel(image.mode), hint)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return FileContent("picture" if suffix in PICTURE_SUFFIXES else "other")


def _pillow_formats():
    """Those of `PICTURE_FORMATS` that this Pillow has: not its stubs (HDF5, EPS, MPEG), which open and do not load."""
    Image.init()
    return [name for name in PICTURE_FORMATS if name in Image.OPEN]


def is_wide(mode: str) -> bool:
    """Whether a mode of Pillow has one channel of more than 8 bits."""
    return mode in WIDE_MODES or mode.startswith("I;")


def _channel(mode):
    if is_wide(mode):
        return "wide"
    return "grey" if mode in GREY_MODES else None


def _has_several_pictures(image):
    """Whether a file is an animation; the further pages of a pyramid or an MPO are smaller copies of the first."""
    if image.format == "MPO" or getattr(image, "n_frames", 1) < 2:
        return False
    return image.format != "TIFF" or len({page.size for page in ImageSequence.Iterator(image)}) == 1


def _hint(path):
    """Whether the name of a file, or of the folder it lies in, speaks of depth or of masks."""
    folder = path.absolute().parent.name
    by_folder = _name_hint(folder) if len(_words(folder)) <= MAX_FOLDER_WORDS else None
    return _name_hint(path.stem) or by_folder


def _name_hint(name):
    words = _words(name)
    found = [kind for word, kind in MAP_WORDS.items() if word in name.lower()]
    found += ["mask" for word in words if word.startswith(MASK_BEGINNINGS)]
    found += [SHORT_WORDS[word] for word in words if word in SHORT_WORDS]
    return found[0] if found else None


def _words(name):
    return [word for word in re.split(r"[^a-z]+", name.lower()) if word]


def _is_video(head, suffix):
    if head[4:8] == b"ftyp":
        return head[8:12] not in (b"avif", b"avis") and b"avif" not in head[16:]
    begins = (b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"OggS", b"YUV4MPEG2")
    if head.startswith(begins) or (head.startswith(b"RIFF") and head[8:12] == b"AVI "):
        return True
    return suffix in VIDEO_SUFFIXES


def is_heif(head: bytes) -> bool:
    """Whether a file begins as HEIC or HEIF, the pictures of iPhones; AVIF, which Pillow reads, is another."""
    brand, others = head[8:12], head[16:64]
    return head[4:8] == b"ftyp" and brand in HEIF_BRANDS and b"avif" not in others


# Folders


@dataclass(frozen=True)
class FolderViews:
    """The views of a folder, and what else it holds.

    Args:
        pictures (`tuple[Path, ...]`): pictures to show, in natural order.
        others (`dict[str, tuple[Path, ...]]`): the other files by kind, in natural order.
        notes (`tuple[str, ...]`): sentences about what is left out or in doubt, with counts and names.
    """

    pictures: tuple[Path, ...]
    others: dict[str, tuple[Path, ...]]
    notes: tuple[str, ...]


def folder_views(folder: str | Path, entries: Iterable[Path] | None = None) -> FolderViews:
    """Choose the views of a folder; see `choose_views`. Hidden files (".name") are passed over, as are folders.

    Args:
        folder (`str` or `Path`): folder of pictures of one place.
        entries (iterable of `Path`, *optional*): what it holds, if that was listed already.
    Returns:
        `FolderViews`.
    Raises:
        ValueError: if it holds no picture, with what it holds instead.

    Example:
        ```python
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from gap_mllm.processing.view_files_gap_mllm import folder_views
        >>> Path("posed").mkdir()
        >>> for number in (2, 10):
        ...     Image.new("RGB", (64, 48)).save(f"posed/{number}.jpg")
        ...     Image.new("I;16", (64, 48)).save(f"posed/{number}.png")
        >>> views = folder_views("posed")
        >>> [path.name for path in views.pictures], views.notes
        (['2.jpg', '10.jpg'], ('left out 2 depth maps: 2.png, 10.png',))

        ```
    """
    folder = Path(folder)
    entries = [path for path in entries or folder.iterdir() if not path.name.startswith(".")]
    chosen = choose_views([path for path in entries if not path.is_dir()])
    if not chosen.pictures:
        held = [_counted(kind, files) for kind, files in chosen.others.items()]
        folders = sorted(path.name for path in entries if path.is_dir())
        if folders:
            held.append(f"folders: {name_some(folders)}")
        count = sum(len(files) for files in chosen.others.values())
        listed = f" ({'; '.join(held)})" if held else ""
        raise ValueError(
            f"{folder} holds no pictures (such as .jpg or .png), but {count} other files{listed}. Give the folder"
            " with the pictures, or the files themselves."
        )
    return chosen


def choose_views(files: Iterable[str | Path], has_pictures: bool = False) -> FolderViews:
    """Tell the views of one scene from what lies beside them.

    Maps of one channel with more than 8 bits are depth where they lie beside pictures, or are called so; of up to 8
    bits they are depth or a mask where the name of file or folder says so, and pictures otherwise. Animations and
    videos among pictures are left out: they are scenes of their own.

    Args:
        files (iterable of `str` or `Path`): files of one folder.
        has_pictures (`bool`, defaults to False): whether there are pictures beside them that need no look.
    Returns:
        `FolderViews`: `pictures` may be empty.
    """
    paths = [path if isinstance(path, Path) else Path(path) for path in files]
    contents = {path: file_content(path) for path in sorted(paths, key=natural_key)}
    kinds = _kinds_of(contents, has_pictures)
    pictures = tuple(path for path, kind in kinds.items() if kind == "picture")
    others = {}
    for kind in KINDS[1:]:
        found = tuple(path for path in kinds if kinds[path] == kind)
        if found:
            others[kind] = found
    notes = [f"left out {_counted(kind, files)}" for kind, files in others.items()]
    return FolderViews(pictures, others, (*notes, *_doubts(contents, pictures)))


def _kinds_of(contents, has_pictures):
    """The kind of each file, now that all are known."""
    has_picture = has_pictures or any(
        each.kind == "picture" and each.channel != "wide" and not _is_hinted_grey(each) for each in contents.values()
    )
    return {path: _kind_beside(content, has_picture) for path, content in contents.items()}


def _kind_beside(content, has_picture):
    if content.kind != "picture" or content.channel is None:
        return content.kind
    if content.channel == "wide":
        return content.hint or ("depth" if has_picture else "picture")
    return content.hint or "picture"


def _is_hinted_grey(content):
    return content.channel == "grey" and content.hint is not None


def _doubts(contents, pictures):
    """What is taken as a view, and may not be meant as one."""
    channels = {path: contents[path].channel for path in pictures}
    grey = [path for path, channel in channels.items() if channel == "grey"]
    wide = [path for path, channel in channels.items() if channel == "wide"]
    named = [path for path, channel in channels.items() if channel is None and _name_hint(path.stem)]
    doubts = []
    if grey and len(grey) < len(pictures):
        doubts.append(f"taken as views, though of one grey channel beside colour: {_named(grey)}")
    if wide:
        doubts.append(f"taken as views, since no other pictures lie beside these maps of 16 bits: {_named(wide)}")
    if named:
        doubts.append(f"taken as views, since they are in colour, though called depth or mask: {_named(named)}")
    return tuple(doubts)


def _counted(kind, files):
    words = {"depth": "depth map", "other": "other file"}
    return f"{len(files)} {words.get(kind, kind)}{'s' * (len(files) > 1)}: {_named(files)}"


def _named(files):
    return name_some([path.name for path in files])


def name_some(names: Iterable[str]) -> str:
    """The first names of many, for a sentence."""
    names = list(map(str, names))
    return ", ".join(names[:NUM_NAMED]) + (", ..." if len(names) > NUM_NAMED else "")


# Opening


def open_picture(source, name: str = "the picture") -> Image.Image:
    """Open a picture with Pillow; its pixels are read later.

    Args:
        source (`str`, `Path`, or binary stream): a file.
        name (`str`, defaults to "the picture"): how errors call it.
    Returns:
        `PIL.Image.Image`: as stored, not yet upright.
    Raises:
        ImportError: for HEIC without pillow-heif. ValueError: for a raw file of a camera, whose first picture is a
            small preview. OSError: as `PIL.Image.open`.
    """
    if Path(getattr(source, "name", None) or str(source)).suffix.lower() in RAW_SUFFIXES:
        raise ValueError(f"{name} is a raw file of a camera; develop it to JPEG or PNG, since only its preview opens.")
    head = _head(source)
    if not is_heif(head):
        try:
            return Image.open(source)
        except UnidentifiedImageError as error:
            raise _unreadable(head, name) or error from None
    _register_heif(name)
    image = Image.open(source)
    turn = _heif_turn(_head(source, HEIF_HEAD_BYTES))
    if turn is not None:
        image.info[HEIF_ORIENTATION] = turn  # pillow-heif notes that of EXIF, by which nothing is turned
    return image


def _heif_turn(head):
    """The EXIF orientation that says how a HEIC is turned by its own boxes; None where they do not say it clearly."""
    angles = {head[place.end()] & 3 for place in re.finditer(rb"\x00\x00\x00\x09irot", head[:-1])}
    if b"imir" in head or len(angles) > 1:
        return None
    return HEIF_TURNS[angles.pop()] if angles else 1


def _unreadable(head, name):
    """The error for what is known to lie in the place of pictures; None for other files."""
    if not head:
        return ValueError(f"{name} is empty; copy or download it again.")
    if head.startswith(LFS_HEADER):
        return ValueError(f"{name} is a git-lfs pointer, not the picture; fetch it with `git lfs pull`.")
    return None


def _head(source, num_bytes=64):
    if hasattr(source, "seek"):
        source.seek(0)
        head = source.read(num_bytes)
        source.seek(0)
        return head
    with open(source, "rb") as stream:
        return stream.read(num_bytes)


def _register_heif(name):
    try:
        import_module("pillow_heif").register_heif_opener()  # by its text: it is an extra
    except ImportError:
        raise ImportError(
            f"{name} is HEIC, as iPhones store photographs, which needs pillow-heif; install it with `pip install "
            "gap-mllm[heic]`, or convert the file to JPEG."
        ) from None
