"""Losses of cameras: rotation, translation, field of view, VGGT's pose encoding, and poses of views to each other.

Quaternions are (x, y, z, w), scalar last; q and -q are one rotation. Angles are in radians, lengths in metres or in
the unit of a teacher, the same for prediction and target.
"""

import torch

from ...processing.camera_geometry_gap_mllm import check_rigid
from ...vggt_heads_gap_mllm import POSE_ENCODING_SIZE
from .loss_sum import LossSum, check_shapes, in_full_precision, only_valid, sum_over_places, unit, valid_mask


ROTATION_ERRORS = ("geodesic", "l1", "chordal", "dot")
TRANSLATION_ERRORS = ("l1", "l2", "angle")


def _check_kind(kind, known):
    if kind not in known:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(known)}.")


def _finite(prediction, target, valid, last):
    """Both where they count, 0 elsewhere, and the mask, over all but the last dimension."""
    check_shapes(prediction=prediction, target=target)
    check_shapes(last=last, prediction=prediction)
    valid = valid_mask(valid, target.isfinite().all(-1))
    return only_valid(prediction, valid), only_valid(target, valid), valid


def _angle(sine, cosine, valid, prediction, unknown):
    """atan2 where valid; a prediction of 0, which has no direction, is `unknown` radians off."""
    is_open = valid & (prediction != 0).any(-1)
    return torch.where(is_open, torch.atan2(sine, only_valid(cosine, is_open, 1.0)), unknown)


@in_full_precision
def rotation_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    valid: torch.Tensor | None = None,
    *,
    kind: str = "geodesic",
    free_sign: bool = True,
) -> LossSum:
    """Error of rotations that are given as quaternions. Items: valid rotations.

    "geodesic" is the angle between both, 2 atan2(|v|, |w|) of the rotation from one to the other, in radians (Huynh
    2009, metric 6); "chordal" the Frobenius distance of the matrices, 2 sqrt(2) sin(angle / 2); "dot" is
    1 - (q . q*)^2; "l1" the mean of the four absolute differences. Both are scaled to length 1 before.
    Source: GeoVR (arXiv:2606.05833) and VGGT take "l1". `Differs:` in their code neither is scaled and q and -q
    differ; with `free_sign=False` both hold for "l1" here, too.

    Args:
        prediction (`torch.Tensor` of shape `(..., 4)`): quaternions (x, y, z, w) of any length but 0.
        target (`torch.Tensor` of shape `(..., 4)`): quaternions (x, y, z, w) of any length but 0.
        valid (`torch.Tensor` of shape `(...)`, bool, *optional*): rotations that count, by default finite targets.
        kind (`str`, defaults to "geodesic"): one of "geodesic", "l1", "chordal", "dot".
        free_sign (`bool`, defaults to True): whether "l1" takes the nearer of q* and -q*, both of length 1.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ or the kind is not known. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import rotation_loss
        >>> none, quarter = torch.tensor([[0.0, 0.0, 0.0, 1.0]]), torch.tensor([[0.0, -1.0, 0.0, -1.0]])
        >>> round(float(rotation_loss(none, quarter).mean), 4)
        1.5708

        ```
    """
    _check_kind(kind, ROTATION_ERRORS)
    prediction, target, valid = _finite(prediction, target, valid, 4)
    if kind == "l1" and not free_sign:
        return sum_over_places((prediction - target).abs().mean(-1), valid)
    prediction, target = unit(prediction), unit(target)
    dot = (prediction * target).sum(-1)
    if kind == "l1":
        sign = torch.where(dot < 0, -1.0, 1.0)[..., None]
        return sum_over_places((prediction - sign * target).abs().mean(-1), valid)
    if kind == "dot":
        return sum_over_places(1 - dot.square(), valid)
    v, w = prediction[..., :3], prediction[..., 3:]
    v_target, w_target = target[..., :3], target[..., 3:]
    half_sine = (w_target * v - w * v_target - torch.linalg.cross(v, v_target)).norm(dim=-1)
    if kind == "chordal":
        return sum_over_places(8**0.5 * half_sine, valid)
    return sum_over_places(2 * _angle(half_sine, dot.abs(), valid, prediction, torch.pi / 2), valid)


