"""`transformers.Trainer` as it is: one loss and gradient for every split of a batch, one eval_loss for every size."""

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.training import SceneCollator
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from tests.slow_cases import slow_but
from tests.training.processes import run_here, run_in_two


SMALL = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(1, 2), num_views_shares=(0.5, 0.5))
TASKS = ("reconstruction", "detection3d", "grounding_box", "dense_caption", "reconstruction")
SPLITS = ((4, 1), (2, 2), (1, 4))
KINDS = ("GapMllmForConditionalGeneration", "GapMllmForPreTraining")

SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
import gap_mllm
from transformers import Trainer, TrainingArguments
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.training import SceneCollator
from tests.training.test_plain_trainer import make_rows

folder, batch = sys.argv[1], int(sys.argv[2])
for kind in ("GapMllmForConditionalGeneration", "GapMllmForPreTraining"):
    model = getattr(gap_mllm, kind).from_pretrained(folder, dtype="float32")
    args = TrainingArguments(
        output_dir=folder + "/out", per_device_train_batch_size=batch, max_steps=1, logging_steps=1, learning_rate=0.0,
        report_to="none", save_strategy="no", use_cpu=True, remove_unused_columns=False, disable_tqdm=True,
        train_sampling_strategy="sequential", ddp_find_unused_parameters=False,
    )
    collator = SceneCollator(GapMllmProcessor.from_pretrained(folder))
    rows = make_rows()
    trainer = Trainer(model=model, args=args, train_dataset=rows, eval_dataset=rows[:4], data_collator=collator)
    trainer.train()
    measured = trainer.evaluate()
    if trainer.is_world_process_zero():
        entry = trainer.state.log_history[0] | {"eval_loss": measured["eval_loss"]}
        json.dump(entry, open(f"{folder}/{kind}-{trainer.args.world_size}.json", "w"))
