"""Video-3D-LLM's processed files through `load_multiview`: texts, boxes of every shape, side files, chosen frames."""

import json
import shutil

import numpy as np
import pytest

from gap_mllm.processing.camera_geometry_gap_mllm import transform_points, unproject_depth
from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.sources.chat.video3dllm_source import selected_frames, target_boxes
from tests.processing.data.formats import FORMATS, rows_equal


FOLDER = FORMATS / "video3dllm_processed"
FRAMES = {"posed_root": str(FORMATS / "scannet_posed_images")}
TABLE = [0.2, 0.3, 0.37, 1.2, 0.7, 0.74]


def load(folder, cache, split=None, **options):
    return load_multiview("video3dllm", folder, split, cache_dir=cache / "cache", **options)


def records(name):
    return json.loads((FOLDER / "processed" / name).read_text())


def written(tmp_path, record, name="scanrefer_vg_train_llava_style.json"):
    """A data_dir with one record."""
    (tmp_path / "data" / "processed").mkdir(parents=True, exist_ok=True)
    (tmp_path / "data" / "processed" / name).write_text(json.dumps([record]))
    return tmp_path / "data"


def share_inside(sample, box):
    """Share of the depth pixels of all views that lie in a box of the aligned frame, 1 cm allowed."""
    inside = total = 0
    for index, view in enumerate(sample.views):
        points = unproject_depth(view.depth_m.astype(np.float64), view.depth_intrinsics)[view.depth_m > 0]
        points = transform_points(sample.camera_to("aligned", index), points)
        inside += (np.abs(points - box.numbers[:3]) <= box.numbers[3:6] / 2 + 0.01).all(-1).sum()
        total += len(points)
    return inside / total


@pytest.fixture(scope="module")
def posed(tmp_path_factory):
    return load(FOLDER, tmp_path_factory.mktemp("cache"), **FRAMES)


def test_texts_are_word_for_word_without_frames(tmp_path):
    report = tmp_path / "report.jsonl"
    splits = load(FOLDER, tmp_path, report_file=report)
    assert {name: [row["task"] for row in rows] for name, rows in splits.items()} == {
        "train": ["grounding"] * 3,
        "val": ["dense_caption", "dense_caption", "scene_qa"],
        "test": ["scene_qa"],
    }
    for row, record in zip(splits["train"], records("multi3drefer_train_llava_style.json"), strict=False):
        assert row["question"] == record["conversations"][0]["value"] and row["answer"] == "<ground>"
        assert row["views"] == [] and row["scene_id"] == "scene9000_00" and row["question_type"] == "mt"
        assert json.loads(row["metadata"]) == {key: record[key] for key in ("id", "video", "metadata")}
    assert {event["event"] for event in read_report(report)} == {"no_frames"}


def test_references_are_all_answers_or_captions(posed):
    captions = [row["references"] for row in posed["val"]]
    assert captions == [
        ["this is a blue chair. it is to the left of the table.", "the chair ."],
        ["a tall light cabinet. it stands by the wall."],
        ["brown table", "table"],
    ]
    assert posed["test"][0]["references"] == ["table"] and posed["train"][0]["references"] == []


@pytest.mark.parametrize("options", [{}, FRAMES, {**FRAMES, "frame_choice": "coverage", "max_views": 2}])
def test_streamed_rows_equal_prepared_ones(options, tmp_path):
    for split, rows in load(FOLDER, tmp_path, **options).items():
        streamed = load_multiview("video3dllm", FOLDER, split, streaming=True, cache_dir=tmp_path, **options)
        assert rows_equal(rows, streamed) == len(rows) > 0


def test_the_one_tag_becomes_one_a_view(posed):
    for rows in posed.values():
        for row in rows:
            assert row["question"].startswith("<image>" * 12) and row["question"].count("<image>") == 12
            assert [view["frame_id"] for view in row["views"]] == list(range(0, 120, 10))
            images = [part for part in SceneSample.from_row(row).messages()[1]["content"] if part["type"] == "image"]
            assert len(images) == 12


