"""Heads that read hidden states of visual tokens in pre-training, and are dropped for inference.

Each takes the states `(T, D)` of its layers at the visual tokens of all views, one view after the other, row by row;
`grids`, the height and width of each view in tokens; and `scene_lengths`, the views of each scene. Some take
`output_grids`, the grid on which they tell of each view, if that is another. A head with `tokens` reads the states of
tokens of its own (geometry_tokens_gap_mllm.py) in the place of the visual tokens.
"""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_gap_mllm import TOKEN_HEADS, GapMllmConfig
from .vggt_heads_gap_mllm import POSE_ENCODING_SIZE, DptPyramid, _FusionBlock, add_positions


EXP_LIMIT = 10.0  # e^10 metres are 22 km
FOV_ACTIVATIONS = {"softplus": F.softplus, "relu": F.relu}


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
    (arXiv:2606.05833), four layers, norm, `projector_size` of the teacher's, and `output_grids` of the teacher, to
    which the states are resized first.

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

    def forward(
        self,
        states: list[torch.Tensor],
        grids: list[tuple[int, int]],
        scene_lengths: list[int],
        output_grids: list[tuple[int, int]] | None = None,
    ):
        if output_grids is not None and output_grids != grids:
            states = [_resized(tokens, grids, output_grids) for tokens in states]
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

    Source: the DPT head of GeoVR (arXiv:2606.05833), whose own form is `GapMllmDptDepthHead`. `Differs:` all levels
    keep the grid of the tokens, where GeoVR resizes them by 4 to 1/2 before they are fused; its widths of 256 to 1024
    become one; any number of layers.

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

    def forward(
        self,
        states: list[torch.Tensor],
        grids: list[tuple[int, int]],
        scene_lengths: list[int],
        output_grids: list[tuple[int, int]] | None = None,
    ):
        projected = [project(self.norm(tokens)) for project, tokens in zip(self.projects, states, strict=True)]
        maps = []
        for levels, grid, output_grid in _runs(projected, grids, output_grids):
            fused = None
            for level, block in zip(reversed(levels), reversed(self.blocks), strict=True):
                tokens = level.unflatten(1, grid).permute(0, 3, 1, 2)
                fused = block(add_positions(tokens, grid), fused, grid)
            if output_grid != grid:
                fused = F.interpolate(fused, size=output_grid, mode="bilinear", align_corners=True)
            maps += bounded_exp(F.pixel_shuffle(self.output_conv(fused), self.side)[:, 0].float())
        return maps


