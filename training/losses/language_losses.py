"""Losses between regions of a scene and texts: their labels, words for their shape, and relations between them.

A region is what the tokens of one object say together (`pool_regions`); a text comes as one vector of the same width,
as the mean of its token embeddings. Texts are a fixed list, and regions are compared within their scene only, so that
no split of a batch changes the loss.
"""

import torch
from torch.nn import functional as F

from .loss_sum import (
    LossSum,
    check_shapes,
    check_temperature,
    in_full_precision,
    only_valid,
    same_scene,
    sum_over_places,
    unit,
    valid_mask,
)


SHAPE_WORDS = ("box", "cylinder", "sphere")
SPATIAL_RELATIONS = ("left of", "right of", "above", "below", "in front of", "behind")


@in_full_precision
def pool_regions(features: torch.Tensor, region_ids: torch.Tensor, num_regions: int) -> torch.Tensor:
    """Mean of the features of each region.

    Args:
        features (`torch.Tensor` of shape `(N, C)`): features of N tokens.
        region_ids (`torch.Tensor` of shape `(N,)`, int64): region of each token, from 0; negative for none.
        num_regions (`int`): number of regions.
    Returns:
        `torch.Tensor` of shape `(num_regions, C)`; 0 for a region without tokens.
    Raises:
        ValueError: if shapes do not fit.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import pool_regions
        >>> pool_regions(torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([0, 0, -1]), 2).tolist()
        [[2.0], [0.0]]

        ```
    """
    check_shapes(region_ids=region_ids, features=features[:, 0])
    is_in = region_ids >= 0
    features, ids = features[is_in], region_ids[is_in]
    count = features.new_zeros(num_regions).index_add(0, ids, torch.ones_like(features[:, 0]))
    total = features.new_zeros(num_regions, features.shape[1]).index_add(0, ids, features)
    return total / count.clamp_min(1)[:, None]


def _check_widths(features, texts):
    if features.ndim != 2 or texts.ndim != 2 or features.shape[1] != texts.shape[1]:
        raise ValueError(
            f"regions have shape {tuple(features.shape)} and texts {tuple(texts.shape)}; expected (N, C) and (L, C)."
        )


@in_full_precision
def region_text_contrast_loss(
    regions: torch.Tensor,
    texts: torch.Tensor,
    labels: torch.Tensor,
    scenes: torch.Tensor | None = None,
    *,
    temperature: float | torch.Tensor = 0.07,
    symmetric: bool = True,
) -> LossSum:
    """Contrast of regions and texts: each region finds its text among all, and each text its region in the scene.

    Regions of one label are never held against each other. Words of shape (`SHAPE_WORDS`) are a list of texts of
    their own: call it again with them. Items: regions that have a label.
    Source: CLIP (Radford et al. 2021), on objects as in ULIP; that all texts of a list are negatives of every region
    is our choice.

    Args:
        regions (`torch.Tensor` of shape `(R, C)`): features of regions; of any length.
        texts (`torch.Tensor` of shape `(L, C)`): features of the texts; of any length.
        labels (`torch.Tensor` of shape `(R,)`, int64): text of each region; negative for none.
        scenes (`torch.Tensor` of shape `(R,)`, *optional*): scene of each region, by default one for all.
        temperature (`float` or `torch.Tensor`, defaults to 0.07): divisor of the cosines; may be learned.
        symmetric (`bool`, defaults to True): whether the mean of both directions is taken, else regions to texts.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes do not fit, a label is not below the number of texts, or the temperature not above 0.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import region_text_contrast_loss
        >>> loss = region_text_contrast_loss(torch.eye(3), torch.eye(3), torch.tensor([0, 1, -1]), temperature=1.0)
        >>> round(float(loss.mean), 3), int(loss.count)  # (ln(e + 2) - 1 + ln(e + 1) - 1) / 2
        (0.432, 2)

        ```
    """
    _check_widths(regions, texts)
    check_shapes(labels=labels, regions=regions[:, 0])
    check_temperature(temperature)
    if len(labels) and int(labels.max()) >= len(texts):
        raise ValueError(f"labels go up to {int(labels.max())}, but there are {len(texts)} texts.")
    has_label = labels >= 0
    regions, labels = regions[has_label], labels[has_label]
    scenes = None if scenes is None else scenes[has_label]
    logits = unit(regions) @ unit(texts).T / temperature
    losses = F.cross_entropy(logits, labels, reduction="none")
    if symmetric:
        to_regions = logits[:, labels].T  # row: text of a region, column: region
        is_self = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        is_negative = same_scene(scenes, len(labels), labels.device) & (labels[:, None] != labels[None, :])
        to_regions = torch.where(is_self | is_negative, to_regions, -torch.inf)
        losses = (losses + to_regions.logsumexp(1) - to_regions.diagonal()) / 2
    return LossSum(losses.sum(), has_label.sum())


