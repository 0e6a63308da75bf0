"""Answers whose numbers follow the views: each is found among the boxes and points of its sample, and moved with it.

How the text is edited is in numbers.py.
"""

import re
from dataclasses import replace
from functools import cached_property

import numpy as np

from ...answers_gap_mllm import BOX_KEYS, POINT_KEY, parse_boxes, parse_points
from ...camera_geometry_gap_mllm import euler_to_matrix
from ..record_errors import RecordError
from .numbers import NUMBER_LIST, num_decimals, read_numbers, remove_objects, rewrite_lists, write_numbers
from .texts import holds_numbers, location_span, refuse


_FRAME = re.compile(r'(?P<head>"frame"\s*:\s*)(?P<frame>\d+)')
USUAL_DECIMALS = 2  # of all released answers
_SLACK = 1e-3  # beyond the rounding of the text: stored numbers are float32


def mirror_location(sample) -> str | None:
    """The question with the given location of a caption mirrored, where it has one."""
    span = location_span(sample)
    if span is None:
        return sample.question
    text = sample.question[slice(*span)]
    x, *rest = read_numbers(text) or [0.0]
    mirrored = write_numbers(text, [-x, *rest], num_decimals(text))
    return sample.question[: span[0]] + mirrored + sample.question[span[1] :]


class AnswerNumbers:
    """The numbers of a sample's answers, each found among its boxes and points before the views change.

    Frame: numbers of answers are in the camera of view 0, or for one-stage grounding in that of the answered view.

    Args:
        step (`str`): how errors call the change.
        sample (`SceneSample`): as it was.
    """

    def __init__(self, step, sample):
        self.step, self.sample = step, sample
        self.own_camera = _is_in_own_camera(sample)
        self.texts = [text for text in (sample.answer, *sample.references) if holds_numbers(text)]

    @cached_property
    def matches(self) -> dict[str, list[int]]:
        """For every text the indices of the boxes or points of its lists; found when first needed."""
        return {text: self._match(text) for text in self.texts}

    @property
    def camera(self) -> int:
        """The view whose camera boxes of answers are in."""
        return self.sample.target_frame if self.own_camera else 0

    def _match(self, text):
        """For every list of the text the index of its box or point."""
        boxes, points = parse_boxes(text), parse_points(text)
        found = [(entry["key"], entry["list"]) for entry in NUMBER_LIST.finditer(text)]
        num_boxes = sum(key in BOX_KEYS for key, _ in found)
        if len(boxes.items) != num_boxes or len(points.items) != len(found) - num_boxes or boxes.truncated:
            raise refuse(self.step, self.sample, f"its answer cannot be read: {text[:80]!r}.")
        half_step = 0.5 * 10.0 ** -max((num_decimals(entry) for _, entry in found), default=0)
        box_items, point_items, matches = iter(boxes.items), iter(points.items), []
        for key, _ in found:
            if key in BOX_KEYS:
                item, parts, differ = next(box_items), self.sample.boxes, self._box_differs
                numbers = np.array(item.bbox_3d)
            else:
                item, parts, differ = next(point_items), self.sample.points, self._point_differs
                numbers = np.array(item.point)
            errors = [(differ(part, numbers, half_step), index) for index, part in enumerate(parts)]
            error, index = min(errors, default=(np.inf, None))
            if not error <= 1:
                what = "box" if key in BOX_KEYS else "point"
                raise refuse(
                    self.step,
                    self.sample,
                    f"no {what} of the sample has the numbers {numbers.tolist()} of its answer, so that they cannot "
                    "be moved; give the row its boxes and points.",
                )
            matches.append(index)
        return matches

    def _box_differs(self, box, numbers, half_step):
        """How far a box is from the numbers of an answer, in units of what rounding explains."""
        try:
            own = self.sample.box_in_view(box, self.camera)
        except RecordError:
            return np.inf
        slack = half_step + _SLACK
        sizes = np.maximum(own[3:6], min(2 * half_step, 1))  # answers write no size of 0
        turn = euler_to_matrix(own[6:], box.euler_order) - euler_to_matrix(numbers[6:], box.euler_order)
        return max(
            np.abs(own[:3] - numbers[:3]).max() / slack,
            np.abs(sizes - numbers[3:6]).max() / slack,
            np.abs(turn).max() / (3 * slack),
        )

    def _point_differs(self, point, numbers, half_step):
        if point.xyz is None:
            return np.inf
        try:
            own = self.sample.point_in_view(point, 0)
        except RecordError:
            return np.inf
        return np.abs(own - numbers).max() / (half_step + _SLACK)

    def rewrite(self, moved, places: dict[int, int], removed_boxes=frozenset()):
        """Return the changed sample with its answers in the numbers of its boxes and points.

        Args:
            moved (`SceneSample`): boxes and points as many and in the order of before, in their new frames.
            places (`dict[int, int]`): old to new indices of the views.
            removed_boxes (set of `int`): whose objects are taken out of the texts.
        Returns:
            `SceneSample`.
        Raises:
            AugmentationRefused: if an answer cannot be read, has numbers of no box or point, or names another frame
                than `target_frame`; only what has to change is looked at.
        """

        def change(text):
            if text not in self.texts:
                return text
            if not self.own_camera and places.get(0) != 0:
                text, old = self._move_lists(text, moved), text
            else:
                old = text
            if removed_boxes:
                text = remove_objects(text, self._places_of(old, removed_boxes))
            return self._exchange_frame(text, places)

        answer = change(moved.answer) if moved.answer else moved.answer
        return replace(moved, answer=answer, references=tuple(map(change, moved.references)))

    def _move_lists(self, text, moved):
        matches = self.matches[text]

        def move(key, numbers, index):
            if key == POINT_KEY:
                return moved.point_in_view(moved.points[matches[index]], 0)
            box = moved.box_in_view(moved.boxes[matches[index]], 0)
            return [*box[:3], *numbers[3:6], *box[6:]]

        return rewrite_lists(text, move, self._min_decimals(text))

    def _min_decimals(self, text):
        """Two for an answer such as [1.0, 0.5, 2.0] that happens to need fewer, told by the numbers that it is of."""
        matches = self.matches[text]
        if len(matches) != 1 or POINT_KEY not in text:
            return 0
        point = self.sample.points[matches[0]]
        numbers = np.array(parse_points(text).items[0].point)
        return USUAL_DECIMALS if self._point_differs(point, numbers, 0.5 * 10.0**-USUAL_DECIMALS) <= 1 else 0

    def _places_of(self, text, boxes):
        """Which objects of an answer, counted from 0, are these boxes."""
        keys = [found["key"] for found in NUMBER_LIST.finditer(text)]
        matches = enumerate(zip(keys, self.matches[text], strict=True))
        return {place for place, (key, index) in matches if key in BOX_KEYS and index in boxes}

    def _exchange_frame(self, text, places):
        """The text with the number of its view exchanged; it must be that of `target_frame`."""
        if all(old == new for old, new in places.items()):
            return text
        target = self.sample.target_frame

        def change(found):
            if target is None or int(found["frame"]) != target:
                raise refuse(
                    self.step, self.sample, f"its answer says frame {found['frame']}, but target_frame is {target}."
                )
            return found["head"] + str(places[target])

        return _FRAME.sub(change, text)


