"""CA-VQA: questions about frames of indoor captures, answered with yes or no, a choice, a count or a measure.

Source: MM-Spatial (arXiv:2503.13111).
"""

from collections.abc import Callable, Sequence

from ...processing.asking_gap_mllm import AnswerForm
from ...processing.data.scene_sample import SceneSample
from ..metrics.ca_vqa import ca_vqa_aggregate, ca_vqa_rate, ca_vqa_read
from .benchmark import Benchmark
from .short_answers import QUESTIONS, short_record


def check(sample: SceneSample) -> None:
    """Raise ValueError if a true count or measure has no number."""
    ca_vqa_rate(None, sample.answer, sample.question_type)


def read(sample: SceneSample, text: str) -> tuple:
    """An answer as it is shown, and as its task reads it."""
    return text.strip(), ca_vqa_read(text, sample.question_type)


def rate(samples: Sequence[SceneSample], answers: Sequence[tuple], interval: Callable):
    """Score by `ca_vqa_rate`.

    Args:
        samples (`list[SceneSample]`), answers (`list[tuple]`), interval (`Callable`): questions, their readings, and
            see `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: what `ca_vqa_aggregate` gives, and "mean_score" over all questions with its
        interval; records.
    """
    kinds = [sample.question_type for sample in samples]
    scores = [
        ca_vqa_rate(found, sample.answer, sample.question_type)
        for sample, (_, found) in zip(samples, answers, strict=True)
    ]
    read_or_not = [(None, "nothing to compare") if found is None else (shown, None) for shown, found in answers]
    records = [
        short_record(parsed, score["correct"], kind, rejected, error=score["error"])
        for (parsed, rejected), score, kind in zip(read_or_not, scores, kinds, strict=True)
    ]
    metrics = ca_vqa_aggregate(scores, kinds)
    return metrics | interval("mean_score", [score["correct"] for score in scores]), records


CA_VQA = Benchmark(
    "ca_vqa",
    "CA-VQA: questions about frames of indoor captures",
    source="ca_vqa",
    split="val",
    tasks=("spatial_qa",),
    read=read,
    rate=rate,
    forms=(AnswerForm(32),),
    **{**QUESTIONS, "check": check},
)