@in_full_precision
def label_map_loss(
    features: torch.Tensor,
    texts: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    temperature: float | torch.Tensor = 0.07,
) -> LossSum:
    """Each place of the views of a scene finds the text of its label among all. Items: labels that places show.

    The mean over the places of each label, so that a wall does not drown a lamp, or over all by their weights.
    Source: dense image features against texts as in LSeg (arXiv:2201.03546); the mean by label is our choice.

    Args:
        features (`torch.Tensor` of shape `(N, C)`): features of places of one scene; of any length.
        texts (`torch.Tensor` of shape `(L, C)`): features of the texts; of any length.
        labels (`torch.Tensor` of shape `(N,)`, int64): text of each place; negative where it is not known.
        weights (`torch.Tensor` of shape `(N,)`, *optional*): weight of each place; items are their sum, then.
        temperature (`float` or `torch.Tensor`, defaults to 0.07): divisor of the cosines; may be learned.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes do not fit, a label is none of the texts, or a temperature is not positive.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import label_map_loss
        >>> texts, labels = torch.eye(3), torch.tensor([0, 0, 2, -1])
        >>> total, count = label_map_loss(texts[[0, 1, 2, 2]], texts, labels, temperature=0.1)
        >>> int(count), round(float(total), 1)  # of label 0 one place is right, and one wrong
        (2, 5.0)

        ```
    """
    _check_widths(features, texts)
    check_shapes(labels=labels, features=features[:, 0])
    check_temperature(temperature)
    if len(labels) and int(labels.max()) >= len(texts):
        raise ValueError(f"labels go up to {int(labels.max())}, but there are {len(texts)} texts.")
    is_known = labels >= 0
    features, labels = features[is_known], labels[is_known]
    losses = F.cross_entropy(unit(features) @ unit(texts).T / temperature, labels, reduction="none")
    if weights is not None:
        check_shapes(weights=weights, is_known=is_known)
        return LossSum((losses * weights[is_known]).sum(), weights[is_known].sum())
    seen = torch.bincount(labels, minlength=len(texts))
    return LossSum((losses / seen[labels]).sum(), (seen > 0).sum())


@in_full_precision
def region_text_sigmoid_loss(
    regions: torch.Tensor,
    texts: torch.Tensor,
    holds: torch.Tensor,
    known: torch.Tensor | None = None,
    *,
    scale: float | torch.Tensor = 10.0,
    bias: float | torch.Tensor = -10.0,
) -> LossSum:
    """Whether each text holds of each region, judged one by one, so that several may: a label, a shape, a colour.

    Items: regions of which something is known; the texts of each are summed.
    Source: SigLIP (Zhai et al. 2023), with its first scale and bias.

    Args:
        regions (`torch.Tensor` of shape `(R, C)`): features of regions; of any length.
        texts (`torch.Tensor` of shape `(L, C)`): features of the texts; of any length.
        holds (`torch.Tensor` of shape `(R, L)`, bool): whether a text is true of a region.
        known (`torch.Tensor` of shape `(R, L)`, bool, *optional*): whether that is known, by default always.
        scale (`float` or `torch.Tensor`, defaults to 10.0): factor of the cosines; may be learned.
        bias (`float` or `torch.Tensor`, defaults to -10.0): number added to them; may be learned.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes do not fit. TypeError: if a mask is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import region_text_sigmoid_loss
        >>> loss = region_text_sigmoid_loss(torch.eye(2), torch.eye(2), torch.eye(2).bool(), scale=0.0, bias=0.0)
        >>> round(float(loss.mean), 4)  # 2 ln 2
        1.3863

        ```
    """
    _check_widths(regions, texts)
    holds = valid_mask(holds, torch.ones(len(regions), len(texts), dtype=torch.bool, device=regions.device))
    known = valid_mask(known, torch.ones_like(holds))
    logits = unit(only_valid(regions, known.any(1))) @ unit(texts).T * scale + bias
    losses = only_valid(-F.logsigmoid(torch.where(holds, logits, -logits)), known)
    return sum_over_places(losses.sum(1), known.any(1))


