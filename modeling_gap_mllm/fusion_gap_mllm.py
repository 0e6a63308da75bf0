"""Multi-level fusion of geometry into visual tokens, by one merger (`patch_mergers_gap_mllm.py`) and fusion a level.

Geometry of rising depth meets visual levels of rising depth: the DeepStack levels in order, then the final visual
tokens. The encoder that makes the geometry is in `vggt_gap_mllm.py`. Source: GAP-MLLM (arXiv:2603.16461).

Also the cross-attention of the visual tokens of an image to the geometry of the same image, never to another's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_gap_mllm import GapMllmFusionConfig
from .patch_mergers_gap_mllm import (
    GapMllmPatchMerger,
    GapMllmSpatialMllmMerger,
    GapMllmViewTokens,
    position_encoding,
    token_positions,
)
from .publishing_gap_mllm import PublishedModel, WholeModel, needed_from_transformers


with needed_from_transformers():
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.qwen3_vl.modeling_qwen3_vl import eager_attention_forward


class GapMllmFrameAttention(nn.Module):
    """Projections of multi-head cross-attention and its call, shared by the fusions of this file."""

    def __init__(self, config: GapMllmFusionConfig, context_size: int):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.num_key_value_groups = 1  # read by eager attention
        self.is_causal = False  # read by the attention functions
        # Not called q_proj and so on: LoRA on the language model's layers by name must not reach in here.
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key, self.value = (nn.Linear(context_size, config.hidden_size) for _ in range(2))
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def attend(
        self, tokens: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attend from `tokens` `(images, N, D)` to `key` and `value` `(images, M, context_size)`; as `tokens`.

        `bias` `(images, 1, 1 or N, M)` is added to the logits. Kernels that take none (FlashAttention) give way to
        SDPA then.
        """
        query, key, value = (
            projection(x).view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)  # [images, heads, N, head_dim]
            for projection, x in ((self.query, tokens), (self.key, key), (self.value, value))
        )
        kernel = self.config._attn_implementation
        if bias is not None:
            kernel = "eager" if kernel == "eager" else "sdpa"
            bias = bias.to(query.dtype).expand(-1, -1, query.shape[2], -1)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(kernel, eager_attention_forward)
        dropout = self.config.dropout if self.training else 0.0
        attended, _ = attention(self, query, key, value, bias, scaling=self.scaling, dropout=dropout, is_causal=False)
        return self.output(attended.reshape(*tokens.shape))

    def drop(self, x: torch.Tensor) -> torch.Tensor:
        """Dropout while training."""
        return F.dropout(x, self.config.dropout, self.training)


class GapMllmCrossAttentionFusion(nn.Module):
    """Let the visual tokens of an image attend to its geometry tokens, through blocks of cross-attention."""

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__()
        self.blocks = nn.ModuleList(GapMllmCrossAttentionBlock(config) for _ in range(config.num_layers))

    def forward(self, visual: torch.Tensor, geometry: torch.Tensor, sizes: list[tuple[int, int]]):
        fused = []
        for (h, w), tokens, context in by_image(visual, geometry, sizes):
            position = sine_cosine_position(h, w, tokens.shape[-1], tokens.device).to(tokens.dtype)
            for block in self.blocks:
                tokens = block(tokens, context, position)
            fused.append(tokens.flatten(0, 1))
        return torch.cat(fused), None