"""


def make_rows():
    """Five questions whose answers are of unlike lengths, each about a room of its own."""
    rows = []
    for index, task in enumerate(TASKS):
        questions = RoomQuestions(counts={task: 1}, decimals=1)
        rows += RoomQuestionDataset(RenderedRooms("train", len(TASKS), SMALL, 1), questions)[index]
    return rows


@pytest.fixture(scope="module")
def rows():
    return make_rows()


@pytest.fixture
def make_model(make_pretraining_model):
    """A function kind -> a model of that kind; both have the same weights but for the heads."""

    def make(kind):
        model = make_pretraining_model()
        if kind == "GapMllmForPreTraining":
            return model
        plain = GapMllmForConditionalGeneration(model.config).eval()
        plain.load_state_dict(model.state_dict(), strict=False)
        return plain

    return make


def first_step(trainer):
    trainer.train()
    return next(entry for entry in trainer.state.log_history if "loss" in entry)


@pytest.mark.parametrize("kind", slow_but(KINDS[:1], KINDS))
def test_every_split_of_a_batch_has_one_loss_and_one_gradient(
    kind, make_model, make_plain_trainer, rows, tiny_processor
):
    models, entries = [], []
    for batch, accumulation in SPLITS:
        models.append(make_model(kind))
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        entries.append(first_step(make_plain_trainer(models[-1], rows[:4], SceneCollator(tiny_processor), **sizes)))
    for entry in entries[1:]:
        assert entry["loss"] == pytest.approx(entries[0]["loss"], rel=1e-5)
        assert entry["grad_norm"] == pytest.approx(entries[0]["grad_norm"], rel=1e-4)
    for name, parameter in models[0].named_parameters():
        for model in models[1:]:  # AdamW's first step is the sign of a gradient, noise in a tiny one up to 1e-3
            torch.testing.assert_close(model.get_parameter(name), parameter, atol=2e-4, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_both_kinds_have_the_loss_of_all_tokens(make_model, make_plain_trainer, rows, tiny_processor):
    """The mean over all supervised tokens of the four rows; the heads of pre-training stay as they were."""
    collator = SceneCollator(tiny_processor)
    with torch.no_grad():
        expected = make_model(KINDS[0])(**collator(copy.deepcopy(rows[:4]))).loss.item()
    for kind in KINDS:
        model = make_model(kind)
        heads = copy.deepcopy(getattr(model, "point_map_heads", None))
        sizes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
        entry = first_step(make_plain_trainer(model, rows[:4], collator, **sizes))
        assert entry["loss"] == pytest.approx(expected, rel=1e-5)
        if heads is not None:
            for name, before in heads.named_parameters():
                assert torch.equal(model.point_map_heads.get_parameter(name), before), name


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch.distributed is not built in")
def test_two_processes_equal_one(tmp_path, make_pretraining_model, tiny_processor, monkeypatch):
    """Under DDP (gloo), which is told to look for no unused parameters."""
    make_pretraining_model().save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    (tmp_path / "run.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    run_here(tmp_path / "run.py", tmp_path, 4, monkeypatch=monkeypatch)
    run_in_two(tmp_path / "run.py", tmp_path, 2)
    for kind in KINDS:
        one, two = (json.loads((tmp_path / f"{kind}-{size}.json").read_text()) for size in (1, 2))
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-5)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


@pytest.mark.slow
def test_tokens_are_counted_where_the_loss_sums_them(make_model, make_plain_trainer, rows, tiny_processor):
    """Where all text is learnt, the first token of a row is labelled too, but nothing comes before it to tell it."""

    def all_text(items):
        batch = SceneCollator(tiny_processor)(items)
        return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}

    losses = [first_step(make_plain_trainer(make_model(kind), rows[:2], all_text))["loss"] for kind in KINDS]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("kind", slow_but(KINDS[:1], KINDS))
def test_the_loss_of_an_evaluation_is_one_for_every_batch_size(
    kind, layout, make_model, make_plain_trainer, rows, tiny_processor
):
    """Five rows, so that the last batch is not full; by hand the mean over rows of the mean over their tokens."""
    losses, model = [], make_model(kind)
    for batch in (1, 2, 4):
        collator = SceneCollator(tiny_processor, layout)
        trainer = make_plain_trainer(model, None, collator, rows, per_device_eval_batch_size=batch)
        losses.append(trainer.evaluate()["eval_loss"])
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-6)
    collator = SceneCollator(tiny_processor)
    with torch.no_grad():
        alone = [make_model(KINDS[0])(**collator([copy.deepcopy(row)])).loss.item() for row in rows]
    assert losses[0] == pytest.approx(sum(alone) / len(alone), rel=1e-5)


def test_the_loss_of_an_evaluation_over_terms_is_one_for_every_batch_size(
    make_pretraining_model, make_trainer, rows, tiny_processor
):
    """`GeometryAlignedTrainer`'s is over all tokens."""
    losses, collator = [], SceneCollator(tiny_processor, for_pretraining=True, point_map_side=4)
    for batch in (1, 2, 4):
        trainer = make_trainer(
            make_pretraining_model(), rows, collator, per_device_eval_batch_size=batch, point_map_weight=1.0
        )
        metrics = trainer.evaluate(copy.deepcopy(rows))
        losses.append([metrics[f"eval_loss{name}"] for name in ("", "_text", "_point_map")])
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-5)


def test_pretraining_says_once_what_a_plain_trainer_leaves_out(
    make_model, make_plain_trainer, rows, tiny_processor, caplog
):
    logging.warning_once.cache_clear()  # other tests may have heard it
    model, batch = make_model(KINDS[1]), SceneCollator(tiny_processor)(copy.deepcopy(rows[:2]))
    count = int((batch["labels"][:, 1:] != -100).sum())
    alone = model.train()(**batch)
    assert "Trainer" not in caplog.text and alone.point_maps is not None
    divided = model(**batch, num_items_in_batch=2 * count)
    model(**batch, num_items_in_batch=count)
    assert caplog.text.count("its point-map heads learn nothing. Use GeometryAlignedTrainer") == 1
    assert divided.point_maps is None
    torch.testing.assert_close(divided.loss, alone.loss / 2, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_processor_may_be_the_processing_class(kind, make_model, make_plain_trainer, rows, tiny_processor):
    collator = SceneCollator(tiny_processor)
    trainer = make_plain_trainer(make_model(kind), rows[:2], collator, rows[:2], processing_class=tiny_processor)
    assert first_step(trainer)["loss"] > 0 and trainer.evaluate()["eval_loss"] > 0
    assert trainer.processing_class is tiny_processor
