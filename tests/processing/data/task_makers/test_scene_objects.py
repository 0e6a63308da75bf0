"""Which objects a row has, and what is seen of them: against the instance maps of rendered rooms."""

from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.processing.data.scene_sample import Box
from gap_mllm.processing.data.task_makers import CannotAskError, TaskMargins, TaskScene
from gap_mllm.processing.data.task_makers.margins import NAME_GROUPS
from gap_mllm.processing.data.task_makers.scene_objects import same_name
from tests.processing.data.task_makers.scenes import box_scene, look_at


@pytest.fixture(scope="module")
def seen(rooms, scenes):
    """Visibility of each room, and the true shares (objects, views)."""
    found = []
    for room, scene in zip(rooms, scenes, strict=True):
        ids = room.instance_ids.reshape(len(room.images), -1)
        truth = np.array([[(view == piece + 1).mean() for view in ids] for piece in range(len(room.labels))])
        found.append((room, TaskScene(scene).objects, truth))
    return found


def test_visible_and_absent_objects_are_those_of_the_instance_maps(seen):
    num_visible = num_absent = num_truly_clear = num_clear = 0
    for _, objects, truth in seen:
        assert (truth[objects.is_visible] >= 0.004).all()
        assert (truth[objects.is_clear] >= 0.012).all()
        assert (truth[objects.is_absent] <= 0.0005).all()
        num_visible += objects.is_visible.sum()
        num_absent += objects.is_absent.sum()
        num_truly_clear += (truth >= 0.024).sum()
        num_clear += (objects.is_visible & (truth >= 0.024)).sum()
    assert num_visible > 300 and num_absent > 200
    assert num_clear > 0.98 * num_truly_clear


def test_pixels_that_may_be_marked_belong_to_the_object_of_their_box(seen, scenes):
    num_pixels = 0
    for (room, objects, _), scene in zip(seen, scenes, strict=True):
        for view, camera in enumerate(TaskScene(scene).cameras):
            told = objects.inner[view] & (objects.owners[view] >= 0) & camera.grid_markable
            np.testing.assert_array_equal(objects.owners[view][told], room.instance_ids[view][told] - 1)
            num_pixels += told.sum()
    assert num_pixels > 50_000


def test_noise_and_inexact_boxes_do_not_change_what_a_mark_is_on(rooms):
    from tests.processing.data.task_makers.scenes import scene_of_room

    rng = np.random.default_rng(0)
    num_pixels = 0
    for room in rooms[:8]:
        depth = (room.depth_m * (1 + 0.01 * rng.standard_normal(room.depth_m.shape))).astype(np.float32)
        scene = scene_of_room(replace(room, depth_m=depth))
        boxes = [
            replace(box, numbers=box.numbers + np.r_[rng.uniform(-0.02, 0.02, 6), 0, 0, 0]) for box in scene.boxes
        ]
        objects = TaskScene(replace(scene, boxes=tuple(boxes))).objects
        for view, camera in enumerate(objects.cameras):
            told = objects.inner[view] & (objects.owners[view] >= 0) & camera.grid_markable
            np.testing.assert_array_equal(objects.owners[view][told], room.instance_ids[view][told] - 1)
            num_pixels += told.sum()
    assert num_pixels > 5_000


POSES = [look_at((0, -3.5, 1.4), (0, 0, 0.5)), look_at((2.0, -3.0, 1.4), (0, 0, 0.5))]
BOXES = {"cabinet": [0, 0, 0.6, 1.0, 0.5, 1.2, 0], "stool": [1.2, 0.3, 0.25, 0.4, 0.4, 0.5, 0]}


def test_an_object_behind_another_is_absent_and_one_without_depth_is_not():
    boxes = BOXES | {"bin": [0, 1.2, 0.2, 0.3, 0.3, 0.4, 0]}
    sample, ids = box_scene(boxes, POSES[:1])
    objects = TaskScene(sample).objects
    assert (ids != 2).all() and objects.is_absent[2, 0] and not objects.is_present[2]
    assert objects.is_clear[0, 0] and not objects.is_absent[0, 0]
    depth = np.array(sample.views[0].depth_picture)
    depth[ids[0] == 0] = 0  # nothing is measured on the cabinet: it could be there, and so could the bin
    blind, _ = box_scene(boxes, POSES[:1], depths={0: depth})
    objects = TaskScene(blind).objects
    assert not objects.is_visible[[0, 2], 0].any() and not objects.is_absent[[0, 2], 0].any()
    assert objects.missing[0, 0] > 0.9


