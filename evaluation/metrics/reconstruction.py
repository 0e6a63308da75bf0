"""Reconstruction in text answers: how far the points of a scene are from the true ones, as answered and aligned.

Source: GAP-MLLM's evaluator (arXiv:2603.16461). Errors of marked pixels one by one, with labels and blind baselines,
are in evaluation/marked_pixel.py.
"""

import warnings
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from transformers.utils import logging

from ...processing.answers_gap_mllm import parse_points
from ...processing.camera_geometry_gap_mllm import fit_similarity
from ...processing.scores.reference_checks import (
    as_text,
    check_equal_lengths,
    is_number,
    is_whole_number,
    naming,
    shorten,
    true_array,
    true_numbers,
)
from .records import mean_or_nan


logger = logging.get_logger(__name__)

POINT_SCORE_REACH_M = 1.0


def point_cloud_errors(predictions: ArrayLike, truths: ArrayLike) -> dict:
    """Return accuracy, completion and their mean, which is the Chamfer distance of two clouds.

    Frame: any, the same for both. Units: metres.

    Args:
        predictions (array-like of shape `(N, 3)`), truths (array-like of shape `(M, 3)`)
    Returns:
        `dict`: "acc" (mean distance from predictions to the nearest truth), "comp" (from truths to the nearest
        prediction), "overall", "acc_median", "comp_median".
    Raises:
        ValueError: if a shape does not fit, there are no points, or one is not finite.
        ImportError: if scipy is not installed.

    Example:
        ```python
        >>> from gap_mllm.evaluation import point_cloud_errors
        >>> point_cloud_errors([[0, 0, 1]], [[0, 0, 2]])["overall"]
        1.0

        ```
    """
    try:
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise ImportError("Distances of clouds need scipy: pip install gap-mllm[eval].") from error
    predictions, truths = (_points(name, array) for name, array in (("predictions", predictions), ("truths", truths)))
    to_truth, to_prediction = cKDTree(truths).query(predictions)[0], cKDTree(predictions).query(truths)[0]
    acc, comp = float(to_truth.mean()), float(to_prediction.mean())
    medians = {"acc_median": float(np.median(to_truth)), "comp_median": float(np.median(to_prediction))}
    return {"acc": acc, "comp": comp, "overall": (acc + comp) / 2, **medians}


def align_points(predictions: ArrayLike, truths: ArrayLike) -> np.ndarray | None:
    """Move, turn and scale predictions so that the squared distances to their truths are least.

    Frame: from that of the predictions to that of the truths. Units: metres.
    Source: Umeyama (1991), see `fit_similarity`. Where the rotation is open, as for points on a line, one of the best
    is taken; distances do not depend on which as long as the truths lie on a line too.

    Args:
        predictions (array-like of shape `(N, 3)`), truths (same): pair by pair.
    Returns:
        `numpy.ndarray` of shape `(N, 3)`, float64, or None where the scale is undefined: one point, or all the same.
    Raises:
        ValueError: if a shape does not fit, there are no points, or one is not finite.

    Example:
        ```python
        >>> from gap_mllm.evaluation import align_points
        >>> points = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
        >>> align_points(points, [[2 * value for value in point] for point in points]).round(6).max()
        np.float64(2.0)

        ```
    """
    source, target = _points("predictions", predictions), _points("truths", truths)
    check_equal_lengths(predictions=source, truths=target)
    if not np.ptp(source, axis=0).any():
        return None
    try:
        scale, rotation, translation = fit_similarity(source, target)
    except ValueError:  # finite pairs of equal shape: the rotation is open
        scale, rotation, translation = _fit_open_similarity(source, target)
    return scale * source @ rotation.T + translation


