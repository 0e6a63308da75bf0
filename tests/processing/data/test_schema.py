"""The schema: completed rows are what is stored, through Arrow, parquet and streaming; every error names its field."""

import datasets
import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.data import complete_row, scene_features
from gap_mllm.processing.data.schema import TASKS
from gap_mllm.processing.data.source_files import encode_png


VIEW = {"image": None, "image_path": "a/1.jpg", "frame_id": 7, "timestamp": 0.1, "intrinsics": np.eye(3) / 3}


@pytest.fixture
def full_row():
    """A row with every field set."""
    colours = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    depth = np.array([[0, 1, 65535]], np.uint16)
    view = {
        **VIEW,
        "image": encode_png(colours),
        "depth": encode_png(depth),
        "depth_scale": 1000,
        "depth_intrinsics": np.eye(3),
        "camera_to_world": np.eye(4) / 3,
    }
    box = {"center": (0.1, 0.2, 0.3), "size": [1, 2, 3], "euler": np.zeros(3), "euler_order": "zxy"}
    box |= {"frame": "camera", "frame_index": 0, "label": "chair", "instance_id": 5, "role": "target"}
    point = {"view": 0, "pixel": (3, 1), "xyz": np.ones(3) / 3, "frame": "camera", "label": "wall"}
    mark = {"view": 0, "kind": "box", "color": "red", "xy": (1, 2, 3, 4), "unit": "permille", "text": "A"}
    texts = {name: f"a {name}" for name in ("source", "split", "task", "scene_id", "video", "pose_frame", "system")}
    return complete_row(
        id=3,
        **texts,
        question="Where?\n",
        answer=" Here ",
        views=[view],
        world_to_aligned=np.eye(4),
        references=("a", "b"),
        boxes=[{**box, "in_reference": np.True_}],
        points=[{**point, "instance_id": "w", "confidence": 0.3}],
        marks=[mark],
        target_frame=0,
        choices=["x", "y"],
        choice_index=1,
        number=0.1,
        question_type="type",
        metadata={"b": np.float32(0.5), "a": [None, "é"]},
    )


def test_every_field_is_there_and_none_is_invented():
    row = complete_row()
    assert list(row) == list(scene_features())
    lists = {name for name, value in row.items() if value == []}
    assert lists == {"views", "references", "boxes", "points", "marks", "choices"}
    assert all(row[name] is None for name in set(row) - lists)
    row = complete_row(views=[{}], boxes=[{}], points=[{}], marks=[{}])
    assert all(value is None for name in ("views", "boxes", "points", "marks") for value in row[name][0].values())


def test_all_fields_are_set_in_the_full_row(full_row):
    assert all(value not in (None, []) for value in full_row.values())
    for name in ("views", "boxes", "points", "marks"):
        assert all(value is not None for value in full_row[name][0].values()), name


def test_numbers_are_those_that_are_stored(full_row):
    view, box = full_row["views"][0], full_row["boxes"][0]
    assert view["intrinsics"][0][0] == float(np.float32(1 / 3)) and view["camera_to_world"][0][0] == 1 / 3
    assert box["center"] == [float(np.float32(value)) for value in (0.1, 0.2, 0.3)]
    assert (full_row["number"], full_row["id"], box["instance_id"], box["in_reference"]) == (0.1, "3", "5", True)
    assert full_row["metadata"] == '{"a": [null, "é"], "b": 0.5}'
    assert full_row["references"] == ["a", "b"] and full_row["marks"][0]["xy"] == [1.0, 2.0, 3.0, 4.0]
    assert (full_row["question"], full_row["answer"]) == ("Where?\n", " Here ")


@pytest.mark.parametrize("nulls_first", [True, False])
def test_rows_survive_arrow_parquet_and_streaming(full_row, nulls_first, tmp_path):
    rows = [complete_row(views=[{}], boxes=[{}], points=[{}], marks=[{}]), full_row, complete_row()]
    rows = rows if nulls_first else rows[::-1]
    made = datasets.Dataset.from_list(rows, features=scene_features())
    made.to_parquet(tmp_path / "rows.parquet")
    read = datasets.load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), cache_dir=tmp_path / "cache")
    streamed = datasets.load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), streaming=True)
    for table in (made, read["train"], streamed["train"]):
        assert table.features == scene_features()
        for row, expected in zip(table, rows, strict=True):
            for view, stored in zip(row["views"], expected["views"], strict=True):
                for name in ("image", "depth"):
                    picture, kept = view.pop(name), stored[name]
                    assert (picture is None) == (kept is None)
                    if kept:
                        assert np.array_equal(picture, datasets.Image().decode_example(kept))
                assert view == {name: value for name, value in stored.items() if name not in ("image", "depth")}
            others = set(expected) - {"views"}
            assert {name: row[name] for name in others} == {name: expected[name] for name in others}


