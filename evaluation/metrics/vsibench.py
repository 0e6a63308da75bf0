"""VSI-Bench: multiple choice by letter, numbers by mean relative accuracy, and the mean over its eight tasks.

Source: thinking-in-space (arXiv:2412.14171), whose evaluator is mode "strict"; the rules of lmms-eval and Spatial-MLLM
are modes of their own, since published numbers follow them.
"""

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from ...processing.answers_gap_mllm import last_answer_tag, parse_choice
from ...processing.scores.number_answers import first_number, mean_relative_accuracy
from ...processing.scores.reference_checks import as_text, check_choice, check_equal_lengths, map_named
from .lmms_eval_rules import lmms_eval_number, lmms_eval_text
from .records import means_by_group, score_each


DIRECTION_LEVELS = tuple(f"object_rel_direction_{level}" for level in ("easy", "medium", "hard"))
CHOICE_TYPES = (*DIRECTION_LEVELS, "object_rel_distance", "route_planning", "obj_appearance_order")
NUMBER_TYPES = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")
TASKS = (*NUMBER_TYPES, "object_rel_distance", "object_rel_direction", "route_planning", "obj_appearance_order")
MODES = ("strict", "lenient", "lmms_eval", "spatial_mllm")


def vsibench_score(prediction: str, answer: str, question_type: str, mode: str = "strict") -> float:
    """Score one answer.

    Args:
        prediction (`str`): the model's text. What cannot be read scores 0, and so does what is no text, as None.
        answer (`str`): the letter, or the number as text.
        question_type (`str`): one of `CHOICE_TYPES` or `NUMBER_TYPES`.
        mode (`str`, defaults to "strict"): "strict", the official rule: what stands before the first space must be the
            answer. "lenient": the answer is looked for in the whole text (tags, brackets, sentences, number words,
            thousands). Numbers are read by `first_number`, which knows composed words. "lmms_eval" (0.7.3) and
            "spatial_mllm": the rules of these evaluators.
    Returns:
        `float`: 0 or 1 for a choice, mean relative accuracy for a number. `Differs:` for a true value of 0, where the
        published code divides by zero, only 0 itself is right.
    Raises:
        ValueError: on an unknown type or mode, or a true answer that is no single letter or finite number, as text.

    Example:
        ```python
        >>> from gap_mllm.evaluation import vsibench_score
        >>> vsibench_score("There are 4.", "4", "object_counting", mode="lenient")
        1.0

        ```
    """
    return vsibench_rate(vsibench_read(prediction, question_type, mode), answer, question_type, mode)


def vsibench_read(prediction: str, question_type: str, mode: str = "strict") -> str | float | None:
    """Read an answer by one rule, for `vsibench_rate`.

    Args:
        prediction (`str`), question_type (`str`), mode (`str`, defaults to "strict"): arguments of `vsibench_score`.
    Returns:
        `str`, `float` or None: a small letter, a finite number, or None where the rule finds none, or no text came.
    Raises:
        ValueError: on an unknown type or mode.
    """
    check_choice(mode, "mode", MODES)
    check_choice(question_type, "question type", CHOICE_TYPES + NUMBER_TYPES)
    text = as_text(prediction)
    if text is None:
        return None
    if question_type in CHOICE_TYPES:
        letter = _choice(text, mode)
        return letter.lower() if re.fullmatch("[A-Za-z]", letter) else None
    number = _number(text, mode)
    return number if number is not None and math.isfinite(number) else None


def vsibench_rate(read: str | float | None, answer: str, question_type: str, mode: str = "strict") -> float:
    """Score what `vsibench_read` gave; arguments and errors as `vsibench_score`."""
    if question_type in CHOICE_TYPES:
        return float(read == _true_letter(answer, question_type))
    target = _target(answer, question_type)
    if "," in answer and mode in ("strict", "lmms_eval"):
        return 0.0  # these evaluators cannot read a target with thousands separated
    return _spatial_mllm_accuracy(read, target) if mode == "spatial_mllm" else mean_relative_accuracy(read, target)


def vsibench_is_unparsed(prediction: str, question_type: str, mode: str = "strict") -> bool:
    """Whether an answer is no text or holds no single letter, or finite number, where the rule looks; it scores 0.

    Args:
        prediction (`str`), question_type (`str`), mode (`str`, defaults to "strict"): arguments of `vsibench_score`.
    Returns:
        `bool`.
    Raises:
        ValueError: on an unknown type or mode.

    Example:
        ```python
        >>> from gap_mllm.evaluation import vsibench_is_unparsed
        >>> vsibench_is_unparsed("no idea", "object_counting")
        True

        ```
    """
    return vsibench_read(prediction, question_type, mode) is None


def vsibench_aggregate(scores: Sequence[float], question_types: Sequence[str]) -> dict:
    """Average scores as the benchmark does: per task, the three levels of direction first among themselves.

    Args:
        scores (sequence of `float`), question_types (sequence of `str`): one each for every question; types outside
            the ten are left out of all averages and counted.
    Returns:
        `dict`: "overall" (mean over the tasks that are there, NaN for none), each task's mean under its name, "n",
        "num_other_types", and "missing", the tasks and direction levels without a question: with any, the overall is
        not that of the benchmark (the official code fails, or averages fewer tasks without a word).
    Raises:
        ValueError: if the two differ in length, or a score is not finite.

    Example:
        ```python
        >>> from gap_mllm.evaluation import vsibench_aggregate
        >>> vsibench_aggregate([1.0, 0.5], ["route_planning", "object_counting"])["overall"]
        0.75

        ```
    """
    if len(scores) != len(question_types):
        raise ValueError(f"{len(scores)} scores came with {len(question_types)} question types.")
    means = means_by_group(scores, question_types)
    levels = [means[level] for level in DIRECTION_LEVELS if level in means]
    if levels:
        means["object_rel_direction"] = float(np.mean(levels))
    tasks = {task: means[task] for task in TASKS if task in means}
    known = CHOICE_TYPES + NUMBER_TYPES
    return {
        "overall": float(np.mean(list(tasks.values()))) if tasks else float("nan"),
        **tasks,
        "n": len(scores),
        "num_other_types": sum(kind not in known for kind in question_types),
        "missing": [kind for kind in known if kind not in means],
    }


