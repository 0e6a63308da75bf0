"""ScanNet scenes by their id, for annotation files that name a scene and no pictures: views, boxes, axis alignment.

Frame: OpenCV cameras in the scan frame; boxes in the aligned frame. Units: metres, radians.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from ....scores.exact_iou import box_iou_axis_aligned
from ...box_rows import axis_aligned_bounds, box_numbers
from ...read_log import TrackedPath
from ...record_errors import RecordError
from ...source_files import check_pose, is_lost_pose, resolve_inside
from ...stored_frames import list_frames, pick_evenly, posed_view, read_axis_alignment, read_pose
from ..scans.embodiedscan_infos import EmbodiedScanInfos
from .scan_files import posed_folder, read_aabbs, read_aggregation


class ScannetScenes:
    """ScanNet in the posed_images layout, and the boxes that belong to it.

    Boxes come from `aabb_root` if it is given: axis-aligned, under the object ids of ScanNet, which ScanRefer, ScanQA,
    Multi3DRefer and Nr3D use. Else from `infos_file`: oriented, under EmbodiedScan's own `bbox_id`, which only its own
    language files use. `id_space` says which. `oriented_boxes` joins the two.

    Args:
        posed_root (`str` or `Path`): holds `posed_images/<scene>/` (or `scannet/posed_images/<scene>/`, or the scene
            folders) and beside it `scans/<scene>/` with `<scene>.txt` and, for labels, `<scene>.aggregation.json`.
        infos_file (`str`, `Path` or a list of them, *optional*): `embodiedscan_infos_*.pkl`; where they list a scene,
            its frames and poses are theirs.
        aabb_root (`str` or `Path`, *optional*): `pcd_with_object_aabbs`, with `<scene>.pth` in it or one folder below.
        on_lost (`Callable[[Path]]`, *optional*): called once with each frame where tracking was lost.
        on_unaligned (`Callable[[Path]]`, *optional*): called once with the scene file that holds no axis alignment.
        on_no_depth (`Callable[[Path]]`, *optional*): called with a depth map that holds no reading.
        on_bad_frame (`Callable[[RecordError]]`, *optional*): called with what is wrong with a frame, which is then
            left out; without it the error is raised.
    Raises:
        FileNotFoundError: if a root or file is not there.
    """

    def __init__(
        self,
        posed_root: str | Path,
        infos_file: str | Path | None = None,
        aabb_root: str | Path | None = None,
        on_lost: Callable | None = None,
        on_unaligned: Callable | None = None,
        on_no_depth: Callable | None = None,
        on_bad_frame: Callable | None = None,
    ):
        self.posed = posed_folder(posed_root)
        self.scans = self.posed.parent / "scans"
        files = [infos_file] if isinstance(infos_file, str | Path) else list(infos_file or ())
        self.infos = [EmbodiedScanInfos(file) for file in files]
        self.aabb_root = None if aabb_root is None else TrackedPath(aabb_root)
        if self.aabb_root is not None and not self.aabb_root.is_dir():
            raise FileNotFoundError(f"aabb_root {aabb_root} is no folder; expected pcd_with_object_aabbs/.")
        self.on_lost, self.on_unaligned = on_lost, on_unaligned
        self.on_no_depth, self.on_bad_frame = on_no_depth, on_bad_frame
        self._frames = lru_cache(maxsize=2048)(self._read_frames)
        self._alignment = lru_cache(maxsize=None)(self._read_alignment)
        self._aabbs = lru_cache(maxsize=256)(self._read_aabbs)

    @property
    def id_space(self) -> str | None:
        """What object ids count: "scannet" (objectId of the aggregation), "embodiedscan" (bbox_id), None: no boxes."""
        return "scannet" if self.aabb_root else "embodiedscan" if self.infos else None

    def scene_ids(self) -> list[str]:
        """The scenes that have a folder of pictures, sorted."""
        return sorted(path.name for path in self.posed.iterdir() if path.is_dir())

    def __contains__(self, scene_id: str) -> bool:
        try:
            return self.folder(scene_id).is_dir()
        except RecordError:
            return False

    def folder(self, scene_id: str) -> Path:
        """Where the pictures of a scene are; RecordError if the scene is not there."""
        folder = resolve_inside(self.posed, _bare(scene_id), "scene_id")
        if not folder.is_dir():
            raise RecordError(f"scene {scene_id!r} has no folder {folder}.", "scene_id")
        return folder

    # Views

    def views(self, scene_id: str, max_views: int | None = None) -> list[dict]:
        """The usable frames of a scene, as views of the schema.

        Frames are those that EmbodiedScan lists, in its order, else all pictures by number. Where tracking was lost
        they are left out before any are chosen.
        Frame: camera to world, in the scan frame. Units: metres.

        Args:
            scene_id (`str`): name as "scene0000_00" or "scannet/scene0000_00".
            max_views (`int`, *optional*): most views, spread evenly as Video-3D-LLM does; all by default.
        Raises:
            RecordError: if the scene or a frame is not there or cannot be read, or no frame is usable.
        """
        frames = pick_evenly(self._frames(_bare(scene_id)), max_views)
        views = [view for frame in frames if (view := self._checked(self._view, *frame)) is not None]
        if not views:
            raise RecordError("no frame can be read.", "views", file=str(self.folder(scene_id)))
        return views

    def _view(self, path, name, pose):
        return posed_view(path, name, pose=pose, on_no_depth=self.on_no_depth)

    def _checked(self, read, *args):
        """What `read` returns, or None after reporting a bad frame."""
        try:
            return read(*args)
        except RecordError as error:
            if self.on_bad_frame is None:
                raise
            self.on_bad_frame(error)
            return None

    def _read_frames(self, scene_id):
        """(path, name in the source, pose) of each usable frame."""
        folder, lost = self.folder(scene_id), []
        frames = [
            (path, name, matrix)
            for path, name, pose in self._listed_frames(scene_id, folder)
            if (matrix := self._checked(self._pose, path, pose, lost)) is not None
        ]
        if not frames:
            reason = f"no usable frame: tracking was lost in {len(lost)}, the others cannot be read."
            raise RecordError(reason, "views", file=str(folder))
        return frames

    def _pose(self, path, pose, lost):
        """The pose of a frame, or None, after noting it in `lost`, where tracking was lost."""
        if not path.is_file():
            raise RecordError("the picture is not there.", "image", file=str(path))
        if pose is None:
            pose = read_pose(path.with_suffix(".txt"), lost.append)
        else:
            pose = np.asarray(pose, dtype=np.float64)
            if is_lost_pose(pose):
                lost.append(path)
                pose = None
            else:
                pose = check_pose(pose, "cam2global", path)
        if pose is None and self.on_lost is not None:
            self.on_lost(lost[-1])
        return pose

    def _listed_frames(self, scene_id, folder):
        infos = self._infos_of(scene_id)
        if infos is None:
            return [(path, f"posed_images/{scene_id}/{path.name}", None) for path in list_frames(folder)]
        images = infos[f"scannet/{scene_id}"]["images"]
        return [(folder / Path(image["img_path"]).name, image["img_path"], image["cam2global"]) for image in images]

    def _infos_of(self, scene_id):
        return next((infos for infos in self.infos if f"scannet/{_bare(scene_id)}" in infos), None)

    # Boxes and labels

    def has_boxes(self, scene_id: str) -> bool:
        """Whether a file knows the boxes of a scene; test scenes have none."""
        if self.id_space == "scannet":
            return self._aabb_file(_bare(scene_id)) is not None
        return self._infos_of(scene_id) is not None

    def boxes(self, scene_id: str) -> dict[str, dict]:
        """The boxes of a scene by object id; see `id_space` for what the ids count.

        Frame: aligned. Units: metres, radians. Box: fields for `complete_row`.

        Raises:
            RecordError: if no file knows the scene, or a box is not one.
            ValueError: if neither aabb_root nor infos_file was given.
        """
        if self.id_space is None:
            raise ValueError("no boxes: give ScannetScenes an aabb_root or an infos_file.")
        if self.id_space == "scannet":
            return {key: dict(box) for key, box in self._aabbs(_bare(scene_id)).items()}
        return {box["instance_id"]: box for box in self._embodied_boxes(scene_id)}

    def oriented_boxes(self, scene_id: str, min_iou: float = 0.5) -> dict[str, dict]:
        """EmbodiedScan's oriented boxes under ScanNet's object ids: those that overlap enough with the ScanNet box.

        Overlap is that of axis-aligned bounds; each oriented box is given away once, the best overlap first.
        Frame: aligned. Units: metres, radians. Source: VG-LLM joins ScanRefer and EmbodiedScan at an IoU of 0.5.

        Args:
            scene_id (`str`)
            min_iou (`float`, defaults to 0.5): objects without such a box are left out.
        Raises:
            ValueError: unless both aabb_root and infos_file were given. RecordError: as `boxes`.
        """
        if self.aabb_root is None or not self.infos:
            raise ValueError("oriented_boxes needs both aabb_root and infos_file.")
        oriented = self._embodied_boxes(scene_id)
        known = self.boxes(scene_id)
        overlaps = box_iou_axis_aligned(_bounds(known.values()), _bounds(oriented), all_pairs=True)
        pairs = [(overlaps[row, place], key, place) for row, key in enumerate(known) for place in range(len(oriented))]
        joined, taken = {}, set()
        for iou, key, place in sorted(pairs, key=lambda pair: -pair[0]):
            if iou >= min_iou and key not in joined and place not in taken:
                joined[key] = {**oriented[place], "instance_id": key}
                taken.add(place)
        return joined

    def _embodied_boxes(self, scene_id):
        infos = self._infos_of(scene_id)
        if infos is None:
            listed = ", ".join(str(infos.file) for infos in self.infos)
            raise RecordError(f"scene {scene_id!r} is in none of {listed or 'no infos file'}.", "scene_id")
        return infos.boxes(infos[f"scannet/{_bare(scene_id)}"])

    def _aabb_file(self, scene_id):
        name = f"{scene_id}.pth"
        tried = [self.aabb_root / name, *(folder / name for folder in sorted(self.aabb_root.iterdir()))]
        return next((path for path in tried if path.is_file()), None)

    def _read_aabbs(self, scene_id):
        file = self._aabb_file(scene_id)
        if file is None:
            raise RecordError(f"{scene_id}.pth is not in {self.aabb_root} or a folder below it.", "scene_id")
        return read_aabbs(file, self._scannet_labels(scene_id))

    def labels(self, scene_id: str) -> dict[str, str]:
        """What the objects of a scene are called, by object id as in `boxes`; empty where no file says."""
        if self.id_space == "embodiedscan":
            return {box["instance_id"]: box["label"] for box in self._embodied_boxes(scene_id)}
        return self._scannet_labels(_bare(scene_id))

    def _scannet_labels(self, scene_id):
        file = self.scans / scene_id / f"{scene_id}.aggregation.json"
        return read_aggregation(file) if file.is_file() else {}

    # World

    def world_to_aligned(self, scene_id: str) -> np.ndarray | None:
        """The rigid transform from the scan frame to the aligned frame, `(4, 4)`.

        From `scans/<scene>/<scene>.txt`, else from the infos. A test scene whose file has no entry gets the identity,
        after `on_unaligned(file)`; where there is no file either, the transform is unknown: None.
        """
        return self._alignment(_bare(scene_id))

    def _read_alignment(self, scene_id):
        file = self.scans / scene_id / f"{scene_id}.txt"
        matrix, infos = read_axis_alignment(file), self._infos_of(scene_id)
        if matrix is None and infos is not None:
            item = infos[f"scannet/{scene_id}"]
            if item.get("axis_align_matrix") is not None:
                matrix = check_pose(item["axis_align_matrix"], "axis_align_matrix", infos.file)
        if matrix is None:
            if self.on_unaligned is not None:
                self.on_unaligned(file)
            matrix = np.eye(4) if file.is_file() else None
        return matrix


def _bounds(boxes):
    return [axis_aligned_bounds(box_numbers(box), box["euler_order"]) for box in boxes]


def _bare(scene_id: str) -> str:
    if not isinstance(scene_id, str) or not scene_id:
        raise RecordError(f"{scene_id!r} is no scene id.", "scene_id")
    return scene_id.removeprefix("scannet/")
