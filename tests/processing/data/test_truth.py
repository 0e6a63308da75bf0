"""Truth before words: answers are worded from structure, in one place, and read back where they came as text."""

from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_boxes, parse_frame, parse_points
from gap_mllm.processing.data import SceneSample
from gap_mllm.processing.data.answer_texts import holds_numbers, match_parts, read_truth
from gap_mllm.processing.data.scene_sample import Box, Point, View
from gap_mllm.processing.data.truth import Truth, answered, render_answer, rounded_number


BOXES = np.array([[1, 2, 3, 0.5, 0.6, 0.7, 0.1, 0, 0], [-1, 0.255, 2, 1, 2, 0.001, 0, 0.2, 0.3]])
POINTS = [[1.0, 0.5, 2.0], [-0.001, 1.2345, 3]]


def sample_of(text, **fields):
    boxes = tuple(Box(numbers, "zxy", "camera", 0) for numbers in BOXES)
    points = tuple(Point(0, (1, 2), np.array(xyz)) for xyz in POINTS)
    pose = np.eye(4)
    views = tuple(View(camera_to_world=pose) for _ in range(3))
    return SceneSample(id="s", task="detection3d", answer=text, boxes=boxes, points=points, views=views, **fields)


@pytest.mark.parametrize(
    ("truth", "text"),
    [
        (Truth("point", answered(POINTS[:1], ["bed"])), '```json\n{"label": "bed", "pointmap": [1.0, 0.5, 2.0]}\n```'),
        (
            Truth("points", answered(POINTS), decimals=3),
            '```json\n[\n\t{"pointmap": [1.0, 0.5, 2.0]},\n\t{"pointmap": [-0.001, 1.234, 3.0]}\n]```',
        ),
        (
            Truth("boxes", answered(BOXES, ["bed", None])),
            '```json\n[\n\t{"label": "bed", "bbox_3d": [1.0, 2.0, 3.0, 0.5, 0.6, 0.7, 0.1, 0.0, 0.0]},\n\t'
            '{"bbox_3d": [-1.0, 0.26, 2.0, 1.0, 2.0, 0.01, 0.0, 0.2, 0.3]}\n]```',
        ),
        (
            Truth("box", answered(BOXES[:1]), decimals=0),
            '```json\n\t{"bbox_3d": [1.0, 2.0, 3.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]}\n```',
        ),
        (Truth("frame", frame=3), '```json\n\t{"frame": 3}\n```'),
        (
            Truth("frame_box", answered(BOXES[:1]), frame=2),
            '```json\n\t{"frame": 2, "bbox_3d": [1.0, 2.0, 3.0, 0.5, 0.6, 0.7, 0.1, 0.0, 0.0]}\n```',
        ),
        (Truth("choice", choice=2), "C"),
        (Truth("number", number=1.235, unit="metres"), "1.24 metres"),
        (Truth("number", number=7, decimals=0), "7"),
        (Truth("text", text="A bed."), "A bed."),
    ],
)
def test_every_kind_is_worded_and_read_back(truth, text):
    text = text.replace("1.24 metres", f"{1.235:.2f} metres")
    assert render_answer(truth) == text
    if not holds_numbers(text):
        return
    read = read_truth(sample_of(text), text)
    assert (read.kind, read.frame, len(read.items)) == (truth.kind, truth.frame, len(truth.items))
    assert render_answer(read) == text  # byte for byte, in the spelling that was read


def test_numbers_are_rounded_as_they_are_written():
    assert rounded_number(Truth("number", number=2 / 3)) == 0.67


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="the kind of an answer is 'poem'; expected one of point, points"):
        render_answer(Truth("poem"))


