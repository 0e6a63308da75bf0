"""Distillation of a teacher's features into hidden states: one layer (3DRS), several (GeoVR), or their relations.

The projector from the student's width to the teacher's is no part of this; both come with the same shape.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from .loss_sum import LossSum, check_shapes, in_full_precision, only_valid, sum_over_places, unit, valid_mask


@in_full_precision
def pool_features(features: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Average the features of a teacher onto another grid, each cell over the cells that it covers.

    Source: 3DRS (arXiv:2506.01946), adaptive average pooling. For GeoVR's 2 x 2 pooling give half of the sides,
    rounded down; where these do not divide them, cut the last row or column before.

    Args:
        features (`torch.Tensor` of shape `(V, h, w, C)`): features of V views.
        grid (`tuple[int, int]`): rows and columns of the student's tokens.
    Returns:
        `torch.Tensor` of shape `(V, rows, columns, C)`.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import pool_features
        >>> pool_features(torch.rand(32, 28, 37, 8), (14, 14)).shape
        torch.Size([32, 14, 14, 8])

        ```
    """
    return F.adaptive_avg_pool2d(features.permute(0, 3, 1, 2), grid).permute(0, 2, 3, 1)


@in_full_precision
def feature_distillation_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    valid: torch.Tensor | None = None,
    *,
    squared_distance: bool = False,
) -> LossSum:
    """1 - cosine between projected hidden states and a teacher's features, which get no gradient. Items: tokens.

    Source: 3DRS (arXiv:2506.01946), last layer; GeoVR (arXiv:2606.05833), four layers, see `layer_distillation_loss`.
    `Differs:` the code of 3DRS takes the squared distance of the unit vectors, twice this (`squared_distance=True`),
    and gives NaN for features of length 0, whose cosine is 0 here.

    Args:
        prediction (`torch.Tensor` of shape `(..., C)`): projected hidden states, as `(V, h, w, C)` or `(N, C)`.
        target (`torch.Tensor` of shape `(..., C)`): features of the teacher on the same grid, see `pool_features`.
        valid (`torch.Tensor` of shape `(...)`, bool, *optional*): tokens that count, by default finite targets.
        squared_distance (`bool`, defaults to False): whether the squared distance of the unit vectors is the loss.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if the grids or widths differ. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import feature_distillation_loss
        >>> features = torch.rand(2, 3, 4, 8)
        >>> round(float(feature_distillation_loss(-features, features).mean), 4)
        2.0

        ```
    """
    check_shapes(prediction=prediction, target=target)
    valid = valid_mask(valid, target.isfinite().all(-1))
    prediction, target = unit(only_valid(prediction, valid)), unit(only_valid(target.detach(), valid))
    cosine = (prediction * target).sum(-1)
    return sum_over_places((1 - cosine) * (2 if squared_distance else 1), valid)


@in_full_precision
def layer_distillation_loss(
    predictions: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], valid: torch.Tensor | None = None
) -> LossSum:
    """Mean over layers of `feature_distillation_loss`. Items: tokens, each once for all layers.

    Source: GeoVR (arXiv:2606.05833), four layers, weight 1 there; it averages the tokens of each video, then videos.

    Args:
        predictions (`Sequence[torch.Tensor]`): projected hidden states of each layer, `(..., C)`.
        targets (`Sequence[torch.Tensor]`): features of the teacher for each layer, `(..., C)`.
        valid (`torch.Tensor` of shape `(...)`, bool, *optional*): tokens that count, by default those whose targets
            are finite in every layer.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if there are not as many targets as predictions, or none, or grids or widths differ. TypeError: if
            `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import layer_distillation_loss
        >>> features = [torch.rand(2, 3, 4, 8) for _ in range(4)]
        >>> loss = layer_distillation_loss([2 * layer for layer in features], features)
        >>> float(loss.sum) < 1e-4, int(loss.count)
        (True, 24)

        ```
    """
    if not predictions or len(predictions) != len(targets):
        raise ValueError(
            f"there are {len(predictions)} layers of predictions and {len(targets)} of targets; expected the same "
            "number, and one or more."
        )
    for prediction, target in zip(predictions, targets, strict=True):
        check_shapes(prediction=prediction, target=target)
    places = torch.stack([target.isfinite().all(-1) for target in targets]).all(0)
    valid = valid_mask(valid, places)
    losses = [feature_distillation_loss(*pair, valid) for pair in zip(predictions, targets, strict=True)]
    return LossSum(torch.stack([loss.sum for loss in losses]).mean(), losses[0].count)


@in_full_precision
def relational_distillation_loss(prediction: torch.Tensor, target: torch.Tensor) -> LossSum:
    """Absolute difference between the cosines among tokens of the student and among those of the teacher.

    The widths may differ, so that no projector is needed. Items: ordered pairs of tokens of a scene. Memory grows with
    the square of their number.
    Source: 3DRS (arXiv:2506.01946), an alternative in its code that is not called there.

    Args:
        prediction (`torch.Tensor` of shape `(N, C)`): hidden states of the tokens of one scene.
        target (`torch.Tensor` of shape `(N, D)`): features of the teacher for them.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if the numbers of tokens differ.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import relational_distillation_loss
        >>> features = torch.rand(6, 8)
        >>> loss = relational_distillation_loss(features @ torch.linalg.qr(torch.rand(8, 8)).Q, features)
        >>> float(loss.mean) < 1e-5, int(loss.count)
        (True, 36)

        ```
    """
    check_shapes(prediction=prediction[:, 0], target=target[:, 0])
    prediction, target = unit(prediction), unit(target.detach())
    losses = (prediction @ prediction.T - target @ target.T).abs()
    return LossSum(losses.sum(), torch.tensor(losses.numel(), device=losses.device))
