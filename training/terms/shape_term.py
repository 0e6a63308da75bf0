"""The shape term: the tokens that see an object tell 64 points on its surface, or which cells around it hold some."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...configuration_gap_mllm import GapMllmConfig
from ..losses import LossSum, chamfer_loss, occupancy_loss, pool_regions
from ..object_targets import NUM_SURFACE_POINTS, ObjectTargets
from .token_term import ObjectTerm


@dataclass
class ShapeTerm(ObjectTerm):
    """Chamfer distance between the 64 surface points that the tokens of an object tell, and true ones. Items: objects.

    Frame: axes of the first view's camera (OpenCV), origin in the mean of the object's surface points, so that shape
    does not hold place. Units: metres. True points are spread over what the views see of the object, by recorded
    depth, so that rooms and scans give the same; its far side is not among them.
    Source: `chamfer_loss`, `occupancy_loss`; that the tokens of an object tell them together is ours.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of depth and poses, as in `HeadTerm`; "recorded" by default.
        layers (`list[int | str]`): hidden states that the head reads, one, as in `TokenTerm`; [-1] by default.
        head_size (`int`, *optional*): hidden width of the head, twice that of the language model by default.
        squared (`bool`, defaults to False): whether distances are squared.
        occupancy_side (`int`, *optional*): cells along each side of a cube around the mean of the true points; the
            tokens then tell which of them hold one, and the loss is the cross-entropy. By default they tell points.
        extent_m (`float`, defaults to 2.0): side of that cube in metres; what lies outside is left out.
    """

    squared: bool = False
    occupancy_side: int | None = None
    extent_m: float = 2.0

    name = "shape"
    head = "shape"

    def width(self, config: GapMllmConfig) -> int:
        return 3 * NUM_SURFACE_POINTS if not self.occupancy_side else self.occupancy_side**3

    def object_targets(self, objects: ObjectTargets) -> dict[str, object]:
        return {"count": len(objects.labels), "points": objects.points - objects.centers[:, None]}

    def scene_loss(self, features: torch.Tensor, scene: Mapping[str, object]) -> LossSum:
        if self.occupancy_side:
            cells = occupied_cells(scene["points"], self.occupancy_side, self.extent_m)
            return occupancy_loss(pool_regions(features, scene["tokens"], len(cells)), cells)
        return chamfer_loss(self.shapes(features, scene), scene["points"], squared=self.squared)

    def shapes(self, features: torch.Tensor, scene: Mapping[str, object]) -> torch.Tensor:
        """The points `(O, 64, 3)` that are told of the objects of a scene: the mean of what their tokens tell."""
        return pool_regions(features, scene["tokens"], len(scene["points"])).unflatten(1, (-1, 3))


def occupied_cells(points: torch.Tensor, side: int, extent_m: float) -> torch.Tensor:
    """Which cells of a cube around the origin hold a point.

    Args:
        points (`torch.Tensor` of shape `(N, P, 3)`): points of N objects in metres.
        side (`int`): cells along each side.
        extent_m (`float`): side of the cube in metres.
    Returns:
        `torch.Tensor` of shape `(N, side**3)`, bool: x runs slowest, z fastest.
    """
    places = ((points / extent_m + 0.5) * side).floor().long()
    is_inside = ((places >= 0) & (places < side)).all(-1)
    cells = (places * places.new_tensor([side * side, side, 1])).sum(-1)
    occupied = torch.zeros(len(points), side**3 + 1, dtype=torch.bool, device=points.device)  # the last: outside
    return occupied.scatter(1, torch.where(is_inside, cells, side**3), True)[:, :-1]
