"""The quickstart's way with a folder of photographs, and with a stopped training; `make demo` runs the rest."""

import importlib.util
import json
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image
from transformers import AutoModel, AutoProcessor, TrainerCallback

from gap_mllm.training import train_geometry_aligned as by_recipe
from gap_mllm.training.recipes import find_recipe


ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "assets" / "tiny_gap_mllm"


@pytest.fixture(scope="module")
def quickstart():
    spec = importlib.util.spec_from_file_location("quickstart", ROOT / "examples" / "quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shipped():
    return AutoModel.from_pretrained(MODEL).eval(), AutoProcessor.from_pretrained(MODEL)


def save(folder, name, size, mode="RGB", **kwargs):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 4), dtype=np.uint8)
    Image.fromarray(pixels, "RGBA").convert(mode).save(folder / name, **kwargs)


def test_frames_of_any_kind_are_asked_about(quickstart, shipped, tmp_path):
    frames, output = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    output.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    save(frames, "0.jpg", (200, 90), exif=exif)
    save(frames, "1.png", (64, 64), "RGBA")
    save(frames, "2.png", (640, 480), "L")
    Image.fromarray(np.arange(60 * 80, dtype=np.uint16).reshape(60, 80) * 13).save(frames / "3.png")
    (frames / "notes.txt").write_text("no picture")
    quickstart.ask_about_frames(*shipped, quickstart.choose_frames(frames), output)
    result = json.loads((output / "frames.json").read_text())
    assert result["frames"] == ["0.jpg", "1.png", "2.png", "3.png"] and isinstance(result["answer"], str)
    assert Image.open(output / "frame.png").size == (90, 200)


def test_one_frame_is_enough_and_none_is_said(quickstart, shipped, tmp_path):
    with pytest.raises(SystemExit, match="holds no pictures"):
        quickstart.choose_frames(tmp_path)
    with pytest.raises(SystemExit, match="is not a folder"):
        quickstart.choose_frames(tmp_path / "nowhere")
    frames = tmp_path / "frames"
    frames.mkdir()
    save(frames, "only.jpg", (48, 33))
    quickstart.ask_about_frames(*shipped, quickstart.choose_frames(frames), tmp_path)
    assert json.loads((tmp_path / "frames.json").read_text())["frames"] == ["only.jpg"]


def test_a_broken_photograph_is_named_and_left_out(quickstart, tmp_path, capsys):
    save(tmp_path, "whole.jpg", (80, 60))
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:600])
    assert list(quickstart.choose_frames(tmp_path)) == ["whole.jpg"]
    assert "left out" in (said := capsys.readouterr().out) and "broken.jpg" in said


def test_frames_are_spread_over_the_folder(quickstart, tmp_path):
    for count, chosen in ((2, [0, 1]), (3, [0, 1, 2]), (7, [0, 2, 4, 6])):
        folder = tmp_path / str(count)
        folder.mkdir()
        for index in range(count):
            save(folder, f"{index}.png", (32, 32))
        assert list(quickstart.choose_frames(folder)) == [f"{index}.png" for index in chosen]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "--steps is 0; expected 1 or more"),
        (["--test-rooms", "1"], "--test-rooms is 1; expected 2 or more"),
        (["--threads", "0"], "--threads is 0; expected 1 or more"),
    ],
)
def test_too_few_are_refused_before_any_work(words, message, quickstart, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["quickstart.py", "--output", str(tmp_path / "out"), *words])
    with pytest.raises(SystemExit) as ended:
        quickstart.main()
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_training_that_was_stopped_goes_on_and_is_not_repeated(quickstart, tmp_path, monkeypatch):
    train = by_recipe.train_geometry_aligned

    def losses(folder):
        log = json.loads((folder / "training" / "trainer_state.json").read_text())["log_history"]
        return {entry["step"]: entry["loss"] for entry in log if "loss" in entry}

    def shorter(recipe, overrides, **kwargs):
        return train(recipe, [*overrides, "--logging_steps", "1", *QUICK], **kwargs)

    def stopped(recipe, overrides):
        return shorter(recipe, overrides, callbacks=[StopAt(2)])

    whole, output, args = tmp_path / "whole", tmp_path / "output", SimpleNamespace(steps=4)
    monkeypatch.setattr(by_recipe, "train_geometry_aligned", shorter)
    quickstart.train(args, whole)
    monkeypatch.setattr(by_recipe, "train_geometry_aligned", stopped)
    with pytest.raises(SystemExit):
        quickstart.train(args, output)
    assert (output / "training" / "checkpoint-2").is_dir()
    monkeypatch.setattr(by_recipe, "train_geometry_aligned", shorter)
    trainer, _ = quickstart.train(args, output)
    assert losses(output) == losses(whole) and list(losses(output)) == [1, 2, 3, 4] and not trainer.was_finished
    assert quickstart.train(args, output)[0].was_finished


def test_the_quickstart_saves_while_it_trains():
    recipe = yaml.safe_load(find_recipe("quickstart").read_text())
    assert recipe["save_steps"] <= recipe["max_steps"] / 4 and "save_strategy" not in recipe


QUICK = ["--per_device_train_batch_size", "1", "--questions", '{"counts": {"reconstruction": 1}}']


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            signal.raise_signal(signal.SIGTERM)
