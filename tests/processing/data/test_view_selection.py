"""Thinning the views of a row: what must stay, and that tags, marks, boxes, points and texts follow."""

import numpy as np
import pytest

from gap_mllm.processing.data import RecordError, SceneSample
from gap_mllm.processing.data.scene_sample import Box, Point, SceneMark, View
from gap_mllm.processing.data.view_selection import named_views, retag_question, select_views, spread_views


def row_with(num_views=6, **fields):
    return SceneSample(id="r", views=tuple(View(frame_id=10 * view) for view in range(num_views)), **fields)


def frames(sample):
    return [view.frame_id for view in sample.views]


def point(view):
    return Point(view, None, None)


def box(frame_index):
    return Box(np.ones(9), "zxy", "camera", frame_index)


def numbered(num_views, first=0, end="", space=" "):
    return "".join(f"Frame-{first + view}:{space}<image>{end}" for view in range(num_views))


def test_views_that_are_spoken_of_are_named():
    mark = SceneMark(1, "cross", "red", (3, 4))
    row = row_with(points=(point(2), point(None)), boxes=(box(3), box(None)), marks=(mark,), target_frame=4)
    assert named_views(row) == {0, 1, 2, 3, 4}
    assert named_views(row_with()) == {0}
    assert named_views(row_with(question=numbered(6) + "Is it in Frame-2?", choices=("Frame-5",))) == {0, 2, 5}
    assert named_views(row_with(question=numbered(6, first=1) + "Where?", answer="Frame-1 and Frame-3")) == {0, 2}


@pytest.mark.parametrize("question", ["Is it in Frame-2?", "<image>" * 6 + "Frame-2?", numbered(6) + "Frame-6?"])
def test_a_frame_that_no_tag_numbers_is_refused(question):
    with pytest.raises(RecordError, match="the text speaks of Frame-") as caught:
        spread_views(row_with(question=question), 3)
    assert (caught.value.field, caught.value.record_id) == ("question", "r")


@pytest.mark.parametrize(
    ("max_views", "expected"),
    [(1, [0]), (2, [0, 5]), (3, [0, 2, 5]), (4, [0, 1, 3, 5]), (6, [0, 1, 2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 5])],
)
def test_views_are_spread_evenly(max_views, expected):
    assert spread_views(row_with(), max_views) == expected


def test_named_views_stay_when_others_go():
    assert spread_views(row_with(target_frame=3), 2) == [0, 3]
    assert spread_views(row_with(target_frame=3), 4) == [0, 2, 3, 5]
    with pytest.raises(RecordError, match="speaks of 2 views, more than max_views=1") as caught:
        spread_views(row_with(target_frame=3), 1)
    assert caught.value.field == "views"


def test_indices_follow_the_views():
    mark = SceneMark(4, "cross", "red", (3, 4))
    row = row_with(
        question=numbered(6) + "\nIs it Frame-4?",
        answer='```json\n{"frame": 2}```',
        target_frame=2,
        points=(point(4), point(None)),
        boxes=(box(2), box(None)),
        marks=(mark,),
        choices=("Frame-2", "both Frame-4 and Frame-0"),
        references=("Frame-2",),
    )
    kept = select_views(row, [0, 4, 2])
    assert frames(kept) == [0, 40, 20]
    assert kept.question == "Frame-0: <image>Frame-1: <image>Frame-2: <image>\nIs it Frame-1?"
    assert kept.answer == '```json\n{"frame": 2}```' and kept.target_frame == 2
    assert [part.view for part in kept.points] == [1, None]
    assert [part.frame_index for part in kept.boxes] == [2, None]
    assert kept.marks[0].view == 1
    assert kept.choices == ("Frame-2", "both Frame-1 and Frame-0") and kept.references == ("Frame-2",)
    assert frames(row) == [0, 10, 20, 30, 40, 50] and row.marks[0].view == 4  # the row itself is not changed


