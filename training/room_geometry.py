"""Synthetic rooms as training scenes for a geometry encoder: pictures in, depth, points and cameras as targets."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from ..geometry_views_gap_mllm import resize_to_grid
from ..processing.camera_geometry_gap_mllm import (
    invert_rigid,
    scale_intrinsics,
    transform_points,
    unproject_depth,
    view_to_first_view,
)
from ..processing.data.augmentation import jitter_colors
from ..processing.data.room_layout import room_seed
from ..processing.data.room_renderer import render_room
from ..processing.visual_prompt_gap_mllm import MARK_COLORS, draw_cross
from ..vggt_heads_gap_mllm import cameras_to_pose_encoding


VISION_PATCH_SIZE = 16  # of Qwen3-VL: pictures are made for its grid, the encoder's image is derived as in the model
MAX_MARKS = 6


def scene_targets(depth_m, intrinsics, camera_to_world, size):
    """Targets of one scene at the encoder's image size: nearest depth, and points on the exact rays of its pixels.

    Frame: camera of the first view given, OpenCV axes. Units: metres, radians.

    Args:
        depth_m (`numpy.ndarray` of shape `(V, H, W)`): z-depth; 0 marks no measurement.
        intrinsics (`numpy.ndarray` of shape `(V, 3, 3)`), camera_to_world (`numpy.ndarray` of shape `(V, 4, 4)`).
        size (`tuple[int, int]`): height and width to resample to.
    Returns:
        `dict` of `torch.Tensor`: depth `(V, h, w)`, points `(V, h, w, 3)`, valid `(V, h, w)`, pose_enc `(V, 9)`.
    """
    height, width = depth_m.shape[1:]
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(int)
    depth = depth_m[:, rows[:, None], columns].astype(np.float64)
    resized = scale_intrinsics(intrinsics, size[1] / width, size[0] / height)
    to_first = view_to_first_view(camera_to_world)
    points = transform_points(to_first, unproject_depth(depth, resized))
    extrinsics = torch.as_tensor(invert_rigid(to_first)[:, :3])
    pose = cameras_to_pose_encoding(extrinsics, torch.as_tensor(resized), size)
    return {
        "depth": torch.as_tensor(depth, dtype=torch.float32),
        "points": torch.as_tensor(points, dtype=torch.float32),
        "valid": torch.as_tensor(np.isfinite(points).all(-1) & (depth > 0)),
        "pose_enc": pose.float(),
    }


@dataclass
class RoomVariety:
    """How training scenes differ from the renderer's defaults. Scenes of one block of `block_size` are alike in size.

    Args:
        sizes (`list`): heights and widths in pixels, multiples of 32, with the share of each in `size_shares`.
        num_views (`list[int]`): numbers of views, with the share of each in `num_views_shares`.
        color_strength (`float`): of `jitter_colors`, up to this for each scene.
        mark_share (`float`): share of scenes in which crosses are drawn, as marked-pixel questions will have.
        shuffle_views (`bool`): whether any view may become the first.
    """

    sizes: tuple = ((128, 128), (96, 128), (128, 160))
    size_shares: tuple = (0.6, 0.2, 0.2)
    num_views: tuple = (4, 3, 2, 1)
    num_views_shares: tuple = (0.75, 0.1, 0.1, 0.05)
    color_strength: float = 1.0
    mark_share: float = 0.5
    shuffle_views: bool = True


class RoomGeometryDataset(Dataset):
    """Rooms of a split, rendered when asked for; item i is always the same.

    Args:
        split (`str`): "train", "selection" or "test".
        num_scenes (`int`): length.
        patch_size (`int`): of the geometry encoder; its images are `patch_size / 16` of the rendered size.
        variety (`RoomVariety`, *optional*): None renders the default views in order.
        block_size (`int`): scenes that share size and number of views; the batch size wastes nothing.
        seed (`int`): of the variety.
    """

    def __init__(self, split, num_scenes, patch_size=14, variety=None, block_size=4, seed=0):
        room_seed(split, num_scenes - 1)  # names a range that is too long
        self.split, self.num_scenes, self.patch_size = split, num_scenes, patch_size
        self.variety, self.block_size, self.seed = variety, block_size, seed

    def __len__(self):
        return self.num_scenes

    def __getitem__(self, index):
        variety = self.variety
        if variety is None:
            scene = render_room(room_seed(self.split, index))
            images, views = scene.images, np.arange(len(scene.images))
        else:
            block_rng = np.random.default_rng([self.seed, 0, index // self.block_size])
            height, width = variety.sizes[block_rng.choice(len(variety.sizes), p=variety.size_shares)]
            num_views = block_rng.choice(variety.num_views, p=variety.num_views_shares)
            scene = render_room(room_seed(self.split, index), height=height, width=width)
            rng = np.random.default_rng([self.seed, 1, index])
            views = rng.permutation(len(scene.images)) if variety.shuffle_views else np.arange(len(scene.images))
            views = views[:num_views]
            images = jitter_colors(scene.images[views], rng, strength=variety.color_strength * rng.random())
            if rng.random() < variety.mark_share:
                images = self._mark(images, rng)
        grid = tuple(side // VISION_PATCH_SIZE for side in images.shape[1:3])
        pictures = torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255
        size = tuple(side * self.patch_size for side in grid)
        targets = scene_targets(scene.depth_m[views], scene.intrinsics[views], scene.camera_to_world[views], size)
        return {
            "images": resize_to_grid(pictures, grid, self.patch_size),
            "sample_ids": f"room-{self.split}-{index}",
            **targets,
        }

    @staticmethod
    def _mark(images, rng):
        images = images.copy()
        for color in rng.permutation(list(MARK_COLORS))[: rng.integers(1, MAX_MARKS + 1)]:
            view, y, x = (int(rng.integers(side)) for side in images.shape[:3])
            arm = int(rng.integers(2, 8))
            images[view] = draw_cross(
                images[view], (x, y), MARK_COLORS[color], arm=arm, half_thickness=int(rng.integers(0, 1 + arm // 4))
            )
        return images


def collate_scenes(samples):
    """Stack scenes of equal size and number of views; keep lists of views where they differ."""
    batch = {"sample_ids": [sample["sample_ids"] for sample in samples]}
    shapes = {tuple(sample["images"].shape) for sample in samples}
    batch["scene_lengths"] = [len(sample["images"]) for sample in samples]
    for name in ("images", "depth", "points", "valid", "pose_enc"):
        values = [sample[name] for sample in samples]
        batch[name] = torch.stack(values) if len(shapes) == 1 else [view for value in values for view in value]
    return batch


__all__ = ["RoomGeometryDataset", "RoomVariety", "collate_scenes", "scene_targets"]
