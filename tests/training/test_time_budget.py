"""Trainings that end by the clock: when, by which learning rates, what is logged, and how they go on."""

import json

import pytest

from gap_mllm.training import time_budget
from gap_mllm.training.geometry_aligned_trainer import GeometryAlignedTrainingArguments
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned


ENCODER = "examples/assets/tiny_geometry_encoder"
QUICK = ["--per_device_train_batch_size", "1", "--questions", '{"counts": {"reconstruction": 1}}']
QUICK += ["--logging_steps", "1", "--frozen_geometry", "{}", "--dataloader_num_workers", "0", "--max_steps", "100"]
QUICK += ["--warmup_steps", "50", "--lr_scheduler_type", "constant_with_warmup", "--lr_scheduler_kwargs", "{}"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second whenever a step ends."""
    now = [100.0]
    monkeypatch.setattr(time_budget.time, "monotonic", lambda: now[0])
    end_step = time_budget.TimeBudget.on_step_end

    def tick(self, *args, **kwargs):
        now[0] += 1
        end_step(self, *args, **kwargs)

    monkeypatch.setattr(time_budget.TimeBudget, "on_step_end", tick)
    return now


def train(folder, clock, max_seconds=5, *flags):
    asked = []

    def score(model):
        asked.append(clock[0])
        clock[0] += 50  # evaluations do not count
        return {"parse_rate": 0.5}

    words = ["--output_dir", str(folder), "--geometry_encoder_path", ENCODER, *QUICK, *flags]
    trainer, _ = train_geometry_aligned(
        "quickstart", [*words, "--max_seconds", str(max_seconds)], make_scorer=lambda processor: score
    )
    return trainer, asked


def test_the_clock_ends_it_and_leads_the_learning_rate(tmp_path, clock, capsys):
    flags = ["--eval_strategy", "steps", "--eval_steps", "0.4", "--learning_rate", "0.001"]
    trainer, asked = train(tmp_path / "run", clock, 5, *flags)
    assert trainer.state.global_step == 5
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["seconds"] for entry in losses] == [1, 2, 3, 4, 5]
    # Step k begins at second k - 1 of 5, so with the rate of step 20 (k - 1) of 100, that of the first group.
    rates = [entry["learning_rate"] for entry in losses]
    assert rates[1:] == pytest.approx([0.002 * share for share in (20 / 50, 40 / 50, 1, 1)])
    assert len(asked) == 3  # at 2 and 4 seconds, and at the end
    assert [entry["seconds"] for entry in trainer.state.log_history if "eval_parse_rate" in entry] == [2, 4, 5]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["state"] == "finished"
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert told[0].startswith("step 1, 1 of 5 seconds by the clock, ") and "of 100" not in "".join(told)
    assert any(line.startswith("step 5, 5 of 5 seconds by the clock, ") for line in told)


@pytest.mark.slow
def test_an_evaluation_at_the_start_takes_no_seconds(tmp_path, clock):
    flags = ["--eval_strategy", "steps", "--eval_steps", "0.5", "--eval_on_start", "true"]
    trainer, asked = train(tmp_path / "run", clock, 4, *flags)
    assert trainer.state.global_step == 4 and len(asked) == 3
    assert [entry["seconds"] for entry in trainer.state.log_history if "eval_parse_rate" in entry] == [0, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("logging_steps", [1, 10])
def test_it_goes_on_with_the_seconds_that_are_left(logging_steps, tmp_path, clock, monkeypatch):
    every = ["--save_steps", "2", "--logging_steps", str(logging_steps)]
    folder, end_step = tmp_path / "run", time_budget.TimeBudget.on_step_end

    def fail_at_three(self, args, state, control, **kwargs):
        end_step(self, args, state, control, **kwargs)
        if state.global_step == 3:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(time_budget.TimeBudget, "on_step_end", fail_at_three)
        with pytest.raises(RuntimeError, match="power cut"):
            train(folder, clock, 5, *every)
    trainer, _ = train(folder, clock, 5, *every)
    assert trainer.state.global_step == 5
    logged = [1, 2, 3, 4, 5] if logging_steps == 1 else [5]
    assert [entry["seconds"] for entry in trainer.state.log_history if "loss" in entry] == logged
    with pytest.raises(ValueError, match="max_seconds"):
        train(folder, clock, 6, *every)


@pytest.mark.slow
def test_steps_end_it_where_they_are_fewer(tmp_path, clock):
    assert train(tmp_path / "run", clock, 50, "--max_steps", "2")[0].state.global_step == 2


def test_wrong_seconds_are_refused(tmp_path, monkeypatch):
    for wrong in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected seconds above 0"):
            GeometryAlignedTrainingArguments(str(tmp_path), max_seconds=wrong)
    monkeypatch.setattr(GeometryAlignedTrainingArguments, "world_size", 2)
    with pytest.raises(ValueError, match="2 processes, whose clocks differ"):
        GeometryAlignedTrainingArguments(str(tmp_path), max_seconds=5)
