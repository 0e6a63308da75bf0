"""The views of one scene, however they come: pictures, a folder of them or a video, with what is known of cameras.

Which files are views is decided in view_files_gap_mllm.py.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .camera_geometry_gap_mllm import check_pose_known, check_rigid, fit_intrinsics, scale_intrinsics, scale_pixels
from .frame_sampling_gap_mllm import FrameChoice, uniform_sample
from .input_checks_gap_mllm import check_count, whole_text
from .video_decoding_gap_mllm import VideoFile, VideoFrame
from .view_files_gap_mllm import Orientation, file_content, folder_views, name_some, natural_key, stored_size
from .visual_prompt_gap_mllm import is_remote, open_image, to_rgb_image


MAX_VIEWS = 32  # of a folder or video, where the caller says nothing
MAX_PICTURE_SIDE = 2048  # pixels; what is kept of larger pictures, of which a model sees a fraction
MAX_OFF_CENTER = 0.05  # of a side: how far from the middle a principal point lies that must be of the upright picture


@dataclass(frozen=True, eq=False)
class SceneViews:
    """Views of one scene. Frame: OpenCV cameras, of upright pictures. Units: pixels, integer at centres; metres.

    Args:
        pictures (`tuple[PIL.Image.Image, ...]`): upright RGB pictures; those of more than 2048 pixels a side are kept
            smaller than they were given.
        names (`tuple[str, ...]`): file names, "view 0" and so on for pictures without one.
        intrinsics (`tuple`): array `(3, 3)` of each view, in pixels of `sizes`; None where it is not known.
        camera_to_world (`tuple`): array `(4, 4)` of each view, None where it is not known.
        sizes (`tuple[tuple[int, int], ...]`, *optional*): width and height of each upright picture as it was given,
            in whose pixels marks and intrinsics are; by default those of `pictures`.
        notes (`tuple[str, ...]`): sentences about what was left out, turned or scaled.
    """

    pictures: tuple[Image.Image, ...]
    names: tuple[str, ...]
    intrinsics: tuple[np.ndarray | None, ...]
    camera_to_world: tuple[np.ndarray | None, ...]
    sizes: tuple[tuple[int, int], ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        if self.sizes is None:
            object.__setattr__(self, "sizes", tuple(picture.size for picture in self.pictures))

    def __len__(self):
        return len(self.pictures)

    def __repr__(self):
        return f"SceneViews({len(self)} views)"

    def picture_intrinsics(self, view: int, intrinsics: np.ndarray | None) -> np.ndarray | None:
        """Intrinsics in pixels of `pictures[view]`, from those in pixels of `sizes[view]`; None stays None."""
        if intrinsics is None:
            return None
        return scale_intrinsics(np.asarray(intrinsics, np.float64), *self._scale(view))

    def extent(self, view: int) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of a picture in pixels of `sizes`, as matplotlib's `imshow` takes them."""
        width, height = self.sizes[view]
        return -0.5, width - 0.5, height - 0.5, -0.5

    def picture_pixel(self, view: int, pixel: Sequence[float]) -> tuple[float, float]:
        """Where a pixel of the picture as it was given lies in `pictures[view]`."""
        return tuple(scale_pixels(np.asarray(pixel, np.float64), *self._scale(view)).tolist())

    def picture_marks(self, marks: Sequence) -> list:
        """Marks in pixels of `pictures`, to draw them there.

        Args:
            marks (list of `Mark`): marks in pixels of `sizes`.
        Returns:
            `list[Mark]`: the marks that were given where pictures have their size.
        Raises:
            ValueError: if a mark lies outside of a picture that is kept smaller; others are checked where it is drawn.
        """
        return [self._picture_mark(mark) for mark in marks]

    def _picture_mark(self, mark):
        if not 0 <= mark.view < len(self) or self.pictures[mark.view].size == self.sizes[mark.view]:
            return mark
        x, y = mark.pixel
        width, height = self.sizes[mark.view]
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(
                f"mark on view {mark.view}: pixel (x={x}, y={y}) lies outside the picture of {width} x {height} "
                "(width x height)."
            )
        place = [int(value + 0.5) for value in self.picture_pixel(mark.view, mark.pixel)]
        largest = [side - 1 for side in self.pictures[mark.view].size]
        return replace(mark, pixel=tuple(min(max(value, 0), most) for value, most in zip(place, largest, strict=True)))

    def _scale(self, view):
        (width, height), given = self.pictures[view].size, self.sizes[view]
        return width / given[0], height / given[1]


