"""VSI-Bench scores against goldens of three public evaluators."""

import json
import math
from pathlib import Path

import pytest

from gap_mllm.evaluation import load_metric
from gap_mllm.evaluation.metrics.vsibench import (
    MODES,
    TASKS,
    vsibench_aggregate,
    vsibench_is_unparsed,
    vsibench_overall,
    vsibench_score,
)


FIXTURES = Path(__file__).parents[2] / "fixtures"
GOLDEN = json.loads((FIXTURES / "spatial" / "vsibench.json").read_text())
EVALUATORS = {"strict": "thinking_in_space", "lmms_eval": "lmms_eval", "spatial_mllm": "spatial_mllm"}


@pytest.mark.parametrize("mode", EVALUATORS)
def test_scores_are_those_of_the_evaluator(mode):
    compared = 0
    for case in GOLDEN["cases"]:
        expected = case[EVALUATORS[mode]]
        if expected is None or case[f"{EVALUATORS[mode]}_error"]:
            continue
        score = vsibench_score(case["prediction"], case["ground_truth"], case["question_type"], mode)
        assert score == pytest.approx(expected, abs=1e-6), case
        compared += 1
    dividing_by_zero = 0 if mode == "spatial_mllm" else 2
    assert compared == len(GOLDEN["cases"]) - dividing_by_zero


def test_lenient_reads_at_least_what_strict_reads():
    for case in GOLDEN["cases"]:
        if case["thinking_in_space"] == 1.0:
            assert vsibench_score(case["prediction"], case["ground_truth"], case["question_type"], "lenient") == 1.0


@pytest.mark.parametrize(
    ("prediction", "answer", "kind", "strict"),
    [
        ("(B)", "B", "route_planning", 0),
        ("The answer is B.", "B", "route_planning", 0),
        ("<answer>B</answer>", "B", "route_planning", 0),
        ("There are 4 chairs", "4", "object_counting", 0),
        ("twenty-one", "21", "object_counting", 0),
        ("about 1,200 square metres", "1200", "room_size_estimation", 0),
        ("B", "B", "route_planning", 1),
    ],
)
def test_lenient_finds_the_answer_in_the_text(prediction, answer, kind, strict):
    assert vsibench_score(prediction, answer, kind, "lenient") == 1
    assert vsibench_score(prediction, answer, kind) == strict


def test_relative_accuracy_over_a_sweep():
    for pair in GOLDEN["mra_sweep"]:
        text = repr(pair["pred"])
        for mode in ("strict", "spatial_mllm"):
            score = vsibench_score(text, repr(pair["target"]), "object_abs_distance", mode)
            assert score == pytest.approx(pair[EVALUATORS[mode]], abs=1e-6), pair


@pytest.mark.parametrize(("mode", "rules"), [*zip(EVALUATORS, ("vgllm", "lmms_eval", "spatial_mllm"), strict=True)])
def test_scores_are_those_of_the_second_set_of_goldens(mode, rules):
    golden = json.loads((FIXTURES / "metrics" / "qa_extraction.json").read_text())["vsi_bench"]
    for row in golden["rows"]:
        score = vsibench_score(row["pred"], row["gt"], row["question_type"], mode)
        assert score == pytest.approx(row[rules], abs=1e-6), row
        assert not (score and vsibench_is_unparsed(row["pred"], row["question_type"], mode)), row
    scores = golden["aggregate"]["scores"]
    result = vsibench_aggregate([row["score"] for row in scores], [row["question_type"] for row in scores])
    assert result["overall"] == pytest.approx(golden["aggregate"]["expected"]["overall"])


def test_answers_that_cannot_be_read_are_counted():
    number, choice = "object_counting", "route_planning"
    texts = {("", choice): True, ("Chair", choice): True, ("b.", choice): False, ("", number): True}
    texts |= {("nan", number): True, ("four", number): True, ("4", number): False}
    assert {pair: vsibench_is_unparsed(*pair) for pair in texts} == texts
    assert not vsibench_is_unparsed("four", number, "lenient")
    assert not vsibench_is_unparsed("The answer is B.", choice, "lenient")
    references = [{"answer": "B" if kind == choice else "4", "question_type": kind} for _, kind in texts]
    result = load_metric("vsibench").compute(predictions=[text for text, _ in texts], references=references)
    assert result["num_unparsed"] == 5 and result["overall"] == pytest.approx((1 / 3 + 1 / 4) / 2)
    with pytest.raises(ValueError, match="unknown question type 'colour'"):
        vsibench_is_unparsed("B", "colour")


@pytest.mark.parametrize("mode", EVALUATORS)
def test_empty_and_wild_answers_score_nothing(mode):
    for text in ("", " ", "nan", "inf", "-inf", "Z" * 10000):
        assert vsibench_score(text, "4", "object_counting", mode) == 0
        assert vsibench_score(text, "B", "route_planning", mode) == 0


