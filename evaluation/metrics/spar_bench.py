"""SPAR-Bench: 20 spatial tasks by letter, number or camera motion, averaged over tasks and three levels.

Source: SPAR (arXiv:2503.22976), whose evaluator is mode "reference".
"""

import math
import re
from collections.abc import Sequence

import numpy as np

from ...processing.answers_gap_mllm import last_answer_tag
from ...processing.scores.letters import extract_choice
from ...processing.scores.number_answers import RELATIVE_THRESHOLDS, first_number, mean_relative_accuracy, numbers_in
from ...processing.scores.reference_checks import as_text, check_choice
from .records import mean_or_nan, means_by_group, score_each


MODES = ("corrected", "reference")
NUMBER_TASKS = (
    "depth_prediction_oc",
    "depth_prediction_oo",
    "distance_prediction_oc",
    "distance_prediction_oo",
    "depth_prediction_oc_mv",
    "depth_prediction_oo_mv",
    "distance_prediction_oo_mv",
    "distance_prediction_oc_mv",
)
VIEW_CHANGE_TASK = "view_change_infer"
HIGH_TASKS = (
    "obj_spatial_relation_oo",
    "obj_spatial_relation_oc_mv",
    "obj_spatial_relation_oo_mv",
    "spatial_imagination_oc",
    "spatial_imagination_oo",
    "spatial_imagination_oc_mv",
    "spatial_imagination_oo_mv",
    "distance_infer_center_oo",
    "distance_infer_center_oo_mv",
)
CHOICE_TASKS = (*HIGH_TASKS, "position_matching", "camera_motion_infer")
LEVELS = {
    "low": NUMBER_TASKS,
    "middle": (VIEW_CHANGE_TASK, "position_matching", "camera_motion_infer"),
    "high": HIGH_TASKS,
}
TASKS = tuple(task for tasks in LEVELS.values() for task in tasks)
LETTERS = "ABCDEF"
_AXES = (  # positive and negative direction of each
    ("move_right", "move_left"),
    ("move_up", "move_down"),
    ("move_forward", "move_backward"),
    ("rotate_right", "rotate_left"),
    ("rotate_up", "rotate_down"),
)
_PUBLISHED_NUMBER = re.compile(r"(?<!\^)\d+(?:\.\d+)?")
_DIRECTION = re.compile(
    rf"\b({'|'.join(name for axis in _AXES for name in axis)})\b\W{{0,4}}?([-+]?(?:\d+(?:\.\d+)?|\.\d+))",
    re.IGNORECASE,
)


def spar_bench_score(prediction: str, answer: str, task: str, mode: str = "corrected") -> float:
    """Score one answer.

    Args:
        prediction (`str`): the model's text; what is none, as None, scores 0.
        answer (`str`): the letter or word of `CHOICE_TASKS`, the number of `NUMBER_TASKS`, or the camera's motion as
            "move_right:0.5,rotate_up:10" for "view_change_infer".
        task (`str`): one of `TASKS`.
        mode (`str`, defaults to "corrected"): "corrected" or "reference". `Differs:` by the reference an answer is
            right if it is part of the true one, so an empty one always is, or if its first character is the true
            letter ("Apple"); numbers have no sign; errors of a motion are relative to the answer, not to the truth. In
            both, the last number counts for tasks over several views, the first for others, and errors from a true 0
            are absolute.
    Returns:
        `float` in 0..1: 0 or 1 for a choice, mean relative accuracy for a number, its mean over axes for a motion.
    Raises:
        ValueError: on an unknown task or mode, or a true answer that the task cannot have.

    Example:
        ```python
        >>> from gap_mllm.evaluation import spar_bench_score
        >>> spar_bench_score("2.5 m", "2.5", "depth_prediction_oc")
        1.0

        ```
    """
    return spar_bench_rate(spar_bench_read(prediction, answer, task, mode), answer, task, mode)


