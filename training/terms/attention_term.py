"""The base of terms that teach named attention heads where to look; see ../readout.py."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from ...pretraining_gap_mllm import GapMllmForPreTraining, GapMllmPreTrainingOutput
from ..layouts import PADDING
from ..readout import record_readout
from .loss_term import LossTerm


@dataclass
class AttentionTerm(LossTerm):
    """Negative log-probability that a token attends to its target, for each layer and head that are named.

    A subclass says in `name` what its recording is called, and in `targets` which field of a batch has the column
    that each position shall look at.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        layers (`list[int]`): language layers whose attention is supervised, from 0; [1, 2] by default.
        heads (`list[int]`): heads of these layers, from 0; [0] by default.
    """

    layers: list[int] = field(default_factory=lambda: [1, 2])
    heads: list[int] = field(default_factory=lambda: [0])

    name: ClassVar[str]
    targets: ClassVar[str]

    def count(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return (inputs[self.targets] != PADDING).sum() * (len(self.layers) * len(self.heads))

    def sum(self, outputs: GapMllmPreTrainingOutput, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        loss, self._recording = self._recording.loss, None  # not held, as it holds the graph
        return loss if torch.is_tensor(loss) else 0.0 * outputs.answer_logits[:1].float().sum()  # no row is watched

    @contextmanager
    def watch(self, model: GapMllmForPreTraining, inputs: Mapping[str, torch.Tensor] | None = None) -> Iterator[None]:
        with record_readout(model.model.language_model, self.layers, self.heads, self.name) as recording:
            if inputs is not None:
                recording.watch(inputs["document_ids"], inputs[self.targets])
                self._recording = recording
            yield


__all__ = ["AttentionTerm"]
