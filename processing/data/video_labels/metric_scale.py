"""Metres for a reconstruction that has a scale of its own: a user's factor, known depth maps, or a known distance.

A scale estimator is any callable that takes a `Reconstruction` and gives a `MetricScale`; what these classes do not
know (a metric depth network, the height of the camera) is written as another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ...argument_checks import WrongKindError, check_count, check_number, check_path, check_positive
from ...camera_geometry_gap_mllm import scale_pixels
from ...scale_calibration import MetricScale
from ..record_errors import RecordError
from ..source_files import check_depth_file
from .depth_teacher import Reconstruction


TEACHER_UNITS = "none: the teacher's own units"


class ScaleEstimator(Protocol):
    """What `label_video` takes as `scale`: reconstruction in the teacher's units -> metres of one unit."""

    def __call__(self, reconstruction: Reconstruction) -> MetricScale: ...


@dataclass(frozen=True)
class UserFactor:
    """A factor that somebody knows, 1 for a teacher that works in metres.

    Raises:
        TypeError: if it is no number. ValueError: if it is not positive and finite.
    """

    factor: float

    def __post_init__(self):
        check_positive("the scale factor", self.factor)

    def __call__(self, reconstruction: Reconstruction) -> MetricScale:
        """Return the factor."""
        return MetricScale(float(self.factor), "user factor")


@dataclass(frozen=True)
class KnownDepth:
    """The median ratio of known depth to the teacher's, over the pixels that both know and the teacher is sure of.

    Half of the pixels may be wrong before the median is. Maps of another size are read at the nearest pixel: both must
    show the same picture, uncropped.

    Args:
        depth_m (`dict[int, np.ndarray]`): z-depth in metres of some views, by their index; 0 or NaN is no measurement.
        confidence_percentile (`float`, defaults to 50): share of the teacher's pixels in each view that counts as
            unsure, in percent.
        min_pixels (`int`, defaults to 100): fewest pixels that must be left.
    Raises:
        TypeError: if depth_m is no mapping from indices, or a number is none. ValueError: if a number is out of range.
    """

    depth_m: Mapping[int, np.ndarray]
    confidence_percentile: float = 50.0
    min_pixels: int = 100

    def __post_init__(self):
        if not isinstance(self.depth_m, Mapping):
            raise WrongKindError(
                f"depth_m is a {type(self.depth_m).__name__}; expected a mapping from indices of views to depth maps."
            )
        for view in self.depth_m:
            check_count("a view of depth_m", view, least=None)
        check_number("confidence_percentile", self.confidence_percentile, least=0, most=100)
        check_count("min_pixels", self.min_pixels, least=0)

    def __call__(self, reconstruction: Reconstruction) -> MetricScale:
        """Return the median ratio, with the number of pixels and the middle half of the ratios around it.

        Raises:
            ValueError: if a view is not there or its map is no (H, W) array, or too few pixels can be compared.
        """
        ratios = []
        for view, known in self.depth_m.items():
            if not 0 <= view < len(reconstruction) or np.ndim(known) != 2:
                raise ValueError(
                    f"the known depth of view {view} has shape {np.shape(known)}; expected (H, W), and a view from 0 "
                    f"to {len(reconstruction) - 1}."
                )
            depth, confidence = reconstruction.depth[view], reconstruction.confidence[view]
            nearest = read_nearest(np.asarray(known, dtype=np.float64), depth.shape)
            is_sure = confidence >= np.percentile(confidence, self.confidence_percentile)
            valid = is_sure & (depth > 0) & np.isfinite(nearest) & (nearest > 0)
            ratios.append(nearest[valid] / depth[valid])
        ratios = np.concatenate(ratios) if ratios else np.zeros(0)
        if len(ratios) < max(1, self.min_pixels):
            raise ValueError(
                f"known depth and the teacher's can be compared at {len(ratios)} pixels of {len(self.depth_m)} views; "
                f"expected at least {self.min_pixels}. Give depth maps of more views, in metres with 0 for no reading."
            )
        low, factor, high = np.percentile(ratios, (25, 50, 75))
        details = {"num_pixels": len(ratios), "num_views": len(self.depth_m)}
        return MetricScale(float(factor), "known depth", {**details, "middle_half": [float(low), float(high)]})


@dataclass(frozen=True)
class KnownBaseline:
    """The known distance between the cameras of two views.

    Args:
        first_view (`int`), second_view (`int`): indices of the views.
        metres (`float`): distance between their camera centres.
    Raises:
        TypeError: if an index is no integer, or the distance no number. ValueError: if the distance is not positive.
    """

    first_view: int
    second_view: int
    metres: float

    def __post_init__(self):
        for name in ("first_view", "second_view"):
            check_count(name, getattr(self, name), least=None)
        check_positive("metres", self.metres)

    def __call__(self, reconstruction: Reconstruction) -> MetricScale:
        """Return metres over the teacher's distance.

        Raises:
            ValueError: if a view is not there, both are one, or the teacher sees less motion than a thousandth of the
                depth, of which no scale can be told.
        """
        views = (self.first_view, self.second_view)
        if not all(0 <= view < len(reconstruction) for view in views) or views[0] == views[1]:
            raise ValueError(
                f"the views are {views}; expected two different ones from 0 to {len(reconstruction) - 1}."
            )
        centers = reconstruction.camera_to_world[list(views), :3, 3]
        distance = float(np.linalg.norm(centers[1] - centers[0]))
        depth = np.concatenate([reconstruction.depth[view].reshape(-1) for view in views])
        if not distance > 1e-3 * np.median(depth):
            raise ValueError(
                f"by the teacher the cameras of views {views[0]} and {views[1]} are {distance:.2g} apart, less than a "
                f"thousandth of the depth ({np.median(depth):.2g}); give views that lie farther apart."
            )
        return MetricScale(self.metres / distance, "known baseline", {"views": list(views), "metres": self.metres})


