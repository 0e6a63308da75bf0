"""Several marks in one question: their numbers, colours, errors, the prompt, and answers in their order."""

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing import Mark, format_points, name_marks, number_marks, parse_points
from gap_mllm.processing.answer_grammar_gap_mllm import cut_after_json
from gap_mllm.processing.answers_gap_mllm import Rejection
from gap_mllm.processing.asking_gap_mllm import ANSWER_FORMS
from gap_mllm.processing.data import SceneSample, make_question, render_room
from gap_mllm.processing.prompts_gap_mllm import NUMBERED_COLORS, RECONSTRUCTION_PROMPT, build_messages


VIEWS = [Image.new("RGB", (640, 480)) for _ in range(3)]
TRIPLES = [[2, 100, 100], [0, 320, 240], [2, 400, 100]]


def text_of(messages):
    return messages[-1]["content"][-1]["text"]


def test_marks_are_numbered_coloured_and_named_in_their_order():
    marks = number_marks(TRIPLES, num_views=3)
    assert [mark.text for mark in marks] == ["1", "2", "3"] and [mark.view for mark in marks] == [2, 0, 2]
    assert name_marks(marks) == "1 (red), 2 (yellow), 3 (blue)"
    own = number_marks([Mark(0, (1, 1), "green"), [0, 5, 5], Mark(1, (1, 1), (1, 2, 3))])
    assert name_marks(own) == "1 (green), 2 (yellow), 3"  # a colour without a name is told by its number
    many = number_marks([[0, 20 * x, 0] for x in range(10)])
    assert [mark.color for mark in many] == [*NUMBERED_COLORS, *NUMBERED_COLORS[:2]]
    assert len({mark.text for mark in many}) == 10
    assert name_marks(number_marks([1, 5, 5])) == name_marks(number_marks(Mark(1, (5, 5)))) == "1 (red)"


def test_numbers_tell_marks_of_one_colour_apart(tiny_processor):
    pixel = (320, 240)
    drawn = [
        np.asarray(tiny_processor.apply_visual_prompt(VIEWS[:1], [Mark(0, pixel, "red", text)])[0])
        for text in (None, "1", "2")
    ]
    assert not np.array_equal(drawn[1], drawn[2])
    for picture in drawn:  # the number hides neither the pixel nor the cross
        assert (picture[240, 310:331] == (255, 0, 0)).all() and (picture[230:251, 320] == (255, 0, 0)).all()
    corner = np.asarray(tiny_processor.apply_visual_prompt(VIEWS[:1], [Mark(0, (639, 479), "red", "12")])[0])
    assert (corner[479, 639] == (255, 0, 0)).all() and (corner[:479, :639] == 255).all(-1).any()


def test_messages_draw_and_name_all_marks(tiny_processor):
    messages = tiny_processor.build_messages("sparse_points", VIEWS, marks=TRIPLES)
    shown = [part["image"] for part in messages[-1]["content"][:3]]
    expected = tiny_processor.apply_visual_prompt(VIEWS, number_marks(TRIPLES))
    assert all(np.array_equal(one, other) for one, other in zip(shown, expected, strict=True)) and shown[1] is VIEWS[1]
    assert "1 (red), 2 (yellow), 3 (blue)" in text_of(messages)
    assert text_of(messages) == text_of(build_messages("sparse_points", 3, crosses="1 (red), 2 (yellow), 3 (blue)"))


def test_one_mark_is_asked_about_as_before(tiny_processor):
    messages = tiny_processor.build_messages("reconstruction", VIEWS, marks=[[1, 5, 6]])
    assert text_of(messages) == RECONSTRUCTION_PROMPT.format(color="red")
    assert text_of(messages) == (
        "A red cross marks one pixel in one of the frames.\n"
        'Output a JSON dictionary with the object name in "label" and the 3D point of the marked pixel in "pointmap" '
        "in the camera coordinate system of the first frame.\nThe 3D point format should be [x, y, z]."
    )
    plain = tiny_processor.apply_visual_prompt(VIEWS, [[1, 5, 6]])
    assert np.array_equal(messages[-1]["content"][1]["image"], plain[1])


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ([], "there are no marks; give one or more"),
        ([[0, 5, 5], [3, 5, 5]], "mark 2 is on view 3, but the scene has 3 views"),
        ([[0, 5, 5], [-1, 5, 5]], "mark 2 is on view -1"),
        ([[0, 5, 5], [1, 5, 5], [0, 5, 5]], r"marks 1 and 3 are both on pixel \(5.0, 5.0\) of view 0"),
        ([[0, 5, 5], [1, 640, 5]], r"view 1: pixel \(x=640, y=5\) lies outside the picture of 640 x 480"),
        ([[0, 5, 5], [1, 4]], r"\[1, 4\] is no mark"),
        ([[0, 5.5, 5]], "is no pair of whole numbers"),
    ],
)
def test_bad_marks_are_named(marks, message, tiny_processor):
    with pytest.raises(ValueError, match=message):
        tiny_processor.build_messages("sparse_points", VIEWS, marks=marks)


def test_the_task_must_fit_the_number_of_marks(tiny_processor):
    for marks in ([], TRIPLES):
        with pytest.raises(ValueError, match=f"asks about one mark, got {len(marks)}; .*'sparse_points'"):
            tiny_processor.build_messages("reconstruction", VIEWS, marks=marks)
    with pytest.raises(ValueError, match="needs `crosses`"):
        build_messages("sparse_points", 3)


def test_entries_keep_the_order_of_the_marks():
    answer = parse_points('[{"label": "a", "pointmap": [1, 2, 3]}, {"pointmap": [1]}, {"pointmap": [4, 5, 6]}]')
    assert [isinstance(entry, Rejection) for entry in answer.entries] == [False, True, False]
    assert answer.entries[2].point == (4, 5, 6) and len(answer.items) == 2 and len(answer.rejected) == 1


def test_generation_ends_with_the_list_and_not_with_its_first_entry():
    text, form = format_points(["bed", None], [[0, 0, 1], [0, 1, 2]]), ANSWER_FORMS["sparse_points"]
    assert cut_after_json(text + " and more", form.keys, form.is_list) == text
    assert len(parse_points(text).items) == 2


def test_a_made_question_draws_its_numbers_and_survives_storage(tiny_processor):
    question = make_question(render_room(3), "sparse_points")
    assert question.task == "sparse_points" and question.truth.kind == "points"
    again = SceneSample.from_row(question.to_row())
    assert again.marks == question.marks and again.marks[1].text == "2"
    marks = [Mark(mark.view, mark.xy, mark.color, mark.text) for mark in question.marks]
    expected = tiny_processor.apply_visual_prompt([view.image for view in question.views], marks)
    for one, other in zip(again.marked_images(tiny_processor.cross_size), expected, strict=True):
        assert np.array_equal(one, other)
    stored = {**question.to_row(), "task": "reconstruction"}  # as before it was a task
    assert SceneSample.from_row(stored).task == "sparse_points"