def test_boxes_of_every_shape(posed):
    several, one, _ = (SceneSample.from_row(row) for row in posed["train"])
    targets = [box for box in several.boxes if box.role == "target"]
    assert [box.instance_id for box in targets] == ["0", "2"]
    assert np.allclose(targets[0].numbers, [*TABLE, 0, 0, 0]) and targets[0].frame == "aligned"
    assert [box.instance_id for box in one.boxes if box.role == "target"] == ["0"]
    described, unmatched = (SceneSample.from_row(row) for row in posed["val"].select([0, 1]))
    assert [(box.role, box.instance_id) for box in described.boxes] == [("target", "1"), ("input", None)]
    assert [box.role for box in unmatched.boxes] == ["target"]


def test_depth_pixels_lie_in_target_boxes(posed):
    for row in posed["train"]:
        sample = SceneSample.from_row(row)
        for box in (box for box in sample.boxes if box.role == "target"):
            assert share_inside(sample, box) > 0.02


def test_proposals_are_true_boxes_in_training_scenes_and_detected_ones_elsewhere(posed, tmp_path):
    row = posed["train"][1]
    assert [box["instance_id"] for box in row["boxes"] if box["role"] == "proposal"] == ["0", "1", "2"]
    data = written(tmp_path, {**records("scanrefer_vg_train_llava_style.json")[0], "video": "scannet/scene9001_00"})
    shutil.copytree(FOLDER / "metadata", data / "metadata")
    boxes = load(data, tmp_path, "train")[0]["boxes"]
    assert [(box["role"], box["instance_id"]) for box in boxes] == [("target", "0"), *[("proposal", None)] * 2]
    assert [box["role"] for box in load(data, tmp_path, "train", proposals=False)[0]["boxes"]] == ["target"]


def test_a_scene_without_proposals_is_counted(tmp_path):
    data = written(tmp_path, {**records("scanrefer_vg_train_llava_style.json")[0], "video": "scannet/scene9009_00"})
    rows = load(data, tmp_path, "train", metadata_dir=str(FOLDER / "metadata"), report_file=tmp_path / "report.jsonl")
    assert [box["role"] for box in rows[0]["boxes"]] == ["target"]
    events = {event["event"]: event["reason"] for event in read_report(tmp_path / "report.jsonl")}
    assert events == {"no_frames": "scene9009_00", "no_proposals": "scannet/scene9009_00"}


def test_a_null_target_stays_a_row_without_target(tmp_path):
    record = {**records("scanrefer_vg_train_llava_style.json")[0], "box": None}
    assert load(written(tmp_path, record), tmp_path, "train")[0]["boxes"] == []


def test_frames_of_most_coverage_are_cut_then_put_in_order(tmp_path):
    rows = load(FOLDER, tmp_path, "train", frame_choice="coverage", num_views=3, **FRAMES)
    assert [view["frame_id"] for view in rows[0]["views"]] == [0, 40, 110]  # 40, 0, 110 as they were found
    rows = load(FOLDER, tmp_path, "train", frame_choice="coverage", coverage_ratio=0.75, **FRAMES)
    assert [view["frame_id"] for view in rows[0]["views"]] == [0, 40]  # 400 + 210 of 800 voxels


def test_selected_frames_by_hand():
    entry = {"frame_files": list("abcd"), "voxel_nums": [50, 30, 15, 5], "num_all_voxels": 100}
    assert selected_frames(entry, 3) == ["a", "b", "c"]
    assert selected_frames(entry, 4, 0.95) == ["a", "b", "c"]
    assert selected_frames(entry, 4, 0.8) == ["a", "b"]
    assert selected_frames(entry, 1, 0.95) == ["a"]
    with pytest.raises(RecordError, match="3 voxel counts for 4 frames"):
        selected_frames({**entry, "voxel_nums": [1, 2, 3]}, 2)


