"""The recipe of CONTRIBUTING.md: a source in one short file, registered from outside, is read as ours are."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from gap_mllm.processing.data import SOURCES, RecordError, load_multiview
from gap_mllm.processing.data.inspection import inspect_source
from gap_mllm_cli import main


ROOT = Path(__file__).parents[3]


@pytest.fixture
def my_rooms(tmp_path, monkeypatch):
    """The file of the recipe, imported, and a folder of its data."""
    recipe = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?my_rooms.*?)^```", recipe, re.DOTALL | re.MULTILINE)
    assert len(code.splitlines()) < 40
    (tmp_path / "recipe_of_my_rooms.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(SOURCES, "my_rooms", None)  # it is gone after the test
    monkeypatch.delitem(sys.modules, "recipe_of_my_rooms", raising=False)
    importlib.import_module("recipe_of_my_rooms")
    folder = tmp_path / "data"
    folder.mkdir()
    Image.new("RGB", (8, 6), "teal").save(folder / "a.png")
    record = {"picture": "a.png", "room": "attic", "question": "What colour?", "answer": "teal"}
    (folder / "questions_train.jsonl").write_text(json.dumps(record) + "\n")
    return folder


def test_a_source_of_ones_own_is_loaded_streamed_and_inspected(my_rooms, tmp_path, capsys):
    row = load_multiview("my_rooms", my_rooms, "train", cache_dir=tmp_path)[0]
    assert (row["id"], row["source"], row["scene_id"]) == ("questions_train-0000000", "my_rooms", "attic")
    assert (row["question"], row["answer"]) == ("What colour?", "teal")
    assert row["views"][0]["image"].getpixel((0, 0)) == (0, 128, 128)
    assert next(iter(load_multiview("my_rooms", my_rooms, "train", streaming=True)))["id"] == row["id"]
    found = inspect_source("my_rooms", my_rooms, output_dir=tmp_path / "seen")
    assert found.problems == {} and found.splits["train"].rows == 1
    assert main(["data", "list", "my_rooms"]) == 0
    assert "layout: questions_{train,val}.jsonl, and pictures" in capsys.readouterr().out


def test_its_broken_records_are_named_and_its_edits_seen(my_rooms, tmp_path):
    file = my_rooms / "questions_train.jsonl"
    assert len(load_multiview("my_rooms", my_rooms, "train", cache_dir=tmp_path)) == 1
    file.write_text(file.read_text() + json.dumps({"picture": "none.png"}) + "\n")
    with pytest.raises(RecordError, match="field picture: 'none.png' is not there") as caught:
        load_multiview("my_rooms", my_rooms, "train", cache_dir=tmp_path)
    assert caught.value.record_id == "questions_train-0000001"
