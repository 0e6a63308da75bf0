"""The encoder of explicit depth and normal maps: known ones, or where none are known those of a teacher inside it.

Its layers are those of VGGT's aggregator (vggt_gap_mllm.py), attention within each view and over the scene. Source:
the idea of an encoder of depth and normal maps is that of an overview article; its form is ours.
"""

import torch
from torch import nn

from .configuration_gap_mllm import GapMllmGeometryMapsConfig
from .depth_geometry_gap_mllm import camera_points, surface_normals
from .known_geometry_gap_mllm import KnownGeometry, in_frame, rigid_inverse
from .vggt_gap_mllm import GapMllmVggtModel, as_views
from .vggt_heads_gap_mllm import POSE_ENCODING_SIZE, GapMllmVggtForReconstruction, cameras_to_pose_encoding


NUM_MAPS = 5  # logarithm of depth, three of the normal, and whether the depth is known
CAMERA_SIZE = POSE_ENCODING_SIZE + 2  # and whether pose and intrinsics are known


class GapMllmMapsEmbed(nn.Module):
    """Maps to one token for each patch."""

    def __init__(self, config: GapMllmGeometryMapsConfig):
        super().__init__()
        self.proj = nn.Conv2d(NUM_MAPS, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, maps: torch.Tensor):
        return self.norm(self.proj(maps).flatten(2).transpose(1, 2))  # (B, N, C), row-major


