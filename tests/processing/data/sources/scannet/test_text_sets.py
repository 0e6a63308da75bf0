"""Text sets on ScanNet frames through `load_multiview`: what all share, and the texts of each."""

import json
import shutil

import numpy as np
import pytest

from gap_mllm.processing.camera_geometry_gap_mllm import transform_points, unproject_depth
from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.sources.wordings import video3dllm_question
from tests.processing.data.formats import FORMATS, rows_equal
from tests.processing.data.text_sets import FOLDERS, FRAMES, INFOS, POSED, change_set, load


NUM_ROWS = {
    "scanrefer": {"train": 4, "val": 4, "test": 1},
    "scan2cap": {"train": 4, "val": 3},
    "multi3drefer": {"train": 3, "val": 3},
    "nr3d": {"train": 2, "test": 1},
    "scanqa": {"train": 2, "val": 2, "test_wo_obj": 1},
    "sqa3d": {"train": 4, "val": 2, "test": 2},
}


def processed(name):
    return json.loads((FORMATS / "video3dllm_processed" / "processed" / f"{name}_llava_style.json").read_text())


@pytest.fixture
def changed(tmp_path):
    """A copy of a set with one file changed."""
    return lambda name, file, change: change_set(name, file, change, tmp_path / "changed")


# Every set


@pytest.mark.parametrize("options", [{}, FRAMES], ids=["texts", "frames"])
@pytest.mark.parametrize("name", NUM_ROWS)
def test_streamed_rows_equal_prepared_ones(name, options, tmp_path):
    splits = load(name, tmp_path, **options)
    assert {split: len(rows) for split, rows in splits.items()} == NUM_ROWS[name]
    for split, rows in splits.items():
        streamed = load_multiview(name, FORMATS / FOLDERS[name], split, streaming=True, cache_dir=tmp_path, **options)
        assert rows_equal(rows, streamed) == len(rows)


@pytest.mark.parametrize("name", NUM_ROWS)
def test_without_frames_only_texts_are_read_and_that_is_counted(name, tmp_path):
    report = tmp_path / "report.jsonl"
    for rows in load(name, tmp_path, report_file=report).values():
        for row in rows:
            assert row["views"] == row["boxes"] == [] and "<image>" not in row["question"]
            assert row["question"][0] != " " and row["scene_id"].startswith("scene900")
    events = [event["event"] for event in read_report(report)]
    assert set(events) - {"scene_in_no_split"} == {"no_frames"} and events.count("no_frames") <= 3


@pytest.mark.parametrize("name", NUM_ROWS)
def test_every_row_has_one_tag_a_view(name, tmp_path):
    for rows in load(name, tmp_path, num_views=5, **FRAMES).values():
        for row in rows:
            is_test_scene = row["scene_id"] == "scene9002_00"
            frames = [view["frame_id"] for view in row["views"]]
            assert frames == ([] if is_test_scene else [0, 20, 50, 80, 110])
            assert row["question"].count("<image>") == len(frames)
            messages = SceneSample.from_row(row).messages(with_answer=False)
            assert sum(part["type"] == "image" for part in messages[1]["content"]) == len(frames)


def test_depth_pixels_lie_in_the_boxes(tmp_path):
    sample = SceneSample.from_row(load("multi3drefer", tmp_path, "train", **FRAMES)[1])
    assert [box.instance_id for box in sample.boxes] == ["0", "2"]
    points = []
    for index, view in enumerate(sample.views):
        seen = unproject_depth(view.depth_m.astype(np.float64), view.depth_intrinsics)[view.depth_m > 0]
        points.append(transform_points(sample.camera_to("aligned", index), seen))
    points = np.concatenate(points)
    for box in sample.boxes:
        assert (np.abs(points - box.numbers[:3]) <= box.numbers[3:6] / 2 + 0.01).all(-1).mean() > 0.05


