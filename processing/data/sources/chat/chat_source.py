"""Your own chats about pictures or videos, in the JSON or JSON lines that Qwen, LLaVA and Spatial-MLLM-120k have."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ....prompts_gap_mllm import IMAGE_TAG
from ...record_errors import RecordError
from ...source_builder import SourceConfig
from ...source_files import find_file
from ...stored_frames import stored_picture
from ..bench.multiple_choice import refuse_fewer_views
from ..video_source import VideoSource
from .conversations import VIDEO_TAG, check_tags, named_media, read_turns, split_of
from .video_questions import one_tag_per_view, read_video_answer


USED_KEYS = {"conversations", "messages", "question_type", "image", "images", "video", "videos"}


@dataclass
class ChatConfig(SourceConfig):
    """`SourceConfig`, which files are read, and where their pictures and videos are.

    Args:
        annotation_file (`str`, *optional*): file below data_dir; by default every .json and .jsonl file in it.
        media_dir (`str`, *optional*): folder that the paths of records start from; data_dir by default.
        split_turns (`bool`): each question of several turns becomes a row that knows nothing of the turns before it;
            by default such records are refused.
    """

    annotation_file: str | None = None
    media_dir: str | None = None
    split_turns: bool = False


class ChatSource(VideoSource):
    """Any `*.json` or `*.jsonl` of chats, `conversations` (from, value) or `messages` (role, content), with its media.

    A record names pictures (`image`, `images`) or one video (`video`, `videos`), as paths or in typed parts of its
    messages. The split is a word of the file's name, as "val" of "mine_val.json", else "train". Texts are kept word
    for word, but that the tag of a video becomes one `<image>` a view. `max_views` takes frames of a video and thins
    pictures, unless a text between their tags tells them apart. An answer that is none of the options of its question
    is counted under "answer_not_read".
    """

    BUILDER_CONFIG_CLASS = ChatConfig
    SOURCE = "chat"
    TASKS = ("video_qa", "spatial_qa")
    LAYOUT = "*.json or *.jsonl with conversations or messages, and the pictures or videos that they name"
    PICTURE_TASK = "spatial_qa"

    def find_files(self, root: Path):
        if self.config.annotation_file is not None:
            files = [find_file(root, self.config.annotation_file, field="annotation_file")]
        else:
            files = sorted(path for path in root.iterdir() if path.suffix in (".json", ".jsonl"))
        return {split: [f for f in files if split_of(f) == split] for split in ("train", "val", "test")}

    def names_of_videos(self, record: dict):
        try:
            return [self._below_media(name) for tag, name in named_media(record) if tag == VIDEO_TAG]
        except RecordError:
            return []  # refused with its own record

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        media = named_media(record)
        is_video, names = media[0][0] == VIDEO_TAG, [self._below_media(name) for _, name in media]
        task = "video_qa" if is_video else self.PICTURE_TASK
        if not self.wants(task):
            return
        shown = self.video_fields(names[0]) if is_video else {"views": [self._picture(name) for name in names]}
        system, turns, _ = read_turns(record)
        metadata = {key: value for key, value in record.items() if key not in USED_KEYS}
        for index, (question, answer) in enumerate(self._pairs(turns)):
            if is_video and shown["views"]:
                question = one_tag_per_view(question.replace(VIDEO_TAG, IMAGE_TAG), len(shown["views"]))
            elif not is_video:
                check_tags(question, len(names))
                if _are_told_apart(question):
                    refuse_fewer_views(len(names), self.config.max_views)
            yield {
                **shown,
                **self.read_answer(question, answer, file, record_id),
                "id": f"{record_id}-{index}" if index else record_id,
                "task": task,
                "scene_id": _scene_id(names),
                "system": system,
                "question": question,
                "answer": answer,
                "references": [answer] if answer else [],
                "question_type": record.get("question_type"),
                "metadata": {**metadata, "turn": index} if index else metadata,
            }

    def read_answer(self, question: str, answer: str | None, file: Path, record_id: str) -> dict:
        """What an answer means; see `read_video_answer`."""
        try:
            return read_video_answer(question, answer)
        except RecordError as error:
            self.mark("answer_not_read", file, record_id, error.reason)
            return {}

    def _pairs(self, turns) -> Iterator[tuple[str, str | None]]:
        """Questions with their answers; an empty answer is None."""
        roles = [role for role, _ in turns]
        if not turns or roles != (["user", "assistant"] * len(turns))[: len(turns)]:
            raise RecordError(f"expected questions and answers in turn, got turns of {roles}.", "conversations")
        if len(turns) > 2 and not self.config.split_turns:
            raise RecordError(
                f"it has {len(turns)} turns, a row one question; pass split_turns=True to make a row of each.",
                "conversations",
            )
        texts = [text for _, text in turns] + [None]
        return ((texts[i], texts[i + 1] or None) for i in range(0, len(turns), 2))

    def _below_media(self, name):
        """A path that starts from the media folder; Qwen's files have absolute ones."""
        return name.removeprefix("file://").removeprefix(f"{self.media}/")

    def _picture(self, name):
        return {"image": stored_picture(find_file(self.media, name, field="image")), "image_path": name}


def _are_told_apart(question):
    """Whether a text stands between the tags of pictures, which then are no frames of one video."""
    return bool(question[question.find(IMAGE_TAG) : question.rfind(IMAGE_TAG)].replace(IMAGE_TAG, "").strip())


def _scene_id(names):
    """A video or picture without its suffix, with the folders that it is in; of several pictures, the folder."""
    path = PurePosixPath(names[0])
    return str(path.with_suffix("") if len(names) == 1 else path.parent)
