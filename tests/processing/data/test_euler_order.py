"""Euler orders are told apart with cameras and without, and nothing is guessed where both fit."""

import numpy as np
import pytest

from gap_mllm.processing.camera_geometry_gap_mllm import euler_to_matrix, matrix_to_euler
from gap_mllm.processing.data.euler_order import EULER_ORDERS, EulerEvidence, detect_euler_order


def camera_pose(seed):
    """A camera that looks down a little and is held not quite level, in a world with +z up."""
    rng = np.random.default_rng(seed)
    yaw, tilt, roll = rng.uniform(-3, 3), rng.uniform(0.2, 0.6), rng.uniform(-0.15, 0.15)
    level = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # x right, y down, z forward -> x, y, z up
    turn = euler_to_matrix(np.array([yaw, 0, 0]), "zxy") @ level
    pose = np.eye(4)
    pose[:3, :3] = turn @ euler_to_matrix(np.array([roll, -tilt, 0]), "zxy")
    return pose


def upright_boxes(pose, order, count=6, seed=0, yaws=None):
    """Boxes in the camera that stand upright in the world, in an order, angles rounded as answers are."""
    rng = np.random.default_rng(seed)
    yaws = rng.uniform(-np.pi, np.pi, count) if yaws is None else yaws
    boxes = rng.uniform(0.3, 2, (count, 9))
    for box, yaw in zip(boxes, yaws, strict=True):
        rotation = pose[:3, :3].T @ euler_to_matrix(np.array([yaw, 0, 0]), "zxy")
        box[6:] = np.round(matrix_to_euler(rotation, order), 2)
    return boxes


@pytest.mark.parametrize("order", EULER_ORDERS)
def test_upright_furniture_tells_the_order(order):
    poses = [camera_pose(seed) for seed in range(5)]
    evidence = detect_euler_order((upright_boxes(pose, order, seed=i), pose) for i, pose in enumerate(poses))
    assert (evidence.order, evidence.total, evidence.method) == (order, 30, "upright in the world")
    other = next(name for name in EULER_ORDERS if name != order)
    assert evidence.fitting[order] == 30 and evidence.fitting[other] < 6
    assert str(evidence).startswith(f"{order} (upright in the world: ")


@pytest.mark.parametrize("order", EULER_ORDERS)
def test_shared_angles_tell_the_order_without_cameras(order):
    rows = [(upright_boxes(camera_pose(seed), order, seed=seed), None) for seed in range(8)]
    evidence = detect_euler_order(rows)
    assert (evidence.order, evidence.total, evidence.method) == (order, 8, "shared axis")


def test_angles_that_differ_by_a_turn_are_shared():
    boxes = np.array([[0, 0, 1, 1, 1, 1, 0.0, 0.3, np.pi], [0, 0, 2, 1, 1, 1, 1.0, 0.3, -np.pi]])
    assert detect_euler_order([(boxes, None)]).order == "zxy"


@pytest.mark.parametrize("rows", [[], [(np.zeros((0, 9)), None)], [(np.zeros((0, 9)), np.eye(4))], [([], None)]])
def test_no_boxes_are_no_evidence(rows):
    evidence = detect_euler_order(rows)
    assert evidence == EulerEvidence(None, {"zxy": 0, "ZXY": 0}, 0, "none")
    assert str(evidence) == "undecided (no evidence)"


def test_boxes_of_one_yaw_do_not_decide():
    pose = camera_pose(1)
    boxes = upright_boxes(pose, "zxy", yaws=[0.5] * 6)
    assert detect_euler_order([(boxes, None)]).order is None
    assert detect_euler_order([(boxes[:1], None)]).total == 0


def test_what_fits_both_orders_is_undecided():
    """A camera that looks straight down: boxes turn about its own axis, in both orders alike."""
    pose = np.diag([1.0, -1, -1, 1])
    evidence = detect_euler_order([(upright_boxes(pose, "zxy"), pose)])
    assert evidence.order is None and evidence.fitting == {"zxy": 6, "ZXY": 6}
    assert str(evidence) == "undecided (upright in the world: 6 of 6 fit zxy, 6 of 6 fit ZXY)"


def test_a_mixed_file_is_undecided():
    poses = [camera_pose(seed) for seed in range(6)]
    rows = [(upright_boxes(pose, order, seed=1), pose) for pose, order in zip(poses, EULER_ORDERS * 3, strict=True)]
    assert detect_euler_order(rows).order is None


def test_a_few_leaning_boxes_do_not_matter():
    pose = camera_pose(3)
    boxes = upright_boxes(pose, "ZXY", count=20)
    boxes[:3, 6:] = [[1, 0.5, 0.5], [2, 1, 0.2], [0.3, 0.3, 0.3]]
    evidence = detect_euler_order([(boxes, pose)])
    assert evidence.order == "ZXY" and 17 <= evidence.fitting["ZXY"] < 20


def test_boxes_need_nine_numbers():
    with pytest.raises(ValueError, match="reshape"):
        detect_euler_order([(np.zeros((2, 7)), None)])


def test_a_leaning_box_is_no_evidence_for_the_other_order():
    boxes = upright_boxes(camera_pose(1), "zxy", seed=1)
    boxes[1, 7] += 0.2
    evidence = detect_euler_order([(boxes, None)])
    assert evidence.order is None and evidence.fitting == {"zxy": 0, "ZXY": 0}


def test_boxes_decide_where_the_world_of_the_poses_is_not_upright():
    boxes = [upright_boxes(camera_pose(seed), "ZXY", seed=seed) for seed in range(4)]
    fallen = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    evidence = detect_euler_order([(part, fallen @ camera_pose(seed)) for seed, part in enumerate(boxes)])
    assert (evidence.order, evidence.method) == ("ZXY", "shared axis")
