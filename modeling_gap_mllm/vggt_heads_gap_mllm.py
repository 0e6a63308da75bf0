"""VGGT's camera, depth and point heads, its pose encoding, and the whole reconstruction model.

The aggregator they read is in vggt_gap_mllm.py. Written from the facts of the VGGT paper (CVPR 2025); parameter names
are the official checkpoint's. Unprojection of depth to points is in the processing package's camera geometry.

Also points and surface normals of depth maps, and VGGT as a geometry encoder that says where its pixels lie, for
encodings of positions in space.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils import ModelOutput

from .configuration_gap_mllm import GapMllmVggtConfig, GapMllmVggtPointsConfig
from .publishing_gap_mllm import HALF_PRECISION, needed_from_transformers
from .vggt_gap_mllm import GapMllmVggtBlock, GapMllmVggtMlp, GapMllmVggtModel, GapMllmVggtPreTrainedModel, as_views


NEIGHBOUR_STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right: rows and columns


def camera_points(depth: torch.Tensor, intrinsics: torch.Tensor) -> torch.Tensor:
    """Return the point that each pixel of a depth map sees.

    Frame: camera of the view, OpenCV axes. Units: those of the depth; pixels with integer centres.

    Args:
        depth (`torch.Tensor` of shape `(*batch, H, W)`): z-depth; 0, negative or not finite marks no measurement.
        intrinsics (`torch.Tensor` of shape `(*batch, 3, 3)`): intrinsics in pixels of the map.
    Returns:
        `torch.Tensor` of shape `(*batch, H, W, 3)`: points; pixels without measurement are NaN.
    """
    k = intrinsics.to(depth.dtype)[..., None, None]
    height, width = depth.shape[-2:]
    u = torch.arange(width, dtype=depth.dtype, device=depth.device)
    v = torch.arange(height, dtype=depth.dtype, device=depth.device)[:, None]
    y = (v - k[..., 1, 2, :, :]) / k[..., 1, 1, :, :]
    x = (u - k[..., 0, 2, :, :] - k[..., 0, 1, :, :] * y) / k[..., 0, 0, :, :]
    z = torch.where(depth.isfinite() & (depth > 0), depth, torch.nan)
    return torch.stack([x * z, y * z, z], -1)


def surface_normals(
    points: torch.Tensor, valid: torch.Tensor, max_jump: float | None = 0.05
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normals of point maps, by central differences; they have length 1 and face the camera.

    Frame: camera of the view, OpenCV axes. Units: any.

    Args:
        points (`torch.Tensor` of shape `(..., H, W, 3)`): points that the pixels see.
        valid (`torch.Tensor` of shape `(..., H, W)`, bool): pixels that count.
        max_jump (`float`, *optional*, defaults to 0.05): largest jump of z to a neighbour, as a share of it; beyond
            it is an edge, which has no normal. None for any.
    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: normals `(..., H, W, 3)`, 0 where not valid, and validity `(..., H, W)`:
        of pixels that are valid together with their four neighbours.
    """
    points = torch.where(valid[..., None], points, 0.0)
    up, down, left, right = (shift_map(points, *step) for step in NEIGHBOUR_STEPS)
    is_good = valid.clone()
    z = points[..., 2].detach()
    for step in NEIGHBOUR_STEPS:
        is_good &= shift_map(valid[..., None], *step)[..., 0]
        if max_jump is not None:
            is_good &= (shift_map(z[..., None], *step)[..., 0] - z).abs() <= max_jump * z.abs()
    normals = torch.where(is_good[..., None], torch.linalg.cross(down - up, right - left), 0.0)
    normals = F.normalize(normals, dim=-1, eps=1e-12)
    is_away = (normals * points).sum(-1, keepdim=True) > 0
    return torch.where(is_away, -normals, normals), is_good