def _is_in_own_camera(sample) -> bool:
    """Whether the box of an answer is in the camera of the answered view, as in one-stage grounding."""
    if sample.task != "grounding" or sample.target_frame is None:
        return False
    return "coordinate system of the first" not in (sample.question or "")


def move_location(step: str, sample, question: str, to_new_first) -> str:
    """A question with the given location of a caption moved to another camera of view 0.

    The centre of a box is taken where it agrees with the text, else the rounded numbers of the text themselves.

    Args:
        step (`str`), sample (`SceneSample`): as it was.
        question (`str`): its question, whose tags may have changed.
        to_new_first (`np.ndarray` of shape `(4, 4)`): from the old camera of view 0 to the new one.
    Returns:
        `str`.
    Raises:
        AugmentationRefused: if the location is not three numbers.
    """
    start, end = location_span(replace(sample, question=question))
    text = question[start:end]
    location = np.array(read_numbers(text))
    if location.shape != (3,):
        raise refuse(step, sample, f"the location {text!r} is not three numbers.")
    decimals = num_decimals(text)
    for box in sample.boxes:
        try:
            center = sample.box_in_view(box, 0)[:3]
        except RecordError:
            continue
        if np.abs(center - location).max() <= 0.5 * 10.0**-decimals + _SLACK:
            location = center
            break
    moved = to_new_first[:3, :3] @ location + to_new_first[:3, 3]
    return question[:start] + write_numbers(text, moved, decimals) + question[end:]


__all__ = ["AnswerNumbers", "mirror_location", "move_location"]