def test_a_layout_as_the_projects_have_it_needs_no_options(tmp_path):
    data = tmp_path / "project" / "data"
    shutil.copytree(POSED / "scannet", data / "scannet")
    shutil.copytree(FORMATS / "scanrefer", data / "benchmark" / "scanrefer")
    shutil.copytree(FORMATS / "sqa3d" / "sqa_task", data / "benchmark" / "sqa_task")
    for folder in (data, data.parent):
        row = load("scanrefer", tmp_path, "train", folder=folder)[0]
        assert len(row["views"]) == 12 and len(row["boxes"]) == 1
        assert len(load("sqa3d", tmp_path, "train", folder=folder)[0]["views"]) == 12


def test_without_boxes_rows_have_views_and_that_is_counted(tmp_path):
    shutil.copytree(POSED / "scannet" / "posed_images", tmp_path / "posed_images")
    report = tmp_path / "report.jsonl"
    rows = load("scanrefer", tmp_path, posed_root=str(tmp_path), report_file=report)["train"]
    assert len(rows[0]["views"]) == 12 and rows[0]["boxes"] == [] and rows[0]["answer"] == "<ground>"
    events = [event["event"] for event in read_report(report)]
    assert events.count("no_boxes") == 2  # one for each file with targets


@pytest.mark.parametrize(
    ("name", "options", "error", "says"),
    [
        ("scanrefer", {"posed_root": "/nowhere"}, FileNotFoundError, "/nowhere"),
        ("scanrefer", {"infos_file": INFOS}, ValueError, "infos_file given, but no frames"),
        ("scanrefer", {"prompt_style": "own"}, ValueError, "video3dllm.*gap_mllm.*vgllm"),
        ("scan2cap", {"prompt_style": "vgllm"}, ValueError, "'scan2cap' has 'video3dllm' and 'gap_mllm'"),
        ("multi3drefer", {"prompt_style": "vgllm"}, ValueError, "'multi3drefer' has 'video3dllm' and 'gap_mllm'"),
        ("multi3drefer", {"prompt_style": "gap_mllm"}, FileNotFoundError, "no posed frames"),
        ("nr3d", {"prompt_style": "vgllm"}, FileNotFoundError, "'vgllm' answers in the camera .* no posed frames"),
        ("scanrefer", {"box_kind": "round"}, ValueError, "axis_aligned.*oriented"),
        ("scanrefer", {"box_kind": "oriented"}, ValueError, "needs infos_file"),
        ("scanrefer", {"prompt_style": "gap_mllm"}, FileNotFoundError, "no posed frames"),
        ("scanrefer", {"tasks": ["grounding_box"]}, ValueError, "prompt_style 'video3dllm' has"),
        ("scanqa", {"num_views": 0}, ValueError, "num_views is 0"),
        ("scan2cap", {"proposals_file": "/nowhere.json"}, FileNotFoundError, "/nowhere.json"),
    ],
)
def test_wrong_options_are_refused(name, options, error, says, tmp_path):
    with pytest.raises(error, match=says):
        load(name, tmp_path, **options)


def test_a_folder_without_the_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="multi3drefer_{train,val}.json"):
        load("multi3drefer", tmp_path, folder=FORMATS / "scanqa")


def test_gap_style_without_boxes_is_refused(tmp_path):
    shutil.copytree(POSED / "scannet" / "posed_images", tmp_path / "posed_images")
    with pytest.raises(FileNotFoundError, match="no boxes"):
        load("scanrefer", tmp_path, posed_root=str(tmp_path), prompt_style="gap_mllm")


def test_a_training_scene_that_is_not_among_the_frames_is_refused(changed, tmp_path):
    folder = changed("scanrefer", "ScanRefer_filtered_val.json", lambda rows: rows[0].update(scene_id="scene9009_00"))
    with pytest.raises(RecordError, match="scene9009_00") as caught:
        load("scanrefer", tmp_path, folder=folder, **FRAMES)
    assert (caught.value.source, caught.value.field) == ("scanrefer", "scene_id")
    rows = load("scanrefer", tmp_path, "val", folder=folder, skip_bad_samples=True, **FRAMES)
    assert len(rows) == 3