def shift_map(maps: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return what lies so many rows and columns further, `(..., H, W, C)`; 0 beyond the border."""
    moved = torch.zeros_like(maps)
    height, width = maps.shape[-3:-1]
    to = [slice(max(-step, 0), size - max(step, 0)) for step, size in ((rows, height), (columns, width))]
    of = [slice(max(step, 0), size - max(-step, 0)) for step, size in ((rows, height), (columns, width))]
    moved[..., to[0], to[1], :] = maps[..., of[0], of[1], :]
    return moved


def nearest(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A map `(H, W, ...)` at another height and width, each pixel the nearest of the old ones."""
    rows, columns = (
        ((torch.arange(new, device=values.device) + 0.5) * old / new).long()
        for new, old in zip(size, values.shape[:2], strict=True)
    )
    return values[rows[:, None], columns]


with needed_from_transformers():
    from transformers import initialization as init


POSE_ENCODING_SIZE = 9  # translation, quaternion, field of view
ADALN_EPS = 1e-6
POSITION_SCALE = 0.1  # of the sine-cosine positions added to DPT maps
POSITION_BASE = 100.0


def quaternion_to_matrix(quaternion: torch.Tensor):
    """Turn quaternions (x, y, z, w) of any norm but zero into rotation matrices.

    Those of half precision give float32: rounded entries would be no rotation.

    Args:
        quaternion (`torch.Tensor` of shape `(..., 4)`): scalar last.
    Returns:
        `torch.Tensor` of shape `(..., 3, 3)`
    """
    quaternion = quaternion.float() if quaternion.dtype in HALF_PRECISION else quaternion
    x, y, z, w = quaternion.unbind(-1)
    s = 2.0 / (quaternion * quaternion).sum(-1)
    rows = [
        1 - s * (y * y + z * z),
        s * (x * y - z * w),
        s * (x * z + y * w),
        s * (x * y + z * w),
        1 - s * (x * x + z * z),
        s * (y * z - x * w),
        s * (x * z - y * w),
        s * (y * z + x * w),
        1 - s * (x * x + y * y),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quaternion(matrix: torch.Tensor):
    """Turn rotation matrices into unit quaternions (x, y, z, w) with w >= 0.

    Of the four formulas that divide by one component the one with the largest component is used.

    Args:
        matrix (`torch.Tensor` of shape `(..., 3, 3)`)
    Returns:
        `torch.Tensor` of shape `(..., 4)`
    """
    m = matrix
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squared = torch.stack([1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22, 1 + m00 + m11 + m22], -1)
    doubled = squared.clamp_min(0).sqrt()  # 2 |x|, 2 |y|, 2 |z|, 2 |w|
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    xw, yw, zw = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    candidates = torch.stack(
        [
            torch.stack([doubled[..., 0] ** 2, xy, xz, xw], -1),
            torch.stack([xy, doubled[..., 1] ** 2, yz, yw], -1),
            torch.stack([xz, yz, doubled[..., 2] ** 2, zw], -1),
            torch.stack([xw, yw, zw, doubled[..., 3] ** 2], -1),
        ],
        dim=-2,
    )
    best = doubled.argmax(-1)[..., None, None].expand(*doubled.shape[:-1], 1, 4)
    divisor = 2 * doubled.clamp_min(0.1)  # the best component is never below one half
    quaternion = (candidates / divisor[..., None]).gather(-2, best)[..., 0, :]
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def pose_encoding_to_cameras(pose_encoding: torch.Tensor, image_size: tuple[int, int]):
    """Decode VGGT's nine numbers (translation, quaternion x y z w, field of view h w) into cameras.

    Frame: extrinsics map world to camera, OpenCV axes (+x right, +y down, +z forward); the world is the first view's
    camera. Units: VGGT's own scale (metres only for an encoder trained on metres); intrinsics in pixels with the
    principal point at the image centre. Source: VGGT, "absT_quaR_FoV".

    Args:
        pose_encoding (`torch.Tensor` of shape `(..., 9)`): field of view in radians; 0 gives an infinite focal length.
        image_size (`tuple[int, int]`): height and width in pixels.
    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: extrinsics `(..., 3, 4)` and intrinsics `(..., 3, 3)`, the latter float32;
            both for a pose encoding in half precision.
    """
    height, width = image_size
    translation, quaternion, fov = pose_encoding.split([3, 4, 2], dim=-1)
    extrinsics = torch.cat([quaternion_to_matrix(quaternion), translation[..., None]], dim=-1)
    fov = fov.float()
    intrinsics = torch.zeros(*fov.shape[:-1], 3, 3, device=fov.device)
    intrinsics[..., 0, 0] = (width / 2) / torch.tan(fov[..., 1] / 2)
    intrinsics[..., 1, 1] = (height / 2) / torch.tan(fov[..., 0] / 2)
    intrinsics[..., 0, 2] = width / 2
    intrinsics[..., 1, 2] = height / 2
    intrinsics[..., 2, 2] = 1
    return extrinsics, intrinsics


def cameras_to_pose_encoding(extrinsics: torch.Tensor, intrinsics: torch.Tensor, image_size: tuple[int, int]):
    """Encode cameras as VGGT's nine numbers; the inverse of `pose_encoding_to_cameras` but for the principal point.

    Frame: extrinsics map world to camera, OpenCV axes. Units: those of the translation, kept; radians; pixels.

    Args:
        extrinsics (`torch.Tensor` of shape `(..., 3, 4)`): world to camera.
        intrinsics (`torch.Tensor` of shape `(..., 3, 3)`): intrinsics in pixels; their principal point is lost.
        image_size (`tuple[int, int]`): height and width in pixels.
    Returns:
        `torch.Tensor` of shape `(..., 9)`
    """
    height, width = image_size
    quaternion = matrix_to_quaternion(extrinsics[..., :3])
    fov_h = 2 * torch.atan((height / 2) / intrinsics[..., 1, 1])
    fov_w = 2 * torch.atan((width / 2) / intrinsics[..., 0, 0])
    fov = torch.stack([fov_h, fov_w], dim=-1).to(quaternion.dtype)
    return torch.cat([extrinsics[..., 3], quaternion, fov], dim=-1)


class GapMllmVggtCameraHead(nn.Module):
    """Refines the pose encoding of each view in iterations; the views of a scene attend to each other."""

    def __init__(self, config: GapMllmVggtConfig):
        super().__init__()
        size = config.feature_size
        self.num_iterations = config.camera_num_iterations
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_ENCODING_SIZE))
        self.trunk = nn.ModuleList(
            GapMllmVggtBlock(
                config,
                size,
                config.camera_num_heads,
                config.camera_mlp_ratio,
                config.layer_norm_eps,
                config.layer_scale_init_value,
            )
            for _ in range(config.camera_trunk_depth)
        )
        self.token_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.trunk_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.embed_pose = nn.Linear(POSE_ENCODING_SIZE, size)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(size, 3 * size))
        self.pose_branch = GapMllmVggtMlp(size, size // 2, POSE_ENCODING_SIZE)

    def forward(self, camera_tokens: torch.Tensor):
        """Pose encodings (iterations, B, V, 9) from camera tokens (B, V, C); the last iteration is the prediction."""
        tokens = self.token_norm(camera_tokens)
        normalised = F.layer_norm(tokens, tokens.shape[-1:], eps=ADALN_EPS)
        raw, encodings = None, []
        for _ in range(self.num_iterations):
            # What is fed back is the raw sum, before the ReLU on the field of view, and without its gradient.
            fed_back = self.empty_pose_tokens.expand(*tokens.shape[:2], -1) if raw is None else raw.detach()
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(fed_back)).chunk(3, dim=-1)
            hidden_states = gate * (normalised * (1 + scale) + shift) + tokens
            for block in self.trunk:
                hidden_states = block(hidden_states)
            delta = self.pose_branch(self.trunk_norm(hidden_states))
            raw = delta if raw is None else raw + delta
            encodings.append(torch.cat([raw[..., :7], raw[..., 7:].relu()], dim=-1))
        return torch.stack(encodings)


