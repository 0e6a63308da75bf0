"""VSTI-Bench and CA-VQA: scores worked out by hand."""

import pytest

from gap_mllm.evaluation import (
    ca_vqa_aggregate,
    ca_vqa_rate,
    ca_vqa_read,
    load_metric,
    vstibench_aggregate,
    vstibench_rate,
    vstibench_read,
)
from gap_mllm.evaluation.metrics.vstibench import CHOICE_TYPES, NUMBER_TYPES


@pytest.mark.parametrize(
    ("text", "kind", "answer", "strict", "lenient"),
    [
        ("B", "camera_movement_direction", "B", 1, 1),
        ("b.", "obj_obj_relative_pos_ud", "B", 1, 1),
        ("The answer is B", "camera_obj_rel_dist_v2", "B", 0, 1),
        ("2.5 m", "camera_displacement", "2.0", 0.6, 0.6),  # off by a quarter: 0.5, .., 0.75 are kept
        ("about 2.0", "camera_obj_abs_dist", "2.0", 0, 1),
        ("", "camera_obj_dist_change", "2.0", 0, 0),
    ],
)
def test_vstibench_answers(text, kind, answer, strict, lenient):
    for mode, score in (("strict", strict), ("lenient", lenient)):
        assert vstibench_rate(vstibench_read(text, kind, mode), answer, kind, mode) == score


def test_vstibench_averages():
    kinds = [*CHOICE_TYPES, *NUMBER_TYPES]
    scores = [1, 0.5, 0, 1, 1, 0.4, 0.2, 0.6, 0.8, 0.3]
    means = vstibench_aggregate(scores, kinds)
    assert means["obj_obj_relative_pos"] == 0.5 and means["camera_obj_rel_dist"] == pytest.approx(0.8)
    assert means["overall"] == pytest.approx((0.5 + 0.8 + 0.2 + 0.6 + 0.8) / 5)
    assert means["types_overall"] == pytest.approx(sum(scores) / 10) and means["missing"] == []
    assert vstibench_aggregate([1.0], ["camera_displacement"])["missing"] == [
        kind for kind in kinds if kind != "camera_displacement"
    ]
    with pytest.raises(ValueError, match="unknown question type 'colour'"):
        vstibench_read("A", "colour")
    with pytest.raises(ValueError, match="unknown mode 'lmms_eval'"):
        vstibench_read("A", "camera_displacement", "lmms_eval")


@pytest.mark.parametrize(
    ("text", "answer", "task", "correct", "error"),
    [
        ("Yes, it is.", "Yes", "binary", 1, None),
        ("no", "Yes", "binary", 0, None),
        ("There are three chairs.", "3", "cardinality", 1, None),
        ("4", "3", "cardinality", 0, None),
        ("A", "A", "multichoice", 1, None),
        ("The answer is B.", "B", "multichoice", 1, None),
        ("the chair", "chair", "multichoice", 1, None),
        ("table", "chair", "multichoice", 0, None),
        ("2.2", "2.0", "regression", 1, 0.2),  # a tenth is within it
        ("2.25 m", "2.0 m", "regression", 0, 0.25),
        ("<answer>2.0</answer> or 3", "2.0", "regression", 1, 0),
        ("far", "2.0", "regression", 0, None),
    ],
)
def test_ca_vqa_answers(text, answer, task, correct, error):
    score = ca_vqa_rate(ca_vqa_read(text, task), answer, task)
    assert score["correct"] == correct and score["error"] == (error if error is None else pytest.approx(error))


def test_ca_vqa_averages_and_wrong_truths():
    scores = [{"correct": 1.0, "error": None}, {"correct": 0.0, "error": 0.5}, {"correct": 1.0, "error": 0.1}]
    means = ca_vqa_aggregate(scores, ["binary", "regression", "regression"])
    assert (means["binary"], means["regression"], means["overall"]) == (1, 0.5, 0.75)
    assert means["regression_error"] == pytest.approx(0.3) and means["missing"] == ["cardinality", "multichoice"]
    with pytest.raises(ValueError, match="reference 0: the answer of a regression question is 'far'"):
        load_metric("ca_vqa").compute(predictions=["1"], references=[{"answer": "far", "task": "regression"}])
    with pytest.raises(ValueError, match="unknown task 'grounding2d'; known are binary"):
        ca_vqa_read("1", "grounding2d")
