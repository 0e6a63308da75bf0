"""Rooms as training data: visits, shares of questions, and targets."""

from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.training.rooms import REVISIT_GAP, RoomGeometryDataset, RoomQuestionDataset, RoomQuestions, read_variety
from gap_mllm.training.schedule import Schedule


SMALL = RoomVariety(sizes=((32, 32),), size_shares=(1.0,), num_views=(2,), num_views_shares=(1.0,), mark_arms=(2, 2))
BLOCK = 2


def make(num_items, **questions):
    return RoomQuestionDataset(RenderedRooms("train", num_items, SMALL, BLOCK), RoomQuestions(**questions))


def told(sample):
    return [question.answer for question in sample]


def shown(sample):
    """The pictures with the crosses of all questions, (V, H, W, 3)."""
    marks = tuple(mark for question in sample for mark in question.marks)
    return np.stack([np.asarray(image) for image in replace(sample[0], marks=marks).marked_images()])


@pytest.fixture
def drawn(monkeypatch):
    """Numbers of the rooms that were rendered."""
    numbers, draw = [], RenderedRooms.draw
    monkeypatch.setattr(RenderedRooms, "draw", lambda rooms, i, *rest: numbers.append(i) or draw(rooms, i, *rest))
    return numbers


@pytest.mark.parametrize(("num_items", "visits"), [(40, 2), (60, 3), (4, 2), (10, 1)])
def test_every_room_is_visited_as_often_as_asked(num_items, visits):
    dataset = make(num_items, counts={"reconstruction": 1}, visits=visits)
    seen = [dataset._room(index) for index in range(num_items)]
    assert sorted(seen) == [(room, visit) for room in range(num_items // visits) for visit in range(visits)]
    for start in range(0, num_items, BLOCK):  # a block stays together: its rooms share size and number of views
        block = seen[start : start + BLOCK]
        assert {room // BLOCK for room, _ in block} == {block[0][0] // BLOCK}


def test_visits_show_the_same_room_with_other_questions_and_crosses():
    dataset = make(40, counts={"reconstruction": 2}, visits=2)
    later = 2 * BLOCK * REVISIT_GAP + BLOCK  # the second visit of room 0
    one, other = dataset[0], dataset[later]
    assert {question.id.split("/")[0] for question in one + other} == {"room-train-0"}
    assert np.array_equal(one[0].views[0].depth_m, other[0].views[0].depth_m)
    assert not np.array_equal(shown(one), shown(other))
    assert not set(told(one)) & set(told(other))


def test_items_do_not_depend_on_what_was_asked_before():
    asked, fresh = make(40, counts={"reconstruction": 1}, visits=2), make(40, counts={"reconstruction": 1}, visits=2)
    in_order = [asked[index] for index in range(40)]
    for index in (37, 3, 20, 0):
        assert told(fresh[index]) == told(in_order[index])
        assert np.array_equal(shown(fresh[index]), shown(in_order[index]))


def test_a_process_in_order_renders_rooms_once_and_keeps_few(drawn):
    dataset = make(80, counts={"reconstruction": 1}, visits=2)
    most = 0
    for index in range(80):
        dataset._visited(*dataset._room(index))
        most = max(most, len(dataset._kept))
    returning = REVISIT_GAP * BLOCK  # rooms of the last blocks come early, and once more at the end
    assert len(drawn) == 40 + returning and most <= (REVISIT_GAP + 1) * 2 * BLOCK


def test_what_never_comes_back_to_a_process_is_dropped(drawn):
    dataset = make(120, counts={"reconstruction": 1}, visits=2)
    for index in range(120):
        room, visit = dataset._room(index)
        if visit == 0:
            dataset._visited(room, visit)
    assert len(drawn) == 60 and len(dataset._kept) <= (REVISIT_GAP + 1) * 2 * BLOCK


def test_one_visit_is_the_rooms_in_their_order():
    dataset = make(12, counts={"reconstruction": 1})
    assert [dataset[index][0].id for index in (0, 5, 11)] == [
        f"room-train-{index}/reconstruction-0" for index in (0, 5, 11)
    ]
    assert not dataset._kept


def test_a_loop_over_the_items_ends():
    questions = make(3, counts={"reconstruction": 1})
    assert [told(item) for item in questions] == [told(questions[place]) for place in range(3)]
    assert len(list(RoomGeometryDataset(questions.rooms))) == 3
    for items in (questions, RoomGeometryDataset(questions.rooms)):
        with pytest.raises(IndexError, match="item 3 of 3"):
            items[3]


def test_a_fraction_is_a_share_of_blocks():
    dataset = make(400, counts={"reconstruction": 1, "grounding_box": 0.5})
    counts = [dataset._whole_counts(index) for index in range(400)]
    assert all(counts[index] == counts[index + 1] for index in range(0, 400, BLOCK))
    share = np.mean([count["grounding_box"] for count in counts])
    assert {count["grounding_box"] for count in counts} == {0, 1} and 0.4 < share < 0.6
    assert {count["reconstruction"] for count in counts} == {1}
    with_box = next(index for index in range(400) if counts[index]["grounding_box"])
    assert len(dataset[with_box]) == 2 and "bbox_3d" in told(dataset[with_box])[1]


def test_counts_follow_the_run():
    counts = {"reconstruction": {0: 3, 0.5: 1, "kind": "step"}, "grounding_box": {0: 0, 0.5: 0, 1: 2}}
    dataset = make(400, counts=counts)
    assert dataset.is_scheduled and not make(4).is_scheduled
    made = [dataset._whole_counts(index) for index in range(400)]
    assert all(made[index] == made[index + 1] for index in range(0, 400, BLOCK))
    assert [count["reconstruction"] for count in made] == [3] * 200 + [1] * 200
    boxes = [count["grounding_box"] for count in made]
    assert boxes[:200] == [0] * 200 and 0 < np.mean(boxes[200:300]) < 1 < np.mean(boxes[300:]) <= 2
    assert len(dataset[0]) == 3


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ({"counts": {"reconstruction": -1}}, "counts has {'reconstruction': -1}; expected 0 or more"),
        ({"counts": {"reconstruction": float("nan")}}, "counts has {'reconstruction': nan}; expected 0 or more"),
        ({"counts": {"reconstruction": 3}, "mark_colors": ["red"]}, "asks for 3 marked pixels, but mark_colors has 1"),
        (
            {"counts": {"reconstruction": {0: 1, 1: 0}, "grounding_box": {0: 0, 1: 1}}},
            "counts is {.*} when 0.001 of the run is done; expected 1 or more of some task",
        ),
        ({"counts": {"reconstruction": {0: 1, 1: 9}}}, "marked pixels, but mark_colors has"),
        ({"counts": {"reconstruction": {0: 1, "kind": "stp"}}}, "counts.reconstruction: kind is 'stp' .did you mean"),
        ({"counts": {"poetry": 1}}, "counts names 'poetry'; known are reconstruction"),
        ({"visits": 0}, "visits is 0; expected 1 or more"),
        ({"phrasings": "held_out"}, "phrasings is 'held_out'; expected one of all, first"),
        ({"counts": {"grounding_box": 0.5}}, "counts is {'grounding_box': 0.5}; expected 1 or more of some task"),
        ({"counts": {}}, "counts is {}; expected 1 or more of some task"),
        ({"grounding_frame_share": 0.1, "grounding_frame_count": 0}, "grounding_frame_count is 0; expected 1 or more"),
    ],
)
def test_wrong_questions_are_refused(questions, message):
    with pytest.raises(ValueError, match=message):
        RoomQuestions(**questions)


def test_questions_are_worded_in_many_ways_where_asked_for():
    counts = {"reconstruction": 2, "camera_distance": 1, "camera_turn": 0}
    usual, worded, again = (make(24, counts=counts, **more) for more in ({}, *[{"phrasings": "all"}] * 2))
    own, texts = 0, set()
    for index in range(24):
        first, other = usual[index], worded[index]
        assert [sample.question for sample in other] == [sample.question for sample in again[index]]
        assert told(first) == told(other) and np.array_equal(shown(first), shown(other))
        assert all(sample.metadata["template"].endswith("/0") for sample in first)
        own += sum(one.question == sample.question for one, sample in zip(first, other, strict=True))
        texts |= {sample.metadata["template"] for sample in other}
    assert 12 < own < 36 and len(texts) > 10  # a third of 72


def test_rooms_that_only_ask_for_frames_need_no_other_counts():
    dataset = make(4, counts={}, grounding_frame_share=1.0, grounding_frame_count=2)
    asked = [dataset[index] for index in range(4)]
    assert {sample.task for samples in asked for sample in samples} == {"grounding_frame"}
    assert {len(samples) for samples in asked} <= {1, 2}  # fewer where few objects are clear


def test_the_share_of_rooms_in_a_style_follows_the_run():
    """The recipe of the encoder: half of the rooms, from five eighths of the run on a quarter."""
    settings = {"style": {"num_shapes": [0, 5]}, "style_share": {"0": 0.5, "0.625": 0.25, "kind": "step"}}
    variety = read_variety(settings)
    rng = np.random.default_rng(0)
    share = {done: np.mean([variety.draw_style(rng, done) is not None for _ in range(2000)]) for done in (0.6, 0.7)}
    assert share == {0.6: pytest.approx(0.5, abs=0.03), 0.7: pytest.approx(0.25, abs=0.03)}
    rooms = RenderedRooms("train", 8, replace(variety, style_share=Schedule({0: 0.0, 0.5: 1.0}, "step")))
    plain = RenderedRooms("train", 8, replace(variety, style_share=1e-9))
    labels = [[[box.label for box in each[index].boxes] for index in range(8)] for each in (rooms, plain)]
    assert labels[0][:4] == labels[1][:4] and all(a != b for a, b in zip(labels[0][4:], labels[1][4:], strict=True))


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ({0: 0.5, 2: 0.1}, r"variety.style_share: a share of the run is 2"),
        ({0: 0.5, 1: 1.5}, r"style_share is Schedule\(.*\) with style .*; expected 0 to 1, and a style"),
        ({0: 0.5, 1: -0.5}, r"variety.style_share at 1 is -0.5"),
        ("half", "style_share is half; expected a number from 0 to 1"),
    ],
)
def test_shares_of_a_style_that_cannot_be_are_named(share, message):
    with pytest.raises(ValueError, match=message):
        read_variety({"style": {}, "style_share": share})
    with pytest.raises(ValueError, match="Values by shares of the run are for the variety of train-geometry-encoder"):
        RoomVariety(style={}, style_share=share if isinstance(share, dict) else {0: 0.5})
