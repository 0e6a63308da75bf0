"""The solid that two oriented boxes share: its volume, for many pairs at once. boxes.py reads and checks the boxes.

By the divergence theorem the volume is one third of a sum over the twelve faces: the area of the part that lies in the
other box, times the distance of the face's plane from one fixed point. Each part is a rectangle cut by straight lines.
Differs: no library intersects the solids. On one core manifold3d takes eight times as long for lists of which 39 % of
the pairs overlap (examples/benchmarks/box_iou.py: 18 000 pairs/s to 143 000), merges vertices that are close, and
scoring would need it installed; the tests compare the two.
"""

from typing import NamedTuple

import numpy as np


# Coordinates in this file are divided by the largest size of the pair: rounding errors are some 1e-16.
_ROUNDING = 1e-12
_ROTATION_ROUNDING = 1e-15  # of the product of two rotations: it must not tilt a thin box against its equal

_CHUNK = 2048  # pairs at a time: their arrays fit into the processor's cache

_NEXT, _AFTER = [1, 2, 0], [2, 0, 1]  # the other two axes of each axis


class OrientedBoxes(NamedTuple):
    """Boxes as arrays with the boxes last, of which any number of pairs is formed."""

    centers: np.ndarray  # (3, N)
    axes: np.ndarray  # (3, 3, N): coordinate, axis of the box, box
    half_sizes: np.ndarray  # (3, N)

    def take(self, index: np.ndarray):
        """The boxes of these numbers, in this order, with repetitions."""
        return OrientedBoxes(*(array[..., index] for array in self))

    def volumes(self):
        """(N,)"""
        return (2 * self.half_sizes).prod(0)


def intersection_volumes(
    first: OrientedBoxes, second: OrientedBoxes, first_index: np.ndarray, second_index: np.ndarray
) -> np.ndarray:
    """Return the volume that the boxes of each pair share.

    Pairs whose bounding spheres are apart, or between which a face normal shows a gap, are 0 without further work.
    Volumes within rounding of 0 or of the smaller box are exactly that. Coplanar faces, equal boxes and shared edges
    need no tolerance: whatever rounding decides, each part of the surface counts once.
    Frame: any, the same for all boxes. Units: any; volumes in their cube. Source: our choice.

    Args:
        first (`OrientedBoxes`), second (`OrientedBoxes`): finite, sizes positive.
        first_index (`numpy.ndarray` of shape `(P,)`), second_index (same): the boxes of each pair.
    Returns:
        `numpy.ndarray` of shape `(P,)`.
    """
    volumes = np.zeros(len(first_index))
    near = np.flatnonzero(_are_near(first, second, first_index, second_index))
    for start in range(0, len(near), _CHUNK):
        pairs = near[start : start + _CHUNK]
        volumes[pairs] = _near_volumes(first.take(first_index[pairs]), second.take(second_index[pairs]))
    return volumes


def _near_volumes(first, second):
    """Volumes of pairs of whole lists of boxes, in the units and axes of each pair's first box."""
    unit = 2 * np.maximum(first.half_sizes, second.half_sizes).max(0)
    half1, half2 = first.half_sizes / unit, second.half_sizes / unit
    shift = (second.centers - first.centers) / unit
    center = (first.axes * shift[:, None]).sum(0)
    axes = (first.axes[:, :, None] * second.axes[:, None]).sum(0)
    nearest = np.rint(axes)
    axes = np.where(np.abs(axes - nearest) < _ROTATION_ROUNDING, nearest, axes)
    meets = ~_are_separated(center, axes, half1, half2)
    shared = np.zeros(len(unit))
    shared[meets] = _shared_volumes(*(array[..., meets] for array in (center, axes, half1, half2)))
    smaller = 8 * np.minimum(half1.prod(0), half2.prod(0))
    exact = np.where(shared < _ROUNDING * smaller, 0.0, shared * unit**3)
    return np.where(shared > (1 - _ROUNDING) * smaller, np.minimum(first.volumes(), second.volumes()), exact)


def _are_near(first, second, first_index, second_index):
    """Whether the bounding spheres of each pair meet; a distance too large for float64 is infinite, hence far."""
    radius1, radius2 = (np.sqrt((boxes.half_sizes**2).sum(0)) for boxes in (first, second))
    with np.errstate(over="ignore"):
        distance2 = sum((second.centers[c][second_index] - first.centers[c][first_index]) ** 2 for c in range(3))
    return distance2 < (radius1[first_index] + radius2[second_index]) ** 2


def _are_separated(center, axes, half1, half2):
    """Whether the normal of a face of either box shows a gap; in the axes of the first.

    Products of edges would find some more pairs, in the time that it takes to cut those to nothing.
    """
    size = np.abs(axes)
    reach1 = half1 + (size * half2).sum(1)
    reach2 = half2 + (size * half1[:, None]).sum(0)
    return (np.abs(center) >= reach1).any(0) | (np.abs((center[:, None] * axes).sum(0)) >= reach2).any(0)


