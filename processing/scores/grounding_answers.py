"""One answer that grounds an object: a box in the camera of a view, moved to the world and held to the true one.

Source: VG-LLM's one-stage and GAP-MLLM's two-stage evaluation of ScanRefer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..answers_gap_mllm import parse_boxes, parse_frame
from ..camera_geometry_gap_mllm import check_rigid, is_rigid, transform_box
from .box_overlaps import box_overlaps, check_mode, check_order
from .reference_answers import reference_box, reference_frame_and_box
from .reference_checks import as_text, is_whole_number, true_array, true_box


@dataclass(frozen=True)
class GroundedBox:
    """One answer: its overlap with the truth, the view it names, its box in the world, or why it could not be read.

    Frame of `bbox_3d`: the world of the truth. Units: metres and radians. `iou` is 0 where `rejected` is not None.
    """

    iou: float
    frame: int | None = None
    bbox_3d: tuple[float, ...] | None = None
    rejected: str | None = None


def ground_box(
    text: str,
    bbox_3d: Sequence[float],
    camera_to_world: np.ndarray,
    axis_align_matrix: np.ndarray | None = None,
    frame: int | None = None,
    mode: str = "corrected",
    euler_order: str | None = None,
) -> GroundedBox:
    """Read a grounded box, move it by axis_align_matrix @ camera_to_world[frame], and compare it with the truth.

    Frame: the answer is in the camera of its view, the truth in the aligned world. Units: metres and radians.
    Source: in mode "reference" a box is moved in order "zxy" and compared in order "ZXY", as published; text is read
    by the line that names the box. Differs: volumes are exact, see `box_overlaps`, and text is not run as code.

    Args:
        text (`str`): the model's answer, of the second stage where there are two. What is no text, as None, is
            rejected.
        bbox_3d (nine numbers): the truth.
        camera_to_world (array-like of shape `(V, 4, 4)`): poses of the views; not finite where tracking was lost.
        axis_align_matrix (array-like of shape `(4, 4)`, *optional*): transform from the world of the poses to that of
            the truth.
        frame (`int`, *optional*): view in whose camera the box is, chosen in a first stage; without it the answer
            names the view.
        mode (`str`, defaults to "corrected"): "corrected" or "reference".
        euler_order (`str`, *optional*): order of answer and truth.
    Returns:
        `GroundedBox`.
    Raises:
        ValueError: on another mode or order; if the truth is not nine finite numbers of positive size, a pose is not
            rigid, or the frame is not a view.

    Example:
        ```python
        >>> from gap_mllm.evaluation import ground_box
        >>> pose, box = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], [0, 0, 2, 1, 1, 1, 0, 0, 0]
        >>> ground_box(f'{{"frame": 0, "bbox_3d": {box}}}', box, [pose]).iou
        1.0

        ```
    """
    check_mode(mode)
    check_order(euler_order)
    true_box(bbox_3d, "bbox_3d", 9)
    poses = true_array(camera_to_world, "camera_to_world")
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise ValueError(f"camera_to_world has shape {poses.shape}; expected (views, 4, 4).")
    is_known = np.isfinite(poses).all((-2, -1))
    wrong = np.flatnonzero(is_known & ~np.asarray(is_rigid(poses)))
    if len(wrong):
        check_rigid(poses[wrong[0]], f"camera_to_world[{wrong[0]}]")
    if frame is not None and not (is_whole_number(frame) and 0 <= frame < len(poses)):
        raise ValueError(f"frame is {frame!r}; expected a view in 0..{len(poses) - 1}.")
    if axis_align_matrix is not None:
        axis_align_matrix = true_array(axis_align_matrix, "axis_align_matrix")
        check_rigid(axis_align_matrix, "axis_align_matrix")
    read = _read_reference if mode == "reference" else _read_corrected
    try:
        frame, box = read(_text_of(text), len(poses), frame)
    except ValueError as error:
        return GroundedBox(0.0, frame, rejected=str(error))
    if not is_known[frame]:
        return GroundedBox(0.0, frame, rejected=f"view {frame} has no pose")
    to_world = poses[frame]
    if axis_align_matrix is not None:
        to_world = axis_align_matrix @ to_world
    with np.errstate(over="ignore", invalid="ignore"):
        world = transform_box(np.array(box), to_world, euler_order or "zxy")
    if not np.isfinite(world).all():
        return GroundedBox(0.0, frame, rejected="a box too far away for float64")
    overlap = box_overlaps([world], [bbox_3d], mode, euler_order)[0, 0]
    return GroundedBox(float(overlap), frame, tuple(world.tolist()))


def _text_of(text):
    if as_text(text) is None:
        raise ValueError("no text")
    return text


def _read_corrected(text, num_views, frame):
    boxes = parse_boxes(text)
    if boxes.first is None:
        raise ValueError(boxes.rejected[0].reason if boxes.rejected else "no box")
    if frame is not None:
        return frame, boxes.first.bbox_3d
    frames = parse_frame(text, num_views)
    if frames.first is None:
        raise ValueError(frames.rejected[0].reason if frames.rejected else "no frame")
    if frames.rejected or boxes.rejected:  # which frame belongs to which box is then open
        raise ValueError("several objects, and one of them lacks a usable frame or box")
    return frames.first, boxes.first.bbox_3d


def _read_reference(text, num_views, frame):
    return reference_frame_and_box(text, num_views) if frame is None else (frame, reference_box(text))
