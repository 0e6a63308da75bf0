"""Points and surface normals of depth maps, for geometry encoders and for losses.

Frame: camera of each view, OpenCV axes (+x right, +y down, +z forward). Pixels have integer centres. The processing
package unprojects too, for numpy as well; remote code of the model cannot import from there.
"""

import torch
from torch.nn import functional as F


NEIGHBOUR_STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right: rows and columns


def camera_points(depth: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
    """Return the point that each pixel of a depth map sees.

    Frame: camera of the view, OpenCV axes. Units: those of the depth; pixels with integer centres.

    Args:
        depth (`torch.Tensor` of shape `(*batch, H, W)`): z-depth; 0, negative or not finite marks no measurement.
        intrinsics (`torch.Tensor` of shape `(*batch, 3, 3)`): intrinsics in pixels of the map.
    Returns:
        `torch.Tensor` of shape `(*batch, H, W, 3)`: points; pixels without measurement are NaN.
    """
    k = intrinsics.to(depth.dtype)[..., None, None]
    height, width = depth.shape[-2:]
    u = torch.arange(width, dtype=depth.dtype, device=depth.device)
    v = torch.arange(height, dtype=depth.dtype, device=depth.device)[:, None]
    y = (v - k[..., 1, 2, :, :]) / k[..., 1, 1, :, :]
    x = (u - k[..., 0, 2, :, :] - k[..., 0, 1, :, :] * y) / k[..., 0, 0, :, :]
    z = torch.where(depth.isfinite() & (depth > 0), depth, torch.nan)
    return torch.stack([x * z, y * z, z], -1)


def surface_normals(
    points: torch.Tensor, valid: torch.Tensor, max_jump: float | None = 0.05
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normals of point maps, by central differences; they have length 1 and face the camera.

    Frame: camera of the view, OpenCV axes. Units: any.

    Args:
        points (`torch.Tensor` of shape `(..., H, W, 3)`): points that the pixels see.
        valid (`torch.Tensor` of shape `(..., H, W)`, bool): pixels that count.
        max_jump (`float`, *optional*, defaults to 0.05): largest jump of z to a neighbour, as a share of it; beyond
            it is an edge, which has no normal. None for any.
    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: normals `(..., H, W, 3)`, 0 where not valid, and validity `(..., H, W)`:
        of pixels that are valid together with their four neighbours.
    """
    points = torch.where(valid[..., None], points, 0.0)
    up, down, left, right = (shift_map(points, *step) for step in NEIGHBOUR_STEPS)
    is_good = valid.clone()
    z = points[..., 2].detach()
    for step in NEIGHBOUR_STEPS:
        is_good &= shift_map(valid[..., None], *step)[..., 0]
        if max_jump is not None:
            is_good &= (shift_map(z[..., None], *step)[..., 0] - z).abs() <= max_jump * z.abs()
    normals = torch.where(is_good[..., None], torch.linalg.cross(down - up, right - left), 0.0)
    normals = F.normalize(normals, dim=-1, eps=1e-12)
    is_away = (normals * points).sum(-1, keepdim=True) > 0
    return torch.where(is_away, -normals, normals), is_good


def shift_map(maps: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return what lies so many rows and columns further, `(..., H, W, C)`; 0 beyond the border."""
    moved = torch.zeros_like(maps)
    height, width = maps.shape[-3:-1]
    to = [slice(max(-step, 0), size - max(step, 0)) for step, size in ((rows, height), (columns, width))]
    of = [slice(max(step, 0), size - max(-step, 0)) for step, size in ((rows, height), (columns, width))]
    moved[..., to[0], to[1], :] = maps[..., of[0], of[1], :]
    return moved


def nearest(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A map `(H, W, ...)` at another height and width, each pixel the nearest of the old ones."""
    rows, columns = (
        ((torch.arange(new, device=values.device) + 0.5) * old / new).long()
        for new, old in zip(size, values.shape[:2], strict=True)
    )
    return values[rows[:, None], columns]


__all__ = ["NEIGHBOUR_STEPS", "camera_points", "nearest", "shift_map", "surface_normals"]
