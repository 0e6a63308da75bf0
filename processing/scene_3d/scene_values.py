"""What the 3D view shows, as plain values: views with cameras and points, boxes, marked points, and what was answered.

Frame: camera of the reference view, OpenCV axes (+x right, +y down, +z forward), for everything in a scene. Units:
metres (of a geometry encoder that was not trained on metres, its own), radians, pixels with integer centres. Where
scenes come from is in scene_sources.py; the writers turn axes where a format wants others.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from ..camera_geometry_gap_mllm import box_corners, check_rigid


KINDS = ("true", "predicted")
COLORS = {"true": (0, 143, 48), "predicted": (230, 81, 0), "camera": (31, 78, 156)}  # those of drawing.py


@dataclass(frozen=True, eq=False)
class View3D:
    """One view: picture, camera, and the points that its pixels see.

    Args:
        name (`str`): name to show, as that of the file.
        picture (`PIL.Image.Image`): upright picture.
        intrinsics (`np.ndarray` of shape `(3, 3)`, *optional*): intrinsics in pixels of the picture.
        camera_to_reference (`np.ndarray` of shape `(4, 4)`, *optional*): pose; the identity for the reference view.
        points (`np.ndarray` of shape `(N, 3)`): points in the frame of the scene, finite.
        colors (`np.ndarray` of shape `(N, 3)`, uint8): their colours.
        confidence (`np.ndarray` of shape `(N,)`): how sure each is, larger is surer; 1 of a measurement.
    Raises:
        ValueError: if shapes do not fit, a point is not finite, or the pose is not rigid.
    """

    name: str
    picture: Image.Image
    intrinsics: np.ndarray | None = None
    camera_to_reference: np.ndarray | None = None
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    colors: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.uint8))
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    def __post_init__(self):
        count = len(self.points)
        shapes = {"points": (count, 3), "colors": (count, 3), "confidence": (count,)}
        shapes |= {"intrinsics": (3, 3), "camera_to_reference": (4, 4)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                raise ValueError(f"{name} of {self.name} has shape {np.shape(value)}; expected {shape}.")
        if not np.isfinite(self.points).all():
            raise ValueError(f"points of {self.name} hold NaN or infinity; leave pixels without a point out.")
        if self.camera_to_reference is not None:
            check_rigid(np.asarray(self.camera_to_reference), f"camera_to_reference of {self.name}")


@dataclass(frozen=True)
class Box3D:
    """A box: centre, full sizes, yaw, pitch, roll (Euler order "zxy", extrinsic); `kind` is "true" or "predicted"."""

    label: str | None
    numbers: tuple[float, ...]
    kind: str = "predicted"

    def __post_init__(self):
        _check_kind(self.kind)
        if np.shape(self.numbers) != (9,) or not np.isfinite(self.numbers).all():
            raise ValueError(f"the box {self.label!r} is {self.numbers}; expected nine finite numbers.")

    @property
    def corners(self) -> np.ndarray:
        """The eight corners, `(8, 3)`, in the order of `BOX_CORNER_SIGNS`."""
        return box_corners(np.array(self.numbers, np.float64), "zxy")


@dataclass(frozen=True)
class Mark3D:
    """A point with a name; `view` and `pixel` are the marked pixel, where it answers one."""

    label: str | None
    point: tuple[float, float, float]
    kind: str = "predicted"
    view: int | None = None
    pixel: tuple[float, float] | None = None

    def __post_init__(self):
        _check_kind(self.kind)
        if np.shape(self.point) != (3,) or not np.isfinite(self.point).all():
            raise ValueError(f"the point {self.label!r} is {self.point}; expected three finite numbers.")


@dataclass(frozen=True, eq=False)
class Scene3D:
    """A scene to look at.

    Args:
        views (`tuple[View3D, ...]`): views; of `reference_view` the camera is the frame.
        boxes (`tuple[Box3D, ...]`): boxes, true and predicted.
        marks (`tuple[Mark3D, ...]`): points with a name, true and predicted.
        answers (`tuple[tuple[str, str], ...]`): questions and what was answered, to be read beside the picture.
        title (`str`, defaults to "scene"): heading.
        up (`tuple[float, float, float]`, defaults to (0, -1, 0)): direction up; the camera's, where none is known.
    Raises:
        ValueError: if there is no view.
    """

    views: tuple[View3D, ...]
    boxes: tuple[Box3D, ...] = ()
    marks: tuple[Mark3D, ...] = ()
    answers: tuple[tuple[str, str], ...] = ()
    title: str = "scene"
    up: tuple[float, float, float] = (0.0, -1.0, 0.0)

    def __post_init__(self):
        if not self.views:
            raise ValueError("the scene has no views; give one or more.")

    @property
    def num_points(self) -> int:
        """Points of all views."""
        return sum(len(view.points) for view in self.views)

    def sample_points(self, max_points: int, seed: int = 0) -> "Scene3D":
        """Return the scene with at most so many of its points, drawn evenly from all views; the same for a seed."""
        if max_points < 1:
            raise ValueError(f"max_points is {max_points}; expected 1 or more.")
        if self.num_points <= max_points:
            return self
        kept = np.zeros(self.num_points, bool)
        kept[np.random.default_rng(seed).choice(self.num_points, max_points, replace=False)] = True
        views, start = [], 0
        for view in self.views:
            chosen = kept[start : start + len(view.points)]
            start += len(view.points)
            arrays = {name: getattr(view, name)[chosen] for name in ("points", "colors", "confidence")}
            views.append(replace(view, **arrays))
        return replace(self, views=tuple(views))

    def reach(self) -> tuple[np.ndarray, float]:
        """Middle of what there is to see and the radius that holds nine tenths of it; far outliers do not count."""
        places = [view.points for view in self.views] + [box.corners for box in self.boxes]
        places += [
            view.camera_to_reference[None, :3, 3] for view in self.views if view.camera_to_reference is not None
        ]
        places = np.concatenate([*places, np.reshape([mark.point for mark in self.marks], (-1, 3)), np.zeros((1, 3))])
        middle = np.median(places, 0)
        return middle, max(float(np.quantile(np.linalg.norm(places - middle, axis=1), 0.9)), 1e-3)


def frustum_corners(view: View3D, depth: float) -> np.ndarray:
    """Return the corners of a picture at a z-depth, `(4, 3)`, clockwise from the top left; of a view with a camera.

    Frame: that of the scene. Units: metres.
    """
    width, height = view.picture.size
    pixels = np.array(
        [[-0.5, -0.5, 1], [width - 0.5, -0.5, 1], [width - 0.5, height - 0.5, 1], [-0.5, height - 0.5, 1]]
    )
    rays = pixels @ np.linalg.inv(view.intrinsics).T
    return depth * rays @ view.camera_to_reference[:3, :3].T + view.camera_to_reference[:3, 3]


def has_camera(view: View3D) -> bool:
    """Whether both intrinsics and pose are known."""
    return view.intrinsics is not None and view.camera_to_reference is not None


def _check_kind(kind):
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}.")
