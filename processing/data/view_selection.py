"""Keeping some of the views of a sample, with all that speaks of them: tags, marks, boxes, points and answers."""

import re
from dataclasses import replace

import numpy as np

from ..input_checks_gap_mllm import WrongKindError, check_count
from ..prompts_gap_mllm import IMAGE_TAG
from .answer_texts import in_answered_camera, renumber_frame
from .record_errors import RecordError
from .scene_sample import Box, SceneSample


KEPT_VIEWS = "keep_views"  # a key of metadata: the views that an answer was computed from
# The place of a view in a text, with its number if it has one.
TAGGED = re.compile(r"(?:Frame-(\d+): ?)?" + re.escape(IMAGE_TAG))
_MENTION = re.compile(r"Frame-(\d+)\b")


def named_views(sample: SceneSample) -> set[int]:
    """Indices of the views that a sample cannot lose: the reference, and those that answers, marks and texts speak of.

    Raises:
        RecordError: if a text says "Frame-3", and there is no such view or tags do not number them.
    """
    named = {0, *(mark.view for mark in sample.marks), *sample.metadata.get(KEPT_VIEWS, ())}
    named.update(point.view for point in sample.points)
    named.update(box.frame_index for box in sample.boxes)
    named.add(sample.target_frame)
    named.discard(None)
    mentions = {int(number) for text in _spoken_texts(sample) for number in _MENTION.findall(text)}
    first = first_frame_number(sample.question) if mentions else None
    for number in mentions:
        if first is None or not 0 <= number - first < len(sample.views):
            raise RecordError(
                f"the text speaks of Frame-{number}, but {IMAGE_TAG} tags do not say which of the "
                f"{len(sample.views)} views that is; without it views cannot be left out.",
                "question",
                record_id=sample.id,
            )
        named.add(number - first)
    return named


def _spoken_texts(sample) -> list[str]:
    """What is said beside the tags."""
    texts = (TAGGED.sub("", sample.question or ""), sample.answer, *sample.choices, *sample.references)
    return [text for text in texts if text]


def first_frame_number(question: str | None) -> int | None:
    """The number of view 0 in tags "Frame-0: <image>Frame-1: <image>"; None if they do not count the views."""
    numbers = [tag.group(1) for tag in TAGGED.finditer(question or "")]
    if not numbers or numbers[0] is None:
        return None
    first = int(numbers[0])
    return first if numbers == [str(first + place) for place in range(len(numbers))] else None


def spread_views(sample: SceneSample, max_views: int) -> list[int]:
    """Choose at most `max_views` views: those of `named_views`, and others spread evenly from the first to the last.

    Args:
        sample (`SceneSample`)
        max_views (`int`): most views, at least 1.
    Returns:
        `list[int]`, ascending.
    Raises:
        TypeError: if `max_views` is no integer. ValueError: if it is below 1. RecordError: if more views are named.
    """
    max_views = check_count("max_views", max_views)
    named, num_views = sorted(named_views(sample)), len(sample.views)
    if len(named) > max_views:
        raise RecordError(f"the row speaks of {len(named)} views, more than max_views={max_views}.", "views")
    rest = [view for view in range(num_views) if view not in named]
    room = min(max_views - len(named), len(rest))
    chosen = [[0, *rest][int(index)] for index in np.linspace(0, len(rest), room + 1)[1:]]
    return sorted(named + chosen)


