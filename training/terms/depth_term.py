"""The depth term and the normals term: a head on the visual tokens tells z-depth, and normals follow from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ...configuration_gap_mllm import GapMllmConfig
from ...pretraining_gap_mllm import GapMllmPreTrainingOutput
from ...processing.argument_checks import check_counts, check_names
from ...processing.data.scene_sample import View
from ...vggt_heads_gap_mllm import nearest
from ..losses import (
    LossSum,
    depth_gradient_loss,
    normal_loss,
    normals_from_depth,
    scale_invariant_depth_loss,
    trimmed_depth_loss,
)
from ..teachers import TeacherTargets
from .head_term import GRIDS, HeadTerm


LEAST_AGREEMENT = 0.87  # cosine between the normals of a small map and of the whole one, about 30 degrees


@dataclass
class DepthTerm(HeadTerm):
    """Depth of each view: scale-invariant in logarithms, trimmed L1, and gradients at several scales. Items: views.

    Units: those of the teacher, metres for "recorded". Views without any depth are left out.
    Source: Eigen et al. (2014); GeoVR (arXiv:2606.05833), the last two. `Differs:` each view counts alike; GeoVR takes
    the mean over the pixels of each video first.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of the targets, as in `HeadTerm`; "recorded" by default.
        layers (`list[int]`): hidden states that the head reads, [-1] by default; see `HeadTerm` and `map_layers`.
        side (`int`, defaults to 8): cells of the map along each side of a visual token.
        features (`int`, defaults to 256): channels of the head, a multiple of 4.
        method (`str`, defaults to "plain"): "plain", whose levels all keep the grid of the tokens, or "dpt", the
            pyramid of GeoVR, for four layers and a `side` that is a multiple of 4.
        grid (`str`, defaults to "tokens"): grid on which the head tells, that of the visual "tokens", or of the
            "teacher", whose maps have `side` pixels along each side of a cell, as in GeoVR.
        out_channels (`list[int]`): channels of the four levels of "dpt"; [256, 512, 1024, 1024] by default.
        log_weight (`float`, defaults to 1.0), absolute_weight (`float`, defaults to 1.0), gradient_weight (`float`,
            defaults to 1.0): factors of `scale_invariant_depth_loss`, `trimmed_depth_loss` and `depth_gradient_loss`
            within the term.
    """

    layers: list[int] = field(default_factory=lambda: [-1])
    side: int = 8
    features: int = 256
    method: str = "plain"
    grid: str = "tokens"
    out_channels: list[int] = field(default_factory=lambda: [256, 512, 1024, 1024])
    log_weight: float = 1.0
    absolute_weight: float = 1.0
    gradient_weight: float = 1.0

    name = "depth"
    head = "depth"

    def head_settings(self, config: GapMllmConfig) -> dict:
        settings = {"layers": list(self.layers), "side": self.side, "features": self.features}
        check_names("terms.depth.grid", [self.grid], GRIDS)
        check_counts(**{"terms.depth.side": self.side, "terms.depth.features": self.features})
        if self.features % 4:
            raise ValueError(f"terms.depth.features is {self.features}; expected a multiple of 4.")
        if self.grid == "teacher":
            settings["grid"] = self.grid
        if self.method == "plain":
            return settings
        return {**settings, "method": self.method, "out_channels": list(self.out_channels)}

    def targets(
        self, told: TeacherTargets, views: Sequence[View], grids: list[tuple[int, int]], settings: dict
    ) -> dict[str, list]:
        grids = _output_grids(told, grids, settings)
        maps = told.resized(_sizes(grids, settings)).depth
        targets = {"depth": [depth.cpu() if (depth > 0).any() else None for depth in maps]}
        return targets if self.grid == "tokens" else {**targets, "grid": [torch.tensor(grid) for grid in grids]}

    def count(self, inputs: Mapping[str, torch.Tensor]) -> float:
        return float(sum(rows for _, rows in self.known(inputs, "depth")))

    def loss(
        self, prediction: list, targets: dict[str, list], outputs: GapMllmPreTrainingOutput, rows: list[int]
    ) -> LossSum:
        total = LossSum(sum(0.0 * depth.sum() for depth in prediction), torch.tensor(0))
        kinds = {"log": scale_invariant_depth_loss, "absolute": trimmed_depth_loss, "gradient": depth_gradient_loss}
        for depth, target, times in zip(prediction, targets["depth"], rows, strict=True):
            if target is None:
                continue
            for kind, compute in kinds.items():
                if weight := times * getattr(self, f"{kind}_weight"):
                    total = LossSum(total.sum + weight * compute(depth[None], target[None]).sum, total.count)
        return total


@dataclass
class NormalsTerm(HeadTerm):
    """1 - cosine between the normals of the depth that the depth head tells, and the teacher's. Items: pixels.

    Pixels count where the teacher's depth at the size of the head, which may have few pixels, gives the normal of its
    whole map, within 30 degrees: elsewhere an edge lies between them.
    Frame: camera of each view. It needs the term "depth", whose head it reads.
    Source: `normals_from_depth`, `normal_loss`.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of the targets, as in `HeadTerm`; "recorded" by default.
    """

    name = "normals"
    head = "depth"

    def targets(
        self, told: TeacherTargets, views: Sequence[View], grids: list[tuple[int, int]], settings: dict
    ) -> dict[str, list]:
        sizes = _sizes(_output_grids(told, grids, settings), settings)
        resized, found = told.resized(sizes), {"normals": [], "intrinsics": []}
        for view, (depth, camera) in enumerate(zip(resized.depth, resized.intrinsics, strict=True)):
            is_known = bool(camera.isfinite().all()) and bool((depth > 0).any())
            if is_known:
                whole = normals_from_depth(told.depth[view], told.intrinsics[view])
                surface, is_surface = (nearest(each, sizes[view]) for each in whole)
                normals, valid = normals_from_depth(depth, camera, max_jump=None)
                valid = valid & is_surface & ((normals * surface).sum(-1) > LEAST_AGREEMENT)
            is_known = is_known and bool(valid.any())
            found["normals"].append(normals.where(valid[..., None], torch.nan).cpu() if is_known else None)
            found["intrinsics"].append(camera.cpu() if is_known else None)
        return found

    def count(self, inputs: Mapping[str, torch.Tensor]) -> float:
        known = self.known(inputs, "normals")
        return float(sum(rows * int(normals.isfinite().all(-1).sum()) for normals, rows in known))

    def loss(
        self, prediction: list, targets: dict[str, list], outputs: GapMllmPreTrainingOutput, rows: list[int]
    ) -> LossSum:
        total = LossSum(sum(0.0 * depth.sum() for depth in prediction), torch.tensor(0))
        views = zip(prediction, targets["normals"], targets["intrinsics"], rows, strict=True)
        for depth, target, camera, times in views:
            if target is not None:
                normals = normals_from_depth(depth, camera, max_jump=None)[0]
                total = LossSum(total.sum + times * normal_loss(normals, target).sum, total.count)
        return total


def _output_grids(told, grids, settings):
    """Grid of the head for each view, in cells of `side` pixels."""
    if settings.get("grid") != "teacher":
        return grids
    return [tuple(max(1, round(size / settings["side"])) for size in depth.shape) for depth in told.depth]


def _sizes(grids, settings):
    return [(rows * settings["side"], columns * settings["side"]) for rows, columns in grids]
