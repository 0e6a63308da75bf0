"""Answers about several marks: held to the marks by number, and what is missing, unreadable or extra is counted."""

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import format_points
from gap_mllm.processing.scores import read_sparse_points


POINTS, LABELS = [(0.0, 0.0, 1.0), (0.0, 0.0, 2.0), (0.0, 0.0, 4.0)], ["bed", "lamp", "sofa"]


def read(text):
    return read_sparse_points(text, POINTS, LABELS)


def counts(reading):
    return reading.num_missing, reading.num_unreadable, reading.num_extra


def test_the_truth_is_right():
    reading = read(format_points(LABELS, POINTS))
    assert counts(reading) == (0, 0, 0)
    assert all(answer.error_m == 0 and answer.is_right_label for answer in reading.answers)


def test_order_decides():
    reading = read(format_points(LABELS[::-1], POINTS[::-1]))
    np.testing.assert_allclose([answer.error_m for answer in reading.answers], [3, 0, 3])
    assert [answer.is_right_label for answer in reading.answers] == [False, True, False]


def test_an_unreadable_entry_keeps_its_place():
    text = '[{"label": "bed", "pointmap": [0, 0]}, {"label": "lamp", "pointmap": [0, 0, 2]}, {"label": "sofa"}]'
    reading = read(text)
    assert [answer.error_m for answer in reading.answers] == [np.inf, 0, np.inf] and counts(reading) == (0, 2, 0)
    assert reading.answers[0].rejected == "pointmap holds 2 entries, expected 3"


@pytest.mark.parametrize(
    ("text", "expected", "reason"),
    [
        ("I cannot tell.", (3, 0, 0), "no object"),
        ("", (3, 0, 0), "no object"),
        (format_points(LABELS[:1], POINTS[:1]), (2, 0, 0), "missing"),
        (format_points(LABELS, POINTS).rpartition("{")[0] + '{"label": "so', (1, 0, 0), "cut off"),
        (format_points([*LABELS, "box", "box"], [*POINTS, *POINTS[:2]]), (0, 0, 2), None),
    ],
)
def test_what_is_missing_or_too_much_is_counted(text, expected, reason):
    reading = read(text)
    assert counts(reading) == expected and len(reading.answers) == 3
    assert reading.answers[-1].rejected == reason


def test_marks_and_labels_must_fit():
    for points, labels in (([], []), (POINTS, LABELS[:2])):
        with pytest.raises(ValueError, match="expected one of each for every mark"):
            read_sparse_points("", points, labels)
