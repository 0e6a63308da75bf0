"""What a term of the pre-training loss is: a number of items, a sum over them, and a weight."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch

from ...pretraining_gap_mllm import GapMllmForPreTraining, GapMllmPreTrainingOutput
from ..schedule import Schedule


@dataclass
class LossTerm:
    """A term of the loss. The trainer divides its sum by a count over all micro-batches and processes.

    So no split of a batch changes the loss. A term about scenes counts each as often as rows ask about it
    (`training.scene_rows.sum_by_rows`), since rows about the same views may share it. Fields of a subclass are its
    settings in a recipe; weight 0 leaves the term out. Entered in `LOSS_TERMS`, it is computed, weighted and logged as
    `loss_<name>`; nothing else is needed.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default. A term whose weight follows the
            run is computed throughout, in every process, also while the weight is 0.

    Example:

    ```python
    >>> from dataclasses import dataclass
    >>> import torch
    >>> from gap_mllm.training import LOSS_TERMS, LossTerm
    >>> @dataclass
    ... class LogitSizeTerm(LossTerm):
    ...     def count(self, inputs):
    ...         return (inputs["labels"][:, 1:] != -100).sum()
    ...     def sum(self, outputs, inputs):
    ...         return torch.logsumexp(outputs.answer_logits.float(), -1).square().sum()
    >>> LOSS_TERMS["logit_size"] = LogitSizeTerm  # in a recipe: `terms: {logit_size: {weight: 0.001}}`
    >>> LOSS_TERMS["logit_size"](weight=0.001)
    LogitSizeTerm(weight=0.001)
    >>> del LOSS_TERMS["logit_size"]

    ```
    """

    weight: float | Schedule = 0.0

    batch_fields: ClassVar[tuple[str, ...]] = ()  # fields of a batch that are for this term and not for the model
    module_groups: ClassVar[tuple[str, ...]] = ()  # of MODULE_GROUPS; frozen where no term that names them has weight

    def count(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | float:
        """Number, or total weight, of the items of a batch.

        Args:
            inputs (`Mapping[str, torch.Tensor]`): batch of the collator; of the same names, whatever it holds.
        Returns:
            `torch.Tensor` or `float`.
        """
        raise TypeError(f"{type(self).__name__} must define count.")

    def sum(self, outputs: GapMllmPreTrainingOutput, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """Sum of the losses of the items of a batch.

        Args:
            outputs (`GapMllmPreTrainingOutput`): outputs of the model for the batch.
            inputs (`Mapping[str, torch.Tensor]`): batch of the collator.
        Returns:
            `torch.Tensor`, scalar, or None where the batch has nothing that the term needs.
        """
        raise TypeError(f"{type(self).__name__} must define sum.")

    def watch(
        self, model: GapMllmForPreTraining, inputs: Mapping[str, torch.Tensor] | None = None
    ) -> AbstractContextManager:
        """Context in which the model runs, for a term that looks inside it; by default one that does nothing.

        Args:
            model (`GapMllmForPreTraining`): model, unwrapped.
            inputs (`Mapping[str, torch.Tensor]`, *optional*): batch of a forward pass. None for the context around a
                whole training step, backward pass included; those of its forward passes lie within.
        Returns:
            `AbstractContextManager`.
        """
        return nullcontext()

    def prepare(self, processor: object) -> None:
        """Take what the term needs of the collator's processor, before a training; by default nothing.

        Args:
            processor (`GapMllmProcessor`): processor of the model; None of a collator that has none.
        Raises:
            ValueError: if what the term needs is not there.
        """

    def check(self, model: GapMllmForPreTraining) -> None:
        """Refuse, before a training, a model that the term cannot train; by default none.

        Args:
            model (`GapMllmForPreTraining`): model, unwrapped, frozen as it will be trained.
        Raises:
            ValueError: if a head that the term needs is missing, or what it would train is frozen.
        """
