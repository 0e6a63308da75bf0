"""Surface normals from point maps or depth, and their angular loss.

Frame: camera of each view, OpenCV axes (+x right, +y down, +z forward); normals have length 1 and face the camera.
"""

import torch

from ...processing.camera_geometry_gap_mllm import unproject_depth
from ...vggt_heads_gap_mllm import NEIGHBOUR_STEPS, shift_map, surface_normals
from .loss_sum import LossSum, check_shapes, in_full_precision, only_valid, sum_over_places, unit, valid_mask


@in_full_precision
def normals_from_points(
    points: torch.Tensor, valid: torch.Tensor | None = None, *, max_jump: float | None = 0.05
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normals of point maps in the camera of their view, by central differences.

    A normal is valid where the pixel and its four neighbours are, and the distance along the optical axis jumps to
    none of these by more than `max_jump` of it: an edge has no normal.
    Frame: camera of the view, OpenCV axes; the points must be in it, not in that of another view. Units: any.
    Source: our choice; the usual cross product of tangents.

    Args:
        points (`torch.Tensor` of shape `(..., H, W, 3)`): points that the pixels see.
        valid (`torch.Tensor` of shape `(..., H, W)`, bool, *optional*): pixels that count, by default finite ones.
        max_jump (`float`, *optional*, defaults to 0.05): largest jump, as a share of z; None for any.
    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: normals `(..., H, W, 3)`, 0 where not valid, and validity `(..., H, W)`.
    Raises:
        ValueError: if shapes do not fit. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import normals_from_points
        >>> x, y = torch.meshgrid(torch.arange(4.0), torch.arange(3.0), indexing="xy")
        >>> normals, valid = normals_from_points(torch.stack([x, y, torch.full_like(x, 5.0)], -1))  # a wall ahead
        >>> normals[1, 1].tolist(), int(valid.sum())
        ([0.0, 0.0, -1.0], 2)

        ```
    """
    check_shapes(last=3, points=points)
    valid = valid_mask(valid, points.isfinite().all(-1))
    return surface_normals(points, valid, max_jump)


@in_full_precision
def quadrant_normals(points: torch.Tensor, valid: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Four normals of each pixel of point maps: by its neighbours up and left, left and down, and so on around.

    Each is valid where these three are, also at an edge of depth, where central differences have none.
    Frame: camera of the view, OpenCV axes. Units: any.
    Source: VGGT (arXiv:2503.11651), gradient loss of points; VG-LLM takes the mean over every first, second and fourth
    pixel.

    Args:
        points (`torch.Tensor` of shape `(..., H, W, 3)`): points that the pixels see.
        valid (`torch.Tensor` of shape `(..., H, W)`, bool, *optional*): pixels that count, by default finite ones.
    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: normals `(4, ..., H, W, 3)`, 0 where not valid, and validity.
    Raises:
        ValueError: if shapes do not fit. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import quadrant_normals
        >>> x, y = torch.meshgrid(torch.arange(4.0), torch.arange(3.0), indexing="xy")
        >>> normals, valid = quadrant_normals(torch.stack([x, y, torch.full_like(x, 5.0)], -1))
        >>> normals[:, 1, 1].tolist() == [[0.0, 0.0, -1.0]] * 4, int(valid.sum())
        (True, 24)

        ```
    """
    check_shapes(last=3, points=points)
    valid = valid_mask(valid, points.isfinite().all(-1))
    points = only_valid(points, valid)
    steps = [NEIGHBOUR_STEPS[index] for index in (0, 2, 1, 3)]
    sides = [shift_map(points, *step) - points for step in steps]
    good = [shift_map(valid[..., None], *step)[..., 0] & valid for step in steps]
    normals = torch.stack([torch.linalg.cross(sides[index - 1], sides[index]) for index in (1, 2, 3, 0)])
    is_good = torch.stack([good[index - 1] & good[index] for index in (1, 2, 3, 0)])
    return unit(only_valid(normals, is_good)), is_good


@in_full_precision
def normals_from_depth(
    depth: torch.Tensor,
    intrinsics: torch.Tensor,
    valid: torch.Tensor | None = None,
    *,
    max_jump: float | None = 0.05,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normals of depth maps, see `normals_from_points`. A factor on all depth changes nothing.

    Frame: camera of the view, OpenCV axes. Units: any; pixels with integer centres.

    Args:
        depth (`torch.Tensor` of shape `(*batch, H, W)`): z-depth; 0, negative or not finite marks no measurement.
        intrinsics (`torch.Tensor` of shape `(*batch, 3, 3)`): intrinsics in pixels of the depth maps.
        valid (`torch.Tensor` of shape `(*batch, H, W)`, bool, *optional*): pixels that count, by default those
            that are measured.
        max_jump (`float`, *optional*, defaults to 0.05): largest jump of depth to a neighbour, as a share of it.
    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: normals `(*batch, H, W, 3)`, 0 where not valid, and validity.
    Raises:
        ValueError: if shapes do not fit. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import normals_from_depth
        >>> intrinsics = torch.tensor([[100.0, 0.0, 9.5], [0.0, 100.0, 7.5], [0.0, 0.0, 1.0]])
        >>> normals, valid = normals_from_depth(torch.full((16, 20), 2.0), intrinsics)
        >>> normals[8, 10].round().tolist(), int(valid.sum())
        ([0.0, 0.0, -1.0], 252)

        ```
    """
    valid = valid_mask(valid, depth.isfinite() & (depth > 0))
    return normals_from_points(unproject_depth(only_valid(depth, valid, 1.0), intrinsics), valid, max_jump=max_jump)


@in_full_precision
def normal_loss(
    prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor | None = None, *, angle: bool = False
) -> LossSum:
    """1 - cosine between normals, or the angle between them in radians. Items: valid pixels.

    The angle is atan2(|n x n*|, n . n*), whose gradient is finite everywhere; that of the arc cosine is not.
    Frame: camera of the view for both. Source: cosine, Eigen and Fergus (ICCV 2015); angle, Bae et al. (ICCV 2021).

    Args:
        prediction (`torch.Tensor` of shape `(..., 3)`): normals of any length.
        target (`torch.Tensor` of shape `(..., 3)`): normals of any length.
        valid (`torch.Tensor` of shape `(...)`, bool, *optional*): pixels that count, by default those whose target is
            finite and not 0.
        angle (`bool`, defaults to False): whether the loss is the angle.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes differ. TypeError: if `valid` is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import normal_loss
        >>> right, ahead = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, -1.0]])
        >>> float(normal_loss(right, ahead).mean)
        1.0
        >>> round(float(normal_loss(right, ahead, angle=True).mean), 4)
        1.5708

        ```
    """
    check_shapes(prediction=prediction, target=target)
    check_shapes(last=3, prediction=prediction)
    valid = valid_mask(valid, target.isfinite().all(-1) & (target != 0).any(-1))
    prediction, target = unit(only_valid(prediction, valid)), unit(only_valid(target, valid))
    cosine = (prediction * target).sum(-1)
    losses = torch.atan2(torch.linalg.cross(prediction, target).norm(dim=-1), cosine) if angle else 1 - cosine
    return sum_over_places(losses, valid)
