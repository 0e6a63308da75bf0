"""Distances, sizes, counts, orders: against room boxes in the world, maps of depth and ids, and sampled clouds."""

import re
from itertools import combinations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from gap_mllm.processing.data.task_makers import TaskScene, make_tasks
from gap_mllm.processing.data.task_makers.spatial_facts import is_whole
from tests.processing.data.task_makers.scenes import (
    box_scene,
    cloud,
    look_at,
    of_type,
    piece_of,
    true_choice,
    true_shares,
)


def solid_points(box, count=14):
    """Points throughout a box of a room, in the world."""
    line = np.linspace(-0.5, 0.5, count)
    points = np.stack(np.meshgrid(line, line, line), -1).reshape(-1, 3) * box[3:6]
    c, s = np.cos(box[6]), np.sin(box[6])
    return points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]]) + box[:3]


def smallest(a, b):
    return cKDTree(a).query(b)[0].min()


def number_of(row, unit):
    """The number of an answer, with or without its unit; it is the row's number."""
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)(?: {unit})?", row.answer)
    assert found and float(found[1]) == row.number and row.metadata["maker_facts"]["unit"] == unit
    assert unit in row.question
    return row.number


def test_distances_of_marked_points_are_those_of_the_rendered_points(rooms, made):
    found = of_type(rooms, made, "camera_distance", "point_distance")
    for room, row in found:
        truth = room.points_in_first_view()
        points = [truth[mark.view, mark.xy[1], mark.xy[0]] for mark in row.marks]
        if row.question_type == "camera_distance":
            points.append(room.view_to_first_view[row.marks[0].view, :3, 3])
        assert number_of(row, "metres") == pytest.approx(np.linalg.norm(points[0] - points[1]), abs=0.01)
        assert all(mark.color in row.question for mark in row.marks)
    assert len(found) > 100


def test_object_distances_are_between_middles(rooms, made):
    found = of_type(rooms, made, "object_distance")
    assert len(found) > 35
    for room, row in found:
        a, b = (room.boxes[piece_of(box), :3] for box in row.boxes)
        assert number_of(row, "metres") == pytest.approx(np.linalg.norm(a - b), abs=0.0051)


def test_object_gaps_are_the_smallest_distance_between_points_of_the_boxes_and_below_that_of_the_clouds(rooms, made):
    found = of_type(rooms, made, "object_gap")
    assert len(found) > 25
    for room, row in found:
        pieces = [piece_of(box) for box in row.boxes]
        a, b = (solid_points(room.boxes[piece]) for piece in pieces)
        gap = number_of(row, "metres")
        step = max(room.boxes[piece, 3:6].max() for piece in pieces) / 13
        assert gap - 0.006 <= smallest(a, b) <= gap + step + 0.006
        a, b = (cloud(room, piece)[::7] for piece in pieces)
        assert smallest(a, b) >= gap - 0.01


def test_the_closest_object_is_closest_by_sampled_points(rooms, made):
    found = of_type(rooms, made, "closest_object")
    assert len(found) > 15
    for room, row in found:
        anchor, *options = [piece_of(box) for box in row.boxes]
        gaps = {
            piece: smallest(solid_points(room.boxes[anchor]), solid_points(room.boxes[piece])) for piece in options
        }
        best = min(gaps, key=gaps.get)
        assert room.labels[best] in true_choice(row)
        assert len(set(row.choices)) == len(options)
        assert min(gaps[piece] for piece in options if piece != best) >= gaps[best] + 0.1


def test_sizes_are_those_of_the_boxes_and_asked_only_of_what_one_view_holds(rooms, made):
    found = of_type(rooms, made, "object_size", "object_height")
    assert len(found) > 60
    for room, row in found:
        (box,) = row.boxes
        size = room.boxes[piece_of(box), 3:6]
        truth = size.max() if row.question_type == "object_size" else size[2]
        assert number_of(row, "centimetres") == pytest.approx(100 * truth, abs=0.51)
        assert true_shares(room)[piece_of(box)].max() >= 0.012


def test_counts_are_those_of_the_instance_maps(rooms, made):
    found = of_type(rooms, made, "object_count")
    counts = set()
    for room, row in found:
        label = re.search(r'"(\w+)"', row.question)[1]
        shares = true_shares(room).max(1)
        of_label = [shares[piece] for piece, name in enumerate(room.labels) if name == label]
        assert row.number == float(row.answer) == sum(share >= 0.004 for share in of_label)
        assert not any(0.0005 < share < 0.004 for share in of_label)
        assert len(row.boxes) == row.number
        counts.add(int(row.number))
    assert len(found) > 40 and counts >= {1, 2}


def test_depth_orders_are_those_of_the_depth_maps_with_a_margin(rooms, made):
    found = of_type(rooms, made, "depth_order")
    assert len(found) > 25
    for room, row in found:
        assert len({mark.view for mark in row.marks}) == 1
        assert len(set(row.choices)) == len(row.choices) == (4 if len(row.marks) == 3 else 2)  # two if no three fit
        depth = {mark.color: room.depth_m[mark.view, mark.xy[1], mark.xy[0]] for mark in row.marks}
        order = true_choice(row).split(", ")
        assert sorted(order, key=depth.get) == order
        assert all(depth[b] - depth[a] >= 0.29 for a, b in zip(order, order[1:], strict=False))
        view = row.marks[0].view
        assert ("the first frame" if view == 0 else f"Frame-{view}") in row.question.replace("\n", " ")
        assert row.question.startswith("Frame-0: <image>") == (view > 0)


