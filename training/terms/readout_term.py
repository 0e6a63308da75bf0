"""The read-out term: named attention heads learn to look at the marked place. Ours, optional; see ../readout.py."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from ...pretraining_gap_mllm import GapMllmForPreTraining, GapMllmPreTrainingOutput
from ..layouts import PADDING
from ..readout import record_readout
from .loss_term import LossTerm


@dataclass
class ReadoutTerm(LossTerm):
    """Negative log-probability that an answer's tokens attend to the marked place, for each layer and head.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        layers (`list[int]`): language layers whose attention is supervised, from 0; [1, 2] by default.
        heads (`list[int]`): heads of these layers, from 0; [0] by default.
        boxes (`bool`, defaults to False): whether answers with boxes look at their objects, too; what a recipe gives
            `SceneCollator(readout_boxes=...)`, which makes the targets.
    """

    layers: list[int] = field(default_factory=lambda: [1, 2])
    heads: list[int] = field(default_factory=lambda: [0])
    boxes: bool = False

    def count(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return (inputs["readout_targets"] != PADDING).sum() * (len(self.layers) * len(self.heads))

    def sum(self, outputs: GapMllmPreTrainingOutput, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        loss, self._recording = self._recording.loss, None  # not held, as it holds the graph
        return loss if torch.is_tensor(loss) else 0.0 * outputs.answer_logits[:1].float().sum()  # no row is watched

    @contextmanager
    def watch(self, model: GapMllmForPreTraining, inputs: Mapping[str, torch.Tensor] | None = None) -> Iterator[None]:
        with record_readout(model.model.language_model, self.layers, self.heads) as recording:
            if inputs is not None:
                recording.watch(inputs["document_ids"], inputs["readout_targets"])
                self._recording = recording
            yield
