"""Which view shows a box best, by the size of its projection; nothing is known of what stands in front of it."""

import numpy as np

from ....camera_geometry_gap_mllm import (
    BOX_CORNER_SIGNS,
    box_corners,
    euler_to_matrix,
    invert_rigid,
    matrix_to_euler,
    project_points,
    transform_box,
    transform_points,
)
from ...record_errors import RecordError
from ...source_files import picture_header


NEAR_M = 0.05  # what is nearer to the camera is cut off
_SIGNS = np.array(BOX_CORNER_SIGNS)
_EDGES = [(a, b) for a in range(8) for b in range(a) if (_SIGNS[a] != _SIGNS[b]).sum() == 1]


def projected_area(corners: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]) -> float:
    """Return how many pixels the bounds of a box cover in a picture.

    Frame: camera of the picture, OpenCV axes. Units: metres; pixels with integer centres. The box is cut at `NEAR_M`,
    its bounds at the border of the picture.
    Source: our choice; VG-LLM takes the frame with the largest projected box for the answer.

    Args:
        corners (`np.ndarray` of shape `(8, 3)`): corners that `box_corners` gives.
        intrinsics (`np.ndarray` of shape `(3, 3)`)
        size (`tuple[int, int]`): width and height.
    Returns:
        `float`: 0 where nothing of it is in the picture.
    """
    is_front = corners[:, 2] >= NEAR_M
    points = [corners[is_front]]
    for a, b in _EDGES:
        if is_front[a] != is_front[b]:
            share = (NEAR_M - corners[a, 2]) / (corners[b, 2] - corners[a, 2])
            points.append((corners[a] + share * (corners[b] - corners[a]))[None])
    points = np.concatenate(points)
    if not len(points):
        return 0.0
    pixels, _ = project_points(points, np.asarray(intrinsics, np.float64))
    low = np.maximum(pixels.min(0), -0.5)
    high = np.minimum(pixels.max(0), np.array(size) - 0.5)
    return float(np.prod(np.maximum(high - low, 0)))


def most_visible_view(views: list[dict], box: dict, world_to_aligned: np.ndarray) -> int | None:
    """Return the index of the view in which a box covers most pixels; None if it is in none.

    Frame: poses in the scan frame, the box in the aligned frame. Units: metres.

    Args:
        views (`list[dict]`), box (`dict`): views and box as a row stores them; views without a pose count as not
            showing it.
        world_to_aligned (`np.ndarray` of shape `(4, 4)`)
    Returns:
        `int` or None; the first of several equal ones.
    Raises:
        RecordError: if a view has no intrinsics.
    """
    corners = box_corners(_numbers(box), box["euler_order"])
    areas = []
    for index, view in enumerate(views):
        if view.get("intrinsics") is None:
            raise RecordError("the view has no intrinsics; intrinsic.txt is needed.", f"views[{index}].intrinsics")
        if view.get("camera_to_world") is None:
            areas.append(0.0)
            continue
        in_camera = transform_points(aligned_to_camera(view, world_to_aligned), corners)
        areas.append(projected_area(in_camera, view["intrinsics"], picture_header(view["image"]["path"])[0]))
    best = int(np.argmax(areas)) if areas else 0
    return best if areas and areas[best] > 0 else None


def box_in_camera(box: dict, view: dict, world_to_aligned: np.ndarray) -> np.ndarray:
    """Return a box of the aligned frame in the camera of a view, `(9,)`, angles in "zxy" whatever they were.

    Frame: in aligned, out camera of the view. Units: metres, radians.
    """
    numbers = _numbers(box)
    if box["euler_order"] != "zxy":
        numbers[6:] = matrix_to_euler(euler_to_matrix(numbers[6:], box["euler_order"]), "zxy")
    return transform_box(numbers, aligned_to_camera(view, world_to_aligned), "zxy")


def aligned_to_camera(view: dict, world_to_aligned: np.ndarray) -> np.ndarray:
    """The transform from the aligned frame to the camera of a view; RecordError if the alignment is not known."""
    if world_to_aligned is None:
        raise RecordError("the scene's axis alignment is not known; scans/<scene>/<scene>.txt is needed.", "views")
    return invert_rigid(np.asarray(world_to_aligned, np.float64) @ np.asarray(view["camera_to_world"], np.float64))


def _numbers(box):
    return np.concatenate([box["center"], box["size"], box["euler"]]).astype(np.float64)


__all__ = ["NEAR_M", "aligned_to_camera", "box_in_camera", "most_visible_view", "projected_area"]
