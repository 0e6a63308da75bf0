"""ScanQA: questions about ScanNet scenes, answered in words; exact and refined matches, and the caption scores.

Source: ScanQA (arXiv:2112.10482).
"""

from collections.abc import Callable, Sequence

from ...processing.data.scene_sample import SceneSample
from ..metrics.captions import caption_scores
from ..metrics.scanqa import scanqa_aggregate, scanqa_rate
from .benchmark import Benchmark
from .short_answers import WORDS, word_records


def rate(samples: Sequence[SceneSample], answers: Sequence[tuple], interval: Callable):
    """Match cleaned answers, see `scanqa_score`, and give CIDEr, BLEU-1 to 4, ROUGE-L and METEOR of them as they are.

    Args:
        samples (`list[SceneSample]`), answers (`list[tuple]`), interval (`Callable`): questions, what `read_words`
            gave, and see `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: what `scanqa_aggregate` gives, "em" with its interval, and the figures of
        `caption_scores` in mode "scanqa", or "captions_missing", which says why there are none; records.
    """
    scores = [scanqa_rate(cleaned, sample.references) for sample, (_, cleaned) in zip(samples, answers, strict=True)]
    metrics = scanqa_aggregate(scores) | interval("em", [score["em"] for score in scores])
    try:
        references = [list(sample.references) for sample in samples]
        metrics |= caption_scores([shown for shown, _ in answers], references, mode="scanqa")
    except ImportError as error:  # the matches need no package
        metrics["captions_missing"] = str(error)
    return metrics, word_records(answers, scores, [sample.question_type for sample in samples])


SCANQA = Benchmark(
    "scanqa",
    "ScanQA: questions about ScanNet scenes, answered in words",
    source="scanqa",
    split="val",
    rate=rate,
    **WORDS,
)
