"""VGGT's aggregator as a `PreTrainedModel`: DINOv2 patch embedding, then alternating frame and global attention.

Written from the facts of the VGGT paper (CVPR 2025); parameter names are the official checkpoint's, so that it loads
as it is. Only tapped layers are kept. Views of unlike sizes may stand in one scene, and several scenes in one batch.
The camera, depth and point heads are in vggt_heads_gap_mllm.py.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_gap_mllm import GapMllmVggtConfig
from .publishing_gap_mllm import PublishedModel, WholeModel, needed_from_transformers


with needed_from_transformers():
    from transformers import PreTrainedModel
    from transformers import initialization as init
    from transformers.modeling_layers import GradientCheckpointingLayer
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.utils import ModelOutput


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
):
    """Attention in plain matrix products, the fallback of `ALL_ATTENTION_FUNCTIONS`. (B, H, N, d) -> (B, N, H, d)."""
    weights = (query @ key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = weights.softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def rotary_table(positions: torch.Tensor, head_size: int, theta: float):
    """Build the cosines and sines of VGGT's 2-D rotary embedding, in float32.

    The first half of a head's channels turns with the row, the second half with the column; in each half the two
    halves form the rotated pairs. Position 0 (special tokens) is left as it is.

    Args:
        positions (`torch.Tensor` of shape `(N, 2)`): row and column of each token; patches count from 1.
        head_size (`int`): channels of a head, a multiple of 4.
        theta (`float`): base of the frequencies.
    Returns:
        `tuple[torch.Tensor, torch.Tensor]` of shape `(N, head_size)`: cosines and sines.
    """
    axis_size = head_size // 2
    exponents = torch.arange(0, axis_size, 2, device=positions.device, dtype=torch.float32) / axis_size
    angles = positions.float()[:, :, None] * theta**-exponents  # (N, 2, axis_size / 2)
    angles = torch.cat([angles, angles], dim=-1).flatten(1)  # (N, head_size)
    return angles.cos(), angles.sin()


def apply_rotary(states: torch.Tensor, table: tuple[torch.Tensor, torch.Tensor]):
    """Turn queries or keys (B, H, N, d) by a table of `rotary_table`."""
    cos, sin = (part.to(states.dtype) for part in table)
    pairs = states.unflatten(-1, (2, 2, -1))  # axis, half of the pair, frequency
    turned = torch.stack([-pairs[..., 1, :], pairs[..., 0, :]], dim=-2).flatten(-3)
    return states * cos + turned * sin


def patch_positions(grid: tuple[int, int], num_special: int, device: str | torch.device):
    """Positions (N, 2) of one view's tokens: zeros for the special ones, then (row + 1, column + 1) row-major."""
    height, width = grid
    rows, columns = torch.meshgrid(
        torch.arange(1, height + 1, device=device), torch.arange(1, width + 1, device=device), indexing="ij"
    )
    patches = torch.stack([rows, columns], dim=-1).flatten(0, 1)
    return F.pad(patches, (0, 0, num_special, 0))


