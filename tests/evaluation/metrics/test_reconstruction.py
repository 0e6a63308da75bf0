"""Reconstruction against goldens of the published evaluator, and by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from gap_mllm.evaluation.metrics import load_metric
from gap_mllm.evaluation.metrics.reconstruction import (
    align_points,
    point_cloud_errors,
    read_point,
    reconstruction_scene,
    reconstruction_score,
)


FOLDER = Path(__file__).parents[2] / "fixtures" / "metrics"
GOLDEN = json.loads((FOLDER / "reconstruction.json").read_text())
ARRAYS = np.load(FOLDER / "reconstruction.npz")
CLOUDS = {name: (ARRAYS[f"{name}__pred"], ARRAYS[f"{name}__gt"]) for name in GOLDEN["scenes"]}
TOLERANCE = 1e-6  # points are float32


def as_text(point):
    return json.dumps({"label": "x", "pointmap": [float(number) for number in point]})


def rows(names=CLOUDS):
    return [(as_text(p), t, name) for name in names for p, t in zip(*CLOUDS[name], strict=True)]


@pytest.mark.parametrize("name", CLOUDS)
def test_every_scene(name):
    expected, result = GOLDEN["scenes"][name], reconstruction_scene(*CLOUDS[name])
    assert result["n"] == expected["n"]
    assert result["raw"] == pytest.approx(expected["raw"], abs=TOLERANCE)
    if expected["aligned"] is None:
        assert result["aligned"] is None
    else:
        assert result["aligned"] == pytest.approx(expected["aligned"], abs=TOLERANCE)
    for key in ("mean_point_error", "mean_point_score"):
        assert result[key] == pytest.approx(expected[key], abs=TOLERANCE)


@pytest.mark.parametrize("name", [name for name, scene in GOLDEN["scenes"].items() if scene["aligned"]])
def test_alignment_is_the_published_one(name):
    fit = GOLDEN["scenes"][name]["umeyama"]
    source, target = CLOUDS[name]
    expected = fit["scale"] * source @ np.array(fit["rotation"]).T + fit["translation"]
    if fit["unique"]:
        assert align_points(source, target) == pytest.approx(expected, abs=1e-5)
    else:
        residuals = [np.linalg.norm(moved - target) for moved in (expected, align_points(source, target))]
        assert residuals[0] == pytest.approx(residuals[1], abs=1e-5)


def test_means_over_scenes():
    texts, points, scenes = zip(*rows(), strict=True)
    result = reconstruction_score(texts, np.array(points), scenes)
    for name, value in GOLDEN["global_mean"].items():
        if name != "scenes_used":
            assert result[name] == pytest.approx(value, abs=TOLERANCE), name
    left_out = set(CLOUDS) - set(GOLDEN["global_mean"]["scenes_used"])
    assert set(result["scenes_without_alignment"]) == left_out and result["num_scenes"] == len(CLOUDS)
    assert result["coverage"] == 1 and result["num_unparsed"] == 0
    raw = [scene["raw"]["overall"] for scene in GOLDEN["scenes"].values()]
    assert result["overall_metric_all"] == pytest.approx(np.mean(raw), abs=TOLERANCE)
    errors = np.concatenate([np.linalg.norm(np.float64(p) - t, axis=1) for p, t in CLOUDS.values()])
    assert result["mean_point_error"] == pytest.approx(errors.mean())
    assert result["mean_point_score"] == pytest.approx(np.maximum(0, 1 - errors).mean())


@pytest.mark.parametrize("case", GOLDEN["text_answers"], ids=lambda case: case["text"][:20])
def test_texts(case):
    point = read_point(case["text"])
    if "+3" in case["text"]:
        assert point == (1.0, -0.25, 3.0)  # a Python literal, see the note of the goldens
    else:
        assert point == (None if case["point"] is None else tuple(map(float, case["point"])))


def test_unreadable_answers_are_counted_and_can_be_charged():
    texts = [as_text((0, 0, 2)), as_text((1, 0, 2.5)), "?", as_text((1e39, 0, 0)), "?"]
    points, scenes = [[0, 0, 2], [1, 0, 2], [5, 5, 5], [5, 5, 5], [5, 5, 5]], ["a", "a", "a", "a", "b"]
    free = reconstruction_score(texts, points, scenes)
    assert free["num_unparsed"] == 3 and free["coverage"] == pytest.approx(0.4)
    assert free["acc_metric"] == free["comp_metric"] == 0.25 and free["mean_point_score"] == pytest.approx(1.5 / 5)
    assert free["overall_align"] == pytest.approx(0, abs=TOLERANCE)  # two points can be aligned
    assert free["scenes_without_points"] == ["b"] and free["mean_point_error"] == 0.25
    charged = reconstruction_score(texts, points, scenes, penalty_m=3.0)
    assert charged["per_scene"]["a"]["raw"]["acc"] == pytest.approx((0.5 + 6) / 4)
    assert charged["per_scene"]["a"]["aligned"]["comp"] == pytest.approx(6 / 4)
    assert charged["per_scene"]["b"]["raw"]["overall"] == charged["per_scene"]["b"]["aligned"]["overall"] == 3.0
    assert charged["overall_metric"] == pytest.approx((6.5 / 4 + 3) / 2)
    assert charged["mean_point_error"] == pytest.approx((0.5 + 9) / 5) and charged["scenes_without_points"] == []
    constant = reconstruction_score([as_text((0, 0, 2))] * 2, points[:2], ["a", "a"], penalty_m=3.0)
    assert constant["overall_align"] == 3.0 and constant["scenes_without_alignment"] == []


def test_scenes_that_mix_frames_are_named(caplog):
    arguments = ([as_text((0, 0, 2))] * 3, [[0, 0, 2]] * 3, ["a", "a", "b"])
    result = reconstruction_score(*arguments, first_views=["1", "2", "1"])
    assert result["scenes_of_mixed_frames"] == ["a"] and "1 scenes pool points" in caplog.text
    assert reconstruction_score(*arguments, first_views=["1", "1", "2"])["scenes_of_mixed_frames"] == []


def test_chamfer_by_hand():
    errors = point_cloud_errors([[0, 0, 0], [3, 0, 0]], [[0, 0, 0], [0, 4, 0]])
    assert errors == {"acc": 1.5, "comp": 2.0, "overall": 1.75, "acc_median": 1.5, "comp_median": 2.0}


def test_constant_truths_can_be_aligned():
    moved = align_points([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[1, 1, 1]] * 3)
    assert moved == pytest.approx(np.ones((3, 3)))


def test_nothing_to_score():
    empty = reconstruction_score([], [], [])
    assert empty["n"] == 0 and math.isnan(empty["overall_align"]) and math.isnan(empty["coverage"])
    silent = reconstruction_score(["", "?"], [[0, 0, 1]] * 2, ["a", "a"])
    assert silent["coverage"] == 0 and silent["mean_point_score"] == 0 and math.isnan(silent["mean_point_error"])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"question 1: the true point is \[nan"):
        reconstruction_score(["", ""], [[0, 0, 1], [math.nan, 0, 0]], ["a", "a"])
    with pytest.raises(ValueError, match=r"question 0: the true point is \[0, 0\]; expected 3 finite numbers"):
        reconstruction_score([""], [[0, 0]], ["a"])
    with pytest.raises(ValueError, match="2 predictions, 1 points, 1 scene_ids"):
        reconstruction_score(["", ""], [[0, 0, 1]], ["a"])
    with pytest.raises(ValueError, match="1 scene_ids, 0 first_views"):
        reconstruction_score([""], [[0, 0, 1]], ["a"], first_views=[])
    with pytest.raises(ValueError, match="penalty_m is nan"):
        reconstruction_score([], [], [], penalty_m=math.nan)
    with pytest.raises(ValueError, match="predictions has shape"):
        point_cloud_errors(np.zeros((0, 3)), [[0, 0, 0]])
    with pytest.raises(ValueError, match="2 predictions, 1 truths"):
        align_points(np.eye(3)[:2], np.eye(3)[:1])
    with pytest.raises(ValueError, match=r"question 0: scene_id is None; expected a text or a number"):
        reconstruction_score([""], [[0, 0, 1]], [None])
    with pytest.raises(ValueError, match="predictions is 'x'; expected an array of numbers"):
        point_cloud_errors("x", [[0, 0, 0]])


def test_the_metric_agrees():
    metric = load_metric("reconstruction")
    texts, points, scenes = zip(*rows(["room_noise_0", "planar"]), strict=True)
    references = [{"point": p.tolist(), "scene_id": s} for p, s in zip(points, scenes, strict=True)]
    result = metric.compute(predictions=list(texts), references=references)
    expected = np.mean([GOLDEN["scenes"][name]["aligned"]["overall"] for name in ("room_noise_0", "planar")])
    assert result["overall_align"] == pytest.approx(expected, abs=TOLERANCE)
