"""Heads that read hidden states of visual tokens in pre-training, and are dropped for inference.

Each takes the states `(T, D)` of its layers at the visual tokens of all views, one view after the other, row by row;
`grids`, the height and width of each view in tokens; and `scene_lengths`, the views of each scene.
"""

from itertools import groupby

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_gap_mllm import TOKEN_HEADS, GapMllmConfig
from .vggt_heads_gap_mllm import POSE_ENCODING_SIZE, POSITION_SCALE, _FusionBlock, _sine_cosine_positions


class GapMllmProjector(nn.Module):
    """Two-layer MLP from the width of the language model to that of a teacher."""

    def __init__(self, hidden_size: int, projector_size: int, output_size: int, norm: bool):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size) if norm else nn.Identity()
        self.fc1 = nn.Linear(hidden_size, projector_size)
        self.fc2 = nn.Linear(projector_size, output_size)

    def forward(self, tokens: torch.Tensor):
        return self.fc2(F.gelu(self.fc1(self.norm(tokens)))).float()


class GapMllmDistillationHead(nn.Module):
    """A projector for each layer; gives a list of `(T, feature_size)`.

    Source: 3DRS (arXiv:2506.01946), one layer, no norm, `projector_size` twice the hidden size; GeoVR
    (arXiv:2606.05833), four layers, norm, `projector_size` of the teacher's.

    Args:
        hidden_size (`int`): width of the language model.
        layers (`list[int]`): layers that are read.
        feature_size (`int`): width of the teacher's features.
        projector_size (`int`, *optional*): hidden width of the projectors, twice `hidden_size` by default.
        norm (`bool`, defaults to False): whether a LayerNorm comes first.
        encoder_layers (`list[str]`, *optional*): tapped layers of the model's own encoder that are the teacher, as
            "layer_23"; the model then hands their features on.
    """

    def __init__(
        self,
        hidden_size: int,
        layers: list[int],
        feature_size: int,
        projector_size: int | None = None,
        norm: bool = False,
        encoder_layers: list[str] | None = None,
    ):
        super().__init__()
        self.projectors = nn.ModuleList(
            GapMllmProjector(hidden_size, projector_size or 2 * hidden_size, feature_size, norm) for _ in layers
        )

    def forward(self, states: list[torch.Tensor], grids: list[tuple[int, int]], scene_lengths: list[int]):
        return [project(tokens) for project, tokens in zip(self.projectors, states, strict=True)]


class GapMllmTokenHead(nn.Module):
    """Features `(T, feature_size)` of the visual tokens, for terms that compare tokens or pool those of an object.

    Args:
        hidden_size (`int`): width of the language model.
        layers (`list[int]`): layer that is read, one.
        feature_size (`int`): width of the features.
        head_size (`int`, *optional*): hidden width, twice `hidden_size` by default.
    """

    def __init__(self, hidden_size: int, layers: list[int], feature_size: int, head_size: int | None = None):
        super().__init__()
        self.projector = GapMllmProjector(hidden_size, head_size or 2 * hidden_size, feature_size, norm=True)

    def forward(self, states: list[torch.Tensor], grids: list[tuple[int, int]], scene_lengths: list[int]):
        return self.projector(states[0])


class GapMllmDepthHead(nn.Module):
    """Z-depth of `side` x `side` cells of each token, from one or more layers; gives a map `(H, W)` for each view.

    Source: the DPT head of GeoVR (arXiv:2606.05833). `Differs:` all levels keep the grid of the tokens, where GeoVR
    resizes them by 4 to 1/2 before they are fused; its widths of 256 to 1024 become one.

    Args:
        hidden_size (`int`): width of the language model.
        layers (`list[int]`): layers that are read, the coarsest last.
        side (`int`, defaults to 8): cells along each side of a token.
        features (`int`, defaults to 256): channels of the convolutions, a multiple of 4.
    """

    def __init__(self, hidden_size: int, layers: list[int], side: int = 8, features: int = 256):
        super().__init__()
        self.side = side
        self.norm = nn.LayerNorm(hidden_size)
        self.projects = nn.ModuleList(nn.Linear(hidden_size, features) for _ in layers)
        last = len(layers) - 1
        self.blocks = nn.ModuleList(_FusionBlock(features, has_residual=level < last) for level in range(len(layers)))
        self.output_conv = nn.Conv2d(features, side * side, kernel_size=1)

    def forward(self, states: list[torch.Tensor], grids: list[tuple[int, int]], scene_lengths: list[int]):
        runs = [(grid, len(list(run))) for grid, run in groupby(grids)]  # neighbouring views of one size go together
        counts = [views * rows * columns for (rows, columns), views in runs]
        levels = [
            project(self.norm(tokens)).split(counts) for project, tokens in zip(self.projects, states, strict=True)
        ]
        maps = []
        for index, (grid, views) in enumerate(runs):
            fused = None
            for level, block in zip(reversed(levels), reversed(self.blocks), strict=True):
                tokens = level[index].unflatten(0, (views, *grid)).permute(0, 3, 1, 2)
                positions = _sine_cosine_positions(tokens.shape[1], grid, grid, tokens.device)
                fused = block(tokens + (POSITION_SCALE * positions).to(tokens.dtype), fused, grid)
            maps += F.pixel_shuffle(self.output_conv(fused), self.side)[:, 0].float().exp()
        return maps


