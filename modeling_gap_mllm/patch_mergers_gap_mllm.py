"""Mergers: the geometry of each window of patches becomes one token of the language model's width."""

from itertools import accumulate, groupby

import torch
import torch.nn.functional as F
from torch import nn

from .compatibility_gap_mllm import needed_from_transformers
from .configuration_gap_mllm import GapMllmFusionConfig


with needed_from_transformers():
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRMSNorm


class GapMllmPatchMerger(nn.Module):
    """Merge each 2x2 window of geometry patches into one token of the language model's width.

    "mlp": norm, the window concatenated row by row, MLP. "avg": the window averaged, MLP.
    """

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__()
        self.merge_size = config.spatial_merge_size
        self.merger_type = config.merger_type
        self.video_frames = config.video_frames
        width = config.geometry_hidden_size
        if self.merger_type == "mlp":
            norm_class = {"rms_norm": Qwen3VLTextRMSNorm, "layer_norm": nn.LayerNorm}[config.merger_norm]
            self.norm = norm_class(width, eps=config.merger_norm_eps)
            width *= self.merge_size**2
        self.linear_fc1 = nn.Linear(width, config.merger_hidden_size)
        self.linear_fc2 = nn.Linear(config.merger_hidden_size, config.hidden_size)

    def forward(
        self, patches: torch.Tensor, sizes: list[tuple[int, int]], views_per_slice: list[int] | None = None
    ) -> torch.Tensor:
        """Merge `patches` `(P, C)` of views with `sizes` (h, w) in patches; returns `(N, D)`, N tokens of all slices.

        The views of a slice (the two frames of a temporal patch) become one map; each is a slice by default.
        """
        if self.merger_type == "mlp":
            patches = self.norm(patches)
        windows = patch_windows(patches, sizes, self.merge_size)  # [N, m * m, C]
        windows = windows.flatten(1) if self.merger_type == "mlp" else windows.mean(dim=1)
        tokens = self.linear_fc2(F.gelu(self.linear_fc1(windows)))
        if views_per_slice is None or all(count == 1 for count in views_per_slice):
            return tokens
        return merge_views(tokens, [h * w // self.merge_size**2 for h, w in sizes], views_per_slice, self.video_frames)


class GapMllmViewTokens(nn.Module):
    """No merger: the camera token and the patches of each view as they come, for methods that attend to them.

    The views of a slice become one, as in `GapMllmPatchMerger`.
    """

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__()
        self.camera_tokens, self.video_frames = config.camera_tokens, config.video_frames

    def forward(
        self, patches: torch.Tensor, sizes: list[tuple[int, int]], views_per_slice: list[int] | None = None
    ) -> torch.Tensor:
        """`patches` `(P, C)`, for each view its camera token and then its patches; returns those of all slices."""
        if views_per_slice is None or all(count == 1 for count in views_per_slice):
            return patches
        lengths = [h * w + self.camera_tokens for h, w in sizes]
        return merge_views(patches, lengths, views_per_slice, self.video_frames)


class GapMllmSpatialMllmMerger(nn.Module):
    """Spatial-MLLM's connector: windows of 2x2 patches of two frames, concatenated, normalised, and an MLP.

    The channels of a window run by row, column, channel and frame, the frame fastest. An image, and the last frame of
    an odd video, is both of its frames. `norm.weight`, `linear_fc1` and `linear_fc2` are `ln_q.weight`, `mlp.0` and
    `mlp.2` of the release. Source: Spatial-MLLM v1.1, `mlp_add` (arXiv:2505.23747); v1.0 orders channels otherwise.
    """

    def __init__(self, config: GapMllmFusionConfig):
        super().__init__()
        self.merge_size = config.spatial_merge_size
        width = config.geometry_hidden_size * self.merge_size**2 * 2
        self.norm = Qwen3VLTextRMSNorm(width, eps=config.merger_norm_eps)
        self.linear_fc1 = nn.Linear(width, width)
        self.linear_fc2 = nn.Linear(width, config.hidden_size)

    def forward(
        self, patches: torch.Tensor, sizes: list[tuple[int, int]], views_per_slice: list[int] | None = None
    ) -> torch.Tensor:
        """As `GapMllmPatchMerger.forward`; raises ValueError where a slice has more than two views."""
        counts = [1] * len(sizes) if views_per_slice is None else views_per_slice
        if max(counts) > 2:
            raise ValueError(f"views_per_slice={counts}, but the connector of Spatial-MLLM takes one or two frames.")
        views = patches.split([h * w for h, w in sizes])
        first = list(accumulate(counts[:-1], initial=0))
        last = [start + count - 1 for start, count in zip(first, counts, strict=True)]
        slice_sizes = [sizes[view] for view in first]
        frames = [
            patch_windows(torch.cat([views[view] for view in frame]), slice_sizes, self.merge_size)
            for frame in (first, last)
        ]
        windows = torch.stack(frames, dim=-1).flatten(1)  # [N, m * m * C * 2]
        return self.linear_fc2(F.gelu(self.linear_fc1(self.norm(windows))))


def merge_views(
    tokens: torch.Tensor, lengths: list[int], views_per_slice: list[int], video_frames: str
) -> torch.Tensor:
    """Make one map of the views of each slice (the two frames of a temporal patch).

    Args:
        tokens (`torch.Tensor` of shape `(N, C)`): tokens of all views.
        lengths (`list[int]`): tokens of each view, the same for all of a slice.
        views_per_slice (`list[int]`): views of each slice.
        video_frames (`str`): "mean" or "first".
    Returns:
        `torch.Tensor` of shape `(N', C)`: tokens of all slices.
    """
    starts = accumulate(views_per_slice[:-1], initial=0)
    keys = [(lengths[start], count) for start, count in zip(starts, views_per_slice, strict=True)]
    runs = [(key, len(list(run))) for key, run in groupby(keys)]
    merged = []
    parts = tokens.split([slices * count * length for (length, count), slices in runs])
    for ((length, count), slices), part in zip(runs, parts, strict=True):
        part = part.view(slices, count, length, -1)
        part = part.mean(dim=1) if video_frames == "mean" and count > 1 else part[:, 0]
        merged.append(part.flatten(0, 1))
    return torch.cat(merged)


def patch_windows(patches: torch.Tensor, sizes: list[tuple[int, int]], merge_size: int) -> torch.Tensor:
    """Bring the patches of each window together, windows and their patches both row-major.

    Args:
        patches (`torch.Tensor` of shape `(P, C)`): patches of all views, row-major within each.
        sizes (`list[tuple[int, int]]`): height and width of each view in patches.
        merge_size (`int`): side of a window in patches.
    Returns:
        `torch.Tensor` of shape `(P / merge_size**2, merge_size**2, C)`.
    """
    m = merge_size
    runs = [(size, len(list(run))) for size, run in groupby(sizes)]  # neighbouring views of one size go together
    windows = []
    for part, ((h, w), views) in zip(patches.split([h * w * views for (h, w), views in runs]), runs, strict=True):
        part = part.view(views, h // m, m, w // m, m, -1).transpose(2, 3)  # [V, h/m, w/m, m, m, C]
        windows.append(part.reshape(views * (h // m) * (w // m), m * m, -1))
    return windows[0] if len(windows) == 1 else torch.cat(windows)


__all__ = ["GapMllmPatchMerger", "GapMllmSpatialMllmMerger", "GapMllmViewTokens"]
