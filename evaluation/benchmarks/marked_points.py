"""Answers about a marked pixel: its name and place. An answer that cannot be read is infinitely far off and wrong.

Frame: camera of the first view, OpenCV axes. Units: metres.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ...processing.answers_gap_mllm import format_point
from ...processing.asking_gap_mllm import ANSWER_FORMS
from ...processing.data.scene_sample import Point, SceneSample
from ...processing.scores.point_answers import PointAnswer, point_figures, read_point_answer


def read_point_of(sample: SceneSample, text: str) -> PointAnswer:
    """Read an answer and hold it to the true point and label."""
    point = sample.points[0]
    return read_point_answer(text, sample.point_in_view(point), point.label)


def rate_points(samples: Sequence[SceneSample], answers: Sequence[PointAnswer], interval: Callable):
    """Sum up answers about marked pixels.

    Args:
        samples (`list[SceneSample]`): questions of task "reconstruction".
        answers (`list[PointAnswer]`), interval (`Callable`): their readings, and see `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: `parse_rate`, `point_error_m` (median), `near_share` (within `NEAR_M`) and
        `label_accuracy`, each with its interval under the name + "_ci95"; records.
    """
    metrics = {}
    for name, (values, statistic) in point_figures(answers).items():
        metrics |= interval(name, values, statistic)
    return metrics, [_record(sample, answer) for sample, answer in zip(samples, answers, strict=True)]


def _record(sample, answer):
    return {
        "parsed": None if answer.point is None else {"label": answer.label, "pointmap": list(answer.point)},
        "rejected": answer.rejected,
        "score": -answer.error_m,
        "category": sample.points[0].label,
        "error_m": answer.error_m,
        "is_right_label": answer.is_right_label,
    }


def constant_point(samples: Sequence[SceneSample]) -> Callable:
    """One answer to all: the commonest label, and the median of all points."""
    points = np.array([sample.point_in_view(sample.points[0]) for sample in samples])
    label = Counter(sample.points[0].label for sample in samples).most_common(1)[0][0]
    text = format_point(label, np.median(points, axis=0))
    return lambda sample: text


def draw_point(sample: SceneSample, parsed: dict) -> list[Point]:
    """The answered point, to be drawn."""
    return [Point(view=None, pixel=None, xyz=np.asarray(parsed["pointmap"], float), label=parsed["label"])]


MARKED_POINTS = {
    "tasks": ("reconstruction",),
    "read": read_point_of,
    "rate": rate_points,
    "constant": constant_point,
    "headline": "point_error_m",
    "higher_is_better": False,
    "forms": (ANSWER_FORMS["reconstruction"],),
    "draw": draw_point,
    "shown": "error_m",
}
