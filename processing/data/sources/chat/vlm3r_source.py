"""VLM-3R's questions about videos of rooms, and what its processed data says of the scenes: boxes, frames, poses.

Texts are kept word for word, options inside; the one `<image>` becomes one a view where there are views.
Frame: OpenCV cameras and boxes in the aligned frame (this export has turned its poses already). Units: metres.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

from ...source_builder import SourceConfig
from ..video_source import VideoSource
from .conversations import read_conversation, split_of
from .video_questions import one_tag_per_view, read_video_answer
from .vlm3r_scenes import Vlm3rScenes


FRAME_SOURCES = ("video", "processed")
# Names of question files; others, as erratum_dropped_items.json, lie in the same folders.
QUESTION_FILES = ("merged_qa_*.json", "qa_*.json", "vlm3r_*.json")
QUESTION_FOLDERS = ("vsibench_train", "vsibench", "vstibench_train", "vstibench", ".")
DATA_FOLDERS = (".", "vlm_3r_data", "VLM-3R-DATA", "data/vlm_3r_data", "data/VLM-3R-DATA")
VIDEO_FOLDERS = ("", "vlm_3r_data", "data/vlm_3r_data", "data")
PROCESSED_FOLDERS = ("processed_data", "data/processed_data")
SPLITS = ("train", "val", "test")


@dataclass
class Vlm3rConfig(SourceConfig):
    """`SourceConfig`, and where videos and processed scenes are.

    Args:
        media_dir (`str`, *optional*): where paths of videos start from; by default data_dir or its `vlm_3r_data`.
        processed_dir (`str`, *optional*): `processed_data`, with `<DataSet>/metadata/<split>/`; by default that folder
            in data_dir, if it is there.
        frames (`str`, defaults to "video"): "video": rows name the video, and have views where `max_views` says how
            many; "processed": rows have the posed frames of the processed data as views, and no video is needed.
        scene_boxes (`bool`, defaults to True): whether rows carry the boxes of their scene, where the processed data
            has them.
    Raises:
        ValueError: on another `frames`.
    """

    CHOICES = {"frames": FRAME_SOURCES}

    media_dir: str | None = None
    processed_dir: str | None = None
    frames: str = "video"
    scene_boxes: bool = True


class Vlm3rSource(VideoSource):
    """VLM-3R-DATA: `vsibench*/merged_qa_*.json`, `vstibench*/qa_*.json`, videos, and `processed_data/` if there.

    Answers become `choice_index` into the options of the text, or `number`. The id of a row is that of its record,
    after the name of its file. Where tracking was lost, processed frames are left out and counted.
    """

    BUILDER_CONFIG_CLASS = Vlm3rConfig
    VIDEO_FOLDERS = VIDEO_FOLDERS
    SOURCE = "vlm3r"
    TASKS = ("video_qa",)
    LAYOUT = "vlm_3r_data/ (or data/vlm_3r_data/, VLM-3R-DATA/, or what is in it) with vsibench*/merged_qa_*.json"

    def find_files(self, root: Path):
        files = []
        for base in (root / name for name in DATA_FOLDERS):
            for folder in (base / name for name in QUESTION_FOLDERS):
                files += [path for pattern in QUESTION_FILES for path in sorted(folder.glob(pattern))]
        distinct = list({path.resolve(): path for path in files}.values())
        return {split: [path for path in distinct if split_of(path) == split] for split in SPLITS}

    def _split_generators(self, dl_manager):
        self.scenes  # noqa: B018  a wrong folder is refused before any record is read
        return super()._split_generators(dl_manager)

    @cached_property
    def scenes(self) -> Vlm3rScenes | None:
        """The processed scenes; None where there are none."""
        if self.config.processed_dir is not None:
            return Vlm3rScenes(self.config.processed_dir)
        folders = [self.root / name for name in PROCESSED_FOLDERS if (self.root / name).is_dir()]
        if not folders and self.config.frames == "processed":
            raise FileNotFoundError(
                f"frames is 'processed', but {self.root} holds no processed_data/. Give processed_dir, or make it "
                "with VLM-3R's vlm_3r_data_process."
            )
        return Vlm3rScenes(folders[0]) if folders else None

    def prepare_file(self, split: str, file: Path):
        if self.config.frames == "video":
            super().prepare_file(split, file)

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        system, question, answer = read_conversation(record)
        scene_id, data_source = record["scene_name"], record["data_source"]
        row = {"id": f"{file.stem}-{record['id']}", "task": "video_qa", "scene_id": scene_id}
        if self.config.frames == "video":
            row |= self.video_fields(record["video"])
        else:
            views = self._processed_views(split, data_source, scene_id)
            row |= {"views": views, "pose_frame": "aligned"}
        scene = self.scenes.scene(data_source, split, scene_id) if self.scenes is not None else None
        metadata = {key: value for key, value in record.items() if key not in ("conversations", "id")}
        if scene is not None:
            metadata["scene"] = scene["facts"]
            if self.config.scene_boxes:
                row["boxes"] = scene["boxes"]
        yield {
            **row,
            **read_video_answer(question, answer),
            "system": system,
            "question": one_tag_per_view(question, len(row["views"])),
            "answer": answer,
            "references": [answer] if answer else [],
            "question_type": record.get("question_type"),
            "metadata": metadata,
        }

    @cached_property
    def _processed_views(self):
        on_lost = partial(self._mark_once, "lost_tracking")

        def read(split: str, data_source, scene_id: str):
            return self.scenes.views(data_source, split, scene_id, self.config.max_views, on_lost)

        return lru_cache(maxsize=4)(read)
