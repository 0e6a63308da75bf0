"""Grounding in two stages and captions at a place, as GAP-MLLM words them, from raw ScanRefer files."""

import json
import shutil

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_boxes, parse_frame
from gap_mllm.processing.camera_geometry_gap_mllm import box_corners
from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.box_projection import NEAR_M
from gap_mllm.processing.data.sources.scannet.box_visibility import most_visible_view, projected_area
from gap_mllm.processing.data.sources.scannet.grounding import frames_around
from gap_mllm.processing.data.sources.scannet.scan2cap_source import best_proposal
from tests.processing.data.formats import FORMATS, rows_equal
from tests.processing.data.text_sets import FRAMES, INFOS, POSED, change_set, load


PROPOSALS = str(FORMATS / "video3dllm_processed" / "metadata" / "scannet_val_pred_box.json")


def gap_records(name):
    return json.loads((FORMATS / "gap_mllm" / "data" / "train" / f"{name}.json").read_text())


@pytest.fixture
def changed(tmp_path):
    """A copy of a set with one file changed."""
    return lambda name, file, change: change_set(name, file, change, tmp_path / "changed")


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
    assert best_proposal(box, [{"center": [1, 0, 0], "size": [2, 2, 2]}])[1] == pytest.approx(1 / 3)
    assert best_proposal(box, [{"center": [3, 0, 0], "size": [2, 2, 2]}])[1] == 0
    near, far = {"center": [0.1, 0, 0], "size": [2, 2, 2]}, {"center": [0.5, 0, 0], "size": [2, 2, 2]}
    assert best_proposal(box, [far, near])[0] is near and best_proposal(box, []) == (None, 0.0)


def test_one_bad_description_leaves_out_its_object(changed, tmp_path):
    folder = changed("scan2cap", "ScanRefer_filtered_val.json", lambda rows: rows[2].update(description=None))
    with pytest.raises(RecordError, match="expected a text") as caught:
        load("scan2cap", tmp_path, folder=folder)
    assert caught.value.field == "description"
    assert len(load("scan2cap", tmp_path, "val", folder, skip_bad_samples=True)) == 2


# One stage, in the wording of VG-LLM


def test_one_stage_equals_the_released_form(tmp_path):
    record = json.loads((FORMATS / "vgllm" / "data" / "train" / "scanrefer_train_32frames.json").read_text())[0]
    rows = load("scanrefer", tmp_path, "train", prompt_style="vgllm", num_views=6, **FRAMES)
    row = next(row for row in rows if row["id"] == "scene9000_00-1-0")
    assert f"scannet/{row['views'][0]['image_path']}" == record["images"][0]  # the answered one
    assert row["question"] == record["conversations"][0]["value"]
    assert row["answer"] == record["conversations"][1]["value"]
    assert row["target_frame"] == record["target"]["frame"] and row["task"] == "grounding"


def test_the_answered_box_is_in_the_camera_of_the_answered_view(tmp_path):
    for split in ("train", "val"):
        for row in load("scanrefer", tmp_path, split, prompt_style="vgllm", num_views=6, **FRAMES):
            sample = SceneSample.from_row(row)
            aligned, camera = sample.boxes
            assert parse_frame(sample.answer).first == sample.target_frame == camera.frame_index
            there = sample.box_in_view(aligned, sample.target_frame)
            assert np.allclose(box_corners(camera.numbers, "zxy"), box_corners(there, "zxy"), atol=1e-5)
            assert np.allclose(parse_boxes(sample.answer).first.bbox_3d, camera.numbers, atol=0.0051)


def test_an_object_that_no_view_shows_is_asked_but_not_trained_on(tmp_path):
    shutil.copytree(POSED / "scannet", tmp_path / "scannet")
    import torch

    for split, scene in (("train", "scene9000_00"), ("val", "scene9001_00")):
        file = tmp_path / "scannet" / "pcd_with_object_aabbs" / split / f"{scene}.pth"
        content = torch.load(file, weights_only=False)  # a fixture of ours
        content["aabb_corner_xyz"] = np.asarray(content["aabb_corner_xyz"]).copy()
        content["aabb_corner_xyz"][2] += 10
        torch.save(content, file)
    report = tmp_path / "report.jsonl"
    options = {"posed_root": str(tmp_path), "prompt_style": "vgllm", "report_file": report}
    splits = load("scanrefer", tmp_path, **options)
    assert {row["boxes"][0]["instance_id"] for row in splits["train"]} == {"0", "1"}
    row = splits["val"][3]
    assert (row["answer"], row["target_frame"]) == (None, None) and len(row["boxes"]) == 1
    reasons = [event["reason"] for event in read_report(report) if event["event"] == "not_visible"]
    assert sorted(reasons) == ["scene9000_00, object 2", "scene9001_00, object 2"]


def test_one_stage_streams_and_asks_nr3d_too(tmp_path):
    for name, split in (("scanrefer", "val"), ("nr3d", "test")):
        options = {"prompt_style": "vgllm", "num_views": 3, **FRAMES}
        rows = load(name, tmp_path, split, **options)
        folder = FORMATS / name
        assert rows_equal(rows, load_multiview(name, folder, split, streaming=True, cache_dir=tmp_path, **options))
        assert all('"frame" and its 3D bounding box in "bbox_3d"' in question for question in rows["question"])


# Any number of objects, as lists of boxes


def test_all_boxes_are_answered_in_the_camera_of_the_first_view(tmp_path):
    options = {"prompt_style": "gap_mllm", "num_views": 3, **FRAMES}
    rows = load("multi3drefer", tmp_path, "val", **options)
    for row, count in zip(rows, (1, 2, 0), strict=True):
        sample = SceneSample.from_row(row)
        assert sample.question.count("<image>") == 3 and sample.question.startswith("<image>" * 3 + "Localize all")
        answered = parse_boxes(sample.answer).items
        assert len(answered) == len(sample.boxes) == count
        for box, answer in zip(sample.boxes, answered, strict=True):
            assert box.frame == "aligned"
            assert np.allclose(answer.bbox_3d[:6], sample.box_in_view(box, 0)[:6], atol=0.0051)
    assert "Text: The pieces made of wood\n" in rows[1]["question"] and rows[2]["answer"] == "```json\n[\n\t\n]```"
    streamed = load_multiview(
        "multi3drefer", FORMATS / "multi3drefer", "val", streaming=True, cache_dir=tmp_path, **options
    )
    assert rows_equal(rows, streamed) == 3


def test_all_oriented_boxes_or_none(tmp_path):
    options = {"prompt_style": "gap_mllm", "box_kind": "oriented", "infos_file": INFOS, **FRAMES}
    rows = load("multi3drefer", tmp_path, "train", **options)
    assert [len(row["boxes"]) for row in rows] == [1, 2, 0]
    chair = rows[0]["boxes"][0]
    assert chair["euler_order"] == "ZXY" and chair["euler"][0] == pytest.approx(0.5)
    assert np.allclose(parse_boxes(rows[0]["answer"]).first.bbox_3d[3:6], chair["size"], atol=0.0051)
    text_only = load("multi3drefer", tmp_path, "train", **{**options, "prompt_style": "video3dllm"})
    assert text_only[0]["boxes"][0]["euler"][0] == pytest.approx(0.5)


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