def _sine_cosine_positions(channels, map_size, image_size, device):
    """Positions (channels, h, w) by the place in the image, on a frame whose half diagonal is 1; x part, then y.

    In float64, and so on the CPU: Apple's GPUs have none.
    """
    height, width = map_size
    aspect = image_size[1] / image_size[0]
    diagonal = (aspect**2 + 1) ** 0.5
    x = torch.linspace(-1, 1, width, dtype=torch.float64) * (aspect / diagonal * (width - 1) / width)
    y = torch.linspace(-1, 1, height, dtype=torch.float64) * (1 / diagonal * (height - 1) / height)
    quarter = channels // 4
    frequencies = POSITION_BASE ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    x_angles, y_angles = x[:, None] * frequencies, y[:, None] * frequencies
    x_part = torch.cat([x_angles.sin(), x_angles.cos()], dim=-1).T[:, None].expand(-1, height, -1)
    y_part = torch.cat([y_angles.sin(), y_angles.cos()], dim=-1).T[:, :, None].expand(-1, -1, width)
    return torch.cat([x_part, y_part]).float().to(device)


class _ResidualConvUnit(nn.Module):
    """Two convolutions with a skip. VGGT's carries relu(x), as the checkpoint was trained: its ReLU is in place."""

    def __init__(self, channels: int, relu_skip: bool = True):
        super().__init__()
        self.relu_skip = relu_skip
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, features: torch.Tensor):
        positive = features.relu()
        return self.conv2(self.conv1(positive).relu()) + (positive if self.relu_skip else features)


