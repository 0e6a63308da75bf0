"""Five steps in two processes equal five in one, whatever the batch of each process holds and however they share.

Losses agree within 1e-4 and parameters within 1e-5, with plain gradient descent: AdamW would divide by noise.
`pytest -rP` shows the largest difference of each case, as docs/several_gpus.md has them.
"""

import copy
import functools
from pathlib import Path

import pytest
import torch

from gap_mllm.geometry_views_gap_mllm import is_sharded
from gap_mllm.processing.data import complete_row, make_question, render_room
from gap_mllm.processing.data.rooms.room_scenes import scene_row, scene_views
from tests.training.processes import run_here, run_in_two


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch.distributed is not built in"),
]

TERMS = {"point_map_weight": 1.0, "readout_weight": 1.0}
ALL = {"module_learning_rates": dict.fromkeys(("vision", "mergers", "fusion", "language", "point_maps"), 0.02)}
HEADS = {
    "terms": {
        "distillation": {"weight": 1.0, "layers": [1, -1]},
        "depth": {"weight": 1.0, "layers": [1, -1], "side": 4, "features": 8},
        "normals": {"weight": 0.5},
        "camera": {"weight": 2.5, "head_size": 16, "tokens": True},
        "field_of_view": {"weight": 1.0},
        "metric_scale": {"weight": 1.0, "head_size": 16, "tokens": True},
        "correspondence": {"weight": 1.0, "voxel_size_m": 1.0},
        "consistency": {"weight": 1.0, "voxel_size_m": 1.0},
        "shape": {"weight": 1.0},
        "region_text": {"weight": 1.0, "negatives": ["bed", "sofa"]},
        "relations": {"weight": 1.0},
    },
    "module_learning_rates": {"geometry": 0.0, "heads": 0.002},
}
LAYERS, TOWER = ["Qwen3VLTextDecoderLayer"], ["Qwen3VLVisionBlock", "GapMllmFusion"]
# By name: what the second process gets, settings of the run, and the classes of the modules that FSDP2 shards.
CASES = {
    "default": ("whole", {}, None),
    "checkpointing": ("whole", {"gradient_checkpointing": True}, None),
    "without_views": ("text", {**TERMS, **ALL}, None),
    "without_depth": ("bare", {**TERMS, **ALL, "gradient_checkpointing": True}, None),
    "sharded_language": ("text", TERMS, LAYERS),
    "sharded_frozen_tower": ("text", TERMS, [*LAYERS, *TOWER]),
    "sharded_trained_tower": ("text", {**TERMS, **ALL}, [*LAYERS, *TOWER]),
    "kept_geometry": ("whole", TERMS, None),
    "kept_geometry_sharded": ("text", TERMS, [*LAYERS, *TOWER]),
    "heads": ("detected", HEADS, None),
    "heads_without_depth": ("bare", HEADS, None),
    "heads_sharded": ("detected", HEADS, LAYERS),
    "measured_before": ("whole", {}, None),
    "one_scene_in_both": ("shared", {**TERMS, **HEADS}, None),
}

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from tests.training.test_two_processes import run_case

folder, batch = sys.argv[1], int(sys.argv[2])
for case in sys.argv[3:]:
    run_case(case, folder, batch)