def test_boxes_are_read_once_without_structure_and_inputs():
    sample, _ = box_scene(BOXES, POSES[:1])
    first = sample.boxes[0]
    more = (
        replace(first, label="floor", instance_id="7"),
        replace(first, label="Wall", instance_id="8"),
        replace(first, role="input", instance_id="9"),
        replace(first, numbers=first.numbers + 1),  # same id
        replace(first, instance_id=None, numbers=first.numbers + 0.01),  # same name, same place
        replace(first, instance_id=None, numbers=first.numbers + np.r_[2.0, np.zeros(8)], label="Kitchen_Cabinet"),
    )
    items = TaskScene(replace(sample, boxes=sample.boxes + more)).objects.items
    assert [(item.label, item.name) for item in items] == [
        ("cabinet", "cabinet"),
        ("stool", "stool"),
        ("Kitchen_Cabinet", "kitchen cabinet"),
    ]


def test_boxes_of_any_frame_and_order_end_in_the_camera_of_view_0():
    sample, _ = box_scene(BOXES, POSES)
    expected = TaskScene(sample).objects.items[0].solid
    moved = sample.box_in_view(sample.boxes[0], 1)
    in_camera = Box(moved, "zxy", "camera", 1, "cabinet", "0")
    np.testing.assert_allclose(
        TaskScene(replace(sample, boxes=(in_camera,))).objects.items[0].solid.corners(), expected.corners(), atol=1e-9
    )
    turned = replace(sample.boxes[0], euler_order="ZXY", numbers=np.r_[0, 0, 0.6, 1.0, 0.5, 1.2, 0.4, 0, 0])
    solid = TaskScene(replace(sample, boxes=(turned,))).objects.items[0].solid
    straight = replace(turned, euler_order="zxy")  # a turn about z alone is the same in both orders
    same = TaskScene(replace(sample, boxes=(straight,))).objects.items[0].solid
    np.testing.assert_allclose(solid.corners(), same.corners(), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"task": "grounding_box"}, "need not be all objects"),
        ({"boxes": ()}, "no boxes of objects"),
        ({"views": ()}, "no views"),
        ({"pose_frame": "scan"}, "frame that the poses do not reach"),
    ],
)
def test_what_a_row_lacks_is_the_reason(change, reason):
    sample, _ = box_scene(BOXES, POSES)
    with pytest.raises(CannotAskError, match=reason):
        _ = TaskScene(replace(sample, **change)).objects


def test_one_box_without_a_label_makes_all_names_unsure():
    sample, _ = box_scene(BOXES, POSES)
    boxes = (*sample.boxes, replace(sample.boxes[0], label=None, instance_id="10"))
    with pytest.raises(CannotAskError, match="no label"):
        _ = TaskScene(replace(sample, boxes=boxes)).objects
    given = (*sample.boxes, replace(sample.boxes[0], label=None, instance_id="10", role="proposal"))
    assert len(TaskScene(replace(sample, boxes=given)).objects.items) == 2


def test_missing_poses_depth_and_gravity_are_reasons():
    sample, _ = box_scene(BOXES, POSES)
    lost = (replace(sample.views[0], camera_to_world=None), sample.views[1])
    with pytest.raises(CannotAskError, match="view 0 has no pose"):
        _ = TaskScene(replace(sample, views=lost)).measured
    dark, _ = box_scene(BOXES, POSES, depths={0: None, 1: None})
    with pytest.raises(CannotAskError, match="no view has both"):
        _ = TaskScene(dark).objects
    half, _ = box_scene(BOXES, POSES, depths={1: None})
    with pytest.raises(CannotAskError, match="not every view"):
        _ = TaskScene(half).all_seen
    unaligned, _ = box_scene(BOXES, POSES, aligned=False)
    with pytest.raises(CannotAskError, match="gravity"):
        _ = TaskScene(unaligned).up
    up = TaskScene(sample).up
    np.testing.assert_allclose(POSES[0][:3, :3] @ up, [0, 0, 1], atol=1e-12)
    given = TaskScene(replace(unaligned, world_to_aligned=np.eye(4)))
    np.testing.assert_allclose(given.up, up, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "is_same"),
    [
        ("chair", "chair", True),
        ("office chair", "chair", True),
        ("chair", "armchair", True),
        ("coffee table", "office desk", True),
        ("table", "stable", False),
        ("sofa", "chair", False),
        ("table lamp", "table", False),
    ],
)
def test_names_that_may_be_taken_for_each_other(a, b, is_same):
    assert same_name(a, b, NAME_GROUPS) is same_name(b, a, NAME_GROUPS) is is_same


@pytest.mark.parametrize(
    "change",
    [
        {"visible_share": 0.02},
        {"absent_share": 0.005},
        {"size_ratio": 0.9},
        {"dominance": 0.5},
        {"depth_gap_m": 0.0},
        {"depth_gap_m": -1.0},
        {"whole_share": 1.5},
        {"turn_deg": float("nan")},
        {"depth_gap_m": "0.1"},
        {"dominance": True},
        {"structure_names": "wall"},
    ],
)
def test_margins_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TaskMargins(**change)
