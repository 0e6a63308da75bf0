"""Objects in views, appearances, occlusion and points found again: against instance maps and placed boxes."""

import re

import numpy as np

from gap_mllm.processing.data.task_makers import TaskScene, make_tasks
from gap_mllm.processing.data.task_makers.task_scene import Marked
from gap_mllm.processing.data.task_makers.visibility import find_again, hidden_shares
from tests.processing.data.task_makers.scenes import box_scene, look_at, of_type, true_choice, true_shares


def shares_of(room, label):
    """Largest share of each view that one piece of a label has."""
    return true_shares(room)[[piece for piece, name in enumerate(room.labels) if name == label]].max(0)


def test_objects_of_a_view_are_those_of_the_instance_map(rooms, made):
    found = of_type(rooms, made, "object_view")
    assert len(found) > 15
    for room, row in found:
        view = row.metadata["maker_facts"]["view"]
        names = {choice[3:]: shares_of(room, choice[3:])[view] for choice in row.choices}
        assert names.pop(true_choice(row)) >= 0.012
        assert names and max(names.values()) <= 0.0005


def test_views_of_an_object_are_those_of_the_instance_maps(rooms, made):
    found = of_type(rooms, made, "view_of_object")
    assert len(found) > 15
    for room, row in found:
        shares = shares_of(room, row.boxes[0].label)
        views = {choice: int(choice.removeprefix(choice[:3] + "Frame-")) for choice in row.choices}
        right = views.pop(row.choices[row.choice_index])
        assert shares[right] >= 0.012 and views and max(shares[view] for view in views.values()) <= 0.0005
        assert row.question.startswith("Frame-0: <image>Frame-1: <image>")
        assert row.metadata["named_views"] == sorted([right, *views.values()])


def test_points_are_found_again_where_both_views_see_them(rooms, made):
    found = of_type(rooms, made, "point_match")
    assert len(found) > 50
    for room, row in found:
        before, after = row.metadata["maker_facts"]["views"]
        truth = room.points_in_first_view()
        points = {mark.color: truth[mark.view, mark.xy[1], mark.xy[0]] for mark in row.marks}
        assert [mark.view for mark in row.marks] == [before] + [after] * (len(row.marks) - 1)
        distance = {color: np.linalg.norm(point - points["red"]) for color, point in points.items() if color != "red"}
        right = true_choice(row)
        assert distance.pop(right) < 0.3 and min(distance.values()) > 0.25
        assert {choice[3:] for choice in row.choices} == {right, *distance}


STOOL = [0.4, 0.4, 0.5, 0]
FRONT, SIDE = look_at((0, -3.0, 1.2), (0, 0, 0.5)), look_at((3.0, -0.4, 1.2), (0, 0, 0.5))


def test_what_hides_a_part_is_what_stands_before_points_that_other_views_show():
    boxes = {
        "shelf": [0, 0.8, 0.6, 1.0, 0.3, 1.2, 0],
        "stool": [0.1, -0.6, 0.4, 0.5, 0.4, 0.8, 0],
        "bin": [-1.2, 0, 0.25, *STOOL],
    }
    sample, ids = box_scene(boxes, [FRONT, SIDE, look_at((0.4, -2.4, 2.6), (0, 0.8, 0.6))])
    scene = TaskScene(sample)
    shelf, stool, bin_ = scene.objects.items
    shares = hidden_shares(scene, shelf, 0)
    alone, _ = box_scene({name: box for name, box in boxes.items() if name != "stool"}, [FRONT])
    covered = TaskScene(alone).objects.owners[0] == 0
    expected = (covered & (ids[0] == 1)).sum() / covered.sum()
    assert set(shares) == {stool.index} and 0.1 < expected and abs(shares[stool.index] - expected) < 0.1
    assert bin_.index not in shares and hidden_shares(scene, stool, 0).get(shelf.index, 0) == 0
    rows = make_tasks(sample, ("occlusion",), num_per_task=8)
    assert rows and all(true_choice(row) == "the stool" and row.boxes[0].label == "shelf" for row in rows)
    assert all({choice[3:] for choice in row.choices} == {"the stool", "the bin"} for row in rows)


