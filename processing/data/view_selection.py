"""Keeping some of the views of a row, with everything that speaks of them: tags, marks, boxes, points and answers."""

import json
import re

import numpy as np

from ..argument_checks import WrongKindError, check_count
from ..prompts_gap_mllm import IMAGE_TAG
from .record_errors import RecordError


KEPT_VIEWS = '"keep_views"'  # a key of metadata
_TAGGED = re.compile(r"(?:Frame-(\d+): ?)?" + re.escape(IMAGE_TAG))
_MENTION = re.compile(r"Frame-(\d+)\b")


def named_views(row: dict) -> set[int]:
    """Indices of the views that a row cannot lose: the reference, and those that answers, marks and texts speak of.

    Raises:
        RecordError: if a text says "Frame-3", and there is no such view or tags do not number them.
    """
    named = {0}
    named.update(mark["view"] for mark in row["marks"])
    named.update(point["view"] for point in row["points"] if point["view"] is not None)
    named.update(box["frame_index"] for box in row["boxes"] if box["frame_index"] is not None)
    if row["target_frame"] is not None:
        named.add(row["target_frame"])
    named.update(_kept_views(row))
    mentions = {int(number) for text in _spoken_texts(row) for number in _MENTION.findall(text)}
    first = first_frame_number(row["question"]) if mentions else None
    for number in mentions:
        if first is None or not 0 <= number - first < len(row["views"]):
            raise RecordError(
                f"the text speaks of Frame-{number}, but {IMAGE_TAG} tags do not say which of the "
                f"{len(row['views'])} views that is; without it views cannot be left out.",
                "question",
                record_id=row["id"],
            )
        named.add(number - first)
    return named


def _kept_views(row) -> list[int]:
    """The views that the answer was computed from, as makers of questions list them in metadata."""
    metadata = row["metadata"] or ""
    return json.loads(metadata).get("keep_views", []) if KEPT_VIEWS in metadata else []


def _spoken_texts(row) -> list[str]:
    """What is said beside the tags."""
    texts = (_TAGGED.sub("", row["question"] or ""), row["answer"], *row["choices"], *row["references"])
    return [text for text in texts if text]


def first_frame_number(question: str | None) -> int | None:
    """The number of view 0 in tags "Frame-0: <image>Frame-1: <image>"; None if they do not count the views."""
    numbers = [tag.group(1) for tag in _TAGGED.finditer(question or "")]
    if not numbers or numbers[0] is None:
        return None
    first = int(numbers[0])
    return first if numbers == [str(first + place) for place in range(len(numbers))] else None


def spread_views(row: dict, max_views: int) -> list[int]:
    """Choose at most `max_views` views: those of `named_views`, and others spread evenly from the first to the last.

    Args:
        row (`dict`): of the schema.
        max_views (`int`): at least 1.
    Returns:
        `list[int]`, ascending.
    Raises:
        TypeError: if `max_views` is no integer. ValueError: if it is below 1. RecordError: if more views are named.
    """
    max_views = check_count("max_views", max_views)
    named, num_views = sorted(named_views(row)), len(row["views"])
    if len(named) > max_views:
        raise RecordError(f"the row speaks of {len(named)} views, more than max_views={max_views}.", "views")
    rest = [view for view in range(num_views) if view not in named]
    room = min(max_views - len(named), len(rest))
    chosen = [[0, *rest][int(index)] for index in np.linspace(0, len(rest), room + 1)[1:]]
    return sorted(named + chosen)


def select_row_views(row: dict, keep: list[int]) -> dict:
    """Keep these views, in this order; indices in tags, marks, boxes, points, texts and frame answers follow.

    Texts are followed where they say "Frame-3" or `"frame": 3`, not in free words ("the second picture").
    View 0 must stay first: another first view moves the frame of boxes and points (see augmentation/).

    Args:
        row (`dict`): of the schema.
        keep (`list[int]`): indices of views, without repetition, beginning with 0.
    Returns:
        `dict`: a new row.
    Raises:
        TypeError: if `keep` is no list of integers.
        ValueError: if `keep` does not begin with 0, repeats a view, or names one that is not there.
        RecordError: if the row speaks of a view that is not kept, or its tags do not match its views.
    """
    keep, num_views = _view_indices(keep), len(row["views"])
    if not keep or keep[0] != 0 or len(set(keep)) < len(keep) or not all(0 <= view < num_views for view in keep):
        raise ValueError(f"keep is {keep}; expected distinct views below {num_views}, the first of them 0.")
    lost = sorted(named_views(row) - set(keep))
    if lost:
        raise RecordError(f"the row speaks of view {lost[0]}, which is not kept.", "views", record_id=row["id"])
    place = {old: new for new, old in enumerate(keep)}
    row = rename_frames(row, place)
    row["views"] = [row["views"][view] for view in keep]
    row["question"] = retag_question(row["question"], num_views, keep)
    row["marks"] = [{**mark, "view": place[mark["view"]]} for mark in row["marks"]]
    row["points"] = [{**point, "view": place.get(point["view"])} for point in row["points"]]
    row["boxes"] = [{**box, "frame_index": place.get(box["frame_index"])} for box in row["boxes"]]
    if row["target_frame"] is not None:
        old, new = row["target_frame"], place[row["target_frame"]]
        if row["answer"] and old != new:
            row["answer"] = re.sub(r'("frame"\s*:\s*)' + str(old) + r"\b", rf"\g<1>{new}", row["answer"])
        row["target_frame"] = new
    if _kept_views(row):
        kept = [place[view] for view in _kept_views(row)]
        row["metadata"] = json.dumps({**json.loads(row["metadata"]), "keep_views": kept}, ensure_ascii=False)
    return row


def _view_indices(keep) -> list[int]:
    """Plain integers of a list, range or array."""
    try:
        if not isinstance(keep, str | bytes):
            return [check_count("keep", view, least=None) for view in keep]
    except TypeError:
        pass
    raise WrongKindError(f"keep is {keep!r}; expected a list of integers, indices of views.")


def rename_frames(row: dict, place: dict[int, int]) -> dict:
    """Texts that say "Frame-3" of a numbered view say its new number; tags are left to `retag_question`.

    Args:
        row (`dict`): of the schema, or its question, answer, choices and references alone.
        place (`dict[int, int]`): old to new indices of views.
    Returns:
        `dict`: a new row.
    """
    first = first_frame_number(row["question"])
    if first is None:
        return dict(row)

    def rename(text):
        return text and _MENTION.sub(lambda found: f"Frame-{place[int(found.group(1)) - first] + first}", text)

    parts = _TAGGED.split(row["question"])[::2]  # what stands between tags; their numbers stand between the parts
    tags = [tag.group(0) for tag in _TAGGED.finditer(row["question"])] + [""]
    question = "".join(rename(part) + tag for part, tag in zip(parts, tags, strict=True))
    texts = {name: [rename(text) for text in row[name]] for name in ("choices", "references")}
    return {**row, "question": question, "answer": rename(row["answer"]), **texts}


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
    first, parts = first_frame_number(question), [question[: tags[0].start()]]
    for place, view in enumerate(keep):
        tag = tags[view].group(0)
        parts.append(tag if first is None else tag.replace(f"Frame-{first + view}:", f"Frame-{first + place}:"))
        if place < len(keep) - 1:
            parts.append(gaps[min(view, num_views - 2)])
    return "".join(parts) + question[tags[-1].end() :]


__all__ = [
    "first_frame_number",
    "named_views",
    "rename_frames",
    "retag_question",
    "select_row_views",
    "spread_views",
]
