"""Mirroring: pictures, cameras, boxes and texts of a mirrored room are those of one room that was built mirrored."""

from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import format_boxes, format_point, parse_boxes
from gap_mllm.processing.camera_geometry_gap_mllm import euler_to_matrix, project_points, transform_box
from gap_mllm.processing.data import ROOM_TASKS
from gap_mllm.processing.data.augmentation import AugmentationRefused, flip_horizontally
from gap_mllm.processing.data.augmentation.mirror_words import mirror_text
from gap_mllm.processing.data.scene_sample import SceneMark, SceneSample
from gap_mllm.processing.data.task_makers import make_tasks
from gap_mllm.processing.prompts_gap_mllm import prompt_text
from tests.processing.data.room_samples import (
    HEIGHT,
    WIDTH,
    check_geometry,
    corner_pixels,
    room_sample,
    same_corners,
    world_points,
)


def refused(match):
    return pytest.raises(AugmentationRefused, match=match)


def test_corners_of_boxes_land_on_mirrored_pixels():
    for seed in range(3):
        sample = room_sample("scene", seed)
        flipped = flip_horizontally(sample)
        for view in range(len(sample.views)):
            expected = corner_pixels(sample, view) * [-1, 1] + [WIDTH - 1, 0]
            assert same_corners(corner_pixels(flipped, view), expected)
        for box, old in zip(flipped.boxes, sample.boxes, strict=True):
            rotation = euler_to_matrix(box.numbers[6:], box.euler_order)
            mirror = np.diag([-1.0, 1.0, 1.0])
            expected = mirror @ euler_to_matrix(old.numbers[6:], old.euler_order) @ mirror
            assert np.abs(rotation - expected).max() < 1e-12 and np.linalg.det(rotation) > 0.999
            assert (box.numbers[3:6] == old.numbers[3:6]).all()


def test_depth_and_pictures_are_mirrored_about_the_same_line():
    sample = room_sample("scene", 1)
    skewed = [
        replace(view, intrinsics=view.intrinsics + [[0, 1.5, 0], [0, 0, 0], [0, 0, 0]], depth_intrinsics=None)
        for view in sample.views
    ]
    for part in (sample, replace(sample, views=tuple(skewed))):
        flipped = flip_horizontally(part)
        for before, after in zip(part.views, flipped.views, strict=True):
            assert (np.asarray(after.image) == np.asarray(before.image)[:, ::-1]).all()
            assert (after.depth_m == before.depth_m[:, ::-1]).all()
            expected = world_points(before)[:, ::-1] * [-1, 1, 1]
            assert np.abs(world_points(after) - expected).max() < 1e-9
            assert np.linalg.det(after.camera_to_world[:3, :3]) == pytest.approx(1)
            mirror = np.diag([-1.0, 1, 1, 1])
            assert (after.camera_to_world == mirror @ before.camera_to_world @ mirror).all()


def test_aligned_boxes_and_alignment_are_mirrored_together():
    sample = room_sample("scene", 2)
    turn, shift = np.eye(4), np.array([1.0, -2.0, 0.5])
    turn[:3, :3] = euler_to_matrix(np.array([0.7, 0.0, 0.0]), "zxy")
    turn[:3, 3] = shift
    boxes = tuple(replace(box, frame="aligned", frame_index=None) for box in sample.boxes)
    boxes = tuple(
        replace(box, numbers=_in_world(sample, old, turn)) for box, old in zip(boxes, sample.boxes, strict=True)
    )
    aligned = replace(sample, boxes=boxes, world_to_aligned=turn, pose_frame="scan")
    for view in range(len(sample.views)):
        assert same_corners(corner_pixels(aligned, view), corner_pixels(sample, view))
        expected = corner_pixels(aligned, view) * [-1, 1] + [WIDTH - 1, 0]
        assert same_corners(corner_pixels(flip_horizontally(aligned), view), expected)


def _in_world(sample, box, world_to_aligned):
    return transform_box(box.numbers, world_to_aligned @ sample.views[0].camera_to_world, box.euler_order)


