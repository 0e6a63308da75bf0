"""The first stage of grounding: is the answered view the right one?

Source: GAP-MLLM's two-stage grounding, which reports only what follows from the view; the accuracy is our choice.
"""

from collections.abc import Sequence

import numpy as np

from ...processing.answers_gap_mllm import parse_frame
from ...processing.scores.box_overlaps import check_mode
from ...processing.scores.reference_answers import reference_frame
from ...processing.scores.reference_checks import as_text, check_equal_lengths, is_whole_number, map_named, shorten
from .records import mean_or_nan


def read_frame(text: str, num_frames: int, mode: str = "corrected") -> int | None:
    """Read the view that an answer names.

    Args:
        text (`str`): the model's answer; what is no text, as None, names no view.
        num_frames (`int`): views shown; others are refused.
        mode (`str`, defaults to "corrected"): "corrected" (`parse_frame`), or "reference", where text without JSON or
            key means view 0 and negative numbers count from the end.
    Returns:
        `int` or None where none can be read.
    Raises:
        ValueError: on another mode or fewer than one view.

    Example:
        ```python
        >>> from gap_mllm.evaluation import read_frame
        >>> read_frame('{"frame": 3}', 32)
        3

        ```
    """
    check_mode(mode)
    _check_num_frames(num_frames)
    if as_text(text) is None:
        return None
    return reference_frame(text, num_frames) if mode == "reference" else parse_frame(text, num_frames).first


def _check_num_frames(num_frames):
    if not is_whole_number(num_frames) or num_frames < 1:
        raise ValueError(f"num_frames is {num_frames!r}; expected the number of views shown, 1 or more.")


def _true_frames(frames, num_frames) -> list:
    """The right views of a question as a list; ValueError if they, or the number of views shown, cannot be."""
    _check_num_frames(num_frames)
    frames = [frames] if is_whole_number(frames) else frames
    is_list = isinstance(frames, list | tuple | np.ndarray) and len(frames) > 0
    if not is_list or not all(is_whole_number(view) and 0 <= view < num_frames for view in frames):
        raise ValueError(f"frames is {shorten(frames)}; expected one or more views in 0..{num_frames - 1}.")
    return frames


def frame_accuracy(
    predictions: Sequence[str],
    frames: Sequence[int | Sequence[int]],
    num_frames: Sequence[int],
    mode: str = "corrected",
    tolerance: int = 0,
) -> dict:
    """Score answers that name a view; one that cannot be read is wrong.

    Args:
        predictions (list of `str`): the model's texts.
        frames (list of `int` or lists of `int`): the right view of each, or several that are all right.
        num_frames (list of `int`): views shown.
        mode (`str`, defaults to "corrected"): mode of `read_frame`.
        tolerance (`int`, defaults to 0): places from a right view up to which a view is right.
    Returns:
        `dict`: "accuracy" (NaN without questions), "mean_distance" in places over answers that can be read (NaN
        without any), "n", "num_unparsed".
    Raises:
        ValueError: if lengths differ, on another mode, a negative tolerance, or a true view that was not shown.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"frames": [3], "num_frames": 32}]
        >>> load_metric("frame_accuracy").compute(predictions=['{"frame": 3}'], references=references)["accuracy"]
        1.0

        ```
    """
    check_mode(mode)
    check_equal_lengths(predictions=predictions, frames=frames, num_frames=num_frames)
    if not is_whole_number(tolerance) or tolerance < 0:
        raise ValueError(f"tolerance is {tolerance!r}; expected a whole number of places, 0 or more.")
    truths, distances = map_named("question", _true_frames, frames, num_frames), []
    for text, right, count in zip(predictions, truths, num_frames, strict=True):
        frame = read_frame(text, count, mode)
        if frame is not None:
            distances.append(min(abs(frame - view) for view in right))
    num_hits = sum(distance <= tolerance for distance in distances)
    return {
        "accuracy": num_hits / len(truths) if truths else float("nan"),
        "mean_distance": mean_or_nan(distances),
        "n": len(truths),
        "num_unparsed": len(truths) - len(distances),
    }
