"""A loss term: a count, a sum, and one line of registration."""

from dataclasses import dataclass

import torch

from gap_mllm.training import LOSS_TERMS, LossTerm


@dataclass
class LogitSizeTerm(LossTerm):
    """Squared log-partition of the answer tokens (a "z-loss"), which keeps logits near 0.

    Args:
        weight (`float`): factor of the term in the loss, 0 by default.
        scale (`float`): unit of the log-partition, 1 by default.
    """

    scale: float = 1.0

    def count(self, inputs):
        return (inputs["labels"][:, 1:] != -100).sum()

    def sum(self, outputs, inputs):
        return (torch.logsumexp(outputs.answer_logits.float(), -1) / self.scale).square().sum()


def register():
    LOSS_TERMS["logit_size"] = LogitSizeTerm  # in a recipe: `terms: {logit_size: {weight: 0.001}}`
