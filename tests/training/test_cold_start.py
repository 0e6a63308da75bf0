"""Written thoughts: what they say, which answers are left out, a step of TRL's SFTTrainer on them, and whole runs."""

import json
from pathlib import Path

import pytest
import torch
from transformers import HfArgumentParser
from trl import SFTConfig, SFTTrainer

from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.training import (
    ColdStartQuestions,
    SceneCollator,
    SceneQuestionDataset,
    format_reward,
    make_cold_start_rows,
    make_prompt_rows,
    write_thought,
)
from gap_mllm.training.cold_start import MAX_TRIES
from gap_mllm.training.geometry_aligned_trainer import GeometryAlignedTrainingArguments
from gap_mllm.training.recipes import read_recipe
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.train_geometry_aligned import GeometryAlignedModelArguments, train_geometry_aligned
from gap_mllm.training.train_grpo import GrpoArguments, GrpoTrainingArguments, train_grpo
from gap_mllm_cli import main


TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"


REWARDS = {"format": 1.0, "choice": 1.0, "relative_accuracy": 1.0}
VARIETY = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(2,), num_views_shares=(1.0,))


@pytest.fixture(scope="module")
def questions():
    return SceneQuestionDataset(RenderedRooms("train", 6, VARIETY), tasks=("object_count", "object_distance"))


def test_a_thought_says_where_the_objects_are(questions):
    sample = next(sample for sample in map(questions.__getitem__, range(6)) if len(sample.boxes) == 2)
    text = write_thought(sample)
    assert format_reward([text]) == [1.0] and text.endswith(f"<answer>{sample.answer}</answer>")
    first, second = (sample.box_in_view(box, 0) for box in sample.boxes)
    shown = f"{sample.boxes[1].label} at {[round(float(number), 1) + 0.0 for number in second[:3]]}, size "
    assert text.index(f"{sample.boxes[0].label} at ") < text.index(shown)
    assert f"size {[round(float(number), 1) for number in first[3:6]]}; " in text
    about_cameras = SceneQuestionDataset(RenderedRooms("train", 1, VARIETY), tasks=("camera_distance",))[0]
    assert write_thought(about_cameras) is None


def test_answers_that_earn_too_little_are_left_out(questions, tiny_processor):
    written = []

    def write(sample):
        """In turn right, right without tags, wrong, none."""
        written.append(sample)
        right = write_thought(sample)
        return [right, sample.answer, right.replace("<answer>", "<answer>9"), None][(len(written) - 1) % 4]

    rows = make_cold_start_rows(questions, tiny_processor, REWARDS, "\nIn tags.", write)
    assert rows.column_names == ["prompt", "completion", "images"]
    kept = [row["completion"][0]["content"][0]["text"] for row in rows]
    assert kept == [write_thought(written[0]), write_thought(written[4])]
    assert [len(images) for images in rows["images"]] == [2, 2]
    assert [part["type"] for part in rows[0]["prompt"][-1]["content"]] == ["image", "image", "text", "text"]
    without_format = {"relative_accuracy": 1.0, "length": {"max_tokens": 1000}}
    assert len(make_cold_start_rows(questions, tiny_processor, without_format, write=lambda s: s.answer)) == 6
    with pytest.raises(ValueError, match="of 6 answers none earns 0.9 of every reward"):
        make_cold_start_rows(questions, tiny_processor, REWARDS, write=lambda sample: "B")
    captions = SceneQuestionDataset(RenderedRooms("train", 2, VARIETY), tasks=("dense_caption",))
    with pytest.raises(ValueError, match="of 2 answers none earns"):  # nothing to hold a caption to
        make_cold_start_rows(captions, tiny_processor, REWARDS)


def test_a_step_of_sft_on_thoughts(questions, tiny_model, tiny_processor, tmp_path):
    rows, model = make_cold_start_rows(questions, tiny_processor, REWARDS), tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fixed = {"max_steps": 1, "per_device_train_batch_size": 2, "max_length": None, "learning_rate": 1e-3}
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "bf16": False}
    args = SFTConfig(str(tmp_path), logging_steps=1, **fixed, **quiet)
    trainer = SFTTrainer(model, args, train_dataset=rows, processing_class=tiny_processor)
    labels = next(iter(trainer.get_train_dataloader()))["labels"]
    text = tiny_processor.tokenizer.decode(labels[0][labels[0] != -100])
    assert text.startswith("<think>") and "</answer>" in text  # the prompt is not learnt
    trainer.train()
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    for part in ("geometry", "fusion", "visual", "language_model"):
        assert any(name.startswith(f"model.{part}.") for name in moved), part


def test_a_thought_about_a_marked_pixel_names_what_it_is_on():
    rooms = RoomQuestionDataset(RenderedRooms("train", 1, VARIETY), RoomQuestions(counts={"reconstruction": 1}))
    (sample,) = rooms[0]
    label = json.loads(sample.answer.strip("`json\n"))["label"]
    assert write_thought(sample) == f"<think>The mark is on: {label}.</think>\n<answer>{sample.answer}</answer>"


