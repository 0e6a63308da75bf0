"""ARKitScenes as its publishers give it out, raw or 3dod: frames, camera path and oriented boxes, one row a scan.

Frame: OpenCV cameras; the world of a scan has its third axis up. Units: metres, radians, seconds.
"""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ....camera_geometry_gap_mllm import invert_rigid
from ...box_rows import oriented_box
from ...record_errors import RecordError
from ...source_builder import SourceConfig
from ...source_files import as_numbers, is_lost_pose, picture_header, read_json, read_text, scaled_intrinsics
from ...stored_frames import frame_view
from ..scene_source import SceneSource


STREAMS = ("lowres_wide", "vga_wide", "wide")
FOLDERS = {"train": "Training", "val": "Validation"}
MAX_POSE_GAP_MS = 50
MAX_CAMERA_GAP_MS = 1  # the same frame is named with times that differ in the last digit
_USED_KEYS = {"data"}
_USED_OBJECT_KEYS = {"label", "uid", "segments"}


@dataclass
class ArkitScenesConfig(SourceConfig):
    """`SourceConfig`, and which pictures to read.

    Args:
        stream (`str`, defaults to "lowres_wide"): "lowres_wide" (256 x 192), "vga_wide" (640 x 480) or "wide" (1920 x
            1440); depth is always that of lowres_depth.
    Raises:
        ValueError: on another stream.
    """

    CHOICES = {"stream": STREAMS}

    stream: str = "lowres_wide"


