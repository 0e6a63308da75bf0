"""`load_multiview` and the builder that all sources share: strictness, reports, caching, duplicates, processes."""

import json
import logging
import os
from pathlib import Path

import pytest

from gap_mllm.processing.data import SOURCES, RecordError, load_multiview, read_report
from gap_mllm.processing.data.loading import open_source, source_builder_class, source_options
from gap_mllm.processing.data.source_builder import SourceConfig, hash_id
from tests.processing.data.formats import FORMATS, rows_equal
from tests.processing.data.toy_source import FAILURES, write_rows


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(SOURCES, "toy", ("tests.processing.data.toy_source", "ToySource"))


@pytest.fixture
def folder(tmp_path):
    """A folder with three rows in two files and one row to validate on."""
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "train_a.jsonl", {}, {"task": "reconstruction", "number": 2})
    write_rows(tmp_path / "data" / "train_b.jsonl", {"is_lost": True})
    write_rows(tmp_path / "data" / "val.jsonl", {})
    return tmp_path / "data"


@pytest.fixture
def load(folder, tmp_path):
    """A function (split, **options): load the folder with a cache of its own."""

    def load_folder(split=None, **options):
        return load_multiview("toy", folder, split, cache_dir=tmp_path / "cache", **options)

    return load_folder


# What is loaded


def test_splits_and_rows(load):
    splits = load()
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 3, "val": 1}
    assert splits["train"]["id"] == ["train_a-0000000", "train_a-0000001", "train_b-0000000"]
    assert set(splits["train"]["source"]) == {"toy"} and set(splits["val"]["split"]) == {"val"}
    assert splits["train"].info.license == "CC BY 4.0"


def test_one_split_slices_and_sums(load):
    assert len(load("train")) == 3
    assert load("train[1:]")["id"] == ["train_a-0000001", "train_b-0000000"]
    assert load("train[:1]+val")["id"] == ["train_a-0000000", "val-0000000"]


def test_streamed_rows_equal_prepared_ones(load):
    prepared, streamed = load(), load(streaming=True)
    assert sorted(prepared) == sorted(streamed)
    assert all(rows_equal(prepared[split], streamed[split]) for split in prepared)
    assert rows_equal(prepared["val"], load("val", streaming=True)) == 1


def test_tasks_are_chosen(load):
    assert len(load("train", tasks=["reconstruction"])) == 1
    assert len(load("train", tasks="reconstruction")) == 1
    assert len(load("val", tasks=["reconstruction"])) == 0  # an empty split is one, too
    assert len(list(load("train", tasks="scene_qa", streaming=True))) == 2


def test_views_are_limited(load, folder):
    write_rows(folder / "val.jsonl", {"views": [{"frame_id": i} for i in range(9)], "target_frame": 4})
    row = load("val", max_views=4)[0]
    assert [view["frame_id"] for view in row["views"]] == [0, 3, 4, 8] and row["target_frame"] == 2


def test_more_views_spoken_of_than_allowed_are_refused(load, folder):
    marks = [{"view": view, "kind": "cross", "color": "red", "xy": [1, 1]} for view in (1, 2, 3)]
    write_rows(folder / "val.jsonl", {"views": [{}] * 9, "marks": marks})
    with pytest.raises(RecordError, match="speaks of 4 views, more than max_views=3") as caught:
        load("val", max_views=3)
    assert caught.value.record_id == "val-0000000"


def test_a_relative_folder_that_climbs(folder, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(load_multiview("toy", "../data", "train", cache_dir=tmp_path / "cache")) == 3
    media = os.path.relpath(FORMATS / "gap_mllm", tmp_path / "elsewhere")
    assert media.startswith("..")
    assert len(load_multiview("gap_mllm", media, "val", cache_dir=tmp_path / "cache"))


def test_rooms_need_no_folder(tmp_path):
    options = {"num_train": 1, "num_selection": 0, "num_test": 0, "tasks": ["detection3d"], "width": 32, "height": 32}
    assert len(load_multiview("synthetic_rooms", split="train", cache_dir=tmp_path, **options)) == 1


# Arguments


def test_an_unknown_source_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match="unknown source 'scanet'; known are .*gap_mllm"):
        load_multiview("scanet", "data")
    with pytest.raises(ValueError, match="unknown source 'scanet'"):
        source_builder_class("scanet")