class GapMllmCrossAttentionBlock(GapMllmFrameAttention):
    """One pre-norm block: cross-attention to the geometry, then an MLP; the geometry itself is not updated."""

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__(config, config.hidden_size)
        self.query_norm, self.key_norm, self.value_norm, self.mlp_norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in range(4)
        )
        self.linear_fc1 = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.linear_fc2 = nn.Linear(4 * config.hidden_size, config.hidden_size)

    def forward(self, tokens: torch.Tensor, context: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        context_key = self.key_norm(context) + position
        attended = self.attend(self.query_norm(tokens) + position, context_key, self.value_norm(context))
        tokens = tokens + attended
        hidden = self.drop(F.gelu(self.linear_fc1(self.mlp_norm(tokens))))
        return tokens + self.drop(self.linear_fc2(hidden))


class GapMllmVlm3rFusion(GapMllmFrameAttention):
    """VLM-3R's fusion: `Dropout(LN(Attn(LN visual, LN [camera; patches])) + visual)`, image by image.

    Keys and values are the camera token and the single patches of the image, as the encoder gives them, in its width.
    `Differs:` the source attends from the vision tower's patches before they are projected, in their width; here from
    visual tokens of the language model's width, since DeepStack has no such place. Source: VLM-3R (arXiv:2505.20279).
    """

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__(config, config.geometry_hidden_size)
        self.visual_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.geometry_norm = nn.LayerNorm(config.geometry_hidden_size, eps=config.layer_norm_eps)
        self.output_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, visual: torch.Tensor, geometry: torch.Tensor, sizes: list[tuple[int, int]]):
        per_token = self.config.spatial_merge_size**2
        fused = []
        for _, tokens, context in by_image(visual, geometry, sizes, per_token, self.config.camera_tokens):
            context = self.geometry_norm(context)
            attended = self.output_norm(self.attend(self.visual_norm(tokens), context, context))
            fused.append(self.drop(attended + tokens).flatten(0, 1))
        return torch.cat(fused), None


