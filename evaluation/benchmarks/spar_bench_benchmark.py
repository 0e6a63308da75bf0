"""SPAR-Bench: spatial questions with marks on one or several views; a letter, a number or a camera's motion.

The corrected rule counts, the published one stands under "reference_overall". Source: SPAR (arXiv:2503.22976).
"""

from collections.abc import Sequence

from ...processing.asking_gap_mllm import AnswerForm
from ...processing.data.scene_sample import SceneSample
from ..metrics.spar_bench import spar_bench_aggregate, spar_bench_rate, spar_bench_read
from .benchmark import Benchmark
from .short_answers import QUESTIONS, by_rules


def average(samples: Sequence[SceneSample], scores: Sequence[float], mode: str) -> dict:
    """Average scores over tasks and levels."""
    return spar_bench_aggregate(scores, [sample.question_type for sample in samples], mode)


RULES = by_rules(
    ("corrected", "reference"),
    read_by=lambda sample, text, mode: spar_bench_read(text, sample.answer, sample.question_type, mode),
    rate_by=lambda found, sample, mode: spar_bench_rate(found, sample.answer, sample.question_type, mode),
    show=lambda found, text: (None, "no letter, number or motion") if found is None else (text, None),
    average=average,
)
SPAR_BENCH = Benchmark(
    "spar_bench",
    "SPAR-Bench: spatial questions with marks on one or several views",
    source="spar",
    split="test",
    tasks=("spatial_qa",),
    forms=(AnswerForm(64),),
    options={"release": "bench"},
    **QUESTIONS,
    **RULES,
)
