"""How far a reconstruction is from the truth, where the truth is known (rendered or measured)."""

from collections.abc import Sequence

import numpy as np

from ...camera_geometry_gap_mllm import (
    fit_similarity,
    invert_rigid,
    scale_intrinsics,
    transform_points,
    unproject_depth,
    view_to_first_view,
)
from .depth_teacher import Reconstruction
from .metric_scale import check_map_shape, read_nearest
from .teacher_windows import scene_size


def reconstruction_errors(
    reconstruction: Reconstruction, depth_m: Sequence[np.ndarray], intrinsics, camera_to_world
) -> dict[str, float]:
    """Compare depth, cameras and points with the truth, as they are and after the best similarity.

    Frame: both sides are taken to the camera of view 0, so the worlds may differ. Units: metres, degrees; relative
    numbers have none. All pixels that both sides know count, whatever the confidence.

    Args:
        reconstruction (`Reconstruction`): what is measured; in metres if its errors are to be in metres.
        depth_m (list of `np.ndarray` of shape `(H, W)`): true z-depth of every view; 0 is no measurement.
        intrinsics (`np.ndarray` of shape `(V, 3, 3)`): camera matrices of these maps, in pixels.
        camera_to_world (`np.ndarray` of shape `(V, 4, 4)`): true poses.
    Returns:
        `dict`: "depth_rel" (mean of |d - d*| / d*), "depth_rel_scaled" (after the median ratio), "rotation_deg" and
        "translation_m" (mean over the views after the first), "point_m" and "point_aligned_m" (mean distance, raw and
        after a similarity), "scene_size_m", "point_rel" and "point_aligned_rel" (distances over the scene's size).
    Raises:
        ValueError: if the numbers of views differ, a map has another shape than the teacher's, a pose is not rigid, or
            no pixel is known to both.
    """
    num_views = len(reconstruction)
    counts = len(depth_m), len(intrinsics), len(camera_to_world)
    if counts != (num_views,) * 3:
        raise ValueError(
            f"the truth has {counts[0]} depth maps, {counts[1]} intrinsics and {counts[2]} poses; expected "
            f"{num_views} of each, one for each view."
        )
    found_poses = view_to_first_view(reconstruction.camera_to_world)
    true_poses = view_to_first_view(np.asarray(camera_to_world, dtype=np.float64))
    world_to_first = invert_rigid(reconstruction.camera_to_world[0])
    found, true, ratios = [], [], []
    for view in range(num_views):
        depth = reconstruction.depth[view].astype(np.float64)
        (height, width), (true_height, true_width) = depth.shape, np.shape(depth_m[view])
        check_map_shape(f"the true depth of view {view}", (true_height, true_width), depth.shape)
        true_depth = read_nearest(np.asarray(depth_m[view], dtype=np.float64), depth.shape)
        k = scale_intrinsics(np.asarray(intrinsics[view]), width / true_width, height / true_height)
        true_points = unproject_depth(true_depth, k)
        valid = (depth > 0) & np.isfinite(true_points).all(-1)
        ratios.append(depth[valid] / true_depth[valid])
        found.append(transform_points(world_to_first, reconstruction.points(view)[valid]))
        true.append(transform_points(true_poses[view], true_points[valid]))
    found, true, ratios = np.concatenate(found), np.concatenate(true), np.concatenate(ratios)
    if not len(ratios):
        raise ValueError("no pixel has depth both in the reconstruction and in the truth.")
    scale, rotation, translation = fit_similarity(found, true)
    aligned = scale * found @ rotation.T + translation
    size = scene_size(true)
    turn = found_poses[1:, :3, :3].swapaxes(-1, -2) @ true_poses[1:, :3, :3]
    chord = np.linalg.norm(turn - np.eye(3), axis=(-2, -1))  # 2 sqrt(2) sin(angle / 2)
    errors = {
        "depth_rel": np.abs(ratios - 1).mean(),
        "depth_rel_scaled": np.abs(ratios / np.median(ratios) - 1).mean(),
        "rotation_deg": np.degrees(2 * np.arcsin((chord / np.sqrt(8)).clip(0, 1))).mean(),
        "translation_m": np.linalg.norm(found_poses[1:, :3, 3] - true_poses[1:, :3, 3], axis=-1).mean(),
        "point_m": np.linalg.norm(found - true, axis=-1).mean(),
        "point_aligned_m": np.linalg.norm(aligned - true, axis=-1).mean(),
        "scene_size_m": size,
    }
    errors |= {"point_rel": errors["point_m"] / size, "point_aligned_rel": errors["point_aligned_m"] / size}
    return {name: float(value) for name, value in errors.items()}
