"""Questions drawn from scenes: deterministic, new in every round, and ready for the collator."""

import dataclasses
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from PIL import ImageFile

from gap_mllm.processing.answers_gap_mllm import parse_points
from gap_mllm.processing.camera_geometry_gap_mllm import project_points
from gap_mllm.processing.data import (
    RecordError,
    SceneSample,
    load_multiview,
    make_question,
    render_room,
    scene_features,
)
from gap_mllm.processing.data.augmentation import AugmentationConfig, SceneAugmentation
from gap_mllm.processing.data.rooms.room_scenes import scene_row, scene_views
from gap_mllm.processing.data.truth import render_answer
from gap_mllm.training.recipes import find_recipe
from gap_mllm.training.scene_collator import SceneCollator
from gap_mllm.training.scene_questions import OpenedRows, SceneQuestionDataset
from gap_mllm_cli import main


FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
POSED = {"name": "scannet_posed", "data_dir": str(FORMATS / "scannet_posed_images")}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return load_multiview(**POSED, split="train", cache_dir=tmp_path_factory.mktemp("cache"))


def test_items_are_always_the_same_and_rounds_differ(scenes):
    dataset, again = (SceneQuestionDataset(scenes, 12, ("reconstruction",), num_views=3) for _ in range(2))
    samples = [dataset[index] for index in range(12)]
    for index in (11, 0, 5):
        assert again[index].id == samples[index].id and again[index].answer == samples[index].answer
    assert len({sample.answer for sample in samples}) > 6 and len({sample.id for sample in samples}) == 12
    assert {len(sample.views) for sample in samples} == {3}
    with pytest.raises(IndexError, match="item 12 of 12"):
        dataset[12]


def test_marked_pixels_see_the_answered_points(scenes):
    dataset = SceneQuestionDataset(scenes, 8, ("reconstruction",), num_views=4)
    for index in range(len(dataset)):
        sample = dataset[index]
        point = dataclasses.replace(sample.points[0], xyz=np.array(parse_points(sample.answer).first.point))
        pixel, _ = project_points(sample.point_in_view(point, point.view), sample.views[point.view].intrinsics)
        assert np.abs(pixel - point.pixel).max() < 2  # two decimals in the answer


def test_views_keep_their_distance(scenes):
    frames = [view["frame_id"] for view in scenes[0]["views"]]
    dataset = SceneQuestionDataset(scenes, 20, ("reconstruction",), num_views=4, max_stride=2)
    strides = set()
    for index in range(20):
        places = [frames.index(view.frame_id) for view in dataset[index].views]
        assert len(set(np.diff(places).tolist())) == 1
        strides.add(places[1] - places[0])
    assert strides == {1, 2}


def test_augmented_samples_go_into_batches(scenes, tiny_processor):
    augmentation = SceneAugmentation(AugmentationConfig(flip_probability=1.0))
    dataset = SceneQuestionDataset(scenes, 4, num_views=2, augmentation=augmentation)
    batch = SceneCollator(tiny_processor, max_view_pixels=64 * 64)([dataset[index] for index in range(4)])
    assert len(batch["scene_lengths"]) == 4
    assert all("augmentation" in dataset[index].metadata for index in range(4))


@pytest.fixture
def decoded(monkeypatch):
    """Modes of the pictures that are decoded from files or bytes, as they are."""
    modes, load = [], ImageFile.ImageFile.load

    def count(image):
        if image.tile:
            modes.append("depth" if image.mode.startswith("I") else "colors")
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", count)
    return modes


def long_scan(tmp_path, num_frames=60):
    """A scan as `datasets` holds it: every picture a file of its own."""
    scene = render_room(0, 4, 48, 48)
    views = []
    for number in range(num_frames):
        view = scene_views(scene)[number % 4]
        for name in ("image", "depth"):
            path = tmp_path / f"{number}-{name}.png"
            path.write_bytes(view[name]["bytes"])
            view[name] = {"path": str(path), "bytes": None}
        views.append({**view, "frame_id": number})
    row = scene_row(scene, make_question(scene, "detection3d"), views, "train", "scan")
    features = scene_features()
    return datasets.Dataset.from_list([{**row, "task": "scene", "answer": None, "metadata": None}], features=features)


def test_only_the_views_that_are_asked_about_are_decoded(tmp_path, tiny_processor, decoded):
    rows = long_scan(tmp_path)
    for rows_as_used in (rows, rows.with_format("torch")):
        sample = SceneQuestionDataset(rows_as_used, tasks=("reconstruction",), num_views=4)[0]
        assert len(sample.views) == 4 and Counter(decoded) == {"depth": 4}  # the maker looks at no colours
        SceneCollator(tiny_processor, for_pretraining=True, point_map_side=2)([sample])
        assert Counter(decoded) == {"depth": 4, "colors": 4}
        decoded.clear()
    assert Counter(decoded) == {}
    _ = rows[0]
    assert Counter(decoded) == {"depth": 60, "colors": 60}  # what a user who takes a row gets


def test_rows_with_questions_are_thinned_before_they_are_decoded(tmp_path, tiny_processor, decoded):
    scan = long_scan(tmp_path, 20)[0]
    fields = {"task": "scene_qa", "question": "What is soft?", "answer": "The bed."}
    rows = datasets.Dataset.from_list([{**scan, **fields}], features=scene_features())
    decoded.clear()
    batch = SceneCollator(tiny_processor, max_views=3)([OpenedRows(rows)[0]])
    assert len(batch["image_grid_thw"]) == 3 and Counter(decoded) == {"colors": 3}