@pytest.mark.parametrize("streaming", [False, True])
def test_an_unknown_split_is_refused(load, streaming):
    with pytest.raises(ValueError, match="train.*val"):
        load("test", streaming=streaming)


@pytest.mark.parametrize("split", ["train+tset", "tset[:3]"])
def test_a_part_of_an_unknown_split_is_refused(load, split):
    with pytest.raises(ValueError, match=r"split 'tset.*' is not in .*data; there are train, val"):
        load(split)


def test_an_unknown_task_is_refused(load):
    for tasks in (["detection3d"], [], "detection3d"):
        with pytest.raises(ValueError, match=r"source 'toy' has \['scene_qa', 'reconstruction'\]"):
            load("train", tasks=tasks)


def test_bad_options_are_refused(load):
    with pytest.raises(ValueError, match="max_views is 0; expected 1 or more"):
        load("train", max_views=0)
    with pytest.raises(ValueError, match="source 'toy' has no option 'media_dirr'; it has prefix, scale, repeat"):
        load("train", media_dirr="x")
    with pytest.raises(ValueError, match="needs data_dir.*train"):
        load_multiview("toy")
    with pytest.raises(ValueError, match="needs data_dir.*train"):
        open_source("toy")


WHOLE, FLAG = "expected an integer of at least 1", "expected True or False"
WRONG_KINDS = [
    ("split", ["train"], 'expected the name of a split, as "train"'),
    ("split", 3, 'expected the name of a split, as "train"'),
    ("tasks", 3, "expected a list of names, or one name"),
    ("tasks", {"scene_qa": 1}, "expected a list of names, or one name"),
    *[("max_views", value, WHOLE) for value in ("2", 1.5, 2.0, True, float("nan"))],
    *[("num_proc", value, WHOLE) for value in ("2", 1.5, True)],
    ("data_dir", ["data"], "expected the folder that holds the source, as text or Path"),
    ("data_dir", b"data", "expected the folder that holds the source, as text or Path"),
    *[(name, "no", FLAG) for name in ("streaming", "skip_bad_samples", "refresh")],
    *[(name, None, FLAG) for name in ("streaming", "skip_bad_samples", "refresh")],
    ("name", None, "expected that of a source: synthetic_rooms, "),
    ("name", ["toy"], "expected that of a source: synthetic_rooms, "),
    ("cache_dir", 3, "expected the folder to write to, as text or Path"),
    ("report_file", ["a"], "expected the file to write, as text or Path"),
    ("prefix", 3, "expected a text or None"),
    ("scale", "2", "expected a number"),
    ("repeat", True, "expected an integer or None"),
    ("loud", "no", FLAG),
    ("names", "ab", "expected a list of a text"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG_KINDS)
def test_arguments_of_another_kind_are_refused(name, value, expected, folder, tmp_path):
    given = {"name": "toy", "data_dir": folder, "cache_dir": tmp_path / "cache", name: value}
    with pytest.raises(TypeError) as caught:
        load_multiview(**given)
    assert str(caught.value).startswith(f"{name} is {value!r}; {expected}")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("split", "", ValueError, "split is empty; expected the name of a split"),
        ("data_dir", "", ValueError, "data_dir is empty; expected the folder that holds the source"),
        ("num_proc", 0, ValueError, "num_proc is 0; expected 1 or more"),
        ("num_proc", -1, ValueError, "num_proc is -1; expected 1 or more"),
        ("prefix", "", ValueError, "prefix is empty; expected a text or None"),
        ("scale", float("nan"), ValueError, "scale is nan; expected a number"),
        ("report_file", ".", IsADirectoryError, "report_file is ., which is a folder; give a file"),
        ("cache_dir", __file__, NotADirectoryError, "cache_dir is .*, but .* is a file; give a folder"),
    ],
)
def test_arguments_out_of_range_are_refused(name, value, error, message, folder, tmp_path):
    given = {"name": "toy", "data_dir": folder, "cache_dir": tmp_path / "cache", name: value}
    with pytest.raises(error, match=message):
        load_multiview(**given)


