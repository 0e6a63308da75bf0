"""Both trainers: global counts, named errors, groups, frozen parameters, resuming, and what is logged."""

import copy
import json
import os
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, TrainingArguments

from gap_mllm import GapMllmForPreTraining, GapMllmVggtConfig, GapMllmVggtForReconstruction
from gap_mllm.geometry_views_gap_mllm import is_trainable
from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.training.geometry_aligned_trainer import GeometryAlignedTrainer, GeometryAlignedTrainingArguments
from gap_mllm.training.geometry_encoder_trainer import GeometryEncoderTrainer, GeometryEncoderTrainingArguments
from gap_mllm.training.losses import confidence_loss, log_depth_loss, point_loss, pose_loss, text_loss
from gap_mllm.training.module_groups import MODULE_GROUPS, assign_groups, freeze_groups, parameter_groups
from gap_mllm.training.readout import READOUT_ATTENTION, record_readout
from gap_mllm.training.rooms import (
    RoomGeometryDataset,
    RoomQuestionDataset,
    RoomQuestions,
    collate_scenes,
)
from gap_mllm.training.scene_collator import LOSS_FIELDS, SceneCollator
from tests.slow_cases import slow_but


RATES = {"geometry": 0, "vision": 1e-3, "mergers": 1e-3, "fusion": 1e-3, "language": 1e-3, "point_maps": 1e-3}
SMALL = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(1, 2), num_views_shares=(0.5, 0.5))
QUESTIONS = RoomQuestions(counts={"reconstruction": 2}, decimals=1)


@pytest.fixture(scope="module")
def rooms():
    return _Kept(RoomQuestionDataset(RenderedRooms("train", 8, SMALL, 1), QUESTIONS))


def make_collator(processor, layout="block_mask", **options):
    return SceneCollator(processor, layout, for_pretraining=True, **options)


class _Kept(Dataset):
    """A dataset whose items are made once."""

    def __init__(self, dataset):
        self.items = [dataset[index] for index in range(len(dataset))]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return copy.deepcopy(self.items[index])


# Losses by hand


def test_losses_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, 100.0]])
    assert text_loss(logits, torch.tensor([0, 1])).sum.item() == pytest.approx(torch.tensor(2.0).log().item())
    weights = torch.tensor([2.0, 1.0])
    assert text_loss(logits, torch.tensor([0, 1]), weights).sum.item() == pytest.approx(
        2 * torch.tensor(2.0).log().item()
    )
    prediction, target = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]]), torch.zeros(2, 3)
    target[1] = float("nan")
    assert point_loss(prediction, target, torch.tensor([True, False])).sum.item() == pytest.approx(5.0)
    depth = torch.tensor([1.0, torch.e, 5.0])
    valid = torch.tensor([True, True, False])
    assert log_depth_loss(depth, torch.tensor([1.0, 1.0, 0.0]), valid).sum.item() == pytest.approx(1.0)
    error = torch.tensor([0.5], requires_grad=True)
    loss = confidence_loss(error, torch.tensor([2.0]), alpha=0.5).sum
    assert loss.item() == pytest.approx(2 * 0.5 - 0.5 * torch.tensor(2.0).log().item()) and not loss.requires_grad
    iterations, pose = torch.zeros(2, 1, 1, 9), torch.zeros(1, 1, 9)
    pose[..., 0], pose[..., 8] = 3.0, 1.0  # mean over three translations 1, half of the mean over two angles 0.25
    iterations[1, ..., 0] = 3.0
    # errors 1.25 and 0.25, weights 0.6 and 1
    assert pose_loss(iterations, pose).sum.item() == pytest.approx((0.6 * 1.25 + 0.25) / 1.6)


def test_point_loss_has_a_finite_gradient_at_the_truth():
    point = torch.zeros(1, 3, requires_grad=True)
    point_loss(point, torch.zeros(1, 3), torch.tensor([True])).sum.backward()
    assert point.grad.isfinite().all()


# One loss for every split of a batch


