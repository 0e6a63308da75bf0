"""Terms one by one: measures by hand, constants, and the command on a few rooms."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from term_measures import MEASURES
from term_trials import main, make_model, make_row, terms_alone, trial_arguments, trial_terms

from gap_mllm.training.losses import SHAPE_WORDS
from gap_mllm.training.terms import LOSS_TERMS, ConsistencyTerm, ShapeTerm
from gap_mllm.vggt_gap_mllm import GapMllmVggtModel


ENCODER = "examples/assets/tiny_geometry_encoder"


def score(name, prediction, told, term=None, index=0):
    return MEASURES[name][index].score(prediction, told, term)


def test_every_term_with_a_geometric_target_is_tried():
    assert set(MEASURES) == set(LOSS_TERMS) - {"text", "readout", "option", "number"} == set(trial_terms(ENCODER))
    alone = terms_alone("normals", {"normals": {}, "depth": {"side": 4}})
    assert alone == {"depth": {"side": 4, "weight": 1e-6}, "normals": {"weight": 1.0}}


def test_measures_by_hand():
    depth = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    assert score("depth", [depth + 0.5], {"depth": [depth]}) == pytest.approx(0.5)  # where there is depth
    turned = torch.tensor([0, 0, 0, 0, 0, 0.5**0.5, 0.5**0.5, 1, 1.0])  # by a right angle about z
    plain, moved = torch.eye(9)[6], torch.tensor([3, 4, 0, 0, 0, 0, 1, 0, 0.0])
    told = {"vectors": [plain, plain]}
    assert score("camera", torch.stack([turned, turned]), told) == pytest.approx(90, abs=0.05)
    assert score("camera", torch.stack([moved, moved]), told, index=1) == pytest.approx(5)
    angles = {"vectors": [torch.tensor([1.0, 1.0])]}
    assert score("field_of_view", torch.tensor([[0.0] * 7 + [1.1, 1.1]]), angles) == pytest.approx(np.rad2deg(0.1))
    assert score("metric_scale", torch.tensor([2.2]), {"vectors": [torch.tensor(2.0)]}) == pytest.approx(10)
    features = torch.eye(3)[None]
    assert score("distillation", list(features), {"features": [features]}) == pytest.approx(0)
    points = torch.zeros(2, 1, 1, 3)
    assert score("point_map", points + torch.tensor([3.0, 4, 0]), {"points": points}) == pytest.approx(5)


def test_matches_are_in_other_views():
    told = {"tokens": [torch.tensor([0, 1, 0, 1, 5, -1])], "number": [torch.tensor([0, 0, 1, 1, 1, 1])]}
    right = torch.eye(6)[[0, 1, 0, 1, 2, 0]]
    assert score("correspondence", right, told) == 100
    assert score("correspondence", torch.eye(6)[[0, 1, 1, 0, 2, 0]], told) == 0
    chance = MEASURES["correspondence"][0].constant([], None)(told)
    assert chance == pytest.approx(100 * np.mean([1 / 3, 1 / 3, 1 / 2, 1 / 2]))
    assert score("consistency", right, told, ConsistencyTerm()) == pytest.approx(0, abs=1e-6)


def test_objects_are_named_and_related():
    texts, told = torch.eye(5), {"tokens": [torch.tensor([0, 0, 1, -1])], "count": [2]}
    told |= {"labels": [torch.tensor([1, 0])]}
    term = SimpleNamespace(text_features=[texts])
    assert len(SHAPE_WORDS) == 3 and score("region_text", texts[[1, 1, 0, 4]], told, term) == 100
    assert score("region_text", texts[[0, 0, 1, 4]], told, term) == 0
    told |= {"texts": [[torch.tensor([number]) for number in (7, 8, 1, 2, 3)]]}
    constant = MEASURES["region_text"][0].constant([told, {**told, "labels": [torch.tensor([1, 1])]}], None)
    assert constant(told) == 50  # the commonest, 8, is one of the two
    places = {"labels": [torch.tensor([[[0, 2]], [[2, -1]]])], "count": [2]}
    term = SimpleNamespace(text_features=[texts], side=1)
    named = torch.stack([texts[0], texts[2], texts[1], texts[4]])
    wide = SimpleNamespace(text_features=[texts], side=2)
    assert score("label_map", named, {**places, "labels": [places["labels"][0].flatten()]}, term) == 75  # 1, and 1 / 2
    assert score("label_map", named.view(1, 20), {**places, "labels": [torch.tensor([[[0, 2], [1, 4]]])]}, wide) == 100
    assert MEASURES["label_map"][0].constant([], None)(places) == 50
    pair = {"pairs": [torch.tensor([[0, 1]])], "holds": [torch.tensor([[True, False]])]}
    pair |= {"known": [torch.tensor([[True, True]])], "tokens": told["tokens"]}
    sides = SimpleNamespace(text_features=[torch.tensor([[1.0], [-1.0]])])
    assert score("relations", torch.tensor([[0.0], [0.0], [1.0], [9.0]]), pair, sides) == 100
    assert score("relations", torch.tensor([[1.0], [1.0], [0.0], [9.0]]), pair, sides) == 0


def test_the_best_shape_is_near_to_all():
    generator = torch.Generator().manual_seed(0)
    objects = torch.rand(8, 64, 3, generator=generator) - 0.5
    told = {"views": [True], "tokens": [torch.arange(8)], "points": [objects], "count": [8]}
    assert score("shape", objects.flatten(1), told, ShapeTerm()) == pytest.approx(0, abs=1e-4)
    error = MEASURES["shape"][0].constant([told], ShapeTerm())(told)
    assert error < score("shape", objects[:1].flatten(1).expand(8, -1), told, ShapeTerm())


def test_a_room_without_objects_or_pairs_has_no_number():
    none, nothing = torch.tensor([-1, -1]), torch.zeros(2, 192)
    told = {"views": [True], "tokens": [none], "points": [torch.zeros(0, 64, 3)], "count": [0]}
    assert np.isnan(score("shape", nothing, told, ShapeTerm()))
    told |= {"labels": [torch.zeros(0, dtype=torch.int64)], "texts": [[torch.tensor([1])] * 4]}
    seen = {**told, "labels": [torch.tensor([0])]}
    assert np.isnan(MEASURES["region_text"][0].constant([seen], None)(told))
    pairs = {"tokens": [none], "number": [torch.tensor([0, 1])]}
    assert np.isnan(score("consistency", nothing, pairs, ConsistencyTerm()))
    assert np.isnan(score("correspondence", nothing, pairs))


def test_a_row_says_what_is_beaten():
    measure = MEASURES["relations"][0]
    trained, frozen = np.array([80.0, 90, 85, np.nan]), np.array([60.0, 70, 60, np.nan])
    row = make_row(measure, trained, frozen, np.array([84.0, 86, 85, 50]))
    assert row["rooms"] == 3 and row["trained"] == 85 and row["beats_frozen"] and not row["beats_constant"]


@pytest.mark.slow
def test_the_command_writes_a_table_and_goes_on(tmp_path, capsys):
    words = ["--output", str(tmp_path), "--encoder", ENCODER, "--rooms", "4", "--test-rooms", "2", "--steps", "2"]
    main([*words, "--terms", "normals"])
    first = json.loads((tmp_path / "terms.json").read_text())
    assert list(first["terms"]) == ["normals"] and first["settings"]["steps"] == 2
    main([*words, "--terms", "camera", "normals"])
    told = json.loads((tmp_path / "terms.json").read_text())["terms"]
    assert told["normals"] == first["terms"]["normals"] and len(told["camera"]) == 2
    table = (tmp_path / "terms.md").read_text()
    assert table in capsys.readouterr().out and table.count("\n| `camera` |") == 2
    with pytest.raises(ValueError, match="did you mean 'shape'"):
        main([*words, "--terms", "shpae"])


@pytest.mark.slow
def test_a_model_around_the_trained_encoder_learns_from_its_features(tmp_path):
    words = ["--output", str(tmp_path), "--encoder", ENCODER, "--rooms", "2", "--test-rooms", "1", "--steps", "1"]
    args = trial_arguments([*words, "--geometry"])
    with_encoder, without = make_model(args), make_model(trial_arguments(words))
    assert with_encoder.model.uses_geometry and not without.model.uses_geometry
    trained = GapMllmVggtModel.from_pretrained(ENCODER, dtype="float32").state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in with_encoder.model.geometry.state_dict().items())
    main([*words, "--geometry", "--terms", "field_of_view"])
    assert json.loads((tmp_path / "terms.json").read_text())["settings"]["geometry"] is True
