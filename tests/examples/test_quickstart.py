"""The quickstart's flags, and its way with a folder of photographs; `make demo-short` runs the whole."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from photographs import answer_photographs, open_photographs
from PIL import Image
from room_answers import answer_rooms
from transformers import AutoModel, AutoProcessor

from gap_mllm.evaluation import draw_answers, render_split
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


def test_photographs_of_any_kind_are_asked_about_and_drawn(shipped, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    save(tmp_path, "0.jpg", (200, 90), exif=exif)
    save(tmp_path, "1.png", (64, 64), "RGBA")
    save(tmp_path, "2.png", (640, 480), "L")
    Image.fromarray(np.arange(60 * 80, dtype=np.uint16).reshape(60, 80) * 13).save(tmp_path / "3.png")
    (tmp_path / "notes.txt").write_text("no picture")
    photographs, notes = open_photographs(tmp_path)
    assert {name: picture.size for name, picture in photographs.items()} == {
        "0.jpg": (90, 200), "1.png": (64, 64), "2.png": (640, 480)
    }  # fmt: skip
    grey = "taken as views, though of one grey channel beside colour: 2.png"
    assert notes == ["left out 1 depth map: 3.png", "left out 1 other file: notes.txt", grey]
    examples = answer_photographs(*shipped, photographs)
    assert [(each.question.marks[0].view, each.question.marks[0].xy) for each in examples] == [
        (0, (45, 100)), (1, (32, 32)), (2, (320, 240))
    ]  # fmt: skip
    draw_answers(examples, tmp_path / "answers.png")
    assert min(Image.open(tmp_path / "answers.png").size) > 1000


def test_one_photograph_is_enough_and_none_is_said(shipped, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no pictures"):
        open_photographs(tmp_path)
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        open_photographs(tmp_path / "nowhere")
    save(tmp_path, "only.jpg", (48, 33))
    assert len(answer_photographs(*shipped, open_photographs(tmp_path)[0])) == 1


def test_a_broken_photograph_is_named_and_gives_way(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"):
        save(tmp_path, name, (80, 60))
    (tmp_path / "e.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:600])
    photographs, told = open_photographs(tmp_path)
    assert list(photographs) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert len(told) == 1 and told[0].startswith("left out: e.jpg") and "cannot be read" in told[0]


def test_a_huge_photograph_is_made_smaller_or_named(tmp_path, monkeypatch):
    save(tmp_path, "huge.jpg", (5000, 2500))
    assert open_photographs(tmp_path)[0]["huge.jpg"].size == (1024, 512)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000 * 1000)  # twice of it is an error of Pillow's
    with pytest.raises(FileNotFoundError, match="huge.jpg.*exceeds limit"):
        open_photographs(tmp_path)


def test_photographs_are_spread_over_the_folder(tmp_path):
    for count, chosen in ((2, [0, 1]), (3, [0, 1, 2]), (7, [0, 2, 4, 6]), (30, [0, 10, 19, 29])):
        folder = tmp_path / str(count)
        folder.mkdir()
        for index in range(count):
            save(folder, f"{index:02}.png", (32, 32))
        photographs, told = open_photographs(folder)
        assert list(photographs) == [f"{index:02}.png" for index in chosen]
        assert told == ([] if count < 5 else [f"4 of {count} pictures are taken, spread over the folder"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seconds", "0"], "--seconds is 0.0; expected 1 or more"),
        (["--seconds", "nan"], "--seconds is nan; expected 1 or more"),
        (["--test-rooms", "1"], "--test-rooms is 1; expected 2 or more"),
        (["--shipped-rooms", "1"], "--shipped-rooms is 1; expected 2 or more"),
        (["--threads", "0"], "--threads is 0; expected 1 or more"),
        (["--frames", "nowhere"], "--frames is nowhere, which is not a folder"),
    ],
)
def test_wrong_flags_are_refused_before_any_work(words, message, quickstart, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["quickstart.py", "--output", str(tmp_path / "out"), *words])
    with pytest.raises(SystemExit) as ended:
        quickstart.main()
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_answers_about_rooms_stand_beside_blind_ones(shipped):
    examples = answer_rooms(*shipped, list(render_split("test", 9, 5000)), list(render_split("train", 4)))
    tasks = [each.question.question_type for each in examples]
    assert tasks == ["reconstruction"] * 3 + ["grounding_box", "left_right", "detection3d"]
    assert len({each.scene.scene_id for each in examples}) == 6 and all(each.blind for each in examples)
    assert all("pointmap" in each.blind for each in examples[:3]) and re.match("[AB]", examples[4].blind)


def test_the_quickstart_saves_while_it_trains():
    recipe = yaml.safe_load(find_recipe("quickstart").read_text())
    assert recipe["save_steps"] <= recipe["max_steps"] / 4 and "save_strategy" not in recipe
