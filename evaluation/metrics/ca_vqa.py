"""CA-VQA: yes or no, counts and choices by accuracy, metric answers within a tenth of the truth.

Source: MM-Spatial (arXiv:2503.13111). No evaluator is published; how answers are read is ours. Grounding, whose
spelling of boxes is not described either, is not scored.
"""

import math
from collections.abc import Sequence

from ...processing.answers_gap_mllm import last_answer_tag, parse_choice
from ...processing.data.sources.bench.ca_vqa_source import QUESTION_TYPES as TASKS
from ...processing.scores.number_answers import first_number
from ...processing.scores.reference_checks import as_text, check_choice, check_equal_lengths
from .answer_cleaning import clean_answer
from .records import mean_or_nan, means_by_group, score_each


RELATIVE_ERROR = 0.1  # up to which a metric answer is right, but for rounding


def ca_vqa_read(prediction: str, task: str) -> str | float | None:
    """Read an answer.

    Args:
        prediction (`str`): the model's text; the last answer tag counts, where there is one.
        task (`str`): one of `TASKS`.
    Returns:
        `str`, `float` or None: the first number of a count or measure, else the text without blanks around it; None
        where there is none.
    Raises:
        ValueError: on an unknown task.

    Example:
        ```python
        >>> from gap_mllm.evaluation import ca_vqa_read
        >>> ca_vqa_read("There are two chairs.", "cardinality")
        2.0

        ```
    """
    check_choice(task, "task", TASKS)
    text = as_text(prediction)
    if text is None:
        return None
    text = last_answer_tag(text)
    if task in ("cardinality", "regression"):
        number = first_number(text)
        return number if number is not None and math.isfinite(number) else None
    return text.strip() or None


def ca_vqa_rate(read: str | float | None, answer: str, task: str) -> dict:
    """Score what `ca_vqa_read` gave.

    A yes or no is right by its first word. A choice is right if its text is, or its letter where the true answer is a
    letter. A count is right if it is the number, a measure if it is off by at most a tenth of the truth.

    Args:
        read (`str`, `float` or None): reading.
        answer (`str`): true answer; of a measure its first number counts, which must be in the unit of the answers.
        task (`str`): one of `TASKS`.
    Returns:
        `dict`: "correct", 0 or 1, and "error", the distance of a measure from the truth in its unit, None elsewhere
        and where none was read.
    Raises:
        ValueError: on an unknown task, or a true count or measure without a number.

    Example:
        ```python
        >>> from gap_mllm.evaluation import ca_vqa_rate, ca_vqa_read
        >>> ca_vqa_rate(ca_vqa_read("It is 2.0 m away.", "regression"), "2.125 m", "regression")
        {'correct': 1.0, 'error': 0.125}

        ```
    """
    truth = ca_vqa_read(answer, task)
    if truth is None:
        raise ValueError(f"the answer of a {task} question is {answer!r}; nothing can be compared with it.")
    if read is None:
        return {"correct": 0.0, "error": None}
    if task == "regression":
        error = abs(read - truth)
        return {"correct": float(error <= RELATIVE_ERROR * abs(truth) * (1 + 1e-9)), "error": error}
    if task == "cardinality":
        return {"correct": float(read == truth), "error": None}
    if task == "multichoice" and len(truth) == 1:
        return {"correct": float((parse_choice(read).first or "").lower() == truth.lower()), "error": None}
    said, true = clean_answer(read), clean_answer(truth)
    if task == "binary":
        said, true = said.partition(" ")[0], true.partition(" ")[0]
    return {"correct": float(said == true), "error": None}


def ca_vqa_aggregate(scores: Sequence[dict], tasks: Sequence[str]) -> dict:
    """Average scores over tasks.

    Args:
        scores (sequence of `dict`): what `ca_vqa_rate` gives.
        tasks (sequence of `str`): task of each.
    Returns:
        `dict`: "overall" (mean over the tasks that are there), each task's share of right answers,
        "regression_error" (mean distance of the measures that were read, in their unit; NaN without any), "n" and
        "missing", the tasks without a question.

    Example:
        ```python
        >>> from gap_mllm.evaluation import ca_vqa_aggregate
        >>> scores = [{"correct": 1.0, "error": None}, {"correct": 0.0, "error": 0.5}]
        >>> ca_vqa_aggregate(scores, ["binary", "regression"])["overall"]
        0.5

        ```
    """
    means = means_by_group([score["correct"] for score in scores], tasks)
    return {
        "overall": mean_or_nan(means.values()),
        **means,
        "regression_error": mean_or_nan(score["error"] for score in scores if score["error"] is not None),
        "n": len(scores),
        "missing": [task for task in TASKS if task not in means],
    }


def ca_vqa_metric(predictions: Sequence[str], answers: Sequence[str], tasks: Sequence[str]) -> dict:
    """CA-VQA: shares of right answers, of measures those within a tenth of the truth, and the mean over tasks.

    Source: MM-Spatial (arXiv:2503.13111); how texts are read is ours, and grounding is not scored.

    Args:
        predictions (sequence of `str`): the model's texts. What cannot be read is wrong and counted.
        answers (sequence of `str`), tasks (sequence of `str`): the true answers, and "binary", "cardinality",
            "multichoice" or "regression" for each.
    Returns:
        `dict`: what `ca_vqa_aggregate` gives, and "num_unparsed".
    Raises:
        ValueError: on differing lengths, and on a wrong reference, which is named.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"answer": "yes", "task": "binary"}]
        >>> load_metric("ca_vqa").compute(predictions=["Yes, it is."], references=references)["binary"]
        1.0

        ```
    """
    check_equal_lengths(predictions=predictions, answers=answers, tasks=tasks)
    read = score_each(ca_vqa_read, predictions=predictions, tasks=tasks)
    scores = score_each(ca_vqa_rate, predictions=read, answers=answers, tasks=tasks)
    return {**ca_vqa_aggregate(scores, tasks), "num_unparsed": read.count(None)}