def test_sixteen_bit_depth_stays_exact(full_row):
    table = datasets.Dataset.from_list([full_row], features=scene_features())
    depth = np.asarray(table[0]["views"][0]["depth"])
    assert depth.dtype == np.uint16 and depth.tolist() == [[0, 1, 65535]]


def test_torch_format_with_nulls(full_row):
    table = datasets.Dataset.from_list([complete_row(views=[{}], boxes=[{}]), full_row], features=scene_features())
    first, second = table.remove_columns("views").with_format("torch")
    assert second["boxes"][0]["center"].tolist() == full_row["boxes"][0]["center"]
    assert first["boxes"][0]["center"] is None


@pytest.mark.parametrize(
    "fields", [{"boxs": []}, {"views": [{"cam2world": 1}]}, {"boxes": [{"x": 1}]}, {"points": [{"x": 1}]}]
)
def test_an_unknown_field_is_refused(fields):
    with pytest.raises(KeyError, match="have no field|has no field"):
        complete_row(**fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"boxes": [{"center": (1, 2)}]}, r"boxes.center has shape \(2,\), expected \(3,\)"),
        ({"boxes": [{"center": ((1,), (1, 2), 3)}]}, r"boxes.center has shape \(\)"),
        ({"boxes": [{"center": (1, 2, None)}]}, "boxes.center is .* expected finite numbers"),
        ({"boxes": [{"size": (1, 2, float("nan"))}]}, "boxes.size is .* expected finite numbers"),
        ({"boxes": [{"in_reference": "no"}]}, "boxes.in_reference is 'no', expected True or False"),
        ({"boxes": [{"label": 0.5}]}, "boxes.label is a float, expected text"),
        ({"views": [{"camera_to_world": np.eye(3)}]}, r"views.camera_to_world has shape \(3, 3\), expected \(4, 4\)"),
        ({"views": [{"camera_to_world": np.full((4, 4), -np.inf)}]}, "views.camera_to_world is .* finite"),
        ({"views": [{"frame_id": 2.5}]}, "views.frame_id is 2.5, expected int32"),
        ({"views": {"frame_id": 2}}, "views is a dict, expected a list"),
        ({"points": [{"pixel": (1, 2, 3)}]}, r"points.pixel has shape \(3,\), expected \(2,\)"),
        ({"marks": [{"xy": ((1, 2), (3, 4))}]}, r"marks.xy has shape \(2, 2\)"),
        ({"target_frame": 2**40}, "target_frame is 1099511627776, expected int32"),
        ({"target_frame": [1]}, r"target_frame has shape \(1,\), expected one value"),
        ({"number": "3.5"}, "number is '3.5', expected finite numbers"),
        ({"references": "a text"}, "references is a str, expected a list"),
        ({"question": ["a"]}, "question is a list, expected text"),
        ({"answer": True}, "answer is a bool, expected text"),
        ({"metadata": {"a": {1}}}, "metadata cannot be stored as JSON: it holds a set"),
        ({"metadata": {"a": float("nan")}}, "metadata cannot be stored as JSON"),
    ],
)
def test_a_value_that_would_be_changed_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        complete_row(**fields)


def test_paths_are_stored_as_text(tmp_path):
    assert complete_row(video=tmp_path)["video"] == str(tmp_path)


def test_pictures_are_not_opened():
    picture = {"path": "none.jpg", "bytes": None}
    assert complete_row(views=[{"image": picture}])["views"][0]["image"] is picture
    image = Image.new("RGB", (2, 2))
    assert complete_row(views=[{"image": image}])["views"][0]["image"] is image


def test_tasks_are_named_once():
    assert len(set(TASKS)) == len(TASKS) and {"reconstruction", "detection3d", "video_qa"} <= set(TASKS)