def select_views(sample: SceneSample, keep: list[int]):
    """Keep these views, in this order; indices in tags, marks, boxes, points, texts and frame answers follow.

    Texts are followed where they say "Frame-3" or `"frame": 3`, not in free words ("the second picture"). No picture
    is decoded. View 0 must stay first: another first view moves the frame of boxes and points (see augmentation/).

    Args:
        sample (`SceneSample`): sample; not changed.
        keep (`list[int]`): indices of views, without repetition, beginning with 0.
    Returns:
        `SceneSample`.
    Raises:
        TypeError: if `keep` is no list of integers.
        ValueError: if `keep` does not begin with 0, repeats a view, or names one that is not there.
        RecordError: if the sample speaks of a view that is not kept, or its tags do not match its views.
    """
    keep, num_views = _view_indices(keep), len(sample.views)
    if not keep or keep[0] != 0 or len(set(keep)) < len(keep) or not all(0 <= view < num_views for view in keep):
        raise ValueError(f"keep is {keep}; expected distinct views below {num_views}, the first of them 0.")
    lost = sorted(named_views(sample) - set(keep))
    if lost:
        raise RecordError(f"the row speaks of view {lost[0]}, which is not kept.", "views", record_id=sample.id)
    kept, old, truth = place_views(sample, keep), sample.target_frame, sample.truth
    if old is None or not kept.answer or kept.target_frame == old:
        return kept
    if truth is not None and truth.frame is not None:
        truth = replace(truth, frame=kept.target_frame)
    return replace(kept, answer=renumber_frame(kept.answer, old, kept.target_frame), truth=truth)


def place_views(sample: SceneSample, keep: list[int]):
    """The sample with these views in this order; whatever names a view by its index names the new one.

    Numbers stay in the frames they are in, those in the camera of view 0 too, whichever view is first; answers are
    followed where they say "Frame-3", but not in `"frame": 3`.

    Args:
        sample (`SceneSample`), keep (`list[int]`): different views; all that are spoken of are among them.
    Returns:
        `SceneSample`.
    Raises:
        RecordError: if its tags do not match its views.
    """
    place = {old: new for new, old in enumerate(keep)}
    own_camera = in_answered_camera(sample)
    sample = _rename_frames(sample, place)
    metadata = sample.metadata
    if metadata.get(KEPT_VIEWS):
        metadata = {**metadata, KEPT_VIEWS: [place[view] for view in metadata[KEPT_VIEWS]]}

    def place_box(box: Box):
        is_of_first = not box.frame_index and not own_camera  # moved where another view comes first
        is_placed = box.frame == "camera" or box.frame_index is not None
        return replace(box, frame_index=place.get(box.frame_index or 0)) if is_placed and not is_of_first else box

    return replace(
        sample,
        metadata=metadata,
        views=tuple(sample.views[view] for view in keep),
        question=retag_question(sample.question, len(sample.views), keep),
        marks=tuple(replace(mark, view=place[mark.view]) for mark in sample.marks),
        points=tuple(replace(point, view=place.get(point.view)) for point in sample.points),
        boxes=tuple(map(place_box, sample.boxes)),
        scene_boxes=tuple(map(place_box, sample.scene_boxes)),
        target_frame=place.get(sample.target_frame),
    )


def _view_indices(keep) -> list[int]:
    """Plain integers of a list, range or array."""
    try:
        if not isinstance(keep, str | bytes):
            return [check_count("keep", view, least=None) for view in keep]
    except TypeError:
        pass
    raise WrongKindError(f"keep is {keep!r}; expected a list of integers, indices of views.")


def _rename_frames(sample, place):
    """Texts that say "Frame-3" of a numbered view say its new number; tags are left to `retag_question`."""
    first = first_frame_number(sample.question)
    if first is None:
        return sample

    def rename(text: str):
        return text and _MENTION.sub(lambda found: f"Frame-{place[int(found.group(1)) - first] + first}", text)

    parts = TAGGED.split(sample.question)[::2]  # what stands between tags; their numbers stand between the parts
    tags = [tag.group(0) for tag in TAGGED.finditer(sample.question)] + [""]
    question = "".join(rename(part) + tag for part, tag in zip(parts, tags, strict=True))
    choices, references = (tuple(map(rename, texts)) for texts in (sample.choices, sample.references))
    return replace(sample, question=question, answer=rename(sample.answer), choices=choices, references=references)


def retag_question(question: str | None, num_views: int, keep: list[int]) -> str | None:
    """Remove the `<image>` tags of views that go; numbers of the form "Frame-3: <image>" follow the new order.

    Raises:
        RecordError: if the text has tags, but not one for each view.
    """
    tags = list(TAGGED.finditer(question or ""))
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
