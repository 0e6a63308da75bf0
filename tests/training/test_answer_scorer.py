"""The scorer of answers: each reward over the questions that it applies to, and its key in a recipe."""

import json
from pathlib import Path

import pytest
import yaml

from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.data import load_multiview
from gap_mllm.training import SceneQuestionDataset
from gap_mllm.training.answer_scorer import answer_scorer
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned
from gap_mllm_cli import main


TINY_MODEL = str(Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm")
ROOMS = {"name": "rendered_rooms", "variety": {"sizes": [[64, 64]], "size_shares": [1.0]}}
TASKS = ("object_count", "left_right", "grounding_box", "dense_caption")


class Model:
    """Stands for a model that is asked by its processor alone."""

    training = True

    def eval(self):
        self.training = False

    def train(self, mode):
        self.training = mode


@pytest.fixture(scope="module")
def questions():
    rooms = load_multiview(**ROOMS, split="selection", num_rooms=6)
    return SceneQuestionDataset(rooms, tasks=TASKS, num_views=2, questions_per_scene=3)


def key_of(chat):
    """What a chat asks, and about which pictures."""
    parts = chat[-1]["content"]
    return tuple(part["text"] if part["type"] == "text" else part["image"].tobytes() for part in parts)


@pytest.mark.parametrize("worth", [1.0, 0.0])
def test_answers_earn_what_they_are_worth_and_captions_are_not_asked(questions, monkeypatch, worth):
    processor, asked, model = GapMllmProcessor.from_pretrained(TINY_MODEL), [], Model()
    samples = [sample for item in (questions[index] for index in range(6)) for sample in item]
    assert "dense_caption" in {sample.task for sample in samples}
    answers = {}
    for sample in samples:
        chat = sample.messages(sample.marked_images(processor.cross_size), with_answer=False)
        answers[key_of(chat)] = sample.answer if worth else "none"

    def ask(model, chats, task=None):
        assert not model.training and len(chats) <= 2
        asked.append(task)
        return [answers[key_of(chat)] for chat in chats]

    monkeypatch.setattr(processor, "ask", ask)
    score = answer_scorer(processor, questions, {"choice": 1, "relative_accuracy": 1, "box_iou": 1}, batch_size=2)
    earned = score(model)
    # Numbers are rounded in answers: a box of 0.1 m loses some overlap, a distance no threshold.
    assert earned == {name: pytest.approx(worth, abs=0.1) for name in earned}
    assert set(earned) == {"choice_reward", "relative_accuracy_reward", "box_iou_reward"}
    assert set(asked) == {"grounding_box", None} and model.training


def test_rewards_that_no_question_has_a_reference_for_are_refused(questions):
    processor = GapMllmProcessor.from_pretrained(TINY_MODEL)
    with pytest.raises(ValueError, match=r"none of the rewards \['frame'\] applies to any of"):
        answer_scorer(processor, questions, {"frame": 1.0})


@pytest.mark.slow
def test_a_recipe_has_the_questions_of_its_evaluation_answered(tmp_path, capsys):
    recipe = {"model_path": TINY_MODEL, "data": {**ROOMS, "num_rooms": 4}, "eval_data": {"num_rooms": 2}}
    recipe |= {"scene_tasks": {"tasks": ["object_count"], "num_views": 2}, "eval_rewards": {"relative_accuracy": 1.0}}
    recipe |= {"eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True, "max_steps": 1, "use_cpu": True}
    recipe |= {"per_device_train_batch_size": 1, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    recipe |= {"output_dir": str(tmp_path / "run")}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    train_geometry_aligned(tmp_path / "mine.yaml")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for which, step in (("first_evaluation", 0), ("last_evaluation", 1)):
        assert summary[which]["step"] == step
        assert 0.0 <= summary[which]["eval_relative_accuracy_reward"] <= 1.0
    assert "eval_relative_accuracy_reward" in summary["best"]
    for flags, message in (
        (["--eval_rewards", '{"choices": 1}'], "did you mean 'choice'"),
        (["--eval_data", "{}"], "eval_rewards goes with one set of eval_data"),
        (["--eval_data", "{a: {num_rooms: 1}, b: {num_rooms: 1}}"], "neither empty nor a mapping of named sets"),
    ):
        assert main(["train", str(tmp_path / "mine.yaml"), *flags]) == 2
        assert message in capsys.readouterr().err
