"""What the examples by use share: the surface at a pixel, and boxes from above.

Frame: camera of the first view, OpenCV axes, in metres; "level" are the rows of `ExampleScene.level`.
"""

import numpy as np
from scipy.spatial import ConvexHull

from gap_mllm.processing.camera_geometry_gap_mllm import box_corners


TRUE, ANSWERED = "#008f30", "#e65100"  # colours of what is true, and of what the model answers


def surface_at(session: object, view: int, x: int, y: int, spread: float = 0.05) -> tuple:
    """Ask for a pixel and four around it in one question, and fit a plane.

    Args:
        session (`SceneSession`): the session.
        view (`int`), x (`int`), y (`int`): the pixel.
        spread (`float`, defaults to 0.05): distance of the others from it, as a share of the width of the picture.
    Returns:
        `tuple`: the point or None where none could be read; its label; the unit normal towards the camera, None where
        fewer than three points were read, they lie on a line, or off their plane by over a tenth of their extent.
    """
    width, height = session.views.sizes[view]
    step = max(2, round(spread * width))
    around = [(x, y), (x - step, y), (x + step, y), (x, y - step), (x, y + step)]
    marks = [[view, min(max(u, 0), width - 1), min(max(v, 0), height - 1)] for u, v in around]
    answered = session.locate(view, x, y).first
    points = [point.point for point in session.locate(marks) if point is not None]
    if answered is None:
        return None, None, None
    return np.array(answered.point), answered.label, plane_normal(np.array(points).reshape(-1, 3))


def plane_normal(points: np.ndarray) -> np.ndarray | None:
    """The unit normal of points `(N, 3)` that lie in a plane, towards the camera; None where they do not say one."""
    if len(points) < 3:
        return None
    _, extents, axes = np.linalg.svd(points - points.mean(0))
    if extents[1] < 0.1 * extents[0] or extents[2] > 0.1 * extents[0]:
        return None
    return -axes[2] * np.sign(axes[2] @ points.mean(0))


def footprint(box: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Corners `(K, 2)` of a box seen from above: metres right and ahead, counter-clockwise."""
    places = (box_corners(np.asarray(box, float), "zxy") @ level.T)[:, :2]
    return places[ConvexHull(places).vertices]


def draw_footprint(axes, box: np.ndarray, level: np.ndarray, label: str, color: str, **style) -> None:
    """Draw a box from above into axes of metres right and ahead, with its label."""
    corners = footprint(box, level)
    axes.fill(*corners.T, facecolor=color, alpha=0.15)
    axes.plot(*np.vstack([corners, corners[:1]]).T, **{"color": color, "linewidth": 1.5, **style})
    axes.text(*corners.mean(0), label, color=color, fontsize=8, ha="center", va="center")


def label_plan(axes) -> None:
    """What every plan has: the first camera, and what its axes are."""
    axes.plot(0, 0, "^", color="black", label="first camera, looking up the page")
    axes.set(xlabel="right (m)", ylabel="ahead (m)", aspect="equal", title="From above")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
