"""The processed scenes of VLM-3R: `<DataSet>/metadata/<split>/*_metadata_<split>.json`, colour, depth and poses.

Frame: OpenCV cameras, camera to world in the aligned frame; boxes there too. Units: metres; depth in millimetres.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...box_rows import oriented_box
from ...file_guards import is_data_file
from ...read_log import TrackedPath
from ...record_errors import RecordError
from ...source_files import (
    check_depth_file,
    check_intrinsics,
    check_pose,
    is_lost_pose,
    picture_header,
    read_json,
    resolve_inside,
    scaled_intrinsics,
)
from ...stored_frames import DEPTH_SCALE, pick_evenly, stored_picture


class Vlm3rScenes:
    """What `processed_data` says of a scene.

    Args:
        root (`str` or `Path`): holds `ScanNet/`, `ScanNetpp/`, `ARKitScenes/`.
    Raises:
        FileNotFoundError: if it is no folder.
    """

    def __init__(self, root: Path):
        self.root = TrackedPath(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{root} is no folder; expected processed_data/ with ScanNet/metadata/<split>/.")
        self._files = lru_cache(maxsize=None)(self._read_files)
        self._boxes = lru_cache(maxsize=64)(self._read_boxes)

    def scene(self, data_source: str, split: str, scene_id: str) -> dict | None:
        """The boxes of a scene, and under "facts" the rest of its metadata; None where no file knows it.

        Frame: aligned. Units: metres, radians. Box: fields for `complete_row`, labels and instance ids as in the file.

        Raises:
            RecordError: if a box is none.
        """
        _, scenes = self._content(data_source, split, "metadata")
        if scenes is None or scene_id not in scenes:
            return None
        facts = {key: value for key, value in scenes[scene_id].items() if key != "object_bboxes"}
        return {"facts": facts, "boxes": self._boxes(data_source, split, scene_id)}

    def _read_boxes(self, data_source, split, scene_id):
        path, scenes = self._content(data_source, split, "metadata")
        boxes = []
        for label, entries in (scenes[scene_id].get("object_bboxes") or {}).items():
            for index, entry in enumerate(entries):
                where = f"{scene_id}.object_bboxes.{label}[{index}]"
                try:
                    instance = entry.get("instance_id")
                    boxes.append(oriented_box(entry, where, "aligned", label=label, instance_id=instance))
                except RecordError as error:
                    raise error.locate(None, path, None) from None
        return boxes

    def views(
        self,
        data_source: str,
        split: str,
        scene_id: str,
        max_views: int | None = None,
        on_lost: Callable | None = None,
    ) -> list:
        """The posed frames of a scene, as views of the schema.

        Intrinsics are for `img_width` x `img_height`; they are scaled to pictures of the same shape (within a pixel).

        Args:
            data_source (`str`), split (`str`), scene_id (`str`): names in the question.
            max_views (`int`, *optional*): most views, evenly spaced; all by default.
            on_lost (`Callable[[Path]]`, *optional*): called with the picture of each frame that has no finite pose.
        Raises:
            RecordError: if the scene or a frame is not there, or no frame has a pose.
        """
        path, scenes = self._content(data_source, split, "frame_metadata")
        if scenes is None or scene_id not in scenes:
            raise RecordError(f"{path} does not know the scene {scene_id!r}.", "scene_name")
        scene, folder = scenes[scene_id], path.parents[2]
        frames = []
        for index, frame in enumerate(scene["frames"]):
            color = resolve_inside(folder, frame["file_path_color"], f"frames[{index}].file_path_color")
            pose = frame.get("camera_pose_camera_to_world")
            if pose is None or is_lost_pose(pose):
                if on_lost is not None:
                    on_lost(color)
            else:
                frames.append((index, frame, color, pose))
        if not frames:
            raise RecordError(f"no frame of scene {scene_id} has a pose.", "frames", file=str(path))
        return [self._view(scene, folder, *frame) for frame in pick_evenly(frames, max_views)]

    def _view(self, scene, folder, index, frame, color, pose):
        if not is_data_file(color):
            raise RecordError(f"{color} is not there.", f"frames[{index}].file_path_color")
        lens = scene["camera_intrinsics"]
        intrinsics = np.array([[lens["fx"], 0, lens["cx"]], [0, lens["fy"], lens["cy"]], [0, 0, 1]], np.float64)
        stated = scene["img_width"], scene["img_height"]
        view = {
            "image": stored_picture(color),
            "image_path": frame["file_path_color"],
            "frame_id": frame["frame_id"],
            "intrinsics": scaled_intrinsics(
                intrinsics, stated, picture_header(str(color))[0], "camera_intrinsics", color
            ),
            "camera_to_world": check_pose(pose, f"frames[{index}].camera_pose_camera_to_world"),
        }
        check_intrinsics(view["intrinsics"], picture_header(str(color))[0], "camera_intrinsics", color)
        name = frame.get("file_path_depth")
        depth = None if name is None else resolve_inside(folder, name, f"frames[{index}].file_path_depth")
        if depth is not None and is_data_file(depth):
            of_depth = scaled_intrinsics(intrinsics, stated, picture_header(str(depth))[0], "camera_intrinsics", depth)
            check_depth_file(depth, of_depth)
            view |= {"depth": stored_picture(depth), "depth_scale": DEPTH_SCALE, "depth_intrinsics": of_depth}
        return view

    def _content(self, data_source, split, kind):
        """(path, content) of one metadata file; content is None where there is no such file."""
        path, content = self._files(data_source, split, kind)
        if isinstance(content, RecordError):
            raise content
        return path, content

    def _read_files(self, data_source, split, kind):
        """The same, with what is wrong with the file in place of its content: it is read once, right or wrong."""
        if not isinstance(data_source, str) or not data_source:
            raise RecordError(f"{data_source!r} names no data set.", "data_source")
        folders = [path for path in sorted(self.root.iterdir()) if path.name.lower() == data_source.lower()]
        folder = folders[0] if folders else self.root / data_source
        path = folder / "metadata" / split / f"{data_source}_{kind}_{split}.json"
        if not path.is_file():
            return path, None
        try:
            content = read_json(path)
        except RecordError as error:
            return path, error
        if not isinstance(content, dict):
            return path, RecordError("expected one JSON object with the scenes as keys.", file=str(path))
        return path, content
