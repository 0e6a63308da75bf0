"""Heads that read hidden states of visual tokens in pre-training, and are dropped for inference.

Each takes the states `(T, D)` of its layers at the visual tokens of all views, one view after the other, row by row;
`grids`, the height and width of each view in tokens; and `scene_lengths`, the views of each scene. Some take
`output_grids`, the grid on which they tell of each view, if that is another. A head with `tokens` reads the states of
tokens of its own (training_heads_gap_mllm.py) in the place of the visual tokens.

Also how the states of chosen layers are read where they arise, and the tokens that heads read: one behind each view
for its camera, one behind each scene for its scale.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_gap_mllm import TOKEN_HEADS, GapMllmConfig
from .vggt_heads_gap_mllm import POSE_ENCODING_SIZE, DptPyramid, _FusionBlock, add_positions


TOWER, TOWER_INDEX = "tower", -1


def layer_index(layer: int | str, num_layers: int) -> int:
    """Return the index of hidden states from 0: of the embeddings 0, of the last layer, after its norm, `num_layers`.

    Args:
        layer (`int` or `str`): index of hidden states; -1 is the last layer, -2 the one before, and so on. "tower" are
            the visual tokens as the vision tower makes them, before geometry joins: `TOWER_INDEX`.
        num_layers (`int`): decoder layers of the language model.
    Returns:
        `int`.
    Raises:
        ValueError: if there is no such layer.
    """
    if layer == TOWER:
        return TOWER_INDEX
    if not isinstance(layer, int) or isinstance(layer, bool) or not -num_layers - 1 <= layer <= num_layers:
        raise ValueError(
            f"layer {layer!r} is none of the language model; expected 0, its embeddings, to {num_layers}, its last "
            f"layer, or -1 for that; or {TOWER!r}."
        )
    return layer % (num_layers + 1)


def map_layers(num_layers: int, teacher_layers: Sequence[int], num_teacher_layers: int) -> list[int]:
    """Return the language layer that is as deep as each layer of a teacher, by index of hidden states.

    Halves are rounded to even numbers. Source: GeoVR (arXiv:2606.05833).

    Args:
        num_layers (`int`): decoder layers of the language model.
        teacher_layers (`Sequence[int]`): zero-based layers of the teacher.
        num_teacher_layers (`int`): layers of the teacher.
    Returns:
        `list[int]`.

    Example:
        ```python
        >>> from gap_mllm.training_heads_gap_mllm import map_layers
        >>> map_layers(28, [4, 11, 17, 23], 24)  # of VGGT onto Qwen3-VL 2B
        [6, 14, 21, 28]

        ```
    """
    return [round((layer + 1) / num_teacher_layers * num_layers) for layer in teacher_layers]


@contextmanager
def read_hidden_states(language_model: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Keep the hidden states of some layers of one forward pass inside a `with` block.

    As in transformers, those of index k are the output of decoder layer k, before DeepStack adds to it, and those of
    the last layer come after the final norm.

    Args:
        language_model (`nn.Module`): Qwen3-VL's text model, with `layers` and `norm`.
        layers (`Sequence[int]`): indices of hidden states, as of `layer_index`.
    Yields:
        `dict[int, torch.Tensor]`: hidden states `(B, S, D)` by the index from 0, once the model has run.
    Raises:
        ValueError: as `layer_index`.
    """
    num_layers, kept, handles = len(language_model.layers), {}, []

    def keep_input(module, args, kwargs):
        kept[0] = args[0] if args else kwargs["hidden_states"]

    def keeper(index):
        def keep(module, args, output):
            kept[index] = output if isinstance(output, torch.Tensor) else output[0]

        return keep

    try:
        for index in {layer_index(layer, num_layers) for layer in layers}:
            if index == 0:
                handles.append(language_model.layers[0].register_forward_pre_hook(keep_input, with_kwargs=True))
            else:
                module = language_model.norm if index == num_layers else language_model.layers[index - 1]
                handles.append(module.register_forward_hook(keeper(index)))
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def read_tower(visual: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Keep what the vision tower makes of pictures inside a `with` block.

    Args:
        visual (`nn.Module`): Qwen3-VL's vision tower.
    Yields:
        `list[torch.Tensor]`: merged tokens `(T, D)` of each call, in its order.
    """
    kept = []
    handle = visual.register_forward_hook(lambda module, args, output: kept.append(output.pooler_output))
    try:
        yield kept
    finally:
        handle.remove()


TOKENS_OF_HEADS = {"camera": "camera", "metric_scale": "scale"}  # what a head reads, if it reads tokens of its own


def token_kinds(training_heads: dict[str, dict] | None) -> list[str]:
    """Return which tokens the heads of a config read: "camera", "scale", both or none."""
    heads = training_heads or {}
    return [kind for head, kind in TOKENS_OF_HEADS.items() if heads.get(head, {}).get("tokens")]


@dataclass(frozen=True)
class ViewTokens:
    """Which tokens views have: patches, behind them that of the camera, and behind the last view that of the scale.

    Args:
        sizes (`list[int]`): patches of each view, in tokens.
        scene_lengths (`list[int]`): views of each scene.
        kinds (`Sequence[str]`, defaults to none): those of `token_kinds` that there are.
    """

    sizes: list[int]
    scene_lengths: list[int]
    kinds: Sequence[str] = ()

    @property
    def first_views(self) -> list[int]:
        """Index of the first view of each scene."""
        return [last + 1 - length for last, length in zip(self.last_views, self.scene_lengths, strict=True)]

    @property
    def last_views(self) -> list[int]:
        """Index of the last view of each scene."""
        return [end - 1 for end in accumulate(self.scene_lengths)]

    @property
    def whole_sizes(self) -> list[int]:
        """Tokens of each view, with those behind its patches."""
        lasts = self.last_views if "scale" in self.kinds else ()
        return [size + ("camera" in self.kinds) + (view in lasts) for view, size in enumerate(self.sizes)]

    def repeats(self, is_patch: torch.Tensor) -> torch.Tensor:
        """How often each token of a text is to be repeated, so that the new tokens stand behind the last patches.

        Args:
            is_patch (`torch.Tensor`, bool): whether a token of the text, without new ones, is a patch of a view.
        Returns:
            `torch.Tensor`: of the same shape, for `repeat_interleave`.
        Raises:
            ValueError: if the text has another number of patches.
        """
        if (count := int(is_patch.sum())) != sum(self.sizes):
            raise ValueError(f"The text has {count} visual tokens, but its views have {sum(self.sizes)}.")
        repeats = torch.ones(is_patch.numel(), dtype=torch.long, device=is_patch.device)
        ends = is_patch.flatten().nonzero()[:, 0][[end - 1 for end in accumulate(self.sizes)]]
        repeats[ends] += torch.tensor(self.whole_sizes, device=ends.device) - torch.tensor(self.sizes).to(ends)
        return repeats.view(is_patch.shape)

    def join(self, features: object, rows: dict[str, torch.Tensor], num_steps: Sequence[int]) -> object:
        """Put the embeddings of the new tokens behind the patches of each view.

        Args:
            features (`BaseModelOutputWithDeepstackFeatures`): output of `get_image_features`; left as it is.
            rows (`dict[str, torch.Tensor]`): embeddings by kind: of the camera of a first view and of others `(2, D)`,
                of the scale `(1, D)`.
            num_steps (`Sequence[int]`): views of each image or video of `features`: 1, or its steps in time.
        Returns:
            `BaseModelOutputWithDeepstackFeatures`.
        """
        new = [[] for _ in self.sizes]
        if "camera" in self.kinds:
            for view, found in enumerate(new):
                found.append(rows["camera"][0 if view in self.first_views else 1])
        if "scale" in self.kinds:
            for view in self.last_views:
                new[view].append(rows["scale"][0])

        def joined(level, factor):
            views = iter(new)
            parts = [
                [
                    part
                    for patches in tokens.chunk(steps)
                    for part in (patches, *_stacked(next(views), patches, factor))
                ]
                for tokens, steps in zip(level, num_steps, strict=True)
            ]
            return tuple(torch.cat(each) for each in parts)

        whole = copy(features)
        whole.pooler_output = joined(features.pooler_output, 1)
        whole.deepstack_features = [joined(level, 0) for level in features.deepstack_features]
        return whole

    def split(self, views: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """States of the new tokens, apart from those of the patches.

        Args:
            views (`Sequence[torch.Tensor]` of shape `(tokens, D)`): states of all tokens of each view.
        Returns:
            `dict[str, torch.Tensor]`: "patches" `(T, D)`, and by kind "camera" `(V, D)` and "scale" `(scenes, D)`.
        """
        pairs = list(zip(views, self.sizes, strict=True))
        found = {"patches": torch.cat([view[:size] for view, size in pairs])}
        if "camera" in self.kinds:
            found["camera"] = torch.stack([view[size] for view, size in pairs])
        if "scale" in self.kinds:
            found["scale"] = torch.stack([views[last][-1] for last in self.last_views])
        return found


def repeat_tokens(values: torch.Tensor, repeats: torch.Tensor, fill: int, pads_left: bool = False) -> torch.Tensor:
    """Repeat tokens of each row, and fill up the rows that are shorter then.

    Args:
        values (`torch.Tensor` of shape `(..., B, S)`): a value for each token.
        repeats (`torch.Tensor` of shape `(B, S)`): how often each is there.
        fill (`int`): value of padding.
        pads_left (`bool`, defaults to False): whether it goes before a row.
    Returns:
        `torch.Tensor` of shape `(..., B, longest)`.
    """
    longest, found = int(repeats.sum(1).max()), []
    for row, counts in enumerate(repeats):
        repeated = values[..., row, :].repeat_interleave(counts, dim=-1)
        missing = longest - repeated.shape[-1]
        found.append(F.pad(repeated, (missing, 0) if pads_left else (0, missing), value=fill))
    return torch.stack(found, dim=-2)


def _stacked(rows, patches, factor):
    return [factor * torch.stack(rows).to(patches)] if rows else []


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
