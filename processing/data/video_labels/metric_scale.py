"""Metres for a reconstruction that has a scale of its own: a user's factor, known depth maps, or a known distance.

A scale estimator is any callable that takes a `Reconstruction` and gives a `MetricScale`; what these classes do not
know (a metric depth network, the height of the camera) is written as another.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from transformers.utils import logging

from ...argument_checks import check_path
from ...camera_geometry_gap_mllm import scale_pixels
from ...input_checks_gap_mllm import WrongKindError, check_count, check_number, check_positive
from ...scale_calibration import MetricScale
from ...view_files_gap_mllm import Orientation
from ..record_errors import RecordError
from ..source_files import check_depth_file
from ..upright_pictures import (
    has_shape_of,
    picture_orientation,
    quarter_turn_hint,
    stored_picture_size,
    upright_depth,
)
from .depth_teacher import Reconstruction


logger = logging.get_logger(__name__)

TEACHER_UNITS = "none: the teacher's own units"
MAX_PATCH = 16  # pixels; a teacher's sides are rounded to patches
# Spread of ratios: the median of |log ratio - median|. On rendered rooms a teacher with errors of 10 % gives 0.07, a
# map that is turned 0.1 to 1.4. With a share of 0.6 no right map of 96 was refused at errors up to 50 %; of turned
# maps all were for an exact teacher, nine of ten at errors of 10 %, and the factor of the others was right to 5 %.
SURE_SPREAD = 0.02  # below it a map fits
CLEARLY_BETTER = 0.6  # another turn fits, if its spread is smaller than this share
WIDE_SPREAD = math.log(2) / 2  # half of the pixels lie beyond a factor of 2 around the median
MAX_FACTOR_BETWEEN_VIEWS = 2.0
MIN_PIXELS_TO_COMPARE = 50
TURNS = {
    Orientation(False, True, True): "turned by 180 degrees (upside down)",
    Orientation(False, True, False): "mirrored, left to right",
    Orientation(False, False, True): "mirrored, top to bottom",
    Orientation(True, True, False): "turned by 90 degrees clockwise",
    Orientation(True, False, True): "turned by 90 degrees counter-clockwise",
    Orientation(True, False, False): "transposed",
    Orientation(True, True, True): "transposed, and turned by 180 degrees",
}


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
    show the same picture, uncropped and upright. A map of another shape is refused, and one that fits the teacher's
    depth clearly better if it is turned; a warning names maps that fit badly, and views whose factors differ much.

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
            ValueError: if a view is not there or its map is no (H, W) array, has another shape than the teacher's
                depth, or is turned against it; or if too few pixels can be compared.
        """
        ratios = []
        for view, known in self.depth_m.items():
            if not 0 <= view < len(reconstruction) or np.ndim(known) != 2:
                raise ValueError(
                    f"the known depth of view {view} has shape {np.shape(known)}; expected (H, W), and a view from 0 "
                    f"to {len(reconstruction) - 1}."
                )
            known, depth = np.asarray(known, dtype=np.float64), reconstruction.depth[view]
            check_map_shape(f"the known depth of view {view}", known.shape, depth.shape)
            confidence = reconstruction.confidence[view]
            is_sure = (confidence >= np.percentile(confidence, self.confidence_percentile)) & (depth > 0)
            ratios.append(_ratios(known, depth, is_sure))
            _refuse_turned(view, known, depth, is_sure, ratios[-1])
        _warn_of_spread(dict(zip(self.depth_m, ratios, strict=True)))
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


def check_map_shape(name: str, shape: tuple[int, int], teacher_shape: tuple[int, int]) -> None:
    """Refuse a map whose shape is not that of a teacher's, whatever their sizes.

    Args:
        name (`str`): how the error calls the map.
        shape (`tuple[int, int]`), teacher_shape (`tuple[int, int]`): height and width of both; the teacher's are
            those of the picture, rounded to patches.
    Raises:
        ValueError: if width over height differs by more than 5 % and what rounding explains.
    """
    (height, width), (teacher_height, teacher_width) = shape, teacher_shape
    slack = min(math.gcd(teacher_height, teacher_width), MAX_PATCH) / 2 / min(teacher_height, teacher_width)
    size = teacher_width, teacher_height
    if not has_shape_of(shape, size, slack):
        raise ValueError(
            f"{name} has {width} x {height} pixels and the teacher's {teacher_width} x {teacher_height}, another "
            f"shape, so that they do not meet. {quarter_turn_hint(shape, size, slack)}Give the map of the whole "
            "picture, upright as the picture is."
        )


def _ratios(known, depth, is_sure):
    """Known over the teacher's depth, at the pixels that both know."""
    nearest = read_nearest(known, depth.shape)
    valid = is_sure & np.isfinite(nearest) & (nearest > 0)
    return nearest[valid] / depth[valid]


