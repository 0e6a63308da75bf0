"""GAP-MLLM's JSON files through `load_multiview`: every task, geometry that agrees, and every damaged variant."""

import json
import shutil

import numpy as np
import pytest

from gap_mllm.processing.camera_geometry_gap_mllm import box_corners, euler_to_matrix, project_points, transform_points
from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from tests.processing.data.formats import DAMAGED, FORMATS, load_damaged, rows_equal


MEDIA = FORMATS / "gap_mllm" / "data" / "media"


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return load_multiview("gap_mllm", FORMATS / "gap_mllm", cache_dir=tmp_path_factory.mktemp("cache"))


def of_task(rows, task):
    return [SceneSample.from_row(row) for row in rows if row["task"] == task]


def test_every_task_is_read(splits):
    counts = {name: [row["task"] for row in rows] for name, rows in splits.items()}
    assert {task: counts["train"].count(task) for task in set(counts["train"])} == {
        "reconstruction": 4,
        "detection3d": 2,
        "grounding_frame": 2,
        "grounding_box": 2,
        "dense_caption": 2,
    }
    assert sorted(set(counts["val"])) == ["dense_caption", "detection3d", "grounding", "reconstruction"]


def test_streamed_rows_equal_prepared_ones(splits, tmp_path):
    for split, rows in splits.items():
        streamed = load_multiview("gap_mllm", FORMATS / "gap_mllm", split=split, streaming=True, cache_dir=tmp_path)
        assert rows_equal(rows, streamed) == len(rows)


def test_texts_and_the_order_of_views_are_kept_word_for_word(splits):
    file = FORMATS / "gap_mllm" / "data" / "train" / "scanrefer_train_32frames_stage2.json"
    records = json.loads(file.read_text())
    for record, sample in zip(records, of_task(splits["train"], "grounding_box"), strict=True):
        assert [view.image_path for view in sample.views] == record["images"]
        assert sample.question == record["conversations"][0]["value"]
        assert sample.answer == record["conversations"][1]["value"]
        assert sample.metadata["prompt"] == record["prompt"]


def test_marked_pixels_see_their_points(splits):
    """The answered point, moved to the marked view and projected, lands on the marked pixel (text has 2 decimals)."""
    samples = of_task(splits["train"], "reconstruction") + of_task(splits["val"], "reconstruction")
    for sample in samples:
        point, mark = sample.points[0], sample.marks[0]
        pixel, _ = project_points(sample.point_in_view(point, point.view), sample.views[point.view].intrinsics)
        assert np.abs(pixel - point.pixel).max() < 2
        assert (mark.kind, mark.color, mark.view, mark.xy) == ("cross", "red", point.view, point.pixel)


def test_grounding_boxes_agree_in_world_and_camera(splits):
    for sample in of_task(splits["train"], "grounding_box"):
        world, camera = sample.boxes
        center = transform_points(sample.frame_to_camera("camera", 0, 0), camera.numbers[:3])
        sample_center = sample.frame_to_camera("camera", 0, 0) @ np.r_[camera.numbers[:3], 1]
        assert np.allclose(center, sample_center[:3])
        if sample.world_to_aligned is not None:
            assert np.abs(sample.box_in_view(world, 0)[:3] - camera.numbers[:3]).max() < 0.02


def test_detected_boxes_are_upright_and_in_the_picture(splits):
    for sample in of_task(splits["val"], "detection3d"):
        to_world = sample.camera_to("aligned", 0)
        for box in sample.boxes:
            assert (box.euler_order, box.frame, box.frame_index) == ("zxy", "camera", 0)
            assert (to_world[:3, :3] @ euler_to_matrix(box.numbers[6:], "zxy"))[2, 2] == pytest.approx(1, abs=1e-5)
        seen = [box for box in sample.boxes if box.in_reference]
        for box in seen:
            pixels, depth = project_points(box_corners(box.numbers, "zxy"), sample.views[0].intrinsics)
            width, height = sample.views[0].image.size
            inside = (pixels >= 0).all(-1) & (pixels < [width, height]).all(-1) & (depth > 0)
            assert inside.any()


def test_the_other_euler_order_is_detected_and_stored(tmp_path, caplog):
    rows = load_damaged("gap_mllm", "box_euler_other_convention", tmp_path, media_dir=str(MEDIA))["val"]
    sample = SceneSample.from_row(rows[0])
    assert {box.euler_order for box in sample.boxes} == {"ZXY"}
    to_world = sample.camera_to("aligned", 0)
    for box in sample.boxes:
        assert (to_world[:3, :3] @ euler_to_matrix(box.numbers[6:], "ZXY"))[2, 2] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("folder", "field", "says"),
    [
        ("answer_nan", "answer", "4 entries"),
        ("box_negative_size", "boxes[0].bbox_3d", "-1.2"),
        ("box_seven_numbers", "boxes[0].bbox_3d", "(7,)"),
        ("missing_image", "images[1]", "00030.jpg"),
        ("pixel_outside", "pixel_coords", "162 x 121"),
        ("placeholder_count", "conversations", "3 <image> tags for 4 views"),
    ],
)
def test_a_bad_record_is_named_or_skipped_and_listed(folder, field, says, tmp_path):
    options = {} if folder == "missing_image" else {"media_dir": str(MEDIA)}
    with pytest.raises(RecordError) as caught:
        load_damaged("gap_mllm", folder, tmp_path, **options)
    error = caught.value
    assert (error.source, error.field) == ("gap_mllm", field)
    assert folder in error.file and error.record_id.endswith("-0000000") and says in str(error)

    report = tmp_path / "report.jsonl"
    splits = load_damaged("gap_mllm", folder, tmp_path, skip_bad_samples=True, report_file=report, **options)
    events = read_report(report)
    assert all(len(rows) == 0 for rows in splits.values())
    assert {event["event"] for event in events} == {"skipped"} and events[0]["field"] == field
    assert len(events) == (2 if folder == "pixel_outside" else 1)


