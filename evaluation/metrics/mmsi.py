"""MMSI-Bench: four-way multiple choice on several pictures, accuracy over all questions and for each type.

Source: MMSI-Bench (arXiv:2505.23764), whose rule for letters is mode "mmsi".
"""

from .letters import choice_score
from .records import check_choice, mean_or_nan, means_by_group


MODES = ("strict", "mmsi")
LETTERS = "ABCDEF"  # the benchmark offers four; its rule looks for six


def mmsi_score(prediction: str, answer: str, mode: str = "strict") -> float:
    """Score one answer.

    Args:
        prediction (`str`): the model's text.
        answer (`str`): the true letter, as "B" or "(B)".
        mode (`str`): how the letter is found, see `extract_choice`: "strict" (ours) or "mmsi" (the benchmark's).
    Returns:
        `float`: 0 or 1; an answer without a readable letter, or that is no text, is wrong.
    Raises:
        ValueError: on another mode, or a true answer that is not A to F.
    """
    check_choice(mode, "mode", MODES)
    return choice_score(prediction, answer, LETTERS, mode)


def mmsi_aggregate(scores, question_types) -> dict:
    """Average scores over all questions, and for each type.

    Args:
        scores (sequence of `float`), question_types (sequence of `str`): one each for every question.
    Returns:
        `dict`: "overall" (mean over questions, NaN for none), "by_type" (`dict` of type to mean), "n".
    Raises:
        ValueError: if the two differ in length, or a score is not finite.
    """
    by_type = means_by_group(scores, question_types)
    return {"overall": mean_or_nan(scores), "by_type": by_type, "n": len(scores)}


__all__ = ["LETTERS", "MODES", "mmsi_aggregate", "mmsi_score"]