def open_views(
    views: Any,
    intrinsics: Sequence | Mapping | np.ndarray | torch.Tensor | None = None,
    poses: Sequence | Mapping | np.ndarray | torch.Tensor | None = None,
    max_views: int = MAX_VIEWS,
    intrinsics_size: tuple[int, int] | None = None,
) -> SceneViews:
    """Open the views of one scene.

    Intrinsics and poses belong to the pictures as they are stored: where EXIF or a video's display matrix turns a
    picture upright, they are turned with it. Intrinsics of another size are scaled by `fit_intrinsics`.

    Args:
        views (list, `str`, `Path`, one picture, or `SceneViews`): pictures of any kind that `to_rgb_image` takes, all
            of which are views; a folder, of which `folder_views` chooses the pictures, in natural order of their
            names; an animated picture, as GIF or a TIFF of several pages; a video file; or views that are open.
        intrinsics (array of shape `(3, 3)` or `(V, 3, 3)`, list, or mapping from file names, *optional*): intrinsics
            in pixels of the stored pictures; of a folder or video for the views that are taken, or for all its
            pictures or frames.
        poses (array of shape `(V, 4, 4)`, list, or mapping from file names, *optional*): camera to world, for as many.
        max_views (`int`, defaults to 32): most views that are taken of a folder or video, evenly spaced.
        intrinsics_size (`tuple[int, int]`, *optional*): width and height of the pictures that intrinsics were measured
            on, where these were larger or smaller ones.
    Returns:
        `SceneViews`.
    Raises:
        ValueError: if there is no view, a file is none, `max_views` is below 1, intrinsics or poses are none, differ
            in number, name no picture or are of another shape of picture, or come with views that are open, or a pose
            comes with a picture that is stored mirrored.
        FileNotFoundError: if a path does not exist. TypeError: if something is no picture. ImportError: for HEIC
            without pillow-heif, and videos without PyAV.
    """
    if isinstance(views, SceneViews):
        if intrinsics is not None or poses is not None:
            raise ValueError("these views are open already; give intrinsics and poses when they are opened.")
        return views
    found = _find(views, check_count("max_views", max_views))
    if not found.sources:
        raise ValueError("there are no views; give one picture of the scene or more.")
    opened = [_open_view(source, f"view {view}") for view, source in enumerate(found.sources)]
    if _is_one_camera(intrinsics):
        intrinsics = [intrinsics] * len(opened)
    cameras, poses = found.entries("intrinsics", intrinsics), found.entries("poses", poses)
    if any(value is not None for value in (*cameras, *poses)):
        found.note_turns(opened)
        found.note_order()
    cameras = [_camera(view, opened[view], camera, intrinsics_size, found) for view, camera in enumerate(cameras)]
    found.note_scales()
    return SceneViews(
        tuple(view.image for view in opened),
        tuple(map(whole_text, found.names)),  # names of files may be bytes that are no text
        tuple(cameras),
        tuple(_pose(view, opened[view], pose) for view, pose in enumerate(poses)),
        tuple(view.orientation.size(view.square_size) for view in opened),
        tuple(dict.fromkeys(found.notes)),
    )


# Finding them


