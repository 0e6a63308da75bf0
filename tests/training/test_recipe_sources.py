"""Recipes over several sources: shares, limits, curricula, named evaluation sets; errors before anything is read."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from gap_mllm.training.mixtures import MixedDataset
from gap_mllm.training.recipe_sources import read_evaluation, read_sources
from gap_mllm.training.recipes import find_recipe
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned
from gap_mllm.training.train_geometry_encoder import train_geometry_encoder
from gap_mllm_cli import main


FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
POSED = {"name": "scannet_posed", "data_dir": str(FORMATS / "scannet_posed_images")}
QUESTIONS = {"name": "gap_mllm", "data_dir": str(FORMATS / "gap_mllm"), "tasks": ["reconstruction"]}
VARIETY = {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [2], "num_views_shares": [1.0]}
ROOMS = {"name": "rendered_rooms", "num_rooms": 6, "variety": VARIETY}


@pytest.fixture
def write_recipe(tmp_path, encoder_folder):
    """A function (changes) -> path of a small recipe and the flags to run it."""

    def write(**changes):
        recipe = yaml.safe_load(find_recipe("quickstart").read_text())
        for key in ("questions", "variety"):
            recipe.pop(key)
        recipe |= {"dataloader_num_workers": 0, "dataloader_persistent_workers": False, "frozen_geometry": {}}
        recipe |= {"per_device_train_batch_size": 2, "logging_steps": 1, "lr_scheduler_type": "constant"}
        recipe |= {"lr_scheduler_kwargs": {}, "geometry_encoder_path": str(encoder_folder), "use_cpu": True}
        recipe |= {"output_dir": str(tmp_path / "run"), "disable_tqdm": True, "max_steps": 3}
        recipe |= {"collation": {"max_views": 3, "max_view_pixels": 64 * 64}}
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(recipe | changes, sort_keys=False))
        return str(path)

    return write


@pytest.fixture
def sources(tmp_path):
    """Scans and rooms that are asked, and rows that bring their questions."""
    cache = {"cache_dir": str(tmp_path / "cache")}
    return {
        "scans": {**POSED, **cache, "weight": 2.0, "scene_tasks": {"tasks": ["reconstruction"]}},
        "rooms": {**ROOMS, "weight": {0: 1.0, 0.5: 4.0}, "scene_tasks": {"tasks": ["camera_path"]}},
        "questions": {**QUESTIONS, **cache, "limit": 2},
    }


@pytest.mark.slow
def test_several_sources_train_in_one_run(write_recipe, sources, tmp_path):
    recipe = write_recipe(data=sources, scene_tasks={"num_views": 2}, augmentation={"flip_probability": 0.5})
    trainer, _ = train_geometry_aligned(recipe)
    losses = [entry["loss_text"] for entry in trainer.state.log_history if "loss_text" in entry]
    assert len(losses) == 3 and all(0 < loss < 100 for loss in losses)
    mixed = trainer.train_dataset
    assert isinstance(mixed, MixedDataset) and len(mixed) == 6  # items of the run
    assert trainer.args.train_sampling_strategy == "sequential"  # so that the weights follow it
    state = json.loads((tmp_path / "run" / "provenance.json").read_text())["settings"]
    assert state["data"]["rooms"]["weight"] == {"0": 1.0, "0.5": 4.0}
    mixed = MixedDataset(
        {name: each.items for name, each in mixed._rounds.items()}, mixed.weights, {"questions": 2}, 90
    )
    made, count = Counter(), mixed.count_items()
    questions = set()
    for index in range(90):
        sample = mixed[index]
        made[sample.metadata.get("maker", "its own")] += 1
        if "maker" not in sample.metadata:
            questions.add(sample.id)
        else:
            assert len(sample.views) <= 2
    assert made == {"reconstruction": count["scans"], "camera_path": count["rooms"], "its own": count["questions"]}
    assert min(count.values()) > 5 and len(questions) == 2


@pytest.mark.slow
def test_the_same_command_goes_on_with_the_same_items(write_recipe, sources, tmp_path):
    recipe = write_recipe(data=sources, scene_tasks={"num_views": 2}, save_strategy="steps", save_steps=2, max_steps=4)
    flags = ["--output_dir", str(tmp_path / "whole")]
    whole, _ = train_geometry_aligned(recipe, flags)
    for path in (tmp_path / "whole").iterdir():  # as if killed behind step 2
        if path.is_file():
            path.unlink()
    (tmp_path / "whole" / "checkpoint-4").rename(tmp_path / "later")
    again, _ = train_geometry_aligned(recipe, flags)
    logged = [[entry["loss"] for entry in each.state.log_history if "loss" in entry] for each in (whole, again)]
    assert len(logged[0]) == 4 and logged[0] == logged[1]


@pytest.mark.slow
def test_streams_rooms_and_rows_train_together(write_recipe, sources):
    sources["scans"] |= {"streaming": True, "limit": 1}
    recipe = write_recipe(data=sources, scene_tasks={"num_views": 2})
    trainer, _ = train_geometry_aligned(recipe)
    losses = [entry["loss_text"] for entry in trainer.state.log_history if "loss_text" in entry]
    assert len(losses) == 3 and trainer.train_dataset.length == 6
    scans = trainer.train_dataset.sources["scans"]
    assert len({sample.scene_id for sample in scans}) == 1


@pytest.mark.slow
def test_one_source_follows_a_curriculum(write_recipe, tmp_path):
    tasks = {"camera_path": {0: 1.0, 0.5: 0.0, "kind": "step"}, "reconstruction": {0: 0.0, 0.5: 1.0, "kind": "step"}}
    trainer, _ = train_geometry_aligned(write_recipe(data=ROOMS, scene_tasks={"tasks": tasks}, max_steps=4))
    assert [trainer.train_dataset[index].metadata["maker"] for index in range(8)] == (
        ["camera_path"] * 4 + ["reconstruction"] * 4
    )


def test_the_encoder_trains_on_several_sources(tmp_path, encoder_config):
    recipe = {"encoder_config": encoder_config, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    recipe |= {"max_steps": 2, "per_device_train_batch_size": 2, "output_dir": str(tmp_path / "run")}
    recipe |= {"scenes": {"num_views": 2, "max_view_pixels": 64 * 64}, "eval_strategy": "epoch"}
    scans = {**POSED, "cache_dir": str(tmp_path / "cache"), "scenes": {"num_views": 1}, "limit": 1}
    recipe |= {"data": {"scans": scans, "rooms": ROOMS}, "eval_data": {"scans": {}, "rooms": {"num_rooms": 1}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    trainer = train_geometry_encoder(str(tmp_path / "mine.yaml"))
    dataset = trainer.train_dataset
    shown = {len(dataset[index]["images"]) for index in range(len(dataset))}
    assert shown <= {1, 2} and len(dataset) == 4
    logged = {key for entry in trainer.state.log_history for key in entry}
    assert {"eval_scans_loss_depth", "eval_rooms_loss_depth", "eval_scans_loss", "eval_rooms_loss"} <= logged


# Evaluation sets


@pytest.mark.slow
def test_evaluation_sets_have_names(write_recipe, sources):
    recipe = write_recipe(
        data=sources,
        eval_data={"scans": {"limit": 1}, "near": {**ROOMS, "num_rooms": 2, "scene_tasks": {"num_views": 1}}},
        scene_tasks={"num_views": 2},
        eval_strategy="steps",
        eval_steps=3,
    )
    asked = []
    trainer, _ = train_geometry_aligned(recipe, scorer=lambda model: asked.append(model) or {"score": 0.5})
    logged = {key for entry in trainer.state.log_history for key in entry}
    assert {"eval_scans_loss", "eval_near_loss", "eval_scans_loss_text", "eval_near_loss_text"} <= logged
    assert len(asked) == 1 and {key for key in logged if key.endswith("_score")} == {"eval_score"}
    scans, near = trainer.eval_dataset["scans"], trainer.eval_dataset["near"]
    assert (len(scans), len(near), len(scans[0].views), len(near[0].views)) == (1, 2, 2, 1)
    assert scans[0].split == "val" and near[0].split == "selection"
    assert scans[0].metadata["maker"] == "reconstruction"  # as the source of this name is asked


def test_forms_of_sources_are_told_apart():
    assert read_sources({}) == {} and read_sources(POSED) == {"": POSED}
    assert list(read_sources({"scans": POSED, "rooms": ROOMS})) == ["scans", "rooms"]
    assert list(read_sources({"scene_tasks": {"num_views": 2}})) == [""]
    one = read_evaluation({**POSED, "split": "train", "streaming": True, "limit": 3}, {"limit": 2})
    assert one == {"": {**POSED, "split": "val", "limit": 2}}
    assert read_evaluation(POSED, {}) == {}


# What is refused before anything is read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"scans": {**POSED, "wieght": 2}}},
            "data.scans has the unknown key 'wieght' .did you mean 'weight'",
        ),
        ({"data": {"scans": {**POSED, "frame_skp": 2}}}, "data.scans has the unknown key 'frame_skp'"),
        ({"data": {"scans": {"data_dir": "D"}, "rooms": ROOMS}}, "data.scans has no name: give the source"),
        ({"data": {"scans": {**POSED, "name": "scannet_pose"}}}, "unknown source 'scannet_pose'"),
        (
            {"data": {"scans": {**POSED, "weight": -1}}},
            "data.scans.weight is -1; expected a finite number",
        ),
        ({"data": {"scans": {**POSED, "weight": {0: 1, 0.5: 0}}}}, "data has no weight above 0 when 0.5 of the run"),
        ({"data": {"scans": {**POSED, "weight": {0: 1, "kind": "stp"}}}}, "data.scans.weight: kind is 'stp' .did you"),
        ({"data": {"scans": {**POSED, "weight": {0.5: 1, 0: 2}}}}, "data.scans.weight: the shares of the run are"),
        ({"data": {"scans": {**POSED, "limit": 0}}}, "data.scans.limit is 0; expected 1 or more"),
        (
            {"data": {"scans": {**POSED, "scene_tasks": {"num_view": 2}}}},
            "data.scans.scene_tasks has the unknown key 'num_view' .did you mean 'num_views'",
        ),
        ({"data": {"scans": {**POSED, "scene_tasks": {"length": 2}}}}, "data.scans.scene_tasks has the unknown key"),
        ({"data": {"scans": {**POSED, "scenes": {}}}}, "data.scans has the unknown key 'scenes'"),
        ({"data": POSED, "scene_tasks": {"tasks": {"recontruction": 1}}}, r"tasks is \['recontruction'\]; expected"),
        ({"data": POSED, "scene_tasks": {"tasks": {"reconstruction": 0}}}, "tasks has no weight above 0"),
        ({"data": {**POSED, "weight": 2.0}}, "data has the unknown key 'weight'"),
        ({"data": POSED, "eval_data": {"near": {"splt": "val"}}}, "eval_data.near has the unknown key 'splt'"),
        (
            {"data": {"scans": POSED, "rooms": ROOMS}, "eval_data": {"others": {}}, "eval_strategy": "epoch"},
            "eval_data.others has no name",
        ),
        (
            {"data": POSED, "eval_data": {"near": {"streaming": True}}, "eval_strategy": "epoch"},
            "eval_data has streaming=True",
        ),
        (
            {"data": {"scans": {**POSED, "weight": {0: 1, 1: 2}}}, "max_steps": -1, "num_train_epochs": 2},
            "weights follow the run, but each of its 2 epochs would begin them again. Give --max_steps",
        ),
        (
            {"data": POSED, "scene_tasks": {"tasks": {"reconstruction": {0: 1, 1: 2}}}, "max_steps": -1},
            "weights follow the run, but each of its 3 epochs",
        ),
        ({"data": [POSED]}, r"data is \[.*; expected a mapping"),
    ],
)
def test_misspelt_sources_are_named(write_recipe, changes, message, capsys):
    assert main(["train", write_recipe(**changes)]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1, error


def test_a_flag_reaches_one_source(write_recipe, tmp_path):
    recipe = write_recipe(
        data={"scans": {"name": "scannet_posed"}, "rooms": ROOMS}, scene_tasks={"tasks": ["reconstruction"]}
    )
    flags = ["--data.scans.data_dir", POSED["data_dir"], "--data.scans.cache_dir", str(tmp_path / "cache")]
    trainer, _ = train_geometry_aligned(recipe, [*flags, "--data.rooms.weight", "0"])
    assert trainer.train_dataset.count_items() == {"scans": 6, "rooms": 0}
