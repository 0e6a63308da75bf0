"""ScanRefer, Scan2Cap, Multi3DRefer, Nr3D, ScanQA and SQA3D on ScanNet frames, through `load_multiview`."""

import csv
import json
import shutil

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_boxes, parse_frame
from gap_mllm.processing.camera_geometry_gap_mllm import box_corners, transform_points, unproject_depth
from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.sources.box_visibility import NEAR_M, most_visible_view, projected_area
from gap_mllm.processing.data.sources.nr3d import question_type, read_distractors
from gap_mllm.processing.data.sources.scan2cap import axis_aligned_iou, best_proposal
from gap_mllm.processing.data.sources.scannet_grounding import frames_around
from gap_mllm.processing.data.sources.sqa3d import first_word
from gap_mllm.processing.data.sources.text_set_prompts import video3dllm_question
from tests.processing.data.formats import FORMATS, rows_equal


POSED = FORMATS / "scannet_posed_images"
FRAMES = {"posed_root": str(POSED)}
INFOS = tuple(str(FORMATS / "embodiedscan" / f"embodiedscan_infos_{split}.pkl") for split in ("train", "val"))
PROPOSALS = str(FORMATS / "video3dllm_processed" / "metadata" / "scannet_val_pred_box.json")
FOLDERS = {name: name for name in ("scanrefer", "multi3drefer", "nr3d", "scanqa", "sqa3d")} | {"scan2cap": "scanrefer"}
NUM_ROWS = {
    "scanrefer": {"train": 4, "val": 4, "test": 1},
    "scan2cap": {"train": 4, "val": 3},
    "multi3drefer": {"train": 3, "val": 3},
    "nr3d": {"train": 2, "test": 1},
    "scanqa": {"train": 2, "val": 2, "test_wo_obj": 1},
    "sqa3d": {"train": 4, "val": 2, "test": 2},
}


def load(name, cache, split=None, folder=None, **options):
    folder = FORMATS / FOLDERS[name] if folder is None else folder
    return load_multiview(name, folder, split, cache_dir=cache / "cache", **options)


def processed(name):
    return json.loads((FORMATS / "video3dllm_processed" / "processed" / f"{name}_llava_style.json").read_text())


def gap_records(name):
    return json.loads((FORMATS / "gap_mllm" / "data" / "train" / f"{name}.json").read_text())


@pytest.fixture
def changed(tmp_path):
    """Copies a set and changes the records of one of its files."""

    def make(name, file, change):
        folder = tmp_path / "changed"
        shutil.copytree(FORMATS / FOLDERS[name], folder)
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))
        return folder

    return make


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
    rows = load("scanrefer", tmp_path, "train", posed_root=str(tmp_path), report_file=report)
    assert len(rows[0]["views"]) == 12 and rows[0]["boxes"] == [] and rows[0]["answer"] == "<ground>"
    events = [event["event"] for event in read_report(report)]
    assert events.count("no_boxes") == 2  # one for each file with targets


