"""Prepared data of every source: never old, not prepared again without need, split by split, also by two at once."""

import builtins
import io
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gap_mllm.processing.data import SOURCES, RecordError, load_multiview, prepared_source, read_log, read_report
from gap_mllm.processing.data.loading import open_source
from gap_mllm.processing.data.source_builder import SceneSourceBuilder
from tests.processing.data.source_cases import CASES, copy_case, edit, load_case
from tests.processing.data.toy_source import write_rows


@pytest.fixture
def readings(monkeypatch):
    """The splits that are read from now on, one entry for each reading."""
    read, generate = [], SceneSourceBuilder._generate_examples

    def counted(self, split, files):
        read.append(split)
        yield from generate(self, split, files)

    monkeypatch.setattr(SceneSourceBuilder, "_generate_examples", counted)
    return read


# Every source


def test_every_source_has_a_case():
    assert set(CASES) == set(SOURCES) - {"synthetic_rooms", "toy"}


@pytest.mark.parametrize("name", CASES)
def test_edits_and_other_links_are_seen_and_nothing_is_read_twice(name, readings, tmp_path):
    data_dir, options = copy_case(name, tmp_path)
    shutil.copytree(data_dir, tmp_path / "whole")  # with the times of the files
    link = tmp_path / "link"
    link.symlink_to(data_dir)
    first = load_case(name, link, options, tmp_path / "cache")
    count = len(readings)
    assert load_case(name, link, options, tmp_path / "cache") == first and len(readings) == count
    edit(data_dir / CASES[name].edited)
    assert load_case(name, link, options, tmp_path / "cache") != first
    link.unlink()
    link.symlink_to(tmp_path / "whole")
    assert load_case(name, link, options, tmp_path / "cache") == first


@pytest.mark.parametrize("name", CASES)
def test_all_that_is_looked_at_is_logged_and_every_change_of_it_seen(name, tmp_path, monkeypatch):
    data_dir, options = copy_case(name, tmp_path / "data")
    builder = open_source(name, data_dir, cache_dir=tmp_path / "cache", **options)

    def by_time_written(found):  # the system's own time cannot be set back below
        return found.st_mtime_ns

    looked_at = _spy(monkeypatch, tmp_path / "data")
    monkeypatch.setattr(read_log, "_times", by_time_written)
    with read_log.keep_log() as log:
        for generator in builder._split_generators(None):
            list(builder._generate_examples(**generator.gen_kwargs))
    monkeypatch.undo()
    logged = {os.path.normpath(path) for path in log.paths()}
    assert looked_at and not looked_at - logged - {str(tmp_path / "data")}
    monkeypatch.setattr(read_log, "_times", by_time_written)
    log.save(tmp_path / "reads-main.json")
    assert read_log.what_changed(tmp_path) is None
    for path in sorted(logged):
        _assert_seen(Path(path), tmp_path)
    assert read_log.what_changed(tmp_path) is None


@pytest.mark.parametrize("in_place", [True, False])
def test_a_pose_of_the_same_size_and_time_is_seen(in_place, tmp_path):
    """Fixed-width numbers keep the size, and archives set the time."""
    data_dir, options = copy_case("scannet_posed", tmp_path / "data")
    before = load_case("scannet_posed", data_dir, options, tmp_path / "cache")
    file = next(path for path in sorted(Path(data_dir).rglob("*.txt")) if path.stem.isdigit())
    state, text = file.stat(), file.read_text()
    values = text.split()
    values[3] = ("7" if values[3][0] != "7" else "6") + values[3][1:] if values[3][0] != "-" else "-7" + values[3][2:]
    rows = [values[start : start + 4] for start in range(0, 16, 4)]
    moved = "\n".join(" ".join(row) for row in rows).ljust(len(text))
    assert len(moved) == len(text) and moved.split() != text.split()
    target = file if in_place else file.with_suffix(".new")
    target.write_text(moved)
    os.utime(target, ns=(state.st_atime_ns, state.st_mtime_ns))
    if not in_place:
        target.replace(file)
    assert load_case("scannet_posed", data_dir, options, tmp_path / "cache") != before


