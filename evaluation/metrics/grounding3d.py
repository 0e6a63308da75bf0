"""Grounding with poses: a box in the camera of an answered or chosen view, moved to the world and held to the truth.

Source: VG-LLM's one-stage and GAP-MLLM's two-stage evaluation of ScanRefer. Axis-aligned boxes without poses are in
grounding_axis_aligned.py.
"""

from dataclasses import dataclass

import numpy as np

from ...processing.answers_gap_mllm import parse_boxes, parse_frame
from ...processing.camera_geometry_gap_mllm import check_rigid, is_rigid, transform_box
from .box_overlaps import box_overlaps, check_mode, check_order
from .hits import overlap_summary
from .records import as_text, check_equal_lengths
from .reference_answers import reference_box, reference_frame_and_box
from .reference_checks import check_record, is_whole_number, naming, true_array, true_box


_REFERENCE_KEYS = {"bbox_3d": "nine numbers", "camera_to_world": "a 4x4 pose for every view"}


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
    bbox_3d,
    camera_to_world,
    axis_align_matrix=None,
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
        axis_align_matrix (array-like of shape `(4, 4)`, *optional*): from the world of the poses to that of the truth.
        frame (`int`, *optional*): view in whose camera the box is, chosen in a first stage; without it the answer
            names the view.
        mode (`str`): "corrected" or "reference". euler_order (`str`, *optional*): of answer and truth, for both steps.
    Returns:
        `GroundedBox`.
    Raises:
        ValueError: on another mode or order; if the truth is not nine finite numbers of positive size, a pose is not
            rigid, or the frame is not a view.
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


def grounding_score(answers, question_types=None) -> dict:
    """Accuracy at 0.25 and 0.5 (reached, not exceeded) and mean IoU of grounded boxes.

    Args:
        answers (sequence of `GroundedBox`), question_types (sequence of `str`, *optional*): "unique", "multiple", ...
    Returns:
        `dict`: of `overlap_summary`, and "num_unparsed": answers that could not be read or name a view without a pose;
        they count as wrong.
    Raises:
        ValueError: if the lengths differ.
    """
    summary = overlap_summary([answer.iou for answer in answers], question_types)
    return {**summary, "num_unparsed": sum(answer.rejected is not None for answer in answers)}


def grounding_of_texts(predictions, references, frames=None, mode="corrected", euler_order=None) -> list[GroundedBox]:
    """Apply `ground_box` to lists.

    Args:
        predictions (list of `str`): answers.
        references (list of `dict`): "bbox_3d", "camera_to_world" and optionally "axis_align_matrix" of each (None and
            an empty list stand for none).
        frames (list of `int`, *optional*): chosen views, one each; then the answers hold boxes alone.
        mode (`str`), euler_order (`str`, *optional*)
    Returns:
        `list[GroundedBox]`.
    Raises:
        ValueError: if lengths differ, a reference lacks a key, and as `ground_box`, with the number of the question.
    """
    check_mode(mode)
    check_order(euler_order)
    frames = [None] * len(references) if frames is None else frames
    check_equal_lengths(predictions=predictions, references=references, frames=frames)
    answers = []
    for index, (text, reference, frame) in enumerate(zip(predictions, references, frames, strict=True)):
        with naming("question", index):
            check_record(reference, _REFERENCE_KEYS)
            alignment = reference.get("axis_align_matrix")
            answers.append(
                ground_box(
                    text,
                    reference["bbox_3d"],
                    reference["camera_to_world"],
                    alignment if alignment is not None and len(alignment) else None,
                    frame,
                    mode,
                    euler_order,
                )
            )
    return answers


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


__all__ = ["GroundedBox", "ground_box", "grounding_of_texts", "grounding_score"]