class GapMllmDptDepthHead(DptPyramid):
    """Z-depth of `side` x `side` cells of each token, from four layers; gives a map `(H, W)` for each view.

    A pyramid of 4 to 1/2 times the grid, four cells along each side of a token, and pixels shuffled out of each cell.
    Source: DPT head of GeoVR (arXiv:2606.05833). `Differs:` see `bounded_exp`.

    Args:
        hidden_size (`int`): width of the language model.
        layers (`list[int]`): four layers that are read, the coarsest last.
        side (`int`, defaults to 28): cells along each side of a token, a multiple of 4; 28 are the pixels of two of
            VGGT's patches.
        features (`int`, defaults to 256): channels of the fused map, a multiple of 4.
        out_channels (`Sequence[int]`, defaults to `(256, 512, 1024, 1024)`): channels of the four levels.
    """

    def __init__(
        self,
        hidden_size: int,
        layers: list[int],
        side: int = 28,
        features: int = 256,
        out_channels: Sequence[int] = (256, 512, 1024, 1024),
    ):
        if len(layers) != 4 or len(out_channels) != 4 or side % 4:
            raise ValueError(
                f"The depth head 'dpt' has layers {list(layers)}, out_channels {list(out_channels)} and side {side}; "
                "expected four of each, and a multiple of 4."
            )
        super().__init__(hidden_size, out_channels, features, relu_skip=False)
        self.side = side
        self.output_conv = nn.Conv2d(features, (side // 4) ** 2, kernel_size=1)

    def forward(
        self,
        states: list[torch.Tensor],
        grids: list[tuple[int, int]],
        scene_lengths: list[int],
        output_grids: list[tuple[int, int]] | None = None,
    ):
        maps = []
        for levels, grid, output_grid in _runs(states, grids, output_grids):
            size = tuple(4 * side for side in output_grid)
            fused = self.fuse(levels, grid, 4)
            if output_grid != grid:
                fused = F.interpolate(fused, size=size, mode="bilinear", align_corners=True)
            logits = self.output_conv(add_positions(fused, size))
            maps += bounded_exp(F.pixel_shuffle(logits, self.side // 4)[:, 0].float())
        return maps


class GapMllmCameraHead(nn.Module):
    """VGGT's pose encoding `(V, 9)` of each view, from the token of its camera or from the mean of its tokens.

    Source: camera head of GeoVR (arXiv:2606.05833), which reads the token. `Differs:` its ReLU on the field of view
    can die, after which nothing is learnt; here it is a softplus, unless `fov_activation` is "relu".

    Args:
        hidden_size (`int`): width of the language model.
        layers (`list[int]`): layer that is read, one.
        head_size (`int`, defaults to 1536): hidden width.
        tokens (`bool`, defaults to False): whether a token behind each view is read, whose embeddings (of a scene's
            first view, and of others) are part of this head.
        fov_activation (`str`, defaults to "softplus"): "softplus" or "relu".
    """

    def __init__(
        self,
        hidden_size: int,
        layers: list[int],
        head_size: int = 1536,
        tokens: bool = False,
        fov_activation: str = "softplus",
    ):
        super().__init__()
        if fov_activation not in FOV_ACTIVATIONS:
            raise ValueError(f"fov_activation is {fov_activation!r}; expected one of {', '.join(FOV_ACTIVATIONS)}.")
        self.fov_activation = FOV_ACTIVATIONS[fov_activation]
        self.tokens = nn.Embedding(2, hidden_size) if tokens else None
        self.norm = nn.LayerNorm(hidden_size)
        self.fc1, self.fc2 = nn.Linear(hidden_size, head_size), nn.Linear(head_size, head_size)
        self.output = nn.Linear(head_size, POSE_ENCODING_SIZE)

    def forward(self, states: list[torch.Tensor], grids: list[tuple[int, int]], scene_lengths: list[int]):
        views = pool_views(states[0], grids) if self.tokens is None else states[0]
        encodings = self.output(F.gelu(self.fc2(F.gelu(self.fc1(self.norm(views)))))).float()
        return torch.cat([encodings[:, :7], self.fov_activation(encodings[:, 7:])], dim=1)


class GapMllmScaleHead(nn.Module):
    """Metres for each unit of a teacher, `(scenes,)`, from a scene's token or from the mean of its views' tokens.

    Source: scale head of GeoVR (arXiv:2606.05833), which reads the token. `Differs:` see `bounded_exp`.

    Args:
        hidden_size (`int`): width of the language model.
        layers (`list[int]`): layer that is read, one.
        head_size (`int`, defaults to 512): hidden width.
        tokens (`bool`, defaults to False): whether a token behind the last view is read, whose embedding is part of
            this head.
    """

    def __init__(self, hidden_size: int, layers: list[int], head_size: int = 512, tokens: bool = False):
        super().__init__()
        self.tokens = nn.Embedding(1, hidden_size) if tokens else None
        self.norm = nn.LayerNorm(hidden_size)
        self.fc1, self.fc2 = nn.Linear(hidden_size, head_size), nn.Linear(head_size, 1)

    def forward(self, states: list[torch.Tensor], grids: list[tuple[int, int]], scene_lengths: list[int]):
        scenes = states[0]
        if self.tokens is None:
            scenes = torch.stack([views.mean(0) for views in pool_views(scenes, grids).split(scene_lengths)])
        return bounded_exp(self.fc2(F.gelu(self.fc1(self.norm(scenes))))[:, 0].float())


def bounded_exp(logits: torch.Tensor) -> torch.Tensor:
    """Return e^x up to x = 10, and from there its tangent: neither is it ever infinite, nor its gradient 0.

    `Differs:` GeoVR's heads have no bound, so that one large logit ends a training.
    """
    return logits.clamp(max=EXP_LIMIT).exp() * (1 + (logits - EXP_LIMIT).clamp(min=0))


def _runs(states, grids, output_grids=None):
    """States (V, tokens, D) of each layer, of neighbouring views of one size, their grid and that of the output."""
    start, views = 0, zip(grids, grids if output_grids is None else output_grids, strict=True)
    for (grid, output_grid), run in groupby(views):
        count = len(list(run))
        end = start + count * grid[0] * grid[1]
        yield [level[start:end].unflatten(0, (count, -1)) for level in states], grid, output_grid
        start = end


def _resized(tokens, grids, output_grids):
    """Tokens (T, D) resized to another grid of each view."""
    resized = []
    for (views,), grid, output_grid in _runs([tokens], grids, output_grids):
        maps = views.unflatten(1, grid).permute(0, 3, 1, 2)
        maps = F.interpolate(maps, size=output_grid, mode="bilinear", align_corners=False)
        resized.append(maps.flatten(2).transpose(1, 2).flatten(0, 1))
    return torch.cat(resized)


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


DEPTH_METHODS = {"plain": GapMllmDepthHead, "dpt": GapMllmDptDepthHead}


def _depth_head(method):
    if method not in DEPTH_METHODS:
        raise ValueError(f"training_heads.depth.method is {method!r}; expected one of {', '.join(DEPTH_METHODS)}.")
    return DEPTH_METHODS[method]


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
    settings = {key: value for key, value in config.training_heads[name].items() if key != "grid"}  # of the targets
    kind = TRAINING_HEAD_CLASSES[name]
    if name == "depth":
        kind = _depth_head(settings.pop("method", "plain"))
    try:
        return kind(config.text_config.hidden_size, **settings)
    except TypeError as error:
        raise ValueError(f"training_heads.{name} is {config.training_heads[name]}: {error}.") from None


__all__ = ["TRAINING_HEAD_CLASSES", "make_training_head"]
