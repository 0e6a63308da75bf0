"""Multi3DRefer: descriptions of any number of objects in ScanNet scenes, also of none."""

from pathlib import Path

from ....answers_gap_mllm import format_boxes
from ...box_rows import box_in_camera
from ...record_errors import RecordError
from ..wordings import GROUND_TOKEN, gap_mllm_question, video3dllm_question
from .annotations import check_object_id, check_text, other_keys
from .box_visibility import aligned_to_camera
from .grounding import PromptStyleSource


USED_KEYS = {"scene_id", "eval_type"}
FILE_NAMES = {split: f"multi3drefer_{split}.json" for split in ("train", "val")}
ZERO_TARGETS = "zt"  # how the evaluation types of descriptions without object begin


class Multi3dReferSource(PromptStyleSource):
    """Multi3DRefer's `multi3drefer_{train,val}.json` on ScanNet frames.

    `eval_type` becomes the question type: zt (no object), st (one), mt (several), with or without distractors. A row
    without boxes is right where `object_ids` in its metadata is empty. Worded as Video-3D-LLM does, the answer is a
    token; in the wording of "gap_mllm", which is ours here, it is the list of all boxes, also of objects that no view
    shows.
    Frame: boxes of a row in the aligned frame, those of its answer in the camera of view 0. Units: metres.
    """

    SOURCE = "multi3drefer"
    TASKS = ("grounding",)
    STYLE_TASKS = dict.fromkeys(("video3dllm", "gap_mllm"), TASKS)
    LAYOUT = "multi3drefer_{train,val}.json (or multi3drefer/ or benchmark/multi3drefer/ with them)"
    LICENSE = "mit"
    FOLDER_NAME = "multi3drefer"

    def find_files(self, root: Path):
        return self.find_annotations(root, FILE_NAMES)

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        scene_id, eval_type = record["scene_id"], record.get("eval_type")
        if not isinstance(record["object_ids"], list):
            raise RecordError(f"expected a list, got {record['object_ids']!r}.", "object_ids")
        object_ids = [check_object_id(number, "object_ids") for number in record["object_ids"]]
        if eval_type is not None and str(eval_type).startswith(ZERO_TARGETS) != (not object_ids):
            raise RecordError(f"eval_type is {eval_type!r} with {len(object_ids)} objects.", "object_ids")
        description, label = check_text(record, "description"), check_text(record, "object_name").replace("_", " ")
        row = {
            **self.scene_fields(split, file, scene_id),
            "task": "grounding",
            "boxes": self.target_boxes(split, file, record_id, scene_id, object_ids, label),
            "question_type": eval_type,
            "metadata": other_keys(record, USED_KEYS),
        }
        views = row.get("views", ())
        if self.config.prompt_style == "video3dllm":
            question = video3dllm_question("grounding_any_number", len(views), description=description)
            yield {**row, "question": question, "answer": GROUND_TOKEN}
        elif views and len(row["boxes"]) == len(object_ids):
            to_camera = aligned_to_camera(views[0], row["world_to_aligned"])
            boxes = [box_in_camera(box, to_camera) for box in row["boxes"]]
            question = gap_mllm_question("grounding_any_number", len(views), description)
            yield {**row, "question": question, "answer": format_boxes([None] * len(boxes), boxes)}
