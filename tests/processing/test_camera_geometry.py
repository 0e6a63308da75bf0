"""Camera geometry against scipy, against hand-made numbers and against itself, in numpy and in torch."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gap_mllm.processing.camera_geometry_gap_mllm import (
    BOX_CORNER_SIGNS,
    box_corners,
    check_rigid,
    euler_to_matrix,
    fit_similarity,
    invert_rigid,
    is_rigid,
    matrix_to_euler,
    project_points,
    scale_intrinsics,
    scale_pixels,
    transform_box,
    transform_points,
    unproject_depth,
    view_to_first_view,
)


KINDS = pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
ORDERS = pytest.mark.parametrize("order", ["zxy", "ZXY"])
INTRINSICS = np.array([[100.0, 0.0, 31.5], [0.0, 110.0, 23.5], [0.0, 0.0, 1.0]])


def random_poses(rng, *shape):
    poses = np.zeros((*shape, 4, 4))
    rotations = Rotation.random(int(np.prod(shape)), random_state=np.random.RandomState(rng.integers(2**31)))
    poses[..., :3, :3] = rotations.as_matrix().reshape(*shape, 3, 3)
    poses[..., :3, 3] = rng.uniform(-3, 3, (*shape, 3))
    poses[..., 3, 3] = 1.0
    return poses


@ORDERS
@KINDS
def test_euler_agrees_with_scipy_both_ways(kind, order):
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, (500, 3))
    expected = Rotation.from_euler(order, angles).as_matrix()
    matrix = euler_to_matrix(kind(angles), order)
    assert type(matrix) is type(kind(angles))
    np.testing.assert_allclose(np.asarray(matrix), expected, atol=1e-12)
    back = np.asarray(matrix_to_euler(kind(expected), order))
    np.testing.assert_allclose(back, Rotation.from_matrix(expected).as_euler(order), atol=1e-9)


def test_extrinsic_zxy_is_y_times_x_times_z():
    yaw, pitch, roll = 0.3, -0.5, 1.1
    single = [Rotation.from_euler(axis, a).as_matrix() for axis, a in (("y", roll), ("x", pitch), ("z", yaw))]
    np.testing.assert_allclose(euler_to_matrix([yaw, pitch, roll], "zxy"), single[0] @ single[1] @ single[2])


@ORDERS
@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2, np.pi / 2 - 1e-9, -np.pi / 2 + 1e-5])
def test_gimbal_lock_keeps_the_rotation_and_sets_y_to_zero(order, pitch):
    angles = np.stack([np.linspace(-3, 3, 25), np.full(25, pitch), np.linspace(2, -2, 25)], -1)
    matrix = euler_to_matrix(angles, order)
    back = matrix_to_euler(matrix, order)
    np.testing.assert_allclose(euler_to_matrix(back, order), matrix, atol=2e-6)
    if abs(pitch) == np.pi / 2:
        assert (back[:, 2] == 0).all()


@KINDS
def test_other_euler_orders_raise(kind):
    for order in ("xyz", "zyx", "ZxY", ""):
        with pytest.raises(ValueError, match="order is"):
            euler_to_matrix(kind(np.zeros(3)), order)
        with pytest.raises(ValueError, match="order is"):
            matrix_to_euler(kind(np.eye(3)), order)
    with pytest.raises(ValueError, match=r"expected \(..., 3, 3\)"):
        matrix_to_euler(kind(np.eye(4)), "zxy")


@KINDS
def test_invert_rigid_is_the_inverse_and_keeps_the_dtype(kind):
    poses = random_poses(np.random.default_rng(1), 2, 5)
    np.testing.assert_allclose(np.asarray(invert_rigid(kind(poses))), np.linalg.inv(poses), atol=1e-12)
    assert invert_rigid(kind(poses.astype(np.float32))).dtype == kind(poses.astype(np.float32)).dtype


@KINDS
def test_relative_poses_are_exact_far_from_the_origin_even_for_float32_results(kind):
    poses = random_poses(np.random.default_rng(2), 3, 4)
    poses[..., :3, 3] += 1e4
    relative = view_to_first_view(kind(poses))
    assert str(relative.dtype).endswith("float64")
    np.testing.assert_allclose(np.asarray(relative), np.linalg.inv(poses[:, :1]) @ poses, atol=1e-7)
    np.testing.assert_allclose(np.asarray(relative[:, 0]), np.broadcast_to(np.eye(4), (3, 4, 4)), atol=1e-9)
    last = np.asarray(view_to_first_view(kind(poses), reference_view=-1))
    np.testing.assert_allclose(last[:, -1], np.broadcast_to(np.eye(4), (3, 4, 4)), atol=1e-9)


def test_moving_the_world_changes_no_relative_pose():
    rng = np.random.default_rng(3)
    poses, move = random_poses(rng, 4), random_poses(rng, 1)[0]
    np.testing.assert_allclose(view_to_first_view(move @ poses), view_to_first_view(poses), atol=1e-12)


@KINDS
def test_poses_that_are_not_rigid_are_told_and_refused(kind):
    good = random_poses(np.random.default_rng(4), 5)
    bad = good.copy()
    bad[0, :3, 0] *= -1.0  # mirrored
    bad[1, :3, :3] *= 1.01
    bad[2, 3, 0] = 0.1
    bad[3] = -np.inf  # ScanNet's marker of lost tracking
    assert np.asarray(is_rigid(kind(good))).all()
    assert np.asarray(is_rigid(kind(bad))).tolist() == [False, False, False, False, True]
    check_rigid(kind(good))
    with pytest.raises(ValueError, match="matrix 0 is not rigid .*-1.0000"):
        check_rigid(kind(bad), "poses")
    for function in (invert_rigid, view_to_first_view):
        with pytest.raises(ValueError, match="not rigid"):
            function(kind(bad))
    with pytest.raises(ValueError, match="not rigid"):
        transform_box(kind(np.ones(9)), kind(bad[0]), "zxy")
    with pytest.raises(ValueError, match=r"expected \(..., 4, 4\)"):
        is_rigid(kind(np.eye(3)))
    with pytest.raises(ValueError, match=r"expected \(..., V, 4, 4\)"):
        view_to_first_view(kind(np.eye(4)))


@KINDS
def test_transform_points_meets_batches_of_any_shape(kind):
    rng = np.random.default_rng(5)
    poses, points = random_poses(rng, 2, 3), rng.normal(size=(2, 3, 4, 5, 3))
    moved = np.asarray(transform_points(kind(poses), kind(points)))
    expected = np.einsum("bvij,bvhwj->bvhwi", poses[..., :3, :3], points) + poses[:, :, None, None, :3, 3]
    np.testing.assert_allclose(moved, expected, atol=1e-12)
    with pytest.raises(ValueError, match="batch shape"):
        transform_points(kind(poses), kind(points[:, :2]))
    with pytest.raises(ValueError, match=r"expected \(..., 4, 4\)"):
        transform_points(kind(np.eye(3)), kind(points))


@KINDS
def test_unproject_by_hand_and_marks_pixels_without_depth(kind):
    depth = np.array([[2.0, 0.0, np.nan], [1.0, -1.0, np.inf]])
    k = np.array([[2.0, 0.0, 1.0], [0.0, 4.0, 0.5], [0.0, 0.0, 1.0]])
    points = np.asarray(unproject_depth(kind(depth), kind(k)))
    np.testing.assert_allclose(points[0, 0], [-1.0, -0.25, 2.0])  # u = 0: (0 - 1) / 2 * 2; v = 0: (0 - 0.5) / 4 * 2
    np.testing.assert_allclose(points[1, 0], [-0.5, 0.125, 1.0])
    assert np.isnan(points[[0, 0, 1, 1], [1, 2, 1, 2]]).all()


@KINDS
def test_project_is_the_inverse_of_unproject(kind):
    rng = np.random.default_rng(6)
    k = np.stack([INTRINSICS, INTRINSICS + np.array([[9.0, 2.0, 1.0], [0, -7.0, 3.0], [0, 0, 0]])])  # with skew
    depth = rng.uniform(0.5, 5.0, (2, 48, 64))
    points = unproject_depth(kind(depth), kind(k))
    pixels, z = project_points(points, kind(k))
    v, u = np.mgrid[0:48, 0:64]
    np.testing.assert_allclose(np.asarray(pixels), np.broadcast_to(np.stack([u, v], -1), (2, 48, 64, 2)), atol=1e-9)
    np.testing.assert_allclose(np.asarray(z), depth)


@KINDS
def test_points_behind_the_camera_have_no_pixel(kind):
    pixels, z = project_points(kind(np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])), kind(INTRINSICS))
    assert np.isnan(np.asarray(pixels[:2])).all()
    assert np.asarray(pixels[2]).tolist() == [31.5, 23.5]
    assert np.asarray(z).tolist() == [-1.0, 0.0, 1.0]


@KINDS
def test_shapes_and_kinds_that_do_not_fit_raise(kind):
    with pytest.raises(TypeError, match="divide by the depth scale"):
        unproject_depth(kind(np.ones((4, 4), np.int32)), kind(INTRINSICS))
    with pytest.raises(ValueError, match="depth has shape"):
        unproject_depth(kind(np.ones((2, 4, 4))), kind(INTRINSICS))
    with pytest.raises(ValueError, match=r"expected \(..., 3, 3\)"):
        unproject_depth(kind(np.ones((4, 4))), kind(np.eye(4)))
    with pytest.raises(ValueError, match="batch shape"):
        project_points(kind(np.ones((3, 3))), kind(np.stack([INTRINSICS] * 2)))
    with pytest.raises(ValueError, match=r"expected \(..., 3, 3\)"):
        project_points(kind(np.ones((3, 3))), kind(np.eye(4)))
    with pytest.raises(ValueError, match=r"expected \(..., 9\)"):
        box_corners(kind(np.ones(6)), "zxy")
    with pytest.raises(ValueError, match=r"expected \(..., 9\)"):
        transform_box(kind(np.ones(6)), kind(np.eye(4)), "zxy")
    with pytest.raises(ValueError, match="order is"):
        transform_box(kind(np.ones(9)), kind(np.eye(4)), "xyz")
    with pytest.raises(ValueError, match="batch shape"):
        transform_box(kind(np.ones((3, 9))), kind(np.stack([np.eye(4)] * 2)), "zxy")


@KINDS
def test_scaled_intrinsics_project_to_scaled_pixels(kind):
    points = np.random.default_rng(7).uniform([-1, -1, 1], [1, 1, 4], (50, 3))
    pixels, _ = project_points(kind(points), kind(INTRINSICS))
    scaled, _ = project_points(kind(points), scale_intrinsics(kind(INTRINSICS), 0.5, 1.75))
    np.testing.assert_allclose(np.asarray(scaled), np.asarray(scale_pixels(pixels, 0.5, 1.75)), atol=1e-9)


def test_scale_pixels_follows_the_resizing_of_an_image():
    ramp = torch.arange(16.0).repeat(12, 1)[None, None]  # value = column
    small = torch.nn.functional.interpolate(ramp, (6, 8), mode="bilinear", align_corners=False, antialias=False)
    columns = np.stack([np.arange(16.0), np.zeros(16)], -1)
    landed = scale_pixels(columns, 0.5, 0.5)[:, 0]
    # a pixel of the small image shows the column that lands on it
    np.testing.assert_allclose(np.interp(np.arange(8), landed, np.arange(16)), small[0, 0, 0].numpy(), atol=1e-6)
    assert scale_pixels(np.array([-0.5, 47.5]), 3.0, 2.0).tolist() == [-0.5, 95.5]  # edges stay edges


@pytest.mark.parametrize("scales", [(0.0, 1.0), (1.0, -2.0), (float("nan"), 1.0)])
def test_scales_must_be_positive(scales):
    with pytest.raises(ValueError, match="expected positive"):
        scale_intrinsics(INTRINSICS, *scales)
    with pytest.raises(ValueError, match="expected positive"):
        scale_pixels(np.zeros(2), *scales)


def test_scale_intrinsics_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"expected \(..., 3, 3\)"):
        scale_intrinsics(np.eye(4), 1.0, 1.0)


@KINDS
def test_corners_of_a_box_by_hand(kind):
    box = np.array([1.0, 2.0, 3.0, 2.0, 4.0, 6.0, np.pi / 2, 0.0, 0.0])  # turned by 90 degrees about z
    corners = np.asarray(box_corners(kind(box), "zxy"))
    np.testing.assert_allclose(corners[0], [1 + 2, 2 - 1, 0.0], atol=1e-12)
    np.testing.assert_allclose(corners[6], [1 - 2, 2 + 1, 6.0], atol=1e-12)
    assert np.ptp(corners, axis=0) == pytest.approx([4.0, 2.0, 6.0])


@ORDERS
@KINDS
def test_a_moved_box_has_the_moved_corners_and_comes_back(kind, order):
    rng = np.random.default_rng(8)
    boxes = np.concatenate(
        [rng.normal(size=(3, 20, 3)), rng.uniform(0.1, 2, (3, 20, 3)), rng.uniform(-1.5, 1.5, (3, 20, 3))], -1
    )
    poses = random_poses(rng, 3)
    moved = transform_box(kind(boxes), kind(poses), order)
    expected = transform_points(poses, box_corners(boxes, order))
    np.testing.assert_allclose(np.asarray(box_corners(moved, order)), expected, atol=1e-9)
    back = transform_box(moved, invert_rigid(kind(poses)), order)
    np.testing.assert_allclose(np.asarray(box_corners(back, order)), box_corners(boxes, order), atol=1e-9)
    np.testing.assert_array_equal(np.asarray(moved)[..., 3:6], boxes[..., 3:6])


def test_torch_keeps_dtype_and_gradient():
    depth = torch.rand(2, 4, 5) + 0.5
    depth.requires_grad_()
    k = torch.as_tensor(np.stack([INTRINSICS] * 2))  # float64 beside float32 depth
    points = unproject_depth(depth, k)
    pixels, z = project_points(transform_points(torch.eye(4, dtype=torch.float64), points), k[0])
    assert points.dtype == pixels.dtype == torch.float32
    z.sum().backward()
    torch.testing.assert_close(depth.grad, torch.ones_like(depth))


@KINDS
def test_similarity_of_exact_pairs_comes_back(kind):
    rng = np.random.default_rng(9)
    source = rng.normal(size=(2, 3, 40, 3)) * [2.0, 1.0, 0.5]
    pose, scale = random_poses(rng, 2, 3), rng.uniform(0.2, 5.0, (2, 3))
    target = scale[..., None, None] * (source @ pose[..., :3, :3].swapaxes(-1, -2)) + pose[..., None, :3, 3]
    fitted = fit_similarity(kind(source), kind(target))
    assert all(type(part) is type(kind(source)) for part in fitted)
    for part, expected in zip(fitted, (scale, pose[..., :3, :3], pose[..., :3, 3]), strict=True):
        np.testing.assert_allclose(np.asarray(part), expected, atol=1e-12)


def test_similarity_by_hand():
    # A quarter turn about z, twice as large, one step along x.
    source = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    target = np.array([[1.0, 0.0, 0.0], [1.0, 2.0, 0.0], [-1.0, 0.0, 0.0]])
    scale, rotation, translation = fit_similarity(source, target)
    assert scale == pytest.approx(2.0)
    np.testing.assert_allclose(rotation, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(translation, [1, 0, 0], atol=1e-12)


def test_similarity_is_the_best_of_its_kind_on_noisy_pairs():
    rng = np.random.default_rng(10)
    source = rng.normal(size=(30, 3))
    target = 1.7 * source @ random_poses(rng, 1)[0, :3, :3].T + rng.normal(scale=0.3, size=(30, 3))
    weights = rng.uniform(0.1, 3.0, 30)

    def error(scale, rotation, translation):
        return (weights * ((scale * source @ rotation.T + translation - target) ** 2).sum(-1)).sum()

    for with_scale in (True, False):
        scale, rotation, translation = fit_similarity(source, target, weights, with_scale)
        best = error(scale, rotation, translation)
        for step in rng.normal(scale=0.01, size=(50, 7)):
            turned = rotation @ Rotation.from_rotvec(step[:3]).as_matrix()
            assert error(scale + with_scale * step[6], turned, translation + step[3:6]) > best
    assert float(scale) == 1.0


def test_similarity_by_whole_weights_is_that_of_repeated_pairs():
    rng = np.random.default_rng(11)
    source, target = rng.normal(size=(2, 12, 3))
    counts = rng.integers(0, 4, 12)
    repeated = fit_similarity(source.repeat(counts, 0), target.repeat(counts, 0))
    for part, expected in zip(fit_similarity(source, target, counts), repeated, strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-12)


@KINDS
def test_similarity_never_mirrors(kind):
    rng = np.random.default_rng(12)
    source = rng.normal(size=(40, 3)) * [3.0, 2.0, 1.0]
    _, rotation, _ = fit_similarity(kind(source), kind(source * [1.0, 1.0, -1.0]))
    assert np.linalg.det(np.asarray(rotation)) == pytest.approx(1.0)
    flat = source * [1.0, 1.0, 0.0]  # a plane does not say on which side one stands: the turn is kept
    turn = random_poses(rng, 1)[0, :3, :3]
    _, rotation, _ = fit_similarity(kind(flat), kind(flat @ turn.T))
    np.testing.assert_allclose(np.asarray(rotation), turn, atol=1e-9)


@KINDS
def test_similarity_keeps_the_dtype_and_computes_in_float64(kind):
    rng = np.random.default_rng(13)
    source = rng.normal(size=(100, 3)) + 1e3
    fitted = fit_similarity(kind(source.astype(np.float32)), kind((3 * source).astype(np.float32)))
    assert all(part.dtype == kind(np.zeros(1, np.float32)).dtype for part in fitted)
    np.testing.assert_allclose(np.asarray(fitted[1]), np.eye(3), atol=1e-4)
    assert float(fitted[0]) == pytest.approx(3.0, abs=1e-3)


@KINDS
@pytest.mark.parametrize(
    "name, source, target",
    [
        ("two points", np.eye(3)[:2], np.eye(3)[:2]),
        ("a line", np.outer(np.arange(9.0), [1, 2, 3]) + 1e3, np.random.default_rng(14).normal(size=(9, 3))),
        ("one place", np.random.default_rng(15).normal(size=(9, 3)), np.ones((9, 3))),
        ("a mirrored cube", np.array(BOX_CORNER_SIGNS), -np.array(BOX_CORNER_SIGNS)),
    ],
)
def test_similarity_refuses_points_that_leave_the_rotation_open(kind, name, source, target):
    with pytest.raises(ValueError, match="leaves the rotation open"):
        fit_similarity(kind(source), kind(target))


@KINDS
def test_similarity_refuses_bad_arguments(kind):
    points = np.random.default_rng(16).normal(size=(5, 3))
    with pytest.raises(ValueError, match=r"source has shape \(5, 3\) and target \(4, 3\)"):
        fit_similarity(kind(points), kind(points[:4]))
    with pytest.raises(ValueError, match=r"expected the same \(..., N, 3\)"):
        fit_similarity(kind(points[:, :2]), kind(points[:, :2]))
    with pytest.raises(ValueError, match=r"weights has shape \(4,\); expected \(5,\)"):
        fit_similarity(kind(points), kind(points), kind(np.ones(4)))
    with pytest.raises(ValueError, match="weights go down to -1"):
        fit_similarity(kind(points), kind(points), kind(np.array([1.0, 1, 1, 1, -1])))
    for place, name in enumerate(("source", "target", "weights")):
        arrays = [points.copy(), points.copy(), np.ones(5)]
        arrays[place][0] = np.nan
        with pytest.raises(ValueError, match=f"{name} holds NaN"):
            fit_similarity(*(kind(array) for array in arrays))
    with pytest.raises(ValueError, match="fit 0 of 0 weighted pairs"):
        fit_similarity(kind(points), kind(points), kind(np.zeros(5)))
