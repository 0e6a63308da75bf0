"""VSTI-Bench: questions about how camera and objects lie and move in videos of ScanNet's rooms, from VLM-3R.

The real file was not at hand; its fields are those that the code of VLM-3R reads.
"""

from dataclasses import dataclass
from pathlib import Path

from ...record_errors import RecordError
from ...source_builder import SourceConfig
from ...source_files import find_file
from ..video_source import VideoSource
from ..wordings import vsibench_prompt


CHOICE_TYPES = (
    *(f"obj_obj_relative_pos_{pair}" for pair in ("nf", "ud", "lr")),
    *(f"camera_obj_rel_dist_v{version}" for version in (1, 2, 3)),
    "camera_movement_direction",
)
NUMBER_TYPES = ("camera_obj_abs_dist", "camera_displacement", "camera_obj_dist_change")
USED_KEYS = {"id", "video_path", "question_type", "ground_truth", "mc_answer", "options"}


@dataclass
class VstiBenchConfig(SourceConfig):
    """`SourceConfig`, and where the videos are.

    Args:
        media_dir (`str`, *optional*): folder that paths of videos start from; data_dir by default.
        annotation_file (`str`, defaults to "test.json"): file below data_dir.
    """

    media_dir: str | None = None
    annotation_file: str = "test.json"


class VstiBenchSource(VideoSource):
    """VSTI-Bench, unpacked: `test.json`, and videos by the paths in it, as `ScanNet/videos/val/<scene>.mp4`.

    Split "test". The question of a row is the whole prompt, worded as that of VSI-Bench. Rows name their video; with
    `max_views` its frames are stored as views. Questions speak of "frame 5 of 32": that many frames, evenly spaced,
    are what they mean.
    """

    BUILDER_CONFIG_CLASS = VstiBenchConfig
    SOURCE = "vstibench"
    TASKS = ("video_qa",)
    LAYOUT = "test.json, and the videos that it names"
    LICENSE = "Apache-2.0 for the questions; videos under the terms of ScanNet"

    def find_files(self, root: Path):
        return {"test": [find_file(root, self.config.annotation_file, field="annotation_file")]}

    def names_of_videos(self, record: dict):
        return [record["video_path"]] if "video_path" in record else []

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        kind, options = record["question_type"], record.get("options")
        yield {
            "id": str(record["id"]),
            "task": "video_qa",
            "scene_id": Path(record["video_path"]).stem,
            **self.video_fields(record["video_path"]),
            "question": vsibench_prompt(record["question"], options if kind in CHOICE_TYPES else None),
            "question_type": kind,
            "metadata": {key: value for key, value in record.items() if key not in USED_KEYS},
            **_read_truth(record, kind, options),
        }


def _read_truth(record, kind, options):
    if kind in CHOICE_TYPES:
        letters, truth = [str(option)[:1] for option in options or ()], record["mc_answer"]
        if truth not in letters:
            raise RecordError(f"the answer {truth!r} is not among the options {options}.", "mc_answer")
        return {"answer": truth, "references": [truth], "choices": options, "choice_index": letters.index(truth)}
    if kind not in NUMBER_TYPES:
        known = ", ".join(CHOICE_TYPES + NUMBER_TYPES)
        raise RecordError(f"the type {kind!r} is none of VSTI-Bench; known are {known}.", "question_type")
    truth = str(record["ground_truth"])
    try:
        return {"answer": truth, "references": [truth], "number": float(truth)}
    except ValueError:
        raise RecordError(f"the ground truth {truth!r} is no number.", "ground_truth") from None