def spar_bench_read(prediction: str, answer: str, task: str, mode: str = "corrected") -> float | list | str | None:
    """Read an answer by one rule, for `spar_bench_rate`.

    Args:
        prediction (`str`), answer (`str`), task (`str`), mode (`str`, defaults to "corrected"): see
            `spar_bench_score`; the true answer says whether a letter or a word is looked for.
    Returns:
        `float`, `list[float]`, `str` or None: a finite number, the five axes of a motion, or a choice in small
        letters; None where there is none. A choice by the reference is the whole text.
    Raises:
        ValueError: as `spar_bench_score`.
    """
    _check(task, mode)
    text = as_text(prediction)
    if text is None:
        return None
    if task in NUMBER_TASKS:
        number = _read_number(text, task, mode)
        return number if number is not None and math.isfinite(number) else None
    if task == VIEW_CHANGE_TASK:
        return _read_motion(text, mode)
    truth = _true_choice(answer, task)
    return text.lower() if mode == "reference" else _read_choice(text, truth, mode) or None


def spar_bench_rate(read: float | list | str | None, answer: str, task: str, mode: str = "corrected") -> float:
    """Score what `spar_bench_read` gave; arguments and errors as `spar_bench_score`."""
    if task in NUMBER_TASKS:
        return _relative_accuracy(read, _true_number(answer, task))
    if task == VIEW_CHANGE_TASK:
        return _view_change_score(read, answer, mode)
    truth = _true_choice(answer, task).lower()
    if read is None or mode == "corrected":
        return float(read == truth)
    return float(read in truth or read[0] == truth)


def spar_bench_is_unparsed(prediction: str, answer: str, task: str, mode: str = "corrected") -> bool:
    """Whether an answer is no text, or holds nothing of the kind asked for: no letter or word, number or motion.

    Args:
        prediction (`str`), answer (`str`), task (`str`), mode (`str`, defaults to "corrected"): arguments of
            `spar_bench_score`.
    Returns:
        `bool`. Such answers score 0, but for an empty choice by the reference.
    Raises:
        ValueError: as `spar_bench_score`.

    Example:
        ```python
        >>> from gap_mllm.evaluation import spar_bench_is_unparsed
        >>> spar_bench_is_unparsed("no idea", "2.5", "depth_prediction_oc")
        True

        ```
    """
    return _is_unread(spar_bench_read(prediction, answer, task, mode), answer, task, mode)


def spar_bench_metric(
    predictions: Sequence[str], answers: Sequence[str], tasks: Sequence[str], mode: str = "corrected"
) -> dict:
    """SPAR-Bench: choices, numbers and camera motions; the mean over 20 tasks and over those of each level.

    By the published rule an empty choice is right, and so is "Apple" for A, while "(A)" is wrong; numbers have no
    sign; the error of a motion is relative to the answer; and the level "middle" loses the view change.
    Source: SPAR (arXiv:2503.22976).

    Args:
        predictions (sequence of `str`): the model's texts. What cannot be read is wrong and counted.
        answers (sequence of `str`): letters, words, numbers, or pairs as "move_right:0.5,rotate_up:10".
        tasks (sequence of `str`): one of `TASKS` for each question.
        mode (`str`, defaults to "corrected"): "corrected" (ours) or "reference" (the published evaluator).
    Returns:
        `dict`: what `spar_bench_aggregate` gives, shares in 0..1, and "num_unparsed", the answers that hold nothing of
        the kind asked for.
    Raises:
        ValueError: on another mode, differing lengths, and on a wrong reference, which is named.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"answer": "2.5", "task": "depth_prediction_oc"}]
        >>> load_metric("spar_bench").compute(predictions=["2.5 m"], references=references)["low"]
        1.0

        ```
    """
    check_choice(mode, "mode", MODES)
    questions = {"answers": answers, "tasks": tasks}
    read = score_each(lambda *row: spar_bench_read(*row, mode), predictions=predictions, **questions)
    scores = score_each(lambda *row: spar_bench_rate(*row, mode), predictions=read, **questions)
    num_unparsed = sum(_is_unread(*row, mode) for row in zip(read, answers, tasks, strict=True))
    return {**spar_bench_aggregate(scores, tasks, mode), "num_unparsed": num_unparsed}


