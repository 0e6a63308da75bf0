"""Why a change of the views would make a sample untrue: what its texts say of views, directions, order and places.

Refusals are `AugmentationRefused`. Numbers in answers are moved in answers.py, words of direction are
exchanged in mirror_words.py.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from ..answer_texts import holds_numbers, location_span
from ..scene_sample import SceneSample
from ..view_selection import TAGGED, first_frame_number


NUMBER_TASKS = (
    "reconstruction",
    "sparse_points",
    "reasoning_segmentation",
    "detection3d",
    "grounding",
    "grounding_box",
    "grounding_frame",
)
TEXT_TASKS = ("dense_caption", "spatial_qa", "scene_qa", "video_qa")
KNOWN_TASKS = (*NUMBER_TASKS, *TEXT_TASKS, "scene")
VIEW_WORDS = ("refuse", "keep")

# Said of the frame of the numbers, which move with it; the names of a box's numbers; and words to who is asked.
_HARMLESS = re.compile(
    r"(?:camera )?(?:coordinate system|coordinates|camera(?: frame)?) (?:of|in) the first"
    r" (?:frame|view|image|picture|photo|camera)|the first camera(?:'s coordinate)?"
    r"|the frame's coordinates|\[[xyz][\w, ]*\]|\b(?:can|could|would) you\b|\b(?:tell|give) me\b",
    re.IGNORECASE,
)
_FRAME_NAME = re.compile(r"Frame-\d+\b")
_ORDINALS = "first|second|third|fourth|fifth|sixth|seventh|eighth|last|previous|next|initial|final|middle"
_MENTION = re.compile(
    rf"\b(?:frame|image|view|picture|photo)s?[\s_-]*#?\d+|\b(?:{_ORDINALS}|\d+(?:st|nd|rd|th))\s+(?:two |three )?"
    r"(?:frame|image|view|picture|photo)",
    re.IGNORECASE,
)
_VIEWPOINT = re.compile(
    r"(?<![a-z])(?:left|right|front|behind|ahead|back|forwards?|backwards?|closer|nearer|nearest|farther|further"
    r"|farthest|deeper|depth|observer|viewer|camera|viewpoint|viewing|perspective|you|your|me|my|facing|seen from"
    r"|(?:counter|anti)?-?clockwise|distance from here)(?![a-z])|left(?:most|ward)|right(?:most|ward)",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"\b(?:first|last|then|before|after|earlier|later|order|sequence|appear\w*|motion|mov(?:e|es|ed|ing|ement)"
    r"|route|path|trajectory|turn(?:s|ed|ing)?|rotat\w*)\b",
    re.IGNORECASE,
)
_COORDINATES = r"[\[(]\s*-?\d+(?:\.\d+)?\s*(?:,\s*-?\d+(?:\.\d+)?\s*)+[\])]|\b[xyzuv]\s*[:=]\s*-?\d"
_FIRST = re.compile(r"\b(?:first|earliest|start|begins?)\b", re.IGNORECASE)
_NUMBERS = re.compile(_COORDINATES, re.IGNORECASE)
_PLACE = re.compile(
    rf"{_COORDINATES}|\b0\s*(?:-|to)\s*1000\b|\bnormali[sz]ed\b|\bpixel coordinates?\b"
    r"|\b(?:side|half|cent(?:er|re)|corner|edge|top|bottom|part)\s+of\s+the"
    r"\s+(?:image|picture|frame|photo|view)\b",
    re.IGNORECASE,
)


class AugmentationRefused(ValueError):  # noqa: N818 - the word that its readers catch
    """A change that would make a sample untrue. The message names step, sample, task and reason.

    Args:
        message (`str`): the whole message; `refuse` writes it.
        step (`str`, *optional*), sample_id (`str`, *optional*), task (`str`, *optional*), reason (`str`, *optional*):
            its parts.
    """

    def __init__(
        self,
        message: str,
        step: str | None = None,
        sample_id: str | None = None,
        task: str | None = None,
        reason: str | None = None,
    ):
        super().__init__(message)
        self.step, self.sample_id, self.task, self.reason = step, sample_id, task, reason


def refuse(step: str, sample: SceneSample, reason: str) -> AugmentationRefused:
    """Return the error to raise."""
    message = f"{step} is refused for sample {sample.id!r} of task {sample.task!r}: {reason}"
    return AugmentationRefused(message, step, sample.id, sample.task, reason)


def free_texts(sample: SceneSample) -> list[str]:
    """The texts of a sample that are read as words: without tags, phrases about coordinate systems, and numbers that
    move."""
    question, span = sample.question or "", location_span(sample)
    if span:
        question = question[: span[0]] + question[span[1] :]
    question = _HARMLESS.sub(" ", TAGGED.sub(" ", question))
    answers = [text for text in (sample.answer, *sample.references) if text and not holds_numbers(text)]
    return [text for text in (question, *answers, *sample.choices) if text]


def check_task(step: str, sample: SceneSample) -> None:
    """Refuse tasks that nobody has looked at, and videos whose views are not sampled yet."""
    if sample.task not in KNOWN_TASKS:
        raise refuse(step, sample, f"the task is not known; known are {', '.join(KNOWN_TASKS)}.")
    if not sample.views:
        raise refuse(step, sample, "it has no views yet; a video has to be sampled first.")


def check_answers(step: str, sample: SceneSample) -> None:
    """Refuse answers that should be numbers of boxes, points or frames, and are in no form that is known."""
    for text in (sample.answer, *sample.references) if sample.task in NUMBER_TASKS else ():
        if text and any(letter.isdigit() for letter in text) and not holds_numbers(text):
            raise refuse(step, sample, f"its answer cannot be read: {text[:80]!r}.")


def check_mentions(step: str, sample: SceneSample) -> None:
    """Refuse texts that speak of a view by its number or place, which the change would give to another view.

    "Frame-3" is fine where the tags number the views: it is renamed with them.
    """
    harmless = None if first_frame_number(sample.question) is None else _FRAME_NAME
    _check(step, sample, _MENTION, "its text speaks of {word!r}, and another view would stand there.", harmless)


def names_view(sample: SceneSample, view: int) -> bool:
    """Whether a text says "Frame-3" of a view that its tags number."""
    first = first_frame_number(sample.question)
    name = re.compile(rf"Frame-{(first or 0) + view}\b")
    return first is not None and any(name.search(text) for text in free_texts(sample))


def check_viewpoint(step: str, sample: SceneSample, view_words: str) -> None:
    """Refuse texts with words that depend on the first view's place, unless `view_words` is "keep"."""
    if view_words not in VIEW_WORDS:
        raise ValueError(f"view_words is {view_words!r}; expected one of {', '.join(VIEW_WORDS)}.")
    if view_words == "refuse":
        reason = (
            "its text says {word!r}, which may be meant from the first view; where such words do not depend on it, "
            'pass view_words="keep".'
        )
        _check(step, sample, _VIEWPOINT, reason)