class ArkitScenesSource(SceneSource):
    """ARKitScenes: `raw/{Training,Validation}/<id>/` or `3dod/{Training,Validation}/<id>/<id>_frames/`.

    Splits "train" and "val". The world of a scan has z up, but its walls need not lie along the axes:
    `world_to_aligned` is the identity. The `.traj` file holds world to camera and is inverted; a picture takes the
    nearest pose within 50 ms and the intrinsics named within 1 ms of it, otherwise it is left out. Pictures are not
    turned: metadata.sky_direction ("Up", "Left", "Right", "Down") says where in them the sky is, from `metadata.csv`,
    else from the poses. Markers: no_pose, lost_tracking, no_intrinsics, no_depth_reading, no_annotation.
    """

    BUILDER_CONFIG_CLASS = ArkitScenesConfig
    SOURCE = "arkitscenes"
    LAYOUT = "raw/{Training,Validation}/<id>/ or 3dod/{Training,Validation}/<id>/<id>_frames/"
    LICENSE = "Apple's ARKitScenes licence: non-commercial"

    def find_files(self, root: Path):
        bases = [base for base in (root / "raw", root / "3dod", root) if (base / "Training").is_dir()]
        bases += [base for base in (root / "raw", root / "3dod", root) if (base / "Validation").is_dir()]
        if not bases:
            return {}
        return {
            split: [path for path in self.subfolders(bases[0] / name) if self._frames_folder(path) is not None]
            for split, name in FOLDERS.items()
            if (bases[0] / name).is_dir()
        }

    def _frames_folder(self, scan):
        folders = (scan, scan / f"{scan.name}_frames")
        return next((folder for folder in folders if (folder / "lowres_wide.traj").is_file()), None)

    def records(self, file: Path, skip: Callable):
        yield file.name, file

    def rows(self, split: str, file: Path, record_id: str, scan, context: object):
        folder = self._frames_folder(scan)
        times, poses = read_trajectory(folder / "lowres_wide.traj")
        stream = self.config.stream
        cameras = _by_time(folder / f"{stream}_intrinsics", ".pincam")
        depths = _by_time(folder / "lowres_depth", ".png")
        depth_cameras = _by_time(folder / "lowres_wide_intrinsics", ".pincam")
        pictures = sorted((time, path) for time, path in _by_time(folder / stream, ".png").items())
        if not pictures:
            raise RecordError(f"{folder / stream} holds no pictures.", "views", file=str(folder))
        views = self.read_views(
            pictures,
            partial(self._posed, record_id, times, poses, cameras),
            partial(self._view, record_id, depths, depth_cameras),
            scan,
            record_id,
        )
        annotation = scan / f"{record_id}_3dod_annotation.json"
        boxes, metadata = [], {}
        if annotation.is_file():
            record = read_json(annotation)
            boxes = read_oriented_boxes(record, annotation)
            metadata = {key: value for key, value in record.items() if key not in _USED_KEYS}
            metadata["objects"] = [
                {key: value for key, value in item.items() if key not in _USED_OBJECT_KEYS} for item in record["data"]
            ]
        else:
            self.mark("no_annotation", annotation, record_id)
        metadata["sky_direction"] = self._listed_sky(scan) or sky_direction(
            np.stack([view["camera_to_world"] for view in views])
        )
        yield self.scene_row(record_id, views, boxes, np.eye(4), metadata)

    def _posed(self, record_id, times, poses, cameras, frame):
        """((path, time in ms, camera file), pose), or None after marking what the picture lacks."""
        time, path = frame
        camera = _nearest(cameras, time, MAX_CAMERA_GAP_MS)
        if camera is None:
            self.mark("no_intrinsics", path, record_id)
            return None
        place = int(np.abs(times - time).argmin())
        if abs(times[place] - time) > MAX_POSE_GAP_MS:
            self.mark("no_pose", path, record_id, f"the nearest pose is {abs(times[place] - time):.0f} ms away")
            return None
        if is_lost_pose(poses[place]):
            self.mark("lost_tracking", path, record_id, f"the nearest pose, at {times[place] / 1000:.3f} s")
            return None
        return (path, time, camera), poses[place]

    def _view(self, record_id, depths, depth_cameras, posed):
        (path, time, camera), pose = posed
        depth = _nearest(depths, time, MAX_CAMERA_GAP_MS)
        depth_intrinsics = None
        if depth is not None:
            depth_camera = _nearest(depth_cameras, time, MAX_CAMERA_GAP_MS)
            if depth_camera is None:
                self.mark("no_intrinsics", depth, record_id)
                depth = None
            else:
                depth_intrinsics = _fitted(depth_camera, depth)
        return frame_view(
            path,
            f"{path.parent.name}/{path.name}",
            pose,
            _fitted(camera, path),
            depth,
            depth_intrinsics,
            timestamp=time / 1000,
            on_no_depth=lambda empty: self.mark("no_depth_reading", empty, record_id),
        )

    def _listed_sky(self, scan):
        """What `metadata.csv` says of a scan, or None."""
        if not hasattr(self, "_sky"):
            places = (self.root / "metadata.csv", self.root / "raw" / "metadata.csv", scan.parents[1] / "metadata.csv")
            file, self._sky = next((place for place in places if place.is_file()), None), {}
            if file is not None:
                lines = io.StringIO(read_text(file))
                self._sky = {row.get("video_id"): row.get("sky_direction") for row in csv.DictReader(lines)}
        return self._sky.get(scan.name) or None


def _by_time(folder, suffix) -> dict:
    """Files of a folder by the time in their name, `<id>_<seconds>`, in whole milliseconds."""
    found = {}
    for path in folder.glob(f"*{suffix}") if folder.is_dir() else ():
        try:
            found[round(float(path.stem.rpartition("_")[2]) * 1000)] = path
        except ValueError:
            raise RecordError(f"{path.name} has no time in its name, as <id>_<seconds>.", file=str(path)) from None
    return found


def _nearest(files, time, max_gap):
    """The file nearest in time, at most `max_gap` ms away, else None."""
    gaps = sorted(range(-max_gap, max_gap + 1), key=abs)
    return next((files[time + gap] for gap in gaps if time + gap in files), None)


