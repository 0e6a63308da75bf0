"""Nr3D through `load_multiview`: splits, how hard an utterance is, and lines that are wrong."""

import csv
import json
import shutil

import pytest

from gap_mllm.processing.data import RecordError, read_report
from gap_mllm.processing.data.sources.scannet.nr3d_source import question_type, read_distractors
from tests.processing.data.formats import FORMATS
from tests.processing.data.text_sets import FRAMES, load


def nr3d_with(tmp_path, place, **change):
    """A copy of the table with one line changed."""
    folder = tmp_path / "nr3d_changed"
    shutil.copytree(FORMATS / "nr3d", folder)
    with open(folder / "nr3d.csv", newline="") as stream:
        lines = list(csv.DictReader(stream))
    lines[place].update(change)
    with open(folder / "nr3d.csv", "w", newline="") as stream:
        table = csv.DictWriter(stream, fieldnames=list(lines[0]))
        table.writeheader()
        table.writerows(lines)
    return folder


def test_nr3d_is_split_by_the_lists_and_broken_down(tmp_path):
    report = tmp_path / "report.jsonl"
    splits = load("nr3d", tmp_path, report_file=report, **FRAMES)
    assert splits["train"]["question_type"] == ["easy_view-dep", "hard_view-indep"]
    assert splits["train"][0]["question"].endswith("\nThe blue chair, left of the table")
    box = splits["test"][0]["boxes"][0]
    assert (box["label"], box["instance_id"]) == ("table", "0")
    metadata = json.loads(splits["train"][1]["metadata"])
    assert metadata["distractor_ids"] == ["0", "1"] and metadata["tokens"][1] == "tallest"
    assert metadata["correct_guess"] is False and metadata["assignmentid"] == "9002"
    events = {event["event"] for event in read_report(report)}
    assert events == {"scene_in_no_split"}


def test_nr3d_utterances_are_chosen(tmp_path):
    for option in ("mentions_target_class_only", "correct_guess_only"):
        assert len(load("nr3d", tmp_path, "train", **{option: True})) == 1


def test_nr3d_in_two_tables(tmp_path):
    folder = tmp_path / "split" / "nr3d"
    folder.mkdir(parents=True)
    shutil.copy(FORMATS / "nr3d" / "nr3d.csv", folder / "nr3d_test.csv")
    assert {split: len(rows) for split, rows in load("nr3d", tmp_path, folder=folder.parent).items()} == {"test": 4}


def test_nr3d_in_stages(tmp_path):
    rows = load("nr3d", tmp_path, "test", prompt_style="gap_mllm", **FRAMES)
    assert rows["task"] == ["grounding_frame", "grounding_box"]
    assert "Text: The table in front of the cabinet\n" in rows[0]["question"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"stimulus_id": "scene9000_00-chair-3-1-0"}, "stimulus_id"),
        ({"stimulus_id": "scene9001_00-chair-2-1-0"}, "stimulus_id"),
        ({"stimulus_id": "scene9000_00-chair-2-2-0"}, "stimulus_id"),
        ({"stimulus_id": "chair"}, "stimulus_id"),
        ({"stimulus_id": "scene9000_00-chair-two-1-0"}, "stimulus_id"),
        ({"target_id": "x"}, "target_id"),
        ({"tokens": "__import__('os').getcwd()"}, "tokens"),
        ({"tokens": "['open"}, "tokens"),
        ({"correct_guess": "maybe"}, "correct_guess"),
        ({"utterance": ""}, "utterance"),
    ],
)
def test_a_bad_line_is_refused(change, field, tmp_path):
    folder = nr3d_with(tmp_path, 0, **change)
    with pytest.raises(RecordError) as caught:
        load("nr3d", tmp_path, folder=folder)
    assert (caught.value.field, caught.value.record_id) == (field, "nr3d-0000000")
    assert len(load("nr3d", tmp_path, "train", folder, skip_bad_samples=True)) == 1


def test_bad_tables_are_refused(tmp_path):
    folder = nr3d_with(tmp_path, 0)
    table = (folder / "nr3d.csv").read_text()
    (folder / "nr3d.csv").write_text(table + "9005,short\n")
    with pytest.raises(RecordError, match="as many cells"):
        load("nr3d", tmp_path, folder=folder)
    (folder / "nr3d.csv").write_text(table.replace("utterance", "text", 1))
    with pytest.raises(RecordError, match="no column 'utterance'"):
        load("nr3d", tmp_path, folder=folder)
    (folder / "nr3d.csv").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(RecordError, match="git-lfs"):
        load("nr3d", tmp_path, folder=folder)
    (folder / "nr3d.csv").write_text(table)
    (folder / "test_scans.txt").unlink()
    with pytest.raises(FileNotFoundError, match="test_scans.txt is not there"):
        load("nr3d", tmp_path, folder=folder)


def test_how_hard_an_utterance_is():
    assert question_type(1, ["the", "chair"]) == "easy_view-indep"
    assert question_type(2, ["chair", "behind", "it"]) == "hard_view-dep"
    assert read_distractors("scene0000_00-chair-1-4", "scene0000_00", "4") == []