class GapMllmGeothinkerFusion(GapMllmFrameAttention):
    """GeoThinker's cross-attention within a frame: logits of geometry token j raised by `log(importance + 0.1)`.

    The importance is a sigmoid of a small MLP. `Differs:` the source computes it from the queries and applies it to
    the keys, so that the importance of one token weighs another's geometry where the grids differ; here it is that of
    the geometry token itself, unless `importance_from="visual"`. `Differs:` the source sits in layers of the language
    model, behind `tanh(a)` with a = 0 at the start, which is `strength` here; its bias by distance is left out, and
    geometry is not detached, so that the merger learns. Source: GeoThinker, the release's cross-attention.
    """

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__(config, config.hidden_size)
        self.visual_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.geometry_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.importance_fc1 = nn.Linear(config.hidden_size, config.hidden_size // 4)
        self.importance_fc2 = nn.Linear(config.hidden_size // 4, 1)

    def forward(self, visual: torch.Tensor, geometry: torch.Tensor, sizes: list[tuple[int, int]]):
        fused = []
        for _, tokens, context in by_image(visual, geometry, sizes):
            query, context = self.visual_norm(tokens), self.geometry_norm(context)
            source = context if self.config.importance_from == "geometry" else query
            importance = self.importance_fc2(F.gelu(self.importance_fc1(source))).sigmoid()  # [images, N, 1]
            bias = (importance + 0.1).log().transpose(1, 2)[:, None]
            fused.append((tokens + self.attend(query, context, context, bias)).flatten(0, 1))
        return torch.cat(fused), None


class GapMllmBidirectionalFusion(nn.Module):
    """Attention both ways within a frame, where geometry says which visual tokens may attend to which.

    First geometry tokens attend to all visual tokens. Then visual token i attends to the visual and read geometry
    tokens j of the `num_neighbors` places whose geometry is most like that at i (cosine, itself always among them);
    where a frame has no more tokens, to all. The idea is that of the overview article of spatial MLLMs, which gives no
    formula: this one is ours.
    """

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__()
        self.num_neighbors = config.num_neighbors
        self.visual_norm, self.geometry_norm, self.context_norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in range(3)
        )
        self.to_geometry = GapMllmFrameAttention(config, config.hidden_size)
        self.to_visual = GapMllmFrameAttention(config, config.hidden_size)

    def forward(self, visual: torch.Tensor, geometry: torch.Tensor, sizes: list[tuple[int, int]]):
        fused = []
        for _, tokens, context in by_image(visual, geometry, sizes):
            query = self.visual_norm(tokens)
            read = context + self.to_geometry.attend(self.geometry_norm(context), query, query)
            joint = self.context_norm(tokens + read)
            bias = self._bias(context)[:, None]
            fused.append((tokens + self.to_visual.attend(query, joint, joint, bias)).flatten(0, 1))
        return torch.cat(fused), None

    @torch.no_grad()
    def _bias(self, geometry):
        """0 where token i of an image may attend to j, else minus infinity; `(images, N, N)`."""
        directions = F.normalize(geometry.float(), dim=-1)
        similarity = directions @ directions.transpose(1, 2)
        similarity.diagonal(dim1=1, dim2=2).fill_(2)  # above any cosine
        nearest = similarity.topk(min(self.num_neighbors, similarity.shape[-1]), dim=-1).indices
        return torch.full_like(similarity, float("-inf")).scatter(-1, nearest, 0.0)


def by_image(
    visual: torch.Tensor, geometry: torch.Tensor, sizes: list[tuple[int, int]], per_token: int = 1, extra: int = 0
) -> Iterator[tuple[tuple[int, int], torch.Tensor, torch.Tensor]]:
    """Split flat tokens into batches of neighbouring images of one size.

    Args:
        visual (`torch.Tensor` of shape `(N, D)`): visual tokens of all images.
        geometry (`torch.Tensor` of shape `(N * per_token + images * extra, C)`): their geometry.
        sizes (`list[tuple[int, int]]`): height and width of each image in visual tokens.
        per_token (`int`, defaults to 1): rows of geometry for each visual token.
        extra (`int`, defaults to 0): rows of geometry for each image besides.
    Returns:
        `Iterator`: for each batch the size, `(images, h * w, D)` and `(images, h * w * per_token + extra, C)`.
    """
    runs = [(size, len(list(run))) for size, run in groupby(sizes)]
    tokens = visual.split([images * h * w for (h, w), images in runs])
    context = geometry.split([images * (h * w * per_token + extra) for (h, w), images in runs])
    for (size, images), x, y in zip(runs, tokens, context, strict=True):
        yield size, x.unflatten(0, (images, -1)), y.unflatten(0, (images, -1))


def sine_cosine_position(
    height: int, width: int, channels: int, device: str | torch.device | None = None
) -> torch.Tensor:
    """Return the fixed 2-D position code `(height * width, channels)`: first half for rows, second for columns."""
    quarter = channels // 4
    frequency = 10000 ** -(torch.arange(quarter, dtype=torch.float32, device=device) / quarter)

    def axis(length: int):
        angle = torch.arange(length, dtype=torch.float32, device=device)[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=-1)  # [length, channels / 2]

    rows, columns = axis(height), axis(width)
    grid = [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)]
    return torch.cat(grid, dim=-1).flatten(0, 1)


with needed_from_transformers():
    from transformers import PreTrainedModel
    from transformers import initialization as init
    from transformers.utils import ModelOutput


@dataclass
class GapMllmFusionOutput(ModelOutput):
    """What the fusion computes, one entry for each level (DeepStack levels in order, then the final tokens).

    Args:
        fused (`list[torch.Tensor]` of shape `(N, D)`, *optional*): visual tokens after the fusion.
        geometry (`list[torch.Tensor]` of shape `(N, D)`, *optional*): geometry that met the visual tokens; with
            "vlm3r" camera tokens and patches, `(M, C)`.
        gates (`list[torch.Tensor]`, *optional*): weight of the visual part, `(N, D)` for "gated" and a scalar for
            "weighted"; None for methods without one. An entry of `geometry` and `gates` is None where its level is not
            fused.
    """

    fused: list[torch.Tensor] | None = None
    geometry: list[torch.Tensor] | None = None
    gates: list[torch.Tensor] | None = None