def read_trajectory(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a `.traj` file: lines of time, rotation vector and translation from world to camera.

    Frame: the poses that are returned go from camera to world. Units: milliseconds, metres.

    Returns:
        `tuple`: times `(n,)` in ms and poses `(n, 4, 4)`, float64; NaN for lines that hold NaN or infinity, where
        tracking was lost.
    Raises:
        RecordError: if a line does not hold seven numbers, its time is not finite, or tracking was lost in all.
    """
    rows = [line.split() for line in read_text(path).splitlines() if line.strip()]
    if not rows or any(len(row) != 7 for row in rows):
        wrong = next((number for number, row in enumerate(rows, 1) if len(row) != 7), 0)
        raise RecordError(
            f"expected lines of 7 numbers (time, rotation vector, translation), got {len(rows)} lines, of which line "
            f"{wrong} has another length.",
            "camera_to_world",
            file=str(path),
        )
    try:
        values = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise RecordError(f"not all of it is numbers: {error}.", "camera_to_world", file=str(path)) from None
    is_known = np.isfinite(values).all(1)
    if not np.isfinite(values[:, 0]).all() or not is_known.any():
        raise RecordError(
            "a time is NaN or infinite, or all poses are: tracking was lost throughout.",
            "camera_to_world",
            file=str(path),
        )
    world_to_camera = np.tile(np.eye(4), (is_known.sum(), 1, 1))
    world_to_camera[:, :3, :3] = rotation_matrices(values[is_known, 1:4])
    world_to_camera[:, :3, 3] = values[is_known, 4:]
    poses = np.full((len(values), 4, 4), np.nan)
    poses[is_known] = invert_rigid(world_to_camera)
    return values[:, 0] * 1000, poses


def rotation_matrices(vectors) -> np.ndarray:
    """Rotations `(n, 3, 3)` of rotation vectors `(n, 3)`: axis times angle. Units: radians."""
    angles = np.linalg.norm(vectors, axis=-1)[:, None, None]
    axes = vectors / np.maximum(angles[:, 0], 1e-12)
    cross = np.zeros((len(vectors), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]] = axes
    cross[:, [1, 2, 0], [2, 0, 1]] = -axes
    return np.eye(3) + np.sin(angles) * cross + (1 - np.cos(angles)) * cross @ cross


def _fitted(camera_file, picture) -> np.ndarray:
    """Intrinsics `(3, 3)` of a `.pincam` file (`w h fx fy cx cy`), scaled to the size of the picture."""
    try:
        numbers = [float(value) for value in read_text(camera_file).split()]
        width, height, fx, fy, cx, cy = as_numbers(numbers, (6,), "intrinsics")
    except ValueError as error:
        raise RecordError(f"expected w h fx fy cx cy: {error}", "intrinsics", file=str(camera_file)) from None
    camera = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return scaled_intrinsics(camera, (width, height), picture_header(str(picture))[0], file=camera_file)


def read_oriented_boxes(record: dict, file: Path) -> list[dict]:
    """Boxes of a `_3dod_annotation.json`. Frame: scan. Units: metres, radians.

    Args:
        record (`dict`): the file's content.
        file (`Path`): file that errors name.
    Raises:
        RecordError: if a box has not a centre, positive sizes and three orthonormal axes.
    """
    if not isinstance(record, dict) or not isinstance(record.get("data"), list):
        raise RecordError("expected an annotation with the list data.", "data", file=str(file))
    boxes = []
    for index, item in enumerate(record["data"]):
        field = f"data[{index}].segments.obbAligned"
        try:
            names = {"label": item["label"], "instance_id": str(item["uid"])}
            boxes.append(oriented_box(item["segments"]["obbAligned"], field, "scan", **names))
        except RecordError as error:
            raise error.locate(None, file, None) from None
    return boxes


def sky_direction(camera_to_world: np.ndarray) -> str:
    """Where in the pictures the sky is, "Up", "Left", "Right" or "Down", by poses `(n, 4, 4)` in a world with z up."""
    x, y = np.asarray(camera_to_world)[:, 2, :2].mean(0)  # the world's z axis in the camera
    if abs(x) > abs(y):
        return "Right" if x > 0 else "Left"
    return "Down" if y > 0 else "Up"
