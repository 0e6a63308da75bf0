"""From one known length to metres: the factor by which everything that a model answers about a scene is scaled.

Answers are in the camera of the first view, whose centre is the origin: one factor moves every point along its ray, so
that what is answered still lies where the first view shows it.
Frame: camera of the first view, OpenCV axes. Units: metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .answers_gap_mllm import BOX_LENGTH, LabelledBox, LabelledPoint, ParsedAnswer
from .input_checks_gap_mllm import WrongKindError, check_positive


SIDES = {"x": 3, "y": 4, "z": 5}  # of a box, and where its numbers have them
LEAST_M = 1e-3  # lengths below a millimetre tell no factor


@dataclass(frozen=True)
class MetricScale:
    """Metres of one unit of a reconstruction or an answer, where that comes from, and what is to be known of it.

    Args:
        factor (`float`): metres of one unit.
        source (`str`): word for metadata on where it comes from, as "user factor".
        details (`dict`, defaults to none): numbers for the report, as the spread of the estimate.
    Raises:
        ValueError: if the factor is not positive and finite.

    Example:
        ```python
        >>> from gap_mllm.processing import parse_points, scale_from_distance
        >>> answer = parse_points('[{"label": "bed", "pointmap": [0, 0, 2]}, {"pointmap": [1, 0, 2]}]')
        >>> scale = scale_from_distance(*answer.items, metres=1.5)  # measured between these two
        >>> scale.factor, scale.scale_answer(answer).first.point
        (1.5, (0.0, 0.0, 3.0))

        ```
    """

    factor: float
    source: str
    details: dict = field(default_factory=dict)

    def __post_init__(self):
        if not (np.isfinite(self.factor) and self.factor > 0):
            raise ValueError(f"the scale factor ({self.source}) is {self.factor}; expected a positive number.")

    def scale_points(self, points: Sequence) -> np.ndarray:
        """Scale points `(..., 3)`, or depth maps of any shape: float64."""
        return self.factor * np.asarray(points, np.float64)

    def scale_boxes(self, boxes: Sequence) -> np.ndarray:
        """Scale centres and sizes of boxes `(..., 9)`; angles stay. Raises ValueError for another last dimension."""
        boxes = np.array(boxes, np.float64)
        if boxes.shape[-1:] != (BOX_LENGTH,):
            raise ValueError(f"boxes has shape {boxes.shape}; expected (..., {BOX_LENGTH}).")
        boxes[..., :6] *= self.factor
        return boxes

    def scale_poses(self, camera_to_world: Sequence) -> np.ndarray:
        """Scale the places of cameras `(..., 4, 4)`; rotations stay. Raises ValueError for another shape."""
        poses = np.array(camera_to_world, np.float64)
        if poses.shape[-2:] != (4, 4):
            raise ValueError(f"camera_to_world has shape {poses.shape}; expected (..., 4, 4).")
        poses[..., :3, 3] *= self.factor
        return poses

    def scale_answer(self, answer: ParsedAnswer) -> ParsedAnswer:
        """Scale the points and boxes of an answer; what was refused stays.

        Raises:
            TypeError: if it holds anything but points and boxes, as a frame or a letter.
        """
        return replace(
            answer,
            items=tuple(self._scale_item(item) for item in answer.items),
            entries=tuple(entry if hasattr(entry, "reason") else self._scale_item(entry) for entry in answer.entries),
        )

    def _scale_item(self, item):
        # By attribute: a processor loaded as remote code has classes of its own.
        if hasattr(item, "point"):
            return replace(item, point=tuple(self.scale_points(item.point).tolist()))
        if hasattr(item, "bbox_3d"):
            return replace(item, bbox_3d=tuple(self.scale_boxes(item.bbox_3d).tolist()))
        raise WrongKindError(f"{item!r} has no length; expected a LabelledPoint or a LabelledBox.")


def scale_from_distance(
    first: LabelledPoint | Sequence[float], second: LabelledPoint | Sequence[float], metres: float
) -> MetricScale:
    """Find the factor that makes two answered points as far apart as they are known to be.

    Frame: any, the same for both points. Units: that of the answers; metres for the known distance.

    Args:
        first, second (`LabelledPoint`, or array-like of shape `(3,)`): answered points, also the places of cameras.
        metres (`float`): the true distance.
    Returns:
        `MetricScale`.
    Raises:
        ValueError: if a point is not three finite numbers, both are less than a millimetre apart, or the distance is
            not positive. TypeError: if the distance is no number.

    Example:
        ```python
        >>> from gap_mllm.processing import scale_from_distance
        >>> scale = scale_from_distance([0, 0, 2], [1, 0, 2], metres=0.8)
        >>> scale.factor, scale.scale_boxes([1, 0, 2, 1, 1, 2, 0, 0.5, 0]).tolist()
        (0.8, [0.8, 0.0, 1.6, 0.8, 0.8, 1.6, 0.0, 0.5, 0.0])

        ```
    """
    check_positive("metres", metres)
    points = [_numbers(getattr(given, "point", given), 3, "a point") for given in (first, second)]
    answered = float(np.linalg.norm(points[1] - points[0]))
    if answered < LEAST_M:
        raise ValueError(
            f"the points {points[0].tolist()} and {points[1].tolist()} are {answered:.2g} apart, of which no scale "
            "can be told; give two that lie farther apart."
        )
    return MetricScale(metres / answered, "known distance", {"answered": answered, "metres": float(metres)})


def scale_from_size(box: LabelledBox | Sequence[float], metres: float, side: str = "longest") -> MetricScale:
    """Find the factor that makes an answered box as large as its object is known to be.

    Units: that of the answers; metres for the known size.

    Args:
        box (`LabelledBox`, or array-like of shape `(9,)`): answered box.
        metres (`float`): the true length of one side of the object.
        side (`str`, defaults to "longest"): "longest", or "x", "y" or "z", the sides in the order of the box's sizes.
    Returns:
        `MetricScale`.
    Raises:
        ValueError: if the box is not nine finite numbers, the side is unknown or less than a millimetre, or the size
            is not positive. TypeError: if the size is no number.

    Example:
        ```python
        >>> from gap_mllm.processing import parse_boxes, scale_from_size
        >>> door = parse_boxes('{"label": "door", "bbox_3d": [0, 0, 3, 0.9, 2.5, 0.1, 0, 0, 0]}').first
        >>> scale_from_size(door, metres=2.0).factor
        0.8

        ```
    """
    check_positive("metres", metres)
    numbers = _numbers(getattr(box, "bbox_3d", box), BOX_LENGTH, "the box")
    if side != "longest" and side not in SIDES:
        raise ValueError(f"side is {side!r}; expected longest, {', '.join(SIDES)}.")
    answered = float(numbers[3:6].max() if side == "longest" else numbers[SIDES[side]])
    if answered < LEAST_M:
        raise ValueError(
            f"the {side} side of the box {numbers.tolist()} is {answered:g}, of which no scale can be told."
        )
    return MetricScale(metres / answered, "known size", {"answered": answered, "metres": float(metres), "side": side})


def _numbers(values, length, name):
    numbers = np.asarray(values, np.float64)
    if numbers.shape != (length,) or not np.isfinite(numbers).all():
        raise ValueError(f"{name} is {numbers.tolist()}; expected {length} finite numbers.")
    return numbers
