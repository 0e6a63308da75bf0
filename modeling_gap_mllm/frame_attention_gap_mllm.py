"""Cross-attention of the visual tokens of an image to the geometry of the same image, never to another's."""

from collections.abc import Iterator
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import nn

from .compatibility_gap_mllm import needed_from_transformers
from .configuration_gap_mllm import GapMllmFusionConfig


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


__all__ = [
    "GapMllmBidirectionalFusion",
    "GapMllmCrossAttentionFusion",
    "GapMllmGeothinkerFusion",
    "GapMllmVlm3rFusion",
    "sine_cosine_position",
]
