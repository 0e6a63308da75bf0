"""EmbodiedScan: posed frames and 9-DoF boxes of ScanNet, 3RScan, Matterport3D and ARKitScenes, out of its infos files.

One row a scene, or detection questions about windows of neighbouring frames (embodiedscan_windows.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...euler_order import EULER_ORDERS
from ...file_guards import is_data_file
from ...read_log import TrackedPath
from ...record_errors import RecordError
from ...source_builder import SourceConfig
from ...source_files import as_numbers, check_pose, is_lost_pose, resolve_inside
from ...stored_frames import DEPTH_SCALE, frame_number, frame_view, pick_evenly
from ..scene_source import SceneSource
from .embodiedscan_infos import DEFAULT_EULER_ORDER, EmbodiedScanInfos
from .embodiedscan_windows import detection_rows


DEPTH_SCALES = {"matterport3d": 4000.0}  # the others store millimetres
DEFAULT_WINDOWS = (4, 3)
_USED_KEYS = {"sample_idx", "axis_align_matrix", "cam2img", "depth_cam2img", "images", "instances"}
_USED_IMAGE_KEYS = {"img_path", "depth_path", "cam2global", "cam2img", "depth_cam2img", "visible_instance_ids"}


@dataclass
class EmbodiedScanConfig(SourceConfig):
    """`SourceConfig`, and what to make of a scene.

    Args:
        media_dir (`str`, *optional*): folder that `img_path` starts from; by default that of the infos file.
        index_dir (`str`, *optional*): see `EmbodiedScanInfos`.
        euler_order (`str`, defaults to `DEFAULT_EULER_ORDER`): "ZXY", the publisher's, or "zxy". It is not detected:
            boxes in the aligned frame do not tell, since upright ones read the same in both orders.
        windows (`tuple[int, int]`, *optional*): views of a detection question, and how many listed frames apart they
            are; (4, 3) is VG-LLM's choice, a second apart. Given this, or the task "detection3d", there are rows of
            that task, and rows of scenes only if tasks names them too.
        windows_per_scene (`int`, *optional*): most windows of a scene, spread evenly; all by default.
    Raises:
        ValueError: on another `euler_order`, or `windows` that are not two numbers of 1 or more.
    """

    CHOICES = {"euler_order": EULER_ORDERS}
    COUNTS = ("windows_per_scene",)

    media_dir: str | None = None
    index_dir: str | None = None
    euler_order: str = DEFAULT_EULER_ORDER
    windows: tuple | None = None
    windows_per_scene: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.windows is not None:
            self.windows = tuple(self.windows)
            if len(self.windows) != 2 or not all(isinstance(n, int) and n >= 1 for n in self.windows):
                raise ValueError(f"windows is {self.windows}; expected (number of views, frames between them).")


class EmbodiedScanSource(SceneSource):
    """EmbodiedScan v1 and v2: `embodiedscan_infos_{train,val,test}.pkl`, and the scans that their paths name.

    Boxes are in the aligned frame, in Euler order ZXY, under `bbox_id`; metadata.visible_instances holds, for each
    `image_path`, the ids of the boxes that it shows.

    Infos without the scans are readable: where none of a scene's pictures is on disk, its views have poses and paths
    but no picture (marker missing_picture), likewise depth maps (missing_depth); where only some are missing, each of
    them is a bad frame. Other markers: lost_tracking, no_depth_reading, visible_instance_id (one that is not there),
    no_frame_order (no windows: the frames are not numbered).
    """

    BUILDER_CONFIG_CLASS = EmbodiedScanConfig
    SOURCE = "embodiedscan"
    TASKS = ("scene", "detection3d")
    LAYOUT = "embodiedscan_infos_{train,val,test}.pkl, with scannet/, 3rscan/, matterport3d/, arkitscenes/ beside them"
    LICENSE = "CC BY-NC-SA 4.0 for the annotation; the scans have their own terms"

    def find_files(self, root: Path):
        folders = [folder for folder in (root, root / "data", root / "embodiedscan") if folder.is_dir()]
        found = {}
        for split in ("train", "val", "test"):
            name = f"embodiedscan_infos_{split}.pkl"
            found[split] = next(([folder / name] for folder in folders if (folder / name).is_file()), [])
        return found

    @property
    def wants_windows(self) -> bool:
        """Whether rows of detection questions were asked for."""
        return "detection3d" in self.config.tasks if self.config.tasks else self.config.windows is not None

    @property
    def wants_scenes(self) -> bool:
        """Whether rows of whole scenes were asked for."""
        return "scene" in self.config.tasks if self.config.tasks else self.config.windows is None

    def _infos(self, file):
        if getattr(self, "_open_infos", None) is None or self._open_infos.file != Path(file):
            self._open_infos = EmbodiedScanInfos(file, self.config.index_dir)
        return self._open_infos

    def records(self, file: Path, skip: Callable):
        for index, item in enumerate(self._infos(file)):
            name = item.get("sample_idx") if isinstance(item, dict) else None
            yield name if isinstance(name, str) else f"{file.stem}-{index:07d}", item

    def rows(self, split: str, file: Path, record_id: str, item, context: object):
        infos = self._infos(file)
        if not isinstance(item.get("sample_idx"), str):
            raise RecordError("the item has no sample_idx.", "sample_idx")
        dataset, _, rest = record_id.partition("/")
        boxes = infos.boxes(item, self.config.euler_order)
        visible = self._visible(item, file, record_id)
        alignment = item.get("axis_align_matrix")
        if alignment is not None:
            alignment = check_pose(alignment, "axis_align_matrix")
        read = self._frame_reader(item, dataset, file, record_id)
        if not item["images"]:
            raise RecordError("the scene lists no frame.", "images")
        frames = list(enumerate(item["images"]))
        shared = {
            "scene_id": rest if dataset != "arkitscenes" else rest.rpartition("/")[2],
            "world_to_aligned": alignment,
            "pose_frame": "scan",
        }
        if self.wants_scenes:
            views = self.read_views(frames, partial(self._posed, file, record_id), read, file, record_id)
            yield self._scene(record_id, item, views, boxes, visible, shared)
        if self.wants_windows:
            posed = self.good_frames(frames, partial(self._posed, file, record_id), file, record_id)
            known = boxes if "instances" in item else None
            rows = list(detection_rows(posed, known, visible, self.config.windows or DEFAULT_WINDOWS, alignment))
            if not rows and all(frame_number(image["img_path"]) is None for _, image in frames):
                self.mark("no_frame_order", file, record_id, "the frames are not numbered, so there are no windows")
            for name, chosen, fields in pick_evenly(rows, self.config.windows_per_scene):
                views = self.good_frames(chosen, read, file, record_id)
                if len(views) == len(chosen):  # lenient reading: without the windows of a broken frame
                    yield {"id": f"{record_id}-{name}", "task": "detection3d", "views": views, **shared, **fields}

    def _scene(self, record_id, item, views, boxes, visible, shared):
        names = {image["img_path"]: index for index, image in enumerate(item["images"])}
        shown = {view["image_path"]: visible[names[view["image_path"]]] for view in views}
        first = shown[views[0]["image_path"]]
        metadata = {key: value for key, value in item.items() if key not in _USED_KEYS}
        metadata["visible_instances"] = {
            name: [boxes[index]["instance_id"] for index in ids] for name, ids in shown.items()
        }
        others = {
            name: {key: value for key, value in item["images"][index].items() if key not in _USED_IMAGE_KEYS}
            for name, index in names.items()
            if name in shown
        }
        if any(others.values()):
            metadata["images"] = others
        boxes = [{**box, "in_reference": index in first} for index, box in enumerate(boxes)]
        row = self.scene_row(record_id, views, boxes, shared["world_to_aligned"], metadata)
        return {**row, **shared}

    def _visible(self, item, file, record_id):
        """For each image the places of the boxes that it shows; ids that point past the instances are dropped."""
        count, visible = len(item.get("instances") or ()), []
        for index, image in enumerate(item["images"]):
            ids = [int(value) for value in image.get("visible_instance_ids", ())]
            wrong = [value for value in ids if not 0 <= value < count]
            for value in wrong:
                self.mark(
                    "visible_instance_id",
                    file,
                    record_id,
                    f"images[{index}] shows instance {value} of {count}; the id is dropped",
                )
            visible.append([value for value in ids if value not in wrong])
        return visible

    def _posed(self, file, record_id, frame):
        """(frame, pose), or None where tracking was lost."""
        index, image = frame
        if is_lost_pose(image["cam2global"]):
            self.mark("lost_tracking", file, record_id, f"images[{index}]")
            return None
        return frame, check_pose(image["cam2global"], f"images[{index}].cam2global")

    def _frame_reader(self, item, dataset, file, record_id):
        """A function from (frame, pose) to a view, which knows whether this scene's pictures are on disk."""
        media, paths = TrackedPath(self.config.media_dir or file.parent), {}
        for kind in ("img_path", "depth_path"):
            paths[kind] = [
                resolve_inside(media, image[kind], f"images[{index}].{kind}") if image.get(kind) else None
                for index, image in enumerate(item["images"])
            ]
            named = [path for path in paths[kind] if path is not None]
            if named and not any(is_data_file(path) for path in named):
                name = "missing_picture" if kind == "img_path" else "missing_depth"
                if kind == "img_path" or any(paths["img_path"]):
                    self.mark(name, file, record_id, f"none of {len(named)} files is there, as {named[0]}")
                paths[kind] = [None] * len(paths[kind])
        return partial(self._view, item, dataset, paths, file, record_id)

    def _view(self, item, dataset, paths, file, record_id, posed):
        (index, image), pose = posed
        path, depth = paths["img_path"][index], paths["depth_path"][index]
        for kind, found in (("img_path", path), ("depth_path", depth)):
            if found is not None and not is_data_file(found):
                raise RecordError(f"{found} is not there, but others of the scene are.", f"images[{index}].{kind}")
        intrinsics = _camera(image, item, "cam2img", index)
        depth_intrinsics = _camera(image, item, "depth_cam2img", index)
        if depth_intrinsics is None and dataset == "matterport3d":  # one camera takes both pictures
            depth_intrinsics = intrinsics
        if path is None:
            return {
                "image_path": image["img_path"],
                "frame_id": frame_number(image["img_path"]),
                "intrinsics": intrinsics,
                "depth_intrinsics": depth_intrinsics,
                "camera_to_world": pose,
            }
        return frame_view(
            path,
            image["img_path"],
            pose,
            intrinsics,
            depth,
            depth_intrinsics,
            DEPTH_SCALES.get(dataset, DEPTH_SCALE),
            on_no_depth=lambda empty: self.mark("no_depth_reading", empty, record_id),
        )


def _camera(image, item, key, index):
    """Intrinsics `(3, 3)` of the image, else of the scene, else None."""
    values, field = image.get(key), f"images[{index}].{key}"
    if values is None:
        values, field = item.get(key), key
    if values is None:
        return None
    rows = 3 if len(values) == 3 else 4
    return as_numbers(values, (rows, rows), field)[:3, :3]
