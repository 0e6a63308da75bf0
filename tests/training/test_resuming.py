"""Trainings end in the midst of a step or of a save, by signals and full disks, and nothing is lost or made twice."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainerCallback

from gap_mllm.training.run_folder import UNFINISHED, last_whole_checkpoint
from gap_mllm.training.term_trainer import TermTrainer
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned
from gap_mllm_cli import main
from tests.slow_cases import slow_but
from tests.training.processes import run_in_two


SCRIPT = Path(__file__).with_name("killed_training.py")


@pytest.fixture(autouse=True)
def interrupts_as_in_a_terminal():
    """A shell that starts tests in the background has SIGINT ignored, and so a training would leave it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def losses(folder):
    """Losses and gradient norms of a finished training by step; no step is there twice."""
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    log = [entry for entry in log if "loss" in entry]
    found = {entry["step"]: [entry[name] for name in ("loss", "loss_text", "grad_norm")] for entry in log}
    assert len(found) == len(log)
    return found


def run_and_die(recipe, output, *when):
    """Run the script; returns what it said, and the signal that ended it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPT), recipe, str(output), *map(str, when)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.stderr, -done.returncode


def same_weights(folder, other):
    return (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


# Kills


@pytest.mark.slow
def test_killed_in_a_step_and_in_a_save_the_same_command_has_the_same_losses(recipe, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_and_die(recipe(), whole, "never")
    assert run_and_die(recipe(), run, "step", 4)[1] == signal.SIGKILL
    assert [path.name for path in run.glob("*/")] == ["checkpoint-2"]
    said, number = run_and_die(recipe(), run, "save", 4)
    assert number == signal.SIGKILL and "left out" not in said
    assert sorted(path.name for path in run.glob("*/")) == [UNFINISHED, "checkpoint-2"]
    said, number = run_and_die(recipe(), run, "never")
    assert number == 0 and f"checkpoint-4 is left out: its saving was interrupted. Training goes on from {run}" in said
    assert losses(run) == losses(whole) and list(losses(run)) == [1, 2, 3, 4, 5, 6]
    assert same_weights(run, whole) and not (run / UNFINISHED).exists()


@pytest.mark.slow
def test_twenty_kills_at_any_moment_leave_the_same_losses(recipe, tmp_path):
    settings = {"max_steps": 250, "save_steps": 1, "save_total_limit": 2}
    path, moments, kills = recipe(**settings), random.Random(0), 0
    run_and_die(path, tmp_path / "whole", "never")
    while kills < 20:
        kills += run_and_die(path, tmp_path / "run", "after", moments.uniform(0.0, 6.0))[1] == signal.SIGKILL
        assert not (tmp_path / "run" / "provenance.json").exists(), "finished before the last kill: more steps"
    run_and_die(path, tmp_path / "run", "never")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole") and len(losses(tmp_path / "run")) == 250


def test_checkpoints_that_are_not_whole_are_left_out_and_named(recipe, tmp_path):
    train_geometry_aligned(recipe(max_steps=2, save_steps=1))
    run = tmp_path / "run"
    whole = run / "checkpoint-1"
    for number, damage in enumerate(("trainer_state.json", "optimizer.pt", "model.safetensors", "rng_state.pth"), 3):
        copy = run / f"checkpoint-{number}"
        shutil.copytree(whole, copy)
        (copy / damage).write_bytes((copy / damage).read_bytes()[:-40])
    (run / "checkpoint-9").mkdir()
    assert last_whole_checkpoint(run) == str(run / "checkpoint-2")
    assert last_whole_checkpoint(tmp_path / "nowhere") is None
    shutil.rmtree(run / "checkpoint-2")
    assert last_whole_checkpoint(run) == str(whole)


def test_checkpoints_are_counted_and_pushed_when_they_are_whole(recipe, tmp_path, monkeypatch):
    pushed = []

    def push(self, folder):
        pushed.append((Path(folder).name, (Path(folder) / "trainer_state.json").is_file()))
        self.args.push_to_hub = len(pushed) < 2  # the last step's only save the model

    monkeypatch.setattr(Trainer, "_push_from_checkpoint", push)

    class PushToHub(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            args.push_to_hub = True  # from the start it would ask for a repository

    train_geometry_aligned(recipe(max_steps=3, save_steps=1, save_total_limit=1), callbacks=[PushToHub()])
    assert pushed == [("checkpoint-1", True), ("checkpoint-2", True)]
    assert [path.name for path in (tmp_path / "run").glob("*/")] == ["checkpoint-3"]


# Signals


class At(TrainerCallback):
    """Does something when a step begins."""

    def __init__(self, step, what):
        self.step, self.what = step, what

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            self.what()


@pytest.mark.parametrize("number", slow_but((signal.SIGTERM,), [signal.SIGTERM, signal.SIGINT]))
def test_a_signal_saves_the_step_and_ends(number, recipe, tmp_path, caplog):
    path, run, whole = recipe(save_strategy="no"), tmp_path / "run", tmp_path / "whole"
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        train_geometry_aligned(path, callbacks=[At(3, lambda: signal.raise_signal(number))])
    assert ended.value.code == 128 + number and signal.getsignal(number) == before
    assert f"{number.name}: checkpoint-3 is saved in {run}; the same command goes on from there." in caplog.messages
    assert [path.name for path in run.glob("*/")] == ["checkpoint-3"] and not (tmp_path / ".run.lock").exists()
    train_geometry_aligned(path)
    train_geometry_aligned(path, ["--output_dir", str(whole)])
    assert losses(run) == losses(whole) and same_weights(run, whole)


def test_a_second_signal_ends_at_once(recipe, tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_geometry_aligned(recipe(), callbacks=[At(1, twice)])
    assert last_whole_checkpoint(tmp_path / "run") is None


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch.distributed is not built in")
def test_a_signal_to_one_of_two_processes_saves_in_both(recipe, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            from transformers import TrainerCallback
            from gap_mllm.training.train_geometry_aligned import train_geometry_aligned

            class Signal(TrainerCallback):
                def on_step_begin(self, args, state, control, **kwargs):
                    if state.global_step == 1 and os.environ["RANK"] == "1":
                        os.kill(os.getpid(), signal.SIGTERM)

            try:
                train_geometry_aligned(sys.argv[1], callbacks=[Signal()])
            except SystemExit as ended:
                assert ended.code == 143
            else:
                raise AssertionError("not ended")
            """
        )
    )
    run_in_two(script, recipe(save_strategy="no"))
    names = [path.name for path in (tmp_path / "run" / "checkpoint-2").iterdir()]
    assert {"rng_state_0.pth", "rng_state_1.pth", "trainer_state.json", "optimizer.pt"} <= set(names)
    assert [path.name for path in (tmp_path / "run").glob("*/")] == ["checkpoint-2"]


