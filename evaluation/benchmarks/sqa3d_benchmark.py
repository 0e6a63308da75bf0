"""SQA3D: questions from where somebody stands in a ScanNet scene, answered in words; matches for each type.

Source: SQA3D (arXiv:2210.07474).
"""

from collections.abc import Callable, Sequence

from ...processing.data.scene_sample import SceneSample
from ..metrics.sqa3d import sqa3d_aggregate, sqa3d_question_type, sqa3d_rate
from .benchmark import Benchmark
from .short_answers import WORDS, word_records


def rate(samples: Sequence[SceneSample], answers: Sequence[tuple], interval: Callable):
    """Match cleaned answers, over all questions and by the first word of the question; see `sqa3d_score`.

    Args:
        samples (`list[SceneSample]`), answers (`list[tuple]`), interval (`Callable`): questions, what `read_words`
            gave, and see `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: what `sqa3d_aggregate` gives, "em" with its interval; records.
    """
    kinds = [sqa3d_question_type(str(sample.metadata.get("question", ""))) for sample in samples]
    scores = [sqa3d_rate(cleaned, sample.answer) for sample, (_, cleaned) in zip(samples, answers, strict=True)]
    metrics = sqa3d_aggregate(scores, kinds) | interval("em", [score["em"] for score in scores])
    return metrics, word_records(answers, scores, kinds)


SQA3D = Benchmark(
    "sqa3d",
    "SQA3D: questions from where somebody stands in a ScanNet scene",
    source="sqa3d",
    split="test",
    rate=rate,
    **WORDS,
)
