"""Terms of cameras: pose and field of view of each view, the latter alone, and the metric scale of a scene."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ...configuration_gap_mllm import GapMllmConfig
from ...pretraining_gap_mllm import GapMllmPreTrainingOutput
from ...processing.data.scene_sample import View
from ..losses import LossSum, field_of_view_loss, metric_scale_loss, metric_scale_target, pose_encoding_loss
from ..scene_rows import sum_by_rows
from ..teachers import RecordedTeacher, TeacherTargets
from .head_term import HeadTerm


class _VectorTerm(HeadTerm):
    """A term whose targets are vectors, one for each view or scene."""

    size = ()  # of a vector

    def compute(self, prediction: torch.Tensor, target: torch.Tensor) -> LossSum:
        """Loss of all vectors; a target of NaN is left out."""
        raise TypeError(f"{type(self).__name__} must define compute.")

    def count(self, inputs: Mapping[str, torch.Tensor]) -> float:
        return float(sum(rows for _, rows in self.known(inputs, "vectors")))

    def loss(
        self,
        prediction: torch.Tensor,
        targets: dict[str, list],
        outputs: GapMllmPreTrainingOutput,
        rows: list[int],
    ) -> LossSum:
        unknown = prediction.new_full(self.size, torch.nan)
        vectors = torch.stack([unknown if each is None else each.to(prediction) for each in targets["vectors"]])

        def compute(chosen):
            return self.compute(prediction, vectors.where(chosen, torch.nan))

        return sum_by_rows(compute, vectors.isfinite(), rows)


@dataclass
class CameraTerm(_VectorTerm):
    """Pose in the first view's camera, and field of view, as VGGT's nine numbers. Items: views whose camera is known.

    Frame: world to camera, OpenCV axes, the world is the first view's camera. Units: the teacher's, radians.
    Source: `pose_encoding_loss`, GeoVR (arXiv:2606.05833), weight 2.5 there. `Differs:` see `GapMllmCameraHead`.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of the targets, as in `HeadTerm`; "recorded" by default.
        layers (`list[int]`): hidden states that the head reads, one; [-1] by default.
        head_size (`int`, defaults to 1536): hidden width of the head.
        tokens (`bool`, defaults to False): whether the head reads a token behind each view, in training only, as in
            GeoVR; else the mean of the view's visual tokens.
        fov_activation (`str`, defaults to "softplus"): what makes the field of view positive; "relu" in GeoVR.
    """

    layers: list[int] = field(default_factory=lambda: [-1])
    head_size: int = 1536
    tokens: bool = False
    fov_activation: str = "softplus"

    name = "camera"
    head = "camera"
    size = (9,)

    def head_settings(self, config: GapMllmConfig) -> dict:
        settings = {"layers": _only(self), "head_size": self.head_size, **_tokens(self)}
        return settings if self.fov_activation == "softplus" else {**settings, "fov_activation": self.fov_activation}

    def targets(
        self, told: TeacherTargets, views: Sequence[View], grids: list[tuple[int, int]], settings: dict
    ) -> dict[str, list]:
        return {"vectors": _known(told.pose_encodings())}

    def compute(self, prediction: torch.Tensor, target: torch.Tensor) -> LossSum:
        return pose_encoding_loss(prediction, target)


@dataclass
class FieldOfViewTerm(_VectorTerm):
    """Field of view alone, which needs no poses. Items: views whose intrinsics are known. Units: radians.

    It needs the term "camera", whose head it reads. Source: `field_of_view_loss`, VGGT, GeoVR.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of the targets, as in `HeadTerm`; "recorded" by default.
    """

    name = "field_of_view"
    head = "camera"
    size = (2,)

    def targets(
        self, told: TeacherTargets, views: Sequence[View], grids: list[tuple[int, int]], settings: dict
    ) -> dict[str, list]:
        sizes = torch.tensor([depth.shape for depth in told.depth], device=told.intrinsics.device)
        focal = told.intrinsics[:, [1, 0], [1, 0]]
        return {"vectors": _known(2 * torch.atan(sizes / 2 / focal))}

    def compute(self, prediction: torch.Tensor, target: torch.Tensor) -> LossSum:
        return field_of_view_loss(prediction[:, 7:], target)


@dataclass
class MetricScaleTerm(_VectorTerm):
    """Metres for each unit of a teacher. Items: scenes with depth in metres, by which the unit is measured.

    Of the teacher's depth the less sure half is left out.
    Source: `metric_scale_target`, `metric_scale_loss`, GeoVR (arXiv:2606.05833), weight 1 there, where
    `metric_teacher` is a second model; for the head see `GapMllmScaleHead`.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher whose unit is measured, as in `HeadTerm`; that of "recorded", the default,
            is the metre.
        metric_teacher (`str` or `dict`): teacher of depth in metres, as `{name: depth_anything_3, path: FOLDER,
            canonical_focal_px: 300}`; "recorded" by default.
        layers (`list[int]`): hidden states that the head reads, one; [-1] by default.
        head_size (`int`, defaults to 512): hidden width of the head.
        tokens (`bool`, defaults to False): whether the head reads a token behind the last view, in training only, as
            in GeoVR; else the mean of the visual tokens of all views.
    """

    metric_teacher: str | dict = "recorded"
    layers: list[int] = field(default_factory=lambda: [-1])
    head_size: int = 512
    tokens: bool = False

    name = "metric_scale"
    head = "metric_scale"
    is_of_scenes = True

    def head_settings(self, config: GapMllmConfig) -> dict:
        return {"layers": _only(self), "head_size": self.head_size, **_tokens(self)}

    @property
    def teachers(self) -> list[str | dict]:
        return [self.teacher, self.metric_teacher]

    def targets(
        self,
        told: TeacherTargets,
        views: Sequence[View],
        grids: list[tuple[int, int]],
        settings: dict,
        metric: TeacherTargets | None = None,
    ) -> dict[str, list]:
        metric = RecordedTeacher(poses=False)(views) if metric is None else metric
        maps = metric.depth_m(told).resized([tuple(depth.shape) for depth in told.depth]).depth
        flat = [
            torch.cat([each.flatten().cpu() for each in kind])[None] for kind in (told.depth, maps, told.confidence)
        ]
        scale, is_known = metric_scale_target(*flat[:2], valid=flat[1] > 0, confidence=flat[2])
        return {"vectors": [scale[0] if is_known[0] else None]}

    def compute(self, prediction: torch.Tensor, target: torch.Tensor) -> LossSum:
        return metric_scale_loss(prediction, target)


def _only(term):
    if len(term.layers) != 1:
        raise ValueError(f"terms.{term.name}.layers is {term.layers}; its head reads one layer.")
    return list(term.layers)


def _tokens(term):
    return {"tokens": True} if term.tokens else {}  # without, settings are those of heads of earlier releases


def _known(vectors):
    return [vector.cpu() if vector.isfinite().all() else None for vector in vectors]