def test_streaming_is_by_one_process(load):
    assert len(list(load("val", streaming=True, num_proc=1))) == 1
    with pytest.raises(ValueError, match="num_proc is 2, but rows are streamed by one process"):
        load("val", streaming=True, num_proc=2)


def test_rooms_take_no_folder_and_no_bound_on_views():
    with pytest.raises(ValueError, match="data_dir is '/nope', but rooms are rendered and take none; leave it out"):
        load_multiview("synthetic_rooms", "/nope")
    with pytest.raises(ValueError, match="max_views is 2, but rooms are rendered: give num_views"):
        load_multiview("synthetic_rooms", max_views=2)
    with pytest.raises(TypeError, match="num_train is 1.5; expected an integer"):
        load_multiview("synthetic_rooms", num_train=1.5)
    with pytest.raises(TypeError, match="skip_bad_samples is 'no'; expected True or False"):
        load_multiview("synthetic_rooms", skip_bad_samples="no")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_that_is_not_the_source_is_refused(streaming, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds nothing of source 'toy'; expected train\*.jsonl"):
        load_multiview("toy", tmp_path, streaming=streaming, cache_dir=tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match="none of source 'toy' is no folder"):
        load_multiview("toy", tmp_path / "none", streaming=streaming, cache_dir=tmp_path / "cache")


def test_a_builder_without_a_folder_is_refused():
    builder = source_builder_class("toy")()
    with pytest.raises(ValueError, match="needs data_dir"):
        _ = builder.root


def test_options_of_a_source():
    assert list(source_options("toy")) == ["prefix", "scale", "repeat", "loud", "names"]
    assert "num_train" in source_options("synthetic_rooms") and "tasks" not in source_options("synthetic_rooms")


# Rows without views


@pytest.fixture
def warnings(monkeypatch):
    """What is said by builders from now on."""
    said = []
    monkeypatch.setattr("gap_mllm.processing.data.source_builder.logger.warning_once", said.append)
    return said


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("name", "videos"), [("vsi590k", 2), ("vlm3r", 2)])
def test_videos_without_views_are_said_and_what_gives_them(name, videos, streaming, warnings, tmp_path):
    rows = load_multiview(name, FORMATS / name, "train", streaming=streaming, cache_dir=tmp_path)
    without = [row for row in rows if row["video"] is not None]
    assert len(without) >= videos and not any(row["views"] for row in without)
    expected = (
        f"{name}: rows name a video and have no views; they hold nothing but its path on this machine. Pass "
        "max_views=N to store N frames of each video as views."
    )
    assert set(warnings) == {expected} and (streaming or len(warnings) == 1)
    warnings.clear()
    options = {"max_views": 2, "cache_dir": tmp_path}
    rows = load_multiview(name, FORMATS / name, "train", streaming=streaming, **options)
    assert all(row["views"] for row in rows) and not warnings


def test_the_warning_comes_again_from_the_cache(warnings, tmp_path):
    for _ in range(2):
        load_multiview("vsi590k", FORMATS / "vsi590k", cache_dir=tmp_path)
    assert len(warnings) == 2  # `warning_once` then says it once


@pytest.mark.parametrize("streaming", [False, True])
def test_scenes_without_frames_are_said_and_what_gives_them(streaming, warnings, tmp_path):
    folder, frames = FORMATS / "video3dllm_processed", FORMATS / "scannet_posed_images"
    options = {"cache_dir": tmp_path, "streaming": streaming}
    list(load_multiview("video3dllm", folder, "train", **options))
    assert len(set(warnings)) == 1 and warnings[0].startswith("video3dllm: rows have no views, as ")
    assert f"{folder} holds no frames of their scenes. Pass posed_root" in warnings[0]
    warnings.clear()
    rows = load_multiview("video3dllm", folder, "train", posed_root=str(frames), **options)
    assert all(row["views"] for row in rows) and not warnings


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_whose_views_come_otherwise_are_not_warned_of(streaming, warnings, load, tmp_path):
    options = {"streaming": streaming, "cache_dir": tmp_path / "others"}
    media = str(FORMATS / "gap_mllm" / "data" / "media")
    rows = load_multiview("vgllm", FORMATS / "vgllm", "train", media_dir=media, **options)
    assert any(row["video"] for row in rows) and all(row["views"] for row in rows)  # folders of frames
    assert len(list(load_multiview("vsibench", FORMATS / "vsibench", "test", **options)))  # read by `evaluate`
    assert len(list(load("train", streaming=streaming))) == 3  # rows of text alone
    assert not warnings


