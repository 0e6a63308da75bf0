"""What a training leaves in its folder: a recipe that gives the same run, log, summary; and what it checks first."""

import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image
from transformers import TrainerCallback, TrainerState

from gap_mllm.processing.data.folder_writing import hold_folder
from gap_mllm.training import train_geometry_aligned as by_recipe
from gap_mllm.training.progress_lines import ProgressLines
from gap_mllm.training.recipes import recipe_text
from gap_mllm.training.run_log import sum_up
from gap_mllm.training.term_trainer import TermTrainer
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned
from gap_mllm.training.train_geometry_encoder import train_geometry_encoder
from gap_mllm_cli import main


EVALUATED = {"num_selection_rooms": 2, "eval_strategy": "steps", "eval_steps": 3, "save_strategy": "no"}


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text())


class At(TrainerCallback):
    """Does something when a step begins."""

    def __init__(self, step, what):
        self.step, self.what = step, what

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            self.what()


@pytest.mark.slow
def test_the_resolved_recipe_gives_the_same_run(recipe, tmp_path):
    flags = ["--max_steps", "3", "--module_learning_rates.fusion", "1e-3", "--eval_strategy", "no"]
    first, _ = train_geometry_aligned(recipe(save_strategy="no"), flags)
    written = tmp_path / "run" / "recipe.yaml"
    values = yaml.safe_load(written.read_text())
    assert values["module_learning_rates"] == {"vision": 0.002, "fusion": 0.001} and values["max_steps"] == 3
    again, _ = train_geometry_aligned(written)
    assert again.was_finished
    other, _ = train_geometry_aligned(written, ["--output_dir", str(tmp_path / "other")])
    logs = [read_log(tmp_path / name) for name in ("run", "other")]
    for name in ("step", "loss", "loss_text", "learning_rate", "grad_norm"):
        assert [entry[name] for entry in logs[0][:-1]] == [entry[name] for entry in logs[1][:-1]], name
    for name, parameter in first.model.named_parameters():
        assert torch.equal(parameter, other.model.get_parameter(name)), name
    hashes = [read_summary(tmp_path / name)["settings_hash"] for name in ("run", "other")]
    assert hashes[0] == hashes[1] and len(hashes[0]) == 16


def test_texts_that_look_like_numbers_stay_texts(tmp_path):
    values = {"instruction": "1e-4", "learning_rate": 1e-5, "run_name": "yes", "data": {"name": "5e3"}}
    assert yaml.safe_load(recipe_text(values)) == values and '"1e-4"' in recipe_text(values).replace("'", '"')


@pytest.mark.slow
def test_log_and_summary_of_a_run(recipe, tmp_path):
    trainer, _ = train_geometry_aligned(recipe(**EVALUATED, eval_on_start=True))
    run, log = tmp_path / "run", read_log(tmp_path / "run")
    assert [{**line, "minutes": None} for line in log] == [
        {**entry, "minutes": None} for entry in json.loads(json.dumps(trainer.state.log_history), parse_constant=str)
    ]
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in log if "eval_parse_rate" in line] == [0, 3, 6]
    minutes = [line["minutes"] for line in log]
    assert minutes == sorted(minutes) and 0 < minutes[-1] < 10
    summary = read_summary(run)
    assert summary["state"] == "finished" and summary["steps"] == summary["max_steps"] == 6
    assert summary["minutes"] >= minutes[-1]
    assert summary["first_losses"].keys() == {"step", "loss", "loss_text", "loss_point_map", "loss_readout"}
    assert summary["last_losses"] == {name: log[-3][name] for name in summary["last_losses"]}
    assert (summary["first_evaluation"]["step"], summary["last_evaluation"]["step"]) == (0, 6)
    assert {"eval_parse_rate", "eval_point_error_m"} <= summary["first_evaluation"].keys()
    assert not {"eval_runtime", "epoch"} & summary["first_evaluation"].keys()
    assert summary["best"]["eval_parse_rate"].keys() == {"step", "value"} and "eval_n" not in summary["best"]
    provenance = json.loads((run / "provenance.json").read_text())
    assert summary["versions"] == provenance["versions"] and summary["git_commit"] == provenance["git_commit"]


