"""Terms of the loss by name: settings, what is refused, and a toy term that is registered, trained with and logged."""

import copy

import pytest
import torch

from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.training import LOSS_TERMS, GeometryAlignedTrainingArguments, LossTerm, SceneCollator, Schedule
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.terms import make_terms
from gap_mllm.training.terms.number_term import token_numbers
from tests.extending import toy_loss_term


SMALL = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(1, 2), num_views_shares=(0.5, 0.5))


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(LOSS_TERMS, "logit_size", None)  # so that it is gone afterwards
    toy_loss_term.register()


@pytest.fixture(scope="module")
def rooms():
    dataset = RoomQuestionDataset(RenderedRooms("train", 2, SMALL, 1), RoomQuestions(counts={"reconstruction": 2}))
    return [dataset[index] for index in range(2)]


def test_settings_come_from_the_fields_of_the_arguments_and_from_terms(tmp_path):
    args = GeometryAlignedTrainingArguments(
        output_dir=str(tmp_path), text_weight=2.0, readout_layers=[3], terms={"readout": {"weight": 0.5, "heads": [1]}}
    )
    terms = make_terms(args, args.terms)
    assert list(terms) == list(LOSS_TERMS) and list(terms)[:3] == ["text", "point_map", "readout"]
    assert [term.weight for term in terms.values()] == [2.0, 0.0, 0.5, *[0.0] * (len(terms) - 3)]
    assert terms["readout"].layers == [3] and terms["readout"].heads == [1]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"reedout": {"weight": 1.0}}, r"terms has the unknown key 'reedout' \(did you mean 'readout'\?\)"),
        ({"readout": {"wieght": 1.0}}, r"terms\.readout has the unknown key 'wieght' \(did you mean 'weight'\?\)"),
        ({"text": {"layers": [1]}}, "terms.text has the unknown key 'layers'; it takes weight"),
        ({"text": 2.0}, "terms.text is 2.0; expected a mapping of its settings"),
        ({"text": {"weight": "1"}}, "terms.text.weight is '1'; expected a finite number"),
        ({"text": {"weight": float("nan")}}, "terms.text.weight is nan; expected a finite number"),
        ({"text": {"weight": {0: 1, "kind": "stp"}}}, r"terms.text.weight: kind is 'stp' \(did you mean 'step'\?\)"),
        ({"text": {"weight": {0.5: 1, 0: 0}}}, r"terms.text.weight: the shares of the run are \[0.5, 0.0\]"),
        (
            {"text": {"weight": {0: float("inf")}}},
            "terms.text.weight: the value at 0 is inf; expected a finite number",
        ),
    ],
)
def test_terms_and_settings_that_there_are_not_are_refused(terms, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        GeometryAlignedTrainingArguments(output_dir=str(tmp_path), terms=terms)


def test_a_term_that_defines_nothing_says_so():
    with pytest.raises(TypeError, match="LossTerm must define count"):
        LossTerm().count({})
    with pytest.raises(TypeError, match="LossTerm must define sum"):
        LossTerm().sum(None, {})


def test_a_registered_term_is_trained_with_and_logged_the_same_for_every_split(
    toy, rooms, make_pretraining_model, make_trainer, tiny_processor
):
    entries = []
    for batch in (2, 1):
        trainer = make_trainer(
            make_pretraining_model(),
            copy.deepcopy(rooms),
            SceneCollator(tiny_processor, "block_mask", for_pretraining=True),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=2 // batch,
            max_steps=1,
            logging_steps=1,
            terms={"logit_size": {"weight": 0.5, "scale": 2.0}},
        )
        trainer.train()
        entries.append(next(entry for entry in trainer.state.log_history if "loss" in entry))
    whole, split = entries
    assert whole["loss"] == pytest.approx(whole["loss_text"] + 0.5 * whole["loss_logit_size"], rel=1e-4)
    for name in ("loss", "loss_text", "loss_logit_size", "grad_norm"):
        assert split[name] == pytest.approx(whole[name], rel=1e-4), name


def test_a_field_of_a_batch_that_is_for_a_term_does_not_reach_the_model(
    toy, rooms, make_pretraining_model, make_trainer, tiny_processor, monkeypatch
):
    monkeypatch.setattr(toy_loss_term.LogitSizeTerm, "batch_fields", ("scales",))
    model = make_pretraining_model()
    trainer = make_trainer(model, terms={"logit_size": {"weight": 1.0}})
    batch = {**SceneCollator(tiny_processor, "block_mask", for_pretraining=True)(rooms[:1]), "scales": torch.ones(2)}
    sums, outputs = trainer.compute_terms(model, batch)  # a field that it does not know would be an error
    expected = outputs.answer_logits.logsumexp(-1).square().sum()
    assert list(sums) == ["text", "logit_size"] and torch.equal(sums["logit_size"], expected)
    assert int(trainer.count_items(batch)["logit_size"]) == len(outputs.answer_logits)


def test_numbers_of_answers_are_drawn_to_the_true_ones(rooms, make_pretraining_model, make_trainer, tiny_processor):
    collate = SceneCollator(tiny_processor, "block_mask", for_pretraining=True, answer_weights={"decimals": 0.25})
    model = make_pretraining_model()
    trainer = make_trainer(
        model, copy.deepcopy(rooms), collate, terms={"number": {"weight": 1.0}}, text_weight=0.0, max_steps=1
    )
    batch, tokenizer = collate(copy.deepcopy(rooms)), tiny_processor.tokenizer
    numbers = token_numbers(tokenizer)
    assert {tokenizer.decode([index]): value.item() for index, value in enumerate(numbers) if value == value}["7"] == 7
    told = [(index, row) for row in range(len(batch["labels"])) for index in range(1, batch["labels"].shape[1])]
    expected = sum(
        batch["label_weights"][row, index].item()
        for index, row in told
        if batch["labels"][row, index] >= 0 and tokenizer.decode(batch["labels"][row, index]).lstrip("-").isdigit()
    )
    assert trainer.count_items(batch)["number"].item() == pytest.approx(expected) and expected > 0
    sums, outputs = trainer.compute_terms(model, batch)
    sure = torch.nn.functional.one_hot(outputs.answer_targets, outputs.answer_logits.shape[-1]) * 100.0
    outputs.answer_logits = sure
    assert trainer.terms["number"].sum(outputs, batch) < 1e-6 < sums["number"]
    with pytest.raises(ValueError, match="terms.number needs the tokenizer"):
        make_trainer(model, rooms, lambda items: items, terms={"number": {"weight": 1.0}})


# Weights that follow the run


FADING = {0: 1.0, 0.5: 0.0}


def scheduled_run(make_trainer, model, rooms, processor, batch=2, **options):
    """Losses and weights of four steps."""
    trainer = make_trainer(
        model,
        [copy.deepcopy(room) for room in rooms * 4],
        SceneCollator(processor, "block_mask", for_pretraining=True, point_map_side=model.config.point_map_side),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=2 // batch,
        max_steps=4,
        logging_steps=1,
        lr_scheduler_type="constant",
        **options,
    )
    trainer.train()
    return trainer, [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.slow
def test_a_weight_follows_the_run_the_same_for_every_split(
    rooms, make_pretraining_model, make_trainer, tiny_processor
):
    terms = {"point_map": {"weight": FADING}, "text": {"weight": 2.0}}
    found = []
    for batch in (2, 1):
        model = make_pretraining_model()
        trainer, entries = scheduled_run(make_trainer, model, rooms, tiny_processor, batch, terms=terms)
        assert [entry["weight_point_map"] for entry in entries] == [1.0, 0.5, 0.0, 0.0]
        for entry, weight in zip(entries, (1.0, 0.5, 0.0, 0.0), strict=True):
            assert "weight_text" not in entry and entry["loss_point_map"] > 0  # measured while it weighs nothing
            expected = 2.0 * entry["loss_text"] + weight * entry["loss_point_map"]
            assert entry["loss"] == pytest.approx(expected, rel=1e-4)
        assert trainer.term_names == ("text", "point_map") and trainer.term_weights["point_map"] == 0.0
        found.append(entries)
    for whole, split in zip(*found, strict=True):
        for name in ("loss", "loss_text", "loss_point_map", "grad_norm"):
            assert split[name] == pytest.approx(whole[name], rel=2e-3), name  # four steps apart


@pytest.mark.slow
def test_resuming_goes_on_with_the_weight_of_the_step(
    rooms, make_pretraining_model, make_trainer, tiny_processor, tmp_path
):
    terms, saving = {"point_map": {"weight": FADING}}, {"save_strategy": "steps", "save_steps": 1}
    trainer, whole = scheduled_run(
        make_trainer, make_pretraining_model(), rooms, tiny_processor, terms=terms, **saving
    )
    again = make_trainer(
        make_pretraining_model(1),
        trainer.train_dataset,
        trainer.data_collator,
        terms=terms,
        max_steps=4,
        logging_steps=1,
        per_device_train_batch_size=2,
    )
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    entries = [entry for entry in again.state.log_history if "loss" in entry]
    assert [entry["weight_point_map"] for entry in entries] == [1.0, 0.5, 0.0, 0.0]
    assert [entry["loss_text"] for entry in entries[:2]] == pytest.approx([entry["loss_text"] for entry in whole[:2]])


def test_heads_are_frozen_only_where_no_weight_ever_trains_them(make_pretraining_model, make_trainer):
    for weight, is_trained in (({0: 0.0, 0.5: 1.0}, True), ({0: 0.0, 1: 0.0}, False)):
        model = make_pretraining_model()
        trainer = make_trainer(model, terms={"point_map": {"weight": weight}}, max_steps=4)
        heads = [parameter.requires_grad for parameter in model.point_map_heads.parameters()]
        assert any(heads) is all(heads) is is_trained and ("point_map" in trainer.term_names) is is_trained


def test_arguments_with_a_schedule_are_written_as_json(tmp_path):
    terms = {"readout": {"weight": Schedule(FADING, "step")}}
    args = GeometryAlignedTrainingArguments(output_dir=str(tmp_path), terms=terms)
    assert '"0.5": 0.0' in args.to_json_string()  # as tensorboard asks for it
    assert make_terms(args, args.terms)["readout"].weight == Schedule(FADING, "step")