def test_nothing_is_said_to_hide_where_all_is_seen():
    boxes = {
        "shelf": [0, 0.8, 0.6, 1.0, 0.3, 1.2, 0],
        "stool": [1.2, -0.4, 0.25, *STOOL],
        "bin": [-1.2, 0, 0.25, *STOOL],
    }
    made = make_tasks(box_scene(boxes, [FRONT, look_at((0.3, -3.0, 1.3), (0, 0, 0.5))])[0], ("occlusion",))
    assert not made and made.refused == {("occlusion", "no object clearly hides a part of another"): 1}


def pan(*targets):
    return [look_at((0, -2.5, 1.3), (x, 0, 0.3)) for x in targets]


def test_objects_appear_in_the_order_of_the_views():
    boxes = {"stool": [-3.0, 0, 0.25, *STOOL], "bin": [0, 0, 0.25, *STOOL], "box": [3.0, 0, 0.25, *STOOL]}
    sample, ids = box_scene(boxes, pan(-4.2, -1.2, 2.2), focal=90.0)
    first = [(ids == number).mean((1, 2)).argmax() for number in range(3)]
    assert first == sorted(first)
    rows = make_tasks(sample, ("appearance_order",), num_per_task=4)
    assert rows and all(true_choice(row) == "the stool, the bin, the box" for row in rows)
    for row in rows:
        named = re.findall(r"the (stool|bin|box)", row.question.split("\n")[0])
        assert sorted(named) == ["bin", "box", "stool"]
    together, _ = box_scene(boxes, pan(0, 0.1), focal=40.0)
    made = make_tasks(together, ("appearance_order",))
    assert made.refused == {("appearance_order", "fewer than three objects appear one after the other"): 1}


def test_an_object_at_the_border_of_a_view_is_neither_in_it_nor_absent():
    boxes = {"stool": [0, 0, 0.25, *STOOL], "bin": [2.0, 0, 0.25, *STOOL]}
    target = next(x for x in np.arange(-0.5, 2, 0.02) if 0.0005 < (box_scene(boxes, pan(x))[1] == 1).mean() < 0.004)
    sample, _ = box_scene(boxes, pan(target, 1.5))
    objects = TaskScene(sample).objects
    assert not objects.is_visible[1, 0] and not objects.is_absent[1, 0] and objects.is_clear[1, 1]
    assert not make_tasks(sample, ("object_view",)) and not make_tasks(sample, ("view_of_object",))
    sample, _ = box_scene(boxes, pan(target - 0.6, 1.5))
    (row,) = make_tasks(sample, ("object_view",))
    assert true_choice(row) == "stool" and {choice[3:] for choice in row.choices} == {"stool", "bin"}
    (row,) = make_tasks(sample, ("view_of_object",))
    assert true_choice(row) == "Frame-1" and row.boxes[0].label == "bin"


def test_a_hidden_point_is_not_found_again():
    boxes = {"shelf": [0, 0.8, 0.6, 1.0, 0.3, 1.2, 0], "cabinet": [0, -0.6, 0.7, 1.2, 0.4, 1.4, 0]}
    above = look_at((0, -2.0, 2.9), (0, 0.65, 0.9))
    sample, ids = box_scene(boxes, [above, FRONT])
    scene = TaskScene(sample)
    front = scene.cameras[0]
    rows, columns = np.nonzero((ids[0] == 0) & front.grid_markable)
    marks = [Marked(0, (int(x), int(y)), front.grid_points[y, x], "red") for y, x in zip(rows, columns, strict=True)]
    assert len(marks) > 20
    for mark in marks:
        pixel = find_again(scene, mark, 1)
        projected, _ = scene.cameras[1].project(mark.xyz)
        x, y = np.rint(projected).astype(int)
        if ids[1][y, x] == 1:
            assert pixel is None
        elif pixel is not None:
            assert pixel == (x, y) and ids[1][y, x] == 0
