"""VSI-Bench: multiple choice by letter, numbers by mean relative accuracy, and the mean over its eight tasks.

Source: thinking-in-space (arXiv:2412.14171), whose evaluator is mode "strict"; the rules of lmms-eval and Spatial-MLLM
are modes of their own, since published numbers follow them.
"""

import math
import re
from collections import defaultdict

import numpy as np

from ...processing.answers_gap_mllm import parse_choice
from .numbers import first_number, last_answer_tag, mean_relative_accuracy


DIRECTION_LEVELS = tuple(f"object_rel_direction_{level}" for level in ("easy", "medium", "hard"))
CHOICE_TYPES = (*DIRECTION_LEVELS, "object_rel_distance", "route_planning", "obj_appearance_order")
NUMBER_TYPES = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")
TASKS = (*NUMBER_TYPES, "object_rel_distance", "object_rel_direction", "route_planning", "obj_appearance_order")
MODES = ("strict", "lenient", "lmms_eval", "spatial_mllm")


def vsibench_score(prediction: str, answer: str, question_type: str, mode: str = "strict") -> float:
    """Score one answer.

    Args:
        prediction (`str`): the model's text.
        answer (`str`): the letter, or the number as text.
        question_type (`str`): one of `CHOICE_TYPES` or `NUMBER_TYPES`.
        mode (`str`): "strict", the official rule: what stands before the first space must be the answer. "lenient":
            the answer is looked for in the whole text (tags, brackets, sentences, number words, thousands).
            "lmms_eval" and "spatial_mllm": the rules of these evaluators.
    Returns:
        `float`: 0 or 1 for a choice, mean relative accuracy for a number. `Differs:` for a true value of 0, where the
        published code divides by zero, only 0 itself is right.
    Raises:
        ValueError: on an unknown type or mode, or an answer that is no letter or finite number.
    """
    _check(question_type, mode)
    if question_type in CHOICE_TYPES:
        return float(_choice(prediction, mode).lower() == answer.strip().lower() != "")
    target = _target(answer, question_type)
    if "," in answer and mode in ("strict", "lmms_eval"):
        return 0.0  # these evaluators cannot read a target with thousands separated
    number = _number(prediction, mode)
    if mode == "spatial_mllm":
        return _spatial_mllm_accuracy(number, target)
    return mean_relative_accuracy(number, target)


def vsibench_is_unparsed(prediction: str, question_type: str, mode: str = "strict") -> bool:
    """Whether an answer holds no single letter, or no finite number, where the rule looks for it; it scores 0.

    Args:
        prediction (`str`), question_type (`str`), mode (`str`): as for `vsibench_score`.
    Returns:
        `bool`.
    Raises:
        ValueError: on an unknown type or mode.
    """
    _check(question_type, mode)
    if question_type in CHOICE_TYPES:
        return re.fullmatch("[A-Za-z]", _choice(prediction, mode)) is None
    number = _number(prediction, mode)
    return number is None or not math.isfinite(number)


def vsibench_aggregate(scores, question_types) -> dict:
    """Average scores as the benchmark does: per task, the three levels of direction first among themselves.

    Args:
        scores (sequence of `float`), question_types (sequence of `str`): one each for every question; types outside
            the ten are left out of all averages and counted.
    Returns:
        `dict`: "overall" (mean over the tasks that are there, NaN for none), each task's mean under its name, "n",
        "num_other_types", and "missing", the tasks and direction levels without a question: with any, the overall is
        not that of the benchmark (the official code fails, or averages fewer tasks without a word).
    Raises:
        ValueError: if the two differ in length.
    """
    if len(scores) != len(question_types):
        raise ValueError(f"{len(scores)} scores came with {len(question_types)} question types.")
    by_type = defaultdict(list)
    for score, kind in zip(scores, question_types, strict=True):
        by_type[kind].append(float(score))
    means = {kind: float(np.mean(values)) for kind, values in by_type.items()}
    levels = [means[level] for level in DIRECTION_LEVELS if level in means]
    if levels:
        means["object_rel_direction"] = float(np.mean(levels))
    tasks = {task: means[task] for task in TASKS if task in means}
    known = CHOICE_TYPES + NUMBER_TYPES
    return {
        "overall": float(np.mean(list(tasks.values()))) if tasks else float("nan"),
        **tasks,
        "n": len(scores),
        "num_other_types": sum(len(values) for kind, values in by_type.items() if kind not in known),
        "missing": [kind for kind in known if kind not in means],
    }


def _check(question_type, mode):
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; known are {', '.join(MODES)}.")
    if question_type not in CHOICE_TYPES + NUMBER_TYPES:
        known = ", ".join(CHOICE_TYPES + NUMBER_TYPES)
        raise ValueError(f"unknown question type {question_type!r}; known are {known}.")


def _target(answer, question_type):
    try:
        target = float(answer.replace(",", ""))
    except ValueError:
        target = math.nan
    if not math.isfinite(target):
        raise ValueError(f"the answer of a {question_type} question is {answer!r}; expected a finite number.")
    return target


def _choice(text, mode):
    if mode == "lenient":
        word = _first_word(text)
        return word if len(word) == 1 else parse_choice(text).first or ""
    return _clean(text) if mode == "spatial_mllm" else _first_word(text)


def _number(text, mode):
    if mode == "lenient":
        return first_number(last_answer_tag(text), thousands=True)
    if mode == "lmms_eval":
        return first_number(text)
    try:
        return float(_clean(text).replace(",", "") if mode == "spatial_mllm" else _first_word(text))
    except ValueError:
        return None


def _first_word(text):
    """The official extraction: a leading space leaves nothing, and a full stop before a line end stays."""
    return text.split(" ")[0].rstrip(".").strip()


def _clean(text):
    """Spatial-MLLM's extraction: the last answer tag or everything, one line, no final stops, lower case."""
    return re.sub(r"\s+", " ", last_answer_tag(text)).strip().rstrip(".").lower()


def _spatial_mllm_accuracy(number, target):
    """Spatial-MLLM's variant: strictly below the threshold, in float32."""
    if number is None or not math.isfinite(number):
        return 0.0
    thresholds = np.linspace(0.5, 0.95, 10, dtype=np.float32)
    error = np.float32(abs(np.float32(number) - np.float32(target))) / np.float32(abs(target) + 1e-8)
    return float(np.mean(error < 1 - thresholds))


__all__ = [
    "CHOICE_TYPES",
    "MODES",
    "NUMBER_TYPES",
    "TASKS",
    "vsibench_aggregate",
    "vsibench_is_unparsed",
    "vsibench_score",
]
