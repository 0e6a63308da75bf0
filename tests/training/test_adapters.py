"""LoRA adapters of PEFT: the groups of their parameters, and training by `GeometryAlignedTrainer` and `Trainer`."""

import copy

import peft
import pytest
import torch

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.training import SceneCollator
from gap_mllm.training.module_groups import assign_groups
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions


SMALL = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(1, 2), num_views_shares=(0.5, 0.5))
LANGUAGE = r".*language_model.*\.(q_proj|v_proj)"


@pytest.fixture(scope="module")
def rows():
    dataset = RoomQuestionDataset(RenderedRooms("train", 4, SMALL, 1), RoomQuestions(counts={"reconstruction": 1}))
    return [dataset[index][0] for index in range(4)]


@pytest.fixture
def make_adapted(make_pretraining_model):
    """A function (LoraConfig's arguments) -> the tiny model within LoRA adapters."""

    def make(**kwargs):
        torch.manual_seed(0)
        return peft.get_peft_model(make_pretraining_model(), peft.LoraConfig(r=4, target_modules=LANGUAGE, **kwargs))

    return make


@pytest.mark.parametrize("task_type", [None, "CAUSAL_LM"])
@pytest.mark.parametrize("kind", ["GapMllmForConditionalGeneration", "GapMllmForPreTraining"])
def test_what_peft_and_trl_add_to_the_inputs_changes_nothing(
    kind, task_type, make_pretraining_model, rows, tiny_processor
):
    model = make_pretraining_model()
    if kind == "GapMllmForConditionalGeneration":
        model = GapMllmForConditionalGeneration(model.config)
    adapted = peft.get_peft_model(model.eval(), peft.LoraConfig(target_modules=LANGUAGE, task_type=task_type))
    batch = SceneCollator(tiny_processor)(copy.deepcopy(rows[:2]))
    loss, expected = adapted(**batch, use_cache=False).loss, model(**batch).loss  # fresh adapters do nothing
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("kept", [["fusion"], ["lm_head", "point_map_heads.visual"]])
def test_parameters_of_adapters_are_in_the_groups_of_what_they_adapt(kept, make_adapted, make_pretraining_model):
    model = make_adapted(modules_to_save=kept)
    groups, plain = assign_groups(model), assign_groups(make_pretraining_model())
    names = [name for members in groups.values() for name in members]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    added = {group: len(groups[group]) - len(plain[group]) for group in groups}
    lora = sum("lora_" in name for name in names)
    copies = {group: sum(".modules_to_save." in name for name in groups[group]) for group in groups}
    assert added == copies | {"language": lora + copies["language"]} and lora == 3 * 2 * 2
    wanted = {"mergers", "fusion"} if kept == ["fusion"] else {"language", "point_maps"}
    assert {group for group, count in copies.items() if count} == wanted


def test_adapters_are_trained_over_the_terms_with_the_rates_of_their_groups(
    make_adapted, make_trainer, rows, tiny_processor
):
    model = make_adapted(modules_to_save=["fusion"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make_trainer(
        model,
        copy.deepcopy(rows),
        SceneCollator(tiny_processor, "block_mask", for_pretraining=True, point_map_side=4),
        scorer=lambda model: {"tokens": model.generate(torch.tensor([[5, 6]]), max_new_tokens=2).shape[1]},
        module_learning_rates={"language": 1e-2, "fusion": 1e-3},
        per_device_train_batch_size=2,
        max_steps=2,
        point_map_weight=1.0,
        readout_weight=1.0,
        eval_strategy="steps",
        eval_steps=2,
    )
    trainer.train()
    rates = {id(p): group["lr"] for group in trainer.create_optimizer().param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        is_adapter = "lora_" in name or ".modules_to_save." in name
        assert parameter.requires_grad is is_adapter, name
        assert (id(parameter) in rates) is parameter.requires_grad, name
        assert torch.equal(parameter, before[name]) is not parameter.requires_grad, name
    assert any("eval_tokens" in entry for entry in trainer.state.log_history)


@pytest.mark.slow
def test_a_plain_trainer_gives_adapters_one_loss_for_every_split(
    make_adapted, make_plain_trainer, rows, tiny_processor
):
    entries = []
    for batch, accumulation in ((4, 1), (2, 2), (1, 4)):
        model, sizes = make_adapted(), {"per_device_train_batch_size": batch}
        collator, sizes["gradient_accumulation_steps"] = SceneCollator(tiny_processor), accumulation
        trainer = make_plain_trainer(model, rows, collator, learning_rate=1e-2, **sizes)
        trainer.train()
        entries.append(trainer.state.log_history[0])
        assert any(parameter.abs().sum() > 0 for name, parameter in model.named_parameters() if "lora_B" in name)
    for entry in entries[1:]:
        assert entry["loss"] == pytest.approx(entries[0]["loss"], rel=1e-5)
        assert entry["grad_norm"] == pytest.approx(entries[0]["grad_norm"], rel=1e-4)


def test_a_fixed_strength_stays_fixed_in_modules_that_peft_saves(
    make_adapted, make_plain_trainer, rows, tiny_processor
):
    model = make_adapted(modules_to_save=["fusion"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make_plain_trainer(model, rows[:2], SceneCollator(tiny_processor), weight_decay=0.5, max_steps=2).train()
    copies = {name: value for name, value in model.state_dict().items() if ".modules_to_save." in name}
    still = {name for name, value in copies.items() if torch.equal(value, before[name])}
    strengths = {name for name in copies if name.endswith(".strength")}
    assert len(strengths) == 4 and strengths < still and len(still) < len(copies) / 2  # level 2 reaches no answer
    assert not any(name.endswith(".strength") for name, _ in model.named_parameters())
