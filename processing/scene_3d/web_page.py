"""Scenes as one HTML page that opens offline: everything is in the file, and viewer.html beside this one draws it."""

import base64
import html
import io
import json
from importlib.resources import files
from pathlib import Path

import numpy as np

from ..data.box_projection import BOX_EDGES
from ..input_checks_gap_mllm import whole_text
from .scene_values import COLORS, Scene3D, frustum_corners, has_camera


MAX_PAGE_POINTS = 120_000  # 12 bytes each, and a third more as text: 1.9 MB
MAX_PICTURE_BYTES = 1_500_000  # of all thumbnails together
THUMBNAIL_WIDTHS = (320, 200, 120, 60)  # the first that fits is taken
FRUSTUM_SHARE = 0.1  # of the radius of the scene
_STEPS = 65535  # places are told in so many steps for each axis: of a room of 10 m, 0.15 mm


def write_html(scene: Scene3D, path: str | Path, max_points: int = MAX_PAGE_POINTS) -> Path:
    """Write a page with the scene in 3D, to turn, zoom and touch, its views below and its answers beside it.

    The page names no address and needs no network, only WebGL. The points of closed rooms hide each other from
    outside: what is nearest is cut away at first, by a slider.
    Frame: camera of the reference view, OpenCV axes, shown with `scene.up` upwards. Units: metres.

    Args:
        scene (`Scene3D`): scene.
        path (`str` or `Path`): file to write.
        max_points (`int`, defaults to 120000): most points; more are sampled, which the page says. With that many, the
            page stays below 5 MB.
    Returns:
        `Path`: the file.
    Raises:
        ValueError: if `max_points` is below 1.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import scene_from_sample, write_html
        >>> page = write_html(scene_from_sample(render_room(0).as_sample()), "room.html")
        >>> "http" in page.read_text()
        False

        ```
    """
    total = scene.num_points
    scene = scene.sample_points(max_points)
    told = f"{scene.num_points} points" + (f", sampled of {total}" if scene.num_points < total else "")
    told += f", {len(scene.views)} views. Metres; camera of view 0."
    middle, radius = scene.reach()
    text = json.dumps(
        {
            "title": scene.title,
            "told": told,
            "up": list(scene.up),
            "middle": middle.tolist(),
            "radius": radius,
            "colors": {kind: list(color) for kind, color in COLORS.items()},
            "edges": [edge[:2] for edge in BOX_EDGES],
            "points": _points(scene),
            "views": _views(scene, radius),
            "boxes": [_box(box, np.array(scene.up)) for box in scene.boxes],
            "marks": [
                {"label": mark.label or "object", "kind": mark.kind, "point": list(map(float, mark.point))}
                for mark in scene.marks
            ],
            "answers": scene.answers,
        }
    )
    # Inside of a script element no text may look like its end: labels are what a model says.
    text = text.replace("<", "\\u003c").replace("&", "\\u0026")
    page = files(__package__).joinpath("viewer.html").read_text(encoding="utf-8")
    page = page.replace("@TITLE@", html.escape(scene.title)).replace("@SCENE@", text)
    path = Path(path)
    path.write_text(whole_text(page), encoding="utf-8")
    return path


def _points(scene):
    """Points in 16 bits for each axis, colours, confidences and views, as base64."""
    xyz = np.concatenate([view.points for view in scene.views]).astype(np.float64)
    low = xyz.min(0, initial=np.inf) if len(xyz) else np.zeros(3)
    step = np.maximum(xyz.max(0) - low, 1e-9) / _STEPS if len(xyz) else np.ones(3)
    sure = np.concatenate([view.confidence for view in scene.views]).astype(np.float64)
    ranks = np.searchsorted(np.sort(sure), sure) / max(len(sure), 1)  # a share of the points, whatever the unit
    numbers = np.repeat(np.arange(len(scene.views)), [len(view.points) for view in scene.views])
    return {
        "count": len(xyz),
        "low": low.tolist(),
        "step": step.tolist(),
        "xyz": _text(np.round((xyz - low) / step).astype("<u2")),
        "rgb": _text(np.concatenate([view.colors for view in scene.views]).astype(np.uint8)),
        "confidence": _text((255 * ranks).astype(np.uint8)),
        "view": _text(numbers.astype("<u2")),
        "varies": bool(len(sure) and sure.min() < sure.max()),
    }


def _text(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _views(scene, radius):
    pictures = _thumbnails([view.picture for view in scene.views])
    told = []
    for view, picture in zip(scene.views, pictures, strict=True):
        entry = {"name": view.name, "picture": f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}"}
        if has_camera(view):
            pose, (width, height), k = view.camera_to_reference, view.picture.size, view.intrinsics
            aside = (k[0, 2] + 0.5 - width / 2, height / 2 - 0.5 - k[1, 2])  # of the principal point, upwards
            entry |= {
                "center": pose[:3, 3].tolist(),
                "forward": pose[:3, 2].tolist(),
                "frustum": frustum_corners(view, FRUSTUM_SHARE * radius).tolist(),
                "angle": float(2 * np.arctan(height / 2 / k[1, 1])),
                "shift": [float(2 * pixels / height) for pixels in aside],
            }
        told.append(entry)
    return told


def _thumbnails(pictures):
    """JPEG bytes of all pictures, as large as fits the page."""
    made = []
    for width in THUMBNAIL_WIDTHS:
        made = []
        for picture in pictures:
            small, file = picture.convert("RGB"), io.BytesIO()
            small.thumbnail((width, width))
            small.save(file, format="JPEG", quality=80)
            made.append(file.getvalue())
        if sum(map(len, made)) <= MAX_PICTURE_BYTES:
            break
    return made


def _box(box, up):
    corners = box.corners
    top = corners[np.argsort(corners @ up)[-4:]].mean(0)  # where the label stands
    return {"label": box.label or "object", "kind": box.kind, "corners": corners.tolist(), "top": top.tolist()}
