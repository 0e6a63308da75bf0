"""ScanQA: questions about ScanNet scenes with free answers."""

from dataclasses import dataclass
from pathlib import Path

from ...record_errors import RecordError
from ..wordings import video3dllm_question
from .annotations import (
    ScannetAnnotationConfig,
    ScannetAnnotationSource,
    check_object_id,
    check_text,
    other_keys,
)


USED_KEYS = {"scene_id", "question_id", "answers"}
FILE_NAMES = {split: f"ScanQA_v1.0_{split}.json" for split in ("train", "val", "test_w_obj", "test_wo_obj")}


@dataclass
class ScanQaConfig(ScannetAnnotationConfig):
    """`ScannetAnnotationConfig`, and how several answers are used.

    Args:
        row_per_answer (`bool`, defaults to False): one row for each answer in "train", as Video-3D-LLM trains on them;
            else one for each question, with its first answer. All answers are references in either case.
    """

    row_per_answer: bool = False


class ScanQaSource(ScannetAnnotationSource):
    """ScanQA's `ScanQA_v1.0_{train,val,test_w_obj,test_wo_obj}.json` on ScanNet frames, worded as Video-3D-LLM does.

    Test questions have no answers. The objects that a question is about become boxes of the role "target"; their names
    are in the metadata.
    """

    BUILDER_CONFIG_CLASS = ScanQaConfig
    SOURCE = "scanqa"
    TASKS = ("scene_qa",)
    LAYOUT = "ScanQA_v1.0_{train,val,test_w_obj,test_wo_obj}.json (or scanqa/ or benchmark/scanqa/ with them)"
    FOLDER_NAME = "scanqa"

    def find_files(self, root: Path):
        return self.find_annotations(root, FILE_NAMES)

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        scene_id, question = record["scene_id"], check_text(record, "question")
        answers = read_answers(record, split)
        object_ids = [check_object_id(number, "object_ids") for number in record.get("object_ids") or ()]
        fields = self.scene_fields(split, file, scene_id)
        row = {
            **fields,
            "id": record["question_id"],
            "task": "scene_qa",
            "question": video3dllm_question("scene_qa", len(fields.get("views", ())), question=question),
            "answer": answers[0] if answers else None,
            "references": answers,
            "boxes": self._boxes(split, file, scene_id, object_ids, record),
            "metadata": {**other_keys(record, USED_KEYS), "question": question},
        }
        if self.config.row_per_answer and split == "train":
            for index, answer in enumerate(answers):
                yield {**row, "id": f"{row['id']}-{index}", "answer": answer}
        else:
            yield row

    def _boxes(self, split, file, scene_id, object_ids, record):
        boxes = self.object_boxes(split, file, scene_id, object_ids, role="target")
        names = record.get("object_names") or ()
        if len(names) == len(boxes):
            return [{**box, "label": name} for box, name in zip(boxes, names, strict=True)]
        return boxes


def read_answers(record: dict, split: str) -> list[str]:
    """The answers of a record; RecordError if it has none and is not of a test split, or one is no text."""
    answers = record.get("answers")
    if answers is None and split.startswith("test"):
        return []
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise RecordError(f"expected a list of at least one text, got {answers!r}.", "answers")
    return answers
