"""ScanQA: questions about ScanNet scenes, answered in words; exact and refined matches.

Source: ScanQA (arXiv:2112.10482).
"""

from collections.abc import Callable, Sequence

from ...processing.data.scene_sample import SceneSample
from ..metrics.scanqa import scanqa_aggregate, scanqa_rate
from .benchmark import Benchmark
from .short_answers import WORDS, word_records


def rate(samples: Sequence[SceneSample], answers: Sequence[tuple], interval: Callable):
    """Match cleaned answers; see `scanqa_score`.

    Args:
        samples (`list[SceneSample]`), answers (`list[tuple]`), interval (`Callable`): questions, what `read_words`
            gave, and see `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: what `scanqa_aggregate` gives, "em" with its interval; records.
    """
    scores = [scanqa_rate(cleaned, sample.references) for sample, (_, cleaned) in zip(samples, answers, strict=True)]
    metrics = scanqa_aggregate(scores) | interval("em", [score["em"] for score in scores])
    return metrics, word_records(answers, scores, [sample.question_type for sample in samples])


SCANQA = Benchmark(
    "scanqa",
    "ScanQA: questions about ScanNet scenes, answered in words",
    source="scanqa",
    split="val",
    rate=rate,
    **WORDS,
)

__all__ = ["SCANQA", "rate"]
