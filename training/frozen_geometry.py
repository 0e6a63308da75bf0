"""Geometry features made where batches are made: beside a training that does not change the encoder."""

from copy import deepcopy

import torch

from ..geometry_views_gap_mllm import encode_scenes, group_scenes, image_views, is_trainable
from ..modeling_gap_mllm import GapMllmModel


class FrozenGeometry:
    """A copy of a model's geometry encoder for a `SceneCollator`, and so for the processes of a `DataLoader`.

    On machines whose spare cores would idle, a small encoder costs the training nothing this way. It runs in float32
    on the CPU; a large one, or one that is trained, belongs into the model.

    Args:
        model (`GapMllmModel` or a model around one): whose encoder is copied, as it is now.
    Raises:
        ValueError: if the encoder is trained, or the model does not use one.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForPreTraining
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> from gap_mllm.training import FrozenGeometry, SceneCollator
        >>> model = GapMllmForPreTraining.from_pretrained(folder)
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> model = model.requires_grad_(False)  # or learning rate 0 for its group, which the trainer freezes
        >>> collate = SceneCollator(processor, geometry=FrozenGeometry(model))
        >>> collate([make_question(render_room(0), "reconstruction")])["geometry_features"].shape
        torch.Size([4, 256, 224])

        ```
    """

    def __init__(self, model: GapMllmModel):
        base = model.base_model
        if not base.uses_geometry:
            raise ValueError("The model does not use its geometry encoder (use_geometry=False): nothing to encode.")
        if is_trainable(base.geometry):
            raise ValueError(
                "The geometry encoder is trained, so its features change with every step. Freeze it (learning rate "
                "0), or let the model encode the views."
            )
        self.config = base.config
        self.encoder = deepcopy(base.geometry).float().cpu().eval()
        if "flash" in self.encoder.config._attn_implementation:  # which needs a GPU
            self.encoder.set_attn_implementation("sdpa")

    @torch.no_grad()
    def __call__(self, pixel_values, image_grid_thw, scene_lengths):
        """As `GapMllmModel.get_geometry_features`.

        Args:
            pixel_values (`torch.Tensor` of shape `(N, C)`), image_grid_thw (`torch.Tensor` of shape `(images, 3)`),
                scene_lengths (`torch.Tensor` of shape `(scenes,)`): views of each scene of a batch.
        Returns:
            `torch.Tensor` of shape `(levels, P, C)`, float32.
        """
        views = image_views(self.config, pixel_values, image_grid_thw.tolist())
        lengths = group_scenes(len(views), None, scene_lengths=scene_lengths)
        return torch.stack(encode_scenes(self.encoder, views, lengths, self.config.reference_frame)[0])


__all__ = ["FrozenGeometry"]
