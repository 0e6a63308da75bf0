"""Losses against golden data: values of the released code of 3DRS, GeoVR and VG-LLM, and formulas in float64.

Released code ran in float32: 1e-5 relative. Formulas were computed in float64: 1e-9. See tests/fixtures/distill.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from gap_mllm.processing.camera_geometry_gap_mllm import fit_similarity
from gap_mllm.training.losses import (
    GEOVR_WEIGHTS,
    LossSum,
    chamfer_loss,
    depth_gradient_loss,
    feature_distillation_loss,
    geovr_losses,
    layer_distillation_loss,
    metric_scale_loss,
    metric_scale_target,
    normal_loss,
    normalise_points,
    normals_from_depth,
    point_consistency_loss,
    point_contrast_loss,
    point_map_loss,
    point_pixel_contrast_loss,
    pool_features,
    pose_encoding_loss,
    quadrant_normals,
    region_text_contrast_loss,
    region_text_sigmoid_loss,
    relational_distillation_loss,
    rotation_loss,
    scale_invariant_depth_loss,
    translation_loss,
    trimmed_depth_loss,
    voxel_ids,
    weighted_loss,
)


FIXTURES = Path(__file__).parents[1] / "fixtures" / "distill"
RELEASED, FORMULA = 1e-5, 1e-9


def read(name):
    """Tensors of a fixture in float64 where they are floating; scalars as scalars."""
    tensors = load_file(FIXTURES / f"{name}.safetensors")
    tensors = {key: value.double() if value.is_floating_point() else value for key, value in tensors.items()}
    return {key: value[0] if value.shape == (1,) else value for key, value in tensors.items()}


@pytest.fixture(scope="module")
def geovr():
    return read("geovr")


@pytest.fixture(scope="module")
def formulas():
    return read("standard_formulas")


@pytest.fixture(scope="module")
def vgllm():
    return read("vgllm_dense_losses")


def equal(loss, expected, tolerance):
    value = loss.mean if isinstance(loss, LossSum) else loss
    return value.item() == pytest.approx(float(expected), rel=tolerance, abs=tolerance * 1e-2)


# GeoVR


def test_geovr_camera(geovr):
    prediction, target = geovr["camera.pred"][0], geovr["camera.gt"][0]
    assert equal(pose_encoding_loss(prediction, target, free_sign=False), geovr["camera.loss_camera"], RELEASED)
    translation = translation_loss(prediction[:, :3], target[:, :3], max_error=100.0)
    assert equal(translation, geovr["camera.loss_T"], RELEASED)
    rotation = rotation_loss(prediction[:, 3:7], target[:, 3:7], kind="l1", free_sign=False)
    assert equal(rotation, geovr["camera.loss_R"], RELEASED)
    scenes = [(geovr[f"camera.batch.pred{i}"], geovr[f"camera.batch.gt{i}"][0]) for i in range(2)]
    means = [pose_encoding_loss(*scene, free_sign=False).mean for scene in scenes]
    assert equal(sum(means) / 2, geovr["camera.batch.total_T_R_FL"][0], RELEASED)
    nearer = pose_encoding_loss(prediction, target)  # ours: q and -q are one rotation
    assert nearer.mean < geovr["camera.loss_camera"]


@pytest.mark.parametrize("case", ["small", "trim", "conf", "filter40"])
def test_geovr_depth(geovr, case):
    prediction, target = geovr[f"depth.{case}.pred"].clone().requires_grad_(), geovr[f"depth.{case}.gt"]
    by_confidence, regression, gradient = geovr[f"depth.{case}.loss_conf_reg_grad"]
    valid = None
    if case == "filter40":
        sureness = geovr["depth.filter40.gt_conf"]
        valid = sureness >= sureness.quantile(0.4)
    first = trimmed_depth_loss(prediction, target, valid)
    second = depth_gradient_loss(prediction, target, valid)
    assert equal(first, regression, RELEASED)
    assert equal(second, gradient, RELEASED)
    assert first.count == second.count == 1
    losses = first.mean + second.mean
    if case == "conf":
        third = trimmed_depth_loss(prediction, target, confidence=geovr["depth.conf.pred_conf"])
        assert equal(third, by_confidence, RELEASED)
        losses = losses + third.mean
    losses.backward()
    assert equal(prediction.grad.abs().sum(), geovr[f"depth.{case}.grad_abs_sum"], 1e-4)
    if case in ("small", "trim"):
        silog = scale_invariant_depth_loss(prediction, target, square_root=True)
        assert equal(silog, geovr[f"depth.{case}.silog"], RELEASED)


def test_geovr_scale(geovr):
    loss = metric_scale_loss(geovr["scale_loss.pred"], geovr["scale_loss.gt"])
    assert equal(loss, geovr["scale_loss.loss"], RELEASED)
    depth, fov = geovr["scale_target.depth"], geovr["scale_target.pose_enc"][..., 7:]
    size = torch.tensor(depth.shape[-2:])
    focal = (size / 2 / torch.tan(fov / 2)).mean(-1)[..., None, None]
    metric = geovr["scale_target.metric_raw"] * focal / 300
    scale, is_known = metric_scale_target(
        depth, metric, geovr["scale_target.sky"] < 0.3, geovr["scale_target.depth_conf"]
    )
    assert is_known.all() and equal(scale, geovr["scale_target.scale"], RELEASED)


def made_weights(*shapes, amplitude, number=0):
    """The weights of the golden data by formula; see its README."""
    for shape in shapes:
        index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        yield (amplitude * torch.sin(0.37 * index + 1.1 * number)).reshape(shape)
        number += 1


def projected(student, size, width):
    """A distillation head: LayerNorm, Linear, GELU, Linear."""
    channels = student.shape[-1]
    shapes = ((channels,), (channels,), (width, channels), (width,), (width, width), (width,))
    weights = list(made_weights(*shapes, amplitude=0.3))
    if tuple(student.shape[1:3]) != size:
        student = F.interpolate(student.permute(0, 3, 1, 2), size, mode="bilinear").permute(0, 2, 3, 1)
    hidden = F.layer_norm(student, (channels,), 1 + weights[0], weights[1])
    return F.linear(F.gelu(F.linear(hidden, *weights[2:4])), *weights[4:])


def pooled_by_two(features):
    return pool_features(features[:, : features.shape[1] // 2 * 2, : features.shape[2] // 2 * 2], halves(features))


def halves(features):
    return features.shape[1] // 2, features.shape[2] // 2


def test_geovr_distillation(geovr):
    pairs = {}
    for case in ("same", "up", "odd"):
        student = geovr[f"distill.{case}.student"].clone().requires_grad_()
        target = pooled_by_two(geovr[f"distill.{case}.teacher"])
        prediction = projected(student, tuple(target.shape[1:3]), target.shape[-1])
        torch.testing.assert_close(prediction, geovr[f"distill.{case}.head_out"], rtol=1e-4, atol=1e-5)
        pairs[case] = prediction, target
        loss = feature_distillation_loss(prediction, target)
        assert equal(loss, geovr[f"distill.{case}.loss"], RELEASED)
        loss.mean.backward(retain_graph=True)
        torch.testing.assert_close(student.grad, geovr[f"distill.{case}.grad_student"], rtol=1e-4, atol=1e-7)
    both = [layer_distillation_loss([pairs[name][0]] * 2, [pairs[name][1]] * 2) for name in ("same", "up")]
    assert equal(sum(loss.mean for loss in both) / 2, geovr["distill.two_layers_two_samples"], RELEASED)


def test_geovr_whole(geovr):
    tensors, results = read("geovr_e2e"), json.loads((FIXTURES / "geovr_e2e.json").read_text())
    teacher = [pooled_by_two(tensors[f"teacher_feat_{layer}"]) for layer in (4, 11, 17, 23)]
    hidden = [tensors[f"out.video_hidden_{layer}"].unflatten(1, (3, 2)) for layer in (1, 3, 4, 6)]
    depth, pose = tensors["teacher_depth"], tensors["teacher_pose_enc"]
    focal = (torch.tensor(depth.shape[-2:]) / 2 / torch.tan(pose[..., 7:] / 2)).mean(-1)[..., None, None]
    metric = tensors["metric_depth"] * focal / 300
    scale, _ = metric_scale_target(depth, metric, tensors["sky"] < 0.3, tensors["teacher_depth_conf"])
    losses = geovr_losses(
        tensors["out.pred_pose_enc"][0],
        tensors["out.pred_depth"][0],
        [projected(layer, (3, 2), 6) for layer in hidden],
        torch.tensor(results["pred_scale"][0], dtype=torch.float64),
        target_pose_enc=pose[0],
        target_depth=depth[0],
        target_features=teacher,
        target_scale=scale[0],
        free_sign=False,
    )
    for name, key in (("camera", "camera"), ("depth", "depth"), ("distillation", "distill"), ("scale", "scale")):
        assert losses[name].count == 1
        assert equal(losses[name], results[f"{key}_loss"], 2e-5), name  # hidden states were saved in float32
    losses["text"] = LossSum(torch.tensor(results["loss"]), torch.tensor(1))
    assert equal(weighted_loss(losses, GEOVR_WEIGHTS), results["total_2.5_1_1_1"], RELEASED)


# 3DRS


@pytest.mark.parametrize("grid", ["28x37", "16x16"])
def test_3drs_distillation(grid):
    tensors = read("threedrs_distill")
    height, width = map(int, grid.split("x"))
    patches = tensors["hidden_states"][0, int(tensors["image_start"]) :][: 32 * 14 * 15].unflatten(0, (32, 14, 15))
    weights = [tensors[f"proj.{layer}.{name}"].clone() for layer in (0, 2) for name in ("weight", "bias")]
    weights[3].requires_grad_()
    prediction = F.linear(F.gelu(F.linear(patches[:, :, :14], *weights[:2])), *weights[2:])
    target = pool_features(tensors[f"teacher_{grid}"].unflatten(1, (height, width)), (14, 14))
    released = feature_distillation_loss(prediction, target, squared_distance=True)
    assert released.count == 6272
    assert equal(released, tensors[f"loss_ref_{grid}"], RELEASED)
    released.mean.backward()
    torch.testing.assert_close(weights[3].grad, tensors[f"grad_proj2bias_{grid}"], rtol=1e-4, atol=1e-7)
    assert equal(feature_distillation_loss(prediction, target), tensors[f"loss_1mcos_formula_{grid}"], 1e-7)
    if grid == "16x16":
        relational = relational_distillation_loss(prediction.detach().flatten(0, 2), target.flatten(0, 2))
        assert equal(relational, tensors["relational_l1_ref_16x16"], RELEASED)


def test_3drs_correspondence():
    tensors = read("threedrs_correspondence")
    ids = voxel_ids(tensors["patch_coords"].float().flatten(0, 2))
    assert len(ids.unique()) == tensors["num_ids_fp32"]
    expected = tensors["voxel_id"].long()
    assert len(torch.stack([ids, expected], 1).unique(dim=0)) == tensors["num_ids_fp32"]  # one id for one id
    features, views = tensors["features"].flatten(0, 2), torch.arange(32).repeat_interleave(196)
    pairs = point_consistency_loss(features, ids, views)
    assert pairs.count == tensors["num_pairs"]
    assert equal(pairs, tensors["corr_loss_ref"], RELEASED)
    assert equal(1 - pairs.mean, tensors["score_pair_mean_formula"], FORMULA)
    points = point_consistency_loss(features, ids, views, mean_of_points=True)
    assert points.count == tensors["num_voxels_with_pairs"]
    assert equal(1 - points.mean, tensors["score_voxel_mean_formula"], FORMULA)
    within_views = point_consistency_loss(features, ids, mean_of_points=True)
    assert equal(1 - within_views.mean, tensors["score_eval_formula"], FORMULA)


# VG-LLM


def test_vgllm_points_and_depth(vgllm):
    mask, confidence = vgllm["vg.mask"].bool(), vgllm["vg.conf"]
    (prediction, scale), (target, true_scale) = (
        normalise_points(vgllm[f"vg.{name}_points"], mask) for name in ("pred", "gt")
    )
    assert equal(scale, vgllm["vg.pred_scale"], RELEASED) and equal(true_scale, vgllm["vg.gt_scale"], RELEASED)
    for part, views in (("1", slice(0, 1)), ("2", slice(1, None))):
        first = prediction[:, views], target[:, views], mask[:, views]
        assert equal(point_map_loss(*first), vgllm[f"vg.conf_loss.loss_reg{part}"], RELEASED)
        assert equal(point_map_loss(*first, confidence[:, views]), vgllm[f"vg.conf_loss.loss_conf{part}"], RELEASED)
        depths = [vgllm[f"vg.{name}_points"][:, views, ..., 2:] for name in ("pred", "gt")]
        assert equal(point_map_loss(*depths, first[2]), vgllm[f"vg.depth_conf.loss_reg{part}_depth"], RELEASED)
        by_confidence = point_map_loss(*depths, first[2], confidence[:, views])
        assert equal(by_confidence, vgllm[f"vg.depth_conf.loss_conf{part}_depth"], RELEASED)
        gradient = depth_gradient_loss(*(depth[..., 0] for depth in depths), first[2], over_pixels=True, min_pixels=0)
        assert equal(gradient, vgllm[f"vg.depth_conf.loss_grad{part}_depth"], RELEASED)
        normals = [normals_at(*(each[0] for each in first), stride) for stride in (1, 2, 4)]
        means = [loss.mean if loss.count >= 10 else 0.0 for loss in normals]
        assert equal(sum(means) / 3, vgllm[f"vg.conf_loss.loss_grad{part}"], 1e-4)  # 1 - cosine of small angles
    everything = prediction, target, torch.ones_like(mask), confidence
    depths = [vgllm[f"vg.{name}_points"][..., 2:] for name in ("pred", "gt")]
    weighed = point_map_loss(*depths, *everything[2:], alpha=0.0).mean
    by_teacher = [normalise_points(vgllm[f"vg.{name}_points"])[0] for name in ("pred", "gt")]
    weighed = weighed + point_map_loss(*by_teacher, *everything[2:], alpha=0.0).mean
    assert equal(weighed, vgllm["vg.dense_distill_formula"], RELEASED)


def normals_at(prediction, target, mask, stride):
    """The loss of normals in four quadrants on every so many pixels."""
    mask = mask[:, ::stride, ::stride]
    (normals, valid), (true_normals, _) = (
        quadrant_normals(points[:, ::stride, ::stride], mask) for points in (prediction, target)
    )
    return normal_loss(normals, true_normals, valid)


def test_vgllm_normals_and_gradients(vgllm):
    mask, prediction, target = vgllm["vg.mask"].bool()[0], vgllm["vg.pred_points"][0], vgllm["vg.gt_points"][0]
    normals, valid = quadrant_normals(target, mask)
    assert torch.equal(valid, vgllm["vg.gt_normals_valid"].bool())
    torch.testing.assert_close(normals[valid], vgllm["vg.gt_normals"][valid], rtol=0, atol=1e-6)
    assert equal(normals_at(prediction, target, mask, 1), vgllm["vg.normal_loss"], RELEASED)
    channels = [
        depth_gradient_loss(
            prediction[None, ..., axis], target[None, ..., axis], mask[None], over_pixels=True, min_pixels=0
        )
        for axis in range(3)
    ]
    assert equal(sum(loss.mean for loss in channels) / 3, vgllm["vg.gradient_loss_multi_scale"], RELEASED)


# Formulas


@pytest.mark.parametrize("focus", ["0.5", "0.85", "1.0"])
def test_scale_invariant_depth(formulas, focus):
    depths = formulas["si_pred"], formulas["si_gt"], formulas["si_mask"].bool()
    options = {"variance_focus": float(focus)}
    images = [scale_invariant_depth_loss(*(part[i : i + 1] for part in depths), **options).mean for i in range(2)]
    torch.testing.assert_close(torch.stack(images), formulas[f"si_eigen_per_image_l{focus}"], rtol=FORMULA, atol=0)
    assert equal(scale_invariant_depth_loss(*depths, **options), sum(images) / 2, FORMULA)
    pooled = [part[None] for part in depths]
    assert equal(scale_invariant_depth_loss(*pooled, **options), formulas[f"si_eigen_pooled_l{focus}"], FORMULA)
    root = scale_invariant_depth_loss(*pooled, **options, square_root=True, epsilon=0.0)
    assert equal(root, formulas[f"si_sqrt_pooled_l{focus}"], FORMULA)


def test_normals(formulas):
    intrinsics = formulas["nrm_K"]
    plane, valid = normals_from_depth(formulas["nrm_depth_plane"], intrinsics)
    assert torch.equal(valid[1:-1, 1:-1], torch.ones(14, 18, dtype=torch.bool)) and valid.sum() == 14 * 18
    expected = formulas["nrm_plane_normal"].expand(14, 18, 3)
    torch.testing.assert_close(plane[1:-1, 1:-1], expected, rtol=0, atol=FORMULA)
    noisy, valid = normals_from_depth(formulas["nrm_depth_noisy"], intrinsics, max_jump=None)
    torch.testing.assert_close(noisy[1:-1, 1:-1], formulas["nrm_noisy"], rtol=0, atol=FORMULA)
    assert equal(normal_loss(noisy, plane, valid), formulas["nrm_loss_1mcos"], FORMULA)
    assert equal(normal_loss(noisy, plane, valid, angle=True), formulas["nrm_loss_angle_atan2"], FORMULA)


def test_poses(formulas):
    quaternions = formulas["pose_q_pred_xyzw"], formulas["pose_q_gt_xyzw"]
    kinds = {"geodesic": "pose_geodesic", "chordal": "pose_chordal", "dot": "pose_quat_1mdot2"}
    for kind, name in {**kinds, "l1": "pose_quat_l1_signfree"}.items():
        losses = [rotation_loss(*pair, kind=kind).sum for pair in zip(*quaternions, strict=True)]
        expected = formulas[name] / (4 if kind == "l1" else 1)  # the mean of the four
        torch.testing.assert_close(torch.stack(losses), expected, rtol=1e-7, atol=FORMULA)
    translations = formulas["pose_t_pred"], formulas["pose_t_gt"]
    for kind, name in (("l2", "pose_t_l2"), ("angle", "pose_t_angle")):
        losses = [translation_loss(*pair, kind=kind).sum for pair in zip(*translations, strict=True)]
        torch.testing.assert_close(torch.stack(losses), formulas[name], rtol=1e-7, atol=FORMULA)


def test_contrast(formulas):
    first, second = formulas["nce_a"], formulas["nce_b"]
    one_way = point_pixel_contrast_loss(first, second, symmetric=False)
    assert equal(one_way, formulas["nce_a2b"], FORMULA)
    assert equal(point_pixel_contrast_loss(first, second), formulas["nce_sym"], FORMULA)
    assert equal(point_contrast_loss(first, formulas["sup_point_id"]), formulas["sup_loss_out"], FORMULA)
    by_labels = region_text_contrast_loss(first, second, torch.arange(12))
    assert equal(by_labels, formulas["nce_sym"], FORMULA)
    pairs = torch.eye(12, dtype=torch.bool)
    assert equal(region_text_sigmoid_loss(first, second, pairs), formulas["siglip_loss_t10_b-10"], FORMULA)


def test_chamfer(formulas):
    source = formulas["ume_X"]
    scale, rotation, translation = fit_similarity(source, formulas["ume_Y"])
    moved = scale * source @ rotation.T + translation
    assert equal(chamfer_loss(moved[None], formulas["rec_gt"][None]), formulas["rec_chamfer_half_sum"], FORMULA)
