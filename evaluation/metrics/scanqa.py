"""ScanQA: exact match and refined exact match of short free answers, each with several true ones.

Source: ScanQA (arXiv:2112.10482) as LEO's evaluators score it (mode "reference"); Spatial-MLLM and Video-3D-LLM
compare raw texts. The caption scores of the benchmark are in captions.py, mode "scanqa".
"""

from .answer_cleaning import clean_answer, exact_match, refined_match
from .numbers import last_answer_tag
from .records import as_text, check_choice, check_text, mean_or_nan
from .reference_checks import shorten


MODES = ("corrected", "reference", "spatial_mllm")


def scanqa_score(prediction: str, answers, mode: str = "corrected") -> dict:
    """Score one answer.

    Args:
        prediction (`str`): the model's text; what is none, as None, is wrong.
        answers (sequence of `str`): the true answers; without any, nothing is right.
        mode (`str`): "corrected": the last answer tag, or the whole text, against the true answers, both cleaned by
            `clean_answer`; an empty answer is wrong, and refined matches are of whole words. "reference": LEO's rules,
            by which an empty answer is a refined match. "spatial_mllm": the raw text is one of the raw answers.
    Returns:
        `dict`: "em" and "em_refined", each 0 or 1; in mode "spatial_mllm" "em_refined" is None.
    Raises:
        TypeError: if a true answer is no text, or `answers` no list. ValueError: on an unknown mode.
    """
    check_choice(mode, "mode", MODES)
    if not isinstance(answers, list | tuple):
        raise TypeError(f"answers is {shorten(answers)}; expected a list of texts.")
    for answer in answers:
        check_text(answer, "an answer")
    if as_text(prediction) is None:
        return {"em": 0.0, "em_refined": None if mode == "spatial_mllm" else 0.0}
    if mode == "spatial_mllm":
        return {"em": float(prediction in answers), "em_refined": None}
    text = last_answer_tag(prediction) if mode == "corrected" else prediction
    exact, refined = exact_match(text, answers, mode), refined_match(text, answers, mode)
    return {"em": float(exact), "em_refined": float(exact or refined)}


def is_empty_answer(prediction: str, mode: str = "corrected") -> bool:
    """Whether nothing is left of an answer after cleaning, as of "." or "()", or it is no text.

    Args:
        prediction (`str`), mode (`str`): as for `scanqa_score`.
    Returns:
        `bool`.
    Raises:
        ValueError: on an unknown mode.
    """
    check_choice(mode, "mode", MODES)
    if as_text(prediction) is None:
        return True
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
