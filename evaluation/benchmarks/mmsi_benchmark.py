"""MMSI-Bench: where cameras, objects and regions are, and how they move, over several pictures, by letter.

Our rule for letters counts; the benchmark's stands under "mmsi_overall". Source: MMSI-Bench (arXiv:2505.23764).
"""

from ..metrics.mmsi import mmsi_aggregate
from .benchmark import Benchmark
from .short_answers import letters_by


MMSI = Benchmark(
    "mmsi",
    "MMSI-Bench: where cameras, objects and regions are, and how they move, over several pictures",
    source="mmsi",
    split="test",
    **letters_by(
        lambda samples, scores, mode: mmsi_aggregate(scores, [sample.question_type for sample in samples]), ("mmsi",)
    ),
)