class GapMllmCameraHead(nn.Module):
    """VGGT's pose encoding `(V, 9)` of each view from the mean of its tokens.

    Source: camera head of GeoVR (arXiv:2606.05833). `Differs:` that reads a camera token behind each view, which is
    put into the text in training only; no token is added here. Its ReLU on the field of view, which can die, is a
    softplus.

    Args:
        hidden_size (`int`): width of the language model.
        layers (`list[int]`): layer that is read, one.
        head_size (`int`, defaults to 1536): hidden width.
    """

    def __init__(self, hidden_size: int, layers: list[int], head_size: int = 1536):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.fc1, self.fc2 = nn.Linear(hidden_size, head_size), nn.Linear(head_size, head_size)
        self.output = nn.Linear(head_size, POSE_ENCODING_SIZE)

    def forward(self, states: list[torch.Tensor], grids: list[tuple[int, int]], scene_lengths: list[int]):
        views = pool_views(states[0], grids)
        encodings = self.output(F.gelu(self.fc2(F.gelu(self.fc1(self.norm(views)))))).float()
        return torch.cat([encodings[:, :7], F.softplus(encodings[:, 7:])], dim=1)


class GapMllmScaleHead(nn.Module):
    """Metres for each unit of a teacher, `(scenes,)`, from the mean of the tokens of a scene's views.

    Source: scale head of GeoVR (arXiv:2606.05833). `Differs:` that reads a token of its own, as `GapMllmCameraHead`.

    Args:
        hidden_size (`int`): width of the language model.
        layers (`list[int]`): layer that is read, one.
        head_size (`int`, defaults to 512): hidden width.
    """

    def __init__(self, hidden_size: int, layers: list[int], head_size: int = 512):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.fc1, self.fc2 = nn.Linear(hidden_size, head_size), nn.Linear(head_size, 1)

    def forward(self, states: list[torch.Tensor], grids: list[tuple[int, int]], scene_lengths: list[int]):
        scenes = torch.stack([views.mean(0) for views in pool_views(states[0], grids).split(scene_lengths)])
        return self.fc2(F.gelu(self.fc1(self.norm(scenes))))[:, 0].float().exp()


def pool_views(tokens: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
    """Return the mean token `(V, D)` of each view of `tokens` `(T, D)`."""
    return torch.stack([part.mean(0) for part in tokens.split([rows * columns for rows, columns in grids])])


TRAINING_HEAD_CLASSES = {
    "distillation": GapMllmDistillationHead,
    "depth": GapMllmDepthHead,
    "camera": GapMllmCameraHead,
    "metric_scale": GapMllmScaleHead,
    **dict.fromkeys(TOKEN_HEADS, GapMllmTokenHead),
}


def make_training_head(name: str, config: GapMllmConfig) -> nn.Module:
    """Make a head of `config.training_heads`.

    Args:
        name (`str`): name of the head.
        config (`GapMllmConfig`): config of the model.
    Returns:
        `nn.Module`.
    Raises:
        ValueError: for a setting that the head does not have.
    """
    try:
        return TRAINING_HEAD_CLASSES[name](config.text_config.hidden_size, **config.training_heads[name])
    except TypeError as error:
        raise ValueError(f"training_heads.{name} is {config.training_heads[name]}: {error}.") from None


__all__ = ["TRAINING_HEAD_CLASSES", "make_training_head"]
