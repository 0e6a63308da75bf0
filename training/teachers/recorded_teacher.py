"""The teacher that needs no model: depth of a sensor or a renderer, and poses, as they were recorded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...processing.data.augmentation.visible_boxes import depth_camera
from ...processing.data.scene_sample import View
from ..point_targets import pose_in_first
from .teacher_targets import TeacherTargets, check_map_shape


@dataclass(frozen=True)
class RecordedTeacher:
    """Depth, intrinsics and poses of the views themselves: ground truth of rendered rooms, else those of a sensor.

    What a view lacks stays unknown: a depth of 0, a camera or pose of NaN; losses leave it out, and count the rest.
    Frame: see `TeacherTargets`. Units: metres.

    Args:
        poses (`bool`, defaults to True): whether poses are told, too; False for a sensor alone.

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

    def __call__(self, views: Sequence[View]) -> TeacherTargets:
        """Targets of the views of one scene.

        Raises:
            ValueError: if a pose is not rigid, or a depth map has another shape than its picture, whose intrinsics
                then say nothing of it. RecordError: if a depth map cannot be read.
        """
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
        return TeacherTargets(
            depth=depths,
            confidence=[(depth > 0).float() for depth in depths],
            intrinsics=torch.as_tensor(np.stack(cameras), dtype=torch.float32),
            camera_to_first=torch.as_tensor(np.stack(poses), dtype=torch.float32) if self.poses else None,
            is_metric=True,
        )


__all__ = ["RecordedTeacher"]
