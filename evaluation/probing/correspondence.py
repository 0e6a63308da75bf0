"""How alike a model's visual tokens are that see one spot from several views: the correspondence score of 3DRS.

Source: 3DRS (arXiv:2506.01946), evaluation of 3D awareness. Its relation to task scores is in task_relation.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...training.losses import point_consistency_loss, voxel_ids
from ...training.losses.loss_sum import check_shapes


@dataclass(frozen=True)
class CorrespondenceScore:
    """How alike tokens are that see one voxel; 1 at most, NaN without any pair.

    Args:
        voxel_mean (`float`): mean cosine over the pairs of a voxel, averaged over voxels: the score of 3DRS.
        pair_mean (`float`): mean cosine over all pairs.
        any_pair_mean (`float`): mean cosine of any two tokens, whatever they see, to hold the others against.
        num_voxels (`int`): voxels that have a pair.
        num_pairs (`int`): pairs.
    """

    voxel_mean: float
    pair_mean: float
    any_pair_mean: float
    num_voxels: int
    num_pairs: int


def token_points(
    points: torch.Tensor, grid: tuple[int, int], *, min_valid: float = 0.5, cell_size: int | None = None
) -> torch.Tensor:
    """Mean point that the pixels of each visual token see.

    Frame: that of the points. Units: any.
    Source: 3DRS (arXiv:2506.01946). `Differs:` pixels without depth are left out of the mean, and a token with few
    others has no point; in the release they count with the centre of the camera (pass points there for that). A token
    is the part of the picture that it covers; the release's cells (`cell_size`) drift from that by up to 6 pixels.

    Args:
        points (`torch.Tensor` of shape `(..., H, W, 3)`): points that the pixels see; NaN without depth.
        grid (`tuple[int, int]`): rows and columns of visual tokens.
        min_valid (`float`, defaults to 0.5): least share of pixels with depth; tokens with less have no point.
        cell_size (`int`, *optional*): pixels of a cell along each side, counted from the upper left corner, what is
            left over being cut off: 27 of 384 in the release.
    Returns:
        `torch.Tensor` of shape `(..., rows, columns, 3)`: points; NaN for tokens without.
    Raises:
        ValueError: if the maps have fewer pixels than tokens, or fewer than the cells need.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.evaluation import token_points
        >>> points = torch.arange(8.0).reshape(2, 4, 1).expand(2, 4, 3)
        >>> token_points(points, (1, 2))[..., 0].tolist()
        [[2.5, 4.5]]

        ```
    """
    check_shapes(last=3, points=points)
    (height, width), (rows, columns) = points.shape[-3:-1], grid
    needed = (rows, columns) if cell_size is None else (rows * cell_size, columns * cell_size)
    if height < needed[0] or width < needed[1]:
        raise ValueError(
            f"points have {height} x {width} pixels, too few for {rows} x {columns} tokens: give {needed[0]} x "
            f"{needed[1]} or more."
        )
    if cell_size is not None:
        points, height, width = points[..., : needed[0], : needed[1], :], *needed
    pixels = points.flatten(-3, -2)  # (..., H * W, 3)
    row, column = torch.arange(height) * rows // height, torch.arange(width) * columns // width
    token = (row[:, None] * columns + column).flatten().to(points.device)
    is_known = pixels.isfinite().all(-1)
    total = torch.zeros(*points.shape[:-3], rows * columns, 3, dtype=points.dtype, device=points.device)
    total = total.index_add(-2, token, pixels.where(is_known[..., None], 0))
    known = torch.zeros_like(total[..., 0]).index_add(-1, token, is_known.to(total.dtype))
    mean = (total / known.clamp_min(1)[..., None]).where((known >= min_valid * token.bincount())[..., None], torch.nan)
    return mean.where(known[..., None] > 0, torch.nan).unflatten(-2, (rows, columns))


@torch.no_grad()
def correspondence_score(
    features: torch.Tensor,
    points: torch.Tensor,
    views: torch.Tensor | None = None,
    *,
    voxel_size_m: float = 0.1,
    extent_m: Sequence[Sequence[float]] | None = None,
    cross_view_only: bool = True,
) -> CorrespondenceScore:
    """How alike the tokens of one scene are that see one voxel, by the cosine of their features.

    Frame: one world for all points. Units: metres.
    Source: 3DRS (arXiv:2506.01946), on the last hidden states after their norm. `Differs:` voxels are told apart
    exactly, where the release hashes them in half precision; pairs within one view do not count
    (`cross_view_only=False` for the release); tokens without a point are left out; a scene without pairs has no score
    (NaN), there 0.

    Args:
        features (`torch.Tensor` of shape `(N, C)`): features of the N tokens of a scene; of any length.
        points (`torch.Tensor` of shape `(N, 3)`): point that each token sees, as of `token_points`; NaN for none.
        views (`torch.Tensor` of shape `(N,)`, integers, *optional*): view of each token; needed for `cross_view_only`.
        voxel_size_m (`float`, defaults to 0.1): side of a voxel in metres.
        extent_m (two corners of 3 `float`, *optional*): bounds in metres, as in `voxel_indices`; `VOXEL_EXTENT_M` of
            `gap_mllm.training.losses` is the release's.
        cross_view_only (`bool`, defaults to True): whether tokens of one view make no pair.
    Returns:
        `CorrespondenceScore`.
    Raises:
        ValueError: if shapes do not fit, or `views` is missing for `cross_view_only`.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.evaluation import correspondence_score
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> points = torch.tensor([[0.0, 0.0, 2.0], [0.02, 0.0, 2.0], [1.0, 0.0, 2.0]])
        >>> score = correspondence_score(features, points, torch.tensor([0, 1, 1]))
        >>> round(score.voxel_mean, 4), score.num_pairs
        (0.7071, 1)

        ```
    """
    if cross_view_only and views is None:
        raise ValueError("views are missing: give the view of each token, or cross_view_only=False.")
    check_shapes(features=features[:, 0], points=points[:, 0])
    ids = voxel_ids(points, voxel_size_m=voxel_size_m, extent_m=extent_m)
    features, views = features.double(), views if cross_view_only else None
    everywhere = torch.where(ids < 0, ids, 0)  # one voxel for all
    voxels, pairs, any_pairs = (
        point_consistency_loss(features, of, views, mean_of_points=by_voxel)
        for of, by_voxel in ((ids, True), (ids, False), (everywhere, False))
    )
    means = (1 - float(found.mean) if found.count > 0 else float("nan") for found in (voxels, pairs, any_pairs))
    return CorrespondenceScore(*means, int(voxels.count), int(pairs.count))
