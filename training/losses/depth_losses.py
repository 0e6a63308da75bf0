"""Losses of depth maps: logarithmic, scale-invariant, trimmed, and of gradients at several scales.

Depth is z-depth along the optical axis, in metres or in a teacher's unit, the same for prediction and target. Without
`valid`, pixels count whose target is finite and above 0.
"""

from collections.abc import Sequence

import torch

from .loss_sum import (
    LossSum,
    check_shapes,
    in_full_precision,
    only_valid,
    sum_over_places,
    valid_mask,
)


def _measured(prediction, target, valid):
    """Both depths where they count, 1 elsewhere, and the mask."""
    check_shapes(prediction=prediction, target=target)
    valid = valid_mask(valid, target.isfinite() & (target > 0))
    return only_valid(prediction, valid, 1.0), only_valid(target, valid, 1.0), valid


@in_full_precision
def log_depth_loss(prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor | None = None) -> LossSum:
    """Absolute error of the logarithm of depth. Items: valid pixels. Source: our choice for the geometry encoder.

    Args:
        prediction (`torch.Tensor` of shape `(...)`), target (`torch.Tensor` of shape `(...)`): z-depth above 0.
        valid (`torch.Tensor` of shape `(...)`, bool, *optional*): pixels that count.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import log_depth_loss
        >>> loss = log_depth_loss(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0]))  # 0: nothing measured
        >>> round(float(loss.sum), 4), int(loss.count)
        (0.6931, 1)

        ```
    """
    prediction, target, valid = _measured(prediction, target, valid)
    return sum_over_places((prediction.log() - target.log()).abs(), valid)


@in_full_precision
def scale_invariant_depth_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    valid: torch.Tensor | None = None,
    *,
    variance_focus: float = 0.5,
    square_root: bool = False,
    epsilon: float = 1e-6,
    min_depth: float = 1e-3,
) -> LossSum:
    """mean(g^2) - variance_focus * mean(g)^2, g the difference of the logarithms of depth, or its root.

    Items: entries of the first dimension (views, or scenes of views) with a valid pixel. With `variance_focus` 1 a
    common factor of the prediction changes nothing.
    Source: Eigen, Puhrsch, Fergus (NeurIPS 2014), eq. 4, focus 0.5; as "silog" with root and focus 0.85 in BTS and
    AdaBins (which multiply it by 10), with root and 0.5 in GeoVR (arXiv:2606.05833).

    Args:
        prediction (`torch.Tensor` of shape `(N, ..., H, W)`), target (same shape): z-depth.
        valid (`torch.Tensor` of that shape, bool, *optional*): pixels that count.
        variance_focus (`float`, defaults to 0.5): share of the squared mean that is taken off, 0 to 1.
        square_root (`bool`, defaults to False): whether the root is taken.
        epsilon (`float`, defaults to 1e-6): number added below the root, whose gradient is infinite at 0.
        min_depth (`float`, defaults to 1e-3): least depth, to which both are raised.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import scale_invariant_depth_loss
        >>> depth = torch.rand(2, 4, 6) + 1
        >>> float(scale_invariant_depth_loss(3 * depth, depth, variance_focus=1.0).mean) < 1e-6
        True

        ```
    """
    prediction, target, valid = _measured(prediction, target, valid)
    error = only_valid(prediction.clamp_min(min_depth).log() - target.clamp_min(min_depth).log(), valid)
    error, valid = error[:, None].flatten(1), valid[:, None].flatten(1)
    count = valid.sum(1).clamp_min(1)
    mean = error.sum(1) / count
    # The spread around the mean, and not the mean of squares less its square: nothing is lost to rounding.
    spread = only_valid((error - mean[:, None]).square(), valid).sum(1) / count
    loss = spread + (1 - variance_focus) * mean.square()
    loss = (loss + epsilon).sqrt() if square_root else loss
    return sum_over_places(loss, valid.any(1))


