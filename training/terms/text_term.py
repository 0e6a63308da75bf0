"""The text term: cross-entropy of answer tokens, the core of the paper's pre-training."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...pretraining_gap_mllm import GapMllmPreTrainingOutput
from ..losses import text_loss
from ..schedule import Schedule
from .loss_term import LossTerm


@dataclass
class TextTerm(LossTerm):
    """Cross-entropy of answer tokens, each with the weight that the collator gave it.

    Source: GAP-MLLM (arXiv:2603.16461), text supervision of the marked-pixel task.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 1 by default.
    """

    weight: float | Schedule = 1.0

    def count(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return inputs["label_weights"][:, 1:].sum()

    def sum(self, outputs: GapMllmPreTrainingOutput, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        weights = inputs["label_weights"][tuple(outputs.answer_positions.T)]
        return text_loss(outputs.answer_logits, outputs.answer_targets, weights).sum