class _FusionBlock(nn.Module):
    """Adds a level to the coarser result, refines, resizes to the next level, and mixes channels."""

    def __init__(self, channels: int, has_residual: bool, relu_skip: bool = True):
        super().__init__()
        self.out_conv = nn.Conv2d(channels, channels, kernel_size=1)
        if has_residual:
            self.resConfUnit1 = _ResidualConvUnit(channels, relu_skip)
        self.resConfUnit2 = _ResidualConvUnit(channels, relu_skip)

    def forward(self, level: torch.Tensor, coarser: torch.Tensor, size: tuple[int, int]):
        if coarser is not None:
            level = coarser + self.resConfUnit1(level)
        level = self.resConfUnit2(level)
        return self.out_conv(F.interpolate(level, size=size, mode="bilinear", align_corners=True))


class _Scratch(nn.Module):
    """The convolutions of a DPT head after its pyramid, under the name that the checkpoint uses."""

    def __init__(self, channels: Sequence[int], features: int, relu_skip: bool):
        super().__init__()
        for level in range(4):
            convolution = nn.Conv2d(channels[level], features, kernel_size=3, padding=1, bias=False)
            self.add_module(f"layer{level + 1}_rn", convolution)
            self.add_module(f"refinenet{level + 1}", _FusionBlock(features, level < 3, relu_skip))

    def forward(self, levels: list[torch.Tensor], size: tuple[int, int]):
        """One map (V, features, *size) from levels (V, channels, h, w), the finest first."""
        levels = [getattr(self, f"layer{index + 1}_rn")(level) for index, level in enumerate(levels)]
        sizes, fused = [size, *(level.shape[-2:] for level in levels[:-1])], None
        for index in (3, 2, 1, 0):
            fused = getattr(self, f"refinenet{index + 1}")(levels[index], fused, sizes[index])
        return fused


class DptPyramid(nn.Module):
    """What DPT heads begin with: four levels of 4, 2, 1 and 1/2 times the grid of the patches, fused to one map.

    Args:
        input_size (`int`): width of the patches.
        channels (`Sequence[int]`): channels of the levels.
        features (`int`): channels of the map.
        eps (`float`, defaults to 1e-5): constant of the norm.
        relu_skip (`bool`, defaults to True): whether skips of the residual units carry relu(x), as VGGT's do, or x.
    """

    def __init__(
        self, input_size: int, channels: Sequence[int], features: int, eps: float = 1e-5, relu_skip: bool = True
    ):
        super().__init__()
        self.norm = nn.LayerNorm(input_size, eps=eps)
        self.projects = nn.ModuleList(nn.Conv2d(input_size, c, kernel_size=1) for c in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], kernel_size=4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], kernel_size=2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], kernel_size=3, stride=2, padding=1),
            ]
        )
        self.scratch = _Scratch(channels, features, relu_skip)

    def fuse(self, taps: Sequence[torch.Tensor], grid: tuple[int, int], scale: int) -> torch.Tensor:
        """A map (V, features, scale * h, scale * w) from patches (V, h * w, C) of each level."""
        levels = []
        for patches, project, resize in zip(taps, self.projects, self.resize_layers, strict=True):
            tokens = project(self.norm(patches).transpose(1, 2).unflatten(2, grid))
            levels.append(resize(add_positions(tokens, grid)))
        return self.scratch(levels, (scale * grid[0], scale * grid[1]))