@dataclass(eq=False)
class _Found:
    """What is opened as views, and of which pictures or frames they are a choice."""

    sources: list
    names: list[str]
    paths: list[Path | None]
    chosen: list[int]
    total: int
    is_listed: bool = False  # by the caller, in an order of theirs
    notes: list[str] = field(default_factory=list)
    scaled: dict[str, list[int]] = field(default_factory=dict)  # how intrinsics were scaled -> views

    def entries(self, name, values) -> list:
        """What is given for each view, None where nothing is."""
        if values is None:
            return [None] * len(self.sources)
        if isinstance(values, Mapping):
            return self._by_name(name, values)
        values = list(values)
        if len(values) == self.total:
            return [values[index] for index in self.chosen]
        if len(values) != len(self.chosen):
            among = "" if self.total == len(self.chosen) else f", taken of {self.total}"
            raise ValueError(
                f"{name} has {len(values)} entries, but there are {len(self.chosen)} views{among}. Give one for each "
                "view, None where it is not known, or a mapping from file names."
            )
        return values

    def _by_name(self, name, values):
        found, unknown = {}, []
        for key, value in values.items():
            if not isinstance(key, str | os.PathLike):
                raise ValueError(
                    f"{name} has the key {key!r}; expected file names, or a list in the order of the views."
                )
            views = _named_views(str(key), self.paths)
            if len(views) > 1:
                raise ValueError(f"{name} of {key!r} could be of {len(views)} views; give more of the path.")
            if views and views[0] in found:
                raise ValueError(f"{name} names {self.names[views[0]]} twice, the second time as {key!r}.")
            found |= dict.fromkeys(views, value)
            unknown += [] if views else [key]
        if not found:
            raise ValueError(
                f"{name} names {name_some(values)}, none of which is a view here: {name_some(self.names)}."
            )
        if unknown:
            self.notes.append(f"{name} names {len(unknown)} that are no views here: {name_some(unknown)}")
        without = [each for view, each in enumerate(self.names) if view not in found]
        if without:
            self.notes.append(f"without {name}, which names other files: {name_some(without)}")
        return [found.get(view) for view in range(len(self.sources))]

    def note_turns(self, opened) -> None:
        """Note which views are turned, and their intrinsics and poses with them."""
        turned = [name for name, view in zip(self.names, opened, strict=True) if not view.orientation.is_upright]
        if turned:
            self.notes.append(
                f"turned upright by EXIF or display matrix, and their intrinsics and poses with them: "
                f"{name_some(turned)}"
            )

    def note_scales(self) -> None:
        """Note how intrinsics were scaled, once for all views that were scaled alike."""
        for how, views in self.scaled.items():
            listed = f"view {views[0]}" if len(views) == 1 else f"{len(views)} views"
            self.notes.append(f"intrinsics of {listed}: {how}")

    def note_order(self) -> None:
        """Note if files are listed as text sorts them, where 10 comes before 2; a shell does that."""
        paths = [path for path in self.paths if path is not None]
        is_text_order = paths == sorted(paths) != sorted(paths, key=natural_key)
        if self.is_listed and is_text_order:
            self.notes.append(
                f"intrinsics and poses are matched to the files in the order given, {name_some(self.names)}, where 10 "
                "comes before 2; give the folder, or a mapping from file names, if they are in natural order"
            )


def _named_views(key, paths):
    """The views that a name means: with the end of their path, or with that but for the suffix."""
    parts = Path(key).parts
    same = [view for view, path in enumerate(paths) if path and path.parts[-len(parts) :] == parts]
    if same:
        return same
    stems = {Path(key).stem, Path(key).name}
    places = [view for view, path in enumerate(paths) if path and path.stem in stems]
    return [view for view in places if paths[view].parts[-len(parts) : -1] == parts[:-1]]


def _find(views, max_views) -> _Found:
    if _is_path(views):
        return _find_path(views, max_views)
    if isinstance(views, Image.Image | str) or (isinstance(views, np.ndarray | torch.Tensor) and views.ndim == 3):
        views = [views]
    try:
        views = list(views)
    except TypeError:
        raise TypeError(
            f"views is a {type(views).__name__}; expected pictures, a folder of them, or a video file."
        ) from None
    if len(views) == 1 and _is_path(views[0]):
        return _find_path(views[0], max_views)
    parts = [part for place, view in enumerate(views) for part in _listed(view, place, len(views))]
    names = [name or f"view {view}" for view, (_, name, _) in enumerate(parts)]
    every = list(range(len(parts)))
    return _Found([part[0] for part in parts], names, [part[2] for part in parts], every, len(every), is_listed=True)


def _is_path(view):
    """Whether something names a local file or folder; texts may be URLs and pictures in base64, too."""
    if isinstance(view, os.PathLike):
        return True
    return isinstance(view, str) and not is_remote(view) and (len(view) < 200 or os.path.exists(view))


def _listed(view, place, count):
    """(source, name, path) of one of several views, of an animation for each of its pictures."""
    if not _is_path(view):
        return [(view, None, None)]
    path = Path(view)
    kind = "folder" if path.is_dir() else file_content(path).kind
    if kind in ("folder", "video"):
        raise ValueError(f"view {place} is the {kind} {path} among {count} views; give it alone, or pictures only.")
    if kind == "animation":
        frames, _ = VideoFile(path).read(lambda times: list(range(len(times))))
        return [(frame, _moment(path, frame), path) for frame in frames]
    return [(path, path.name, path)]


def _find_path(path, max_views) -> _Found:
    path = Path(path)
    if path.is_dir():
        return _find_in_folder(path, max_views)
    kind = file_content(path).kind if path.exists() else "picture"  # which says that there is none
    if kind in ("video", "animation"):
        frames, times = VideoFile(path).read(FrameChoice(num_frames=max_views).candidates)
        names, paths = [_moment(path, frame) for frame in frames], [None] * len(frames)
        return _Found(frames, names, paths, [frame.index for frame in frames], len(times))
    if kind == "other":
        raise ValueError(f"{path} is no picture and no video; give pictures, a folder of them, or a video file.")
    return _Found([path], [path.name], [path], [0], 1)