class _ExactLerp(torch.autograd.Function):
    """`torch.lerp`, but bit for bit its end points at weights 0 and 1, whatever the other end point holds.

    lerp alone turns -0.0 into 0.0 and a non-finite other end into NaN. The gradient is lerp's own, so that a weight
    which starts at an end point learns (a plain `torch.where` would cut it off).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(start: torch.Tensor, end: torch.Tensor, weight: torch.Tensor):
        mixed = torch.where(weight == 0, start, torch.lerp(start, end, weight))
        return torch.where(weight == 1, end, mixed)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        start, end, weight = ctx.saved_tensors
        grad_start = grad * (1 - weight) if ctx.needs_input_grad[0] else None
        grad_end = grad * weight if ctx.needs_input_grad[1] else None
        grad_weight = None
        if ctx.needs_input_grad[2]:
            grad_weight = (grad * (end - start)).sum(dim=0, dtype=torch.float32).to(weight.dtype)
        return grad_start, grad_end, grad_weight


class GapMllmGatedFusion(nn.Module):
    """Mix normalised visual and geometry tokens by a gate for each token and channel (GAP-MLLM's own fusion)."""

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__()
        self.visual_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.geometry_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gate = nn.Linear(2 * config.hidden_size, config.hidden_size)

    def forward(self, visual: torch.Tensor, geometry: torch.Tensor, sizes: list[tuple[int, int]]):
        visual, geometry = self.visual_norm(visual), self.geometry_norm(geometry)
        gate = self.gate(torch.cat([visual, geometry], dim=-1)).sigmoid()
        return gate * visual + (1 - gate) * geometry, gate


class GapMllmAddFusion(nn.Module):
    """Add geometry to the visual tokens."""

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__()

    def forward(self, visual: torch.Tensor, geometry: torch.Tensor, sizes: list[tuple[int, int]]):
        return visual + geometry, None


class GapMllmConcatFusion(nn.Module):
    """Project the concatenation of normalised visual and geometry tokens."""

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__()
        self.visual_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.geometry_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(2 * config.hidden_size, config.hidden_size)

    def forward(self, visual: torch.Tensor, geometry: torch.Tensor, sizes: list[tuple[int, int]]):
        return self.projection(torch.cat([self.visual_norm(visual), self.geometry_norm(geometry)], dim=-1)), None


class GapMllmWeightedFusion(nn.Module):
    """Add visual and geometry tokens by two scalar weights that are normalised to sum 1."""

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__()
        self.visual_weight = nn.Parameter(torch.tensor(0.5))
        self.geometry_weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, visual: torch.Tensor, geometry: torch.Tensor, sizes: list[tuple[int, int]]):
        total = self.visual_weight + self.geometry_weight
        gate = self.visual_weight / total
        return gate * visual + self.geometry_weight / total * geometry, gate


FUSION_CLASSES = {
    "gated": GapMllmGatedFusion,
    "add": GapMllmAddFusion,
    "concat": GapMllmConcatFusion,
    "weighted": GapMllmWeightedFusion,
    "cross_attention": GapMllmCrossAttentionFusion,
    "spatial_mllm": GapMllmAddFusion,
    "vlm3r": GapMllmVlm3rFusion,
    "geothinker": GapMllmGeothinkerFusion,
    "bidirectional": GapMllmBidirectionalFusion,
}
# Of methods with one of their own.
MERGER_CLASSES = {"spatial_mllm": GapMllmSpatialMllmMerger, "vlm3r": GapMllmViewTokens}