class GapMllmVggtAttention(nn.Module):
    """Self-attention with optional norms of queries and keys, and optional rotary positions."""

    def __init__(self, config: GapMllmVggtConfig, hidden_size: int, num_heads: int, use_qk_norm: bool):
        super().__init__()
        self.config = config
        self.is_causal = False
        self.head_size = hidden_size // num_heads
        self.scaling = self.head_size**-0.5
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.q_norm = nn.LayerNorm(self.head_size, eps=config.layer_norm_eps) if use_qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(self.head_size, eps=config.layer_norm_eps) if use_qk_norm else nn.Identity()
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor, table: tuple[torch.Tensor, torch.Tensor] | None = None):
        qkv = self.qkv(hidden_states).unflatten(-1, (3, -1, self.head_size)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # (B, heads, N, head_size) each
        query, key = self.q_norm(query), self.k_norm(key)
        if table is not None:
            query, key = apply_rotary(query, table), apply_rotary(key, table)
        # Under autocast the norms return float32; attention wants one dtype.
        query, key = query.to(value.dtype), key.to(value.dtype)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        attended, _ = attend(self, query, key, value, None, scaling=self.scaling, dropout=0.0, is_causal=False)
        return self.proj(attended.flatten(2))


class GapMllmVggtMlp(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, hidden_size: int, intermediate_size: int, output_size: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.fc2 = nn.Linear(intermediate_size, output_size or hidden_size)

    def forward(self, hidden_states: torch.Tensor):
        return self.fc2(F.gelu(self.fc1(hidden_states)))


class GapMllmVggtLayerScale(nn.Module):
    """One learned factor for each channel of a residual branch."""

    def __init__(self, hidden_size: int, init_value: float):
        super().__init__()
        self.init_value = init_value
        self.gamma = nn.Parameter(torch.full((hidden_size,), float(init_value)))

    def forward(self, hidden_states: torch.Tensor):
        return hidden_states * self.gamma


class GapMllmVggtBlock(GradientCheckpointingLayer):
    """Pre-norm transformer block with LayerScale: of the patch embedding, the aggregator and the camera trunk."""

    def __init__(
        self,
        config: GapMllmVggtConfig,
        hidden_size: int,
        num_heads: int,
        mlp_ratio: float,
        eps: float,
        layer_scale: float,
        use_qk_norm: bool = False,
    ):
        super().__init__()
        self.token_chunk_size = config.token_chunk_size
        self.norm1 = nn.LayerNorm(hidden_size, eps=eps)
        self.attn = GapMllmVggtAttention(config, hidden_size, num_heads, use_qk_norm)
        self.ls1 = GapMllmVggtLayerScale(hidden_size, layer_scale)
        self.norm2 = nn.LayerNorm(hidden_size, eps=eps)
        self.mlp = GapMllmVggtMlp(hidden_size, int(hidden_size * mlp_ratio))
        self.ls2 = GapMllmVggtLayerScale(hidden_size, layer_scale)

    def _feed_forward(self, hidden_states):
        return self.ls2(self.mlp(self.norm2(hidden_states)))

    def forward(self, hidden_states: torch.Tensor, table: tuple[torch.Tensor, torch.Tensor] | None = None):
        hidden_states = hidden_states + self.ls1(self.attn(self.norm1(hidden_states), table))
        if self.token_chunk_size is None or hidden_states.shape[1] <= self.token_chunk_size:
            return hidden_states + self._feed_forward(hidden_states)
        chunks = hidden_states.split(self.token_chunk_size, dim=1)
        return torch.cat([chunk + self._feed_forward(chunk) for chunk in chunks], dim=1)


class GapMllmVggtPatchProjection(nn.Module):
    """Images to one token for each patch."""

    def __init__(self, config: GapMllmVggtConfig):
        super().__init__()
        self.proj = nn.Conv2d(3, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size)

    def forward(self, images: torch.Tensor | list[torch.Tensor]):
        return self.proj(images).flatten(2).transpose(1, 2)  # (B, N, C), row-major


class GapMllmVggtPatchEmbed(nn.Module):
    """DINOv2 with registers. Its class and register outputs are dropped; the patch tokens pass the final norm."""

    def __init__(self, config: GapMllmVggtConfig):
        super().__init__()
        self.config = config
        size = config.hidden_size
        num_positions = (config.image_size // config.patch_size) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_positions, size))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.patch_embed_num_register_tokens, size))
        # Part of the checkpoint, never used: masked patches exist in DINOv2's own training only.
        self.mask_token = nn.Parameter(torch.zeros(1, size))
        self.patch_embed = GapMllmVggtPatchProjection(config)
        self.blocks = nn.ModuleList(
            GapMllmVggtBlock(
                config,
                size,
                config.patch_embed_num_heads,
                config.patch_embed_mlp_ratio,
                config.patch_embed_layer_norm_eps,
                config.patch_embed_layer_scale_init_value,
            )
            for _ in range(config.patch_embed_depth)
        )
        self.norm = nn.LayerNorm(size, eps=config.patch_embed_layer_norm_eps)

    def register_parameter(self, name: str, param: nn.Parameter | None):
        # from_pretrained puts a new, trainable Parameter in place of each; this is where it passes.
        if name == "mask_token" and param is not None:
            param.requires_grad_(False)
        super().register_parameter(name, param)

    def interpolate_positions(self, grid: tuple[int, int]):
        """Resample the learned position embedding (1, 1 + N, C) to a grid, bicubic with antialiasing, in float32."""
        side = self.config.image_size // self.config.patch_size
        if grid == (side, side):
            return self.pos_embed
        patches = self.pos_embed[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        patches = F.interpolate(patches, size=grid, mode="bicubic", antialias=True, align_corners=False)
        patches = patches.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], patches], dim=1)

    def forward(self, images: torch.Tensor | list[torch.Tensor]):
        grid = tuple(side // self.config.patch_size for side in images.shape[-2:])
        tokens = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = tokens + self.interpolate_positions(grid)
        registers = self.register_tokens.expand(len(tokens), -1, -1)
        tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 1 + registers.shape[1] :]


class _Sequences:
    """Cuts one flat run of tokens (T, C) into sequences that attend alone, batching those of equal make-up.

    Args:
        lengths (`list[int]`): tokens of each sequence, in order; they sum to T.
        kinds (`list`): what must be equal for two sequences to share a batch.
        tables (`dict`): rotary table of one sequence of each kind.
    """

    def __init__(self, lengths: list[int], kinds: list, tables: dict, device: str | torch.device):
        members = {}
        for index, kind in enumerate(kinds):
            members.setdefault(kind, []).append(index)
        self.kinds = list(members)
        self.tables = tables
        self.counts = [len(indices) for indices in members.values()]
        self.inverse = None
        if len(members) > 1:
            starts = [0]
            for length in lengths:
                starts.append(starts[-1] + length)
            order = [
                torch.arange(starts[i], starts[i + 1], device=device) for indices in members.values() for i in indices
            ]
            self.order = torch.cat(order)
            self.inverse = self.order.argsort()
            self.sizes = [sum(lengths[i] for i in indices) for indices in members.values()]

    def apply(self, block: nn.Module, tokens: torch.Tensor):
        """Run `block` over every sequence of `tokens` (T, C)."""
        if self.inverse is None:
            return block(tokens.unflatten(0, (self.counts[0], -1)), self.tables[self.kinds[0]]).flatten(0, 1)
        parts = tokens[self.order].split(self.sizes)
        done = [
            block(part.unflatten(0, (count, -1)), self.tables[kind]).flatten(0, 1)
            for part, count, kind in zip(parts, self.counts, self.kinds, strict=True)
        ]
        return torch.cat(done)[self.inverse]


@dataclass
class GapMllmGeometryOutput(ModelOutput):
    """What every geometry encoder returns: flat features of all views, so that views may differ in size.

    Args:
        tap_features (`tuple[torch.Tensor]`, each of shape `(N_total, feature_size)`, *optional*): patches of all views
            for each tapped layer, row-major within a view, views in the order given.
        camera_tokens (`torch.Tensor` of shape `(views, feature_size)`, *optional*): last layer's camera token of each
            view.
        grid (`list[tuple[int, int]]`, *optional*): patch rows and columns of each view.
        scene_lengths (`list[int]`, *optional*): views of each scene.
        points (`list[torch.Tensor]` of shape `(H, W, 3)`, *optional*): points that the pixels of each view see, in the
            camera of the first view of its scene, NaN where unknown; None for a view of which nothing is known. Only
            of encoders that know.
    """

    tap_features: tuple | None = None
    camera_tokens: torch.Tensor | None = None
    grid: list | None = None
    scene_lengths: list | None = None
    points: list | None = None


def as_views(images: torch.Tensor | list[torch.Tensor], scene_lengths: list[int] | None = None):
    """Bring either form of an encoder's input to a list of views and the scenes' lengths.

    Args:
        images (`torch.Tensor` of shape `(B, V, 3, H, W)` or `(V, 3, H, W)`, or `list[torch.Tensor]` of `(3, H, W)`).
        scene_lengths (`list[int]`, *optional*): views of each scene, for the list form; by default one scene.
    Raises:
        TypeError: if the images are no tensors.
        ValueError: on another shape, on whole numbers (0 to 255), if the lengths do not sum to the number of views, or
            if they come with a tensor of scenes, whose shape says them.
    """
    if isinstance(images, torch.Tensor):
        if images.ndim not in (4, 5) or images.shape[-3] != 3 or 0 in images.shape:
            raise ValueError(
                f"images must have shape (scenes, views, 3, H, W) or (views, 3, H, W), got {tuple(images.shape)}."
            )
        if images.ndim == 5:
            if scene_lengths is not None:
                raise ValueError(
                    f"scene_lengths={scene_lengths} came with images of shape {tuple(images.shape)}, which says the "
                    "scenes itself. Pass one of them: a list of views goes with scene_lengths."
                )
            scene_lengths = [images.shape[1]] * len(images)
        images = images.reshape(-1, *images.shape[-3:]).unbind(0)
    images = list(images)
    for index, view in enumerate(images):
        if not isinstance(view, torch.Tensor):
            raise TypeError(f"View {index} is a {type(view).__name__}, expected a torch.Tensor of shape (3, H, W).")
        if view.ndim != 3 or len(view) != 3 or 0 in view.shape:
            raise ValueError(f"View {index} has shape {tuple(view.shape)}, expected (3, H, W).")
        if not view.is_floating_point():
            raise ValueError(f"View {index} has dtype {view.dtype}, expected floats in 0..1: divide bytes by 255.")
    if scene_lengths is None:
        scene_lengths = [len(images)]
    scene_lengths = [int(length) for length in scene_lengths]
    if sum(scene_lengths) != len(images) or min(scene_lengths, default=0) < 1:
        raise ValueError(f"scene_lengths={scene_lengths} must be positive and sum to the {len(images)} views given.")
    return images, scene_lengths


def find_official_weights(folder: str | Path):
    """Name of the one file in a folder that holds VGGT's weights, if none has the name that transformers expects."""
    folder = Path(folder)
    if not folder.is_dir() or any(folder.glob("model*.safetensors*")) or any(folder.glob("pytorch_model*.bin*")):
        return None
    names = []
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:  # a safetensors file begins with the length of its JSON header, and the header
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        if "aggregator.camera_token" in header:
            names.append(path.name)
    return names[0] if len(names) == 1 else None


class GapMllmVggtPreTrainedModel(PublishedModel, WholeModel, PreTrainedModel):
    """What the aggregator and the reconstruction model share: configuration, kernels, initialisation."""

    config: GapMllmVggtConfig
    config_class = GapMllmVggtConfig
    base_model_prefix = "aggregator"
    main_input_name = "images"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["GapMllmVggtModel", "GapMllmVggtBlock"]  # as a part it stays whole
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *args, config: GapMllmVggtConfig | None = None, **kwargs
    ):
        """As `PreTrainedModel.from_pretrained`; a local folder's weights file may have any name."""
        name = find_official_weights(pretrained_model_name_or_path)
        if name is None or kwargs.get("state_dict") is not None:
            return super().from_pretrained(pretrained_model_name_or_path, *args, config=config, **kwargs)
        if config is None:
            config, kwargs = cls.config_class.from_pretrained(
                pretrained_model_name_or_path, return_unused_kwargs=True, **kwargs
            )
        config.transformers_weights = name
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, config=config, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        del model.config.transformers_weights  # what is saved from here has the usual name
        return loaded

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, GapMllmVggtLayerScale):
            init.constant_(module.gamma, module.init_value)
        elif isinstance(module, GapMllmVggtPatchEmbed):
            init.trunc_normal_(module.pos_embed, std=0.02)
            init.normal_(module.cls_token, std=self.config.special_token_std)
            init.normal_(module.register_tokens, std=self.config.special_token_std)
            init.zeros_(module.mask_token)
        elif isinstance(module, GapMllmVggtModel):
            init.normal_(module.camera_token, std=self.config.special_token_std)
            init.normal_(module.register_token, std=self.config.special_token_std)


