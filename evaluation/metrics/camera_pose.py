"""Camera poses: errors of relative rotation and direction of translation over pairs of views, and area under curve.

Neither the world nor its scale matters: only relative poses of two cameras are compared.
Source: VGGT's evaluation (arXiv:2503.11651), which mode "reference" follows.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from ...processing.camera_geometry_gap_mllm import check_rigid, invert_rigid, is_rigid
from ...processing.scores.box_overlaps import check_mode
from ...processing.scores.reference_checks import as_array, check_equal_lengths, is_number, map_named, true_array
from .records import mean_or_nan


AUC_THRESHOLDS_DEG = (3, 5, 15, 30)
ACCURACY_THRESHOLDS_DEG = (5, 15, 30)
_WORST_DEG = 180.0
_LARGEST_NUMBER = 1e50  # lengths stay within float64
_MIN_BASELINE = 1e-6  # of the longest baseline of the scene


def relative_pose_errors(camera_to_world: ArrayLike, true_camera_to_world: ArrayLike, mode: str = "corrected") -> dict:
    """Return the angles by which the relative poses of all pairs of views are wrong.

    Frame: each set of poses in a world of its own, OpenCV cameras. Units: degrees; translations have any scale.
    Differs: mode "reference" takes opposite directions of translation for equal, as published, and sets a direction
    that is undefined 90 degrees off. In mode "corrected" directions are told apart up to 180 degrees; pairs whose true
    cameras are in one place have no direction and are judged by rotation; a predicted pair in one place is 180 off.

    Args:
        camera_to_world (array-like of shape `(V, 4, 4)`): predicted poses. One that is not rigid or not finite is 180
            degrees off in every pair; so are all where there are none (None, or what holds no numbers).
        true_camera_to_world (same)
        mode (`str`, defaults to "corrected"): "corrected" or "reference".
    Returns:
        `dict` of `numpy.ndarray` of shape `(V (V - 1) / 2,)`, pairs (0, 1), (0, 2), ...: "rotation_deg",
        "translation_deg" (NaN where the true direction is undefined, in mode "corrected"); and "num_invalid" poses.
    Raises:
        ValueError: if shapes differ or are not (V, 4, 4) with two views or more, a true pose is not rigid, or the mode
            is another one.

    Example:
        ```python
        >>> from gap_mllm.evaluation import relative_pose_errors
        >>> views = [[[1, 0, 0, x], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]] for x in (0, 1)]
        >>> relative_pose_errors(views, views)["rotation_deg"].tolist()
        [0.0]

        ```
    """
    check_mode(mode)
    guess, true = as_array(camera_to_world), true_array(true_camera_to_world, "true_camera_to_world")
    if guess is None or not guess.ndim or not guess.size:
        guess = np.full(true.shape, np.nan)
    if guess.shape != true.shape or true.ndim != 3 or true.shape[1:] != (4, 4) or len(true) < 2:
        raise ValueError(
            f"camera_to_world has shape {guess.shape} and the truth {true.shape}; expected the same (views, 4, 4), "
            "two views or more."
        )
    check_rigid(true, "true_camera_to_world")
    is_valid = (np.abs(guess) <= _LARGEST_NUMBER).all((-2, -1))
    is_valid &= np.asarray(is_rigid(np.where(is_valid[:, None, None], guess, np.eye(4))))
    guess = np.where(is_valid[:, None, None], guess, np.eye(4))
    first, second = (np.array(side) for side in zip(*combinations(range(len(true)), 2), strict=True))
    relative, truth = (invert_rigid(poses[first]) @ poses[second] for poses in (guess, true))
    rotation = rotation_angles(relative[:, :3, :3], truth[:, :3, :3])
    translation = _direction_angles(relative[:, :3, 3], truth[:, :3, 3], mode)
    is_lost = ~(is_valid[first] & is_valid[second])
    rotation[is_lost] = _WORST_DEG
    translation[is_lost & ~np.isnan(translation)] = _WORST_DEG
    return {"rotation_deg": rotation, "translation_deg": translation, "num_invalid": int((~is_valid).sum())}


def pose_auc(errors_deg: ArrayLike, threshold_deg: float, mode: str = "corrected") -> float:
    """Return the area under the curve of the share of errors up to an angle, over the angles from 0 to a threshold.

    Source: mode "reference" counts in bins of one degree, as VGGT: an error of 0.9 scores like one of 0. Mode
    "corrected" takes the exact area, the mean of max(0, 1 - error / threshold).

    Args:
        errors_deg (sequence of `float`): 0 or more.
        threshold_deg (`float`): whole degrees in mode "reference".
        mode (`str`, defaults to "corrected"): "corrected" or "reference".
    Returns:
        `float` in 0..1, NaN without errors.
    Raises:
        ValueError: if the threshold is not positive (or not whole), an error is negative or NaN, or on another mode.

    Example:
        ```python
        >>> from gap_mllm.evaluation import pose_auc
        >>> pose_auc([0.0, 15.0], 30)
        0.75

        ```
    """
    check_mode(mode)
    errors = np.asarray(errors_deg, dtype=np.float64)
    is_positive = is_number(threshold_deg) and 0 < threshold_deg < np.inf
    if not is_positive or (mode == "reference" and threshold_deg != int(threshold_deg)):
        raise ValueError(f"threshold_deg is {threshold_deg!r}; expected a positive number, whole in mode 'reference'.")
    if not (errors >= 0).all():
        raise ValueError("errors_deg holds NaN or a number below 0; expected angles, 180 for a failed pose.")
    if mode == "corrected":
        return mean_or_nan(np.maximum(0, 1 - errors / threshold_deg))
    if not len(errors):
        return float("nan")
    counts = np.histogram(errors, bins=np.arange(int(threshold_deg) + 1))[0]
    return float(np.mean(np.cumsum(counts / len(errors))))


def camera_pose_score(predictions: Sequence, truths: Sequence, mode: str = "corrected") -> dict:
    """Score the poses of scenes; the pairs of all scenes are pooled. A pair's error is the larger of its two angles.

    Args:
        predictions, truths (lists of array-likes of shape `(V, 4, 4)`): camera_to_world of each scene.
        mode (`str`, defaults to "corrected"): mode of `relative_pose_errors` and `pose_auc`.
    Returns:
        `dict`: "auc3", "auc5", "auc15", "auc30"; "rotation_acc5" and so on, "translation_acc5" and so on, the shares
        of pairs below 5, 15 and 30 degrees; "rotation_median_deg", "translation_median_deg"; "n" scenes, "num_pairs",
        "num_without_direction" pairs, "num_invalid" predicted poses.
    Raises:
        ValueError: if lengths differ, and as `relative_pose_errors`, with the number of the scene.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> views = [[[1, 0, 0, x], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]] for x in (0, 1)]
        >>> load_metric("camera_pose").compute(predictions=[views], references=[views])["auc30"]
        1.0

        ```
    """
    check_mode(mode)
    check_equal_lengths(predictions=predictions, truths=truths)
    scenes = map_named("scene", lambda *pair: relative_pose_errors(*pair, mode), predictions, truths)
    rotation, translation = (
        np.concatenate([np.zeros(0), *(scene[name] for scene in scenes)])
        for name in ("rotation_deg", "translation_deg")
    )
    directed = translation[~np.isnan(translation)]
    errors = np.fmax(rotation, translation)
    result = {f"auc{threshold}": pose_auc(errors, threshold, mode) for threshold in AUC_THRESHOLDS_DEG}
    for name, values in (("rotation", rotation), ("translation", directed)):
        result |= {f"{name}_acc{level}": mean_or_nan(values < level) for level in ACCURACY_THRESHOLDS_DEG}
        result[f"{name}_median_deg"] = float(np.median(values)) if len(values) else float("nan")
    return {
        **result,
        "n": len(scenes),
        "num_pairs": len(rotation),
        "num_without_direction": len(translation) - len(directed),
        "num_invalid": sum(scene["num_invalid"] for scene in scenes),
    }


def rotation_angles(rotations: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Return the angle in degrees between rotations and true ones, both of shape `(..., 3, 3)`.

    By |R - S| = 2 sqrt(2) sin(angle / 2), which is exact near 0, where the arc cosine of the trace is not.
    """
    half_sine = np.sqrt(((rotations - truths) ** 2).sum((-2, -1)) / 8)
    return np.rad2deg(2 * np.arcsin(np.clip(half_sine, 0, 1)))


def _direction_angles(vectors, truths, mode):
    lengths, true_lengths = np.linalg.norm(vectors, axis=-1), np.linalg.norm(truths, axis=-1)
    cross = np.linalg.norm(np.cross(vectors, truths), axis=-1)
    angles = np.rad2deg(np.arctan2(cross, (vectors * truths).sum(-1)))
    is_open, is_open_in_truth = (values <= _MIN_BASELINE * values.max(initial=0) for values in (lengths, true_lengths))
    if mode == "reference":
        return np.where(is_open | is_open_in_truth, 90.0, np.minimum(angles, 180 - angles))
    return np.where(is_open_in_truth, np.nan, np.where(is_open, _WORST_DEG, angles))
