"""CV-Bench: multiple choice on single pictures, averaged over its three sources as the benchmark does.

Source: Cambrian-1 (arXiv:2406.16860).
"""

from collections.abc import Sequence

from ...processing.scores.reference_checks import check_choices, check_equal_lengths
from .records import mean_or_nan, means_by_group, score_letters


MODES = ("strict", "vgllm", "lmms")
LETTERS = "ABCDEF"
SOURCES_2D = ("ADE20K", "COCO")
SOURCES_3D = ("Omni3D",)
TASKS = ("Count", "Relation", "Depth", "Distance")


def cv_bench_metric(
    predictions: Sequence[str],
    answers: Sequence[str],
    sources: Sequence[str],
    tasks: Sequence[str],
    mode: str = "strict",
) -> dict:
    """CV-Bench: accuracy of multiple choice per source and task; the 2D sources are averaged first, then 2D and 3D.

    "The answer is B" is T by the rule of lmms-eval, and "Answer: C" is A by both published rules; ours reads both.
    Source: Cambrian-1 (arXiv:2406.16860).

    Args:
        predictions (sequence of `str`): the model's texts. What holds no letter is wrong and counted.
        answers (sequence of `str`): the true letters, as "(B)" or "B".
        sources (sequence of `str`): ADE20K, COCO or Omni3D for each question.
        tasks (sequence of `str`): Count, Relation, Depth or Distance for each question.
        mode (`str`, defaults to "strict"): the rule that finds the letter: "strict" is ours, "vgllm" and "lmms" are
            those of VG-LLM and lmms-eval.
    Returns:
        `dict`: what `cv_bench_aggregate` gives, shares in 0..1, and "num_unparsed", the answers without a letter.
    Raises:
        ValueError: on another mode, differing lengths, and on a wrong reference, which is named.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"answer": "(B)", "source": "COCO", "task": "Count"}]
        >>> load_metric("cv_bench").compute(predictions=["B"], references=references)["accuracy_2d"]
        1.0

        ```
    """
    scores, num_unparsed = score_letters(predictions, answers, LETTERS, mode, MODES)
    return {**cv_bench_aggregate(scores, sources, tasks), "num_unparsed": num_unparsed}


def cv_bench_aggregate(scores: Sequence[float], sources: Sequence[str], tasks: Sequence[str]) -> dict:
    """Average scores as the benchmark does: the sources of 2D questions first among themselves.

    Args:
        scores (sequence of `float`), sources (sequence of `str`, of ADE20K, COCO, Omni3D), tasks (sequence of `str`,
            of `TASKS`): one each for every question.
    Returns:
        `dict`: "overall" (mean of 2D and 3D), "accuracy_2d", "accuracy_3d", the mean of each source and of each task
        over all its questions, "n", and "missing", the sources without a question: with any, the overall is not that
        of the benchmark. NaN where there is no question.
    Raises:
        ValueError: on other sources or tasks, differing lengths, or a score that is not finite.

    Example:
        ```python
        >>> from gap_mllm.evaluation import cv_bench_aggregate
        >>> cv_bench_aggregate([1.0, 0.0], ["COCO", "Omni3D"], ["Count", "Depth"])["overall"]
        0.5

        ```
    """
    check_equal_lengths(scores=scores, sources=sources, tasks=tasks)
    check_choices(sources, "source", SOURCES_2D + SOURCES_3D)
    check_choices(tasks, "task", TASKS)
    by_source, by_task = means_by_group(scores, sources), means_by_group(scores, tasks)
    flat = mean_or_nan(by_source[source] for source in SOURCES_2D if source in by_source)
    solid = mean_or_nan(by_source[source] for source in SOURCES_3D if source in by_source)
    return {
        "overall": mean_or_nan(value for value in (flat, solid) if value == value),
        "accuracy_2d": flat,
        "accuracy_3d": solid,
        **{source: by_source[source] for source in SOURCES_2D + SOURCES_3D if source in by_source},
        **{task: by_task[task] for task in TASKS if task in by_task},
        "n": len(scores),
        "missing": [source for source in SOURCES_2D + SOURCES_3D if source not in by_source],
    }
