"""The views of one scene, however they come: pictures, a folder of them or a video, with what is known of cameras."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .camera_geometry_gap_mllm import check_rigid
from .frame_choice_gap_mllm import FrameChoice
from .frame_sampling_gap_mllm import uniform_sample
from .number_checks_gap_mllm import check_count
from .video_decoding_gap_mllm import VideoFile
from .visual_prompt_gap_mllm import to_rgb_image


MAX_VIEWS = 32  # of a folder or video, where the caller says nothing


@dataclass(frozen=True, eq=False)
class SceneViews:
    """Views of one scene. Frame: OpenCV cameras. Units: pixels of the pictures, integer at centres; metres.

    Args:
        pictures (`tuple[PIL.Image.Image, ...]`): upright RGB pictures.
        names (`tuple[str, ...]`): file names, "view 0" and so on for pictures without one.
        intrinsics (`tuple`): array `(3, 3)` of each view, None where it is not known.
        camera_to_world (`tuple`): array `(4, 4)` of each view, None where it is not known.
    """

    pictures: tuple[Image.Image, ...]
    names: tuple[str, ...]
    intrinsics: tuple[np.ndarray | None, ...]
    camera_to_world: tuple[np.ndarray | None, ...]

    def __len__(self):
        return len(self.pictures)

    def __repr__(self):
        return f"SceneViews({len(self)} views)"


def open_views(
    views: Any,
    intrinsics: Sequence | np.ndarray | torch.Tensor | None = None,
    poses: Sequence | np.ndarray | torch.Tensor | None = None,
    max_views: int = MAX_VIEWS,
) -> SceneViews:
    """Open the views of one scene.

    Args:
        views (list, `str`, `Path`, one picture, or `SceneViews`): pictures of any kind that `to_rgb_image` takes, all
            of which are views; a folder of pictures, in order of their names; a video file; or views that are open.
        intrinsics (array of shape `(3, 3)` or `(V, 3, 3)`, or list, *optional*): intrinsics in pixels of the
            pictures; of a folder or video for the views that are taken, or for all its pictures or frames.
        poses (array of shape `(V, 4, 4)` or list, *optional*): camera to world, for as many.
        max_views (`int`, defaults to 32): most views that are taken of a folder or video, evenly spaced.
    Returns:
        `SceneViews`.
    Raises:
        ValueError: if there is no view, a file is none, `max_views` is below 1, or intrinsics or poses are none or
            differ in number, or come with views that are open.
        FileNotFoundError: if a path does not exist. TypeError: if something is no picture.
    """
    if isinstance(views, SceneViews):
        if intrinsics is not None or poses is not None:
            raise ValueError("these views are open already; give intrinsics and poses when they are opened.")
        return views
    total, max_views = None, check_count("max_views", max_views)
    if isinstance(views, str | os.PathLike) and not str(views).startswith(("http:", "https:", "data:")):
        path = Path(views)
        if path.is_dir():
            views, names, chosen, total = _open_folder(path, max_views)
        elif path.is_file() and path.suffix.lower() not in _picture_suffixes():
            views, names, chosen, total = _open_video(path, max_views)
        else:
            views = [path]
    elif isinstance(views, Image.Image) or (isinstance(views, np.ndarray | torch.Tensor) and views.ndim == 3):
        views = [views]
    if total is None:
        try:
            views = list(views)
        except TypeError:
            raise TypeError(
                f"views is a {type(views).__name__}; expected pictures, a folder of them, or a video file."
            ) from None
        names = [Path(each).name if isinstance(each, os.PathLike) else f"view {i}" for i, each in enumerate(views)]
        chosen, total = list(range(len(views))), len(views)
    if not views:
        raise ValueError("there are no views; give one picture of the scene or more.")
    pictures = tuple(to_rgb_image(view, f"view {index}") for index, view in enumerate(views))
    if intrinsics is not None and len(intrinsics) == 3 and all(np.ndim(row) == 1 for row in intrinsics):
        intrinsics = [intrinsics] * len(pictures)
    cameras = _entries("intrinsics", intrinsics, chosen, total, _check_camera, pictures)
    poses = _entries("poses", poses, chosen, total, _check_pose, pictures)
    return SceneViews(pictures, tuple(names), cameras, poses)


def _picture_suffixes():
    Image.init()
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def _open_folder(folder, max_views):
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    pictures = [path for path in files if path.suffix.lower() in _picture_suffixes()]
    if not pictures:
        raise ValueError(f"{folder} holds no pictures (such as .jpg or .png), but {len(files)} other files.")
    chosen = uniform_sample(len(pictures), max_views)
    taken = [pictures[index] for index in chosen]
    return taken, [path.name for path in taken], chosen, len(pictures)


def _open_video(path, max_views):
    frames, times = VideoFile(path).read(FrameChoice(num_frames=max_views).candidates)
    names = [f"{path.name} {frame.timestamp:.2f} s" for frame in frames]
    return [frame.image for frame in frames], names, [frame.index for frame in frames], len(times)


def _entries(name, values, chosen, total, check, pictures):
    if values is None:
        return (None,) * len(chosen)
    values = list(values)
    if len(values) == total:
        values = [values[index] for index in chosen]
    if len(values) != len(chosen):
        among = "" if total == len(chosen) else f", taken of {total}"
        raise ValueError(
            f"{name} has {len(values)} entries, but there are {len(chosen)} views{among}. Give one for each view, "
            "None where it is not known."
        )
    return tuple(
        None if value is None else check(f"{name} of view {view}", value, pictures[view].size)
        for view, value in enumerate(values)
    )


def _as_matrix(value, what, size):
    try:
        matrix = np.asarray(torch.as_tensor(value).detach().cpu() if isinstance(value, torch.Tensor) else value, float)
    except ValueError:  # rows of different lengths, or text
        raise ValueError(f"{what} is {value!r}; expected ({size}, {size}) numbers.") from None
    if matrix.shape != (size, size):
        raise ValueError(f"{what} has shape {matrix.shape}; expected ({size}, {size}).")
    return matrix


def _check_camera(what, value, size):
    camera = _as_matrix(value, what, 3)
    if not np.isfinite(camera).all() or camera[0, 0] <= 0 or camera[1, 1] <= 0 or (camera[2] != [0, 0, 1]).any():
        raise ValueError(
            f"{what} is {camera.tolist()}; expected finite numbers, focal lengths above 0 and a last row of 0 0 1."
        )
    return camera


def _check_pose(what, value, size):
    pose = _as_matrix(value, what, 4)
    check_rigid(pose, what)
    return pose


__all__ = ["MAX_VIEWS", "SceneViews", "open_views"]