# Full disks


def fail_at(step, error):
    def save(self, folder):
        if self.state.global_step == step:
            raise error
        return SAVE(self, folder)

    return save


SAVE = Trainer._save_optimizer_and_scheduler


def test_a_full_disk_leaves_the_last_checkpoint_and_says_what_to_do(recipe, tmp_path, monkeypatch, capfd):
    error = OSError(28, "No space left on device")
    monkeypatch.setattr(Trainer, "_save_optimizer_and_scheduler", fail_at(4, error))
    assert main(["train", recipe()]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("gap-mllm: error: ") and "Free some space (in training, save_total_limit" in line
    assert [path.name for path in (tmp_path / "run").glob("*/")] == ["checkpoint-2"]  # the half-written one made room
    state = json.loads((tmp_path / "run" / "summary.json").read_text())["state"]
    assert state == "failed: OSError: [Errno 28] No space left on device"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["gpu", "cpu"],
)
def test_full_memory_says_what_to_do_and_the_run_goes_on_in_smaller_parts(error, recipe, tmp_path, monkeypatch, capfd):
    step, run = TermTrainer.training_step, tmp_path / "run"

    def fail(self, *args, **kwargs):
        if self.state.global_step == 2 and self.args.per_device_train_batch_size == 2:
            raise error
        return step(self, *args, **kwargs)

    monkeypatch.setattr(TermTrainer, "training_step", fail)
    large = {"max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    assert main(["train", recipe(**large)]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("gap-mllm: error: ") and "allocate" in line
    assert "Use smaller batches (in training, with as many more gradient_accumulation_steps" in line
    state = json.loads((run / "summary.json").read_text())["state"]
    assert state.startswith(f"failed: {type(error).__name__}: ") and "allocate" in state
    assert main(["train", recipe(max_steps=3)]) == 0  # half the batch, twice: the same run, from checkpoint-2
    assert list(losses(run)) == [1, 2, 3]


# One folder, one training


def test_a_finished_training_is_loaded_and_its_files_stay(recipe, tmp_path, caplog, capfd):
    run = tmp_path / "run"
    first, _ = train_geometry_aligned(recipe(save_strategy="no"))
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()}
    again, _ = train_geometry_aligned(recipe(save_strategy="no"), ["--seed", "0"])
    assert again.was_finished and not first.was_finished
    assert f"{run} is finished, after 6 steps; nothing is trained." in caplog.messages
    for name, parameter in first.model.named_parameters():
        assert torch.equal(parameter, again.model.get_parameter(name)), name
    assert again.state.log_history == first.state.log_history and again.state.global_step == 6
    assert main(["train", recipe(save_strategy="no", logging_steps=3)]) == 0  # shapes no weight
    assert "was finished, and stays:" in capfd.readouterr().out
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()} == before


