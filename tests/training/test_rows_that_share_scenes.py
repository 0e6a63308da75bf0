"""Rows about one scene that come apart, not as one item: which of them share a batch changes nothing but the time."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from gap_mllm.processing.data import make_question, render_room
from gap_mllm.processing.data.scene_sample import Box
from gap_mllm.training import GeometryAlignedTrainingArguments, SceneCollator, set_training_heads
from gap_mllm.training.scene_rows import rows_of_scenes, rows_of_tokens, rows_of_views
from gap_mllm.training.teachers import TeacherTargets
from tests.slow_cases import slow_but
from tests.training.test_token_terms import TERMS as TOKEN_TERMS
from tests.training.test_training_heads import DENSE


ORDERS = ("AABA", "ABAB", "AAAA", "ABBC")
SPLITS = ((4, 1), (2, 2), (1, 4))
TERMS = {
    **DENSE,
    **TOKEN_TERMS,
    "distillation": {"weight": 1.0, "layers": [1, -1]},
    "point_map": {"weight": 1.0},
    "readout": {"weight": 1.0},
}
TASKS = ("reconstruction", "detection3d", "object_count", "reconstruction")
LAYOUTS = ("block_mask", "packed", "padded")


@pytest.fixture(scope="module")
def scenes():
    """Four questions about each of three rooms, whose views are the same objects; marks and boxes are their own."""
    found = {}
    for seed, name in enumerate("ABC"):
        scene = render_room(seed, num_views=2, height=128, width=128)
        asked = [make_question(scene, task, number) for number, task in enumerate(TASKS)]
        views = tuple(replace(view, instances=None) for view in asked[0].views)
        found[name] = [replace(sample, views=views, scene_boxes=()) for sample in asked]
    return found


@pytest.fixture(scope="module")
def rows_in(scenes):
    """A function order -> rows about the rooms in that order, each time the next question about a room."""

    def make(order):
        counts = {name: iter(samples) for name, samples in scenes.items()}
        return [next(counts[name]) for name in order]

    return make


@pytest.fixture
def prepare(make_pretraining_model, make_trainer, tiny_processor):
    """A function (rows, layout, arguments) -> a trainer of one step with every term that reads a scene."""

    def make(rows, layout="block_mask", eval_rows=None, **options):
        model = make_pretraining_model()
        args = GeometryAlignedTrainingArguments("unused", terms=copy.deepcopy(TERMS), report_to="none")
        torch.manual_seed(1)
        settings = {"teaching": set_training_heads(model, args), "point_map_side": model.config.point_map_side}
        collator = SceneCollator(tiny_processor, layout, for_pretraining=True, **settings)
        options = {"terms": copy.deepcopy(TERMS), "max_steps": 1, "logging_steps": 1} | options
        trainer = make_trainer(model, rows, collator, **options)
        trainer.eval_dataset = eval_rows
        return trainer

    return make


def logged(trainer):
    trainer.train()
    return next(entry for entry in trainer.state.log_history if "loss" in entry)


def names_of(entry):
    return [name for name in entry if name == "grad_norm" or name.startswith(("loss", "eval_loss"))]


def check_equal(entries, tolerance=1e-4):
    first, *others = entries
    assert len(names_of(first)) >= 1
    for other in others:
        for name in names_of(first):
            assert other[name] == pytest.approx(first[name], rel=tolerance), name


@pytest.mark.parametrize("order", slow_but(ORDERS[:1], ORDERS))
@pytest.mark.parametrize("layout", slow_but(LAYOUTS[:1], LAYOUTS))
def test_every_split_of_rows_that_share_scenes_has_one_loss_and_one_gradient(order, layout, prepare, rows_in):
    entries = []
    for batch, accumulation in SPLITS:
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        entries.append(logged(prepare(rows_in(order), layout, **sizes)))
    assert {f"loss_{name}" for name in TERMS} <= {*entries[0]}
    check_equal(entries)


def test_the_evaluation_is_the_same_for_every_batch_size(prepare, rows_in):
    rows = rows_in("AABACBBA")
    results = [prepare(rows[:1], eval_rows=rows, per_device_eval_batch_size=size).evaluate() for size in (1, 2, 3, 8)]
    assert sum(name.startswith("eval_loss_") for name in results[0]) == len(TERMS) + 1
    check_equal(results, 1e-5)


@pytest.mark.parametrize("layout", slow_but(LAYOUTS[:1], LAYOUTS))
def test_a_plain_trainer_has_one_loss_for_every_split(
    layout, rows_in, make_pretraining_model, make_plain_trainer, tiny_processor
):
    entries = []
    for batch, accumulation in SPLITS:
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        collator = SceneCollator(tiny_processor, layout)
        entries.append(logged(make_plain_trainer(make_pretraining_model(), rows_in("AABA"), collator, **sizes)))
    check_equal(entries)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_evaluation_of_a_plain_trainer_is_the_same_for_every_batch_size(
    layout, rows_in, make_pretraining_model, make_plain_trainer, tiny_processor
):
    rows, collator, losses = rows_in("AABACBBA"), SceneCollator(tiny_processor, layout), []
    for size in (1, 3, 8):
        options = {"eval_dataset": rows, "per_device_eval_batch_size": size}
        losses.append(make_plain_trainer(make_pretraining_model(), rows[:1], collator, **options).evaluate())
    check_equal(losses, 1e-5)


def test_a_row_sees_its_own_marks_only(rows_in, tiny_processor):
    rows = rows_in("AAAA")  # the first and the last have marks
    for layout in LAYOUTS:
        collate = SceneCollator(tiny_processor, layout, for_pretraining=True)
        together, alone = collate(rows), [collate([row]) for row in rows]
        assert together["scene_rows"].tolist() == [1, 2, 1]
        pictures = together["pixel_values"].split(len(alone[0]["pixel_values"]))
        for index, row in ((0, 0), (1, 1), (1, 2), (2, 3)):
            assert torch.equal(pictures[index], alone[row]["pixel_values"]), row
        assert not torch.equal(pictures[0], pictures[1])


def test_one_item_of_rows_counts_as_the_rows_do(prepare, rows_in):
    """Also where items have unlike numbers of questions, and share their views with another item."""
    rows = rows_in("AABAAB")
    bare = [replace(row, marks=(), boxes=rows[0].boxes) for row in rows]
    first, second, *_ = bare
    items = [[first, second, bare[3]], [bare[2]], [bare[4]], [bare[5]]]
    trainer = prepare(bare[:1])
    results = []
    for batches in ([items], [[item] for item in items], [[row] for item in items for row in item]):
        sums, counts = {}, {}
        for batch in batches:
            batch = trainer.data_collator(copy.deepcopy(batch))
            for name, count in trainer.count_items(batch).items():
                counts[name] = counts.get(name, 0.0) + float(count)
            with torch.no_grad():
                for name, value in trainer.compute_terms(trainer.model, batch)[0].items():
                    sums[name] = sums.get(name, 0.0) + float(value)
        results.append((sums, counts))
    for sums, counts in results[1:]:
        assert counts == pytest.approx(results[0][1]) and sums == pytest.approx(results[0][0], rel=1e-4)


def test_boxes_that_say_what_is_seen_are_those_of_the_row(scenes, prepare):
    """Rows with other boxes have other objects, which no other row of the batch has."""
    trainer = prepare(scenes["A"])
    detected = next(row for row in scenes["A"] if row.boxes)
    box = Box(np.array([*detected.boxes[0].numbers[:3], 9.0, 9.0, 9.0, 0, 0, 0]), "zxy", "camera", 0, "sofa", "x")
    rows = [replace(detected, marks=()), replace(detected, marks=(), boxes=(box,))]
    together = trainer.count_items(trainer.data_collator(copy.deepcopy(rows)))
    alone = [trainer.count_items(trainer.data_collator([copy.deepcopy(row)])) for row in rows]
    for name in ("shape", "region_text", "label_map"):
        assert alone[0][name] > 0 and together[name] == alone[0][name] + alone[1][name], name


def test_events_are_counted_by_rows(scenes, prepare):
    views = tuple(replace(view, depth_picture=None) for view in scenes["A"][1].views)
    rows = [replace(row, views=views, marks=(), boxes=()) for row in scenes["A"][1:3]]
    found = []
    for batches in ([rows], [[row] for row in rows]):
        collate = prepare(rows).data_collator
        for batch in batches:
            collate(batch)
        found.append(dict(collate.counts))
    assert found[0] == found[1] and found[0]["views_without_depth"] > 0


def test_batches_of_others_have_one_row_for_each_scene():
    batch = {"image_grid_thw": torch.tensor([[1, 4, 4], [1, 2, 4], [1, 4, 4]])}
    assert rows_of_scenes(batch) == [1] and rows_of_views(batch) == [1, 1, 1]
    batch |= {"scene_lengths": torch.tensor([2, 1]), "scene_rows": torch.tensor([3, 1])}
    assert rows_of_views(batch) == [3, 3, 1] and rows_of_tokens(batch, 10) == [3] * 6 + [1] * 4


def test_a_teacher_that_does_not_know_all_is_the_same_for_every_split(
    rows_in, make_pretraining_model, make_teaching_trainer
):
    """Of unlike numbers of rows about a scene, too: what is not known stays left out."""

    class Gap:
        def __call__(self, views):
            features = [torch.ones(4, 4, 6) for _ in views]
            for view in features:
                view[0, 0] = torch.nan
            return TeacherTargets(features={"layer_0": features})

    terms, entries = {"distillation": {"weight": 1.0, "teacher": "vggt", "feature_size": 6}}, []
    rows = [replace(row, marks=()) for row in rows_in("AABA")]
    for batch, accumulation in SPLITS:
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        trainer = make_teaching_trainer(make_pretraining_model(), terms, rows, {"vggt": Gap()}, **sizes)
        entries.append(logged(trainer))
    check_equal(entries)


def test_the_same_question_alone_and_in_an_item_is_counted_for_its_item(scenes, tiny_processor):
    first, last = scenes["A"][0], scenes["A"][3]
    green = replace(last, marks=tuple(replace(mark, xy=(mark.xy[0] // 2, mark.xy[1])) for mark in last.marks))
    items, found = [[first, green], first, green], []
    for batches in ([items], [[item] for item in items]):
        collate = SceneCollator(tiny_processor, "block_mask", for_pretraining=True)
        for batch in batches:
            collate(batch)
        found.append(collate.counts["encoded_apart"])
    assert found == [1, 1]
