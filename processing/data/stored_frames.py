"""Frames on disk with their pose and intrinsics beside them, the layout that most ScanNet projects share.

`<scene>/00000.jpg`, `00000.txt` (camera to world, scan frame), `00000.png` (depth, mm), `intrinsic.txt`,
`depth_intrinsic.txt`; axis alignment in `scans/<scene>/<scene>.txt`. Frame: OpenCV cameras. Units: metres.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..view_files_gap_mllm import PICTURE_SUFFIXES, choose_views, open_picture
from .file_guards import is_data_file, list_folder
from .read_log import TrackedPath, note_read
from .record_errors import RecordError
from .source_files import (
    check_depth_file,
    check_intrinsics,
    check_pose,
    is_lost_pose,
    numeric_order,
    picture_header,
    read_matrix,
)


DEPTH_SCALE = 1000.0  # millimetres
JPEG_SUFFIXES = (".jpg", ".jpeg")
# How a file begins and how a whole one ends.
_ENDINGS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}
# As PNG, a depth map without a reading takes a thousandth of a byte a pixel; one with readings takes far more.
_EMPTY_DEPTH_BYTES_PER_PIXEL = 1 / 32


def stored_picture(path: str | Path) -> dict:
    """A picture on disk as the `datasets.Image` feature stores it; not decoded if its header and its end are there.

    Raises:
        RecordError: if the file is no picture, or cut off so that it cannot be decoded.
    """
    picture_header(str(path))
    _check_whole(str(path), _version(path))
    return {"path": str(path), "bytes": None}


def _version(path) -> tuple[int, int]:
    """What a cached reading of a file is valid for: a file that was mended must be read again."""
    note_read(path)
    state = os.stat(path)
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=65536)
def _check_whole(path: str, version) -> None:
    with open(path, "rb") as stream:
        start = stream.read(8)
        ending = next((end for begin, end in _ENDINGS.items() if start.startswith(begin)), b"")
        stream.seek(-len(ending), 2)
        if stream.read() == ending:
            return
    try:  # some writers append bytes after the picture: only decoding tells
        with open_picture(path) as image:
            image.load()
    except OSError as error:
        raise RecordError(f"the picture cannot be decoded: {error}.", "image", file=path) from None


def is_empty_depth(path: str | Path) -> bool:
    """Whether a depth map holds no reading at all; only files so small that this is possible are decoded."""
    return _is_empty_depth(str(path), _version(path))


@lru_cache(maxsize=65536)
def _is_empty_depth(path: str, version) -> bool:
    (width, height), _ = picture_header(path)
    if version[1] > max(width * height * _EMPTY_DEPTH_BYTES_PER_PIXEL, 256):
        return False
    with Image.open(path) as image:
        return not np.asarray(image).any()


def _intrinsics(path: Path):
    return _read_intrinsics(path, _version(path)) if is_data_file(path) else None


@lru_cache(maxsize=4096)
def _read_intrinsics(path: Path, version):
    return read_matrix(path)[:3, :3]


@dataclass(frozen=True)
class FrameLayout:
    """Where pose, intrinsics and depth of a picture lie: from its folder, or "../" from the one above.

    Args:
        pose, depth (`str`): "{}" is the picture's name without its suffix.
        intrinsics, depth_intrinsics (`str`): one file for all pictures.
    """

    pose: str
    depth: str
    intrinsics: str
    depth_intrinsics: str

    def file(self, image_path: Path, kind: str) -> Path:
        """The file of this kind for a picture; it need not exist."""
        name = getattr(self, kind).format(image_path.stem)
        return image_path.parents[1] / name[3:] if name.startswith("../") else image_path.parent / name


POSED_IMAGES = FrameLayout("{}.txt", "{}.png", "intrinsic.txt", "depth_intrinsic.txt")
_CAMERAS = "../intrinsic/intrinsic_color.txt", "../intrinsic/intrinsic_depth.txt"
SENSOR_EXPORT = FrameLayout("../pose/{}.txt", "../depth/{}.png", *_CAMERAS)  # of ScanNet's SensReader
SPAR_IMAGES = FrameLayout("../pose/{}.txt", "../image_depth/{}.png", *_CAMERAS)
SPAR_VIDEO = FrameLayout("../video_pose/{}.txt", "../video_depth/{}.png", *_CAMERAS)


def posed_view(
    image_path: str | Path,
    image_name: str | None = None,
    on_lost: Callable | None = None,
    pose: np.ndarray | None = None,
    on_no_depth: Callable | None = None,
    layout: FrameLayout = POSED_IMAGES,
) -> dict:
    """Return a view of the schema from a picture and what lies beside it; what is not there stays None.

    Args:
        image_path (`str` or `Path`): path of the colour picture.
        image_name (`str`, *optional*): name as the source writes it.
        on_lost (`Callable[[Path]]`, *optional*): called with a pose file that marks lost tracking (infinite or NaN).
        pose (`np.ndarray` of shape `(4, 4)`, *optional*): camera to world, checked already, instead of the pose file.
        on_no_depth (`Callable[[Path]]`, *optional*): called with a depth map that holds no reading.
        layout (`FrameLayout`): where the files beside it are; default those of posed_images.
    Returns:
        `dict`: fields of a view; `camera_to_world` is None where tracking was lost.
    Raises:
        RecordError: if a picture cannot be read, the pose is no rigid 4x4 matrix, intrinsics are none or for another
            size, the depth map has 8 bits, or something beside the picture is no file (a FIFO, ..).
    """
    path = TrackedPath(image_path)
    pose_file, depth_file = layout.file(path, "pose"), layout.file(path, "depth")
    if pose is None and is_data_file(pose_file):
        pose = read_pose(pose_file, on_lost)
    has_depth = depth_file != path and is_data_file(depth_file)
    return frame_view(
        path,
        image_name,
        pose=pose,
        intrinsics=_intrinsics(layout.file(path, "intrinsics")),
        depth_path=depth_file if has_depth else None,
        depth_intrinsics=_intrinsics(layout.file(path, "depth_intrinsics")) if has_depth else None,
        on_no_depth=on_no_depth,
    )


def frame_view(
    image_path: Path,
    image_name: str | None = None,
    pose: np.ndarray | None = None,
    intrinsics: np.ndarray | None = None,
    depth_path: Path | None = None,
    depth_intrinsics: np.ndarray | None = None,
    depth_scale: float = DEPTH_SCALE,
    timestamp: float | None = None,
    on_no_depth: Callable | None = None,
) -> dict:
    """Return a view of the schema from files and numbers that belong together.

    Frame: camera to world. Units: metres, pixels, seconds; metres = depth / `depth_scale`.

    Args:
        image_path (`Path`): path of the colour picture; its name gives the number of the frame.
        image_name (`str`, *optional*): name as the source writes it.
        pose (`np.ndarray` of shape `(4, 4)`, *optional*), intrinsics and depth_intrinsics (shape `(3, 3)`, *optional*)
        depth_path (`Path`, *optional*), depth_scale (`float`, defaults to `DEPTH_SCALE`), timestamp (`float`,
            *optional*)
        on_no_depth (`Callable[[Path]]`, *optional*): called with a depth map that holds no reading; it stays.
    Raises:
        RecordError: if a picture cannot be read, the depth map has 8 bits, or as `check_intrinsics`.
    """
    path = TrackedPath(image_path)
    view = {
        "image": stored_picture(path),
        "image_path": image_name,
        "frame_id": frame_number(path),
        "timestamp": timestamp,
        "intrinsics": intrinsics,
        "camera_to_world": pose,
    }
    if intrinsics is not None:
        check_intrinsics(intrinsics, picture_header(str(path))[0], file=path)
    if depth_path is not None:
        check_depth_file(depth_path, depth_intrinsics)
        if on_no_depth is not None and is_empty_depth(depth_path):
            on_no_depth(Path(depth_path))
        view |= {
            "depth": stored_picture(depth_path),
            "depth_scale": depth_scale,
            "depth_intrinsics": depth_intrinsics,
        }
    return view


def frame_number(path: str | Path) -> int | None:
    """The number of a frame, out of names like 00030.jpg and frame-000030.color.jpg; None for other names."""
    digits = Path(path).name.split(".")[0].removeprefix("frame-")
    return int(digits) if digits.isdecimal() and len(digits) < 10 else None


def read_pose(path: str | Path, on_lost: Callable | None = None):
    """Read a camera-to-world pose; None, after calling `on_lost(path)`, where tracking was lost.

    Raises:
        RecordError: if the file is not there, or holds no rigid 4x4 matrix.
    """
    if not is_data_file(path, "camera_to_world"):
        raise RecordError("the frame has no pose file.", "camera_to_world", file=str(path))
    try:
        pose = read_matrix(path)
    except RecordError as error:
        error.field = error.field or "camera_to_world"
        raise
    if is_lost_pose(pose):
        if on_lost is not None:
            on_lost(Path(path))
        return None
    return check_pose(pose, "camera_to_world", path)


def list_frames(folder: str | Path) -> list[Path]:
    """The colour pictures of a folder in natural order; depth maps and masks are not among them.

    JPEGs are taken by their name, and what else bears the name of one (`00000.png` beside `00000.jpg`) belongs to it;
    of all other files `choose_views` decides.

    Raises:
        RecordError: if the folder holds none, or cannot be read.
    """
    files = [path for path in list_folder(folder) if not path.name.startswith(".")]  # "._0.jpg" is no picture
    jpegs = [path for path in files if path.suffix.lower() in JPEG_SUFFIXES]
    stems = {path.stem for path in jpegs}
    others = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES and path.stem not in stems]
    frames = [*jpegs, *choose_views(others, bool(jpegs)).pictures]
    if not frames:
        raise RecordError(f"{folder} holds no pictures (.jpg, .jpeg, .png).", "views")
    return numeric_order(frames)


def pick_evenly(items: list, max_items: int | None) -> list:
    """All items, or `max_items` of them, evenly from the first to the last: the rule of Video-3D-LLM's uniform frames.

    Source: Video-3D-LLM, `linspace(0, n - 1, N, dtype=int)`.

    Raises:
        ValueError: if `max_items` is below 1.
    """
    if max_items is not None and max_items < 1:
        raise ValueError(f"at most {max_items} frames were asked for; expected 1 or more.")
    if max_items is None or len(items) <= max_items:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, max_items, dtype=int)]


def read_scene_file(scene_file: Path) -> dict[str, str]:
    """The `key = value` lines of `<scene>.txt`; empty where there is no such file."""
    return dict(_scene_lines(scene_file, _version(scene_file))) if is_data_file(scene_file) else {}


@lru_cache(maxsize=4096)
def _scene_lines(scene_file: Path, version):
    parts = [line.partition("=") for line in scene_file.read_text(encoding="utf-8").splitlines()]
    return {key.strip(): value.strip() for key, found, value in parts if found}


def read_axis_alignment(scene_file: Path) -> np.ndarray | None:
    """Read `axisAlignment` of `<scene>.txt`, the rigid transform from the scan frame to the aligned frame.

    Args:
        scene_file (`Path`): need not exist.
    Returns:
        `np.ndarray` of shape `(4, 4)`, or None where the file or the entry is missing (test scenes have none).
    Raises:
        RecordError: if the entry is no rigid transform.
    """
    value = read_scene_file(scene_file).get("axisAlignment")
    if value is None:
        return None
    try:
        numbers = np.array(value.split(), dtype=np.float64).reshape(4, 4)
    except ValueError:
        raise RecordError(f"axisAlignment is {value!r}, expected 16 numbers.", file=str(scene_file)) from None
    return check_pose(numbers, "axisAlignment", scene_file)
