"""Losses of the shape of objects: points on their surface, and occupancy."""

import torch
from torch.nn import functional as F

from .loss_sum import (
    LossSum,
    check_shapes,
    in_full_precision,
    only_valid,
    sum_over_entries,
    sum_over_places,
    valid_mask,
)


@in_full_precision
def chamfer_loss(
    prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor | None = None, *, squared: bool = False
) -> LossSum:
    """Mean distance of each point to the nearest of the other set, halved over both directions.

    Neither the order of the points nor a rigid motion of both sets changes it. Items: valid objects.
    Frame: any, the same for both. Units: metres, or their squares.
    Source: Chamfer distance as of the DTU benchmark, (accuracy + completeness) / 2.

    Args:
        prediction (`torch.Tensor` of shape `(N, P, 3)`): points on the surface of N objects, 64 for each in ours.
        target (`torch.Tensor` of shape `(N, Q, 3)`): true points; repeat some where an object has fewer.
        valid (`torch.Tensor` of shape `(N,)`, bool, *optional*): objects that count, by default finite targets.
        squared (`bool`, defaults to False): whether distances are squared.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes do not fit. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import chamfer_loss
        >>> points = torch.rand(2, 64, 3)
        >>> float(chamfer_loss(points.flip(1), points).mean)
        0.0
        >>> float(chamfer_loss(torch.zeros(1, 1, 3), torch.tensor([[[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]]])).mean)
        2.0

        ```
    """
    if prediction.ndim != 3 or target.ndim != 3 or not prediction.shape[1] or not target.shape[1]:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)} and target {tuple(target.shape)}; expected (N, P, 3) and "
            "(N, Q, 3), with points."
        )
    check_shapes(last=3, prediction=prediction[:, 0], target=target[:, 0])
    valid = valid_mask(valid, target.isfinite().flatten(1).all(1))
    prediction, target = only_valid(prediction, valid), only_valid(target, valid)
    # The quick way by products of matrices is off by 1e-3 of the distance from the origin.
    distances = torch.cdist(prediction, target, compute_mode="donot_use_mm_for_euclid_dist")
    distances = distances.square() if squared else distances
    return sum_over_places((distances.amin(2).mean(1) + distances.amin(1).mean(1)) / 2, valid)


@in_full_precision
def occupancy_loss(logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor | None = None) -> LossSum:
    """Cross-entropy of whether places lie inside an object, mean over the places of each.

    Items: objects with a valid place. Source: Occupancy Networks (Mescheder et al., CVPR 2019), eq. 2.

    Args:
        logits (`torch.Tensor` of shape `(N, ...)`): logits of places in or around N objects, on a grid or not.
        target (`torch.Tensor` of shape `(N, ...)`, bool): whether each place is inside.
        valid (`torch.Tensor` of shape `(N, ...)`, bool, *optional*): places that count, by default all.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ. TypeError: if a mask is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import occupancy_loss
        >>> round(float(occupancy_loss(torch.zeros(2, 8, 8, 8), torch.ones(2, 8, 8, 8).bool()).mean), 4)
        0.6931

        ```
    """
    check_shapes(logits=logits, target=target)
    places = torch.ones_like(logits, dtype=torch.bool)
    target, valid = valid_mask(target, places), valid_mask(valid, places)
    losses = F.binary_cross_entropy_with_logits(only_valid(logits, valid), target.to(logits.dtype), reduction="none")
    return sum_over_entries(losses, valid)
