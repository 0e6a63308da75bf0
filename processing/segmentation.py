"""From 3D points to a mask of each view: regions grow from what the points are on, by depth and normals alone.

Whatever gives points will do: answers of the model, middles of boxes, marks. No network draws the masks.
Frame: camera of the first view, OpenCV axes. Units: metres, pixels with integer centres; depth is z-depth.
Source: masks of what a language model answers, consistent over views, are those of MLLM-For3D (arXiv:2503.18135);
growth that stops at hollow edges is that of Stein et al. (CVPR 2014). Differs: answers are 3D points and not tokens
for a mask network, and the shell of a room is told from what stands in it. All thresholds are ours.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .camera_geometry_gap_mllm import invert_rigid, project_points, transform_points, view_to_first_view
from .depth_points import world_points_from_depth
from .input_checks_gap_mllm import check_count, check_positive
from .visual_prompt_gap_mllm import MARK_COLORS, to_rgb_image


SMOOTH = np.cos(np.deg2rad(20.0))  # cosine of the angle by which normals of one surface differ, at most, in a pixel
STEP_M, STEP_SHARE = 0.02, 0.01  # a neighbour lies so far off the plane of a pixel, and this share of its depth more
LIKE_SHARE = 0.03  # depths that differ by less, as a share, are averaged
JUMP_SHARE = 0.1  # largest difference of depth of neighbours, over the smaller one
SAME_M, SAME_SHARE = 0.03, 0.02  # two views see one surface where depths agree so far
# A plane is of the shell (floor, walls, ceiling) if nothing that was measured, but for a share, lies behind it.
SHELL_M, BEHIND_M, BEHIND_SHARE, SHELL_SHARE = 0.03, 0.08, 0.01, 0.02
SHELL_COSINE, SAME_PLANE = 0.95, 0.999  # least cosines of normals of a plane's points, and of planes that are one
NUM_PLANES, NUM_PROBES = 400, 4000  # planes that are tried, and points to try them on


def segment_from_points(
    points: Sequence,
    depth_m: np.ndarray,
    intrinsics: np.ndarray,
    camera_to_world: np.ndarray,
    reach_m: float | None = 0.5,
    max_radius_m: float = 2.5,
    smoothing_px: int = 0,
) -> np.ndarray:
    """Segment what 3D points are on, in all views.

    Each point goes to the nearest measured one. From there a region grows from pixel to pixel, over steps in depth
    that a surface can make; on the shell of the scene (planes that nothing lies behind) it keeps to surfaces without
    hollow edges, and it never crosses between the shell and what stands before it. Its points are projected into the
    other views, and where these see the same depth it grows on. Objects that touch each other grow together.
    Frame: `points` in the camera of the first view, OpenCV axes. Units: metres.

    Args:
        points (array-like of shape `(N, 3)`): points on one object, as a model answers them.
        depth_m (`np.ndarray` of shape `(V, H, W)`): z-depth of each view, recorded or of a geometry encoder; 0,
            negative or not finite marks no reading.
        intrinsics (`np.ndarray` of shape `(3, 3)` or `(V, 3, 3)`): cameras, in pixels of the depth maps.
        camera_to_world (`np.ndarray` of shape `(V, 4, 4)`): poses in any world.
        reach_m (`float`, defaults to 0.5): largest distance of a point from what was measured, in metres; None takes
            the nearest in any case.
        max_radius_m (`float`, defaults to 2.5): how far a region reaches from its points, in metres.
        smoothing_px (`int`, defaults to 0): pixels to each side over which noisy depth is averaged within a surface;
            exact depth needs none.
    Returns:
        `np.ndarray` of shape `(V, H, W)`, bool.
    Raises:
        ValueError: if there are no points, one is not finite or out of reach of all that was measured (its number and
            distance are named), no view has a reading, a length is not positive, or as `world_points_from_depth`.
            TypeError: as there, or if a length is no number.

    Example:
        ```python
        >>> from gap_mllm.processing import segment_from_points
        >>> from gap_mllm.processing.data import render_room
        >>> room = render_room(0)
        >>> seed = room.points_in_first_view()[0, 96, 64]  # what pixel x = 64, y = 96 of the first view shows
        >>> masks = segment_from_points([seed], room.depth_m, room.intrinsics, room.camera_to_world)
        >>> masks.shape, bool(masks[0, 96, 64])
        ((4, 128, 128), True)

        ```
    """
    surface = SceneSurface(depth_m, intrinsics, camera_to_world, smoothing_px)
    return surface.segment(points, reach_m, max_radius_m)


def _as_points(points):
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise ValueError(f"points has shape {points.shape}; expected (N, 3) with one point or more.")
    if not np.isfinite(points).all():
        raise ValueError(f"points holds {points[~np.isfinite(points).all(1)][0].tolist()}; expected finite numbers.")
    return points


class SceneSurface:
    """What the views of a scene measured, and which neighbouring pixels are of one surface: for several objects.

    Args:
        depth_m, intrinsics, camera_to_world, smoothing_px: arguments of `segment_from_points`, with frame and units.
    Raises:
        ValueError, TypeError: as there.

    Example:
        ```python
        >>> from gap_mllm.processing import SceneSurface
        >>> from gap_mllm.processing.data import render_room
        >>> room = render_room(0)
        >>> surface = SceneSurface(room.depth_m, room.intrinsics, room.camera_to_world)
        >>> seeds = room.points_in_first_view()[0, [96, 20], [64, 20]]
        >>> [surface.segment(seed[None]).shape for seed in seeds]
        [(4, 128, 128), (4, 128, 128)]

        ```
    """

    def __init__(
        self, depth_m: np.ndarray, intrinsics: np.ndarray, camera_to_world: np.ndarray, smoothing_px: int = 0
    ):
        check_count("smoothing_px", smoothing_px, least=0)
        depth = np.asarray(depth_m)
        self.to_first = None if np.ndim(camera_to_world) != 3 else view_to_first_view(np.asarray(camera_to_world))
        poses = camera_to_world if self.to_first is None else self.to_first  # a wrong shape is refused below
        if smoothing_px and depth.ndim == 3 and depth.dtype.kind == "f":  # what is neither is refused below
            depth = _smoothed(depth, smoothing_px)
        cameras = np.asarray(intrinsics, np.float64)
        focal = cameras[..., [0, 1], [0, 1]] if cameras.shape[-2:] == (3, 3) else np.ones(1)  # else refused below
        if not (np.isfinite(cameras).all() and (focal > 0).all()):
            raise ValueError(f"intrinsics hold {cameras.tolist()}; expected finite numbers and focal lengths above 0.")
        self.points, has_reading = world_points_from_depth(depth, cameras, poses)
        if not has_reading.any():
            raise ValueError(f"none of {len(depth)} views has a reading of depth; expected metres above 0 somewhere.")
        self.is_measured, self.shape = has_reading > 0, depth.shape
        self.depth = np.where(self.is_measured, depth, 0.0)
        self.intrinsics = np.broadcast_to(np.asarray(intrinsics), (len(depth), 3, 3))
        self.normals = _normals(self.points, self.depth, self.to_first[:, :3, 3])
        self.is_shell = self._find_shell()
        self.links = self._find_links()

    def segment(self, points: Sequence, reach_m: float | None = 0.5, max_radius_m: float = 2.5) -> np.ndarray:
        """Segment what points are on; arguments, result and errors as `segment_from_points`."""
        if reach_m is not None:
            check_positive("reach_m", reach_m)
        check_positive("max_radius_m", max_radius_m)
        return self._grow(self._nearest(_as_points(points), reach_m), max_radius_m)

    def _nearest(self, points, reach_m):
        """The places, in a row of all pixels, of the measured points that are nearest to points."""
        places, measured = np.flatnonzero(self.is_measured), self.points[self.is_measured]
        found = []
        for number, point in enumerate(points, 1):
            distances = np.linalg.norm(measured - point, axis=-1)
            if reach_m is not None and (least := distances.min()) > reach_m:
                raise ValueError(
                    f"point {number}, {point.round(2).tolist()}, is {least:.2f} m from all that the views measured, "
                    f"farther than reach_m={reach_m:g}. Are points, depth and poses of one scene and in metres?"
                )
            found.append(places[distances.argmin()])
        return np.array(found)

    def _grow(self, seeds, max_radius_m):
        """The region of seeds, `(V, H, W)` bool: over each view, then into the others, until nothing is added."""
        flat = self.points.reshape(-1, 3)
        with np.errstate(invalid="ignore"):
            near = [np.linalg.norm(flat - flat[seed], axis=-1) <= max_radius_m for seed in seeds]
        is_allowed, mask = np.logical_or.reduce(near), np.zeros(len(flat), dtype=bool)
        mask[seeds] = True
        new = np.unique(seeds)
        while len(new):
            grown = self._flood(mask, new, is_allowed)
            new = self._in_other_views(grown)
            new = new[is_allowed[new] & ~mask[new]]
            mask[new] = True
        return mask.reshape(self.shape)

    def _flood(self, mask, front, is_allowed):
        """Add to the mask what its front is linked to; returns all places that were new, the front among them."""
        width, added = self.shape[2], [front]
        while len(front):
            reached = []
            for link, step in zip(self.links, (1, -1, width, -width), strict=True):
                places = front[link[front]] + step
                places = places[is_allowed[places] & ~mask[places]]
                mask[places] = True
                reached.append(places)
            front = np.concatenate(reached)
            added.append(front)
        return np.concatenate(added)

    def _in_other_views(self, places):
        """Where other views see the very points of these places: pixels of the same depth, shell as shell."""
        _, height, width = self.shape
        points, is_shell, found = self.points.reshape(-1, 3)[places], self.is_shell.reshape(-1)[places], []
        for view, (to_first, intrinsics) in enumerate(zip(self.to_first, self.intrinsics, strict=True)):
            pixels, depth = project_points(transform_points(invert_rigid(to_first), points), intrinsics)
            at = np.rint(np.nan_to_num(pixels, nan=-1.0, posinf=-1.0, neginf=-1.0)).clip(-1, max(height, width))
            column, row = at.astype(np.int64).T
            is_inside = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            column, row = column.clip(0, width - 1), row.clip(0, height - 1)
            measured = self.depth[view, row, column]
            is_same = np.abs(depth - measured) <= SAME_M + SAME_SHARE * measured
            is_same &= is_inside & (measured > 0) & (self.is_shell[view, row, column] == is_shell)
            found.append((view * height * width + row * width + column)[is_same])
        return np.unique(np.concatenate(found))

    def _find_shell(self):
        """Which pixels are on planes that nothing lies behind: floor, walls and ceiling, `(V, H, W)` bool."""
        is_known = self.is_measured & np.isfinite(self.normals[..., 0])
        points, normals = self.points[is_known], self.normals[is_known]
        probes = slice(None, None, max(len(points) // NUM_PROBES, 1))
        points, normals = points[probes], normals[probes]
        some = slice(None, None, max(len(points) // NUM_PLANES, 1))
        heights = points @ normals[some].T - (points[some] * normals[some]).sum(-1)  # (points, planes)
        on_plane = (np.abs(heights) < SHELL_M) & (normals @ normals[some].T > SHELL_COSINE)
        is_shell = np.zeros(self.shape, dtype=bool)
        if not len(points):
            return is_shell
        is_outer = ((heights < -BEHIND_M).mean(0) <= BEHIND_SHARE) & (on_plane.mean(0) >= SHELL_SHARE)
        with np.errstate(invalid="ignore"):
            known = []
            for normal, point in zip(normals[some][is_outer], points[some][is_outer], strict=True):
                if any(normal @ other > SAME_PLANE and abs((point - on) @ other) < SHELL_M / 3 for other, on in known):
                    continue
                known.append((normal, point))
                is_near = np.abs((self.points - point) @ normal) < SHELL_M
                is_shell |= is_near & (self.normals @ normal > SHELL_COSINE)
        return is_shell & self.is_measured

    def _find_links(self):
        """Which pixels go over into their right, left, lower and upper neighbour, each `(V * H * W,)` bool."""
        links = []
        for axis in (2, 1):
            first, second = [slice(None)] * 3, [slice(None)] * 3
            first[axis], second[axis] = slice(None, -1), slice(1, None)
            goes_over = np.zeros(self.shape, dtype=bool), np.zeros(self.shape, dtype=bool)
            goes_over[0][tuple(first)] = goes_over[1][tuple(second)] = self._is_one(tuple(first), tuple(second))
            links += [one.reshape(-1) for one in goes_over]
        return links

    def _is_one(self, first, second):
        """Whether two neighbouring pixels are of one surface."""
        (p, q), (n, m) = ([values[first], values[second]] for values in (self.points, self.normals))
        depth = np.minimum(self.depth[first], self.depth[second])
        with np.errstate(invalid="ignore"):
            step = q - p
            off_plane = np.minimum(np.abs((step * n).sum(-1)), np.abs((step * m).sum(-1)))
            is_near = np.abs(self.depth[first] - self.depth[second]) <= JUMP_SHARE * depth
            is_near &= off_plane <= STEP_M + STEP_SHARE * depth
            is_even = ((n * m).sum(-1) >= SMOOTH) | (
                ((m - n) * step).sum(-1) >= 0
            )  # smooth, or an edge that sticks out
        is_shell = self.is_shell[first]
        return is_near & (is_shell == self.is_shell[second]) & (is_even | ~is_shell)


def _smoothed(depth, reach):
    """Depth averaged over a window, each pixel with what is about as far; of inverse depth, so that planes stay."""
    is_known = np.isfinite(depth) & (depth > 0)
    inverse = np.where(is_known, 1 / np.where(is_known, depth, 1.0), 0.0)
    padded = np.pad(inverse, ((0, 0), (reach, reach), (reach, reach)))
    total, count = np.zeros_like(inverse), np.zeros_like(inverse)
    windows = np.lib.stride_tricks.sliding_window_view(padded, inverse.shape[1:], (1, 2))  # (V, n, n, H, W)
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            other = windows[:, row, column]
            is_like = (other > 0) & (np.abs(other - inverse) <= LIKE_SHARE * inverse)
            total += np.where(is_like, other, 0.0)
            count += is_like
    return np.where(is_known, count / np.where(is_known, total, 1.0), 0.0)


def _normals(points, depth, centers):
    """Unit normals towards the cameras; in each direction the neighbour of nearer depth tells, so that edges stay."""

    def tangent(axis):
        steps, jumps = np.diff(points, axis=axis), np.abs(np.diff(depth, axis=axis))
        jumps = np.where(np.isfinite(steps[..., 0]), jumps, np.inf)
        pads = [[(0, 0)] * 4 for _ in range(2)]
        pads[0][axis], pads[1][axis] = (0, 1), (1, 0)
        (ahead, behind), (far, near) = (
            [np.pad(values, pad[: values.ndim], constant_values=fill) for pad in pads]
            for values, fill in ((steps, np.nan), (jumps, np.inf))
        )
        return np.where((far <= near)[..., None], ahead, behind)

    normals = np.cross(tangent(2), tangent(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
        is_away = (normals * (points - centers[:, None, None])).sum(-1) > 0
    return np.where(is_away[..., None], -normals, normals)


def draw_masks(images: Sequence, masks: np.ndarray, color: str = "red", strength: float = 0.5) -> list[Image.Image]:
    """Tint what masks cover.

    Args:
        images (list): views, each as for `to_rgb_image`.
        masks (`np.ndarray` of shape `(V, H, W)`, bool): one for each; read at the nearest pixel where sizes differ.
        color (`str`, defaults to "red"): a name in `MARK_COLORS`.
        strength (`float`, defaults to 0.5): share of the colour.
    Returns:
        `list[PIL.Image.Image]`: new pictures.
    Raises:
        ValueError: if the numbers of views and masks differ, or the colour is unknown.

    Example:
        ```python
        >>> import numpy as np
        >>> from PIL import Image
        >>> from gap_mllm.processing import draw_masks
        >>> draw_masks([Image.new("RGB", (64, 48))], np.ones((1, 48, 64), bool))[0].getpixel((5, 5))
        (127, 0, 0)

        ```
    """
    if len(images) != len(masks):
        raise ValueError(f"there are {len(images)} views and {len(masks)} masks; expected one for each.")
    if color not in MARK_COLORS:
        raise ValueError(f"unknown colour {color!r}; known are {', '.join(MARK_COLORS)}.")
    drawn = []
    for image, mask in zip(images, masks, strict=True):
        picture = to_rgb_image(image)
        tinted = Image.blend(picture, Image.new("RGB", picture.size, MARK_COLORS[color]), strength)
        drawn.append(
            Image.composite(tinted, picture, Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST))
        )
    return drawn
