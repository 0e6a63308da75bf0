"""BLINK: multiple choice on one or more pictures; the mean of its tasks, and of the three spatial ones.

Source: BLINK (arXiv:2404.12390); the group of spatial tasks is that of VG-LLM.
"""

from collections.abc import Sequence

from ...processing.scores.reference_checks import check_choices
from .records import mean_or_nan, means_by_group, score_letters


MODES = ("strict", "vgllm", "lmms")
LETTERS = "ABCDEF"
SPATIAL_TASKS = ("multi_view_reasoning", "relative_depth", "spatial_relation")
TASKS = (
    "art_style",
    "counting",
    "forensic_detection",
    "functional_correspondence",
    "iq_test",
    "jigsaw",
    "multi_view_reasoning",
    "object_localization",
    "relative_depth",
    "relative_reflectance",
    "semantic_correspondence",
    "spatial_relation",
    "visual_correspondence",
    "visual_similarity",
)


def blink_metric(
    predictions: Sequence[str], answers: Sequence[str], tasks: Sequence[str], mode: str = "strict"
) -> dict:
    """BLINK: accuracy of multiple choice per task, over the tasks, and over the three spatial ones.

    "The answer is B" is T by the rule of lmms-eval, and "Answer: C" is A by both published rules; ours reads both.
    Source: BLINK (arXiv:2404.12390).

    Args:
        predictions (sequence of `str`): the model's texts. What holds no letter is wrong and counted.
        answers (sequence of `str`): the true letters, as "(B)" or "B".
        tasks (sequence of `str`): the task of each question, as the release or as the output spells it.
        mode (`str`, defaults to "strict"): the rule that finds the letter: "strict" is ours, "vgllm" and "lmms" are
            those of VG-LLM and lmms-eval.
    Returns:
        `dict`: what `blink_aggregate` gives, shares in 0..1, and "num_unparsed", the answers without a letter.
    Raises:
        ValueError: on another mode, differing lengths, and on a wrong reference, which is named.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"answer": "(B)", "task": "Relative_Depth"}]
        >>> load_metric("blink").compute(predictions=["B"], references=references)["spatial"]
        1.0

        ```
    """
    scores, num_unparsed = score_letters(predictions, answers, LETTERS, mode, MODES)
    return {**blink_aggregate(scores, tasks), "num_unparsed": num_unparsed}


def blink_aggregate(scores: Sequence[float], tasks: Sequence[str]) -> dict:
    """Average scores: per task, then with equal weight over tasks.

    Args:
        scores (sequence of `float`): one for every question.
        tasks (sequence of `str`): names in `TASKS`, or as the release spells them ("Multi-view_Reasoning").
    Returns:
        `dict`: "overall" (mean over the tasks that are there), "spatial" (over those of `SPATIAL_TASKS`), the mean of
        each task, "n", and "missing", the tasks without a question. NaN where there is no question.
    Raises:
        ValueError: on another task, differing lengths, or a score that is not finite.

    Example:
        ```python
        >>> from gap_mllm.evaluation import blink_aggregate
        >>> blink_aggregate([1.0, 0.0], ["Counting", "Relative_Depth"])["overall"]
        0.5

        ```
    """
    names = [str(task).lower().replace("-", "_") for task in tasks]
    check_choices(names, "task", TASKS)
    means = means_by_group(scores, names)
    return {
        "overall": mean_or_nan(means.values()),
        "spatial": mean_or_nan(means[task] for task in SPATIAL_TASKS if task in means),
        **{task: means[task] for task in TASKS if task in means},
        "n": len(scores),
        "missing": [task for task in TASKS if task not in means],
    }
