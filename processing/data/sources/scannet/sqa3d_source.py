"""SQA3D: questions of somebody who stands in a ScanNet scene and says where."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...record_errors import RecordError
from ...source_files import read_json
from ..wordings import video3dllm_question
from .annotations import ScannetAnnotationConfig, ScannetAnnotationSource, check_text, other_keys


QUESTION_FILES = {split: f"v1_balanced_questions_{split}_scannetv2.json" for split in ("train", "val", "test")}
QUESTION_KEYS = {"scene_id", "question_id"}
ANNOTATION_KEYS = {"scene_id", "question_id", "answers", "question_type"}
FIRST_WORDS = ("what", "is", "how", "can", "which")


@dataclass
class Sqa3dConfig(ScannetAnnotationConfig):
    """`ScannetAnnotationConfig`, and which situations are used.

    Args:
        alternative_situations (`bool`, defaults to True): "train" has one more row for each other wording of the
            situation, as Video-3D-LLM trains on them.
    """

    alternative_situations: bool = True


class Sqa3dSource(ScannetAnnotationSource):
    """SQA3D's `sqa_task/balanced/` files on ScanNet frames, worded as Video-3D-LLM does: the situation comes first.

    The files of questions and of annotations are joined on question_id. A question of the test split may lack its
    annotation, and then has no answer. The question type is the first word, as that project reports it. `position` and
    `rotation` (a quaternion) stay in the metadata as they are.
    Frame: the position is in the frame of the raw mesh: turning it by `world_to_aligned` and moving it by the centre
    of the aligned cloud takes it to the aligned frame. Units: metres.
    """

    BUILDER_CONFIG_CLASS = Sqa3dConfig
    SOURCE = "sqa3d"
    TASKS = ("scene_qa",)
    LAYOUT = "sqa_task/balanced/v1_balanced_{questions,sqa_annotations}_{train,val,test}_scannetv2.json"
    LICENSE = "cc-by-4.0"

    def annotation_folders(self, root: Path):
        folders = [root / "sqa_task", root / "benchmark" / "sqa_task", root / "data" / "benchmark" / "sqa_task"]
        folders = [*(folder / "balanced" for folder in folders), root / "balanced", root]
        return [folder for folder in folders if folder.is_dir()]

    def find_files(self, root: Path):
        return self.find_annotations(root, QUESTION_FILES)

    def prepare_file(self, split: str, file: Path):
        """The annotations by question id; refuses those that answer no question of the file."""
        path = file.with_name(file.name.replace("_questions_", "_sqa_annotations_"))
        if not path.is_file():
            if split == "test":
                return {}
            raise FileNotFoundError(f"{path} is not there; it holds the answers to {file.name}.")
        annotations = {}
        asked = {question["question_id"] for question in _listed(file, "questions")}
        for index, annotation in enumerate(_listed(path, "annotations")):
            question_id = annotation["question_id"]
            annotations.setdefault(question_id, []).append(annotation)
            if question_id not in asked:
                error = RecordError(f"question {question_id} is not in {file.name}.", "question_id")
                self._refuse(error, path, f"{path.stem}-{index:07d}")
        return annotations

    def records(self, file: Path, skip: Callable):
        for index, question in enumerate(_listed(file, "questions")):
            yield f"{file.stem}-{index:07d}", question

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        scene_id, question_id = record["scene_id"], record["question_id"]
        question, situations = check_text(record, "question"), [check_text(record, "situation")]
        annotation = read_annotation(context.get(question_id, []), record, split)
        answers = [] if annotation is None else [answer["answer"] for answer in annotation["answers"]]
        if annotation is not None and not (answers and all(isinstance(answer, str) for answer in answers)):
            raise RecordError(f"expected at least one text, got {annotation['answers']!r}.", "answers")
        if self.config.alternative_situations and split == "train":
            situations += record.get("alternative_situation") or []
        fields = self.scene_fields(split, file, scene_id)
        metadata = other_keys(record, QUESTION_KEYS) | other_keys(annotation or {}, ANNOTATION_KEYS)
        for index, situation in enumerate(situations):
            yield {
                **fields,
                "id": f"{question_id}-{index}" if index else question_id,
                "task": "scene_qa",
                "question": video3dllm_question(
                    "situated_qa", len(fields.get("views", ())), situation=situation, question=question
                ),
                "answer": answers[0] if answers else None,
                "references": answers,
                "question_type": first_word(question),
                "metadata": {**metadata, "question_id": question_id, "situation_index": index},
            }


def read_annotation(found: list[dict], question: dict, split: str) -> dict | None:
    """The one annotation of a question; None for a test question without one.

    Raises:
        RecordError: if another question has none, one has several, or they are about different scenes.
    """
    question_id = question["question_id"]
    if not found and split == "test":
        return None
    if len(found) != 1:
        raise RecordError(f"question {question_id} has {len(found)} annotations, expected one.", "question_id")
    if found[0]["scene_id"] != question["scene_id"]:
        raise RecordError(
            f"question {question_id} is about {question['scene_id']}, its annotation about {found[0]['scene_id']}.",
            "scene_id",
        )
    return found[0]


def first_word(question: str) -> str:
    """How SQA3D's results are broken down: by how the question begins, "others" if in no listed way."""
    start = question.lstrip().lower()
    return next((word for word in FIRST_WORDS if start.startswith(word)), "others")


def _listed(path, key):
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        raise RecordError(f"expected an object with the list {key!r}.", key, file=str(path))
    return content[key]