@pytest.mark.slow
def test_questions_of_a_cold_start(questions, tiny_processor):
    def write(sample):
        """Nothing about the third question, and a wrong number about the fourth."""
        place = [questions[index].id for index in range(6)].index(sample.id)
        return {2: None, 3: "<think>No.</think><answer>900</answer>"}.get(place, write_thought(sample))

    thoughts = ColdStartQuestions(questions, tiny_processor, REWARDS, "\nIn tags.", write)
    assert len(thoughts) == 6
    assert [sample.id for sample in thoughts] == [questions[place].id for place in (0, 1, 4, 4, 4, 5)]
    for place in (0, 5):
        assert thoughts[place].question == questions[place].question + "\nIn tags."
        assert thoughts[place].answer == write_thought(questions[place])
    nothing = ColdStartQuestions(questions, tiny_processor, REWARDS, write=lambda sample: "B")
    with pytest.raises(ValueError, match="of 6 answers from item 2 on none earns 0.9 of every reward"):
        nothing[2]
    many = SceneQuestionDataset(questions.rows, 2 * MAX_TRIES, ("camera_distance",))  # no thought
    with pytest.raises(ValueError, match=f"of {MAX_TRIES} answers from item 0 on none.*Name other tasks"):
        ColdStartQuestions(many, tiny_processor, REWARDS)[0]
    with pytest.raises(TypeError, match="questions is a generator, whose items have no number"):
        ColdStartQuestions((sample for sample in questions), tiny_processor, REWARDS)


def test_grpo_asks_as_the_cold_start_did(questions, tiny_processor):
    """The same tokens up to the answer, so that what was learnt there is found again."""
    thoughts = ColdStartQuestions(questions, tiny_processor, REWARDS, "\nIn tags.")
    batch = SceneCollator(tiny_processor)([thoughts[1]])
    (row,) = make_prompt_rows([questions[1]], tiny_processor, "\nIn tags.")
    images = iter(row["images"])
    for part in row["prompt"][-1]["content"]:
        if part["type"] == "image":
            part["image"] = next(images)
    asked = tiny_processor.apply_chat_template(
        row["prompt"], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    prompt = batch["input_ids"][0][batch["labels"][0] == -100]
    assert torch.equal(prompt, asked["input_ids"][0])
    assert torch.equal(batch["pixel_values"], asked["pixel_values"])


@pytest.mark.slow
def test_a_cold_start_from_the_command_line_is_where_grpo_begins(tmp_path):
    start, out = tmp_path / "start", tmp_path / "out"
    rooms = {"name": "rendered_rooms", "num_rooms": 4, "variety": VARIETY.__dict__}
    flags = ["--model_path", str(TINY_MODEL), "--output_dir", str(start), "--data", json.dumps(rooms)]
    flags += ["--eval_data.num_rooms", "2", "--per_device_train_batch_size", "2", "--dataloader_num_workers", "0"]
    assert main(["train", "tiny_cold_start", *flags, "--max_steps", "2", "--eval_steps", "2"]) == 0
    log = json.loads((start / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [0, 2]
    flags = ["--model_path", str(start), "--output_dir", str(out), "--variety", json.dumps(VARIETY.__dict__)]
    flags += ["--per_device_train_batch_size", "4", "--num_generations", "2", "--max_completion_length", "4"]
    flags += ["--instruction", "Think first.", "--rewards.format", "0.5", "--max_steps", "1"]
    flags += ["--num_selection_rooms", "0", "--eval_strategy", "no", "--eval_on_start", "false"]
    trainer = train_grpo("tiny_grpo", flags)
    assert "rewards/format_reward/mean" in trainer.state.log_history[0]


@pytest.mark.parametrize("names", [("tiny_cold_start", "tiny_grpo"), ("cold_start_spatial", "grpo_spatial")])
def test_recipes_of_a_cold_start_are_complete(names, tmp_path):
    kinds = (GeometryAlignedModelArguments, GeometryAlignedTrainingArguments), (GrpoArguments, GrpoTrainingArguments)
    (cold, args), (grpo, _) = (
        read_recipe(HfArgumentParser(kind), name, ["--output_dir", str(tmp_path)])
        for kind, name in zip(kinds, names, strict=True)
    )
    assert set(cold.cold_start["rewards"]) == {*grpo.rewards, "format"}
    assert {group for group, rate in args.group_learning_rates.items() if rate} >= {"language", "mergers", "fusion"}
    if names[1] == "grpo_spatial":
        assert cold.cold_start["instruction"] == grpo.instruction
        assert set(cold.scene_tasks["tasks"]) < set(grpo.scene_tasks["tasks"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cold_start", "{}", "--cold_start.rewards", "{}"], "rewards is empty; name one or more of format"),
        (["--cold_start.rewards.nearness", "1"], "rewards has the unknown key 'nearness'"),
        (["--cold_start.lest", "0.5"], "cold_start has the unknown key 'lest'.*least"),
        (["--data.streaming", "true"], "data has streaming=True, but cold_start looks for"),
    ],
)
def test_what_a_cold_start_cannot_be(flags, message, tmp_path):
    given = ["--model_path", "is/not/there", "--output_dir", str(tmp_path)]
    with pytest.raises(ValueError, match=message):
        train_geometry_aligned("tiny_cold_start", [*given, *flags])