def reconstruction_scene(
    predictions: ArrayLike, truths: ArrayLike, num_unparsed: int = 0, penalty_m: float | None = None
) -> dict:
    """Score the points of one scene.

    Frame: camera of the first view, the same for all points. Units: metres. Points are rounded to float32 before and
    after alignment, as published.

    Args:
        predictions (array-like of shape `(N, 3)`), truths (same): points of the answers that could be read.
        num_unparsed (`int`, defaults to 0): answers that could not.
        penalty_m (`float`, *optional*): the distance that each of these adds to "acc" and "comp", and the aligned
            errors where alignment is undefined. Without it they are left out, as published.
    Returns:
        `dict`: "raw" and "aligned", each of `point_cloud_errors` or None where undefined; "mean_point_error" (NaN
        without points) and "mean_point_score", max(0, 1 - error / 1 m), 0 for each unparsed answer; "n",
        "num_unparsed".
    Raises:
        ValueError: if a shape does not fit or a number is not finite.

    Example:
        ```python
        >>> from gap_mllm.evaluation import reconstruction_scene
        >>> reconstruction_scene([[0, 0, 1], [1, 0, 1]], [[0, 0, 1], [1, 0, 1]])["mean_point_score"]
        1.0

        ```
    """
    predictions, truths = (np.asarray(array, dtype=np.float32).reshape(-1, 3) for array in (predictions, truths))
    check_equal_lengths(predictions=predictions, truths=truths)
    raw = aligned = None
    distances = np.zeros(0)
    if len(predictions):
        raw = point_cloud_errors(predictions, truths)
        moved = align_points(predictions, truths)
        aligned = None if moved is None else point_cloud_errors(moved.astype(np.float32), truths)
        distances = np.linalg.norm(predictions.astype(np.float64) - truths, axis=-1)
    if penalty_m is not None:
        raw, aligned = (_penalised(errors, len(predictions), num_unparsed, penalty_m) for errors in (raw, aligned))
    scores = np.maximum(0, 1 - distances / POINT_SCORE_REACH_M)
    failed = [0.0] * num_unparsed
    return {
        "raw": raw,
        "aligned": aligned,
        "mean_point_error": mean_or_nan([*distances, *([] if penalty_m is None else [penalty_m] * num_unparsed)]),
        "mean_point_score": mean_or_nan([*scores, *failed]),
        "n": len(predictions) + num_unparsed,
        "num_unparsed": num_unparsed,
    }


def reconstruction_score(
    predictions: Sequence[str],
    points: ArrayLike,
    scene_ids: Sequence,
    penalty_m: float | None = None,
    first_views: Sequence | None = None,
) -> dict:
    """Score answers about marked pixels by scene, and average over scenes.

    Frame: camera of the first view of each question. Units: metres.
    Differs: the published evaluator drops unreadable answers unseen; they are counted here, and `penalty_m` charges
    them. It stops with an error at a scene whose alignment is undefined, which is left out and named here.

    Args:
        predictions (list of `str`): the model's texts; the first point of each counts. What is no text, as None, is
            unparsed.
        points (array-like of shape `(N, 3)`): true points.
        scene_ids (sequence of `str` or `int`): points of one scene are one cloud.
        penalty_m (`float`, *optional*): see `reconstruction_scene`.
        first_views (sequence, *optional*): what names the first view of each question. Points with different first
            views are in different frames; scenes that mix them, as the published file does, are named.
    Returns:
        `dict`: "acc_metric", "comp_metric", "overall_metric" (as answered), "acc_align", "comp_align",
        "overall_align" (after alignment): means over the scenes in which alignment is defined; "overall_metric_all":
        over all scenes with a point; "mean_point_error", "mean_point_score", "coverage" (share of answers read), over
        questions; "n", "num_unparsed", "num_scenes", "scenes_without_alignment", "scenes_without_points",
        "scenes_of_mixed_frames"; "per_scene".
    Raises:
        ValueError: if lengths differ, a true point is not three finite numbers, a scene has no id, or the penalty is
            not a finite number of at least 0.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"point": [0, 0, 2], "scene_id": "a"}]
        >>> answers = ['{"pointmap": [0, 0, 2.5]}']
        >>> load_metric("reconstruction").compute(predictions=answers, references=references)["mean_point_error"]
        0.5

        ```
    """
    read = [read_point(text) for text in predictions]
    return score_answered_points(read, points, scene_ids, penalty_m, first_views)


