"""A geometry encoder: a config, a model that returns `GapMllmGeometryOutput`, and two lines of registration."""

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from gap_mllm import GEOMETRY_CONFIGS, GEOMETRY_ENCODERS, GapMllmGeometryOutput


class PatchColorConfig(PreTrainedConfig):
    model_type = "patch_color"
    patch_size: int = 14
    feature_size: int = 8  # channels of a tapped feature
    tap_layers: tuple[int, ...] = (0, 1, 2, 3)  # one for each level of the fusion


class PatchColorEncoder(PreTrainedModel):
    config_class, main_input_name = PatchColorConfig, "images"

    def __init__(self, config):
        super().__init__(config)
        self.layers = nn.ModuleList(nn.Linear(3, config.feature_size) for _ in config.tap_layers)
        self.post_init()

    def forward(self, images, scene_lengths=None):
        size = self.config.patch_size
        grid = [(view.shape[1] // size, view.shape[2] // size) for view in images]
        colors = torch.cat([nn.functional.avg_pool2d(view, size).flatten(1).T for view in images])  # (patches, 3)
        taps = tuple(layer(colors.to(layer.weight.dtype)) for layer in self.layers)
        return GapMllmGeometryOutput(tap_features=taps, grid=grid, scene_lengths=scene_lengths)


def register():
    GEOMETRY_CONFIGS["patch_color"] = PatchColorConfig
    GEOMETRY_ENCODERS["patch_color"] = PatchColorEncoder
