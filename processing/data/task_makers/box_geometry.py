"""Boxes against rays, points and each other: entry and exit depths, membership, the gap between two boxes.

Boxes are given by middle, half sizes and rotation, so that no Euler order matters. Units: metres.
"""

from functools import reduce
from itertools import product
from typing import NamedTuple

import numpy as np

from ...camera_geometry_gap_mllm import BOX_CORNER_SIGNS, euler_to_matrix, matrix_to_euler


_SIGNS = np.array(BOX_CORNER_SIGNS)
_EDGES = np.array([(a, b) for a, b in product(range(8), repeat=2) if a < b and (_SIGNS[a] != _SIGNS[b]).sum() == 1])
_EDGE_PAIRS = np.stack([_EDGES.repeat(12, 0), np.tile(_EDGES, (12, 1))])  # (2, 144, 2)

AROUND_M = 0.3  # how far around a side its surroundings are looked at
MIN_AROUND = 8  # points that these take at least


class Solid(NamedTuple):
    """A box: middle `(3,)`, half sizes `(3,)` and rotation `(3, 3)` whose columns are its axes."""

    center: np.ndarray
    half: np.ndarray
    rotation: np.ndarray

    @classmethod
    def from_numbers(cls, boxes, euler_order: str) -> "Solid | list[Solid]":
        """Read nine numbers, in the frame they are in, or a list of them."""
        boxes = np.asarray(boxes, np.float64)
        parts = boxes[..., :3], boxes[..., 3:6] / 2, euler_to_matrix(boxes[..., 6:9], euler_order)
        return cls(*parts) if boxes.ndim == 1 else [cls(*part) for part in zip(*parts, strict=True)]

    def numbers(self) -> np.ndarray:
        """Nine numbers, angles in "zxy" as answers have them."""
        return np.concatenate([self.center, 2 * self.half, matrix_to_euler(self.rotation, "zxy")])

    def corners(self) -> np.ndarray:
        """`(8, 3)`, in the order of `BOX_CORNER_SIGNS`."""
        return self.center + (_SIGNS * self.half) @ self.rotation.T

    def lattice(self, count: int = 5) -> np.ndarray:
        """`count` cubed points spread through the box, corners included, `(count ** 3, 3)`."""
        line = np.linspace(-1, 1, count)
        return self.center + (np.stack(np.meshgrid(line, line, line), -1).reshape(-1, 3) * self.half) @ self.rotation.T

    def to_local(self, points) -> np.ndarray:
        """Points in the axes of the box, the middle at 0."""
        return (points - self.center) @ self.rotation

    def extent_along(self, direction) -> tuple[float, float]:
        """Lowest and highest coordinate along a unit vector."""
        middle, reach = direction @ self.center, np.abs(self.rotation.T @ direction) @ self.half
        return float(middle - reach), float(middle + reach)

    def tilt_deg(self, direction) -> float:
        """Angle between the third axis and a unit vector, either way round, in degrees."""
        return float(np.degrees(np.arccos(np.clip(abs(self.rotation[:, 2] @ direction), 0, 1))))


def _over_axes(combine, values):
    """Combine the values of the last axis, `(..., 3)` to `(...)`; numpy's own reductions are slow over so few."""
    return reduce(combine, np.moveaxis(values, -1, 0))


def contains(solid: Solid, points, slack: float) -> np.ndarray:
    """Whether points lie inside a box that is grown by `slack` on every side; False for NaN."""
    with np.errstate(invalid="ignore"):
        return _over_axes(np.logical_and, np.abs(solid.to_local(points)) <= solid.half + slack)


def object_limits(solid: Solid, camera, rays, points, slack: float, inset: float) -> np.ndarray:
    """Return between which limits, along the axes of a box, points that a camera measured belong to its object.

    On a side that the camera sees from outside, a point may lie `slack` before the box. Through a side that is turned
    away, floor or wall may be seen, as under a table: there the limit is `inset` inside, or a quarter of the
    thickness, unless the surroundings of that side show that nothing continues there, as behind the back of a chair
    in the middle of a room.

    Args:
        solid (`Solid`): the box.
        camera (`np.ndarray` of shape `(3,)`), rays and points (`np.ndarray` of shape `(..., 3)`): camera, rays and
            points in the frame of the box; points are NaN where nothing was measured.
        slack, inset (`float`): metres.
    Returns:
        `np.ndarray` of shape `(2, 3)`: lowest and highest coordinate.
    """
    eye = solid.to_local(camera)
    rays, points = rays.reshape(-1, 3) @ solid.rotation, solid.to_local(points.reshape(-1, 3))
    depth = np.minimum(inset, solid.half / 2)
    limits = np.empty((2, 3))
    for side, sign in enumerate((-1, 1)):
        for axis in range(3):
            if sign * eye[axis] > solid.half[axis]:
                limit = solid.half[axis] + slack
            else:
                is_free = _is_free_side(solid.half, axis, sign, eye, rays, points, slack, inset)
                limit = solid.half[axis] - (0 if is_free else depth[axis])
            limits[side, axis] = sign * limit
    return limits


