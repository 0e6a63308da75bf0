"""One answer about a marked pixel: the point and name that it gives, and how far that is from the truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..answers_gap_mllm import LabelledPoint, ParsedAnswer, Rejection, parse_points


NEAR_M = 0.5  # an answer within this distance is counted as near


@dataclass(frozen=True)
class PointAnswer:
    """What a text answers about a marked pixel.

    Frame: camera of the first view, OpenCV axes. Units: metres.

    Args:
        point (`tuple[float, float, float]`, *optional*): the place, None where none could be read.
        label (`str`, *optional*): the name, None where there is none.
        rejected (`str`, *optional*): why no point could be read.
        error_m (`float`): the distance from the true point, infinite without a point.
        is_right_label (`bool`): whether the name is the true one.
    """

    point: tuple[float, float, float] | None
    label: str | None
    rejected: str | None
    error_m: float
    is_right_label: bool


def read_point_answer(text: str, point: Sequence[float], label: str) -> PointAnswer:
    """Read the first point of an answer and hold it to the truth.

    Frame: camera of the first view, OpenCV axes. Units: metres.

    Args:
        text (`str`): a generated answer, whatever it holds.
        point (array-like of shape `(3,)`): the true point.
        label (`str`): the true name.
    Returns:
        `PointAnswer`: infinitely wrong where no point can be read.

    Example:
        ```python
        >>> from gap_mllm.processing.scores import read_point_answer
        >>> read_point_answer('{"label": "bed", "pointmap": [0, 0, 2.5]}', (0, 0, 2), "bed").error_m
        0.5
        >>> read_point_answer("I cannot tell.", (0, 0, 2), "bed").rejected
        'no object'

        ```
    """
    parsed = parse_points(text)
    return _held_to(parsed.first or why_rejected(parsed), point, label)


def _held_to(answer: LabelledPoint | str, point, label) -> PointAnswer:
    """An answered point, or why there is none, beside the truth."""
    if isinstance(answer, str):
        return PointAnswer(None, None, answer, float("inf"), False)
    error = float(np.linalg.norm(np.asarray(answer.point) - point))
    return PointAnswer(answer.point, answer.label, None, error, answer.label == label)


@dataclass(frozen=True)
class SparsePoints:
    """What a text answers about several marks.

    Args:
        answers (`tuple[PointAnswer, ...]`): one a mark, in their order; infinitely wrong where there is none.
        num_missing (`int`, defaults to 0): marks that the list is too short for.
        num_unreadable (`int`, defaults to 0): marks whose entry holds no point.
        num_extra (`int`, defaults to 0): entries behind the last mark.
    """

    answers: tuple[PointAnswer, ...]
    num_missing: int = 0
    num_unreadable: int = 0
    num_extra: int = 0


def read_sparse_points(text: str, points: Sequence[Sequence[float]], labels: Sequence[str | None]) -> SparsePoints:
    """Read the list of an answer and hold each entry to the mark of the same number.

    An entry that cannot be read keeps its place, so that those behind it are not held to the wrong marks.
    Frame: camera of the first view, OpenCV axes. Units: metres.

    Args:
        text (`str`): a generated answer, whatever it holds.
        points (array-like of shape `(N, 3)`): the true points, in the order of the marks.
        labels (sequence of `str` or None): their names.
    Returns:
        `SparsePoints`.
    Raises:
        ValueError: if there is no mark, or points and labels differ in number.

    Example:
        ```python
        >>> from gap_mllm.processing.scores import read_sparse_points
        >>> text = '[{"label": "bed", "pointmap": [0, 0, 2]}, {"label": "lamp", "pointmap": [1]}]'
        >>> read = read_sparse_points(text, [(0, 0, 2), (1, 0, 2), (2, 0, 2)], ["bed", "lamp", "sofa"])
        >>> [answer.error_m for answer in read.answers], read.num_unreadable, read.num_missing
        ([0.0, inf, inf], 1, 1)

        ```
    """
    if not len(points) or len(points) != len(labels):
        raise ValueError(f"{len(points)} points and {len(labels)} labels; expected one of each for every mark.")
    parsed = parse_points(text)
    read = [entry.reason if isinstance(entry, Rejection) else entry for entry in parsed.entries][: len(points)]
    num_missing = len(points) - len(read)
    reasons = read + [why_rejected(parsed) or ("cut off" if parsed.truncated else "missing")] * num_missing
    answers = tuple(_held_to(*each) for each in zip(reasons, points, labels, strict=True))
    num_unreadable = sum(isinstance(entry, str) for entry in read)
    return SparsePoints(answers, num_missing, num_unreadable, max(len(parsed.entries) - len(points), 0))


def point_figures(answers: Sequence[PointAnswer]) -> dict[str, tuple[np.ndarray, Callable]]:
    """Return what is reported of answers about marked pixels: the value of each answer, and how values are summed up.

    Units: metres.

    Args:
        answers (sequence of `PointAnswer`): one a question.
    Returns:
        `dict`: by name of the figure `(values, statistic)`: "parse_rate" (mean), "point_error_m" (median; infinite
        where an answer could not be read), "near_share" (mean, within `NEAR_M`), "label_accuracy" (mean).
    """
    errors = np.array([answer.error_m for answer in answers], dtype=float)
    return {
        "parse_rate": (np.array([answer.point is not None for answer in answers], dtype=float), np.mean),
        "point_error_m": (errors, np.median),
        "near_share": ((errors <= NEAR_M).astype(float), np.mean),
        "label_accuracy": (np.array([answer.is_right_label for answer in answers], dtype=float), np.mean),
    }


def why_rejected(parsed: ParsedAnswer) -> str | None:
    """Return why an answer holds nothing that could be scored; None if it does.

    Args:
        parsed (`ParsedAnswer`): the reading of `parse_points` or its like.
    Returns:
        `str` or None.
    """
    if parsed.items:
        return None
    if parsed.rejected:
        return parsed.rejected[0].reason
    return "cut off" if parsed.truncated else "no object"
