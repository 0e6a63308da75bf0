"""VSTI-Bench: questions about how camera and objects lie and move in videos, answered with a letter or a number.

The published rule counts; what a lenient reading gives stands under "lenient_overall". Source: VLM-3R
(arXiv:2505.20279).
"""

from ...processing.asking_gap_mllm import AnswerForm
from ..metrics.vstibench import MODES, vstibench_aggregate, vstibench_rate, vstibench_read
from .benchmark import Benchmark
from .short_answers import QUESTIONS, by_rules


VSTIBENCH = Benchmark(
    "vstibench",
    "VSTI-Bench: questions about how camera and objects lie and move in videos",
    source="vstibench",
    split="test",
    tasks=("video_qa",),
    forms=(AnswerForm(16),),
    **by_rules(
        MODES,
        read_by=lambda sample, text, mode: vstibench_read(text, sample.question_type, mode),
        rate_by=lambda found, sample, mode: vstibench_rate(found, sample.answer, sample.question_type, mode),
        show=lambda found, text: (None, "no letter or number") if found is None else (text, None),
        average=lambda samples, scores, mode: vstibench_aggregate(scores, [item.question_type for item in samples]),
    ),
    **QUESTIONS,
)
