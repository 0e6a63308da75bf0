"""Scenes as PLY and as COLMAP's text model; what reads such a model back is in colmap_reader.py."""

from pathlib import Path

import numpy as np

from ..camera_geometry_gap_mllm import invert_rigid
from .scene_values import Scene3D, has_camera


_VERTEX = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
_VERTEX += [("confidence", "<f4"), ("view", "<u2")]
_PLY_TYPES = {"<f4": "float", "u1": "uchar", "<u2": "ushort"}


def write_ply(scene: Scene3D, path: str | Path) -> Path:
    """Write the points of all views, with colour, confidence and number of the view, as binary PLY.

    Frame: camera of the reference view, OpenCV axes (+x right, +y down, +z forward). Units: metres.

    Args:
        scene (`Scene3D`): scene; all of its points are written.
        path (`str` or `Path`): file to write.
    Returns:
        `Path`: the file.
    Raises:
        ValueError: if there are no points.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import scene_from_sample, write_ply
        >>> scene = scene_from_sample(render_room(0).as_sample())
        >>> write_ply(scene, "room.ply").name
        'room.ply'

        ```
    """
    vertices = np.empty(scene.num_points, _VERTEX)
    if not len(vertices):
        raise ValueError("the scene holds no points; PLY has nothing else to write.")
    for names, part in ((("x", "y", "z"), "points"), (("red", "green", "blue"), "colors")):
        columns = np.concatenate([getattr(view, part) for view in scene.views])
        for axis, name in enumerate(names):
            vertices[name] = columns[:, axis]
    vertices["confidence"] = np.concatenate([view.confidence for view in scene.views])
    vertices["view"] = np.repeat(np.arange(len(scene.views)), [len(view.points) for view in scene.views])
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        "comment camera of the reference view, +x right +y down, metres",
    ]
    lines += [f"element vertex {len(vertices)}", *(f"property {_PLY_TYPES[kind]} {name}" for name, kind in _VERTEX)]
    path = Path(path)
    path.write_bytes("\n".join([*lines, "end_header\n"]).encode("ascii") + vertices.tobytes())
    return path


def write_colmap(scene: Scene3D, folder: str | Path) -> Path:
    """Write COLMAP's text model, `cameras.txt`, `images.txt` and `points3D.txt`, and the pictures in `images/`.

    Frame: world is the camera of the reference view, OpenCV axes; poses are world to camera, as quaternions w, x, y,
    z. Units: metres; pixels with centres at .5, as COLMAP counts them, so that principal points grow by a half. Points
    have no tracks. Views without a camera are left out.

    Args:
        scene (`Scene3D`): scene.
        folder (`str` or `Path`): folder to write into.
    Returns:
        `Path`: the folder.
    Raises:
        ValueError: if no view has a camera, or one has skew, which COLMAP's PINHOLE model has not; or if the folder
            holds files of another model (.bin, rigs, frames), which COLMAP would read in place of these or with them.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import read_colmap, scene_from_sample, write_colmap
        >>> scene = scene_from_sample(render_room(0).as_sample())
        >>> folder = write_colmap(scene, "colmap")
        >>> len(read_colmap(folder).views), read_colmap(folder).num_points
        (4, 65536)

        ```
    """
    from scipy.spatial.transform import Rotation

    folder = Path(folder)
    chosen = [(number, view) for number, view in enumerate(scene.views, 1) if has_camera(view)]
    if not chosen:
        raise ValueError("no view of the scene has intrinsics and a pose; COLMAP needs cameras.")
    _check_no_other_model(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    cameras, images, points = ["# CAMERA_ID MODEL WIDTH HEIGHT FX FY CX CY"], [], ["# POINT3D_ID X Y Z R G B ERROR"]
    images.append("# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and an empty line of 2D points")
    for number, view in chosen:
        k = np.asarray(view.intrinsics, np.float64)
        if abs(k[0, 1]) > 1e-6 * k[0, 0]:
            raise ValueError(f"{view.name} has skew {k[0, 1]:g}, which COLMAP's PINHOLE camera has not.")
        name = f"view_{number - 1:04d}.png"
        view.picture.save(folder / "images" / name)
        numbers = (k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5)
        size = " ".join(map(str, view.picture.size))
        cameras.append(f"{number} PINHOLE {size} {_words(numbers)}")
        pose = invert_rigid(np.asarray(view.camera_to_reference, np.float64))
        turn = Rotation.from_matrix(pose[:3, :3]).as_quat(canonical=True, scalar_first=True)
        images += [f"{number} {_words(turn)} {_words(pose[:3, 3])} {number} {name}", ""]
    number = 0
    for view in scene.views:
        for place, color in zip(view.points.tolist(), view.colors.tolist(), strict=True):
            number += 1
            points.append(f"{number} {place[0]:.6g} {place[1]:.6g} {place[2]:.6g} {color[0]} {color[1]} {color[2]} 0")
    for name, lines in (("cameras", cameras), ("images", images), ("points3D", points)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _check_no_other_model(folder):
    names = [
        *(f"{name}.bin" for name in ("cameras", "images", "points3D", "rigs", "frames")),
        "rigs.txt",
        "frames.txt",
    ]
    found = [name for name in names if (folder / name).is_file()]
    if found:
        raise ValueError(
            f"{folder} holds {', '.join(found)} of another model, which COLMAP reads in place of the text or with it; "
            "take them away, or write to another folder."
        )


def _words(numbers):
    return " ".join(f"{value + 0.0:.12g}" for value in numbers)
