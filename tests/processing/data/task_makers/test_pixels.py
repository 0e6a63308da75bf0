"""Marked pixels and sparse point maps, against the depth and instance maps of rendered rooms."""

from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_points
from gap_mllm.processing.data.scene_sample import Point
from gap_mllm.processing.data.task_makers import TaskScene, make_tasks
from gap_mllm.processing.data.task_makers.pixels import draw_mark
from gap_mllm.processing.data.task_makers.task_scene import COLORS
from gap_mllm.processing.visual_prompt_gap_mllm import draw_scene_marks
from tests.processing.data.task_makers.scenes import box_scene, look_at, of_type


POSES = [look_at((0, -3.5, 1.4), (0, 0, 0.5)), look_at((2.0, -3.0, 1.4), (0, 0, 0.5))]
BOXES = {"Filing_Cabinet": [0, 0, 0.6, 1.0, 0.5, 1.2, 0], "stool": [1.2, 0.3, 0.25, 0.4, 0.4, 0.5, 0]}


def test_points_and_labels_are_those_of_the_rendered_maps(rooms, made):
    num_labelled = num_bare = 0
    for room, row in of_type(rooms, made, "reconstruction", "sparse_points"):
        assert row.task == row.question_type
        answers = parse_points(row.answer)
        assert not answers.rejected and len(answers.items) == len(row.points) == len(row.marks)
        truth = room.points_in_first_view()
        for item, point, mark in zip(answers.items, row.points, row.marks, strict=True):
            x, y = point.pixel
            assert (mark.view, mark.xy, mark.kind, mark.unit) == (point.view, point.pixel, "cross", "pixel")
            np.testing.assert_allclose(point.xyz, truth[point.view, y, x], atol=0.002)
            np.testing.assert_allclose(item.point, point.xyz, atol=0.0051)
            if item.label is None:
                num_bare += 1
                assert row.metadata["template"].startswith("marked_point") and '"label"' not in row.question
            else:
                num_labelled += 1
                assert item.label == point.label == room.label_of(room.instance_ids[point.view, y, x])
                assert point.instance_id == str(room.instance_ids[point.view, y, x])
                assert row.metadata["template"].startswith(("reconstruction/", "sparse_points/"))
            assert mark.color in row.question
    assert num_labelled > 150 and num_bare > 30


def test_sparse_marks_have_different_colours_in_the_order_of_the_answer_and_keep_apart(rooms, made):
    for _, row in of_type(rooms, made, "sparse_points"):
        colors = [mark.color for mark in row.marks]
        assert 3 <= len(set(colors)) == len(colors) <= 6
        assert ", ".join(f"{number} ({color})" for number, color in enumerate(colors, 1)) in row.question
        assert [mark.text for mark in row.marks] == [str(number) for number in range(1, len(colors) + 1)]
        points = np.stack([point.xyz for point in row.points])
        distance = np.linalg.norm(points[:, None] - points, axis=-1)[~np.eye(len(points), dtype=bool)]
        assert distance.min() >= 0.3
        for a in row.marks:
            for b in row.marks:
                assert a is b or a.view != b.view or np.hypot(*np.subtract(a.xy, b.xy)) >= 9.6


def test_every_mark_can_be_drawn(made):
    for row in made[3]:
        images = [view.image for view in row.views]
        drawn = draw_scene_marks(images, row.marks)
        for view, (before, after) in enumerate(zip(images, drawn, strict=True)):
            assert (before is after) == all(mark.view != view for mark in row.marks)


def test_marks_are_spread_over_views_and_colours(rooms, made):
    rows = [row for _, row in of_type(rooms, made, "reconstruction")]
    assert {row.marks[0].view for row in rows} == {0, 1, 2, 3, 4}
    assert len({row.marks[0].color for row in rows}) == len(COLORS)


def test_labels_are_written_as_the_source_has_them():
    sample, ids = box_scene(BOXES, POSES)
    rows = make_tasks(sample, ("reconstruction",), num_per_task=20)
    labels = {}
    for row in rows:
        (point,) = row.points
        seen = ids[point.view][point.pixel[1], point.pixel[0]]
        assert point.label is None or seen == list(BOXES).index(point.label)
        labels.setdefault(point.label, 0)
        labels[point.label] += 1
    assert set(labels) == {None, "Filing_Cabinet", "stool"}


def test_a_point_in_two_boxes_is_given_no_label():
    boxes = BOXES | {"door": [0, -0.16, 0.6, 1.0, 0.2, 1.2, 0]}  # the front of the cabinet
    sample, ids = box_scene(boxes, POSES)
    objects = TaskScene(sample).objects
    contested = objects.contested[0] & (ids[0] == 2)
    assert contested.mean() > 0.01
    for row in make_tasks(sample, ("reconstruction",), num_per_task=20):
        (point,) = row.points
        if point.label is not None:
            assert not objects.contested[point.view][point.pixel[1], point.pixel[0]]


