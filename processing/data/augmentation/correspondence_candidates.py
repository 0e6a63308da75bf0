"""Objects and places that several views show, as candidates for Coarse Correspondences marks.

Three sources: instance-id maps, given pixels (points that share an instance id, or tracks), and geometry (depth and
poses, with a check that nothing stands in front). Which of them are marked is decided in coarse_correspondences.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...camera_geometry_gap_mllm import project_points, transform_points
from ..record_errors import RecordError
from ..scene_sample import SceneSample
from .visible_boxes import depth_camera


GRID_CELLS = 16  # a side: where places are looked for in each view
DEPTH_TOLERANCE = 0.03  # of the depth: a measured surface that near is the same
PLACE_GAP_M = 0.3  # marked places are that far apart


@dataclass(eq=False)
class Candidate:
    """Something that may be marked.

    Args:
        key (`str`): instance id, track number or name of a place.
        label (`str`, *optional*)
        weights (`dict[int, float]`): how well each view that shows it does so (share of the picture, or 1).
        pixels (`dict[int, tuple[int, int]]`): its place in these views, where that is one pixel.
        masks (`dict[int, np.ndarray]`): or its pixels in these views, `(H, W)` bool.
        xyz (`np.ndarray` of shape `(3,)`, *optional*): its place in space, in the camera of the first view with
            depth, in metres.
    """

    key: str
    label: str | None = None
    weights: dict[int, float] = field(default_factory=dict)
    pixels: dict[int, tuple[int, int]] = field(default_factory=dict)
    masks: dict[int, np.ndarray] = field(default_factory=dict)
    xyz: np.ndarray | None = None


def instance_candidates(sample: SceneSample, instance_ids: Sequence) -> list[Candidate]:
    """Return every instance of the id maps; labels come from boxes and points that carry its id.

    Args:
        sample (`SceneSample`)
        instance_ids (sequence of `np.ndarray` of shape `(H, W)`, whole numbers): one map for each view, of the size of
            its picture; 0 and below is background.
    Returns:
        `list[Candidate]`.
    Raises:
        ValueError: if there is not one map of whole numbers and of the right size for each view.
    """
    if instance_ids is None or len(instance_ids) != len(sample.views):
        count = "none" if instance_ids is None else len(instance_ids)
        raise ValueError(f"instance_ids holds {count} maps for {len(sample.views)} views; give one for each.")
    labels = {part.instance_id: part.label for part in (*sample.points, *sample.boxes) if part.instance_id}
    found: dict[int, Candidate] = {}
    for view, ids in enumerate(np.asarray(entry) for entry in instance_ids):
        size = sample.views[view].image.size
        if ids.shape != size[::-1] or ids.dtype.kind not in "iu":
            raise ValueError(
                f"instance_ids[{view}] is {ids.dtype} of shape {ids.shape}; expected whole numbers of shape "
                f"{size[::-1]}."
            )
        for number, count in zip(*np.unique(ids, return_counts=True), strict=True):
            if number <= 0:
                continue
            candidate = found.setdefault(int(number), Candidate(str(number), labels.get(str(number))))
            candidate.weights[view] = count / ids.size
            candidate.masks[view] = ids == number
    return list(found.values())


def point_candidates(sample: SceneSample) -> list[Candidate]:
    """Return the places that points with a common instance id mark; of several in one view the surest is taken."""
    found: dict[str, Candidate] = {}
    by_confidence = sorted(sample.points, key=lambda point: -(1.0 if point.confidence is None else point.confidence))
    for point in by_confidence:
        if point.instance_id is None or point.view is None or point.pixel is None:
            continue
        candidate = found.setdefault(point.instance_id, Candidate(point.instance_id, point.label))
        if point.view not in candidate.pixels:
            candidate.pixels[point.view] = _whole_pixel(point.pixel)
            candidate.weights[point.view] = 1.0
    return list(found.values())


def track_candidates(sample: SceneSample, tracks: Sequence) -> list[Candidate]:
    """Return the tracks.

    Args:
        sample (`SceneSample`)
        tracks (sequence of `dict[int, pair]`, or a dict from a label to one): pixel (x, y) for every view that shows
            the tracked thing.
    Returns:
        `list[Candidate]`.
    Raises:
        ValueError: if there are none, a view is not there, or a pixel lies outside its picture.
    """
    if not tracks:
        raise ValueError("tracks is empty; expected {view: (x, y)} for each tracked thing.")
    named = tracks.items() if isinstance(tracks, dict) else [(None, track) for track in tracks]
    found = []
    for number, (label, track) in enumerate(named):
        pixels = {}
        for view, pixel in track.items():
            if not 0 <= view < len(sample.views):
                raise ValueError(f"track {number} names view {view} of {len(sample.views)} views.")
            size = sample.views[view].image.size
            if not (-0.5 <= pixel[0] < size[0] - 0.5 and -0.5 <= pixel[1] < size[1] - 0.5):
                raise ValueError(f"track {number}: pixel {tuple(pixel)} lies outside view {view} of {size} pixels.")
            pixels[view] = _whole_pixel(pixel)
        found.append(Candidate(str(number), label, dict.fromkeys(pixels, 1.0), pixels))
    return found


def surface_candidates(sample: SceneSample, radii: Sequence[float]) -> list[Candidate]:
    """Return places on surfaces that several views see, found by depth and poses.

    A place counts as seen where the depth measured there agrees with its distance, so that nothing stands in front.
    Pixels nearer to a depth edge than a disc reaches are left out: a mark there would be ambiguous.
    Frame: `xyz` in the camera of the first view with depth. Units: metres; pixels with integer centres.
    Source: our choice; the paper takes tracked objects.

    Args:
        sample (`SceneSample`): views with depth maps, intrinsics and poses.
        radii (sequence of `int`): radii of the discs in each view, in pixels of its picture.
    Returns:
        `list[Candidate]`: those that two views or more see.
    Raises:
        RecordError: if no two views have all of them.
    """
    cameras = {}
    for index, view in enumerate(sample.views):
        if view.depth_m is not None and view.intrinsics is not None and view.camera_to_world is not None:
            cameras[index] = _SurfaceView(sample, index, radii[index])
    if len(cameras) < 2:
        raise RecordError(
            f"{len(cameras)} of {len(sample.views)} views have depth, intrinsics and a pose; two are needed.",
            "views",
            record_id=sample.id,
        )
    found = []
    first = min(cameras)
    for camera in cameras.values():
        pixels, points = camera.places()
        seen = {index: other.see(camera, points) for index, other in cameras.items() if other is not camera}
        for place in range(len(pixels)):
            spots = {camera.index: _whole_pixel(pixels[place])}
            spots |= {index: _whole_pixel(at[place]) for index, (at, is_seen) in seen.items() if is_seen[place]}
            if len(spots) > 1:
                xyz = transform_points(sample.frame_to_camera("camera", camera.index, first), points[place])
                name = f"view {camera.index}, pixel {spots[camera.index]}"
                found.append(Candidate(name, None, dict.fromkeys(spots, 1.0), spots, xyz=xyz))
    return found


class _SurfaceView:
    """A view with depth and pose; points are in its own camera."""

    def __init__(self, sample: SceneSample, index: int, radius):
        self.sample, self.index, self.view = sample, index, sample.views[index]
        self.intrinsics, self.depth = self.view.intrinsics, self.view.depth_m.astype(np.float64)
        self.depth_intrinsics = depth_camera(self.view)
        reach = int(np.ceil(radius * self.depth.shape[1] / self.view.image.width))
        self.is_edge = square_cover(_depth_edges(self.depth), reach) > 0

    def places(self):
        """Pixels on a grid with a clear depth, `(n, 2)`, and the points that they see, `(n, 3)`."""
        width, height = self.view.image.size
        xs, ys = (
            np.unique(((np.arange(GRID_CELLS) + 0.5) * side / GRID_CELLS).astype(int)) for side in (width, height)
        )
        pixels = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)
        rays = np.c_[pixels, np.ones(len(pixels))] @ np.linalg.inv(self.intrinsics).T
        depth, is_clear = self._measure(rays)
        return pixels[is_clear], (rays * depth[:, None])[is_clear]

    def see(self, other, points: np.ndarray):
        """Where this view sees points of another one, `(n, 2)`, and whether it does, `(n,)`."""
        here = transform_points(self.sample.frame_to_camera("camera", other.index, self.index), points)
        pixels, depth = project_points(here, self.intrinsics)
        width, height = self.view.image.size
        with np.errstate(invalid="ignore"):
            is_inside = ((pixels > -0.5) & (pixels < [width - 0.5, height - 0.5])).all(-1)
            measured, is_clear = self._measure(np.where(is_inside[:, None], here, [0.0, 0.0, 1.0]))
            is_near = np.abs(measured - depth) < DEPTH_TOLERANCE * depth
        return np.where(is_inside[:, None], pixels, 0), is_inside & is_clear & is_near

    def _measure(self, points):
        """The measured z-depth in the direction of points, and whether there is one that is clear."""
        pixels = np.rint(project_points(points, self.depth_intrinsics)[0])
        height, width = self.depth.shape
        is_inside = ((pixels >= 0) & (pixels < [width, height])).all(-1)
        columns, rows = np.where(is_inside[:, None], pixels, 0).astype(int).T
        depth = self.depth[rows, columns]
        return depth, is_inside & (depth > 0) & ~self.is_edge[rows, columns]


def square_cover(mask: np.ndarray, radius: int) -> np.ndarray:
    """For every pixel the share of the square of that radius around it that lies in the mask, `(H, W)`."""
    side = 2 * radius + 1
    sums = np.pad(mask, ((radius + 1, radius), (radius + 1, radius))).cumsum(0, dtype=np.int64).cumsum(1)
    return (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2


def _depth_edges(depth):
    """Pixels beside which the depth jumps or is missing, `(H, W)` bool."""
    padded = np.pad(depth, 1, mode="edge")
    around = np.stack([padded[1 + y : 1 + y + depth.shape[0], 1 + x : 1 + x + depth.shape[1]] for y, x in _AROUND])
    return (around <= 0).any(0) | (around.max(0) - around.min(0) > 0.1 * np.maximum(depth, 1e-6))


_AROUND = ((0, -1), (0, 1), (-1, 0), (1, 0), (0, 0))


def _whole_pixel(pixel) -> tuple[int, int]:
    return int(np.rint(pixel[0])), int(np.rint(pixel[1]))
