"""GRPO: prompts with several pictures and their references, log-probabilities that see geometry, whole runs."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import ImageChops
from transformers import HfArgumentParser
from trl import GRPOConfig, GRPOTrainer

from gap_mllm import GapMllmForConditionalGeneration, GapMllmProcessor
from gap_mllm.processing import parse_boxes, parse_points
from gap_mllm.processing.data import RenderedRooms, RoomVariety, SceneSample
from gap_mllm.training import SceneQuestionDataset, compose_rewards, make_prompt_rows
from gap_mllm.training.recipe_sections import check_sections
from gap_mllm.training.recipes import read_recipe
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.train_grpo import GrpoArguments, GrpoTrainingArguments, train_grpo
from gap_mllm_cli import main
from tests.slow_cases import slow_but


TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
VARIETY = {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [2, 1], "num_views_shares": [0.5, 0.5]}
SHORT = ["--variety", json.dumps(VARIETY), "--per_device_train_batch_size", "4", "--num_generations", "2"]
SHORT += ["--max_completion_length", "4", "--model_path", str(TINY_MODEL), "--gradient_accumulation_steps", "1"]


def room_rows(processor):
    """Six prompts, in turn about two views and about one."""
    items = []
    for count in (2, 1):
        variety = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(count,), num_views_shares=(1.0,))
        rooms = RoomQuestionDataset(RenderedRooms("train", 3, variety), RoomQuestions(counts={"reconstruction": 1}))
        items.append([rooms[place] for place in range(3)])
    return make_prompt_rows([item for pair in zip(*items, strict=True) for item in pair], processor)


def alternating_reward(completions, **kwargs):
    """Any reward that differs within a group, for a model that has no right answers."""
    return [float(place % 2) for place in range(len(completions))]


@pytest.fixture
def make_grpo_trainer(tiny_processor, tmp_path):
    """A function (model, rows, **arguments) -> `GRPOTrainer` with two answers of four tokens to each prompt."""

    def make(model, rows, **arguments):
        fixed = {"num_generations": 2, "max_completion_length": 4, "max_steps": 1, "learning_rate": 1e-2}
        quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "bf16": False}
        args = GRPOConfig(str(tmp_path), per_device_train_batch_size=4, **fixed, **quiet, **arguments)
        return GRPOTrainer(model, alternating_reward, args, train_dataset=rows, processing_class=tiny_processor)

    return make


def test_rows_hold_the_question_its_pictures_and_one_reference(tiny_processor):
    rooms = RenderedRooms("train", 3, RoomVariety(**VARIETY), 1)
    questions = RoomQuestionDataset(rooms, RoomQuestions(counts={"reconstruction": 1}))
    rows, (sample,) = make_prompt_rows(questions, tiny_processor), questions[1]
    row = rows[1]
    assert len(rows) == 3 and row["point"] == list(sample.truth.items[0].numbers)
    assert row["point"] == pytest.approx(parse_points(sample.answer).first.point, abs=0.005)  # two decimals
    assert [row[name] for name in ("choice", "number", "bbox_3d", "frame")] == [None] * 4
    content = row["prompt"][-1]["content"]
    assert content == [*[{"type": "image"}] * len(sample.views), {"type": "text", "text": sample.question}]
    marked = [ImageChops.difference(*pair).getbbox() for pair in zip(row["images"], images_of(sample), strict=True)]
    assert [box is not None for box in marked].count(True) == 1  # the cross
    both = rows[[1, 1, 0]]
    assert both["point"][:2] == [row["point"]] * 2 and both["images"][0] is both["images"][1]


def images_of(sample: SceneSample):
    return [view.image for view in sample.views]


@pytest.mark.parametrize(
    ("task", "column", "read"),
    [
        ("grounding_box", "bbox_3d", lambda text: list(parse_boxes(text).first.bbox_3d)),
        ("grounding_frame", "frame", lambda text: json.loads(text.strip("`json\n\t"))["frame"]),
        ("object_count", "number", float),
        ("left_right", "choice", str),
    ],
)
def test_every_kind_of_question_has_its_reference(tiny_processor, task, column, read):
    rooms = RenderedRooms("train", 4, RoomVariety(sizes=((96, 96),), size_shares=(1.0,)), 1)
    questions = SceneQuestionDataset(rooms, tasks=(task,))
    row, sample = make_prompt_rows(questions, tiny_processor, "\nIn tags.")[0], questions[0]
    assert row[column] == pytest.approx(read(sample.answer), abs=0.005) if column != "choice" else sample.answer
    names = ("choice", "number", "bbox_3d", "point", "frame")
    assert [name for name in names if row[name] is not None] == [column]
    assert row["prompt"][-1]["content"][-1] == {"type": "text", "text": "\nIn tags."}
    (function,), _ = compose_rewards({{"number": "relative_accuracy", "bbox_3d": "box_iou"}.get(column, column): 1})
    assert function([sample.answer], **{column: [row[column]]})[0] > 0.9  # numbers in answers are rounded


def test_answers_that_came_as_text_are_read(tiny_processor):
    (sample,) = RoomQuestionDataset(RenderedRooms("train", 1), RoomQuestions(counts={"reconstruction": 1}))[0]
    stored = SceneSample.from_row(sample.to_row())
    assert stored.truth is None
    row = make_prompt_rows([stored], tiny_processor)[0]
    assert row["point"] == pytest.approx(sample.truth.items[0].numbers, abs=0.005)


def test_several_questions_an_item_are_refused(tiny_processor):
    rooms = RenderedRooms("train", 1, RoomVariety(**VARIETY), 1)
    rows = make_prompt_rows(RoomQuestionDataset(rooms, RoomQuestions(counts={"reconstruction": 2})), tiny_processor)
    with pytest.raises(ValueError, match="an item holds 2 questions, and a prompt asks one: give questions.counts 1"):
        rows[0]


@pytest.mark.parametrize("gradient_checkpointing", slow_but((True,), [False, True]))
def test_a_step_sees_geometry_and_moves_fusion(tiny_model, tiny_processor, make_grpo_trainer, gradient_checkpointing):
    model, calls = tiny_model().train(), []
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.model.geometry.register_forward_hook(
        lambda *call: calls.append((torch.is_grad_enabled(), len(call[2].scene_lengths)))
    )
    rows = room_rows(tiny_processor)
    arguments = {"gradient_checkpointing": gradient_checkpointing, "shuffle_dataset": False, "beta": 0.0}
    make_grpo_trainer(model, rows, **arguments).train()
    passes = [(False, 2), (True, 2)]  # of generate and of the loss; two answers to each prompt share its encoding
    assert set(calls) == set(passes)
    if not gradient_checkpointing:
        assert calls == passes
    moved = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    for part in ("geometry", "fusion.levels", "fusion.mergers", "visual", "language_model"):
        assert any(name.startswith(f"model.{part}.") for name in moved), part


def test_log_probabilities_are_those_of_each_prompt_alone(tiny_model, tiny_processor, make_grpo_trainer):
    model, rows = tiny_model(), room_rows(tiny_processor)
    trainer = make_grpo_trainer(model, rows)
    items = [rows[place] for place in (0, 0, 1, 1)]
    made = trainer._generate_and_score_completions(items)
    assert made["num_images"] == [2, 2, 1, 1]
    names = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
    ids = torch.cat([made["prompt_ids"], made["completion_ids"]], 1)
    mask = torch.cat([made["prompt_mask"], made["completion_mask"]], 1)
    given = {name: made[name] for name in names}

    def log_probabilities(batch_size):
        with torch.no_grad():
            return trainer._get_per_token_logps_and_entropies(model, ids, mask, 4, batch_size, **given)[0]

    found = log_probabilities(4)
    torch.testing.assert_close(log_probabilities(1), found, rtol=1e-4, atol=1e-4)  # sums in another order
    for place, item in enumerate(items):
        chat = [dict(turn) for turn in item["prompt"]]
        pictures = iter(item["images"])
        content = [
            part | {"image": next(pictures)} if part["type"] == "image" else part for part in chat[-1]["content"]
        ]
        chat[-1]["content"] = content
        alone = tiny_processor.apply_chat_template(
            [chat], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        answer = made["completion_ids"][place][None]
        prompt = alone["input_ids"]
        alone["input_ids"], alone["attention_mask"] = torch.cat([prompt, answer], 1), None
        alone["mm_token_type_ids"] = torch.nn.functional.pad(alone["mm_token_type_ids"], (0, 4))
        with torch.no_grad():
            logits = model(**alone).logits[0, -5:-1].log_softmax(-1)
        expected = logits.gather(-1, answer.T)[:, 0]
        torch.testing.assert_close(found[place], expected, rtol=1e-4, atol=1e-4)
    with model.geometry_disabled():
        assert (log_probabilities(4) - found).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["tiny_grpo", "grpo_spatial"])
def test_recipes_are_complete(name, tmp_path):
    kinds = HfArgumentParser((GrpoArguments, GrpoTrainingArguments))
    grpo, args = read_recipe(kinds, name, ["--output_dir", str(tmp_path), "--max_steps", "10"])
    check_sections(grpo)
    compose_rewards(grpo.rewards)
    assert args.num_train_items == {"tiny_grpo": 80, "grpo_spatial": 80}[name]  # eight prompts a step
    trained = {group for group, rate in args.group_learning_rates.items() if rate}
    assert trained == {"mergers", "fusion", "language"} and not args.bf16


@pytest.mark.slow
def test_a_run_on_rooms(tmp_path):
    flags = [*SHORT, "--output_dir", str(tmp_path), "--max_steps", "2", "--num_selection_rooms", "2"]
    flags += ["--eval_steps", "1", "--per_device_eval_batch_size", "4", "--logging_steps", "1"]
    flags += ["--max_completion_length", "24", "--warmup_steps", "0"]
    assert main(["train-grpo", "tiny_grpo", *flags]) == 0
    before = GapMllmForConditionalGeneration.from_pretrained(TINY_MODEL).state_dict()
    model = GapMllmForConditionalGeneration.from_pretrained(tmp_path)
    GapMllmProcessor.from_pretrained(tmp_path)
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert {name.split(".")[1] for name in moved} - {"weight"} == {
        "language_model",
        "fusion",
    }  # lm_head.weight is tied
    log = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "eval_reward" in entry] == [0, 1, 2]
    assert (tmp_path / "checkpoint-2").is_dir()
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert provenance["settings"]["rewards"] == {"point_distance": {"weight": 1.0, "scale_m": 1.0}}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["state"] == "finished" and summary["last_losses"].keys() == {"step", "loss", "reward"}
    assert (summary["first_evaluation"]["step"], summary["last_evaluation"]["step"]) == (0, 2)
    assert {"eval_reward", "eval_rewards/point_distance_reward/mean"} <= summary["best"].keys()
    assert train_grpo(tmp_path / "recipe.yaml").was_finished


@pytest.mark.slow
def test_the_reference_model_sees_geometry_as_well(tmp_path):
    flags = [*SHORT, "--output_dir", str(tmp_path), "--max_steps", "2", "--num_selection_rooms", "0", "--beta", "0.01"]
    flags += ["--eval_strategy", "no", "--eval_on_start", "false", "--warmup_steps", "0", "--logging_steps", "1"]
    flags += ["--max_completion_length", "24"]
    trainer = train_grpo("tiny_grpo", flags)
    first, second = (entry["kl"] for entry in trainer.state.log_history if "kl" in entry)
    assert first == 0 < second  # the same weights at first


@pytest.mark.slow
def test_a_run_on_data_stops_and_goes_on(tmp_path):
    flags = [*SHORT, "--output_dir", str(tmp_path), "--data", '{"name": "rendered_rooms", "num_rooms": 2}']
    flags += ["--scene_tasks", '{"tasks": ["object_count", "left_right"], "num_views": 2}', "--variety", "{}"]
    flags += ["--max_steps", "2", "--save_steps", "1"]
    trainer = train_grpo("grpo_spatial", flags)
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logged) == 2 and logged[0]["rewards/format_reward/mean"] == 0.0
    assert train_grpo("grpo_spatial", flags).was_finished
    shutil.rmtree(tmp_path / "checkpoint-2")
    (tmp_path / "provenance.json").unlink()  # as if ended in the second step
    trainer = train_grpo("grpo_spatial", flags)
    again = [entry for entry in trainer.state.log_history if "reward" in entry]
    names = ("step", "reward", "completions/mean_length", "entropy", "loss")
    assert [[entry[name] for name in names] for entry in again] == [
        [entry[name] for name in names] for entry in logged
    ]
    assert (tmp_path / "checkpoint-2").is_dir() and not trainer.was_finished
    with pytest.raises(ValueError, match="holds results of another run .max_steps: 2 there, 3 now"):
        train_grpo("grpo_spatial", [*flags, "--max_steps", "3"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rewards", "{nearness: 1}"], "rewards has the unknown key 'nearness'"),
        (["--rewards", "{}"], "rewards is empty; name one or more of format"),
        (["--trained_modules", "heads"], "trained_modules has the unknown key 'heads'"),
        (["--dtype", "float16"], "dtype is 'float16'"),
        (["--data", "{name: rendered_rooms, streaming: true}", "--num_selection_rooms", "0"], "streaming=True"),
        (["--num_generations", "3"], "num_generations is 3, which does not divide the 4 answers of a step"),
        (["--num_generations_eval", "3"], r"eval batch size \(64 \* 1\) must be divisible.*\(3\)"),
        (
            ["--num_selection_rooms", "0"],
            "eval_on_start is True and eval_strategy is 'steps', but there is",
        ),
        (
            ["--num_selection_rooms", "0", "--eval_strategy", "no"],
            "eval_on_start is True and eval_strategy is 'no', but there is nothing to evaluate on: give eval_data",
        ),
        (["--eval_strategy", "no"], "num_selection_rooms is 96, but eval_strategy is 'no'"),
        (["--rewards", "{choice: 1, format: 1}"], "look at choice, which none of 8 questions has; they have point"),
        (["--questions", "{counts: {dense_caption: 1}}"], "which none of 8 questions has; they have nothing that"),
        (["--questions", "{counts: {reconstruction: 2}}"], "an item holds 2 questions, and a prompt asks one"),
    ],
)
def test_what_cannot_be_is_refused_before_the_model_is_loaded(flags, message, tmp_path, monkeypatch):
    monkeypatch.setattr("gap_mllm.training.train_grpo.load_pretrained", None)
    with pytest.raises(ValueError, match=message):
        train_grpo("tiny_grpo", [*SHORT, "--output_dir", str(tmp_path), *flags])


def test_a_folder_without_a_processor_is_refused(tmp_path):
    shutil.copy(TINY_MODEL / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no processor that can be read: .*processor.save_pretrained"):
        train_grpo("tiny_grpo", [*SHORT, "--output_dir", str(tmp_path / "out"), "--model_path", str(tmp_path)])
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(ValueError, match="is of model_type 'qwen3_vl'; expected 'gap_mllm'"):
        train_grpo("tiny_grpo", [*SHORT, "--output_dir", str(tmp_path / "out"), "--model_path", str(tmp_path)])


def test_a_model_must_be_named(tmp_path):
    with pytest.raises(ValueError, match="model_path is missing: give the folder of a model that was trained"):
        train_grpo("tiny_grpo", ["--output_dir", str(tmp_path)])
