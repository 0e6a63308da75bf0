"""The losses of answers: cross-entropy of their tokens, and the distance of the numbers that they tell."""

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


@in_full_precision
def number_loss(
    logits: torch.Tensor, targets: torch.Tensor, token_numbers: torch.Tensor, weights: torch.Tensor | None = None
) -> LossSum:
    """Expected distance between the number that a token tells and the true one. Items: number tokens, by weight.

    The distribution is that over the tokens that are numbers. To cross-entropy all wrong numbers are alike; here one
    that is near costs little, so that the likeliest number comes to lie in the middle of those that are likely.
    Source: the Wasserstein-1 form of the number token loss (arXiv:2411.02083).

    Args:
        logits (`torch.Tensor` of shape `(N, vocabulary)`): logits at the supervised positions only.
        targets (`torch.Tensor` of shape `(N,)`): the token that follows each.
        token_numbers (`torch.Tensor` of shape `(vocabulary,)`): number that each token is, in the unit of the answer;
            NaN for all others. Logits of more tokens than that belong to none.
        weights (`torch.Tensor` of shape `(N,)`, *optional*): weight of each token, 1 by default.
    Returns:
        `LossSum`: a digit counts as itself, wherever it stands in its number.
    Raises:
        ValueError: if there are more `token_numbers` than logits, or no token is a number.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import number_loss
        >>> token_numbers = torch.tensor([torch.nan, 1.0, 2.0, 4.0])
        >>> logits = torch.tensor([[9.0, 0.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]])
        >>> total, count = number_loss(logits, torch.tensor([2, 0]), token_numbers)
        >>> float(total), int(count)  # (|1 - 2| + |2 - 2| + |4 - 2|) / 3; the second token is no number
        (1.0, 1)

        ```
    """
    if len(token_numbers) > logits.shape[-1]:
        raise ValueError(f"token_numbers tells of {len(token_numbers)} tokens, logits of {logits.shape[-1]} only.")
    numbers = token_numbers.isfinite().nonzero().flatten()
    if not len(numbers):
        raise ValueError("token_numbers tells of no token that is a number.")
    weights = torch.ones_like(logits[:, 0]) if weights is None else weights
    told = F.pad(token_numbers, (0, logits.shape[-1] - len(token_numbers)), value=torch.nan)[targets]
    rows = told.isfinite()
    distances = (token_numbers[numbers] - told[rows, None]).abs()
    losses = (logits[rows][:, numbers].softmax(-1) * distances).sum(-1)
    return LossSum((losses * weights[rows]).sum(), weights[rows].sum())