def test_points_on_coarse_grids_are_not_all_on_the_grid():
    sample, _ = box_scene(BOXES, POSES[:1], size=(640, 480), focal=540.0)
    scene, rng = TaskScene(sample), np.random.default_rng(0)
    (camera,) = scene.measured
    assert camera.stride == 4
    item = scene.objects.items[0]
    marks = [draw_mark(scene, rng, "red", [camera], item) for _ in range(20)]
    assert len({mark.pixel[0] % 4 for mark in marks}) == 4
    for mark in marks:
        np.testing.assert_allclose(camera.points_at(np.array(mark.pixel, float)), mark.xyz)
        assert scene.objects.owner_of(np.array(mark.pixel, float), mark.xyz, 0) is item


def test_labelled_points_of_a_row_serve_where_it_has_no_boxes():
    sample, _ = box_scene(BOXES, POSES)
    camera = TaskScene(sample).cameras[1]
    xyz = camera.points_at(np.array([48.0, 36.0]))
    good = Point(1, (48.0, 36.0), xyz, "camera", "cabinet")
    wrong = [
        replace(good, xyz=xyz + 0.5, label="far off"),
        replace(good, pixel=(48.5, 36.0), label="half"),
        replace(good, pixel=(480.0, 36.0), label="outside"),
        replace(good, label=None),
        replace(good, frame="scan", label="unreachable"),
    ]
    given = replace(sample, task="reconstruction", boxes=(), points=(*wrong, good))
    rows = make_tasks(given, ("reconstruction",), num_per_task=10)
    labels = [row.points[0].label for row in rows if row.points[0].label]
    assert labels == ["cabinet"]  # the same question once
    answer = parse_points(next(row for row in rows if row.points[0].label).answer).first
    np.testing.assert_allclose(answer.point, xyz, atol=0.0051)


def test_a_labeller_names_what_the_row_does_not():
    seen = []

    def labeller(image, pixel):
        seen.append(pixel)
        return f"{image.width} x {pixel[0]}" if pixel[0] < 60 else None

    sample, _ = box_scene(BOXES, POSES)
    rows = make_tasks(replace(sample, boxes=()), {"reconstruction": 12, "sparse_points": 12}, labeller=labeller)
    assert {row.question_type for row in rows} == {"reconstruction", "sparse_points"}
    for row in rows:
        expected = [f"96 x {int(mark.xy[0])}" if mark.xy[0] < 60 else None for mark in row.marks]
        assert [point.label for point in row.points] == expected
        answered = [item.label for item in row.truth.items]
        assert answered == (expected if all(expected) else [None] * len(expected))
    assert {mark.xy for row in rows for mark in row.marks} <= set(seen)
    seen.clear()
    assert make_tasks(replace(sample, boxes=()), ("camera_distance",), labeller=labeller) and not seen
    named = make_tasks(sample, ("reconstruction",), num_per_task=12, labeller=labeller)
    assert "stool" in {row.points[0].label for row in named}  # what the row knows is not asked for


def test_without_depth_labelled_points_still_serve_and_nothing_else():
    sample, _ = box_scene(BOXES, POSES)
    xyz = TaskScene(sample).cameras[1].points_at(np.array([48.0, 36.0]))
    dark, _ = box_scene(BOXES, POSES, depths={0: None, 1: None})
    given = replace(dark, points=(Point(1, (48.0, 36.0), xyz, "camera", "cabinet"),))
    (row,) = make_tasks(given, ("reconstruction",))
    assert row.points[0].label == "cabinet"
    made = make_tasks(dark, ("reconstruction", "sparse_points"))
    assert not made and {reason for _, reason in made.refused} == {"no view has both a pose and a depth map"}


def test_a_scene_of_edges_alone_gives_no_mark():
    noise = (1000 + 3000 * np.random.default_rng(0).random((72, 96))).astype(np.uint16)
    sample, _ = box_scene(BOXES, POSES[:1], depths={0: noise})
    made = make_tasks(sample, ("reconstruction", "sparse_points", "camera_distance", "point_distance", "depth_order"))
    assert not made and sum(made.refused.values()) == 5


@pytest.mark.parametrize("count", [3, 6])
def test_answers_of_several_points_are_one_object_a_line(count):
    sample, _ = box_scene(BOXES, POSES)
    rows = make_tasks(sample, ("sparse_points",), num_per_task=20)
    answers = [row.answer for row in rows if len(row.points) == count]
    assert answers
    for answer in answers:
        lines = answer.split("\n")
        assert lines[0] == "```json" and lines[1] == "[" and lines[-1] == "]```" and len(lines) == count + 3
        assert all(line.startswith("\t{") for line in lines[2:-1])
