"""Typed answers about a scene: what was found, in which frame and convention, the raw text, and what was refused.

They print, go to dict and JSON and to the forms of others, and draw themselves where the package is installed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib import import_module

import numpy as np

from .answers_gap_mllm import LabelledBox, Rejection
from .box_conventions_gap_mllm import OURS
from .camera_geometry_gap_mllm import (
    box_corners,
    invert_rigid,
    project_points,
    transform_box,
    transform_points,
    view_to_first_view,
)
from .other_answers_gap_mllm import ImagePoint, answer_records
from .scene_points_gap_mllm import SceneCameras
from .scene_views_gap_mllm import SceneViews
from .whole_text_gap_mllm import whole_text


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
            place, size = ImagePoint(_name(point), view, tuple(pixel)), self.views.pictures[view].size
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
            {"id": view, "file_name": name, "width": picture.width, "height": picture.height}
            for view, (name, picture) in enumerate(zip(views.names, views.pictures, strict=True))
        ]
        annotations = []
        for box in self.boxes:
            for view in range(len(views)):
                numbers = _seen_from(box, view, told)
                if numbers is None:
                    continue
                span = _span(numbers, told.intrinsics[view], views.pictures[view].size)
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


__all__ = [
    "GroundedObject",
    "SceneAnswer",
    "SceneBox",
    "SceneBoxes",
    "ScenePoint",
    "ScenePoints",
    "frame_to_view",
    "known_cameras",
]
