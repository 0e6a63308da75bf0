"""When frozen geometry follows the model: before the first batch of a training, and after its best weights came."""

from collections.abc import Callable

from torch import nn
from transformers import TrainerCallback

from .frozen_geometry import FrozenGeometry


class GeometryFollower(TrainerCallback):
    """Has the `FrozenGeometry` of a collator follow the model when a training begins and ends.

    So a plain `Trainer` may resume from a checkpoint with other weights of the encoder, and load the best one at the
    end. `GeometryAlignedTrainer` has it.

    Args:
        collator (`SceneCollator`): data collator of the trainer.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForPreTraining
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.training import FrozenGeometry, GeometryFollower, SceneCollator
        >>> model = GapMllmForPreTraining.from_pretrained(folder).requires_grad_(False)
        >>> geometry = FrozenGeometry(model, "loader")
        >>> collator = SceneCollator(GapMllmProcessor.from_pretrained(folder), geometry=geometry)
        >>> callbacks = [GeometryFollower(collator)]  # of Trainer(..., data_collator=collator)

        ```
    """

    def __init__(self, collator: Callable):
        self.collator = collator

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Follow what a checkpoint brought."""
        follow_model(self.collator, model)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        """Follow the best checkpoint."""
        follow_model(self.collator, model)


def follow_model(collator: Callable, model: nn.Module) -> bool:
    """Have a collator's geometry, if it makes any, follow a model; returns whether anything was changed.

    Args:
        collator (`Callable`): `SceneCollator`, or another.
        model (`GapMllmForPreTraining`, or another around `GapMllmModel`): the model that is trained.
    """
    geometry = getattr(collator, "geometry", None)
    return isinstance(geometry, FrozenGeometry) and geometry.follow(model)
