"""The shape term: the tokens that see an object tell 64 points on its surface."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...configuration_gap_mllm import GapMllmConfig
from ..losses import LossSum, chamfer_loss, pool_regions
from ..object_targets import NUM_SURFACE_POINTS, ObjectTargets
from .token_term import ObjectTerm


@dataclass
class ShapeTerm(ObjectTerm):
    """Chamfer distance between the 64 surface points that the tokens of an object tell, and true ones. Items: objects.

    Frame: axes of the first view's camera (OpenCV), origin in the mean of the object's surface points, so that shape
    does not hold place. Units: metres. True points are spread over what the views see of the object, by recorded
    depth, so that rooms and scans give the same; its far side is not among them.
    Source: `chamfer_loss`; object-shape prediction of GAP-MLLM's overview, the form is ours.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of depth and poses, as in `HeadTerm`; "recorded" by default.
        layers (`list[int]`): hidden states that the head reads, one; [-1] by default.
        head_size (`int`, *optional*): hidden width of the head, twice that of the language model by default.
        squared (`bool`, defaults to False): whether distances are squared.
    """

    squared: bool = False

    name = "shape"
    head = "shape"

    def width(self, config: GapMllmConfig) -> int:
        return 3 * NUM_SURFACE_POINTS

    def object_targets(self, objects: ObjectTargets) -> dict[str, object]:
        return {"count": len(objects.labels), "points": objects.points - objects.centers[:, None]}

    def scene_loss(self, features: torch.Tensor, scene: Mapping[str, object]) -> LossSum:
        return chamfer_loss(self.shapes(features, scene), scene["points"], squared=self.squared)

    def shapes(self, features: torch.Tensor, scene: Mapping[str, object]) -> torch.Tensor:
        """The points `(O, 64, 3)` that are told of the objects of a scene: the mean of what their tokens tell."""
        return pool_regions(features, scene["tokens"], len(scene["points"])).unflatten(1, (-1, 3))


__all__ = ["ShapeTerm"]
