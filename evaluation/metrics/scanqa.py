"""ScanQA: exact match and refined exact match of short free answers, each with several true ones.

Source: ScanQA (arXiv:2112.10482) as LEO's evaluators score it (mode "reference"); Spatial-MLLM and Video-3D-LLM
compare raw texts. The caption scores of the benchmark are in captions.py, mode "scanqa".
"""

from .answer_cleaning import clean_answer, exact_match, refined_match
from .numbers import last_answer_tag
from .records import check_text, mean_or_nan


MODES = ("corrected", "reference", "spatial_mllm")


def scanqa_score(prediction: str, answers, mode: str = "corrected") -> dict:
    """Score one answer.

    Args:
        prediction (`str`): the model's text.
        answers (sequence of `str`): the true answers; without any, nothing is right.
        mode (`str`): "corrected": the last answer tag, or the whole text, against the true answers, both cleaned by
            `clean_answer`; an empty answer is wrong, and refined matches are of whole words. "reference": LEO's rules,
            by which an empty answer is a refined match. "spatial_mllm": the raw text is one of the raw answers.
    Returns:
        `dict`: "em" and "em_refined", each 0 or 1; in mode "spatial_mllm" "em_refined" is None.
    Raises:
        TypeError: if a text is none, or `answers` is one text. ValueError: on an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; known are {', '.join(MODES)}.")
    check_text(prediction)
    if isinstance(answers, str) or answers is None:
        raise TypeError(f"answers is {answers!r}; expected a list of texts.")
    if mode == "spatial_mllm":
        return {"em": float(prediction in [check_text(answer, "an answer") for answer in answers]), "em_refined": None}
    text = last_answer_tag(prediction) if mode == "corrected" else prediction
    exact, refined = exact_match(text, answers, mode), refined_match(text, answers, mode)
    return {"em": float(exact), "em_refined": float(exact or refined)}


def is_empty_answer(prediction: str, mode: str = "corrected") -> bool:
    """Whether nothing is left of an answer after cleaning, as of "." or "()".

    Args:
        prediction (`str`), mode (`str`): as for `scanqa_score`.
    Returns:
        `bool`.
    Raises:
        TypeError: if the prediction is no text.
    """
    check_text(prediction)
    if mode == "spatial_mllm":
        return not prediction
    return not clean_answer(last_answer_tag(prediction) if mode == "corrected" else prediction, mode)


def scanqa_aggregate(scores) -> dict:
    """Average the scores over all questions.

    Args:
        scores (sequence of `dict`): from `scanqa_score`.
    Returns:
        `dict`: "em", "em_refined" (None if the scores have none), "n". NaN for no questions.
    """
    refined = [score["em_refined"] for score in scores]
    return {
        "em": mean_or_nan(score["em"] for score in scores),
        "em_refined": None if None in refined else mean_or_nan(refined),
        "n": len(scores),
    }


__all__ = ["MODES", "is_empty_answer", "scanqa_aggregate", "scanqa_score"]
