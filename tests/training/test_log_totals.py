"""Log and summary of a run that was killed, and went on, are those of a whole one, wherever it was killed."""

import json
import os
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from transformers import EarlyStoppingCallback, Trainer

from gap_mllm.training.log_totals import read_totals
from gap_mllm.training.resuming import ResumingMixin
from gap_mllm.training.run_log import RunLog
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned
from gap_mllm.training.train_geometry_encoder import train_geometry_encoder
from gap_mllm.training.train_grpo import train_grpo
from tests.training.conftest import ONE_VIEW
from tests.training.processes import run_in_two


TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
TIMES = ("minutes", "runtime", "per_second", "step_time")
# Entries of the log, evaluations and checkpoints fall on different steps.
APART = {"logging_steps": 3, "save_steps": 2, "max_steps": 5}
EVALUATED = {"num_selection_rooms": 1, "eval_strategy": "steps", "eval_steps": 3, "eval_on_start": True}
ROOMS = {"name": "rendered_rooms", "num_rooms": 4, "variety": ONE_VIEW}
OVER_DATA = {"data": ROOMS, "eval_data": {"split": "selection", "num_rooms": 1}, "variety": {}, "questions": {}}
OVER_DATA |= {"scene_tasks": {"tasks": ["object_count"], "questions_per_scene": 1}, "answer_weights": {}}
OVER_DATA |= {"point_map_weight": 0.0, "readout_weight": 0.0}


class Killed(BaseException):
    """Ends a training at once."""


def untimed(value):
    if isinstance(value, dict):
        return {key: untimed(each) for key, each in value.items() if not any(time in key for time in TIMES)}
    return [untimed(each) for each in value] if isinstance(value, list) else value


def told(folder):
    """Log with the order of its keys, summary, and state of a finished run, without times."""
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    summary, state = (json.loads((folder / f"{name}.json").read_text()) for name in ("summary", "trainer_state"))
    minutes = [line["minutes"] for line in log]
    assert minutes == sorted(minutes)
    best = state["best_metric"], state["best_global_step"]
    orders = [list(line) for line in log]
    return {"log": untimed(log), "orders": orders, "summary": untimed(summary), "best": best, "history": untimed(
        state["log_history"]), "parts": list(folder.glob("*.part"))}  # fmt: skip


def kill_at(patch, owner, name, number, is_after=True):
    """Let the call of that number end the training, when it has been made or before."""
    call, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) == number and not is_after:
            raise Killed
        result = call(*args, **kwargs)
        if len(calls) == number:
            raise Killed
        return result

    patch.setattr(owner, name, counted)


def same_as_whole(train, tmp_path, monkeypatch, *kills):
    """Train whole and in parts, and return what is told of the whole run; an AssertionError where they differ."""
    train(tmp_path / "whole")
    for kill in kills:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, *kill)
            train(tmp_path / "parts")
    train(tmp_path / "parts")
    whole, parts = told(tmp_path / "whole"), told(tmp_path / "parts")
    for name in whole:
        assert parts[name] == whole[name], name
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    return whole


IN_A_STEP, IN_A_SAVE = (Trainer, "training_step", 7), (Trainer, "_save_optimizer_and_scheduler", 2, False)
PLACES = {
    "before the first checkpoint": [(Trainer, "training_step", 3)],
    "in a step": [IN_A_STEP],
    "in a save": [IN_A_SAVE],
    "in an evaluation": [(Trainer, "evaluation_loop", 2)],
    "in the log": [(RunLog, "on_log", 2)],
    "in the summary": [(RunLog, "_write", 3, False)],
    "after the last step": [(ResumingMixin, "_save_checkpoint", 3)],
    "in the last save": [(Trainer, "_save", 4)],
    "again and again": [
        IN_A_SAVE,
        (Trainer, "training_step", 1),
        (RunLog, "on_log", 1),
        (Trainer, "training_step", 3),
    ],
}


def test_a_run_that_was_killed_after_a_checkpoint_tells_the_same(recipe, tmp_path, monkeypatch):
    short = {"max_steps": 2, "logging_steps": 2, "save_steps": 1, "gradient_accumulation_steps": 1}
    path = recipe(**OVER_DATA, **short, eval_strategy="steps", eval_on_start=True)

    def train(folder):
        train_geometry_aligned(path, ["--output_dir", str(folder)])

    log = same_as_whole(train, tmp_path, monkeypatch, (ResumingMixin, "_save_checkpoint", 1))["log"]
    assert [line["step"] for line in log] == [0, 2, 2, 2] and log[1]["loss"] == pytest.approx(log[3]["train_loss"])


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_killed_run_tells_the_same_as_a_whole_one(place, recipe, tmp_path, monkeypatch):
    path = recipe(**APART, **EVALUATED)

    def train(folder):
        train_geometry_aligned(path, ["--output_dir", str(folder)])

    log = same_as_whole(train, tmp_path, monkeypatch, *PLACES[place])["log"]
    assert [line["step"] for line in log if "eval_parse_rate" in line] == [0, 3, 5]
    losses = {line["step"]: line["loss"] for line in log if "loss" in line}
    assert list(losses) == [3, 5]
    assert log[-1]["train_loss"] == pytest.approx((3 * losses[3] + 2 * losses[5]) / 5)