def test_views_are_limited(tmp_path):
    for options in ({"max_views": 3}, {"num_views": 3}):
        row = load(FOLDER, tmp_path, "train", **FRAMES, **options)[0]
        assert [view["frame_id"] for view in row["views"]] == [0, 50, 110]
        assert row["question"].count("<image>") == 3


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"box": [TABLE, TABLE]}, "box", "2 boxes for 1 object ids"),
        ({"box": TABLE[:5]}, "box[0]", r"\(5,\)"),
        ({"box": [0.2, 0.3, 0.37, 1.2, -0.7, 0.74]}, "box[0]", "-0.7"),
        ({"box": "here"}, "box", "got str"),
        ({"video": ""}, "video", "names no scene"),
        ({"conversations": []}, "conversations", "one question"),
    ],
)
def test_a_bad_record_is_named_or_skipped(change, field, says, tmp_path):
    data = written(tmp_path, {**records("scanrefer_vg_train_llava_style.json")[0], **change})
    with pytest.raises(RecordError, match=says) as caught:
        load(data, tmp_path, "train")
    assert (caught.value.source, caught.value.field) == ("video3dllm", field)
    assert caught.value.record_id == "scanrefer_vg_train_llava_style-0000000"
    assert len(load(data, tmp_path, "train", skip_bad_samples=True)) == 0


def test_a_scene_that_is_not_among_the_frames_is_refused(tmp_path):
    data = written(tmp_path, {**records("scanrefer_vg_train_llava_style.json")[0], "video": "scannet/scene9009_00"})
    with pytest.raises(RecordError, match="scene9009_00") as caught:
        load(data, tmp_path, **FRAMES)
    assert caught.value.field == "scene_id"


def test_a_selected_frame_that_is_missing_is_refused(tmp_path):
    metadata = tmp_path / "metadata"
    shutil.copytree(FOLDER / "metadata", metadata)
    path = metadata / "scannet_select_frames.json"
    path.write_text(path.read_text().replace("00040.jpg", "00041.jpg"))
    options = {"frame_choice": "coverage", "metadata_dir": str(metadata), **FRAMES}
    with pytest.raises(RecordError, match="00041.jpg is not there"):
        load(FOLDER, tmp_path, **options)
    path.write_text("[]")
    with pytest.raises(RecordError, match="scene9000_00 is not in scannet_select_frames.json"):
        load(FOLDER, tmp_path, **options)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="max_coverage_sampling"):
        load(FOLDER, tmp_path, **options)


def test_lost_tracking_is_left_out_and_counted(tmp_path):
    shutil.copytree(FORMATS / "scannet_posed_images" / "scannet", tmp_path / "scannet")
    (tmp_path / "scannet/posed_images/scene9000_00/00040.txt").write_text("-inf -inf -inf -inf\n" * 4)
    for options in ({}, {"frame_choice": "coverage"}):
        report = tmp_path / f"{len(options)}.jsonl"
        rows = load(FOLDER, tmp_path, "train", posed_root=str(tmp_path), report_file=report, **options)
        assert 40 not in [view["frame_id"] for view in rows[0]["views"]]
        assert {event["event"] for event in read_report(report)} == {"lost_tracking"}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"frame_choice": "random"}, ValueError, "uniform.*coverage"),
        ({"coverage_ratio": 1.5}, ValueError, "1.5"),
        ({"num_views": 0}, ValueError, "num_views is 0"),
        ({"metadata_dir": "/nowhere"}, FileNotFoundError, "metadata_dir /nowhere"),
        ({"posed_root": "/nowhere"}, FileNotFoundError, "/nowhere"),
        ({"aabb_root": "/nowhere"}, ValueError, "aabb_root given, but no frames"),
    ],
)
def test_wrong_options_are_refused(options, error, says, tmp_path):
    with pytest.raises(error, match=says):
        load(FOLDER, tmp_path, **options)


def test_no_boxes_for_null():
    assert target_boxes(None, ["1"]) == [] == target_boxes([], [])