def test_a_damaged_frame_costs_a_scene_nothing_but_the_frame_where_it_is_skipped(tmp_path):
    shutil.copytree(POSED / "scannet", tmp_path / "scannet")
    (tmp_path / "scannet" / "posed_images" / "scene9000_00" / "00040.jpg").write_bytes(b"no picture")
    options = {"posed_root": str(tmp_path), "report_file": tmp_path / "report.jsonl"}
    with pytest.raises(RecordError, match="00040.jpg.*no readable picture"):
        load("scanrefer", tmp_path, **options)
    rows = load("scanrefer", tmp_path, "train", skip_bad_samples=True, **options)
    assert [len(row["views"]) for row in rows] == [11] * 4
    skipped = [event for event in read_report(tmp_path / "report.jsonl") if event["event"] == "skipped"]
    assert len(skipped) == 1 and skipped[0]["file"].endswith("00040.jpg")


def test_several_processes_read_the_same(tmp_path):
    rows = load("scanrefer", tmp_path, "train", **FRAMES)
    assert rows_equal(rows, load("scanrefer", tmp_path / "other", "train", num_proc=2, **FRAMES)) == 4


# The wording of Video-3D-LLM


@pytest.mark.parametrize(
    ("name", "split", "places", "file"),
    [
        ("scanrefer", "train", [0, 1], "scanrefer_vg_train"),
        ("multi3drefer", "train", [1], "multi3drefer_train"),
        ("scan2cap", "val", [1, 2], "scan2cap_val"),
        ("scanqa", "val", [0], "scanqa_val"),
        ("sqa3d", "test", [0], "sqa3d_test"),
    ],
)
def test_raw_records_become_what_the_project_makes_of_them(name, split, places, file, tmp_path):
    """With a single view a question is word for word the processed one; so are answers, boxes and references."""
    rows = load(name, tmp_path, split, num_views=1, **FRAMES)
    for place, record in zip(places, processed(file), strict=True):
        row = rows[place]
        assert row["question"] == record["conversations"][0]["value"]
        assert row["answer"] == record["conversations"][1]["value"]
        expected = record.get("box", record.get("gt_box"))
        if expected is not None:
            numbers = [box["center"] + box["size"] for box in row["boxes"] if box["role"] == "target"]
            assert np.allclose(numbers, np.reshape(expected, (-1, 6)), atol=1e-5)
        if name in ("scanrefer", "multi3drefer", "scan2cap"):
            ids = [box["instance_id"] for box in row["boxes"] if box["role"] == "target"]
            assert ids == [str(number) for number in np.ravel(record["metadata"]["object_id"])]
        if name not in ("scanrefer", "multi3drefer"):
            answers = record.get("annotations") or record["metadata"].get("answers") or [row["answer"]]
            assert row["references"] == answers
        if name not in ("scanqa", "scanrefer"):  # ScanQA has none, this train file of ScanRefer lacks it
            assert row["question_type"] == record["metadata"]["question_type"]


def test_fields_are_put_in_as_they_stand():
    question = video3dllm_question("situated_qa", 2, situation="I say {question}.", question="Is {situation} so?")
    assert question == (
        "<image><image> I say {question}. Is {situation} so? Answer the question using a single word or phrase."
    )
    assert video3dllm_question("scene_qa", 0, question="Why?") == "Why? Answer the question simply."
    with pytest.raises(KeyError):
        video3dllm_question("scene_qa", 1, description="a chair")


# ScanRefer