def as_scale_estimator(scale, views: list[dict] = (), depth_scale: float = 1000.0) -> ScaleEstimator:
    """Turn what a user gives as scale into an estimator.

    Args:
        scale (`float`, `ScaleEstimator`, `str` or `Path`, *optional*): None keeps the teacher's units; a factor; any
            estimator; or a folder for `known_depth_from_folder`.
        views (`list[dict]`, defaults to none): views that the maps of a folder belong to.
        depth_scale (`float`, defaults to 1000): units of a metre in these maps.
    Returns:
        `ScaleEstimator`.
    Raises:
        TypeError: if it is none of these. ValueError: if a factor is not positive. Others as
            `known_depth_from_folder`.
    """
    if scale is None:
        return lambda reconstruction: MetricScale(1.0, TEACHER_UNITS)
    if isinstance(scale, Real) and not isinstance(scale, bool):
        return UserFactor(scale)
    if isinstance(scale, str | Path):
        folder = check_path("scale", scale, "a factor or a folder of depth maps")
        return known_depth_from_folder(folder, views, depth_scale)
    if callable(scale):
        return scale
    raise WrongKindError(
        f"scale is {scale!r}; expected None, a factor, a folder of depth maps, or an estimator such as KnownDepth."
    )


def read_nearest(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Read a map `(H, W)` at the pixel centres of the same picture at another size `(h, w)`, by the nearest pixel."""
    height, width = values.shape
    corners = [[0.0, 0.0], [shape[1] - 1.0, shape[0] - 1.0]]
    (left, top), (right, bottom) = scale_pixels(np.array(corners), width / shape[1], height / shape[0])
    columns = np.floor(np.linspace(left, right, shape[1]) + 0.5).astype(int).clip(0, width - 1)
    rows = np.floor(np.linspace(top, bottom, shape[0]) + 0.5).astype(int).clip(0, height - 1)
    return values[rows[:, None], columns]


def known_depth_from_folder(folder, views: list[dict], depth_scale: float = 1000.0) -> KnownDepth:
    """Read 16-bit depth PNGs that belong to views of the schema.

    The map of a view has the name of its picture with `.png`, or its frame number as name, with or without zeros.

    Args:
        folder (`str` or `Path`): holds the PNGs; not every view needs one.
        views (`list[dict]`): views of the schema, see `read_video_views`.
        depth_scale (`float`, defaults to 1000): units of a metre.
    Returns:
        `KnownDepth` of the views that have a map.
    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if no view has a map, or the depth scale is not positive.
        RecordError: if a map is no 16-bit picture.

    Example:
        ```python
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> from gap_mllm.processing.data.video_labels import known_depth_from_folder
        >>> Path("depth").mkdir()
        >>> Image.fromarray(np.full((48, 64), 2500, np.uint16)).save("depth/7.png")  # 2.5 m everywhere
        >>> known = known_depth_from_folder("depth", [{"frame_id": 7}])
        >>> {view: float(depth.mean()) for view, depth in known.depth_m.items()}  # by number of the view
        {0: 2.5}

        ```
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; expected one with depth maps (16-bit PNG).")
    check_positive("depth_scale", depth_scale)
    files = {path.stem: path for path in folder.glob("*.png")}
    numbered = {int(stem): path for stem, path in files.items() if stem.isdecimal()}
    found = {}
    for index, view in enumerate(views):
        stem = Path(view["image_path"]).stem if view.get("image_path") else None
        path = files.get(stem) or numbered.get(view.get("frame_id"))
        if path is not None:
            found[index] = path
    if not found:
        raise ValueError(
            f"{folder} holds {len(files)} PNGs, none of them named as one of the {len(views)} pictures or by a frame "
            "number."
        )
    return KnownDepth({index: _read_depth(path) / depth_scale for index, path in found.items()})


def _read_depth(path):
    check_depth_file(path)
    try:
        with Image.open(path) as image:
            return np.asarray(image).astype(np.float64)
    except OSError as error:
        raise RecordError(f"the depth map cannot be decoded: {error}.", "depth", file=str(path)) from None


__all__ = [
    "KnownBaseline",
    "KnownDepth",
    "MetricScale",
    "ScaleEstimator",
    "UserFactor",
    "as_scale_estimator",
    "known_depth_from_folder",
    "read_nearest",
]
