"""Recipes: found by name or path, overridden by flags, and refused where a key is unknown."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import transformers
import yaml
from safetensors.torch import load_file
from transformers import HfArgumentParser

from gap_mllm import GapMllmForConditionalGeneration, GapMllmVggtForReconstruction
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.data import RoomVariety, render_room
from gap_mllm.processing.data.video_labels import label_video
from gap_mllm.training.geometry_aligned_trainer import GeometryAlignedTrainingArguments
from gap_mllm.training.geometry_encoder_trainer import GeometryEncoderTrainingArguments
from gap_mllm.training.provenance import describe_run
from gap_mllm.training.recipe_sections import check_sections
from gap_mllm.training.recipes import find_recipe, load_recipe, read_recipe
from gap_mllm.training.rooms import RoomQuestions
from gap_mllm.training.train_geometry_aligned import GeometryAlignedModelArguments, new_processor, training_views
from gap_mllm.training.train_geometry_encoder import GeometryEncoderArguments, train_geometry_encoder
from gap_mllm_cli import main
from tests.processing.data.rendered_teacher import RenderedTeacher, room_pictures
from tests.slow_cases import slow_but


FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
ROOMS = {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [2], "num_views_shares": [1.0]}


def parser():
    return HfArgumentParser((GeometryAlignedModelArguments, GeometryAlignedTrainingArguments))


def test_bases_are_no_recipes_and_tiny_models_have_one():
    with pytest.raises(FileNotFoundError, match="'quickstart'") as error:
        find_recipe("tiny_model")
    assert "_tiny_model" not in str(error.value)
    sizes = load_recipe(find_recipe("_tiny_model"))
    assert (
        list(sizes) == ["model_config"]
        and load_recipe(find_recipe("quickstart"))["model_config"] == sizes["model_config"]
    )
    deeper, _ = read_recipe(parser(), "tiny_gap_mllm", ["--output_dir", "unused"])
    text = {**sizes["model_config"]["text_config"], "num_hidden_layers": 6}
    vision = {**sizes["model_config"]["vision_config"], "depth": 4}
    assert deeper.model_config == {**sizes["model_config"], "text_config": text, "vision_config": vision}
    maps, _ = read_recipe(parser(), "tiny_known_geometry", ["--output_dir", "unused"])
    fusion = {**sizes["model_config"]["gap_fusion_config"], "position_encoding": "position_3d"}
    assert maps.model_config["gap_fusion_config"] == fusion and not maps.frozen_geometry


@pytest.mark.parametrize("name", ["quickstart", "tiny_gap_mllm"])
def test_recipes_of_the_package_are_complete(name, tmp_path):
    model, args = read_recipe(parser(), name, ["--output_dir", str(tmp_path), "--max_steps", "7"])
    assert args.max_steps == 7 and args.output_dir == str(tmp_path)
    assert args.readout_layers == {"quickstart": [1, 2], "tiny_gap_mllm": [3, 4]}[name]
    followed = dict.fromkeys(("vision", "mergers", "fusion", "point_maps"), 0.002)
    followed |= {"tiny_gap_mllm": {"heads": 0.002}}.get(name, {})
    language = {"quickstart": 0.001, "tiny_gap_mllm": 0.002}[name]
    assert args.group_learning_rates == {"geometry": 0, "language": language, **followed}
    assert RoomQuestions(**model.questions).counts["reconstruction"] == {"quickstart": 4, "tiny_gap_mllm": 3}[name]
    RoomVariety(**model.variety)


def test_the_shipped_processor_says_what_its_recipe_says(tmp_path):
    model, _ = read_recipe(parser(), "tiny_gap_mllm", ["--output_dir", str(tmp_path)])
    shipped = GapMllmProcessor.from_pretrained(TINY_MODEL)
    said = shipped.training_view_size, shipped.mark_arm, shipped.mark_half_thickness
    assert said == training_views(RoomVariety(**model.variety)) == ({"height": 128, "width": 128}, 4, 0)


def test_the_encoder_recipe_is_complete(tmp_path):
    both = HfArgumentParser((GeometryEncoderArguments, GeometryEncoderTrainingArguments))
    encoder, args = read_recipe(both, "tiny_geometry_encoder", ["--output_dir", str(tmp_path)])
    assert encoder.encoder_config["hidden_size"] == 112 and args.max_steps == 32000


def test_a_style_that_follows_the_run_is_refused_for_several_epochs(tmp_path, capsys):
    flags = ["--max_steps", "-1", "--num_train_epochs", "2", "--output_dir", str(tmp_path / "run")]
    assert main(["train-geometry-encoder", "tiny_geometry_encoder", *flags]) == 2
    assert "weights follow the run, but each of its 2 epochs" in capsys.readouterr().err


def test_unknown_recipes_keys_and_flags_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no recipe 'nothing'.*'quickstart'"):
        find_recipe("nothing")
    path = tmp_path / "mine.yaml"
    path.write_text("max_step: 3\n")
    with pytest.raises(ValueError, match=r"mine.yaml has the unknown keys \['max_step'\].* Recipes of train, "):
        read_recipe(parser(), path)
    path.write_text("- 3\n")
    with pytest.raises(ValueError, match="must hold a mapping"):
        read_recipe(parser(), path)
    with pytest.raises(ValueError, match=r"Unknown flags \['max_step'\]"):
        read_recipe(parser(), "quickstart", ["--max_step", "3"])
    with pytest.raises(ValueError, match=r"Unknown flags \['--colour', 'red', 'colour'\]"):
        read_recipe(parser(), "quickstart", ["--colour", "red"])


def test_recipes_build_on_others(tmp_path):
    """A key takes the place of the base's, one with a dot that of an entry; a base is found by name, or beside it."""
    (tmp_path / "first.yaml").write_text("base: quickstart\nvariety.mark_arms: [3, 4]\nseed: 7\n")
    (tmp_path / "second.yaml").write_text(
        "base: first.yaml\nquestions: {counts: {reconstruction: 2}}\nvariety.color_strength: 0.25\nseed: 8\n"
    )
    quickstart, first, second = (
        load_recipe(path) for path in (find_recipe("quickstart"), *sorted(tmp_path.iterdir()))
    )
    assert first == {**quickstart, "variety": {**quickstart["variety"], "mark_arms": [3, 4]}, "seed": 7}
    assert second["variety"] == {**first["variety"], "color_strength": 0.25}
    assert second["questions"] == {"counts": {"reconstruction": 2}} and second["seed"] == 8
    assert {key for key in first if first[key] != second[key]} == {"variety", "questions", "seed"}
    model, args = read_recipe(parser(), tmp_path / "second.yaml", ["--output_dir", "unused", "--seed", "9"])
    assert model.variety["mark_arms"] == [3, 4] and model.questions["counts"] == {"reconstruction": 2}
    assert args.seed == 9 and args.module_learning_rates == quickstart["module_learning_rates"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("base: nothing", FileNotFoundError, "no recipe 'nothing'"),
        ("base: [quickstart]", ValueError, r"mine.yaml has the base \['quickstart'\]; expected the name of a recipe"),
        ("base: mine.yaml", ValueError, "mine.yaml is its own base, by mine.yaml"),
        ("base: quickstart\nmax_step: 3", ValueError, r"unknown keys \['max_step'\]"),
        ("base: quickstart\nseed.x: 3", ValueError, "seed is 0, which has no key 'x'"),
        ("base: quickstart\nmax_steps.x: 3", ValueError, "max_steps is [0-9]+, which has no key 'x'"),
    ],
)
def test_bases_that_cannot_be_are_refused(text, error, message, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(error, match=message):
        read_recipe(parser(), tmp_path / "mine.yaml", ["--output_dir", "unused"])


def test_keys_of_dicts_are_flags_with_a_dot():
    flags = ["--output_dir", "unused", "--module_learning_rates.fusion", "1e-4", "--questions.counts.reconstruction=5"]
    flags += ["--variety.shuffle_views", "true", "--model_config.text_config.num_hidden_layers", "2"]
    flags += ["--lr_scheduler_kwargs", '{"num_decay_steps": 3}', "--lr_scheduler_kwargs.decay_type", "linear"]
    flags += ["--data.name", "scannet_posed", "--data.tasks", "[a, b]", "--learning_rate", "1e-3"]
    model, args = read_recipe(parser(), "quickstart", flags)
    before, _ = read_recipe(parser(), "quickstart", ["--output_dir", "unused"])
    assert args.module_learning_rates["fusion"] == 1e-4 and args.module_learning_rates["vision"] == 0.002
    assert model.questions["counts"] == {"reconstruction": 5, "grounding_box": 0.5}
    assert model.variety == {**before.variety, "shuffle_views": True}
    assert model.model_config["text_config"] == {**before.model_config["text_config"], "num_hidden_layers": 2}
    assert args.lr_scheduler_kwargs == {"num_decay_steps": 3, "decay_type": "linear"}
    assert model.data == {"name": "scannet_posed", "tasks": ["a", "b"]} and args.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--module_learning_rate.fusion", "1"],
            r"'--module_learning_rate.fusion'\] \(did you mean 'module_learn",
        ),
        (["--max_steps.fusion", "1"], r"Unknown flags \['--max_steps.fusion'\].* of the dicts of a recipe, which are"),
        (["--questions..decimals", "1"], r"Unknown flags \['--questions..decimals'\]"),
        (["--questions.decimals.x", "1"], "questions.decimals is 1, which has no key 'x'"),
        (
            ["--questions.counts", "--max_steps"],
            "--questions.counts has no value; give it as --questions.counts V",
        ),
        (["--questions.counts", "[1"], "--questions.counts, line 1, column 3 is not YAML: expected ',' or ']'"),
        (["--num_train_epochs", "1"], r"max_steps: 900 of the recipe would overrule it. Give --max_steps -1 as well"),
        (["--max_step", "3"], r"Unknown flags \['max_step'\] \(did you mean 'max_steps'\?\)"),
        (["--max_steps", "abc"], "argument --max_steps.*: invalid int value: 'abc'"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        read_recipe(parser(), "quickstart", ["--output_dir", "unused", *flags])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_steps: 3\nquestions: {counts: [\nvariety: 3\n", "mine.yaml, line 4, column 1 is not YAML: expected"),
        ("max_steps: 3\n  learning_rate: 1\n", "mine.yaml, line 2, column 16 is not YAML: mapping values are not"),
        ("max_steps: \xff\n", "mine.yaml.* is not YAML: unacceptable character"),
        ("max_steps: many\n", "max_steps is 'many'; expected an integer"),
        ("learning_rate: fast\n", "learning_rate is 'fast'; expected a number"),
        ("augmentatin: {}\n", r"unknown keys \['augmentatin'\] \(did you mean 'augmentation'\?\)"),
    ],
)
def test_files_that_are_no_recipe_are_refused(text, message, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        read_recipe(parser(), tmp_path / "mine.yaml")


def test_exponents_are_numbers(tmp_path):
    """As in YAML 1.2; PyYAML alone reads 1e-4 as a text."""
    (tmp_path / "mine.yaml").write_text("output_dir: unused\nlearning_rate: 1e-4\nweight_decay: 5E-2\nrun_name: 1e\n")
    _, args = read_recipe(parser(), tmp_path / "mine.yaml")
    assert (args.learning_rate, args.weight_decay, args.run_name) == (1e-4, 0.05, "1e")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"questions": {"count": {}}}, r"questions has the unknown key 'count' \(did you mean 'counts'\?\); it takes"),
        (
            {"questions": {"counts": {"detection2d": 1}}},
            r"questions.counts has .*'detection2d' \(did you mean 'detection3",
        ),
        ({"questions": {"decimals": "two"}}, "questions.decimals is 'two'; expected an integer"),
        ({"variety": {"size": 1}}, r"variety has the unknown key 'size' \(did you mean 'sizes'\?\)"),
        ({"variety": {"num_views": 3}}, "variety.num_views is 3; expected a list"),
        ({"variety": 3}, "variety is 3; expected a mapping"),
        ({"data": {"data_dir": "x"}}, "data has no name: give the source"),
        ({"data": {"nam": "scannet"}}, r"data has the unknown key 'nam' \(did you mean 'name'\?\)"),
        ({"data": {"name": "scanet"}}, "unknown source 'scanet'"),
        ({"augmentation": {"flip_probabilty": 1}}, r"'flip_probabilty' \(did you mean 'flip_probability'\?\)"),
        ({"augmentation": {"check_sight": False}}, r"'check_sight' \(did you mean 'check_visibility'\?\)"),
        ({"collation": {"max_view": 1}}, r"collation has the unknown key 'max_view' \(did you mean 'max_views'\?\)"),
        ({"collation": {"max_views": "4"}}, "collation.max_views is '4'; expected an integer"),
        (
            {"scene_tasks": {"num_view": 1}},
            r"scene_tasks has the unknown key 'num_view' \(did you mean 'num_views'\?\)",
        ),
        ({"eval_data": {"splt": "val"}}, r"eval_data has the unknown key 'splt' \(did you mean 'split'\?\)"),
        ({"tiny_processor": {"numbers": 1}}, r"tiny_processor has the .*'numbers' \(did you mean 'number_pieces'\?\)"),
        ({"data": {}, "augmentation": {"seed": 1}}, "augmentation is for data, and the recipe has none"),
    ],
)
def test_misspelt_keys_of_dicts_are_named(sections, message):
    model = GeometryAlignedModelArguments(**{"data": {"name": "scannet_posed", "data_dir": "x"}, **sections})
    with pytest.raises(ValueError, match=message):
        check_sections(model)


