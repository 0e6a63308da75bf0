"""What a depth sensor saw, as point maps and confidences for `space_aware_sample`."""

import numpy as np
import torch

from .camera_geometry_gap_mllm import Array, check_rigid, transform_points, unproject_depth


def world_points_from_depth(depth_m: Array, intrinsics: Array, camera_to_world: Array) -> tuple[Array, Array]:
    """Return point maps and confidences of a depth sensor, as `space_aware_sample` takes them.

    Frame: cameras OpenCV (+x right, +y down, +z forward), points in the world of the poses. Units: metres, pixels
    with integer centres. `depth_m` is z-depth. Views whose pose is unknown must be left out beforehand.

    Args:
        depth_m (`numpy.ndarray` or `torch.Tensor` of shape `(S, H, W)`): metres, floating; 0, negative or not finite
            marks no reading.
        intrinsics (same kind, shape `(3, 3)` or `(S, 3, 3)`): intrinsics in pixels of the depth map.
        camera_to_world (same kind, shape `(S, 4, 4)`): poses.
    Returns:
        `tuple` of points `(S, H, W, 3)`, NaN where there is no reading, and confidences `(S, H, W)`, 1 or 0; same
        kind and dtype as `depth_m`.
    Raises:
        TypeError: if `depth_m` holds integers (a PNG in millimetres: divide by its depth scale first).
        ValueError: if a shape does not fit or a pose is not rigid (that of a lost view, for one).

    Example:
        ```python
        >>> from gap_mllm.processing import world_points_from_depth
        >>> from gap_mllm.processing.data import render_room
        >>> room = render_room(0)
        >>> points, confidence = world_points_from_depth(room.depth_m, room.intrinsics, room.camera_to_world)
        >>> points.shape, confidence.shape
        ((4, 128, 128, 3), (4, 128, 128))

        ```
    """
    if depth_m.ndim != 3:
        raise ValueError(f"depth_m has shape {tuple(depth_m.shape)}; expected (S, H, W), one map for each frame.")
    num_views = len(depth_m)
    if tuple(camera_to_world.shape) != (num_views, 4, 4):
        raise ValueError(
            f"camera_to_world has shape {tuple(camera_to_world.shape)}; expected ({num_views}, 4, 4), a pose for each "
            "depth map."
        )
    if tuple(intrinsics.shape) not in ((3, 3), (num_views, 3, 3)):
        raise ValueError(
            f"intrinsics has shape {tuple(intrinsics.shape)}; expected (3, 3) or ({num_views}, 3, 3), as depth_m has "
            f"{num_views} maps."
        )
    check_rigid(camera_to_world, "camera_to_world")
    lib = torch if isinstance(depth_m, torch.Tensor) else np
    points = unproject_depth(depth_m, lib.broadcast_to(intrinsics, (num_views, 3, 3)))
    has_reading = lib.isfinite(points[..., 2])
    confidence = lib.where(has_reading, lib.ones_like(depth_m), lib.zeros_like(depth_m))
    return transform_points(camera_to_world, points), confidence