class GapMllmGeometryMapsModel(GapMllmVggtModel):
    """Tapped features of depth and normal maps of the views of several scenes; pixels go to the teacher alone.

    For each view the depth, the intrinsics and the pose that are known are taken; what is not known is the teacher's,
    brought to the scale of what is known in its scene: by the median ratio of depth, else by the lengths of the
    poses. Without a teacher it stays unknown, and is marked so. Pose and intrinsics enter each view's camera token.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm import GapMllmGeometryMapsConfig, GapMllmGeometryMapsModel, KnownGeometry
        >>> sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
        >>> encoder = GapMllmGeometryMapsModel(GapMllmGeometryMapsConfig(**sizes))
        >>> camera = torch.tensor([[60.0, 0.0, 41.5], [0.0, 60.0, 27.5], [0.0, 0.0, 1.0]])
        >>> known = KnownGeometry([camera], [torch.eye(4)], [torch.full((56, 84), 2.0)])
        >>> output = encoder([torch.rand(3, 56, 84)], known_geometry=known)
        >>> len(output.tap_features), output.tap_features[0].shape, output.points[0].shape
        (4, torch.Size([24, 64]), torch.Size([56, 84, 3]))

        ```
    """

    config: GapMllmGeometryMapsConfig
    config_class = GapMllmGeometryMapsConfig
    base_model_prefix = "geometry_maps"
    _no_split_modules = ["GapMllmGeometryMapsModel", "GapMllmVggtBlock"]
    _keep_in_fp32_modules_strict = ["teacher.camera_head", "teacher.depth_head", "teacher.point_head"]
    _patch_embed_class = GapMllmMapsEmbed
    reads_known_geometry = True

    def __init__(self, config: GapMllmGeometryMapsConfig):
        super().__init__(config)
        self.camera_embed = nn.Linear(CAMERA_SIZE, config.hidden_size)
        self.teacher = None
        if config.teacher_config is not None:
            self.teacher = GapMllmVggtForReconstruction._from_config(config.teacher_config)
            self.teacher.stays_frozen = True
            self.teacher.requires_grad_(False)
        self.post_init()

    def forward(
        self,
        images: torch.Tensor | list[torch.Tensor],
        scene_lengths: list[int] | None = None,
        known_geometry: KnownGeometry | None = None,
        **kwargs,
    ):
        """Encode scenes of views.

        Frame: camera of the first view of each scene. Units: metres where something is known, else the teacher's.

        Args:
            images (`torch.Tensor` of shape `(B, V, 3, H, W)` or `(V, 3, H, W)`, or `list[torch.Tensor]` of
                `(3, H, W)`): RGB in 0..1; H and W multiples of the patch size.
            scene_lengths (`list[int]`, *optional*): views of each scene, in order, for the list form.
            known_geometry (`KnownGeometry`, *optional*): what is known of the views at this size, in the order of the
                views; what `KnownGeometry.checked` returns has passed already.
        Returns:
            `GapMllmGeometryOutput`, with `points`.
        Raises:
            TypeError: if the images are no tensors.
            ValueError: as `GapMllmVggtModel` and `KnownGeometry.checked`; without a teacher if a scene has no depth,
                or a view has depth but no intrinsics.
        """
        views, scene_lengths = as_views(images, scene_lengths)
        sizes = [tuple(view.shape[-2:]) for view in views]
        if known_geometry is None:
            known = KnownGeometry(*([None] * len(views) for _ in range(3)))
        else:
            known = known_geometry.checked(sizes, scene_lengths, device=views[0].device)
        with torch.no_grad():
            known = self._completed(known, views, scene_lengths)
            maps, points = zip(*map(self._maps, known.depth, known.intrinsics, sizes), strict=True)
            cameras = torch.stack(list(map(self._camera, known.poses, known.intrinsics, sizes))).to(views[0].device)
        tokens, grid = self._embed(list(maps), scene_lengths)
        lengths = [rows * columns + self.patch_start_index for rows, columns in grid]
        starts = torch.tensor([0, *lengths[:-1]], device=tokens.device).cumsum(0)
        tokens = tokens.index_add(0, starts, self.camera_embed(cameras.to(tokens.dtype)).to(tokens.dtype))
        output = self._attend(tokens, grid, scene_lengths)
        output.points = [
            None if seen is None or pose is None else in_frame(seen, pose)
            for seen, pose in zip(points, known.poses, strict=True)
        ]
        return output

    def _normalised(self, images):
        return images

    def _completed(self, known, views, scene_lengths):
        """What is known, and the teacher's for the rest; poses from each camera to that of the first view."""
        cameras, poses, depth = list(known.intrinsics), list(known.poses), list(known.depth)
        start = 0
        if self.teacher is None:
            for scene, length in enumerate(scene_lengths):
                if all(each is None for each in depth[start : start + length]):
                    raise ValueError(
                        f"No depth is known of the views of scene {scene} (counted through the batch), and this "
                        "encoder has no teacher to derive it. Pass intrinsics and depth (and poses) to "
                        "get_geometry_features, and what it returns as geometry_features; or build the encoder with a "
                        "teacher_config. What cannot pass geometry_features on cannot use an encoder without teacher."
                    )
                start += length
            pairs = enumerate(zip(cameras, depth, strict=True))
            lacking = [view for view, (camera, each) in pairs if camera is None and each is not None]
            if lacking:
                raise ValueError(
                    f"The views {lacking} have depth but no intrinsics, without which their points are not known. "
                    "Give both, or None for both."
                )
            return known
        if not any(each is None for part in (cameras, depth, poses) for each in part):
            return known
        said = self.teacher(views, scene_lengths)
        for length in scene_lengths:
            scene = range(start, start + length)
            told = {view: rigid_inverse(said.extrinsics[view].float()) for view in scene}
            told = {view: rigid_inverse(told[start]) @ pose for view, pose in told.items()}
            factor = _scale([(depth[view], said.depth[view][..., 0]) for view in scene if depth[view] is not None])
            if factor is None:
                factor = _pose_scale([(poses[view], told[view]) for view in scene if poses[view] is not None])
            for view in scene:
                if depth[view] is None:
                    depth[view] = said.depth[view][..., 0].float() * factor
                if cameras[view] is None:
                    cameras[view] = said.intrinsics[view].float()
                if poses[view] is None:
                    poses[view] = told[view]
                    poses[view][:3, 3] *= factor
            start += length
        return KnownGeometry(cameras, poses, depth)

    def _maps(self, depth, camera, size):
        """Maps (5, H, W) of a view, and the points (H, W, 3) in its camera; 0 and None without depth."""
        if depth is None:
            device = self.camera_token.device
            return torch.zeros(NUM_MAPS, *size, device=device), None
        points = camera_points(depth, camera)
        valid = points.isfinite().all(-1)
        normals, _ = surface_normals(points, valid, self.config.max_depth_jump)
        log_depth = torch.where(valid, depth, 1.0).log()
        return torch.cat([log_depth[None], normals.permute(2, 0, 1), valid[None].to(normals)]), points

    @staticmethod
    def _camera(pose, camera, size):
        """VGGT's nine numbers of a view, 0 where unknown, and whether pose and intrinsics are known."""
        given = camera if camera is not None else pose
        device = "cpu" if given is None else given.device
        eye = torch.eye(4, device=device)
        is_known = torch.tensor([float(pose is not None), float(camera is not None)], device=device)
        extrinsics = rigid_inverse(eye if pose is None else pose)[:3]
        encoding = cameras_to_pose_encoding(extrinsics, eye[:3, :3] if camera is None else camera, size)
        shown = torch.cat([is_known[:1].expand(7), is_known[1:].expand(2)])
        return torch.cat([encoding * shown, is_known])


def _scale(pairs):
    """Median ratio of known depth to that of the teacher, over all pixels of a scene; None without any."""
    ratios = [(known / told)[known.isfinite() & (known > 0) & told.isfinite() & (told > 0)] for known, told in pairs]
    ratios = torch.cat(ratios) if ratios else torch.zeros(0)
    return ratios.median() if len(ratios) else None


def _pose_scale(pairs):
    """Ratio of the lengths of known translations to the teacher's; 1 where they say nothing."""
    known = sum((pose[:3, 3].norm() for pose, _ in pairs), torch.tensor(0.0))
    told = sum((pose[:3, 3].norm() for _, pose in pairs), torch.tensor(0.0))
    return known / told if known > 0 and told > 1e-6 else 1.0


__all__ = ["GapMllmGeometryMapsModel"]
