"""ScanQA: exact match and refined exact match of short free answers, each with several true ones.

Source: ScanQA (arXiv:2112.10482) as LEO's evaluators score it (mode "reference"); Spatial-MLLM and Video-3D-LLM
compare raw texts. The caption scores of the benchmark are in captions.py, mode "scanqa".
"""

from collections.abc import Sequence

from ...processing.answers_gap_mllm import last_answer_tag
from ...processing.scores.reference_checks import as_text, check_choice, check_text, shorten
from .answer_cleaning import clean_answer, match_cleaned
from .records import mean_or_nan, score_each


MODES = ("corrected", "reference", "spatial_mllm")


def scanqa_score(prediction: str, answers: Sequence[str], mode: str = "corrected") -> dict:
    """Score one answer.

    Args:
        prediction (`str`): the model's text; what is none, as None, is wrong.
        answers (sequence of `str`): the true answers; without any, nothing is right.
        mode (`str`, defaults to "corrected"): "corrected": the last answer tag, or the whole text, against the true
            answers, both cleaned by `clean_answer`; an empty answer is wrong, and refined matches are of whole words
            and not of answers that list alternatives (see `match_cleaned`). "reference": LEO's rules, by which an
            empty answer is a refined match. "spatial_mllm": the raw text is one of the raw answers.
    Returns:
        `dict`: "em" and "em_refined", each 0 or 1; in mode "spatial_mllm" "em_refined" is None.
    Raises:
        TypeError: if a true answer is no text, or `answers` no list. ValueError: on an unknown mode.

    Example:
        ```python
        >>> from gap_mllm.evaluation import scanqa_score
        >>> scanqa_score("brown chair", ["chair"])
        {'em': 0.0, 'em_refined': 1.0}

        ```
    """
    return scanqa_rate(scanqa_read(prediction, mode), answers, mode)


def scanqa_read(prediction: str, mode: str = "corrected") -> str | None:
    """Bring an answer to the form in which it is compared, for `scanqa_rate`.

    Args:
        prediction (`str`), mode (`str`, defaults to "corrected"): arguments of `scanqa_score`.
    Returns:
        `str` or None: empty where cleaning leaves nothing, as of "." or "()"; None for what is no text.
    Raises:
        ValueError: on an unknown mode.
    """
    check_choice(mode, "mode", MODES)
    text = as_text(prediction)
    if text is None or mode == "spatial_mllm":
        return text
    return clean_answer(last_answer_tag(text) if mode == "corrected" else text, mode)


def scanqa_rate(read: str | None, answers: Sequence[str], mode: str = "corrected") -> dict:
    """Score what `scanqa_read` gave; arguments and errors as `scanqa_score`."""
    if not isinstance(answers, list | tuple):
        raise TypeError(f"answers is {shorten(answers)}; expected a list of texts.")
    for answer in answers:
        check_text(answer, "an answer")
    if mode == "spatial_mllm":
        return {"em": float(read in answers), "em_refined": None}
    is_exact, is_refined = (False, False) if read is None else match_cleaned(read, answers, mode)
    return {"em": float(is_exact), "em_refined": float(is_exact or is_refined)}


def scanqa_aggregate(scores: Sequence[dict]) -> dict:
    """Average the scores over all questions.

    Args:
        scores (sequence of `dict`): what `scanqa_score` gives, one dict a question.
    Returns:
        `dict`: "em", "em_refined" (None if the scores have none), "n". NaN for no questions.

    Example:
        ```python
        >>> from gap_mllm.evaluation import scanqa_aggregate
        >>> scanqa_aggregate([{"em": 0.0, "em_refined": 1.0}])
        {'em': 0.0, 'em_refined': 1.0, 'n': 1}

        ```
    """
    refined = [score["em_refined"] for score in scores]
    return {
        "em": mean_or_nan(score["em"] for score in scores),
        "em_refined": None if None in refined else mean_or_nan(refined),
        "n": len(scores),
    }


def scanqa_metric(predictions: Sequence[str], answers: Sequence[Sequence[str]], mode: str = "corrected") -> dict:
    """ScanQA: exact match of cleaned answers, and the refined match, by which one text within the other is right too.

    CIDEr, BLEU, ROUGE-L and METEOR of the same answers are in the metric "captions", mode "scanqa". By the published
    rule an empty answer is a refined match, "no" matches "north wall", and a list of all colours any of them; by ours
    none does.
    Source: ScanQA (arXiv:2112.10482), LEO's rules (arXiv:2311.12871).

    Args:
        predictions (sequence of `str`): the model's texts.
        answers (sequence of sequences of `str`): the true answers of each question.
        mode (`str`, defaults to "corrected"): the rule of `scanqa_score`: "corrected" (ours), "reference" or
            "spatial_mllm" (raw texts).
    Returns:
        `dict`: "em" and "em_refined" in 0..1 (the latter None in mode "spatial_mllm"), "n", "num_unparsed" (answers of
        which cleaning leaves nothing), "num_without_answer" (questions without a true one: nothing is right there).
    Raises:
        ValueError: on another mode, differing lengths, and on a wrong reference, which is named.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"answers": ["brown cabinet"]}]
        >>> load_metric("scanqa").compute(predictions=["The brown cabinet."], references=references)["em"]
        1.0

        ```
    """
    check_choice(mode, "mode", MODES)
    read = [scanqa_read(prediction, mode) for prediction in predictions]
    scores = score_each(lambda text, true: scanqa_rate(text, true, mode), predictions=read, answers=answers)
    return {
        **scanqa_aggregate(scores),
        "num_unparsed": sum(not text for text in read),
        "num_without_answer": sum(not any(text.strip() for text in texts) for texts in answers),
    }