@pytest.mark.parametrize("order", ["zxy", "ZXY"])
def test_answers_are_the_mirrored_numbers(order):
    sample = room_sample("detection3d", 2)
    boxes = tuple(replace(box, euler_order=order) for box in sample.boxes)
    labels = [box.label for box in boxes]
    sample = replace(sample, boxes=boxes, answer=format_boxes(labels, [box.numbers for box in boxes]))
    flipped = flip_horizontally(sample)
    assert flipped.answer == format_boxes(labels, [box.numbers for box in flipped.boxes])
    for item, box in zip(parse_boxes(flipped.answer).items, flipped.boxes, strict=True):
        assert np.abs(np.array(item.bbox_3d) - box.numbers).max() < 0.0051
    assert flipped.question == sample.question


def test_points_marks_and_their_answer():
    for number in range(6):
        sample = room_sample("reconstruction", number % 3, number)
        flipped = flip_horizontally(sample)
        (point,), (mark,) = flipped.points, flipped.marks
        assert check_geometry(flipped) == 1
        assert mark.xy == point.pixel == (WIDTH - 1 - sample.marks[0].xy[0], sample.marks[0].xy[1])
        assert flipped.answer == format_point(point.label, point.xyz)
        in_view = flipped.point_in_view(point, point.view)
        pixel, _ = project_points(in_view, flipped.views[point.view].intrinsics)
        assert np.abs(pixel - mark.xy).max() < 0.05


@pytest.mark.parametrize("unit", ["pixel", "permille"])
@pytest.mark.parametrize("kind", ["cross", "point", "box"])
def test_marks_are_drawn_on_mirrored_pixels(kind, unit):
    xy = {"cross": (40, 30), "point": (41, 33), "box": (34, 32, 60, 44)}[kind]
    if unit == "permille":
        sides = (WIDTH, HEIGHT) * 2
        xy = tuple(
            (value + (0 if kind == "box" else 0.3)) * 1000 / side for value, side in zip(xy, sides, strict=False)
        )
    sample = room_sample("scene", marks=(SceneMark(1, kind, "blue", xy, unit),))
    before, after = (np.asarray(part.marked_images()[1]) for part in (sample, flip_horizontally(sample)))
    differing = (after != before[:, ::-1]).any(-1)
    # An outline grows by half pixels and is cut to whole ones towards 0: its four vertical edges may lie 1 pixel off.
    assert differing.sum() <= (4 * HEIGHT if kind == "box" else 0)


def test_twice_mirrored_is_the_sample_again():
    for task in ROOM_TASKS:
        sample = room_sample(task, 1)
        twice = flip_horizontally(flip_horizontally(sample))
        row, again = sample.to_row(), twice.to_row()
        for name in set(row) - {"views"}:
            assert row[name] == again[name], name
        for before, after in zip(sample.views, twice.views, strict=True):
            assert (np.asarray(after.image) == np.asarray(before.image)).all()
            assert (after.depth_m == before.depth_m).all()
            np.testing.assert_allclose(after.intrinsics, before.intrinsics, atol=1e-9)
            np.testing.assert_allclose(after.camera_to_world, before.camera_to_world, atol=1e-12)


