"""VSI-Bench: questions about videos of rooms, answered with a letter or a number.

The official rule counts; what a lenient reading gives stands under "lenient_overall", lmms-eval's figure under
"lmms_eval_overall". Source: Thinking in Space (arXiv:2412.14171).
"""

from collections.abc import Callable, Sequence

from ...processing.asking_gap_mllm import AnswerForm
from ...processing.data.scene_sample import SceneSample
from ..metrics.lmms_eval_rules import lmms_eval_text
from ..metrics.vsibench import CHOICE_TYPES, NUMBER_TYPES, vsibench_aggregate, vsibench_rate, vsibench_read
from .benchmark import Benchmark
from .short_answers import QUESTIONS, short_record


MODES = ("strict", "lenient", "lmms_eval")


def read(sample: SceneSample, text: str) -> dict:
    """Read an answer by three rules; nothing where the question's type is not the benchmark's."""
    kind, shown = sample.question_type, {"text": text.strip()}
    if kind not in CHOICE_TYPES + NUMBER_TYPES:
        return shown
    cut = {"lmms_eval": lmms_eval_text(text)}
    return shown | {mode: vsibench_read(cut.get(mode, text), kind, mode) for mode in MODES}


def rate(samples: Sequence[SceneSample], answers: Sequence[dict], interval: Callable):
    """Score by the three rules; see `vsibench_score`.

    Args:
        samples (`list[SceneSample]`), answers (`list[dict]`), interval (`Callable`): questions, their readings, and
            see `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: what `vsibench_aggregate` gives, the figures of the other rules, and "mean_score"
        over all questions with its interval; questions of types that are not the benchmark's are counted only.
    """
    records, kinds, scores = [], [], {mode: [] for mode in MODES}
    for sample, answer in zip(samples, answers, strict=True):
        kind, rejected, score = sample.question_type, "unknown question type", dict.fromkeys(MODES, 0.0)
        if "strict" in answer:
            kinds.append(kind)
            score = {mode: vsibench_rate(answer[mode], sample.answer, kind, mode) for mode in MODES}
            for mode in MODES:
                scores[mode].append(score[mode])
            rejected = "no letter or number" if answer["strict"] is None else None
        parsed = None if rejected else answer["text"]
        records.append(short_record(parsed, score["strict"], kind, rejected, lenient_score=score["lenient"]))
    metrics = vsibench_aggregate(scores["strict"], kinds)
    metrics["num_other_types"] = len(samples) - len(kinds)
    for mode in MODES[1:]:
        metrics[f"{mode}_overall"] = vsibench_aggregate(scores[mode], kinds)["overall"]
    return metrics | interval("mean_score", scores["strict"]), records


VSIBENCH = Benchmark(
    "vsibench",
    "VSI-Bench: questions about videos of rooms",
    source="vsibench",
    split="test",
    tasks=("video_qa",),
    read=read,
    rate=rate,
    forms=(AnswerForm(16),),
    **QUESTIONS,
)
