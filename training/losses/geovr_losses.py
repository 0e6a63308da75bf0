"""The whole of GeoVR's geometric supervision of one scene: camera, depth, distilled features and metric scale."""

from collections.abc import Sequence

import torch

from .camera_losses import pose_encoding_loss
from .depth_losses import depth_gradient_loss, trimmed_depth_loss
from .feature_losses import layer_distillation_loss
from .loss_sum import LossSum
from .metric_scale_losses import metric_scale_loss


GEOVR_WEIGHTS = {"text": 1.0, "camera": 2.5, "depth": 1.0, "distillation": 1.0, "scale": 1.0}


def geovr_losses(
    pose_enc: torch.Tensor,
    depth: torch.Tensor,
    features: Sequence[torch.Tensor],
    scale: torch.Tensor,
    *,
    target_pose_enc: torch.Tensor,
    target_depth: torch.Tensor,
    target_features: Sequence[torch.Tensor],
    target_scale: torch.Tensor,
    valid_depth: torch.Tensor | None = None,
    free_sign: bool = True,
) -> dict[str, LossSum]:
    """The four geometric losses of one scene, each of one item, the scene; add those of several scenes by name.

    `weighted_loss(losses, GEOVR_WEIGHTS)` is the sum of the paper, all weights constant from the first step.
    Frame: that of the teacher's encoding, for both; depth is z-depth. Units: the teacher's; radians; the scale is in
    metres for each of its units, so that scale * depth is in metres.
    Source: GeoVR (arXiv:2606.05833). `Differs:` q and -q are one rotation, see `pose_encoding_loss`;
    `free_sign=False` is the release.

    Args:
        pose_enc (`torch.Tensor` of shape `(V, 9)`): predicted translation, quaternion (x, y, z, w), field of view.
        depth (`torch.Tensor` of shape `(V, H, W)`): predicted depth.
        features (`Sequence[torch.Tensor]`): projected hidden states of each layer, `(V, h, w, C)`.
        scale (`torch.Tensor`): predicted factor to metres, a scalar.
        target_pose_enc (`torch.Tensor` of shape `(V, 9)`): encodings of the teacher.
        target_depth (`torch.Tensor` of shape `(V, H, W)`): depth of the teacher.
        target_features (`Sequence[torch.Tensor]`): pooled features of the teacher for each layer, `(V, h, w, C)`.
        target_scale (`torch.Tensor`): factor of the teacher to metres, a scalar, see `metric_scale_target`.
        valid_depth (`torch.Tensor` of shape `(V, H, W)`, bool, *optional*): pixels that count, by default those
            that are measured.
        free_sign (`bool`, defaults to True): whether the nearer of q* and -q* is the target.
    Returns:
        `dict[str, LossSum]`: "camera", "depth", "distillation" and "scale".
    Raises:
        ValueError: if shapes differ. TypeError: if `valid_depth` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import GEOVR_WEIGHTS, geovr_losses, weighted_loss
        >>> pose, depth, features = torch.rand(2, 9), torch.rand(2, 28, 42) + 1, [torch.rand(2, 2, 3, 8)] * 4
        >>> true = dict(target_pose_enc=pose, target_depth=depth, target_features=features)
        >>> losses = geovr_losses(pose, depth, features, torch.tensor(3.0), **true, target_scale=torch.tensor(1.0))
        >>> round(float(weighted_loss(losses, GEOVR_WEIGHTS)), 4)  # ln 4 - ln 2
        0.6931

        ```
    """
    scene = depth[None], target_depth[None], None if valid_depth is None else valid_depth[None]
    regression, gradient = trimmed_depth_loss(*scene), depth_gradient_loss(*scene)
    return {
        "camera": _of_scene(pose_encoding_loss(pose_enc, target_pose_enc, free_sign=free_sign)),
        "depth": LossSum(regression.sum + gradient.sum, regression.count),
        "distillation": _of_scene(layer_distillation_loss(features, target_features)),
        "scale": metric_scale_loss(scale.reshape(1), target_scale.reshape(1)),
    }


def _of_scene(loss):
    """The mean over whatever was counted, as one item."""
    return LossSum(loss.mean, (loss.count > 0).long())
