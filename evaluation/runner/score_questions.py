"""Answers to questions in words, letters and numbers, by the metrics of the benchmarks; see score_points.py."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from ...processing.answers_gap_mllm import parse_choice
from ...processing.data.scene_sample import SceneSample
from ..intervals import with_interval
from ..metrics.blink import blink_aggregate, blink_score
from ..metrics.cv_bench import LETTERS, cv_bench_aggregate, cv_bench_score
from ..metrics.mmsi import mmsi_aggregate, mmsi_score
from ..metrics.scanqa import is_empty_answer, scanqa_aggregate, scanqa_score
from ..metrics.spar_bench import spar_bench_aggregate, spar_bench_is_unparsed, spar_bench_score
from ..metrics.sqa3d import sqa3d_aggregate, sqa3d_question_type, sqa3d_score
from ..metrics.vsibench import (
    CHOICE_TYPES,
    NUMBER_TYPES,
    vsibench_aggregate,
    vsibench_is_unparsed,
    vsibench_overall,
    vsibench_score,
)


def vsibench(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0):
    """VSI-Bench by the official rule; under "lenient_overall" leniently read, under "lmms_eval_overall" as lmms-eval.

    See `vsibench_score` and `vsibench_overall`.

    Args:
        samples (`list[SceneSample]`), texts (`list[str]`), seed (`int`)
    Returns:
        `tuple[dict, list[dict]]`: what `vsibench_aggregate` gives, the two above, and "mean_score" over all questions
        with its interval; questions of types that are not the benchmark's are counted only.
    """
    known = set(CHOICE_TYPES + NUMBER_TYPES)
    is_known = [sample.question_type in known for sample in samples]
    records, lenient = [], []
    for sample, text, counts in zip(samples, texts, is_known, strict=True):
        kind = sample.question_type
        strict_score = vsibench_score(text, sample.answer, kind) if counts else 0.0
        lenient.append(vsibench_score(text, sample.answer, kind, "lenient") if counts else 0.0)
        rejected = "unknown question type"
        if counts:
            rejected = "no letter or number" if vsibench_is_unparsed(text, kind) else None
        records.append(_record(text, strict_score, kind, rejected, lenient_score=lenient[-1]))
    scored = _kept([record["score"] for record in records], is_known)
    kinds = _kept([sample.question_type for sample in samples], is_known)
    metrics = vsibench_aggregate(scored, kinds)
    metrics["num_other_types"] = len(samples) - len(kinds)
    metrics["lenient_overall"] = vsibench_aggregate(_kept(lenient, is_known), kinds)["overall"]
    answers = [sample.answer for sample in _kept(samples, is_known)]
    metrics["lmms_eval_overall"] = vsibench_overall(_kept(texts, is_known), answers, kinds, mode="lmms_eval")
    return metrics | _interval("mean_score", scored, _kept(samples, is_known), seed), records


def spar_bench(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0):
    """SPAR-Bench by the corrected rule, and by the published one under "reference_overall"; see `spar_bench_score`.

    Returns:
        `tuple[dict, list[dict]]`: as `vsibench`.
    """
    kinds = [sample.question_type for sample in samples]
    scores, published, records = [], [], []
    for sample, text in zip(samples, texts, strict=True):
        question = text, sample.answer, sample.question_type
        scores.append(spar_bench_score(*question))
        published.append(spar_bench_score(*question, mode="reference"))
        rejected = "no letter, number or motion" if spar_bench_is_unparsed(*question) else None
        records.append(_record(text, scores[-1], sample.question_type, rejected, reference_score=published[-1]))
    metrics = spar_bench_aggregate(scores, kinds)
    metrics["reference_overall"] = spar_bench_aggregate(published, kinds, "reference")["overall"]
    return metrics | _interval("mean_score", scores, samples, seed), records


def scanqa(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0):
    """ScanQA: exact and refined matches; see `scanqa_score`.

    Returns:
        `tuple[dict, list[dict]]`: as `vsibench`; the interval is that of "em".
    """
    scores = [scanqa_score(text, sample.references) for sample, text in zip(samples, texts, strict=True)]
    records = [
        _record(text, score["em"], sample.question_type, _why_empty(text), em_refined=score["em_refined"])
        for sample, text, score in zip(samples, texts, scores, strict=True)
    ]
    return scanqa_aggregate(scores) | _interval("em", [score["em"] for score in scores], samples, seed), records


def sqa3d(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0):
    """SQA3D: exact and refined matches over all questions and by type; see `sqa3d_score`.

    Returns:
        `tuple[dict, list[dict]]`: as `scanqa`.
    """
    kinds = [sqa3d_question_type(str(sample.metadata.get("question", ""))) for sample in samples]
    scores = [sqa3d_score(text, sample.answer) for sample, text in zip(samples, texts, strict=True)]
    records = [
        _record(text, score["em"], kind, _why_empty(text), em_refined=score["em_refined"])
        for text, score, kind in zip(texts, scores, kinds, strict=True)
    ]
    exact = [score["em"] for score in scores]
    return sqa3d_aggregate(scores, kinds) | _interval("em", exact, samples, seed), records


def cv_bench(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0):
    """CV-Bench by our rule for letters, and by others' under "vgllm_overall" and "lmms_overall"; see `cv_bench_score`.

    Returns:
        `tuple[dict, list[dict]]`: as `vsibench`.
    """
    sources = [sample.metadata["source"] for sample in samples]

    def average(scores: Sequence[float], kinds: Sequence[str]):
        return cv_bench_aggregate(scores, sources, kinds)

    return _letters(samples, texts, seed, cv_bench_score, average, ("vgllm", "lmms"))


def blink(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0):
    """BLINK by our rule for letters, and by others' under "vgllm_overall" and "lmms_overall"; see `blink_score`.

    Returns:
        `tuple[dict, list[dict]]`: as `vsibench`.
    """
    return _letters(samples, texts, seed, blink_score, blink_aggregate, ("vgllm", "lmms"))


def mmsi(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0):
    """MMSI-Bench by our rule for letters, and by the benchmark's under "mmsi_overall"; see `mmsi_score`.

    Returns:
        `tuple[dict, list[dict]]`: as `vsibench`.
    """
    return _letters(samples, texts, seed, mmsi_score, mmsi_aggregate, ("mmsi",))


def _letters(samples, texts, seed, score, average, other_modes):
    """Score letters by our rule and by others, which stand beside it as single figures."""
    kinds = [sample.question_type for sample in samples]
    by_mode = {
        mode: [score(text, sample.answer, mode) for sample, text in zip(samples, texts, strict=True)]
        for mode in ("strict", *other_modes)
    }
    metrics = average(by_mode["strict"], kinds)
    metrics |= {f"{mode}_overall": average(by_mode[mode], kinds)["overall"] for mode in other_modes}
    records = []
    for place, text in enumerate(texts):
        read = parse_choice(text, LETTERS)
        rejected = None if read.items else read.rejected[0].reason
        others = {f"{mode}_score": by_mode[mode][place] for mode in other_modes}
        records.append(
            _record(text, by_mode["strict"][place], kinds[place], rejected, **others) | {"parsed": read.first}
        )
    return metrics | _interval("mean_score", by_mode["strict"], samples, seed), records


def check_answer(sample: SceneSample) -> None:
    """Raise ValueError if the answer to a question is not known."""
    if not sample.references:
        raise ValueError(
            f"question {sample.id!r} of split {sample.split!r} has no answer, so nothing can be scored; take a split "
            "whose answers are published."
        )


def _record(text, score, category, rejected, **more):
    parsed = None if rejected else text.strip()
    return {"parsed": parsed, "rejected": rejected, "score": score, "category": category, **more}


def _why_empty(text):
    return "empty" if is_empty_answer(text) else None


def _kept(values, keep):
    return [value for value, is_kept in zip(values, keep, strict=True) if is_kept]


def _interval(name, values, samples, seed):
    """Mean and interval over scenes; nothing without values."""
    if not values:
        return {}
    return with_interval(name, values, np.mean, [str(sample.scene_id) for sample in samples], seed)


def commonest_answer(samples: Sequence[SceneSample]):
    """For each type of question its commonest answer; the median where answers are numbers."""
    by_type = defaultdict(list)
    for sample in samples:
        by_type[sample.question_type].append(sample)
    texts = {}
    for kind, members in by_type.items():
        numbers = [sample.number for sample in members]
        if None not in numbers:
            texts[kind] = f"{float(np.median(numbers)):g}"
        else:
            counts = Counter(text or "" for sample in members for text in (sample.references or (sample.answer,)))
            texts[kind] = counts.most_common(1)[0][0]
    overall = Counter(texts.values()).most_common(1)[0][0]
    return lambda sample: texts.get(sample.question_type, overall)


__all__ = [
    "blink",
    "check_answer",
    "commonest_answer",
    "cv_bench",
    "mmsi",
    "scanqa",
    "spar_bench",
    "sqa3d",
    "vsibench",
]
