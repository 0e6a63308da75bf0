"""Objects asked for by name, relation or use, and points on them, against the instance maps of rendered rooms."""

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_points
from gap_mllm.processing.data import SceneSample, make_tasks, render_room
from gap_mllm.processing.data.rooms.room_scenes import room_sample
from gap_mllm.processing.data.task_makers import TaskScene
from gap_mllm.processing.data.task_makers.margins import NAME_GROUPS
from gap_mllm.processing.data.task_makers.reasoning import USES, points_on, uses_of
from gap_mllm.processing.data.task_makers.scene_objects import same_name
from tests.processing.data.task_makers.scenes import box_scene, look_at


POSES = [look_at((0, -3.5, 1.4), (0, 0, 0.5)), look_at((2.0, -3.0, 1.4), (0, 0, 0.5))]


@pytest.fixture(scope="module")
def asked():
    found = []
    for seed in range(24):
        room = render_room(seed)
        found += [(room, row) for row in make_tasks(room_sample(room), {"reasoning_segmentation": 3})]
    return found


def test_points_are_on_the_object_and_nothing_is_drawn(asked):
    assert len(asked) > 40
    for room, row in asked:
        number, answer = int(row.boxes[0].instance_id), parse_points(row.answer)
        assert row.task == row.question_type == "reasoning_segmentation" and not row.marks
        assert 1 <= len(answer.items) == len(row.points) <= 3 and not answer.rejected
        for item, point in zip(answer.items, row.points, strict=True):
            x, y = point.pixel
            assert room.instance_ids[point.view, y, x] == number
            np.testing.assert_allclose(point.xyz, room.points_in_first_view()[point.view, y, x], atol=0.002)
            np.testing.assert_allclose(item.point, point.xyz, atol=0.0051)
            assert item.label == row.boxes[0].label == room.labels[number - 1]
        assert SceneSample.from_row(row.to_row()).points[0].pixel == row.points[0].pixel


def test_objects_are_asked_for_in_three_ways(asked):
    ways = {}
    for room, row in asked:
        facts = row.metadata["maker_facts"]
        ways.setdefault(facts["asked_by"], []).append((room, row))
        assert facts["description"] in row.question
    assert set(ways) == {"label", "relation", "use"} and min(map(len, ways.values())) >= 5
    for room, row in ways["use"]:
        text = row.metadata["maker_facts"]["description"]
        use, names, _ = next(told for told in USES if text.startswith(told[0]))
        assert row.boxes[0].label not in text.removeprefix(use).split(" the ")[0]
        if text == use:  # nothing else in the pictures has this use
            seen = [room.labels[number - 1] for number in np.unique(room.instance_ids) if number > 0]
            assert sum(any(same_name(label, name, NAME_GROUPS) for name in names) for label in seen) == 1


def uses(boxes, name):
    sample, _ = box_scene(boxes, POSES)
    scene = TaskScene(sample)
    return next(uses_of(scene, item) for item in scene.objects.items if item.label == name)


def test_a_use_singles_out_or_takes_a_relation():
    chair, far = [-1.2, 0, 0.4, 0.4, 0.4, 0.8, 0], [1.4, 0, 0.4, 0.4, 0.4, 0.8, 0]
    table, shelf = [-0.6, 0, 0.4, 0.5, 0.5, 0.8, 0], [0.3, 0.6, 0.6, 0.3, 0.3, 1.2, 0]
    assert uses({"chair": chair, "table": table}, "chair") == ["something to sit on"]
    both = uses({"chair": chair, "sofa": far, "table": table}, "chair")
    assert both == ["something to sit on next to the table"]
    beds = uses({"chair": chair, "bed": far, "table": table}, "chair")  # one can sit on a bed as well
    assert beds == ["something to sit on next to the table"]
    assert uses({"plant": chair, "table": table}, "plant") == []
    near = uses({"chair": chair, "sofa": [0.2, 0, 0.4, 0.4, 0.4, 0.8, 0], "table": table}, "chair")
    assert near == []  # both stand next to the table
    assert uses({"chair": chair, "sofa": far, "shelf": shelf}, "chair") == []


def test_points_lie_apart_and_begin_in_the_middle():
    sample, _ = box_scene({"sofa": [0, 0, 0.4, 2.0, 0.8, 0.8, 0]}, POSES)
    scene = TaskScene(sample)
    (item,) = scene.objects.items
    points = np.stack([point.xyz for point in points_on(scene, item)])
    assert len(points) == 3 and len(points_on(scene, item, 1)) == 1
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    assert distance[~np.eye(3, dtype=bool)].min() > 0.5 and distance[1, 2] > distance[0, 1]
