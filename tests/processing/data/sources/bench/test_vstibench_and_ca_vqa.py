"""VSTI-Bench and CA-VQA: prompts, answers, videos and frames, and what is refused."""

import json
import shutil

import pytest

from gap_mllm.processing.data import RecordError, load_multiview
from tests.processing.data.formats import FORMATS


VSTI, CA_VQA = FORMATS / "vstibench", FORMATS / "ca_vqa"
RECORDS = json.loads((VSTI / "test.json").read_text())


def load_changed(tmp_path, number, **changes):
    folder = tmp_path / "data"
    shutil.copytree(VSTI, folder)
    records = [record | changes if index == number else record for index, record in enumerate(RECORDS)]
    (folder / "test.json").write_text(json.dumps(records))
    return load_multiview("vstibench", folder, "test", cache_dir=tmp_path / "cache")


def test_vstibench_rows(tmp_path):
    rows = load_multiview("vstibench", VSTI, "test", cache_dir=tmp_path)
    assert rows["id"] == ["0", "1", "2", "3", "4", "5"]
    assert rows["answer"] == ["A", "C", "A", "2.5", "1.2", "0.5"]
    assert rows["choice_index"] == [0, 2, 0, None, None, None] and rows["number"][3:] == [2.5, 1.2, 0.5]
    assert set(rows["video"]) == {str(VSTI / "ScanNet" / "videos" / "val" / "scene9001_00.mp4")}
    assert rows["question"][0] == (
        "These are frames of a video.\nIn frame 3 of 12, is the chair or the table nearer to the camera?\nOptions:\n"
        "A. chair\nB. table\nAnswer with the option's letter from the given choices directly."
    )
    assert rows["question"][4].endswith("in metres?\nPlease answer the question using a single word or phrase.")
    assert set(rows["scene_id"]) == {"scene9001_00"} and json.loads(rows["metadata"][0])["dataset"] == "scannet"


@pytest.mark.parametrize(
    ("number", "changes", "message"),
    [
        (0, {"mc_answer": "F"}, "'F' is not among the options"),
        (3, {"ground_truth": "far"}, "'far' is no number"),
        (1, {"question_type": "colour"}, "'colour' is none of VSTI-Bench; known are obj_obj_relative_pos_nf"),
        (2, {"video_path": "nowhere.mp4"}, "1 of 2 videos are not there: nowhere.mp4"),
    ],
)
def test_what_is_wrong_with_vstibench_is_named(number, changes, message, tmp_path):
    with pytest.raises(RecordError, match=message):
        load_changed(tmp_path, number, **changes)


def test_ca_vqa_rows_and_frames(tmp_path):
    rows = load_multiview("ca_vqa", CA_VQA, "val", cache_dir=tmp_path)
    kinds = ["binary"] * 2 + ["cardinality", "multichoice"] + ["regression"] * 2
    assert rows["question_type"] == kinds and rows["answer"] == ["Yes", "No", "1", "A", "2.0", "0.5"]
    assert [len(row["views"]) for row in rows] == [1] * 6
    more = load_multiview("ca_vqa", CA_VQA, "val", support_frames=2, cache_dir=tmp_path)
    shown = [view["image_path"] for view in more[0]["views"]]
    assert shown == ["images/0.png", "images/1.png", "images/2.png"]  # the reference frame first


def test_what_is_wrong_with_ca_vqa_is_named(tmp_path):
    with pytest.raises(ValueError, match="support_frames is 5; expected 0 to 4"):
        load_multiview("ca_vqa", CA_VQA, "val", support_frames=5, cache_dir=tmp_path)
    folder = tmp_path / "data"
    shutil.copytree(CA_VQA, folder)
    (folder / "images" / "0.png").unlink()
    with pytest.raises(RecordError, match="images/0.png"):
        load_multiview("ca_vqa", folder, "val", cache_dir=tmp_path)