def vsibench_metric(
    predictions: Sequence[str], answers: Sequence[str], question_types: Sequence[str], mode: str = "strict"
) -> dict:
    """VSI-Bench: exact match of letters, mean relative accuracy of numbers, and the mean over the eight tasks.

    The three levels of relative direction are one task. The official rule reads what stands before the first space:
    "The answer is B" is wrong there, and right in mode "lenient". `vsibench_overall` gives the figure that one of the
    published evaluators prints for a whole benchmark.
    Source: Thinking in Space (arXiv:2412.14171).

    Args:
        predictions (sequence of `str`): the model's texts. What cannot be read is wrong and counted.
        answers (sequence of `str`): the true letters or numbers, as text.
        question_types (sequence of `str`): one of `CHOICE_TYPES` or `NUMBER_TYPES` for each question.
        mode (`str`, defaults to "strict"): the rule of `vsibench_score`: "strict" (official), "lenient", "lmms_eval"
            or "spatial_mllm".
    Returns:
        `dict`: what `vsibench_aggregate` gives, shares in 0..1, and "num_unparsed", the answers without a letter or
        number where the rule looks for it.
    Raises:
        ValueError: on another mode, differing lengths, and on a wrong reference, which is named.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"answer": "B", "question_type": "route_planning"}]
        >>> load_metric("vsibench").compute(predictions=["B"], references=references)["overall"]
        1.0

        ```
    """
    check_choice(mode, "mode", MODES)
    kinds = {"question_types": question_types}
    check_equal_lengths(predictions=predictions, answers=answers, **kinds)
    read = score_each(lambda text, kind: vsibench_read(text, kind, mode), predictions=predictions, **kinds)
    scores = score_each(lambda *row: vsibench_rate(*row, mode), predictions=read, answers=answers, **kinds)
    return {**vsibench_aggregate(scores, question_types), "num_unparsed": read.count(None)}


def vsibench_overall(
    predictions: Sequence[str], answers: Iterable[str], question_types: Sequence[str], mode: str = "strict"
) -> float:
    """The figure over the eight tasks that one evaluator prints for a whole benchmark, in 0..1.

    In mode "lmms_eval" answers are first cut as lmms-eval cuts them by default, see `lmms_eval_text`: its
    "vsibench_overall", which it rounds to six digits. `Differs:` where types are missing, see `vsibench_aggregate`.

    Args:
        predictions (sequence of `str`), answers (sequence of `str`), question_types (sequence of `str`): one each for
            every question, of the benchmark's ten types.
        mode (`str`, defaults to "strict"): mode of `vsibench_score`.
    Returns:
        `float`: NaN without questions.
    Raises:
        ValueError: if lengths differ, and as `vsibench_score`, with the number of the question.

    Example:
        ```python
        >>> from gap_mllm.evaluation import vsibench_overall
        >>> vsibench_overall(["B", "5"], ["B", "4"], ["route_planning", "object_counting"])
        0.8

        ```
    """
    check_choice(mode, "mode", MODES)
    check_equal_lengths(predictions=predictions, answers=answers, question_types=question_types)
    if mode == "lmms_eval":
        predictions = [text if as_text(text) is None else lmms_eval_text(text) for text in predictions]
    columns = predictions, answers, question_types
    scores = map_named("question", lambda *row: vsibench_score(*row, mode), *columns)
    return vsibench_aggregate(scores, question_types)["overall"]


def _true_letter(answer, question_type):
    if not isinstance(answer, str) or not re.fullmatch("[A-Za-z]", answer.strip()):
        raise ValueError(f"the answer of a {question_type} question is {answer!r}; expected one letter.")
    return answer.strip().lower()


def _target(answer, question_type):
    try:
        target = float(answer.replace(",", "")) if isinstance(answer, str) else math.nan
    except ValueError:
        target = math.nan
    if not math.isfinite(target):
        raise ValueError(f"the answer of a {question_type} question is {answer!r}; expected a finite number as text.")
    return target


def _choice(text, mode):
    if mode == "lenient":
        word = _first_word(text)
        return word if len(word) == 1 else parse_choice(text).first or ""
    return _clean(text) if mode == "spatial_mllm" else _first_word(text)


def _number(text, mode):
    if mode == "lenient":
        return first_number(last_answer_tag(text))
    if mode == "lmms_eval":
        return lmms_eval_number(text)
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
    if number is None:
        return 0.0
    thresholds = np.linspace(0.5, 0.95, 10, dtype=np.float32)
    with np.errstate(all="ignore"):  # float32 holds no 1e39
        error = np.float32(abs(np.float32(number) - np.float32(target))) / np.float32(abs(target) + 1e-8)
    return float(np.mean(error < 1 - thresholds))
