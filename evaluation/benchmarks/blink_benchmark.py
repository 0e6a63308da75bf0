"""BLINK: fourteen tasks of visual perception on one to four pictures, by letter.

Our rule for letters counts; others' stand under "vgllm_overall" and "lmms_overall". Source: BLINK (arXiv:2404.12390).
"""

from ..metrics.blink import blink_aggregate
from .benchmark import Benchmark
from .short_answers import letters_by


BLINK = Benchmark(
    "blink",
    "BLINK: fourteen tasks of visual perception on one to four pictures",
    source="blink",
    split="val",
    **letters_by(
        lambda samples, scores, mode: blink_aggregate(scores, [sample.question_type for sample in samples]),
        ("vgllm", "lmms"),
    ),
)
