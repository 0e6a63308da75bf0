"""Answers in a letter, a number or a few words: what the benchmarks of questions share."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from ...processing.asking_gap_mllm import AnswerForm
from ...processing.data.scene_sample import SceneSample
from ...processing.scores.letters import letter_score, read_choice
from ..metrics.scanqa import scanqa_read


LETTERS = "ABCDEF"


def short_record(parsed: str | None, score: float, category: str | None, rejected: str | None, **more) -> dict:
    """What predictions.jsonl holds of a short answer."""
    return {"parsed": parsed, "rejected": rejected, "score": score, "category": category, **more}


def check_answer(sample: SceneSample) -> None:
    """Raise ValueError if the answer to a question is not known."""
    if not sample.references:
        raise ValueError(
            f"question {sample.id!r} of split {sample.split!r} has no answer, so nothing can be scored; take a split "
            "whose answers are published."
        )


def commonest_answer(samples: Sequence[SceneSample]) -> Callable:
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


def by_rules(modes: Sequence[str], read_by: Callable, rate_by: Callable, show: Callable, average: Callable) -> dict:
    """Read and rate by several rules: the first counts, others stand beside it as single figures, "<mode>_overall".

    Args:
        modes (`tuple[str, ...]`): the rules, ours first.
        read_by (`Callable`): (sample, text, mode) -> what the rule reads.
        rate_by (`Callable`): (reading, sample, mode) -> the score of one answer.
        show (`Callable`): (reading, text) -> what a record holds under "parsed" and "rejected", of our rule.
        average (`Callable`): (samples, scores, mode) -> metrics with "overall".
    Returns:
        `dict`: `read` and `rate` of a `Benchmark`.
    """

    def read(sample: SceneSample, text: str) -> tuple:
        found = {mode: read_by(sample, text, mode) for mode in modes}
        return found, show(found[modes[0]], text.strip())

    def rate(samples: Sequence[SceneSample], answers: Sequence[tuple], interval: Callable):
        pairs = list(zip(answers, samples, strict=True))
        scores = {mode: [rate_by(found[mode], sample, mode) for (found, _), sample in pairs] for mode in modes}
        metrics, records = average(samples, scores[modes[0]], modes[0]), []
        metrics |= {f"{mode}_overall": average(samples, scores[mode], mode)["overall"] for mode in modes[1:]}
        for ((_, (parsed, rejected)), sample), score, *others in zip(pairs, *scores.values(), strict=True):
            more = {f"{mode}_score": other for mode, other in zip(modes[1:], others, strict=True)}
            records.append(short_record(parsed, score, sample.question_type, rejected, **more))
        return metrics | interval("mean_score", scores[modes[0]]), records

    return {"read": read, "rate": rate}


def letters_by(average: Callable, other_modes: tuple[str, ...]) -> dict:
    """Multiple choice, by our rule for letters and by other modes of `extract_choice`; arguments as `by_rules`."""
    rules = by_rules(
        ("strict", *other_modes),
        read_by=lambda sample, text, mode: read_choice(text, LETTERS, mode),
        rate_by=lambda found, sample, mode: letter_score(found.first, sample.answer, LETTERS),
        show=lambda found, text: (found.first, None if found.items else found.rejected[0].reason),
        average=average,
    )
    return {**QUESTIONS, **rules, "tasks": ("spatial_qa",), "forms": (AnswerForm(16),)}


def read_words(sample: SceneSample, text: str) -> tuple[str, str | None]:
    """An answer as it is shown, and cleaned, as it is compared."""
    return text.strip(), scanqa_read(text)


def word_records(answers: Sequence[tuple], scores: Sequence[dict], kinds: Sequence[str | None]) -> list[dict]:
    """Records of answers in words.

    Args:
        answers (`list[tuple]`): what `read_words` gave.
        scores (`list[dict]`), kinds (`list[str]`): "em" and "em_refined" of each, and its category.
    Returns:
        `list[dict]`.
    """
    read = [(shown, None) if cleaned else (None, "empty") for shown, cleaned in answers]
    return [
        short_record(parsed, score["em"], kind, rejected, em_refined=score["em_refined"])
        for (parsed, rejected), score, kind in zip(read, scores, kinds, strict=True)
    ]


QUESTIONS = {"constant": commonest_answer, "check": check_answer, "headline": "overall"}
WORDS = {**QUESTIONS, "read": read_words, "tasks": ("scene_qa",), "headline": "em", "forms": (AnswerForm(32),)}