def test_the_answered_frame_is_renumbered():
    row = row_with(12, answer='{"frame": 11}', target_frame=11)
    kept = select_views(row, [0, 1, 11])
    assert (kept.answer, kept.target_frame) == ('{"frame": 2}', 2)
    row = row_with(12, answer='{"frame" : 1, "bbox_3d": [1, 11, 1]}', target_frame=1)
    assert select_views(row, [0, 11, 1]).answer == '{"frame" : 2, "bbox_3d": [1, 11, 1]}'
    assert select_views(row_with(12, target_frame=11), [0, 11]).answer is None


@pytest.mark.parametrize("keep", [[], [1, 2], [0, 0], [0, 6], [0, -1]])
def test_wrong_views_are_refused(keep):
    with pytest.raises(ValueError, match="expected distinct views below 6, the first of them 0"):
        select_views(row_with(), keep)


@pytest.mark.parametrize("keep", [None, 3, "01", b"01", [0, 1.0], [0, "1"], [False, True], [0, None], [[0], [1]]])
def test_views_that_are_no_integers_are_refused(keep):
    with pytest.raises(TypeError, match="expected a list of integers, indices of views"):
        select_views(row_with(), keep)


def test_arrays_and_ranges_name_views():
    for keep in (np.arange(3), range(3), (0, 1, 2)):
        assert select_views(row_with(target_frame=2), keep) == select_views(row_with(target_frame=2), [0, 1, 2])


def test_numbers_of_views_that_are_none_are_refused():
    for bad in (0, -1):
        with pytest.raises(ValueError, match=f"max_views is {bad}; expected 1 or more"):
            spread_views(row_with(), bad)
    for bad in ("2", 1.5, True, float("nan"), None):
        with pytest.raises(TypeError, match="max_views is .*; expected an integer of at least 1"):
            spread_views(row_with(), bad)


def test_a_view_that_is_spoken_of_is_not_lost():
    with pytest.raises(RecordError, match="speaks of view 3, which is not kept") as caught:
        select_views(row_with(target_frame=3), [0, 1])
    assert caught.value.record_id == "r"


@pytest.mark.parametrize(
    ("question", "keep", "expected"),
    [
        (None, [0, 2], None),
        ("What?", [0, 2], "What?"),
        ("<image><image><image>\nWhat?", [0, 2], "<image><image>\nWhat?"),
        ("<image>\n<image>\n<image>\nWhat?", [0, 2], "<image>\n<image>\nWhat?"),
        ("<image>\n<image>\n<image>\nWhat?", [0], "<image>\nWhat?"),
        ("See <image>, <image> and <image>.", [0, 1], "See <image>, <image>."),
        (numbered(3) + "What?", [0, 2], "Frame-0: <image>Frame-1: <image>What?"),
        (numbered(3, first=1, end="\n") + "What?", [0, 2], "Frame-1: <image>\nFrame-2: <image>\nWhat?"),
        (numbered(3, space="") + "What?", [0, 2], "Frame-0:<image>Frame-1:<image>What?"),
        ("Frame-5: <image>Frame-9: <image>Frame-7: <image>", [0, 2], "Frame-5: <image>Frame-7: <image>"),
        ("<image>Frame-1: <image>Frame-2: <image>", [0, 2], "<image>Frame-2: <image>"),
    ],
)
def test_tags_follow_the_views(question, keep, expected):
    assert retag_question(question, 3, keep) == expected


def test_tags_of_another_number_than_views_are_refused():
    with pytest.raises(RecordError, match="2 <image> tags for 3 views") as caught:
        retag_question("<image><image>", 3, [0])
    assert caught.value.field == "question"


def test_a_row_that_keeps_all_its_views_stays_as_it_is():
    row = row_with(question=numbered(6) + "Frame-3?", answer="Frame-2", target_frame=5)
    assert select_views(row, list(range(6))) == row


def test_views_that_an_answer_was_computed_from_are_kept():
    row = row_with(metadata={"keep_views": [0, 2, 4], "note": "é"})
    assert named_views(row) == {0, 2, 4}
    thinned = select_views(row, spread_views(row, 4))
    assert thinned.metadata["note"] == "é"
    kept = thinned.metadata["keep_views"]
    assert [thinned.views[view] for view in kept] == [row.views[view] for view in (0, 2, 4)]