@torch.no_grad()
def spatial_relations(
    centers: torch.Tensor, scenes: torch.Tensor | None = None, *, margin_m: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What holds between the centres of objects, of `SPATIAL_RELATIONS`, and where that is clear.

    Frame: camera of one view, OpenCV axes: left is smaller x, above smaller y (up in the picture, which is up in the
    room only for a level camera), in front smaller z. Units: metres. A relation is not known where the centres differ
    by less than the margin along its axis.

    Args:
        centers (`torch.Tensor` of shape `(R, 3)`): centres of the objects.
        scenes (`torch.Tensor` of shape `(R,)`, *optional*): scene of each object, by default one for all.
        margin_m (`float`, defaults to 0.1): least difference along an axis in metres.
    Returns:
        `tuple[torch.Tensor, torch.Tensor, torch.Tensor]`: pairs of different objects of a scene `(P, 2)`, whether each
        relation holds of the first to the second `(P, 6)`, and whether that is known `(P, 6)`.
    Raises:
        ValueError: if shapes do not fit.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import SPATIAL_RELATIONS, spatial_relations
        >>> pairs, holds, known = spatial_relations(torch.tensor([[0.0, 0.0, 2.0], [1.0, 0.0, 3.0]]))
        >>> [word for word, is_true in zip(SPATIAL_RELATIONS, holds[0]) if is_true]
        ['left of', 'in front of']
        >>> known[0].tolist()
        [True, True, False, False, True, True]

        ```
    """
    check_shapes(last=3, centers=centers)
    is_self = torch.eye(len(centers), dtype=torch.bool, device=centers.device)
    pairs = (same_scene(scenes, len(centers), centers.device) & ~is_self).nonzero()
    ahead = centers[pairs[:, 1]] - centers[pairs[:, 0]]  # (P, 3), above 0 where the first is left of the second
    return pairs, torch.stack([ahead > 0, ahead < 0], -1).flatten(1), (ahead.abs() >= margin_m).repeat_interleave(2, 1)


@in_full_precision
def relation_alignment_loss(
    regions: torch.Tensor,
    pairs: torch.Tensor,
    texts: torch.Tensor,
    holds: torch.Tensor,
    known: torch.Tensor | None = None,
    *,
    scale: float | torch.Tensor = 10.0,
    bias: float | torch.Tensor = 0.0,
) -> LossSum:
    """Align the step from one region's feature to another's with the texts of the relations that hold between them.

    Turning a pair around turns the step around, as it does left and right. Items: pairs of which something is known.
    Source: our choice for the alignment of spatial relations; judged as `region_text_sigmoid_loss` does.

    Args:
        regions (`torch.Tensor` of shape `(R, C)`): features of regions.
        pairs (`torch.Tensor` of shape `(P, 2)`, int64): first and second region of each pair, see `spatial_relations`.
        texts (`torch.Tensor` of shape `(K, C)`): features of the texts of relations; of any length.
        holds (`torch.Tensor` of shape `(P, K)`, bool): whether a relation holds of the first to the second.
        known (`torch.Tensor` of shape `(P, K)`, bool, *optional*): whether that is known, by default always.
        scale (`float` or `torch.Tensor`, defaults to 10.0): factor of the cosines; may be learned.
        bias (`float` or `torch.Tensor`, defaults to 0.0): number added to them; may be learned.
    Returns:
        `LossSum`.
    Raises:
        ValueError: if shapes do not fit. TypeError: if a mask is not bool.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import relation_alignment_loss
        >>> regions, texts = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [-1.0]])  # left of, right of
        >>> loss = relation_alignment_loss(regions, torch.tensor([[0, 1]]), texts, torch.tensor([[True, False]]))
        >>> float(loss.mean) < 1e-3
        True

        ```
    """
    check_shapes(last=2, pairs=pairs)
    first, second = regions[pairs[:, 0]], regions[pairs[:, 1]]
    if known is not None:
        first, second = only_valid(first, known.any(1)), only_valid(second, known.any(1))
    steps = second - first
    return region_text_sigmoid_loss(steps, texts, holds, known, scale=scale, bias=bias)
