"""MMSI-Bench: four-way multiple choice on several pictures, accuracy over all questions and for each type.

Source: MMSI-Bench (arXiv:2505.23764), whose rule for letters is mode "mmsi".
"""

from collections.abc import Sequence

from .records import mean_or_nan, means_by_group, score_letters


MODES = ("strict", "mmsi")
LETTERS = "ABCDEF"  # the benchmark offers four; its rule looks for six


def mmsi_metric(
    predictions: Sequence[str], answers: Sequence[str], question_types: Sequence[str], mode: str = "strict"
) -> dict:
    """MMSI-Bench: accuracy of four-way multiple choice on several pictures, over all questions and for each type.

    The benchmark's rule finds no letter in "D is it", and takes the "a" of a text that holds nothing else.
    Source: MMSI-Bench (arXiv:2505.23764).

    Args:
        predictions (sequence of `str`): the model's texts. What holds no letter is wrong and counted.
        answers (sequence of `str`): the true letters, as "(B)" or "B".
        question_types (sequence of `str`): the type of each question.
        mode (`str`, defaults to "strict"): the rule for letters: "strict" is ours, "mmsi" the benchmark's.
    Returns:
        `dict`: what `mmsi_aggregate` gives, shares in 0..1, and "num_unparsed", the answers without a letter.
    Raises:
        ValueError: on another mode, differing lengths, and on a wrong reference, which is named.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"answer": "B", "question_type": "MSR"}]
        >>> load_metric("mmsi").compute(predictions=["B"], references=references)["overall"]
        1.0

        ```
    """
    scores, num_unparsed = score_letters(predictions, answers, LETTERS, mode, MODES)
    return {**mmsi_aggregate(scores, question_types), "num_unparsed": num_unparsed}


def mmsi_aggregate(scores: Sequence[float], question_types: Sequence[str]) -> dict:
    """Average scores over all questions, and for each type.

    Args:
        scores (sequence of `float`), question_types (sequence of `str`): one each for every question.
    Returns:
        `dict`: "overall" (mean over questions, NaN for none), "by_type" (`dict` of type to mean), "n".
    Raises:
        ValueError: if the two differ in length, or a score is not finite.

    Example:
        ```python
        >>> from gap_mllm.evaluation import mmsi_aggregate
        >>> mmsi_aggregate([1.0, 0.0], ["MSR", "MSR"])["by_type"]
        {'MSR': 0.5}

        ```
    """
    by_type = means_by_group(scores, question_types)
    return {"overall": mean_or_nan(scores), "by_type": by_type, "n": len(scores)}
