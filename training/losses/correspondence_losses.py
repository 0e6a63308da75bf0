"""Losses over views that see one 3D point: contrast of its features against those of others, and their consistency.

Which places are one point is told by ids, as `voxel_ids` gives them for points in the world. Only places of the same
scene are compared, so that no split of a batch changes the loss.
"""

from collections.abc import Sequence

import torch

from .loss_sum import (
    LossSum,
    check_shapes,
    check_temperature,
    in_full_precision,
    only_valid,
    same_scene,
    sum_over_places,
    unit,
)


VOXEL_EXTENT_M = ((-15.0, -15.0, -5.0), (15.0, 15.0, 5.0))  # lower and upper corner, of 3DRS's release


@torch.no_grad()
def voxel_indices(
    points: torch.Tensor, voxel_size_m: float = 0.1, extent_m: Sequence[Sequence[float]] | None = None
) -> torch.Tensor:
    """Index of the voxel in which each point lies, along each axis: `point / voxel_size_m`, halves to even numbers.

    Frame: that of the points. Units: metres. Source: 3DRS (arXiv:2506.01946).

    Args:
        points (`torch.Tensor` of shape `(..., 3)`): finite points.
        voxel_size_m (`float`, defaults to 0.1): side of a voxel in metres.
        extent_m (two corners of 3 `float`, *optional*): box in metres that points beyond are moved onto, and whose
            lower corner indices are counted from; `VOXEL_EXTENT_M` is that of the release. None is no bound.
    Returns:
        `torch.Tensor` of shape `(..., 3)`, int64.
    Raises:
        ValueError: if the size is not above 0.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import VOXEL_EXTENT_M, voxel_indices
        >>> points = torch.tensor([[1.0, 0.0, 20.0]])
        >>> voxel_indices(points).tolist(), voxel_indices(points, extent_m=VOXEL_EXTENT_M).tolist()
        ([[10, 0, 200]], [[160, 150, 100]])

        ```
    """
    if not voxel_size_m > 0:
        raise ValueError(f"voxel_size_m is {voxel_size_m}; expected a length above 0 in metres.")
    if extent_m is not None:
        low, high = (points.new_tensor(corner) for corner in extent_m)
        points = points.clamp(low, high) - low
    return (points / voxel_size_m).round().to(torch.int64)


@torch.no_grad()
def voxel_ids(
    points: torch.Tensor,
    scenes: torch.Tensor | None = None,
    *,
    voxel_size_m: float = 0.1,
    extent_m: Sequence[Sequence[float]] | None = None,
) -> torch.Tensor:
    """Number of the voxel in which each point lies; places with one number see the same spot.

    Frame: one world for all points of a scene. Units: metres.
    Source: 3DRS (arXiv:2506.01946), 0.1 m. `Differs:` voxels are compared as int64, for any extent; the release hashes
    them in half precision after a cut at 15 m, which makes one voxel of many.

    Args:
        points (`torch.Tensor` of shape `(N, 3)`): points in the world; NaN where none is known.
        scenes (`torch.Tensor` of shape `(N,)`, *optional*): scene of each point; voxels of two are never the same.
        voxel_size_m (`float`, defaults to 0.1): side of a voxel in metres.
        extent_m (two corners of 3 `float`, *optional*): bounds in metres, as in `voxel_indices`.
    Returns:
        `torch.Tensor` of shape `(N,)`, int64: numbers from 0; -1 for points that are not known.
    Raises:
        ValueError: if shapes do not fit, or the size is not above 0.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import voxel_ids
        >>> voxel_ids(torch.tensor([[1.0, 0.0, 0.0], [1.04, 0.01, 0.0], [0.0, 0.0, 0.0], [torch.nan] * 3])).tolist()
        [1, 1, 0, -1]

        ```
    """
    check_shapes(last=3, points=points)
    scenes = torch.zeros_like(points[:, 0], dtype=torch.int64) if scenes is None else scenes.to(torch.int64)
    check_shapes(scenes=scenes, points=points[:, 0])
    is_known = points.isfinite().all(-1)
    cells = voxel_indices(points[is_known], voxel_size_m, extent_m)
    ids = torch.full_like(scenes, -1)
    if len(cells):
        ids[is_known] = torch.cat([scenes[is_known, None], cells], 1).unique(dim=0, return_inverse=True)[1]
    return ids


