"""CV-Bench: counts, relations, depth and distance in single pictures, by letter.

Our rule for letters counts; others' stand under "vgllm_overall" and "lmms_overall". Source: Cambrian-1
(arXiv:2406.16860).
"""

from collections.abc import Sequence

from ...processing.data.scene_sample import SceneSample
from ..metrics.cv_bench import cv_bench_aggregate
from .benchmark import Benchmark
from .short_answers import letters_by


def average(samples: Sequence[SceneSample], scores: Sequence[float], mode: str) -> dict:
    """Average scores as the benchmark does, by source and task."""
    sources, tasks = zip(*((sample.metadata["source"], sample.question_type) for sample in samples), strict=True)
    return cv_bench_aggregate(scores, sources, tasks)


CV_BENCH = Benchmark(
    "cv_bench",
    "CV-Bench: counts, relations, depth and distance in single pictures",
    source="cv_bench",
    split="test",
    **letters_by(average, ("vgllm", "lmms")),
)
