"""The recipes of the package: published values, twins, and the script that trains the tiny ones."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from transformers import HfArgumentParser

from gap_mllm.configuration_gap_mllm import FUSION_METHODS
from gap_mllm.processing.data.task_makers import TASK_MAKERS
from gap_mllm.training import dry_run_recipe
from gap_mllm.training.geometry_aligned_trainer import GeometryAlignedTrainingArguments
from gap_mllm.training.recipe_sections import check_sections
from gap_mllm.training.recipe_sources import read_sources
from gap_mllm.training.recipes import RECIPE_FOLDER, load_recipe, read_recipe
from gap_mllm.training.train_geometry_aligned import GeometryAlignedModelArguments, train_geometry_aligned


ROOT = Path(__file__).parents[2]
TINY_MODEL = str(ROOT / "examples" / "assets" / "tiny_gap_mllm")
NAMES = sorted(path.stem for path in RECIPE_FOLDER.glob("[!_]*.yaml"))  # the others are bases
TWINS = {name: f"tiny_{name}" for name in ("geometry_pretraining", "object_finetuning", "sft_spatial_qa")}
BF16 = ["--use_cpu", "true", "--output_dir", "unused"]


@pytest.fixture(scope="module")
def script():
    """The module .ci/tiny_recipes.py."""
    spec = importlib.util.spec_from_file_location("tiny_recipes", ROOT / ".ci" / "tiny_recipes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(name):
    parser = HfArgumentParser((GeometryAlignedModelArguments, GeometryAlignedTrainingArguments))
    recipe, args = read_recipe(parser, name, BF16)
    check_sections(recipe)
    return recipe, args


# Values of the released scripts: of both stages of GAP-MLLM, and of Spatial-MLLM v1.1.
STAGE = {"learning_rate": 5e-6, "weight_decay": 0.01, "warmup_steps": 0.03, "num_train_epochs": 1, "bf16": True}
STAGE |= {"lr_scheduler_type": "cosine", "gradient_checkpointing": True, "optim": "adamw_torch"}
SPATIAL = {**STAGE, "learning_rate": 7e-6, "weight_decay": 0.1, "gradient_checkpointing": False, "max_grad_norm": 1.0}


@pytest.mark.parametrize(
    ("name", "values", "items", "max_length", "fusion_rate"),
    [
        ("geometry_pretraining", STAGE, 2, 12800, 1e-5),
        ("object_finetuning", STAGE, 16, 12800, 1e-5),
        ("sft_spatial_qa", SPATIAL, 48, 8192, 2e-5),
        ("spatial_mllm", SPATIAL, 48, 8192, 2e-5),
        ("vlm3r", {"learning_rate": 2e-5, "num_train_epochs": 5}, 128, None, 2e-5),
    ],
)
def test_published_values(name, values, items, max_length, fusion_rate):
    recipe, args = read(name)
    assert {key: getattr(args, key) for key in values} == values
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == items
    assert recipe.collation.get("max_length") == max_length
    rates = {"vision": 0.0, "geometry": 0.0, "mergers": fusion_rate, "fusion": fusion_rate}
    assert {group: args.group_learning_rates[group] for group in rates} == rates
    assert (args.text_weight, args.point_map_weight, args.readout_weight) == (1.0, 0.0, 0.0)
    head = (RECIPE_FOLDER / f"{name}.yaml").read_text()
    assert re.search(r"arXiv:\d{4}\.\d{5}", head) and head.count("# P") >= 8
    if name in FUSION_METHODS:
        assert recipe.model_config["gap_fusion_config"] == {"method": name}
        assert "Qwen3-VL" in head and f"--fusion {name}" in head
        assert read(f"tiny_{name}")[0].model_config["gap_fusion_config"]["method"] == name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spatial_mllm", "vlm3r"])
def test_twins_of_fusions_train_what_the_dry_run_counts(method, tmp_path):
    encoder = str(ROOT / "examples" / "assets" / "tiny_geometry_encoder")
    flags = ["--geometry_encoder_path", encoder, "--output_dir", str(tmp_path / "run"), "--use_cpu", "true"]
    flags += ["--dataloader_num_workers", "0", "--dataloader_persistent_workers", "false", "--data.num_rooms", "4"]
    told = dry_run_recipe(f"tiny_{method}", flags)["parameters"]
    flags += ["--max_steps", "1", "--eval_strategy", "no", "--eval_on_start", "false", "--eval_data", "{}"]
    trainer, _ = train_geometry_aligned(f"tiny_{method}", [*flags, "--logging_steps", "1"])
    fusion = trainer.model.model.fusion
    assert fusion.config.method == method and all(part.requires_grad for part in fusion.parameters() if part.dim() > 1)
    assert told["mergers"]["total"] + told["fusion"]["total"] == sum(part.numel() for part in fusion.parameters())
    assert told["geometry"]["trainable"] == 0 and trainer.state.log_history[0]["loss_text"] > 0


def test_a_model_of_another_fusion_is_refused(tmp_path):
    flags = ["--model_path", TINY_MODEL, "--output_dir", str(tmp_path / "run"), "--use_cpu", "true"]
    message = (
        "method is 'vlm3r', but .*tiny_gap_mllm joins geometry by 'gated'. Convert base models with --fusion vlm3r"
    )
    for call in (dry_run_recipe, train_geometry_aligned):
        with pytest.raises(ValueError, match=message):
            call("vlm3r", [*flags, "--bf16", "false"])
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
def test_stage_two_mixes_four_sources_by_their_rows():
    recipe, _ = read("object_finetuning")
    sources = read_sources(recipe.data)
    tasks = {name: source["tasks"] for name, source in sources.items()}
    assert tasks == {
        "frame": ["grounding_frame"],
        "box": ["grounding_box"],
        "detection": ["detection3d"],
        "caption": ["dense_caption"],
    }
    assert all(round(source["limit"] / 1000, 1) == source["weight"] for source in sources.values())
    flags = ["--model_path", TINY_MODEL, "--collation.max_view_pixels", "4096"]
    told = dry_run_recipe("object_finetuning", flags)["sources"]
    assert {name: source["batch"]["views"] for name, source in told.items()} == dict(
        zip(tasks, (32, 19, 4, 32), strict=True)
    )
    assert told["detection"]["share"] == pytest.approx(144164 / (144164 + 3 * 36665), abs=1e-3)


@pytest.mark.slow
def test_a_mixture_takes_the_mean_of_its_sources():
    told = dry_run_recipe("object_finetuning", ["--model_path", TINY_MODEL, "--collation.max_view_pixels", "4096"])
    sources = told["sources"].values()
    forward = sum(source["share"] * source["flops"]["forward"] for source in sources)
    assert told["flops"]["forward"] == round(forward)
    assert told["flops"]["per_step"] == 16 * (told["flops"]["forward"] + told["flops"]["backward"])
    tokens = sum(source["share"] * source["batch"]["tokens"] for source in sources)
    assert told["tokens_per_step"] == round(16 * tokens)
    assert told["batch"]["views"] == 32  # of the longest, whose memory counts


@pytest.mark.parametrize(("published", "twin"), TWINS.items())
def test_twins_ask_for_the_same_on_rooms(published, twin, script):
    recipe, args = read(twin)
    assert not recipe.model_path and not recipe.geometry_encoder_path  # in the command
    sources = read_sources(recipe.data)
    if recipe.data:
        assert {source["name"] for source in sources.values()} == {"rendered_rooms"}
        assert recipe.eval_rewards and not recipe.eval_data.get("split") == "test"
    else:
        assert set(recipe.questions["counts"]) == {"reconstruction"} and recipe.num_selection_rooms
    if published == "object_finetuning":
        assert sources.keys() == read_sources(read(published)[0].data).keys()
        assert all(source["weight"] and source["limit"] for source in sources.values())
    for source in sources.values():
        tasks = {**recipe.scene_tasks, **source.get("scene_tasks", {})}.get("tasks", [])
        assert set(tasks) <= set(TASK_MAKERS)
    assert args.eval_on_start and args.metric_for_best_model and args.greater_is_better is not None
    assert twin in script.tiny_recipes()


def test_the_table_of_recipes_is_that_of_the_folder():
    table = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (published|twin|tiny) \|", table, re.MULTILINE)
    assert sorted(name for name, _ in rows) == NAMES
    assert all(form == "published" or name.startswith(("tiny_", "quickstart")) for name, form in rows)


@pytest.mark.parametrize("name", NAMES)
def test_commands_in_the_heads_of_recipes(name, script):
    words = script.command_of(name)
    assert words[0] == "gap-mllm" and words[2] == name and "--output_dir" in words
    recipe = load_recipe(RECIPE_FOLDER / f"{name}.yaml")
    command = "train-grpo" if "rewards" in recipe else "train-geometry-encoder" if "encoder_config" in recipe else None
    assert words[1] == (command or words[1]) and words[1].startswith(command or "train")
    table = (ROOT / "docs" / "recipes.md").read_text()
    assert re.search(rf"^\| `{name}` \| .*`gap-mllm {words[1]} {name}`", table, re.MULTILINE)


def test_the_script_tells_what_did_not_improve(script, tmp_path, monkeypatch, capsys):
    """Instead of a training a process that writes the summary of one."""
    numbers = {"tiny_a": (0.1, 0.4), "tiny_b": ("Infinity", 2.0), "tiny_c": (0.3, 0.3), "tiny_d": None}
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name, pair in numbers.items():
        code = "import sys; sys.exit(3)"
        if pair:
            summary = {f"{which}_evaluation": {"eval_score": pair[at]} for at, which in enumerate(("first", "last"))}
            code = "import json, pathlib, sys; out = pathlib.Path(sys.argv[2]); out.mkdir(); "
            code += f"text = json.dumps({summary})"
            code += "; (out / 'summary.json').write_text(text)"
        head = f'# Run: python -c "{code}" \\\n#          --output_dir outputs/{name}\n'
        is_higher = str(name != "tiny_b").lower()
        text = f"{head}eval_on_start: true\nmetric_for_best_model: score\ngreater_is_better: {is_higher}\n"
        (folder / f"{name}.yaml").write_text(text)
    (folder / "tiny_long.yaml").write_text("max_steps: 5000\n")
    monkeypatch.setattr(script, "RECIPES", folder)
    assert list(script.tiny_recipes()) == list(numbers)
    said = script.main(tmp_path / "out", [])
    assert said.startswith("['tiny_c', 'tiny_d'] did not improve")
    rows = json.loads((tmp_path / "out" / "recipes.json").read_text())
    assert [(row["start"], row["end"], row["improved"]) for row in rows] == [
        (0.1, 0.4, True),
        ("Infinity", 2.0, True),
        (0.3, 0.3, False),
        (None, None, False),
    ]
    assert "| tiny_a | score | 0.100 | 0.400 |" in capsys.readouterr().out
    assert script.main(tmp_path / "out", ["tiny_a"]) == 0
    assert "are no tiny recipes" in script.main(tmp_path / "out", ["tiny_x"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(("tiny", "quick"))])
def test_published_recipes_are_counted_at_their_size(name):
    command = "train-grpo" if "grpo" in name else "train"
    flags = ["--per_device_train_batch_size", "2", "--num_generations", "2"] if "grpo" in name else []
    told = dry_run_recipe(name, flags, command)
    total = 0 if name == "geovr" else 909_112_320  # plain Qwen3-VL
    assert told["parameters"]["geometry"] == {"total": total, "trainable": 0, "learning_rate": 0.0}
    adapters = {
        "sft_spatial_qlora": 69_730_304,
        "vlm3r": 139_460_608,
    }  # ranks 64 and 128 in seven layers of each of 28
    assert told["parameters"]["language"]["trainable"] == adapters.get(name, 1_720_574_976)
    joined = {
        "spatial_mllm": 302_026_752,
        "vlm3r": 16_799_744,
    }  # connector and strength; queries, keys, values, output
    fusion = sum(told["parameters"][group]["trainable"] for group in ("mergers", "fusion"))
    assert fusion == joined.get(name, fusion)
    assert told["trainable_parameters"] > (1.5e8 if name == "vlm3r" else 2e8) and told["flops"]["per_step"] > 1e13
    assert told["memory_bytes"]["optimizer"] == 8 * told["trainable_parameters"]
