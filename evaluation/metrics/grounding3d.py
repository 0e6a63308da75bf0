"""Grounding with poses: a box in the camera of an answered or chosen view, moved to the world and held to the truth.

Source: VG-LLM's one-stage and GAP-MLLM's two-stage evaluation of ScanRefer. Axis-aligned boxes without poses are in
grounding_axis_aligned.py.
"""

from collections.abc import Sequence

from ...processing.scores.box_overlaps import check_mode, check_order
from ...processing.scores.grounding_answers import GroundedBox, ground_box
from ...processing.scores.reference_checks import check_equal_lengths, check_record, map_named
from .hits import overlap_summary


_REFERENCE_KEYS = {"bbox_3d": "nine numbers", "camera_to_world": "a 4x4 pose for every view"}


def grounding_score(answers: Sequence[GroundedBox], question_types: Sequence[str] | None = None) -> dict:
    """Accuracy at 0.25 and 0.5 (reached, not exceeded) and mean IoU of grounded boxes.

    Args:
        answers (sequence of `GroundedBox`), question_types (sequence of `str`, *optional*): "unique", "multiple", ...
    Returns:
        `dict`: of `overlap_summary`, and "num_unparsed": answers that could not be read or name a view without a pose;
        they count as wrong.
    Raises:
        ValueError: if the lengths differ.

    Example:
        ```python
        >>> from gap_mllm.evaluation import GroundedBox, grounding_score
        >>> grounding_score([GroundedBox(0.6), GroundedBox(0.2)])["acc25"]
        0.5

        ```
    """
    summary = overlap_summary([answer.iou for answer in answers], question_types)
    return {**summary, "num_unparsed": sum(answer.rejected is not None for answer in answers)}


def grounding3d_metric(
    predictions: Sequence[str],
    references: Sequence[dict],
    frames: Sequence[int] | None = None,
    question_types: Sequence[str] | None = None,
    mode: str = "corrected",
    euler_order: str | None = None,
) -> dict:
    """3D grounding in posed views: accuracy at an IoU of 0.25 and 0.5 (reached, not exceeded), and mean IoU.

    The answered box is moved from the camera of its view to the aligned world, by axis_align_matrix @
    camera_to_world[frame], and held to the true one. Mode "reference" reads only the line that names the box, and
    compares in Euler order "ZXY" what it moved in order "zxy".
    Frame: answers in the camera of the view that they name, truths in the aligned world. Units: metres and radians.
    Source: VG-LLM's and GAP-MLLM's evaluation of ScanRefer (arXiv:1912.08830). `Differs:` volumes are exact.

    Args:
        predictions (sequence of `str`): the model's texts: frame and box in one object, or the box with `frames`.
        references (sequence of `dict`): "bbox_3d" (nine numbers, aligned world), "camera_to_world" (views, 4, 4; not
            finite where tracking was lost), "axis_align_matrix" (4, 4; not needed where poses are aligned).
        frames (sequence of `int`, *optional*): the views chosen in a first stage, one a question.
        question_types (sequence of `str`, *optional*): kinds, as "unique" or "multiple", to report each.
        mode (`str`, defaults to "corrected"): "corrected" (ours) or "reference" (published reading and Euler orders).
        euler_order (`str`, *optional*): "zxy" or "ZXY", instead of the mode's.
    Returns:
        `dict`: "acc25", "acc50", "miou" in 0..1, "n", "num_unparsed" (no usable frame or box, or a view without a
        pose: wrong), and "per_type" with question types.
    Raises:
        ValueError: as `grounding_of_texts` and `grounding_score`.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        >>> box = [0, 0, 2, 1, 1, 1, 0, 0, 0]
        >>> references = [{"bbox_3d": box, "camera_to_world": [pose], "axis_align_matrix": pose}]
        >>> answer = f'{{"frame": 0, "bbox_3d": {box}}}'
        >>> load_metric("grounding3d").compute(predictions=[answer], references=references)["acc50"]
        1.0

        ```
    """
    return grounding_score(grounding_of_texts(predictions, references, frames, mode, euler_order), question_types)


def grounding_of_texts(
    predictions: Sequence[str],
    references: Sequence[dict],
    frames: Sequence[int] | None = None,
    mode: str = "corrected",
    euler_order: str | None = None,
) -> list[GroundedBox]:
    """Apply `ground_box` to lists.

    Args:
        predictions (list of `str`): answers.
        references (list of `dict`): "bbox_3d", "camera_to_world" and optionally "axis_align_matrix" of each (None and
            an empty list stand for none).
        frames (list of `int`, *optional*): chosen views, one each; then the answers hold boxes alone.
        mode (`str`, defaults to "corrected"), euler_order (`str`, *optional*)
    Returns:
        `list[GroundedBox]`.
    Raises:
        ValueError: if lengths differ, a reference lacks a key, and as `ground_box`, with the number of the question.

    Example:
        ```python
        >>> from gap_mllm.evaluation import grounding_of_texts
        >>> pose, box = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], [0, 0, 2, 1, 1, 1, 0, 0, 0]
        >>> grounding_of_texts(["no box"], [{"bbox_3d": box, "camera_to_world": [pose]}])[0].rejected
        'no box'

        ```
    """
    check_mode(mode)
    check_order(euler_order)
    frames = [None] * len(references) if frames is None else frames
    check_equal_lengths(predictions=predictions, references=references, frames=frames)

    def ground(text: str, reference: dict, frame: int | None):
        check_record(reference, _REFERENCE_KEYS)
        alignment = reference.get("axis_align_matrix")
        alignment = alignment if alignment is not None and len(alignment) else None
        truth = reference["bbox_3d"], reference["camera_to_world"], alignment
        return ground_box(text, *truth, frame, mode, euler_order)

    return map_named("question", ground, predictions, references, frames)
