"""SQA3D through `load_multiview`: questions joined with situations and answers."""

import json
import shutil

import pytest

from gap_mllm.processing.data import RecordError
from gap_mllm.processing.data.sources.scannet.sqa3d_source import first_word
from tests.processing.data.formats import FORMATS
from tests.processing.data.text_sets import change_set, load


@pytest.fixture
def changed(tmp_path):
    """A copy of a set with one file changed."""
    return lambda name, file, change: change_set(name, file, change, tmp_path / "changed")


QUESTIONS = "sqa_task/balanced/v1_balanced_questions_{}_scannetv2.json"
ANNOTATIONS = "sqa_task/balanced/v1_balanced_sqa_annotations_{}_scannetv2.json"


def test_sqa3d_joins_situations_and_answers(tmp_path):
    splits = load("sqa3d", tmp_path)
    assert splits["train"]["id"] == ["990600000000", "990600000000-1", "990600000001", "990600000001-1"]
    assert splits["train"][1]["question"].startswith("I just left the chair and look at the cabinet. What is on my")
    assert splits["val"]["answer"] == ["table", "no"] and splits["val"]["question_type"] == ["what", "is"]
    metadata = json.loads(splits["val"][0]["metadata"])
    assert metadata["position"] == {"x": -0.6, "y": -0.2, "z": 0} and metadata["rotation"]["_w"] == 0.995
    assert metadata["situation"].startswith("I am standing") and metadata["question"] == "What is on my right?"
    assert len(load("sqa3d", tmp_path, "train", alternative_situations=False)) == 2


@pytest.mark.parametrize(
    ("file", "change", "field", "says"),
    [
        (ANNOTATIONS, lambda c: c["annotations"].pop(), "question_id", "0 annotations, expected one"),
        (ANNOTATIONS, lambda c: c["annotations"].append(c["annotations"][1]), "question_id", "2 annotations"),
        (ANNOTATIONS, lambda c: c["annotations"][1].update(scene_id="scene9001_00"), "scene_id", "annotation about"),
        (ANNOTATIONS, lambda c: c["annotations"][1].update(answers=[]), "answers", "at least one text"),
        (QUESTIONS, lambda c: c["questions"].pop(), "question_id", "990600000001 is not in"),
        (QUESTIONS, lambda c: c["questions"][1].update(situation=""), "situation", "expected a text"),
    ],
)  # fmt: skip
def test_sqa3d_files_that_do_not_fit_are_refused(file, change, field, says, changed, tmp_path):
    folder = changed("sqa3d", file.format("train"), change)
    with pytest.raises(RecordError, match=says) as caught:
        load("sqa3d", tmp_path, folder=folder)
    assert (caught.value.source, caught.value.field) == ("sqa3d", field)
    assert len(load("sqa3d", tmp_path, "train", folder, skip_bad_samples=True)) == 2


def test_sqa3d_test_questions_may_lack_answers(tmp_path):
    folder = tmp_path / "sqa3d"
    shutil.copytree(FORMATS / "sqa3d", folder)
    (folder / ANNOTATIONS.format("test")).unlink()
    rows = load("sqa3d", tmp_path, "test", folder)
    assert rows["answer"] == [None, None] and rows["question_type"] == ["what", "is"]
    (folder / ANNOTATIONS.format("val")).unlink()
    with pytest.raises(FileNotFoundError, match="sqa_annotations_val.*holds the answers"):
        load("sqa3d", tmp_path, "val", folder, refresh=True)


def test_sqa3d_files_of_another_form_are_refused(changed, tmp_path):
    folder = changed("sqa3d", QUESTIONS.format("train"), lambda content: content.pop("questions"))
    with pytest.raises(RecordError, match="the list 'questions'"):
        load("sqa3d", tmp_path, folder=folder)


def test_first_words():
    assert [first_word(text) for text in (" What is", "Island?", "Whichever", "Do I")] == [
        "what",
        "is",
        "which",
        "others",
    ]
