"""Where a depth map jumps: between a chair and the wall behind it a mark is ambiguous, and depth is neither."""

import numpy as np


def depth_edges(depth: np.ndarray, tolerance: float) -> np.ndarray:
    """Tell which pixels lie at a depth edge: they, or one of their eight neighbours, bend in inverse depth.

    Inverse depth of a plane is linear over the picture, however slanted, so its second difference tells a jump from a
    slope. Pixels at the border, or beside one without depth, count as edges: they cannot be judged.

    Args:
        depth (`np.ndarray` of shape `(H, W)`): z-depth; 0 is no measurement.
        tolerance (`float`): largest second difference on a surface, relative to the inverse depth; 0.05 finds jumps of
            5 %.
    Returns:
        bool `np.ndarray` of shape `(H, W)`.
    """
    inverse = np.where(depth > 0, 1.0 / np.where(depth > 0, depth, 1.0), np.nan)
    bend = np.full(depth.shape, np.nan)
    middle = inverse[1:-1, 1:-1]
    across = np.abs(inverse[1:-1, :-2] - 2 * middle + inverse[1:-1, 2:])
    down = np.abs(inverse[:-2, 1:-1] - 2 * middle + inverse[2:, 1:-1])
    bend[1:-1, 1:-1] = np.maximum(across, down) / middle
    is_flat = np.pad(bend <= tolerance, 1)  # NaN is not flat
    height, width = depth.shape
    shifts = [is_flat[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return ~np.logical_and.reduce(shifts)