def test_a_sample_stays_a_sample_until_it_is_a_batch(scenes, tiny_processor, monkeypatch):
    """No row is made and no picture encoded between the reader and the batch, whatever is done in between."""

    def refuse(*args, **kwargs):
        raise AssertionError("a row was made of a sample")

    monkeypatch.setattr(SceneSample, "to_row", refuse)
    monkeypatch.setattr("gap_mllm.processing.data.scene_sample.encode_png", refuse)
    config = AugmentationConfig(flip_probability=1.0, reorder_probability=1.0, crop_probability=1.0)
    dataset = SceneQuestionDataset(scenes, 3, num_views=4, augmentation=SceneAugmentation(config))
    collator = SceneCollator(tiny_processor, max_views=4, max_view_pixels=64 * 64, for_pretraining=True)
    assert len(collator([dataset[index] for index in range(3)])["scene_lengths"]) == 3


def test_rendered_rooms_are_rows_like_any_others(tiny_processor):
    """Nothing is stored; several questions share the views of a room, which are drawn when the item is."""
    rooms = load_multiview(
        "rendered_rooms", split="train", num_rooms=6, variety={"sizes": [[64, 64]], "size_shares": [1]}
    )
    dataset = SceneQuestionDataset(rooms, 12, num_views=2, questions_per_scene=3)
    items = [dataset[index] for index in range(12)]
    assert [item[0].answer for item in items[:2]] == [dataset[index][0].answer for index in range(2)]
    assert len({sample.question_type for item in items for sample in item}) > 8
    assert items[0][0].scene_id == items[6][0].scene_id and items[0][0].id != items[6][0].id
    batch = SceneCollator(tiny_processor, for_pretraining=True, point_map_side=2)(items[:3])
    assert batch["point_map_targets"].isfinite().all()


def test_other_rooms_stand_in_for_those_that_nothing_can_be_asked_about():
    """A single low view often shows no object clearly."""
    variety = {"sizes": [[8, 64]], "size_shares": [1], "num_views": [1], "num_views_shares": [1]}
    rooms = load_multiview("rendered_rooms", split="train", num_rooms=24, variety=variety)
    dataset = SceneQuestionDataset(rooms, tasks=("grounding_box",))
    asked = [dataset[index].scene_id for index in range(24)]
    stood_in_for = [index for index in range(24) if asked[index] != rooms[index].scene_id]
    assert 2 < len(stood_in_for) < 20 and [dataset[index].scene_id for index in range(24)] == asked


def test_scenes_are_changed_before_they_are_asked_about(scenes):
    """Nothing that is asked can speak against a change: no step is refused, and answers are of the changed views."""
    config = AugmentationConfig(drop_probability=1.0, reorder_probability=1.0, flip_probability=1.0)
    dataset = SceneQuestionDataset(scenes, 12, num_views=4, augmentation=SceneAugmentation(config))
    for index in range(12):
        sample = dataset[index]
        log = sample.metadata["augmentation"]
        assert "flip_horizontally" in log["done"] and not set(log["refused"]) - {"crop_views"}
        assert sample.answer == render_answer(sample.truth)
        assert np.linalg.det(sample.views[0].camera_to_world[:3, :3]) > 0.999


def test_questions_of_a_source_are_kept(tmp_path):
    rows = load_multiview("gap_mllm", FORMATS / "gap_mllm", "train", tasks=["reconstruction"], cache_dir=tmp_path)
    dataset = SceneQuestionDataset(rows)
    assert [dataset[index].answer for index in range(len(dataset))] == [row["answer"] for row in rows]


def test_a_scene_that_allows_no_question_is_named(scenes):
    bare = [{**row, "views": [{**view, "depth": None} for view in row["views"]]} for row in scenes]
    with pytest.raises(
        RecordError, match=r"no question could be asked about this scene in 24 tries: reconstruction: "
    ):
        SceneQuestionDataset(bare, tasks=("reconstruction",), num_views=2)[0]


def test_bad_arguments_are_refused(scenes):
    with pytest.raises(ValueError, match=r"tasks is \['cooking'\]; expected one or more of reconstruction"):
        SceneQuestionDataset(scenes, tasks=("cooking",))
    with pytest.raises(ValueError, match="num_views is 0"):
        SceneQuestionDataset(scenes, num_views=0)
    with pytest.raises(ValueError, match="there are no rows"):
        SceneQuestionDataset([])


def test_a_recipe_asks_about_scenes(tmp_path, encoder_folder, capsys):
    recipe = yaml.safe_load(find_recipe("quickstart").read_text()) | {"data": {**POSED, "cache_dir": str(tmp_path)}}
    recipe |= {"scene_tasks": {"tasks": ["reconstruction", "detection3d"], "num_views": 2}}
    recipe |= {"augmentation": {"flip_probability": 0.5}, "collation": {"max_view_pixels": 64 * 64}}
    recipe |= {"max_steps": 2, "dataloader_num_workers": 0, "dataloader_persistent_workers": False}
    recipe |= {"per_device_train_batch_size": 2, "logging_steps": 1}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    flags = [
        "--output_dir",
        str(tmp_path / "run"),
        "--geometry_encoder_path",
        str(encoder_folder),
        "--use_cpu",
        "true",
    ]
    assert main(["train", str(tmp_path / "mine.yaml"), *flags, "--lr_scheduler_kwargs", '{"num_decay_steps": 1}']) == 0
    assert "loss_point_map" in capsys.readouterr().out
