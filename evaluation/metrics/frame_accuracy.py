"""The first stage of grounding: is the answered view the right one?

Source: GAP-MLLM's two-stage grounding, which reports only what follows from the view; the accuracy is our choice.
"""

from ...processing.answers_gap_mllm import parse_frame
from .box_overlaps import check_mode
from .records import check_equal_lengths, check_text, mean_or_nan
from .reference_answers import reference_frame


def read_frame(text: str, num_frames: int, mode: str = "corrected") -> int | None:
    """Read the view that an answer names.

    Args:
        text (`str`): the model's answer.
        num_frames (`int`): views shown; others are refused.
        mode (`str`): "corrected" (`parse_frame`), or "reference", where text without JSON or key means view 0 and
            negative numbers count from the end.
    Returns:
        `int` or None where none can be read.
    Raises:
        ValueError: on another mode or fewer than one view. TypeError: if `text` is no text.
    """
    check_mode(mode)
    check_text(text)
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}; expected the number of views shown, 1 or more.")
    return reference_frame(text, num_frames) if mode == "reference" else parse_frame(text, num_frames).first


def frame_accuracy(predictions, frames, num_frames, mode: str = "corrected", tolerance: int = 0) -> dict:
    """Score answers that name a view; one that cannot be read is wrong.

    Args:
        predictions (list of `str`): the model's texts.
        frames (list of `int` or lists of `int`): the right view of each, or several that are all right.
        num_frames (list of `int`): views shown.
        mode (`str`): of `read_frame`. tolerance (`int`): a view is right up to so many places from a right one.
    Returns:
        `dict`: "accuracy" (NaN without questions), "mean_distance" in places over answers that can be read, "n",
        "num_unparsed".
    Raises:
        ValueError: if lengths differ, on another mode, a negative tolerance, or a true view that was not shown.
        TypeError: if a prediction is no text.
    """
    check_mode(mode)
    check_equal_lengths(predictions=predictions, frames=frames, num_frames=num_frames)
    if tolerance < 0:
        raise ValueError(f"tolerance is {tolerance}; expected 0 or more.")
    hits, distances = [], []
    for index, (text, right, count) in enumerate(zip(predictions, frames, num_frames, strict=True)):
        right = [right] if isinstance(right, int) else list(right)
        if not right or not all(0 <= view < count for view in right):
            raise ValueError(f"frames[{index}] is {right}; expected one or more views in 0..{count - 1}.")
        frame = read_frame(text, count, mode)
        hits.append(frame is not None and min(abs(frame - view) for view in right) <= tolerance)
        if frame is not None:
            distances.append(min(abs(frame - view) for view in right))
    return {
        "accuracy": mean_or_nan(hits),
        "mean_distance": mean_or_nan(distances),
        "n": len(hits),
        "num_unparsed": len(hits) - len(distances),
    }


__all__ = ["frame_accuracy", "read_frame"]
