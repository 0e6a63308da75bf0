"""Overlaps of answered boxes with true ones, for every metric on 9-DoF boxes: what counts as none, and what as a hit.

Exact volumes come from evaluation/boxes.py.
"""

import numpy as np

from ...processing.camera_geometry_gap_mllm import EULER_ORDERS
from ..boxes import box_iou_9dof
from .reference_checks import as_numbers


MODES = ("corrected", "reference")
EULER_ORDER_OF_MODE = {"corrected": "zxy", "reference": "ZXY"}
OVERLAP_SLACK = 1e-12  # rounding of an IoU that is exactly at a threshold
_MIN_FACE_M2 = 2e-4  # two triangles of 1e-4 each
_SIZE_RANGE = (1e-50, 1e50)  # that `box_iou_9dof` takes


def box_overlaps(boxes, truths, mode: str = "corrected", euler_order: str | None = None) -> np.ndarray:
    """Return the IoU of every answered box with every true one; a box that has no volume overlaps nothing.

    Frame: any, the same for all boxes. Units: metres, radians.
    Source: mode "reference" follows VG-LLM and GAP-MLLM: angles in order "ZXY" although released boxes are "zxy",
    sizes as absolute values, and no overlap for boxes with a face below 2 cm^2, which pytorch3d refuses.
    Differs: volumes are exact in both modes. pytorch3d's `box3d_overlap`, used there, is up to 0.5 off where faces are
    nearly parallel, and its errors are not reproduced.

    Args:
        boxes (sequence of nine floats or None): answered boxes; what is not nine numbers overlaps nothing.
        truths (array-like of shape `(M, 9)`): true boxes.
        mode (`str`): "corrected" or "reference".
        euler_order (`str`, *optional*): of all boxes, instead of the mode's ("zxy" or "ZXY").
    Returns:
        `numpy.ndarray` of shape `(N, M)`.
    Raises:
        ValueError: if the mode or order is another one, or a true box is not nine finite numbers of positive size.
    """
    check_mode(mode)
    check_order(euler_order)
    order = euler_order or EULER_ORDER_OF_MODE[mode]
    truths = np.asarray(truths, dtype=np.float64).reshape(-1, 9) if len(truths) == 0 else truths
    overlaps = np.zeros((len(boxes), len(truths)))
    numbers = [as_numbers(box) for box in boxes]
    usable = [index for index, box in enumerate(numbers) if box is not None and len(box) == 9]
    answered = np.array([numbers[index] for index in usable], dtype=np.float64).reshape(-1, 9)
    if mode == "reference":
        answered[:, 3:6] = np.abs(answered[:, 3:6])
    is_solid = np.isfinite(answered).all(-1)
    is_solid &= ((answered[:, 3:6] >= _SIZE_RANGE[0]) & (answered[:, 3:6] <= _SIZE_RANGE[1])).all(-1)
    if mode == "reference":
        is_solid &= _smallest_face(answered) >= _MIN_FACE_M2
    rows = np.array(usable, dtype=int)[is_solid]
    overlaps[rows] = box_iou_9dof(answered[is_solid], truths, order, all_pairs=True)
    if mode == "reference" and len(truths):
        overlaps[:, _smallest_face(np.asarray(truths, dtype=np.float64)) < _MIN_FACE_M2] = 0.0
    return overlaps


def check_mode(mode: str) -> None:
    """Raise ValueError unless the mode is "corrected" or "reference"."""
    if mode not in MODES:
        raise ValueError(f'mode is {mode!r}; expected "corrected" or "reference".')


def check_order(euler_order: str | None) -> None:
    """Raise ValueError unless the order is one of two, or None for the default."""
    if euler_order is not None and euler_order not in tuple(EULER_ORDERS):
        raise ValueError(f'euler_order is {euler_order!r}; expected "zxy" (extrinsic) or "ZXY" (intrinsic).')


def match_in_order(overlaps, threshold: float) -> list[int]:
    """Give each row, in order, the free column of largest overlap, if that is above the threshold.

    Of equal overlaps the first column is taken. Greedy as published: another order may match more.

    Args:
        overlaps (`numpy.ndarray` of shape `(N, M)`), threshold (`float`): it must be exceeded.
    Returns:
        `list[int]`: the column of each row, -1 for none.
    """
    free, columns = set(range(overlaps.shape[1])), []
    for row in overlaps:
        best, best_overlap = -1, 0.0
        for column in sorted(free):
            if row[column] > best_overlap + OVERLAP_SLACK:
                best, best_overlap = column, row[column]
        if best_overlap <= threshold + OVERLAP_SLACK:
            best = -1
        free.discard(best)
        columns.append(best)
    return columns


def _smallest_face(boxes):
    sizes = np.abs(boxes[:, 3:6])
    with np.errstate(over="ignore"):
        return (sizes * np.roll(sizes, 1, axis=-1)).min(-1, initial=np.inf)


__all__ = [
    "EULER_ORDER_OF_MODE",
    "MODES",
    "OVERLAP_SLACK",
    "box_overlaps",
    "check_mode",
    "check_order",
    "match_in_order",
]
