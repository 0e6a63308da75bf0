"""Predictions paired with references by id."""

import math

import pytest

from gap_mllm.evaluation import align_by_id
from gap_mllm.evaluation.metrics.records import check_unique, mean_of_known, mean_or_nan, means_by_group
from gap_mllm.processing.scores.reference_checks import as_text, check_choice, check_equal_lengths, check_text


REFERENCES = [{"id": "b", "answer": "1"}, {"id": "a", "answer": "2"}]


def test_pairs_come_in_the_order_of_the_references():
    pairs = align_by_id([{"id": "a", "text": "x"}, {"id": "b", "text": "y"}], REFERENCES)
    assert [(prediction["text"], reference["answer"]) for prediction, reference in pairs] == [("y", "1"), ("x", "2")]
    assert align_by_id([], []) == []


def test_ids_that_do_not_match_are_named():
    with pytest.raises(ValueError, match=r"lack 1 of 2 ids of the references \('a'\) and have 1 others \('c'\)"):
        align_by_id([{"id": "b"}, {"id": "c"}], REFERENCES)
    with pytest.raises(ValueError, match="lack 2 of 2 ids"):
        align_by_id([], REFERENCES)
    with pytest.raises(ValueError, match="predictions has 1 ids more than once \\('a'\\)"):
        align_by_id([{"id": "a"}, {"id": "a"}, {"id": "b"}], REFERENCES)
    with pytest.raises(ValueError, match="references has 1 ids more than once"):
        align_by_id([{"id": "a"}], [{"id": "a"}, {"id": "a"}])
    with pytest.raises(ValueError, match="1 of 2 predictions have no 'id'"):
        align_by_id([{"id": "a"}, {"text": "x"}], REFERENCES)
    with pytest.raises(ValueError, match=r"references\[1\] is 'b'; expected a dict with 'id'"):
        align_by_id([{"id": "a"}], [{"id": "a"}, "b"])
    for value in (math.nan, [], None, True):
        with pytest.raises(ValueError, match=r"ids\[1\] has the id .*; expected a text or a number"):
            check_unique(["a", value])
    with pytest.raises(ValueError, match=r"7 ids more than once \(0, 1, 2, 3, 4, \.\.\)"):
        check_unique([*range(7), *range(7)])


def test_columns_and_texts_are_checked():
    assert check_equal_lengths(a=[1], b=[2]) == 1 and check_text("", "a text") == ""
    with pytest.raises(ValueError, match="got 1 a, 2 b; give equally many"):
        check_equal_lengths(a=[1], b=[2, 3])
    with pytest.raises(TypeError, match="answer 3 is None; expected text"):
        check_text(None, "answer 3")
    assert as_text("x") == "x" and as_text(None) is None and as_text(b"x") is None
    with pytest.raises(ValueError, match="unknown mode 'x'; known are a, b"):
        check_choice("x", "mode", ("a", "b"))


def test_means():
    assert means_by_group([1.0, 0.0, 1], ["b", "b", "a"]) == {"b": 0.5, "a": 1.0}
    assert mean_or_nan([1, 2]) == 1.5 and math.isnan(mean_or_nan([]))
    assert mean_of_known([1, math.nan, 2]) == 1.5 and math.isnan(mean_of_known([math.nan]))
    with pytest.raises(ValueError, match="score 0 is inf"):
        means_by_group([math.inf], ["a"])
    with pytest.raises(ValueError, match="score 1 is None; expected a finite number"):
        means_by_group([1, None], ["a", "a"])
