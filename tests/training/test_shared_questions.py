"""Several questions about one scan: its views are decoded and encoded once, and the loss stays that of single ones."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from gap_mllm.processing.data import SceneSample, load_multiview, render_room
from gap_mllm.processing.data.rooms.room_scenes import room_sample
from gap_mllm.processing.data.scene_sample import View
from gap_mllm.processing.data.task_makers import make_tasks
from gap_mllm.processing.prompts_gap_mllm import IMAGE_TAG
from gap_mllm.training import SceneCollator, SceneQuestionDataset, SceneQuestionStream
from gap_mllm.training.recipes import find_recipe
from gap_mllm.training.streams import rows_of_process
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned
from tests.training.test_scene_questions import POSED, decoded, long_scan  # noqa: F401 - a fixture


MARKED = ("reconstruction", "point_distance", "camera_distance")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return load_multiview(**POSED, split="train", cache_dir=tmp_path_factory.mktemp("cache"))


def make_collator(processor, layout="block_mask", **options):
    return SceneCollator(processor, layout, for_pretraining=True, max_view_pixels=64 * 64, **options)


def test_questions_of_an_item_are_about_the_same_views():
    rooms = [room_sample(render_room(seed, 4, 64, 64)) for seed in range(2)]
    dataset, again = (SceneQuestionDataset(rooms, 6, num_views=3, questions_per_scene=4) for _ in range(2))
    for index in range(6):
        asked = dataset[index]
        assert len(asked) == 4 and len({sample.id for sample in asked}) == 4
        assert all(one is other for sample in asked for one, other in zip(sample.views, asked[0].views, strict=True))
        assert len({IMAGE_TAG in sample.question for sample in asked}) == 1  # all number their views, or none
        assert [sample.answer for sample in again[index]] == [sample.answer for sample in asked]


def test_marks_of_an_item_have_different_colours_and_keep_apart(scenes):
    dataset = SceneQuestionDataset(scenes, 6, MARKED, num_views=2, questions_per_scene=4)
    num_marks = 0
    for index in range(6):
        marks = [mark for sample in dataset[index] for mark in sample.marks]
        assert max(Counter(mark.color for mark in marks).values()) == 1
        for number, mark in enumerate(marks):
            for other in marks[:number]:
                assert mark.view != other.view or np.hypot(*np.subtract(mark.xy, other.xy)) > 3
        num_marks += len(marks)
    assert num_marks >= 24


def test_what_runs_out_of_colours_is_refused_with_the_reason(scenes):
    sample = SceneSample.open(scenes, 0)
    made = make_tasks(sample, ("sparse_points",) * 4, share_views=True)
    colors = [mark.color for asked in made for mark in asked.marks]
    assert 1 <= len(made) <= 2 and len(colors) == len(set(colors))
    assert made.refused["sparse_points", "too few colours of crosses are left"] >= 2
    assert len(make_tasks(sample, ("sparse_points",) * 4)) == 4  # in pictures of their own


def test_a_maker_named_twice_asks_twice_and_a_limit_ends_it(scenes):
    sample = SceneSample.open(scenes, 0)
    named, counted = make_tasks(sample, ("reconstruction",) * 3), make_tasks(sample, ("reconstruction",), 3)
    assert [one.answer for one in named] == [other.answer for other in counted] and len(named) == 3
    assert [one.id for one in make_tasks(sample, ("reconstruction",) * 3, limit=2)] == [one.id for one in named[:2]]
    with pytest.raises(ValueError, match="limit is 0"):
        make_tasks(sample, limit=0)


def test_where_fewer_can_be_asked_there_are_fewer(tmp_path):
    scene = SceneSample.open(long_scan(tmp_path, 2), 0)
    (item,) = [SceneQuestionDataset([scene], tasks=("detection3d",), questions_per_scene=4)[0]]
    assert [sample.metadata["maker"] for sample in item] == ["detection3d"]  # the same question is not asked again


def test_a_row_with_a_question_is_an_item_of_one(scenes):
    (made,) = make_tasks(SceneSample.open(scenes, 0), ("reconstruction",))
    dataset = SceneQuestionDataset([made], questions_per_scene=4)
    assert [sample.id for sample in dataset[0]] == [made.id]
    with pytest.raises(ValueError, match="questions_per_scene is 0; expected 1 or more"):
        SceneQuestionDataset([made], questions_per_scene=0)


def test_four_questions_about_a_scan_decode_and_encode_its_views_once(
    tmp_path,
    tiny_processor,
    decoded,  # noqa: F811 - the fixture
    make_pretraining_model,
):
    rows = long_scan(tmp_path)
    dataset = SceneQuestionDataset(rows, tasks=(*MARKED, "detection3d"), num_views=4, questions_per_scene=4)
    model, encoded = make_pretraining_model(), Counter()
    for name, module in {"vision": model.model.visual, "geometry": model.model.geometry}.items():
        module.register_forward_hook(lambda *_, name=name: encoded.update([name]))
    for layout in ("block_mask", "packed", "padded"):
        decoded.clear()
        encoded.clear()
        batch = make_collator(tiny_processor, layout, point_map_side=2)([dataset[0]])
        assert Counter(decoded) == {"depth": 4, "colors": 4}
        assert batch["scene_lengths"].tolist() == [4] and len(batch["image_grid_thw"]) == 4
        assert len(batch["sample_ids"]) == 4 and not batch["collation_counts"].any()
        labels = batch["labels"]
        inputs = {name: batch[name] for name in ("input_ids", "position_ids", "attention_mask") if name in batch}
        views = {name: batch[name] for name in ("pixel_values", "image_grid_thw", "scene_lengths")}
        repeats = {"scene_repeats": batch["scene_repeats"]} if "scene_repeats" in batch else {}
        with torch.no_grad():
            model(**inputs, **views, **repeats, labels=labels)
        assert encoded == {"vision": 1, "geometry": 1}


def test_loss_and_gradients_are_those_of_single_questions(
    scenes, tiny_processor, make_pretraining_model, make_trainer
):
    """The terms over their counts; the point map of a scene counts once for each question, encoded once or not."""
    model = make_pretraining_model()
    trainer = make_trainer(model, point_map_weight=1.0, readout_weight=1.0)
    asked = SceneQuestionDataset(scenes, 2, (*MARKED, "object_count"), num_views=2, questions_per_scene=4)[1]
    assert len(asked) == 4 and sum(len(sample.marks) == 1 for sample in asked) >= 1
    together = replace(asked[0], marks=tuple(mark for sample in asked for mark in sample.marks))
    pictures = together.marked_images(tiny_processor.cross_size)
    singles = []  # each with the crosses of all in its own copies of the pictures, as they are where they are shared
    for sample in asked:
        views = [replace(view, picture=image.copy()) for view, image in zip(sample.views, pictures, strict=True)]
        singles.append(replace(sample, views=tuple(views)))
    collator = make_collator(tiny_processor, point_map_side=model.config.point_map_side)
    results = []
    for items in ([asked], singles):
        batch = collator(items)
        assert len(batch["scene_lengths"]) == len(items)
        model.zero_grad()
        loss = trainer.compute_loss(model, batch)
        loss.backward()
        results.append((loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (loss, gradients), (other, other_gradients) = results
    torch.testing.assert_close(loss, other, rtol=1e-5, atol=0)
    assert gradients.keys() == other_gradients.keys() and len(gradients) > 20
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_streamed_scenes_give_lists_too():
    rows = load_multiview(**POSED, split="train", streaming=True)
    stream = SceneQuestionStream(rows, ("reconstruction",), num_views=2, questions_per_scene=3)
    whole = [[sample.id for sample in item] for item in stream]
    assert {len(item) for item in whole} == {3}
    shares = [list(rows_of_process(stream, rank, 2)) for rank in range(2)]
    assert sorted(sample.id for share in shares for item in share for sample in item) == sorted(sum(whole, []))


@pytest.mark.slow
def test_a_recipe_asks_several_questions_about_each_scene(tmp_path, encoder_folder):
    recipe = yaml.safe_load(find_recipe("quickstart").read_text())
    recipe |= {"data": {**POSED, "cache_dir": str(tmp_path)}, "collation": {"max_view_pixels": 64 * 64}}
    recipe |= {"scene_tasks": {"tasks": ["reconstruction"], "num_views": 2, "questions_per_scene": 4}}
    recipe |= {"max_steps": 1, "dataloader_num_workers": 0, "dataloader_persistent_workers": False}
    recipe |= {"per_device_train_batch_size": 1, "logging_steps": 1, "lr_scheduler_kwargs": {"num_decay_steps": 1}}
    recipe |= {"geometry_encoder_path": str(encoder_folder), "use_cpu": True, "output_dir": str(tmp_path / "run")}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    trainer, _ = train_geometry_aligned(str(tmp_path / "mine.yaml"))
    assert len(trainer.train_dataset[0]) == 4
    (entry,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert entry["loss_readout"] > 0 and "encoded_apart" not in entry


def test_views_that_are_not_the_same_object_still_share(tmp_path, tiny_processor):
    """Rows that were opened one after the other, as recipes open them."""
    rows = long_scan(tmp_path, 3)
    opened = [replace(SceneSample.open(rows, 0), id=name, question=name, answer="Yes.") for name in "ab"]
    assert opened[0].views[0] is not opened[1].views[0] and isinstance(opened[0].views[0], View)
    batch = make_collator(tiny_processor)(opened)
    assert batch["scene_lengths"].tolist() == [3] and batch["sample_ids"] == ["a", "b"]