@pytest.mark.slow
def test_a_stopped_run_says_so_and_its_log_goes_on(recipe, tmp_path):
    path, run = recipe(save_strategy="no"), tmp_path / "run"
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit):
            train_geometry_aligned(path, callbacks=[At(3, lambda: signal.raise_signal(signal.SIGTERM))])
    finally:
        signal.signal(signal.SIGTERM, before)
    stopped = read_summary(run)
    assert stopped["state"] == "stopped by SIGTERM" and stopped["steps"] == 3 and stopped["max_steps"] == 6
    minutes = read_log(run)[-1]["minutes"]
    with open(run / "log.jsonl", "a") as file:  # steps that no checkpoint has, and a line that was cut off
        file.write('{"step": 4, "loss": 9.0, "minutes": 1.0}\n{"step": 5, "lo')
    train_geometry_aligned(path)
    log, summary = read_log(run), read_summary(run)
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert summary["state"] == "finished" and summary["first_losses"] == stopped["first_losses"]
    assert log[3]["minutes"] >= minutes and 9.0 not in [line.get("loss") for line in log]


@pytest.mark.slow
def test_a_failed_run_says_why(recipe, tmp_path, monkeypatch):
    def fail():
        raise FloatingPointError("The loss\nis nan.")

    with pytest.raises(FloatingPointError):
        train_geometry_aligned(recipe(save_strategy="no"), callbacks=[At(2, fail)])
    summary = read_summary(tmp_path / "run")
    assert summary["state"] == "failed: FloatingPointError: The loss is nan." and summary["steps"] == 1
    seen = []
    train_geometry_aligned(
        recipe(save_strategy="no"), callbacks=[At(1, lambda: seen.append(read_summary(tmp_path / "run")["state"]))]
    )
    assert seen == ["running"] and [line["step"] for line in read_log(tmp_path / "run")] == [1, 2, 3, 4, 5, 6, 6]


@pytest.mark.slow
def test_an_encoder_leaves_the_same_files(encoder_folder, tmp_path):
    flags = ["--encoder_path", str(encoder_folder), "--max_steps", "2", "--use_cpu", "true", "--logging_steps", "1"]
    flags += ["--per_device_train_batch_size", "1", "--num_eval_scenes", "0", "--dataloader_num_workers", "0"]
    flags += ["--output_dir", str(tmp_path / "run"), "--dataloader_persistent_workers", "false"]
    train_geometry_encoder("tiny_geometry_encoder", flags)
    assert train_geometry_encoder(tmp_path / "run" / "recipe.yaml").was_finished
    assert read_summary(tmp_path / "run")["last_losses"].keys() >= {"step", "loss", "loss_depth", "loss_pose"}


def test_settings_and_lock_are_checked_before_anything_is_loaded(recipe, tmp_path, monkeypatch, capfd):
    train_geometry_aligned(recipe(max_steps=1, save_steps=1))
    run = tmp_path / "run"

    def load(*args):
        raise AssertionError("loaded")

    monkeypatch.setattr(by_recipe, "build_model", load)
    monkeypatch.setattr(TermTrainer, "__init__", load)
    assert main(["train", recipe(max_steps=2)]) == 2
    assert "holds results of another run (max_steps: 1 there, 2 now" in capfd.readouterr().err
    (run / "trainer_state.json").unlink()  # not finished, so its checkpoint tells
    assert main(["train", recipe(max_steps=2)]) == 2
    assert "holds results of another run (max_steps: 1 there, 2 now" in capfd.readouterr().err
    with hold_folder(run, "training in"):
        assert main(["train", recipe(max_steps=1)]) == 2
    assert f"another process is training in {run} now" in capfd.readouterr().err


# Sums


def test_sums_of_a_log():
    log = [
        {"step": 0, "eval_reward": 0.2, "eval_runtime": 1.0},
        {"step": 10, "loss": 4.0, "loss_text": 2.0, "reward": 0.1, "grad_norm": 3.0, "epoch": 0.1},
        {"step": 10, "eval_a_loss": 3.0, "eval_point_error_m": float("inf"), "eval_odd": 5},
        {"step": 10, "eval_b_loss": 2.0},
        {"step": 20, "loss": 1.0, "loss_text": 0.5},
        {"step": 20, "eval_a_loss": 3.5, "eval_point_error_m": 0.5, "eval_odd": 4, "eval_reward": 0.1},
        {"step": 20, "train_runtime": 9.0, "train_loss": 2.5},
    ]
    summary = sum_up(log, {"eval_odd": False})
    assert summary["first_losses"] == {"step": 10, "loss": 4.0, "loss_text": 2.0, "reward": 0.1}
    assert summary["last_losses"] == {"step": 20, "loss": 1.0, "loss_text": 0.5}
    assert summary["first_evaluation"] == {"step": 0, "eval_reward": 0.2}
    assert summary["last_evaluation"] == {name: log[5][name] for name in log[5]}
    assert summary["best"] == {
        "eval_reward": {"step": 0, "value": 0.2},
        "eval_a_loss": {"step": 10, "value": 3.0},
        "eval_point_error_m": {"step": 20, "value": 0.5},
        "eval_odd": {"step": 20, "value": 4},
        "eval_b_loss": {"step": 10, "value": 2.0},
    }
    assert sum_up([]) == {"first_losses": None, "last_losses": None, "first_evaluation": None,
                          "last_evaluation": None, "best": {}}  # fmt: skip


