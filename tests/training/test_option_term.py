"""Letters look at the right option: where the targets are in every layout, and what the term adds up."""

from dataclasses import replace

import pytest
import torch

from gap_mllm.processing.data import RenderedRooms, RoomVariety, make_tasks
from gap_mllm.training import SceneCollator
from gap_mllm.training.answered_places import right_option
from gap_mllm.training.readout import READOUT_ATTENTION, record_readout
from gap_mllm.training.terms import OptionTerm


VIEWS = RoomVariety(sizes=((128, 128),), size_shares=(1.0,), num_views=(2,), num_views_shares=(1.0,), mark_share=0.0)


@pytest.fixture(scope="module")
def samples():
    scene = RenderedRooms("train", 4, VIEWS, 1)[1]
    return list(make_tasks(scene, ("front_behind", "object_distance", "left_right"), phrasings="first"))


@pytest.mark.parametrize("layout", ["block_mask", "padded", "packed"])
def test_what_predicts_a_letter_looks_at_the_end_of_its_option(tiny_processor, samples, layout):
    batch = SceneCollator(tiny_processor, layout, for_pretraining=True)([samples])
    ids, targets = batch["input_ids"], batch["option_targets"]
    decode, asked = tiny_processor.tokenizer.decode, [sample for sample in samples if sample.choices]
    assert len(asked) == 2
    found = {}
    for row, position in (targets >= 0).nonzero().tolist():
        letter, target = decode(batch["labels"][row, position + 1].view(1)), int(targets[row, position])
        assert batch["document_ids"][row, target] == batch["document_ids"][row, position]
        found[decode(ids[row, target - 3 : target + 1])] = letter, decode(ids[row, target + 1 : target + 2])
    assert len(found) == len(asked)
    for sample in asked:
        option = sample.choices[sample.choice_index]
        ends = [text for text in found if option.endswith(text.split(". ")[-1].strip())]
        assert len(ends) == 1
        letter, after = found[ends[0]]
        assert letter == sample.answer and after.startswith("\n")


def test_only_a_letter_alone_has_an_option(tiny_processor, samples):
    sample = next(each for each in samples if each.choices)
    assert right_option(sample) == sample.choices[sample.choice_index]
    number = next(each for each in samples if not each.choices)
    assert right_option(number) is None
    thought = replace(sample, answer=f"<think>..</think>{sample.answer}")
    elsewhere = replace(sample, question="Which one? Answer with a letter.")
    for other in (number, thought, elsewhere):
        batch = SceneCollator(tiny_processor, "block_mask", for_pretraining=True)([other])
        assert (batch["option_targets"] == -1).all()


def test_the_term_is_the_log_probability_of_its_targets(tiny_processor, samples, make_pretraining_model, make_trainer):
    """Beside the read-out term, whose layers and heads are others, and in all layouts the same."""
    sums = []
    for layout in ("block_mask", "padded", "packed"):
        collator = SceneCollator(tiny_processor, layout, for_pretraining=True, readout_mentions=True)
        terms = {"option": {"weight": 1.0, "layers": [2], "heads": [1, 3]}, "readout": {"weight": 1.0}}
        model = make_pretraining_model()
        trainer = make_trainer(model, [samples], collator, terms=terms)
        batch = collator([samples])
        counts = trainer.count_items(batch)
        found, _ = trainer.compute_terms(model.eval(), batch)
        assert counts["option"] == 2 * 2 and found["option"] > 0 and found["option"].requires_grad
        sums.append([float(found[name].detach()) for name in ("option", "readout")])
        assert model.model.language_model.config._attn_implementation != READOUT_ATTENTION
    assert sums[1] == pytest.approx(sums[0], rel=1e-4) and sums[2] == pytest.approx(sums[0], rel=1e-4)  # rounding


def test_recordings_of_two_names_lie_within_each_other(make_pretraining_model):
    language = make_pretraining_model().model.language_model
    before = language.config._attn_implementation
    with record_readout(language, [1], [0]) as first, record_readout(language, [2], [1], "option") as second:
        assert first is not second and {first.base, second.base} == {before}
        with record_readout(language, [2], [1], "option") as again:
            assert again is second
        assert language.config._attn_implementation == READOUT_ATTENTION
    assert language.config._attn_implementation == before
    with pytest.raises(ValueError, match="option layers \\[70\\] and heads \\[0\\] must lie below"):
        OptionTerm(layers=[70]).watch(make_pretraining_model()).__enter__()


def test_questions_without_options_have_no_items(tiny_processor, samples):
    batch = SceneCollator(tiny_processor, "block_mask", for_pretraining=True)([[s for s in samples if not s.choices]])
    assert int(OptionTerm().count(batch)) == 0 and torch.all(batch["option_targets"] == -1)
