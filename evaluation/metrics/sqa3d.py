"""SQA3D: exact match of short answers to questions about a situation, per question type.

Source: SQA3D (arXiv:2210.07474); the refined match is LEO's (arXiv:2311.12871).
"""

import re
from collections.abc import Sequence

from ...processing.scores.reference_checks import check_choice, check_choices, check_equal_lengths, check_text
from .records import mean_or_nan, means_by_group, score_each
from .scanqa import scanqa_rate, scanqa_read


MODES = ("corrected", "reference")
QUESTION_TYPES = ("what", "is", "how", "can", "which", "others")
_FIRST_WORD = re.compile(rf"({'|'.join(QUESTION_TYPES[:-1])})(?:'?s|n't|n\u2019t|\u2019s|'t)?\b")


def sqa3d_question_type(question: str, mode: str = "corrected") -> str:
    """The type of a question, which is its first word.

    Args:
        question (`str`): its text, without the situation.
        mode (`str`, defaults to "corrected"): "corrected" looks at the first word ("what's", "isn't" included),
            "reference" at the first letters. `Differs:` there "Island ..?" is of type "is" and "Canopy ..?" of type
            "can".
    Returns:
        `str`: one of `QUESTION_TYPES`.
    Raises:
        TypeError: if the question is no text. ValueError: on an unknown mode.

    Example:
        ```python
        >>> from gap_mllm.evaluation import sqa3d_question_type
        >>> sqa3d_question_type("What's behind me?")
        'what'

        ```
    """
    check_choice(mode, "mode", MODES)
    text = check_text(question, "question").strip().lower()
    if mode == "reference":
        return next((kind for kind in QUESTION_TYPES[:-1] if text.startswith(kind)), "others")
    found = _FIRST_WORD.match(text)
    return found[1] if found else "others"


def sqa3d_score(prediction: str, answer: str, mode: str = "corrected") -> dict:
    """Score one answer.

    Args:
        prediction (`str`): the model's text; what is none, as None, is wrong.
        answer (`str`): the true answer.
        mode (`str`, defaults to "corrected"): "corrected" or "reference", as for `scanqa_score`.
    Returns:
        `dict`: "em" and "em_refined", each 0 or 1.
    Raises:
        TypeError: if the true answer is no text. ValueError: on an unknown mode, or if it is blank.

    Example:
        ```python
        >>> from gap_mllm.evaluation import sqa3d_score
        >>> sqa3d_score("2", "two")
        {'em': 1.0, 'em_refined': 1.0}

        ```
    """
    check_choice(mode, "mode", MODES)
    return sqa3d_rate(scanqa_read(prediction, mode), answer, mode)


def sqa3d_rate(read: str | None, answer: str, mode: str = "corrected") -> dict:
    """Score what `scanqa_read` gave; arguments and errors as `sqa3d_score`."""
    if not check_text(answer, "answer").strip():
        raise ValueError(f"answer is {answer!r}; expected the true answer, with a word in it.")
    return scanqa_rate(read, [answer], mode)


def sqa3d_aggregate(scores: Sequence[dict], question_types: Sequence[str]) -> dict:
    """Average the scores over all questions, and over those of each type.

    Args:
        scores (sequence of `dict`): what `sqa3d_score` gives, one dict a question.
        question_types (sequence of `str`): a name in `QUESTION_TYPES` for each score.
    Returns:
        `dict`: "em", "em_refined", and for each type that is there "em_<type>" and "em_refined_<type>"; "n", and
        "missing", the types without a question. NaN for no questions.
    Raises:
        ValueError: on another type, or if the two differ in length.

    Example:
        ```python
        >>> from gap_mllm.evaluation import sqa3d_aggregate
        >>> sqa3d_aggregate([{"em": 1.0, "em_refined": 1.0}], ["how"])["em_how"]
        1.0

        ```
    """
    check_equal_lengths(scores=scores, question_types=question_types)
    check_choices(question_types, "question type", QUESTION_TYPES)
    result = {}
    for key in ("em", "em_refined"):
        values = [score[key] for score in scores]
        means = means_by_group(values, question_types)
        result[key] = mean_or_nan(values)
        result |= {f"{key}_{kind}": means[kind] for kind in QUESTION_TYPES if kind in means}
    missing = [kind for kind in QUESTION_TYPES if kind not in question_types]
    return {**result, "n": len(scores), "missing": missing}


def sqa3d_metric(
    predictions: Sequence[str], answers: Sequence[str], questions: Sequence[str], mode: str = "corrected"
) -> dict:
    """SQA3D: exact match and refined match of cleaned answers, over all questions and per type of question.

    The type is the question's first word: what, is, how, can, which, or others. By the published rule an empty answer
    is a refined match, and a question that begins with "Island" is of type "is".
    Source: SQA3D (arXiv:2210.07474).

    Args:
        predictions (sequence of `str`): the model's texts.
        answers (sequence of `str`): the true answers.
        questions (sequence of `str`): the questions, without the situation.
        mode (`str`, defaults to "corrected"): "corrected" (ours) or "reference" (published rules).
    Returns:
        `dict`: what `sqa3d_aggregate` gives, shares in 0..1, and "num_unparsed", the answers of which cleaning leaves
        nothing.
    Raises:
        ValueError: on another mode, differing lengths, and on a wrong reference, which is named.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"answer": "two", "question": "How many chairs are there?"}]
        >>> load_metric("sqa3d").compute(predictions=["2"], references=references)["em_how"]
        1.0

        ```
    """
    check_choice(mode, "mode", MODES)
    read = [scanqa_read(prediction, mode) for prediction in predictions]
    scores = score_each(lambda text, answer: sqa3d_rate(text, answer, mode), predictions=read, answers=answers)
    kinds = score_each(lambda question: sqa3d_question_type(question, mode), questions=questions)
    return {**sqa3d_aggregate(scores, kinds), "num_unparsed": sum(not text for text in read)}