def add_positions(features: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Add a tenth of the sine-cosine positions to a map (V, C, h, w); `shape` is one of the sides of the picture."""
    positions = _sine_cosine_positions(features.shape[1], features.shape[-2:], shape, features.device)
    return features + (POSITION_SCALE * positions).to(features.dtype)


class GapMllmVggtDptHead(DptPyramid):
    """Dense prediction from four tapped layers: maps of the image's size, the last channel a confidence."""

    def __init__(self, config: GapMllmVggtConfig, output_size: int):
        features, hidden = config.dpt_features, config.dpt_head_hidden_size
        super().__init__(config.feature_size, config.dpt_out_channels, features, config.layer_norm_eps)
        self.config = config
        self.scratch.output_conv1 = nn.Conv2d(features, features // 2, kernel_size=3, padding=1)
        self.scratch.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, hidden, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, output_size, kernel_size=1),
        )

    def forward(self, tap_features: tuple[torch.Tensor, ...], grid: list[tuple[int, int]]):
        """Raw maps (V, H, W, output_size) of views of one size, from their patches (V, h * w, C) of each level."""
        image_size = tuple(side * self.config.patch_size for side in grid)
        fused = self.scratch.output_conv1(self.fuse(tap_features, grid, 8))
        fused = F.interpolate(fused, size=image_size, mode="bilinear", align_corners=True)
        return self.scratch.output_conv2(add_positions(fused, image_size)).permute(0, 2, 3, 1)


@dataclass
class GapMllmVggtReconstruction(ModelOutput):
    """Cameras, depth and points of every view.

    Frame: world = camera of each scene's first view, OpenCV axes. Units: VGGT's own scale; metres only for an encoder
    that was trained on metres. Shapes are those of tensor input; for a list of views (or a tensor of views whose
    `scene_lengths` differ) the leading `(B, V)` becomes `(views,)`, and the dense fields are lists with an entry for
    each view.

    Args:
        pose_enc (`torch.Tensor` of shape `(B, V, 9)`, *optional*): translation, quaternion (x, y, z, w), field of view
            (h, w).
        pose_enc_iterations (`torch.Tensor` of shape `(iterations, B, V, 9)`, *optional*): encodings of every
            refinement.
        depth (`torch.Tensor` of shape `(B, V, H, W, 1)`, *optional*), depth_conf (`(B, V, H, W)`, *optional*):
            z-depth; confidence above 1.
        world_points (`torch.Tensor` of shape `(B, V, H, W, 3)`, *optional*), world_points_conf (`(B, V, H, W)`,
            *optional*).
        extrinsics (`torch.Tensor` of shape `(B, V, 3, 4)`, *optional*): world to camera.
        intrinsics (`torch.Tensor` of shape `(B, V, 3, 3)`, *optional*): intrinsics in pixels of the images given.
        geometry (`GapMllmGeometryOutput`, *optional*): the aggregator's features.
    """

    pose_enc: torch.Tensor | None = None
    pose_enc_iterations: torch.Tensor | None = None
    depth: torch.Tensor | None = None
    depth_conf: torch.Tensor | None = None
    world_points: torch.Tensor | None = None
    world_points_conf: torch.Tensor | None = None
    extrinsics: torch.Tensor | None = None
    intrinsics: torch.Tensor | None = None
    geometry: ModelOutput | None = None


class VggtHeads:
    """Mixin that runs the heads over the features of scenes of any sizes."""

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, GapMllmVggtCameraHead):
            init.zeros_(module.empty_pose_tokens)

    def _cameras(self, geometry):
        """Pose encodings (iterations, views, 9), the scenes of equal length in one batch."""
        tokens = geometry.camera_tokens.to(self.camera_head.embed_pose.weight.dtype).split(geometry.scene_lengths)
        encodings = [None] * len(tokens)
        for length in set(geometry.scene_lengths):
            scenes = [index for index, value in enumerate(geometry.scene_lengths) if value == length]
            batch = self.camera_head(torch.stack([tokens[index] for index in scenes]))
            for index, encoding in zip(scenes, batch.unbind(1), strict=True):
                encodings[index] = encoding
        return torch.cat(encodings, dim=1)

    def _dense(self, head, geometry):
        """Maps and confidences of each view, in the head's order of views; views of equal size go in chunks."""
        dtype = head.norm.weight.dtype
        counts = [height * width for height, width in geometry.grid]
        taps = [features.split(counts) for features in geometry.tap_features]
        maps = [None] * len(counts)
        for grid in set(geometry.grid):
            views = [index for index, value in enumerate(geometry.grid) if value == grid]
            for start in range(0, len(views), self.config.frames_chunk_size):
                chunk = views[start : start + self.config.frames_chunk_size]
                batch = head([torch.stack([level[i] for i in chunk]).to(dtype) for level in taps], grid)
                for index, value in zip(chunk, batch, strict=True):
                    maps[index] = value
        return [value[..., :-1] for value in maps], [1 + value[..., -1].exp() for value in maps]