@pytest.mark.slow
def test_a_killed_training_of_an_encoder_tells_the_same(encoder_folder, tmp_path, monkeypatch):
    flags = ["--encoder_path", str(encoder_folder), "--num_eval_scenes", "0", "--dataloader_num_workers", "0"]
    flags += ["--dataloader_persistent_workers", "false", "--per_device_train_batch_size", "1", "--use_cpu", "true"]
    flags += [word for name, value in APART.items() for word in (f"--{name}", str(value))]

    def train(folder):
        train_geometry_encoder("tiny_geometry_encoder", [*flags, "--output_dir", str(folder)])

    same_as_whole(train, tmp_path, monkeypatch, (ResumingMixin, "_save_checkpoint", 1), (Trainer, "training_step", 2))


@pytest.mark.slow
@pytest.mark.parametrize("num_iterations", [1, 2])
def test_a_killed_grpo_tells_the_same(num_iterations, tmp_path, monkeypatch):
    """Also between two steps that learn from the same answers."""
    variety = {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [2, 1], "num_views_shares": [0.5, 0.5]}
    flags = ["--variety", json.dumps(variety), "--per_device_train_batch_size", "4", "--num_generations", "2"]
    flags += ["--max_completion_length", "4", "--model_path", str(TINY_MODEL), "--gradient_accumulation_steps", "2"]
    flags += ["--num_selection_rooms", "1", "--num_generations_eval", "2", "--per_device_eval_batch_size", "2"]
    flags += ["--max_steps", "7", "--logging_steps", "2", "--eval_steps", "4", "--save_steps", "3"]
    flags += ["--num_iterations", str(num_iterations), "--use_cpu", "true", "--temperature", "4.0"]

    def train(folder):
        train_grpo("tiny_grpo", [*flags, "--output_dir", str(folder)])

    kills = [(ResumingMixin, "_save_checkpoint", 1), (Trainer, "training_step", 5)]
    kills += [(ResumingMixin, "_save_checkpoint", 2)]
    log = same_as_whole(train, tmp_path, monkeypatch, *kills)["log"]
    assert [line["step"] for line in log if "eval_reward" in line] == [0, 4, 7]


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_an_epoch_tells_at_its_end_is_not_lost(number, recipe, tmp_path, monkeypatch):
    """The checkpoint of the last step of an epoch waits for its evaluation."""
    epochs = {"max_steps": -1, "num_train_epochs": 2, "eval_strategy": "epoch", "logging_strategy": "epoch"}
    path = recipe(**OVER_DATA, **epochs, save_steps=1)

    def train(folder):
        train_geometry_aligned(path, ["--output_dir", str(folder)])

    log = same_as_whole(train, tmp_path, monkeypatch, (ResumingMixin, "_save_checkpoint", number))["log"]
    assert [line["step"] for line in log if "eval_loss" in line] == [2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 4])
def test_a_run_that_ended_early_with_its_best_model_does_so_again(number, recipe, tmp_path, monkeypatch):
    """Patience counts on, and after the checkpoint of the last step no further one is made."""
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": False}
    best |= {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "save_total_limit": 1, "max_steps": 12}
    path = recipe(**OVER_DATA, **best, learning_rate=0.2, module_learning_rates={}, max_grad_norm=1e3, warmup_steps=0)

    def train(folder):
        train_geometry_aligned(path, ["--output_dir", str(folder)], callbacks=[EarlyStoppingCallback(2)])

    whole = same_as_whole(train, tmp_path, monkeypatch, (ResumingMixin, "_save_checkpoint", number))
    assert whole["summary"]["steps"] < 12 and whole["best"][1] == whole["summary"]["steps"] - 2


@pytest.mark.slow
def test_the_hit_rate_of_a_cache_is_that_of_all_steps(recipe, tmp_path, monkeypatch):
    path = recipe(**OVER_DATA, max_steps=4, logging_steps=3, save_steps=2, eval_strategy="epoch")

    def train(folder):
        geometry = json.dumps({"where": "loader", "cache_dir": str(folder.with_suffix(".cache"))})
        train_geometry_aligned(path, ["--output_dir", str(folder), "--frozen_geometry", geometry])

    train(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, ResumingMixin, "_save_checkpoint", 1)
        train(tmp_path / "parts")
    train(tmp_path / "parts")
    rates = [told(tmp_path / name)["log"][-1]["train_cache_hit_rate"] for name in ("whole", "parts")]
    # Four rooms, each twice; the killed process had also made the features of the next one, which were found then.
    assert rates == [0.5, 0.625]