def score_answered_points(
    answers: Sequence,
    points: ArrayLike,
    scene_ids: Sequence,
    penalty_m: float | None = None,
    first_views: Sequence | None = None,
) -> dict:
    """Score points that were read already; arguments, result and errors as `reconstruction_score`.

    Args:
        answers (sequence of three floats or None): what `read_point` or `within_float32` gave.
        points, scene_ids, penalty_m, first_views: arguments of `reconstruction_score`.
    Returns:
        `dict`: as `reconstruction_score`.
    """
    check_equal_lengths(predictions=answers, points=points, scene_ids=scene_ids)
    if penalty_m is not None and not (is_number(penalty_m) and 0 <= penalty_m < np.inf):
        raise ValueError(f"penalty_m is {penalty_m!r}; expected metres, 0 or more.")
    truths = []
    for index, (point, scene) in enumerate(zip(points, scene_ids, strict=True)):
        with naming("question", index):
            truths.append(true_numbers(point, "the true point", 3))
            if not isinstance(scene, str) and not is_whole_number(scene):
                raise ValueError(f"scene_id is {shorten(scene)}; expected a text or a number.")
    clouds, unparsed = defaultdict(lambda: ([], [])), defaultdict(int)
    for point, truth, scene in zip(answers, truths, scene_ids, strict=True):
        if point is None:
            unparsed[scene] += 1
        else:
            clouds[scene][0].append(point)
            clouds[scene][1].append(truth)
    scenes = {
        scene: reconstruction_scene(*clouds[scene], unparsed[scene], penalty_m) for scene in dict.fromkeys(scene_ids)
    }
    with_points = {scene: result for scene, result in scenes.items() if result["raw"] is not None}
    used = [result for result in with_points.values() if result["aligned"] is not None]
    means = {
        f"{name}_{suffix}": mean_or_nan(result[kind][name] for result in used)
        for kind, suffix in (("raw", "metric"), ("aligned", "align"))
        for name in ("acc", "comp", "overall")
    }
    mixed = _scenes_of_mixed_frames(scene_ids, first_views)
    num_unparsed = sum(unparsed.values())
    return {
        **means,
        "overall_metric_all": mean_or_nan(result["raw"]["overall"] for result in with_points.values()),
        **_over_questions(scenes, penalty_m),
        "coverage": 1 - num_unparsed / len(answers) if len(answers) else float("nan"),
        "n": len(answers),
        "num_unparsed": num_unparsed,
        "num_scenes": len(scenes),
        "scenes_without_alignment": [scene for scene, result in with_points.items() if result["aligned"] is None],
        "scenes_without_points": [scene for scene in scenes if scene not in with_points],
        "scenes_of_mixed_frames": mixed,
        "per_scene": scenes,
    }


def read_point(text: str) -> tuple[float, float, float] | None:
    """The first point of an answer, None where there is none that float32 can hold, or the answer is no text."""
    first = None if as_text(text) is None else parse_points(text).first
    return within_float32(None if first is None else first.point)


def within_float32(point: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
    """The point itself, None where float32 cannot hold it or there is none."""
    with np.errstate(over="ignore"):
        return point if point is not None and np.isfinite(np.float32(point)).all() else None


def _over_questions(scenes, penalty_m):
    results = list(scenes.values())
    counts = [result["n"] - (result["num_unparsed"] if penalty_m is None else 0) for result in results]
    errors = [count * result["mean_point_error"] for count, result in zip(counts, results, strict=True) if count]
    total, num_questions = sum(counts), sum(result["n"] for result in results)
    scores = [result["n"] * result["mean_point_score"] for result in results]
    return {
        "mean_point_error": sum(errors) / total if total else float("nan"),
        "mean_point_score": sum(scores) / num_questions if num_questions else float("nan"),
    }


def _scenes_of_mixed_frames(scene_ids, first_views):
    if first_views is None:
        return []
    check_equal_lengths(scene_ids=scene_ids, first_views=first_views)
    seen = defaultdict(set)
    for scene, view in zip(scene_ids, first_views, strict=True):
        seen[scene].add(view)
    mixed = [scene for scene, views in seen.items() if len(views) > 1]
    if mixed:
        logger.warning(
            "%d scenes pool points of different first views, which are in different frames; give each pair of scene "
            "and first view a scene_id of its own to keep them apart.",
            len(mixed),
        )
    return mixed


def _penalised(errors, num_points, num_unparsed, penalty_m):
    """The errors with `num_unparsed` more distances of `penalty_m`; medians stay those of the points."""
    if errors is None:
        return dict.fromkeys(("acc", "comp", "overall", "acc_median", "comp_median"), float(penalty_m))
    total = num_points + num_unparsed
    acc, comp = ((num_points * errors[name] + num_unparsed * penalty_m) / total for name in ("acc", "comp"))
    return {**errors, "acc": acc, "comp": comp, "overall": (acc + comp) / 2}


def _fit_open_similarity(source, target):
    """A best similarity of several that are equally good."""
    from scipy.spatial.transform import Rotation

    source_mean, target_mean = source.mean(0), target.mean(0)
    x, y = source - source_mean, target - target_mean
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the rotation is not unique
        rotation = Rotation.align_vectors(y, x)[0].as_matrix()
    scale = float((y * (x @ rotation.T)).sum() / (x**2).sum())
    return scale, rotation, target_mean - scale * rotation @ source_mean


def _points(name, array):
    array = true_array(array, name)
    if array.ndim != 2 or array.shape[1] != 3 or not len(array):
        raise ValueError(f"{name} has shape {array.shape}; expected (points, 3) with one point or more.")
    is_finite = np.isfinite(array).all(-1)
    if not is_finite.all():
        place = int(np.argmin(is_finite))
        raise ValueError(f"{name}[{place}] is {array[place].tolist()}; expected three finite numbers.")
    return array
