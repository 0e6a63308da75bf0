"""Inspection: counts that are right, everything broken listed with its id, and files that show it."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.data import SOURCES, RecordError, load_multiview
from gap_mllm.processing.data import inspection as module
from gap_mllm.processing.data.inspection import inspect_source
from gap_mllm.processing.data.source_files import encode_png
from tests.processing.data.formats import DAMAGED, FORMATS
from tests.processing.data.toy_source import FAILURES, write_rows


MEDIA = str(FORMATS / "gap_mllm" / "data" / "media")
OPTIONS = {"gap_mllm": {"media_dir": MEDIA}}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(SOURCES, "toy", ("tests.processing.data.toy_source", "ToySource"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def view(path, **fields):
    Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(path)
    return {"image": {"path": str(path), "bytes": None}, "image_path": path.name, **fields}


# Counts


def test_counts_of_a_source():
    found = inspect_source("gap_mllm", FORMATS / "gap_mllm")
    train = found.splits["train"]
    assert (train.rows, train.scenes, train.answers) == (12, 1, 12)
    assert train.tasks == {
        "reconstruction": 4,
        "dense_caption": 2,
        "detection3d": 2,
        "grounding_frame": 2,
        "grounding_box": 2,
    }
    assert train.question_types == {"unique": 4} and train.views_per_row == {"min": 4, "median": 4, "max": 12}
    assert train.views == {"all": 70, "picture": 70, "pose": 70, "intrinsics": 70, "depth": 0}
    assert train.boxes == {"aligned zxy": 8, "camera zxy": 8}
    assert train.marks == {"cross": 4} and train.points == {"camera": 4}
    assert found.splits["val"].rows == 8 and found.splits["val"].answers == 6
    assert (found.licence, found.data_dir) == ("", str(FORMATS / "gap_mllm"))
    assert not found.broken_records and not found.broken_files and not found.missing_files and not found.markers


def test_euler_orders_of_each_file():
    files = inspect_source("gap_mllm", FORMATS / "gap_mllm").files
    train = files["data/train/scannet_det_train_4frames.json"]
    assert train["euler_orders"] == {"zxy": 6} and (train["split"], train["rows"]) == ("train", 2)
    assert train["euler_evidence"].startswith("zxy (shared axis: 2 of 2")
    val = files["data/evaluation/threedod/scannet_det_val_4frames.json"]
    assert val["euler_evidence"].startswith("zxy (upright in the world: 6 of 6")
    assert files["data/train/scannet_recons_train_4frames.json"]["euler_evidence"] is None

    other = DAMAGED / "box_euler_other_convention"
    [facts] = inspect_source("gap_mllm", other, media_dir=MEDIA).files.values()
    assert facts["euler_orders"] == {"ZXY": 3} and facts["euler_evidence"].startswith("ZXY (upright")
    found = inspect_source("gap_mllm", other, media_dir=MEDIA, euler_order="zxy")
    [facts] = found.files.values()
    assert facts["euler_evidence"].endswith("3 of 3 fit ZXY), NOT AS STORED") and "NOT AS STORED" in found.summary()


def test_one_split_and_options(folder):
    write_rows(folder / "train.jsonl", {"task": "reconstruction"}, {})
    write_rows(folder / "val.jsonl", {})
    assert list(inspect_source("toy", folder).splits) == ["train", "val"]
    found = inspect_source("toy", folder, "train", tasks=["reconstruction"])
    assert list(found.splits) == ["train"] and found.splits["train"].rows == 1
    assert found.options == {"tasks": ["reconstruction"]}


def test_rooms_are_inspected():
    options = {"num_train": 2, "num_selection": 0, "num_test": 0, "width": 32, "height": 32, "tasks": ["detection3d"]}
    found = inspect_source("synthetic_rooms", num_samples=1, decode_all=True, **options)
    assert found.splits["train"].rows == 2 and found.files == {} and found.data_dir is None
    assert found.pictures == {"decoded": 8, "depth maps": 8, "depth maps without any reading": 0}
    assert found.summary().startswith("synthetic_rooms\nlicence: ")


# What is broken


@pytest.mark.parametrize(
    ("damage", "record", "field"),
    [
        ("answer_nan", "scannet_recons_train_4frames-0000000", "answer"),
        ("box_negative_size", "scannet_det_val_4frames-0000000", "boxes[0].bbox_3d"),
        ("pixel_outside", "scannet_recons_train_4frames-0000001", "pixel_coords"),
        ("placeholder_count", "scannet_det_val_4frames-0000000", "conversations"),
    ],
)
def test_broken_records_are_listed_with_their_ids(damage, record, field, caplog):
    found = inspect_source("gap_mllm", DAMAGED / damage, media_dir=MEDIA)
    listed = found.broken_records[-1]
    assert (listed["record"], listed["field"]) == (record, field) and damage in listed["file"]
    assert f"record {record}, field {field}: {listed['reason']}" in found.summary()
    assert not any("Skipped" in message for message in caplog.messages)  # said once, in the report


def test_missing_files_are_listed(folder):
    found = inspect_source("gap_mllm", DAMAGED / "missing_image")
    assert found.missing_files == {"scannet/posed_images/scene9000_00/00030.jpg": 1}
    assert found.broken_records[0]["field"] == "images[1]"
    write_rows(folder / "train.jsonl", {"video": "/nowhere/a.mp4"}, {"video": "/nowhere/a.mp4"})
    found = inspect_source("toy", folder)
    assert found.missing_files == {"/nowhere/a.mp4": 2} and found.splits["train"].videos_without_views == 2
    assert "/nowhere/a.mp4 (named 2 times)" in found.summary()


def test_a_broken_file_does_not_hide_the_others(folder):
    write_rows(folder / "train_b.jsonl", {}, {})
    (folder / "train_a.json").write_text('[{}, {"a"')
    found = inspect_source("toy", folder)
    assert found.splits["train"].rows == 3  # also the row before the damage
    [event] = found.broken_files
    assert event["file"].endswith("train_a.json") and "ends too soon, at byte 9" in event["reason"]
    assert {name: facts["rows"] for name, facts in found.files.items()} == {"train_a.json": 1, "train_b.jsonl": 2}
    pointer = inspect_source("gap_mllm", DAMAGED / "json_is_lfs_pointer")
    assert "git-lfs" in pointer.broken_files[0]["reason"] and pointer.splits["train"].rows == 0


def test_an_id_in_two_files_is_listed(folder):
    write_rows(folder / "train_a.jsonl", {"id": "a"})
    write_rows(folder / "train_b.jsonl", {"id": "a"}, {"id": "b"})
    [event] = inspect_source("toy", folder).broken_records
    assert event["record"] == "train_b-0000000" and "'a' is there twice" in event["reason"]


def test_normal_markers_are_counted(folder):
    write_rows(folder / "train.jsonl", {"is_lost": True}, {"is_lost": True})
    assert inspect_source("toy", folder).markers == {"lost_tracking": 2}


def test_pictures_of_some_rows_or_of_all_are_decoded(folder, tmp_path):
    rows = [{"views": [view(tmp_path / f"{index}.png")]} for index in range(5)] * 2
    write_rows(folder / "train.jsonl", *rows)
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    (tmp_path / "4.png").unlink()
    found = inspect_source("toy", folder, num_samples=0)
    assert found.pictures["decoded"] == 0 and found.broken_pictures == []
    found = inspect_source("toy", folder, num_samples=10)
    assert found.pictures["decoded"] == 4  # each once; one is not there
    found = inspect_source("toy", folder, num_samples=1, decode_all=True)
    assert [event["record"] for event in found.broken_pictures] == [f"train-000000{index}" for index in (3, 4, 8, 9)]
    assert "3.png cannot be decoded" in found.broken_pictures[0]["reason"]
    assert found.broken_pictures[0]["field"] == "views[0].image"
    assert found.missing_files == {str(tmp_path / "4.png"): 2}


def test_empty_and_wrong_depth_maps(folder, tmp_path):
    for name, values in (("empty", np.zeros((3, 4), np.uint16)), ("grey", np.ones((3, 4), np.uint8))):
        (tmp_path / f"{name}.png").write_bytes(encode_png(values)["bytes"])
    views = [
        {"depth": {"path": str(tmp_path / f"{name}.png"), "bytes": None}, "depth_scale": 1000.0}
        for name in ("empty", "grey")
    ]
    write_rows(folder / "train.jsonl", {"views": views})
    found = inspect_source("toy", folder)
    assert found.pictures["depth maps without any reading"] == 1
    [event] = found.broken_pictures
    assert event["field"] == "views[1].depth" and "16-bit" in event["reason"]


def test_intrinsics_of_another_size_are_noticed(folder, tmp_path):
    good = [[30.0, 0, 19.5], [0, 30, 14.5], [0, 0, 1]]
    odd = [[60.0, 0, 39.5], [0, 60, 29.5], [0, 0, 1]]
    views = [view(tmp_path / "a.png", intrinsics=good), view(tmp_path / "b.png", intrinsics=odd)]
    write_rows(folder / "train.jsonl", {"views": views})
    [event] = inspect_source("toy", folder).odd_intrinsics
    assert (
        event["field"] == "views[1].intrinsics" and "(39.5, 29.5)" in event["reason"] and "40 x 30" in event["reason"]
    )


# Problems


def test_problems_are_counted_by_kind(folder, tmp_path):
    write_rows(folder / "train.jsonl", {}, {"is_lost": True})
    found = inspect_source("toy", folder)
    assert found.problems == {} and found.as_dict()["problems"] == {}  # what is normal is none
    assert found.summary().endswith("\nproblems: none")

    odd = [[60.0, 0, 39.5], [0, 60, 29.5], [0, 0, 1]]
    views = [view(tmp_path / "a.png", intrinsics=odd), view(tmp_path / "b.png")]
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    rows = [{"views": [one]} for one in views]
    write_rows(folder / "train.jsonl", *rows, {"fails": "record"}, {"video": "/nowhere/a.mp4"})
    (folder / "val.json").write_text("[{")
    found = inspect_source("toy", folder)
    kinds = ("broken files", "broken records", "missing files", "broken pictures", "views with odd intrinsics")
    assert found.problems == dict.fromkeys(kinds, 1) == found.as_dict()["problems"]
    assert found.summary().endswith("\nproblems: " + ", ".join(f"{kind} (1)" for kind in kinds))


def test_an_order_that_is_not_as_stored_and_no_rows_at_all_are_problems(folder):
    other = DAMAGED / "box_euler_other_convention"
    found = inspect_source("gap_mllm", other, media_dir=MEDIA, euler_order="zxy")
    assert found.problems == {"files whose Euler order is not as stored": 1}
    assert inspect_source("gap_mllm", other, media_dir=MEDIA).problems == {}  # detected, so stored as it is
    write_rows(folder / "train.jsonl", {})
    write_rows(folder / "val.jsonl", {"task": "reconstruction"})
    assert inspect_source("toy", folder, tasks=["reconstruction"]).problems == {}  # no row in one split only
    write_rows(folder / "val.jsonl")
    assert inspect_source("toy", folder, tasks=["reconstruction"]).problems == {"splits without rows": 2}


# Which rows are shown


def test_rows_of_all_splits_and_tasks_are_shown(folder):
    write_rows(folder / "train.jsonl", *[{"task": "reconstruction"}] * 50, *[{}] * 3)
    write_rows(folder / "val.jsonl", *[{}] * 2)
    found = inspect_source("toy", folder, num_samples=6)
    assert [(sample.split, sample.task) for sample in found.samples] == [
        ("train", "reconstruction"),
        ("train", "reconstruction"),
        ("train", "scene_qa"),
        ("train", "scene_qa"),
        ("val", "scene_qa"),
        ("val", "scene_qa"),
    ]
    again = inspect_source("toy", folder, num_samples=6)
    assert [sample.id for sample in again.samples] == [sample.id for sample in found.samples]
    others = {tuple(sample.id for sample in inspect_source("toy", folder, seed=seed).samples) for seed in range(5)}
    assert len(others) > 2
    assert len(inspect_source("toy", folder, num_samples=100).samples) == 55


def test_rows_are_drawn_from_the_whole_of_each_file(folder):
    """With many groups each gives one row; it used to be the earliest of those kept, near the file's beginning."""
    tasks = ("scene_qa", "reconstruction")
    for split in ("train", "val"):
        write_rows(folder / f"{split}.jsonl", *[{"task": task, "number": n} for task in tasks for n in range(100)])
    places = {}
    for seed in range(40):
        for sample in inspect_source("toy", folder, num_samples=4, seed=seed).samples:
            places.setdefault((sample.split, sample.task), []).append(sample.number)
    assert len(places) == 4 and all(len(numbers) == 40 for numbers in places.values())
    for numbers in places.values():  # of 40 draws from 0..99 the mean lies within 4 x 4.6 of 49.5
        assert 31 < np.mean(numbers) < 68 and min(numbers) < 20 and max(numbers) > 80


