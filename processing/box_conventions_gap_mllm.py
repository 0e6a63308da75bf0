"""Conventions of 3D boxes and points by name, as others write them, and the numbers of a box from one to another.

A convention is a row of data: axes, units, orders. How it is spelt as text is in other_answers_gap_mllm.py. "ours" is
the frame of this package: camera of the first view, OpenCV axes (+x right, +y down, +z forward), metres, radians.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .camera_geometry_gap_mllm import (
    euler_to_matrix,
    invert_rigid,
    matrix_to_euler,
    project_points,
    transform_points,
    unproject_depth,
)


GRID = 1000  # of coordinates that are thousandths of a picture's width and height

# Columns: the axes of a convention's camera, in ours.
_OPENCV = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_Z_UP = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))  # x right, y forward, z up
_RENAME = np.array(((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))  # x to y, y to z, z to x: a rotation
_TURNS = {"zxy": "Ry Rx Rz", "ZXY": "Rz Rx Ry", "xyz": "Rz Ry Rx"}
_SHAPES = {"image_size": (2,), "intrinsics": (3, 3), "depth_m": (None, None), "camera_to_world": (4, 4)}
_MAX_SKEW = 0.05  # of a rotation matrix that was printed with few decimals
_MAX_TURN = 0.02  # a rotation so near to one by right angles is taken as one


@dataclass(frozen=True)
class BoxForm:
    """The numbers of a 3D box.

    Args:
        names (`tuple[str, ...]`): names of the numbers, in their order.
        spelling (`str`, defaults to "json"): form of the text: "json", "tag", "omni3d" or "spar".
        key (`str`, defaults to "bbox_3d"): key or tag of a box in a text.
        euler_order (`str`, *optional*): "zxy", "ZXY" or "xyz", as scipy reads them; None where there are no angles.
        angle_axes (`str`, defaults to "zxy"): axis that each stored angle turns about.
        angle_unit (`float`, defaults to 1.0): radians in one unit.
        size_axes (`str`, defaults to "xyz"): axis of the box that each stored size lies along.
        axes (matrix of 3 x 3, defaults to OpenCV's): columns are the convention's camera axes in ours.
        decimals (`int`, defaults to 2): digits after the point in a text.
    """

    names: tuple[str, ...]
    spelling: str = "json"
    key: str = "bbox_3d"
    euler_order: str | None = "zxy"
    angle_axes: str = "zxy"
    angle_unit: float = 1.0
    size_axes: str = "xyz"
    axes: tuple = _OPENCV
    decimals: int = 2

    @property
    def rotation(self) -> str:
        """The rotation from a box's own axes to the convention's camera, in words."""
        return _TURNS[self.euler_order] if self.euler_order else "a matrix" if len(self.names) > 9 else "none"


@dataclass(frozen=True)
class PointForm:
    """The numbers of a point, and where they have one, of a box in the picture.

    Args:
        spelling (`str`, defaults to "json"): form of the text: "json", "molmo" or "spar".
        key (`str`, defaults to "point_2d"): key of a point in JSON.
        order (`str`, defaults to "xy"): "xy" or "yx", of thousandths of the picture; "xyz" in metres.
        box_key (`str`, *optional*): key of a 2D box in JSON, in the same order: near corner, far corner.
    """

    spelling: str = "json"
    key: str = "point_2d"
    order: str = "xy"
    box_key: str | None = None


@dataclass(frozen=True)
class Convention:
    """How somebody writes boxes and points.

    Args:
        name (`str`): its key in `CONVENTIONS`.
        source (`str`): where it is told, and what is not told.
        box (`BoxForm`, *optional*): form of 3D boxes, if it has them.
        point (`PointForm`, *optional*): form of points, if it has them.
        needs (`tuple[str, ...]`, defaults to none): fields of `Pictures` without which a 3D box has no meaning.
        asks (`str`, defaults to ""): what the prompt has to tell the model.
    """

    name: str
    source: str
    box: BoxForm | None = None
    point: PointForm | None = None
    needs: tuple[str, ...] = ()
    asks: str = ""


_CENTER, _SIZES = ("x_center", "y_center", "z_center"), ("x_size", "y_size", "z_size")
_OUR_NAMES = (*_CENTER, *_SIZES, "yaw", "pitch", "roll")
_QWEN_POINT = PointForm(key="point_2d", box_key="bbox_2d")
_OUR_POINT = PointForm(key="pointmap", order="xyz")

CONVENTIONS = {
    convention.name: convention
    for convention in (
        Convention(
            "ours",
            "This package: Euler angles (z, x, y), extrinsic as scipy reads them, in the camera of the first view.",
            BoxForm(_OUR_NAMES),
            _OUR_POINT,
        ),
        Convention(
            "gap-release",
            "The released detection and grounding data of GAP-MLLM: the same numbers and the same text as ours. Its "
            'prompt calls the key "box_3d", its answers "bbox_3d"; its evaluators read the angles as "embodiedscan".',
            BoxForm(_OUR_NAMES),
            _OUR_POINT,
        ),
        Convention(
            "embodiedscan",
            "EmbodiedScan's infos, and files of VG-LLM's later preprocessing: the same three angles, intrinsic.",
            BoxForm((*_CENTER, *_SIZES, "yaw", "roll", "pitch"), euler_order="ZXY"),
        ),
        Convention(
            "qwen3-vl-text",
            "The text of Qwen3-VL's 3D grounding cookbook: roll, pitch, yaw. It names neither unit nor axes: "
            "radians, and the axes that its code gives to these names (pitch x, yaw y, roll z), are our reading. "
            "Text and code contradict each other: threads 2044 (order) and 1501 (unit) of QwenLM/Qwen3-VL are open.",
            BoxForm((*_CENTER, *_SIZES, "roll", "pitch", "yaw"), euler_order="xyz", angle_axes="zxy"),
            _QWEN_POINT,
        ),
        Convention(
            "qwen3-vl-code",
            "What the code of the same cookbook draws: pitch, yaw, roll, each in units of 180 degrees.",
            BoxForm(
                (*_CENTER, *_SIZES, "pitch", "yaw", "roll"), euler_order="xyz", angle_axes="xyz", angle_unit=math.pi
            ),
            _QWEN_POINT,
        ),
        Convention(
            "omni3d",
            "Omni3D's annotations: dimensions are width, height, length, which lie along z, y and x of the box; "
            "rotation is a matrix. Its detectors work in a virtual camera, annotations do not.",
            BoxForm(
                (*_CENTER, "width", "height", "length", *(f"r{row}{column}" for row in "012" for column in "012")),
                spelling="omni3d",
                key="center_cam",
                euler_order=None,
                size_axes="zyx",
                decimals=6,
            ),
        ),
        Convention(
            "seed1.5-vl",
            "The prompt of Seed1.5-VL's 3D detection: pitch, yaw, roll about x, y, z, each over 180 degrees, from -1 "
            "to 1. The order of the turns is not told; that of Qwen3-VL's code, whose form it shares, is taken.",
            BoxForm(
                (*_CENTER, *_SIZES, "pitch", "yaw", "roll"),
                spelling="tag",
                key="3dbbox",
                euler_order="xyz",
                angle_axes="xyz",
                angle_unit=math.pi,
            ),
            asks="intrinsics",
        ),
        Convention(
            "spar",
            "SPAR's grounding answers: view, place of the centre in thousandths, its depth, sizes. There are no "
            "angles: sizes are taken along the axes of that view's camera. The words between the numbers are ours.",
            BoxForm(("frame", "u", "v", "depth", *_SIZES), spelling="spar", euler_order=None),
            PointForm(spelling="spar"),
            needs=("image_size", "intrinsics"),
        ),
        Convention(
            "gemini",
            "Gemini's spatial understanding: degrees, in a camera with x right, y forward, z up; points and 2D boxes "
            "in thousandths, y first.",
            BoxForm(
                (*_CENTER, *_SIZES, "roll", "pitch", "yaw"),
                key="box_3d",
                euler_order="xyz",
                angle_axes="xyz",
                angle_unit=math.pi / 180,
                axes=_Z_UP,
            ),
            PointForm(key="point", order="yx", box_key="box_2d"),
        ),
        Convention(
            "molmo",
            'Molmo2: `<points coords="t id x y ...">`, t counted from 1, in thousandths; percent in tags of the first '
            "Molmo.",
            point=PointForm(spelling="molmo"),
        ),
    )
}

OURS = CONVENTIONS["ours"]


def find_convention(name: str, kind: str | None = None) -> Convention:
    """Return a convention by its name; case, blanks and underscores do not matter.

    Args:
        name (`str`): a key of `CONVENTIONS`, or "gap_mllm", which is "ours".
        kind (`str`, *optional*): "box" or "point", which it must have.
    Returns:
        `Convention`.
    Raises:
        ValueError: if there is none of this name, or it does not write such things; those that do are named.

    Example:
        ```python
        >>> from gap_mllm.processing.boxes import find_convention
        >>> find_convention("Qwen3-VL code").box.angle_axes
        'xyz'

        ```
    """
    known = [key for key, convention in CONVENTIONS.items() if kind is None or getattr(convention, kind)]
    key = name.strip().lower().replace("_", "-").replace(" ", "-") if isinstance(name, str) else name
    key = "ours" if key == "gap-mllm" else key
    if key not in known:
        writes = f"convention {key!r} has no {kind}" if key in CONVENTIONS else f"unknown convention {name!r}"
        raise ValueError(f"{writes}; known{f' for a {kind}' if kind else ''} are {', '.join(known)}.")
    return CONVENTIONS[key]


@dataclass(frozen=True)
class Pictures:
    """What is known of the pictures that an answer is about; each field for all of them, or one for each.

    Args:
        image_size (`tuple[int, int]` or list of them, *optional*): width and height in pixels.
        intrinsics (array of shape `(3, 3)` or `(V, 3, 3)`, *optional*): cameras, in pixels of these sizes.
        depth_m (array of shape `(H, W)` or `(V, H, W)`, *optional*): z-depth, of any size; not above 0 marks none.
        camera_to_world (array of shape `(V, 4, 4)`, *optional*): poses, for what is in another view than the first.
        view (`int`, defaults to 0): view that is meant where the answer names none.
    """

    image_size: Sequence | None = None
    intrinsics: np.ndarray | None = None
    depth_m: np.ndarray | None = None
    camera_to_world: np.ndarray | None = None
    view: int = 0

    def require(self, names: Sequence[str], why: str) -> None:
        """Raise ValueError unless these fields are there."""
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{why} needs {' and '.join(missing)}; pass {missing[0]}=....")

    def of(self, name: str, view: int, why: str) -> np.ndarray:
        """The field of a view; ValueError if it is not there."""
        self.require((name,), why)
        value, shape = np.asarray(getattr(self, name), dtype=np.float64), _SHAPES[name]
        if name != "camera_to_world" and value.ndim == len(shape):
            value = np.broadcast_to(value, (view + 1, *value.shape))
        fits = [wanted in (None, got) for wanted, got in zip(shape[::-1], value.shape[::-1], strict=False)]
        if value.ndim != len(shape) + 1 or not all(fits) or not 0 <= view < len(value):
            raise ValueError(f"{name} has shape {np.shape(getattr(self, name))}, which tells nothing of view {view}.")
        return value[view]

    def to_first_view(self, view: int, why: str) -> np.ndarray:
        """The transform `(4, 4)` from the camera of a view to that of the first; ValueError without poses."""
        if view == 0:
            return np.eye(4)
        poses = [self.of("camera_to_world", each, why) for each in (0, view)]
        return invert_rigid(poses[0]) @ poses[1]

    def to_pixels(self, thousandths: Sequence[float], view: int, why: str) -> np.ndarray:
        """Pixels (x, y, ...) of thousandths (x, y, ...), as the models' own code draws them."""
        size = self.of("image_size", view, why)
        return np.asarray(thousandths, dtype=np.float64) / GRID * np.resize(size, len(thousandths))

    def to_thousandths(self, pixels: Sequence[float], view: int, why: str) -> np.ndarray:
        """The inverse of `to_pixels`."""
        return np.asarray(pixels, dtype=np.float64) * GRID / np.resize(self.of("image_size", view, why), len(pixels))

    def lift(self, pixel: np.ndarray, depth_m: float, view: int, why: str) -> np.ndarray:
        """The point `(3,)` in the camera of a view that a pixel sees at a z-depth."""
        k = self.of("intrinsics", view, why).copy()
        k[:2, 2] -= pixel  # the pixel becomes the only one of a picture
        return unproject_depth(np.full((1, 1), depth_m), k)[0, 0]

    def drop(self, point: np.ndarray, view: int, why: str) -> tuple[np.ndarray, float]:
        """The pixel at which a view sees a point of its camera, and its z-depth; ValueError behind the camera."""
        pixel, depth_m = project_points(np.asarray(point, dtype=np.float64), self.of("intrinsics", view, why))
        if not depth_m > 0:
            raise ValueError(f"{why}: the point {np.round(point, 3).tolist()} lies behind the camera of view {view}.")
        return pixel, float(depth_m)

    def depth_at(self, pixel: np.ndarray, view: int, why: str) -> float:
        """The z-depth at a pixel; ValueError where none was measured."""
        depth = self.of("depth_m", view, why)
        size = self.of("image_size", view, why)
        x, y = (np.asarray(pixel) / size * depth.shape[::-1]).astype(int).clip(0, np.array(depth.shape[::-1]) - 1)
        if not (np.isfinite(depth[y, x]) and depth[y, x] > 0):
            raise ValueError(f"no depth was measured at pixel {np.round(pixel, 1).tolist()} of view {view}")
        return float(depth[y, x])


def convert(
    box: Sequence, source: str, target: str, frame: int = 0, lossy: bool = False, **pictures: object
) -> np.ndarray:
    """Write the numbers of 3D boxes in another convention: the same solid, corner for corner.

    Frame: of "ours" the camera of the first view, of all others the camera of the view that is asked about; one
    without a number is taken to be the first. Units: those of each convention, see `CONVENTIONS`. Angles of one
    rotation are not unique; those that come back are in the principal range of `matrix_to_euler`.

    Args:
        box (array-like of shape `(..., n)`): boxes, as many numbers each as the source's `BoxForm` names.
        source (`str`), target (`str`): keys of `CONVENTIONS`.
        frame (`int`, defaults to 0): view that "spar" boxes are written in.
        lossy (`bool`, defaults to False): whether a turned box may become its bounds where the target has no angles.
        **pictures: fields of `Pictures`, which "spar" needs.
    Returns:
        `np.ndarray` of shape `(..., m)`, float64.
    Raises:
        ValueError: if a convention is unknown or has no boxes, a number is not finite, a size is not positive, a
            rotation is none, what it needs of the pictures is missing, or a turned box would lose its angles.

    Example:
        ```python
        >>> from gap_mllm.processing.boxes import convert
        >>> box = [0.5, 0, 2, 1, 2, 0.5, 0.0, 0.0, 1.5707963]  # ours, turned about y
        >>> convert(box, "ours", "qwen3-vl-code").round(3).tolist()[:8]
        [0.5, 0.0, 2.0, 1.0, 2.0, 0.5, 0.0, 0.5]

        ```
    """
    taken, given = find_convention(source, "box"), find_convention(target, "box")
    known = Pictures(**pictures)
    boxes = np.asarray(box, dtype=np.float64)
    if boxes.ndim < 1 or boxes.shape[-1] != len(taken.box.names):
        raise ValueError(
            f"a box of {taken.name!r} has {len(taken.box.names)} numbers ({', '.join(taken.box.names)}), got shape "
            f"{boxes.shape}."
        )
    rows = boxes.reshape(-1, boxes.shape[-1])
    solids = [_to_solid(row, taken, known) for row in rows]
    if taken.box is given.box:
        return boxes.copy()
    written = [_from_solid(*solid, given, known, frame, lossy) for solid in solids]
    return np.reshape(written, (*boxes.shape[:-1], len(given.box.names))) + 0.0  # turns -0.0 into 0.0


def _to_solid(row, convention, pictures):
    """Centre, sizes and rotation of a box in our frame."""
    form, why = convention.box, f"a box of {convention.name!r}"
    if not np.isfinite(row).all():
        raise ValueError(f"{why} holds a number that is not finite: {row.tolist()}.")
    start = 4 if form.spelling == "spar" else 3
    sizes = row[start : start + 3][[form.size_axes.index(axis) for axis in "xyz"]]
    if sizes.min() <= 0:
        raise ValueError(f"{why} has a size that is not positive: {row[start : start + 3].tolist()}.")
    if form.spelling == "spar":
        view = int(row[0])
        if view != row[0] or view < 0:
            raise ValueError(f"{why} names view {row[0]}, which is no whole number of at least 0.")
        center = pictures.lift(pictures.to_pixels(row[1:3], view, why), row[3], view, why)
        if not np.isfinite(center).all():
            raise ValueError(f"{why} has depth {row[3]}; expected a positive number.")
        to_first = pictures.to_first_view(view, why)
        return transform_points(to_first, center), sizes, to_first[:3, :3]
    axes = np.array(form.axes)
    turn = _nearest_rotation(row[6:].reshape(3, 3), why) if form.euler_order is None else _to_matrix(row[6:9], form)
    return axes @ row[:3], sizes, axes @ turn


def _from_solid(center, sizes, rotation, convention, pictures, frame, lossy):
    form, why = convention.box, f"a box of {convention.name!r}"
    stored = ["xyz".index(axis) for axis in form.size_axes]
    if form.spelling == "spar":
        to_view = invert_rigid(pictures.to_first_view(frame, why))
        turn = np.abs(to_view[:3, :3] @ rotation)
        if np.abs(turn - turn.round()).max() < _MAX_TURN:
            turn = turn.round()  # by right angles
        elif not lossy:
            raise ValueError(f"{why} has no angles, and this one is turned: pass lossy=True for its bounds.")
        pixel, depth_m = pictures.drop(transform_points(to_view, center), frame, why)
        return [frame, *pictures.to_thousandths(pixel, frame, why), depth_m, *(turn @ sizes)]
    axes = np.array(form.axes)
    turn = axes.T @ rotation
    return [
        *(axes.T @ center),
        *sizes[stored],
        *(turn.ravel() if form.euler_order is None else _to_angles(turn, form)),
    ]


def _to_matrix(angles, form):
    """Rotation of the stored angles, to the convention's camera."""
    by_axis = dict(zip(form.angle_axes, angles * form.angle_unit, strict=True))
    if form.euler_order != "xyz":
        return euler_to_matrix(np.array([by_axis[axis] for axis in "zxy"]), form.euler_order)
    # Rz Ry Rx is Ry Rx Rz of axes that are named in turn.
    return _RENAME @ euler_to_matrix(np.array([by_axis[axis] for axis in "xyz"]), "zxy") @ _RENAME.T


def _to_angles(matrix, form):
    if form.euler_order != "xyz":
        by_axis = dict(zip("zxy", matrix_to_euler(matrix, form.euler_order), strict=True))
    else:
        by_axis = dict(zip("xyz", matrix_to_euler(_RENAME.T @ matrix @ _RENAME, "zxy"), strict=True))
    return [by_axis[axis] / form.angle_unit for axis in form.angle_axes]


def _nearest_rotation(matrix, why):
    """The rotation that a printed matrix stands for."""
    left, stretch, right = np.linalg.svd(matrix)
    if np.abs(stretch - 1).max() > _MAX_SKEW or np.linalg.det(matrix) < 0:
        raise ValueError(f"{why} has a matrix that is no rotation: {matrix.round(3).tolist()}.")
    return left @ right
