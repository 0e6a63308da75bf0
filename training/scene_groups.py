"""Which questions of a batch are shown the very same pictures, so that these are encoded once for all of them.

Which rows share a batch changes no row: the pictures of an item have the marks of its own questions, and items share
them only where their marks are the same.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..processing.data.scene_sample import SceneMark, SceneSample, View
from .object_targets import labelled_boxes
from .scene_encoding import QuestionTexts


# What a batch is made of; all else of a view is where it comes from.
_PICTURES, _CAMERA = ("picture", "depth_picture"), ("depth_scale", "intrinsics", "depth_intrinsics", "camera_to_world")


@dataclass
class SceneGroup:
    """Questions that share the encoding of their views.

    Args:
        samples (`list[SceneSample]`): questions about the same views.
        texts (`list[QuestionTexts]`): their texts, all with the same prefix.
    """

    samples: list[SceneSample]
    texts: list[QuestionTexts]

    @property
    def marks(self) -> tuple[SceneMark, ...]:
        """The marks of all questions, each once."""
        return tuple(dict.fromkeys(mark for sample in self.samples for mark in sample.marks))

    def has_views_of(self, other: "SceneGroup") -> bool:
        """Whether both show the same views, with the same text before them and crosses of one size."""
        first, second = self.samples[0], other.samples[0]
        is_alike = self.texts[0].prefix == other.texts[0].prefix and first.cross_size == second.cross_size
        return bool(is_alike and first.views and are_same_views(first.views, second.views))

    def add(self, other: "SceneGroup") -> None:
        """Take the questions of another group in."""
        self.samples += other.samples
        self.texts += other.texts


def group_item(samples: list[SceneSample], texts: list[QuestionTexts]) -> list[SceneGroup]:
    """Put the questions of one item together that can be shown the same pictures, with the marks of all in them.

    That is decided by structure: the views are the same in the same order (see `are_same_views`), the text before
    them is the same (the system turn, and whether and how views are numbered), crosses are as large, and the marks of
    all can stand in one picture (see `marks_agree`). Questions without views stay alone.

    Args:
        samples (`list[SceneSample]`): questions.
        texts (`list[QuestionTexts]`): the texts of each.
    Returns:
        `list[SceneGroup]`: in the order of their first questions.
    """
    groups = []
    for sample, text in zip(samples, texts, strict=True):
        _join_one(groups, SceneGroup([sample], [text]), marks_agree)
    return groups


def join_items(items: list[list[SceneGroup]], reads_boxes: bool = False) -> list[SceneGroup]:
    """Put the groups of several items together that show the very same pictures: views as in `group_item`, and marks.

    Args:
        items (`list[list[SceneGroup]]`): groups of each item.
        reads_boxes (`bool`, defaults to False): whether targets are made of the boxes of the questions, which must
            then be the same, too.
    Returns:
        `list[SceneGroup]`: in the order of their first questions.
    """
    groups = []
    for group in (each for item in items for each in item):
        _join_one(groups, group, _have_same_boxes if reads_boxes else _have_same_marks)
    return groups


def _join_one(groups, group, can_join):
    """Add a group to the first of `groups` with its views that it can join, else to their end."""
    home = next((each for each in groups if each.has_views_of(group) and can_join(each, group)), None)
    if home is None:
        groups.append(group)
    else:
        home.add(group)


def _have_same_marks(group, other):
    return group.marks == other.marks


def _have_same_boxes(group, other):
    """Whether marks are the same, and boxes where they say what a view shows."""
    if not _have_same_marks(group, other):
        return False
    has_maps = all(view.instances is not None for view in group.samples[0].views)
    return has_maps or _box_keys(group.samples) == _box_keys(other.samples)


def _box_keys(samples):
    return [(key, label, numbers.tolist(), order) for key, label, numbers, order in labelled_boxes(samples)]


def marks_agree(group: SceneGroup, other: SceneGroup) -> bool:
    """Whether each mark still says what it says alone: marks are the same, or of another colour at another place."""
    return all(
        mark == shown or (mark.color != shown.color and (mark.view, mark.xy) != (shown.view, shown.xy))
        for mark in other.marks
        for shown in group.marks
    )


def are_same_views(first: tuple[View, ...], second: tuple[View, ...]) -> bool:
    """Whether views are the very same, in the same order, with the same cameras and instance maps.

    Pictures are the same if they are one object, one file, or equal bytes. No picture is decoded for it.

    Args:
        first (`tuple[View, ...]`), second (`tuple[View, ...]`): views of two questions.
    Returns:
        `bool`.
    """
    return len(first) == len(second) and all(map(_is_same_view, first, second))


def _is_same_view(first, second):
    if first is second:
        return True
    pairs = {name: (getattr(first, name), getattr(second, name)) for name in (*_PICTURES, *_CAMERA)}
    is_same_camera = all(_is_same_value(*pairs[name]) for name in _CAMERA) and first.instances is second.instances
    return is_same_camera and all(_is_same_picture(*pairs[name]) for name in _PICTURES)


def _is_same_value(first, second):
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    return first is second or (type(first) is type(second) and bool(first == second))


def _is_same_picture(first, second):
    if first is second:
        return True
    if isinstance(first, Image.Image) and isinstance(second, Image.Image):  # compared where they are from one file
        name = getattr(first, "filename", "")
        return bool(name) and name == getattr(second, "filename", "") and first == second
    return isinstance(first, str | dict) and first == second