def test_temporary_files_and_old_checkpoints_of_a_killed_run_go(recipe, tmp_path, monkeypatch):
    path, run = recipe(max_steps=2, save_steps=1, save_total_limit=1), tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("gap_mllm.training.resuming.rotate_checkpoints", lambda *args, **kwargs: None)
        kill_at(patch, ResumingMixin, "_save_checkpoint", 2)
        train_geometry_aligned(path)
    (run / "_unfinished" / "checkpoint-9").mkdir(parents=True)
    # Of a dead process, of another host, and of a number that lives again: nobody else writes into a held folder.
    for part in ("summary.json.999999999", "log.jsonl.otherpod-7", f"log.jsonl.{os.getppid()}"):
        (run / f"{part}.part").write_text("{")
    train_geometry_aligned(path)
    assert [each.name for each in run.glob("*/")] == ["checkpoint-2"]
    assert not list(run.glob("*.part"))


# Several processes

SCRIPT = """
import os, sys, torch
torch.set_num_threads(1)
from transformers import TrainerCallback
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned

recipe, folder, last = sys.argv[1:4]

class End(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == int(last):
            os._exit(0)

train_geometry_aligned(recipe, ["--output_dir", folder], callbacks=[End()])
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch.distributed is not built in")
def test_two_processes_that_were_killed_tell_the_same_and_one_may_go_on(recipe, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(SCRIPT))
    data = OVER_DATA | {"data": {**ROOMS, "num_rooms": 20}, "per_device_eval_batch_size": 1}
    path = recipe(**data, **APART, eval_strategy="steps", eval_steps=2, eval_on_start=True)
    run_in_two(script, path, tmp_path / "whole", -1)
    for folder in ("parts", "one"):
        run_in_two(script, path, tmp_path / folder, 4)
        assert not (tmp_path / folder / "provenance.json").exists()
    run_in_two(script, path, tmp_path / "parts", -1)
    whole = told(tmp_path / "whole")
    assert told(tmp_path / "parts") == whole and [line["step"] for line in whole["log"]] == [0, 2, 3, 4, 5, 5, 5]
    values = yaml.safe_load(Path(path).read_text())
    Path(path).write_text(yaml.safe_dump({**values, "gradient_accumulation_steps": 4}))
    train_geometry_aligned(path, ["--output_dir", str(tmp_path / "one")])
    for line, other in zip(told(tmp_path / "one")["log"], whole["log"], strict=True):
        assert line.keys() == other.keys()
        for name in {"loss", "loss_text", "train_loss", "eval_loss"} & line.keys():
            assert line[name] == pytest.approx(other[name], rel=1e-3), (name, line["step"])


def test_totals_of_other_numbers_of_processes_are_shared_out(tmp_path):
    for rank, (loss, summed) in enumerate(((1.0, {"a": 4.0}), (3.0, {"a": 2.0, "b": 8.0}))):
        totals = {"averaged": {"loss": torch.tensor(loss)}, "own": {"step": 3 + rank}}
        totals["summed"] = {name: torch.tensor(value) for name, value in summed.items()}
        totals["common"] = {"split": [2, 4, 1], "logged_at": 7}
        torch.save(totals, tmp_path / f"log_totals_{rank}.pt")
    assert read_totals(tmp_path, 1, [2, 4, 1])["own"] == {"step": 4}
    other = read_totals(tmp_path, 1, [2, 2, 2])
    assert other["own"] == {} and other["summed"] == {"a": 2.0, "b": 8.0}
    for number in (1, 4):
        shared = [read_totals(tmp_path, rank, [number, 8, 1]) for rank in range(number)]
        assert all(each["averaged"]["loss"] == 2.0 and each["own"] == {} for each in shared)
        assert sum(each["summed"]["a"] for each in shared) == 6.0 and sum(each["summed"]["b"] for each in shared) == 8
    (tmp_path / "log_totals_1.pt").unlink()
    assert read_totals(tmp_path, 0, [1, 8, 1]) is None and read_totals(tmp_path, 1, [2, 4, 1]) is None


def test_a_checkpoint_without_totals_is_gone_on_from_with_a_warning(recipe, tmp_path, monkeypatch, caplog):
    path, run = recipe(max_steps=2, save_steps=1), tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, ResumingMixin, "_save_checkpoint", 1)
        train_geometry_aligned(path)
    (run / "checkpoint-1" / "log_totals_0.pt").unlink()
    train_geometry_aligned(path)
    assert "does not hold what was summed up for the log: train_loss will be of the rest" in caplog.text
    assert [line["step"] for line in told(run)["log"]] == [1, 2, 2]
