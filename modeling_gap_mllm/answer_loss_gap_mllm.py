"""The cross-entropy of answers, the same for every split of a batch, and where documents of packed rows start."""

import torch
from torch.nn import functional as F


def document_starts(position_ids):
    """Where the text positions of a row start again, `(B, S - 1)`; None where nothing tells."""
    if position_ids is None or (position_ids.ndim == 3 and len(position_ids) != 4):
        return None
    positions = position_ids if position_ids.ndim == 2 else position_ids[0]
    return positions[:, 1:] <= positions[:, :-1]


def answer_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    position_ids: torch.Tensor | None,
    num_items_in_batch: torch.Tensor | int | None,
    is_training: bool,
):
    """Cross-entropy of the supervised tokens: their sum over `num_items_in_batch`, or their mean without it.

    An evaluation with `num_items_in_batch` is one of `Trainer`, which weighs the loss of a batch by its rows. Only a
    mean in which all documents count alike, however long, is then the same for every batch size.

    Args:
        logits (`torch.Tensor` of shape `(N, vocabulary)`): logits at the positions before the supervised tokens only.
        labels (`torch.Tensor` of shape `(B, S)`): -100 where a token is not supervised.
        position_ids (`torch.Tensor`, *optional*): positions, which tell the documents of a row; else each row is one.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*): supervised tokens of all micro-batches and processes.
        is_training (`bool`): whether the loss is one to train on.
    Returns:
        `torch.Tensor`, scalar.
    """
    is_supervised = labels[:, 1:] != -100
    losses = F.cross_entropy(logits.float(), labels[:, 1:][is_supervised].to(logits.device), reduction="none")
    if num_items_in_batch is None:
        return losses.mean()
    if is_training:
        return losses.sum() / num_items_in_batch
    starts = document_starts(position_ids)
    starts = torch.zeros_like(is_supervised) if starts is None else starts.expand_as(is_supervised).clone()
    starts[:, 0] = True
    documents = starts.flatten().cumsum(0)[is_supervised.flatten()].unique(return_inverse=True)[1].to(losses.device)
    counts = documents.bincount()
    return (torch.zeros_like(counts, dtype=losses.dtype).index_add(0, documents, losses) / counts).mean()


__all__ = ["answer_loss", "document_starts"]
