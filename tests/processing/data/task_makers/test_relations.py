"""Sides, depth, heights and directions between objects: against maps and boxes of rendered rooms, and ties."""

import numpy as np
import pytest

from gap_mllm.processing.data.task_makers import TaskScene, make_tasks
from gap_mllm.processing.data.task_makers.relations import direction_from
from gap_mllm.processing.data.task_makers.spatial_facts import is_nearer, side_in_view
from tests.processing.data.task_makers.scenes import box_scene, look_at, of_type, piece_of, true_choice


def test_sides_are_those_of_the_instance_maps(rooms, made):
    found = of_type(rooms, made, "left_right")
    assert len(found) > 20 and {row.metadata["maker_facts"]["view"] for _, row in found} >= {0, 1, 2, 3}
    sides = []
    for room, row in found:
        view = row.metadata["maker_facts"]["view"]
        columns = [np.nonzero(room.instance_ids[view] == piece_of(box) + 1)[1] for box in row.boxes]
        first, second = (np.percentile(column, (10, 90)) for column in columns)
        side = true_choice(row)
        assert first[1] < second[0] if side == "to the left" else first[0] > second[1]
        assert abs(np.median(columns[0]) - np.median(columns[1])) > 0.04 * 96
        names = [f"the {box.label}" for box in row.boxes]
        assert all(name in row.question for name in names) and len(row.choices) == 2
        sides.append(side)
    assert set(sides) == {"to the left", "to the right"}


def test_the_nearer_object_is_nearer_in_the_depth_map(rooms, made):
    found = of_type(rooms, made, "front_behind")
    assert len(found) > 15
    words = set()
    for room, row in found:
        view = row.metadata["maker_facts"]["view"]
        first, second = (
            np.percentile(room.depth_m[view][room.instance_ids[view] == piece_of(box) + 1], (10, 90))
            for box in row.boxes
        )
        word = true_choice(row)
        words.add(word)
        assert first[1] < second[0] if word in ("nearer", "in front of it") else first[0] > second[1]
    assert words >= {"nearer", "farther away"}


def test_directions_are_those_of_a_plan_of_the_room(rooms, made):
    found = of_type(rooms, made, "facing_direction")
    assert len(found) > 15
    words = set()
    for room, row in found:
        position, facing, target = (room.boxes[piece_of(box), :2] for box in row.boxes)
        angles = [np.arctan2(*(place - position)[::-1]) for place in (facing, target)]
        to_the_left = (np.degrees(angles[1] - angles[0]) + 180) % 360 - 180  # counter-clockwise on the plan
        word = true_choice(row)
        words.add(word)
        assert word.endswith("left" if to_the_left > 0 else "right")
        assert word.startswith("front" if abs(to_the_left) < 90 else "back")
        assert min(abs(abs(to_the_left) - border) for border in (0, 90, 180)) > 14.9
        assert len(row.choices) == 4
    assert len(words) >= 2


POSE = look_at((0, -3.0, 1.4), (0, 0, 0.5))
SIZE = [0.4, 0.4, 0.5, 0]


def ask(task, boxes, num=8, poses=(POSE,), **options):
    sample, _ = box_scene(boxes, list(poses), **options)
    return make_tasks(sample, (task,), num_per_task=num)


def test_left_and_right_are_exchanged_in_a_view_from_behind():
    boxes = {"stool": [-0.7, 0, 0.25, *SIZE], "bin": [0.7, 0, 0.25, *SIZE]}
    sample, _ = box_scene(boxes, [POSE, look_at((0, 3.0, 1.4), (0, 0, 0.5))])
    scene = TaskScene(sample)
    assert [side_in_view(scene, *scene.objects.items, view) for view in (0, 1)] == ["left", "right"]
    for row in make_tasks(sample, ("left_right",), num_per_task=8):
        is_stool = row.boxes[0].label == "stool"
        side = "left" if is_stool == (row.metadata["maker_facts"]["view"] == 0) else "right"
        assert true_choice(row) == f"to the {side}"
        assert ("Frame-1" in row.question.split("\n")[-5]) == (row.metadata["maker_facts"]["view"] == 1)


