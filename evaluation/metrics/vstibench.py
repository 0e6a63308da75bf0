"""VSTI-Bench: letters and numbers by the rules of VSI-Bench, averaged over types, and over the paper's five tasks.

Source: VLM-3R (arXiv:2505.20279); its evaluator's rule and average over types are "strict" and "types_overall".
"""

from collections.abc import Sequence

import numpy as np

from ...processing.data.sources.bench.vstibench_source import CHOICE_TYPES, NUMBER_TYPES
from ...processing.scores.reference_checks import check_choice, check_equal_lengths
from .records import means_by_group, score_each
from .vsibench import vsibench_rate, vsibench_read


MODES = ("strict", "lenient")
TASKS = {  # of the paper's table; camera_obj_dist_change has no column there
    "camera_obj_abs_dist": ("camera_obj_abs_dist",),
    "camera_displacement": ("camera_displacement",),
    "camera_movement_direction": ("camera_movement_direction",),
    "obj_obj_relative_pos": CHOICE_TYPES[:3],
    "camera_obj_rel_dist": CHOICE_TYPES[3:6],
}


def vstibench_read(prediction: str, question_type: str, mode: str = "strict") -> str | float | None:
    """Read an answer as `vsibench_read` reads one of its kind, letter or number.

    Args:
        prediction (`str`): the model's text.
        question_type (`str`): one of `CHOICE_TYPES` or `NUMBER_TYPES`.
        mode (`str`, defaults to "strict"): "strict", the published rule, or "lenient".
    Returns:
        `str`, `float` or None.
    Raises:
        ValueError: on an unknown type or mode.

    Example:
        ```python
        >>> from gap_mllm.evaluation import vstibench_read
        >>> vstibench_read("2.5 m", "camera_displacement"), vstibench_read("B.", "camera_movement_direction")
        (2.5, 'b')

        ```
    """
    check_choice(mode, "mode", MODES)
    return vsibench_read(prediction, _like(question_type), mode)


def vstibench_rate(read: str | float | None, answer: str, question_type: str, mode: str = "strict") -> float:
    """Score what `vstibench_read` gave: 0 or 1 for a letter, mean relative accuracy for a number.

    Args:
        read (`str`, `float` or None): reading.
        answer (`str`): true letter or number, as text.
        question_type (`str`), mode (`str`, defaults to "strict"): arguments of `vstibench_read`.
    Returns:
        `float` in 0..1.
    Raises:
        ValueError: on an unknown type, or a true answer that is no letter or finite number.

    Example:
        ```python
        >>> from gap_mllm.evaluation import vstibench_rate
        >>> vstibench_rate(2.5, "2.0", "camera_displacement")
        0.6

        ```
    """
    return vsibench_rate(read, answer, _like(question_type), mode)


def vstibench_aggregate(scores: Sequence[float], question_types: Sequence[str]) -> dict:
    """Average scores: of each type, over the types, and over the five tasks of the paper's table.

    Args:
        scores (sequence of `float`), question_types (sequence of `str`): one each for every question.
    Returns:
        `dict`: "overall" (mean over the five tasks that are there), each task's mean, "types_overall" (mean over all
        types, which the published code returns), "types", "n", and "missing", the types without a question: with
        any, the figures are not those of the benchmark. NaN for no questions.

    Example:
        ```python
        >>> from gap_mllm.evaluation import vstibench_aggregate
        >>> kinds = ["obj_obj_relative_pos_nf", "obj_obj_relative_pos_ud", "camera_displacement"]
        >>> means = vstibench_aggregate([1.0, 0.0, 0.2], kinds)
        >>> means["obj_obj_relative_pos"], means["overall"], round(means["types_overall"], 6)
        (0.5, 0.35, 0.4)

        ```
    """
    types = means_by_group(scores, question_types)
    tasks = {
        task: float(np.mean([types[kind] for kind in kinds if kind in types]))
        for task, kinds in TASKS.items()
        if any(kind in types for kind in kinds)
    }
    return {
        "overall": float(np.mean(list(tasks.values()))) if tasks else float("nan"),
        **tasks,
        "types_overall": float(np.mean(list(types.values()))) if types else float("nan"),
        "types": types,
        "n": len(scores),
        "missing": [kind for kind in CHOICE_TYPES + NUMBER_TYPES if kind not in types],
    }


def vstibench_metric(
    predictions: Sequence[str], answers: Sequence[str], question_types: Sequence[str], mode: str = "strict"
) -> dict:
    """VSTI-Bench: letters by exact match, numbers by mean relative accuracy, the mean over five tasks.

    Source: VLM-3R (arXiv:2505.20279).

    Args:
        predictions (sequence of `str`): the model's texts. What cannot be read is wrong and counted.
        answers (sequence of `str`), question_types (sequence of `str`): true letters or numbers as text, and one of
            the ten types for each.
        mode (`str`, defaults to "strict"): the rule of `vstibench_read`.
    Returns:
        `dict`: what `vstibench_aggregate` gives, and "num_unparsed".
    Raises:
        ValueError: on another mode, differing lengths, and on a wrong reference, which is named.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"answer": "2.0", "question_type": "camera_displacement"}]
        >>> load_metric("vstibench").compute(predictions=["2.5"], references=references)["overall"]
        0.6

        ```
    """
    check_choice(mode, "mode", MODES)
    kinds = {"question_types": question_types}
    check_equal_lengths(predictions=predictions, answers=answers, **kinds)
    read = score_each(lambda text, kind: vstibench_read(text, kind, mode), predictions=predictions, **kinds)
    scores = score_each(lambda *row: vstibench_rate(*row, mode), predictions=read, answers=answers, **kinds)
    return {**vstibench_aggregate(scores, question_types), "num_unparsed": read.count(None)}


def _like(question_type):
    """The type of VSI-Bench that is read and scored alike."""
    check_choice(question_type, "question type", CHOICE_TYPES + NUMBER_TYPES)
    return "object_rel_distance" if question_type in CHOICE_TYPES else "object_abs_distance"
