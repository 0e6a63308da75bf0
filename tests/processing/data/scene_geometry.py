"""What tests of scene sources measure: how many points of the depth maps lie in the boxes."""

import numpy as np

from gap_mllm.processing.camera_geometry_gap_mllm import (
    euler_to_matrix,
    invert_rigid,
    project_points,
    transform_points,
    unproject_depth,
)


TOLERANCE_M = 0.01  # the toy room is exact, its depth is in whole millimetres


def depth_points(view, to_world):
    """Points `(n, 3)` of a depth map in the world of a pose."""
    points = unproject_depth(view.depth_m, view.depth_intrinsics)
    return transform_points(to_world, points[view.depth_m > 0].astype(np.float64))


def points_inside(box, points) -> int:
    """How many points lie in a box of the same frame."""
    local = (points - box.numbers[:3]) @ euler_to_matrix(box.numbers[6:], box.euler_order)
    return int((np.abs(local) <= box.numbers[3:6] / 2 + TOLERANCE_M).all(-1).sum())


def points_in_boxes(sample) -> np.ndarray:
    """(views, boxes): how many depth points of each view lie in each box."""
    return np.array(
        [
            [points_inside(box, depth_points(view, box_from_camera(sample, box, index))) for box in sample.boxes]
            for index, view in enumerate(sample.views)
        ]
    )


def box_from_camera(sample, box, view):
    """The transform from a view's camera to the frame of a box."""
    return invert_rigid(sample.frame_to_camera(box.frame, box.frame_index, view))


def color_errors(sample, view, other):
    """How far colours differ where depth of one view is seen by another: median over the pixels that it sees."""
    first, second = sample.views[view], sample.views[other]
    points = depth_points(first, np.eye(4))
    seen = transform_points(sample.frame_to_camera("camera", view, other), points)
    colors = [_sample(camera, camera_points) for camera, camera_points in ((first, points), (second, seen))]
    both = np.isfinite(colors[0]).all(-1) & np.isfinite(colors[1]).all(-1)
    return float(np.median(np.abs(colors[0][both] - colors[1][both]))), int(both.sum())


def _sample(view, points):
    """Colours `(n, 3)` of the nearest pixels, NaN outside the picture."""
    pixels, depth = project_points(points, view.intrinsics)
    image = np.asarray(view.image, dtype=np.float64)
    near = np.where((depth > 0)[:, None], np.rint(pixels), -1).astype(int)
    inside = (near >= 0).all(-1) & (near < [image.shape[1], image.shape[0]]).all(-1)
    colors = np.full((len(points), 3), np.nan)
    colors[inside] = image[near[inside, 1], near[inside, 0]]
    return colors