@in_full_precision
def translation_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    valid: torch.Tensor | None = None,
    *,
    kind: str = "l1",
    max_error: float = torch.inf,
) -> LossSum:
    """Error of translations. Items: valid translations.

    "l1" is the mean of the three absolute differences, "l2" the distance, "angle" the angle between the directions in
    radians, for poses up to scale. Frame: any, the same for both.

    Args:
        prediction (`torch.Tensor` of shape `(..., 3)`), target (same shape): translations.
        valid (`torch.Tensor` of shape `(...)`, bool, *optional*): translations that count, by default finite targets,
            and for "angle" those that are not 0.
        kind (`str`, defaults to "l1"): one of "l1", "l2", "angle".
        max_error (`float`, defaults to infinity): largest difference of a coordinate for "l1", to which larger ones
            are cut.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ or the kind is not known. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import translation_loss
        >>> float(translation_loss(torch.tensor([[3.0, 0.0, 0.0]]), torch.zeros(1, 3)).mean)
        1.0

        ```
    """
    _check_kind(kind, TRANSLATION_ERRORS)
    prediction, target, valid = _finite(prediction, target, valid, 3)
    if kind == "l1":
        return sum_over_places((prediction - target).abs().clamp(max=max_error).mean(-1), valid)
    if kind == "l2":
        return sum_over_places(((prediction - target).square().sum(-1) + 1e-24).sqrt(), valid)
    valid = valid & (target != 0).any(-1)
    prediction, target = unit(prediction), unit(target)
    sine, cosine = torch.linalg.cross(prediction, target).norm(dim=-1), (prediction * target).sum(-1)
    return sum_over_places(_angle(sine, cosine, valid, prediction, torch.pi / 2), valid)


@in_full_precision
def field_of_view_loss(prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor | None = None) -> LossSum:
    """Mean absolute error of the two angles of a field of view. Items: valid views. Source: VGGT, GeoVR.

    Args:
        prediction (`torch.Tensor` of shape `(..., 2)`): angles (height, width) in radians.
        target (`torch.Tensor` of shape `(..., 2)`): angles (height, width) in radians.
        valid (`torch.Tensor` of shape `(...)`, bool, *optional*): views that count, by default finite targets.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import field_of_view_loss
        >>> round(float(field_of_view_loss(torch.tensor([[0.9, 1.2]]), torch.tensor([[1.0, 1.0]])).mean), 4)
        0.15

        ```
    """
    prediction, target, valid = _finite(prediction, target, valid, 2)
    return sum_over_places((prediction - target).abs().mean(-1), valid)


@in_full_precision
def pose_encoding_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    valid: torch.Tensor | None = None,
    *,
    max_error: float = 100.0,
    free_sign: bool = True,
) -> LossSum:
    """Absolute errors of translation, quaternion and half of the field of view's. Items: valid views.

    Frame: that of the encodings, the same for both: world to camera for VGGT, camera to world for Depth Anything 3.
    Source: GeoVR (arXiv:2606.05833), camera loss, weight 2.5 there. `Differs:` q and -q are one rotation, see
    `rotation_loss`; `free_sign=False` is the release.

    Args:
        prediction (`torch.Tensor` of shape `(..., 9)`): translation, quaternion (x, y, z, w), field of view (h, w).
        target (`torch.Tensor` of shape `(..., 9)`): likewise.
        valid (`torch.Tensor` of shape `(...)`, bool, *optional*): views that count, by default finite targets.
        max_error (`float`, defaults to 100.0): largest error of a coordinate of the translation.
        free_sign (`bool`, defaults to True): whether the nearer of q* and -q* is the target.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import pose_encoding_loss
        >>> pose = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0, 0.8, 1.0]])
        >>> flipped = pose * torch.tensor([1.0] * 3 + [-1.0] * 4 + [1.0] * 2)
        >>> float(pose_encoding_loss(flipped, pose).mean)
        0.0
        >>> float(pose_encoding_loss(flipped, pose, free_sign=False).mean)  # 2 / 4
        0.5

        ```
    """
    prediction, target, valid = _finite(prediction, target, valid, POSE_ENCODING_SIZE)
    translation = translation_loss(prediction[..., :3], target[..., :3], valid, max_error=max_error)
    rotation = rotation_loss(prediction[..., 3:7], target[..., 3:7], valid, kind="l1", free_sign=free_sign)
    fov = field_of_view_loss(prediction[..., 7:], target[..., 7:], valid)
    return LossSum(translation.sum + rotation.sum + 0.5 * fov.sum, translation.count)


