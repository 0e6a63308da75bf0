"""Recipes: found by name or path, overridden by flags, and refused where a key is unknown."""

import json
import shutil
from pathlib import Path

import pytest
import transformers
import yaml
from safetensors.torch import load_file
from transformers import HfArgumentParser

from gap_mllm import GapMllmForConditionalGeneration, GapMllmVggtForReconstruction
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.data import render_room
from gap_mllm.processing.data.video_labels import label_video
from gap_mllm.training.geometry_aligned_trainer import GeometryAlignedTrainingArguments
from gap_mllm.training.geometry_encoder_trainer import GeometryEncoderTrainingArguments
from gap_mllm.training.provenance import describe_run
from gap_mllm.training.recipes import RECIPE_FOLDER, find_recipe, read_recipe
from gap_mllm.training.rooms import RoomQuestions, RoomVariety
from gap_mllm.training.train_geometry_aligned import GeometryAlignedModelArguments, training_views
from gap_mllm.training.train_geometry_encoder import GeometryEncoderArguments
from gap_mllm_cli import main
from tests.processing.data.rendered_teacher import RenderedTeacher, room_pictures


FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
ROOMS = {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [2], "num_views_shares": [1.0]}


def parser():
    return HfArgumentParser((GeometryAlignedModelArguments, GeometryAlignedTrainingArguments))


@pytest.mark.parametrize("name", ["quickstart", "tiny_gap_mllm"])
def test_recipes_of_the_package_are_complete(name, tmp_path):
    model, args = read_recipe(parser(), name, ["--output_dir", str(tmp_path), "--max_steps", "7"])
    assert args.max_steps == 7 and args.output_dir == str(tmp_path)
    assert args.readout_layers == [1, 2] and args.learning_rate == 0.002
    assert RoomQuestions(**model.questions).counts["reconstruction"] == 4
    RoomVariety(**model.variety)


def test_the_shipped_processor_says_what_its_recipe_says(tmp_path):
    model, _ = read_recipe(parser(), "tiny_gap_mllm", ["--output_dir", str(tmp_path)])
    shipped = GapMllmProcessor.from_pretrained(TINY_MODEL)
    said = shipped.training_view_size, shipped.mark_arm, shipped.mark_half_thickness
    assert said == training_views(RoomVariety(**model.variety)) == ({"height": 128, "width": 128}, 10, 2)


def test_the_encoder_recipe_is_complete(tmp_path):
    both = HfArgumentParser((GeometryEncoderArguments, GeometryEncoderTrainingArguments))
    encoder, args = read_recipe(both, "tiny_geometry_encoder", ["--output_dir", str(tmp_path)])
    assert encoder.encoder_config["hidden_size"] == 112 and args.max_steps == 5000


def test_unknown_recipes_keys_and_flags_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no recipe 'nothing'.*'quickstart'"):
        find_recipe("nothing")
    path = tmp_path / "mine.yaml"
    path.write_text("max_step: 3\n")
    with pytest.raises(ValueError, match=r"mine.yaml has the unknown keys \['max_step'\]"):
        read_recipe(parser(), path)
    path.write_text("- 3\n")
    with pytest.raises(ValueError, match="must hold a mapping"):
        read_recipe(parser(), path)
    with pytest.raises(ValueError, match=r"Unknown flags \['max_step'\]"):
        read_recipe(parser(), "quickstart", ["--max_step", "3"])
    with pytest.raises(ValueError, match=r"Unknown flags \['--colour', 'red', 'colour'\]"):
        read_recipe(parser(), "quickstart", ["--colour", "red"])


def test_recipe_files_are_in_the_folder_of_the_package():
    assert {path.stem for path in RECIPE_FOLDER.glob("*.yaml")} == {
        "quickstart",
        "tiny_gap_mllm",
        "tiny_geometry_encoder",
    }


def test_encoder_and_model_train_from_the_command_line(tmp_path, encoder_config, capsys):
    """Two steps each; the model's frozen encoder is the one that was trained just before."""
    encoder = {
        "encoder_config": encoder_config,
        "max_steps": 2,
        "per_device_train_batch_size": 1,
        "num_eval_scenes": 0,
    }
    (tmp_path / "encoder.yaml").write_text(yaml.safe_dump({**encoder, "report_to": "none", "save_steps": 1}))
    folder = tmp_path / "encoder"
    flags = ["--output_dir", str(folder), "--use_cpu", "true", "--disable_tqdm", "true"]
    assert main(["train-geometry-encoder", str(tmp_path / "encoder.yaml"), *flags]) == 0
    weights = load_file(folder / "model.safetensors")
    GapMllmVggtForReconstruction.from_pretrained(folder)

    recipe = yaml.safe_load(find_recipe("quickstart").read_text())
    recipe |= {"variety": ROOMS, "questions": {"counts": {"reconstruction": 1}}, "dataloader_num_workers": 0}
    recipe |= {"dataloader_persistent_workers": False, "max_steps": 2, "per_device_train_batch_size": 1}
    recipe |= {"num_selection_rooms": 2, "eval_strategy": "steps", "eval_steps": 2}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(recipe))
    flags = ["--output_dir", str(tmp_path / "model"), "--geometry_encoder_path", str(folder), "--use_cpu", "true"]
    assert (
        main(["train", str(tmp_path / "model.yaml"), *flags, "--lr_scheduler_kwargs", '{"num_decay_steps": 1}']) == 0
    )
    output = capsys.readouterr().out
    assert f"wrote {tmp_path / 'model'}" in output and "eval_parse_rate" in output
    processor = GapMllmProcessor.from_pretrained(tmp_path / "model")
    assert processor.training_view_size == {"height": 64, "width": 64}
    assert processor.cross_size.on_width(640) == (70, 10)  # the largest of the variety: 7 of 64, 7 // 4 thick
    assert processor.image_processor.size["longest_edge"] == 64 * 64
    model = GapMllmForConditionalGeneration.from_pretrained(tmp_path / "model")
    for name, value in model.model.geometry.state_dict().items():
        assert value.equal(weights[f"aggregator.{name}"]), name