def test_a_true_value_of_zero_wants_zero():
    assert vsibench_score("0", "0", "object_counting") == 1 and vsibench_score("1", "0", "object_counting") == 0


def test_the_mean_over_tasks_is_the_published_one():
    docs, expected = GOLDEN["aggregate"]["docs"], GOLDEN["aggregate"]["thinking_in_space_percent"]
    scores = [doc.get("MRA:.5:.95:.05", doc.get("accuracy")) for doc in docs]
    result = vsibench_aggregate(scores, [doc["question_type"] for doc in docs])
    assert result["overall"] * 100 == pytest.approx(expected["overall"])
    for task in TASKS:
        key = next(name for name in expected if name.startswith(task) and name != "tabulated_keys")
        assert result[task] * 100 == pytest.approx(expected[key])
    assert result["missing"] == [] and result["n"] == len(docs)


def test_missing_tasks_are_named():
    result = vsibench_aggregate([1.0, 0.0, 1.0], ["object_rel_direction_easy", "object_counting", "colour"])
    assert result["overall"] == 0.5 and result["num_other_types"] == 1
    assert "object_rel_direction_hard" in result["missing"] and "object_counting" not in result["missing"]
    assert math.isnan(vsibench_aggregate([], [])["overall"])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="unknown question type 'colour'"):
        vsibench_score("red", "red", "colour")
    with pytest.raises(ValueError, match="unknown mode 'loose'"):
        vsibench_score("B", "B", "route_planning", "loose")
    for answer in ("four", "nan", "", None, 4):
        with pytest.raises(ValueError, match=f"is {answer!r}; expected a finite number as text"):
            vsibench_score("4", answer, "object_counting")
    for answer in ("", " ", "AB", "4", None, 4):
        with pytest.raises(ValueError, match=f"is {answer!r}; expected one letter"):
            vsibench_score("B", answer, "route_planning")
    with pytest.raises(ValueError, match="2 scores came with 1 question types"):
        vsibench_aggregate([1, 2], ["a"])
    with pytest.raises(ValueError, match="score 0 is nan; expected a finite number"):
        vsibench_aggregate([math.nan], ["route_planning"])
    with pytest.raises(ValueError, match="question 1: the answer of a route_planning question is ''"):
        vsibench_overall(["B", "B"], ["B", ""], ["route_planning"] * 2)
    with pytest.raises(ValueError, match="got 1 predictions, 2 answers, 1 question_types"):
        vsibench_overall(["B"], ["B", "B"], ["route_planning"])
    with pytest.raises(ValueError, match="unknown mode 'loose'"):
        vsibench_overall([], [], [], "loose")


@pytest.mark.parametrize("mode", MODES)
def test_what_is_no_text_is_wrong_and_counted(mode):
    for other in (None, math.nan, 4, b"B", ["B"]):
        for answer, kind in (("B", "route_planning"), ("4", "object_counting")):
            assert vsibench_score(other, answer, kind, mode) == 0 and vsibench_is_unparsed(other, kind, mode)


def test_the_overall_figure_of_each_evaluator():
    texts, answers = [" B", "two hundred and five", "<think>C</think>A", "one two"], ["B", "205", "A", "3"]
    kinds = ["route_planning", "object_counting"] * 2
    scores = {"strict": 0, "lenient": 0.5, "lmms_eval": 1, "spatial_mllm": 0.25}
    for mode, overall in scores.items():
        assert vsibench_overall(texts, answers, kinds, mode) == pytest.approx(overall), mode
    assert math.isnan(vsibench_overall([], [], []))
    assert vsibench_overall([None], ["B"], ["route_planning"], "lmms_eval") == 0


def test_the_metric_loads_offline_and_agrees():
    metric = load_metric("vsibench")
    cases = [case for case in GOLDEN["cases"] if case["thinking_in_space"] is not None]
    references = [{"answer": case["ground_truth"], "question_type": case["question_type"]} for case in cases]
    result = metric.compute(predictions=[case["prediction"] for case in cases], references=references)
    expected = vsibench_aggregate([case["thinking_in_space"] for case in cases], [c["question_type"] for c in cases])
    assert result["overall"] == pytest.approx(expected["overall"])
    assert "strict" in metric.inputs_description and metric.description


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="unknown metric 'accuracy'; known are"):
        load_metric("accuracy")


def test_predictions_without_references_and_the_other_way_are_refused():
    reference = {"answer": "B", "question_type": "route_planning"}
    with pytest.raises(ValueError, match="0 predictions came with 1 references"):
        load_metric("vsibench").compute(predictions=[], references=[reference])
