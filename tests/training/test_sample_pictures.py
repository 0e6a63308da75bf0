"""samples.png: what the model answers at every evaluation, beside the truth; and nothing of a run changes by it."""

import json

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.answers_gap_mllm import format_box, format_point
from gap_mllm.processing.data import load_multiview
from gap_mllm.training import SceneQuestionDataset, compose_rewards, sample_pictures
from gap_mllm.training.marked_pixel_scorer import make_marked_pixel_samples
from gap_mllm.training.run_folder import RunFolder
from gap_mllm.training.sample_pictures import AnsweredSample, SamplePictures, draw_answered, first_samples
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned


GREEN, ORANGE, BLUE = sample_pictures.TRUE_COLOR, sample_pictures.ANSWER_COLOR, sample_pictures.OTHER_COLOR


@pytest.fixture(scope="module")
def rooms():
    return load_multiview("rendered_rooms", split="selection", num_rooms=3)


@pytest.fixture
def drawn(tmp_path):
    """A function (sample, text) -> pixels of its views in the picture, between the header and the texts."""

    def draw(sample, text, **rewards):
        draw_answered([AnsweredSample(sample, text, rewards)], tmp_path / "one.png", "Answers")
        return np.asarray(Image.open(tmp_path / "one.png").convert("RGB"))[120:440]

    return draw


def count(pixels, color):
    return int((np.abs(pixels.astype(int) - color).max(-1) < 12).sum())


def test_truth_and_answer_are_drawn_in_their_colours(rooms, drawn):
    sample = make_marked_pixel_samples(rooms)[0]
    (truth,) = sample.truth.items
    near = format_point("chair", np.asarray(truth.numbers) + [0.3, 0.0, 0.0])
    pixels = drawn(sample, near)
    assert count(pixels, GREEN) > 30 and count(pixels, ORANGE) > 30
    pixels = drawn(sample, "no JSON at all")
    assert count(pixels, GREEN) > 30 and not count(pixels, ORANGE)
    behind = drawn(sample, format_point("chair", [0.0, 0.0, -2.0]))
    assert not count(behind, ORANGE)


@pytest.mark.parametrize(("task", "color"), [("grounding_box", ORANGE), ("object_distance", BLUE)])
def test_boxes_and_questions_in_words(task, color, rooms, drawn):
    sample = SceneQuestionDataset(rooms, tasks=(task,), num_views=3)[0]
    pixels = drawn(sample, sample.answer if task != "grounding_box" else format_box(_moved(sample)))
    assert count(pixels, color) > 60 and (count(pixels, GREEN) > 60) == (task == "grounding_box")


def _moved(sample):
    box = list(sample.truth.items[0].numbers)
    return [box[0] + 0.2, *box[1:]]


def test_how_far_an_answer_is_off(rooms):
    sample = make_marked_pixel_samples(rooms)[0]
    at = np.asarray(sample.truth.items[0].numbers)
    assert sample_pictures._with_answer(sample, format_point("bed", at + [3.0, 4.0, 0.0]))[2] == "5.00 m off"
    sample = SceneQuestionDataset(rooms, tasks=("grounding_box",), num_views=3)[0]
    assert sample_pictures._with_answer(sample, sample.answer)[2] == "IoU 1.00"
    assert sample_pictures._with_answer(sample, '{"bbox_3d": [0, 0, 1, 1e60, 1, 1, 0, 0, 0]}')[2] == ""


def test_first_questions_of_several_sets_in_turn(rooms):
    samples = make_marked_pixel_samples(rooms)
    assert [one.id for one in first_samples(samples, 2)] == [one.id for one in samples[:2]]
    sets = {"a": samples[:1], "b": [[samples[1], samples[0]], [samples[2]]]}
    assert [one.id for one in first_samples(sets)] == [samples[0].id, samples[1].id, samples[2].id]


@pytest.mark.slow
def test_a_run_draws_them_at_every_evaluation_and_has_the_same_losses(recipe, tmp_path, monkeypatch):
    titles, draw = [], sample_pictures.draw_answered

    def note(answered, path, title):
        titles.append((len(answered), title))
        draw(answered, path, title)

    monkeypatch.setattr(sample_pictures, "draw_answered", note)
    flags = ["--eval_strategy", "steps", "--eval_steps", "2", "--num_selection_rooms", "2", "--max_steps", "4"]
    train_geometry_aligned(recipe(save_strategy="no"), flags)
    train_geometry_aligned(recipe(save_strategy="no"), ["--max_steps", "4", "--output_dir", str(tmp_path / "without")])
    assert titles == [(2, "Answers after step 2 of 4"), (2, "Answers after step 4 of 4")]
    assert Image.open(tmp_path / "run" / "samples.png").width == 1400
    assert not (tmp_path / "without" / "samples.png").exists()
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("run", "without")]
    losses = [[json.loads(line)["loss"] for line in log if '"loss"' in line] for log in logs]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def test_answers_of_rewarded_runs_come_with_their_rewards(tiny_model, tiny_processor, rooms, tmp_path):
    from transformers import TrainingArguments

    functions, _ = compose_rewards({"point_distance": 1.0, "length": {"weight": 0.1, "max_tokens": 4}})
    run = RunFolder(TrainingArguments(str(tmp_path), use_cpu=True))
    pictures = SamplePictures(run, tiny_processor, make_marked_pixel_samples(rooms), "\nIn tags.", functions)
    pictures._samples = first_samples(pictures.questions, 1)
    model = tiny_model().train()
    (answered,) = pictures.answer(model)
    assert answered.rewards.keys() == {"point_distance_reward", "length_reward"} and model.training
    assert answered.rewards["point_distance_reward"] == 0.0
