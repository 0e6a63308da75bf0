"""SPAR-Bench scores against goldens of the published evaluator, and where ours differ."""

import json
import math
from pathlib import Path

import pytest

from gap_mllm.evaluation import load_metric
from gap_mllm.evaluation.metrics.spar_bench import (
    CHOICE_TASKS,
    LEVELS,
    MODES,
    NUMBER_TASKS,
    TASKS,
    VIEW_CHANGE_TASK,
    spar_bench_aggregate,
    spar_bench_is_unparsed,
    spar_bench_score,
)
from gap_mllm.processing.scores.number_answers import numbers_in


GOLDEN = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "qa_extraction.json").read_text())[
    "spar_bench"
]
MOTION = "move_right:0.5,move_up:0.2,move_forward:1.0,rotate_right:30,rotate_down:10"


def test_scores_are_the_published_ones():
    for row in GOLDEN["rows"]:
        score = spar_bench_score(row["pred"], row["answer"], row["task"], "reference")
        assert score == pytest.approx(row["score"], abs=1e-12), row


def test_tasks_and_levels_are_the_published_ones():
    assert set(CHOICE_TASKS) == set(GOLDEN["mca"]) and set(NUMBER_TASKS) == set(GOLDEN["na"])
    assert [VIEW_CHANGE_TASK] == GOLDEN["special"]
    assert {level: set(tasks) for level, tasks in LEVELS.items()} == {
        level: set(GOLDEN[level]) for level in ("low", "middle", "high")
    }
    assert len(set(TASKS)) == 20


@pytest.mark.parametrize("mode", MODES)
def test_means_are_the_published_ones(mode):
    golden = GOLDEN["aggregate"]
    result = spar_bench_aggregate(*([row[key] for row in golden["scores"]] for key in ("score", "task")), mode)
    levels = golden["reference_levels" if mode == "reference" else "level_means"]
    for key, value in {**golden["per_task"], **levels, "overall": golden["overall"]}.items():
        assert result[key] == pytest.approx(value, abs=1e-12), key
    assert result["missing"] == [] and result["n"] == len(golden["scores"])


@pytest.mark.parametrize(
    ("prediction", "answer", "task", "corrected", "reference"),
    [
        ("", "A", "position_matching", 0, 1),
        ("", "left", "obj_spatial_relation_oo", 0, 1),
        ("Apple", "A", "position_matching", 0, 1),
        ("(A)", "A", "position_matching", 1, 0),
        ("The answer is A", "A", "position_matching", 1, 0),
        ("**Left.**", "left", "obj_spatial_relation_oo", 1, 0),
        ("le", "left", "obj_spatial_relation_oo", 0, 1),
        ("-2.5", "2.5", "depth_prediction_oc", 0, 1),
        ("2,500 mm", "2500", "depth_prediction_oc", 1, 0),
        ("two", "2", "depth_prediction_oc", 1, 0),
        ("from 1 to 3 it is 2.5", "2.5", "depth_prediction_oc_mv", 1, 1),
        ("nan", "2.5", "depth_prediction_oc", 0, 0),
        ("0.3", "0", "depth_prediction_oc", 0.5, 0.5),
        ("Move_right: 0.5, move_up = 0.2, move_forward 1, rotate_right:30, rotate_up: -10", MOTION, "v", 1, 0),
        ("move_right:1.0", "move_right:0.5", "v", 0.8, 0.82),
        (MOTION, "move_right:0.5", "v", 0.32, 0.2),
        ("jump:3", MOTION, "v", 0, 0.14),
        ("move_right:nan", "move_right:0.5", "v", 0, 0.8),
    ],
)
def test_what_is_mended(prediction, answer, task, corrected, reference):
    task = VIEW_CHANGE_TASK if task == "v" else task
    assert spar_bench_score(prediction, answer, task) == pytest.approx(corrected)
    assert spar_bench_score(prediction, answer, task, "reference") == pytest.approx(reference)