def _spread(ratios):
    """Median distance of the logarithms from their median; infinite where there is too little to compare."""
    if len(ratios) < MIN_PIXELS_TO_COMPARE:
        return math.inf
    logs = np.log(ratios)
    return float(np.median(np.abs(logs - np.median(logs))))


def _refuse_turned(view, known, depth, is_sure, ratios):
    """Refuse a map that would fit the teacher's depth clearly better if it were turned."""
    own = _spread(ratios)
    if not SURE_SPREAD < own < math.inf:
        return
    maps = {text: turn.array(known) for turn, text in TURNS.items()}
    fitting = {text: each for text, each in maps.items() if has_shape_of(each.shape, known.shape[::-1])}
    spreads = {text: _spread(_ratios(each, depth, is_sure)) for text, each in fitting.items()}
    best = min(spreads, key=spreads.get)
    if spreads[best] < CLEARLY_BETTER * own:
        raise ValueError(
            f"the known depth of view {view} does not lie as its picture does: half of its ratios to the teacher's "
            f"depth are more than {100 * math.expm1(own):.0f} % off, but {100 * math.expm1(spreads[best]):.0f} % if "
            f"it is {best}. Give the map upright, as the picture is."
        )


def _warn_of_spread(ratios):
    """Warn of views whose map fits badly, and of views that disagree about the factor."""
    wide = [view for view, each in ratios.items() if WIDE_SPREAD < _spread(each) < math.inf]
    if wide:
        logger.warning(
            f"the known depth of views {', '.join(map(str, wide))} fits the teacher's badly: half of the pixels lie "
            "beyond a factor of 2 around their median. The scale is doubtful; are these the maps of these pictures?"
        )
    factors = {view: float(np.median(each)) for view, each in ratios.items() if len(each) >= MIN_PIXELS_TO_COMPARE}
    if not factors:
        return
    low, high = min(factors, key=factors.get), max(factors, key=factors.get)
    if factors[high] > MAX_FACTOR_BETWEEN_VIEWS * factors[low]:
        logger.warning(
            f"known depth gives view {low} the factor {factors[low]:.3g} and view {high} {factors[high]:.3g}: they "
            "disagree by more than a factor of 2. The scale is doubtful; are these the maps of these pictures, in the "
            "same units?"
        )


def _number(view, stem):
    """The number by which a map may be named: that at the end of the picture's name, else that of the frame."""
    digits = re.search(r"\d+$", stem or "")
    return int(digits[0]) if digits else view.get("frame_id")


def known_depth_from_folder(folder, views: list[dict], depth_scale: float = 1000.0) -> KnownDepth:
    """Read 16-bit depth PNGs that belong to views of the schema.

    The map of a view has the name of its picture with `.png`, or its frame number as name, with or without zeros. It
    is of the picture as stored, and turned with it where EXIF says so.

    Args:
        folder (`str` or `Path`): holds the PNGs; not every view needs one.
        views (`list[dict]`): views of the schema, see `read_video_views`; their "image", if there is one, tells the
            shape and the turn of their maps.
        depth_scale (`float`, defaults to 1000): units of a metre.
    Returns:
        `KnownDepth` of the views that have a map.
    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if no view has a map, or the depth scale is not positive.
        RecordError: if a map is no 16-bit picture, or has another shape than its picture.

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
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".png"}
    numbered = {int(stem): path for stem, path in files.items() if stem.isdecimal()}
    found = {}
    for index, view in enumerate(views):
        stem = Path(view["image_path"]).stem if view.get("image_path") else None
        path = files.get(stem) or numbered.get(_number(view, stem))
        if path is not None:
            found[index] = path
    if not found:
        raise ValueError(
            f"{folder} holds {len(files)} PNGs, none of them named as one of the {len(views)} pictures or by a frame "
            "number."
        )
    return KnownDepth({index: _upright_map(path, views[index]) / depth_scale for index, path in found.items()})


def _upright_map(path, view):
    values, own = _read_depth(path), picture_orientation(str(path))
    picture = view.get("image")
    if picture is None:
        return values
    name = view.get("image_path") or "its picture"
    try:
        size = stored_picture_size(picture)
        return upright_depth(values, not own.is_upright, picture_orientation(picture), size, name)[0]
    except RecordError as error:
        raise error.locate(None, path, None) from None


def _read_depth(path):
    """The values of a map, turned by its own EXIF if it has any."""
    check_depth_file(path)
    try:
        with Image.open(path) as image:
            values = np.asarray(image).astype(np.float64)
            return Orientation.of_picture(image).array(values)
    except OSError as error:
        raise RecordError(f"the depth map cannot be decoded: {error}.", "depth", file=str(path)) from None