def test_scanrefer_targets_labels_and_types(tmp_path):
    splits = load("scanrefer", tmp_path, **FRAMES)
    assert [row["id"] for row in splits["train"]] == [
        f"scene9000_00-{object_id}-{ann}" for object_id, ann in ((0, 0), (1, 0), (1, 1), (2, 0))
    ]
    box = splits["train"][1]["boxes"][0]
    assert (box["label"], box["instance_id"], box["role"], box["frame"]) == ("chair", "1", "target", "aligned")
    assert splits["train"]["question_type"] == [None] * 4 and splits["val"]["question_type"] == ["unique"] * 4
    metadata = json.loads(splits["train"][0]["metadata"])
    assert metadata["description"].startswith("it is a brown table") and metadata["token"][:2] == ["it", "is"]
    test = splits["test"][0]
    assert test["answer"] is None and test["boxes"] == [] and test["views"] == []


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"object_id": "17"}, "object_id", "no box of object '17'; there are 0, 1, 2"),
        ({"object_id": ""}, "object_id", "only test records"),
        ({"object_id": "chair"}, "object_id", "whole number"),
        ({"description": " "}, "description", "expected a text"),
        ({"scene_id": ""}, "scene_id", "no scene id"),
        ({"scene_id": "../scene9000_00"}, "scene_id", "leads out of"),
        ({"object_id": "0", "ann_id": "0"}, "id", "there twice"),
    ],
)
def test_a_bad_description_is_named_or_skipped(change, field, says, changed, tmp_path):
    folder = changed("scanrefer", "ScanRefer_filtered_train.json", lambda rows: rows[1].update(change))
    with pytest.raises(RecordError, match=says) as caught:
        load("scanrefer", tmp_path, folder=folder, **FRAMES)
    assert (caught.value.field, caught.value.record_id) == (field, "ScanRefer_filtered_train-0000001")
    report = tmp_path / "report.jsonl"
    rows = load("scanrefer", tmp_path, "train", folder, skip_bad_samples=True, report_file=report, **FRAMES)
    assert len(rows) == 3 and [e["field"] for e in read_report(report) if e["event"] == "skipped"] == [field]


def test_a_missing_key_is_named(changed, tmp_path):
    folder = changed("scanrefer", "ScanRefer_filtered_train.json", lambda rows: rows[1].pop("ann_id"))
    with pytest.raises(RecordError, match="'ann_id'"):
        load("scanrefer", tmp_path, folder=folder)


# Multi3DRefer


def test_no_object_is_a_valid_answer(tmp_path):
    rows = load("multi3drefer", tmp_path, "val", **FRAMES)
    assert [len(row["boxes"]) for row in rows] == [1, 2, 0]
    assert rows["question_type"] == ["st_wo_d", "mt", "zt_wo_d"] and rows[2]["answer"] == "<ground>"
    assert json.loads(rows[2]["metadata"])["object_ids"] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"object_ids": [9]}, "no box of object '9'"),
        ({"object_ids": [-1]}, "whole number"),
        ({"object_ids": 1}, "expected a list"),
        ({"object_ids": []}, "eval_type is 'st_wo_d' with 0 objects"),
    ],
)
def test_bad_object_lists_are_refused(change, says, changed, tmp_path):
    folder = changed("multi3drefer", "multi3drefer_train.json", lambda rows: rows[0].update(change))
    with pytest.raises(RecordError, match=says):
        load("multi3drefer", tmp_path, folder=folder, **FRAMES)


# ScanQA


def test_scanqa_answers_and_objects(tmp_path):
    splits = load("scanqa", tmp_path, **FRAMES)
    row = splits["val"][0]
    assert (row["id"], row["answer"], row["references"]) == (
        "val-scene9001-0",
        "brown table",
        ["brown table", "table"],
    )
    assert [(box["label"], box["instance_id"]) for box in row["boxes"]] == [("table", "0")]
    assert json.loads(row["metadata"])["question"] == "What is in front of the cabinet?"
    assert splits["test_wo_obj"][0]["answer"] is None and splits["test_wo_obj"][0]["references"] == []


def test_scanqa_rows_for_every_answer(changed, tmp_path):
    folder = changed("scanqa", "ScanQA_v1.0_train.json", lambda rows: rows[0].update(answers=["a", "b"]))
    splits = load("scanqa", tmp_path, folder=folder, row_per_answer=True)
    assert splits["train"]["answer"] == ["a", "b", "blue"] and len(splits["val"]) == 2
    assert splits["train"]["id"][:2] == ["train-scene9000-0-0", "train-scene9000-0-1"]


@pytest.mark.parametrize("change", [{"answers": []}, {"answers": None}, {"answers": [3]}, {"answers": "table"}])
def test_training_questions_need_answers(change, changed, tmp_path):
    folder = changed("scanqa", "ScanQA_v1.0_train.json", lambda rows: rows[0].update(change))
    with pytest.raises(RecordError, match="at least one text") as caught:
        load("scanqa", tmp_path, folder=folder)
    assert caught.value.field == "answers"