def _find_in_folder(folder, max_views):
    found = folder_views(folder)
    chosen = uniform_sample(len(found.pictures), max_views)
    taken = [found.pictures[index] for index in chosen]
    return _Found(taken, [path.name for path in taken], taken, chosen, len(found.pictures), notes=list(found.notes))


def _moment(path, frame):
    moment = f"page {frame.index}" if frame.timestamp is None else f"{frame.timestamp:.2f} s"
    return f"{path.name} {moment}"


# Opening them


def _open_view(source, name) -> VideoFrame:
    """An upright picture as a frame that knows what made it upright."""
    if isinstance(source, VideoFrame):
        return replace(source, image=_kept(source.image))
    orientation = Orientation()
    if isinstance(source, str | os.PathLike):
        source, name = open_image(source, name)
        size, orientation = _as_stored(source, name)
        source.draft(source.mode, (MAX_PICTURE_SIDE, MAX_PICTURE_SIDE))  # a JPEG is decoded no larger than needed
    elif isinstance(source, Image.Image):
        size, orientation = _as_stored(source, name)
    picture = to_rgb_image(source, name)
    if not isinstance(source, Image.Image):
        size = picture.size
    return VideoFrame(0, None, _kept(picture), orientation, size)


def _as_stored(image, name):
    """Size and orientation of a picture; one that is cut off is an error that names it."""
    try:
        return stored_size(image), Orientation.of_picture(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{name} cannot be decoded; the file is damaged or cut off: {error}") from error


def _kept(picture):
    """The picture, smaller if it is large: dozens of photographs of 50 megapixels would not fit into memory."""
    scale = MAX_PICTURE_SIDE / max(picture.size)
    if scale >= 1:
        return picture
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


# What is known of them


def _is_one_camera(intrinsics):
    """Whether one matrix is given for all views."""
    if intrinsics is None or isinstance(intrinsics, Mapping) or not hasattr(intrinsics, "__len__"):
        return False
    if len(intrinsics) != 3:
        return False
    return all(np.ndim(row) == 1 for row in intrinsics)


def _camera(view, opened, value, intrinsics_size, found):
    if value is None:
        return None
    what, size = f"intrinsics of view {view}", opened.stored_size
    camera = _as_matrix(value, what, 3)
    if not np.isfinite(camera).all() or camera[0, 0] <= 0 or camera[1, 1] <= 0 or (camera[2] != [0, 0, 1]).any():
        raise ValueError(
            f"{what} is {camera.tolist()}; expected finite numbers, focal lengths above 0 and a last row of 0 0 1."
        )
    if opened.orientation.is_swapped and intrinsics_size is None:
        _refuse_upright_camera(what, camera, size)
    camera, note = fit_intrinsics(camera, size, intrinsics_size, what)
    if note is not None:
        found.scaled.setdefault(note.removeprefix(f"{what}: "), []).append(view)
    return opened.upright_intrinsics(camera, what)


def _refuse_upright_camera(what, camera, size):
    """Refuse intrinsics of the upright picture: with what the pose goes, nobody could say."""
    stored, upright = (_off_center(camera, sides) for sides in (size, size[::-1]))
    if upright < MAX_OFF_CENTER and upright < stored / 2:
        raise ValueError(
            f"{what} are of a picture of {size[1]} x {size[0]}, by their principal point ({camera[0, 2]:.1f}, "
            f"{camera[1, 2]:.1f}), but the picture is stored as {size[0]} x {size[1]} and turned upright by its EXIF. "
            "Give intrinsics and poses of the stored picture, or save it upright without EXIF."
        )


def _off_center(camera, size):
    """How far the principal point lies from the middle, in shares of a side."""
    return max(abs((camera[axis, 2] + 0.5) / size[axis] - 0.5) for axis in (0, 1))


def _pose(view, opened, value):
    if value is None:
        return None
    what = f"poses of view {view}"
    pose = _as_matrix(value, what, 4)
    check_pose_known(pose, what)
    check_rigid(pose, what)
    if opened.orientation.is_upright:
        return pose
    try:
        return opened.orientation.pose(pose)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _as_matrix(value, what, size):
    try:
        matrix = np.asarray(torch.as_tensor(value).detach().cpu() if isinstance(value, torch.Tensor) else value, float)
    except ValueError:  # rows of different lengths, or text
        raise ValueError(f"{what} is {value!r}; expected ({size}, {size}) numbers.") from None
    if matrix.shape != (size, size):
        raise ValueError(f"{what} has shape {matrix.shape}; expected ({size}, {size}).")
    return matrix
