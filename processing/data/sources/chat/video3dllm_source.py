"""Video-3D-LLM's processed files, which 3DRS shares: ScanRefer, Multi3DRefer, Scan2Cap, ScanQA and SQA3D as chats.

Texts are kept word for word; the one `<image>` that stands for the scene becomes one a view where there are views.
Frame: boxes are axis-aligned, in the aligned frame. Units: metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...read_log import TrackedPath
from ...record_errors import RecordError
from ...source_files import as_numbers, numeric_order, read_json, resolve_inside
from ...stored_frames import posed_view
from ..scannet.annotations import ScannetAnnotationConfig, ScannetAnnotationSource, other_keys
from .conversations import read_conversation
from .gap_mllm_source import aligned_box
from .video_questions import one_tag_per_view


FRAME_CHOICES = ("uniform", "coverage")
SPLITS = ("train", "val", "test")
SELECTED_FRAMES_FILE = "scannet_select_frames.json"
# Which objects a proposal is one of: those of training scenes are the true boxes in the order of their ids.
PROPOSAL_FILES = {"scannet_train_gt_box.json": True, "scannet_val_pred_box.json": False}
USED_KEYS = {"conversations", "box", "box_input", "gt_box", "annotations"}


@dataclass
class Video3dLlmConfig(ScannetAnnotationConfig):
    """`ScannetAnnotationConfig`, and which frames a scene shows.

    Args:
        frame_choice (`str`, defaults to "uniform"): "uniform", evenly spaced; or "coverage", the first of the frames
            that the project's maximum coverage sampling lists in `scannet_select_frames.json`, put in the order of
            their numbers.
        coverage_ratio (`float`, defaults to 1.0): share of the scene's voxels at which frames end with "coverage"; the
            project's `ratio95` and `ratio90` are 0.95 and 0.9.
        metadata_dir (`str`, *optional*): folder of the side files; by default `metadata` in data_dir or beside it.
        proposals (`bool`, defaults to True): whether grounding rows carry the scene's proposals as boxes of that role.
    Raises:
        ValueError: on another `frame_choice`, or a `coverage_ratio` outside (0, 1].
    """

    CHOICES = {"frame_choice": FRAME_CHOICES}

    frame_choice: str = "uniform"
    coverage_ratio: float = 1.0
    metadata_dir: str | None = None
    proposals: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.coverage_ratio <= 1:
            raise ValueError(f"coverage_ratio is {self.coverage_ratio}; expected a share above 0, at most 1.")


class Video3dLlmSource(ScannetAnnotationSource):
    """Video-3D-LLM / 3DRS files: `processed/*_{train,val,test}_llava_style.json`, `metadata/`, `scannet/posed_images`.

    Which task a record is follows from its keys: a box is asked for, a box is described, or neither. A box that is
    null (no proposal was near enough, or a test file) is no box, and the row stays. A scene that the proposal files
    leave out is counted under "no_proposals".
    """

    BUILDER_CONFIG_CLASS = Video3dLlmConfig
    SOURCE = "video3dllm"
    TASKS = ("grounding", "dense_caption", "scene_qa")
    LAYOUT = "processed/*_{train,val,test}_llava_style.json (or data/processed/, or the files themselves)"

    def find_files(self, root: Path):
        # "prcoessed" is how the project's own instructions spell it.
        names = ("processed", "prcoessed", "data/processed", "data/prcoessed", ".")
        for folder in (root / name for name in names):
            files = sorted(folder.glob("*_llava_style.json")) if folder.is_dir() else []
            if files:
                return {split: [file for file in files if split in file.stem.split("_")] for split in SPLITS}
        return {}

    def _split_generators(self, dl_manager):
        self._metadata_dir  # noqa: B018  a wrong folder is refused before any record is read
        return super()._split_generators(dl_manager)

    def prepare_file(self, split: str, file: Path):
        """Read the side files that are needed: what is wrong with one is wrong with every record."""
        if self.config.frame_choice == "coverage" and self.scenes is not None:
            self._selected_frames  # noqa: B018
        if self.config.proposals:
            self._proposals_of_files  # noqa: B018

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        task = task_of(record)
        if not self.wants(task):
            return
        video = record["video"]
        if not isinstance(video, str) or not video:
            raise RecordError(f"{video!r} names no scene; expected one as 'scannet/scene0000_00'.", "video")
        scene_id = video.rstrip("/").split("/")[-1]
        fields = self.scene_fields(split, file, scene_id)
        system, question, answer = read_conversation(record)
        metadata = record.get("metadata") or {}
        references = record.get("annotations") or metadata.get("answers") or ([answer] if answer else [])
        yield {
            **fields,
            "task": task,
            "system": system,
            "question": one_tag_per_view(question, len(fields.get("views", ()))),
            "answer": answer,
            "references": [] if task == "grounding" else references,
            "boxes": self._boxes(file, task, record, metadata, video),
            "question_type": metadata.get("question_type"),
            "metadata": other_keys(record, USED_KEYS),
        }

    def choose_views(self, scene_id: str, num_views: int):
        if self.config.frame_choice == "uniform":
            return super().choose_views(scene_id, num_views)
        chosen = self._selected_frames.get(f"scannet/{scene_id}")
        if chosen is None:
            raise RecordError(f"scene {scene_id} is not in {SELECTED_FRAMES_FILE}.", "frame_files")
        folder = self.scenes.folder(scene_id)
        names = selected_frames(chosen, num_views, self.config.coverage_ratio)
        views = []
        for path in numeric_order(resolve_inside(folder, Path(name).name, "frame_files") for name in names):
            if not path.is_file():
                raise RecordError(f"{path} is not there; {SELECTED_FRAMES_FILE} lists it.", "frame_files")
            view = posed_view(path, f"scannet/posed_images/{scene_id}/{path.name}", self.scenes.on_lost)
            if view.get("camera_to_world") is not None:
                views.append(view)
        if not views:
            raise RecordError("none of the selected frames has a pose: tracking was lost in all.", "frame_files")
        return views

    def _boxes(self, file, task, record, metadata, video):
        boxes = []
        if task == "grounding":
            object_ids = metadata.get("object_id")
            boxes = target_boxes(record["box"], object_ids if isinstance(object_ids, list) else [object_ids])
            if self.config.proposals:
                boxes += self._proposals(file, video)
        elif task == "dense_caption":
            for key, role in (("gt_box", "target"), ("box_input", "input")):
                if record.get(key) is not None:
                    box = read_aabb(record[key], key)
                    instance_id = metadata.get("object_id") if role == "target" else None
                    boxes.append({**box, "role": role, "instance_id": instance_id})
        return boxes

    def _proposals(self, file, video):
        proposals = self._proposals_of_files
        if proposals and video not in proposals:
            self._mark_once("no_proposals", file, video)
        return proposals.get(video, [])

    @cached_property
    def _metadata_dir(self):
        if self.config.metadata_dir is not None:
            folder = TrackedPath(self.config.metadata_dir)
            if not folder.is_dir():
                raise FileNotFoundError(f"metadata_dir {folder} is no folder.")
            return folder
        folders = [self.root / "metadata", self.root / "data" / "metadata", self.root.parent / "metadata"]
        return next((folder for folder in folders if folder.is_dir()), None)

    @cached_property
    def _proposals_of_files(self):
        """Boxes by "scannet/<scene>"; empty without side files."""
        proposals = {}
        for name, are_true_boxes in PROPOSAL_FILES.items():
            path = None if self._metadata_dir is None else self._metadata_dir / name
            if path is None or not path.is_file():
                continue
            try:
                for video, boxes in read_json(path).items():
                    proposals[video] = [
                        {
                            **read_aabb(numbers, f"{video}[{index}]"),
                            "role": "proposal",
                            "instance_id": index if are_true_boxes else None,
                        }
                        for index, numbers in enumerate(boxes)
                    ]
            except RecordError as error:
                raise error.locate(self.SOURCE, path, None) from None
        return proposals

    @cached_property
    def _selected_frames(self):
        path = None if self._metadata_dir is None else self._metadata_dir / SELECTED_FRAMES_FILE
        if path is None or not path.is_file():
            raise FileNotFoundError(
                f"frame_choice is 'coverage', but {SELECTED_FRAMES_FILE} is not there. Make it with the project's "
                "max_coverage_sampling.py, give metadata_dir, or use frame_choice='uniform'."
            )
        return {entry["video_id"]: entry for entry in read_json(path)}


def task_of(record: dict) -> str:
    """Which task a record is, from its keys."""
    if "box" in record:
        return "grounding"
    return "dense_caption" if "gt_box" in record or "box_input" in record else "scene_qa"


def target_boxes(numbers: Sequence[float], object_ids: list) -> list[dict]:
    """The answers of a grounding record: none for null, one for 6 numbers, any number for a list of boxes.

    Raises:
        RecordError: if they are no boxes, or their number is not that of the object ids.
    """
    if numbers is None:
        return []
    if not isinstance(numbers, list):
        raise RecordError(f"expected 6 numbers or a list of boxes, got {type(numbers).__name__}.", "box")
    boxes = numbers if all(isinstance(entry, list) for entry in numbers) else [numbers]
    if len(object_ids) != len(boxes):
        raise RecordError(f"{len(boxes)} boxes for {len(object_ids)} object ids.", "box")
    return [
        {**read_aabb(entry, f"box[{index}]"), "role": "target", "instance_id": object_id}
        for index, (entry, object_id) in enumerate(zip(boxes, object_ids, strict=True))
    ]


def read_aabb(numbers: Sequence[float], field: str) -> dict:
    """A box of 6 numbers, centre and full size along the aligned axes, as a row stores it; else RecordError."""
    return aligned_box(as_numbers(numbers, (6,), field), field)


def selected_frames(entry: dict, num_frames: int, coverage_ratio: float = 1.0) -> list[str]:
    """Cut the frames of maximum coverage sampling: the first `num_frames`, in the order they were found.

    Source: Video-3D-LLM, frame sampling "mc" and "mc-ratio95".

    Args:
        entry (`dict`): entry of `scannet_select_frames.json`: frame_files, voxel_nums (newly seen by each),
            num_all_voxels.
        num_frames (`int`): most frames.
        coverage_ratio (`float`, defaults to 1.0): stop after the frame with which this share of all voxels is seen.
    Returns:
        `list[str]`.
    Raises:
        RecordError: if there is not one count of voxels for each frame.
    """
    files, counts = entry["frame_files"], entry["voxel_nums"]
    if len(files) != len(counts):
        raise RecordError(f"{len(counts)} voxel counts for {len(files)} frames.", "voxel_nums")
    if coverage_ratio == 1:
        return files[:num_frames]
    chosen, num_seen = [], 0
    for name, count in zip(files[:num_frames], counts, strict=False):
        chosen.append(name)
        num_seen += count
        if num_seen >= coverage_ratio * entry["num_all_voxels"]:
            break
    return chosen