class GapMllmVggtForReconstruction(VggtHeads, GapMllmVggtPreTrainedModel):
    """VGGT with its camera, depth and point heads.

    The heads run in the dtype of their parameters, with autocast off, as in the reference: float32 after
    from_pretrained whatever dtype is asked for, and after casts of the model to half precision.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm import GapMllmVggtForReconstruction
        >>> model = GapMllmVggtForReconstruction.from_pretrained(encoder_folder)
        >>> output = model(torch.rand(1, 2, 3, 56, 84))  # a scene of two views, RGB in 0..1
        >>> output.world_points.shape
        torch.Size([1, 2, 56, 84, 3])

        ```
    """

    config_class = GapMllmVggtConfig
    _keys_to_ignore_on_load_unexpected = [r"^track_head\."]
    _supports_flash_attn = False  # the heads attend in float32
    _may_start_afresh = ("camera_head.", "depth_head.", "point_head.")  # to be trained on an encoder alone
    _keep_in_fp32_modules_strict = ["camera_head", "depth_head", "point_head"]

    def __init__(self, config: GapMllmVggtConfig):
        super().__init__(config)
        if len(config.tap_layers) != 4:
            raise ValueError(f"tap_layers={config.tap_layers} must be four: the DPT heads have four levels.")
        self.aggregator = GapMllmVggtModel(config)
        self.camera_head = GapMllmVggtCameraHead(config)
        self.depth_head = GapMllmVggtDptHead(config, output_size=2)
        self.point_head = GapMllmVggtDptHead(config, output_size=4)
        self.post_init()

    def forward(self, images: torch.Tensor | list[torch.Tensor], scene_lengths: list[int] | None = None, **kwargs):
        """Reconstruct scenes from their views.

        Args:
            images (`torch.Tensor` of shape `(B, V, 3, H, W)` or `(V, 3, H, W)`, or `list[torch.Tensor]` of
                `(3, H, W)`): RGB in 0..1; H and W multiples of the patch size.
            scene_lengths (`list[int]`, *optional*): views of each scene, for the list form.
        Returns:
            `GapMllmVggtReconstruction`
        Raises:
            TypeError, ValueError: as `GapMllmVggtModel`; ValueError also on pixels that are not finite.
        """
        views, lengths = as_views(images, scene_lengths)
        bad = [index for index, view in enumerate(views) if not view.isfinite().all()]
        if bad:
            raise ValueError(f"The pixels of the views {bad} hold NaN or infinity. Check the source.")
        geometry = self.aggregator(views, lengths)
        with torch.autocast(geometry.camera_tokens.device.type, enabled=False):
            iterations = self._cameras(geometry)
            depth, depth_conf = self._dense(self.depth_head, geometry)
            points, points_conf = self._dense(self.point_head, geometry)
            depth = [value.exp() for value in depth]
            points = [value.sign() * value.abs().expm1() for value in points]
            cameras = [
                pose_encoding_to_cameras(pose, view.shape[-2:])
                for pose, view in zip(iterations[-1].unbind(0), views, strict=True)
            ]
        output = GapMllmVggtReconstruction(
            pose_enc=iterations[-1],
            pose_enc_iterations=iterations,
            depth=depth,
            depth_conf=depth_conf,
            world_points=points,
            world_points_conf=points_conf,
            extrinsics=torch.stack([extrinsics for extrinsics, _ in cameras]),
            intrinsics=torch.stack([intrinsics for _, intrinsics in cameras]),
            geometry=geometry,
        )
        is_regular = isinstance(images, torch.Tensor) and len(set(lengths)) == 1
        return self._in_batches(output, len(lengths)) if is_regular else output

    @staticmethod
    def _in_batches(output, num_scenes):
        """Give every field the shape (scenes, views, ...); iterations stay in front."""
        for name, value in list(output.items()):
            if isinstance(value, list):
                output[name] = torch.stack(value).unflatten(0, (num_scenes, -1))
            elif name == "pose_enc_iterations":
                output[name] = value.unflatten(1, (num_scenes, -1))
            elif isinstance(value, torch.Tensor):
                output[name] = value.unflatten(0, (num_scenes, -1))
        return output


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