@pytest.mark.parametrize("is_finished", slow_but((False,), [True, False]))
def test_other_settings_are_refused_in_the_folder_of_a_run(is_finished, recipe, tmp_path, capfd):
    train_geometry_aligned(recipe(max_steps=2, save_steps=1))
    run = tmp_path / "run"
    if not is_finished:
        for path in run.glob("*.json"):
            path.unlink()
    told = {path: path.read_bytes() for path in run.rglob("provenance.json")}
    assert main(["train", recipe(max_steps=4, text_weight=1.0, answer_weights={"label": 3.0})]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert f"{run} holds results of another run (answer_weights: " in line and "max_steps: 2 there, 4 now; " in line
    assert "text_weight: 2.0 there, 1.0 now). Give another output folder, or that run's settings." in line
    assert {path: path.read_bytes() for path in run.rglob("provenance.json")} == told and len(told) >= 2


def test_a_step_may_be_split_otherwise_but_not_be_of_another_size(recipe, tmp_path):
    train_geometry_aligned(recipe(max_steps=1))
    train_geometry_aligned(recipe(max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=1))
    with pytest.raises(ValueError, match="items_per_step: 2 there, 4 now"):
        train_geometry_aligned(recipe(max_steps=1, per_device_train_batch_size=2))


def test_a_second_training_in_the_same_folder_is_refused(recipe, tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FileExistsError, match=rf"is training in .*run now \(process {holder.pid} on .*wait"):
            train_geometry_aligned(recipe())
    finally:
        holder.kill()
        holder.wait()
    train_geometry_aligned(recipe(max_steps=1))


HOLDER = """
    import sys, time
    from gap_mllm.processing.data.folder_writing import hold_folder
    with hold_folder(sys.argv[1], "training in"):
        print("held", flush=True)
        time.sleep(600)
"""


# A loss that teaches nothing


def test_a_term_without_gradient_stops_the_run(recipe):
    reentrant = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(ValueError, match="'readout' has no gradient.*gradient_checkpointing_kwargs: {use_reent"):
        train_geometry_aligned(recipe(max_steps=1, **reentrant))
    train_geometry_aligned(recipe(max_steps=1, gradient_checkpointing=True))
