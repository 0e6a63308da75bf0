"""What a teacher is, and what it says of the views of a scene: features, depth, cameras, points and confidence."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from ...processing.argument_checks import check_names
from ...processing.camera_geometry_gap_mllm import (
    invert_rigid,
    scale_intrinsics,
    transform_points,
    unproject_depth,
    view_to_first_view,
)
from ...processing.data.scene_sample import View
from ...processing.data.video_labels.depth_teacher import Reconstruction
from ...vggt_heads_gap_mllm import cameras_to_pose_encoding, nearest


MAX_SHAPE_DIFFERENCE = 0.05  # of width over height; sides are rounded to patches


@dataclass(frozen=True)
class TeacherTargets:
    """What a teacher says of the views of one scene, an entry for each view; None for what it does not tell.

    Frame: cameras OpenCV (+x right, +y down, +z forward), the world is the camera of the first view. Units: metres if
    `is_metric`, else the teacher's own; pixels with integer centres. Depth is z-depth.

    Args:
        depth (`list[torch.Tensor]` of shape `(H, W)`, *optional*): depth of each view, 0 where nothing is known.
        confidence (`list[torch.Tensor]` of shape `(H, W)`, *optional*): sureness of the depth, 0 or more; sensors say
            1 where they measured.
        intrinsics (`torch.Tensor` of shape `(V, 3, 3)`, *optional*): intrinsics in pixels of the depth maps, NaN for a
            view whose camera is not known.
        camera_to_first (`torch.Tensor` of shape `(V, 4, 4)`, *optional*): poses, NaN for a view whose pose is not
            known; the identity for the first.
        features (`dict[str, list[torch.Tensor]]`): features `(h, w, C)` of each view by the name of their layer.
        is_metric (`bool`, defaults to False): whether lengths are in metres.
        canonical_focal_px (`float`, *optional*): focal length in pixels of the maps for which depth is in metres,
            of a teacher that does not know cameras; depth for another is that times its focal length over this one.
    """

    depth: list[torch.Tensor] | None = None
    confidence: list[torch.Tensor] | None = None
    intrinsics: torch.Tensor | None = None
    camera_to_first: torch.Tensor | None = None
    features: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    is_metric: bool = False
    canonical_focal_px: float | None = None

    @classmethod
    def of_reconstruction(
        cls, found: Reconstruction, features: dict[str, list[torch.Tensor]] | None = None, is_metric: bool = False
    ) -> "TeacherTargets":
        """Targets of a checked `Reconstruction`, whose world becomes the camera of the first view."""
        return cls(
            [torch.as_tensor(depth) for depth in found.depth],
            [torch.as_tensor(confidence) for confidence in found.confidence],
            torch.as_tensor(found.intrinsics, dtype=torch.float32),
            torch.as_tensor(view_to_first_view(found.camera_to_world), dtype=torch.float32),
            features or {},
            is_metric,
        )

    def points(self) -> list[torch.Tensor]:
        """Points `(H, W, 3)` that the pixels of each view see, in the camera of the first; NaN where not known.

        Raises:
            ValueError: if depth, intrinsics or poses are not told.
        """
        self._need("depth", "intrinsics", "camera_to_first")
        cameras = zip(self.depth, self.intrinsics, self.camera_to_first, strict=True)
        return [transform_points(pose, unproject_depth(depth, camera)) for depth, camera, pose in cameras]

    def pose_encodings(self) -> torch.Tensor:
        """VGGT's nine numbers of each view, `(V, 9)`, world to camera, as `pose_encoding_loss` takes them; or NaN.

        Raises:
            ValueError: if depth, whose sizes are needed, intrinsics or poses are not told.
        """
        self._need("depth", "intrinsics", "camera_to_first")
        encodings = torch.full((len(self.depth), 9), torch.nan, device=self.intrinsics.device)
        for view, (depth, camera, pose) in enumerate(
            zip(self.depth, self.intrinsics, self.camera_to_first, strict=True)
        ):
            if pose.isfinite().all() and camera.isfinite().all():
                encodings[view] = cameras_to_pose_encoding(invert_rigid(pose)[:3], camera, depth.shape)
        return encodings

    def layer(self, name: str) -> list[torch.Tensor]:
        """Features of a layer.

        Raises:
            ValueError: if there is none of that name; the nearest one is named.
        """
        check_names("the teacher's features", [name], self.features)
        return self.features[name]

    def depth_m(self, cameras: "TeacherTargets") -> "TeacherTargets":
        """The targets with depth in metres.

        Args:
            cameras (`TeacherTargets`): those whose intrinsics say what `canonical_focal_px` makes of the same views.
        Raises:
            ValueError: if depth is not told, or is in units of the teacher's own.
        """
        self._need("depth")
        if self.canonical_focal_px is None:
            if not self.is_metric:
                raise ValueError(
                    "the teacher's depth is in units of its own; take one that tells metres, or give the "
                    "canonical_focal_px of one that does so for a focal length."
                )
            return self
        cameras._need("depth", "intrinsics")
        known = zip(self.depth, cameras.depth, cameras.intrinsics, strict=True)
        factors = [
            (camera[0, 0] / size.shape[1] * depth.shape[1] + camera[1, 1] / size.shape[0] * depth.shape[0]) / 2
            for depth, size, camera in known
        ]
        depth = [
            (each * factor.to(each) / self.canonical_focal_px).nan_to_num(0.0)
            for each, factor in zip(self.depth, factors, strict=True)
        ]
        return replace(self, depth=depth, is_metric=True, canonical_focal_px=None)

    def resized(self, sizes: Sequence[tuple[int, int]]) -> "TeacherTargets":
        """The targets with depth and confidence of the nearest pixels at another height and width for each view."""
        self._need("depth", "confidence")
        maps, cameras = {"depth": [], "confidence": []}, []
        for view, (height, width) in enumerate(sizes):
            old_height, old_width = self.depth[view].shape
            for name, values in maps.items():
                values.append(nearest(getattr(self, name)[view], (height, width)))
            if self.intrinsics is not None:
                cameras.append(scale_intrinsics(self.intrinsics[view], width / old_width, height / old_height))
        return replace(self, **maps, intrinsics=torch.stack(cameras) if cameras else None)

    def to(self, device: torch.device | str) -> "TeacherTargets":
        """The targets on another device."""
        moved = {}
        for name in ("depth", "confidence"):
            maps = getattr(self, name)
            moved[name] = None if maps is None else [each.to(device) for each in maps]
        for name in ("intrinsics", "camera_to_first"):
            moved[name] = None if getattr(self, name) is None else getattr(self, name).to(device)
        moved["features"] = {name: [each.to(device) for each in maps] for name, maps in self.features.items()}
        return replace(self, **moved)

    def _need(self, *names):
        lacking = [name for name in names if getattr(self, name) is None]
        if lacking:
            raise ValueError(f"the teacher does not tell {', '.join(lacking)}; take one that does for this target.")


def check_map_shape(index: int, map_shape: tuple[int, int], picture_size: tuple[int, int]) -> None:
    """Refuse a depth map whose shape is not that of its picture, whatever their sizes.

    Args:
        index (`int`): number of the view.
        map_shape (`tuple[int, int]`): height and width of the map.
        picture_size (`tuple[int, int]`): width and height of the picture.
    Raises:
        ValueError: if width over height differs by more than 5 %.
    """
    (height, width), (picture_width, picture_height) = map_shape, picture_size
    if abs(width * picture_height / (height * picture_width) - 1) > MAX_SHAPE_DIFFERENCE:
        raise ValueError(
            f"the depth map of view {index} has {width} x {height} pixels and its picture {picture_width} x "
            f"{picture_height}, another shape, so that they do not meet. Give the map of the whole picture, or "
            "depth_intrinsics of its own."
        )


def join_targets(targets: list[dict[str, dict[str, list]]]) -> dict[str, dict[str, list]]:
    """Put the targets of several scenes one after the other.

    Args:
        targets (`list[dict]`): targets of each scene, by the names of term and target, lists over its views.
    Returns:
        `dict[str, dict[str, list]]`: the same, over all views.
    """
    return {
        name: {field: [each for scene in targets for each in scene[name][field]] for field in fields}
        for name, fields in targets[0].items()
    }


class SceneTeacher(Protocol):
    """What a teacher must be: from the views of one scene to `TeacherTargets`, without gradient.

    A view carries its picture and whatever was recorded with it; a teacher looks at what it needs.
    """

    def __call__(self, views: Sequence[View]) -> TeacherTargets: ...
