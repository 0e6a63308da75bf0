"""Which pixels of a reconstruction are sure enough to be asked about, what they see, and where other views see it.

A pixel can be used where the teacher is confident and the depth has no edge: between a chair and the wall behind it a
mark is ambiguous and an interpolated depth is neither. Questions are made of these pixels in questions.py.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...camera_geometry_gap_mllm import invert_rigid, project_points, scale_intrinsics, scale_pixels, transform_points
from .depth_teacher import Reconstruction
from .teacher_windows import scene_size


NUM_DRAWS = 12  # candidates of which the one farthest from earlier marks is taken
MARK_ARM = 10  # pixels to each side of a cross, see `draw_cross`


@dataclass(frozen=True)
class SeenPoint:
    """A place of the scene and a view that sees it.

    Frame: world of the reconstruction. Units: those of the reconstruction; pixels (x, y) of the original picture with
    integer centres.
    """

    view: int
    pixel: tuple[float, float]
    xyz: np.ndarray
    depth: float
    confidence: float


@dataclass(frozen=True)
class LabelPixels:
    """A reconstruction, the pixels that can be used, and the pictures it was made of.

    Args:
        reconstruction (`Reconstruction`)
        image_sizes (`list[tuple[int, int]]`): width and height of the original pictures.
        threshold (`float`): lowest confidence of a usable pixel.
        usable (`list[np.ndarray]` of bool, shape `(h, w)`): at the teacher's size.
        counts (`dict[str, int]`): pixels in all, of each reason not to use one (the first that applies), and usable.
        contradicted (`list[np.ndarray]` of bool, shape `(h, w)`, *optional*): see `compare_views`.
    """

    reconstruction: Reconstruction
    image_sizes: list[tuple[int, int]]
    threshold: float
    usable: list[np.ndarray]
    counts: dict[str, int]
    contradicted: list[np.ndarray] | None = None

    def sure(self, view: int) -> np.ndarray:
        """The pixels of a view `(h, w)` whose depth is stored: confident, and not contradicted; edges included."""
        is_sure = self.reconstruction.confidence[view] >= self.threshold
        return is_sure if self.contradicted is None else is_sure & ~self.contradicted[view]

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

    def see(self, view: int, pixel) -> SeenPoint | None:
        """What one pixel of an original picture sees, or None where it cannot be used.

        Inverse depth is interpolated: on a plane that is exact at every pixel.

        Args:
            view (`int`), pixel (pair of `float`): x and y in the original picture, whole or not.
        """
        x, y = scale_pixels(np.asarray(pixel, dtype=np.float64), *self._factors(view))
        row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
        usable, depth = self.usable[view], self.reconstruction.depth[view]
        if not (0 <= row < usable.shape[0] and 0 <= column < usable.shape[1] and usable[row, column]):
            return None
        z = _interpolate_depth(depth, x, y)
        k = self.reconstruction.intrinsics[view]
        ray_y = (y - k[1, 2]) / k[1, 1]
        ray = np.array([(x - k[0, 2] - k[0, 1] * ray_y) / k[0, 0], ray_y, 1.0])
        xyz = transform_points(self.reconstruction.camera_to_world[view], z * ray)
        confidence = float(self.reconstruction.confidence[view][row, column])
        return SeenPoint(view, (float(pixel[0]), float(pixel[1])), xyz, z, confidence)

    def has_margin(self, view: int, pixels) -> np.ndarray:
        """Whether a cross on pixels `(..., 2)` lies in the picture as a whole, or an eighth of it from the edge."""
        size = np.array(self.image_sizes[view])
        margin = np.minimum(MARK_ARM, size // 8)
        pixels = np.asarray(pixels)
        return ((pixels >= margin) & (pixels <= size - 1 - margin)).all(-1)

    def draw(self, view: int, rng: np.random.Generator, taken=()) -> SeenPoint | None:
        """Draw a usable pixel of a view for a mark: with room for a cross, away from pixels that were taken before.

        Args:
            view (`int`), rng (`np.random.Generator`), taken (list of pairs): pixels of this view.
        Returns:
            `SeenPoint`, or None if the view has no usable pixel.
        """
        pixels = self._mark_pixels[view]
        if not len(pixels):
            return None
        pixels = pixels[rng.integers(len(pixels), size=NUM_DRAWS)]
        if len(taken):
            distance = np.linalg.norm(pixels[:, None] - np.asarray(taken, dtype=np.float64), axis=-1).min(-1)
            pixels = pixels[np.argsort(-distance, kind="stable")]
        for pixel in pixels:  # a picture smaller than the teacher's rounds some onto pixels that cannot be used
            point = self.see(view, pixel)
            if point is not None:
                return point
        return None

    @cached_property
    def _mark_pixels(self):
        """For each view the whole pixels (x, y) of the picture that are nearest to usable ones and have room."""
        found = []
        for view, mask in enumerate(self.usable):
            factor_x, factor_y = self._factors(view)
            pixels = np.floor(scale_pixels(np.argwhere(mask)[:, ::-1], 1 / factor_x, 1 / factor_y) + 0.5)
            found.append(pixels[self.has_margin(view, pixels)])
        return found

    def match(
        self, point: SeenPoint, view: int, depth_tolerance: float = 0.05, reprojection_px: float = 1.5
    ) -> tuple[SeenPoint | None, str | None]:
        """Find a point in another view, and check that this view sees the same place.

        Args:
            point (`SeenPoint`), view (`int`): another view than the point's.
            depth_tolerance (`float`): how much the depths may differ, relative to the depth.
            reprojection_px (`float`): how far what the view sees there may land from the point's own pixel, in pixels
                of the teacher's picture.
        Returns:
            `tuple` of the `SeenPoint` (the place of `point`; the lower confidence of both) and None; or None and the
            reason: "behind_camera", "outside_picture", "unusable_pixel", "depth_disagrees" or "reprojection_off".
        """
        poses = self.reconstruction.camera_to_world
        pixel, depth = project_points(transform_points(invert_rigid(poses[view]), point.xyz), self.intrinsics[view])
        if not depth > 0:
            return None, "behind_camera"
        if not ((pixel >= 0) & (pixel <= np.array(self.image_sizes[view]) - 1)).all():
            return None, "outside_picture"
        seen = self.see(view, pixel)
        if seen is None:
            return None, "unusable_pixel"
        if abs(seen.depth - depth) > depth_tolerance * depth:
            return None, "depth_disagrees"
        back, z = project_points(
            transform_points(invert_rigid(poses[point.view]), seen.xyz), self.intrinsics[point.view]
        )
        offset = (back - np.asarray(point.pixel)) * self._factors(point.view)
        if not (z > 0 and np.hypot(*offset) <= reprojection_px):
            return None, "reprojection_off"
        return SeenPoint(view, seen.pixel, point.xyz, float(depth), min(point.confidence, seen.confidence)), None


def find_label_pixels(
    reconstruction: Reconstruction,
    image_sizes: list[tuple[int, int]],
    confidence_threshold: float | None = None,
    confidence_percentile: float = 50.0,
    edge_tolerance: float = 0.05,
    max_head_gap: float | None = None,
    contradicted: list[np.ndarray] | None = None,
) -> LabelPixels:
    """Decide which pixels can be used.

    Args:
        reconstruction (`Reconstruction`), image_sizes (`list[tuple[int, int]]`): width and height of each picture.
        confidence_threshold (`float`, *optional*): lowest confidence; None takes the percentile.
        confidence_percentile (`float`): share of the pixels with depth that are too unsure, over all views.
        edge_tolerance (`float`): see `depth_edges`.
        max_head_gap (`float`, *optional*): largest distance of the teacher's point map from the point by depth and
            camera, relative to the depth; needs a teacher with a point head.
        contradicted (`list[np.ndarray]` of bool, shape `(h, w)`, *optional*): pixels that other views contradict, of
            `compare_views`; they are never used.
    Returns:
        `LabelPixels`.
    Raises:
        ValueError: if no pixel has depth, none reaches the threshold, none is left, the percentile is outside 0..100,
            or a gap is asked for without a point head.
    """
    if max_head_gap is not None and reconstruction.world_points is None:
        raise ValueError(f"max_head_gap is {max_head_gap}, but this teacher gives no world_points; leave it out.")
    threshold = find_confidence_threshold(reconstruction, confidence_threshold, confidence_percentile)
    reasons_not_to = ("no_depth", "low_confidence", "depth_edge", "heads_disagree", "views_disagree")
    counts = dict.fromkeys(("total", *reasons_not_to, "usable"), 0)
    usable = []
    for view, (depth, confidence) in enumerate(zip(reconstruction.depth, reconstruction.confidence, strict=True)):
        left = np.ones(depth.shape, dtype=bool)
        counts["total"] += left.size
        reasons = {"no_depth": depth <= 0, "low_confidence": confidence < threshold}
        reasons["depth_edge"] = depth_edges(depth, edge_tolerance)
        if max_head_gap is not None:
            gap = np.linalg.norm(reconstruction.points(view) - reconstruction.world_points[view], axis=-1)
            reasons["heads_disagree"] = ~(gap <= max_head_gap * depth)
        if contradicted is not None:
            reasons["views_disagree"] = contradicted[view]
        for reason, is_bad in reasons.items():
            counts[reason] += int((left & is_bad).sum())
            left &= ~is_bad
        counts["usable"] += int(left.sum())
        usable.append(left)
    if not counts["usable"]:
        raise ValueError(f"no pixel can be used: {counts}. Raise edge_tolerance, or lower the confidence threshold.")
    return LabelPixels(reconstruction, list(image_sizes), threshold, usable, counts, contradicted)


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


def depth_edges(depth: np.ndarray, tolerance: float) -> np.ndarray:
    """Tell which pixels lie at a depth edge: they, or one of their eight neighbours, bend in inverse depth.

    Inverse depth of a plane is linear over the picture, however slanted, so its second difference tells a jump from a
    slope. Pixels at the border, or beside one without depth, count as edges: they cannot be judged.

    Args:
        depth (`np.ndarray` of shape `(H, W)`): z-depth; 0 is no measurement.
        tolerance (`float`): of the second difference, relative to the inverse depth; 0.05 finds jumps of 5 %.
    Returns:
        bool `np.ndarray` of shape `(H, W)`.
    """
    inverse = np.where(depth > 0, 1.0 / np.where(depth > 0, depth, 1.0), np.nan)
    bend = np.full(depth.shape, np.nan)
    middle = inverse[1:-1, 1:-1]
    across = np.abs(inverse[1:-1, :-2] - 2 * middle + inverse[1:-1, 2:])
    down = np.abs(inverse[:-2, 1:-1] - 2 * middle + inverse[2:, 1:-1])
    bend[1:-1, 1:-1] = np.maximum(across, down) / middle
    is_flat = np.pad(bend <= tolerance, 1)  # NaN is not flat
    height, width = depth.shape
    shifts = [is_flat[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return ~np.logical_and.reduce(shifts)


def _interpolate_depth(depth, x, y):
    """Depth at one place (x, y), whose neighbours all have one."""
    height, width = depth.shape
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    a, b = x - left, y - top
    inverse = 1.0 / depth[top : top + 2, left : left + 2].astype(np.float64)
    return float(1.0 / (np.array([1 - b, b]) @ inverse @ np.array([1 - a, a])))


__all__ = [
    "LabelPixels",
    "SeenPoint",
    "depth_edges",
    "find_confidence_threshold",
    "find_label_pixels",
    "find_sure_pixels",
]
