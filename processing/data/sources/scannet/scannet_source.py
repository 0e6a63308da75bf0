"""ScanNet as its publishers give it out: SensReader exports and `.sens` recordings, one row a scene."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...file_guards import is_data_file
from ...record_errors import RecordError
from ...source_builder import SourceConfig
from ...source_files import check_intrinsics, check_pose, encode_png, is_lost_pose, read_matrix
from ...stored_frames import (
    SENSOR_EXPORT,
    list_frames,
    posed_view,
    read_axis_alignment,
    read_pose,
    read_scene_file,
)
from ..scene_source import SceneSource
from .mesh import mesh_boxes
from .scan_files import read_aggregation, scannet_splits
from .sens_file import SensFile


FRAME_FORMS = ("auto", "export", "sens")
MAX_SENS_ROW_BYTES = 2**30  # a row of a data set holds less than 2 GB
_USED_KEYS = ("axisAlignment",)


@dataclass
class ScannetConfig(SourceConfig):
    """`SourceConfig`, and which frames to read.

    Args:
        frames (`str`, defaults to "auto"): "export" reads `color/`, `depth/`, `pose/`, "sens" reads `<scene>.sens`;
            "auto" takes the export where there is one.
        frame_step (`int`, defaults to 1): every how many frames one is taken; recordings have 30 a second,
            EmbodiedScan's posed images are every 10th.
    Raises:
        ValueError: on another form, or a step below 1.
    """

    CHOICES = {"frames": FRAME_FORMS}
    COUNTS = ("frame_step",)

    frames: str = "auto"
    frame_step: int = 1


class ScannetSource(SceneSource):
    """ScanNet scans: `scans/<scene>/` with a SensReader export or a `.sens` file, `<scene>.txt` and annotations.

    Boxes are the aligned bounds of each object's mesh vertices, where mesh, segments and aggregation are there; with
    the aggregation alone, metadata names the objects. Frames of an export stay files, those of a `.sens` file are
    stored in the row. Splits by `scannetv2_{train,val,test}.txt`, else "train"; `scans_test/` is "test"; scenes that
    the lists do not name are in split "unlisted". Markers: lost_tracking, no_depth_reading, no_axis_alignment, no_box
    (an object without extent), moved_camera (extrinsics that are not the identity; they are not applied).
    """

    BUILDER_CONFIG_CLASS = ScannetConfig
    SOURCE = "scannet"
    LAYOUT = "scans/<scene>/{color,depth,pose,intrinsic}/ or scans/<scene>/<scene>.sens, each with <scene>.txt"
    LICENSE = "ScanNet terms of use: research only, no redistribution"
    DEFAULT_WRITER_BATCH_SIZE = 8  # rows of .sens files hold their pictures

    def find_files(self, root: Path):
        base = root / "scannet" if (root / "scannet" / "scans").is_dir() else root
        scans = base / "scans" if (base / "scans").is_dir() else base
        folders = {path.name: path for path in self.subfolders(scans) if self._is_scene(path)}
        splits = scannet_splits([base, root, scans.parent], list(folders)) if folders else {}
        found = {split: [folders[scene] for scene in scenes] for split, scenes in splits.items()}
        tests = base / "scans_test"
        if tests.is_dir():
            found.setdefault("test", []).extend(path for path in self.subfolders(tests) if self._is_scene(path))
        return found

    @staticmethod
    def _is_scene(path):
        return (path / "color").is_dir() or (path / f"{path.name}.sens").is_file()

    def records(self, file: Path, skip: Callable):
        yield file.name, file

    def rows(self, split: str, file: Path, record_id: str, folder: Path, context: object):
        scene_file = folder / f"{record_id}.txt"
        alignment = read_axis_alignment(scene_file)
        if alignment is None:
            self.mark("no_axis_alignment", scene_file, record_id)
            alignment = np.eye(4) if scene_file.is_file() else None
        views = self._sens_views(folder) if self._form(folder) == "sens" else self._export_views(folder)
        metadata = {key: value for key, value in read_scene_file(scene_file).items() if key not in _USED_KEYS}
        boxes = mesh_boxes(folder, alignment, lambda object_id: self.mark("no_box", folder, record_id, object_id))
        aggregation = folder / f"{record_id}.aggregation.json"
        if boxes:
            metadata["object_ids"] = "scannet"
        elif aggregation.is_file():
            metadata["objects"] = read_aggregation(aggregation)
        yield self.scene_row(record_id, views, boxes or [], alignment, metadata)

    def _form(self, folder):
        has_export = (folder / "color").is_dir()
        form = self.config.frames
        if form == "auto":
            form = "export" if has_export else "sens"
        if form == "export" and not has_export:
            raise RecordError("there is no folder color/; run SensReader, or read frames='sens'.", file=str(folder))
        return form

    # Exported frames

    def _export_views(self, folder):
        for kind in ("color", "depth"):
            file = folder / "intrinsic" / f"extrinsic_{kind}.txt"
            if is_data_file(file):
                self._check_extrinsics(read_matrix(file), file, folder.name)
        file = folder / "intrinsic" / "intrinsic_color.txt"
        if not is_data_file(file):
            raise RecordError("the intrinsics of the pictures are not there.", "intrinsics", file=str(file))
        frames = list_frames(folder / "color")[:: self.config.frame_step]
        return self.read_views(frames, self._export_pose, self._export_view, folder, folder.name)

    def _check_extrinsics(self, matrix, file, record_id):
        if not np.allclose(matrix, np.eye(4), atol=1e-4):
            self.mark("moved_camera", file, record_id, f"extrinsics {np.round(matrix, 4).tolist()}")

    def _export_pose(self, path):
        file = SENSOR_EXPORT.file(path, "pose")
        pose = read_pose(file, lambda lost: self.mark("lost_tracking", lost, path.parents[1].name))
        return None if pose is None else (path, pose)

    def _export_view(self, frame):
        path, pose = frame
        folder = path.parents[1]
        return posed_view(
            path,
            f"{folder.parent.name}/{folder.name}/color/{path.name}",
            pose=pose,
            on_no_depth=lambda empty: self.mark("no_depth_reading", empty, folder.name),
            layout=SENSOR_EXPORT,
        )

    # Frames of a recording

    def _sens_views(self, folder):
        sens = SensFile(folder / f"{folder.name}.sens")
        for matrix in (sens.extrinsics_color, sens.extrinsics_depth):
            self._check_extrinsics(matrix, sens.path, folder.name)
        check_intrinsics(sens.intrinsics_color, sens.color_size, file=sens.path)
        check_intrinsics(sens.intrinsics_depth, sens.depth_size, "depth_intrinsics", sens.path)
        frames = sens.frames[:: self.config.frame_step]
        wanted = min(len(frames), self.config.max_views or len(frames))
        per_frame = max((frame.color_bytes + frame.depth_bytes for frame in frames), default=0)
        if wanted * per_frame > MAX_SENS_ROW_BYTES:
            raise RecordError(
                f"{wanted} frames of up to {per_frame} bytes do not fit into one row; pass max_views or frame_step, "
                "or export the file with SensReader.",
                "views",
                file=str(sens.path),
            )
        return self.read_views(
            frames, partial(self._sens_pose, sens), partial(self._sens_view, sens), sens.path, folder.name
        )

    def _sens_pose(self, sens, frame):
        name = f"frames[{frame.index}].pose"
        if is_lost_pose(frame.camera_to_world):
            self.mark("lost_tracking", sens.path, sens.path.stem, name)
            return None
        return frame, check_pose(frame.camera_to_world, name, sens.path)

    def _sens_view(self, sens, posed):
        frame, pose = posed
        depth = sens.depth(frame)
        if not depth.any():
            self.mark("no_depth_reading", sens.path, sens.path.stem, f"frames[{frame.index}]")
        return {
            "image": {"bytes": sens.color(frame), "path": None},
            "image_path": f"{sens.path.name}/{frame.index}",
            "frame_id": frame.index,
            "timestamp": frame.timestamp,
            "depth": encode_png(depth),
            "depth_scale": sens.depth_shift,
            "intrinsics": sens.intrinsics_color[:3, :3],
            "depth_intrinsics": sens.intrinsics_depth[:3, :3],
            "camera_to_world": pose,
        }
