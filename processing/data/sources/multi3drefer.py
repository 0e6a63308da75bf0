"""Multi3DRefer: descriptions of any number of objects in ScanNet scenes, also of none."""

from ..record_errors import RecordError
from .scannet_annotations import ScannetAnnotationSource, check_object_id, check_text, other_keys
from .text_set_prompts import GROUND_TOKEN, video3dllm_question


USED_KEYS = {"scene_id", "eval_type"}
FILE_NAMES = {split: f"multi3drefer_{split}.json" for split in ("train", "val")}
ZERO_TARGETS = "zt"  # how the evaluation types of descriptions without object begin


class Multi3dReferSource(ScannetAnnotationSource):
    """Multi3DRefer's `multi3drefer_{train,val}.json` on ScanNet frames, worded as Video-3D-LLM does.

    `eval_type` becomes the question type: zt (no object), st (one), mt (several), with or without distractors. A row
    without boxes is right where `object_ids` in its metadata is empty.
    """

    SOURCE = "multi3drefer"
    TASKS = ("grounding",)
    LAYOUT = "multi3drefer_{train,val}.json (or multi3drefer/ or benchmark/multi3drefer/ with them)"
    LICENSE = "mit"
    FOLDER_NAME = "multi3drefer"

    def find_files(self, root):
        return self.find_annotations(root, FILE_NAMES)

    def rows(self, split, file, record_id, record, context):
        scene_id, eval_type = record["scene_id"], record.get("eval_type")
        if not isinstance(record["object_ids"], list):
            raise RecordError(f"expected a list, got {record['object_ids']!r}.", "object_ids")
        object_ids = [check_object_id(number, "object_ids") for number in record["object_ids"]]
        if eval_type is not None and str(eval_type).startswith(ZERO_TARGETS) != (not object_ids):
            raise RecordError(f"eval_type is {eval_type!r} with {len(object_ids)} objects.", "object_ids")
        description, label = check_text(record, "description"), check_text(record, "object_name").replace("_", " ")
        fields = self.scene_fields(split, file, scene_id)
        num_views = len(fields.get("views", ()))
        yield {
            **fields,
            "task": "grounding",
            "question": video3dllm_question("grounding_any_number", num_views, description=description),
            "answer": GROUND_TOKEN,
            "boxes": self.object_boxes(split, file, scene_id, object_ids, label=label, role="target"),
            "question_type": eval_type,
            "metadata": other_keys(record, USED_KEYS),
        }


__all__ = ["Multi3dReferSource"]
