"""Where the edges of a 3D box run in a picture: cut off at the camera plane, where projection would draw nonsense, and
at the border; and whether a point lies behind what a depth map shows.

Frame: OpenCV cameras, integer pixel centres. Units: metres, radians, pixels.
"""

import numpy as np

from ..camera_geometry_gap_mllm import BOX_CORNER_SIGNS, box_corners, euler_to_matrix, project_points
from .scene_sample import View


NEAR_M = 0.05  # lines end here, in front of the camera
SLACK_M, SLACK_SHARE = 0.05, 0.02  # a point may lie so far, and this share of its depth, behind the measured surface


def _box_edges():
    """The 12 edges as two corners, and the two faces, as (axis, sign), that meet there."""
    edges = []
    for first, signs in enumerate(BOX_CORNER_SIGNS):
        for second in range(first + 1, 8):
            shared = [axis for axis in range(3) if signs[axis] == BOX_CORNER_SIGNS[second][axis]]
            if len(shared) == 2:
                edges.append((first, second, {(axis, signs[axis]) for axis in shared}))
    return tuple(edges)


BOX_EDGES = _box_edges()


def box_segments(box: np.ndarray, euler_order: str, intrinsics: np.ndarray, size: tuple[int, int]) -> list[tuple]:
    """Project the edges of a box, cut off at the camera plane and at the border of the picture.

    Frame: box in the camera of the view; pixels with integer centres. Units: metres, radians, pixels.

    Args:
        box (`np.ndarray` of shape `(9,)`): centre, full size, angles of `euler_order`.
        euler_order (`str`): "zxy" or "ZXY".
        intrinsics (`np.ndarray` of shape `(3, 3)`): intrinsics in pixels of a picture of `size`.
        size (`tuple[int, int]`): width and height.
    Returns:
        `list` of (start, end, is_near): pixels of what is in the picture; near edges belong to a face that is turned
        to the camera; all are near where the camera is inside the box.
    """
    box = np.asarray(box, np.float64)
    corners = box_corners(box, euler_order)
    camera = -box[:3] @ euler_to_matrix(box[6:], euler_order)  # the camera in the axes of the box
    facing = {(axis, sign) for axis in range(3) for sign in (-1.0, 1.0) if sign * camera[axis] > box[3 + axis] / 2}
    segments = []
    for first, second, faces in BOX_EDGES:
        ends = cut_at_camera(corners[first], corners[second])
        if ends is None:
            continue
        pixels, _ = project_points(np.stack(ends), np.asarray(intrinsics, np.float64))
        inside = cut_at_border(pixels[0], pixels[1], size)
        if inside is not None:
            segments.append((*inside, not facing or bool(faces & facing)))
    return segments


def cut_at_camera(start: np.ndarray, end: np.ndarray):
    """The part of a line (two points in the camera) at least `NEAR_M` in front of it, or None."""
    if max(start[2], end[2]) < NEAR_M:
        return None
    ends = []
    for point, other in ((start, end), (end, start)):
        if point[2] < NEAR_M:
            point = other + (point - other) * (other[2] - NEAR_M) / (other[2] - point[2])
        ends.append(point)
    return ends


def cut_at_border(start: np.ndarray, end: np.ndarray, size: tuple[int, int]):
    """The part of a line (two pixels) inside the picture of `size` (width, height), or None."""
    low, high, step = 0.0, 1.0, end - start
    for axis in range(2):
        for distance, speed in ((start[axis] + 0.5, step[axis]), (size[axis] - 0.5 - start[axis], -step[axis])):
            # inside where distance + t * speed >= 0
            if speed > 0:
                low = max(low, -distance / speed)
            elif speed < 0:
                high = min(high, -distance / speed)
            elif distance < 0:
                return None
    return (start + low * step, start + high * step) if low < high else None


def is_hidden(point: np.ndarray, view: View) -> bool:
    """Whether a point in the camera of a view lies behind the surface that its depth map shows; False where unknown.

    Frame: camera of the view. Units: metres.
    """
    intrinsics = view.depth_intrinsics
    depth = None if intrinsics is None else view.depth_m
    if depth is None or point[2] <= 0:
        return False
    pixel, _ = project_points(np.asarray(point, np.float64), intrinsics)
    column, row = np.rint(pixel).astype(int)
    if not (0 <= row < depth.shape[0] and 0 <= column < depth.shape[1]):
        return False
    measured = float(depth[row, column])
    return measured > 0 and point[2] > measured * (1 + SLACK_SHARE) + SLACK_M
