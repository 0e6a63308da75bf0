"""Questions about rendered rooms: the answers' text and numbers are true of the views."""

import json

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_boxes, parse_frame, parse_points
from gap_mllm.processing.data import ROOM_TASKS, CannotAskError, load_multiview, make_question, render_room
from gap_mllm.processing.data.rooms.attributes import piece_attributes, size_word
from gap_mllm.processing.data.rooms.room_scenes import make_questions
from gap_mllm.processing.prompts_gap_mllm import prompt_text


@pytest.fixture(scope="module")
def scenes():
    return [render_room(seed, height=96, width=96) for seed in range(12)]


def shares(scene):
    """Share of each view's pixels that shows each piece, (V, N)."""
    return np.stack([(scene.instance_ids == piece + 1).mean((1, 2)) for piece in range(len(scene.labels))], 1)


def test_a_marked_pixel_is_labelled_and_placed_as_the_maps_say(scenes):
    on_furniture, views, labels = [], set(), set()
    for scene in scenes:
        points = scene.points_in_first_view()
        for question in make_questions(scene, "reconstruction", 12):
            (mark,) = question.marks
            x, y = mark.xy
            shown = scene.instance_ids[mark.view, y, x]
            around = scene.instance_ids[mark.view, [y, y, y - 1, y + 1], [x - 1, x + 1, x, x]]
            assert (around == shown).all()
            answer = parse_points(question.answer).first
            assert answer.label == scene.label_of(shown) == question.points[0].label
            np.testing.assert_allclose(question.points[0].xyz, points[mark.view, y, x], atol=1e-5)
            np.testing.assert_allclose(answer.point, points[mark.view, y, x], atol=0.0051)
            on_furniture.append(shown > 0)
            views.add(mark.view)
            labels.add(answer.label)
    assert 0.48 < np.mean(on_furniture) < 0.72 and views == {0, 1, 2, 3}
    assert {"floor", "wall"} < labels


def test_questions_are_worded_as_the_models_know_them(scenes):
    scene = scenes[1]
    mark, detection = make_question(scene, "reconstruction", color="cyan"), make_question(scene, "detection3d")
    box, caption = make_question(scene, "grounding_box"), make_question(scene, "dense_caption")
    frame = make_question(scene, "grounding_frame")
    assert mark.marks[0].color == "cyan" and mark.question == prompt_text("reconstruction", color="cyan")
    assert detection.question == prompt_text("detection3d")
    assert box.question == prompt_text("grounding_box", description=box.truth.description)
    assert caption.question == prompt_text("dense_caption", location=caption.boxes[0].numbers[:3])
    numbers = "".join(f"Frame-{view}: <image>" for view in range(4))
    assert frame.question == numbers + prompt_text("grounding_frame", description=frame.truth.description)


def test_detection_lists_the_visible_furniture_in_the_order_of_its_appearance(scenes):
    for scene in scenes:
        question = make_question(scene, "detection3d")
        is_visible, pieces = shares(scene) >= 0.004, [int(box.instance_id) - 1 for box in question.boxes]
        assert sorted(pieces) == np.nonzero(is_visible.any(0))[0].tolist()
        assert (np.diff(is_visible.argmax(0)[pieces]) >= 0).all()
        boxes = parse_boxes(question.answer, require_label=True)
        assert not boxes.rejected and [box.label for box in boxes.items] == [scene.labels[piece] for piece in pieces]
        truth = scene.boxes_in_first_view()[pieces]
        np.testing.assert_allclose([box.bbox_3d for box in boxes.items], truth, atol=0.0051)
        np.testing.assert_allclose([box.numbers for box in question.boxes], truth, atol=1e-9)


def test_grounding_names_one_piece_and_answers_with_its_first_clear_view_and_box(scenes):
    for scene in scenes:
        for task_seed in range(3):
            first = make_question(scene, "grounding_frame", task_seed)
            (piece,) = (int(box.instance_id) - 1 for box in first.boxes)
            seen = shares(scene)[:, piece]
            frame = parse_frame(first.answer, num_frames=4).first
            assert frame == first.target_frame == first.truth.frame
            assert seen[frame] >= 0.012 and (seen[:frame] < 0.006).all()
            second = make_question(scene, "grounding_box", task_seed)
            for question in (first, second):
                (piece,) = (int(box.instance_id) - 1 for box in question.boxes)
                name = f"{scene.colors[piece]} {scene.labels[piece]}"
                assert question.truth.description.split(name)[0] in ("the ", "the tall ", "the low ", "the large ",
                                                                     "the small ")  # fmt: skip
                assert f"Text: {question.truth.description}\n" in question.question
            box = parse_boxes(second.answer).first.bbox_3d
            np.testing.assert_allclose(box, scene.boxes_in_first_view()[piece], atol=0.0051)


