"""Questions about rendered rooms: the answers' text and numbers are true of the views."""

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_boxes, parse_frame, parse_points
from gap_mllm.processing.data import ROOM_TASKS, CannotAskError, make_question, render_room
from gap_mllm.processing.data.rooms.tasks import captions, count_pixels, size_word, visible_pieces


@pytest.fixture(scope="module")
def scenes():
    return [render_room(seed, height=96, width=96) for seed in range(12)]


def test_a_marked_pixel_is_labelled_and_placed_as_the_maps_say(scenes):
    for scene in scenes:
        points = scene.points_in_first_view()
        for task_seed in range(8):
            question = make_question(scene, "reconstruction", task_seed)
            (mark,) = question.marks
            x, y = mark.pixel
            label = scene.label_of(scene.instance_ids[mark.view, y, x])
            np.testing.assert_allclose(question.point, points[mark.view, y, x], atol=1e-5)
            answer = parse_points(question.answer).first
            assert answer.label == label == question.labels[0]
            np.testing.assert_allclose(answer.point, question.point, atol=0.0051)


def test_marks_are_mostly_on_furniture_and_use_every_view(scenes):
    questions = [make_question(scene, "reconstruction", k) for scene in scenes for k in range(30)]
    share = np.mean([question.instances[0] > 0 for question in questions])
    assert 0.5 < share < 0.7
    assert {question.marks[0].view for question in questions} == {0, 1, 2, 3}
    assert {"floor", "wall"} < {question.labels[0] for question in questions}


def test_the_colour_of_the_mark_is_named_in_the_question(scenes):
    question = make_question(scenes[0], "reconstruction", color="cyan")
    assert question.marks[0].color == "cyan" and "cyan" in question.question


def test_detection_lists_the_visible_furniture_in_the_order_of_its_appearance(scenes):
    for scene in scenes:
        question = make_question(scene, "detection3d")
        is_visible = count_pixels(scene) >= 0.004 * 96 * 96
        assert sorted(question.instances) == (np.nonzero(is_visible.any(0))[0] + 1).tolist()
        first = is_visible.argmax(0)[np.array(question.instances) - 1]
        assert (np.diff(first) >= 0).all()
        boxes = parse_boxes(question.answer, require_label=True)
        assert not boxes.rejected and [box.label for box in boxes.items] == question.labels
        np.testing.assert_allclose([box.bbox_3d for box in boxes.items], question.boxes, atol=0.0051)
        np.testing.assert_array_equal(question.boxes, scene.boxes_in_first_view()[np.array(question.instances) - 1])


def test_counted_pixels_are_those_of_the_instance_map(scenes):
    scene = scenes[1]
    counts = count_pixels(scene)
    for view in range(4):
        for piece in range(len(scene.labels)):
            assert counts[view, piece] == (scene.instance_ids[view] == piece + 1).sum()
    assert set(visible_pieces(scene)) <= set(range(1, len(scene.labels) + 1))


def test_every_room_shows_some_furniture():
    assert all(visible_pieces(render_room(seed, height=24, width=32)) for seed in (5647, *range(300, 340)))


def test_where_nothing_is_large_enough_the_largest_counts_as_visible():
    scene = render_room(0, height=48, width=48)
    shown = np.argwhere(scene.instance_ids == visible_pieces(scene)[0])[0]
    scene.instance_ids[:] = 0
    scene.instance_ids[tuple(shown)] = 2
    assert visible_pieces(scene) == [2]


def test_grounding_names_one_piece_and_answers_with_its_first_clear_view_and_box(scenes):
    for scene in scenes:
        for task_seed in range(4):
            stage_one = make_question(scene, "grounding_frame", task_seed)
            stage_two = make_question(scene, "grounding_box", task_seed)
            assert stage_one.description == stage_two.description and stage_one.instances == stage_two.instances
            (piece,) = stage_one.instances
            name = f"{scene.colors[piece - 1]} {scene.labels[piece - 1]}"
            assert stage_one.description.split(" next to ")[0].count(name) == 1
            assert stage_one.description in stage_one.question and stage_two.description in stage_two.question
            frame = parse_frame(stage_one.answer, num_frames=4).first
            assert frame == stage_one.target_frame
            counts = count_pixels(scene)[:, piece - 1]
            assert counts[frame] >= min(0.012 * 96 * 96, counts.max() / 2)
            assert (counts[:frame] < min(0.012 * 96 * 96, counts.max() / 2)).all()
            box = parse_boxes(stage_two.answer).first.bbox_3d
            np.testing.assert_allclose(box, scene.boxes_in_first_view()[piece - 1], atol=0.0051)


