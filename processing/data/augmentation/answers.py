"""Answers whose numbers follow the views: their truth is changed with the scene, and worded again."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from ..answer_texts import (
    SLACK,
    holds_numbers,
    in_answered_camera,
    match_parts,
    read_location,
    read_truth,
)
from ..record_errors import RecordError
from ..scene_sample import SceneSample
from ..truth import render_answer
from .texts import refuse


def follow_views(
    step: str, before: SceneSample, after: SceneSample, places: dict[int, int], lost: Collection[int] = frozenset()
):
    """Return a changed sample with its answers in the numbers of its own boxes, points and views.

    Frame: camera of view 0 of `after`, or of the answered view (see `Truth.camera`).

    Args:
        step (`str`): how errors call the change.
        before (`SceneSample`), after (`SceneSample`): boxes and points as many and in the same order.
        places (`dict[int, int]`): old to new indices of the views.
        lost (set of `int`): boxes that leave the sample, and whose objects leave its answers.
    Returns:
        `SceneSample`.
    Raises:
        AugmentationRefused: if an answer cannot be read, has numbers of no box or point, or names another frame than
            `target_frame`; only what has to change is looked at.
    """
    is_moved = places.get(0) != 0 and not in_answered_camera(before)
    is_renumbered = any(old != new for old, new in places.items())
    changed = {}

    def change(text: str):
        if text not in changed:
            changed[text] = _change(text)
        return changed[text][1]

    def _change(text):
        if not holds_numbers(text) or not (is_moved or is_renumbered or lost):
            return None, text
        truth = read_truth(before, text)
        if is_moved or lost:
            truth = match_parts(before, truth, text)
        if is_moved:
            truth = truth.moved(after)
        truth = truth.without(lost)
        if is_renumbered and truth.frame is not None:
            if truth.frame != before.target_frame:
                raise ValueError(f"its answer says frame {truth.frame}, but target_frame is {before.target_frame}.")
            truth = replace(truth, frame=places[truth.frame])
        return truth, render_answer(truth)

    try:
        answer, references = change(after.answer), tuple(map(change, after.references))
    except ValueError as error:
        raise refuse(step, before, str(error)) from None
    boxes = tuple(box for index, box in enumerate(after.boxes) if index not in lost)
    truth = changed[after.answer][0] if before.truth is not None else None
    truth = before.truth if truth is None or truth.spelling is not None else truth
    return replace(after, answer=answer, references=references, boxes=boxes, truth=truth)


def move_location(step: str, sample: SceneSample, question: str, to_new_first: np.ndarray) -> str:
    """A question with the given location of a caption moved to another camera of view 0.

    The centre of a box is taken where it agrees with the text, else the rounded numbers of the text themselves.

    Args:
        step (`str`), sample (`SceneSample`): sample as it was.
        question (`str`): its question, whose tags may have changed.
        to_new_first (`np.ndarray` of shape `(4, 4)`): transform from the old camera of view 0 to the new one.
    Returns:
        `str`.
    Raises:
        AugmentationRefused: if the location is not three numbers.
    """
    location = read_location(replace(sample, question=question))
    (item,) = location.items
    if len(item.numbers) != 3:
        raise refuse(step, sample, f"the location {''.join(item.spelt)!r} is not three numbers.")
    place, slack = np.array(item.numbers), 0.5 * 10.0**-location.decimals + SLACK
    for box in sample.boxes:
        try:
            center = sample.box_in_view(box, 0)[:3]
        except RecordError:
            continue
        if np.abs(center - place).max() <= slack:
            place = center
            break
    moved = to_new_first[:3, :3] @ place + to_new_first[:3, 3]
    return render_answer(replace(location, items=(replace(item, numbers=tuple(moved)),)))