@pytest.mark.parametrize(("folder", "says"), [("json_truncated", "byte 1000"), ("json_is_lfs_pointer", "git-lfs")])
@pytest.mark.parametrize("skip", [False, True])
def test_a_broken_file_loads_nothing(folder, says, skip, tmp_path):
    with pytest.raises(RecordError, match=says):
        load_damaged("gap_mllm", folder, tmp_path, skip_bad_samples=skip)


def test_a_caption_without_proposal_is_kept(tmp_path):
    rows = load_damaged("gap_mllm", "scan2cap_no_proposal", tmp_path, media_dir=str(MEDIA))["val"]
    assert [box["role"] for box in rows[0]["boxes"]] == ["target"]


def test_a_path_that_leaves_the_folder_is_refused(tmp_path):
    record = json.loads((FORMATS / "gap_mllm" / "data" / "train" / "scannet_det_train_4frames.json").read_text())[0]
    record["images"][2] = "../../secret.jpg"
    (tmp_path / "scannet_det_train_4frames.json").write_text(json.dumps([record]))
    with pytest.raises(RecordError, match="leads out of"):
        load_multiview("gap_mllm", tmp_path, media_dir=str(MEDIA), cache_dir=tmp_path / "cache")


def test_an_unknown_task_is_refused(tmp_path):
    with pytest.raises(ValueError, match="scene_qa.*detection3d"):
        load_multiview("gap_mllm", FORMATS / "gap_mllm", tasks=["scene_qa"], cache_dir=tmp_path)


def test_an_unknown_key_set_is_refused(tmp_path):
    record = {"conversations": [{"from": "human", "value": "What?"}], "images": ["a/b.jpg"]}
    (tmp_path / "a_train.json").write_text(json.dumps([record]))
    with pytest.raises(RecordError, match="no known task"):
        load_multiview("gap_mllm", tmp_path, cache_dir=tmp_path / "cache")


def test_tasks_and_views_are_limited(tmp_path):
    rows = load_multiview(
        "gap_mllm",
        FORMATS / "gap_mllm",
        "train",
        tasks=["reconstruction", "grounding_frame"],
        max_views=3,
        cache_dir=tmp_path,
    )
    assert {row["task"] for row in rows} == {"reconstruction", "grounding_frame"}
    for row in rows:
        assert len(row["views"]) == 3 == row["question"].count("<image>")
        if row["task"] == "grounding_frame":
            assert row["question"].startswith("Frame-0: <image>Frame-1: <image>Frame-2: <image>\n")
            assert f'"frame": {row["target_frame"]}' in row["answer"]


def test_lost_tracking_is_counted_not_refused(tmp_path):
    shutil.copytree(MEDIA / "scannet", tmp_path / "media" / "scannet")
    pose = next((tmp_path / "media").rglob("scene9000_00/00030.txt"))
    pose.write_text("\n".join(["-inf -inf -inf -inf"] * 4))
    folder = tmp_path / "train"
    folder.mkdir()
    shutil.copy(FORMATS / "gap_mllm" / "data" / "train" / "scannet_recons_train_4frames.json", folder)
    report = tmp_path / "report.jsonl"
    rows = load_multiview("gap_mllm", tmp_path, "train", report_file=report, cache_dir=tmp_path / "cache")
    poses = [view["camera_to_world"] for view in rows[0]["views"]]
    assert [pose is None for pose in poses] == [False, True, False, False]
    assert {event["event"] for event in read_report(report)} == {"lost_tracking"}


@pytest.mark.parametrize("cameras", ["cam2global", "beside"])
def test_one_box_and_a_pose_tell_the_euler_order(cameras, tmp_path):
    """No axis alignment, one box a record: the pose alone says which way is up."""
    other = json.loads((DAMAGED / "box_euler_other_convention" / "scannet_det_val_4frames.json").read_text())[0]
    del other["axis_align_matrix"]
    if cameras == "beside":
        del other["cam2global"]
    records = [{**other, "boxes": [box]} for box in other["boxes"]]
    (tmp_path / "scannet_det_val_4frames.json").write_text(json.dumps(records))
    rows = load_multiview("gap_mllm", tmp_path, "val", media_dir=str(MEDIA), cache_dir=tmp_path / "cache")
    assert {box["euler_order"] for row in rows for box in row["boxes"]} == {"ZXY"}


def test_an_undecided_euler_order_is_said(tmp_path):
    record = json.loads((FORMATS / "gap_mllm" / "data" / "train" / "scannet_det_train_4frames.json").read_text())[0]
    record["boxes"], record["images"] = record["boxes"][:1], ["lone.jpg"] * 4
    shutil.copy(next(MEDIA.rglob("00000.jpg")), tmp_path / "lone.jpg")
    (tmp_path / "scannet_det_train_4frames.json").write_text(json.dumps([record]))
    report = tmp_path / "report.jsonl"
    rows = load_multiview("gap_mllm", tmp_path, "train", report_file=report, cache_dir=tmp_path / "cache")
    assert rows[0]["boxes"][0]["euler_order"] == "zxy"
    assert [event["event"] for event in read_report(report)] == ["euler_order_undecided"]