def spar_bench_aggregate(scores: Sequence[float], tasks: Sequence[str], mode: str = "corrected") -> dict:
    """Average scores: per task, then with equal weight over tasks and over those of each level.

    Args:
        scores (sequence of `float`), tasks (sequence of `str`): one each for every question.
        mode (`str`, defaults to "corrected"): `Differs:` in "reference" the level "middle" lacks "view_change_infer",
            as the published code loses it.
    Returns:
        `dict`: "overall", "low", "middle", "high", the mean of each task that is there, "n", and "missing", the tasks
        without a question: with any, the overall is not that of the benchmark. NaN where there is no question.
    Raises:
        ValueError: on an unknown task or mode, differing lengths, or a score that is not finite.

    Example:
        ```python
        >>> from gap_mllm.evaluation import spar_bench_aggregate
        >>> spar_bench_aggregate([1.0, 0.5], ["position_matching", "depth_prediction_oc"])["overall"]
        0.75

        ```
    """
    for task in dict.fromkeys(tasks):
        _check(task, mode)
    means = means_by_group(scores, tasks)
    lost = {VIEW_CHANGE_TASK} if mode == "reference" else set()
    levels = {
        level: mean_or_nan(means[task] for task in members if task in means and task not in lost)
        for level, members in LEVELS.items()
    }
    return {
        "overall": mean_or_nan(means.values()),
        **levels,
        **{task: means[task] for task in TASKS if task in means},
        "n": len(scores),
        "missing": [task for task in TASKS if task not in means],
    }


def _check(task, mode):
    check_choice(mode, "mode", MODES)
    check_choice(task, "task", TASKS)


def _is_unread(read, answer, task, mode):
    if task in CHOICE_TASKS and mode == "reference" and read is not None:
        return not _read_choice(read, _true_choice(answer, task), mode)
    return read is None


def _true_choice(answer, task):
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError(f"the answer of a {task} question is {answer!r}; expected a letter or a word.")
    return answer.strip()


def _true_number(answer, task):
    found = numbers_in(answer) if isinstance(answer, str) else []
    if len(found) != 1 or not math.isfinite(found[0]):
        raise ValueError(f"the answer of a {task} question is {answer!r}; expected one finite number.")
    return found[0]


def _read_number(text, task, mode):
    if mode == "reference":
        found = [float(number) for number in _PUBLISHED_NUMBER.findall(text)]
    else:
        text = last_answer_tag(text)
        word = first_number(text)
        found = numbers_in(text) or ([] if word is None else [word])
    if not found:
        return None
    return found[-1] if task.endswith("_mv") else found[0]


def _read_choice(text, answer, mode):
    """The letter, where the true answer is one, or the whole answer as one word; in lower case, "" for none."""
    if re.fullmatch(f"[{LETTERS}{LETTERS.lower()}]", answer):
        return (extract_choice(text, LETTERS, "strict" if mode == "corrected" else "spar") or "").lower()
    return text if mode == "reference" else last_answer_tag(text).strip(" \t\r\n.,:;!?*`\"'()[]{}").lower()


def _relative_accuracy(number, target):
    """Mean relative accuracy; `Differs:` from VSI-Bench's in that an error from 0 is taken as it is."""
    if target == 0 and number is not None and math.isfinite(number):
        return float(np.mean(abs(number) <= 1 - RELATIVE_THRESHOLDS))
    return mean_relative_accuracy(number, target)


def _view_change_score(motion, answer, mode):
    truth = _read_motion(answer, "reference") if isinstance(answer, str) else None
    if truth is None or not all(map(math.isfinite, truth)):
        example = "'move_right:0.5,rotate_up:10'"
        raise ValueError(f"the answer of a {VIEW_CHANGE_TASK} question is {answer!r}; expected pairs as {example}.")
    if motion is None:
        return 0.0
    pairs = zip(truth, motion, strict=True) if mode == "reference" else zip(motion, truth, strict=True)
    return float(np.mean([_relative_accuracy(number, target) for number, target in pairs]))


def _read_motion(text, mode):
    """Five signed numbers, one an axis, or None; directions that are not named are 0."""
    if mode == "reference":
        pairs = [pair.split(":") for pair in text.split(",")]
        if any(len(pair) != 2 for pair in pairs):
            return None
        try:
            named = {name: float(number) for name, number in pairs}
        except ValueError:
            return None
    else:
        named = {name.lower(): float(number) for name, number in _DIRECTION.findall(last_answer_tag(text))}
        if not named:
            return None
    return [named.get(positive, 0.0) - named.get(negative, 0.0) for positive, negative in _AXES]