@pytest.mark.parametrize(
    "text",
    [
        'Here: {"bbox_3d": [1, 2.00, 3.0, 0.5,0.6 , 0.70, 1e-1, 0, -0.0]}.',
        '[{"pointmap" : [1.0, 0.5, 2]}; {"pointmap":[0.00, 1.23, 3.0]}]',
        '{"frame" : 1, "bbox_3d": [1, 11, 1]}',
        '{"label": "bed", "bbox_3d": [ ]} or nothing',
    ],
)
def test_foreign_spelling_survives(text):
    truth = read_truth(sample_of(text), text)
    assert render_answer(truth) == text
    assert render_answer(replace(truth, items=tuple(replace(item, part=0) for item in truth.items))) == text


def test_objects_are_found_and_leave_without_a_trace():
    text = render_answer(Truth("boxes", answered(BOXES, ["bed", "cup"])))
    sample = sample_of(text)
    read = match_parts(sample, read_truth(sample, text), text)
    assert [item.part for item in read.items] == [0, 1]
    for truth in (read, Truth("boxes", answered(BOXES, ["bed", "cup"]))):
        left = truth.without({0})
        assert render_answer(left) == render_answer(Truth("boxes", answered(BOXES[1:], ["cup"])))
        assert [item.part for item in left.items] == [0]
        assert parse_boxes(render_answer(truth.without({0, 1}))).items == ()
    with pytest.raises(ValueError, match="no box of the sample has the numbers"):
        match_parts(replace(sample, boxes=sample.boxes[:1]), read_truth(sample, text), text)


def test_a_mirrored_truth_has_the_mirrored_numbers():
    point = Truth("point", answered(POINTS[:1], ["bed"])).mirrored()
    assert parse_points(render_answer(point)).first.point == (-1.0, 0.5, 2.0)
    box = Truth("box", answered(BOXES[1:])).mirrored()
    assert box.items[0].numbers == (1, 0.255, 2, 1, 2, 0.001, 0, 0.2, -0.3)


def test_numbers_of_a_truth_move_with_its_sample():
    sample, moved = sample_of(""), Truth("boxes", answered(BOXES)).moved(sample_of(""))
    assert [item.numbers for item in moved.items] == [tuple(box.numbers) for box in sample.boxes]
    turned = np.eye(4)
    turned[:3, 3] = 1, 0, 0
    views = (View(camera_to_world=turned), *sample.views[1:])
    shifted = replace(sample, views=views, boxes=tuple(replace(box, frame_index=1) for box in sample.boxes))
    numbers = Truth("boxes", answered(BOXES)).moved(shifted).items[0].numbers
    assert np.allclose(numbers, BOXES[0] - [1, 0, 0, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"frame": 1} or {"frame": 2}', r"names the frames \[1, 2\]"),
        ('"bbox_3d": [1, 2, 3]', "cannot be read"),
        ('{"pointmap": [1, 2, 3]}, {"pointmap": [1, 2, 3]} and {"pointmap": [1, 2, 3]}', "cannot be read"),
    ],
)
def test_texts_of_another_form_are_refused(text, match):
    with pytest.raises(ValueError, match=match):
        read_truth(sample_of(text), text)


def test_a_text_put_in_the_place_of_the_answer_counts():
    truth = Truth("frame", frame=1)
    sample = SceneSample(id="s", answer=render_answer(truth), truth=truth, target_frame=1)
    assert read_truth(sample, sample.answer) is truth
    other = replace(sample, answer='{"frame": 2}')
    assert read_truth(other, other.answer).frame == 2 == parse_frame(other.answer).first


def test_parts_that_a_truth_was_made_from_are_checked():
    """Boxes that were put in the place of the others are found again, or missed."""
    truth = Truth("boxes", answered(BOXES, ["bed", "cup"]))
    sample = replace(sample_of(render_answer(truth)), truth=truth)
    assert match_parts(sample, truth, sample.answer) == truth  # also the size below the smallest that is written
    turned = match_parts(replace(sample, boxes=sample.boxes[::-1]), truth, sample.answer)
    assert [item.part for item in turned.items] == [1, 0]
    with pytest.raises(ValueError, match="no box of the sample has the numbers"):
        match_parts(replace(sample, boxes=sample.boxes[:1]), truth, sample.answer)
