"""Answers about a marked pixel: its name and place. An answer that cannot be read is infinitely far off and wrong.

Every scoring function of this folder takes samples, texts and a seed, and returns metrics and one record a sample:
"parsed" and "rejected" (why not), "score" (higher is better, never NaN), "category", and what it was made of.
"""

from collections import Counter

import numpy as np

from ...processing.answers_gap_mllm import format_point, parse_points
from ..intervals import with_interval
from ..metrics.reconstruction import reconstruction_score


NEAR_M = 0.5  # an answer within this distance is counted as near


def score(samples, texts, seed: int = 0):
    """Score answers about marked pixels.

    Frame: camera of the first view, OpenCV axes. Units: metres.

    Args:
        samples (`list[SceneSample]`): of task "reconstruction".
        texts (`list[str]`): their answers.
        seed (`int`): of the bootstrap over scenes.
    Returns:
        `tuple[dict, list[dict]]`: `parse_rate`, `point_error_m` (median), `near_share` (within `NEAR_M`) and
        `label_accuracy`, each with its interval under the name + "_ci95"; records.
    """
    records = [_record(sample, text) for sample, text in zip(samples, texts, strict=True)]
    scenes = [str(sample.scene_id) for sample in samples]
    errors = np.array([record["error_m"] for record in records])

    def rate(name, hits):
        return with_interval(name, np.asarray(hits, dtype=float), np.mean, scenes, seed)

    metrics = rate("parse_rate", [record["rejected"] is None for record in records])
    metrics |= with_interval("point_error_m", errors, np.median, scenes, seed)
    metrics |= rate("near_share", errors <= NEAR_M)
    metrics |= rate("label_accuracy", [record["is_right_label"] for record in records])
    return metrics, records


def score_clouds(samples, texts, seed: int = 0):
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


def _record(sample, text):
    parsed = parse_points(text)
    answer, point = parsed.first, sample.points[0]
    truth = sample.point_in_view(point)
    error = float("inf") if answer is None else float(np.linalg.norm(np.asarray(answer.point) - truth))
    return {
        "parsed": None if answer is None else {"label": answer.label, "pointmap": list(answer.point)},
        "rejected": why_rejected(parsed),
        "score": -error,
        "category": point.label,
        "error_m": error,
        "is_right_label": answer is not None and answer.label == point.label,
    }


def why_rejected(parsed) -> str | None:
    """Why an answer holds nothing that could be scored; None if it does."""
    if parsed.items:
        return None
    if parsed.rejected:
        return parsed.rejected[0].reason
    return "cut off" if parsed.truncated else "no object"


def constant(samples):
    """One answer to all: the commonest label, and the median of all points."""
    points = np.array([sample.point_in_view(sample.points[0]) for sample in samples])
    label = Counter(sample.points[0].label for sample in samples).most_common(1)[0][0]
    text = format_point(label, np.median(points, axis=0))
    return lambda sample: text


__all__ = ["NEAR_M", "constant", "score", "score_clouds", "why_rejected"]
