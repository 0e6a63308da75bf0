"""The distillation term: hidden states of visual tokens learn to hold the features of a teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ...configuration_gap_mllm import GapMllmConfig
from ...geometry_views_gap_mllm import is_trainable
from ...pretraining_gap_mllm import GapMllmForPreTraining, GapMllmPreTrainingOutput
from ...processing.argument_checks import check_names
from ...processing.data.scene_sample import View
from ...training_heads_gap_mllm import layer_index
from ..losses import LossSum, layer_distillation_loss, pool_features
from ..scene_rows import sum_by_rows
from ..teachers import TeacherTargets
from .head_term import GRIDS, OWN_ENCODER, HeadTerm


VGGT_FEATURE_SIZE = 2048
POOLED_PATCHES = 2  # of the teacher along each side, where its grid is taken


@dataclass
class DistillationTerm(HeadTerm):
    """1 - cosine between projected hidden states and a teacher's features, mean over layers. Items: visual tokens.

    Source: 3DRS (arXiv:2506.01946), last layer; GeoVR (arXiv:2606.05833), four layers with `norm`, `frame_half`, a
    `projector_size` of the teacher's width, and the `grid` of the teacher.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        layers (`list[int]`): hidden states that are projected, [-1] by default; see `HeadTerm` and `map_layers`.
        teacher (`str` or `dict`): "encoder" by default, the model's own, whose features are those of the same forward
            pass; else as in `HeadTerm`.
        teacher_layers (`list[str]`, *optional*): features of the teacher for each layer, as "layer_23"; by default its
            last ones.
        feature_size (`int`, *optional*): width of these features; by default that of the encoder, else VGGT's 2048,
            or half of it with `frame_half`.
        projector_size (`int`, *optional*): hidden width of the projectors, twice that of the language model by
            default.
        norm (`bool`, defaults to False): whether the projectors begin with a LayerNorm.
        frame_half (`bool`, defaults to False): whether only the first half of the features is the target: VGGT's
            frame attention.
        grid (`str`, defaults to "tokens"): "tokens": the teacher's features are averaged over the visual tokens, as in
            3DRS; "teacher": they are averaged over 2 x 2 patches, and the hidden states resized to these, as in GeoVR.
        squared_distance (`bool`, defaults to False): whether the loss is twice as large, as in the code of 3DRS.
    """

    layers: list[int] = field(default_factory=lambda: [-1])
    teacher: str | dict = OWN_ENCODER
    teacher_layers: list[str] | None = None
    feature_size: int | None = None
    projector_size: int | None = None
    norm: bool = False
    frame_half: bool = False
    grid: str = "tokens"
    squared_distance: bool = False

    name = "distillation"
    head = "distillation"

    def head_settings(self, config: GapMllmConfig) -> dict:
        named, encoder = self.teacher_layers, config.geometry_config
        if named is not None and len(named) != len(self.layers):
            raise ValueError(
                f"terms.distillation has {len(self.layers)} layers and {len(named)} teacher_layers; expected as many."
            )
        check_names("terms.distillation.grid", [self.grid], GRIDS)
        taps = [f"layer_{layer}" for layer in encoder.tap_layers]
        is_own = self.teacher == OWN_ENCODER
        if is_own and len(self.layers) > len(taps):
            raise ValueError(f"terms.distillation has {len(self.layers)} layers, but the encoder taps {taps}.")
        if is_own and self.grid == "teacher":
            raise ValueError(
                "terms.distillation.grid is 'teacher', but its teacher is the model's own encoder, whose grid is that "
                "of the tokens. Leave it out."
            )
        size = encoder.feature_size if is_own else VGGT_FEATURE_SIZE
        return {
            "layers": list(self.layers),
            "feature_size": self.feature_size or (size // 2 if self.frame_half else size),
            "projector_size": self.projector_size,
            "norm": self.norm,
            "encoder_layers": (list(named or taps[-len(self.layers) :])) if is_own else None,
        }

    def targets(
        self, told: TeacherTargets, views: Sequence[View], grids: list[tuple[int, int]], settings: dict
    ) -> dict[str, list]:
        names = self.teacher_layers or list(told.features)[-len(self.layers) :]
        if len(names) < len(self.layers):
            raise ValueError(
                f"terms.distillation has {len(self.layers)} layers, but the teacher tells features of "
                f"{list(told.features)}. Take another teacher, or fewer layers."
            )
        targets, is_theirs = {}, self.grid == "teacher"
        if is_theirs:
            grids = [tuple(side // POOLED_PATCHES for side in view.shape[:2]) for view in told.layer(names[0])]
            targets["grid"] = [torch.tensor(grid) for grid in grids]
        pooled = [
            [
                _pooled(index, view, grid, is_theirs)
                for index, (view, grid) in enumerate(zip(told.layer(name), grids, strict=True))
            ]
            for name in names
        ]
        return {"features": [torch.stack(layers) for layers in zip(*pooled, strict=True)], **targets}

    def own_targets(self, grids: list[tuple[int, int]]) -> dict[str, list]:
        """As `targets`, of width 0, where the features are those of the forward pass: they only tell how many."""
        return {"features": [torch.empty(len(self.layers), rows * columns, 0) for rows, columns in grids]}

    def count(self, inputs: Mapping[str, torch.Tensor]) -> float:
        return float(sum(rows * view.shape[1] for view, rows in self.known(inputs, "features")))

    def loss(
        self, prediction: list, targets: dict[str, list], outputs: GapMllmPreTrainingOutput, rows: list[int]
    ) -> LossSum:
        if self.teacher == OWN_ENCODER:
            if outputs.encoder_features is None:
                raise ValueError("The batch came without pixels, so that the encoder cannot teach. Pass pixel_values.")
            wanted = list(outputs.encoder_features.values())
        else:
            wanted = list(torch.cat(targets["features"], dim=1))
        if self.frame_half:
            wanted = [features[:, : features.shape[1] // 2] for features in wanted]
        if prediction[0].shape != wanted[0].shape:
            raise ValueError(
                f"The teacher has features of {tuple(wanted[0].shape)} (tokens, width), the projector "
                f"{tuple(prediction[0].shape)}. Set terms.distillation.feature_size to the teacher's width."
            )
        views = zip(targets["features"], rows, strict=True)
        of_tokens = [times for view, times in views for _ in range(view.shape[1])]
        is_known = torch.stack([features.isfinite().all(-1) for features in wanted]).all(0)
        loss = sum_by_rows(lambda valid: layer_distillation_loss(prediction, wanted, valid), is_known, of_tokens)
        return LossSum(loss.sum * (2 if self.squared_distance else 1), loss.count)

    def check(self, model: GapMllmForPreTraining) -> None:
        super().check(model)
        layers = model.model.language_model.layers
        for layer in self.layers:
            index = layer_index(layer, len(layers))
            makers = [layers[index - 1]] if index else [model.model.visual, model.model.fusion]  # of that state
            if not any(is_trainable(part) for part in makers if part is not None):
                raise ValueError(
                    f"terms.distillation distils into layer {layer}, which is frozen. Train the "
                    f"{'language model' if index else 'vision tower or fusion'} (module_learning_rates, or lora), or "
                    "take another layer."
                )


def _pooled(index, features, grid, by_windows):
    if by_windows:  # a last odd row or column is left out, as in the release
        features = features[: POOLED_PATCHES * grid[0], : POOLED_PATCHES * grid[1]]
    if features.shape[0] < grid[0] or features.shape[1] < grid[1]:
        raise ValueError(
            f"view {index} has {grid[0]} x {grid[1]} visual tokens, but the teacher's grid is {features.shape[0]} x "
            f"{features.shape[1]}, which is coarser. Show smaller pictures (max_view_pixels), or take a finer teacher."
        )
    return pool_features(features[None].float().cpu(), grid)[0].flatten(0, 1)
