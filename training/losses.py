"""Losses of geometry pre-training, each as a sum over its items: the trainer divides by the global count.

Sums make one batch of four equal two accumulated batches of two and two processes of two, whatever the number of
valid points in each (see `TermTrainer`).
"""

import torch
from torch.nn import functional as F


IGNORE_INDEX = -100


def text_loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None):
    """Sum of the cross-entropy of answer tokens.

    Source: GAP-MLLM (arXiv:2603.16461), text supervision of the marked-pixel task.

    Args:
        logits (`torch.Tensor` of shape `(N, vocabulary)`): logits at the supervised positions only.
        targets (`torch.Tensor` of shape `(N,)`): the token that follows each.
        weights (`torch.Tensor` of shape `(N,)`, *optional*): weight of each token, 1 by default.
    Returns:
        `torch.Tensor`, scalar.
    """
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    return (losses if weights is None else losses * weights).sum()


def point_loss(prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor):
    """Sum of the Euclidean distances of valid points.

    Frame: camera of the scene's first view, OpenCV axes, for both. Units: metres.

    Args:
        prediction (`torch.Tensor` of shape `(..., 3)`), target (`torch.Tensor` of shape `(..., 3)`).
        valid (`torch.Tensor` of shape `(...)`, bool): invalid targets may be NaN.
    Returns:
        `torch.Tensor`, scalar.
    """
    distance = (prediction[valid].float() - target[valid].float()).square().sum(-1)
    return torch.sqrt(distance + 1e-12).sum()  # smooth at 0, where the gradient of a root is infinite


def log_depth_loss(prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor):
    """Sum of the absolute log-depth errors of valid pixels. Units: z-depth in metres, both positive.

    Args:
        prediction (`torch.Tensor` of shape `(...)`), target (`torch.Tensor` of shape `(...)`).
        valid (`torch.Tensor` of shape `(...)`, bool).
    Returns:
        `torch.Tensor`, scalar.
    """
    return (prediction[valid].float().log() - target[valid].float().log()).abs().sum()


def confidence_loss(error: torch.Tensor, confidence: torch.Tensor, alpha: float):
    """Sum of `confidence * error - alpha * log(confidence)`: the confidence learns to be `alpha / error`.

    The error is taken as given, so that confidence never trades accuracy away. `Differs:` VGGT weights the error's
    own gradient by the confidence.

    Args:
        error (`torch.Tensor` of shape `(N,)`): errors in metres; their gradient is not used.
        confidence (`torch.Tensor` of shape `(N,)`): confidences above 1.
        alpha (`float`): error in metres at which the confidence falls to 1.
    Returns:
        `torch.Tensor`, scalar.
    """
    return (confidence.float() * error.detach() - alpha * confidence.float().log()).sum()


def pose_loss(iterations: torch.Tensor, target: torch.Tensor, decay: float = 0.6):
    """Sum over views of the absolute pose-encoding errors, later refinements counting more.

    Source: VGGT's camera loss: L1 of translation and quaternion, half of the field of view's.

    Args:
        iterations (`torch.Tensor` of shape `(iterations, ..., 9)`): encodings of the camera head.
        target (`torch.Tensor` of shape `(..., 9)`): unit quaternion with w >= 0; metres, radians.
        decay (`float`, defaults to 0.6): weight of each iteration relative to the next.
    Returns:
        `torch.Tensor`, scalar.
    """
    steps = len(iterations)
    weights = torch.tensor([decay ** (steps - 1 - step) for step in range(steps)], device=iterations.device)
    error = (iterations.float() - target.float()).abs()
    per_view = error[..., :3].mean(-1) + error[..., 3:7].mean(-1) + 0.5 * error[..., 7:].mean(-1)
    return (per_view.flatten(1).sum(-1) * weights).sum() / weights.sum()


__all__ = ["IGNORE_INDEX", "confidence_loss", "log_depth_loss", "point_loss", "pose_loss", "text_loss"]
