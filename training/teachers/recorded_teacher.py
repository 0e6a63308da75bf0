"""The teacher that needs no model: depth of a sensor or a renderer, and poses, as they were recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...processing.camera_geometry_gap_mllm import check_rigid
from ...processing.data.augmentation.visible_boxes import depth_camera
from ...processing.data.scene_sample import View
from ..point_targets import pose_in_first
from .teacher_targets import TeacherTargets, check_map_shape


@dataclass(frozen=True)
class RecordedTeacher:
    """Depth, intrinsics and poses of the views themselves: ground truth of rendered rooms, else those of a sensor.

    What a view lacks stays unknown: a depth of 0, a camera or pose of NaN; losses leave it out, and count the rest.
    Frame: see `TeacherTargets`. Units: metres, or those of `normalise`.

    Args:
        poses (`bool`, defaults to True): whether poses are told, too; False for a sensor alone.
        normalise (`bool`, defaults to False): whether lengths are over the mean distance of the scene's points from
            the first camera, as in the training of VGGT, for a scale to be learnt; needs poses.

    Example:
        ```python
        >>> from gap_mllm.processing.data import SceneSample, load_multiview
        >>> from gap_mllm.training.teachers import RecordedTeacher
        >>> rooms = load_multiview("rendered_rooms", split="train", num_rooms=1)
        >>> targets = RecordedTeacher()(SceneSample.open(rooms, 0).views[:2])
        >>> [tuple(depth.shape) for depth in targets.depth], tuple(targets.pose_encodings().shape), targets.is_metric
        ([(128, 128), (128, 128)], (2, 9), True)

        ```
    """

    poses: bool = True
    normalise: bool = False

    @property
    def about(self) -> dict:
        """What tells it from others, for a cache."""
        return {"poses": self.poses, "normalise": self.normalise, "reads_records": True}

    def __call__(self, views: Sequence[View]) -> TeacherTargets:
        """Targets of the views of one scene.

        Raises:
            ValueError: if `normalise` comes without poses, a pose is not rigid, or a depth map has another shape than
                its picture, whose intrinsics then say nothing of it. RecordError: if a depth map cannot be read.
        """
        known = [np.eye(4) if view.camera_to_world is None else view.camera_to_world for view in views]
        check_rigid(np.stack(known), "camera_to_world")  # matrix 1 is that of view 1
        depths, cameras, poses = [], [], []
        for index, view in enumerate(views):
            depth = view.depth_m
            if depth is None:
                depth = np.zeros(view.size[::-1], np.float32)
            else:
                if view.depth_intrinsics is None:
                    check_map_shape(index, depth.shape, view.size)
            depths.append(torch.from_numpy(np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)))
            camera = view.intrinsics if view.depth_m is None else depth_camera(view)
            cameras.append(np.full((3, 3), np.nan) if camera is None else camera)
            pose = pose_in_first(views, index)
            poses.append(np.full((4, 4), np.nan) if pose is None else pose)
        told = TeacherTargets(
            depth=depths,
            confidence=[(depth > 0).float() for depth in depths],
            intrinsics=torch.as_tensor(np.stack(cameras), dtype=torch.float32),
            camera_to_first=torch.as_tensor(np.stack(poses), dtype=torch.float32) if self.poses else None,
            is_metric=True,
        )
        return _normalised(told) if self.normalise else told


def _normalised(told):
    """Targets over the mean distance of their points; without any nothing is known."""
    unit = torch.cat([points.norm(dim=-1).flatten() for points in told.points()]).nanmean()
    poses = told.camera_to_first.clone()
    poses[:, :3, 3] /= unit
    depth = [(each / unit).nan_to_num(0.0) for each in told.depth]
    return replace(told, depth=depth, camera_to_first=poses, is_metric=False)
