"""What is clearly so between objects: sides, nearness, heights, gaps. None where a margin is not kept.

Frame: camera of view 0. Units: metres; left and right are those of the picture of the view that is named.
"""

import numpy as np

from .box_geometry import Solid, contains
from .scene_objects import SceneObject
from .task_scene import TaskScene, remembered


INNER_PERCENTILES = (5, 95)  # of what is seen of an object: stray pixels do not decide
NEXT_TO_M = 0.3  # gap of things that stand next to each other


def visible_items(scene: TaskScene, view: int | None = None, clear: bool = False) -> list[SceneObject]:
    """The objects that are visible in a view, or in any view."""
    table = scene.objects.is_clear if clear else scene.objects.is_visible
    table = table.any(1) if view is None else table[:, view]
    return [item for item in scene.objects.items if table[item.index]]


@remembered
def pixel_range(scene: TaskScene, item: SceneObject, view: int) -> tuple[float, float]:
    """From where to where along x a view shows an object, in colour pixels."""
    low, high = np.percentile(scene.objects.seen_pixels(item, view)[:, 0], INNER_PERCENTILES)
    return float(low), float(high)


def side_in_view(scene: TaskScene, a: SceneObject, b: SceneObject, view: int) -> str | None:
    """ "left" or "right": where `a` is of `b` in the picture of a view that shows both.

    What is seen of them is apart along x by a quarter of the margin, the middles of what is seen and the middles of
    their boxes by the whole of it.
    """
    (a_low, a_high), (b_low, b_high) = pixel_range(scene, a, view), pixel_range(scene, b, view)
    camera = scene.cameras[view]
    (a_x, _), (b_x, _) = camera.project(np.stack([a.solid.center, b.solid.center]))[0]
    gap = scene.margins.side_share * camera.size[0]
    shift = (b_low + b_high - a_low - a_high) / 2
    if a_high + gap / 4 <= b_low and shift >= gap and b_x - a_x >= gap:
        return "left"
    if b_high + gap / 4 <= a_low and -shift >= gap and a_x - b_x >= gap:
        return "right"
    return None


def share_x(scene: TaskScene, a: SceneObject, b: SceneObject, view: int) -> bool:
    """Whether one stands before the other in the picture: more than half of the narrower one's width is shared."""
    (a_low, a_high), (b_low, b_high) = pixel_range(scene, a, view), pixel_range(scene, b, view)
    return min(a_high, b_high) - max(a_low, b_low) > 0.5 * min(a_high - a_low, b_high - b_low)


def is_less_far(scene: TaskScene, near: float, far: float) -> bool:
    """Whether one distance is smaller than another by the margins of depth."""
    return near + scene.margins.depth_gap_m <= far and near * scene.margins.depth_ratio <= far


@remembered
def distance_range(scene: TaskScene, item: SceneObject, view: int) -> np.ndarray:
    """Nearest and farthest of what a view shows of an object: rows z-depth and straight distance, `(2, 2)`."""
    camera = scene.cameras[view]
    local = (scene.objects.seen_points(item, view) - camera.center) @ camera.to_first[:3, :3]
    values = np.stack([local[:, 2], np.linalg.norm(local, axis=-1)])
    return np.percentile(values, INNER_PERCENTILES, axis=1).T


def is_nearer(scene: TaskScene, a: SceneObject, b: SceneObject, view: int) -> bool:
    """Whether all that a view shows of `a` is nearer than all of `b`, by depth and straight, and its middle too."""
    camera = scene.cameras[view]
    a_range, b_range = distance_range(scene, a, view), distance_range(scene, b, view)
    middles = [np.linalg.norm(item.solid.center - camera.center) for item in (a, b)]
    return all(is_less_far(scene, a_range[row, 1], b_range[row, 0]) for row in (0, 1)) and is_less_far(scene, *middles)


def height_range(scene: TaskScene, item: SceneObject) -> tuple[float, float]:
    """Lowest and highest point along gravity; CannotAskError where that is not known."""
    return item.solid.extent_along(scene.up)


def is_above(scene: TaskScene, a: SceneObject, b: SceneObject) -> bool:
    """Whether `a` begins where `b` ends, or higher, along gravity."""
    (a_low, a_high), (b_low, b_high) = height_range(scene, a), height_range(scene, b)
    margins = scene.margins
    return a_low >= b_high - margins.touch_m and (a_low + a_high - b_low - b_high) / 2 >= margins.height_gap_m


def share_footprint(scene: TaskScene, a: SceneObject, b: SceneObject) -> bool:
    """Whether one is straight over the other: the middle of one lies within the outline of the other from above."""
    return _is_over(scene.up, a.solid, b.solid) or _is_over(scene.up, b.solid, a.solid)


def _is_over(up, a: Solid, b: Solid):
    level = a.center + up * (up @ (b.center - a.center))
    return bool(contains(b, level, 0.0))


def closest_of(scene: TaskScene, items: list[SceneObject], anchor: SceneObject) -> SceneObject | None:
    """The object with the smallest gap to an anchor by the margins, whose middle is nearest too; None if unclear."""
    gaps = sorted((scene.objects.gap(item, anchor), item.index) for item in items)
    best, margins = scene.objects.items[gaps[0][1]], scene.margins
    if len(gaps) > 1 and not (
        gaps[0][0] + margins.closer_m <= gaps[1][0] and gaps[0][0] * margins.closer_ratio <= gaps[1][0]
    ):
        return None
    middles = [np.linalg.norm(item.solid.center - anchor.solid.center) for item in items]
    return best if items[int(np.argmin(middles))] is best else None


def is_next_to(scene: TaskScene, a: SceneObject, b: SceneObject) -> bool:
    """Whether the gap between two objects is small; where the spheres around their boxes are apart, that is quick."""
    reach = np.linalg.norm(a.solid.half) + np.linalg.norm(b.solid.half) + NEXT_TO_M
    return np.linalg.norm(a.solid.center - b.solid.center) <= reach and scene.objects.gap(a, b) <= NEXT_TO_M


def is_whole(scene: TaskScene, item: SceneObject) -> bool:
    """Whether one view shows an object clearly and holds nearly all of its box."""
    lattice, views = item.solid.lattice(), np.flatnonzero(scene.objects.is_clear[item.index])
    cameras = [scene.cameras[view] for view in views]
    shares = (camera.is_inside(camera.project(lattice)[0]).mean() for camera in cameras)
    return any(share >= scene.margins.whole_share for share in shares)
