"""What the views of a scene see and from where, as a geometry encoder or a model's point heads tell it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from .camera_geometry_gap_mllm import invert_rigid, scale_intrinsics, transform_points, view_to_first_view
from .frame_choice_gap_mllm import picture_sizes, run_on_pictures, teacher_inputs
from .scene_views_gap_mllm import SceneViews


@dataclass(frozen=True, eq=False)
class ScenePointMaps:
    """A point for each pixel of small pictures of the views.

    Frame: camera of the first view, OpenCV axes. Units: those of the model that told them; metres where it was trained
    on metres.

    Args:
        points (`tuple[numpy.ndarray, ...]`): array `(h, w, 3)` of each view.
        confidence (`tuple[numpy.ndarray, ...]`, *optional*): array `(h, w)` of each view, higher is surer; None where
            the model tells none.
        source (`str`): class of the model that told them.
        views (`SceneViews`, *optional*): the views.
    """

    points: tuple[np.ndarray, ...]
    confidence: tuple[np.ndarray, ...] | None
    source: str
    views: SceneViews | None = field(default=None, repr=False)

    def __str__(self):
        depth = [float(np.median(points[..., 2])) for points in self.points]
        sure = "with confidence" if self.confidence is not None else "without confidence"
        shapes = ", ".join(
            f"view {view}: {points.shape[1]} x {points.shape[0]} points, median z {depth[view]:.2f}"
            for view, points in enumerate(self.points)
        )
        return f"points by {self.source}, {sure}; {shapes}"

    def colors(self) -> list[np.ndarray]:
        """The colour of each point, arrays `(h, w, 3)` of 8 bits."""
        sizes = [points.shape[1::-1] for points in self.points]
        pairs = zip(self.views.pictures, sizes, strict=True)
        return [np.array(picture.resize(size, Image.Resampling.BILINEAR)) for picture, size in pairs]

    def cloud(self, least_sure: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """All finite points of all views in one array, and their colours.

        Args:
            least_sure (`float`, defaults to 0.0): share of the points to leave out, the least sure ones, if there is a
                confidence.
        Returns:
            `tuple[numpy.ndarray, numpy.ndarray]`: points `(N, 3)` and colours `(N, 3)` of 8 bits.
        """
        points = np.concatenate([each.reshape(-1, 3) for each in self.points])
        colors = np.concatenate([each.reshape(-1, 3) for each in self.colors()])
        keep = np.isfinite(points).all(-1)
        if self.confidence is not None and least_sure > 0:
            sure = np.concatenate([each.ravel() for each in self.confidence])
            keep[np.argsort(sure, kind="stable")[: round(least_sure * len(sure))]] = False
        return points[keep], colors[keep]


@dataclass(frozen=True, eq=False)
class SceneCameras:
    """The cameras of the views. Units: pixels of the pictures; metres where `source` says "given".

    Args:
        intrinsics (`tuple`): array `(3, 3)` of each view, None where nothing tells it.
        view_to_first_view (`tuple`): array `(4, 4)` of each view, from its camera to that of the first, OpenCV axes;
            None where nothing tells it.
        source (`tuple[str, str]`): what told intrinsics and poses, "given" or the class of a model.
        camera_to_world (`tuple`): poses as they were given, None of each view without.
    """

    intrinsics: tuple[np.ndarray | None, ...]
    view_to_first_view: tuple[np.ndarray | None, ...]
    source: tuple[str, str]
    camera_to_world: tuple[np.ndarray | None, ...]

    def __str__(self):
        lines = [f"intrinsics: {self.source[0]}, poses: {self.source[1]}"]
        for view, (camera, pose) in enumerate(zip(self.intrinsics, self.view_to_first_view, strict=True)):
            focal = "focal length unknown" if camera is None else f"focal length {camera[0, 0]:.0f} px"
            at = "pose unknown" if pose is None else f"at ({', '.join(f'{x:.2f}' for x in pose[:3, 3])})"
            lines.append(f"view {view}: {focal}, {at}")
        return "\n".join(lines)


def points_source(model: PreTrainedModel, given: Callable | None = None) -> Callable | None:
    """Return what tells the points of a scene, None where nothing does.

    Args:
        model (`GapMllmForConditionalGeneration`): model whose encoder, that encoder's teacher or own heads are looked
            at, in this order.
        given (`Callable`, *optional*): model to take instead.
    """
    encoder = model.model.geometry
    candidates = (encoder, getattr(encoder, "teacher", None), model)
    tells = ("predict_points", "point_head")
    return given or next((each for each in candidates if any(hasattr(each, name) for name in tells)), None)


def reconstruct(source: Callable, views: SceneViews) -> tuple[ScenePointMaps, Any, Any]:
    """Return point maps of the views, and cameras where the model tells them.

    Args:
        source (`Callable`): what `points_source` gives.
        views (`SceneViews`): the views.
    Returns:
        `tuple`: `ScenePointMaps`, intrinsics in pixels of the pictures `(V, 3, 3)`, and poses `(V, 4, 4)` from each
        camera to that of the first view; None for both where the model tells none.
    """
    inputs = teacher_inputs(views.pictures, *picture_sizes(source))
    output = run_on_pictures(source, inputs)
    fields = {"world_points": 3, "world_points_conf": 2, "extrinsics": 2, "intrinsics": 2}
    points, sure, extrinsics, cameras = (_listed(getattr(output, name, None), ndim) for name, ndim in fields.items())
    if points is None:
        raise TypeError(f"points_from ({type(source).__name__}) gives no world_points.")
    if sure is not None and all((each == 1).all() for each in sure):
        sure = None  # of a head that has none
    poses = None
    if extrinsics is not None:
        whole = np.stack([np.concatenate([each, [[0, 0, 0, 1]]]).astype(np.float64) for each in extrinsics])
        if _is_half(output.extrinsics):
            whole[:, :3, :3] = _nearest_orthonormal(whole[:, :3, :3])
        points = [transform_points(whole[0], each.astype(np.float64)).astype(np.float32) for each in points]
        poses = view_to_first_view(invert_rigid(whole))
    if cameras is not None:
        sizes = [view.shape[:0:-1] for view in inputs]  # width, height
        cameras = [
            scale_intrinsics(camera.astype(np.float64), given[0] / width, given[1] / height)
            for camera, given, (width, height) in zip(cameras, views.sizes, sizes, strict=True)
        ]
    maps = ScenePointMaps(tuple(points), None if sure is None else tuple(sure), type(source).__name__, views)
    return maps, cameras, poses


def _is_half(values):
    """Whether a tensor, or the first of several, has entries that are rounded to half precision."""
    first = values if isinstance(values, torch.Tensor) else values[0]
    return getattr(first, "dtype", None) in (torch.float16, torch.bfloat16)


def _nearest_orthonormal(matrices):
    """Rotations without the rounding of half precision; a mirrored one stays mirrored, and is refused after."""
    left, _, right = np.linalg.svd(matrices)
    return left @ right


def _listed(values, ndim):
    """An array of so many dimensions for each view of one scene."""
    if values is None:
        return None
    if isinstance(values, torch.Tensor) and values.ndim == ndim + 2:
        values = values[0]  # the only scene
    return [value.detach().float().cpu().numpy() for value in values]


__all__ = ["SceneCameras", "ScenePointMaps", "points_source", "reconstruct"]