class GapMllmFusionLevel(nn.Module):
    """One level: the fusion, and how far it replaces the visual tokens.

    `Differs:` the reference has no `strength`. At 0 the level hands on the visual tokens bit for bit, at 1 the fused
    ones; one learnable value for each channel lets training start from plain Qwen3-VL. Where it is not trained it is
    a buffer, of the same name in a checkpoint: PEFT would train every parameter of a module that it saves.
    """

    def __init__(self, config: GapMllmFusionConfig, method: str | None = None):
        super().__init__()
        self.fuse = FUSION_CLASSES[method or config.method](config)
        strength = torch.full((config.hidden_size,), float(config.init == "reference"))
        if config.train_strength:
            self.strength = nn.Parameter(strength)
        else:
            self.register_buffer("strength", strength)

    def forward(self, visual: torch.Tensor, geometry: torch.Tensor, sizes: list[tuple[int, int]]):
        """Fuse `visual` and `geometry` `(N, D)` of images with `sizes` (h, w) in tokens; returns tokens and gate."""
        dtype = self.strength.dtype
        fused, gate = self.fuse(visual.to(dtype), geometry.to(dtype), sizes)
        return _ExactLerp.apply(visual, fused.to(visual.dtype), self.strength.to(visual.dtype)), gate


class GapMllmFusion(PublishedModel, WholeModel, PreTrainedModel):
    """Merge the tapped geometry features to visual tokens and fuse them in, level by level.

    Tap k feeds level k: with the published sizes VGGT's layers 4, 11 and 17 feed the three DeepStack levels, and layer
    23 the final visual tokens. Source: GAP-MLLM (arXiv:2603.16461), multi-level progressive fusion.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm import GapMllmFusion, GapMllmFusionConfig
        >>> sizes = {"hidden_size": 32, "geometry_hidden_size": 24, "merger_hidden_size": 48}
        >>> fusion = GapMllmFusion(GapMllmFusionConfig(**sizes))
        >>> visual = [torch.rand(6, 32) for _ in range(4)]  # DeepStack levels and final tokens, 2 x 3 of one view
        >>> taps = tuple(torch.rand(24, 24) for _ in range(4))  # features of its 4 x 6 patches
        >>> torch.equal(fusion(visual, taps, [(4, 6)])[-1], visual[-1])  # untrained: plain Qwen3-VL
        True

        ```
    """

    config: GapMllmFusionConfig
    config_class = GapMllmFusionConfig
    base_model_prefix = "fusion"
    main_input_name = "visual_levels"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__(config)
        merger_class = MERGER_CLASSES.get(config.method, GapMllmPatchMerger)
        fused_levels = range(config.num_levels if config.fused_levels == "all" else 1)
        self.mergers = nn.ModuleList(merger_class(config) for _ in fused_levels)
        self.levels = nn.ModuleList(GapMllmFusionLevel(config) for _ in fused_levels)
        self.position = GapMllmFusionLevel(config, "add") if config.position_levels else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, GapMllmFusionLevel):
            init.constant_(module.strength, float(self.config.init == "reference"))
        elif isinstance(module, GapMllmWeightedFusion):
            init.constant_(module.visual_weight, 0.5)
            init.constant_(module.geometry_weight, 0.5)

    def forward(
        self,
        visual_levels: list[torch.Tensor],
        tap_features: tuple[torch.Tensor, ...],
        grid: torch.Tensor | list[tuple[int, int]],
        views_per_slice: torch.Tensor | list[int] | None = None,
        output_details: bool = False,
    ) -> list[torch.Tensor] | GapMllmFusionOutput:
        """Fuse geometry into every level of visual tokens.

        Args:
            visual_levels (`list[torch.Tensor]` of shape `(N, D)`): the DeepStack levels in order, then the final
                visual tokens; all slices (images, or temporal patches of a video) one after the other, the tokens of
                each row-major over its merged grid.
            tap_features (`tuple[torch.Tensor]` of shape `(P, C)`): one for each level, patches of all views one after
                the other, the patches of each row-major; with `config.camera_tokens` the camera token of each view
                before its patches, P counting it; with `config.position_encoding` one more at the end, as
                `position_features` gives it.
            grid (`torch.Tensor` or `list` of shape `(views, 2)`): height and width of each view in patches.
            views_per_slice (`torch.Tensor` or `list` of shape `(slices,)`, *optional*): views behind each slice, by
                default one; `config.video_frames` says how several are merged.
            output_details (`bool`, defaults to False): return gates and merged geometry too.
        Returns:
            `list[torch.Tensor]`: the fused levels, shaped as `visual_levels`; a `GapMllmFusionOutput` with
            `output_details`.
        Raises:
            ValueError: if the numbers of levels, patches, views or tokens do not agree.
        """
        sizes = [tuple(size) for size in (grid.tolist() if isinstance(grid, torch.Tensor) else grid)]
        counts = views_per_slice.tolist() if isinstance(views_per_slice, torch.Tensor) else views_per_slice
        counts = [1] * len(sizes) if counts is None else list(counts)
        merged_sizes = self._merged_sizes(visual_levels, tap_features, sizes, counts)
        kept = len(visual_levels) - len(self.levels)  # DeepStack levels that stay as they are
        fused_levels, geometry_levels, gates = list(visual_levels[:kept]), [None] * kept, [None] * kept
        for visual, features, merger, level in zip(
            visual_levels[kept:], tap_features[kept : len(visual_levels)], self.mergers, self.levels, strict=True
        ):
            geometry = merger(features.to(level.strength.dtype), sizes, counts)
            fused, gate = level(visual, geometry, merged_sizes)
            fused_levels.append(fused)
            geometry_levels.append(geometry)
            gates.append(gate)
        if self.position is not None:
            fused_levels[-1] = self._with_positions(fused_levels[-1], tap_features[-1], sizes, counts, merged_sizes)
        if not output_details:
            return fused_levels
        return GapMllmFusionOutput(fused_levels, geometry_levels, None if gates[-1] is None else gates)

    def _with_positions(self, visual, level, sizes, counts, merged_sizes):
        """Final visual tokens, and where they lie in space; tokens of which nothing is known stay as they are."""
        config = self.config
        points, is_known = token_positions(
            level, sizes, counts, config.spatial_merge_size, config.video_frames, config.camera_tokens
        )
        encoding = position_encoding(points, config.hidden_size, config.position_voxel_size) * is_known[:, None]
        return self.position(visual, encoding, merged_sizes)[0]

    def _merged_sizes(self, visual_levels, tap_features, sizes, counts):
        """Check that everything fits together; return the merged grid of each slice."""
        m, levels = self.config.spatial_merge_size, self.config.num_levels
        positions = self.config.position_levels
        if len(visual_levels) != levels or len(tap_features) != levels + positions:
            more = ", and one of position_features behind them" if positions else ""
            raise ValueError(
                f"Got {len(visual_levels)} visual_levels and {len(tap_features)} tap_features, but the fusion has "
                f"{levels} levels. Pass the DeepStack levels and then the final tokens, and one tap for each{more}."
            )
        if any(h % m or w % m for h, w in sizes):
            raise ValueError(f"grid={sizes} has sides that are not multiples of spatial_merge_size={m}.")
        patches = sum(h * w + self.config.camera_tokens for h, w in sizes)
        if any(features.shape[0] != patches for features in tap_features):
            what = "patches and camera tokens" if self.config.camera_tokens else "patches"
            raise ValueError(
                f"grid={sizes} makes {patches} {what}, but tap_features have "
                f"{[features.shape[0] for features in tap_features]}."
            )
        if sum(counts) != len(sizes) or min(counts, default=1) < 1:
            raise ValueError(
                f"views_per_slice={counts} must be positive and sum to the {len(sizes)} views of the grid."
            )
        merged, start = [], 0
        for count in counts:
            views = sizes[start : start + count]
            if len(set(views)) != 1:
                raise ValueError(f"The views of one slice must share one grid, but a slice has {views}.")
            merged.append((views[0][0] // m, views[0][1] // m))
            start += count
        tokens = sum(h * w for h, w in merged)
        if any(visual.shape[0] != tokens for visual in visual_levels):
            raise ValueError(
                f"The geometry of {len(merged)} slices makes {tokens} tokens, but visual_levels have "
                f"{[visual.shape[0] for visual in visual_levels]}. Check grid and views_per_slice."
            )
        return merged
