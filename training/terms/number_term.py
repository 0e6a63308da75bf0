"""The number term: how far the numbers of answers are from the true ones. Optional."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...pretraining_gap_mllm import GapMllmPreTrainingOutput
from ..losses import number_loss
from .loss_term import LossTerm


_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass
class NumberTerm(LossTerm):
    """Expected distance of the numbers that tokens of an answer tell, each with the weight that the collator gave it.

    A tokenizer that writes numbers digit by digit, as Qwen's, has ten such tokens; the first digit that is wrong
    decides, so give decimals less (`answer_weights`). Units: those of the answers, metres and radians; of digits none.
    Source: `number_loss`.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default; 0.3 in the source.
    """

    def prepare(self, processor: object) -> None:
        if processor is None:
            raise ValueError("terms.number needs the tokenizer: give a data_collator that has a processor.")
        self.token_numbers = token_numbers(processor.tokenizer)

    def count(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        labels, weights = inputs["labels"][:, 1:], inputs["label_weights"][:, 1:]
        told = self.token_numbers.to(labels.device)[labels.clamp_min(0)]
        return weights[told.isfinite() & (labels >= 0)].sum()

    def sum(self, outputs: GapMllmPreTrainingOutput, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        weights = inputs["label_weights"][tuple(outputs.answer_positions.T)]
        numbers = self.token_numbers.to(outputs.answer_targets.device)
        return number_loss(outputs.answer_logits, outputs.answer_targets, numbers, weights).sum


def token_numbers(tokenizer: object) -> torch.Tensor:
    """The number that each token is, "7" or "-1.5", NaN for all others.

    Args:
        tokenizer (`PreTrainedTokenizerBase`)
    Returns:
        `torch.Tensor` of shape `(len(tokenizer),)`.
    """
    numbers = torch.full((len(tokenizer),), math.nan)
    for token, index in tokenizer.get_vocab().items():
        if _NUMBER.fullmatch(token):
            numbers[index] = float(token)
    return numbers
