"""Where the pixels of views lie in space: targets of point maps and of geometry encoders.

Frame: camera of the first view given, OpenCV axes, unless another is named. Units: metres, radians.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..processing.camera_geometry_gap_mllm import (
    invert_rigid,
    scale_intrinsics,
    transform_points,
    unproject_depth,
    view_to_first_view,
)
from ..processing.data.augmentation.visible_boxes import depth_camera
from ..processing.data.scene_sample import View
from ..vggt_heads_gap_mllm import cameras_to_pose_encoding


def point_targets(
    depth_m: np.ndarray, intrinsics: np.ndarray, camera_to_frame: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest depth, and points on the exact rays of the pixels, of views resampled to another size.

    Frame: any; the one that `camera_to_frame` leads to. Units: metres.

    Args:
        depth_m (`numpy.ndarray` of shape `(V, H, W)`): z-depth; 0 marks no measurement.
        intrinsics (`numpy.ndarray` of shape `(V, 3, 3)`), camera_to_frame (`numpy.ndarray` of shape `(V, 4, 4)`):
            cameras of the depth maps.
        size (`tuple[int, int]`): height and width to resample to.
    Returns:
        `tuple` of float64 `numpy.ndarray`: depth `(V, h, w)`, points `(V, h, w, 3)` with NaN where nothing was
        measured, and the intrinsics `(V, 3, 3)` at the new size.
    """
    height, width = depth_m.shape[1:]
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(int)
    depth = depth_m[:, rows[:, None], columns].astype(np.float64)
    resized = scale_intrinsics(intrinsics, size[1] / width, size[0] / height)
    return depth, transform_points(camera_to_frame, unproject_depth(depth, resized)), resized


def scene_targets(views: Sequence[View], sizes: Sequence[tuple[int, int]]) -> dict[str, list[torch.Tensor]]:
    """Targets of a geometry encoder at the size of its images: depth, points, where both are known, and cameras.

    Args:
        views (sequence of `View`): views that all have depth, intrinsics and a pose.
        sizes (sequence of `tuple[int, int]`): height and width of the encoder's image of each view.
    Returns:
        `dict[str, list[torch.Tensor]]`, one tensor for each view: depth `(h, w)`, points `(h, w, 3)`, valid `(h, w)`,
        pose_enc `(9,)`.
    """
    to_first = view_to_first_view(np.stack([view.camera_to_world for view in views]))
    targets = {"depth": [], "points": [], "valid": [], "pose_enc": []}
    for view, pose, size in zip(views, to_first, sizes, strict=True):
        depth, points, resized = point_targets(view.depth_m[None], depth_camera(view)[None], pose[None], size)
        extrinsics = torch.as_tensor(invert_rigid(pose)[None, :3])
        targets["depth"].append(torch.as_tensor(depth[0], dtype=torch.float32))
        targets["points"].append(torch.as_tensor(points[0], dtype=torch.float32))
        targets["valid"].append(torch.as_tensor(np.isfinite(points[0]).all(-1)))
        targets["pose_enc"].append(cameras_to_pose_encoding(extrinsics, torch.as_tensor(resized), size)[0].float())
    return targets


def token_targets(
    views: Sequence[View], grids: Sequence[Sequence[int]], merge_size: int, side: int
) -> tuple[torch.Tensor, int]:
    """Points of the visual tokens of a scene, what `GapMllmForPreTraining` gives as point maps.

    A view without depth, intrinsics or pose has no points, the others keep theirs. The first view needs no pose;
    without it no other view has a place in its camera.

    Args:
        views (sequence of `View`): views of the scene.
        grids (sequence of three `int`): (t, h, w) of each view in patches, as `image_grid_thw`.
        merge_size (`int`): patches of a token along each side.
        side (`int`): points of a token along each side.
    Returns:
        `tuple[torch.Tensor, int]`: points `(T, side, side, 3)`, NaN where there is none; and how many views have none.
    """
    maps, num_lacking = [], 0
    for index, (view, grid) in enumerate(zip(views, grids, strict=True)):
        rows, columns = (int(patches) // merge_size for patches in grid[1:])
        points = np.full((rows * side, columns * side, 3), np.nan)
        pose = pose_in_first(views, index)
        camera = depth_camera(view) if pose is not None and view.depth_picture is not None else None
        if camera is not None:
            points = point_targets(view.depth_m[None], camera[None], pose[None], points.shape[:2])[1][0]
        num_lacking += not np.isfinite(points).any()
        cells = points.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
        maps.append(cells.reshape(rows * columns, side, side, 3))
    return torch.as_tensor(np.concatenate(maps), dtype=torch.float32), num_lacking


def pose_in_first(views: Sequence[View], index: int) -> np.ndarray | None:
    """The pose of a view in the camera of the first one, `(4, 4)`; None if it is not known."""
    poses = [views[0].camera_to_world, views[index].camera_to_world]
    if any(pose is None for pose in poses):
        return np.eye(4) if index == 0 else None
    return view_to_first_view(np.stack(poses))[1]
