"""Terms of the loss by name: settings, what is refused, and a toy term that is registered, trained with and logged."""

import copy

import pytest
import torch

from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.training import LOSS_TERMS, GeometryAlignedTrainingArguments, LossTerm, SceneCollator
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.terms import make_terms
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
    assert list(terms) == ["text", "point_map", "readout"]
    assert [term.weight for term in terms.values()] == [2.0, 0.0, 0.5]
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