class GapMllmVggtModel(GapMllmVggtPreTrainedModel):
    """VGGT's aggregator: tapped features of the views of several scenes.

    Frame attention runs within each view, global attention over all tokens of a scene. VGGT has no view index: views
    are told apart by content, and the first view of a scene by its own camera and register tokens, which makes it the
    reference frame. Source: VGGT (CVPR 2025), section 3.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm import GapMllmVggtForReconstruction
        >>> encoder = GapMllmVggtForReconstruction.from_pretrained(encoder_folder).aggregator
        >>> output = encoder([torch.rand(3, 56, 84), torch.rand(3, 84, 56)], scene_lengths=[2])  # a scene of two views
        >>> len(output.tap_features), output.tap_features[0].shape  # patches of both views, width
        (4, torch.Size([48, 224]))

        ```
    """

    _patch_embed_class = GapMllmVggtPatchEmbed
    # Heads of a full checkpoint, and the tracker that no class of ours builds.
    _keys_to_ignore_on_load_unexpected = [r"^camera_head\.", r"^depth_head\.", r"^point_head\.", r"^track_head\."]

    def __init__(self, config: GapMllmVggtConfig):
        super().__init__(config)
        size = config.hidden_size
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, size))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.num_register_tokens, size))
        self.patch_embed = self._patch_embed_class(config)
        self.frame_blocks = nn.ModuleList(self._block(config) for _ in range(config.num_hidden_layers))
        self.global_blocks = nn.ModuleList(self._block(config) for _ in range(config.num_hidden_layers))
        self.gradient_checkpointing = False
        self.post_init()

    @staticmethod
    def _block(config):
        return GapMllmVggtBlock(
            config,
            config.hidden_size,
            config.num_attention_heads,
            config.mlp_ratio,
            config.layer_norm_eps,
            config.layer_scale_init_value,
            config.use_qk_norm,
        )

    @property
    def patch_start_index(self):
        """Special tokens that stand before a view's patches: the camera token and the registers."""
        return 1 + self.config.num_register_tokens

    def forward(self, images: torch.Tensor | list[torch.Tensor], scene_lengths: list[int] | None = None, **kwargs):
        """Encode scenes of views.

        Args:
            images (`torch.Tensor` of shape `(B, V, 3, H, W)` or `(V, 3, H, W)`, or `list[torch.Tensor]` of
                `(3, H, W)`): RGB in 0..1, not normalised; H and W multiples of the patch size. The list form
                allows views of unlike sizes.
            scene_lengths (`list[int]`, *optional*): views of each scene, in order, for the list form.
        Returns:
            `GapMllmGeometryOutput`
        Raises:
            TypeError: if the images are no tensors.
            ValueError: on a shape, size or dtype that does not fit, or scene lengths that do not sum to the views.
        """
        views, scene_lengths = as_views(images, scene_lengths)
        return self._attend(*self._embed(views, scene_lengths), scene_lengths)

    def _attend(self, tokens, grid, scene_lengths):
        """What the layers make of the tokens (T, C) of all views."""
        frames, scenes = self._plan(grid, scene_lengths, tokens.device)
        view_lengths = [height * width + self.patch_start_index for height, width in grid]
        patches = self._patch_index(view_lengths, tokens.device)

        tapped = {}
        wanted = set(self.config.tap_layers)
        camera_tokens = None
        last = self.config.num_hidden_layers - 1
        for layer, (frame_block, global_block) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            frame_tokens = frames.apply(frame_block, tokens)
            tokens = scenes.apply(global_block, frame_tokens)
            if layer in wanted:
                tapped[layer] = torch.cat([frame_tokens[patches], tokens[patches]], dim=-1)
            if layer == last:
                starts = torch.tensor([0, *view_lengths[:-1]], device=tokens.device).cumsum(0)
                camera_tokens = torch.cat([frame_tokens[starts], tokens[starts]], dim=-1)
        return GapMllmGeometryOutput(
            tap_features=tuple(tapped[layer] for layer in self.config.tap_layers),
            camera_tokens=camera_tokens,
            grid=grid,
            scene_lengths=scene_lengths,
        )

    def _embed(self, views, scene_lengths):
        """Tokens (T, C) of all views, special ones first within each view; and the patch grid of each view."""
        patch = self.config.patch_size
        for index, view in enumerate(views):
            if view.shape[-2] % patch or view.shape[-1] % patch:
                raise ValueError(
                    f"View {index} is {view.shape[-2]} x {view.shape[-1]} pixels; both must be multiples of the patch "
                    f"size {patch}. Resize it first."
                )
        dtype = self.camera_token.dtype
        is_first = [position == 0 for length in scene_lengths for position in range(length)]
        by_size = {}
        for index, view in enumerate(views):
            by_size.setdefault(tuple(view.shape[-2:]), []).append(index)
        view_tokens = [None] * len(views)
        for indices in by_size.values():
            images = self._normalised(torch.stack([views[i] for i in indices]).float())
            patches = self.patch_embed(images.to(dtype))
            # Special tokens: entry 0 for a scene's first view, entry 1 for every other.
            which = torch.tensor([0 if is_first[i] else 1 for i in indices], device=patches.device)
            special = torch.cat([self.camera_token, self.register_token], dim=2)[0, which]
            for index, tokens in zip(indices, torch.cat([special, patches.to(special.dtype)], dim=1), strict=True):
                view_tokens[index] = tokens
        grid = [(view.shape[-2] // patch, view.shape[-1] // patch) for view in views]
        return torch.cat(view_tokens), grid

    def _normalised(self, images):
        mean, std = (
            torch.tensor(value, device=images.device).view(3, 1, 1)
            for value in (self.config.image_mean, self.config.image_std)
        )
        return (images - mean) / std

    def _plan(self, grid, scene_lengths, device):
        """The sequences of frame attention (views) and of global attention (scenes)."""
        head_size = self.config.hidden_size // self.config.num_attention_heads
        tables = {
            size: rotary_table(
                patch_positions(size, self.patch_start_index, device), head_size, self.config.rope_theta
            )
            for size in set(grid)
        }
        lengths = [height * width + self.patch_start_index for height, width in grid]
        frames = _Sequences(lengths, grid, tables, device)
        scene_kinds, scene_tokens, start = [], [], 0
        for length in scene_lengths:
            scene_kinds.append(tuple(grid[start : start + length]))
            scene_tokens.append(sum(lengths[start : start + length]))
            start += length
        scene_tables = {
            kind: tuple(torch.cat([tables[size][part] for size in kind]) for part in (0, 1))
            for kind in set(scene_kinds)
        }
        return frames, _Sequences(scene_tokens, scene_kinds, scene_tables, device)

    def _patch_index(self, view_lengths, device):
        """Boolean index (T,) of the patches among all tokens."""
        mask = torch.ones(sum(view_lengths), dtype=torch.bool)
        start = 0
        for length in view_lengths:
            mask[start : start + self.patch_start_index] = False
            start += length
        return mask.nonzero()[:, 0].to(device)
