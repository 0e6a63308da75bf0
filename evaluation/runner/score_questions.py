"""Answers to questions in words, letters and numbers, by the metrics of the benchmarks; see score_points.py."""

from collections import Counter, defaultdict

import numpy as np

from ..intervals import with_interval
from ..metrics.vsibench import CHOICE_TYPES, NUMBER_TYPES, vsibench_aggregate, vsibench_score


def vsibench(samples, texts, seed: int = 0):
    """VSI-Bench by the official rule, and leniently read under "lenient_overall"; see `vsibench_score`.

    Args:
        samples (`list[SceneSample]`), texts (`list[str]`), seed (`int`)
    Returns:
        `tuple[dict, list[dict]]`: what `vsibench_aggregate` gives, "lenient_overall", "mean_score" with its interval.
    """
    known = set(CHOICE_TYPES + NUMBER_TYPES)
    records, kinds, lenient = [], [], []
    for sample, text in zip(samples, texts, strict=True):
        if sample.question_type not in known:
            records.append(_record(text, 0.0, sample, "unknown question type"))
            continue
        scores = [
            vsibench_score(text, sample.answer, sample.question_type, mode=mode) for mode in ("strict", "lenient")
        ]
        kinds.append(sample.question_type)
        lenient.append(scores[1])
        records.append(_record(text, scores[0], sample, None if text.strip() else "empty"))
        records[-1]["lenient_score"] = scores[1]
    is_known = [sample.question_type in known for sample in samples]
    counted = [record["score"] for record, counts in zip(records, is_known, strict=True) if counts]
    metrics = vsibench_aggregate(counted, kinds)
    metrics["lenient_overall"] = vsibench_aggregate(lenient, kinds)["overall"]
    metrics["num_other_types"] = len(samples) - len(kinds)
    if counted:
        scenes = [str(sample.scene_id) for sample in samples if sample.question_type in known]
        metrics |= with_interval("mean_score", counted, np.mean, scenes, seed)
    return metrics, records


def _record(text, score, sample, rejected):
    parsed = None if rejected else text.strip()
    return {"parsed": parsed, "rejected": rejected, "score": score, "category": sample.question_type}


def commonest_answer(samples):
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
            counts = Counter(text for sample in members for text in (sample.references or (sample.answer,)))
            texts[kind] = counts.most_common(1)[0][0] or ""
    overall = Counter(texts.values()).most_common(1)[0][0]
    return lambda sample: texts.get(sample.question_type, overall)


__all__ = ["commonest_answer", "vsibench"]
