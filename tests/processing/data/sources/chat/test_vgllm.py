"""VG-LLM's files through `load_multiview`: boxes in the answered frame, late Euler order, SPAR rows, videos."""

import json
import shutil

import numpy as np
import pytest

from gap_mllm.processing.camera_geometry_gap_mllm import box_corners, euler_to_matrix, project_points
from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from tests.processing.data.formats import DAMAGED, FORMATS, load_damaged, rows_equal


VGLLM, MEDIA = FORMATS / "vgllm", FORMATS / "scannet_posed_images"
SPAR_IMAGES = FORMATS / "spar" / "spar" / "scannet" / "images"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return load_multiview("vgllm", VGLLM, "train", cache_dir=cache, media_dir=str(MEDIA))


def of_task(rows, task):
    return [SceneSample.from_row(row) for row in rows if row["task"] == task]


def records_of(name):
    return json.loads((VGLLM / "data" / name).read_text())


def write(folder, name, *records):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(records))


def video_record(video, question="<video>\nWhat is shown?", answer="A room."):
    conversations = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "1", "conversations": conversations, "data_source": "toy", "video": video}


def test_every_task_is_read(rows):
    assert [row["task"] for row in rows].count("grounding") == 2
    assert sorted({row["task"] for row in rows}) == ["detection3d", "grounding", "spatial_qa", "video_qa"]
    assert len(rows) == 7 and len({row["id"] for row in rows}) == 7


def test_streamed_rows_equal_prepared_ones(rows, tmp_path):
    options = {"streaming": True, "cache_dir": tmp_path, "media_dir": str(MEDIA)}
    assert rows_equal(rows, load_multiview("vgllm", VGLLM, "train", **options)) == len(rows)


def test_boxes_of_one_stage_grounding_are_in_the_camera_of_the_answered_frame(rows):
    records = records_of("train/scanrefer_train_32frames.json")
    samples = of_task(rows, "grounding")
    assert [sample.target_frame for sample in samples] == [0, 2]
    for sample, record in zip(samples, records, strict=True):
        world, camera = sample.boxes
        assert (camera.frame, camera.frame_index, camera.euler_order) == ("camera", sample.target_frame, "zxy")
        assert camera.numbers == pytest.approx(record["target"]["bbox_3d"], abs=1e-6)
        in_frame = sample.box_in_view(world, sample.target_frame)
        assert np.abs(in_frame[:3] - camera.numbers[:3]).max() < 0.02  # the text has 2 decimals
        view = sample.views[sample.target_frame]
        pixels, depth = project_points(box_corners(camera.numbers, "zxy"), view.intrinsics)
        assert ((pixels >= 0) & (pixels < view.image.size)).all(-1).any() and (depth > 0).all()
        assert sample.question == record["conversations"][0]["value"]
        assert sample.metadata["prompt"] == record["prompt"]
    other = samples[1].box_in_view(samples[1].boxes[1], 0)
    assert np.abs(other[:3] - samples[1].boxes[1].numbers[:3]).max() > 0.3  # another camera, other numbers


def test_late_detection_is_intrinsic(rows):
    sample = of_task(rows, "detection3d")[0]
    assert sample.id == "new_train-scannet_det_train_4frames-0000000"
    to_world = sample.camera_to("aligned", 0)[:3, :3]
    for box in sample.boxes:
        assert (box.euler_order, box.frame, box.frame_index) == ("ZXY", "camera", 0)
        assert (to_world @ euler_to_matrix(box.numbers[6:], "ZXY"))[2, 2] == pytest.approx(1, abs=1e-5)
        assert abs((to_world @ euler_to_matrix(box.numbers[6:], "zxy"))[2, 2]) < 0.995
    assert sample.question.startswith("<image>\n<image>\n<image>\n<image>\nDetect")


def test_the_order_of_a_file_that_does_not_tell_follows_its_folder(tmp_path):
    record = records_of("new_train/scannet_det_train_4frames.json")[0]
    record["boxes"] = record["boxes"][:1]
    for folder in ("train", "new_train"):
        write(tmp_path / "data" / folder, "scannet_det_train_4frames.json", record)
    rows = load_multiview("vgllm", tmp_path, "train", cache_dir=tmp_path / "cache", media_dir=str(MEDIA))
    assert [row["boxes"][0]["euler_order"] for row in rows] == ["zxy", "ZXY"]
    options = {"cache_dir": tmp_path / "given", "media_dir": str(MEDIA), "euler_order": "zxy"}
    rows = load_multiview("vgllm", tmp_path, "train", **options)
    assert [row["boxes"][0]["euler_order"] for row in rows] == ["zxy", "zxy"]


# SPAR


