"""VGGT as a geometry encoder that also tells where its pixels lie, for encodings of positions in space."""

import torch

from .configuration_gap_mllm import GapMllmVggtPointsConfig
from .depth_geometry_gap_mllm import camera_points
from .vggt_gap_mllm import GapMllmVggtModel, as_views
from .vggt_heads_gap_mllm import (
    GapMllmVggtCameraHead,
    GapMllmVggtDptHead,
    GapMllmVggtReconstruction,
    VggtHeads,
    pose_encoding_to_cameras,
)


class GapMllmVggtPointsModel(VggtHeads, GapMllmVggtModel):
    """`GapMllmVggtModel` with VGGT's camera and depth heads, which are never trained; the same features, and points.

    Weights have the names of the official checkpoint. Frame of the points: camera of the first view of each scene,
    OpenCV axes. Units: VGGT's own; metres for an encoder that was trained on metres.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm import GapMllmVggtPointsModel
        >>> encoder = GapMllmVggtPointsModel.from_pretrained(encoder_folder)
        >>> output = encoder([torch.rand(3, 56, 84)])
        >>> output.tap_features[0].shape, output.points[0].shape
        (torch.Size([24, 224]), torch.Size([56, 84, 3]))

        ```
    """

    config: GapMllmVggtPointsConfig
    config_class = GapMllmVggtPointsConfig
    _no_split_modules = ["GapMllmVggtPointsModel", "GapMllmVggtBlock"]
    _keys_to_ignore_on_load_unexpected = [r"^point_head\.", r"^track_head\."]
    _keep_in_fp32_modules_strict = ["camera_head", "depth_head"]
    _supports_flash_attn = False  # the heads attend in float32

    def __init__(self, config: GapMllmVggtPointsConfig):
        super().__init__(config)
        self.camera_head = GapMllmVggtCameraHead(config)
        self.depth_head = GapMllmVggtDptHead(config, output_size=2)
        for head in (self.camera_head, self.depth_head):
            head.stays_frozen = True
            head.requires_grad_(False)
        self.post_init()

    def forward(
        self,
        images: torch.Tensor | list[torch.Tensor],
        scene_lengths: list[int] | None = None,
        as_reconstruction: bool = False,
        **kwargs,
    ):
        """Encode scenes of views; other arguments and errors as of `GapMllmVggtModel.forward`.

        Args:
            as_reconstruction (`bool`, defaults to False): whether to return what `predict_points` does.
        Returns:
            `GapMllmGeometryOutput`, with `points`.
        """
        views, scene_lengths = as_views(images, scene_lengths)
        output = super().forward(views, scene_lengths)
        depth, confidence, cameras = self._depth_and_cameras(output, views)
        if as_reconstruction:
            return self._reconstruction(depth, confidence, cameras)
        output.points, start = [], 0
        for length in scene_lengths:
            first = cameras[start][0]  # world to camera; the world is the first camera, but for small errors
            for (extrinsics, intrinsics), values in zip(
                cameras[start : start + length], depth[start : start + length], strict=True
            ):
                world = (camera_points(values, intrinsics) - extrinsics[:, 3]) @ extrinsics[:, :3]
                output.points.append(world @ first[:, :3].T + first[:, 3])
            start += length
        return output

    @torch.no_grad()
    def _depth_and_cameras(self, output, views):
        """Depth `(H, W)` and its confidence of each view, and its extrinsics and intrinsics."""
        with torch.autocast(output.camera_tokens.device.type, enabled=False):
            poses = self._cameras(output)[-1].float()
            depth, confidence = self._dense(self.depth_head, output)
            cameras = [
                pose_encoding_to_cameras(pose, view.shape[-2:]) for pose, view in zip(poses, views, strict=True)
            ]
        return [values[..., 0].float().exp() for values in depth], confidence, cameras

    @torch.no_grad()
    def predict_points(self, images: torch.Tensor | list[torch.Tensor]) -> GapMllmVggtReconstruction:
        """Tell what the views of one scene see, and from where.

        Frame: camera of the first view, OpenCV axes. Units: VGGT's own; metres for an encoder that was trained on
        metres.

        Args:
            images (`torch.Tensor` of shape `(V, 3, H, W)`, or `list[torch.Tensor]` of `(3, H, W)`): RGB in 0..1; sides
                multiples of the patch size.
        Returns:
            `GapMllmVggtReconstruction`: `world_points` and `world_points_conf` (that of the depth), a list with an
            entry `(H, W, 3)` or `(H, W)` of each view, `extrinsics` `(V, 3, 4)` and `intrinsics` `(V, 3, 3)`.
        Raises:
            TypeError, ValueError: as `GapMllmVggtModel.forward`.
        """
        views, lengths = as_views(images)
        return self(views, lengths, as_reconstruction=True)  # called, so that hooks bring offloaded weights

    @staticmethod
    def _reconstruction(depth, confidence, cameras):
        """Points in the encoder's world, and the cameras that see them."""
        points = [
            (camera_points(values, intrinsics) - extrinsics[:, 3]) @ extrinsics[:, :3]
            for values, (extrinsics, intrinsics) in zip(depth, cameras, strict=True)
        ]
        return GapMllmVggtReconstruction(
            world_points=points,
            world_points_conf=confidence,
            extrinsics=torch.stack([extrinsics for extrinsics, _ in cameras]),
            intrinsics=torch.stack([intrinsics for _, intrinsics in cameras]),
        )


__all__ = ["GapMllmVggtPointsModel"]
