"""Which Euler order the boxes of a file are stored in: nothing in public files says so, and two orders are in use.

Two tests, both on the fact that furniture stands upright. With cameras: in the right order the upward axes of boxes
are the world's. Without, or where that decides nothing: the boxes of one row share their upward axis.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..camera_geometry_gap_mllm import EULER_ORDERS, euler_to_matrix


TOLERANCE_RAD = 0.03  # angles are often rounded to two decimals
SURE_SHARE = 0.8  # of the rows or boxes must fit one order, and the other must fit fewer


@dataclass
class EulerEvidence:
    """What the rows of a file say. `order` is None where they do not decide.

    Args:
        order (`str`, *optional*): "zxy" or "ZXY".
        fitting (`dict[str, int]`): how many boxes or rows fit each order.
        total (`int`): number of all of them.
        method (`str`): "upright in the world", "shared axis" or "none".
    """

    order: str | None
    fitting: dict
    total: int
    method: str

    def __str__(self):
        counts = ", ".join(f"{count} of {self.total} fit {order}" for order, count in self.fitting.items())
        return f"{self.order or 'undecided'} ({self.method}: {counts})" if self.total else "undecided (no evidence)"


def detect_euler_order(rows: Iterable[dict]) -> EulerEvidence:
    """Tell in which Euler order boxes are stored.

    Frame: boxes in the camera of the row's reference view, OpenCV axes; the world has its third axis up.
    Source: our choice; the fixtures of both conventions are told apart by it.

    Args:
        rows (iterable of `tuple`): boxes `(n, 9)` of each row of the file, and the pose `(4, 4)` that takes that
            camera to the gravity-aligned world, or None.
    Returns:
        `EulerEvidence`.
    """
    upright, upright_total = Counter(dict.fromkeys(EULER_ORDERS, 0)), 0
    shared, shared_total = Counter(upright), 0
    for boxes, camera_to_aligned in rows:
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 9)
        axes = {order: euler_to_matrix(boxes[:, 6:], order)[:, :, 2] for order in EULER_ORDERS}  # (n, 3), upward
        if camera_to_aligned is not None:
            up = np.asarray(camera_to_aligned)[2, :3]  # of the world, in the camera
            upright_total += len(boxes)
            upright.update({order: int(_is_parallel(axes[order], up).sum()) for order in EULER_ORDERS})
        turned = np.abs(_wrap(boxes[:, 6] - boxes[:1, 6])) > 3 * TOLERANCE_RAD if len(boxes) else np.zeros(0, bool)
        if turned.any():  # boxes of one yaw have one upward axis in either order
            shared_total += 1
            shared.update({order: int(_is_parallel(axes[order], axes[order][0]).all()) for order in EULER_ORDERS})
    by_axis = EulerEvidence(_choose(shared, shared_total), shared, shared_total, "shared axis")
    by_world = EulerEvidence(_choose(upright, upright_total), upright, upright_total, "upright in the world")
    if by_world.order is not None or (upright_total and by_axis.order is None):
        return by_world
    return by_axis if shared_total else EulerEvidence(None, shared, 0, "none")


def _is_parallel(axes, axis):
    return np.abs(axes @ axis) > np.cos(TOLERANCE_RAD)


def _wrap(angles):
    """Angles to -pi..pi: roll often sits at either end."""
    return (angles + np.pi) % (2 * np.pi) - np.pi


def _choose(fitting, total):
    best, other = sorted(fitting, key=fitting.get, reverse=True)
    is_sure = total and fitting[best] >= SURE_SHARE * total and fitting[other] < fitting[best]
    return best if is_sure else None