# Bad records


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("streaming", [False, True])
def test_strict_reading_names_the_record(failure, streaming, load, folder):
    write_rows(folder / "val.jsonl", {}, {"fails": failure})
    with pytest.raises(RecordError) as caught:
        list(load("val", streaming=streaming))
    error = caught.value
    assert (error.source, error.file, error.record_id) == ("toy", str(folder / "val.jsonl"), "val-0000001")
    assert error.field == ("question" if failure == "record" else None)
    if failure != "record":
        assert "has not the form of 'toy'" in str(error) and str(FAILURES[failure]()) in str(error)


def test_a_value_that_the_schema_does_not_hold_names_the_record(load, folder):
    write_rows(folder / "val.jsonl", {"number": "three"})
    with pytest.raises(RecordError, match="record val-0000000: .*number is 'three', expected finite numbers"):
        load("val")


@pytest.mark.parametrize("streaming", [False, True])
def test_skipping_counts_logs_and_lists(streaming, load, folder, tmp_path, caplog):
    bad = [{"fails": failure} for failure in FAILURES]
    write_rows(folder / "train_b.jsonl", {"is_lost": True}, *bad, "{", {})
    report = tmp_path / "reports" / "report.jsonl"
    logging.getLogger("transformers").propagate = True
    rows = list(load("train", skip_bad_samples=True, streaming=streaming, report_file=report))
    assert [row["id"] for row in rows][2:] == ["train_b-0000000", "train_b-0000009"]
    events = read_report(report)
    skipped = [event for event in events if event["event"] == "skipped"]
    assert [event["record"] for event in skipped] == [f"train_b-{index:07d}" for index in range(1, 8)] + ["line 9"]
    assert skipped[0] == {
        "event": "skipped",
        "source": "toy",
        "file": str(folder / "train_b.jsonl"),
        "record": "train_b-0000001",
        "field": "question",
        "reason": "it is bad.",
    }
    assert sum("Skipped: source toy" in message for message in caplog.messages) == len(skipped)
    if not streaming:
        assert f"toy: 1 lost_tracking, 8 skipped; listed in {report}." in caplog.messages


def test_normal_markers_are_counted_in_both_modes(load, tmp_path):
    for index, skip in enumerate((False, True)):
        report = tmp_path / f"{index}.jsonl"
        assert len(load("train", skip_bad_samples=skip, report_file=report)) == 3
        [event] = read_report(report)
        assert (event["event"], event["record"], event["reason"]) == ("lost_tracking", "train_b-0000000", "pose 3")


def test_the_report_is_there_also_when_the_data_was_cached(load, folder, tmp_path):
    load("train")
    load("train", streaming=True)  # must not touch the report of the prepared data
    load("train", report_file=tmp_path / "later.jsonl")
    assert [event["event"] for event in read_report(tmp_path / "later.jsonl")] == ["lost_tracking"]
    write_rows(folder / "train_b.jsonl", {})
    load("train", report_file=tmp_path / "none.jsonl", refresh=True)
    assert (tmp_path / "none.jsonl").is_file() and read_report(tmp_path / "none.jsonl") == []


def test_where_the_report_goes_does_not_change_the_cache(load, tmp_path):
    first = load("train", report_file=tmp_path / "a.jsonl").cache_files
    assert load("train", report_file=tmp_path / "b.jsonl").cache_files == first


def test_nothing_is_cached_when_strict_reading_fails(load, folder):
    write_rows(folder / "val.jsonl", {"fails": "record"})
    with pytest.raises(RecordError):
        load("val")
    write_rows(folder / "val.jsonl", {}, {})
    assert len(load("val")) == 2


@pytest.mark.parametrize("skip", [False, True])
def test_a_broken_array_loads_nothing(skip, load, folder):
    (folder / "val.json").write_text('[{}, {"a"')
    with pytest.raises(RecordError, match="source toy, file .*val.json: .*ends too soon, at byte 9"):
        load("val", skip_bad_samples=skip)


# Duplicate ids


