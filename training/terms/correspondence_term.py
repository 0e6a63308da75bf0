"""Terms of tokens that see one 3D point: their contrast with those of other points, and their consistency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ...configuration_gap_mllm import GapMllmConfig
from ...processing.data.scene_sample import View
from ...processing.input_checks_gap_mllm import check_positive
from ..losses import LossSum, point_consistency_loss, point_contrast_loss, voxel_ids
from ..object_targets import CELLS
from ..teachers import TeacherTargets
from .token_term import TokenTerm


@dataclass
class _PointTerm(TokenTerm):
    """A term of the voxels that visual tokens see; of several tokens of a view in one voxel the first counts.

    The point of a token is the mean of those that its pixels see, as in 3DRS (arXiv:2506.01946). `Differs:` pixels
    without depth are left out, and do not pull it to the camera.
    """

    feature_size: int = 128
    voxel_size_m: float = 0.1

    def width(self, config: GapMllmConfig) -> int:
        check_positive(f"terms.{self.name}.voxel_size_m", self.voxel_size_m)
        return self.feature_size

    def targets(
        self, told: TeacherTargets, views: Sequence[View], grids: list[tuple[int, int]], settings: dict
    ) -> dict[str, list]:
        maps = told.resized([(rows * CELLS, columns * CELLS) for rows, columns in grids]).points()
        points = [_token_points(each.cpu()) for each in maps]
        number = torch.cat([torch.full((len(each),), view) for view, each in enumerate(points)])
        tokens = _first_of_view(voxel_ids(torch.cat(points), voxel_size_m=self.voxel_size_m), number)
        is_told = [True if each.isfinite().any() else None for each in points]
        scene = {"tokens": tokens, "number": number}
        items = self.scene_loss(torch.zeros(len(tokens), 1), scene).count
        return {"views": is_told, "count": [int(items)], **{name: [value] for name, value in scene.items()}}


@dataclass
class CorrespondenceTerm(_PointTerm):
    """Contrast of the tokens of all views: those that see one voxel against those that see others. Items: tokens.

    A token counts where one of another view sees its voxel, too.
    Source: `point_contrast_loss`, over points as in PointContrast (ECCV 2020), one place for each voxel and view.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of depth and poses, as in `HeadTerm`; "recorded" by default.
        layers (`list[int | str]`): hidden states that the head reads, one, as in `TokenTerm`; [-1] by default.
        head_size (`int`, *optional*): hidden width of the head, twice that of the language model by default.
        feature_size (`int`, defaults to 128): width of the features that are compared.
        voxel_size_m (`float`, defaults to 0.1): side of a voxel in metres, or in units of the teacher; tokens of few
            large patches need more.
        temperature (`float`, defaults to 0.1): divisor of the cosines.
    """

    temperature: float = 0.1

    name = "correspondence"
    head = "correspondence"

    def scene_loss(self, features: torch.Tensor, scene: Mapping[str, object]) -> LossSum:
        return point_contrast_loss(features, scene["tokens"], temperature=self.temperature)


@dataclass
class ConsistencyTerm(_PointTerm):
    """1 - cosine between the features of one voxel in the views that see it. Items: pairs of tokens.

    Source: `point_consistency_loss`, after a loss left in the code of 3DRS. `Differs:` of a projector, and less the
    mean of the scene's tokens, so that one feature for all places, of which 3DRS's loss is 0, has a loss of 1.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of depth and poses, as in `HeadTerm`; "recorded" by default.
        layers (`list[int | str]`): hidden states that the head reads, one, as in `TokenTerm`; [-1] by default.
        head_size (`int`, *optional*): hidden width of the head, twice that of the language model by default.
        feature_size (`int`, defaults to 128): width of the features that are compared.
        voxel_size_m (`float`, defaults to 0.1): side of a voxel in metres, as of "correspondence".
        centered (`bool`, defaults to True): whether the mean of the scene's tokens is taken off first.
    """

    centered: bool = True

    name = "consistency"
    head = "consistency"

    def scene_loss(self, features: torch.Tensor, scene: Mapping[str, object]) -> LossSum:
        features = features - features.mean(0) if self.centered else features
        return point_consistency_loss(features, scene["tokens"], scene["number"])


def _token_points(points):
    """The mean of the known points of each token, `(tokens, 3)`, NaN where there is none."""
    rows, columns = points.shape[0] // CELLS, points.shape[1] // CELLS
    cells = points.reshape(rows, CELLS, columns, CELLS, 3).swapaxes(1, 2).reshape(rows * columns, -1, 3)
    return cells.nanmean(1)


def _first_of_view(voxels, number):
    """Voxels of tokens; -1 for a token in whose view another before it sees the same voxel."""
    both = torch.stack([voxels, number], 1)
    _, place = both.unique(dim=0, return_inverse=True)
    first = torch.full((int(place.max()) + 1,), len(place)).scatter_reduce(
        0, place, torch.arange(len(place)), reduce="amin"
    )
    return torch.where(first[place] == torch.arange(len(place)), voxels, -1)