def test_answers_without_the_thing_asked_for_are_counted():
    for text in ("", "I do not know"):
        for answer, task in (("B", "position_matching"), ("2", "depth_prediction_oc"), (MOTION, VIEW_CHANGE_TASK)):
            assert spar_bench_is_unparsed(text, answer, task)
            assert spar_bench_score(text, answer, task) == 0
    assert spar_bench_is_unparsed(" .", "left", "obj_spatial_relation_oo")
    assert not spar_bench_is_unparsed("right", "left", "obj_spatial_relation_oo")
    assert not spar_bench_is_unparsed("2 m", "3", "depth_prediction_oc_mv")
    assert spar_bench_is_unparsed("move_right", MOTION, VIEW_CHANGE_TASK, "reference")
    assert not spar_bench_is_unparsed(MOTION, MOTION, VIEW_CHANGE_TASK, "reference")


def test_long_answers_score_nothing():
    for text in ("9" * 10000, "move_right:" * 2000, "<answer>" * 2000):
        for mode in MODES:
            for answer, task in (("B", "position_matching"), ("2", "depth_prediction_oc"), (MOTION, VIEW_CHANGE_TASK)):
                assert spar_bench_score(text, answer, task, mode) == 0


def test_numbers_in_texts():
    found = {"3-4": [3, 4], "-2.5 m2": [-2.5], "10^2": [10], "2.5.1": [2.5], "1,200.5": [1200.5], "(\u22122)": [-2]}
    assert {text: numbers_in(text) for text in found} == found
    assert numbers_in("1e-2 .5") == [0.01, 0.5] and numbers_in("x1") == [] and numbers_in("9" * 400) == [math.inf]


def test_missing_tasks_are_named():
    result = spar_bench_aggregate([1.0, 0.0], ["position_matching", VIEW_CHANGE_TASK])
    assert result["middle"] == result["overall"] == 0.5 and math.isnan(result["low"])
    assert len(result["missing"]) == 18 and "depth_prediction_oc" in result["missing"]
    assert spar_bench_aggregate([1.0, 0.0], ["position_matching", VIEW_CHANGE_TASK], "reference")["middle"] == 1
    assert math.isnan(spar_bench_aggregate([], [])["overall"])


def test_the_metric_loads_offline_and_agrees():
    metric, rows = load_metric("spar_bench"), GOLDEN["rows"]
    inputs = {
        "predictions": [row["pred"] for row in rows],
        "references": [{"answer": row["answer"], "task": row["task"]} for row in rows],
    }
    expected = spar_bench_aggregate([row["score"] for row in rows], [row["task"] for row in rows], "reference")
    result = metric.compute(**inputs, mode="reference")
    assert result["overall"] == pytest.approx(expected["overall"]) and result["missing"] == expected["missing"]
    assert metric.compute(**inputs)["num_unparsed"] == 15
    assert "reference" in metric.inputs_description and metric.description and metric.citation


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="unknown mode 'strict'; known are corrected, reference"):
        spar_bench_score("A", "A", "position_matching", "strict")
    for call in (spar_bench_score, spar_bench_is_unparsed):
        with pytest.raises(ValueError, match="unknown task 'colour'; known are depth_prediction_oc"):
            call("A", "A", "colour")
        with pytest.raises(ValueError, match="question is ' '; expected a letter or a word"):
            call("A", " ", "position_matching")
    for answer in ("", "far", "1 or 2", "nan", None):
        with pytest.raises(ValueError, match="expected one finite number"):
            spar_bench_score("2", answer, "depth_prediction_oc")
    for answer in ("", "move_right", "move_right:far", "move_right:nan", None):
        with pytest.raises(ValueError, match="expected pairs as 'move_right:0.5"):
            spar_bench_score("", answer, VIEW_CHANGE_TASK)
    with pytest.raises(ValueError, match="unknown task 'colour'"):
        spar_bench_aggregate([1.0], ["colour"])
    with pytest.raises(ValueError, match="got 1 scores, 0 groups"):
        spar_bench_aggregate([1.0], [])
    with pytest.raises(ValueError, match="score 0 is nan"):
        spar_bench_aggregate([math.nan], ["position_matching"])
