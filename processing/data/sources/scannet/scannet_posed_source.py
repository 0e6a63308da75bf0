"""ScanNet in the posed_images layout of EmbodiedScan, Video-3D-LLM and VG-LLM, one row a scene."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...source_builder import SourceConfig
from ...stored_frames import read_scene_file
from ..scene_source import SceneSource
from .scan_files import posed_folder, scannet_splits
from .scenes import ScannetScenes


@dataclass
class ScannetPosedConfig(SourceConfig):
    """`SourceConfig`, and where boxes are.

    Args:
        infos_file (`str` or a tuple of them, *optional*): `embodiedscan_infos_*.pkl`, for oriented boxes under
            EmbodiedScan's `bbox_id`, and for its choice of frames.
        aabb_root (`str`, *optional*): `pcd_with_object_aabbs`, for boxes under ScanNet's object ids; by default the
            folder of that name beside `posed_images`, unless infos_file is given.
    """

    infos_file: str | tuple | None = None
    aabb_root: str | None = None


class ScannetPosedSource(SceneSource):
    """ScanNet frames as `posed_images/<scene>/00000.{jpg,png,txt}` with `intrinsic.txt` and `depth_intrinsic.txt`.

    Splits by `scannetv2_{train,val,test}.txt` or the folders of `pcd_with_object_aabbs`, else all "train"; scenes that
    these lists do not name are in split "unlisted". Markers: lost_tracking, no_depth_reading, no_axis_alignment.
    """

    BUILDER_CONFIG_CLASS = ScannetPosedConfig
    SOURCE = "scannet_posed"
    LAYOUT = (
        "posed_images/<scene>/ (or scannet/posed_images/<scene>/), and beside it scans/ and pcd_with_object_aabbs/"
    )
    LICENSE = "ScanNet terms of use: research only, no redistribution"

    def find_files(self, root: Path):
        posed = posed_folder(root)
        scenes = [path.name for path in self.subfolders(posed)]
        splits = scannet_splits([posed.parent, root], scenes)
        return {split: [posed / scene for scene in names] for split, names in splits.items()}

    @cached_property
    def scenes(self) -> ScannetScenes:
        """All scenes of the folder."""
        config, aabb_root = self.config, self.config.aabb_root
        if aabb_root is None and not config.infos_file:
            beside = posed_folder(self.root).parent / "pcd_with_object_aabbs"
            aabb_root = beside if beside.is_dir() else None
        return ScannetScenes(
            self.root,
            list(config.infos_file) if isinstance(config.infos_file, tuple) else config.infos_file,
            aabb_root,
            on_lost=lambda path: self.mark("lost_tracking", path, path.parent.name),
            on_unaligned=lambda path: self.mark("no_axis_alignment", path, path.parent.name),
            on_no_depth=lambda path: self.mark("no_depth_reading", path, path.parent.name),
            on_bad_frame=lambda error: self._refuse(error, error.file, self._scene_id),
        )

    def __getstate__(self):
        """Without the opened scenes: a worker process opens its own."""
        return {key: value for key, value in super().__getstate__().items() if key != "scenes"}

    def records(self, file: Path, skip: Callable):
        yield file.name, file

    def rows(self, split: str, file: Path, record_id: str, folder: Path, context: object):
        self._scene_id, scenes = record_id, self.scenes
        views = scenes.views(record_id, self.config.max_views)
        has_boxes = scenes.id_space is not None and scenes.has_boxes(record_id)
        boxes = list(scenes.boxes(record_id).values()) if has_boxes else []
        metadata = {
            key: value
            for key, value in read_scene_file(scenes.scans / record_id / f"{record_id}.txt").items()
            if key != "axisAlignment"
        }
        if boxes:
            metadata["object_ids"] = scenes.id_space
        elif labels := scenes.labels(record_id) if scenes.id_space != "embodiedscan" else {}:
            metadata["objects"] = labels
        yield self.scene_row(record_id, views, boxes, scenes.world_to_aligned(record_id), metadata)
