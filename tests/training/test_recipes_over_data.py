"""Recipes over rows and rooms: epochs, evaluation sets, and a geometry encoder trained on any source with depth."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from gap_mllm.processing.data import (
    RecordError,
    RenderedRooms,
    RoomVariety,
    complete_row,
    load_multiview,
    make_question,
)
from gap_mllm.processing.data.rooms.room_scenes import room_views, scene_row, scene_views
from gap_mllm.training import SceneCollator, SceneGeometryDataset
from gap_mllm.training.point_targets import scene_targets
from gap_mllm.training.recipes import find_recipe
from gap_mllm.training.rooms import (
    ROOMS_PER_EPOCH,
    RoomQuestionDataset,
    RoomQuestions,
    collate_scenes,
)
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned
from gap_mllm.training.train_geometry_encoder import train_geometry_encoder
from gap_mllm_cli import main


FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
POSED = {"name": "scannet_posed", "data_dir": str(FORMATS / "scannet_posed_images")}
ROOMS = {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [2], "num_views_shares": [1.0]}


@pytest.fixture
def write_recipe(tmp_path, encoder_folder):
    """A function (changes) -> path of a small recipe and the flags to run it."""

    def write(**changes):
        recipe = yaml.safe_load(find_recipe("quickstart").read_text())
        recipe |= {"dataloader_num_workers": 0, "dataloader_persistent_workers": False, "frozen_geometry": {}}
        recipe |= {"per_device_train_batch_size": 2, "logging_steps": 1, "lr_scheduler_type": "constant"}
        recipe |= {"lr_scheduler_kwargs": {}, "geometry_encoder_path": str(encoder_folder), "use_cpu": True}
        recipe |= {"output_dir": str(tmp_path / "run"), "disable_tqdm": True, "max_steps": 2}
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(recipe | changes))
        return str(path)

    return write


def without_depth(samples):
    """Questions about a scene whose views have no depth maps, still the same for all."""
    views = tuple(replace(view, depth_picture=None) for view in samples[0].views)
    return [replace(sample, views=views) for sample in samples]


@pytest.fixture
def scenes(tmp_path):
    return load_multiview(**POSED, split="train", cache_dir=tmp_path / "cache")


# Epochs


@pytest.mark.slow
def test_rooms_train_for_epochs(write_recipe):
    questions = {"counts": {"reconstruction": 1}}
    recipe = write_recipe(variety=ROOMS, questions=questions, max_steps=-1, num_train_epochs=2, num_rooms=4)
    trainer, _ = train_geometry_aligned(recipe)
    assert trainer.state.global_step == 4 and len(trainer.train_dataset) == 4
    recipe = write_recipe(variety=ROOMS, questions=questions, max_steps=-1, num_train_epochs=0.002)
    trainer, _ = train_geometry_aligned(recipe, ["--output_dir", str(Path(recipe).parent / "other")])
    assert trainer.state.global_step == 2 and len(trainer.train_dataset) == ROOMS_PER_EPOCH


@pytest.mark.slow
def test_the_encoder_trains_for_epochs(tmp_path, encoder_config):
    recipe = {"encoder_config": encoder_config, "num_eval_scenes": 0, "report_to": "none", "use_cpu": True}
    recipe |= {"num_rooms": 2, "num_train_epochs": 1, "per_device_train_batch_size": 1, "disable_tqdm": True}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe | {"output_dir": str(tmp_path / "run")}))
    assert train_geometry_encoder(str(tmp_path / "mine.yaml")).state.global_step == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_steps", "0"], "max_steps is 0, which trains nothing; give 1 or more, or -1 for num_train_epochs"),
        (["--num_rooms", "0"], "num_rooms is 0; expected 1 or more"),
        (["--per_device_train_batch_size", "0"], "per_device_train_batch_size is 0; expected 1 or more"),
        (["--gradient_accumulation_steps", "0"], "gradient_accumulation_steps is 0; expected 1 or more"),
        (["--report_to", "clearml"], "report_to: ClearMLCallback requires 'clearml' to be installed"),
        (["--num_selection_rooms", "4"], "num_selection_rooms is 4, but eval_strategy is 'no'.*--eval_strategy steps"),
    ],
)
def test_what_would_train_or_evaluate_nothing_is_refused(write_recipe, flags, message, capsys):
    assert main(["train", write_recipe(), *flags]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1


def test_the_encoder_refuses_the_same(tmp_path, encoder_config, capsys):
    recipe = {"encoder_config": encoder_config, "output_dir": str(tmp_path / "run"), "use_cpu": True}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train-geometry-encoder", str(tmp_path / "mine.yaml"), "--max_steps", "0"]) == 2
    assert "max_steps is 0, which trains nothing" in capsys.readouterr().err


def test_chats_of_ones_own_train_from_the_command_line(write_recipe, tmp_path, capsys):
    data = {"name": "chat", "data_dir": str(FORMATS / "chat"), "media_dir": str(FORMATS / "vsi590k")}
    data |= {"max_views": 2, "cache_dir": str(tmp_path / "cache")}
    assert main(["train", write_recipe(data=data, collation={"max_view_pixels": 64 * 64})]) == 0
    losses = [float(loss) for loss in re.findall(r"loss_text ([^,]*)", capsys.readouterr().out)]
    assert len(losses) == 2 and all(0 < loss < 100 for loss in losses)


@pytest.mark.slow
def test_rooms_train_as_a_source_like_any_other(write_recipe):
    data = {"name": "rendered_rooms", "num_rooms": 4, "variety": ROOMS, "split": "train"}
    tasks = {"tasks": ["reconstruction", "camera_path"], "questions_per_scene": 2}
    trainer, _ = train_geometry_aligned(write_recipe(data=data, scene_tasks=tasks))
    losses = [entry["loss_text"] for entry in trainer.state.log_history if "loss_text" in entry]
    assert len(losses) == 2 and losses[1] < losses[0]
    item = trainer.train_dataset[3]
    assert len(trainer.train_dataset) == 4 and {sample.scene_id for sample in item} == {item[0].scene_id}
    assert {sample.metadata["maker"] for sample in item} <= {"reconstruction", "camera_path"}
    assert [view.size for view in item[0].views] == [(64, 64)] * 2


# Evaluation sets


@pytest.mark.slow
def test_evaluation_rows_are_asked_the_same_every_time(write_recipe, tmp_path):
    data = {**POSED, "cache_dir": str(tmp_path / "cache")}
    recipe = write_recipe(
        data=data,
        eval_data={"split": "val"},
        scene_tasks={"tasks": ["reconstruction"], "num_views": 2, "length": 4},
        collation={"max_view_pixels": 64 * 64},
        eval_strategy="steps",
        eval_steps=1,
        point_map_weight=1.0,
    )
    trainer, _ = train_geometry_aligned(recipe)
    entries = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["step"] for entry in entries] == [1, 2]
    for entry in entries:
        weighted = sum(weight * entry[f"eval_loss_{name}"] for name, weight in trainer.term_weights.items() if weight)
        assert entry["eval_loss"] == pytest.approx(weighted, rel=1e-5) and entry["eval_loss_point_map"] > 0
    asked = [sample.to_row() for sample in (trainer.eval_dataset[0], trainer.eval_dataset[0])]
    assert asked[0] == asked[1] and asked[0]["split"] == "val"
    assert len(trainer.eval_dataset) == len(load_multiview(**data, split="val"))
    again = trainer.evaluate()
    assert again["eval_loss_text"] == entries[1]["eval_loss_text"]


def test_the_evaluation_loss_does_not_depend_on_batches(make_pretraining_model, make_trainer, tiny_processor):
    variety = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(1, 2), num_views_shares=(0.5, 0.5))
    rooms = RoomQuestionDataset(RenderedRooms("train", 3, variety, 1), RoomQuestions(counts={"reconstruction": 2}))
    items = [rooms[index] for index in range(3)]
    items[2] = without_depth(items[2])
    model, found = make_pretraining_model(), []
    collate = SceneCollator(
        tiny_processor, "block_mask", for_pretraining=True, point_map_side=model.config.point_map_side
    )
    for batch_size in (1, 2, 3):
        trainer = make_trainer(
            model,
            items,
            collate,
            per_device_eval_batch_size=batch_size,
            point_map_weight=1.0,
            readout_weight=1.0,
        )
        found.append(trainer.evaluate(items))
    for other in found[1:]:
        for name in ("eval_loss", "eval_loss_text", "eval_loss_point_map", "eval_loss_readout"):
            assert other[name] == pytest.approx(found[0][name], rel=1e-4), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_data": {"split": "val"}, "data": POSED}, r"eval_data is .*, but eval_strategy is 'no'"),
        ({"eval_data": POSED, "eval_strategy": "steps"}, "eval_data goes with data"),
        ({"data": POSED, "eval_data": {"streaming": True}, "eval_strategy": "steps"}, "has streaming=True"),
    ],
)
def test_evaluation_data_that_would_not_serve_is_refused(write_recipe, changes, message):
    with pytest.raises(ValueError, match=message):
        train_geometry_aligned(write_recipe(**changes))


@pytest.mark.slow
def test_a_recipe_streams(write_recipe):
    recipe = write_recipe(
        data={**POSED, "streaming": True},
        scene_tasks={"tasks": ["reconstruction"], "num_views": 2},
        collation={"max_view_pixels": 64 * 64},
    )
    trainer, _ = train_geometry_aligned(recipe)
    losses = [entry["loss_text"] for entry in trainer.state.log_history if "loss_text" in entry]
    assert len(losses) == 2 and losses[1] < losses[0]


# The geometry encoder on rows


def test_the_encoder_trains_on_rows(tmp_path, encoder_config, capsys):
    recipe = {"encoder_config": encoder_config, "report_to": "none", "use_cpu": True, "logging_steps": 1}
    recipe |= {
        "per_device_train_batch_size": 2,
        "max_steps": 2,
        "scenes": {"num_views": 3, "max_view_pixels": 64 * 64},
    }
    recipe |= {"eval_data": {"split": "val"}, "eval_strategy": "epoch"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    flags = ["--output_dir", str(tmp_path / "run"), "--disable_tqdm", "true"]
    flags += ["--data", json.dumps({**POSED, "cache_dir": str(tmp_path)})]
    assert main(["train-geometry-encoder", str(tmp_path / "mine.yaml"), *flags]) == 0
    output = capsys.readouterr().out
    assert "loss_points " in output and "eval_loss_depth " in output
    state = json.loads((tmp_path / "run" / "provenance.json").read_text())["settings"]
    assert state["data"]["name"] == "scannet_posed" and not (tmp_path / "run" / "metrics.json").exists()


def test_targets_of_rows_are_on_the_rays_of_their_pictures(scenes):
    dataset = SceneGeometryDataset(scenes, 6, patch_size=14, num_views=3, max_view_pixels=64 * 96)
    for index in range(6):
        item = dataset[index]
        height, width = item["images"][0].shape[1:]
        assert height % 14 == width % 14 == 0 and (height // 14) * (width // 14) * 256 <= 64 * 96
        torch.testing.assert_close(item["points"][0][..., 2].nan_to_num(), item["depth"][0])  # its own camera
        assert 0 <= item["images"][0].min() and item["images"][0].max() <= 1 and item["valid"][0].any()
    again = SceneGeometryDataset(scenes, 6, patch_size=14, num_views=3, max_view_pixels=64 * 96)[5]
    assert torch.equal(again["pose_enc"][2], item["pose_enc"][2]) and torch.equal(
        again["images"][1], item["images"][1]
    )


def test_rows_and_rooms_have_the_same_targets():
    """A room as a row of the schema gives what `scene_targets` makes of it."""
    variety = RoomVariety(sizes=((64, 96),), size_shares=(1.0,), color_strength=0.0)
    scene, _ = RenderedRooms("train", 1, variety).render(0)
    row = scene_row(scene, make_question(scene, "reconstruction"), scene_views(scene), "train", "room")
    item = SceneGeometryDataset([complete_row(**row)])[0]
    expected = scene_targets(room_views(scene), [(56, 84)] * len(scene.images))
    for name, value in expected.items():
        torch.testing.assert_close(item[name], value, atol=2e-3, rtol=1e-3, equal_nan=True, msg=name)


def test_views_without_geometry_are_left_out_and_counted(scenes):
    row = scenes[0]
    lacking = {
        **row,
        "views": [{**view, "depth": None} if place < 2 else view for place, view in enumerate(row["views"])],
    }
    item = SceneGeometryDataset([lacking], max_view_pixels=64 * 64)[0]
    assert item["views_without_depth"] == 2 and len(item["images"]) == len(row["views"]) - 2
    whole = SceneGeometryDataset([row], num_views=3, max_view_pixels=64 * 64)[0]
    batch = collate_scenes([item, whole])
    assert (
        batch["collation_counts"].tolist() == [0, 0, 2, 0, 0, 0, 0, 0]
        and len(batch["images"]) == len(row["views"]) + 1
    )
    bare = {**row, "views": [{**view, "camera_to_world": None} for view in row["views"]]}
    with pytest.raises(RecordError, match=r"none of its \d+ views has depth, intrinsics and a pose"):
        SceneGeometryDataset([bare])[0]


def test_rows_that_cannot_be_indexed_are_refused(scenes):
    with pytest.raises(TypeError, match="rows is a IterableDataset, without number and places"):
        SceneGeometryDataset(load_multiview(**POSED, split="train", streaming=True))
    with pytest.raises(ValueError, match="there are no rows"):
        SceneGeometryDataset([])
    with pytest.raises(ValueError, match="num_views"):
        SceneGeometryDataset(scenes, num_views=0)
