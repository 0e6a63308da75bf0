"""VSI-590K: training questions about videos and single pictures of rooms, in one JSON-lines file."""

from pathlib import Path

from .chat_source import ChatSource
from .video_questions import read_video_answer


class Vsi590kSource(ChatSource):
    """VSI-590K: `vsi_590k.jsonl`, and `<source>/<scene>.mp4` or pictures. Split "train".

    Rows about videos name them; with `max_views` their frames are decoded and stored as views. The one `<image>` of
    the text becomes one a view then, and is left alone else. Videos that are missing are listed before the first row.
    """

    SOURCE = "vsi590k"
    TASKS = ("video_qa",)
    LAYOUT = "vsi_590k.jsonl, and <source>/<scene>.mp4 or pictures"
    PICTURE_TASK = "video_qa"

    def find_files(self, root: Path):
        if self.config.annotation_file is not None:
            return super().find_files(root)
        return {"train": sorted(root.glob("vsi_590k*.jsonl"))}

    def read_answer(self, question: str, answer: str, file: Path, record_id: str):
        return read_video_answer(question, answer)  # what is no option is refused
