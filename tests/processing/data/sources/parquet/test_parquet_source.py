"""The source "parquet": rows of any source come back as they were, by any writer, and what is damaged is named."""

import json
import shutil

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from gap_mllm.processing.data import RecordError, complete_row, load_multiview, read_report, scene_features
from gap_mllm.processing.data.inspection import inspect_source
from gap_mllm.processing.data.parquet_export import convert_to_parquet
from gap_mllm.processing.data.source_files import encode_png
from tests.processing.data.formats import FORMATS, rows_equal


def stored(rows):
    """Rows as they are stored, pictures by their bytes alone."""
    found = []
    for row in rows.with_format("arrow"):
        [row] = row.to_pylist()
        for view in row["views"]:
            for name in ("image", "depth"):
                if view[name] is not None and view[name]["bytes"] is None:
                    with open(view[name]["path"], "rb") as stream:
                        view[name]["bytes"] = stream.read()
                view[name] = view[name] and view[name]["bytes"]
        found.append(row)
    return found


def view(seed=0, **fields):
    values = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return {"image": encode_png(values), "camera_to_world": np.eye(4), **fields}


def write(file, *rows, features=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    made = datasets.Dataset.from_list([complete_row(**row) for row in rows], features=features or scene_features())
    made.to_parquet(str(file))
    return file


def change(file, edit):
    """Rewrite a file after `edit(table)`."""
    pyarrow.parquet.write_table(edit(pyarrow.parquet.read_table(file)), file)


@pytest.fixture
def folder(tmp_path):
    """Two shards of "train" and a "val", as `push_to_hub` lays them out."""
    data = tmp_path / "set" / "data"
    for index in range(2):
        rows = [
            {"id": f"{index}-{number}", "task": "scene_qa", "question": "What?", "answer": "It.", "views": [view()]}
            for number in range(3)
        ]
        write(data / f"train-{index:05d}-of-00002.parquet", *rows)
    write(data / "val-00000-of-00001.parquet", {"id": "v", "task": "scene", "views": [view()]})
    return tmp_path / "set"


def load(folder, tmp_path, split=None, **options):
    return load_multiview("parquet", folder, split, cache_dir=tmp_path / "cache", **options)


# Rows come back


@pytest.mark.parametrize(
    ("source", "place", "options"),
    [
        ("gap_mllm", "gap_mllm", {}),  # points, boxes, poses, captions
        ("scannet_posed", "scannet_posed_images", {}),  # depth
        ("embodiedscan", "embodiedscan", {}),
        ("arkitscenes", "arkitscenes", {}),
        ("spar", "spar", {}),  # marks
        ("vsibench", "vsibench", {}),  # videos, no views
        ("blink", "blink", {}),  # pictures inside, choices
        ("synthetic_rooms", None, {"num_train": 1, "num_selection": 1, "num_test": 0, "width": 32, "height": 32}),
    ],
)
def test_rows_of_every_kind_come_back_field_by_field(source, place, options, tmp_path):
    data_dir = place and FORMATS / place
    convert_to_parquet(source, data_dir, tmp_path / "out", max_shard_size="40KB", **options)
    expected = load_multiview(source, data_dir, cache_dir=tmp_path / "prepared", **options)
    read = load(tmp_path / "out", tmp_path)
    assert sorted(read) == sorted(split for split in expected if len(expected[split]))
    for split, rows in read.items():
        assert rows.features == scene_features()
        assert stored(rows) == stored(expected[split])
        streamed = load(tmp_path / "out", tmp_path, split, streaming=True)
        assert rows_equal(rows, streamed) == len(expected[split]) > 0


def test_a_folder_of_datasets_is_read_split_by_split(folder, tmp_path):
    read = load(folder, tmp_path)
    assert {split: rows["id"] for split, rows in read.items()} == {
        "train": ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"],
        "val": ["v"],
    }
    assert load(folder, tmp_path, "train", num_proc=2)["id"] == read["train"]["id"]
    assert [row["id"] for row in load(folder, tmp_path, "val", streaming=True)] == ["v"]
    write(tmp_path / "flat" / "test.parquet", {"id": "t", "task": "scene_qa"})
    assert load(tmp_path / "flat", tmp_path, "test")["task"] == ["scene_qa"]


def test_labels_of_several_videos_are_one_set(folder, tmp_path):
    for name in ("hall", "kitchen"):
        write(tmp_path / "labels" / name / "data" / "train-00000-of-00001.parquet", {"id": name, "task": "scene_qa"})
    assert load(tmp_path / "labels", tmp_path, "train")["id"] == ["hall", "kitchen"]


def test_tasks_and_views_are_chosen(folder, tmp_path):
    write(folder / "data" / "val-00000-of-00001.parquet", {"id": "v", "task": "scene", "views": [view(), view(1)]})
    [row] = load(folder, tmp_path, "val", tasks="scene", max_views=1)
    assert len(row["views"]) == 1
    assert len(load(folder, tmp_path, "val", tasks="scene_qa")) == 0
    with pytest.raises(ValueError, match="tasks is \\['scenes'\\]; source 'parquet' has \\['reconstruction'"):
        load(folder, tmp_path, tasks="scenes")


def test_other_writers_of_the_same_columns_are_read(folder, tmp_path):
    """Large texts, lists without a fixed length, another order, columns of nulls: as pandas or polars write them."""
    file = folder / "data" / "val-00000-of-00001.parquet"
    expected = stored(load(folder, tmp_path, "val"))

    def plain(table):
        [row] = table.to_pylist()
        names = [name for name in reversed(table.column_names) if row[name] not in (None, [])]
        texts = {"id": pyarrow.large_string(), "task": pyarrow.dictionary(pyarrow.int32(), pyarrow.string())}
        columns = {name: pyarrow.array([row[name]], type=texts.get(name)) for name in names if name != "views"}
        columns |= {name: pyarrow.nulls(1) for name in table.column_names if row[name] in (None, [])}
        storage = table.schema.field("views").type.value_type
        fields = [pyarrow.field(field.name, getattr(field.type, "storage_type", field.type)) for field in storage]
        columns["views"] = pyarrow.array([row["views"]], type=pyarrow.large_list(pyarrow.struct(fields)))
        return pyarrow.table(columns)

    change(file, plain)
    assert pyarrow.parquet.read_schema(file).names != scene_features().arrow_schema.names
    assert stored(load(folder, tmp_path / "again", "val")) == expected


# Pictures that rows name


def test_pictures_that_rows_name_are_looked_for_in_the_folder(tmp_path):
    (tmp_path / "set" / "frames").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for folder in ("set/frames", "elsewhere"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / folder / "0.png")
    places = {"relative": "frames/0.png", "absolute": str(tmp_path / "set" / "frames" / "0.png")}
    for name, path in places.items():
        write(tmp_path / "set" / "train.parquet", {"id": "a", "task": "scene_qa"})
        _name_picture(tmp_path / "set" / "train.parquet", path)
        [row] = load(tmp_path / "set", tmp_path / name, "train")
        assert row["views"][0]["image"].getpixel((0, 0)) == (255, 0, 0)
    for path in ("../elsewhere/0.png", str(tmp_path / "elsewhere" / "0.png")):
        _name_picture(tmp_path / "set" / "train.parquet", path)
        with pytest.raises(RecordError, match="leads out of|is not below .*Give media_dir") as caught:
            load(tmp_path / "set", tmp_path / "out", "train")
        assert (caught.value.record_id, caught.value.field) == ("a", "views[0].image")
    [row] = load(tmp_path / "set", tmp_path / "given", "train", media_dir=str(tmp_path / "elsewhere"))
    assert row["views"][0]["image"].size == (40, 30)
    _name_picture(tmp_path / "set" / "train.parquet", "frames/1.png")
    with pytest.raises(RecordError, match="'frames/1.png' is not there; tried"):
        load(tmp_path / "set", tmp_path / "missing", "train")


def _name_picture(file, path):
    """A row with one view, whose picture is a path, as `datasets` stores it without embedding."""
    row = complete_row(id="a", task="scene_qa", views=[{"image": {"path": path, "bytes": None}}])
    table = datasets.Dataset.from_list([row], features=scene_features()).data.table
    pyarrow.parquet.write_table(table, file)


# What is refused


@pytest.mark.parametrize(
    ("edit", "field", "message"),
    [
        (lambda table: table.drop_columns(["boxes", "split"]), "split", "the file has no column split, boxes"),
        (
            lambda table: table.drop_columns(["views"]).append_column("views", pyarrow.array([[{"image": None}]])),
            "views.image_path",
            "the file has no column views.image_path, views.frame_id",
        ),
        (lambda table: table.append_column("mood", [["good"]]), "mood", "has the column mood, which the schema does"),
        (
            lambda table: table.set_column(0, "id", pyarrow.array([7])),
            "id",
            "column id holds int64, expected string",
        ),
        (
            lambda table: table.drop_columns(["number"]).append_column("number", pyarrow.array([[1.0]])),
            "number",
            "column number holds lists of double, expected double",
        ),
    ],
)
def test_other_columns_are_named(edit, field, message, folder, tmp_path):
    file = folder / "data" / "val-00000-of-00001.parquet"
    change(file, edit)
    for streaming in (False, True):
        with pytest.raises(RecordError, match=message) as caught:
            list(load(folder, tmp_path, "val", streaming=streaming))
        assert (caught.value.source, caught.value.field, caught.value.file) == ("parquet", field, str(file))


def test_a_damaged_missing_or_unfetched_shard_is_named(folder, tmp_path):
    file = folder / "data" / "train-00001-of-00002.parquet"
    whole = file.read_bytes()
    middle = len(whole) // 2
    damages = {
        "no whole parquet file": whole[:-200],
        "no whole parquet file, after": whole[: middle - 900] + b"\0" * 1800 + whole[middle + 900 :],
        "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    }
    for number, (message, content) in enumerate(damages.items()):
        file.write_bytes(content)
        with pytest.raises(RecordError, match=message) as caught:
            load(folder, tmp_path / str(number), "train", skip_bad_samples=True)
        assert caught.value.file == str(file)
    file.unlink()
    with pytest.raises(RecordError, match="1 of 2 shards of split 'train' are not there: train-00001-of-00002"):
        load(folder, tmp_path / "missing", "train")
    found = inspect_source("parquet", folder)  # lists it, and goes on
    assert found.splits["val"].rows == 1 and found.missing_files == {str(file): 1}
    file.write_bytes(whole)
    write(folder / "data" / "train-00000-of-00001.parquet", {"id": "old", "task": "scene_qa"})
    with pytest.raises(
        RecordError, match="files of different sets: train-00000-of-00001.parquet, train-00000-of-00002"
    ):
        load(folder, tmp_path / "mixed", "train")
    (folder / "data" / "my rows.parquet").write_bytes(whole)
    with pytest.raises(RecordError, match="the name says no split; expected <split>.parquet"):
        load(folder, tmp_path / "unnamed")
    shutil.rmtree(folder / "data")
    with pytest.raises(FileNotFoundError, match="holds nothing of source 'parquet'; expected data/<split>"):
        load(folder, tmp_path / "empty")


def test_an_id_that_is_there_twice_is_refused(folder, tmp_path):
    write(folder / "data" / "train-00001-of-00002.parquet", {"id": "0-1", "task": "scene_qa"})
    for number, options in enumerate(({}, {"num_proc": 2}, {"streaming": True})):
        with pytest.raises(RecordError, match="the id '0-1' is there twice in split 'train'"):
            list(load(folder, tmp_path / str(number), "train", **options))


DEPTH = {"depth": encode_png(np.zeros((3, 4), np.uint8)), "depth_scale": 1000}
BOX = {"center": [0, 0, 1], "size": [1, 1, 1], "euler": [0, 0, 0], "euler_order": "zxy", "frame": "camera"}


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"id": ""}, "id", "the id is ''"),
        ({"task": "guess"}, "task", "'guess' is not known; expected one of reconstruction"),
        ({"pose_frame": "world"}, "pose_frame", "'world' is not known"),
        ({"world_to_aligned": 2 * np.eye(4)}, "world_to_aligned", "no rigid transform"),
        ({"views": [{"camera_to_world": np.diag([1, 1, -1, 1])}]}, "views[0].camera_to_world", "determinant -1.0"),
        ({"views": [{}, DEPTH]}, "views[1].depth", "PIL mode 'L', expected 16 bits"),
        ({"views": [{"image": {"bytes": b"x", "path": None}}]}, "views[0].image", "no readable picture"),
        ({"boxes": [BOX, {**BOX, "size": [1, 0, 1]}]}, "boxes[1].size", "expected positive ones"),
        ({"boxes": [{**BOX, "euler": None}]}, "boxes[0].euler", "a box needs center, size and euler"),
        ({"boxes": [{**BOX, "euler_order": "xyz"}]}, "boxes[0].euler_order", "expected one of zxy, ZXY"),
        ({"boxes": [{**BOX, "frame_index": 1}]}, "boxes[0].frame_index", "the index is 1, but there are 1"),
        ({"points": [{"view": 3}]}, "points[0].view", "the index is 3, but there are 1"),
        ({"marks": [{"view": -1}]}, "marks[0].view", "the index is -1"),
        ({"target_frame": 1}, "target_frame", "the index is 1, but there are 1"),
        ({"choices": ["A"], "choice_index": 1}, "choice_index", "the index is 1, but there are 1"),
        ({"metadata": "{"}, "metadata", "it is no JSON"),
        ({"metadata": "[]"}, "metadata", "it is no JSON object"),
    ],
)
def test_a_bad_row_is_named_or_left_out(fields, field, message, tmp_path):
    row = {"id": "bad", "task": "scene_qa", "views": [{}], **fields}
    write(tmp_path / "set" / "train.parquet", {"id": "good", "task": "scene_qa"}, row)
    with pytest.raises(RecordError, match=message) as caught:
        load(tmp_path / "set", tmp_path, "train")
    assert caught.value.field == field and caught.value.record_id == (row["id"] or "train-0000001")
    report = tmp_path / "report.jsonl"
    kept = load(tmp_path / "set", tmp_path, "train", skip_bad_samples=True, report_file=report)
    assert kept["id"] == ["good"] and [event["field"] for event in read_report(report)] == [field]


def test_videos_without_views_are_said_with_what_helps(folder, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("gap_mllm.processing.data.sources.parquet.parquet_source.logger.warning_once", said.append)
    write(folder / "data" / "val-00000-of-00001.parquet", {"id": "v", "task": "video_qa", "video": "/a/b.mp4"})
    load(folder, tmp_path, "val")
    assert len(said) == 1 and "Convert their source again with max_views=N" in said[0]


def test_what_was_converted_can_be_converted_again(folder, tmp_path):
    convert_to_parquet("parquet", folder, tmp_path / "again", max_shard_size=1)
    assert len(list((tmp_path / "again" / "data").glob("train-*-of-00006.parquet"))) == 6
    assert stored(load(tmp_path / "again", tmp_path, "train")) == stored(load(folder, tmp_path, "train"))


def test_it_is_inspected_from_the_command_line(folder, tmp_path, capsys):
    from gap_mllm_cli import main

    words = ["data", "inspect", "parquet", "--data-dir", str(folder), "--output", str(tmp_path / "report"), "--strict"]
    assert main(words) == 0
    assert json.loads((tmp_path / "report" / "inspection.json").read_text())["splits"]["train"]["rows"] == 6