@in_full_precision
def point_pixel_contrast_loss(
    first: torch.Tensor,
    second: torch.Tensor,
    scenes: torch.Tensor | None = None,
    *,
    temperature: float = 0.07,
    points: torch.Tensor | None = None,
    exclude_radius_m: float = 0.0,
    symmetric: bool = True,
) -> LossSum:
    """InfoNCE between two views of the same points: each finds its partner among all of its scene.

    Items: pairs. Source: InfoNCE (van den Oord et al. 2018) between a point and the pixels that see it, as in
    PointContrast (ECCV 2020), PPKT and SLidR (CVPR 2022).

    Args:
        first (`torch.Tensor` of shape `(N, C)`): features of N points where one view sees them; of any length.
        second (`torch.Tensor` of shape `(N, C)`): features of the same points in another view, or of the points.
        scenes (`torch.Tensor` of shape `(N,)`, *optional*): scene of each pair, by default one for all.
        temperature (`float`, defaults to 0.07): divisor of the cosines.
        points (`torch.Tensor` of shape `(N, 3)`, *optional*): where the points lie, in metres, in one frame a scene.
        exclude_radius_m (`float`, defaults to 0.0): distance in metres below which another point is not held against
            a pair; needs `points`.
        symmetric (`bool`, defaults to True): whether the mean of both directions is taken, else first to second.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes do not fit, the temperature is not above 0, or a radius comes without points.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import point_pixel_contrast_loss
        >>> features = torch.eye(4)
        >>> loss = point_pixel_contrast_loss(features, features, temperature=1.0)
        >>> round(float(loss.mean), 4), int(loss.count)  # ln(e + 3) - 1
        (0.7437, 4)

        ```
    """
    check_shapes(first=first, second=second)
    check_temperature(temperature)
    if exclude_radius_m and points is None:
        raise ValueError(f"exclude_radius_m is {exclude_radius_m} without points; give where each pair lies.")
    allowed = same_scene(scenes, len(first), first.device)
    if points is not None:
        check_shapes(points=points[:, 0], first=first[:, 0])
        is_self = torch.eye(len(first), dtype=torch.bool, device=first.device)
        allowed = allowed & (is_self | (torch.cdist(points, points) >= exclude_radius_m))
    logits = unit(first) @ unit(second).T / temperature
    losses = [_own_column(logits, allowed)] + ([_own_column(logits.T, allowed.T)] if symmetric else [])
    return LossSum(sum(losses).sum() / len(losses), torch.tensor(len(first), device=first.device))


def _own_column(logits, allowed):
    """Cross-entropy of each row whose answer is the column of its own number, among those that are allowed."""
    return torch.where(allowed, logits, -torch.inf).logsumexp(1) - logits.diagonal()


@in_full_precision
def point_contrast_loss(
    features: torch.Tensor,
    point_ids: torch.Tensor,
    scenes: torch.Tensor | None = None,
    *,
    temperature: float = 0.1,
) -> LossSum:
    """Contrast for points that any number of views see: the other places of a point against those of other points.

    Items: places whose point is seen at another place of the scene, too.
    Source: supervised contrastive loss, L_out (Khosla et al. 2020), with points as classes.

    Args:
        features (`torch.Tensor` of shape `(N, C)`): features of N places; of any length.
        point_ids (`torch.Tensor` of shape `(N,)`, integers): point that each place sees; negative for none.
        scenes (`torch.Tensor` of shape `(N,)`, *optional*): scene of each place, by default one for all.
        temperature (`float`, defaults to 0.1): divisor of the cosines.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes do not fit, or the temperature is not above 0.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import point_contrast_loss
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> loss = point_contrast_loss(features, torch.tensor([5, 5, 8]), temperature=1.0)
        >>> round(float(loss.mean), 4), int(loss.count)  # ln(e + 1) - 1; the third has no partner
        (0.3133, 2)

        ```
    """
    check_shapes(point_ids=point_ids, features=features[:, 0])
    check_temperature(temperature)
    is_other = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    is_other = is_other & same_scene(scenes, len(features), features.device)
    is_known = point_ids >= 0
    positive = is_other & (point_ids[:, None] == point_ids[None, :]) & is_known[:, None]
    features = unit(only_valid(features, is_known))  # before the product, in whose gradient NaN times 0 is NaN
    logits = features @ features.T / temperature
    counted = positive.any(1)
    others = torch.where(is_other & counted[:, None] & is_known[None, :], logits, -torch.inf)
    others = torch.where(counted, torch.where(counted[:, None], others, 0.0).logsumexp(1), 0.0)
    mean = only_valid(logits, positive).sum(1) / positive.sum(1).clamp_min(1)
    return sum_over_places(others - mean, counted)


