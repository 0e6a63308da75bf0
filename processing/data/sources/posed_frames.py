"""Frames on disk with their pose and intrinsics beside them, the layout that most ScanNet projects share.

`<scene>/00000.jpg`, `00000.txt` (camera to world, scan frame), `00000.png` (depth, mm), `intrinsic.txt`,
`depth_intrinsic.txt`; axis alignment in `scans/<scene>/<scene>.txt`. Frame: OpenCV cameras. Units: metres.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from ..record_errors import RecordError
from ..source_files import check_depth_file, check_pose, is_lost_pose, numeric_order, picture_header, read_matrix


DEPTH_SCALE = 1000.0  # millimetres
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


def stored_picture(path) -> dict:
    """A picture on disk as the `datasets.Image` feature stores it; checked to be a picture, not decoded."""
    picture_header(str(path))
    return {"path": str(path), "bytes": None}


@lru_cache(maxsize=4096)
def _intrinsics(path: Path):
    return read_matrix(path)[:3, :3] if path.is_file() else None


def posed_view(image_path, image_name: str | None = None, on_lost=None, pose=None) -> dict:
    """Return a view of the schema from a picture and what lies beside it; what is not there stays None.

    Args:
        image_path (`str` or `Path`): of the colour picture.
        image_name (`str`, *optional*): as the source writes it.
        on_lost (`Callable[[Path]]`, *optional*): called with a pose file that marks lost tracking (infinite or NaN).
        pose (`np.ndarray` of shape `(4, 4)`, *optional*): camera to world, checked already, instead of the pose file.
    Returns:
        `dict`: fields of a view; `camera_to_world` is None where tracking was lost.
    Raises:
        RecordError: if the picture cannot be read, the pose is no rigid 4x4 matrix, or the depth map has 8 bits or
            other intrinsics.
    """
    path = Path(image_path)
    view = {"image": stored_picture(path), "image_path": image_name}
    view["frame_id"] = int(path.stem) if path.stem.isdigit() else None
    view["intrinsics"] = _intrinsics(path.parent / "intrinsic.txt")
    pose_file, depth_file = path.with_suffix(".txt"), path.with_suffix(".png")
    if pose is not None:
        view["camera_to_world"] = pose
    elif pose_file.is_file():
        view["camera_to_world"] = read_pose(pose_file, on_lost)
    if depth_file.is_file() and depth_file != path:
        depth_intrinsics = _intrinsics(path.parent / "depth_intrinsic.txt")
        check_depth_file(depth_file, depth_intrinsics)
        view |= {"depth": stored_picture(depth_file), "depth_scale": DEPTH_SCALE, "depth_intrinsics": depth_intrinsics}
    return view


def read_pose(path, on_lost=None):
    """Read a camera-to-world pose; None, after calling `on_lost(path)`, where tracking was lost."""
    pose = read_matrix(path)
    if is_lost_pose(pose):
        if on_lost is not None:
            on_lost(Path(path))
        return None
    return check_pose(pose, "camera_to_world", path)


def list_frames(folder) -> list[Path]:
    """The colour pictures of a folder in the order of their numbers; depth maps (.png beside .jpg) are not among them.

    Raises:
        RecordError: if the folder holds none.
    """
    found = [path for path in Path(folder).iterdir() if path.suffix.lower() in PICTURE_SUFFIXES]
    colour = [path for path in found if path.suffix.lower() != ".png"] or found
    if not colour:
        raise RecordError(f"{folder} holds no pictures ({', '.join(PICTURE_SUFFIXES)}).", "views")
    return numeric_order(colour)


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


@lru_cache(maxsize=4096)
def read_axis_alignment(scene_file: Path) -> np.ndarray | None:
    """Read `axisAlignment` of `<scene>.txt`, the rigid transform from the scan frame to the aligned frame.

    Args:
        scene_file (`Path`): need not exist.
    Returns:
        `np.ndarray` of shape `(4, 4)`, or None where the file or the entry is missing (test scenes have none).
    Raises:
        RecordError: if the entry is no rigid transform.
    """
    if not scene_file.is_file():
        return None
    for line in scene_file.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "axisAlignment":
            try:
                numbers = np.array(value.split(), dtype=np.float64).reshape(4, 4)
            except ValueError:
                raise RecordError(
                    f"axisAlignment is {value.strip()!r}, expected 16 numbers.", file=str(scene_file)
                ) from None
            return check_pose(numbers, "axisAlignment", scene_file)
    return None


__all__ = [
    "DEPTH_SCALE",
    "list_frames",
    "pick_evenly",
    "posed_view",
    "read_axis_alignment",
    "read_pose",
    "stored_picture",
]
