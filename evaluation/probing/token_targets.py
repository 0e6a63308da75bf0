"""What each visual token sees: z-depth and normal at its centre, the mean point of its pixels; and where it lies."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...processing.data.scene_sample import View
from ...training.losses import normals_from_depth
from ...training.teachers import RecordedTeacher
from .correspondence import token_points


NUM_WAVES = 6  # of a picture's width and height, for the probe of position


@dataclass(frozen=True)
class TokenTargets:
    """What the T visual tokens of one scene see, view after view and row by row.

    Frame: normals in the camera of their view, points in that of the first view shown, OpenCV axes. Units: metres.

    Args:
        depth_m (`torch.Tensor` of shape `(T,)`): z-depth of the pixel at the token's centre; 0 where not known.
        normals (`torch.Tensor` of shape `(T, 3)`): normal there; NaN where not known, as at an edge of depth.
        points (`torch.Tensor` of shape `(T, 3)`): mean point, as of `token_points`; NaN where not known.
        positions (`torch.Tensor` of shape `(T, NUM_WAVES**2)`): where in its picture the token lies, as products of
            cosines, so that a linear probe can draw any smooth map.
        views (`torch.Tensor` of shape `(T,)`): view of each token.
    """

    depth_m: torch.Tensor
    normals: torch.Tensor
    points: torch.Tensor
    positions: torch.Tensor
    views: torch.Tensor

    @property
    def is_known(self) -> torch.Tensor:
        """Where depth and normal are both known, `(T,)`."""
        return (self.depth_m > 0) & self.normals.isfinite().all(-1)


def token_targets_of(views: Sequence[View], grids: Sequence[tuple[int, int]]) -> TokenTargets:
    """Read what the visual tokens of a scene see off the depth maps and cameras of its views.

    Args:
        views (sequence of `View`): views of a scene.
        grids (sequence of `tuple[int, int]`): rows and columns of visual tokens of each view.
    Returns:
        `TokenTargets`.
    Raises:
        ValueError, RecordError: as `RecordedTeacher`.
    """
    told, parts = RecordedTeacher()(views), []
    for view, (depth, camera, points, (rows, columns)) in enumerate(
        zip(told.depth, told.intrinsics, told.points(), grids, strict=True)
    ):
        row, column = (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
        centre = (row * depth.shape[0]).long()[:, None], (column * depth.shape[1]).long()
        normals, is_valid = normals_from_depth(depth, torch.eye(3) if camera.isnan().any() else camera)
        normals = normals.where(is_valid[..., None] & camera.isfinite().all(), torch.nan)
        parts.append(
            (
                depth[centre].flatten(),
                normals[centre].flatten(0, 1),
                token_points(points, (rows, columns)).flatten(0, 1),
                position_waves(row, column),
                torch.full((rows * columns,), view),
            )
        )
    return TokenTargets(*(torch.cat(each) for each in zip(*parts, strict=True)))


def position_waves(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Products of cosines of places in a picture, given in shares of its sides; `(rows * columns, NUM_WAVES**2)`."""
    down, across = ((torch.pi * place[:, None] * torch.arange(NUM_WAVES)).cos() for place in (row, column))
    return (down[:, None, :, None] * across[None, :, None, :]).flatten(2).flatten(0, 1)