def test_of_more_groups_than_rows_the_first_and_the_last_are_shown(folder):
    tasks = ("scene_qa", "reconstruction")
    for split in ("train", "val"):
        write_rows(folder / f"{split}.jsonl", *[{"task": task} for task in tasks])
    shown = [(sample.split, sample.task) for sample in inspect_source("toy", folder, num_samples=2).samples]
    assert shown == [("train", "scene_qa"), ("val", "reconstruction")]
    assert len(inspect_source("toy", folder, num_samples=0).samples) == 0


def test_a_video_without_views_is_shown_by_some_frames():
    found = inspect_source("vsibench", FORMATS / "vsibench", num_samples=2)
    assert found.splits["test"].videos_without_views == 4
    assert [len(sample.views) for sample in found.samples] == [8, 8]
    assert found.samples[0].views[0].image.size == (160, 120)


def test_a_video_that_cannot_be_read_is_listed(folder, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    write_rows(folder / "train.jsonl", {"video": str(tmp_path / "a.mp4")})
    found = inspect_source("toy", folder)
    assert found.broken_pictures[0]["field"] == "video" and "a.mp4" in found.broken_pictures[0]["reason"]


# What is written


def test_report_and_sheet_are_written(tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(DAMAGED / "pixel_outside", copy)
    shutil.copy(FORMATS / "gap_mllm" / "data" / "train" / "scannet_det_train_4frames.json", copy)
    found = inspect_source("gap_mllm", copy, output_dir=tmp_path / "a" / "out", media_dir=MEDIA)
    report = json.loads((tmp_path / "a" / "out" / "inspection.json").read_text())
    assert report["splits"]["train"]["tasks"] == {"detection3d": 2}
    assert len(report["broken_records"]) == 2 and report["options"] == {"media_dir": MEDIA}
    assert report["shown"] == [sample.id for sample in found.samples] and len(report["shown"]) == 2
    assert "samples" not in report and report == json.loads(json.dumps(found.as_dict()))
    with Image.open(tmp_path / "a" / "out" / "contact_sheet.png") as sheet:
        assert sheet.width == 1600 and sheet.height > 800


def test_nothing_is_written_without_being_asked(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(folder / "train.jsonl", {})
    inspect_source("toy", folder)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_long_lists_are_cut_in_the_summary(folder):
    write_rows(folder / "train.jsonl", *[{"fails": "record"}] * 30)
    for index in range(15):
        write_rows(folder / f"val_{index}.jsonl", {})
    summary = inspect_source("toy", folder).summary(most=4)
    assert "broken records: 30\n" in summary and "and 26 more\n" in summary and "and 12 more files" in summary
    assert summary.count("it is bad.") == 4


# Errors


def test_wrong_arguments_are_refused(folder, tmp_path):
    write_rows(folder / "train.jsonl", {})
    with pytest.raises(ValueError, match="split 'test' is not in .*data; there are train"):
        inspect_source("toy", folder, "test")
    for name in ("num_samples", "seed"):
        with pytest.raises(ValueError, match=f"{name} is -1; expected 0 or more"):
            inspect_source("toy", folder, **{name: -1})
        for value in (1.5, "1", True, None):
            with pytest.raises(TypeError, match=f"{name} is {value!r}; expected an integer of at least 0"):
                inspect_source("toy", folder, **{name: value})
    with pytest.raises(TypeError, match="decode_all is 'no'; expected True or False"):
        inspect_source("toy", folder, decode_all="no")
    with pytest.raises(TypeError, match=r"split is \['train'\]; expected the name of a split"):
        inspect_source("toy", folder, ["train"])
    with pytest.raises(TypeError, match="max_views is '2'; expected an integer of at least 1"):
        inspect_source("toy", folder, max_views="2")
    with pytest.raises(NotADirectoryError, match="output_dir is .*, but .*train.jsonl is a file"):
        inspect_source("toy", folder, output_dir=folder / "train.jsonl")
    with pytest.raises(ValueError, match="data_dir is '/nope', but rooms are rendered"):
        inspect_source("synthetic_rooms", "/nope")
    with pytest.raises(ValueError, match="unknown source 'toi'"):
        inspect_source("toi", folder)
    with pytest.raises(ValueError, match="no option 'x'"):
        inspect_source("toy", folder, x=1)
    with pytest.raises(FileNotFoundError, match="holds nothing of source 'toy'"):
        inspect_source("toy", tmp_path)
    assert module.NUM_EVIDENCE_ROWS >= 100


def test_one_unreadable_folder_does_not_end_an_inspection(tmp_path, monkeypatch):
    """Tests may run as a user who reads everything, so that the refusal is put in."""
    shutil.copytree(FORMATS / "scannet_sens_export", tmp_path / "scannet")
    scans = next(tmp_path.rglob("scans"))
    first = sorted(path for path in scans.iterdir() if path.is_dir())[0]
    shutil.copytree(first, scans / "scene0000_closed")
    found = inspect_source("scannet", tmp_path / "scannet")
    num_rows = sum(counts.rows for counts in found.splits.values())
    scan = os.scandir

    def refuse(path="."):
        if "closed" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = inspect_source("scannet", tmp_path / "scannet")
    assert [(Path(event["file"]).name, event["reason"]) for event in found.broken_files] == [
        ("scene0000_closed", "the folder cannot be read: Permission denied.")
    ]
    assert sum(counts.rows for counts in found.splits.values()) == num_rows - 1 > 0
    with pytest.raises(RecordError, match="scene0000_closed.*Permission denied"):
        load_multiview("scannet", tmp_path / "scannet", cache_dir=tmp_path / "cache")


def test_what_may_not_be_read_while_rows_are_made_ends_only_its_record(folder, monkeypatch):
    write_rows(folder / "train.jsonl", {}, {"fails": "permission"}, {})
    monkeypatch.setitem(FAILURES, "permission", lambda: PermissionError(13, "Permission denied", "/data/0.jpg"))
    found = inspect_source("toy", folder)
    assert found.splits["train"].rows == 2
    assert [(event["file"], event["reason"]) for event in found.broken_records] == [
        ("/data/0.jpg", "it cannot be read: Permission denied.")
    ]