def _is_free_side(half, axis, sign, eye, rays, points, slack, inset):
    """Whether the measured points around a side that is turned away lie beyond it, not level with it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = (sign * half[axis] - eye[axis]) / rays[:, axis]
        excess = np.maximum(*(np.abs(eye[i] + reach * rays[:, i]) - half[i] for i in range(3) if i != axis))
        is_around = (reach > 0) & (excess > slack) & (excess <= AROUND_M)
        outward = sign * points[is_around, axis] - half[axis]
        num_beyond, num_level = (outward > inset).sum(), (np.abs(outward) <= inset).sum()
    num_told = num_beyond + num_level
    return num_told >= max(MIN_AROUND, 0.1 * is_around.sum()) and num_level <= 0.05 * num_told


def is_within(solid: Solid, points, limits) -> np.ndarray:
    """Whether points `(..., 3)` lie within limits of `object_limits`, `(...)` bool; False for NaN."""
    local = solid.to_local(points)
    with np.errstate(invalid="ignore"):
        return _over_axes(np.logical_and, (local >= limits[0]) & (local <= limits[1]))


def ray_depths(solid: Solid, camera, rays) -> tuple[np.ndarray, np.ndarray]:
    """Where rays enter and leave a box.

    Args:
        solid (`Solid`), camera (`np.ndarray` of shape `(3,)`), rays (`np.ndarray` of shape `(..., 3)`): box, camera
            and rays in one frame; rays are as long as one unit of depth.
    Returns:
        `tuple` of entry and exit depths `(...)`; the exit is below the entry, or negative, where a ray misses.
    """
    eye, directions = solid.to_local(camera), rays @ solid.rotation
    directions = np.where(np.abs(directions) < 1e-12, 1e-12, directions)
    near, far = (-solid.half - eye) / directions, (solid.half - eye) / directions
    return _over_axes(np.maximum, np.minimum(near, far)), _over_axes(np.minimum, np.maximum(near, far))


def box_gap(a: Solid, b: Solid) -> float:
    """Return the smallest distance between two boxes, 0 where they meet.

    Two convex bodies that do not meet are nearest at a corner of one, or between an edge of each.

    Args:
        a, b (`Solid`): boxes in one frame.
    Returns:
        `float`: metres.
    """
    if _edges_cut(a, b) or _edges_cut(b, a):
        return 0.0
    gaps = [_corner_gaps(a, b).min(), _corner_gaps(b, a).min(), _edge_gaps(a.corners(), b.corners()).min()]
    return float(min(gaps))


def _corner_gaps(a, b):
    """Distances of the corners of `a` from `b`."""
    beyond = np.maximum(np.abs(b.to_local(a.corners())) - b.half, 0)
    return np.linalg.norm(beyond, axis=-1)


def _edges_cut(a, b):
    """Whether an edge of `a` has a part inside `b`."""
    corners = a.corners()
    start, way = corners[_EDGES[:, 0]], corners[_EDGES[:, 1]] - corners[_EDGES[:, 0]]
    local, direction = b.to_local(start), way @ b.rotation
    direction = np.where(np.abs(direction) < 1e-12, 1e-12, direction)
    near, far = (-b.half - local) / direction, (b.half - local) / direction
    first = np.maximum(np.minimum(near, far).max(-1), 0)
    last = np.minimum(np.maximum(near, far).min(-1), 1)
    return bool((first <= last).any())


def _edge_gaps(a, b):
    """Distances between all pairs of edges, `(144,)`, from the corners of both boxes."""
    p, q = a[_EDGE_PAIRS[0, :, 0]], b[_EDGE_PAIRS[1, :, 0]]
    u, v = a[_EDGE_PAIRS[0, :, 1]] - p, b[_EDGE_PAIRS[1, :, 1]] - q
    uu, vv, uv = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
    w = p - q
    uw, vw = (u * w).sum(-1), (v * w).sum(-1)
    slope = uu * vv - uv * uv
    is_parallel = slope <= 1e-9 * uu * vv
    s = np.clip(np.where(is_parallel, 0, (uv * vw - vv * uw) / np.where(is_parallel, 1, slope)), 0, 1)
    t = np.clip((uv * s + vw) / vv, 0, 1)
    s = np.clip((uv * t - uw) / uu, 0, 1)
    return np.linalg.norm(w + s[:, None] * u - t[:, None] * v, axis=-1)