def test_a_recipe_chooses_the_processor_of_a_new_model():
    sizes = {"sizes": [[64, 96]], "size_shares": [1.0]}
    model = GeometryAlignedModelArguments(variety=sizes, tiny_processor={"number_pieces": True})
    processor = new_processor(model)
    assert len(processor.tokenizer("1.5").input_ids) == 1 and processor.image_processor.size["longest_edge"] == 64 * 96
    processor = new_processor(GeometryAlignedModelArguments(tiny_processor={"max_pixels": 128 * 192}))
    assert len(processor.tokenizer("1.5").input_ids) == 3
    assert processor.image_processor.size["longest_edge"] == 128 * 192
    with pytest.raises(ValueError, match="number_pieces is 'yes'"):
        new_processor(GeometryAlignedModelArguments(tiny_processor={"number_pieces": "yes"}))


def test_sections_of_the_recipes_pass():
    for name in ("quickstart", "tiny_gap_mllm", "cold_start_spatial", "tiny_cold_start"):
        check_sections(read_recipe(parser(), name, ["--output_dir", "unused"])[0])
    data = {"name": "scannet_posed", "data_dir": "x", "infos_file": "y", "max_views": 3}
    sections = {
        "collation": {"max_views": 4},
        "augmentation": {"flip_probability": 1},
        "scene_tasks": {"num_views": 4},
    }
    check_sections(GeometryAlignedModelArguments(data=data, **sections))