@in_full_precision
def trimmed_depth_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    valid: torch.Tensor | None = None,
    confidence: torch.Tensor | None = None,
    *,
    alpha: float = 0.2,
    keep: float = 0.98,
    min_pixels: int = 1000,
    max_error: float = 100.0,
) -> LossSum:
    """Mean absolute error of depth without its largest errors, which are often those of the target.

    Items: entries of the first dimension (scenes of views in the source) with a valid pixel; of each the errors up to
    the one of rank ceil(keep * (n - 1)) + 1 count. Where n, or what is left, is not above `min_pixels`, all count, cut
    at `max_error`.
    Source: GeoVR (arXiv:2606.05833), regression of depth. `Differs:` the rank is exact for any size; above 10^7 pixels
    the release takes it from 10^6 random ones.

    Args:
        prediction (`torch.Tensor` of shape `(N, ..., H, W)`), target (same shape): z-depth.
        valid (`torch.Tensor` of that shape, bool, *optional*): pixels that count.
        confidence (`torch.Tensor` of that shape, *optional*): predicted confidences above 0; with them the loss of a
            pixel is `confidence * error - alpha * log(confidence)`, and by that the largest are left out.
        alpha (`float`, defaults to 0.2): weight of the logarithm.
        keep (`float`, defaults to 0.98): share of the errors that counts.
        min_pixels (`int`, defaults to 1000): number of pixels up to which nothing is left out.
        max_error (`float`, defaults to 100.0): largest error that is ever ranked, in the unit of depth.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import trimmed_depth_loss
        >>> target, prediction = torch.ones(1, 40, 50), torch.full((1, 40, 50), 1.5)
        >>> prediction[0, 0, :20] = 9.0  # one pixel in a hundred
        >>> float(trimmed_depth_loss(prediction, target).mean)
        0.5

        ```
    """
    prediction, target, valid = _measured(prediction, target, valid)
    errors = (prediction - target).abs()
    if confidence is not None:
        check_shapes(confidence=confidence, prediction=prediction)
        confidence = only_valid(confidence, valid, 1.0)
        errors = confidence * errors - alpha * confidence.log()
    losses = [
        _trimmed_mean(error[mask], keep, min_pixels, max_error) for error, mask in zip(errors, valid, strict=True)
    ]
    total = torch.stack(losses).sum() if losses else errors.sum()
    return LossSum(total, valid[:, None].flatten(1).any(1).sum())


def _trimmed_mean(errors, keep, min_pixels, max_error):
    num = errors.numel()
    if num > min_pixels:
        ranked = errors.detach().clamp(max=max_error)
        kept = errors[ranked <= ranked.kthvalue(min(num, -int(-keep * (num - 1) // 1) + 1)).values]
        if kept.numel() >= min_pixels and kept.detach().max() <= max_error:
            return kept.mean()
    return errors.clamp(max=max_error).sum() / max(num, 1)


@in_full_precision
def depth_gradient_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    valid: torch.Tensor | None = None,
    *,
    strides: Sequence[int] = (1, 2, 4, 8),
    min_pixels: int = 10,
    max_difference: float = 100.0,
    over_pixels: bool = False,
) -> LossSum:
    """Differences of the error between neighbouring pixels, on every first, second, fourth and eighth of them.

    Items: entries of the first dimension (scenes of views) with a valid pixel. At each stride the mean over pairs of
    valid pixels side by side and the mean over pairs one above the other are added; then the mean over the strides
    that leave `min_pixels` pixels.
    Source: MiDaS (Ranftl et al., TPAMI 2022) at several scales; in this form GeoVR (arXiv:2606.05833).

    Args:
        prediction (`torch.Tensor` of shape `(N, ..., H, W)`), target (same shape): z-depth.
        valid (`torch.Tensor` of that shape, bool, *optional*): pixels that count.
        strides (`Sequence[int]`, defaults to (1, 2, 4, 8)): steps in pixels.
        min_pixels (`int`, defaults to 10): fewest valid pixels of a stride that counts.
        max_difference (`float`, defaults to 100.0): largest difference, to which larger ones are cut.
        over_pixels (`bool`, defaults to False): whether both sums are divided by the number of valid pixels instead of
            that of pairs, and the mean is over all strides, as in VGGT's code.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import depth_gradient_loss
        >>> depth = torch.rand(1, 16, 16) + 1
        >>> float(depth_gradient_loss(depth + 0.5, depth).mean) < 1e-6  # the same edges
        True

        ```
    """
    prediction, target, valid = _measured(prediction, target, valid)
    error, losses = prediction - target, []
    for stride in strides:
        part, mask = error[..., ::stride, ::stride], valid[..., ::stride, ::stride]
        num_pixels, loss = mask[:, None].flatten(1).sum(1), 0.0
        for axis in (-1, -2):
            size = part.shape[axis] - 1
            pair = mask.narrow(axis, 1, size) & mask.narrow(axis, 0, size)
            step = (part.narrow(axis, 1, size) - part.narrow(axis, 0, size)).abs().clamp(max=max_difference)
            divisor = num_pixels if over_pixels else pair[:, None].flatten(1).sum(1)
            loss = loss + only_valid(step, pair)[:, None].flatten(1).sum(1) / divisor.clamp_min(1)
        losses.append((loss, num_pixels >= min_pixels))
    values, counted = (torch.stack(each) for each in zip(*losses, strict=True))
    num_strides = len(strides) if over_pixels else counted.sum(0).clamp_min(1)
    values = only_valid(values, counted).sum(0) / num_strides
    return sum_over_places(values, valid[:, None].flatten(1).any(1))