def _spy(monkeypatch, root):
    """Paths below root that Python hands to the operating system from now on."""
    seen = set()

    def watch(module, name):
        function = getattr(module, name)

        def watched(path, *args, **kwargs):
            if isinstance(path, str | os.PathLike):
                text = str(path)
                if text.startswith(f"{root}{os.sep}"):
                    seen.add(os.path.normpath(text))
            return function(path, *args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    for module, name in ((os, "stat"), (os, "scandir"), (os, "listdir"), (builtins, "open"), (io, "open")):
        watch(module, name)
    return seen


def _assert_seen(path, logs):
    """A file is touched and removed, a folder gets a file, and what was not there comes to be."""
    if path.is_dir():
        (path / "new").touch()
        assert read_log.what_changed(logs) is not None, path
        (path / "new").unlink()
    elif path.is_file():
        state, moved = path.stat(), path.with_name(f"{path.name}.moved")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        assert read_log.what_changed(logs) is not None, path
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        path.rename(moved)
        assert read_log.what_changed(logs) is not None, path
        moved.rename(path)
    elif path.parent.is_dir():
        path.touch()
        assert read_log.what_changed(logs) is not None, path
        path.unlink()


# What is added, removed, repaired


@pytest.fixture
def scans(tmp_path):
    """A folder of one ScanNet scan in three frames, and a function that loads it."""
    data_dir, _ = copy_case("scannet", tmp_path)

    def load(**options):
        return load_case("scannet", data_dir, {}, tmp_path / "cache", **options)

    return data_dir / "scans" / "scene9000_00", load


def test_a_frame_and_a_scene_come_and_go(scans):
    scene, load = scans
    assert [len(row["views"]) for row in load()] == [3]
    removed = (scene / "color" / "2.jpg").read_bytes()
    (scene / "color" / "2.jpg").unlink()
    assert [len(row["views"]) for row in load()] == [2]
    (scene / "color" / "2.jpg").write_bytes(removed)
    assert [len(row["views"]) for row in load()] == [3]
    other = scene.with_name("scene9001_00")
    shutil.copytree(scene, other)
    assert [row["id"] for row in load()] == ["scene9000_00", "scene9001_00"]
    shutil.rmtree(other)
    assert [row["id"] for row in load()] == ["scene9000_00"]


def test_a_depth_map_that_was_missing_is_seen(scans, tmp_path):
    scene, load = scans
    (scene / "depth" / "1.png").rename(tmp_path / "1.png")
    assert [view["depth"] is None for view in load()[0]["views"]] == [False, True, False]
    (tmp_path / "1.png").rename(scene / "depth" / "1.png")
    assert not any(view["depth"] is None for view in load()[0]["views"])
    shutil.rmtree(scene / "depth")
    assert all(view["depth"] is None for view in load()[0]["views"])


def test_a_repaired_record_is_read(scans, tmp_path):
    scene, load = scans
    pose = (scene / "pose" / "1.txt").read_text()
    (scene / "pose" / "1.txt").write_text("no pose")
    report = tmp_path / "report.jsonl"
    assert len(load(skip_bad_samples=True, report_file=report)[0]["views"]) == 2 and len(read_report(report)) == 1
    (scene / "pose" / "1.txt").write_text(pose)
    assert len(load(skip_bad_samples=True, report_file=report)[0]["views"]) == 3 and not read_report(report)


def test_old_rows_do_not_come_back_where_reading_fails(scans):
    scene, load = scans
    load()
    (scene / "pose" / "1.txt").write_text("no pose")
    for _ in range(2):
        with pytest.raises(RecordError, match="no matrix"):
            load()


# One split at a time


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two files of train, one of val, of the source of tests."""
    monkeypatch.setitem(SOURCES, "toy", ("tests.processing.data.toy_source", "ToySource"))
    folder = tmp_path / "toy"
    folder.mkdir()
    for name in ("train_a", "train_b", "val"):
        write_rows(folder / f"{name}.jsonl", {"number": 1}, {"number": 2})
    return folder


@pytest.fixture
def load(folder, tmp_path):
    """A function (split, **options): load the folder with a cache of its own."""
    return lambda split=None, **options: load_multiview("toy", folder, split, cache_dir=tmp_path / "cache", **options)


def test_a_split_needs_nothing_of_the_others(load, folder, readings):
    write_rows(folder / "train_a.jsonl", "{")
    assert load("val")["number"] == [1, 2] and readings == ["val"]
    (folder / "train_a.jsonl").unlink()
    (folder / "train_b.jsonl").unlink()
    assert load("val[1:]")["number"] == [2] and list(load()) == ["val"]
    with pytest.raises(ValueError, match="split 'train' is not in .*; there are val"):
        load("train")


def test_slices_and_sums_prepare_what_they_name(load, readings):
    rows = load("train[1:3]+val[:1] + train[:50%]")
    assert rows["id"] == [f"{name}-{index:07d}" for name, index in
                          (("train_a", 1), ("train_b", 0), ("val", 0), ("train_a", 0), ("train_a", 1))]  # fmt: skip
    assert sorted(readings) == ["train", "val"]
    assert {split: len(part) for split, part in load().items()} == {"train": 4, "val": 2} and len(readings) == 2
    with pytest.raises(ValueError, match=r"split 'tset\[:3\]' is not in"):
        load("train+tset[:3]")


def test_a_refresh_finds_a_split_that_was_added(load, folder):
    for refresh in (False, True):
        name = f"train_{refresh}"
        (folder / "val.jsonl").rename(folder / "kept")
        assert list(load(refresh=refresh)) == ["train"]
        (folder / "kept").rename(folder / "val.jsonl")
        write_rows(folder / f"{name}.jsonl", {"number": 3})
        splits = load(refresh=refresh)
        assert list(splits) == ["train", "val"] and 3 in splits["train"]["number"]


def test_a_refresh_reads_again(load, readings):
    load("val")
    assert load("val", refresh=True)["number"] == [1, 2] and readings == ["val", "val"]


def test_an_edit_that_leaves_size_and_time_is_seen(load, folder):
    for file, text in ((folder / "val.jsonl", '{"number": 7}\n'), (folder / "val_b.json", '[{"number": 7}]')):
        file.write_text(text)
        before = load("val")["number"]
        state = file.stat()
        file.write_text(text.replace("7", "8"))
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert load("val")["number"] == [8 if number == 7 else number for number in before] != before


# The code of the reader, several processes


def test_other_code_prepares_anew(load, readings, monkeypatch):
    load("val")
    monkeypatch.setattr(prepared_source, "_package_code", lambda: "of another version")
    load("val")
    load("val")
    assert readings == ["val"] * 2


def test_code_of_a_source_outside_of_the_package_counts(load, readings, tmp_path, monkeypatch):
    load("val")
    changed = tmp_path / "toy_source.py"
    changed.write_text("# changed\n")
    monkeypatch.setattr(prepared_source.inspect, "getfile", lambda base: str(changed))
    load("val")
    assert readings == ["val"] * 2


def test_rooms_are_rendered_again_by_other_code_alone(tmp_path, monkeypatch):
    from gap_mllm.processing.data.rooms.synthetic_rooms import SyntheticRooms

    rendered, generate = [], SyntheticRooms._generate_examples
    monkeypatch.setattr(
        SyntheticRooms,
        "_generate_examples",
        lambda self, split, rooms: rendered.append(split) or generate(self, split, rooms),
    )
    sizes = {"num_train": 1, "num_selection": 1, "num_test": 1, "width": 32, "height": 32, "tasks": ["detection3d"]}
    for code, expected in (("one", ["test"]), ("one", ["test"]), ("two", ["test", "test"])):
        monkeypatch.setattr(prepared_source, "_package_code", lambda code=code: code)
        assert len(load_multiview("synthetic_rooms", split="test", cache_dir=tmp_path, **sizes)) == 1
        assert rendered == expected


def test_what_other_processes_read_counts(load, folder):
    assert len(load("train", num_proc=2)) == 4
    write_rows(folder / "train_b.jsonl", {"number": 5})
    assert load("train", num_proc=2)["number"] == [1, 2, 5] == load("train")["number"]
    logs = [
        json.loads(file.read_text()) for file in Path(load("train").cache_files[0]["filename"]).parent.glob("reads-*")
    ]
    assert len(logs) == 3 and sum(str(folder / "train_b.jsonl") in log["contents"] for log in logs) >= 1


def test_two_at_once_prepare_once(load, folder, readings):
    load("train")
    write_rows(folder / "train_b.jsonl", *({"number": number} for number in range(200)))
    readings.clear()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: load("train")["number"], range(2)))
    assert found[0] == found[1] == [1, 2, *range(200)] and readings == ["train"]


def test_old_data_is_replaced(load, folder, tmp_path):
    def prepared():
        return sorted(str(path) for path in (tmp_path / "cache").rglob("dataset_info.json"))

    load("train")
    there = prepared()
    for number in range(3):
        write_rows(folder / "train_b.jsonl", {"number": number})
        assert load("train")["number"] == [1, 2, number]
    assert prepared() == there and len(there) == 1


def test_a_log_that_cannot_be_read_is_no_proof(load, readings):
    for text in ("{", '{"format": 0}', '{"format": 1}'):
        [file] = Path(load("val").cache_files[0]["filename"]).parent.glob("reads-*.json")
        file.write_text(text)
        readings.clear()
        load("val")
        assert readings == ["val"]
    file.unlink()
    load("val")
    assert readings == ["val", "val"]
