"""VG-LLM's files: those of GAP-MLLM's form, one-stage grounding, SPAR questions, and videos as folders of frames."""

from collections.abc import Callable
from pathlib import Path

from ....json_depth import decode_json
from ....prompts_gap_mllm import IMAGE_TAG
from ...read_log import TrackedPath
from ...record_errors import RecordError
from ...source_files import find_file
from ...video_frames import frame_files, read_video_views
from ..spar.spar_questions import spar_answer, spar_fields
from ..video_source import find_video
from .conversations import VIDEO_TAG, read_conversation
from .gap_mllm_source import GapMllmSource
from .video_questions import one_tag_per_view, read_video_answer


LATE_FOLDER = "new_train"  # of the later scripts, whose angles are intrinsic
DROPPED = ("scannet/posed_images/", "scannet/")


class VgllmSource(GapMllmSource):
    """VG-LLM data: `data/{train,new_train}/*.json(l)`, `data/evaluation/**/*.json`, pictures in `data/media`.

    With `media_dir`, paths of a record are looked for there first, and then in `media`: pictures of ScanNet and those
    of other sets may lie in different places.
    The box of a one-stage grounding answer is in the camera of the answered frame. Boxes in `new_train` are of Euler
    order "ZXY", unless they show another one. A folder of frames gives all its pictures as views, up to `max_views`; a
    video file gives views with `max_views` only. The `<video>` of the text becomes one `<image>` a view then.
    """

    SOURCE = "vgllm"
    TASKS = (*GapMllmSource.TASKS, "spatial_qa", "video_qa")
    LAYOUT = "train/, new_train/ and evaluation/ with *.json or *.jsonl, and media/ (or data/ with these)"

    def find_files(self, root: Path):
        files = super().find_files(root)
        late = [path for base in (root, root / "data") for path in sorted((base / LATE_FOLDER).glob("*.json*"))]
        return {**files, "train": [*files.get("train", []), *late]}

    def records(self, file: Path, skip: Callable):
        # Files of both folders have the same names.
        prefix = f"{LATE_FOLDER}-" if file.parent.name == LATE_FOLDER else ""
        for record_id, record in super().records(file, skip):
            yield f"{prefix}{record_id}", record

    def prepare_file(self, split: str, file: Path):
        self.DEFAULT_EULER_ORDER = "ZXY" if file.parent.name == LATE_FOLDER else "zxy"
        return super().prepare_file(split, file)

    @property
    def media(self) -> Path:
        """The folder that the paths of the record at hand start from; `rows` chooses it."""
        return self._media

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        self._media = self._media_of(record)
        yield from super().rows(split, file, record_id, record, context)

    def _media_of(self, record):
        """The first folder that holds what the record names first; the first of all if none does."""
        given = [TrackedPath(self.config.media_dir)] if self.config.media_dir else []
        beside = [folder for folder in (self.root / "media", self.root / "data" / "media") if folder.is_dir()]
        folders = [*given, *(beside or [self.root])]
        names = record.get("images") or record.get("image") or [record.get("video")]
        for folder in folders:
            try:
                find_file(folder, names[0], dropped=DROPPED)
                return folder
            except RecordError:
                continue
        return folders[0]

    def task_of(self, record: dict):
        """Which task a record is, from its keys."""
        if "spar_info" in record or ("type" in record and "image" in record):
            return "spatial_qa"
        if "video" in record and "images" not in record:
            return "video_qa"
        return super().task_of(record)

    def base_row(self, file: Path, record_id: str, record: dict):
        """What the tasks share; the two that GAP-MLLM does not have are built apart."""
        builders = {"spatial_qa": self._spar_row, "video_qa": self._video_row}
        build = builders.get(self.task_of(record), super().base_row)
        return build(file, record_id, record)

    def _spar_row(self, file, record_id, record):
        fields = spar_fields(
            record,
            _spar_info(record),
            record.get("images") or record.get("image"),
            "images",
            self.media,
            self.config.max_views,
            on_lost=lambda pose: self.mark("lost_tracking", file, record_id, str(pose)),
        )
        return fields | spar_answer(fields["question"], fields["answer"])

    def _video_row(self, file, record_id, record):
        system, question, answer = read_conversation(record)
        video = find_video(self.media, record["video"], ("",))
        if TrackedPath(video).is_dir():
            views = read_video_views(video, self.config.max_views or len(frame_files(video)))
        else:
            views = read_video_views(video, self.config.max_views) if self.config.max_views else []
        if views:
            question = one_tag_per_view(question.replace(VIDEO_TAG, IMAGE_TAG), len(views))
        return {
            "scene_id": Path(record["video"]).stem,
            "video": video,
            "views": views,
            "system": system,
            "question": question,
            "answer": answer,
            "references": [answer] if answer else [],
            "question_type": record.get("question_type"),
            "metadata": {k: v for k, v in record.items() if k not in ("conversations", "video", "question_type")},
            **read_video_answer(question, answer),
        }


def _spar_info(record):
    """Type and marks of a record: JSON in a string, or keys of the record itself as SPAR has them."""
    if "spar_info" not in record:
        return record
    try:
        info = decode_json(record["spar_info"])
    except (TypeError, ValueError) as error:
        raise RecordError(f"expected JSON in a string: {error}.", "spar_info") from None
    if not isinstance(info, dict):
        raise RecordError(f"expected a JSON dictionary, got {type(info).__name__}.", "spar_info")
    return info
