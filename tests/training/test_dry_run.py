"""Dry runs: what they count is what a real model has and a real step does, and what a training refuses they refuse."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from gap_mllm.training import dry_run_recipe
from gap_mllm.training.meta_device import running_on_meta
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned
from gap_mllm.training.train_grpo import train_grpo
from gap_mllm_cli import main


TINY_MODEL = str(Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm")
ROOMS = {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [2], "num_views_shares": [1.0]}
SHARED = {"variety": ROOMS, "model_path": TINY_MODEL, "attn_implementation": "eager", "max_steps": 1}
SHARED |= {"report_to": "none", "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
# Qwen3-VL-2B and VGGT-1B: the aggregator as published, 909,112,320; see also test_published_sizes.
PUBLISHED = {"geometry": 909_112_320, "vision": 406_957_056, "language": 1_720_574_976}


@pytest.fixture
def write_recipe(tmp_path):
    """A function (changes) -> path of a recipe of one small step."""

    def write(**changes):
        recipe = {**SHARED, "output_dir": str(tmp_path / "run"), **changes}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
        return str(tmp_path / "mine.yaml")

    return write


@pytest.mark.slow
def test_a_term_that_needs_the_tokenizer_is_counted(write_recipe):
    changes = {"questions": {"counts": {"reconstruction": 1}}, "per_device_train_batch_size": 1}
    told = dry_run_recipe(write_recipe(**changes, terms={"number": {"weight": 1.0}}))
    assert told["flops"]["per_step"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"layout": "block_mask"},
        {"layout": "padded", "point_map_weight": 1.0, "readout_weight": 1.0},
        {"gradient_checkpointing": True, "module_learning_rates": {"vision": 1e-4, "language": 0}},
        {"lora": {"r": 4}},
    ],
    ids=["block_mask", "padded", "checkpointed", "lora"],
)
def test_counts_are_those_of_a_real_step(write_recipe, changes):
    recipe = write_recipe(**{"questions": {"counts": {"reconstruction": 2}}, **changes}, per_device_train_batch_size=2)
    told = dry_run_recipe(recipe)
    with FlopCounterMode(display=False) as counter:
        trainer, _ = train_geometry_aligned(recipe)
    assert told["flops"]["per_step"] == counter.get_total_flops()
    batch = next(iter(trainer.get_train_dataloader()))
    assert told["batch"]["views"] == len(batch["image_grid_thw"]) and told["batch"]["items"] == 2
    parameters = list(trainer.model.parameters())
    assert told["total_parameters"] == sum(each.numel() for each in parameters)
    assert told["trainable_parameters"] == sum(each.numel() for each in parameters if each.requires_grad)
    memory = told["memory_bytes"]
    assert memory["weights"] == sum(each.nbytes for each in parameters)
    assert memory["gradients"] == sum(each.nbytes for each in parameters if each.requires_grad)
    state = trainer.optimizer.state.values()
    assert memory["optimizer"] == sum(each["exp_avg"].nbytes + each["exp_avg_sq"].nbytes for each in state)
    assert told["parameters"]["fusion"]["learning_rate"] == trainer.args.group_learning_rates["fusion"]
    assert json.loads(json.dumps(told)) == told


def test_activations_are_what_a_linear_layer_keeps():
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(100, 1000), torch.nn.ReLU(), torch.nn.Linear(1000, 1))
    with running_on_meta(model) as noted:
        loss = model(torch.zeros(8, 100, device="meta")).sum()
        assert noted.live == 4 * (8 * 100 + 8 * 1000 + 1)  # what goes in, the states behind the ReLU, and the sum
        loss.backward()
    del loss
    assert noted.live == 0 and all(parameter.grad is None for parameter in model.parameters())
    assert noted.peak >= 4 * 100 * 1000


@pytest.mark.slow
def test_published_sizes(capsys):
    """Those of the checkpoints; the fusion: four mergers of 41,951,232 and four gates of 8,400,896 with strength."""
    told = dry_run_recipe(
        "grpo_spatial", ["--per_device_train_batch_size", "2", "--num_generations", "2"], "train-grpo"
    )
    counted = {group: numbers["total"] for group, numbers in told["parameters"].items()}
    assert counted == {**PUBLISHED, "mergers": 167_804_928, "fusion": 33_603_584, "point_maps": 0}
    merger = 2048 + (8192 * 4096 + 4096) + (4096 * 2048 + 2048)
    assert counted["mergers"] == 4 * merger
    assert told["total_parameters"] == 3_238_052_864
    assert told["batch"]["view_size"] == [384, 512]  # 24 x 32 patches, as released
    assert told["batch"]["visual_tokens"] == 2 * 8 * 12 * 16  # answers, views, and tokens of a view
    assert any("published" in each for each in told["assumptions"])


@pytest.mark.slow
def test_bfloat16_halves_the_frozen_encoder(write_recipe):
    recipe = write_recipe(questions={"counts": {"reconstruction": 1}}, per_device_train_batch_size=1)
    told, half = (
        dry_run_recipe(recipe, ["--layout", "padded"]),
        dry_run_recipe(recipe, ["--bf16", "true", "--layout", "packed"]),
    )
    frozen = told["parameters"]["geometry"]["total"]
    assert told["memory_bytes"]["weights"] - half["memory_bytes"]["weights"] == 2 * frozen
    assert told["flops"] == half["flops"]  # of one question, one document after the other is the same work
    assert (told["computes_in"], half["computes_in"], half["dtype"]) == ("float32", "bfloat16", "float32")


@pytest.mark.slow
def test_a_step_of_rewards(write_recipe):
    """Answering writes as many tokens as are learned from; the passes with gradients are those of TRL."""
    changes = {"questions": {"counts": {"reconstruction": 1}}, "rewards": {"point_distance": 1.0}}
    changes |= {"per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 8}
    recipe = write_recipe(**changes, gradient_checkpointing=False, shuffle_dataset=False)
    told = dry_run_recipe(recipe, command="train-grpo")
    assert told["batch"]["views"] == 4 * 2 and told["flops"]["reference"] == 0
    with FlopCounterMode(display=False) as counter:
        trainer = train_grpo(recipe, ["--max_completion_length", "8"])
    # Without the head: TRL computes it for answers alone where there is Triton, and elsewhere, twice, for every token.
    head = 2 * trainer.model.lm_head.weight.numel()
    counted = counter.get_total_flops() - head * (4 * 8 + 2 * told["batch"]["tokens"])
    assert told["flops"]["per_step"] - head * 4 * (4 * 9) == pytest.approx(counted, rel=0.02)
    assert dry_run_recipe(recipe, ["--beta", "0.1"], "train-grpo")["flops"]["reference"] == told["flops"]["forward"]


@pytest.mark.slow
def test_data_that_is_not_there_is_stood_in_for(write_recipe):
    data = {"name": "scannet_posed", "data_dir": "/nowhere"}
    tasks = {"tasks": ["object_count"], "num_views": 3, "questions_per_scene": 2}
    recipe = write_recipe(data=data, scene_tasks=tasks, variety={}, collation={"max_view_pixels": 64 * 64})
    told = dry_run_recipe(recipe, ["--per_device_train_batch_size", "2"])
    assert told["batch"]["views"] == 6 and told["batch"]["view_size"] == [32, 64]
    assert len(told["assumptions"]) == 1
    told = dry_run_recipe(recipe, ["--scene_tasks", "{}"])
    assert any("does not bound them" in each for each in told["assumptions"])
    several = {"near": data, "far": {**data, "weight": {0: 0, 0.5: 1}, "scene_tasks": {"num_views": 5}}, "rooms": data}
    fading = {"point_map": {"weight": {0: 1.0, 0.5: 0.0}}}
    recipe = write_recipe(data=several, variety={}, collation={"max_view_pixels": 64 * 64}, terms=fading)
    told = dry_run_recipe(recipe, ["--per_device_train_batch_size", "2"])
    assert told["batch"]["views"] == 10
    shares = {name: source["share"] for name, source in told["sources"].items()}  # means over the run
    assert (
        shares["near"] == shares["rooms"] and 0.2 < shares["far"] < 1 / 3 and sum(shares.values()) == pytest.approx(1)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variety": {"size": 1}}, "did you mean 'sizes'"),
        ({"max_step": 3}, "did you mean 'max_steps'"),
        ({"attn_implementation": {"text": "sdpa"}}, "which are no parts of the model"),
        ({"dtype": "float16"}, "float16"),
        ({"model_path": "/nowhere/model"}, "is no folder"),
    ],
)
def test_what_a_training_refuses_is_refused(write_recipe, changes, message, capsys):
    recipe = write_recipe(**changes)
    assert main(["train", recipe]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert main(["train", recipe, "--dry_run"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == said.splitlines()[-1]


@pytest.mark.slow
def test_the_command_line_prints_the_counts(write_recipe, capsys, tmp_path):
    recipe = write_recipe(questions={"counts": {"reconstruction": 1}})
    for words in (["train", recipe, "--dry_run", "--max_steps", "3"], ["train", "--dry-run", recipe]):
        assert main(words) == 0
        said = capsys.readouterr().out
        for part in ("language", "0.000005", "FLOPs, per_step", "memory, activations_estimate", "tokens"):
            assert part in said.replace("5e-06", "0.000005")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="command has the unknown"):
        dry_run_recipe(recipe, command="evaluate")