def test_one_batch_of_four_equals_two_accumulated_batches_of_two(
    make_pretraining_model, make_trainer, rooms, tiny_processor
):
    results = []
    for batch, accumulation in ((4, 1), (2, 2)):
        model = make_pretraining_model()
        trainer = make_trainer(
            model,
            rooms,
            make_collator(tiny_processor, point_map_side=model.config.point_map_side),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            max_steps=2,
            logging_steps=1,
            point_map_weight=1.0,
            readout_weight=1.0,
        )
        trainer.train()
        results.append(([entry for entry in trainer.state.log_history if "loss" in entry], model))
    (history, model), (other_history, other) = results
    for entry, other_entry in zip(history, other_history, strict=True):
        for name in ("loss", "loss_text", "loss_point_map", "loss_readout", "grad_norm"):
            assert other_entry[name] == pytest.approx(entry[name], rel=1e-4), name
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        # AdamW divides by the gradient's size: noise in a tiny gradient moves a parameter by up to one step, 1e-3
        torch.testing.assert_close(theirs, mine, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("logging_steps", "logged"), [(2, [2, 3]), (10, [3])])
def test_the_last_step_is_logged_however_few_there_are(
    logging_steps, logged, make_pretraining_model, make_trainer, rooms, tiny_processor
):
    """Else a run shorter than `logging_steps` leaves no loss, and nothing to draw."""
    settings = {"per_device_train_batch_size": 1, "max_steps": 3, "logging_steps": logging_steps}
    trainer = make_trainer(make_pretraining_model(), rooms, make_collator(tiny_processor), **settings)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in entries] == logged
    assert all(entry["loss_text"] > 0 for entry in entries)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch.distributed is not built in")
