"""Tokens of cameras and scale in batches of the collator, in all layouts; what trains them, and what lacks them."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch

from gap_mllm import GapMllmForConditionalGeneration, GapMllmForPreTraining
from gap_mllm.hub import save_for_hub
from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.training import GeometryAlignedTrainingArguments, SceneCollator, set_training_heads
from gap_mllm.training.layouts import SHARED
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training_heads_gap_mllm import ViewTokens


SMALL = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(2, 1), num_views_shares=(0.5, 0.5))
TERMS = {
    "readout": {"weight": 0.1},
    "camera": {"weight": 2.5, "head_size": 16, "tokens": True},
    "metric_scale": {"weight": 1.0, "head_size": 16, "tokens": True},
    "depth": {"weight": 1.0, "layers": [1, 2, 3, -1], "method": "dpt", "side": 8, "features": 8},
}
TERMS["depth"]["out_channels"] = [8, 8, 8, 8]


@pytest.fixture(scope="module")
def rooms():
    dataset = RoomQuestionDataset(RenderedRooms("train", 2, SMALL, 1), RoomQuestions(counts={"reconstruction": 2}))
    return [dataset[index] for index in range(2)]


@pytest.fixture
def prepare(make_pretraining_model, make_teaching_trainer, rooms):
    """A function (layout, trainer arguments) -> a trainer of a fresh model."""

    def make(layout="block_mask", terms=TERMS, **options):
        return make_teaching_trainer(make_pretraining_model(), terms, rooms, None, layout, **options)

    return make


def test_the_collator_puts_tokens_behind_the_views_and_shifts_no_text(prepare, tiny_processor, rooms):
    trainer = prepare()
    batch = trainer.data_collator(copy.deepcopy(rooms))
    plain = SceneCollator(tiny_processor, "block_mask", for_pretraining=True)(copy.deepcopy(rooms))
    image = tiny_processor.image_token_id
    for row, views in enumerate(batch["scene_lengths"].tolist()):
        new, old = (
            {name: each[name][row] for name in ("input_ids", "labels", "document_ids")} for each in (batch, plain)
        )
        added = views + 1
        assert (new["input_ids"] == image).sum() == (old["input_ids"] == image).sum() + added
        positions, before = batch["position_ids"][:, row], plain["position_ids"][:, row]
        order = positions[0, new["document_ids"] == SHARED]
        assert torch.equal(order, torch.arange(len(order)))  # one after the other
        for name in ("input_ids", "labels", "document_ids"):  # what is asked and answered stays as it was
            is_asked = old["document_ids"] > SHARED
            assert torch.equal(new[name][new["document_ids"] > SHARED], old[name][is_asked]), name
        assert torch.equal(positions[1:, new["document_ids"] > SHARED], before[1:, is_asked])
        first = int((new["input_ids"] == image).nonzero()[0])
        patches = int(batch["image_grid_thw"][0].prod()) // 4
        behind = slice(first + patches - 1, first + patches + 1)  # the last patch, and the token of the camera
        assert (positions[1:, behind.start] == positions[1:, behind.stop - 1]).all()
        assert (new["document_ids"][behind] == SHARED).all() and (new["labels"][behind] == -100).all()
        assert batch["attention_mask"][row, 0, -1, first + patches] or new["document_ids"][-1] < 0
    # the read-out looks at the same patches
    for row in range(2):
        targets, before = batch["readout_targets"][row], plain["readout_targets"][row]
        found, expected = targets[targets >= 0], before[before >= 0]
        assert len(found) == len(expected) and (found >= expected).all()
        assert torch.equal(batch["position_ids"][1:, row][:, found], plain["position_ids"][1:, row][:, expected])


def test_all_layouts_give_the_same(prepare, rooms):
    told = {}
    for layout in ("block_mask", "padded", "packed"):
        trainer = prepare(layout)
        batch = trainer.data_collator(copy.deepcopy(rooms))
        if layout == "packed":
            order = batch["position_ids"][0, 0]
            assert (order[1:] <= order[:-1]).sum() == batch["document_ids"].max() - 1  # documents are told apart
        sums, outputs = trainer.compute_terms(trainer.model, batch)
        told[layout] = {**sums, **{name: outputs.head_outputs[name] for name in ("camera", "metric_scale")}}
    for layout in ("padded", "packed"):
        for name, expected in told["block_mask"].items():
            torch.testing.assert_close(told[layout][name], expected, rtol=1e-4, atol=1e-5, msg=f"{layout} {name}")


@pytest.mark.slow
def test_tokens_learn_and_no_split_of_a_batch_changes_it(prepare):
    entries, tables = [], []
    for batch in (2, 1):
        trainer = prepare(per_device_train_batch_size=batch, gradient_accumulation_steps=2 // batch)
        heads = trainer.model.training_heads
        before = [heads[name].tokens.weight.detach().clone() for name in ("camera", "metric_scale")]
        trainer.train()
        tables.append([heads[name].tokens.weight.detach() for name in ("camera", "metric_scale")])
        assert all((new != old).all() for new, old in zip(tables[-1], before, strict=True))
        entries.append(next(entry for entry in trainer.state.log_history if "loss" in entry))
    for name in ("loss", "grad_norm", *(f"loss_{term}" for term in TERMS)):
        assert entries[1][name] == pytest.approx(entries[0][name], rel=1e-4), name


def test_a_batch_without_views_reduces_the_same_parameters(prepare, rooms):
    trainer = prepare()
    samples = [replace(sample, views=(), marks=(), question="hello") for sample in rooms[0]]
    trainer.model.train()
    sums, _ = trainer.compute_terms(trainer.model, trainer.data_collator([samples]))
    sums["text"].backward()
    assert all(parameter.grad is not None for parameter in trainer.model.training_heads.parameters())


def test_a_text_without_the_tokens_is_refused_and_can_be_given_them(prepare, tiny_processor, rooms):
    trainer = prepare()
    model = trainer.model.eval()
    views = [view.image for view in rooms[0][0].views]
    messages = tiny_processor.build_messages("detection3d", views)
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = dict(tiny_processor.apply_chat_template(messages, **options))
    inputs["labels"] = inputs["input_ids"].clone()
    with pytest.raises(
        ValueError, match="Heads read tokens of their own .camera, scale., but the text has none. Give"
    ):
        model(**inputs)
    whole = model.insert_geometry_tokens(inputs)
    found = model(**whole).head_outputs
    assert found["camera"].shape == (len(views), 9) and found["metric_scale"].shape == (1,)
    assert whole["scene_lengths"].tolist() == [len(views)]
    assert model(**{name: value for name, value in inputs.items() if name != "labels"}).logits.shape[1] > 1
    with pytest.raises(ValueError, match="position_ids came already"):
        model.insert_geometry_tokens(whole)
    prefix = trainer.data_collator(copy.deepcopy(rooms[:1]))
    places = whole["input_ids"][0] == tiny_processor.image_token_id
    shared = (prefix["input_ids"][0] == tiny_processor.image_token_id) & (prefix["document_ids"][0] == SHARED)
    grid = whole["position_ids"][:, 0, places]
    expected = prefix["position_ids"][1:, 0, shared]
    assert torch.equal(grid - grid[:, :1], expected - expected[:, :1])  # as the collator puts them


def test_shorter_rows_are_filled_up_where_there_is_padding(prepare, tiny_processor, rooms):
    model = prepare().model
    texts = ["<|vision_start|><|image_pad|><|vision_end|>" * count + "hi" for count in (2, 1)]
    pictures = [rooms[0][0].views[0].image] * 3
    inputs = tiny_processor(
        images=[pictures[:2], pictures[2:]], text=texts, padding=True, padding_side="left", return_tensors="pt"
    )
    found = model.insert_geometry_tokens(inputs)
    assert found["attention_mask"][:, -1].tolist() == [1, 1] and found["attention_mask"][1, 0] == 0
    assert torch.equal(found["input_ids"][:, -1], inputs["input_ids"][:, -1])
    added = found["attention_mask"].sum(1) - inputs["attention_mask"].sum(1)
    assert added.tolist() == [3, 2] and found["scene_lengths"].tolist() == [2, 1]
    with pytest.raises(ValueError, match="The text has 3 visual tokens, but its views have 4"):
        ViewTokens([4], [1], ["camera"]).repeats(torch.tensor([True] * 3))


def test_tokens_are_dropped_with_their_heads(prepare, tiny_processor, tmp_path, caplog):
    model = prepare().model
    model.save_pretrained(tmp_path / "kept")
    again = GapMllmForPreTraining.from_pretrained(tmp_path / "kept")
    assert torch.equal(again.training_heads["camera"].tokens.weight, model.training_heads["camera"].tokens.weight)
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = GapMllmForConditionalGeneration.from_pretrained(tmp_path / "kept")
    assert not caplog.text and not any("training_heads" in name for name in plain.state_dict())
    save_for_hub(model, tiny_processor, tmp_path / "published")
    published = GapMllmForPreTraining.from_pretrained(tmp_path / "published")
    assert published.config.training_heads is None and len(published.training_heads) == 0
    save_for_hub(model, tiny_processor, tmp_path / "asked", include_training_heads=True)
    assert GapMllmForPreTraining.from_pretrained(tmp_path / "asked").training_heads["camera"].tokens is not None


def test_settings_that_cannot_be_are_refused(make_pretraining_model):
    def refused(message, **terms):
        args = GeometryAlignedTrainingArguments("unused", terms=terms, report_to="none")
        with pytest.raises(ValueError, match=message):
            set_training_heads(make_pretraining_model(), args)

    refused("fov_activation is 'gelu'", camera={"weight": 1.0, "fov_activation": "gelu"})
    refused("depth.method is 'dtp'; expected one of plain, dpt", depth={"weight": 1.0, "method": "dtp"})
    refused("The depth head 'dpt' has layers .-1.", depth={"weight": 1.0, "method": "dpt"})