def test_left_right_front_and_behind_are_those_of_the_first_view(scenes):
    checked = 0
    for scene in scenes:
        centers = scene.boxes_in_first_view()[:, :3]
        names = [f"{color} {label}" for color, label in zip(scene.colors, scene.labels, strict=True)]
        for piece in visible_pieces(scene):
            text = captions(scene, piece)[0]
            for words, axis, sign in (
                ("to the left of", 0, -1),
                ("to the right of", 0, 1),
                ("in front of", 2, -1),
                ("behind", 2, 1),
            ):
                if words in text:
                    other = next(i for i, name in enumerate(names) if f"{words} the {name}" in text)
                    assert sign * (centers[piece - 1, axis] - centers[other, axis]) > 0
                    checked += 1
    assert checked > 3


def test_captions_are_about_the_piece_at_the_given_point(scenes):
    for scene in scenes:
        question = make_question(scene, "dense_caption", 1)
        (piece,) = question.instances
        assert question.answer == question.references[0] and len(question.references) >= 2
        assert all(scene.colors[piece - 1] in text and scene.labels[piece - 1] in text for text in question.references)
        location = [round(float(value), 2) + 0.0 for value in scene.boxes_in_first_view()[piece - 1, :3]]
        assert str(location) in question.question


def test_size_words():
    assert size_word(np.array([0.4, 0.4, 1.6])) == "tall"
    assert size_word(np.array([1.6, 2.0, 0.9])) == "large"
    assert size_word(np.array([0.3, 0.3, 0.4])) == "small"
    assert size_word(np.array([0.9, 0.6, 0.45])) == "low"
    assert size_word(np.array([0.9, 0.6, 0.75])) == ""


@pytest.mark.parametrize("task", ROOM_TASKS)
def test_same_seeds_ask_the_same_question(task):
    first = make_question(render_room(31, height=48, width=48), task, 3)
    again = make_question(render_room(31, height=48, width=48), task, 3)
    assert (first.task, first.question, first.answer, first.marks) == (task, again.question, again.answer, again.marks)
    if task == "reconstruction":
        assert len({make_question(render_room(31), task, seed).answer for seed in range(5)}) > 1


def test_wrong_arguments_raise(scenes):
    with pytest.raises(ValueError, match="task is 'segmentation'; expected one of"):
        make_question(scenes[0], "segmentation")
    with pytest.raises(ValueError, match="task_seed is -1"):
        make_question(scenes[0], "detection3d", -1)


def test_views_without_furniture_can_be_marked_and_detected_but_not_described():
    scene = render_room(0, height=48, width=48)
    scene.instance_ids = np.minimum(scene.instance_ids, 0)
    assert make_question(scene, "reconstruction").instances[0] <= 0
    assert parse_boxes(make_question(scene, "detection3d").answer).items == ()
    for task in ("grounding_frame", "grounding_box", "dense_caption"):
        with pytest.raises(CannotAskError, match="room 0 shows no furniture in its 4 views") as caught:
            make_question(scene, task)
        assert caught.value.reason == "no furniture is visible"


def test_a_pixel_can_be_marked_where_every_one_is_at_an_edge():
    scene = render_room(0, num_views=1, height=8, width=8)
    scene.instance_ids[0] = np.indices((8, 8)).sum(0) % 2  # floor and the first piece, as a chess board
    question = make_question(scene, "reconstruction", 1)
    x, y = question.marks[0].pixel
    assert question.instances == [scene.instance_ids[0, y, x]]
    np.testing.assert_allclose(question.point, scene.points_in_first_view()[0, y, x], atol=1e-5)
