"""Shipped folders: their size, cards whose figures are those of metrics.json, and how they are made from a run."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from room_measures.figures_table import BEGIN, END, card_text, write_figures
from safetensors.torch import load_file
from transformers import AutoModel

from gap_mllm import GapMllmVggtForReconstruction
from gap_mllm.evaluation.runner.card import eval_results
from gap_mllm.pushing.folder_checks import card_problems


ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "examples" / "assets"
FOLDERS = {"tiny_gap_mllm": 12, "tiny_geometry_encoder": 5}  # most MB
SMALL = ["--limit", "2", "--sets", "selection", "--groups", "tasks", "--num-baseline-rooms", "4"]


@pytest.fixture(scope="module")
def script():
    """The module .ci/ship_tiny.py."""
    spec = importlib.util.spec_from_file_location("ship_tiny", ROOT / ".ci" / "ship_tiny.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_run(name, folder, **summary):
    """A shipped folder in the form of a finished run of its recipe."""
    shutil.copytree(ASSETS / name, folder)
    told = {"recipe": name, "arguments": {"seed": 3}, "items_per_step": 4}
    made_by = {"settings": told, "versions": {"torch": "2.6"}, "git_commit": "abc", "git_is_dirty": False}
    (folder / "provenance.json").write_text(json.dumps(made_by), encoding="utf-8")
    summary = {"state": "finished", "steps": 20, "minutes": 1.5, "settings_hash": "0f", **summary}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    recipe = (ROOT / "training" / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    (folder / "recipe.yaml").write_text(recipe.replace("warmup_steps: 100", "warmup_steps: 50"), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", FOLDERS)
def test_a_shipped_folder_is_small(name):
    assert sum(file.stat().st_size for file in (ASSETS / name).iterdir()) <= FOLDERS[name] * 1e6


@pytest.mark.parametrize("name", FOLDERS)
def test_the_figures_of_a_card_are_those_of_metrics_json(name):
    metrics = json.loads((ASSETS / name / "metrics.json").read_text(encoding="utf-8"))
    card = (ASSETS / name / "README.md").read_text(encoding="utf-8")
    assert card.partition(BEGIN)[2].partition(END)[0].strip() == card_text(metrics).strip()


@pytest.mark.parametrize("name", FOLDERS)
def test_the_metadata_of_a_card_is_complete_and_has_the_figures_of_metrics_json(name):
    problems, notes = card_problems(ASSETS / name)
    assert not problems and notes == ["README.md names no base_model; right, if there are none"]
    card = ModelCard.load(ASSETS / name / "README.md")
    metrics = json.loads((ASSETS / name / "metrics.json").read_text(encoding="utf-8"))
    assert [vars(each) for each in card.data.eval_results] == [vars(each) for each in eval_results(metrics)]
    assert card.data.model_name == name


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_a_run_becomes_a_folder_with_figures_and_provenance(script, name, tmp_path):
    run, folder = as_run(name, tmp_path / "run"), tmp_path / name
    folder.mkdir()
    before = f"---\nlicense: apache-2.0\n---\n# Mine\n{BEGIN}\nold\n{END}\nkept\n"
    (folder / "README.md").write_text(before, encoding="utf-8")
    script.main([str(run), str(folder), *SMALL])
    weights = load_file(folder / "model.safetensors")
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float16}
    kind = AutoModel if name == "tiny_gap_mllm" else GapMllmVggtForReconstruction
    before, loaded = kind.from_pretrained(ASSETS / name), kind.from_pretrained(folder)
    assert loaded.dtype == torch.float32
    for key, value in before.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key  # float16 already
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        file.name for file in (ASSETS / name).iterdir() if file.suffix != ".lock"
    )
    configs = [json.loads((each / "config.json").read_text(encoding="utf-8")) for each in (folder, ASSETS / name)]
    assert configs[0]["auto_map"] == configs[1]["auto_map"]
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["provenance"]["seed"] == 3 and metrics["provenance"]["git commit"] == "abc"
    assert "changed: " + json.dumps({"warmup_steps": 50}) in metrics["provenance"]["recipe"]
    loaded = ModelCard.load(folder / "README.md")
    assert loaded.data.license == "apache-2.0" and loaded.data.model_name == "Mine"
    assert [vars(each) for each in loaded.data.eval_results] == [vars(each) for each in eval_results(metrics)]
    card = loaded.text
    assert card.lstrip().startswith("# Mine") and card.endswith("kept\n") and "old" not in card
    assert card_text(metrics) in card and "| steps | 20 of 4 rooms |" in card


def test_provenance_tells_of_the_training_before(script, tmp_path):
    runs = [as_run("tiny_gap_mllm", tmp_path / name) for name in ("first", "second")]
    made_by = json.loads((runs[1] / "provenance.json").read_text(encoding="utf-8"))
    for start, told in ((ASSETS / "tiny_gap_mllm", "in float16"), (runs[0], "git commit: abc")):
        made_by["settings"]["model_path"] = str(start)
        (runs[1] / "provenance.json").write_text(json.dumps(made_by), encoding="utf-8")
        (runs[0] / "metrics.json").unlink(missing_ok=True)
        before = script.provenance(runs[1])["begins from"]
        assert before.startswith("recipe: training/recipes/tiny_gap_mllm") and "seed: " in before and told in before
    assert "begins from" not in script.provenance(runs[0])


def test_provenance_of_an_encoder_tells_of_the_training_before(script, tmp_path):
    runs = [as_run("tiny_geometry_encoder", tmp_path / name) for name in ("first", "second")]
    (runs[0] / "metrics.json").write_text('{"dense_point_error_m": 0.4}', encoding="utf-8")  # of its training
    made_by = json.loads((runs[1] / "provenance.json").read_text(encoding="utf-8"))
    made_by["settings"]["encoder_path"] = str(runs[0])
    (runs[1] / "provenance.json").write_text(json.dumps(made_by), encoding="utf-8")
    assert "recipe: training/recipes/tiny_geometry_encoder.yaml" in script.provenance(runs[1])["begins from"]


def test_a_run_that_is_not_finished_is_not_shipped(script, tmp_path):
    run = as_run("tiny_geometry_encoder", tmp_path / "run", state="stopped by SIGTERM")
    with pytest.raises(SystemExit, match="not finished .stopped by SIGTERM"):
        script.main([str(run), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_card_without_marks_is_left_alone(script, tmp_path):
    run, folder = as_run("tiny_geometry_encoder", tmp_path / "run"), tmp_path / "out"
    folder.mkdir()
    (folder / "README.md").write_text("# Mine\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="figures are written between them"):
        script.main([str(run), str(folder)])
    with pytest.raises(ValueError, match="figures are written between them"):
        write_figures(folder / "README.md", {})
    assert [file.name for file in folder.iterdir()] == ["README.md"]


def test_a_card_has_a_table_for_each_set_of_rooms():
    part = {
        "n": 2,
        "num_rooms": 2,
        "num_baseline_rooms": 4,
        "split": "test",
        "command": "measure_rooms.py MODEL",
    }
    views = {"views": {"3": {"n": 2, "point_error_m": 0.25, "point_error_m_ci95": [0.2, 0.3]}}}
    text = card_text({**part, **views, "first_room": 10, "unseen": {**part, "first_room": 20}})
    assert "Rooms 10 to 11 of the test range" in text and "Rooms 20 to 21 of the test range" in text
    assert text.count("by `measure_rooms.py MODEL`:") == 2
    assert "| views: 3 | 2 | - | 0.25 [0.20, 0.30] |" in text
