"""What every loss keeps: masks, precision, splits of a batch, gradients; invariances, float64 loops, refusals."""

import pytest
import torch

from gap_mllm.processing.camera_geometry_gap_mllm import euler_to_matrix
from gap_mllm.training import losses
from gap_mllm.training.losses import (
    LossSum,
    chamfer_loss,
    confidence_loss,
    depth_gradient_loss,
    feature_distillation_loss,
    field_of_view_loss,
    geovr_losses,
    label_map_loss,
    layer_distillation_loss,
    log_depth_loss,
    metric_scale_loss,
    metric_scale_target,
    normal_loss,
    normalise_points,
    normals_from_depth,
    normals_from_points,
    number_loss,
    occupancy_loss,
    point_consistency_loss,
    point_contrast_loss,
    point_loss,
    point_map_loss,
    point_pixel_contrast_loss,
    pool_regions,
    pose_encoding_loss,
    pose_loss,
    quadrant_normals,
    region_text_contrast_loss,
    region_text_sigmoid_loss,
    relation_alignment_loss,
    relational_distillation_loss,
    relative_pose_loss,
    rotation_loss,
    scale_invariant_depth_loss,
    spatial_relations,
    text_loss,
    translation_loss,
    trimmed_depth_loss,
    voxel_ids,
    voxel_indices,
    weighted_loss,
)
from gap_mllm.training.losses.camera_losses import ROTATION_ERRORS, TRANSLATION_ERRORS


DEPTH = (4, 12, 14)


