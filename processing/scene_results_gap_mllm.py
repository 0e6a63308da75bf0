"""Typed answers about a scene: what was found, in which frame and convention, the raw text, and what was refused.

They print, go to dict and JSON and to the forms of others, and draw themselves where the package is installed.

Also what the views of a scene see and from where, by a geometry encoder or a model's point heads.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from .answers_gap_mllm import LabelledBox, Rejection
from .box_conventions_gap_mllm import OURS
from .camera_geometry_gap_mllm import (
    box_corners,
    invert_rigid,
    project_points,
    scale_intrinsics,
    transform_box,
    transform_points,
    view_to_first_view,
)
from .frame_sampling_gap_mllm import picture_sizes, run_on_pictures, teacher_inputs
from .input_checks_gap_mllm import whole_text
from .other_answers_gap_mllm import ImagePoint, answer_records
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


_QWEN = "qwen3-vl-text"
_NEAR_M = 0.05  # corners nearer to the camera plane have no sensible pixel
AXES = "OpenCV: +x right, +y down, +z forward"


class _Plain:
    """What a result is as plain values."""

    def to_dict(self) -> dict:
        """Return it as dicts, lists, texts and numbers; the pictures are left out."""
        return {"kind": type(self).__name__, **_plain(self)}

    def to_json(self, **options) -> str:
        """Return `to_dict()` as JSON; options are those of `json.dumps`."""
        return whole_text(json.dumps(self.to_dict(), **{"ensure_ascii": False, **options}))


class _Placed:
    """What lies in the camera of a view, or in the world."""

    @property
    def frame(self) -> str:
        """The frame of its coordinates, in words."""
        return "world of the given poses" if self.view is None else f"camera of view {self.view} ({AXES})"

    def _pose(self):
        if self.view is None:
            return np.eye(4)
        if self.camera_to_world is None:
            raise ValueError(
                f"the pose of view {self.view} is not known, so that where this lies in the world is not either; open "
                "the scene with poses (camera to world), as --poses FILE of gap-mllm ask."
            )
        return np.array(self.camera_to_world)


@dataclass(frozen=True)
class SceneBox(_Plain, _Placed):
    """One 9-DoF box: centre, full sizes, yaw, pitch, roll (Euler order "zxy", extrinsic).

    Frame: camera of `view`, OpenCV axes; the world where `view` is None. Units: metres and radians.

    Args:
        label (`str`, *optional*): name of the object, None where the answer says none.
        box (`tuple[float, ...]`): the nine numbers.
        view (`int`, *optional*): view whose camera is the frame, counted from 0; None for the world.
        convention (`str`, defaults to "ours"): how the numbers are meant, by name.
        camera_to_world (`tuple`, *optional*): pose of that view, rows of `(4, 4)`, where it is known.
    """

    label: str | None
    box: tuple[float, ...]
    view: int | None = 0
    convention: str = OURS.name
    camera_to_world: tuple[tuple[float, ...], ...] | None = field(default=None, repr=False)

    @property
    def center(self) -> tuple[float, float, float]:
        return tuple(self.box[:3])

    @property
    def size(self) -> tuple[float, float, float]:
        return tuple(self.box[3:6])

    def in_world(self) -> "SceneBox":
        """The same box in the world of the given poses. Raises ValueError where the pose is not known."""
        box = transform_box(np.array(self.box), self._pose(), OURS.box.euler_order)
        return replace(self, box=tuple(box.tolist()), view=None)

    def __str__(self):
        center, size, angles = (", ".join(f"{value:.2f}" for value in self.box[i : i + 3]) for i in (0, 3, 6))
        where = "world" if self.view is None else f"camera {self.view}"
        return f"{self.label or 'object'}: centre ({center}) m, size ({size}) m, angles ({angles}) rad, {where}"


@dataclass(frozen=True)
class ScenePoint(_Plain, _Placed):
    """One point. Frame: camera of `view`, OpenCV axes; the world where it is None. Units: metres.

    Args:
        label (`str`, *optional*): name of the object there.
        point (`tuple[float, float, float]`): x, y, z.
        mark (`tuple`, *optional*): view, x and y of the marked pixel that it answers.
        view (`int`, *optional*): view whose camera is the frame, counted from 0; None for the world.
        camera_to_world (`tuple`, *optional*): pose of that view, rows of `(4, 4)`, where it is known.
    """

    label: str | None
    point: tuple[float, float, float]
    mark: tuple[int, float, float] | None = None
    view: int | None = 0
    camera_to_world: tuple[tuple[float, ...], ...] | None = field(default=None, repr=False)

    def in_world(self) -> "ScenePoint":
        """The same point in the world of the given poses. Raises ValueError where the pose is not known."""
        point = transform_points(self._pose(), np.array([self.point]))[0]
        return replace(self, point=tuple(point.tolist()), view=None)

    def __str__(self):
        where = "world" if self.view is None else f"camera {self.view}"
        at = "" if self.mark is None else f" at pixel ({self.mark[1]:g}, {self.mark[2]:g}) of view {self.mark[0]}"
        return f"{self.label or 'object'}{at}: ({', '.join(f'{value:.2f}' for value in self.point)}) m, {where}"


@dataclass(frozen=True)
class SceneAnswer(_Plain):
    """The answer to one question about a scene; results of other questions add what they found.

    Args:
        question (`str`): what was asked.
        text (`str`): the raw answer.
        rejected (`tuple[Rejection, ...]`): parts of it that could not be used, and why.
        truncated (`bool`, defaults to False): whether it was cut off, by `max_new_tokens` or within an object.
        views (`SceneViews`, *optional*): views that it is about, in the order of the session.
    """

    question: str
    text: str
    rejected: tuple[Rejection, ...] = ()
    truncated: bool = False
    views: SceneViews | None = field(default=None, repr=False, compare=False)

    def _lines(self):
        return [self.text]

    def __str__(self):
        lines = self._lines() + [f"rejected: {each.reason}: {each.text}" for each in self.rejected]
        return "\n".join(lines + ["(cut off)"] * self.truncated)

    def plot(self, path: str | None = None, cameras: SceneCameras | None = None):
        """Draw it: views with marks, points and boxes, where their cameras are known, and all from above.

        Args:
            path (`str`, *optional*): picture file to write.
            cameras (`SceneCameras`, *optional*): what the session's `cameras()` tells; by default the cameras that
                were given to it.
        Returns:
            a matplotlib figure.
        Raises:
            ImportError: without the package, or without matplotlib.
        """
        try:
            draw = import_module("gap_mllm.processing.result_drawing").draw_result  # not part of the remote code
            return draw(self, path, cameras)
        except ImportError as error:
            raise ImportError(
                f"plot() needs the package with matplotlib: pip install gap-mllm[eval] ({error}). Without it, draw "
                "from to_dict()."
            ) from error


@dataclass(frozen=True)
class ScenePoints(SceneAnswer):
    """The answer about marked pixels: a point for each mark, in their order, None where none could be read.

    Args:
        points (`tuple[ScenePoint | None, ...]`): points, see there.
        marks (`tuple`): view, x and y of each marked pixel.
    """

    points: tuple[ScenePoint | None, ...] = ()
    marks: tuple[tuple[int, float, float], ...] = ()

    @property
    def first(self) -> ScenePoint | None:
        """The point of the first mark."""
        return self.points[0] if self.points else None

    def __iter__(self) -> Iterator:
        return iter(self.points)

    def __len__(self):
        return len(self.points)

    def to_qwen3vl(self) -> list[dict]:
        """Return the marked pixels as Qwen3-VL writes points: `{"point_2d": [x, y], "label": ..}`, in thousandths.

        Qwen3-VL knows one picture; "view" says which.
        """
        told = []
        for point in filter(None, self.points):
            view, *pixel = point.mark
            place, size = ImagePoint(_name(point), view, tuple(pixel)), self.views.sizes[view]
            told += [each | {"view": view} for each in answer_records([place], _QWEN, image_size=size, view=view)]
        return told

    def _lines(self):
        return ["no point could be read" if point is None else str(point) for point in self.points]


@dataclass(frozen=True)
class SceneBoxes(SceneAnswer):
    """The objects of a scene with their boxes, in the order of the answer.

    Args:
        boxes (`tuple[SceneBox, ...]`): boxes, see there.
        labels (`tuple[str, ...]`, *optional*): labels that were asked for; None for all.
    """

    boxes: tuple[SceneBox, ...] = ()
    labels: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator:
        return iter(self.boxes)

    def __len__(self):
        return len(self.boxes)

    def to_coco(self, cameras: SceneCameras | None = None) -> dict:
        """Return the boxes as COCO lays out its files: "images", "categories", "annotations".

        An annotation has the box in the camera of its picture ("bbox_3d", as `convention` says), and in "bbox" what it
        spans in the picture, [x, y, width, height] in pixels, where intrinsics are known and the box lies wholly in
        front of the camera; else None. Where poses are known each picture that a box reaches into has its own, else
        only the picture whose camera is the frame.

        Args:
            cameras (`SceneCameras`, *optional*): argument of `plot`.
        """
        views, told = self.views, cameras or known_cameras(self.views)
        names = sorted({_name(box) for box in self.boxes})
        images = [
            {"id": view, "file_name": name, "width": width, "height": height}
            for view, (name, (width, height)) in enumerate(zip(views.names, views.sizes, strict=True))
        ]
        annotations = []
        for box in self.boxes:
            for view in range(len(views)):
                numbers = _seen_from(box, view, told)
                if numbers is None:
                    continue
                span = _span(numbers, told.intrinsics[view], views.sizes[view])
                if span is None and view != box.view:
                    continue
                annotation = {
                    "id": len(annotations),
                    "image_id": view,
                    "category_id": names.index(box.label or "object"),
                }
                annotation |= {"bbox": span, "bbox_3d": list(numbers), "convention": box.convention, "iscrowd": 0}
                annotations.append(annotation | ({} if span is None else {"area": span[2] * span[3]}))
        categories = [{"id": place, "name": name} for place, name in enumerate(names)]
        return {"images": images, "categories": categories, "annotations": annotations}

    def to_qwen3vl(self, convention: str = _QWEN) -> list[dict]:
        """Return the boxes as Qwen3-VL writes them: `{"bbox_3d": [9 numbers], "label": ..}`, each in its own camera.

        Args:
            convention (`str`, defaults to "qwen3-vl-text"): convention of its prompts, or "qwen3-vl-code", of its
                drawing code; see `gap_mllm.processing.boxes`.
        """
        return answer_records([LabelledBox(_name(box), box.box) for box in self.boxes], convention, decimals=12)

    def _lines(self):
        return [str(box) for box in self.boxes] or ["no boxes"]


@dataclass(frozen=True)
class GroundedObject(SceneBoxes):
    """A described object: the view that shows it, and its box in the camera of that view.

    Args:
        view (`int`, defaults to 0): view that the first stage chose, counted from 0; 0 where its answer names none.
        frame_text (`str`, defaults to ""): raw answer of the first stage.
    """

    view: int = 0
    frame_text: str = ""

    @property
    def box(self) -> SceneBox | None:
        """The box, None where none could be read."""
        return self.boxes[0] if self.boxes else None

    def _lines(self):
        return [f"view {self.view}", *super()._lines()]


def known_cameras(views: SceneViews) -> SceneCameras:
    """The cameras that were given with the views; poses only if all are known."""
    poses, relative = views.camera_to_world, (None,) * len(views)
    if all(pose is not None for pose in poses):
        relative = tuple(view_to_first_view(np.stack(poses)))
    return SceneCameras(views.intrinsics, relative, ("given", "given"), poses)


def frame_to_view(frame: int, view: int, cameras: SceneCameras) -> np.ndarray | None:
    """The transform `(4, 4)` from the camera of one view to that of another, None where it is not known."""
    if frame == view:
        return np.eye(4)
    poses = cameras.view_to_first_view[frame], cameras.view_to_first_view[view]
    return None if any(pose is None for pose in poses) else invert_rigid(poses[1]) @ poses[0]


def _name(place):
    return place.label or "object"


def _seen_from(box, view, cameras):
    """The numbers of a box in the camera of a view, None where they are not known."""
    transform = None if box.view is None else frame_to_view(box.view, view, cameras)
    if transform is None:
        return None
    return tuple(transform_box(np.array(box.box), transform, OURS.box.euler_order).tolist())


def _span(box, intrinsics, size):
    """What a box spans in a picture."""
    corners = box_corners(np.array(box), OURS.box.euler_order)
    if intrinsics is None or corners[:, 2].min() < _NEAR_M:
        return None
    pixels = project_points(corners, intrinsics)[0]
    low, high = (np.clip(edge, -0.5, np.array(size) - 0.5) for edge in (pixels.min(0), pixels.max(0)))
    return None if (high <= low).any() else [float(value) for value in (*low + 0.5, *high - low)]


def _plain(value):
    if is_dataclass(value):
        told = {each.name: _plain(getattr(value, each.name)) for each in fields(value) if each.name != "views"}
        return told | ({"frame": value.frame} if isinstance(value, _Placed) else {})
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
