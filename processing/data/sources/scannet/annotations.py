"""What all annotation files share that name a ScanNet scene and no pictures: its views, its boxes, what is missing.

Frame: OpenCV cameras in the scan frame; boxes in the aligned frame. Units: metres, radians.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from ...read_log import TrackedPath
from ...record_errors import RecordError
from ...source_builder import SceneSourceBuilder, SourceConfig
from .scenes import ScannetScenes, posed_folder


AABB_FOLDER = "pcd_with_object_aabbs"


@dataclass
class ScannetAnnotationConfig(SourceConfig):
    """`SourceConfig`, and where ScanNet is.

    Args:
        posed_root (`str`, *optional*): folder that holds `scannet/posed_images` (or `posed_images`) and beside it
            `scans`; by default data_dir or its folder `data`, where they have it. Without it rows have no views.
        infos_file (`str` or `tuple[str, ...]`, *optional*): `embodiedscan_infos_*.pkl`: which frames are usable, and
            oriented boxes.
        aabb_root (`str`, *optional*): `pcd_with_object_aabbs`, the boxes under ScanNet's object ids; by default beside
            `posed_images`.
        num_views (`int`, defaults to 32): number of views of a scene, evenly spaced; `max_views` lowers it.
    Raises:
        ValueError: if `num_views` is below 1.
    """

    COUNTS = ("num_views",)

    posed_root: str | None = None
    infos_file: str | tuple | None = None
    aabb_root: str | None = None
    num_views: int = 32


class ScannetAnnotationSource(SceneSourceBuilder):
    """Base of the sources whose records name ScanNet scenes.

    Where no frames are given, rows have no views, and each scene is counted under "no_frames"; so is a scene of a test
    split that is not among the frames. Any other scene that is not among them is an error. Where no boxes by ScanNet's
    object ids are given, rows have no boxes, and each file is counted under "no_boxes".
    """

    BUILDER_CONFIG_CLASS = ScannetAnnotationConfig
    FOLDER_NAME = ""  # customary name of the folder that holds the annotation files

    def _split_generators(self, dl_manager):
        self.scenes  # noqa: B018  a wrong folder is refused before any record is read
        return super()._split_generators(dl_manager)

    def annotation_folders(self, root: Path) -> list[Path]:
        """Where annotation files are looked for, below data_dir."""
        name = self.FOLDER_NAME
        folders = [root, root / name, root / "benchmark" / name, root / "data" / "benchmark" / name]
        return [folder for folder in folders if folder.is_dir()]

    def find_annotations(self, root: Path, names: dict[str, str]) -> dict[str, list[Path]]:
        """The file of each split, by its name, in the first folder that has any."""
        for folder in self.annotation_folders(root):
            found = {split: [folder / name] for split, name in names.items() if (folder / name).is_file()}
            if found:
                return found
        return {}

    @cached_property
    def scenes(self) -> ScannetScenes | None:
        """ScanNet by scene id; None where no frames are given."""
        config = self.config
        if config.posed_root is not None:
            root = TrackedPath(config.posed_root)
        else:
            candidates = [self.root, self.root / "data"]
            names = "scannet/posed_images", "posed_images"
            root = next((path for path in candidates if any((path / name).is_dir() for name in names)), None)
        if root is None:
            given = [name for name in ("infos_file", "aabb_root") if getattr(config, name) is not None]
            if given:
                raise ValueError(
                    f"{' and '.join(given)} given, but no frames: {self.root} holds no scannet/posed_images. Give "
                    "posed_root, the folder that does."
                )
            return None
        aabb_root = config.aabb_root
        if aabb_root is None and (posed_folder(root).parent / AABB_FOLDER).is_dir():
            aabb_root = posed_folder(root).parent / AABB_FOLDER
        return ScannetScenes(
            root,
            config.infos_file,
            aabb_root,
            on_lost=lambda path: self.mark("lost_tracking", path),
            on_unaligned=lambda path: self.mark("no_axis_alignment", path),
            on_bad_frame=self._pass_over,
        )

    @property
    def num_views(self) -> int:
        """How many views of a scene a row gets at most."""
        return min(self.config.num_views, self.config.max_views or self.config.num_views)

    def has_frames(self, split: str, file: Path, scene_id: str) -> bool:
        """Whether the scene has frames; counts it under "no_frames" once where that is no error.

        Raises:
            RecordError: if `scene_id` is no scene id, or frames are given and those of a train or val scene are not
                among them.
        """
        if not isinstance(scene_id, str) or not scene_id:
            raise RecordError(f"{scene_id!r} is no scene id.", "scene_id")
        if self.scenes is not None and scene_id in self.scenes:
            return True
        if self.scenes is not None and not split.startswith("test"):
            self.scenes.folder(scene_id)  # raises, and says where it should be
        self._mark_once("no_frames", file, scene_id)
        return False

    def scene_fields(self, split: str, file: Path, scene_id: str) -> dict:
        """The fields of a row that a scene fills: scene_id, and where there are frames views and poses."""
        if not self.has_frames(split, file, scene_id):
            return {"scene_id": scene_id}
        return {**self.world_fields(scene_id), "views": self.scene_views(scene_id, self.num_views)}

    def world_fields(self, scene_id: str) -> dict:
        """The fields that hold for every choice of views of a scene with frames."""
        aligned = self.scenes.world_to_aligned(scene_id)
        return {"scene_id": scene_id, "world_to_aligned": aligned, "pose_frame": "scan"}

    def scene_views(self, scene_id: str, num_views: int | None) -> list[dict]:
        """Views of a scene: at most `num_views`, all usable ones for None. Kept for the records that follow."""
        return self._kept_views(scene_id, num_views)

    @cached_property
    def _kept_views(self):
        return lru_cache(maxsize=4)(self.choose_views)

    def choose_views(self, scene_id: str, num_views: int | None) -> list[dict]:
        """Which views those are; evenly spaced unless a source says otherwise."""
        return self.scenes.views(scene_id, num_views)

    def object_boxes(self, split: str, file: Path, scene_id: str, object_ids: Sequence[int], **fields) -> list[dict]:
        """The boxes of some objects by ScanNet's ids, as a row stores them.

        Args:
            split (`str`), file (`Path`), scene_id (`str`): split, file and scene of the record.
            object_ids (iterable of `str`)
            **fields: fields of a box, the same for all; a label that is given beats that of the scene.
        Returns:
            `list[dict]`: empty where no boxes are given, or the scene has no frames.
        Raises:
            RecordError: if the scene has no such object.
        """
        object_ids = list(object_ids)
        if not object_ids or not self.has_frames(split, file, scene_id):
            return []
        if self.scenes.id_space != "scannet":
            self._mark_once("no_boxes", file, f"{self.scenes.posed.parent / AABB_FOLDER} is not there")
            return []
        known = self.scenes.boxes(scene_id)
        lost = [object_id for object_id in object_ids if object_id not in known]
        if lost:
            raise RecordError(
                f"scene {scene_id} has no box of object {lost[0]!r}; there are {', '.join(known)}.", "object_id"
            )
        return [
            {**known[object_id], **{key: value for key, value in fields.items() if value is not None}}
            for object_id in object_ids
        ]


def check_text(record: dict, field: str) -> str:
    """A text of a record that must not be empty; RecordError otherwise."""
    text = record.get(field)
    if not isinstance(text, str) or not text.strip():
        raise RecordError(f"expected a text, got {text!r}.", field)
    return text


def check_object_id(value: object, field: str = "object_id") -> str:
    """An object id, which files write as text or as number, as text; RecordError if it is no whole number from 0."""
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()):
        raise RecordError(f"expected a whole number from 0, got {value!r}.", field)
    return str(int(text))


def other_keys(record: dict, used) -> dict:
    """What a row does not use of a record, for its metadata."""
    return {key: value for key, value in record.items() if key not in used}