@pytest.mark.parametrize("streaming", [False, True])
def test_an_id_that_is_there_twice(streaming, load, folder, tmp_path):
    write_rows(folder / "train_b.jsonl", {"id": "b"}, {"id": "train_a-0000001"}, {"id": "b"}, {"id": "c"})
    with pytest.raises(RecordError, match="the id 'train_a-0000001' is there twice in split 'train'") as caught:
        list(load("train", streaming=streaming))
    assert (caught.value.field, caught.value.record_id) == ("id", "train_b-0000001")
    assert caught.value.file == str(folder / "train_b.jsonl")
    report = tmp_path / "report.jsonl"
    rows = load("train", streaming=streaming, skip_bad_samples=True, report_file=report)
    assert [row["id"] for row in rows] == ["train_a-0000000", "train_a-0000001", "b", "c"]
    assert [event["record"] for event in read_report(report)] == ["train_b-0000001", "train_b-0000002"]
    if streaming:
        assert len(list(rows)) == 4  # a second epoch meets the same ids again


def test_an_id_may_be_in_two_splits(load, folder):
    write_rows(folder / "train_a.jsonl", {"id": "a"})
    write_rows(folder / "val.jsonl", {"id": "a"})
    assert len(load("train")) == 2 and len(load("val")) == 1


def test_ids_are_told_apart():
    assert len({hash_id(f"row-{number}") for number in range(1000)}) == 1000 and 0 <= hash_id("é") < 2**64


# Several processes; changed files are in test_prepared_sources.py


def test_two_processes_read_the_same(load, tmp_path):
    one = load("train")
    two = load("train", num_proc=2, refresh=True, report_file=tmp_path / "report.jsonl")
    assert rows_equal(one, two) == 3
    assert [event["event"] for event in read_report(tmp_path / "report.jsonl")] == ["lost_tracking"]


def test_two_processes_name_the_bad_record_and_the_duplicate(load, folder):
    write_rows(folder / "train_b.jsonl", {"fails": "record"})
    with pytest.raises(RecordError, match="it is bad") as caught:
        load("train", num_proc=2)
    assert (caught.value.record_id, caught.value.field) == ("train_b-0000000", "question")
    write_rows(folder / "train_b.jsonl", {"id": "train_a-0000000"})
    for _ in range(2):  # nothing is kept of the first attempt
        with pytest.raises(RecordError, match="the id 'train_a-0000000' is there twice in split 'train'"):
            load("train", num_proc=2)


# Reports and errors


def test_an_error_says_where_and_survives_pickling():
    import pickle

    error = RecordError("no number.", "boxes[2]", missing="a.jpg").locate("toy", Path("a/b.json"), "b-1")
    assert str(error) == "source toy, file a/b.json, record b-1, field boxes[2]: no number."
    assert str(RecordError("no number.")) == "no number." and isinstance(error, ValueError)
    assert str(error.locate("other", "other", "other")) == str(error)  # what is known stays
    copy = pickle.loads(pickle.dumps(error))
    assert vars(copy) == vars(error) and str(copy) == str(error)
    assert RecordError("bad.").locate(None, None, None).file is None


def test_a_missing_file_is_listed_as_missing(tmp_path):
    from gap_mllm.processing.data.record_errors import ReadReport
    from gap_mllm.processing.data.source_files import find_file

    report = ReadReport(tmp_path / "report.jsonl")
    with pytest.raises(RecordError) as caught:
        find_file(tmp_path, "a/1.jpg")
    report.skip(caught.value)
    report.mark("lost_tracking", tmp_path, 3)
    assert dict(report.skipped) == {"record": 1}
    events = read_report(tmp_path / "report.jsonl")
    assert events[0]["missing"] == "a/1.jpg" and events[1] == {
        "event": "lost_tracking",
        "file": str(tmp_path),
        "record": 3,
    }
    assert read_report(tmp_path / "none.jsonl") == []
    assert json.loads((tmp_path / "report.jsonl").read_text().splitlines()[1])["record"] == 3


def test_config_takes_one_task_or_several():
    assert SourceConfig(tasks="scene_qa").tasks == ("scene_qa",) == SourceConfig(tasks=["scene_qa"]).tasks
    assert SourceConfig().tasks is None
