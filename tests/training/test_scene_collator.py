"""Rows of the data schema as batches: what is supervised, what is bounded and said, equal answers in all layouts."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing.data import RecordError, SceneSample, complete_row, make_question, render_room
from gap_mllm.processing.data.rooms.room_scenes import scene_row, scene_views
from gap_mllm.training.scene_collator import PRETRAINING_FIELDS, SceneCollator


@pytest.fixture(scope="module")
def rows():
    """A marked pixel seen in 3 views, a detection and a grounding of two other rooms in 2, and text alone."""
    made = []
    for seed, (task, views) in enumerate([("reconstruction", 3), ("detection3d", 2), ("grounding_frame", 2)]):
        scene = render_room(seed, num_views=views, height=64, width=96)
        row = scene_row(scene, make_question(scene, task), scene_views(scene), "train", f"{task}-{seed}")
        made.append(complete_row(**row))
    made.append(complete_row(id="text", question="How many legs has a chair?", answer="Four."))
    return made


def supervised(batch, row, tokenizer):
    labels = batch["labels"][row]
    return tokenizer.decode(labels[labels != -100])


def test_everything_but_the_answer_is_masked(rows, tiny_processor):
    batch = SceneCollator(tiny_processor)(rows)
    for index, row in enumerate(rows):
        assert supervised(batch, index, tiny_processor.tokenizer) == row["answer"] + "<|im_end|>"
        shown = tiny_processor.tokenizer.decode(batch["input_ids"][index][batch["attention_mask"][index] == 1])
        assert shown.count("<|vision_start|>") == len(row["views"])
    assert batch["scene_lengths"].tolist() == [3, 2, 2]
    assert not set(batch) & set(PRETRAINING_FIELDS)


def test_positions_are_those_of_the_model(rows, tiny_processor, make_pretraining_model):
    model = make_pretraining_model()
    batch = SceneCollator(tiny_processor)(rows)
    types = batch["mm_token_type_ids"]
    expected, _ = model.model.get_rope_index(
        batch["input_ids"], types, image_grid_thw=batch["image_grid_thw"], attention_mask=batch["attention_mask"]
    )
    real = batch["attention_mask"].bool()
    assert torch.equal(batch["position_ids"][1:][:, real], expected[:, real])


def test_layouts_give_the_same_answers(rows, tiny_processor, make_pretraining_model):
    model = make_pretraining_model()
    logits = {}
    for layout in ("padded", "packed", "block_mask"):
        batch = SceneCollator(tiny_processor, layout, for_pretraining=True)(rows)
        inputs = {
            name: value for name, value in batch.items() if name not in set(PRETRAINING_FIELDS) - {"scene_repeats"}
        }
        with torch.no_grad():
            logits[layout] = model(**inputs).answer_logits
    assert len(logits["padded"]) == sum(len(tiny_processor.tokenizer(row["answer"])["input_ids"]) + 1 for row in rows)
    for other in ("packed", "block_mask"):
        torch.testing.assert_close(logits[other], logits["padded"], rtol=1e-4, atol=1e-4)


def test_a_marked_pixel_is_drawn_and_watched(rows, tiny_processor):
    collator = SceneCollator(tiny_processor, for_pretraining=True, point_map_side=2)
    batch = collator(rows[:1])
    mark = SceneSample.from_row(rows[0]).marks[0]
    column = int(batch["readout_targets"].max())
    token = (batch["input_ids"][0][:column] == tiny_processor.image_token_id).sum()
    x, y = (int(value) // 32 for value in mark.xy)
    assert int(token) == mark.view * 6 + y * 3 + x  # 64 x 96 pixels are 2 x 3 tokens
    plain = SceneCollator(tiny_processor, for_pretraining=True)([{**rows[0], "marks": []}])
    assert not torch.equal(plain["pixel_values"], batch["pixel_values"])
    assert batch["point_map_targets"].shape == (18, 2, 2, 3) and batch["point_map_targets"].isfinite().all()


@pytest.mark.slow
def test_a_plain_trainer_learns_from_rows(rows, tiny_processor, make_pretraining_model, tmp_path):
    model = GapMllmForConditionalGeneration(make_pretraining_model().config)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=SceneCollator(tiny_processor))
    losses = [trainer.train().training_loss]
    assert np.isfinite(losses).all()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    assert any("language_model" in name for name in moved) and any("fusion" in name for name in moved)


def test_views_are_thinned_and_it_is_said(rows, tiny_processor, caplog):
    collator = SceneCollator(tiny_processor, max_views=2)
    with caplog.at_level(logging.WARNING):
        batch = collator(rows)
    needed = {0, rows[0]["marks"][0]["view"]}
    assert batch["scene_lengths"].tolist() == [2, 2, 2]
    assert collator.counts == {"views_dropped": 1} and len(needed) <= 2
    with pytest.raises(RecordError, match=r"speaks of \d views, more than max_views=1"):
        row = {**rows[0], "marks": [{**rows[0]["marks"][0], "view": 2}]}
        SceneCollator(tiny_processor, max_views=1)([row])


def test_pixels_are_bounded_by_view_and_by_row(rows, tiny_processor):
    full = SceneCollator(tiny_processor)(rows[:1])["image_grid_thw"]
    assert full.tolist() == [[1, 4, 6]] * 3
    by_view = SceneCollator(tiny_processor, max_view_pixels=64 * 64)(rows[:1])["image_grid_thw"]
    assert (by_view.prod(1) * 256 <= 64 * 64).all()
    collator = SceneCollator(tiny_processor, max_sample_pixels=3 * 64 * 64)
    by_row = collator(rows[:1])["image_grid_thw"]
    assert by_row.prod(1).sum() * 256 <= 3 * 64 * 64 and collator.counts == {"pixels_reduced": 1}
    again = collator(rows[1:2])["image_grid_thw"]  # the bound of one batch does not stay
    assert again.tolist() == [[1, 4, 6]] * 2


@pytest.mark.parametrize("layout", ["padded", "packed", "block_mask"])
def test_a_long_row_is_refused_not_cut(rows, tiny_processor, layout):
    collator = SceneCollator(tiny_processor, layout, max_length=40)
    assert collator(rows[3:])["input_ids"].shape[1] <= 40
    with pytest.raises(RecordError, match=r"record detection3d-1: the row has \d+ tokens, more than max_length=40"):
        collator([rows[3], rows[1]])


def test_rows_that_cannot_be_learned_from_are_named(rows, tiny_processor):
    with pytest.raises(RecordError, match="reconstruction-0.*no answer"):
        SceneCollator(tiny_processor)([{**rows[0], "answer": None}])
    with pytest.raises(RecordError, match="field video: the video has not been turned into views"):
        SceneCollator(tiny_processor)([complete_row(id="v", video="a.mp4", question="?", answer="1")])


@pytest.mark.parametrize("name", ["max_views", "max_view_pixels", "max_sample_pixels", "max_length"])
def test_bounds_below_one_are_refused(name, tiny_processor):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        SceneCollator(tiny_processor, **{name: 0})


def test_pretraining_arguments_need_pretraining(tiny_processor):
    with pytest.raises(ValueError, match="pass for_pretraining=True"):
        SceneCollator(tiny_processor, point_map_side=2)


def test_samples_and_rows_give_the_same(rows, tiny_processor):
    sample = dataclasses.replace(SceneSample.from_row(rows[1]), split="val")
    batches = [SceneCollator(tiny_processor)([item]) for item in (rows[1], sample)]
    for name, value in batches[0].items():
        assert torch.equal(value, batches[1][name]), name