"""


@functools.cache
def make_rows(second):
    """Two rooms for the first process and two rows for the second, five times."""
    rows = []
    for seed, num_views in enumerate((2, 1, 1, 2)):
        scene = render_room(seed, num_views=num_views, height=64, width=64)
        question = make_question(scene, "detection3d" if second == "detected" else "reconstruction")
        row = scene_row(scene, question, scene_views(scene), "train", f"room-{seed}")
        rows.append(complete_row(**row))
    if second == "shared":  # the first room again, between rows of which the second is about another
        scene = render_room(0, num_views=2, height=64, width=64)
        asked = [make_question(scene, "reconstruction", 1), make_question(scene, "detection3d", 2)]
        again = [complete_row(**scene_row(scene, each, scene_views(scene), "train", each.id)) for each in asked]
        rows = [rows[0], again[0], rows[1], again[1]]
    if second == "text":
        sums = ((f"How many are {n} and 2?", f"{n + 2}.") for n in (1, 2))
        rows[2:] = [complete_row(id=question, question=question, answer=answer) for question, answer in sums]
    if second == "bare":
        rows[2:] = [{**row, "views": [{**view, "depth": None} for view in row["views"]]} for row in rows[2:]]
    return rows * 5


def run_case(case, folder, batch):
    """Train, evaluate on three rows, an odd number, and save losses and parameters, as rank 0."""
    from gap_mllm import GapMllmForPreTraining, GapMllmProcessor
    from gap_mllm.training import (
        FrozenGeometry,
        GeometryAlignedTrainer,
        GeometryAlignedTrainingArguments,
        SceneCollator,
        set_training_heads,
    )

    second, settings, sharded = CASES[case]
    model = GapMllmForPreTraining.from_pretrained(folder, dtype="float32")
    args = GeometryAlignedTrainingArguments(
        output_dir=f"{folder}/out",
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=batch,
        max_steps=5,
        logging_steps=1,
        learning_rate=0.02,
        lr_scheduler_type="constant",
        optim="sgd",
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        **copy.deepcopy(settings),
    )
    torch.manual_seed(3)
    teaching = set_training_heads(model, args)
    rows, processor = make_rows(second), GapMllmProcessor.from_pretrained(folder)
    collator = SceneCollator(processor, for_pretraining=True, point_map_side=model.config.point_map_side)
    collator.teaching = teaching
    if case.startswith("kept"):
        model.model.geometry.requires_grad_(False)
        collator.geometry = FrozenGeometry(model, cache_dir=f"{folder}/{case}-{args.world_size}")
    data = {"train_dataset": rows, "eval_dataset": rows[:3], "data_collator": collator}
    trainer = GeometryAlignedTrainer(model=model, args=args, **data)
    if sharded is None:
        if case == "measured_before":  # after which a training must still share gradients
            trainer.evaluate()
        trainer.train()
        losses = [entry for entry in trainer.state.log_history if "loss" in entry]
        losses.append(trainer.evaluate())
    else:
        losses = train_sharded(trainer, sharded, batch)
    names = ("eval_loss", "grad_norm", "cache_hit_rate", "loss", "gate")
    losses = [
        {key: value for key, value in entry.items() if key in names or key.startswith(("loss", "gate_"))}
        for entry in losses
    ]
    parameters = {name: whole(parameter) for name, parameter in model.named_parameters()}
    if trainer.is_world_process_zero():
        torch.save((losses, parameters), f"{folder}/{case}-{args.world_size}.pt")


def whole(parameter):
    return (parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter).detach().clone()


def train_sharded(trainer, sharded, batch):
    """What `Trainer` does under FSDP2, which accelerate leaves out on CPUs; in one process nothing is sharded."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, args, losses = trainer.model, trainer.args, []
    if args.world_size > 1:
        options = {"mesh": init_device_mesh("cpu", (2,)), "ignored_params": set(model.model.geometry.parameters())}
        for module in model.modules():
            if type(module).__name__ in sharded:
                fully_shard(module, **options)
        fully_shard(model, **options)
        assert is_sharded(model.model.visual) and is_sharded(model.lm_head) and not is_sharded(model.model.geometry)
    optimizer = trainer.create_optimizer(model)
    for step in range(6):
        start = 4 * min(step, 4) + batch * args.process_index
        inputs = trainer._prepare_inputs(trainer.data_collator(trainer.train_dataset[start : start + batch]))
        counts = trainer._get_num_items_in_batch([inputs], args.device)
        if step < 5:
            loss = trainer.training_step(model, inputs, counts)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append({"grad_norm": whole(norm).item()})
        else:
            with torch.no_grad():
                loss = trainer.compute_loss(model.eval(), inputs, num_items_in_batch=counts) * args.world_size
            losses.append({})
        losses[-1]["loss"] = trainer._over_processes(loss.detach()).item() / args.world_size
    return losses


@pytest.fixture(scope="module")
def results(tmp_path_factory, make_pretraining_model, tiny_processor):
    """Losses and parameters of every case, of one process and of two, each of which is started once."""
    folder = tmp_path_factory.mktemp("processes")
    make_pretraining_model().save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    (folder / "run.py").write_text(SCRIPT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        run_here(folder / "run.py", folder, 4, *CASES, monkeypatch=patch)
        run_in_two(folder / "run.py", folder, 2, *CASES)
    return {case: [torch.load(folder / f"{case}-{size}.pt") for size in (1, 2)] for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one_for_five_steps(case, results):
    (one, parameters), (two, others) = results[case]
    assert len(one) == 6 and all(one)
    pairs = [(mine[name], theirs[name]) for mine, theirs in zip(one, two, strict=True) for name in mine]
    apart = [abs(theirs - mine) / (abs(mine) or 1.0) for mine, theirs in pairs]
    moved = [(others[name] - parameter).abs().max().item() for name, parameter in parameters.items()]
    print(f"| {case} | {max(apart):.1e} | {max(moved):.1e} |")
    for mine, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4)
    for name, parameter in parameters.items():
        torch.testing.assert_close(others[name], parameter, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("case", ["default", "without_views"])
def test_gates_are_those_of_both_processes(case, results):
    for losses, _ in results[case]:
        assert all(0 < entry["gate_std_final"] < 0.5 and entry["gate_strength_final"] == 1.0 for entry in losses[:5])


def test_every_term_of_the_heads_is_measured(results):
    (one, _), (bare, _) = results["heads"][0], results["heads_without_depth"][0]
    assert all(entry[f"loss_{name}"] > 0 for entry in one[:5] for name in HEADS["terms"])
    assert all(entry["loss_depth"] > 0 for entry in bare[:5])  # of the rows that have it


def test_the_share_of_kept_scenes_is_over_both_processes(results):
    for losses, _ in results["kept_geometry"]:
        rates = [entry.get("cache_hit_rate") for entry in losses]
        assert rates == [0.0, 0.0, 1.0, 1.0, 1.0, None]  # the next batch is made before the first is encoded
