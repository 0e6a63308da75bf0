"""Which boxes the views still show after views were dropped or cropped, counted on the depth maps.

An answer that lists what is seen, or asks about an object, is only true while the views show it.
"""

from collections.abc import Collection

import numpy as np

from ...camera_geometry_gap_mllm import euler_to_matrix, scale_intrinsics, unproject_depth
from ..record_errors import RecordError
from ..scene_sample import SceneSample, View
from ..schema import MARKED_TASKS
from .texts import TEXT_TASKS, refuse


SEEN_SHARE = 0.004  # of a view's pixels, as `TaskMargins.visible_share`: from here on an object is visible
KEPT_SHARE = 0.5  # of the pixels that showed it best: a smaller object is visible from here on
BOX_SLACK_M = 0.01
NUM_PIXELS = 20_000  # of a depth map that are looked at
TARGET_TASKS = ("grounding", "grounding_box", "grounding_frame", "dense_caption")
ASKED_ROLES = ("target", None)


def depth_camera(view: View) -> np.ndarray | None:
    """The intrinsics of a view's depth map; those of its picture, resized, where it has none of its own.

    Returns:
        `np.ndarray` of shape `(3, 3)`, or None if neither are known.
    """
    if view.depth_intrinsics is not None or view.intrinsics is None:
        return view.depth_intrinsics
    height, width = view.depth_m.shape
    return scale_intrinsics(view.intrinsics, width / view.image.width, height / view.image.height)


def count_box_pixels(sample: SceneSample, views: Collection[int] | None = None) -> np.ndarray:
    """Count the depth pixels of every view whose points lie in each box, in shares of the view's pixels.

    Frame: any; boxes are taken to the camera of each view. Units: shares of the depth map.

    Args:
        sample (`SceneSample`)
        views (list of `int`, *optional*): the views to look at; all by default.
    Returns:
        `np.ndarray` of shape `(boxes, views)`, float64.
    Raises:
        RecordError: if a view has no depth map or intrinsics, or a pose is missing.
    """
    views = range(len(sample.views)) if views is None else views
    return np.array([_shares(sample, index) for index in views]).reshape(len(views), len(sample.boxes)).T


def _shares(sample, index):
    view = sample.views[index]
    if view.depth_m is None or (camera := depth_camera(view)) is None:
        what = "depth map" if view.depth_m is None else "intrinsics"
        raise RecordError(f"view {index} has no {what}.", "views", record_id=sample.id)
    stride = max(1, int(np.sqrt(view.depth_m.size / NUM_PIXELS)))
    depth = view.depth_m[::stride, ::stride].astype(np.float64)
    points = unproject_depth(depth, np.diag([1 / stride, 1 / stride, 1.0]) @ camera)
    points = points[np.isfinite(points[..., 2])]  # (P, 3)
    shares = []
    for box in sample.boxes:
        numbers = sample.box_in_view(box, index)
        local = (points - numbers[:3]) @ euler_to_matrix(numbers[6:], box.euler_order)
        inside = (np.abs(local) <= numbers[3:6] / 2 + BOX_SLACK_M).all(-1)
        shares.append(inside.sum() / depth.size)
    return shares


def find_lost(step: str, before: SceneSample, after: SceneSample, kept_views: list[int] | None = None) -> set[int]:
    """Find the boxes that a change made invisible; refuse it where one of them was asked for.

    Args:
        step (`str`): how errors call the change.
        before (`SceneSample`), after (`SceneSample`): samples with the same boxes in the same order.
        kept_views (list of `int`, *optional*): old indices of the views of `after`, where their pictures are as they
            were; None where pictures were cut and all views stayed.
    Returns:
        `set[int]`: indices of boxes that a list of all visible objects must lose; empty for other tasks.
    Raises:
        AugmentationRefused: if the object that is asked for is no longer visible, no object is left, what the question
            is about is not known, or there is no depth to tell.
    """
    if before.task in ("scene", *MARKED_TASKS):
        return set()
    asked = [index for index, box in enumerate(before.boxes) if box.role in ASKED_ROLES]
    if before.task in TEXT_TASKS and not (before.task in TARGET_TASKS and asked):
        if before.marks:
            return set()
        raise refuse(
            step, before, "what its question is about may no longer be visible; pass check_visibility=False if not."
        )
    target = None if before.task == "detection3d" else before.target_frame
    if not asked or (kept_views is not None and target is not None):
        return set()
    try:
        seen_before = count_box_pixels(before)
        seen_after = count_box_pixels(after) if kept_views is None else seen_before[:, kept_views]
    except RecordError as error:
        reason = f"whether the views still show its objects cannot be told: {error} Or pass check_visibility=False."
        raise refuse(step, before, reason) from None
    if target is not None:
        seen_before, seen_after = seen_before[:, [target]], seen_after[:, [target]]
    best_before, best_after = seen_before.max(1), seen_after.max(1)
    unknown = [index for index in asked if best_before[index] == 0]
    if unknown:
        name = before.boxes[unknown[0]].label
        raise refuse(
            step,
            before,
            f"no depth was measured on box {unknown[0]} ({name}); pass check_visibility=False if it is visible.",
        )
    lost = {index for index in asked if best_after[index] < min(SEEN_SHARE, KEPT_SHARE * best_before[index])}
    if lost and (before.task != "detection3d" or len(lost) == len(asked)):
        name = before.boxes[min(lost)].label
        raise refuse(step, before, f"box {min(lost)} ({name}), which it asks for, would no longer be visible.")
    return lost