@pytest.mark.slow
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
    assert processor.cross_size.on_width(640) == (70, 15)  # the largest of the variety: 7 of 64, 7 // 4 thick
    assert processor.image_processor.size["longest_edge"] == 64 * 64
    model = GapMllmForConditionalGeneration.from_pretrained(tmp_path / "model")
    for name, value in model.model.geometry.state_dict().items():
        assert value.equal(weights[f"aggregator.{name}"]), name


def test_a_scorer_measures_the_encoder_and_its_lack_is_said(tmp_path, encoder_config, caplog):
    recipe = {"encoder_config": encoder_config, "max_steps": 1, "per_device_train_batch_size": 1, "report_to": "none"}
    (tmp_path / "encoder.yaml").write_text(yaml.safe_dump(recipe))
    flags = ["--output_dir", str(tmp_path / "run"), "--use_cpu", "true", "--disable_tqdm", "true"]

    def score(model, num_scenes, num_baseline_scenes):
        assert not model.training
        return {"n": num_scenes, "num_baseline_scenes": num_baseline_scenes, "error_m": float("inf")}

    train_geometry_encoder(tmp_path / "encoder.yaml", [*flags, "--num_eval_scenes", "3"], scorer=score)
    saved = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert saved == {"n": 3, "num_baseline_scenes": 512, "error_m": "Infinity"}
    logging.getLogger("transformers").propagate = True
    flags[1] = str(tmp_path / "again")
    train_geometry_encoder(tmp_path / "encoder.yaml", flags)
    assert not (tmp_path / "again" / "metrics.json").exists()
    assert any("num_eval_scenes is 256, but no scorer was given" in message for message in caplog.messages)


@pytest.mark.slow
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


@pytest.mark.parametrize("kind", slow_but(("labelled",), ["converted", "labelled"]))
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
    assert capsys.readouterr().out.count("loss_text ") == 2  # one line for each step


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
