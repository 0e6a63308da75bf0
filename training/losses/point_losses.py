"""Losses of point maps and points: distances, distances by confidence, and the confidence itself."""

import torch

from .loss_sum import LossSum, check_shapes, in_full_precision, only_valid, sum_over_places, valid_mask


def _known(prediction, target, valid):
    """Both point sets where they count, 0 elsewhere, and the mask."""
    check_shapes(prediction=prediction, target=target)
    valid = valid_mask(valid, target.isfinite().all(-1))
    return only_valid(prediction, valid), only_valid(target, valid), valid


@in_full_precision
def point_loss(prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor | None = None) -> LossSum:
    """Euclidean distances of points. Items: valid points.

    Frame: camera of the scene's first view, OpenCV axes, for both. Units: metres.

    Args:
        prediction (`torch.Tensor` of shape `(..., 3)`), target (`torch.Tensor` of shape `(..., 3)`): points.
        valid (`torch.Tensor` of shape `(...)`, bool, *optional*): points that count, by default finite targets.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import point_loss
        >>> target = torch.tensor([[0.0, 0.0, 0.0], [torch.nan, torch.nan, torch.nan]])
        >>> loss = point_loss(torch.tensor([[3.0, 4.0, 0.0], [1.0, 1.0, 1.0]]), target)
        >>> float(loss.sum), int(loss.count)
        (5.0, 1)

        ```
    """
    prediction, target, valid = _known(prediction, target, valid)
    return sum_over_places(_distance(prediction, target), valid)


def _distance(first, second):
    return ((first - second).square().sum(-1) + 1e-12).sqrt()  # smooth at 0, where the gradient of a root is infinite


@in_full_precision
def confidence_loss(
    error: torch.Tensor, confidence: torch.Tensor, alpha: float, *, weigh_error: bool = False
) -> LossSum:
    """`confidence * error - alpha * log(confidence)`: the confidence learns to be `alpha / error`. Items: errors.

    `Differs:` the error is taken as given, so that confidence never trades accuracy away; VGGT (arXiv:2503.11651) and
    GeoVR weigh the error's own gradient by the confidence, see `weigh_error`.

    Args:
        error (`torch.Tensor` of shape `(N,)`): errors in metres.
        confidence (`torch.Tensor` of shape `(N,)`): confidences above 1.
        alpha (`float`): error in metres at which the confidence falls to 1; 0.2 in VGGT.
        weigh_error (`bool`, defaults to False): whether the error learns from this, too, the more where it is sure.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import confidence_loss
        >>> float(confidence_loss(torch.tensor([0.5]), torch.tensor([1.0]), alpha=0.5).sum)
        0.5

        ```
    """
    check_shapes(error=error, confidence=confidence)
    losses = confidence * (error if weigh_error else error.detach()) - alpha * confidence.log()
    return LossSum(losses.sum(), torch.tensor(losses.numel(), device=losses.device))


@in_full_precision
def normalise_points(points: torch.Tensor, valid: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Divide the points of each scene by their mean distance from the origin, so that the unit no longer matters.

    Frame: that of the points, whose origin stays. Source: VGGT (arXiv:2503.11651) for targets; VG-LLM for both. The
    factor is kept within 1e-3 and 1e3.

    Args:
        points (`torch.Tensor` of shape `(B, ..., 3)`): points of B scenes.
        valid (`torch.Tensor` of shape `(B, ...)`, bool, *optional*): points that count, by default finite ones.
    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: points, 0 where they do not count, and the mean distances `(B,)`.
    Raises:
        ValueError: if shapes do not fit. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import normalise_points
        >>> points, scale = normalise_points(torch.tensor([[[0.0, 0.0, 2.0], [0.0, 4.0, 0.0]]]))
        >>> [round(float(length), 2) for length in points[0].norm(dim=-1)], round(float(scale), 2)
        ([0.67, 1.33], 3.0)

        ```
    """
    check_shapes(last=3, points=points)
    valid = valid_mask(valid, points.isfinite().all(-1))
    points = only_valid(points, valid)
    count = valid[:, None].flatten(1).sum(1)
    distances = only_valid(_distance(points, torch.zeros_like(points)), valid)
    scale = (distances[:, None].flatten(1).sum(1) / (count + 1e-3)).clamp(1e-3, 1e3)
    return points / scale.reshape(-1, *[1] * (points.ndim - 1)), scale


@in_full_precision
def point_map_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    valid: torch.Tensor | None = None,
    confidence: torch.Tensor | None = None,
    *,
    alpha: float = 0.2,
    weigh_error: bool = True,
) -> LossSum:
    """Distances of a point map by its confidence, `confidence * distance - alpha * log(confidence)`.

    Items: valid points. A teacher's confidence as weight: pass it with `alpha=0`. Depth goes as points of one number.
    For maps of unknown scale pass both through `normalise_points` first.
    Frame: camera of the scene's first view, OpenCV axes, for both. Units: metres, or normalised.
    Source: DUSt3R (CVPR 2024), eq. 4; VGGT (arXiv:2503.11651), with alpha 0.2. `Differs:` VG-LLM's code averages the
    first view and the others apart and adds both; call it for each to have that.

    Args:
        prediction (`torch.Tensor` of shape `(..., C)`), target (same shape): points, C = 3, or depth, C = 1.
        valid (`torch.Tensor` of shape `(...)`, bool, *optional*): points that count, by default finite targets.
        confidence (`torch.Tensor` of shape `(...)`, *optional*): confidences above 0; without it all are 1.
        alpha (`float`, defaults to 0.2): weight of the logarithm.
        weigh_error (`bool`, defaults to True): whether the distance learns by its confidence, see `confidence_loss`.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import point_map_loss
        >>> points = torch.rand(2, 4, 4, 3)
        >>> moved = points + torch.tensor([0.0, 0.0, 0.5])
        >>> loss = point_map_loss(moved, points, confidence=torch.full((2, 4, 4), 2.0))
        >>> round(float(loss.mean), 4)  # 2 * 0.5 - 0.2 * ln 2
        0.8614

        ```
    """
    prediction, target, valid = _known(prediction, target, valid)
    confidence = torch.ones_like(valid, dtype=prediction.dtype) if confidence is None else confidence
    check_shapes(confidence=confidence, valid=valid)
    return confidence_loss(_distance(prediction, target)[valid], confidence[valid], alpha, weigh_error=weigh_error)
