"""Intersection over union of 3D boxes, oriented (nine numbers) or axis-aligned (six), for pairs or whole lists.

Here boxes are read and checked; the solids are intersected in box_intersection.py. Which boxes belong together, and
which overlap counts as a hit, is for the metrics to say.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..camera_geometry_gap_mllm import EULER_ORDERS, euler_to_matrix
from .box_intersection import OrientedBoxes, intersection_volumes


_BLOCK = 1 << 16  # pairs at a time, which bounds the memory
SIZE_RANGE = (1e-50, 1e50)  # volumes stay within float64


def box_iou_9dof(boxes1: ArrayLike, boxes2: ArrayLike, euler_order: str, all_pairs: bool = False) -> np.ndarray:
    """Return the intersection over union of oriented boxes, exact up to float64's rounding.

    Paired by default: box i of `boxes1` with box i of `boxes2`, where leading dimensions broadcast as numpy's do. With
    `all_pairs` every box of one list meets every box of the other. Equal boxes give exactly 1; boxes that share less
    than 1e-12 of the smaller one, and so those that only touch, 0.
    Frame: any, the same for all boxes. Units: metres, radians. Box: centre, full sizes along its own axes, angles
    (z, x, y), see `euler_to_matrix`.
    Differs: pytorch3d's float32 `box3d_overlap`, which GAP-MLLM's evaluators call, is up to 0.5 off where faces of two
    boxes are nearly parallel, that is for good predictions, and those evaluators read released boxes in order "ZXY".

    Args:
        boxes1 (array-like of shape `(*batch, 9)`): numbers, numpy arrays or tensors; an empty list holds no boxes.
        boxes2 (same): `(*batch, 9)`, or a list of another length with `all_pairs`.
        euler_order (`str`): "zxy" (GAP-MLLM's released boxes) or "ZXY" (EmbodiedScan's), of both.
        all_pairs (`bool`, defaults to False): take `(N, 9)` and `(M, 9)`.
    Returns:
        `numpy.ndarray` of float64, shape `(*batch)`; `(N, M)` with `all_pairs`. A number for two single boxes.
    Raises:
        ValueError: if a shape does not fit, a number is not finite, a size is not positive (or beyond 1e-50 to 1e50),
            or the order is another one. The message names the box.

    Example:
        ```python
        >>> from gap_mllm.evaluation import box_iou_9dof
        >>> cube, shifted = [0, 0, 0, 1, 1, 1, 0, 0, 0], [0.5, 0, 0, 1, 1, 1, 0, 0, 0]
        >>> round(float(box_iou_9dof(cube, shifted, "zxy")), 4)
        0.3333
        >>> box_iou_9dof([cube], [cube, shifted], "zxy", all_pairs=True).shape
        (1, 2)

        ```
    """
    shared, volumes1, volumes2 = _intersect(boxes1, boxes2, euler_order, all_pairs)
    return shared / (volumes1 + volumes2 - shared)


def box_intersection_9dof(
    boxes1: ArrayLike, boxes2: ArrayLike, euler_order: str, all_pairs: bool = False
) -> np.ndarray:
    """Return the volume that oriented boxes share. Arguments, conventions and errors: see `box_iou_9dof`.

    Frame: any, the same for all boxes. Units: cubic metres.

    Example:
        ```python
        >>> from gap_mllm.evaluation import box_intersection_9dof
        >>> cube, shifted = [0, 0, 0, 1, 1, 1, 0, 0, 0], [0.5, 0, 0, 1, 1, 1, 0, 0, 0]
        >>> round(float(box_intersection_9dof(cube, shifted, "zxy")), 4)
        0.5

        ```
    """
    return _intersect(boxes1, boxes2, euler_order, all_pairs)[0]


def box_iou_axis_aligned(
    boxes1: ArrayLike, boxes2: ArrayLike, all_pairs: bool = False, mode: str = "exact"
) -> np.ndarray:
    """Return the intersection over union of axis-aligned boxes, paired or `all_pairs` as in `box_iou_9dof`.

    Frame: any, the same for all boxes. Units: metres. Box: centre, full sizes.
    Source: mode "reference" is the rule of 3DRS and Video-3D-LLM: corners, and 1e-8 added to the union.
    Differs: in mode "exact" nothing is added, which moves an IoU of exactly 0.25 below its threshold.

    Args:
        boxes1 (array-like of shape `(*batch, 6)`), boxes2 (same): numbers, numpy arrays or tensors.
        all_pairs (`bool`, defaults to False): take `(N, 6)` and `(M, 6)`.
        mode (`str`, defaults to "exact"): or "reference", which takes sizes of 0 or less as they come.
    Returns:
        `numpy.ndarray` of float64, shape `(*batch)`; `(N, M)` with `all_pairs`. A number for two single boxes.
    Raises:
        ValueError: if a shape does not fit, a number is not finite, a size is not positive in mode "exact", or the
            mode is another one.

    Example:
        ```python
        >>> from gap_mllm.evaluation import box_iou_axis_aligned
        >>> float(box_iou_axis_aligned([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0.5]))
        0.5

        ```
    """
    if mode not in ("exact", "reference"):
        raise ValueError(f'mode is {mode!r}; expected "exact" or "reference".')
    boxes1, boxes2 = (
        read_boxes(name, boxes, 6, needs_volume=mode == "exact")
        for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2))
    )
    boxes1, boxes2, _ = _pair(boxes1, boxes2, all_pairs)
    (center1, size1), (center2, size2) = ((boxes[..., :3], boxes[..., 3:]) for boxes in (boxes1, boxes2))
    if mode == "reference":
        low = np.maximum(center1 - size1 / 2, center2 - size2 / 2)
        high = np.minimum(center1 + size1 / 2, center2 + size2 / 2)
        shared = np.maximum(high - low, 0).prod(-1)
        union = size1.prod(-1) + size2.prod(-1) - shared + 1e-8
        return shared / np.where(shared > 0, union, 1.0)  # without overlap a negative size may make it 0
    overlap = (size1 + size2) / 2 - np.abs(center1 - center2)
    shared = np.clip(overlap, 0, np.minimum(size1, size2)).prod(-1)
    return shared / (size1.prod(-1) + size2.prod(-1) - shared)


def read_boxes(name: str, boxes: Sequence, num_numbers: int, needs_volume: bool = True) -> np.ndarray:
    """Return boxes as checked float64.

    Args:
        name (`str`): the argument's name, for messages.
        boxes (array-like of shape `(..., num_numbers)`): numbers, numpy arrays or tensors; an empty list is no box.
        num_numbers (`int`): 6 or 9 of each box.
        needs_volume (`bool`, defaults to True): whether sizes must be positive, from 1e-50 to 1e50.
    Returns:
        `numpy.ndarray` of shape `(..., num_numbers)`.
    Raises:
        ValueError: if the shape does not fit, a number is not finite, or a size is not one; the message names the box.
    """
    if isinstance(boxes, torch.Tensor):
        boxes = boxes.detach().to("cpu", torch.float64)
    try:
        boxes = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not an array of numbers ({error}); expected (..., {num_numbers}).") from error
    if boxes.shape == (0,):
        boxes = boxes.reshape(0, num_numbers)
    if boxes.ndim < 1 or boxes.shape[-1] != num_numbers:
        angles = ", Euler angles" if num_numbers == 9 else ""
        raise ValueError(
            f"{name} has shape {boxes.shape}; expected (..., {num_numbers}): x, y, z, full sizes dx, dy, dz{angles}."
        )
    is_broken = ~np.isfinite(boxes).all(-1)
    if is_broken.any():
        place, box = _first_box(name, boxes, is_broken)
        raise ValueError(f"{place} is {box}; expected finite numbers: leave such boxes out and count them as misses.")
    low, high = SIZE_RANGE
    is_flat = ~((boxes[..., 3:6] >= low) & (boxes[..., 3:6] <= high)).all(-1)
    if needs_volume and is_flat.any():
        place, box = _first_box(name, boxes, is_flat)
        raise ValueError(
            f"{place} has sizes {box[3:6]}; expected positive ones from {low:g} to {high:g}: leave such boxes out and "
            "count them as misses."
        )
    return boxes


def _intersect(boxes1, boxes2, euler_order, all_pairs):
    """Shared volumes, and those of the boxes, of shapes that broadcast to it."""
    if euler_order not in EULER_ORDERS:
        raise ValueError(
            f'euler_order is {euler_order!r}; expected "zxy" (extrinsic, as GAP-MLLM releases its boxes) or "ZXY" '
            "(intrinsic), as scipy reads them."
        )
    boxes1, boxes2 = read_boxes("boxes1", boxes1, 9), read_boxes("boxes2", boxes2, 9)
    boxes1, boxes2, shape = _pair(boxes1, boxes2, all_pairs)
    solids1, solids2 = _orient(boxes1, euler_order), _orient(boxes2, euler_order)
    index1, index2 = (
        np.broadcast_to(np.arange(boxes[..., 0].size).reshape(boxes.shape[:-1]), shape) for boxes in (boxes1, boxes2)
    )
    shared = np.empty(shape)
    for start in range(0, shared.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        shared.flat[block] = intersection_volumes(solids1, solids2, index1.flat[block], index2.flat[block])
    volumes1, volumes2 = (
        solids.volumes().reshape(boxes.shape[:-1]) for solids, boxes in ((solids1, boxes1), (solids2, boxes2))
    )
    return shared[()], volumes1, volumes2


def _orient(boxes, euler_order):
    boxes = boxes.reshape(-1, 9)
    axes = np.moveaxis(euler_to_matrix(boxes[:, 6:], euler_order), 0, -1)
    return OrientedBoxes(*map(np.ascontiguousarray, (boxes[:, :3].T, axes, boxes[:, 3:6].T / 2)))


def _first_box(name, boxes, is_wrong):
    """("boxes1[3]", its numbers) of the first wrong box."""
    index = tuple(int(i) for i in np.argwhere(is_wrong)[0])
    return name + (f"[{', '.join(map(str, index))}]" if index else ""), boxes[index].tolist()


def _pair(boxes1, boxes2, all_pairs):
    """The boxes with dimensions that broadcast, and the shape of the result."""
    if all_pairs:
        if boxes1.ndim != 2 or boxes2.ndim != 2:
            raise ValueError(
                f"all_pairs takes two lists of boxes; boxes1 has shape {boxes1.shape} and boxes2 {boxes2.shape}."
            )
        boxes1, boxes2 = boxes1[:, None], boxes2[None]
    try:
        shape = np.broadcast_shapes(boxes1.shape[:-1], boxes2.shape[:-1])
    except ValueError:
        raise ValueError(
            f"boxes1 has shape {boxes1.shape} and boxes2 {boxes2.shape}, which form no pairs; pass as many boxes in "
            "both, or all_pairs=True to compare every box with every other."
        ) from None
    return boxes1, boxes2, shape
