"""Boxes as rows store them: made of numbers or axes, as numbers, in another Euler order or camera, and their bounds.

Units: metres, radians.
"""

import numpy as np
from numpy.typing import ArrayLike

from ..camera_geometry_gap_mllm import box_corners, euler_to_matrix, matrix_to_euler, transform_box
from .record_errors import RecordError
from .source_files import as_numbers


def box_row(numbers: ArrayLike, euler_order: str, frame: str, **fields) -> dict:
    """A box for `complete_row`.

    Args:
        numbers (sequence of 9 numbers): centre, full sizes, Euler angles.
        euler_order (`str`), frame (`str`): fields of the schema.
        **fields: further fields, as label, instance_id, role.
    """
    parts = {"center": numbers[:3], "size": numbers[3:6], "euler": numbers[6:9]}
    return {**parts, "euler_order": euler_order, "frame": frame, **fields}


def box_numbers(box: dict) -> np.ndarray:
    """The nine numbers of a box of a row, float64."""
    return np.concatenate([box["center"], box["size"], box["euler"]]).astype(np.float64)


def oriented_box(entry: dict, field: str, frame: str, **fields) -> dict:
    """Read a box given by its axes, as ARKitScenes writes it.

    `normalizedAxes` holds one axis a row. Those of a left-handed set are made right-handed by turning the third about:
    the box is the same.

    Args:
        entry (`dict`): centroid (3), axesLengths (3, full), normalizedAxes (9).
        field (`str`): name that errors call the field.
        frame (`str`), **fields: arguments of `box_row`.
    Returns:
        `dict`: fields of a box for `complete_row`, Euler order "zxy".
    Raises:
        RecordError: if a length is not positive, or the axes are not at right angles and of length 1.
    """
    center = as_numbers(entry["centroid"], (3,), f"{field}.centroid")
    sizes = as_numbers(entry["axesLengths"], (3,), f"{field}.axesLengths")
    if (sizes <= 0).any():
        raise RecordError(f"the box has sizes {sizes.tolist()}; expected positive ones.", f"{field}.axesLengths")
    axes = as_numbers(entry["normalizedAxes"], (9,), f"{field}.normalizedAxes").reshape(3, 3)
    if np.abs(axes @ axes.T - np.eye(3)).max() > 1e-3:
        raise RecordError("the axes are not at right angles and of length 1.", f"{field}.normalizedAxes")
    axes[2] *= np.sign(np.linalg.det(axes))
    return box_row(np.concatenate([center, sizes, matrix_to_euler(axes.T, "zxy")]), "zxy", frame, **fields)


def in_euler_order(numbers: np.ndarray, euler_order: str, wanted: str) -> np.ndarray:
    """The same box with its angles in another order, `(9,)`."""
    if euler_order == wanted:
        return numbers
    angles = matrix_to_euler(euler_to_matrix(numbers[6:], euler_order), wanted)
    return np.concatenate([numbers[:6], angles])


def box_in_camera(box: dict, world_to_camera: np.ndarray) -> np.ndarray:
    """A box of a row in a camera, `(9,)`, angles in "zxy" whatever they were.

    Args:
        box (`dict`): box of a row, in the frame that the transform begins in.
        world_to_camera (`np.ndarray` of shape `(4, 4)`)
    """
    return transform_box(in_euler_order(box_numbers(box), box["euler_order"], "zxy"), world_to_camera, "zxy")


def axis_aligned_bounds(numbers: ArrayLike, euler_order: str) -> np.ndarray:
    """The axis-aligned box around a box, `(6,)`: centre and full sizes. Frame: that of the box."""
    corners = box_corners(np.asarray(numbers, dtype=np.float64), euler_order)
    low, high = corners.min(0), corners.max(0)
    return np.concatenate([(low + high) / 2, high - low])
