"""VSI-590K: training questions about videos and single pictures of rooms, in one JSON-lines file."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import PurePosixPath

from ...posed_frames import stored_picture
from ...record_errors import RecordError
from ...source_builder import SceneSourceBuilder, SourceConfig
from ...source_files import find_file, iter_jsonl
from ...video_frames import read_video_views
from .conversations import check_tags, read_conversation
from .video_questions import find_video, one_tag_per_view, read_video_answer, refuse_missing_videos


USED_KEYS = {"conversations", "video", "image", "question_type"}


@dataclass
class Vsi590kConfig(SourceConfig):
    """`SourceConfig`, and where videos and pictures are.

    Args:
        media_dir (`str`, *optional*): folder that the paths of records start from; data_dir by default.
    """

    media_dir: str | None = None


class Vsi590kSource(SceneSourceBuilder):
    """VSI-590K: `vsi_590k.jsonl`, and `<source>/<scene>.mp4` or pictures. Split "train".

    Rows about videos name them; with `max_views` their frames are decoded and stored as views. The one `<image>` of
    the text becomes one a view then, and is left alone else. Videos that are missing are listed before the first row.
    """

    BUILDER_CONFIG_CLASS = Vsi590kConfig
    SOURCE = "vsi590k"
    TASKS = ("video_qa",)
    LAYOUT = "vsi_590k.jsonl, and <source>/<scene>.mp4 or pictures"

    def find_files(self, root):
        return {"train": sorted(root.glob("vsi_590k*.jsonl"))}

    @property
    def media(self):
        """The folder that the paths of records start from."""
        return self.config.media_dir or self.root

    def prepare_file(self, split, file):
        if not self.config.skip_bad_samples:
            records = (record for _, record in iter_jsonl(file, skip=lambda error: None))
            names = (record["video"] for record in records if isinstance(record, dict) and "video" in record)
            refuse_missing_videos(names, self.media, ("",), file)

    def rows(self, split, file, record_id, record, context):
        if not self.wants("video_qa"):
            return
        system, question, answer = read_conversation(record)
        shown = self._video(record) if record.get("video") is not None else self._picture(record)
        yield {
            **shown,
            **read_video_answer(question, answer),
            "task": "video_qa",
            "system": system,
            "question": one_tag_per_view(question, len(shown["views"])),
            "answer": answer,
            "references": [answer] if answer else [],
            "question_type": record.get("question_type"),
            "metadata": {key: value for key, value in record.items() if key not in USED_KEYS},
        }

    def _video(self, record):
        path = find_video(self.media, record["video"], ("",))
        views = self._views(path) if self.config.max_views else []
        return {"scene_id": _scene_id(record["video"]), "video": path, "views": views}

    def _picture(self, record):
        name = record.get("image")
        if not isinstance(name, str):
            raise RecordError(f"the record names no video, and its image is {name!r}.", "image")
        check_tags(read_conversation(record)[1], 1)
        view = {"image": stored_picture(find_file(self.media, name, field="image")), "image_path": name}
        return {"scene_id": _scene_id(name), "views": [view]}

    @cached_property
    def _views(self):
        """Views of a video; several questions share one."""
        return lru_cache(maxsize=16)(lambda path: read_video_views(path, self.config.max_views))


def _scene_id(name):
    """Scenes of different sources may share a name."""
    return str(PurePosixPath(name).with_suffix(""))


__all__ = ["Vsi590kConfig", "Vsi590kSource"]
