"""A scene in one file of ours, to be written in other forms later, and a folder of all forms."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from .glb_writer import write_glb
from .live_viewers import write_rerun
from .point_files import write_colmap, write_ply
from .scene_values import Box3D, Mark3D, Scene3D, View3D
from .web_page import write_html


SCENE_FILE = "scene.npz"
WRITERS = {  # form: name of the file, function of scene and path
    "glb": ("scene.glb", write_glb),
    "ply": ("points.ply", write_ply),
    "colmap": ("colmap", write_colmap),
    "html": ("scene.html", write_html),
    "rrd": ("scene.rrd", write_rerun),
}
MAX_FILE_POINTS = 500_000  # of GLB, PLY, COLMAP and recordings
_ARRAYS = ("intrinsics", "camera_to_reference", "points", "colors", "confidence")


def write_scene(
    scene: Scene3D,
    folder: str | Path,
    forms: Sequence[str] = ("glb", "ply", "colmap", "html"),
    max_points: int = MAX_FILE_POINTS,
) -> dict[str, Path]:
    """Write a scene into a folder, in several forms; what was written there before is replaced.

    Args:
        scene (`Scene3D`): scene.
        folder (`str` or `Path`): folder to write into.
        forms (list of `str`, defaults to `("glb", "ply", "colmap", "html")`): keys of `WRITERS`; "rrd", too. "ply" is
            left out where there are no points, "colmap" where no view has a camera.
        max_points (`int`, defaults to 500000): most points of any form; pages have fewer.
    Returns:
        `dict[str, Path]`: what was written, by form.
    Raises:
        ValueError: on an unknown form, or if `max_points` is below 1. ImportError: where a form needs an extra.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import scene_from_sample, write_scene
        >>> written = write_scene(scene_from_sample(render_room(0).as_sample()), "room", ["ply", "html"])
        >>> sorted(written)
        ['html', 'ply']

        ```
    """
    check_forms(forms)
    scene, folder = scene.sample_points(max_points), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for form in forms:
        has_cameras = any(view.intrinsics is not None and view.camera_to_reference is not None for view in scene.views)
        if (form == "ply" and not scene.num_points) or (form == "colmap" and not has_cameras):
            continue
        name, write = WRITERS[form]
        written[form] = write(scene, folder / name)
    return written


def check_forms(forms: Sequence[str]) -> None:
    """Raise ValueError for a form that is none of `WRITERS`."""
    unknown = [form for form in forms if form not in WRITERS]
    if unknown:
        raise ValueError(f"unknown form {unknown[0]!r}; known are {', '.join(WRITERS)}.")


def save_scene(scene: Scene3D, path: str | Path) -> Path:
    """Save a scene as one `.npz` file, pictures as JPEG inside; `load_scene` gives it back.

    Args:
        scene (`Scene3D`): scene.
        path (`str` or `Path`): file to write.
    Returns:
        `Path`: the file.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import load_scene, save_scene, scene_from_sample
        >>> scene = scene_from_sample(render_room(0).as_sample())
        >>> load_scene(save_scene(scene, "scene.npz")).num_points == scene.num_points
        True

        ```
    """
    arrays = {}
    for index, view in enumerate(scene.views):
        file = io.BytesIO()
        view.picture.convert("RGB").save(file, format="JPEG", quality=92)
        arrays[f"picture_{index}"] = np.frombuffer(file.getvalue(), np.uint8)
        for name in _ARRAYS:
            if getattr(view, name) is not None:
                arrays[f"{name}_{index}"] = getattr(view, name)
    told = {"names": [view.name for view in scene.views], "answers": scene.answers, "title": scene.title}
    told |= {"up": list(scene.up), "boxes": [asdict(box) for box in scene.boxes]}
    told["marks"] = [asdict(mark) for mark in scene.marks]
    path = Path(path)
    with path.open("wb") as file:
        np.savez_compressed(file, scene=np.array(json.dumps(told)), **arrays)
    return path


def load_scene(path: str | Path) -> Scene3D:
    """Read a scene that `save_scene` wrote.

    Args:
        path (`str` or `Path`): the file.
    Returns:
        `Scene3D`.
    Raises:
        FileNotFoundError: if there is no such file. ValueError: if it is another one.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import load_scene, save_scene, scene_from_sample
        >>> load_scene(save_scene(scene_from_sample(render_room(0).as_sample()), "scene.npz")).title
        'room_0000000'

        ```
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        told = json.loads(str(arrays["scene"]))
        views = []
        for index, name in enumerate(told["names"]):
            own = {part: arrays[f"{part}_{index}"] for part in _ARRAYS if f"{part}_{index}" in arrays}
            picture = Image.open(io.BytesIO(arrays[f"picture_{index}"].tobytes())).convert("RGB")
            views.append(View3D(name, picture, **own))
        boxes = tuple(Box3D(box["label"], tuple(box["numbers"]), box["kind"]) for box in told["boxes"])
        marks = tuple(
            Mark3D(**{name: tuple(value) if isinstance(value, list) else value for name, value in mark.items()})
            for mark in told["marks"]
        )
        answers = tuple((question, text) for question, text in told["answers"])
        return Scene3D(tuple(views), boxes, marks, answers, told["title"], tuple(told["up"]))
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"{path} is no scene that `gap-mllm ask` or `show` wrote: {error}") from None
