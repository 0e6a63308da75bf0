"""SPAR-Bench: spatial questions with marks on one or several views; a letter, a number or a camera's motion.

The corrected rule counts, the published one stands under "reference_overall". Source: SPAR (arXiv:2503.22976).
"""

from collections.abc import Callable, Sequence

from ...processing.asking_gap_mllm import AnswerForm
from ...processing.data.scene_sample import SceneSample
from ..metrics.spar_bench import spar_bench_aggregate, spar_bench_rate, spar_bench_read
from .benchmark import Benchmark
from .short_answers import QUESTIONS, short_record


MODES = ("corrected", "reference")


def read(sample: SceneSample, text: str) -> dict:
    """Read an answer by the corrected and by the published rule."""
    found = {mode: spar_bench_read(text, sample.answer, sample.question_type, mode) for mode in MODES}
    return {"text": text.strip(), **found}


def rate(samples: Sequence[SceneSample], answers: Sequence[dict], interval: Callable):
    """Score by both rules; see `spar_bench_score`.

    Args:
        samples (`list[SceneSample]`), answers (`list[dict]`), interval (`Callable`): questions, their readings, and
            see `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: what `spar_bench_aggregate` gives, "reference_overall", and "mean_score" over all
        questions with its interval; records.
    """
    kinds = [sample.question_type for sample in samples]
    scores, published = (
        [
            spar_bench_rate(answer[mode], sample.answer, sample.question_type, mode)
            for sample, answer in zip(samples, answers, strict=True)
        ]
        for mode in MODES
    )
    records = []
    for answer, kind, score, reference in zip(answers, kinds, scores, published, strict=True):
        unread = answer["corrected"] is None
        parsed, rejected = (None, "no letter, number or motion") if unread else (answer["text"], None)
        records.append(short_record(parsed, score, kind, rejected, reference_score=reference))
    metrics = spar_bench_aggregate(scores, kinds)
    metrics["reference_overall"] = spar_bench_aggregate(published, kinds, "reference")["overall"]
    return metrics | interval("mean_score", scores), records


SPAR_BENCH = Benchmark(
    "spar_bench",
    "SPAR-Bench: spatial questions with marks on one or several views",
    source="spar",
    split="test",
    tasks=("spatial_qa",),
    read=read,
    rate=rate,
    forms=(AnswerForm(64),),
    options={"release": "bench"},
    **QUESTIONS,
)

__all__ = ["SPAR_BENCH", "rate", "read"]
