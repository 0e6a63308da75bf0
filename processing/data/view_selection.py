"""Keeping some of the views of a row, with everything that speaks of them: tags, marks, boxes, points and answers."""

import re

import numpy as np

from ..prompts_gap_mllm import IMAGE_TAG
from .record_errors import RecordError


_TAGGED = re.compile(r"(?:Frame-(\d+): )?" + re.escape(IMAGE_TAG))


def named_views(row: dict) -> set[int]:
    """Indices of the views that a row cannot lose: the reference, and those that answers and marks speak of."""
    named = {0}
    named.update(mark["view"] for mark in row["marks"])
    named.update(point["view"] for point in row["points"] if point["view"] is not None)
    named.update(box["frame_index"] for box in row["boxes"] if box["frame_index"] is not None)
    if row["target_frame"] is not None:
        named.add(row["target_frame"])
    return named


def spread_views(row: dict, max_views: int) -> list[int]:
    """Choose at most `max_views` views: those of `named_views`, and others spread evenly among the rest.

    Args:
        row (`dict`): of the schema.
        max_views (`int`): at least 1.
    Returns:
        `list[int]`, ascending.
    Raises:
        RecordError: if more views than that are named.
    """
    named, num_views = sorted(named_views(row)), len(row["views"])
    if len(named) > max_views:
        raise RecordError(f"the row speaks of {len(named)} views, more than max_views={max_views}.", "views")
    rest = [view for view in range(num_views) if view not in named]
    room = min(max_views - len(named), len(rest))
    chosen = [rest[int(index)] for index in np.linspace(0, len(rest) - 1, room)] if room else []
    return sorted(named + chosen)


def select_row_views(row: dict, keep: list[int]) -> dict:
    """Keep these views, in this order; indices in tags, marks, boxes, points and frame answers follow.

    View 0 must stay first: another first view moves the frame of boxes and points (see augmentation.py).

    Args:
        row (`dict`): of the schema.
        keep (`list[int]`): indices of views, without repetition, beginning with 0.
    Returns:
        `dict`: a new row.
    Raises:
        ValueError: if `keep` does not begin with 0, repeats a view, or names one that is not there.
        RecordError: if the row speaks of a view that is not kept, or its tags do not match its views.
    """
    num_views = len(row["views"])
    if not keep or keep[0] != 0 or len(set(keep)) < len(keep) or not all(0 <= view < num_views for view in keep):
        raise ValueError(f"keep is {keep}; expected distinct views below {num_views}, the first of them 0.")
    lost = sorted(named_views(row) - set(keep))
    if lost:
        raise RecordError(f"the row speaks of view {lost[0]}, which is not kept.", "views", record_id=row["id"])
    place = {old: new for new, old in enumerate(keep)}
    row = {**row, "views": [row["views"][view] for view in keep]}
    row["question"] = retag_question(row["question"], num_views, keep)
    row["marks"] = [{**mark, "view": place[mark["view"]]} for mark in row["marks"]]
    row["points"] = [{**point, "view": place.get(point["view"])} for point in row["points"]]
    row["boxes"] = [{**box, "frame_index": place.get(box["frame_index"])} for box in row["boxes"]]
    if row["target_frame"] is not None:
        old, new = row["target_frame"], place[row["target_frame"]]
        if row["answer"] and old != new:
            row["answer"] = re.sub(r'("frame"\s*:\s*)' + str(old) + r"\b", rf"\g<1>{new}", row["answer"])
        row["target_frame"] = new
    return row


def retag_question(question: str | None, num_views: int, keep: list[int]) -> str | None:
    """Remove the `<image>` tags of views that go; numbers of the form "Frame-3: <image>" follow the new order.

    Raises:
        RecordError: if the text has tags, but not one for each view.
    """
    tags = list(_TAGGED.finditer(question or ""))
    if not tags:
        return question
    if len(tags) != num_views:
        raise RecordError(f"the text holds {len(tags)} {IMAGE_TAG} tags for {num_views} views.", "question")
    gaps = [question[a.end() : b.start()] for a, b in zip(tags, tags[1:], strict=False)] + [""]
    parts = [question[: tags[0].start()]]
    for place, view in enumerate(keep):
        number = tags[view].group(1)
        parts.append(tags[view].group(0) if number is None else f"Frame-{int(tags[0].group(1)) + place}: {IMAGE_TAG}")
        if place < len(keep) - 1:
            parts.append(gaps[min(view, num_views - 2)])
    return "".join(parts) + question[tags[-1].end() :]


__all__ = ["named_views", "retag_question", "select_row_views", "spread_views"]
