"""The cameras and depth maps of a scene: which point a colour pixel sees, and which pixels see something clearly.

Depth maps may have another size than the pictures, with intrinsics of their own; both share one camera centre.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...camera_geometry_gap_mllm import invert_rigid, project_points, scale_intrinsics, transform_points
from ..depth_edges import depth_edges
from ..instance_maps import InstanceMap
from ..scene_sample import SceneSample, View
from .margins import TaskMargins


GRID_PIXELS = 20_000  # visibility is counted on about so many pixels of a view
SAME_SURFACE = 1.15  # largest ratio of the depths of neighbours that are interpolated
SAME_ASPECT = 0.02  # a depth map without intrinsics is the resized view of the colour camera: sides agree so far


@dataclass(frozen=True, eq=False)
class SceneCamera:
    """One view with a pose.

    Frame: points in the camera of view 0, OpenCV axes. Units: metres; colour pixels (x, y) with integer centres.

    Args:
        index (`int`): number of the view.
        size (`tuple[int, int]`): width and height of the upright picture.
        intrinsics (`np.ndarray` of shape `(3, 3)`): intrinsics of the picture.
        to_first (`np.ndarray` of shape `(4, 4)`): transform from this camera to that of view 0.
        depth_m (`np.ndarray` of shape `(H, W)`, *optional*): z-depth, 0 where nothing was measured.
        depth_intrinsics (`np.ndarray` of shape `(3, 3)`, *optional*): intrinsics of the depth map.
        margins (`TaskMargins`)
        instances (`InstanceMap`, *optional*): instance map of the picture, where the source has it.
    """

    index: int
    size: tuple[int, int]
    intrinsics: np.ndarray
    to_first: np.ndarray
    depth_m: np.ndarray | None
    depth_intrinsics: np.ndarray | None
    margins: TaskMargins
    instances: InstanceMap | None = None

    @property
    def center(self) -> np.ndarray:
        """Where the camera is, `(3,)`."""
        return self.to_first[:3, 3]

    @cached_property
    def from_first(self) -> np.ndarray:
        """From the camera of view 0 to this one, `(4, 4)`."""
        return invert_rigid(self.to_first)

    @cached_property
    def stride(self) -> int:
        """Distance in pixels between the pixels that visibility is counted on."""
        return max(1, int(np.ceil(np.sqrt(self.size[0] * self.size[1] / GRID_PIXELS))))

    @cached_property
    def grid(self) -> np.ndarray:
        """These pixels, `(h, w, 2)`, float64."""
        return np.stack(np.meshgrid(*self._grid_lines), -1)

    @cached_property
    def _grid_lines(self):
        return [np.arange(self.stride // 2, side, self.stride, dtype=np.float64) for side in self.size]

    @cached_property
    def grid_points(self) -> np.ndarray:
        """What they see, `(h, w, 3)`; NaN where nothing was measured."""
        return self.points_at(self.grid)

    @cached_property
    def grid_measured(self) -> np.ndarray:
        """Whether their depth was measured, `(h, w)` bool."""
        return self._on_grid(self.depth_m) > 0 if self._is_aligned else ~np.isnan(self.depth_at(self.grid))

    @cached_property
    def grid_markable(self) -> np.ndarray:
        """Which of them may be marked, `(h, w)` bool."""
        if self.depth_m is None or not self._is_aligned:
            return self.is_markable(self.grid)
        in_x, in_y = map(self._is_between, self._grid_lines, self.size, [self.margins.border_share] * 2)
        depth = self._on_grid(self.depth_m)
        in_range = (depth >= self.margins.near_m) & (depth <= self.margins.far_m)
        has_map = self.instances is not None
        is_clear = self.on_grid_of_map(self._inner_instances) if has_map else self._on_grid(self._smooth_depth)
        return in_range & is_clear & in_x & in_y[:, None]

    def _on_grid(self, values):
        """The values of an array of the picture's size at the pixels of the grid."""
        return values[self.stride // 2 :: self.stride, self.stride // 2 :: self.stride]

    def on_grid_of_map(self, values: np.ndarray) -> np.ndarray:
        """The values of an array of the instance map's size at the pixels of the grid, `(h, w)`."""
        is_of_picture = values.shape[::-1] == self.size
        return self._on_grid(values) if is_of_picture else values[self.instances.places(self.grid, self.size)]

    def rays(self, pixels) -> np.ndarray:
        """Directions with z = 1 in this camera, `(..., 3)`."""
        k = self.intrinsics
        y = (pixels[..., 1] - k[1, 2]) / k[1, 1]
        x = (pixels[..., 0] - k[0, 2] - k[0, 1] * y) / k[0, 0]
        return np.stack([x, y, np.ones_like(x)], -1)

    @cached_property
    def _is_aligned(self) -> bool:
        """Whether each depth pixel is the colour pixel of the same place."""
        return self.depth_m.shape[::-1] == self.size and np.array_equal(self.depth_intrinsics, self.intrinsics)

    def _depth_pixels(self, pixels):
        """The depth pixels (column, row) that are nearest to colour pixels, and whether they lie inside the map."""
        exact = pixels if self._is_aligned else (self.rays(pixels) @ self.depth_intrinsics.T)[..., :2]
        found = np.rint(exact).astype(np.int64)
        height, width = self.depth_m.shape
        column, row = found[..., 0], found[..., 1]
        is_inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        return np.clip(found, 0, (width - 1, height - 1)), is_inside

    def depth_at(self, pixels) -> np.ndarray:
        """The z-depth that colour pixels `(..., 2)` see, `(...)`; NaN where nothing was measured.

        Between depth pixels of one surface the inverse depth is interpolated, which is exact on planes; elsewhere the
        nearest depth pixel counts.
        """
        if self.depth_m is None:
            return np.full(pixels.shape[:-1], np.nan)
        places, is_inside = self._depth_pixels(pixels)
        nearest = self.depth_m[places[..., 1], places[..., 0]].astype(np.float64)
        if self._is_aligned and (places == pixels).all(-1)[is_inside].all():  # nothing lies between depth pixels
            return np.where(is_inside & (nearest > 0), nearest, np.nan)
        exact = (self.rays(pixels) @ self.depth_intrinsics.T)[..., :2]
        height, width = self.depth_m.shape
        corner = np.clip(np.floor(exact), 0, (max(width - 2, 0), max(height - 2, 0))).astype(np.int64)
        share = np.clip(exact - corner, 0, 1)
        columns = np.stack([corner[..., 0], np.minimum(corner[..., 0] + 1, width - 1)], -1)
        rows = np.stack([corner[..., 1], np.minimum(corner[..., 1] + 1, height - 1)], -1)
        around = self.depth_m[rows[..., :, None], columns[..., None, :]].astype(np.float64)  # (..., 2, 2)
        is_one_surface = around.max((-2, -1)) <= SAME_SURFACE * around.min((-2, -1))  # never where one is 0
        weights = np.stack([1 - share, share], -2)  # (..., 2, xy)
        with np.errstate(divide="ignore", invalid="ignore"):
            between = 1 / np.einsum("...r,...c,...rc->...", weights[..., 1], weights[..., 0], 1 / around)
            depth = np.where(is_one_surface & (nearest > 0), between, nearest)
        return np.where(is_inside & (nearest > 0), depth, np.nan)

    def points_at(self, pixels) -> np.ndarray:
        """The points that colour pixels `(..., 2)` see, `(..., 3)`; NaN where nothing was measured."""
        return transform_points(self.to_first, self.rays(pixels) * self.depth_at(pixels)[..., None])

    def project(self, points) -> tuple[np.ndarray, np.ndarray]:
        """The colour pixels `(..., 2)` and z-depths `(...)` of points; NaN pixels for those behind the camera."""
        return project_points(transform_points(self.from_first, points), self.intrinsics)

    def is_inside(self, pixels, border: float = 0.0) -> np.ndarray:
        """Whether pixels lie in the picture, and no nearer to its border than this share of its sides."""
        width, height = self.size
        return self._is_between(pixels[..., 0], width, border) & self._is_between(pixels[..., 1], height, border)

    @staticmethod
    def _is_between(at, side, border):
        with np.errstate(invalid="ignore"):
            return (at >= border * side - 0.5) & (at <= side - 0.5 - border * side)

    def instances_at(self, pixels) -> np.ndarray:
        """What colour pixels `(..., 2)` show by the instance map, `(...)` ids; only where there is one."""
        return self.instances.ids_at(pixels, self.size)

    def label_at(self, pixel) -> str | None:
        """The label of what a colour pixel shows by the instance map; None without one."""
        return None if self.instances is None else self.instances.label_of(self.instances_at(pixel))

    @cached_property
    def _inner_instances(self) -> np.ndarray:
        return self.instances.inner()

    @cached_property
    def _smooth_depth(self) -> np.ndarray:
        """Depth pixels that are not near an edge, `(H, W)` bool."""
        smooth = ~depth_edges(self.depth_m, self.margins.edge_bend)  # looks two pixels far
        for _ in range(round(self.margins.edge_share * self.depth_m.shape[1]) - 2):
            smooth = np.pad(smooth, 1)
            smooth = smooth[1:-1, 1:-1] & smooth[:-2, 1:-1] & smooth[2:, 1:-1] & smooth[1:-1, :-2] & smooth[1:-1, 2:]
        return smooth

    def is_markable(self, pixels) -> np.ndarray:
        """Whether colour pixels `(..., 2)` may be marked: measured, in range, away from edges and the border.

        Edges are those of the instance map where there is one, else those of the depth map.
        """
        if self.depth_m is None:
            return np.zeros(pixels.shape[:-1], dtype=bool)
        places, is_inside = self._depth_pixels(pixels)
        depth = self.depth_m[places[..., 1], places[..., 0]]
        in_range = (depth >= self.margins.near_m) & (depth <= self.margins.far_m)
        if self.instances is None:
            is_clear = self._smooth_depth[places[..., 1], places[..., 0]]
        else:
            is_clear = self._inner_instances[self.instances.places(pixels, self.size)]
        return is_inside & in_range & is_clear & self.is_inside(pixels, self.margins.border_share)


def _depth_camera(view: View, size):
    """Depth map and its intrinsics; None where the view has none, or none that is known to belong to the picture."""
    depth = view.depth_m
    if depth is None or not (depth > 0).any():
        return None, None
    if view.depth_intrinsics is not None:
        return depth, np.asarray(view.depth_intrinsics, np.float64)
    scale_y, scale_x = depth.shape[0] / size[1], depth.shape[1] / size[0]
    if abs(scale_x / scale_y - 1) > SAME_ASPECT:
        return None, None
    return depth, scale_intrinsics(np.asarray(view.intrinsics, np.float64), scale_x, scale_y)


def scene_cameras(sample: SceneSample, margins: TaskMargins) -> list[SceneCamera | None]:
    """Return the camera of each view; None for views without pose or intrinsics.

    Depth maps without a single reading count as none. A depth map without intrinsics is taken for the resized view of
    the colour camera if its sides have the same ratio, and for none otherwise.
    Frame: relative to the camera of view 0. Units: metres.

    Args:
        sample (`SceneSample`)
        margins (`TaskMargins`)
    Returns:
        `list` of `SceneCamera` or None; all None if view 0 has no pose.
    Raises:
        RecordError: if a picture or depth map cannot be decoded.
        ValueError: if a pose is not rigid.
    """
    if not sample.views or sample.views[0].camera_to_world is None:
        return [None] * len(sample.views)
    world_to_first = invert_rigid(sample.views[0].camera_to_world)
    cameras = []
    for index, view in enumerate(sample.views):
        if view.camera_to_world is None or view.intrinsics is None:
            cameras.append(None)
            continue
        size = view.size
        depth, depth_intrinsics = _depth_camera(view, size)
        to_first = np.eye(4) if index == 0 else world_to_first @ view.camera_to_world
        intrinsics = np.asarray(view.intrinsics, np.float64)
        known = (intrinsics, to_first, depth, depth_intrinsics)
        cameras.append(SceneCamera(index, size, *known, margins, view.instances))
    return cameras
