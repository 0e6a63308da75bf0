"""Mergers: the geometry of each window of patches becomes one token of the language model's width.

Also positions of visual tokens in space, from the points that pixels see to sines and cosines, as in Video-3D-LLM.
"""

from itertools import accumulate, groupby

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_gap_mllm import GapMllmFusionConfig
from .publishing_gap_mllm import needed_from_transformers


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


# Half of the space that has voxels, along x, y and z. Source: Video-3D-LLM, 15 m to all sides and 5 m up and down; the
# vertical is y here.
POSITION_LIMITS = (15.0, 5.0, 15.0)
BASE = 10000.0
FAR = 1e4  # far beyond them, and small enough for sums in half precision
NUM_TERMS = 3  # numbers of half precision whose sum is one of float32
POSITION_CHANNELS = 3 * NUM_TERMS + 1


def merge_points(
    known: list[torch.Tensor | None], told: list[torch.Tensor] | None, scene_lengths: list[int]
) -> list[torch.Tensor | None]:
    """Points that are known, and for other views those that an encoder tells, at the scale of what is known.

    Frame: that of both. Units: those of the known ones, where there are any in a scene.

    Args:
        known (`list[torch.Tensor]` of shape `(H, W, 3)`): points of each view, NaN where unknown; None for a view of
            which none are.
        told (`list[torch.Tensor]` of shape `(H, W, 3)`, *optional*): points of each view by the encoder.
        scene_lengths (`list[int]`): views of each scene.
    Returns:
        `list[torch.Tensor]`, an entry of each view.
    """
    if told is None:
        return known
    merged, start = [], 0
    for length in scene_lengths:
        pairs = list(zip(known[start : start + length], told[start : start + length], strict=True))
        ratios = [(points.norm(dim=-1) / own.norm(dim=-1)).flatten() for points, own in pairs if points is not None]
        ratios = torch.cat([each[each.isfinite()] for each in ratios]) if ratios else torch.zeros(0)
        factor = ratios.median() if len(ratios) else 1.0
        merged += [own * factor if points is None else points for points, own in pairs]
        start += length
    return merged


def position_features(
    points: list[torch.Tensor | None], grid: list[tuple[int, int]], width: int, camera_tokens: int = 0
) -> torch.Tensor:
    """Mean point of each patch, in the form of a level of `geometry_features`.

    Each coordinate stands there as a sum of three numbers, so that half precision loses nothing of it.

    Args:
        points (`list[torch.Tensor]` of shape `(H, W, 3)`): points that the pixels of each view see, NaN where unknown;
            None for a view of which none are.
        grid (`list[tuple[int, int]]`): rows and columns of each view in patches.
        width (`int`): channels of the level.
        camera_tokens (`int`, defaults to 0): rows of each view before those of its patches, left 0.
    Returns:
        `torch.Tensor` of shape `(P, width)`, float32: terms of x, y and z, and the number of pixels behind them.
    """
    rows = []
    for view, (height, columns) in zip(points, grid, strict=True):
        level = torch.zeros(camera_tokens + height * columns, width)
        if view is not None:
            level = level.to(view.device)
            cells = view.detach().float().unflatten(0, (height, -1)).unflatten(2, (columns, -1))  # h, y, w, x, 3
            cells = cells.permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(1, 2)  # patches, pixels, 3
            is_known = cells.isfinite().all(-1, keepdim=True)
            count = is_known.sum(1)
            rest = torch.where(is_known, cells.clamp(-FAR, FAR), 0.0).sum(1) / count.clamp_min(1)
            for term in range(NUM_TERMS):
                part = rest.bfloat16().float()
                level[camera_tokens:, 3 * term : 3 * term + 3] = part
                rest = rest - part
            level[camera_tokens:, 3 * NUM_TERMS] = count[:, 0]
        rows.append(level)
    device = next((level.device for level, view in zip(rows, points, strict=True) if view is not None), "cpu")
    return torch.cat([level.to(device) for level in rows])


def token_positions(
    level: torch.Tensor,
    sizes: list[tuple[int, int]],
    views_per_slice: list[int],
    merge_size: int,
    video_frames: str = "mean",
    camera_tokens: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean point of each visual token, over all its pixels of which one is known.

    Args:
        level (`torch.Tensor` of shape `(P, C)`): what `position_features` gives, in any dtype.
        sizes (`list[tuple[int, int]]`): height and width of each view in patches.
        views_per_slice (`list[int]`): views behind each slice.
        merge_size (`int`): patches of a token along each side.
        video_frames (`str`, defaults to "mean"): "mean" or "first" of the views of a slice.
        camera_tokens (`int`, defaults to 0): rows of each view before its patches.
    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: points `(N, 3)` in float32, 0 where unknown, and which are known `(N,)`.
    """
    level = level[:, :POSITION_CHANNELS].float()
    if camera_tokens:
        parts = level.split([height * width + camera_tokens for height, width in sizes])
        level = torch.cat([part[camera_tokens:] for part in parts])
    points, count = level[:, : 3 * NUM_TERMS].unflatten(1, (NUM_TERMS, 3)).flip(1).sum(1), level[:, 3 * NUM_TERMS :]
    sums = patch_windows(torch.cat([points * count, count], dim=1), sizes, merge_size).sum(1)
    sums = merge_views(sums, [h * w // merge_size**2 for h, w in sizes], views_per_slice, video_frames)
    is_known = sums[:, 3] > 0
    return sums[:, :3] / torch.where(is_known, sums[:, 3], 1.0)[:, None], is_known


def position_encoding(points: torch.Tensor, size: int, voxel_size: float = 0.1) -> torch.Tensor:
    """Sines and cosines of the voxels of points, the same number of channels for each axis and the rest 0.

    Points outside of `POSITION_LIMITS` count as on the border. Source: Video-3D-LLM (arXiv:2412.00493). `Differs:` its
    world is the scan's, with z up; here it is the first view's camera, as for answers.

    Args:
        points (`torch.Tensor` of shape `(N, 3)`): points, finite.
        size (`int`): channels of the encoding.
        voxel_size (`float`, defaults to 0.1): side of a voxel.
    Returns:
        `torch.Tensor` of shape `(N, size)`, float32: x, y and z one after the other; of each the sine at even channels
        and the cosine at odd ones.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.patch_mergers_gap_mllm import position_encoding
        >>> corner = position_encoding(torch.tensor([[-15.0, -5.0, -15.0]]), 14)
        >>> corner[0].tolist()  # 3 axes of 4 channels, and 2 that stay 0
        [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]

        ```
    """
    limits = torch.tensor(POSITION_LIMITS, device=points.device)
    voxels = ((points.float().clamp(-limits, limits) + limits) / voxel_size).round()
    channels = torch.arange(size // 3, device=points.device)
    angles = voxels[..., None] * BASE ** -(2 * (channels // 2) / (size // 3))  # (N, 3, size // 3)
    encoding = torch.where(channels % 2 == 0, angles.sin(), angles.cos()).flatten(1)
    return F.pad(encoding, (0, size - encoding.shape[1]))
