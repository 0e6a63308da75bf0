"""The loss of answers: cross-entropy of their tokens."""

import torch
from torch.nn import functional as F

from .loss_sum import LossSum, in_full_precision


IGNORE_INDEX = -100


@in_full_precision
def text_loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None) -> LossSum:
    """Cross-entropy of answer tokens. Items: tokens, each as often as its weight says.

    Source: GAP-MLLM (arXiv:2603.16461), text supervision of the marked-pixel task.

    Args:
        logits (`torch.Tensor` of shape `(N, vocabulary)`): logits at the supervised positions only.
        targets (`torch.Tensor` of shape `(N,)`): the token that follows each.
        weights (`torch.Tensor` of shape `(N,)`, *optional*): weight of each token, 1 by default.
    Returns:
        `LossSum`.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import text_loss
        >>> loss = text_loss(torch.zeros(3, 8), torch.tensor([1, 5, 2]))
        >>> round(float(loss.mean), 4)  # ln 8
        2.0794

        ```
    """
    losses = F.cross_entropy(logits, targets, reduction="none")
    weights = torch.ones_like(losses) if weights is None else weights
    return LossSum((losses * weights).sum(), weights.sum())


__all__ = ["IGNORE_INDEX", "text_loss"]
