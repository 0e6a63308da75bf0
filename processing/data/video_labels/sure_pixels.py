"""Which pixels of a reconstruction are sure: only their depth is stored, so that nothing is asked about the others.

A pixel is sure where the teacher is confident, agrees with itself, and no other view contradicts it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...camera_geometry_gap_mllm import scale_intrinsics, scale_pixels
from ..depth_edges import depth_edges
from .depth_teacher import Reconstruction
from .teacher_windows import scene_size


@dataclass(frozen=True)
class LabelPixels:
    """A reconstruction, its sure pixels, and the sizes of the pictures it was made of.

    Args:
        reconstruction (`Reconstruction`): depth and cameras of all views.
        image_sizes (`list[tuple[int, int]]`): width and height of the original pictures, in pixels.
        threshold (`float`): lowest confidence of a sure pixel.
        sure (`list[np.ndarray]` of bool, shape `(h, w)`): pixels whose depth is stored, depth edges included; at the
            teacher's size.
        usable (`list[np.ndarray]` of bool, shape `(h, w)`): those of them that are on no depth edge.
        counts (`dict[str, int]`): pixels in all, of each reason not to use one (the first that applies), and usable.
    """

    reconstruction: Reconstruction
    image_sizes: list[tuple[int, int]]
    threshold: float
    sure: list[np.ndarray]
    usable: list[np.ndarray]
    counts: dict[str, int]

    @cached_property
    def size(self) -> float:
        """Size of the scene by its usable pixels, see `scene_size`."""
        return scene_size(np.concatenate([self.reconstruction.points(v)[m] for v, m in enumerate(self.usable)]))

    @cached_property
    def intrinsics(self) -> np.ndarray:
        """Intrinsics of the original pictures, `(V, 3, 3)`."""
        factors = [self._factors(view) for view in range(len(self.usable))]
        matrices = self.reconstruction.intrinsics
        return np.stack([scale_intrinsics(k, 1 / x, 1 / y) for k, (x, y) in zip(matrices, factors, strict=True)])

    def _factors(self, view):
        """Size of the teacher's picture over that of the original, along x and y."""
        (height, width), (original_width, original_height) = self.usable[view].shape, self.image_sizes[view]
        return width / original_width, height / original_height

    def confidence_at(self, view: int, pixel) -> float:
        """The teacher's confidence at a pixel (x, y) of an original picture."""
        confidence = self.reconstruction.confidence[view]
        x, y = np.floor(scale_pixels(np.asarray(pixel, np.float64), *self._factors(view)) + 0.5).astype(int)
        return float(confidence[np.clip(y, 0, len(confidence) - 1), np.clip(x, 0, confidence.shape[1] - 1)])


def find_label_pixels(
    reconstruction: Reconstruction,
    image_sizes: list[tuple[int, int]],
    confidence_threshold: float | None = None,
    confidence_percentile: float = 50.0,
    edge_tolerance: float = 0.05,
    max_head_gap: float | None = None,
    contradicted: list[np.ndarray] | None = None,
) -> LabelPixels:
    """Decide which pixels are sure, and which of them lie on no depth edge.

    Args:
        reconstruction (`Reconstruction`): depth, confidence and cameras.
        image_sizes (`list[tuple[int, int]]`): width and height of each picture, in pixels.
        confidence_threshold (`float`, *optional*): lowest confidence; None takes the percentile.
        confidence_percentile (`float`, defaults to 50): share of the pixels with depth that are too unsure, over all
            views, in percent.
        edge_tolerance (`float`, defaults to 0.05): bend of the inverse depth at an edge, see `depth_edges`.
        max_head_gap (`float`, *optional*): largest distance of the teacher's point map from the point by depth and
            camera, relative to the depth; needs a teacher with a point head.
        contradicted (`list[np.ndarray]` of bool, shape `(h, w)`, *optional*): pixels that other views contradict,
            see `compare_views`; they are never used.
    Returns:
        `LabelPixels`.
    Raises:
        ValueError: if no pixel has depth, none reaches the threshold, none is left, the percentile is outside 0..100,
            or a gap is asked for without a point head.
    """
    if max_head_gap is not None and reconstruction.world_points is None:
        raise ValueError(f"max_head_gap is {max_head_gap}, but this teacher gives no world_points; leave it out.")
    threshold = find_confidence_threshold(reconstruction, confidence_threshold, confidence_percentile)
    reasons_not_to = ("no_depth", "low_confidence", "heads_disagree", "views_disagree", "depth_edge")
    counts = dict.fromkeys(("total", *reasons_not_to, "usable"), 0)
    sure, usable = [], []
    for view, (depth, confidence) in enumerate(zip(reconstruction.depth, reconstruction.confidence, strict=True)):
        left = np.ones(depth.shape, dtype=bool)
        counts["total"] += left.size
        reasons = {"no_depth": depth <= 0, "low_confidence": confidence < threshold}
        if max_head_gap is not None:
            gap = np.linalg.norm(reconstruction.points(view) - reconstruction.world_points[view], axis=-1)
            reasons["heads_disagree"] = ~(gap <= max_head_gap * depth)
        if contradicted is not None:
            reasons["views_disagree"] = contradicted[view]
        for reason, is_bad in reasons.items():
            counts[reason] += int((left & is_bad).sum())
            left &= ~is_bad
        sure.append(left)
        usable.append(left & ~depth_edges(depth, edge_tolerance))
        counts["usable"] += int(usable[view].sum())
        counts["depth_edge"] += int(left.sum()) - int(usable[view].sum())
    if not counts["usable"]:
        raise ValueError(f"no pixel can be used: {counts}. Raise edge_tolerance, or lower the confidence threshold.")
    return LabelPixels(reconstruction, list(image_sizes), threshold, sure, usable, counts)


def find_sure_pixels(
    reconstruction: Reconstruction, threshold: float | None = None, percentile: float = 50.0
) -> list[np.ndarray]:
    """The pixels with depth of each view, `(h, w)`, that reach `find_confidence_threshold`; raises as it does."""
    least = find_confidence_threshold(reconstruction, threshold, percentile)
    pairs = zip(reconstruction.depth, reconstruction.confidence, strict=True)
    return [(depth > 0) & (confidence >= least) for depth, confidence in pairs]


def find_confidence_threshold(
    reconstruction: Reconstruction, threshold: float | None = None, percentile: float = 50.0
) -> float:
    """Return the lowest confidence of a sure pixel: the one that is given, or by percentile of the pixels with depth.

    Raises:
        ValueError: if no pixel has depth, none reaches the threshold, or the percentile is outside 0..100.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"confidence_percentile is {percentile}; expected 0 to 100.")
    known = [depth > 0 for depth in reconstruction.depth]
    sure = np.concatenate([part[mask] for part, mask in zip(reconstruction.confidence, known, strict=True)])
    if not len(sure):
        raise ValueError("the teacher gives no pixel a depth; expected depth above 0 somewhere.")
    if threshold is None:
        threshold = float(np.percentile(sure, percentile))
    if not (sure >= threshold).any():
        raise ValueError(
            f"no pixel reaches the confidence threshold {threshold:.4g}: the teacher's highest is {sure.max():.4g}, "
            f"the median {np.median(sure):.4g}. Lower confidence_threshold, or use confidence_percentile instead."
        )
    return float(threshold)
