"""Overlaps of answered boxes with true ones, for every metric on 9-DoF boxes: what counts as none, and what as a hit.

Exact volumes come from exact_iou.py.
"""

from collections.abc import Sequence

import numpy as np

from ..camera_geometry_gap_mllm import EULER_ORDERS
from .exact_iou import SIZE_RANGE, box_iou_9dof, read_boxes
from .reference_checks import as_numbers


MODES = ("corrected", "reference")
EULER_ORDER_OF_MODE = {"corrected": "zxy", "reference": "ZXY"}
OVERLAP_SLACK = 1e-12  # rounding of an IoU that is exactly at a threshold
_MIN_FACE_M2 = 2e-4  # two triangles of 1e-4 each


def box_overlaps(
    boxes: Sequence, truths: Sequence, mode: str = "corrected", euler_order: str | None = None
) -> np.ndarray:
    """Return the IoU of every answered box with every true one; a box that has no volume overlaps nothing.

    Frame: any, the same for all boxes. Units: metres, radians.
    Source: mode "reference" follows VG-LLM and GAP-MLLM: angles in order "ZXY" although released boxes are "zxy",
    sizes as absolute values, and no overlap for boxes with a face below 2 cm^2, which pytorch3d refuses.
    Differs: volumes are exact in both modes. pytorch3d's `box3d_overlap`, used there, is up to 0.5 off where faces are
    nearly parallel, and its errors are not reproduced.

    Args:
        boxes (sequence of nine floats or None): answered boxes; what is not nine numbers overlaps nothing.
        truths (array-like of shape `(M, 9)`): true boxes.
        mode (`str`, defaults to "corrected"): "corrected" or "reference".
        euler_order (`str`, *optional*): order of all boxes, instead of the mode's ("zxy" or "ZXY").
    Returns:
        `numpy.ndarray` of shape `(N, M)`.
    Raises:
        ValueError: if the mode or order is another one, or a true box is not nine finite numbers of positive size.

    Example:
        ```python
        >>> from gap_mllm.processing.scores import box_overlaps
        >>> box = [0, 0, 2, 1, 1, 1, 0, 0, 0]
        >>> box_overlaps([box, None], [box]).tolist()
        [[1.0], [0.0]]

        ```
    """
    return overlaps_of_groups([(boxes, truths)], mode, euler_order)[0]


def overlaps_of_groups(groups: Sequence[tuple], mode: str = "corrected", euler_order: str | None = None) -> list:
    """Return `box_overlaps` of many groups of boxes and truths, worked out in one call.

    Args:
        groups (sequence of `tuple`): answered boxes and true ones, as `box_overlaps` takes them.
        mode (`str`, defaults to "corrected"), euler_order (`str`, *optional*): arguments of `box_overlaps`.
    Returns:
        `list` of `numpy.ndarray` of shape `(N, M)`, one a group.
    Raises:
        ValueError: as `box_overlaps`.
    """
    check_mode(mode)
    check_order(euler_order)
    order = euler_order or EULER_ORDER_OF_MODE[mode]
    answered = _answered_boxes([box for boxes, _ in groups for box in boxes], mode)
    truths = np.concatenate([np.zeros((0, 9)), *(read_boxes("truths", true, 9) for _, true in groups)])
    shapes = [(len(boxes), len(true)) for boxes, true in groups]
    rows, columns = _pairs(shapes)
    counts = np.isfinite(answered[:, 0])[rows]
    if mode == "reference":
        counts &= (_smallest_face(truths) >= _MIN_FACE_M2)[columns]
    overlaps = np.zeros(len(rows))
    overlaps[counts] = box_iou_9dof(answered[rows[counts]], truths[columns[counts]], order)
    parts = np.split(overlaps, np.cumsum([height * width for height, width in shapes])[:-1]) if shapes else []
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _answered_boxes(boxes, mode):
    """Answered boxes as `(N, 9)`, sizes absolute in mode "reference"; NaN for one that overlaps nothing."""
    answered = np.full((len(boxes), 9), np.nan)
    for row, box in enumerate(boxes):
        numbers = as_numbers(box)
        if numbers is not None and len(numbers) == 9:
            answered[row] = numbers
    if mode == "reference":
        answered[:, 3:6] = np.abs(answered[:, 3:6])
    is_solid = np.isfinite(answered).all(-1)
    is_solid &= ((answered[:, 3:6] >= SIZE_RANGE[0]) & (answered[:, 3:6] <= SIZE_RANGE[1])).all(-1)
    if mode == "reference":
        is_solid &= _smallest_face(answered) >= _MIN_FACE_M2
    answered[~is_solid] = np.nan
    return answered


def _pairs(shapes):
    """Rows and columns, counted over all groups, of every pair of each group, group by group."""
    heights, widths = np.array(shapes, dtype=int).reshape(-1, 2).T
    sizes = heights * widths
    group = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(sizes.sum()) - (sizes.cumsum() - sizes)[group]
    width = np.maximum(widths[group], 1)
    first_row, first_column = (heights.cumsum() - heights)[group], (widths.cumsum() - widths)[group]
    return first_row + place // width, first_column + place % width


def check_mode(mode: str) -> None:
    """Raise ValueError unless the mode is "corrected" or "reference"."""
    if mode not in MODES:
        raise ValueError(f'mode is {mode!r}; expected "corrected" or "reference".')


def check_order(euler_order: str | None) -> None:
    """Raise ValueError unless the order is one of two, or None for the default."""
    if euler_order is not None and euler_order not in tuple(EULER_ORDERS):
        raise ValueError(f'euler_order is {euler_order!r}; expected "zxy" (extrinsic) or "ZXY" (intrinsic).')


def match_in_order(overlaps: np.ndarray, threshold: float) -> list[int]:
    """Give each row, in order, the free column of largest overlap, if that is above the threshold.

    Of equal overlaps the first column is taken. Greedy as published: another order may match more.

    Args:
        overlaps (`numpy.ndarray` of shape `(N, M)`): the IoU of each row with each column.
        threshold (`float`): the overlap that a match must exceed.
    Returns:
        `list[int]`: the column of each row, -1 for none.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.scores import match_in_order
        >>> match_in_order(np.array([[0.5, 0.9], [0.0, 0.8]]), 0.25)
        [1, -1]

        ```
    """
    free, columns = list(range(overlaps.shape[1])), []
    for row in overlaps.tolist():
        best, best_overlap = -1, 0.0
        for column in free:
            if row[column] > best_overlap + OVERLAP_SLACK:
                best, best_overlap = column, row[column]
        if best_overlap <= threshold + OVERLAP_SLACK:
            best = -1
        else:
            free.remove(best)
        columns.append(best)
    return columns


def _smallest_face(boxes):
    sizes = np.abs(boxes[:, 3:6])
    with np.errstate(over="ignore"):
        return (sizes * np.roll(sizes, 1, axis=-1)).min(-1, initial=np.inf)