def test_the_nearest_object_is_nearest_in_the_depth_map(rooms, made):
    found = of_type(rooms, made, "nearest_object")
    assert len(found) > 10
    for room, row in found:
        view = row.metadata["maker_facts"]["view"]
        pieces = [piece_of(box) for box in row.boxes]
        depth = {piece: np.median(room.depth_m[view][room.instance_ids[view] == piece + 1]) for piece in pieces}
        best = min(depth, key=depth.get)
        assert true_choice(row) == f"the {room.labels[best]}"
        assert sorted(depth.values())[1] >= depth[best] + 0.3


POSE = look_at((0, -3.0, 1.4), (0, 0, 0.5))
STOOL = [0.4, 0.4, 0.5, 0]


def ask(task, boxes, num=6, poses=(POSE,), **options):
    sample, _ = box_scene({name.replace("_", "#"): box for name, box in boxes.items()}, list(poses), **options)
    return make_tasks(sample, (task,), num_per_task=num)


def test_ties_give_no_question():
    two = {"stool": [-1.0, 0, 0.25, *STOOL], "bin": [1.0, 0, 0.25, *STOOL]}
    tie = two | {"cabinet": [0, 0.5, 0.5, 0.6, 0.4, 1.0, 0]}
    nearest = ask("nearest_object", {"stool": [-1.0, 0, 0.25, *STOOL], "bin": [1.0, 0.1, 0.25, *STOOL]})
    assert not nearest and nearest.refused.total() == 6
    for row in ask("closest_object", tie):
        assert "the cabinet" not in row.question.split("\n")[0]  # as near to one as to the other
    touching = ask("object_gap", {"stool": [0, 0, 0.25, *STOOL], "bin": [0.45, 0, 0.25, *STOOL]})
    assert not touching


def test_counts_leave_out_names_that_are_hardly_visible_or_related():
    hidden = {
        "bin": [-1.5, 0.3, 0.25, *STOOL],
        "cabinet": [0, -0.5, 0.6, 1.0, 0.4, 1.2, 0],
        "bin_2": [0.7, 1.0, 0.25, *STOOL],
    }
    sample, ids = box_scene({name.replace("_", "#"): box for name, box in hidden.items()}, [POSE])
    share = (ids == 2).mean()
    assert 0 < share < 0.004
    rows = make_tasks(sample, ("object_count",), num_per_task=8)
    assert {row.metadata["maker_facts"]["value"] for row in rows} == {1}
    assert all('"cabinet"' in row.question for row in rows)
    related = {"stool": [-1.0, 0, 0.25, *STOOL], "office chair": [1.0, 0, 0.25, *STOOL]}
    assert not ask("object_count", related)
    partly, _ = box_scene({"stool": [0, 0, 0.25, *STOOL]}, [POSE, POSE], depths={1: None})
    made = make_tasks(partly, ("object_count",))
    assert not made and made.refused["object_count", "not every view has a pose and a depth map"] == 1


def test_a_count_joins_all_views_and_counts_each_object_once():
    boxes = {"bin": [-2.5, 0, 0.25, *STOOL], "bin_2": [2.5, 0, 0.25, *STOOL], "bin_3": [0, 0, 0.25, *STOOL]}
    poses = [look_at((0, -2.5, 1.4), (x, 0, 0.3)) for x in (-1.5, 1.5)]
    sample, ids = box_scene({name.replace("_", "#"): box for name, box in boxes.items()}, poses)
    shown = [set(np.unique(view)) - {-1} for view in ids]
    assert shown[0] != shown[1] and shown[0] & shown[1]
    (row,) = ask("object_count", boxes, num=1, poses=poses)
    assert row.number == 3


def test_heights_need_gravity_and_upright_boxes():
    assert [row.number for row in ask("object_height", {"stool": [0, 0, 0.25, *STOOL]}, num=1)] == [50]
    made = ask("object_height", {"stool": [0, 0, 0.25, *STOOL]}, num=1, aligned=False)
    assert made.refused == {("object_height", "the direction of gravity is not known"): 1}
    size = ask("object_size", {"stool": [0, 0, 0.25, *STOOL]}, num=1, aligned=False)
    assert [row.number for row in size] == [50]


def test_what_is_cut_off_by_the_picture_has_no_size():
    (seen,) = [TaskScene(box_scene({"bed": [0, -1.5, 0.25, 3.0, 2.0, 0.5, 0]}, [POSE])[0])]
    assert seen.objects.is_clear[0, 0] and not is_whole(seen, seen.objects.items[0])
    made = make_tasks(seen.sample, ("object_size", "object_height"))
    assert not made and {reason for _, reason in made.refused} == {
        "no view holds the whole of a clearly visible object"
    }


def test_every_pair_of_named_objects_can_be_asked_about():
    boxes = {
        "stool": [-1.0, 0, 0.25, *STOOL],
        "bin": [1.0, 0, 0.25, *STOOL],
        "cabinet": [0, 0.5, 0.5, 0.6, 0.4, 1.0, 0],
    }
    asked = {frozenset(box.label for box in row.boxes) for row in ask("object_distance", boxes, num=30)}
    assert asked == {frozenset(pair) for pair in combinations(boxes, 2)}