@in_full_precision
def point_consistency_loss(
    features: torch.Tensor,
    point_ids: torch.Tensor,
    views: torch.Tensor | None = None,
    *,
    normalise: bool = True,
    mean_of_points: bool = False,
) -> LossSum:
    """How far apart the features of one 3D point are in the views that see it.

    For features 1 - cosine, half of the squared distance of the unit vectors (1 for a feature of length 0); with
    `normalise=False` half of the squared distance itself, as for the points that each view predicts (in metres, one
    frame). Over all pairs of places that see one point; memory and time grow with the number of places, not of pairs.
    Items: pairs, or points with a pair. Source: 3DRS (arXiv:2506.01946), correspondence of its evaluation and of a
    loss left in its code. `Differs:` pairs within one view do not count where `views` is given; there they do.

    Args:
        features (`torch.Tensor` of shape `(N, C)`): features, or points, of N places.
        point_ids (`torch.Tensor` of shape `(N,)`, integers): point that each place sees, see `voxel_ids`; negative for
            none. Unique over scenes.
        views (`torch.Tensor` of shape `(N,)`, integers, *optional*): view of each place.
        normalise (`bool`, defaults to True): whether features are scaled to length 1.
        mean_of_points (`bool`, defaults to False): whether an item is a point, and its loss the mean over its pairs.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes do not fit.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import point_consistency_loss
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
        >>> loss = point_consistency_loss(features, torch.tensor([7, 7, 2]), torch.tensor([0, 1, 1]))
        >>> float(loss.mean), int(loss.count)
        (1.0, 1)

        ```
    """
    check_shapes(point_ids=point_ids, features=features[:, 0])
    is_known = point_ids >= 0
    features = features[is_known]
    features = unit(features) if normalise else features
    lacking = (features == 0).all(-1).to(features) if normalise else torch.zeros_like(features[:, 0])
    _, places = point_ids[is_known].unique(return_inverse=True)
    num_points = int(places.max()) + 1 if len(places) else 0
    spread, pairs = _pairs(features, lacking, places, num_points)
    if views is not None:
        check_shapes(views=views, point_ids=point_ids)
        both, groups = torch.stack([places, views[is_known]], 1).unique(dim=0, return_inverse=True)
        same_spread, same_pairs = _pairs(features, lacking, groups, len(both))
        spread = spread - torch.zeros_like(spread).index_add(0, both[:, 0], same_spread)
        pairs = pairs - torch.zeros_like(pairs).index_add(0, both[:, 0], same_pairs)
    if mean_of_points:
        return sum_over_places(spread / pairs.clamp_min(1), pairs > 0)
    return LossSum(only_valid(spread, pairs > 0).sum(), pairs.sum())


def _pairs(features, lacking, groups, num_groups):
    """Half of the summed squared distances of all pairs of each group, `(G,)`, and how many pairs there are.

    A feature of length 0, 1 in `lacking`, counts as of length 1 and a cosine of 0 to all.
    """
    ones = torch.ones_like(features[:, 0])
    count = ones.new_zeros(num_groups).index_add(0, groups, ones)
    mean = features.new_zeros(num_groups, features.shape[1]).index_add(0, groups, features) / count[:, None]
    squared = (features - mean[groups]).square().sum(1) * count[groups] + lacking * (count[groups] - 1)
    spread = ones.new_zeros(num_groups).index_add(0, groups, squared) / 2
    return spread, count * (count - 1) / 2
