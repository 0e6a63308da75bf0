"""The relations term: the step from one object's feature to another's is near to the text of their relation."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..losses import SPATIAL_RELATIONS, LossSum, pool_regions, relation_alignment_loss, spatial_relations
from ..object_targets import ObjectTargets
from .token_term import ObjectTerm


@dataclass
class RelationsTerm(ObjectTerm):
    """Steps between the features of two objects against the texts of `SPATIAL_RELATIONS`. Items: pairs of objects.

    Frame: camera of the first view, in which one object is left of, above or in front of another; of the mean points
    of what the views see of them. A pair counts where some relation is clear.
    Source: `spatial_relations`, `relation_alignment_loss`, ours.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of depth and poses, as in `HeadTerm`; "recorded" by default.
        layers (`list[int | str]`): hidden states that the head reads, one, as in `TokenTerm`; [-1] by default.
        head_size (`int`, *optional*): hidden width of the head, twice that of the language model by default.
        margin_m (`float`, defaults to 0.2): least difference along an axis in metres.
        scale (`float`, defaults to 10.0): factor of the cosines.
    """

    margin_m: float = 0.2
    scale: float = 10.0

    name = "relations"
    head = "relations"

    def object_targets(self, objects: ObjectTargets) -> dict[str, object]:
        pairs, holds, known = spatial_relations(objects.centers, margin_m=self.margin_m)
        texts = list(SPATIAL_RELATIONS)
        return {"count": int(known.any(1).sum()), "texts": texts, "pairs": pairs, "holds": holds, "known": known}

    def scene_loss(self, features: torch.Tensor, scene: Mapping[str, object]) -> LossSum:
        regions = pool_regions(features, scene["tokens"], int(scene["tokens"].max()) + 1)
        wanted = scene["pairs"], scene["texts"], scene["holds"], scene["known"]
        return relation_alignment_loss(regions, *wanted, scale=self.scale)
