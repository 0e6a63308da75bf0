"""Whether a teacher agrees with itself over the views of a video, and with the pictures.

One that was never trained for such pictures gives finite depth and confident pixels all the same.

Points of one view are carried by depth and cameras into its neighbours: there the depth must be that of the point, and
the picture must show what the first one shows. What depth alone cannot tell, since a teacher that always sees the same
still room agrees with itself, the pictures tell.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from transformers.utils import logging

from ...camera_geometry_gap_mllm import invert_rigid, project_points, transform_points
from .depth_teacher import Reconstruction


logger = logging.get_logger(__name__)

VIEW_STEPS = (1, 2, 4)  # neighbours that a view is compared with, on both sides
MIN_SHARED_PIXELS = 100  # of a pair of views, to be compared
MIN_CONTRAST = 0.03  # standard deviation of the brightness (0..1); below, pictures tell nothing
CONSISTENT, DOUBTFUL, INCONSISTENT = "consistent", "doubtful", "inconsistent"


@dataclass(frozen=True)
class ConsistencyLimits:
    """From where on a teacher is doubtful (a warning) or unfit (refused). Our choice.

    A depth that is 5 % off is where a place is not found again in another view (`TaskMargins.edge_bend`); the others
    stand between clips that examples/assets/tiny_geometry_encoder knows and clips that it does not. Measured with
    it: 39 clips of 4 to 16 views of its own rooms differ by 3 to 17 % and agree to 0.13 .. 0.86, median 0.6; 36
    pass, nearly all with a warning. A real video of 28 frames differs by 15 % and agrees to 0.11; its windows of 8
    and 16 frames by 9 to 24 % and to -0.04 .. 0.23: all refused, while some of 4 frames pass with a warning. Noise,
    and a pan over it, agree to at most 0.18. A pan over soft blobs passes (0.28 .. 0.75), with a warning: what
    changes slowly agrees wherever it is looked at. Exact rendered depth differs by less than 1 % and agrees to more
    than 0.8.

    Args:
        doubtful_depth, unfit_depth (`float`, defaults to 0.05 and 0.2): limits of
            `TeacherConsistency.depth_disagreement`, shares of the depth.
        doubtful_pictures, unfit_pictures (`float`, defaults to 0.5 and 0.25): limits of
            `TeacherConsistency.picture_agreement`; lower is worse.
    """

    doubtful_depth: float = 0.05
    unfit_depth: float = 0.2
    doubtful_pictures: float = 0.5
    unfit_pictures: float = 0.25


LIMITS = ConsistencyLimits()


@dataclass(frozen=True)
class TeacherConsistency:
    """How well views of a reconstruction agree, over the pixels that the teacher is sure of.

    Args:
        num_pairs (`int`): ordered pairs of neighbouring views that share pixels.
        depth_disagreement (`float`, *optional*): median of |z - d| / z, where z is the depth of a point of one view in
            the camera of another, and d the depth that the other gives there; None where no views share pixels.
        share_agreeing (`float`, *optional*): share of these pixels that is within the tolerance.
        picture_agreement (`float`, *optional*): median over the pairs of the correlation of the brightness of a pixel
            with that of the place where the other view sees it; None where no pictures have contrast.
    """

    num_pairs: int
    depth_disagreement: float | None
    share_agreeing: float | None
    picture_agreement: float | None

    @property
    def verdict(self) -> str:
        """The words "consistent", "doubtful" or "inconsistent", by `LIMITS`."""
        depth, pictures = self.depth_disagreement, self.picture_agreement
        if depth is None or depth > LIMITS.unfit_depth or (pictures is not None and pictures < LIMITS.unfit_pictures):
            return INCONSISTENT
        if depth > LIMITS.doubtful_depth or pictures is None or pictures < LIMITS.doubtful_pictures:
            return DOUBTFUL
        return CONSISTENT

    def as_dict(self) -> dict:
        """The figures, the verdict and the limits, for a report."""
        return {**asdict(self), "verdict": self.verdict, "limits": asdict(LIMITS)}


def compare_views(
    reconstruction: Reconstruction, inputs: list[torch.Tensor], sure: list[np.ndarray], tolerance: float = 0.05
) -> tuple[TeacherConsistency, list[np.ndarray]]:
    """Carry the points of each view into its neighbours, and compare depth and brightness there.

    A pixel is contradicted if other views see its place, and either none of them has its depth there, or more of them
    look through it (have a greater depth) than agree. A nearer surface may hide it and contradicts nothing.
    Frame and units: see `Reconstruction`; the figures have no unit.

    Args:
        reconstruction (`Reconstruction`): what the teacher says.
        inputs (`list[torch.Tensor]` of shape `(3, h, w)`): what it saw.
        sure (`list[np.ndarray]` of bool, shape `(h, w)`): the pixels that count.
        tolerance (`float`, defaults to 0.05): relative difference up to which two depths agree.
    Returns:
        `tuple` of `TeacherConsistency` and the contradicted pixels of every view, bool arrays `(h, w)`.
    """
    brightness = [view.mean(0).numpy() for view in inputs]
    errors, correlations, contradicted = [], [], []
    for view in range(len(reconstruction)):
        points = reconstruction.points(view)
        agreeing, seen_through, compared = (np.zeros(points.shape[:2], dtype=int) for _ in range(3))
        for other in _neighbours(view, len(reconstruction)):
            rows, columns, z, places = _carry(points, reconstruction, other)
            depth = reconstruction.depth[other][places]
            known = depth > 0
            rows, columns, z, depth = rows[known], columns[known], z[known], depth[known]
            places = places[0][known], places[1][known]
            compared[rows, columns] += 1
            agreeing[rows, columns] += np.abs(z - depth) <= tolerance * z
            seen_through[rows, columns] += depth > (1 + tolerance) * z
            counts = sure[view][rows, columns]
            if counts.sum() < MIN_SHARED_PIXELS:
                continue
            errors.append((np.abs(z - depth) / z)[counts])
            here, there = brightness[view][rows, columns][counts], brightness[other][places][counts]
            if min(here.std(), there.std()) >= MIN_CONTRAST:
                correlations.append(np.corrcoef(here, there)[0, 1])
        contradicted.append((compared > 0) & ((agreeing == 0) | (seen_through > agreeing)))
    return _summarise(errors, correlations, tolerance), contradicted


def judge_consistency(name: str, consistency: TeacherConsistency, accept_inconsistent: bool = False) -> None:
    """Warn of a doubtful teacher, and refuse an inconsistent one.

    Args:
        name (`str`): name of the video, for messages.
        consistency (`TeacherConsistency`): what was measured.
        accept_inconsistent (`bool`, defaults to False): warn instead of refusing.
    Raises:
        ValueError: with the figures and the limits.
    """
    if consistency.verdict == CONSISTENT:
        return
    found = f"{name}: {consistency_text(consistency.as_dict())}."
    if consistency.verdict == DOUBTFUL:
        logger.warning(
            f"{found} A consistent one stays within {100 * LIMITS.doubtful_depth:.0f} % and reaches "
            f"{LIMITS.doubtful_pictures:.2f}; look at labels.png and label_report.json before training."
        )
        return
    limits = f"At most {100 * LIMITS.unfit_depth:.0f} % and at least {LIMITS.unfit_pictures:.2f} are taken"
    if not accept_inconsistent:
        raise ValueError(
            f"{found} {limits}: this teacher does not understand these pictures, and its labels would be noise. Use a "
            "teacher that was trained for such pictures, frames closer to each other, or "
            "accept_inconsistent_teacher=True (--accept-inconsistent-teacher)."
        )
    logger.warning(f"{found} {limits}; labels are written all the same, as accept_inconsistent_teacher says.")


def consistency_text(figures: dict) -> str:
    """One line of `TeacherConsistency.as_dict()`, for people."""
    if not figures["num_pairs"]:
        return "the teacher is inconsistent: by its depth and cameras no two neighbouring views share a place"
    pictures = figures["picture_agreement"]
    told = "cannot be compared for want of contrast" if pictures is None else f"agree to {pictures:.2f}"
    return (
        f"the teacher is {figures['verdict']} over {figures['num_pairs']} pairs of views: depths differ by "
        f"{100 * figures['depth_disagreement']:.1f} % (median), pictures at the same places {told}"
    )


def _neighbours(view, num_views):
    candidates = [view + sign * step for step in VIEW_STEPS for sign in (-1, 1)]
    return [other for other in candidates if 0 <= other < num_views]


def _carry(points, reconstruction, other):
    """Pixels of a view whose points another camera has in its picture: rows, columns, depth there, nearest pixel."""
    height, width = reconstruction.depth[other].shape
    moved = transform_points(invert_rigid(reconstruction.camera_to_world[other]), points)
    pixels, z = project_points(moved, reconstruction.intrinsics[other])
    with np.errstate(invalid="ignore"):  # NaN, where there is no depth or the point lies behind the camera, is outside
        nearest = np.floor(pixels + 0.5)
        inside = (z > 0) & ((nearest >= 0) & (nearest <= np.array([width - 1, height - 1]))).all(-1)
    rows, columns = np.nonzero(inside)
    x, y = nearest[inside].astype(int).T
    return rows, columns, z[inside], (y, x)


def _summarise(errors, correlations, tolerance):
    if not errors:
        return TeacherConsistency(0, None, None, None)
    merged = np.concatenate(errors)
    return TeacherConsistency(
        num_pairs=len(errors),
        depth_disagreement=float(np.median(merged)),
        share_agreeing=float((merged <= tolerance).mean()),
        picture_agreement=float(np.median(correlations)) if correlations else None,
    )
