"""The `datasets` builder: rows follow the schema and agree with the renderer, however they are made."""

import json
import subprocess
import sys

import numpy as np
import pytest

from gap_mllm.processing.camera_geometry_gap_mllm import (
    euler_to_matrix,
    transform_points,
    unproject_depth,
    view_to_first_view,
)
from gap_mllm.processing.data import (
    ROOM_TASKS,
    SyntheticRooms,
    SyntheticRoomsConfig,
    render_room,
    room_seed,
    scene_features,
)


SMALL = {"num_train": 3, "num_selection": 1, "num_test": 2, "num_views": 2, "height": 32, "width": 48}


def same(first, second):
    """Equality of nested rows that hold arrays and pictures."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    if first is None or second is None:
        return first is second
    return np.array_equal(np.asarray(first), np.asarray(second))


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    builder = SyntheticRooms(**SMALL, questions_per_task=2, cache_dir=str(tmp_path_factory.mktemp("rooms")))
    builder.download_and_prepare()
    return builder


def test_rows_follow_the_schema(builder):
    rows = builder.as_dataset()
    assert {split: len(rows[split]) for split in rows} == {"train": 27, "selection": 9, "test": 18}
    assert rows["train"].features == scene_features()
    assert rows["train"][0]["id"] == "train-000000-reconstruction-0"
    assert len({row["id"] for row in rows["train"]}) == 27
    assert {row["task"] for row in rows["test"]} == set(ROOM_TASKS)


def test_a_row_holds_the_views_of_its_seed(builder):
    row = builder.as_dataset(split="test")[0]
    scene = render_room(room_seed("test", 0), 2, 32, 48)
    assert json.loads(row["metadata"])["seed"] == scene.seed
    for view, kept in enumerate(row["views"]):
        np.testing.assert_array_equal(np.asarray(kept["image"]), scene.images[view])
        depth = np.asarray(kept["depth"])
        assert depth.dtype == np.uint16
        np.testing.assert_allclose(depth / kept["depth_scale"], scene.depth_m[view], atol=0.00051)
        np.testing.assert_array_equal(kept["camera_to_world"], scene.camera_to_world[view])  # float64, no loss
        np.testing.assert_allclose(kept["intrinsics"], scene.intrinsics[view], rtol=1e-6)


def test_points_and_boxes_of_a_row_agree_with_its_depth_and_poses(builder):
    for row in builder.as_dataset(split="train"):
        depth = np.stack([np.asarray(view["depth"]) / view["depth_scale"] for view in row["views"]])
        intrinsics = np.array([view["depth_intrinsics"] for view in row["views"]])
        relative = view_to_first_view(np.array([view["camera_to_world"] for view in row["views"]]))
        points = transform_points(relative, unproject_depth(depth, intrinsics))
        for point, mark in zip(row["points"], row["marks"], strict=True):
            x, y = (int(value) for value in point["pixel"])
            assert mark["xy"] == point["pixel"] and mark["view"] == point["view"] and mark["unit"] == "pixel"
            np.testing.assert_allclose(points[point["view"], y, x], point["xyz"], atol=2e-3)
        for box in row["boxes"]:
            assert (box["euler_order"], box["frame"], box["frame_index"]) == ("zxy", "camera", 0)
            local = (points - box["center"]) @ euler_to_matrix(box["euler"], "zxy")
            inside = (np.abs(local) < np.array(box["size"]) / 2 + 2e-3).all(-1)
            assert inside.any()  # the views show something of it
            assert box["in_reference"] or not inside[0].all()


def test_streaming_gives_the_same_rows(builder):
    prepared, streamed = builder.as_dataset(split="train"), builder.as_streaming_dataset(split="train")
    assert streamed.num_shards == 3
    assert all(map(same, list(prepared), list(streamed)))


def test_two_processes_give_the_same_rows(builder, tmp_path):
    parallel = SyntheticRooms(**SMALL, questions_per_task=2, cache_dir=str(tmp_path))
    parallel.download_and_prepare(num_proc=2)
    assert all(map(same, list(builder.as_dataset(split="train")), list(parallel.as_dataset(split="train"))))


def test_torch_format_gives_tensors(builder):
    row = builder.as_dataset(split="train").with_format("torch")[1]
    assert row["views"]["image"].shape == (2, 3, 32, 48) if isinstance(row["views"], dict) else len(row["views"]) == 2


def test_a_larger_data_set_contains_the_smaller_one(builder, tmp_path):
    larger = SyntheticRooms(
        **{**SMALL, "num_train": 4, "num_selection": 0, "num_test": 0}, tasks=("detection3d",), cache_dir=str(tmp_path)
    )
    rows = list(larger.as_streaming_dataset(split="train"))
    small = [row for row in builder.as_dataset(split="train") if row["task"] == "detection3d"]
    assert len(rows) == 4 and all(map(same, rows[:3], small))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ("segmentation",)}, "expected one or more of"),
        ({"tasks": ()}, "expected one or more of"),
        ({"num_train": -1}, "num_train is -1"),
        ({"num_test": 100_001}, "num_test is 100001"),
        ({"num_views": 0}, "num_views is 0"),
        ({"questions_per_task": 0}, "questions_per_task 0"),
        ({"height": 7}, "7 x 128"),
    ],
)
def test_wrong_configurations_raise(change, message):
    with pytest.raises(ValueError, match=message):
        SyntheticRoomsConfig(**change)


def test_rendering_works_without_datasets():
    code = """
import sys
sys.modules["datasets"] = None
import gap_mllm.processing.data as data
data.make_question(data.render_room(0, 2, 32, 32), "detection3d")
try:
    data.SyntheticRooms
except ImportError:
    print("ImportError")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ImportError"


def test_unknown_names_of_the_package_raise():
    import gap_mllm.processing.data as data

    with pytest.raises(AttributeError, match="no attribute 'NoSuchRooms'"):
        data.NoSuchRooms  # noqa: B018
