"""Answers about a marked pixel: its name and place. An answer that cannot be read is infinitely far off and wrong.

Every scoring function of this folder takes samples, texts and a seed, and returns metrics and one record a sample:
"parsed" and "rejected" (why not), "score" (higher is better, never NaN), "category", and what it was made of.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...processing.answers_gap_mllm import format_point
from ...processing.data.scene_sample import SceneSample
from ...processing.scores.point_answers import point_figures, read_point_answer
from ..intervals import with_interval
from ..metrics.reconstruction import reconstruction_score


def score(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0):
    """Score answers about marked pixels.

    Frame: camera of the first view, OpenCV axes. Units: metres.

    Args:
        samples (`list[SceneSample]`): questions of task "reconstruction".
        texts (`list[str]`): their answers.
        seed (`int`, defaults to 0): seed of the bootstrap over scenes.
    Returns:
        `tuple[dict, list[dict]]`: `parse_rate`, `point_error_m` (median), `near_share` (within `NEAR_M`) and
        `label_accuracy`, each with its interval under the name + "_ci95"; records.
    """
    answers = [_read(sample, text) for sample, text in zip(samples, texts, strict=True)]
    records = [_record(sample, answer) for sample, answer in zip(samples, answers, strict=True)]
    scenes = [str(sample.scene_id) for sample in samples]
    metrics = {}
    for name, (values, statistic) in point_figures(answers).items():
        metrics |= with_interval(name, values, statistic, scenes, seed)
    return metrics, records


def score_clouds(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0):
    """`score`, and accuracy and completion of each scene's cloud as published; see `reconstruction_score`.

    Returns:
        `tuple[dict, list[dict]]`: as `score`.
    """
    metrics, records = score(samples, texts, seed)
    points = [sample.point_in_view(sample.points[0]) for sample in samples]
    scenes = [str(sample.scene_id) for sample in samples]
    first_views = [sample.views[0].image_path or sample.views[0].frame_id for sample in samples]
    clouds = reconstruction_score(texts, points, scenes, first_views=first_views)
    return metrics | {name: value for name, value in clouds.items() if name != "per_scene"}, records


def _read(sample, text):
    point = sample.points[0]
    return read_point_answer(text, sample.point_in_view(point), point.label)


def _record(sample, answer):
    parsed = None if answer.point is None else {"label": answer.label, "pointmap": list(answer.point)}
    return {
        "parsed": parsed,
        "rejected": answer.rejected,
        "score": -answer.error_m,
        "category": sample.points[0].label,
        "error_m": answer.error_m,
        "is_right_label": answer.is_right_label,
    }


def constant(samples: Sequence[SceneSample]):
    """One answer to all: the commonest label, and the median of all points."""
    points = np.array([sample.point_in_view(sample.points[0]) for sample in samples])
    label = Counter(sample.points[0].label for sample in samples).most_common(1)[0][0]
    text = format_point(label, np.median(points, axis=0))
    return lambda sample: text


__all__ = ["constant", "score", "score_clouds"]
