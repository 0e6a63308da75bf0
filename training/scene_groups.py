"""Which questions of a batch are shown the very same pictures, so that these are encoded once for all of them."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..processing.data.scene_sample import SceneMark, SceneSample, View
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

    def can_show(self, sample: SceneSample, texts: QuestionTexts) -> bool:
        """Whether a question can be asked about these pictures: same views, same text before them, marks apart."""
        first = self.samples[0]
        is_alike = texts.prefix == self.texts[0].prefix and sample.cross_size == first.cross_size
        return bool(
            is_alike and first.views and are_same_views(first.views, sample.views) and marks_agree(self, sample)
        )


def group_questions(samples: list[SceneSample], texts: list[QuestionTexts]) -> list[SceneGroup]:
    """Put questions together that can be shown the same pictures.

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
        home = next((group for group in groups if group.can_show(sample, text)), None)
        if home is None:
            groups.append(SceneGroup([sample], [text]))
        else:
            home.samples.append(sample)
            home.texts.append(text)
    return groups


def marks_agree(group: SceneGroup, sample: SceneSample) -> bool:
    """Whether each mark still says what it says alone: marks are the same, or of another colour at another place."""
    return all(
        mark == other or (mark.color != other.color and (mark.view, mark.xy) != (other.view, other.xy))
        for mark in sample.marks
        for other in group.marks
    )


def are_same_views(first: tuple[View, ...], second: tuple[View, ...]) -> bool:
    """Whether views are the very same, in the same order, with the same cameras.

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
    is_same_camera = all(_is_same_value(*pairs[name]) for name in _CAMERA)
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


__all__ = ["SceneGroup", "are_same_views", "group_questions", "marks_agree"]
