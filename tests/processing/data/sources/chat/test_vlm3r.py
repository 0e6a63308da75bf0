"""VLM-3R through `load_multiview`: answers that mean something, boxes of the scene, videos that are missing."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.camera_geometry_gap_mllm import (
    box_corners,
    euler_to_matrix,
    project_points,
    transform_points,
    unproject_depth,
)
from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.box_rows import oriented_box
from gap_mllm.processing.data.sources.chat.video_questions import one_tag_per_view, read_options, read_video_answer
from tests.processing.data.formats import FORMATS, rows_equal


FOLDER = FORMATS / "vlm3r"
QUESTIONS = FOLDER / "vlm_3r_data" / "vsibench" / "merged_qa_scannet_train.json"
FRAME_METADATA = "processed_data/ScanNet/metadata/train/scannet_frame_metadata_train.json"
POSED = FORMATS / "scannet_posed_images" / "scannet" / "posed_images" / "scene9000_00"


def load(folder, cache, split=None, **options):
    return load_multiview("vlm3r", folder, split, cache_dir=cache / "cache", **options)


@pytest.fixture
def data(tmp_path):
    """A copy that may be changed."""
    shutil.copytree(FOLDER, tmp_path / "data")
    return tmp_path / "data"


def change_records(data, change):
    path = data / QUESTIONS.relative_to(FOLDER)
    records = json.loads(path.read_text())
    for record in records:
        change(record)
    path.write_text(json.dumps(records))


def with_frames(data):
    """Adds the pictures that the frame metadata names: those of the same room in the other layout."""
    frames = json.loads((data / FRAME_METADATA).read_text())["scene9000_00"]["frames"]
    for frame in frames:
        for key, suffix in (("file_path_color", "jpg"), ("file_path_depth", "png")):
            target = data / "processed_data" / "ScanNet" / frame[key]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(POSED / f"{frame['frame_id']:05d}.{suffix}", target)
    return data


def test_answers_mean_a_number_or_a_choice(tmp_path):
    rows = load(FOLDER, tmp_path, "train")
    records = json.loads(QUESTIONS.read_text())
    for row, record in zip(rows, records, strict=True):
        assert row["question"] == record["conversations"][0]["value"]
        assert row["answer"] == record["conversations"][1]["value"] == row["references"][0]
        assert row["id"] == f"merged_qa_scannet_train-{record['id']}" and row["views"] == []
        assert row["video"] == str((FOLDER / "vlm_3r_data" / record["video"]).absolute())
    assert (rows[0]["number"], rows[0]["choices"], rows[0]["choice_index"]) == (2.0, [], None)
    assert (rows[1]["number"], rows[1]["choices"], rows[1]["choice_index"]) == (None, ["A. chair", "B. cabinet"], 0)
    assert rows["question_type"] == ["object_counting", "object_rel_distance_v3"]


@pytest.mark.parametrize("options", [{}, {"max_views": 3}])
def test_streamed_rows_equal_prepared_ones(options, tmp_path):
    rows = load(FOLDER, tmp_path, "train", **options)
    streamed = load_multiview("vlm3r", FOLDER, "train", streaming=True, cache_dir=tmp_path, **options)
    assert rows_equal(rows, streamed) == 2


def test_boxes_and_facts_of_the_scene(tmp_path):
    sample = SceneSample.from_row(load(FOLDER, tmp_path, "train")[0])
    assert [(box.label, box.instance_id, box.frame) for box in sample.boxes] == [
        ("table", "0", "aligned"),
        ("chair", "1", "aligned"),
        ("cabinet", "2", "aligned"),
    ]
    stated = json.loads((FOLDER / FRAME_METADATA.replace("_frame", "")).read_text())["scene9000_00"]
    for box in sample.boxes:
        corners = box_corners(box.numbers, box.euler_order)
        entry = stated["object_bboxes"][box.label][0]
        assert np.allclose(corners.min(0), entry["min"], atol=1e-5)
        assert np.allclose(corners.max(0), entry["max"], atol=1e-5)
    assert sample.boxes[1].numbers[6] == pytest.approx(0.5, abs=1e-6)
    assert sample.metadata["scene"]["object_counts"] == {"table": 1, "chair": 1, "cabinet": 1}
    assert load(FOLDER, tmp_path, "train", scene_boxes=False)[0]["boxes"] == []


def test_a_folder_without_processed_data_is_enough(data, tmp_path):
    shutil.rmtree(data / "processed_data")
    rows = load(data, tmp_path, "train")
    assert len(rows) == 2 and rows[0]["boxes"] == [] and "scene" not in json.loads(rows[0]["metadata"])


def test_the_published_folder_names_are_found_and_other_files_left_alone(data, tmp_path):
    folder = data / "VLM-3R-DATA" / "vstibench_train"
    folder.mkdir(parents=True)
    shutil.move(data / QUESTIONS.relative_to(FOLDER), folder / "qa_camera_displacement.json")
    (folder / "erratum_dropped_items.json").write_text("[]")
    rows = load(data, tmp_path, media_dir=str(FOLDER / "vlm_3r_data"))["train"]
    assert [row["id"].split("-")[0] for row in rows] == ["qa_camera_displacement"] * 2


def test_views_come_from_the_video_where_their_number_is_given(tmp_path):
    row = load(FOLDER, tmp_path, "train", max_views=3)[0]
    assert [view["frame_id"] for view in row["views"]] == [0, 5, 11]
    assert row["views"][1]["image"].size == (160, 120)
    assert row["question"].startswith("<image><image><image>\nThese are frames of a video.\nHow many")
    assert row["video"] is not None


def test_all_missing_videos_are_listed_once(data, tmp_path):
    change_records(data, lambda record: record.update(video=f"scannet/videos/{record['question_type']}.mp4"))
    with pytest.raises(RecordError, match="2 of 2 videos") as caught:
        load(data, tmp_path)
    assert (caught.value.field, caught.value.source) == ("video", "vlm3r")
    assert "object_counting.mp4" in str(caught.value) and "object_rel_distance_v3.mp4" in str(caught.value)
    report = tmp_path / "report.jsonl"
    assert len(load(data, tmp_path, "train", skip_bad_samples=True, report_file=report)) == 0
    assert [event["field"] for event in read_report(report)] == ["video", "video"]


def test_a_video_path_that_leaves_the_folder_is_refused(data, tmp_path):
    change_records(data, lambda record: record.update(video="../../secret.mp4"))
    assert len(load(data, tmp_path, "train", skip_bad_samples=True)) == 0
    with pytest.raises(RecordError, match="secret.mp4"):
        load(data, tmp_path)


def test_the_same_id_twice_is_refused(data, tmp_path):
    change_records(data, lambda record: record.update(id="same"))
    with pytest.raises(RecordError, match="there twice") as caught:
        load(data, tmp_path)
    assert caught.value.field == "id"
    assert len(load(data, tmp_path, "train", skip_bad_samples=True)) == 1


def test_an_answer_that_is_no_option_is_refused(data, tmp_path):
    change_records(data, lambda record: record["conversations"][1].update(value="C"))
    with pytest.raises(RecordError, match="'C' is not one of the options"):
        load(data, tmp_path)


def test_processed_frames_see_the_boxes(data, tmp_path):
    """Depth of each view, moved to the aligned frame, lies in the boxes that its 2D boxes name; corners project."""
    sample = SceneSample.from_row(load(with_frames(data), tmp_path, "train", frames="processed")[0])
    assert [view.frame_id for view in sample.views] == [0, 60] and sample.video is None
    assert sample.pose_frame == "aligned" and sample.question.count("<image>") == 2
    frames = json.loads((data / FRAME_METADATA).read_text())["scene9000_00"]["frames"]
    by_id = {box.instance_id: box for box in sample.boxes}
    for index, (view, frame) in enumerate(zip(sample.views, frames, strict=True)):
        points = unproject_depth(view.depth_m.astype(np.float64), view.depth_intrinsics)[view.depth_m > 0]
        points = transform_points(sample.camera_to("aligned", index), points)
        for seen in frame["bboxes_2d"]:
            box = by_id[str(seen["instance_id"])]
            local = (points - box.numbers[:3]) @ euler_to_matrix(box.numbers[6:], box.euler_order)
            assert (np.abs(local) <= box.numbers[3:6] / 2 + 0.01).all(-1).sum() > 20
            corners = box_corners(sample.box_in_view(box, index), box.euler_order)
            pixels, _ = project_points(corners, view.intrinsics)
            low, high = np.clip(pixels.min(0), 0, None), np.minimum(pixels.max(0), np.array(view.image.size) - 1)
            assert (low <= np.array(seen["bbox_2d"][:2]) + 3).all() and (
                high >= np.array(seen["bbox_2d"][2:]) - 3
            ).all()


def test_processed_frames_need_no_video_and_drop_lost_ones(data, tmp_path):
    with_frames(data)
    shutil.rmtree(data / "vlm_3r_data" / "scannet")
    path = data / FRAME_METADATA
    metadata = json.loads(path.read_text())
    metadata["scene9000_00"]["frames"][0]["camera_pose_camera_to_world"] = None
    path.write_text(json.dumps(metadata))
    report = tmp_path / "report.jsonl"
    rows = load(data, tmp_path, "train", frames="processed", report_file=report)
    assert [[view["frame_id"] for view in row["views"]] for row in rows] == [[60], [60]]
    assert [event["event"] for event in read_report(report)] == ["lost_tracking"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda scene: scene["frames"][0].update(file_path_color="color/none.jpg"), "none.jpg is not there"),
        (lambda scene: scene["frames"][0].update(file_path_color="../../../none.jpg"), "leads out of"),
        (lambda scene: scene["frames"][0]["camera_pose_camera_to_world"][0].__setitem__(0, -0.9), "determinant"),
        (lambda scene: scene["frames"][0].update(camera_pose_camera_to_world=[[1, 2], [3]]), "not made of numbers"),
        (lambda scene: [frame.update(camera_pose_camera_to_world=None) for frame in scene["frames"]], "no frame of"),
    ],
)
def test_bad_processed_frames_are_refused(change, says, data, tmp_path):
    path = with_frames(data) / FRAME_METADATA
    metadata = json.loads(path.read_text())
    change(metadata["scene9000_00"])
    path.write_text(json.dumps(metadata))
    with pytest.raises(RecordError, match=says):
        load(data, tmp_path, frames="processed")


def test_a_broken_metadata_file_is_named(data, tmp_path):
    path = data / FRAME_METADATA.replace("_frame", "")
    for content, says in (("{", "no valid JSON"), ("[]", "one JSON object")):
        path.write_text(content)
        with pytest.raises(RecordError, match=says) as caught:
            load(data, tmp_path)
        assert caught.value.file == str(path)
        assert len(load(data, tmp_path, "train", skip_bad_samples=True, refresh=True)) == 0


def test_a_bad_box_of_the_scene_is_named(data, tmp_path):
    path = data / FRAME_METADATA.replace("_frame", "")
    metadata = json.loads(path.read_text())
    metadata["scene9000_00"]["object_bboxes"]["chair"][0]["axesLengths"][1] = -0.5
    path.write_text(json.dumps(metadata))
    with pytest.raises(RecordError, match="-0.5") as caught:
        load(data, tmp_path)
    assert caught.value.field == "scene9000_00.object_bboxes.chair[0].axesLengths"


def test_a_video_that_is_no_path_is_refused(data, tmp_path):
    change_records(data, lambda record: record.update(video=["a.mp4"]))
    with pytest.raises(RecordError, match="is no path") as caught:
        load(data, tmp_path)
    assert caught.value.field == "video"


def test_a_scene_without_frame_metadata_is_refused(data, tmp_path):
    change_records(data, lambda record: record.update(scene_name="scene9009_00"))
    with pytest.raises(RecordError, match="does not know the scene 'scene9009_00'"):
        load(data, tmp_path, frames="processed")


def test_depth_of_8_bits_is_refused(data, tmp_path):
    with_frames(data)
    for path in (data / "processed_data" / "ScanNet" / "depth").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    with pytest.raises(RecordError, match="16 bits"):
        load(data, tmp_path, frames="processed")


def test_wrong_options_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="video.*processed"):
        load(FOLDER, tmp_path, frames="both")
    shutil.rmtree(data / "processed_data")
    with pytest.raises(FileNotFoundError, match="processed_data"):
        load(data, tmp_path, frames="processed")
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        load(data, tmp_path, processed_dir="/nowhere")


def test_one_tag_becomes_one_a_view():
    assert one_tag_per_view("<image>\nWhat?", 3) == "<image><image><image>\nWhat?"
    assert one_tag_per_view("<image>\nWhat?", 0) == one_tag_per_view("<image>\nWhat?", 1) == "<image>\nWhat?"
    assert one_tag_per_view("What?", 3) == "What?"
    with pytest.raises(RecordError, match="2 <image> tags for 3 views"):
        one_tag_per_view("<image><image>What?", 3)


def test_options_are_read_as_they_stand():
    assert read_options("Where?\nOptions:\nA. a, b\nB) c\nAnswer with the letter.") == ["A. a, b", "B) c"]
    assert read_options("What are the options?") == []
    for text in ("Options:\nB. x\nC. y", "Options:\nnone"):
        with pytest.raises(RecordError, match="expected A, B"):
            read_options(text)


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        ("B", {"choice_index": 1}),
        ("B.", {"choice_index": 1}),
        ("B. left", {"choice_index": 1}),
        ("left", {"choice_index": 1}),
        (None, {}),
    ],
)
def test_every_way_to_name_an_option(answer, fields):
    assert read_video_answer("Options:\nA. right\nB. left", answer) == {"choices": ["A. right", "B. left"], **fields}


def test_numbers_are_read_and_free_text_is_not():
    assert read_video_answer("How far?", "1.5") == {"number": 1.5}
    assert read_video_answer("Which?", "the chair") == {} == read_video_answer("Which?", None)
    assert read_video_answer("Which?", "1_0") == {}


def test_left_handed_axes_are_the_same_box():
    entry = {"centroid": [1, 2, 3], "axesLengths": [1, 2, 4], "normalizedAxes": [0, 1, 0, -1, 0, 0, 0, 0, 1]}
    box, turned = (oriented_box({**entry, "normalizedAxes": axes}, "box", "aligned") for axes in (
        entry["normalizedAxes"], [0, 1, 0, -1, 0, 0, 0, 0, -1]
    ))  # fmt: skip
    assert box["euler"] == pytest.approx([np.pi / 2, 0, 0]) and np.allclose(box["euler"], turned["euler"])
    with pytest.raises(RecordError, match="right angles"):
        oriented_box({**entry, "normalizedAxes": [1, 1, 0, -1, 0, 0, 0, 0, 1]}, "box", "aligned")
    with pytest.raises(RecordError, match="positive"):
        oriented_box({**entry, "axesLengths": [1, 0, 4]}, "box", "aligned")