def draw(*shape, seed=0, low=0.0):
    """Numbers of mean `low` and more, float64."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + low


def signed(*shape, seed=0):
    return draw(*shape, seed=seed) - 0.5


def draw_poses(num_scenes, num_views, seed=0):
    poses = torch.eye(4, dtype=torch.float64).repeat(num_scenes, num_views, 1, 1)
    poses[..., :3, :3] = euler_to_matrix(signed(num_scenes, num_views, 3, seed=seed), "zxy")
    poses[..., :3, 3] = signed(num_scenes, num_views, 3, seed=seed + 1)
    return poses


# Losses of a prediction, a target and a mask: the shape of both, and how many dimensions behind those of the mask.
MASKED = {
    "log_depth": (log_depth_loss, DEPTH, 0),
    "scale_invariant": (scale_invariant_depth_loss, DEPTH, 0),
    "silog": (lambda *args: scale_invariant_depth_loss(*args, variance_focus=0.85, square_root=True), DEPTH, 0),
    "trimmed": (lambda *args: trimmed_depth_loss(*args, min_pixels=20), DEPTH, 0),
    "gradient": (depth_gradient_loss, DEPTH, 0),
    "points": (point_loss, (4, 5, 6, 3), 1),
    "point_map": (point_map_loss, (4, 5, 6, 3), 1),
    "normals": (normal_loss, (4, 5, 6, 3), 1),
    "normal_angle": (lambda *args: normal_loss(*args, angle=True), (4, 5, 6, 3), 1),
    **{f"rotation_{k}": (lambda *a, k=k: rotation_loss(*a, kind=k), (6, 4), 1) for k in ROTATION_ERRORS},
    **{f"translation_{k}": (lambda *a, k=k: translation_loss(*a, kind=k), (6, 3), 1) for k in TRANSLATION_ERRORS},
    "field_of_view": (field_of_view_loss, (6, 2), 1),
    "pose_encoding": (pose_encoding_loss, (6, 9), 1),
    "scale": (metric_scale_loss, (6,), 0),
    "features": (feature_distillation_loss, (4, 3, 5, 8), 1),
    "chamfer": (chamfer_loss, (4, 7, 3), 2),
}  # fmt: skip


def case_of(name):
    """The loss, a prediction, a target and a mask with some invalid places."""
    loss, shape, num_inner = MASKED[name]
    prediction, target = draw(*shape, seed=1, low=0.5), draw(*shape, seed=2, low=0.5)
    return loss, prediction, target, draw(*shape[: len(shape) - num_inner], seed=3) > 0.3


@pytest.mark.parametrize("name", MASKED)
def test_what_is_invalid_changes_nothing(name):
    loss, prediction, target, valid = case_of(name)
    expected = loss(prediction, target, valid)
    spoiled = [
        torch.where(valid.reshape(*valid.shape, *[1] * (each.ndim - valid.ndim)), each, torch.nan)
        for each in (prediction, target)
    ]
    spoiled[0].requires_grad_()
    found = loss(*spoiled, valid)
    torch.testing.assert_close(found.sum, expected.sum)
    assert found.count == expected.count > 0
    found.sum.backward()
    assert spoiled[0].grad.isfinite().all() and (spoiled[0].grad[~valid] == 0).all()
    assert spoiled[0].grad.abs().sum() > 0


@pytest.mark.parametrize("name", MASKED)
def test_nothing_valid_is_zero_with_a_gradient(name):
    loss, prediction, target, valid = case_of(name)
    for values in (prediction, torch.full_like(prediction, torch.nan)):
        values = values.clone().requires_grad_()
        found = loss(values, torch.full_like(target, torch.nan), torch.zeros_like(valid))
        assert found.sum == 0 and found.count == 0 and found.mean == 0 and found.sum.requires_grad
        found.mean.backward()
        assert (values.grad == 0).all()
        assert loss(values, torch.full_like(target, torch.nan)).count == 0  # and by default, as targets say


@pytest.mark.parametrize("name", MASKED)
def test_no_split_of_a_batch_changes_a_loss(name):
    loss, prediction, target, valid = case_of(name)
    valid[0] = False  # a batch may have none
    whole = loss(prediction, target, valid)
    parts = [loss(prediction[part], target[part], valid[part]) for part in (slice(0, 1), slice(1, 2), slice(2, None))]
    both = parts[0] + parts[1] + parts[2]
    torch.testing.assert_close(both.sum, whole.sum)
    torch.testing.assert_close(both.mean, whole.mean)
    assert both.count == whole.count
    assert loss(target, target, valid).count == whole.count  # the prediction has no say in it


@pytest.mark.parametrize("name", MASKED)
def test_half_precision_is_computed_in_float32(name):
    loss, prediction, target, valid = case_of(name)
    half = prediction.bfloat16(), target.bfloat16()
    expected = loss(*(each.float() for each in half), valid)
    found = loss(*half, valid)
    assert found.sum.dtype == torch.float32 and torch.equal(found.sum, expected.sum)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(*half, valid)
    assert inside.sum.dtype == torch.float32 and torch.equal(inside.sum, expected.sum)


@pytest.mark.parametrize("name", [name for name in MASKED if name != "trimmed"])  # it is made of steps
def test_gradients_are_those_of_differences(name):
    loss, prediction, target, valid = case_of(name)
    assert torch.autograd.gradcheck(lambda values: loss(values, target, valid).sum, prediction.requires_grad_())


@pytest.mark.parametrize("name", MASKED)
def test_a_perfect_prediction_has_a_finite_gradient(name):
    loss, _, target, valid = case_of(name)
    prediction = target.clone().requires_grad_()
    found = loss(prediction, target, valid)
    # what is added below roots is seen: 1e-3 a scene for silog, 1e-6 a point
    assert found.mean.item() == pytest.approx(0.0, abs=2e-3 if name == "silog" else 2e-6)
    found.sum.backward()
    assert prediction.grad.isfinite().all()


@pytest.mark.parametrize("name", MASKED)
def test_shapes_and_masks_that_do_not_fit_are_refused(name):
    loss, prediction, target, valid = case_of(name)
    with pytest.raises(ValueError, match=r"prediction has shape .* and target"):
        loss(prediction, target[..., :-1] if name != "chamfer" else target[0])
    with pytest.raises(ValueError, match=r"valid has shape .*; expected"):
        loss(prediction, target, valid[1:])
    with pytest.raises(TypeError, match=r"valid has dtype torch.uint8; expected torch.bool"):
        loss(prediction, target, valid.byte())


def test_every_function_is_tried_here():
    text = open(__file__, encoding="utf-8").read()
    names = [name for name in losses.__all__ if callable(getattr(losses, name)) and name != "pool_features"]
    assert not [name for name in names if text.count(name) < 2]


# Sums


def test_sums_add_up_and_weigh():
    first, second = LossSum(torch.tensor(3.0), torch.tensor(1)), LossSum(torch.tensor(1.0), torch.tensor(3))
    total, count = first + second
    assert (total, count) == (4.0, 4)
    assert weighted_loss({"a": first, "b": second}, {"a": 2.0, "b": 3.0, "c": 1.0}).item() == pytest.approx(7.0)
    with pytest.raises(ValueError, match="losses has the unknown key 'b'"):
        weighted_loss({"b": second}, {"a": 1.0})


# Depth


def test_depth_by_hand_and_by_loops():
    prediction, target = draw(2, 5, 6, seed=4, low=1.0), draw(2, 5, 6, seed=5, low=1.0)
    target[0, :2], target[1, 3, 3] = 0.0, torch.nan  # nothing measured
    total = 0.0
    for view in range(2):
        pixels = [(y, x) for y in range(5) for x in range(6) if target[view, y, x] > 0]
        errors = [(prediction[view, y, x] / target[view, y, x]).log() for y, x in pixels]
        total += sum(e * e for e in errors) / len(errors) - 0.85 * (sum(errors) / len(errors)) ** 2
    found = scale_invariant_depth_loss(prediction, target, variance_focus=0.85)
    assert found.sum.item() == pytest.approx(float(total), rel=1e-12) and found.count == 2
    steps, error = 0.0, prediction - target
    for view in range(2):
        for stride in (1, 2):
            means = []
            for down, right in ((0, stride), (stride, 0)):
                found = []
                for y in range(0, 5 - down, stride):
                    for x in range(0, 6 - right, stride):
                        step = error[view, y + down, x + right] - error[view, y, x]
                        if target[view, y, x] > 0 and target[view, y + down, x + right] > 0:
                            found.append(abs(float(step)))
                means.append(sum(found) / len(found))
            steps += sum(means) / 2
    found = depth_gradient_loss(prediction, target, strides=(1, 2), min_pixels=1)
    assert found.sum.item() == pytest.approx(steps, rel=1e-12)


def test_scale_of_depth():
    depth = draw(2, 8, 9, low=1.0)
    other = draw(2, 8, 9, seed=1, low=1.0)
    invariant = scale_invariant_depth_loss(depth, other, variance_focus=1.0).sum
    torch.testing.assert_close(scale_invariant_depth_loss(7 * depth, other, variance_focus=1.0).sum, invariant)
    assert scale_invariant_depth_loss(7 * depth, other).sum > 2 * scale_invariant_depth_loss(depth, other).sum
    torch.testing.assert_close(depth_gradient_loss(depth + 3, other).sum, depth_gradient_loss(depth, other).sum)
    scale, is_known = metric_scale_target(depth, 2.5 * depth, torch.stack([other[0] > 0, other[1] < 0]))
    assert scale[0].item() == pytest.approx(2.5) and is_known.tolist() == [True, False]
    assert metric_scale_loss(scale, scale, is_known).count == 1
    unsure = torch.where(other > other.flatten(1).quantile(0.4, 1)[:, None, None], 2.0, 1.0)
    metric = torch.where(unsure == 2.0, 3 * depth, 100 * depth)
    assert metric_scale_target(depth, metric, confidence=unsure)[0].tolist() == pytest.approx([3.0, 3.0])


def test_trimming_leaves_out_the_worst():
    target = torch.ones(2, 40, 50, dtype=torch.float64)
    prediction = target + 0.25
    prediction[0].flatten()[:30] = 50.0
    assert trimmed_depth_loss(prediction, target).sum.item() == pytest.approx(0.5)
    assert trimmed_depth_loss(prediction, target, keep=1.0).sum > 1
    few = trimmed_depth_loss(prediction[:, :1, :20] * 1000, target[:, :1, :20])  # too few to leave any out
    assert few.sum.item() == pytest.approx(200.0)  # cut at 100


# Normals


def test_normals_of_planes_turn_with_them_and_know_no_scale():
    normal = torch.tensor([0.2, -0.3, -0.9], dtype=torch.float64)
    normal = normal / normal.norm()
    intrinsics = torch.tensor([[50.0, 0.0, 9.5], [0.0, 60.0, 7.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
    x, y = torch.meshgrid(torch.arange(20.0).double(), torch.arange(16.0).double(), indexing="xy")
    rays = torch.stack([(x - 9.5) / 50, (y - 7.5) / 60, torch.ones_like(x)], -1)
    depth = -2.0 / (rays @ normal)
    found, valid = normals_from_depth(depth, intrinsics)
    assert valid.sum() == 14 * 18
    torch.testing.assert_close(found[valid], normal.expand(14 * 18, 3), rtol=0, atol=1e-9)
    torch.testing.assert_close(normals_from_depth(7 * depth, intrinsics)[0], found)
    four, valid_four = quadrant_normals(rays * depth[..., None])
    torch.testing.assert_close(four[valid_four], normal.expand(int(valid_four.sum()), 3), rtol=0, atol=1e-9)
    turn = euler_to_matrix(torch.tensor([0.1, 0.05, -0.1], dtype=torch.float64), "zxy")
    turned, still_valid = normals_from_points(rays * depth[..., None] @ turn.T, max_jump=None)
    torch.testing.assert_close(turned[still_valid], found[still_valid] @ turn.T, rtol=0, atol=1e-9)


def test_edges_and_holes_have_no_normal_and_no_nan_gradient():
    intrinsics = torch.tensor([[50.0, 0.0, 9.5], [0.0, 60.0, 7.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
    depth = torch.full((16, 20), 2.0, dtype=torch.float64)
    depth[:, 10:] = 3.0
    depth[4, 4] = 0.0
    prediction = depth.clone().requires_grad_()
    normals, valid = normals_from_depth(prediction, intrinsics)
    assert not valid[:, 9:11].any() and valid[8, 8] and valid[8, 11]
    assert not (valid[4, 3:6].any() or valid[3:6, 4].any()) and valid[3, 3]
    assert normals_from_depth(depth, intrinsics, max_jump=None)[1][8, 9]
    normal_loss(normals, torch.ones_like(normals), valid, angle=True).sum.backward()
    assert prediction.grad.isfinite().all() and prediction.grad[4, 4] == 0
    with pytest.raises(ValueError, match="intrinsics"):
        normals_from_depth(depth[None], intrinsics)


# Cameras


def test_a_quaternion_has_no_sign():
    target = signed(5, 4, seed=3)
    prediction = signed(5, 4, seed=4)
    for kind in ROTATION_ERRORS:
        expected = rotation_loss(prediction, target, kind=kind).sum
        torch.testing.assert_close(rotation_loss(-3 * prediction, target, kind=kind).sum, expected)
        torch.testing.assert_close(rotation_loss(target, prediction, kind=kind).sum, expected)
    assert rotation_loss(-target, target, kind="l1").sum < 1e-12
    assert rotation_loss(-target, target, kind="l1", free_sign=False).sum > 1
    nothing = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)  # says no rotation, and is not the best
    found = rotation_loss(nothing, target[:1])
    found.sum.backward()
    assert found.sum.item() == pytest.approx(torch.pi) and nothing.grad.isfinite().all()
    assert translation_loss(torch.zeros(1, 3), torch.ones(1, 3), kind="angle").sum.item() == pytest.approx(
        torch.pi / 2
    )
    for wrong, loss in (("euler", rotation_loss), ("huber", translation_loss)):
        with pytest.raises(ValueError, match=f"kind is '{wrong}'; expected one of"):
            loss(*[torch.ones(1, 4 if loss is rotation_loss else 3)] * 2, kind=wrong)


def test_refinements_weigh_more_the_later():
    target = draw(3, 9)
    steps = torch.stack([target + 1.0, target])
    loss = pose_loss(steps, target)
    assert loss.sum.item() == pytest.approx(3 * 0.6 * 2.5 / 1.6) and loss.count == 3


def test_relative_poses_by_loops_and_in_moved_worlds():
    prediction, target = draw_poses(2, 3, seed=1), draw_poses(2, 3, seed=5)
    valid = torch.tensor([[True, True, True], [True, False, True]])
    target[1, 1] = torch.nan
    total, count = 0.0, 0
    for scene in range(2):
        for i in range(3):
            for j in range(3):
                if i != j and valid[scene, i] and valid[scene, j]:
                    found, true = (poses[scene, i].inverse() @ poses[scene, j] for poses in (prediction, target))
                    cosine = ((found[:3, :3].T @ true[:3, :3]).trace() - 1) / 2
                    total += torch.arccos(cosine) + (found[:3, 3] - true[:3, 3]).abs().mean()
                    count += 1
    loss = relative_pose_loss(prediction, target)
    assert loss.count == count == 8 and loss.sum.item() == pytest.approx(float(total), rel=1e-9)
    world = draw_poses(1, 1, seed=9)
    torch.testing.assert_close(relative_pose_loss(world @ prediction, target, valid).sum, loss.sum)
    moved = torch.where(valid[..., None, None], world @ target, torch.nan)
    torch.testing.assert_close(relative_pose_loss(prediction, moved, valid).sum, loss.sum)
    nothing = relative_pose_loss(prediction.requires_grad_(), target, torch.zeros_like(valid))
    nothing.mean.backward()
    assert nothing.count == 0 and (prediction.grad == 0).all()


def test_poses_that_are_none_are_refused():
    poses = draw_poses(1, 2)
    mirrored = poses.clone()
    mirrored[0, 1, :3, 0] *= -1
    with pytest.raises(ValueError, match="target: matrix 1 is not rigid .determinant of its rotation -1.0000"):
        relative_pose_loss(poses, mirrored)
    with pytest.raises(ValueError, match="prediction: matrix 1 is not rigid"):
        relative_pose_loss(mirrored, poses)
    with pytest.raises(ValueError, match=r"prediction has shape \(1, 2, 3, 4\); expected \(B, V, 4, 4\)"):
        relative_pose_loss(poses[..., :3, :], poses[..., :3, :])
    with pytest.raises(ValueError, match="kind is 'far'"):
        relative_pose_loss(poses, poses, translation="far")


# Features


def test_distillation_gives_the_teacher_no_gradient_and_needs_its_grid():
    prediction, target = draw(2, 3, 4, 8).requires_grad_(), draw(2, 3, 4, 8, seed=1).requires_grad_()
    layer_distillation_loss([prediction, prediction], [target, target]).sum.backward()
    assert prediction.grad.abs().sum() > 0 and target.grad is None
    torch.testing.assert_close(
        layer_distillation_loss([5 * prediction] * 2, [target] * 2).sum,
        feature_distillation_loss(prediction, target).sum,
    )
    nothing = torch.zeros(2, 8, dtype=torch.float64)
    assert feature_distillation_loss(nothing, nothing).mean == 1.0  # not NaN, as in the release
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 8\) and target \(2, 4, 4, 8\); expected the same. Resize one"):
        feature_distillation_loss(prediction, draw(2, 4, 4, 8))
    with pytest.raises(ValueError, match="there are 1 layers of predictions and 2 of targets"):
        layer_distillation_loss([prediction], [target, target])
    with pytest.raises(ValueError, match="prediction has shape .3,. and target .4,."):
        relational_distillation_loss(draw(3, 8), draw(4, 8))


# Correspondence


def scenes_of_places():
    """Features of 14 places, their points, views and scenes."""
    features = signed(14, 5, seed=2)
    point_ids = torch.tensor([0, 0, 0, 1, 1, 2, -1, 3, 3, 3, 4, 4, -1, 5])
    views = torch.tensor([0, 1, 1, 0, 2, 0, 1, 3, 4, 5, 3, 3, 3, 4])
    return features, point_ids, views, torch.tensor([0] * 7 + [1] * 7)


def test_consistency_by_loops():
    features, ids, views, _ = scenes_of_places()
    units = features / features.norm(dim=1, keepdim=True)
    by_point = {}
    for i in range(14):
        for j in range(i):
            if ids[i] == ids[j] >= 0 and views[i] != views[j]:
                by_point.setdefault(int(ids[i]), []).append(float(1 - units[i] @ units[j]))
    pairs = sum(by_point.values(), [])
    loss = point_consistency_loss(features, ids, views)
    assert loss.count == len(pairs) == 6 and loss.sum.item() == pytest.approx(sum(pairs), rel=1e-12)
    loss = point_consistency_loss(features, ids, views, mean_of_points=True)
    assert loss.count == 3 and loss.sum.item() == pytest.approx(sum(sum(p) / len(p) for p in by_point.values()))
    order = torch.randperm(14, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        point_consistency_loss(features[order], ids[order], views[order], mean_of_points=True).sum, loss.sum
    )
    none = features.clone()
    none[ids == ids[0]] = 0.0
    lacking, others = point_consistency_loss(none, ids, views), point_consistency_loss(none[1:], ids[1:], views[1:])
    assert (lacking.sum - others.sum) == pytest.approx(float(lacking.count - others.count))  # 1 for each pair
    distances = point_consistency_loss(features, ids, normalise=False)
    moved = point_consistency_loss(features + 4.0, ids, normalise=False)
    torch.testing.assert_close(moved.sum, distances.sum)


def test_contrast_stays_within_scenes():
    features, ids, _, scenes = scenes_of_places()
    whole = point_contrast_loss(features, ids, scenes)
    parts = [point_contrast_loss(features[part], ids[part]) for part in (slice(0, 7), slice(7, 14))]
    torch.testing.assert_close(whole.sum, (parts[0] + parts[1]).sum)
    assert whole.count == 10
    other, points = signed(14, 5, seed=7), draw(14, 3, seed=8)
    whole = point_pixel_contrast_loss(features, other, scenes)
    parts = [point_pixel_contrast_loss(features[part], other[part]) for part in (slice(0, 7), slice(7, 14))]
    torch.testing.assert_close(whole.sum, (parts[0] + parts[1]).sum)
    far = point_pixel_contrast_loss(features, other, points=points, exclude_radius_m=0.4, symmetric=False)
    total, units = 0.0, [each / each.norm(dim=1, keepdim=True) for each in (features, other)]
    for i in range(14):
        logits = [float(units[0][i] @ units[1][j]) / 0.07 for j in range(14)]
        allowed = [logits[j] for j in range(14) if i == j or (points[i] - points[j]).norm() >= 0.4]
        total += torch.tensor(allowed, dtype=torch.float64).logsumexp(0).item() - logits[i]
    assert far.sum.item() == pytest.approx(total, rel=1e-9)
    everything = point_pixel_contrast_loss(features, other, points=points, symmetric=False)
    torch.testing.assert_close(everything.sum, point_pixel_contrast_loss(features, other, symmetric=False).sum)
    with pytest.raises(ValueError, match="exclude_radius_m is 0.4 without points"):
        point_pixel_contrast_loss(features, other, exclude_radius_m=0.4)
    for loss in (point_pixel_contrast_loss, lambda a, b, **k: point_contrast_loss(a, ids, **k)):
        with pytest.raises(ValueError, match="temperature is 0; expected a number above 0"):
            loss(features, other, temperature=0)
        with pytest.raises(ValueError, match="scenes has shape"):
            loss(features, other, scenes=scenes[1:])


def test_voxels_are_told_apart_by_scene_and_know_any_extent():
    points = torch.tensor([[0.0, 0.0, 0.0], [0.04, 0.0, 0.0], [900.0, -500.0, 30.0], [torch.nan, 0.0, 0.0]])
    assert voxel_ids(points).tolist() == [0, 0, 1, -1]
    assert len(voxel_ids(points, torch.tensor([0, 1, 1, 1])).unique()) == 4
    assert voxel_ids(points[3:]).tolist() == [-1]
    assert voxel_indices(points[:3]).tolist() == [[0, 0, 0], [0, 0, 0], [9000, -5000, 300]]
    assert voxel_ids(points, extent_m=((-1.0,) * 3, (1.0,) * 3)).tolist() == [0, 0, 1, -1]
    with pytest.raises(ValueError, match="voxel_size_m is 0"):
        voxel_ids(points, voxel_size_m=0)


# Regions, texts and relations


def test_regions_and_texts_stay_within_scenes_and_labels():
    regions, texts = signed(6, 5), signed(4, 5, seed=1)
    labels, scenes = torch.tensor([0, 1, 1, 2, -1, 0]), torch.tensor([0, 0, 0, 1, 1, 1])
    whole = region_text_contrast_loss(regions, texts, labels, scenes)
    assert whole.count == 5
    parts = [region_text_contrast_loss(regions[part], texts, labels[part]) for part in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(whole.sum, (parts[0] + parts[1]).sum)
    total, cosines = 0.0, (regions / regions.norm(dim=1)[:, None]) @ (texts / texts.norm(dim=1)[:, None]).T / 0.07
    for r, label in enumerate(labels.tolist()):
        if label >= 0:
            rivals = [
                q for q in range(6) if scenes[q] == scenes[r] and labels[q] >= 0 and (labels[q] != label or q == r)
            ]
            total += cosines[r].logsumexp(0) + cosines[rivals, label].logsumexp(0) - 2 * cosines[r, label]
    assert whole.sum.item() == pytest.approx(float(total) / 2, rel=1e-9)
    with pytest.raises(ValueError, match="labels go up to 4, but there are 4 texts"):
        region_text_contrast_loss(regions, texts, labels + 2)
    with pytest.raises(ValueError, match="regions have shape .6, 5. and texts .4, 3."):
        region_text_contrast_loss(regions, texts[:, :3], labels)
    with pytest.raises(ValueError, match="temperature is -1"):
        region_text_contrast_loss(regions, texts, labels, temperature=-1)


def test_texts_that_hold_are_judged_one_by_one():
    regions, texts = signed(3, 5).requires_grad_(), signed(4, 5, seed=1)
    holds, known = draw(3, 4, seed=2) > 0.5, draw(3, 4, seed=3) > 0.3
    known[0] = False
    loss = region_text_sigmoid_loss(regions, texts, holds, known, bias=-1.0)
    total, units = 0.0, [each / each.norm(dim=1)[:, None] for each in (regions, texts)]
    for r in range(3):
        for t in range(4):
            if known[r, t]:
                logit = 10 * units[0][r] @ units[1][t] - 1
                total -= torch.nn.functional.logsigmoid(logit if holds[r, t] else -logit).item()
    assert loss.count == 2 and loss.sum.item() == pytest.approx(float(total), rel=1e-9)
    none = region_text_sigmoid_loss(regions, texts, holds, torch.zeros_like(known))
    none.mean.backward()
    assert none.count == 0 and (regions.grad == 0).all()
    with pytest.raises(TypeError, match="torch.bool"):
        region_text_sigmoid_loss(regions, texts, holds.long())


def test_every_label_of_a_map_counts_the_same():
    features, texts, labels = signed(6, 5), signed(4, 5, seed=1), torch.tensor([0, 0, 0, 2, -1, 0])
    loss = label_map_loss(features, texts, labels)
    each = [label_map_loss(features[[index]], texts, labels[[index]]).sum for index in (0, 1, 2, 5)]
    alone = label_map_loss(features[[3]], texts, labels[[3]]).sum
    assert loss.count == 2
    torch.testing.assert_close(loss.sum, sum(each) / 4 + alone)
    weighed = label_map_loss(features, texts, labels, torch.tensor([1.0, 1.0, 2.0, 0.5, 9.0, 0.0]))
    assert weighed.count == 4.5
    torch.testing.assert_close(weighed.sum, (each[0] + each[1] + 2 * each[2] + alone / 2).to(weighed.sum))
    with pytest.raises(ValueError, match="weights"):
        label_map_loss(features, texts, labels, torch.ones(5))
    none = label_map_loss(features.requires_grad_(), texts, torch.full((6,), -1))
    none.mean.backward()
    assert none.count == 0 and (features.grad == 0).all()
    with pytest.raises(ValueError, match="labels go up to 4, but there are 4 texts"):
        label_map_loss(features, texts, labels + 2)


def test_near_numbers_cost_less_than_far_ones():
    numbers = torch.tensor([torch.nan, 1.0, 1.5, 9.0, torch.nan])
    targets, weights = torch.tensor([1, 1, 1, 4, 0]), torch.tensor([1.0, 1.0, 0.5, 3.0, 3.0])
    logits = torch.full((5, 6), -40.0)  # a token more than the tokenizer knows, as where embeddings are padded
    logits[[0, 1, 2], [1, 2, 3]] = 40.0
    logits[:, 0] = 99.0  # what is no number takes no part
    total, count = number_loss(logits, targets, numbers, weights)
    assert count == 2.5 and float(total) == pytest.approx(0 + 0.5 + 0.5 * 8.0)
    none = number_loss(logits.requires_grad_(), torch.zeros(5, dtype=torch.int64), numbers)
    none.mean.backward()
    assert none.count == 0 and (logits.grad == 0).all()
    with pytest.raises(ValueError, match="tells of 7 tokens, logits of 6"):
        number_loss(logits, targets, torch.zeros(7))
    with pytest.raises(ValueError, match="no token that is a number"):
        number_loss(logits, targets, torch.full((6,), torch.nan))


def test_relations_turn_around_with_the_pair():
    centers = torch.tensor([[0.0, 0.0, 2.0], [1.0, 0.05, 3.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    pairs, holds, known = spatial_relations(centers, torch.tensor([0, 0, 1]))
    assert pairs.tolist() == [[0, 1], [1, 0]]
    assert (
        holds[0, [0, 4]].all()
        and holds[1, [1, 5]].all()
        and known[0].tolist() == [True] * 2 + [False] * 2 + [True] * 2
    )
    left = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    regions = torch.tensor([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]], dtype=torch.float64)
    texts = torch.cat([left, -left])
    good = relation_alignment_loss(regions, pairs, texts, holds[:, :2], known[:, :2])
    bad = relation_alignment_loss(-regions, pairs, texts, holds[:, :2], known[:, :2])
    assert good.mean < 1e-3 and bad.mean > 10 and good.count == 2
    steps = regions[pairs[:, 1]] - regions[pairs[:, 0]]
    expected = region_text_sigmoid_loss(steps, texts, holds[:, :2], bias=0.0)
    torch.testing.assert_close(good.sum, expected.sum)


def test_regions_are_means_of_their_tokens():
    features = draw(5, 3)
    pooled = pool_regions(features, torch.tensor([2, 0, 2, -1, 0]), 3)
    torch.testing.assert_close(
        pooled,
        torch.stack([(features[1] + features[4]) / 2, torch.zeros(3).double(), (features[0] + features[2]) / 2]),
    )
    with pytest.raises(ValueError, match="region_ids has shape"):
        pool_regions(features, torch.zeros(4, dtype=torch.int64), 3)


# Points and shapes


def test_points_of_unknown_scale():
    prediction, target = draw(2, 3, 4, 5, 3, low=0.2), draw(2, 3, 4, 5, 3, seed=1, low=0.2)
    expected = point_map_loss(normalise_points(prediction)[0], normalise_points(target)[0]).sum
    scaled = point_map_loss(normalise_points(30 * prediction)[0], normalise_points(target)[0]).sum
    torch.testing.assert_close(scaled, expected, rtol=1e-9, atol=0)
    points, scale = normalise_points(torch.full((1, 2, 3), torch.nan))
    assert (points == 0).all() and scale.isfinite().all()
    turn = euler_to_matrix(torch.tensor([0.5, 0.2, -0.4], dtype=torch.float64), "zxy")
    moved = point_loss(prediction @ turn.T + 2, target @ turn.T + 2).sum
    torch.testing.assert_close(moved, point_loss(prediction, target).sum)


def test_confidence_may_weigh_the_error_or_not():
    error, confidence = draw(6).requires_grad_(), draw(6, seed=1, low=1.0).requires_grad_()
    confidence_loss(error, confidence, 0.3).sum.backward()
    assert error.grad is None
    torch.testing.assert_close(confidence.grad, (error - 0.3 / confidence).detach())
    confidence_loss(error, confidence, 0.3, weigh_error=True).sum.backward()
    torch.testing.assert_close(error.grad, confidence.detach())
    points, target = draw(6, 3).requires_grad_(), draw(6, 3, seed=2)
    point_map_loss(points, target, None, confidence, weigh_error=False).sum.backward()
    assert points.grad is None
    with pytest.raises(ValueError, match="confidence has shape .5,."):
        point_map_loss(points, target, None, confidence[:5])


def test_shapes_by_loops_and_moved():
    prediction, target = signed(3, 6, 3), signed(3, 9, 3, seed=1)
    total = 0.0
    for n in range(3):
        there = sum(min((p - t).norm() for t in target[n]) for p in prediction[n]) / 6
        back = sum(min((p - t).norm() for p in prediction[n]) for t in target[n]) / 9
        total += (there + back) / 2
    loss = chamfer_loss(prediction, target)
    assert loss.sum.item() == pytest.approx(float(total), rel=1e-12) and loss.count == 3
    turn = euler_to_matrix(torch.tensor([0.5, 0.2, -0.4], dtype=torch.float64), "zxy")
    moved = chamfer_loss((prediction @ turn.T + 2).flip(1), target @ turn.T + 2)
    torch.testing.assert_close(moved.sum, loss.sum)
    torch.testing.assert_close(
        chamfer_loss(2 * prediction, 2 * target, squared=True).sum,
        4 * chamfer_loss(prediction, target, squared=True).sum,
    )
    with pytest.raises(ValueError, match=r"expected \(N, P, 3\) and \(N, Q, 3\), with points"):
        chamfer_loss(prediction, target[:, :0])


def test_occupancy_is_a_mean_by_object():
    logits, inside = signed(2, 4, seed=3), draw(2, 4, seed=4) > 0.5
    valid = torch.tensor([[True, False, False, False], [False] * 4])
    loss = occupancy_loss(logits.requires_grad_(), inside, valid)
    logit = logits[0, 0] if inside[0, 0] else -logits[0, 0]
    assert loss.count == 1 and loss.sum.item() == pytest.approx(float((1 + (-logit.detach()).exp()).log()))
    loss.sum.backward()
    assert (logits.grad[~valid] == 0).all()
    with pytest.raises(TypeError, match="expected torch.bool"):
        occupancy_loss(logits, inside.long())


# Text and the whole of GeoVR


IDS = torch.tensor([0, 0, 1, 1, 2, -1])
PAIRS = torch.tensor([[0, 1], [2, 3]])
HOLDS = torch.tensor([[True, False, True, False, False, True]] * 6)
UNMASKED = {
    "pixels": lambda a, b: point_pixel_contrast_loss(a, b),
    "places": lambda a, b: point_contrast_loss(a, IDS),
    "consistency": lambda a, b: point_consistency_loss(a, IDS),
    "relational": relational_distillation_loss,
    "layers": lambda a, b: layer_distillation_loss([a, a], [b, b]),
    "labels": lambda a, b: region_text_contrast_loss(a, b, IDS),
    "judgements": lambda a, b: region_text_sigmoid_loss(a, b, HOLDS),
    "relations": lambda a, b: relation_alignment_loss(a, PAIRS, b, HOLDS[:2]),
    "occupancy": lambda a, b: occupancy_loss(a, b > 0),
    "label_map": lambda a, b: label_map_loss(a, b, IDS),
    "numbers": lambda a, b: number_loss(a, IDS.clamp_min(0), torch.tensor([1.0, 2.5, torch.nan, -1.0])),
    "text": lambda a, b: text_loss(a, IDS.clamp_min(0)),
    "confidence": lambda a, b: confidence_loss(a.flatten(), b.flatten() + 2, 0.2, weigh_error=True),
    "pose": lambda a, b: pose_loss(a.repeat(2, 1, 2)[..., :9], b.repeat(1, 2)[..., :9]),
}


@pytest.mark.parametrize("name", UNMASKED)
def test_losses_without_a_mask_keep_precision_and_gradients_too(name):
    loss, first, second = UNMASKED[name], signed(6, 5, seed=1), signed(6, 5, seed=2)
    half = first.bfloat16(), second.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(*half)
    expected = loss(*(each.float() for each in half))
    if name != "confidence" and name != "pose":  # whose second argument is made here, in half precision
        torch.testing.assert_close(found.sum, expected.sum, rtol=1e-6, atol=0)
    assert found.sum.dtype == torch.float32 and found.count == expected.count > 0
    assert torch.autograd.gradcheck(lambda values: loss(values, second).sum, first.requires_grad_())


def test_text_in_half_precision_is_computed_in_float32():
    logits, targets = signed(5, 7).bfloat16(), torch.tensor([0, 1, 2, 3, 6])
    expected = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    loss = text_loss(logits, targets)
    assert loss.sum == expected and loss.count == 5


def test_geovr_without_depth_still_has_the_others():
    pose, depth, features = draw(2, 9), draw(2, 8, 8, low=1.0), [draw(2, 2, 3, 8)] * 4
    targets = {"target_pose_enc": pose + 1, "target_depth": torch.zeros_like(depth), "target_features": features}
    found = geovr_losses(pose, depth, features, torch.tensor(1.0), **targets, target_scale=torch.tensor(torch.nan))
    assert {name: int(loss.count) for name, loss in found.items()} == {
        "camera": 1,
        "depth": 0,
        "distillation": 1,
        "scale": 0,
    }
    twice = found["camera"] + found["camera"]
    torch.testing.assert_close(twice.mean, found["camera"].mean)


def _known(num_rows, num_known):
    return (torch.arange(num_rows) < num_known)[:, None].expand(num_rows, 4)


NONE_HOLDS = torch.zeros(6, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: point_contrast_loss(x, torch.tensor([1, 1, 2, 2, 3, -1])),
        lambda x: region_text_sigmoid_loss(x, torch.eye(4), NONE_HOLDS, _known(6, 5)),
        lambda x: relation_alignment_loss(
            x, torch.tensor([[0, 1], [2, 5]]), torch.eye(4), NONE_HOLDS[:2], _known(2, 1)
        ),
    ],
    ids=["point_contrast", "region_text_sigmoid", "relation_alignment"],
)
def test_rows_that_do_not_count_may_hold_nan_and_others_keep_their_gradient(loss):
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    gradients = []
    for filling in (0.5, torch.nan):
        features[5] = filling
        leaf = features.clone().requires_grad_()
        loss(leaf).sum.backward()
        gradients.append(leaf.grad)
    assert gradients[0][:5].abs().sum() > 0 and (gradients[1][5] == 0).all()
    assert torch.equal(gradients[0][:5], gradients[1][:5])
