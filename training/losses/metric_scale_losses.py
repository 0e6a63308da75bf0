"""Metric scale: the factor from a teacher's unit to metres, and the loss of a predicted one."""

import torch

from .loss_sum import LossSum, check_shapes, in_full_precision, only_valid, sum_over_places, valid_mask


@in_full_precision
def metric_scale_target(
    depth: torch.Tensor,
    metric_depth_m: torch.Tensor,
    valid: torch.Tensor | None = None,
    confidence: torch.Tensor | None = None,
    *,
    min_depth: float = 1e-3,
    min_metric_depth_m: float = 1e-2,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor s of each scene with metric_depth_m = s * depth, by least squares over all its pixels.

    Units: `depth` in those of its teacher, s in metres for each. A raw map of DA3METRIC is in metres after
    `raw * focal_length_px / 300`; sky is left out by `valid`.
    Source: GeoVR (arXiv:2606.05833), target of the scale token. `Differs:` the median of the confidence is exact;
    the release takes it from 10^5 random pixels of larger scenes.

    Args:
        depth (`torch.Tensor` of shape `(B, ..., H, W)`): z-depth of B scenes.
        metric_depth_m (same shape): z-depth of the same pixels in metres.
        valid (`torch.Tensor` of that shape, bool, *optional*): pixels that count, by default those finite in both.
        confidence (`torch.Tensor` of that shape, *optional*): sureness of `depth`; pixels below its median over the
            valid pixels of the scene are left out.
        min_depth (`float`, defaults to 1e-3): depth above which a pixel counts.
        min_metric_depth_m (`float`, defaults to 1e-2): metric depth above which a pixel counts, in metres.
    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: factors `(B,)`, 0 where not known, and whether each is known `(B,)`.
    Raises:
        ValueError: if shapes differ. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import metric_scale_target
        >>> depth = torch.rand(2, 3, 4, 6) + 1
        >>> scale, is_known = metric_scale_target(depth, 2.5 * depth)
        >>> scale.round(decimals=3).tolist(), is_known.tolist()
        ([2.5, 2.5], [True, True])

        ```
    """
    check_shapes(depth=depth, metric_depth_m=metric_depth_m)
    valid = valid_mask(valid, depth.isfinite() & metric_depth_m.isfinite())
    if confidence is not None:
        check_shapes(confidence=confidence, depth=depth)
        sure = torch.where(valid, confidence, torch.nan).flatten(1)
        median = sure.nanquantile(0.5, dim=1) if sure.shape[1] < 2**24 else sure.nanmedian(1).values
        valid = valid & (confidence >= median.reshape(-1, *[1] * (depth.ndim - 1)))
    valid = valid & (depth > min_depth) & (metric_depth_m > min_metric_depth_m)
    depth, metric = only_valid(depth, valid).flatten(1), only_valid(metric_depth_m, valid).flatten(1)
    return (depth * metric).sum(1) / depth.square().sum(1).clamp_min(1e-12), valid.flatten(1).any(1)


@in_full_precision
def metric_scale_loss(prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor | None = None) -> LossSum:
    """|ln(1 + s) - ln(1 + s*)| of the factor to metres. Items: valid scenes.

    Source: GeoVR (arXiv:2606.05833), scale token, weight 1 there.

    Args:
        prediction (`torch.Tensor` of shape `(B,)`), target (`torch.Tensor` of shape `(B,)`): factors above 0, metres
            for each unit.
        valid (`torch.Tensor` of shape `(B,)`, bool, *optional*): scenes that count, by default those with a finite
            target above 0.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import metric_scale_loss
        >>> round(float(metric_scale_loss(torch.tensor([3.0]), torch.tensor([1.0])).mean), 4)  # ln 4 - ln 2
        0.6931

        ```
    """
    check_shapes(prediction=prediction, target=target)
    valid = valid_mask(valid, target.isfinite() & (target > 0))
    prediction, target = only_valid(prediction, valid), only_valid(target, valid)
    return sum_over_places((prediction.log1p() - target.log1p()).abs(), valid)