def test_what_overlaps_or_hardly_differs_is_not_asked():
    assert not ask("left_right", {"stool": [0, 0, 0.25, *SIZE], "shelf": [0.1, 1.0, 0.7, 1.0, 0.3, 1.4, 0]})
    side_by_side = {"stool": [-0.7, 0, 0.25, *SIZE], "bin": [0.7, 0.2, 0.25, *SIZE]}
    assert not ask("front_behind", side_by_side)
    assert ask("left_right", side_by_side)
    levels = {"stool": [-0.7, 0, 0.25, *SIZE], "bin": [0.7, 0, 0.4, 0.4, 0.4, 0.8, 0]}
    made = ask("above_below", levels)
    assert not made and made.refused == {("above_below", "no object is clearly above another"): 8}
    straight = {
        "stool": [0, -0.5, 0.25, *SIZE],
        "bin": [-1.2, 0.3, 0.25, *SIZE],
        "shelf": [0, 1.2, 0.7, 1.0, 0.3, 1.4, 0],
    }
    for row in ask("facing_direction", straight):
        assert abs(row.metadata["maker_facts"]["angle_deg"]) > 15


def test_behind_is_said_of_what_is_in_line_and_farther_of_the_rest():
    boxes = {"stool": [0, -0.5, 0.25, *SIZE], "shelf": [0, 1.2, 0.9, 0.5, 0.3, 1.8, 0]}
    rows = ask("front_behind", boxes)
    assert {true_choice(row) for row in rows} == {"in front of it", "behind it"}
    assert all((true_choice(row) == "behind it") == (row.boxes[0].label == "shelf") for row in rows)
    boxes["shelf"][0] = 1.8
    rows = ask("front_behind", boxes)
    assert {true_choice(row) for row in rows} == {"nearer", "farther away"}


def test_nearer_holds_by_depth_and_along_straight_lines():
    scene = TaskScene(box_scene({"stool": [0, 0, 0.25, *SIZE], "bin": [2.2, 0.2, 0.25, *SIZE]}, [POSE])[0])
    stool, bin_ = scene.objects.items
    z = [(scene.cameras[0].from_first @ np.r_[item.solid.center, 1])[2] for item in (stool, bin_)]
    assert scene.objects.is_visible[:, 0].all() and z[1] - z[0] < 0.3
    assert not is_nearer(scene, stool, bin_, 0) and not is_nearer(scene, bin_, stool, 0)


def test_above_follows_gravity_and_not_the_picture():
    boxes = {"cabinet": [0, 0, 0.5, 1.0, 0.5, 1.0, 0], "box": [0, 0, 1.15, 0.4, 0.4, 0.3, 0]}
    rolled = POSE.copy()
    rolled[:3, :2] = -POSE[:3, :2]  # upside down
    for pose in (POSE, rolled):
        rows = ask("above_below", boxes, poses=[pose])
        assert {(row.boxes[0].label, true_choice(row)) for row in rows} == {("box", "above"), ("cabinet", "below")}
    boxes["box"][0] = 1.0
    rows = ask("above_below", boxes)
    assert {(row.boxes[0].label, true_choice(row)) for row in rows} == {("box", "higher"), ("cabinet", "lower")}
    made = ask("above_below", boxes, aligned=False)
    assert not made and {reason for _, reason in made.refused} == {"the direction of gravity is not known"}


@pytest.mark.parametrize(("x", "y", "angle"), [(1, 1, -45), (1, -1, -135), (-1, 1, 45), (-1, -1, 135), (0, 1, 0)])
def test_directions_turn_to_the_right(x, y, angle):
    boxes = {"stool": [0, 0, 0.25, *SIZE], "bin": [0, 1.5, 0.25, *SIZE], "box": [-x, y, 0.15, 0.3, 0.3, 0.3, 0]}
    scene = TaskScene(box_scene(boxes, [POSE])[0])
    assert direction_from(scene, *scene.objects.items) == pytest.approx(angle, abs=1e-6)


def test_directions_need_two_places():
    boxes = {
        "cabinet": [0, 0, 0.5, 1.0, 0.5, 1.0, 0],
        "box": [0.1, 0, 1.15, 0.4, 0.4, 0.3, 0],
        "bin": [1, 1, 0.25, *SIZE],
    }
    scene = TaskScene(box_scene(boxes, [POSE])[0])
    assert direction_from(scene, *scene.objects.items) is None