def test_spar_rows_have_the_marks_of_spar_itself(rows, tmp_path):
    spar = load_multiview("spar", FORMATS / "spar", "train", cache_dir=tmp_path)
    ours = [row for row in rows if row["task"] == "spatial_qa"]
    for row, other in zip(ours, spar, strict=True):
        for name in ("marks", "question", "answer", "question_type", "number", "choices", "choice_index", "scene_id"):
            assert row[name] == other[name], name
        assert [view["image_path"] for view in row["views"]] == [
            f"spar/scannet/images/{view['image_path']}" for view in other["views"]
        ]
        pictures = zip(*(SceneSample.from_row(each).marked_images() for each in (row, other)), strict=True)
        assert all(mine.tobytes() == theirs.tobytes() for mine, theirs in pictures)
    assert json.loads(ours[0]["metadata"]) == {"id": "scene9000_00_16"}


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"spar_info": "{'type': 1}"}, "spar_info", "expected JSON in a string"),
        ({"spar_info": None}, "spar_info", "expected JSON in a string"),
        ({"spar_info": "[1]"}, "spar_info", "expected a JSON dictionary, got list"),
        ({"spar_info": '{"type": "brand_new_task"}'}, "type", "unknown type 'brand_new_task'"),
        ({"spar_info": '{"type": "distance_prediction_oc"}'}, "red_point", "red_point is missing"),
        ({"images": []}, "images", "expected a list of paths"),
        ({"images": ["spar/scannet/images/scene9000_00/image_color/7.jpg"]}, "images[0]", "7.jpg"),
    ],
)
def test_bad_spar_rows(change, field, says, tmp_path):
    line = (VGLLM / "data" / "train" / "spar_7m.jsonl").read_text().splitlines()[0]
    write(tmp_path / "data" / "train", "spar_7m.json", json.loads(line) | change)
    options = {"cache_dir": tmp_path / "cache", "media_dir": str(VGLLM / "data" / "media")}
    with pytest.raises(RecordError, match=says) as caught:
        load_multiview("vgllm", tmp_path, "train", **options)
    error = caught.value
    assert (error.source, error.field, error.record_id) == ("vgllm", field, "spar_7m-0000000")


def test_a_cut_line_is_named_or_left_out(tmp_path):
    with pytest.raises(RecordError, match="line 3 .*is the download complete"):
        load_damaged("vgllm", "jsonl_truncated", tmp_path, media_dir=str(SPAR_IMAGES))
    report = tmp_path / "report.jsonl"
    options = {"media_dir": str(SPAR_IMAGES), "skip_bad_samples": True, "report_file": report}
    rows = load_damaged("vgllm", "jsonl_truncated", tmp_path, **options)["train"]
    assert [row["question_type"] for row in rows] == ["depth_prediction_oc", "depth_prediction_oo_mv"]
    assert "skipped" in {event["event"] for event in read_report(report)}


def test_damaged_markers_are_refused_here_too(tmp_path):
    shutil.copy(DAMAGED / "spar_markers" / "train.jsonl", tmp_path / "train.jsonl")
    report = tmp_path / "report.jsonl"
    options = {"media_dir": str(SPAR_IMAGES), "skip_bad_samples": True, "report_file": report}
    rows = load_multiview("vgllm", tmp_path, "train", cache_dir=tmp_path / "cache", **options)
    assert len(rows) == 0
    assert [event["field"] for event in read_report(report)] == ["point_img_idx", "blue_point", "type"]


# Videos


def test_a_folder_of_frames_gives_its_pictures_as_views(rows, tmp_path):
    sample = of_task(rows, "video_qa")[0]
    names = [f"c01_000{number}.jpeg" for number in range(1, 6)]
    assert [view.image_path for view in sample.views] == names
    assert sample.question == "<image>" * 5 + "\nWhat is shown?" and sample.answer == "A room with a table."
    assert sample.video.endswith("llava_hound/frames/99000001")
    assert sample.metadata == {"id": "99000001_1", "data_source": "llava_hound"}
    content = sample.messages()[1]["content"]
    assert [part["type"] for part in content] == ["image"] * 5 + ["text"]
    options = {"tasks": ["video_qa"], "cache_dir": tmp_path}
    few = load_multiview("vgllm", VGLLM, "train", max_views=2, **options)[0]
    assert [view["image_path"] for view in few["views"]] == [names[0], names[-1]]
    assert few["question"] == "<image><image>\nWhat is shown?"


def test_a_video_file_gives_views_where_their_number_is_asked_for(tmp_path):
    write(tmp_path / "data" / "train", "videos.json", video_record("vsibench/scannet/scene9001_00.mp4"))
    options = {"cache_dir": tmp_path / "cache", "media_dir": str(FORMATS)}
    row = load_multiview("vgllm", tmp_path, "train", **options)[0]
    assert (row["views"], row["question"]) == ([], "<video>\nWhat is shown?")
    assert row["video"] == str(FORMATS / "vsibench" / "scannet" / "scene9001_00.mp4")
    row = load_multiview("vgllm", tmp_path, "train", max_views=3, **options)[0]
    assert [view["frame_id"] for view in row["views"]] == [0, 5, 11]
    assert row["question"] == "<image><image><image>\nWhat is shown?"


def test_videos_that_are_missing_or_damaged(tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "bad.mp4").write_text("no video")
    write(tmp_path / "train", "videos.json", video_record("bad.mp4"), video_record("none.mp4"))
    options = {"cache_dir": tmp_path / "cache", "max_views": 2}
    with pytest.raises(RecordError, match="cannot be decoded") as caught:
        load_multiview("vgllm", tmp_path, "train", **options)
    error = caught.value
    assert error.file.endswith("bad.mp4") and error.record_id == "videos-0000000" and error.field == "video"
    report = tmp_path / "report.jsonl"
    rows = load_multiview("vgllm", tmp_path, "train", skip_bad_samples=True, report_file=report, **options)
    assert len(rows) == 0
    assert [event["record"] for event in read_report(report)] == ["videos-0000000", "videos-0000001"]