# Curves, and lines


@pytest.mark.slow
def test_curves_are_drawn_with_learning_rate_and_evaluations(recipe, tmp_path):
    train_geometry_aligned(recipe(max_steps=2, save_strategy="no"))
    plain = Image.open(tmp_path / "run" / "curves.png").size
    flags = ["--output_dir", str(tmp_path / "more"), "--eval_strategy", "steps", "--eval_steps", "1"]
    train_geometry_aligned(recipe(max_steps=2, save_strategy="no", num_selection_rooms=1), flags)
    assert (
        plain[0] == 1040 and Image.open(tmp_path / "more" / "curves.png").size[0] == 1560
    )  # two panels; rows of three


def test_without_matplotlib_a_run_says_what_is_missing(recipe, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    train_geometry_aligned(recipe(max_steps=1, save_strategy="no"))
    assert "curves.png is not drawn: matplotlib is missing, pip install gap-mllm[train]" in caplog.messages
    assert not (tmp_path / "run" / "curves.png").exists() and read_summary(tmp_path / "run")["state"] == "finished"


@pytest.mark.slow
def test_a_run_into_a_pipe_writes_a_few_lines(recipe, tmp_path):
    path = recipe(max_steps=60, logging_steps=1, eval_strategy="steps", eval_steps=5, num_selection_rooms=1,
                  save_strategy="no", disable_tqdm=False)  # fmt: skip
    command = [sys.executable, "-c", "import sys; from gap_mllm_cli import main; sys.exit(main())", "train", path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    lines = [line for line in re.split(r"[\r\n]+", done.stdout + done.stderr) if line.strip()]
    assert done.returncode == 0 and 15 < len(lines) <= 60, done.stderr[-2000:]
    told = [line for line in lines if line.startswith("step ")]
    assert told[0].startswith("step 1 of 60, 0.0 min: loss ") and "loss_text" in told[0]
    assert any(line.startswith("step 60 of 60") and ": loss " in line for line in told)
    assert any(": eval_n " in line and "eval_point_error_m " in line for line in told)
    assert len(read_log(tmp_path / "run")) == 60 + 12 + 1


def test_lines_of_any_run_are_few_and_grow_apart(capsys):
    lines, state = ProgressLines(SimpleNamespace(minutes=1.0)), TrainerState(max_steps=100_000)
    for step in range(1, 100_001):
        state.global_step = step
        state.log_history = [{"step": step, "loss": 1.0, "rewards/x/mean": 1.0, "gate_mean_final": 0.5}]
        lines.on_log(None, state, None)
        state.log_history = [{"step": step, "eval_loss": 1.0}]
        lines.on_log(None, state, None)
    told = capsys.readouterr().out.splitlines()
    steps = [int(line.split()[1]) for line in told if "eval" not in line]
    assert len(told) <= 60 and steps[:5] == [1, 2, 4, 8, 16] and steps[-2:] == [96384, 100_000]
    assert told[0] == "step 1 of 100000, 1.0 min: loss 1" and told[1].endswith("1.0 min: eval_loss 1")


def scalars_in(folder):
    """All (name, step) of TensorBoard's event files: records of length, checksum, event, checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = set()
    for file in folder.rglob("events.out.*"):
        data, start = file.read_bytes(), 0
        while start < len(data):
            length = int.from_bytes(data[start : start + 8], "little")
            event = event_pb2.Event.FromString(data[start + 12 : start + 12 + length])
            found |= {(value.tag, event.step) for value in event.summary.value if value.HasField("simple_value")}
            start += length + 16
    return found


@pytest.mark.slow
def test_tensorboard_gets_losses_by_name_and_evaluations(recipe, tmp_path):
    path = recipe(**EVALUATED, max_steps=3, logging_steps=1, report_to="tensorboard")
    train_geometry_aligned(path)
    found = scalars_in(tmp_path / "run")
    assert {("train/loss_text", step) for step in (1, 2, 3)} | {("train/loss_readout", 1)} <= found
    assert ("eval/point_error_m", 3) in found