def test_a_folder_of_data_is_trained_on(tmp_path, encoder_folder, capsys):
    """The marked pixels of the released form, straight from their JSON files; views bounded, crosses drawn."""
    data = {"name": "gap_mllm", "data_dir": str(FORMATS / "gap_mllm"), "tasks": ["reconstruction", "grounding_box"]}
    recipe = yaml.safe_load(find_recipe("quickstart").read_text()) | {"data": {**data, "cache_dir": str(tmp_path)}}
    recipe |= {"collation": {"max_views": 4, "max_view_pixels": 96 * 64}, "max_steps": 2, "dataloader_num_workers": 0}
    recipe |= {"dataloader_persistent_workers": False, "per_device_train_batch_size": 2, "logging_steps": 1}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(recipe))
    flags = ["--output_dir", str(tmp_path / "model"), "--geometry_encoder_path", str(encoder_folder)]
    flags += ["--use_cpu", "true", "--lr_scheduler_kwargs", '{"num_decay_steps": 1}']
    assert main(["train", str(tmp_path / "model.yaml"), *flags]) == 0
    output = capsys.readouterr().out
    assert "loss_text" in output and "loss_readout" in output
    assert main(["train", str(tmp_path / "model.yaml"), *flags, "--num_selection_rooms", "2"]) == 2
    assert "with data, give a scorer of your own" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["converted", "labelled"])
def test_what_data_convert_and_data_label_write_is_trained_on(kind, tmp_path, encoder_folder, capsys):
    folder = tmp_path / "rows"
    if kind == "converted":
        place, tasks = ["--data-dir", str(FORMATS / "gap_mllm")], "reconstruction,grounding_box"
        assert main(["data", "convert", "gap_mllm", *place, "--split", "train", "--tasks", tasks, str(folder)]) == 0
    else:
        room = render_room(1_100_013, num_views=6, height=84, width=112)
        for number, picture in enumerate(room_pictures(room)):
            (tmp_path / "hall").mkdir(exist_ok=True)
            picture.save(tmp_path / "hall" / f"{number}.png")
        options = {"scale": 1.0, "image_size": 112, "views_per_row": 4, "progress": False}
        label_video(tmp_path / "hall", folder, RenderedTeacher(room), **options)
        shutil.rmtree(tmp_path / "hall")  # rows hold their pictures
    data = {"name": "parquet", "data_dir": str(folder), "tasks": ["reconstruction"], "cache_dir": str(tmp_path)}
    recipe = yaml.safe_load(find_recipe("quickstart").read_text()) | {"data": data}
    recipe |= {"collation": {"max_views": 4, "max_view_pixels": 96 * 64}, "max_steps": 2, "dataloader_num_workers": 0}
    recipe |= {"dataloader_persistent_workers": False, "per_device_train_batch_size": 2, "logging_steps": 1}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(recipe))
    flags = ["--output_dir", str(tmp_path / "model"), "--geometry_encoder_path", str(encoder_folder)]
    flags += ["--use_cpu", "true", "--lr_scheduler_kwargs", '{"num_decay_steps": 1}']
    assert main(["train", str(tmp_path / "model.yaml"), *flags]) == 0
    assert capsys.readouterr().out.count("'loss_text'") == 2  # one line for each step


def test_errors_of_the_command_line_are_one_line(capsys):
    assert main(["train", "quickstart", "--output_dir", "unused", "--use_cpu", "true"]) == 2
    assert "Give model_path" in capsys.readouterr().err
    assert main(["train-geometry-encoder", "nothing"]) == 2
    assert "There is no recipe 'nothing'" in capsys.readouterr().err


def test_checkpoints_say_how_they_were_made(tmp_path, encoder_folder):
    recipe = yaml.safe_load(find_recipe("quickstart").read_text())
    recipe |= {"variety": ROOMS, "questions": {"counts": {"reconstruction": 1}}, "dataloader_num_workers": 0}
    recipe |= {"dataloader_persistent_workers": False, "max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    flags = ["--output_dir", str(tmp_path / "run"), "--geometry_encoder_path", str(encoder_folder)]
    flags += ["--use_cpu", "true", "--lr_scheduler_kwargs", '{"num_decay_steps": 1}']
    assert main(["train", str(tmp_path / "mine.yaml"), *flags]) == 0
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-1"):
        told = json.loads((folder / "provenance.json").read_text())
        assert told["settings"]["variety"]["sizes"] == [[64, 64]] and told["settings"]["arguments"]["max_steps"] == 1
        assert told["settings"]["recipe"] == str(tmp_path / "mine.yaml")
        assert told["versions"]["transformers"] == transformers.__version__


def test_outside_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    told = describe_run({})
    assert told["git_commit"] is None and told["git_is_dirty"] is None
    monkeypatch.setenv("PATH", "")
    assert describe_run({})["git_commit"] is None