def test_captions_are_about_the_piece_at_the_given_point(scenes):
    for scene in scenes:
        question = make_question(scene, "dense_caption", 1)
        (piece,) = (int(box.instance_id) - 1 for box in question.boxes)
        assert question.answer == question.references[0] and len(question.references) >= 2
        assert all(scene.colors[piece] in text and scene.labels[piece] in text for text in question.references)
        location = [round(float(value), 2) + 0.0 for value in scene.boxes_in_first_view()[piece, :3]]
        assert json.dumps(location) in question.question


def test_size_and_place_words():
    assert size_word(np.array([0.4, 0.4, 1.6])) == "tall"
    assert size_word(np.array([1.6, 2.0, 0.9])) == "large"
    assert size_word(np.array([0.3, 0.3, 0.4])) == "small"
    assert size_word(np.array([0.9, 0.6, 0.45])) == "low"
    assert size_word(np.array([0.9, 0.6, 0.75])) == ""
    room = render_room(0, 1, 8, 8)
    room.room_size, room.boxes = np.array([4.0, 4.0, 2.5]), room.boxes[:3]
    room.boxes[:, :7] = [[0.35, 2, 0.3, 0.6, 1.0, 0.6, 0], [2, 2, 0.3, 1, 1, 0.6, 0.7], [0.8, 2, 0.3, 1, 1, 0.6, 0]]
    room.colors = ["red", "blue", "red"]
    words = piece_attributes(room)
    assert [each.get("place") for each in words] == ["against the wall", "away from the walls", None]
    assert [each["color"] for each in words] == ["red", "blue", "red"]


@pytest.mark.parametrize("task", ROOM_TASKS)
def test_same_seeds_ask_the_same_question(task):
    first = make_question(render_room(31, height=48, width=48), task, 3)
    again = make_question(render_room(31, height=48, width=48), task, 3)
    assert (first.task, first.question, first.answer, first.marks) == (task, again.question, again.answer, again.marks)
    if task == "reconstruction":
        assert len({make_question(render_room(31), task, seed).answer for seed in range(5)}) > 1


def test_wrong_arguments_raise(scenes):
    with pytest.raises(ValueError, match="tasks names 'segmentation'; known are reconstruction"):
        make_question(scenes[0], "segmentation")
    with pytest.raises(ValueError, match="seed -1"):
        make_question(scenes[0], "detection3d", -1)


def test_views_without_furniture_can_be_marked_but_not_described():
    scene = render_room(0, height=48, width=48)
    scene.instance_ids = np.minimum(scene.instance_ids, 0)
    assert make_question(scene, "reconstruction").points[0].label in ("wall", "floor", "ceiling", "door", "window")
    for task in ("grounding_frame", "grounding_box", "dense_caption", "detection3d"):
        with pytest.raises(CannotAskError, match=f"room 0 cannot be asked a question of '{task}' in its 4 views: no "):
            make_question(scene, task)


def test_rooms_are_a_source_that_renders_what_is_asked_for():
    variety = {"sizes": ((32, 64), (64, 32)), "size_shares": (0.5, 0.5), "num_views": (3, 2),
               "num_views_shares": (0.5, 0.5)}  # fmt: skip
    rooms = load_multiview("rendered_rooms", split="selection", num_rooms=12, variety=variety, block_size=3, seed=2)
    scenes = [rooms[index] for index in range(12)]
    assert len(rooms) == 12 and {scene.task for scene in scenes} == {"scene"}
    for start in range(0, 12, 3):  # rooms of a block share size and number of views
        assert len({(len(scene.views), scene.views[0].size) for scene in scenes[start : start + 3]}) == 1
    assert {len(scene.views) for scene in scenes} == {2, 3}
    again = load_multiview("rendered_rooms", split="selection", num_rooms=5, variety=variety, block_size=3, seed=2)[4]
    assert (
        again.id == scenes[4].id == "room-selection-4" and (again.views[1].picture == scenes[4].views[1].picture).all()
    )
    other = rooms.stand_in(4, 1)
    assert other.id != again.id and other.views[0].size == again.views[0].size
    with pytest.raises(IndexError, match="room 12 of 12"):
        rooms[12]
    with pytest.raises(
        ValueError, match="rendered_rooms takes no data_dir, colour; its options are split, num_rooms,"
    ):
        load_multiview("rendered_rooms", "folder", split="test", colour=1)
    with pytest.raises(ValueError, match="index is 100000; split 'test' holds rooms 0 to 99999"):
        load_multiview("rendered_rooms", split="test", num_rooms=100_001)
    with pytest.raises(ValueError, match="num_rooms is 0; expected"):
        load_multiview("rendered_rooms", split="test", num_rooms=0)
    for wrong in ({"sizes": [[64, 64]]}, {"num_views": [2, 3], "num_views_shares": [0.5, 0.6]}):
        with pytest.raises(ValueError, match="_shares is .*; expected a share for each of"):
            load_multiview("rendered_rooms", split="test", variety=wrong)
