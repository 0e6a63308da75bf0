"""Letters of answers, CV-Bench, BLINK and MMSI, against goldens of published evaluators."""

import json
import math
from pathlib import Path

import pytest

from gap_mllm.evaluation import load_metric
from gap_mllm.evaluation.metrics.blink import TASKS, blink_aggregate, blink_metric
from gap_mllm.evaluation.metrics.cv_bench import MODES, cv_bench_aggregate, cv_bench_metric
from gap_mllm.evaluation.metrics.mmsi import mmsi_aggregate, mmsi_metric
from gap_mllm.evaluation.metrics.records import score_letters
from gap_mllm.processing.scores.letters import (
    EXTRACTION_MODES,
    answer_letter,
    choice_score,
    extract_choice,
)


GOLDEN = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "qa_extraction.json").read_text())
ROWS = GOLDEN["letters"]["rows"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: repr(row["pred"]))
def test_letters_are_those_of_the_evaluators(row):
    text = row["pred"]
    assert (extract_choice(text, mode="vgllm") or "") == row["vgllm_cvbench_blink"]
    assert (extract_choice(text, mode="lmms") or "") == row["lmms_cvbench_blink"]
    assert (extract_choice(text, mode="mmsi") is None) == (row["mmsi_score_if_B"] is None)
    assert choice_score(text, "B", mode="mmsi") == (row["mmsi_score_if_B"] or 0)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (B).", "B"),
        ("Answer: C", "C"),
        ("**D**", "D"),
        ("a", "A"),
        ("<think>A or C</think><answer>C</answer>", "C"),
        ("Both are far away", None),
        ("a chair", None),
        ("A or B", None),
        ("", None),
        ("F", None),
    ],
)
def test_strict_takes_clear_answers_only(text, letter):
    assert extract_choice(text, "ABCD") == letter


def test_the_first_character_is_all_that_spar_reads():
    found = [extract_choice(text, "ABCD", "spar") for text in ("Apple", "b.", " A", "(A)", "", "Every")]
    assert found == ["A", "B", None, None, None, None]


@pytest.mark.parametrize("mode", EXTRACTION_MODES)
def test_no_text_raises_and_none_is_long(mode):
    for text in ("", " ", "`" * 5000, "{" * 5000, "<answer>" * 2000, "é", "Z" * 10000):
        assert extract_choice(text, mode=mode) in (None, "Z")


def test_true_letters():
    assert [answer_letter(text) for text in ("(B)", "b", " C "[:2])] == ["B", "B", "C"]
    assert choice_score("b", "(B)") == 1 and choice_score("", "B") == 0
    assert score_letters(["A", "", "the answer is T", "F"], "ABCD", "ABCD", "strict", MODES) == ([1, 0, 0, 0], 3)
    assert score_letters(["The answer is B"], "B", "ABCD", "lmms", MODES) == ([0], 1)


def test_cv_bench_averages_sources_as_published():
    golden = GOLDEN["cv_bench_aggregate"]
    columns = ([row[key] for row in golden["scores"]] for key in ("result", "source", "task"))
    result = cv_bench_aggregate(*columns)
    assert result["overall"] == pytest.approx(golden["combined"], abs=1e-12)
    for key in ("accuracy_2d", "accuracy_3d", "Count", "Relation", "Depth", "Distance"):
        assert result[key] == pytest.approx(golden[key], abs=1e-12)
    assert result["missing"] == [] and result["n"] == len(golden["scores"])


def test_missing_sources_and_tasks_are_named():
    result = cv_bench_aggregate([1.0, 0.0], ["COCO", "COCO"], ["Count", "Relation"])
    assert result["overall"] == result["accuracy_2d"] == 0.5 and math.isnan(result["accuracy_3d"])
    assert result["missing"] == ["ADE20K", "Omni3D"] and "Depth" not in result
    assert math.isnan(cv_bench_aggregate([], [], [])["overall"])
    assert blink_aggregate([1.0], ["jigsaw"])["missing"] == [task for task in TASKS if task != "jigsaw"]


def test_blink_weighs_tasks_equally():
    tasks = ["Multi-view_Reasoning", "Multi-view_Reasoning", "relative_depth", "Spatial_Relation", "IQ_Test"]
    result = blink_aggregate([1.0, 0.0, 1.0, 0.0, 0.0], tasks)
    assert result["spatial"] == pytest.approx(0.5) and result["overall"] == pytest.approx(1.5 / 4)
    assert result["multi_view_reasoning"] == 0.5 and result["n"] == 5


def test_mmsi_weighs_questions_equally():
    result = mmsi_aggregate([1.0, 1.0, 0.0], ["motion", "motion", "attribute"])
    assert result["overall"] == pytest.approx(2 / 3) and result["by_type"] == {"motion": 1.0, "attribute": 0.0}
    assert math.isnan(mmsi_aggregate([], [])["overall"])


def test_metrics_load_offline_and_agree():
    texts = [row["pred"] for row in ROWS]
    references = [{"answer": "(B)", "source": "COCO", "task": "Count", "question_type": "x"} for _ in ROWS]
    for name, keys, mode in (
        ("cv_bench", ("answer", "source", "task"), "vgllm"),
        ("blink", ("answer", "task"), "lmms"),
        ("mmsi", ("answer", "question_type"), "mmsi"),
    ):
        given = [{key: reference[key] for key in keys} for reference in references]
        if name == "blink":
            given = [{**reference, "task": "Relative_Depth"} for reference in given]
        for rule in ("strict", mode):
            result = load_metric(name).compute(predictions=texts, references=given, mode=rule)
            assert result["overall"] == pytest.approx(
                sum(choice_score(text, "B", mode=rule) for text in texts) / len(texts)
            )
        assert load_metric(name).compute(predictions=texts, references=given)["num_unparsed"] == 5
        metric = load_metric(name)
        assert "strict" in metric.inputs_description and metric.citation and metric.description


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="unknown mode 'loose'; known are strict, vgllm"):
        extract_choice("A", mode="loose")
    calls = (cv_bench_metric, "mmsi", 2), (blink_metric, "spar", 1), (mmsi_metric, "vgllm", 1)
    for metric, other, num_columns in calls:
        with pytest.raises(ValueError, match=f"unknown mode '{other}'; known are strict"):
            metric(["A"], ["A"], *[["Count"]] * num_columns, mode=other)
    for mode in EXTRACTION_MODES:
        assert extract_choice(None, mode=mode) is None
        with pytest.raises(ValueError, match="letters must be capitals from A to Z, got 'a]'"):
            extract_choice("A", "a]", mode)
    for answer in ("", "AB", "(B", None):
        with pytest.raises(ValueError, match="expected one letter"):
            answer_letter(answer)
    with pytest.raises(ValueError, match="the true answer is 'G'; expected one of the letters ABCDEF"):
        choice_score("G", "G")
    with pytest.raises(ValueError, match="unknown source 'Flickr'; known are ADE20K"):
        cv_bench_aggregate([1.0], ["Flickr"], ["Count"])
    with pytest.raises(ValueError, match="unknown task 'Colour'; known are Count"):
        cv_bench_aggregate([1.0], ["COCO"], ["Colour"])
    with pytest.raises(ValueError, match="unknown task 'colour'; known are art_style"):
        blink_aggregate([1.0], ["Colour"])
    with pytest.raises(ValueError, match="got 2 scores, 1 groups"):
        mmsi_aggregate([1.0, 0.0], ["a"])
    with pytest.raises(ValueError, match="score 1 is nan; expected a finite number"):
        blink_aggregate([1.0, math.nan], ["jigsaw", "jigsaw"])
