"""Teachers for tests: a rendered room, exact, each call in a camera and a scale of its own; and a tiny VGGT."""

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from gap_mllm import GapMllmVggtConfig, GapMllmVggtForReconstruction
from gap_mllm.processing.camera_geometry_gap_mllm import (
    invert_rigid,
    scale_intrinsics,
    transform_points,
    unproject_depth,
    view_to_first_view,
)
from gap_mllm.processing.data.video_labels.metric_scale import read_nearest
from gap_mllm.processing.data.video_labels.teacher_windows import plan_windows


WINDOW_SCALES = (1.0, 0.6, 1.7, 0.9)


class RenderedTeacher:
    """Answers the calls of `reconstruct_in_windows` from a `RoomScene`, one window after the other.

    `change(answer, views)` may spoil what is given.
    """

    def __init__(self, room, window=64, overlap=1, scales=WINDOW_SCALES, size=None, change=None):
        self.room, self.change = room, change
        self.calls = zip(plan_windows(len(room.images), window, overlap), scales, strict=False)
        self.shape = room.depth_m.shape[1:] if size is None else size  # (h, w)

    def __call__(self, images):
        views, scale = next(self.calls)
        views = list(views)
        assert images.shape == (len(views), 3, *self.shape)
        poses = view_to_first_view(self.room.camera_to_world[views])
        poses[:, :3, 3] *= scale
        height, width = self.room.depth_m.shape[1:]
        factors = self.shape[1] / width, self.shape[0] / height
        intrinsics = scale_intrinsics(self.room.intrinsics[views], *factors)
        depth = np.stack([read_nearest(self.room.depth_m[view], self.shape) for view in views]) * np.float32(scale)
        points = transform_points(poses, unproject_depth(depth.astype(np.float64), intrinsics))
        answer = SimpleNamespace(
            depth=torch.tensor(depth)[..., None],
            depth_conf=torch.full(depth.shape, 2.0),
            extrinsics=torch.tensor(invert_rigid(poses)[:, :3], dtype=torch.float32),
            intrinsics=torch.tensor(intrinsics, dtype=torch.float32),
            world_points=torch.tensor(points, dtype=torch.float32),
        )
        if self.change is not None:
            self.change(answer, views)
        return answer


def room_inputs(room):
    """The pictures of a room as a teacher takes them, at their own size."""
    return [torch.tensor(image).permute(2, 0, 1) / 255 for image in room.images]


def room_pictures(room):
    return [Image.fromarray(image) for image in room.images]


def random_vggt():
    """A VGGT with its heads, weights from a seed; what it says is finite, and means nothing."""
    torch.manual_seed(0)
    config = GapMllmVggtConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_embed_depth=1,
        patch_embed_num_heads=2,
        camera_num_heads=2,
        dpt_features=16,
        dpt_out_channels=[8, 8, 8, 8],
        tap_layers=[0, 1, 2, 3],
        layer_scale_init_value=1.0,
        initializer_range=0.05,
        special_token_std=1.0,
    )
    model = GapMllmVggtForReconstruction(config).eval()
    with torch.no_grad():  # random weights may see no field of view at all
        model.camera_head.pose_branch.fc2.bias[7:] = 0.25
    return model
