"""Probes of point and name at marked tokens, beside heads, the decoded answer and the blind baseline."""

import json
from dataclasses import replace

import numpy as np
import probe_marks as script
import pytest
import torch
from probe_marks import _read, probe_marks

from gap_mllm import GapMllmForPreTraining
from gap_mllm.evaluation import answer_marked_pixels, make_marked_pixel_samples, score_marked_pixels
from gap_mllm.evaluation.probing.visual_states import VisualStates
from gap_mllm.training import SceneCollator
from tests.examples.experiments.conftest import FOLDER


@pytest.fixture(scope="module")
def model():
    return GapMllmForPreTraining.from_pretrained(FOLDER).eval()


def test_marked_tokens_and_heads_are_those_of_training(model, shipped, rooms):
    """The collator finds the token of a mark for the read-out, and the model runs its heads on all tokens."""
    samples, processor = make_marked_pixel_samples(rooms["test"][:2], 2), shipped[1]
    features, heads = _read(VisualStates(model, processor), samples, 4, batch_size=3, show_progress=False)
    collate = SceneCollator(processor, for_pretraining=True)
    for number, sample in enumerate(samples):
        batch = collate([sample])
        target = next(int(each) for each in batch["readout_targets"].flatten() if each >= 0)
        names = ["input_ids", "labels", "attention_mask", "position_ids"]
        names += ["pixel_values", "image_grid_thw", "scene_lengths"]
        inputs = {name: batch[name] for name in names}
        with torch.no_grad():
            states = model.model(**{name: inputs[name] for name in names if name != "labels"}).last_hidden_state
            maps = model(**inputs).point_maps
        torch.testing.assert_close(features["layer_6"][number], states[0, target], atol=1e-4, rtol=1e-4)
        token = int((batch["input_ids"][0, :target] == model.config.image_token_id).sum())
        x, y = sample.marks[0].xy
        cell = maps["language"][token][y % 32 // 8, x % 32 // 8]  # tokens of 32 pixels, 4 x 4 cells each
        torch.testing.assert_close(heads["layer_6"][number], cell, atol=1e-4, rtol=1e-4)
        assert features["position"][number].reshape(4, -1).any(1).nonzero().item() == sample.marks[0].view


@pytest.mark.slow
def test_figures_stand_beside_the_answer_of_the_model(model, shipped, rooms):
    options = {"train_limit": 24, "limit": 4, "marks_per_scene": 3, "layers": [-1], "show_progress": False}
    found = probe_marks(model, shipped[1], rooms["train"], rooms["test"], **options)
    assert (found["num_train_marks"], found["num_marks"], found["scenes_without_marks"]) == (72, 12, 0)
    assert list(found["probes"]) == ["constant", "position", "tower", "fusion", "layer_6", "answer"]
    samples = make_marked_pixel_samples(rooms["test"][:4], 3)
    texts = answer_marked_pixels(model, shipped[1], samples, batch_size=8, show_progress=False)
    scores, _ = score_marked_pixels(texts, samples)
    assert found["probes"]["answer"]["point_error_m"] == pytest.approx(scores["point_error_m"], abs=1e-6)
    assert {place for place, figures in found["probes"].items() if "head_point_error_m" in figures} == {
        *("fusion", "layer_6")
    }
    truth = np.array([sample.truth.items[0].numbers for sample in samples])
    seen = make_marked_pixel_samples(rooms["train"][:24], 3)
    mean = np.mean([sample.truth.items[0].numbers for sample in seen], axis=0)
    constant = np.median(np.linalg.norm(truth - mean, axis=1))
    assert found["probes"]["constant"]["point_error_m"] == pytest.approx(constant)


def test_scenes_that_cannot_be_asked_about_are_counted(shipped, rooms):
    bare = [
        replace(room, views=tuple(replace(view, depth_picture=None) for view in room.views)) for room in rooms["test"]
    ]
    options = {"train_limit": 2, "limit": 1, "marks_per_scene": 1, "layers": [], "show_progress": False}
    found = probe_marks(*shipped, [bare[0], *rooms["train"][:2]], rooms["test"], **options)
    assert found["scenes_without_marks"] == 1 and "head_point_error_m" not in found["probes"]["fusion"]
    with pytest.raises(ValueError, match="0 scenes to fit on and 1 others to score on .* 16 cannot"):
        probe_marks(*shipped, bare, rooms["train"], **options)
    with pytest.raises(ValueError, match="marks_per_scene is 0"):
        probe_marks(*shipped, rooms["train"], rooms["test"], **{**options, "marks_per_scene": 0})


@pytest.mark.slow
def test_the_script_writes_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "NUM_BASELINE_ROOMS", 4)
    words = [str(FOLDER), "--output", str(tmp_path), "--layers=-1", "--train-limit", "4"]
    script.main([*words, "--limit", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == [
        *("constant", "position", "tower", "fusion", "layer_6", "answer", "pixel_prior")
    ]
    found = json.loads((tmp_path / "probes.json").read_text())
    assert found["probes"]["layer_6"]["head_point_error_m"] > 0 and (tmp_path / "probes.png").is_file()
