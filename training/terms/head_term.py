"""What terms have in common whose heads read hidden states of visual tokens: layers, a teacher, targets by view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ...configuration_gap_mllm import GapMllmConfig
from ...pretraining_gap_mllm import GapMllmForPreTraining, GapMllmPreTrainingOutput
from ...processing.data.scene_sample import View
from ..losses import LossSum
from ..scene_rows import rows_of_scenes, rows_of_views
from ..teachers import TeacherTargets
from .loss_term import LossTerm


OWN_ENCODER = "encoder"  # the teacher that is the model's own geometry encoder


GRIDS = ("tokens", "teacher")  # on which a head tells


@dataclass
class HeadTerm(LossTerm):
    """A term with a head of `GapMllmForPreTraining.training_heads`, and targets that a teacher tells of each view.

    A batch has the targets in `teacher_targets`, by the name of the term: lists with an entry for each view, None
    where the teacher does not tell, and perhaps `grid`, on which the head is to tell of each view. Subclasses with a
    head of their own have `layers`, the hidden states that it reads: 0 are the embeddings, -1 the last layer after its
    norm. `set_training_heads` makes heads and `Teaching`, which asks the teachers.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): a name of `TEACHERS`, or a mapping of it and its settings, as `{name: vggt, path:
            FOLDER}`; "recorded" by default.
    """

    teacher: str | dict = "recorded"

    name: ClassVar[str]  # in LOSS_TERMS, and so of the targets
    head: ClassVar[str]  # in TRAINING_HEADS
    is_of_scenes: ClassVar[bool] = False  # whether targets have an entry for each scene, not for each view
    module_groups = ("heads",)

    @property
    def teachers(self) -> list[str | dict]:
        """All teachers of the term, the one of its targets first."""
        return [self.teacher]

    def head_settings(self, config: GapMllmConfig) -> dict:
        """Settings of the head for `config.training_heads`, of a term whose head has its name."""
        raise TypeError(f"{type(self).__name__} must define head_settings.")

    def targets(
        self, told: TeacherTargets, views: Sequence[View], grids: list[tuple[int, int]], settings: dict
    ) -> dict[str, list]:
        """Targets of the views of a scene, lists with an entry for each view, None where there is none.

        Args:
            told (`TeacherTargets`): what the teacher says.
            views (`Sequence[View]`): views of the scene.
            grids (`list[tuple[int, int]]`): height and width of each view in visual tokens.
            settings (`dict`): settings of the head.
        Returns:
            `dict[str, list]`.
        Raises:
            ValueError: if the teacher does not tell what the term needs, or on another grid.
        """
        raise TypeError(f"{type(self).__name__} must define targets.")

    def loss(
        self, prediction: object, targets: dict[str, list], outputs: GapMllmPreTrainingOutput, rows: list[int]
    ) -> LossSum:
        """Sum and count for what the head gives.

        Args:
            prediction (`object`): what the head gives for the batch.
            targets (`dict[str, list]`): targets of the batch.
            outputs (`GapMllmPreTrainingOutput`): all outputs of the model.
            rows (`list[int]`): how often each entry of the targets counts, see `rows`.
        Returns:
            `LossSum`.
        """
        raise TypeError(f"{type(self).__name__} must define loss.")

    def rows(self, inputs: Mapping[str, torch.Tensor]) -> list[int]:
        """Rows of a batch that ask about the scene of each entry of the targets; it counts as often."""
        return rows_of_scenes(inputs) if self.is_of_scenes else rows_of_views(inputs)

    def known(self, inputs: Mapping[str, torch.Tensor], field: str) -> list[tuple[torch.Tensor, int]]:
        """Targets of a batch that the teacher told, each with the rows that ask about its scene."""
        targets = inputs.get("teacher_targets", {}).get(self.name)
        if targets is None:
            return []
        pairs = zip(targets[field], self.rows(inputs), strict=True)
        return [(each, rows) for each, rows in pairs if each is not None]

    def sum(self, outputs: GapMllmPreTrainingOutput, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        if outputs.head_outputs is None:
            return None
        prediction, targets = outputs.head_outputs[self.head], inputs.get("teacher_targets", {}).get(self.name)
        if targets is None:
            parts = prediction if isinstance(prediction, list) else [prediction]
            return sum(0.0 * part.sum() for part in parts)
        return self.loss(prediction, targets, outputs, self.rows(inputs)).sum

    def check(self, model: GapMllmForPreTraining) -> None:
        if self.head not in model.training_heads:
            raise ValueError(
                f"The term {self.name!r} has a weight, but the model has no head {self.head!r} (it has "
                f"{list(model.training_heads)}). Call set_training_heads(model, args) before, and give the Teaching "
                "that it returns to SceneCollator."
            )