def test_two_processes_equal_one(tmp_path, make_pretraining_model, tiny_processor):
    """The first step's loss and gradient norm under DDP (gloo), with rooms that carry unlike numbers of tokens."""
    make_pretraining_model().save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, sys, torch
            torch.set_num_threads(1)
            from gap_mllm.training.train_geometry_aligned import train_geometry_aligned

            folder, batch = sys.argv[1], sys.argv[2]
            trainer, _ = train_geometry_aligned(folder + f"/recipe{batch}.yaml")
            if trainer.is_world_process_zero():
                entry = [e for e in trainer.state.log_history if "loss" in e][0]
                json.dump(entry, open(folder + f"/entry{batch}.json", "w"))
            trainer.accelerator.end_training()  # else threads of gloo may end the process with an abort
            """
        )
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    for command, batch in (([sys.executable], "4"), (torchrun, "2")):
        recipe = {
            "model_path": str(tmp_path / "model"),
            "questions": {"counts": {"reconstruction": 2}, "decimals": 1},
            "variety": {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [2], "num_views_shares": [1.0]},
            "module_learning_rates": RATES,
            "per_device_train_batch_size": int(batch),
            "max_steps": 1,
            "logging_steps": 1,
            "point_map_weight": 1.0,
            "readout_weight": 1.0,
            "report_to": "none",
            "save_strategy": "no",
            "use_cpu": True,
            "output_dir": str(tmp_path / f"out{batch}"),
            "ddp_find_unused_parameters": False,
        }
        (tmp_path / f"recipe{batch}.yaml").write_text(yaml.safe_dump(recipe))
        done = subprocess.run(
            [*command, str(script), str(tmp_path), batch], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / f"entry{batch}.json").read_text()) for batch in ("4", "2"))
    for name in ("loss", "loss_text", "loss_point_map", "loss_readout", "grad_norm"):
        assert two[name] == pytest.approx(one[name], rel=1e-3), name


def test_resumed_training_has_the_same_losses(make_pretraining_model, make_trainer, rooms, tiny_processor, tmp_path):
    collate = make_collator(tiny_processor, point_map_side=4)
    options = {
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 2,
        "point_map_weight": 1.0,
    }
    whole = make_trainer(make_pretraining_model(), rooms, collate, **options)
    whole.train()
    resumed = make_trainer(make_pretraining_model(seed=1), rooms, collate, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    names = ("loss", "loss_text", "loss_point_map", "grad_norm", "learning_rate")
    losses, again = (
        [[entry[name] for name in names] for entry in trainer.state.log_history if "loss" in entry]
        for trainer in (whole, resumed)
    )
    assert again[2:] == losses[2:] and len(losses) == 4


# What stops a run, and what is refused


def test_a_loss_that_is_not_finite_names_step_term_and_samples(
    make_pretraining_model, make_trainer, rooms, tiny_processor
):
    model = make_pretraining_model()
    trainer = make_trainer(model, rooms, make_collator(tiny_processor), per_device_train_batch_size=2, max_steps=2)
    with torch.no_grad():
        model.lm_head.weight[5] = float("inf")
    with pytest.raises(
        FloatingPointError, match=r"'text' is .* at step 0, for the samples \['room-train-0/reconstruction-0', 'room-t"
    ):
        trainer.train()


def test_data_parallel_is_refused(make_pretraining_model, make_trainer, monkeypatch):
    monkeypatch.setattr(
        "gap_mllm.training.geometry_aligned_trainer.GeometryAlignedTrainingArguments.n_gpu", property(lambda _: 2)
    )
    with pytest.raises(ValueError, match="accelerate launch --num_processes 2"):
        make_trainer(make_pretraining_model())


# Groups


def test_groups_cover_every_parameter_once(make_pretraining_model):
    model = make_pretraining_model()
    members = assign_groups(model)
    names = [name for group in members.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters()) and all(members.values())
    with pytest.raises(ValueError, match="'model.visual.patch_embed.proj.weight' is in none of the groups"):
        assign_groups(model, {**MODULE_GROUPS, "vision": ("visual.",)})
    with pytest.raises(ValueError, match=r"is in the groups \['vision', 'all'\]"):
        assign_groups(model, {**MODULE_GROUPS, "all": ("model.visual.",)})


def test_learning_rates_are_those_of_the_groups(make_pretraining_model, make_trainer, capsys):
    rates = {"geometry": 0.0, "vision": 0.0, "mergers": 3e-3, "fusion": 2e-3, "language": 1e-3, "point_maps": 5e-4}
    model = make_pretraining_model()
    trainer = make_trainer(model, module_learning_rates=rates, weight_decay=0.1, point_map_weight=1.0)
    optimizer = trainer.create_optimizer()
    table = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert list(table) == ["group", *rates] and table["vision"][1:] == ["0", "frozen"]
    assert table["mergers"][0] == table["mergers"][1] and table["mergers"][2] == "0.003"
    by_parameter = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for group, names in assign_groups(model).items():
        for name in names:
            parameter = dict(model.named_parameters())[name]
            if rates[group] == 0 or name.endswith((".strength", "mask_token")):
                assert id(parameter) not in by_parameter and not parameter.requires_grad, name
            else:
                assert by_parameter[id(parameter)]["lr"] == rates[group], name
    norm = model.model.language_model.norm.weight
    assert by_parameter[id(norm)]["weight_decay"] == 0.0
    assert by_parameter[id(model.model.language_model.layers[0].mlp.up_proj.weight)]["weight_decay"] == 0.1
    total = sum(len(group["params"]) for group in optimizer.param_groups)
    assert total == len(by_parameter) == sum(p.requires_grad for p in model.parameters())


def test_groups_follow_the_learning_rate_but_for_those_that_have_their_own(tmp_path):
    published = {"geometry": 0, "vision": 0, "mergers": 1e-5, "fusion": 1e-5, "language": 5e-6, "point_maps": 1e-5}
    make = partial(GeometryAlignedTrainingArguments, output_dir=str(tmp_path), report_to="none")
    assert make().group_learning_rates == pytest.approx(published)
    doubled = {group: 2 * rate for group, rate in published.items()}
    assert make(learning_rate=1e-5).group_learning_rates == pytest.approx(doubled)
    own = make(learning_rate=1e-5, module_learning_rates={"vision": 3e-4, "fusion": 0})
    assert own.group_learning_rates == pytest.approx(doubled | {"vision": 3e-4, "fusion": 0})


def test_a_learning_rate_that_nothing_would_follow_is_refused(tmp_path):
    with pytest.raises(ValueError, match="learning_rate is 0.01, but module_learning_rates names every group.*Leave"):
        GeometryAlignedTrainingArguments(str(tmp_path), learning_rate=1e-2, module_learning_rates=RATES)
    with pytest.raises(ValueError, match=r"module_learning_rates has the unknown key 'fuson' \(did you mean 'fusion'"):
        GeometryAlignedTrainingArguments(str(tmp_path), module_learning_rates={"fuson": 1e-3})


def test_what_no_term_reads_is_refused_and_workers_that_are_not_there_are_not_kept(tmp_path):
    with pytest.raises(ValueError, match="label_smoothing_factor is 0.1, but the terms of the loss do not smooth"):
        GeometryAlignedTrainingArguments(str(tmp_path), label_smoothing_factor=0.1)
    kept = {"dataloader_persistent_workers": True}  # torch refuses it where there are none
    assert GeometryAlignedTrainingArguments(
        str(tmp_path), dataloader_num_workers=1, **kept
    ).dataloader_persistent_workers
    assert not GeometryAlignedTrainingArguments(str(tmp_path), **kept).dataloader_persistent_workers


@pytest.mark.slow
def test_learning_rate_moves_what_is_trained(make_pretraining_model, make_trainer, rooms, tiny_processor):
    moved = []
    for rate in (1e-4, 1e-3):
        model = make_pretraining_model()
        norm = model.model.language_model.norm.weight
        before = norm.detach().clone()
        settings = {"module_learning_rates": None, "per_device_train_batch_size": 1, "max_steps": 1}
        make_trainer(model, rooms, make_collator(tiny_processor), learning_rate=rate, **settings).train()
        moved.append((norm.detach() - before).abs().max().item())
    assert moved == pytest.approx([1e-4, 1e-3], rel=1e-2)  # AdamW's first step


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_heads_are_frozen_while_no_term_trains_them(weight, make_pretraining_model, make_trainer):
    """Else nothing would reach them, which DistributedDataParallel takes for an error."""
    model = make_pretraining_model()
    make_trainer(model, point_map_weight=weight)
    assert is_trainable(model.point_map_heads) is bool(weight) and is_trainable(model.model.fusion)


def test_rates_must_name_the_groups(make_pretraining_model):
    rates = dict.fromkeys(MODULE_GROUPS, 1e-3)
    with pytest.raises(ValueError, match=r"unknown \['lora'\], missing \['fusion'\]"):
        freeze_groups(make_pretraining_model(), {**{k: v for k, v in rates.items() if k != "fusion"}, "lora": 1.0})


def test_without_weight_decay_no_parameter_is_lost_or_doubled(make_pretraining_model):
    model = make_pretraining_model()
    groups = parameter_groups(model, dict.fromkeys(MODULE_GROUPS, 1e-3), 0.0, ["lm_head.weight"])
    chosen = [id(p) for group in groups for p in group["params"]]
    assert sorted(chosen) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_frozen_stays_bit_equal_and_the_rest_moves(make_pretraining_model, make_trainer, rooms, tiny_processor):
    model = make_pretraining_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make_trainer(
        model,
        rooms,
        make_collator(tiny_processor, point_map_side=4),
        per_device_train_batch_size=2,
        max_steps=3,
        point_map_weight=1.0,
        readout_weight=1.0,
    ).train()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    for name, value in model.state_dict().items():
        if name not in trainable and name != "lm_head.weight":
            assert torch.equal(value, before[name]), name
        else:
            assert not torch.equal(value, before[name]), name
    assert not any(name.startswith("model.geometry.") for name in trainable)


# Read-out


def test_readout_equals_the_attention_that_eager_reports(make_pretraining_model, rooms, tiny_processor):
    model = make_pretraining_model()
    language = model.model.language_model
    batch = make_collator(tiny_processor, "packed")([rooms[0]])
    documents, targets = batch["document_ids"], batch["readout_targets"]
    inputs = {name: value for name, value in batch.items() if name not in LOSS_FIELDS}
    with record_readout(language, [1, 2], [0, 3]) as recording:
        recording.watch(documents, targets)
        with_readout = model(**inputs).answer_logits
        assert language.config._attn_implementation == READOUT_ATTENTION
    assert language.config._attn_implementation == "sdpa"
    without = model(**inputs).answer_logits
    assert torch.equal(with_readout, without)

    seen = {}
    hooks = [
        layer.self_attn.register_forward_hook(lambda module, _, out: seen.__setitem__(module.layer_idx, out[1]))
        for layer in language.layers
    ]
    model.set_attn_implementation("eager")
    model(**inputs)
    for hook in hooks:
        hook.remove()
    rows = (targets[0] >= 0).nonzero()[:, 0]
    expected = -sum(seen[k][0, head, rows, targets[0][rows]].log().sum() for k in (1, 2) for head in (0, 3))
    torch.testing.assert_close(recording.loss, expected, rtol=1e-4, atol=1e-3)
    recording.loss.backward()
    assert language.layers[2].self_attn.q_proj.weight.grad.abs().sum() > 0


def test_readout_refuses_layers_that_do_not_exist(make_pretraining_model):
    language = make_pretraining_model().model.language_model
    with pytest.raises(ValueError, match=r"layers \[7\] and heads \[0\] must lie below 3 and 4"):
        with record_readout(language, [7], [0]):
            pass


# Evaluation


def test_evaluation_asks_the_scorer_in_eval_mode(make_pretraining_model, make_trainer, rooms, tiny_processor):
    modes = []

    def score(model):
        modes.append(model.training)
        return {"parse_rate": 0.25}

    model = make_pretraining_model()
    trainer = make_trainer(
        model,
        rooms,
        make_collator(tiny_processor),
        scorer=score,
        per_device_train_batch_size=2,
        max_steps=2,
        eval_strategy="steps",
        eval_steps=1,
    )
    trainer.train()
    scores = {
        entry["step"]: entry["eval_parse_rate"] for entry in trainer.state.log_history if "eval_parse_rate" in entry
    }
    assert scores == {1: 0.25, 2: 0.25} and not any(modes)


@pytest.mark.parametrize("has_rows", slow_but((True,), [False, True]))
def test_best_model_and_early_stopping_go_by_the_scorer(
    has_rows, make_pretraining_model, make_trainer, rooms, tiny_processor
):
    values = iter([0.25, 0.75, 0.5, 0.25, 0.0])
    model = make_pretraining_model()
    trainer = make_trainer(
        model,
        rooms,
        make_collator(tiny_processor),
        scorer=lambda model: {"parse_rate": next(values)},
        per_device_train_batch_size=1,
        max_steps=5,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        metric_for_best_model="parse_rate",
        greater_is_better=True,
        load_best_model_at_end=True,
    )
    trainer.eval_dataset = rooms.items[:1] if has_rows else trainer.eval_dataset
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
    trainer.train()
    assert (trainer.state.global_step, trainer.state.best_metric) == (4, 0.75)
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
    state = json.loads((Path(trainer.state.best_model_checkpoint) / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == trainer.state.best_model_checkpoint
    best = GapMllmForPreTraining.from_pretrained(trainer.state.best_model_checkpoint, dtype="float32")
    for name, parameter in best.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name
    entries = [entry for entry in trainer.state.log_history if "eval_parse_rate" in entry]
    assert len(entries) == 4 and all(("eval_loss" in entry) is has_rows for entry in entries)


def test_predictions_do_not_ask_the_scorer(make_pretraining_model, make_trainer, rooms, tiny_processor):
    trainer = make_trainer(
        make_pretraining_model(), rooms, make_collator(tiny_processor), scorer=lambda model: {"parse_rate": 0.5}
    )
    metrics = trainer.predict(rooms.items[:1]).metrics
    assert "test_loss" in metrics and "test_parse_rate" not in metrics


def test_a_processor_may_be_the_processing_class(make_pretraining_model, rooms, tiny_processor, tmp_path):
    args = GeometryAlignedTrainingArguments(str(tmp_path), max_steps=1, report_to="none", save_strategy="no")
    model, data = make_pretraining_model(), {"train_dataset": rooms, "data_collator": make_collator(tiny_processor)}
    assert GeometryAlignedTrainer(model, args, processing_class=tiny_processor, **data).train().training_loss > 0


def test_memory_is_not_pinned_on_the_cpu(make_pretraining_model, make_trainer, rooms, tiny_processor, recwarn):
    settings = {"per_device_train_batch_size": 1, "max_steps": 1}
    make_trainer(make_pretraining_model(), rooms, make_collator(tiny_processor), **settings).train()
    assert not [warning for warning in recwarn if "pin_memory" in str(warning.message)]


# Geometry encoder


@pytest.fixture
def encoder_trainer(tmp_path, encoder_config):
    def make(dataset, **kwargs):
        torch.manual_seed(0)
        model = GapMllmVggtForReconstruction(GapMllmVggtConfig(**encoder_config))
        args = GeometryEncoderTrainingArguments(
            output_dir=str(tmp_path / "encoder"),
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            train_sampling_strategy="sequential",
            **kwargs,
        )
        return GeometryEncoderTrainer(model=model, args=args, train_dataset=dataset, data_collator=collate_scenes)

    return make


@pytest.mark.slow
def test_encoder_training_lowers_every_error_it_is_trained_on(encoder_trainer):
    dataset = _Kept(RoomGeometryDataset(RenderedRooms("train", 2, SMALL, 2)))
    trainer = encoder_trainer(
        dataset, per_device_train_batch_size=2, max_steps=40, logging_steps=1, learning_rate=5e-3, num_train_epochs=40
    )
    trainer.train()
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    for name in ("loss_points", "loss_depth", "loss_pose"):
        assert losses[-1][name] < 0.7 * losses[0][name], name


@pytest.mark.slow
def test_encoder_loss_is_the_same_for_views_of_mixed_sizes_in_any_split(encoder_trainer):
    variety = RoomVariety(
        sizes=((64, 64), (32, 64)), size_shares=(0.5, 0.5), num_views=(1, 2), num_views_shares=(0.5, 0.5)
    )
    dataset = _Kept(RoomGeometryDataset(RenderedRooms("train", 4, variety, 1, 3)))
    assert len({item["images"].shape for item in dataset.items}) > 1
    losses = []
    for batch, accumulation in ((4, 1), (2, 2), (1, 4)):
        trainer = encoder_trainer(
            dataset,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            logging_steps=1,
        )
        trainer.train()
        losses.append([e for e in trainer.state.log_history if "loss" in e][0])
    for name in ("loss", "loss_points", "loss_depth", "loss_pose", "loss_confidence", "grad_norm"):
        for other in losses[1:]:
            assert other[name] == pytest.approx(losses[0][name], rel=1e-3), name


def test_encoder_targets_agree_with_each_other():
    """Depth unprojected with the target cameras gives the target points."""
    from gap_mllm.processing.camera_geometry_gap_mllm import unproject_depth
    from gap_mllm.vggt_heads_gap_mllm import pose_encoding_to_cameras

    item = RoomGeometryDataset(RenderedRooms("train", 1, RoomVariety(sizes=((64, 96),), size_shares=(1.0,))))[0]
    assert item["images"].shape[1:] == (3, 56, 84) and item["valid"].all()
    extrinsics, intrinsics = pose_encoding_to_cameras(item["pose_enc"], (56, 84))
    assert torch.allclose(extrinsics[0], torch.eye(4)[:3], atol=1e-5)
    camera_points = torch.as_tensor(unproject_depth(item["depth"].double(), intrinsics.double()))
    rotation, translation = extrinsics[..., :3].double(), extrinsics[..., 3].double()
    world = torch.einsum("vji,vhwj->vhwi", rotation, camera_points - translation[:, None, None])
    # VGGT's encoding loses the principal point: up to 1.5 % of the width, and half a pixel, sideways
    error = (world - item["points"]).norm(dim=-1) / item["depth"]
    assert error.max() < 0.05


def test_gradient_checkpointed_readout_has_the_same_gradient(
    make_pretraining_model, make_trainer, rooms, tiny_processor, enable_checkpointing
):
    gradients = []
    for checkpointed in (False, True):
        model = make_pretraining_model().train()
        if checkpointed:
            enable_checkpointing(model)
        trainer = make_trainer(model, readout_weight=1.0)
        with record_readout(model.model.language_model, [1, 2], [0]):
            terms, _ = trainer.compute_terms(model, make_collator(tiny_processor)([rooms[0]]))
            terms["readout"].backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert gradients[0]["model.language_model.layers.1.self_attn.q_proj.weight"].abs().sum() > 0


def test_other_arguments_models_and_batches_are_refused_by_name(tmp_path, make_pretraining_model, tiny_model):
    own = GeometryAlignedTrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    with pytest.raises(TypeError, match="args is a TrainingArguments; expected GeometryAlignedTrainingArguments"):
        GeometryAlignedTrainer(make_pretraining_model(), TrainingArguments(output_dir=str(tmp_path)))
    with pytest.raises(TypeError, match="expected a GapMllmForPreTraining, as AutoModelForPreTraining loads it"):
        GeometryAlignedTrainer(tiny_model(), own)
    trainer = GeometryAlignedTrainer(make_pretraining_model(), own)
    with pytest.raises(ValueError, match=r"no label_weights.*SceneCollator\(processor, for_pretraining=True\)"):
        trainer.count_items({"labels": torch.zeros(1, 4)})
