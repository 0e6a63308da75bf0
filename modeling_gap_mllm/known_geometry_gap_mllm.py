"""What is known of views beside their pixels: intrinsics, poses and depth, checked where they enter the model.

Which encoder reads them is the encoder's affair; geometry_views_gap_mllm.py hands them on.

Also `gap_mllm_geometry_maps`, the encoder whose features are depth and normal maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .configuration_gap_mllm import GapMllmGeometryMapsConfig
from .vggt_gap_mllm import GapMllmVggtModel, as_views
from .vggt_heads_gap_mllm import (
    POSE_ENCODING_SIZE,
    GapMllmVggtForReconstruction,
    camera_points,
    cameras_to_pose_encoding,
    nearest,
    surface_normals,
)


MAX_SHAPE_DIFFERENCE = 0.05  # of width over height, between a picture and what it was resized to
KNOWN_FIELDS = ("intrinsics", "poses", "depth")


@dataclass
class KnownGeometry:
    """Intrinsics, poses and depth of the views of one or several scenes, an entry for each view, None where unknown.

    It goes as `geometry_features` into `forward`, `generate` and the batches of a `Trainer`, in place of what
    `get_geometry_features` makes of it; a trained encoder then has its gradient. Sizes are those of the views as the
    model gets them: rows and columns of `image_grid_thw` times the patch size of the vision tower; `from_pictures`
    brings there what belongs to the original pictures.
    Frame: OpenCV cameras (+x right, +y down, +z forward), poses from camera to world, any one world for each scene.
    Units: metres; pixels with integer centres.

    Args:
        intrinsics (sequence of `torch.Tensor` of shape `(3, 3)`, *optional*): intrinsics in pixels of the view.
        poses (sequence of `torch.Tensor` of shape `(4, 4)`, *optional*): camera to world; where any view of a scene
            has one, that whose camera is the model's world (`config.reference_frame`) needs one.
        depth (sequence of `torch.Tensor` of shape `(H, W)`, *optional*): z-depth of each pixel of the view; 0 or NaN
            where it is not known.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm import KnownGeometry
        >>> camera = torch.tensor([[320.0, 0.0, 319.5], [0.0, 320.0, 239.5], [0.0, 0.0, 1.0]])
        >>> picture = {"intrinsics": [camera], "depth": [torch.full((480, 640), 2.0)], "picture_sizes": [(480, 640)]}
        >>> known = KnownGeometry.from_pictures(torch.tensor([[1, 24, 32]]), patch_size=16, **picture)
        >>> known.depth[0].shape, known.intrinsics[0][0].tolist()
        (torch.Size([384, 512]), [256.0, 0.0, 255.5])

        ```
    """

    intrinsics: Sequence[torch.Tensor | None] | None = None
    poses: Sequence[torch.Tensor | None] | None = None
    depth: Sequence[torch.Tensor | None] | None = None

    @classmethod
    def from_pictures(
        cls,
        image_grid_thw: torch.Tensor,
        patch_size: int,
        picture_sizes: Sequence[tuple[int, int]],
        intrinsics: Sequence[torch.Tensor | None] | None = None,
        poses: Sequence[torch.Tensor | None] | None = None,
        depth: Sequence[torch.Tensor | None] | None = None,
    ) -> "KnownGeometry":
        """Bring what belongs to original pictures to the views that the processor made of them.

        Depth is that of the nearest pixel, so that no edge is smeared. Frame, units: see `KnownGeometry`.

        Args:
            image_grid_thw (`torch.Tensor` of shape `(views, 3)`): grid of each view in patches, from the processor.
            patch_size (`int`): patch size of the vision tower in pixels, `config.vision_config.patch_size`.
            picture_sizes (sequence of `tuple[int, int]`): height and width of each picture, in whose pixels its
                intrinsics are.
            intrinsics, poses, depth (sequences, *optional*): fields of `KnownGeometry`; depth maps may have any size
                of the picture's shape.
        Returns:
            `KnownGeometry`.
        Raises:
            ValueError: if numbers of entries differ, intrinsics are none, or a depth map or view has another shape
                than its picture.
        """
        grid = [(rows, columns) for _, rows, columns in torch.as_tensor(image_grid_thw).tolist()]
        known = {"intrinsics": intrinsics, "poses": poses, "depth": depth, "picture_sizes": picture_sizes}
        known = {name: _entries(name, values, len(grid)) for name, values in known.items()}
        cameras, maps = [], []
        for view, (rows, columns) in enumerate(grid):
            size, picture = (rows * patch_size, columns * patch_size), tuple(known["picture_sizes"][view])
            camera, values = known["intrinsics"][view], known["depth"][view]
            for what, shape in (("the view", size), ("its depth map", None if values is None else values.shape)):
                if (
                    shape is not None
                    and abs(shape[1] * picture[0] / (shape[0] * picture[1]) - 1) > MAX_SHAPE_DIFFERENCE
                ):
                    raise ValueError(
                        f"picture {view} has {picture[0]} x {picture[1]} pixels (height x width), but {what} "
                        f"{shape[0]} x {shape[1]}, another shape, so that they do not meet. Give the sizes of the "
                        "pictures that the processor got, and the depth of the whole picture."
                    )
            if camera is not None:
                _check_camera(f"intrinsics of view {view}", torch.as_tensor(camera), picture, border=0.25)
            cameras.append(None if camera is None else _scaled(camera, picture, size))
            maps.append(None if values is None else nearest(torch.as_tensor(values), size))
        return cls(cameras, known["poses"], maps)

    def __call__(self, model, pixel_values, image_grid_thw, scene_lengths):
        """As `GapMllmModel.get_geometry_features` of these views, with the gradient of a trained encoder."""
        return model.encode_known_geometry(pixel_values, image_grid_thw, scene_lengths, self)

    def to(self, device: torch.device | str, **kwargs) -> "KnownGeometry":
        """The same on another device."""
        moved = {
            name: [None if each is None else torch.as_tensor(each).to(device) for each in _listed(getattr(self, name))]
            for name in KNOWN_FIELDS
            if getattr(self, name) is not None
        }
        return KnownGeometry(**moved)

    def select(self, views: Sequence[int]) -> "KnownGeometry":
        """What is known of some of the views, in this order."""
        given = {name: getattr(self, name) for name in KNOWN_FIELDS if getattr(self, name) is not None}
        return KnownGeometry(**{name: [values[view] for view in views] for name, values in given.items()})

    def tensors(self) -> list[torch.Tensor]:
        """What it holds, as tensors of which none is missing, so that equal contents give equal lists."""
        entries = [each for name in KNOWN_FIELDS for each in _listed(getattr(self, name))]
        return [torch.zeros(0) if each is None else torch.as_tensor(each) for each in entries]

    def checked(
        self,
        sizes: Sequence[tuple[int, int]],
        scene_lengths: Sequence[int],
        reference_frame: str = "first",
        device: torch.device | str = "cpu",
    ) -> "KnownGeometry":
        """Return it with an entry of float tensors for each view and field, or refuse it.

        Poses become those from each camera to that of the first (or last) view of its scene, whose own is the
        identity.

        Args:
            sizes (sequence of `tuple[int, int]`): height and width of each view in pixels.
            scene_lengths (sequence of `int`): views of each scene.
            reference_frame (`str`, defaults to "first"): "first" or "last", the view whose camera is the world.
            device (`torch.device` or `str`, defaults to "cpu"): device of the result.
        Raises:
            ValueError: if nothing is given, or not for each view; for a map of another size than its view, or without
                any depth; for intrinsics that are none; for a pose that marks lost tracking (-inf, some NaN, zeros),
                is not rigid, or is missing for the view that is the world of its scene while others have one.
        """
        if all(getattr(self, name) is None for name in KNOWN_FIELDS):
            raise ValueError("KnownGeometry holds nothing: give intrinsics, poses or depth, or leave it out.")
        found = {name: _entries(name, getattr(self, name), len(sizes)) for name in KNOWN_FIELDS}
        checks = {"intrinsics": _check_camera, "poses": _check_pose, "depth": _check_depth}
        for name, values in found.items():
            for view, value in enumerate(values):
                if value is not None:
                    value = torch.as_tensor(value)
                    checks[name](f"{name} of view {view}", value, sizes[view])
                    values[view] = value.double().cpu() if name == "poses" else value.to(device, torch.float32)
        start = 0
        for length in scene_lengths:
            scene = found["poses"][start : start + length]
            reference = start if reference_frame == "first" else start + length - 1
            world = found["poses"][reference]
            if world is None and any(pose is not None for pose in scene):
                raise ValueError(
                    f"poses: view {reference} has none, but its camera is the world of its scene, in which other "
                    "views have one. Give it, or None for all views of the scene."
                )
            for view, pose in enumerate(scene, start):
                found["poses"][view] = None if pose is None else (rigid_inverse(world) @ pose).float().to(device)
            found["poses"][reference] = torch.eye(4, device=device)
            start += length
        return KnownGeometry(**found)

    def resized(self, sizes: Sequence[tuple[int, int]], new_sizes: Sequence[tuple[int, int]]) -> "KnownGeometry":
        """What was checked for views of some sizes, for the same views at others (height, width)."""
        cameras, maps = [], []
        for camera, depth, size, new in zip(self.intrinsics, self.depth, sizes, new_sizes, strict=True):
            cameras.append(None if camera is None else _scaled(camera, size, new))
            depth = None if depth is None else nearest(depth, new)
            maps.append(None if depth is None or not _is_measured(depth).any() else depth)  # few pixels may be lost
        return KnownGeometry(cameras, self.poses, maps)

    def points(self) -> list[torch.Tensor | None]:
        """Points `(H, W, 3)` that the pixels of each view see in the camera that is the world, of what was checked.

        NaN where nothing was measured; None for a view that lacks depth, intrinsics or its pose.
        """
        return [
            None if depth is None or camera is None or pose is None else in_frame(camera_points(depth, camera), pose)
            for camera, pose, depth in zip(self.intrinsics, self.poses, self.depth, strict=True)
        ]


def in_frame(points: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """Move points `(..., 3)` by one rigid transform `(4, 4)`."""
    return points @ pose[:3, :3].T + pose[:3, 3]


def refuse_known_geometry(given: dict, where: str) -> None:
    """Raise where intrinsics, poses or depth came to what cannot pass them on.

    Args:
        given (`dict`): arguments by name.
        where (`str`): what they came to.
    Raises:
        ValueError: if one of them is given.
    """
    names = [name for name in KNOWN_FIELDS if given.get(name) is not None]
    if names:
        raise ValueError(
            f"{where} got {', '.join(names)}, and does not take known geometry by these names: it would be lost. Pass "
            "geometry_features=model.model.get_geometry_features(pixel_values, image_grid_thw, ..., "
            f"{', '.join(f'{name}={name}' for name in names)}), or geometry_features=KnownGeometry(...)."
        )


def _listed(values):
    return [None] if values is None else list(values)


def _entries(name, values, count):
    """A list with an entry for each view; a pose or camera of NaN is none."""
    if values is None:
        return [None] * count
    if len(values) != count:
        raise ValueError(
            f"{name} has {len(values)} entries, but there are {count} views. Give one for each view, None where it is "
            "not known."
        )
    return [None if value is None or (name != "depth" and _is_unknown(value)) else value for value in values]


def _is_unknown(value):
    values = torch.as_tensor(value)
    return values.is_floating_point() and bool(values.isnan().all())


def _check_camera(what, camera, size, border=0.0):
    if tuple(camera.shape) != (3, 3):
        raise ValueError(f"{what} has shape {tuple(camera.shape)}; expected (3, 3).")
    focal = camera.diagonal()[:2]
    is_last_row = (camera[2].double() - torch.eye(3, dtype=torch.float64, device=camera.device)[2]).abs().max() < 1e-6
    if not camera.isfinite().all() or not (focal > 0).all() or not is_last_row:
        raise ValueError(
            f"{what} is {camera.tolist()}; expected finite numbers, focal lengths above 0 and a last row of 0 0 1."
        )
    across, down = camera[:2, 2].tolist()
    shares = across / size[1], down / size[0]
    if not all(border <= share <= 1 - border for share in shares) or (border and _is_half_as_large_again(shares)):
        raise ValueError(
            f"{what} has its principal point at ({across:g}, {down:g}), far from the middle of {size[0]} x {size[1]} "
            "pixels (height x width): that is a camera of another picture size. Give KnownGeometry.from_pictures the "
            "sizes of the pictures that the intrinsics were measured on, as picture_sizes, and it scales them."
        )


def _is_half_as_large_again(shares):
    """Whether a principal point is the middle of a picture 1.5 times as large or small: 0.75 or 0.33 of both sides."""
    return any(all(abs(share / middle - 1) <= 0.02 for share in shares) for middle in (0.75, 1 / 3))


def _check_pose(what, pose, size):
    if tuple(pose.shape) != (4, 4):
        raise ValueError(f"{what} has shape {tuple(pose.shape)}; expected (4, 4), from camera to world.")
    pose = pose.double()
    if not pose.isfinite().all() or not pose[:3, :3].any():
        raise ValueError(
            f"{what} holds NaN, infinity or a rotation of zeros, which is how ScanNet and others mark lost tracking; "
            "give None for this view."
        )
    eye = torch.eye(4, dtype=torch.float64, device=pose.device)
    rotation = pose[:3, :3]
    determinant = torch.linalg.det(rotation)
    is_rigid = (rotation.T @ rotation - eye[:3, :3]).abs().max() < 1e-3 and (pose[3] - eye[3]).abs().max() < 1e-3
    if not (is_rigid and determinant > 0):
        raise ValueError(
            f"{what} is not rigid (determinant of its rotation {float(determinant):.4f}); expected a finite 4x4 "
            "matrix with an orthonormal rotation of determinant +1 and last row 0 0 0 1. A determinant of -1 is a "
            "mirrored pose: flip one axis where the file is read."
        )


def _check_depth(what, depth, size):
    if not depth.is_floating_point():
        raise ValueError(
            f"{what} has dtype {depth.dtype}; expected metres as floats: divide by the depth scale first."
        )
    if tuple(depth.shape) != tuple(size):
        raise ValueError(
            f"{what} has shape {tuple(depth.shape)}, but the view has {size[0]} x {size[1]} pixels (height x width), "
            "its grid times the patch size. KnownGeometry.from_pictures brings maps and intrinsics of the original "
            "pictures there."
        )
    if not _is_measured(depth).any():
        raise ValueError(f"{what} is invalid everywhere (0, negative or not finite); give None for a view without.")


def _is_measured(depth):
    return depth.isfinite() & (depth > 0)


def rigid_inverse(pose: torch.Tensor) -> torch.Tensor:
    """Inverse `(4, 4)` of a rigid transform `(4, 4)` or `(3, 4)`."""
    inverse = torch.eye(4, dtype=pose.dtype, device=pose.device)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse


def _scaled(camera, size, new_size):
    """Intrinsics of a resized view: u' = (u + 0.5) s - 0.5, also for the principal point."""
    camera = torch.as_tensor(camera, dtype=torch.float32)
    scale = torch.tensor([new_size[1] / size[1], new_size[0] / size[0], 1.0], device=camera.device)
    scaled = camera * scale[:, None]
    scaled[:2, 2] += (scale[:2] - 1) / 2
    return scaled


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
