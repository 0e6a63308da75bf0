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


def letters_by(average: Callable, other_modes: tuple[str, ...]) -> dict:
    """How multiple choice is read and rated: by our rule for letters, and by others' as single figures beside it.

    Args:
        average (`Callable`): (samples, scores, types of questions) -> metrics with "overall".
        other_modes (`tuple[str, ...]`): further modes of `extract_choice`; "<mode>_overall" stands in the metrics.
    Returns:
        `dict`: arguments of `Benchmark`.
    """
    modes = ("strict", *other_modes)

    def read(sample: SceneSample, text: str) -> dict:
        return {mode: read_choice(text, LETTERS, mode) for mode in modes}

    def rate(samples: Sequence[SceneSample], answers: Sequence[dict], interval: Callable):
        kinds = [sample.question_type for sample in samples]
        scores = {
            mode: [
                letter_score(found[mode].first, sample.answer, LETTERS)
                for found, sample in zip(answers, samples, strict=True)
            ]
            for mode in modes
        }
        metrics = average(samples, scores["strict"], kinds)
        metrics |= {f"{mode}_overall": average(samples, scores[mode], kinds)["overall"] for mode in other_modes}
        records = []
        for place, (found, kind) in enumerate(zip(answers, kinds, strict=True)):
            letter, others = found["strict"], {f"{mode}_score": scores[mode][place] for mode in other_modes}
            rejected = None if letter.items else letter.rejected[0].reason
            records.append(short_record(letter.first, scores["strict"][place], kind, rejected, **others))
        return metrics | interval("mean_score", scores["strict"]), records

    return {**QUESTIONS, "read": read, "rate": rate, "tasks": ("spatial_qa",), "forms": (AnswerForm(16),)}


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
    records = []
    for (shown, cleaned), score, kind in zip(answers, scores, kinds, strict=True):
        parsed, rejected = (shown, None) if cleaned else (None, "empty")
        records.append(short_record(parsed, score["em"], kind, rejected, em_refined=score["em_refined"]))
    return records


QUESTIONS = {"constant": commonest_answer, "check": check_answer, "headline": "overall"}
WORDS = {**QUESTIONS, "read": read_words, "tasks": ("scene_qa",), "headline": "em", "forms": (AnswerForm(32),)}

__all__ = [
    "LETTERS",
    "QUESTIONS",
    "WORDS",
    "check_answer",
    "commonest_answer",
    "letters_by",
    "read_words",
    "short_record",
    "word_records",
]