def test_texts_and_choices_exchange_their_words():
    question = "Where is the bed relative to the desk?\nA. left\nB. right\nC. front-left\nAnswer with the letter."
    sample = replace(
        room_sample("scene"),
        task="spatial_qa",
        question=question,
        answer="B",
        choices=("A. left", "B. right", "C. front-left"),
        references=("on the right side",),
        boxes=(replace(room_sample("scene").boxes[0], label="left door"),),
    )
    flipped = flip_horizontally(sample)
    assert flipped.question == question.replace("left", "~").replace("right", "left").replace("~", "right")
    assert flipped.choices == ("A. right", "B. left", "C. front-right")
    assert (flipped.answer, flipped.references) == ("B", ("on the left side",))
    assert flipped.boxes[0].label == "right door"
    caption = room_sample("dense_caption", 1)
    flipped = flip_horizontally(caption)
    assert flipped.question == prompt_text("dense_caption", location=flipped.boxes[0].numbers[:3])
    again = SceneSample.from_row(flipped.to_row())
    assert again.question == flipped.question


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("the chair to the left of the table", "the chair to the right of the table"),
        ("What is on my right?", "What is on my left?"),
        ("Turn Left", "Turn Right"),
        ("LEFT", "RIGHT"),
        ("move_right:0.1,rotate_up:3,rotate_left:2", "move_left:0.1,rotate_up:3,rotate_right:2"),
        ("back-left", "back-right"),
        ("the leftmost chair, upright and bright", "the rightmost chair, upright and bright"),
        ("from left to right", "from right to left"),
        ("(A) left (B) right", "(A) right (B) left"),
        ("turn 90 degrees clockwise", "turn 90 degrees counterclockwise"),
        ("Counter-clockwise or clockwise", "Clockwise or counter-clockwise"),
        ("anticlockwise", "clockwise"),
        ("the north-west corner, east of it", "the north-east corner, west of it"),
        ("at the Eastern wall, westwards; at least a feast", "at the Western wall, eastwards; at least a feast"),
        ("the left-hand side", "the right-hand side"),
        ("on the right behind the sofa", "on the left behind the sofa"),
        ("is the bed left or right of it?", "is the bed right or left of it?"),
        ("Is it slightly left?", "Is it slightly right?"),
        ("is the sofa to my left, right, or back?", "is the sofa to my right, left, or back?"),
        (
            "my front-left, front-right, back-left, or back-right?",
            "my front-right, front-left, back-right, or back-left?",
        ),
        ("C. Turn Back, Turn Left, Turn Right", "C. Turn Back, Turn Right, Turn Left"),
        ("no direction", "no direction"),
    ],
)
def test_words_are_exchanged(text, mirrored):
    assert mirror_text(text) == mirrored
    assert mirror_text(mirrored).lower().replace("-", "") == text.lower().replace("anti", "counter").replace("-", "")


@pytest.mark.parametrize(
    "text",
    [
        "the chair right next to the bed",
        "it is right behind the sofa",
        "how many chairs are left?",
        "a coat was left on the table",
        "put them in the right order",
        "choose the right answer",
        "it stands at a right angle",
        "That is a table, right?",
        "What is written on the board?",
        "What does the sign say?",
        "the sign reads exit",
        "the number on the door",
        "Where on the map is it?",
        "at 3 o'clock",
        "What time is it?",
        "Which brand is the laptop?",
        "椅子在左边",
        "it is left",
    ],
)
def test_texts_that_a_mirror_makes_false_are_refused(text):
    sample = replace(room_sample("scene"), task="scene_qa", question=text, answer="yes")
    with refused("may not be a direction|speaks of writing|not Latin"):
        flip_horizontally(sample)
    with pytest.raises(ValueError, match="may not be a direction|speaks of writing|not Latin"):
        mirror_text(text)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"question_type": "spatial_imagination_map_mv"}, "are about writing or maps"),
        ({"question": "What is at [12, 40]?"}, "coordinates that would have to move"),
        ({"answer": "[[10, 20, 30, 40]]"}, "coordinates that would have to move"),
        ({"task": "poetry"}, "task is not known"),
        ({"views": ()}, "no views"),
        ({"task": "detection3d", "answer": "boxes at 1 2 3"}, "its answer cannot be read"),
        ({"task": "detection3d", "answer": '{"bbox_3d": [1, 2, 3]}'}, "3 numbers in 'bbox_3d', expected 9"),
    ],
)
def test_what_cannot_be_mirrored_is_refused(changes, match):
    sample = replace(room_sample("scene"), task="scene_qa", question="What is soft?", answer="the bed")
    assert flip_horizontally(sample).answer == "the bed"
    with refused(match):
        flip_horizontally(replace(sample, **changes))


def test_a_mirrored_question_has_the_answer_of_the_mirrored_scene():
    """The makers of questions ask the same of a mirrored scene; what they find true is the mirrored answer."""
    names = ("left_right", "facing_direction", "camera_motion", "camera_turn", "front_behind", "object_distance")
    compared, turned = 0, 0
    for seed in range(6):
        scene = room_sample("scene", seed)
        of_mirrored = {question.id: question for question in make_tasks(flip_horizontally(scene), names, seed=seed)}
        for question in make_tasks(scene, names, seed=seed):
            flipped, made = flip_horizontally(question), of_mirrored.get(question.id)
            if made is None:
                continue
            answers = [
                part.choices[part.choice_index].removeprefix(part.answer) if part.choices else part.answer
                for part in (flipped, made, question)
            ]
            assert answers[0] == answers[1]
            compared, turned = compared + 1, turned + (answers[0] != answers[2])
    assert compared > 15 and turned > 4
