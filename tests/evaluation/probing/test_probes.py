"""Linear probes: the fit against a direct solution, what is read, and what tells a trained model from an untrained."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import gap_mllm_cli
from gap_mllm.evaluation import probe_model, relate_run
from gap_mllm.evaluation.probing.linear_probe import STRENGTHS, LinearProbe
from gap_mllm.evaluation.probing.token_targets import token_targets_of
from gap_mllm.evaluation.probing.visual_states import VisualStates
from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.processing.data import load_multiview
from tests.evaluation.probing.conftest import FOLDER
from tests.test_documents import code_blocks
from tests.test_repository import ROOT


SMALL = {"train_limit": 48, "limit": 16, "show_progress": False}


def test_a_probe_is_ridge_regression_on_standardised_features():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 4, generator=generator, dtype=torch.float64) * torch.tensor([1, 10, 0.1, 3]) + 7
    targets = features[:, :2] @ torch.randn(2, 3, generator=generator, dtype=torch.float64)
    targets += torch.randn(60, 3, generator=generator, dtype=torch.float64)
    probe = LinearProbe([1, 2])
    for part in range(0, 60, 20):  # batches of which the last is held out
        probe.add(features[part : part + 20], targets[part : part + 20], held_out=part == 40)
    probe.fit()

    def direct(count, strength):
        x, y = features[:count], targets[:count]
        mean, scale = x.mean(0), x.std(0, correction=0)
        z = (x - mean) / scale
        weights = torch.linalg.solve(z.T @ z / count + strength * torch.eye(4), z.T @ (y - y.mean(0)) / count)
        return lambda new: (new - mean) / scale @ weights + y.mean(0)

    for group, chosen in zip((slice(0, 1), slice(1, 3)), probe.strengths, strict=True):
        errors = [(direct(40, s)(features[40:]) - targets[40:])[:, group].square().sum() for s in STRENGTHS]
        assert chosen == STRENGTHS[int(torch.stack(errors).argmin())]
        torch.testing.assert_close(probe(features)[:, group], direct(60, chosen)(features)[:, group])


def test_a_probe_of_nothing_is_the_mean_and_bad_examples_are_refused():
    probe = LinearProbe([1])
    with pytest.raises(ValueError, match="there are no examples to fit a probe on"):
        probe.fit()
    probe.add(torch.zeros(4, 0), torch.tensor([[1.0], [2.0], [3.0], [6.0]]))
    probe.fit()
    assert probe(torch.zeros(2, 0)).flatten().tolist() == [3.0, 3.0]
    constant = LinearProbe([1])  # a feature that does not vary changes nothing
    constant.add(torch.full((4, 1), 5.0), torch.tensor([[1.0], [2.0], [3.0], [6.0]]))
    constant.fit()
    assert constant(torch.tensor([[900.0]])).item() == pytest.approx(3.0)
    with pytest.raises(ValueError, match=r"features are \(4, 2\) and targets \(3, 1\)"):
        probe.add(torch.zeros(4, 2), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="a feature or target is not finite"):
        probe.add(torch.full((1, 0), 0.0), torch.tensor([[torch.nan]]))


def test_tokens_have_depth_and_normal_of_their_centre_and_the_mean_point():
    room = load_multiview("rendered_rooms", split="train", num_rooms=1)[0]
    targets = token_targets_of(room.views[:2], [(4, 4), (2, 8)])
    depth = room.views[0].depth_m
    assert targets.depth_m[5] == depth[48, 48] and targets.depth_m[16] == room.views[1].depth_m[32, 8]
    assert targets.views.tolist() == [0] * 16 + [1] * 16
    assert targets.normals[targets.is_known].norm(dim=1).sub(1).abs().max() < 1e-5
    blind = [replace(room.views[0], depth_picture=np.where(np.arange(128) < 64, depth, 0)), room.views[1]]
    holes = token_targets_of(blind, [(4, 4), (2, 8)])
    assert holes.is_known[:16].reshape(4, 4)[:, 2:].sum() == 0 < holes.is_known[:16].sum()
    assert holes.points[:16].reshape(4, 4, 3)[:, 2:].isnan().all()
    no_camera = [replace(view, intrinsics=None, depth_intrinsics=None) for view in room.views[:2]]
    assert not token_targets_of(no_camera, [(4, 4), (2, 8)]).is_known.any()


def test_states_are_those_of_the_model_in_any_batch(shipped, rooms):
    model, processor = shipped
    views = [[view.image for view in rooms["test"][index].views] for index in (0, 1)]
    views[1] = views[1][:3]
    read, grids = VisualStates(model, processor)(views)
    assert list(read) == ["tower", "fusion", *(f"layer_{layer}" for layer in range(7))]
    assert grids == [[(4, 4)] * 4, [(4, 4)] * 3]
    chat = processor.build_messages("detection3d", views[1])
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():  # the whole question behind the views
        output = model(**inputs, output_hidden_states=True)
    visual = inputs["input_ids"][0] == model.config.image_token_id
    for layer in range(7):
        torch.testing.assert_close(read[f"layer_{layer}"][1], output.hidden_states[layer][0, visual])
    torch.testing.assert_close(read["fusion"][1], read["layer_0"][1])
    assert not torch.allclose(read["tower"][1], read["fusion"][1])
    some = VisualStates(model, processor, layers=[-1, 2])
    assert some.places == ["tower", "fusion", "layer_2", "layer_6"]
    with model.geometry_disabled():
        assert "fusion" not in some(views)[0]
    with pytest.raises(ValueError, match="layer 7 is none of the language model"):
        VisualStates(model, processor, layers=[7])


@pytest.fixture(scope="module")
def found(shipped, rooms):
    return probe_model(*shipped, rooms["train"], rooms["test"], **SMALL)


@pytest.mark.slow
def test_probes_tell_a_trained_model_from_an_untrained_one_and_from_blind_ones(shipped, untrained, rooms, found):
    assert (found["num_train_scenes"], found["num_scenes"], found["scenes_without_depth"]) == (48, 16, 0)
    random = probe_model(untrained, shipped[1], rooms["train"], rooms["test"], layers=[1, -1], **SMALL)["probes"]
    probes = found["probes"]
    for name, margin in (("depth_error_m", 0.85), ("normal_error_deg", 0.85)):
        for place in ("layer_1", "layer_6"):
            assert probes[place][name] < margin * random[place][name]
            assert probes[place][name] < margin * probes["position"][name] < margin * probes["constant"][name]
        assert probes["constant"][name] == random["constant"][name]
        for place, figures in probes.items():  # on the targets of other tokens nothing is learnt
            assert figures[f"shuffled_{name}"] > 0.95 * probes["constant"][name], place
    last = probes["layer_6"]
    assert last["correspondence"] > last["any_pair_cosine"] and found["scenes_with_pairs"] > 8


def test_scenes_that_were_fitted_on_are_not_scored(shipped, rooms):
    few = {"train_limit": 3, "limit": 16, "show_progress": False, "layers": []}
    again = probe_model(*shipped, rooms["test"][:5], [*rooms["test"][:5], *rooms["test"][:5]], **few)
    assert (again["num_train_scenes"], again["num_scenes"]) == (3, 2)
    assert list(again["probes"]) == ["constant", "position", "tower", "fusion"]
    with pytest.raises(ValueError, match="no scene to score on has depth .* none of the 3"):
        probe_model(*shipped, rooms["test"][:3], rooms["test"][:3], **few)
    with pytest.raises(TypeError, match="rows is a generator, without number and places; load without streaming"):
        probe_model(*shipped, rooms["test"], (room for room in rooms["test"]), **few)
    with pytest.raises(ValueError, match="train_limit is 0"):
        probe_model(*shipped, rooms["test"], rooms["test"], **{**few, "train_limit": 0})


def test_scenes_without_depth_are_counted_and_poses_are_not_needed(shipped, rooms):
    without = [
        replace(room, views=tuple(replace(view, depth_picture=None) for view in room.views))
        for room in rooms["train"][:2]
    ]
    unposed = [
        replace(room, views=tuple(replace(view, camera_to_world=None) for view in room.views))
        for room in rooms["test"]
    ]
    options = {"train_limit": 4, "limit": 3, "show_progress": False, "layers": [0]}
    found = probe_model(*shipped, [*without, *rooms["train"][2:6]], unposed, **options)
    assert found["scenes_without_depth"] == 2 and found["scenes_with_pairs"] == 0
    assert "correspondence" not in found["probes"]["layer_0"] and found["probes"]["layer_0"]["depth_error_m"] > 0
    with pytest.raises(ValueError, match="0 of the scenes to fit on have depth and intrinsics, 2 have not"):
        probe_model(*shipped, without, unposed, **options)


@pytest.mark.slow
def test_command(tmp_path, capsys):
    words = ["probe", str(FOLDER), "--output", str(tmp_path / "out"), "--layers", "0,-1"]
    few = ["--train-limit", "6", "--limit", "3", "--num-views", "2"]
    assert gap_mllm_cli.main([*words, *few, "--gates", "2"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()] == [
        *("place", "constant", "position", "tower", "fusion", "layer_0", "layer_6", "wrote")
    ]
    found = json.loads((tmp_path / "out" / "probes.json").read_text())
    with open(tmp_path / "out" / "probes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["place"] for row in rows] == list(found["probes"])
    assert float(rows[-1]["depth_error_m_low"]) == found["probes"]["layer_6"]["depth_error_m_ci95"][0]
    with Image.open(tmp_path / "out" / "probes.png") as picture:
        assert picture.width > 800
    assert sorted(file.name for file in (tmp_path / "out").glob("gates*")) == ["gates_0.png", "gates_1.png"]
    assert gap_mllm_cli.main([*words, *few, "--untrained"]) == 0
    assert json.loads((tmp_path / "out" / "probes.json").read_text())["is_untrained"]
    for wrong, message in (
        (["--layers", "0,a"], "--layers has 'a'; expected whole numbers"),
        (["--layers", "9"], "layer 9 is none of the language model"),
        (["--data", "roms"], "roms"),
        (["--limit", "0"], "limit is 0"),
        (["--voxel-size", "0"], "voxel_size_m is 0.0"),
        (["--run", str(tmp_path)], "holds no metrics.json; expected the folder of a finished gap-mllm evaluate"),
    ):
        assert gap_mllm_cli.main([*words, *few, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert gap_mllm_cli.main(["probe", str(tmp_path / "none"), *few]) == 2
    assert "none is no folder" in capsys.readouterr().err


def test_a_run_is_related_to_its_own_data_only(shipped, tmp_path):
    options = {"num_train": 0, "num_test": 4, "cache_dir": tmp_path / "cache", "show_progress": False}
    evaluate_model(FOLDER, "synthetic_rooms", output=tmp_path / "run", baselines=[], with_report=False, **options)
    options = {"cache_dir": tmp_path / "cache", "voxel_size_m": 0.5, "show_progress": False}
    related, records = relate_run(*shipped, tmp_path / "run", **options)
    errors = [float(json.loads(line)["error_m"]) for line in open(tmp_path / "run" / "predictions.jsonl")]
    assert [record["value"] for record in records] == errors
    found = related["places"]["layer_6"]
    known = [record for record in records if record["layer_6"] == record["layer_6"]]
    assert found["num_samples"] == len(known) == 8 - found["num_left_out"]
    ranked = sorted(known, key=lambda record: record["layer_6"])
    first = found["groups"][0]
    assert first["value"] == np.mean([record["value"] for record in ranked[: first["n"]]])
    assert not np.isnan(found["spearman"])
    with pytest.raises(ValueError, match="samples have a correspondence score, .* or larger voxels"):
        relate_run(*shipped, tmp_path / "run", **{**options, "voxel_size_m": 1e-4})
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    (tmp_path / "run" / "metrics.json").write_text(json.dumps({**metrics, "geometry": "other"}))
    with pytest.raises(ValueError, match="geometry are not those of the run in"):
        relate_run(*shipped, tmp_path / "run", **options)


@pytest.mark.slow
def test_code_of_the_document_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (block,) = code_blocks(ROOT / "docs" / "probing.md", "python")
    exec(compile(block, "probing.md", "exec"), {})
    assert "layer_6" in capsys.readouterr().out
