"""The point-map term: distances of the points that both heads give for the visual tokens. Ours, optional."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...pretraining_gap_mllm import POINT_MAP_SOURCES, GapMllmPreTrainingOutput
from ..losses import point_loss
from ..scene_rows import rows_of_tokens, sum_by_rows
from .loss_term import LossTerm


@dataclass
class PointMapTerm(LossTerm):
    """Euclidean distances of predicted and true points, of the heads on the fused and on the language tokens.

    Frame: camera of the scene's first view, OpenCV axes. Units: metres. Targets that are not finite are left out.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default; the heads are frozen then.
    """

    module_groups = ("point_maps",)

    def count(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | float:
        targets = inputs.get("point_map_targets")
        if targets is None:
            return 0.0
        rows = torch.tensor(rows_of_tokens(inputs, len(targets)), device=targets.device)
        return (targets.isfinite().all(-1).sum((1, 2)) * rows).sum() * len(POINT_MAP_SOURCES)

    def sum(self, outputs: GapMllmPreTrainingOutput, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        targets = inputs.get("point_map_targets")
        if targets is None or outputs.point_maps is None:
            return None

        def compute(valid):
            first, *others = (point_loss(points, targets, valid) for points in outputs.point_maps.values())
            return sum(others, first)

        return sum_by_rows(compute, targets.isfinite().all(-1), rows_of_tokens(inputs, len(targets))).sum
