"""Answers about marked pixels: scores with intervals, next to blind baselines.

The questions, and the loop that asks them, are in training/marked_pixel_scorer.py.

An answer that cannot be read counts as infinitely wrong and as a wrong label; none is left out.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..processing.data import SceneSample
from ..processing.scores.point_answers import NEAR_M, point_figures
from ..training.marked_pixel_scorer import (
    read_marked_pixel,
)
from .baselines import BlindBaselines
from .intervals import with_interval


def score_marked_pixels(
    texts: Sequence[str],
    samples: Sequence[SceneSample],
    baselines: BlindBaselines | None = None,
    seed: int = 0,
) -> tuple[dict, list[dict]]:
    """Score answers, next to blind baselines.

    Frame: camera of the first view, OpenCV axes. Units: metres. Every number comes with a bootstrap interval over
    scenes, `[low, high]` under its name + "_ci95".

    Args:
        texts (`list[str]`): generated answers, whatever they hold.
        samples (`list[SceneSample]`): their questions.
        baselines (`BlindBaselines`, *optional*): answer the same questions; fitted on other rooms.
        seed (`int`, defaults to 0): seed of the bootstrap.
    Returns:
        `tuple[dict, list[dict]]`: the metrics: `n`, `num_scenes`, `parse_rate`, `point_error_m` (median; infinite
        where an answer could not be read), `near_share` (within `NEAR_M`), `label_accuracy`; for the baselines
        `constant_point_error_m`, `constant_near_share`, `pixel_prior_point_error_m`, `pixel_prior_near_share`,
        `majority_label_accuracy` and `pixel_prior_label_accuracy`, and `point_error_ratio`, the median error over
        that of the pixel prior. And a record for each answer: scene_id, text,
        view, pixel, true and answered label and point, error_m, and why it was rejected (None if it was not).
    Raises:
        ValueError: if there are no answers, not as many as questions, a question is of another task, or a room was
            used to fit the baselines.

    Example:
        ```python
        >>> from gap_mllm.evaluation import make_marked_pixel_samples, render_split, score_marked_pixels
        >>> samples = make_marked_pixel_samples(render_split("test", 2))
        >>> metrics, records = score_marked_pixels([sample.answer for sample in samples], samples)
        >>> metrics["label_accuracy"], records[0]["rejected"]
        (1.0, None)

        ```
    """
    if not len(texts) or len(texts) != len(samples):
        raise ValueError(f"{len(texts)} answers came for {len(samples)} questions; expected one each, at least one.")
    for sample in samples:
        if sample.question_type != "reconstruction":
            raise ValueError(f"{sample.id}: a question of the type {sample.question_type!r} marks no pixel.")
    answers = [read_marked_pixel(sample, text) for text, sample in zip(texts, samples, strict=True)]
    scenes = np.array([sample.scene_id for sample in samples])
    points = np.array([sample.truth.items[0].numbers for sample in samples])
    labels = np.array([sample.truth.items[0].label for sample in samples], dtype=object)

    def rate(name: str, hits: ArrayLike):
        return with_interval(name, np.asarray(hits, dtype=float), np.mean, scenes, seed)

    def distance(prefix: str, values: ArrayLike):
        median = with_interval(f"{prefix}point_error_m", values, np.median, scenes, seed)
        return median | rate(f"{prefix}near_share", values <= NEAR_M)

    metrics = {"n": len(texts), "num_scenes": len(set(scenes.tolist()))}
    for name, (values, statistic) in point_figures(answers).items():
        metrics |= with_interval(name, values, statistic, scenes, seed)
    if baselines is not None:
        seen = sorted(baselines.scene_ids & set(scenes.tolist()))
        if seen:
            raise ValueError(f"rooms {seen[:5]} were used to fit the baselines; score other rooms.")
        marks = [sample.marks[0] for sample in samples]
        guesses, guessed_labels = _ask_blindly(baselines, samples, marks)
        priors = np.linalg.norm(points - guesses, axis=-1)
        metrics |= distance("constant_", np.linalg.norm(points - baselines.constant_point, axis=-1))
        metrics |= distance("pixel_prior_", priors)
        errors = np.array([answer.error_m for answer in answers])

        def ratio(places: np.ndarray):
            places = places.astype(int)
            return np.median(errors[places]) / np.median(priors[places])

        metrics |= with_interval("point_error_ratio", np.arange(len(errors)), ratio, scenes, seed)
        metrics |= rate("majority_label_accuracy", labels == baselines.majority_label)
        metrics |= rate("pixel_prior_label_accuracy", labels == guessed_labels)
        metrics["num_baseline_scenes"] = len(baselines.scene_ids)
    return metrics, [_record(*row) for row in zip(texts, samples, answers, strict=True)]


def _record(text, sample, answer):
    mark, (truth,) = sample.marks[0], sample.truth.items
    return {
        "scene_id": sample.scene_id,
        "view": mark.view,
        "pixel": list(mark.xy),
        "text": text,
        "label": truth.label,
        "point": list(truth.numbers),
        "answered_label": answer.label,
        "answered_point": None if answer.point is None else list(answer.point),
        "rejected": answer.rejected,
        "error_m": answer.error_m,
    }


def _ask_blindly(baselines, samples, marks):
    points, labels = [], []
    for sample, mark in zip(samples, marks, strict=True):
        size = sample.views[mark.view].size
        points.append(baselines.points_at([mark.view], [mark.xy], size)[0])
        labels.append(baselines.labels_at([mark.xy], size)[0])
    return np.array(points), np.array(labels, dtype=object)
