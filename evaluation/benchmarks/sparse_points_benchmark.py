"""Sparse point maps: several numbered marks in one question, each entry of the answer held to the mark of its number.

Frame: camera of the first view, OpenCV axes. Units: metres.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ...processing.answers_gap_mllm import format_points
from ...processing.asking_gap_mllm import ANSWER_FORMS
from ...processing.data.record_errors import RecordError
from ...processing.data.scene_sample import Point, SceneSample
from ...processing.scores.point_answers import SparsePoints, point_figures, read_sparse_points
from .benchmark import Benchmark


def read_sparse_points_of(sample: SceneSample, text: str) -> SparsePoints:
    """Read an answer and hold its entries to the true points and labels of the marks."""
    points = [sample.point_in_view(point) for point in sample.points]
    return read_sparse_points(text, points, [point.label for point in sample.points])


def rate_sparse_points(samples: Sequence[SceneSample], readings: Sequence[SparsePoints], interval: Callable):
    """Sum up answers about several marks; a mark without a readable entry is infinitely far off and wrong.

    Args:
        samples (`list[SceneSample]`): questions of task "sparse_points".
        readings (`list[SparsePoints]`), interval (`Callable`): their readings, and see `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: `parse_rate`, `near_share` and `label_accuracy` (shares of the marks of a question,
        then their mean; labels only where the question asks for them, without interval unless all do),
        `point_error_m` (median over the marks of a question, then over questions), each with its interval;
        `num_marks`, `num_missing`, `num_unreadable` and `num_extra` in all; records.
    """
    by_question = [point_figures(reading.answers) for reading in readings]
    is_asked = [all(point.label for point in sample.points) for sample in samples]
    metrics, errors = {}, []
    for name in by_question[0]:
        values = [float(sum_up(values)) for values, sum_up in (figures[name] for figures in by_question)]
        if name == "label_accuracy" and not all(is_asked):
            asked = [value for value, is_one in zip(values, is_asked, strict=True) if is_one]
            metrics |= {name: float(np.mean(asked))} if asked else {}
            continue
        if name == "point_error_m":
            errors = values
        metrics |= interval(name, values, by_question[0][name][1])
    metrics["num_marks"] = sum(len(reading.answers) for reading in readings)
    for name in ("num_missing", "num_unreadable", "num_extra"):
        metrics[name] = sum(getattr(reading, name) for reading in readings)
    return metrics, [_record(*each) for each in zip(samples, readings, errors, strict=True)]


def _record(sample, reading, error_m):
    found = [
        None if answer.point is None else {"label": answer.label, "pointmap": list(answer.point)}
        for answer in reading.answers
    ]
    return {
        "parsed": found if any(found) else None,
        "rejected": next((answer.rejected for answer in reading.answers if answer.rejected), None),
        "score": -error_m,
        "category": f"{len(sample.points)} marks",
        "error_m": error_m,
        "num_missing": reading.num_missing,
        "num_unreadable": reading.num_unreadable,
        "num_extra": reading.num_extra,
    }


def constant_points(samples: Sequence[SceneSample]) -> Callable:
    """One answer to every mark: the commonest label, and the median of all points."""
    points = np.array([sample.point_in_view(point) for sample in samples for point in sample.points])
    labels = Counter(point.label for sample in samples for point in sample.points if point.label)
    label, middle = labels.most_common(1)[0][0] if labels else None, np.median(points, axis=0)
    return lambda sample: format_points([label] * len(sample.points), [middle] * len(sample.points))


def check_marks(sample: SceneSample) -> None:
    """Refuse a question whose marks and true points differ in number; raises RecordError."""
    if not sample.marks or len(sample.marks) != len(sample.points):
        problem = f"there are {len(sample.marks)} marks and {len(sample.points)} true points; expected one for each."
        raise RecordError(problem, "points", record_id=sample.id)


def draw_points(sample: SceneSample, parsed: list) -> list[Point]:
    """The answered points, to be drawn."""
    return [
        Point(view=None, pixel=None, xyz=np.asarray(entry["pointmap"], float), label=entry["label"])
        for entry in parsed
        if entry is not None
    ]


SPARSE_POINTS = Benchmark(
    "sparse_points",
    "several marked pixels of a rendered room at once: what is each, and where",
    source="synthetic_rooms",
    split="test",
    tasks=("sparse_points",),
    read=read_sparse_points_of,
    rate=rate_sparse_points,
    constant=constant_points,
    headline="point_error_m",
    check=check_marks,
    higher_is_better=False,
    forms=(ANSWER_FORMS["sparse_points"],),
    draw=draw_points,
    shown="error_m",
    options={"num_train": 256, "num_selection": 0, "num_test": 128},
)
