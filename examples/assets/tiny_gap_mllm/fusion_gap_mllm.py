"""Multi-level fusion of geometry into visual tokens, by one merger (`patch_mergers_gap_mllm.py`) and fusion a level.

Geometry of rising depth meets visual levels of rising depth: the DeepStack levels in order, then the final visual
tokens. The encoder that makes the geometry is in `vggt_gap_mllm.py`. Source: GAP-MLLM (arXiv:2603.16461).
"""

from dataclasses import dataclass

import torch
from torch import nn

from .compatibility_gap_mllm import needed_from_transformers
from .configuration_gap_mllm import GapMllmFusionConfig
from .frame_attention_gap_mllm import (
    GapMllmBidirectionalFusion,
    GapMllmCrossAttentionFusion,
    GapMllmGeothinkerFusion,
    GapMllmVlm3rFusion,
)
from .patch_mergers_gap_mllm import GapMllmPatchMerger, GapMllmSpatialMllmMerger, GapMllmViewTokens
from .position_encoding_gap_mllm import position_encoding, token_positions
from .publishing_gap_mllm import PublishedModel
from .weights_gap_mllm import WholeModel


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


__all__ = ["GapMllmFusion", "GapMllmFusionOutput"]