@pytest.mark.parametrize(
    ("name", "options", "error", "says"),
    [
        ("scanrefer", {"posed_root": "/nowhere"}, FileNotFoundError, "/nowhere"),
        ("scanrefer", {"infos_file": INFOS}, ValueError, "infos_file given, but no frames"),
        ("scanrefer", {"prompt_style": "vgllm"}, ValueError, "video3dllm.*gap_mllm"),
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


# ScanRefer and Scan2Cap in the wording of GAP-MLLM


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    options = {"prompt_style": "gap_mllm", "num_views": 6, **FRAMES}
    return load("scanrefer", tmp_path_factory.mktemp("cache"), **options)


def test_second_stage_equals_the_released_form(staged):
    """Questions, answers and the order of frames are those of GAP-MLLM's file where it chose the same frame."""
    rows = [row for row in staged["train"] if row["task"] == "grounding_box"]
    records = {record["images"][0]: record for record in gap_records("scanrefer_train_32frames_stage2")}
    compared = 0
    for row in rows:
        record = records.get(f"scannet/{row['views'][0]['image_path']}")
        if record is None or json.loads(row["metadata"])["ann_id"] != record["metadata"]["ann_id"]:
            continue
        if row["boxes"][0]["instance_id"] == record["metadata"]["object_id"]:
            compared += 1
            assert [f"scannet/{view['image_path']}" for view in row["views"]] == record["images"]
            assert row["question"] == record["conversations"][0]["value"]
            assert row["answer"] == record["conversations"][1]["value"]
    assert compared >= 1


def test_stages_agree(staged):
    for split in ("train", "val"):
        frames = {row["id"]: SceneSample.from_row(row) for row in staged[split] if row["task"] == "grounding_frame"}
        boxes = {row["id"]: SceneSample.from_row(row) for row in staged[split] if row["task"] == "grounding_box"}
        assert len(frames) == len(boxes) == 4
        for row_id, first in frames.items():
            second = boxes[row_id.replace("-frame", "-box")]
            assert first.question.startswith("Frame-0: <image>Frame-1: <image>") and len(first.views) == 6
            assert parse_frame(first.answer).items == (first.target_frame,)
            assert first.views[first.target_frame].frame_id == second.views[0].frame_id
            aligned, camera = second.boxes
            assert (aligned.frame, camera.frame, camera.frame_index) == ("aligned", "camera", 0)
            corners = box_corners(camera.numbers, camera.euler_order)
            world = box_corners(second.box_in_view(aligned, 0), aligned.euler_order)
            assert np.allclose(corners, world, atol=1e-5)
            (answer,) = parse_boxes(second.answer).items
            assert np.allclose(answer.bbox_3d, camera.numbers, atol=0.0051)


def test_the_chosen_frame_shows_most_of_the_box(staged):
    for row in (row for row in staged["val"] if row["task"] == "grounding_frame"):
        sample = SceneSample.from_row(row)
        areas = [
            projected_area(
                box_corners(sample.box_in_view(sample.boxes[0], index), "zxy"), view.intrinsics, view.image.size
            )
            for index, view in enumerate(sample.views)
        ]
        assert areas[sample.target_frame] == max(areas) > 0


def test_oriented_boxes_are_taken_where_they_are_asked_for(tmp_path):
    options = {"prompt_style": "gap_mllm", "box_kind": "oriented", "infos_file": INFOS, "tasks": ["grounding_box"]}
    rows = load("scanrefer", tmp_path, "train", **options, **FRAMES)
    aligned, camera = (SceneSample.from_row(rows[1])).boxes
    assert aligned.instance_id == "1" and aligned.numbers[6] == pytest.approx(0.5) and aligned.euler_order == "ZXY"
    assert np.allclose(aligned.numbers[3:6], [0.5, 0.5, 0.9]) and aligned.label == "chair"
    assert camera.euler_order == "zxy"
    world = SceneSample.from_row(rows[1]).box_in_view(aligned, 0)
    assert np.allclose(box_corners(camera.numbers, "zxy"), box_corners(world, "ZXY"), atol=1e-5)


def test_an_object_without_oriented_box_is_counted_and_left_out(tmp_path):
    shutil.copytree(POSED / "scannet", tmp_path / "scannet")
    aabb = tmp_path / "scannet" / "pcd_with_object_aabbs" / "train" / "scene9000_00.pth"
    import torch

    content = torch.load(aabb, weights_only=False)  # a fixture of ours
    content["aabb_corner_xyz"] = np.asarray(content["aabb_corner_xyz"]).copy()
    content["aabb_corner_xyz"][2] += 10
    torch.save(content, aabb)
    report = tmp_path / "report.jsonl"
    options = {"prompt_style": "gap_mllm", "posed_root": str(tmp_path), "report_file": report}
    oriented = load("scanrefer", tmp_path, "train", box_kind="oriented", infos_file=INFOS, **options)
    assert {row["boxes"][0]["instance_id"] for row in oriented} == {"0", "1"}
    events = [event for event in read_report(report) if event["event"] == "no_oriented_box"]
    assert [event["reason"] for event in events] == ["scene9000_00, objects 2"]
    rows = load("scanrefer", tmp_path, "train", **options)
    assert {row["boxes"][0]["instance_id"] for row in rows} == {"0", "1"}  # ten metres off it is in no picture
    assert [e["reason"] for e in read_report(report) if e["event"] == "not_visible"] == ["scene9000_00, object 2"]


def test_test_records_are_asked_for_a_frame_without_answer(tmp_path):
    shutil.copytree(POSED / "scannet", tmp_path / "scannet")
    posed = tmp_path / "scannet" / "posed_images"
    shutil.copytree(posed / "scene9001_00", posed / "scene9002_00")
    rows = load("scanrefer", tmp_path, "test", posed_root=str(tmp_path), prompt_style="gap_mllm")
    assert [(row["task"], row["answer"], row["target_frame"]) for row in rows] == [("grounding_frame", None, None)]


def test_tasks_choose_a_stage(tmp_path):
    options = {"prompt_style": "gap_mllm", **FRAMES}
    for task in ("grounding_frame", "grounding_box"):
        rows = load("scanrefer", tmp_path, "train", tasks=[task], **options)
        assert rows["task"] == [task] * 4


def test_views_of_both_stages_are_limited(tmp_path):
    rows = load("scanrefer", tmp_path, "train", prompt_style="gap_mllm", max_views=4, **FRAMES)
    for row in rows:
        assert len(row["views"]) == 4 == row["question"].count("<image>")


def test_captions_equal_the_released_form(tmp_path):
    rows = load("scan2cap", tmp_path, "train", prompt_style="gap_mllm", num_views=6, **FRAMES)
    by_id = {row["id"]: row for row in rows}
    for record in gap_records("scan2cap_train_32frames"):
        metadata = record["metadata"]
        row = by_id[f"scene9000_00-{metadata['object_id']}-{metadata['ann_id']}"]
        assert row["question"] == record["conversations"][0]["value"]
        assert row["answer"] == record["conversations"][1]["value"]
        assert [box["role"] for box in row["boxes"]] == ["target", "input"]
        assert np.allclose(row["boxes"][0]["center"], record["gt_box"][:3])


def test_all_descriptions_of_an_object_are_its_references(tmp_path):
    splits = load("scan2cap", tmp_path, **FRAMES)
    chair = ["this is a blue chair. it is to the left of the table.", "the chair ."]
    assert splits["val"][1]["references"] == chair and splits["val"][1]["id"] == "scene9001_00-1"
    assert [row["references"] for row in splits["train"].select([1, 2])] == [chair, chair]
    assert splits["train"]["answer"][1:3] == [chair[0].capitalize(), "The chair ."]


def test_proposals_stand_for_objects_where_they_overlap(tmp_path):
    report = tmp_path / "report.jsonl"
    options = {"proposals_file": PROPOSALS, "report_file": report, **FRAMES}
    for style in ("video3dllm", "gap_mllm"):
        table, chair, cabinet = load("scan2cap", tmp_path, "val", prompt_style=style, **options)
        assert [[box["role"] for box in row["boxes"]] for row in (table, chair)] == [["target", "input"]] * 2
        assert [box["role"] for box in cabinet["boxes"]] == ["target"]  # no proposal is near it
        assert (cabinet["question"] is None) == (style == "gap_mllm")
        assert json.loads(chair["metadata"])["iou"] == pytest.approx(1)
        proposal = json.loads(open(PROPOSALS).read())["scannet/scene9001_00"][0]
        assert np.allclose(table["boxes"][1]["center"] + table["boxes"][1]["size"], proposal)
    reasons = [event["reason"] for event in read_report(report) if event["event"] == "no_proposal"]
    assert set(reasons) == {"scene9001_00, object 2"}


def test_overlap_by_hand():
    box = {"center": [0, 0, 0], "size": [2, 2, 2]}
    assert axis_aligned_iou(box, {"center": [1, 0, 0], "size": [2, 2, 2]}) == pytest.approx(1 / 3)
    assert axis_aligned_iou(box, {"center": [3, 0, 0], "size": [2, 2, 2]}) == 0
    near, far = {"center": [0.1, 0, 0], "size": [2, 2, 2]}, {"center": [0.5, 0, 0], "size": [2, 2, 2]}
    assert best_proposal(box, [far, near])[0] is near and best_proposal(box, []) == (None, 0.0)


def test_one_bad_description_leaves_out_its_object(changed, tmp_path):
    folder = changed("scan2cap", "ScanRefer_filtered_val.json", lambda rows: rows[2].update(description=None))
    with pytest.raises(RecordError, match="expected a text") as caught:
        load("scan2cap", tmp_path, folder=folder)
    assert caught.value.field == "description"
    assert len(load("scan2cap", tmp_path, "val", folder, skip_bad_samples=True)) == 2


# Which view shows a box


def test_area_of_a_box_in_front_of_the_camera():
    intrinsics = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    box = np.array([0, 0, 3.0, 1, 1, 2, 0, 0, 0])  # its near face is 2 m away: 50 x 50 pixels
    assert projected_area(box_corners(box, "zxy"), intrinsics, (101, 81)) == pytest.approx(2500)
    assert projected_area(box_corners(box, "zxy"), intrinsics, (51, 81)) == pytest.approx(25.5 * 50)  # half cut off
    behind = box * [1, 1, -1, 1, 1, 1, 1, 1, 1]
    assert projected_area(box_corners(behind, "zxy"), intrinsics, (101, 81)) == 0
    around = np.array([0, 0, 0.0, 1, 1, 1, 0, 0, 0])  # the camera is inside: the whole picture, cut at the near plane
    assert projected_area(box_corners(around, "zxy"), intrinsics, (101, 81)) == pytest.approx(101 * 81)
    aside = np.array([2.0, 0, 0, 1, 1, 2 * NEAR_M + 0.1, 0, 0, 0])
    assert projected_area(box_corners(aside, "zxy"), intrinsics, (101, 81)) == 0


def test_a_view_without_intrinsics_is_refused():
    box = {"center": [0, 0, 3], "size": [1, 1, 1], "euler": [0, 0, 0], "euler_order": "zxy"}
    assert most_visible_view([], box, np.eye(4)) is None
    with pytest.raises(RecordError, match="intrinsic.txt"):
        most_visible_view([{"camera_to_world": np.eye(4)}], box, np.eye(4))


def test_an_unknown_alignment_is_refused(tmp_path):
    shutil.copytree(POSED / "scannet", tmp_path / "scannet")
    shutil.rmtree(tmp_path / "scannet" / "scans")
    with pytest.raises(RecordError, match="alignment is not known"):
        load("scanrefer", tmp_path, posed_root=str(tmp_path), prompt_style="gap_mllm")


def test_frames_around_the_chosen_one():
    views = [{"frame_id": number} for number in (0, 5, 10, 20, 100, 110, 200)]
    assert [view["frame_id"] for view in frames_around({"frame_id": 10}, views)] == [10, 20, 100, 0]
    assert [view["frame_id"] for view in frames_around({"frame_id": 110}, views)] == [110, 200, 100, 20]


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


# Nr3D


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


# SQA3D


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
