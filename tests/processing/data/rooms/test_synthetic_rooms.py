"""The `datasets` builder: rows follow the schema and agree with the renderer, however they are made."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import gap_mllm.processing.data.rooms.synthetic_rooms as synthetic_rooms
from gap_mllm.processing.camera_geometry_gap_mllm import (
    euler_to_matrix,
    transform_points,
    unproject_depth,
    view_to_first_view,
)
from gap_mllm.processing.data import (
    ROOM_TASKS,
    SceneSample,
    SyntheticRooms,
    SyntheticRoomsConfig,
    make_question,
    render_room,
    room_seed,
    scene_features,
)
from gap_mllm.processing.data.augmentation import crop_views, flip_horizontally
from gap_mllm.processing.data.rooms.room_scenes import room_sample, scene_row, scene_views
from gap_mllm.processing.data.task_makers import make_tasks
from gap_mllm.processing.data.truth import render_answer


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
    assert json.loads(row["metadata"])["room_seed"] == scene.seed
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_rendering_works_without_datasets():
    code = """
import sys
from dataclasses import replace
sys.modules["datasets"] = None
import gap_mllm.processing.data as data
data.render_room(0, 2, 32, 32)
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


def test_a_question_about_a_room_is_a_sample_without_a_row(monkeypatch):
    """As arrays it says what its row says; nothing is encoded on the way."""
    room = render_room(3, 2, 48, 64)
    for task in ROOM_TASKS:
        with monkeypatch.context() as patch:
            patch.setattr("gap_mllm.processing.data.scene_sample.encode_png", None)
            sample = make_question(room, task)
            views = [(np.asarray(view.image), view.depth_m, view.size) for view in sample.views]
        stored = SceneSample.from_row(scene_row(room, sample, scene_views(room), "train", "r"))
        assert (sample.answer, sample.question, sample.task) == (stored.answer, stored.question, task)
        assert stored.metadata["description"] == sample.truth.description and stored.metadata["room_seed"] == 3
        assert render_answer(sample.truth) == sample.answer and stored.truth is None
        for (image, depth, size), view in zip(views, stored.views, strict=True):
            assert (image == np.asarray(view.image)).all() and size == view.size == (64, 48)
            assert np.abs(depth - view.depth_m).max() < 0.000501 and view.instances is None
        for box, other in zip(sample.boxes, stored.boxes, strict=True):
            assert np.abs(box.numbers - other.numbers).max() < 1e-5
            assert (box.label, box.frame_index, box.in_reference) == (other.label, 0, other.in_reference)
        assert sample.marks == stored.marks and sample.target_frame == stored.target_frame


def test_task_makers_ask_about_a_room():
    room = render_room(1, 4, 96, 128)
    made = make_tasks(room_sample(room), ("reconstruction", "detection3d", "grounding_box"))
    assert [sample.task for sample in made][:2] == ["reconstruction", "detection3d"]
    for item in made[1].truth.items:
        same_label = [
            box for label, box in zip(room.labels, room.boxes_in_first_view(), strict=True) if label == item.label
        ]
        assert min(np.abs(np.array(item.numbers[:6]) - box[:6]).max() for box in same_label) < 1e-9


def test_depth_in_metres_is_changed_like_a_stored_map():
    room = render_room(2, 2, 48, 64)
    flat = replace(room, depth_m=np.full_like(room.depth_m, 2.0))  # whole metres are metres, too
    for scene in (room, flat):
        flipped, cut = flip_horizontally(room_sample(scene)), crop_views(room_sample(scene), (8, 4, 32, 40))
        for view in range(2):
            assert (flipped.views[view].depth_m == scene.depth_m[view][:, ::-1]).all()
            assert (cut.views[view].depth_m == scene.depth_m[view][4:44, 8:40]).all()


def test_a_room_that_shows_no_furniture_is_stood_in_for(tmp_path, monkeypatch):
    """In one low view of train room 0 nothing but a wall can be seen."""
    warned = []
    monkeypatch.setattr(synthetic_rooms.logger, "warning", warned.append)
    shape = {"num_selection": 0, "num_test": 0, "num_views": 1, "height": 8, "width": 64}
    seeds = []
    for number in (2, 14):
        rooms = SyntheticRooms(
            num_train=number, tasks=("grounding_box", "reconstruction"), **shape, cache_dir=tmp_path
        )
        rooms.download_and_prepare()
        rows = rooms.as_dataset(split="train")
        assert rows["id"][:2] == ["train-000000-grounding_box-0", "train-000000-reconstruction-0"]
        seeds.append([json.loads(text)["room_seed"] for text in rows["metadata"]][::2])
        assert [json.loads(text)["room_seed"] for text in rows["metadata"]][1::2] == seeds[-1]  # all rows of one room
    assert seeds[1][:2] == seeds[0] and seeds[0][1] == room_seed("train", 1)
    assert seeds[0][0] in [room_seed("train", 0, attempt) for attempt in (1, 2, 3)]
    assert [index for index, seed in enumerate(seeds[1]) if seed != index] == [0, 12]
    assert "stand in for some of the 2 of split 'train': {'no object is clearly visible': " in warned[0]
