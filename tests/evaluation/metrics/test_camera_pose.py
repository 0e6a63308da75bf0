"""Errors of camera poses, worked out by hand."""

import math

import numpy as np
import pytest

from gap_mllm.evaluation.metrics import load_metric
from gap_mllm.evaluation.metrics.camera_pose import camera_pose_score, pose_auc, relative_pose_errors
from gap_mllm.processing.camera_geometry_gap_mllm import euler_to_matrix


def pose(center=(0, 0, 0), degrees=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = euler_to_matrix(np.deg2rad(degrees), "zxy"), center
    return matrix


def random_poses(rng, count):
    return np.stack([pose(rng.normal(size=3), rng.uniform(-180, 180, 3)) for _ in range(count)])


def test_one_pair_by_hand():
    truth = [pose(), pose((1, 0, 0))]
    errors = relative_pose_errors([pose(), pose((1, 0, 0), (10, 0, 0))], truth)
    assert errors["rotation_deg"] == pytest.approx([10]) and errors["translation_deg"] == pytest.approx([0], abs=1e-9)
    errors = relative_pose_errors([pose(), pose((1, math.tan(math.radians(20)), 0))], truth)
    assert errors["rotation_deg"] == pytest.approx([0]) and errors["translation_deg"] == pytest.approx([20])
    opposite = [pose(), pose((-1, 0, 0))]
    assert relative_pose_errors(opposite, truth)["translation_deg"] == pytest.approx([180])
    assert relative_pose_errors(opposite, truth, "reference")["translation_deg"] == pytest.approx([0], abs=1e-9)


@pytest.mark.parametrize("mode", ["corrected", "reference"])
def test_world_and_scale_do_not_matter(mode):
    rng = np.random.default_rng(0)
    truth, world = random_poses(rng, 5), random_poses(rng, 1)[0]
    moved = world @ truth
    moved[:, :3, 3] *= 7.0
    errors = relative_pose_errors(moved, truth, mode)
    assert errors["rotation_deg"] == pytest.approx(np.zeros(10), abs=1e-5)
    assert errors["translation_deg"] == pytest.approx(np.zeros(10), abs=1e-5)
    other = relative_pose_errors(random_poses(rng, 5), truth, mode)["rotation_deg"]
    assert other.max() > 30 and (other <= 180).all()


def test_pairs_are_in_order():
    truth = [pose((x, 0, 0)) for x in (0, 1, 3)]
    guess = [pose((0, 0, 0)), pose((1, 0, 0), (5, 0, 0)), pose((3, 0, 0))]
    assert relative_pose_errors(guess, truth)["rotation_deg"] == pytest.approx([5, 0, 5])  # (0, 1), (0, 2), (1, 2)


def test_directions_that_are_undefined():
    still, moving = [pose(), pose()], [pose(), pose((1, 0, 0))]
    assert np.isnan(relative_pose_errors(moving, still)["translation_deg"]).all()
    assert relative_pose_errors(still, moving)["translation_deg"] == pytest.approx([180])
    assert relative_pose_errors(still, moving, "reference")["translation_deg"] == pytest.approx([90])
    assert relative_pose_errors(moving, still, "reference")["translation_deg"] == pytest.approx([90])
    result = camera_pose_score([still], [still])
    assert result["auc30"] == 1 and result["num_without_direction"] == 1 and math.isnan(result["translation_acc5"])


@pytest.mark.parametrize("broken", [np.full((4, 4), np.nan), 2 * np.eye(4), np.diag([1.0, 1, -1, 1])])
def test_predicted_poses_that_are_none_are_wrong(broken):
    truth = [pose((x, 0, 0)) for x in range(3)]
    for mode in ("corrected", "reference"):
        errors = relative_pose_errors([truth[0], broken, truth[2]], truth, mode)
        assert errors["rotation_deg"].tolist() == errors["translation_deg"].tolist() == [180, 0, 180]
        assert errors["num_invalid"] == 1
    assert camera_pose_score([[truth[0], broken, truth[2]]], [truth])["auc30"] == pytest.approx(1 / 3)


def test_area_by_hand():
    assert pose_auc([0, 15, 30, 60], 30) == pytest.approx((1 + 0.5) / 4)
    # bins [0, 1), [1, 2), [2, 3]: shares 1/4, 2/4, 3/4 after each; the last bin is closed
    assert pose_auc([0.9, 1.0, 3.0, 3.1], 3, "reference") == pytest.approx((0.25 + 0.5 + 0.75) / 3)
    assert pose_auc([0.9], 5, "reference") == 1 and pose_auc([4.5], 5, "reference") == pytest.approx(0.2)
    assert math.isnan(pose_auc([], 5)) and math.isnan(pose_auc([], 5, "reference"))
    errors = np.random.default_rng(0).uniform(0, 40, 2000)
    assert 0 < pose_auc(errors, 30, "reference") - pose_auc(errors, 30) < 1 / 30


def test_scores_pool_pairs():
    line = [pose((x, 0, 0)) for x in range(3)]
    turned = [line[0], pose((1, 0, 0), (0, 0, 12)), line[2]]  # 12 degrees in two of three pairs
    result = camera_pose_score([turned, line[:2]], [line, line[:2]])
    # camera 1 looks at camera 2 by the wrong angle as well: direction of pair (1, 2) is 12 degrees off
    assert result["auc30"] == pytest.approx((2 * 18 / 30 + 2) / 4) and result["auc5"] == pytest.approx(0.5)
    assert result["rotation_acc5"] == 0.5 and result["rotation_acc15"] == 1 and result["translation_acc5"] == 0.75
    assert result["rotation_median_deg"] == pytest.approx(6) and result["num_pairs"] == 4 and result["n"] == 2
    binned = camera_pose_score([turned], [line], "reference")["auc30"]
    assert binned in (pytest.approx((2 * 18 / 30 + 1) / 3), pytest.approx((2 * 19 / 30 + 1) / 3))  # 12 on an edge
    empty = camera_pose_score([], [])
    assert empty["n"] == 0 and math.isnan(empty["auc30"])


def test_bad_input_is_named():
    line = [pose((x, 0, 0)) for x in range(2)]
    with pytest.raises(ValueError, match="mode is 'loose'"):
        camera_pose_score([], [], "loose")
    with pytest.raises(ValueError, match=r"scene 0: camera_to_world has shape \(1, 4, 4\) and the truth \(2, 4, 4\)"):
        camera_pose_score([line[:1]], [line])
    with pytest.raises(ValueError, match="two views or more"):
        relative_pose_errors(line[:1], line[:1])
    with pytest.raises(ValueError, match="scene 0: true_camera_to_world: matrix 1 is not rigid"):
        camera_pose_score([line], [[line[0], 2 * line[1]]])
    with pytest.raises(ValueError, match="1 predictions, 0 truths"):
        camera_pose_score([line], [])
    with pytest.raises(ValueError, match="threshold_deg is 0"):
        pose_auc([1], 0)
    with pytest.raises(ValueError, match="threshold_deg is 2.5"):
        pose_auc([1], 2.5, "reference")
    for error in (math.nan, -1):
        with pytest.raises(ValueError, match="errors_deg holds NaN or a number below 0"):
            pose_auc([error], 5)


def test_the_metric_agrees():
    metric = load_metric("camera_pose")
    line = [pose((x, 0, 0)) for x in range(3)]
    turned = [line[0], pose((1, 0, 0), (0, 0, 12)), line[2]]
    result = metric.compute(predictions=[turned], references=[line])
    assert result["auc30"] == pytest.approx((2 * 18 / 30 + 1) / 3)
    assert metric.compute(predictions=[turned], references=[line], mode="reference")["num_pairs"] == 3
