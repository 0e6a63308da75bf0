"""Which view shows a box best, by the size of its projection; nothing is known of what stands in front of it."""

import numpy as np

from ....camera_geometry_gap_mllm import box_corners, invert_rigid, project_points, transform_points
from ...box_projection import BOX_EDGES, cut_at_camera
from ...box_rows import box_numbers
from ...record_errors import RecordError
from ...source_files import picture_header


def projected_area(corners: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]) -> float:
    """Return how many pixels the bounds of a box cover in a picture.

    Frame: camera of the picture, OpenCV axes. Units: metres; pixels with integer centres. The box is cut near the
    camera (`cut_at_camera`), its bounds at the border of the picture.
    Source: our choice; VG-LLM takes the frame with the largest projected box for the answer.

    Args:
        corners (`np.ndarray` of shape `(8, 3)`): corners that `box_corners` gives.
        intrinsics (`np.ndarray` of shape `(3, 3)`)
        size (`tuple[int, int]`): width and height.
    Returns:
        `float`: 0 where nothing of it is in the picture.
    """
    edges = [cut_at_camera(corners[first], corners[second]) for first, second, _ in BOX_EDGES]
    points = [point for ends in edges if ends is not None for point in ends]
    if not points:
        return 0.0
    pixels, _ = project_points(np.stack(points), np.asarray(intrinsics, np.float64))
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
    corners = box_corners(box_numbers(box), box["euler_order"])
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


def aligned_to_camera(view: dict, world_to_aligned: np.ndarray) -> np.ndarray:
    """The transform from the aligned frame to the camera of a view; RecordError if the alignment is not known."""
    if world_to_aligned is None:
        raise RecordError("the scene's axis alignment is not known; scans/<scene>/<scene>.txt is needed.", "views")
    return invert_rigid(np.asarray(world_to_aligned, np.float64) @ np.asarray(view["camera_to_world"], np.float64))
