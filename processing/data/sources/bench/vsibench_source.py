"""VSI-Bench: questions about videos of rooms, as a benchmark asks them.

The question of a row is the whole prompt, in the wording of one of the code bases that report scores; the bare
question stays in metadata.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging

from ...record_errors import RecordError
from ...source_builder import SourceConfig
from ...source_files import find_file, iter_jsonl
from ..parquet_rows import iter_parquet_rows
from ..video_source import VideoSource
from ..wordings import VSIBENCH_PROMPTS, vsibench_prompt


logger = logging.get_logger(__name__)

CHOICE_TYPES = (
    "object_rel_direction_easy",
    "object_rel_direction_medium",
    "object_rel_direction_hard",
    "object_rel_distance",
    "route_planning",
    "obj_appearance_order",
)
NUMBER_TYPES = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")
SUBSETS = ("full", "debiased", "pruned")
USED_KEYS = {"id", "scene_name", "question_type", "ground_truth", "options"}


@dataclass
class VsiBenchConfig(SourceConfig):
    """`SourceConfig`, and how questions are asked of which videos.

    Args:
        media_dir (`str`, *optional*): folder with `<dataset>/<scene_name>.mp4`; data_dir by default.
        annotation_file (`str`, *optional*): file below data_dir; by default `test.jsonl`, or else `test-*.parquet`.
        prompt_style (`str`, defaults to "vsibench"): "vsibench" (lmms-eval, VG-LLM, VLM-3R), "spatial_mllm" or
            "geovr".
        subset (`str`, defaults to "full"): "full", or "debiased" or "pruned" by the field `pruned` of newer files.
    Raises:
        ValueError: on another `prompt_style` or `subset`.
    """

    CHOICES = {"prompt_style": VSIBENCH_PROMPTS, "subset": SUBSETS}

    media_dir: str | None = None
    annotation_file: str | None = None
    prompt_style: str = "vsibench"
    subset: str = "full"


class VsiBenchSource(VideoSource):
    """VSI-Bench, unpacked: `test.jsonl` or `test-*.parquet`, and `<dataset>/<scene_name>.mp4`. Split "test".

    Rows name their video; with `max_views` its frames are decoded and stored as views. Videos that are missing are
    listed before the first row; `skip_bad_samples=True` reads the questions whose videos exist. A type outside of the
    ten known ones is kept, with a warning, the marker "unknown_question_type" and the same word in metadata: it
    belongs in no average.
    """

    BUILDER_CONFIG_CLASS = VsiBenchConfig
    SOURCE = "vsibench"
    TASKS = ("video_qa",)
    LAYOUT = "test.jsonl or test-*.parquet, and <dataset>/<scene_name>.mp4"
    LICENSE = "Apache-2.0 for the questions; videos under the terms of ScanNet, ScanNet++ and ARKitScenes"

    def find_files(self, root: Path):
        if self.config.annotation_file:
            return {"test": [find_file(root, self.config.annotation_file, field="annotation_file")]}
        lines = root / "test.jsonl"
        return {"test": [lines] if lines.is_file() else sorted(root.glob("test-*.parquet"))}

    def records(self, file: Path, skip: Callable):
        numbered = iter_parquet_rows(file, 512, skip) if file.suffix == ".parquet" else iter_jsonl(file, skip)
        for number, record in numbered:
            yield f"{file.stem}-{number:07d}", record

    def names_of_videos(self, record: dict):
        return [_video_name(record)] if "scene_name" in record else []

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        if not self.wants("video_qa") or not self._is_in_subset(record):
            return
        question_type, options = record["question_type"], record["options"]
        metadata = {key: value for key, value in record.items() if key not in USED_KEYS}
        if question_type not in CHOICE_TYPES + NUMBER_TYPES:
            logger.warning_once(
                f"vsibench: question type {question_type!r} is none of the {len(CHOICE_TYPES + NUMBER_TYPES)} known; "
                "its questions are kept, and belong in no average."
            )
            self.mark("unknown_question_type", file, record_id, question_type)
            metadata["unknown_question_type"] = True
        yield {
            "id": str(record["id"]) if record.get("id") is not None else record_id,
            "task": "video_qa",
            "scene_id": record["scene_name"],
            **self.video_fields(_video_name(record)),
            "question": vsibench_prompt(record["question"], options, self.config.prompt_style),
            "answer": record["ground_truth"],
            "references": [record["ground_truth"]],
            "question_type": question_type,
            "metadata": metadata,
            **_read_truth(question_type, record["ground_truth"], options),
        }

    def _is_in_subset(self, record):
        if self.config.subset == "full":
            return True
        if not isinstance(record.get("pruned"), bool):
            raise RecordError(
                f"subset {self.config.subset!r} needs the field `pruned`, true or false, which older files do not "
                "have; fetch the newer test.jsonl, or read the full set.",
                "pruned",
            )
        return record["pruned"] == (self.config.subset == "pruned")


def _video_name(record):
    return f"{record['dataset']}/{record['scene_name']}.mp4"


def _read_truth(question_type, truth, options):
    """Choices and the index of the right one, or the number."""
    if options or question_type in CHOICE_TYPES:
        letters = [str(option)[:1] for option in options or ()]
        if truth not in letters:
            raise RecordError(f"the ground truth {truth!r} is not among the options {options}.", "ground_truth")
        return {"choices": options, "choice_index": letters.index(truth)}
    try:
        return {"number": float(truth)}
    except ValueError:
        if question_type in NUMBER_TYPES:
            raise RecordError(f"the ground truth {truth!r} is no number.", "ground_truth") from None
        return {}