def check_time(step: str, sample: SceneSample) -> None:
    """Refuse texts that depend on the order of the views."""
    if sample.task == "video_qa":
        raise refuse(step, sample, "the order of the views is the time of the video.")
    if sample.task in TEXT_TASKS:
        _check(step, sample, _TIME, "its text says {word!r}, which may be meant of the order of the views.")


def check_places(step: str, sample: SceneSample) -> None:
    """Refuse texts with coordinates that the change would move, or places in the picture."""
    _check(step, sample, _PLACE, "its text holds {word!r}, a place or coordinates that would have to move with it.")


def check_coordinates(step: str, sample: SceneSample) -> None:
    """Refuse texts with coordinates in a form that is not moved."""
    _check(step, sample, _NUMBERS, "its text holds {word!r}, coordinates that would have to move with it.")


def asks_first_clear(sample: SceneSample) -> bool:
    """Whether the first view that shows something clearly is asked for: its answer depends on the order."""
    if sample.target_frame is None or sample.task not in ("grounding", "grounding_frame"):
        return False
    return bool(_FIRST.search(_HARMLESS.sub(" ", sample.question or "")))


def _check(step, sample, pattern, reason, harmless=None):
    for text in free_texts(sample):
        found = pattern.search(harmless.sub(" ", text) if harmless else text)
        if found:
            raise refuse(step, sample, reason.format(word=found.group(0).strip()))


def replace_texts(sample: SceneSample, change: Callable[[str], str]):
    """Return the sample with `change` applied to every text that a model may read, and to labels."""
    boxes = [replace(box, label=change(box.label)) if box.label else box for box in sample.boxes]
    points = [replace(point, label=change(point.label)) if point.label else point for point in sample.points]
    return replace(
        sample,
        system=change(sample.system) if sample.system else sample.system,
        question=change(sample.question) if sample.question else sample.question,
        answer=change(sample.answer) if sample.answer else sample.answer,
        references=tuple(change(text) for text in sample.references),
        choices=tuple(change(text) for text in sample.choices),
        boxes=tuple(boxes),
        points=tuple(points),
    )