@in_full_precision
def pose_loss(iterations: torch.Tensor, target: torch.Tensor, decay: float = 0.6) -> LossSum:
    """Absolute pose-encoding errors, later refinements counting more. Items: views.

    Source: VGGT's camera loss: L1 of translation and quaternion, half of the field of view's.

    Args:
        iterations (`torch.Tensor` of shape `(iterations, ..., 9)`): encodings of the camera head.
        target (`torch.Tensor` of shape `(..., 9)`): unit quaternion with w >= 0; metres, radians.
        decay (`float`, defaults to 0.6): weight of each iteration relative to the next.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import pose_loss
        >>> iterations, target = torch.zeros(4, 2, 9), torch.zeros(2, 9)
        >>> loss = pose_loss(iterations, target)
        >>> float(loss.sum), int(loss.count)
        (0.0, 2)

        ```
    """
    steps = [pose_encoding_loss(step, target, max_error=torch.inf, free_sign=False) for step in iterations]
    weights = [decay ** (len(steps) - 1 - index) for index in range(len(steps))]
    total = sum(weight * step.sum for weight, step in zip(weights, steps, strict=True))
    return LossSum(total / sum(weights), steps[-1].count)


@in_full_precision
def relative_pose_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    valid: torch.Tensor | None = None,
    *,
    translation: str = "l1",
    rotation_weight: float = 1.0,
) -> LossSum:
    """Errors of the pose of each view in the camera of each other one: angle in radians plus that of the translation.

    No frame is singled out, so that moving either world rigidly changes nothing. Items: ordered pairs of different
    valid views of a scene.
    Frame: camera to world, OpenCV axes; any world, prediction and target each have their own. Units: metres, radians.
    Source: relative poses as in VGGT's and DUSt3R's evaluation; the sum is our choice.

    Args:
        prediction (`torch.Tensor` of shape `(B, V, 4, 4)`): camera to world.
        target (`torch.Tensor` of shape `(B, V, 4, 4)`): camera to world.
        valid (`torch.Tensor` of shape `(B, V)`, bool, *optional*): views whose pose counts, by default finite targets.
        translation (`str`, defaults to "l1"): error of the translation, see `translation_loss`.
        rotation_weight (`float`, defaults to 1.0): factor of the angle.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ, a valid pose is not rigid (one of determinant -1 is mirrored), or the error is
            not known. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import relative_pose_loss
        >>> poses = torch.eye(4).repeat(1, 3, 1, 1)
        >>> poses[0, :, 0, 3] = torch.tensor([0.0, 0.3, 0.6])
        >>> moved = poses.clone()
        >>> moved[..., 2, 3] += 5.0  # another world
        >>> loss = relative_pose_loss(moved, poses)
        >>> round(float(loss.sum), 4), int(loss.count)
        (0.0, 6)

        ```
    """
    check_shapes(prediction=prediction, target=target)
    if prediction.ndim != 4 or tuple(prediction.shape[-2:]) != (4, 4):
        raise ValueError(f"prediction has shape {tuple(prediction.shape)}; expected (B, V, 4, 4), camera to world.")
    valid = valid_mask(valid, target.isfinite().all(-1).all(-1))
    check_rigid(target.detach()[valid], "target")
    check_rigid(prediction.detach()[valid], "prediction")
    place = torch.eye(4, dtype=prediction.dtype, device=prediction.device)
    is_self = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    pairs = valid[:, :, None] & valid[:, None, :] & ~is_self
    poses = [torch.where(valid[..., None, None], each, place.to(each.dtype)) for each in (prediction, target)]
    (rotation, moved), (true_rotation, true_moved) = (_between(each) for each in poses)
    turn = rotation.transpose(-1, -2) @ true_rotation
    twice_sine = ((turn - turn.transpose(-1, -2)) / 2**0.5).flatten(-2).norm(dim=-1)
    angle = torch.atan2(twice_sine, turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1)
    turned = sum_over_places(angle, pairs)
    shifted = translation_loss(moved, true_moved, pairs, kind=translation)
    return LossSum(rotation_weight * turned.sum + shifted.sum, turned.count)


def _between(camera_to_world):
    """Rotation (B, V, V, 3, 3) and translation (B, V, V, 3) of the second view in the camera of the first."""
    inverse = camera_to_world[:, :, None, :3, :3].transpose(-1, -2)
    step = camera_to_world[:, None, :, :3, 3] - camera_to_world[:, :, None, :3, 3]
    return inverse @ camera_to_world[:, None, :, :3, :3], (inverse @ step[..., None])[..., 0]