def _shared_volumes(center, axes, half1, half2):
    """(3, P), (3, 3, P), (3, P), (3, P) -> (P,). Distances count from the first box's lowest corner.

    Its three faces there are at distance 0 and count nothing: three faces of the first and six of the second are left.
    Where a face f of one box and g of the other lie nearly in one plane, at distances d_f and d_g with normals n_f and
    n_g, it is the sign of (d_f n_g - d_g n_f) . x that gives a place x to either face. Both are cut by these very
    numbers, so that no place is lost or counted twice, however much of the vector is rounding.
    """
    size1, center = 2 * half1, center + half1
    normals = np.concatenate([axes, -axes], axis=1)  # (coordinate, face of the second box, P)
    half_normal = np.concatenate([half2, half2])
    middles = center[:, None] + normals * half_normal
    distances = half_normal + (normals * center[:, None]).sum(0)  # (face, P)
    # The vector above for the first box's face k: size1[k] * normal, but `along_normal` in coordinate k.
    along_normal = size1[:, None] * normals - distances

    def project(x):  # its product with x: (coordinate, face, P) -> (face of the first box, face, P)
        return size1[:, None] * (normals[_NEXT] * x[_NEXT] + normals[_AFTER] * x[_AFTER]) + along_normal * x

    per_u, per_v = size1[:, None] * normals[_NEXT], size1[:, None] * normals[_AFTER]
    level = per_u * half1[_NEXT, None] + per_v * half1[_AFTER, None] + along_normal * size1[:, None]
    lines1 = [array.swapaxes(0, 1) for array in (per_u, per_v, level)]  # (line, face of the first box, P)

    u_axes, v_axes = (np.concatenate([axes[:, others]] * 2, axis=1) for others in (_NEXT, _AFTER))
    sign = np.where(distances < 0, 1.0, -1.0)
    upper = [sign * project(x) for x in (u_axes, v_axes, middles)]
    is_one_plane = (upper[0] == 0) & (upper[1] == 0) & (upper[2] == 0) & (distances > 0)
    upper[2][is_one_plane] = 1.0  # the first box's face counts
    lower = [-u_axes, -v_axes, -middles]
    lines2 = [np.concatenate(both) for both in zip(upper, lower, strict=True)]  # (line, face of the second box, P)

    half_u, half_v = (np.concatenate([half1[others], half2[others], half2[others]]) for others in (_NEXT, _AFTER))
    lines = [np.concatenate(both, axis=1).reshape(6, -1) for both in zip(lines1, lines2, strict=True)]
    areas = _cut_rectangle_areas(half_u.ravel(), half_v.ravel(), *lines).reshape(9, -1)
    return (areas * np.concatenate([size1, distances])).sum(0) / 3


def _cut_rectangle_areas(half_u, half_v, per_u, per_v, level):
    """Area of |u| <= half_u, |v| <= half_v, per_u u + per_v v + level <= 0 for every line.

    (N,), (N,), (lines, N) three times -> (N,).
    """
    reach = np.abs(per_u) * half_u + np.abs(per_v) * half_v
    cuts = level + reach > 0
    num_cuts = cuts.sum(0)
    is_empty = (cuts & (level >= reach)).any(0)
    num_cuts[is_empty] = 0
    areas = np.where(is_empty, 0.0, 4 * half_u * half_v)
    order = np.flatnonzero(num_cuts)
    order = order[np.argsort(-num_cuts[order], kind="stable")]
    num_cuts, cuts = num_cuts[order], cuts[:, order]
    line, rectangle = np.nonzero(cuts)
    rank = (cuts.cumsum(0) - 1)[line, rectangle]
    coefficients = np.zeros((3, len(level), len(order)))  # the lines that cut come first
    for target, source in zip(coefficients, (per_u, per_v, level), strict=True):
        target[rank, rectangle] = source[line, order[rectangle]]
    u = half_u[order] * np.array([[-1.0], [1.0], [1.0], [-1.0]])
    v = half_v[order] * np.array([[-1.0], [-1.0], [1.0], [1.0]])
    for step in range(len(level) + 1):
        num_left = np.count_nonzero(num_cuts > step)
        areas[order[num_left : u.shape[1]]] = _polygon_areas(u[:, num_left:], v[:, num_left:])
        if not num_left:
            return areas
        u, v = _cut_polygons(u[:, :num_left], v[:, :num_left], *coefficients[:, step, :num_left])


def _cut_polygons(u, v, per_u, per_v, level):
    """Cut convex polygons (V, N) by one line each -> (V + 1, N); vertices may repeat.

    Everything between the first and the last vertex beyond the line, counted from the one deepest inside, gives way to
    two vertices on the line, so that a polygon stays closed and convex even if rounding makes its vertices alternate.
    """
    num_vertices, num_polygons = u.shape
    column = np.arange(num_polygons)
    excess = per_u * u + per_v * v + level
    turn = (excess.argmin(0) + np.arange(num_vertices)[:, None]) % num_vertices * num_polygons + column
    u, v, excess = u.take(turn), v.take(turn), excess.take(turn)
    is_out = excess > 0
    is_cut = is_out.any(0)
    first = np.where(is_cut, is_out.argmax(0), num_vertices)
    last = np.where(is_cut, num_vertices - 1 - is_out[::-1].argmax(0), -1)

    def on_line(inside, outside):
        low, high = excess[inside, column], excess[outside, column]
        span = low - high
        share = np.minimum(np.maximum(low / np.where(span == 0, 1.0, span), 0.0), 1.0)
        return [x[inside, column] + share * (x[outside, column] - x[inside, column]) for x in (u, v)]

    leaving = on_line(np.maximum(first - 1, 0), np.minimum(first, num_vertices - 1))
    entering = on_line((last + 1) % num_vertices, last)
    place = np.arange(num_vertices + 1)[:, None]
    result = []
    for x, out, back in zip((u, v), leaving, entering, strict=True):
        before, after = np.concatenate([x, x[-1:]]), np.concatenate([x[:1], x])
        cut = np.where(place <= last, out, np.where(place == last + 1, back, after))
        result.append(np.where(place < first, before, cut))
    return result


def _polygon_areas(u, v):
    """(V, N) twice, counter-clockwise -> (N,)."""
    u, v = u[1:] - u[0], v[1:] - v[0]
    return (u[:-1] * v[1:] - u[1:] * v[:-1]).sum(0) / 2
