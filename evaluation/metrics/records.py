"""Predictions and references by id, and the averages that benchmarks of questions share."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from ...processing.scores.letters import extract_choice, letter_score
from ...processing.scores.reference_checks import check_choice, check_equal_lengths, is_number, map_named, shorten


def align_by_id(predictions: Iterable[dict], references: Iterable[dict], key: str = "id") -> list[tuple[dict, dict]]:
    """Pair the records of a prediction file with those of a benchmark, in the benchmark's order.

    Args:
        predictions, references (iterables of `dict`): each with its id under `key`.
        key (`str`, defaults to "id"): the field of the id.
    Returns:
        `list` of (prediction, reference).
    Raises:
        ValueError: if a record is no dict or has no id, an id is there twice, or the two differ in ids; it names up
            to five.

    Example:
        ```python
        >>> from gap_mllm.evaluation import align_by_id
        >>> align_by_id([{"id": 2, "text": "B"}, {"id": 1, "text": "A"}], [{"id": 1}, {"id": 2}])
        [({'id': 1, 'text': 'A'}, {'id': 1}), ({'id': 2, 'text': 'B'}, {'id': 2})]

        ```
    """
    predicted, referred = _by_id(predictions, key, "predictions"), _by_id(references, key, "references")
    missing = [name for name in referred if name not in predicted]
    surplus = [name for name in predicted if name not in referred]
    if missing or surplus:
        raise ValueError(
            f"predictions lack {len(missing)} of {len(referred)} ids of the references{_some(missing)} and have "
            f"{len(surplus)} others{_some(surplus)}; give one prediction for each reference."
        )
    return [(predicted[name], reference) for name, reference in referred.items()]


def check_unique(ids: Iterable, name: str = "ids") -> None:
    """Raise ValueError if an id is missing (None, NaN or a container), or there twice, naming up to five."""
    ids = list(ids)
    for index, value in enumerate(ids):
        if not isinstance(value, str) and not (is_number(value) and math.isfinite(value)):
            raise ValueError(f"{name}[{index}] has the id {shorten(value)}; expected a text or a number.")
    twice = [value for value, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(f"{name} has {len(twice)} ids more than once{_some(twice)}; give each record once.")


def score_each(score: Callable, **columns: Sequence) -> list:
    """Return `score` of each row of some columns; an error names the row's reference.

    Args:
        score (`Callable`): takes one value of each column.
        **columns (sequences): columns of one length.
    Returns:
        `list`: one result a row.
    Raises:
        ValueError: if the columns differ in length, or where `score` raises ValueError or TypeError.
    """
    check_equal_lengths(**columns)
    return map_named("reference", score, *columns.values())


def score_letters(
    predictions: Sequence[str], answers: Sequence[str], letters: str, mode: str, modes: Sequence[str]
) -> tuple[list[float], int]:
    """Score multiple-choice answers, each read once.

    Args:
        predictions (sequence of `str`), answers (sequence of `str`): texts and true letters, one each a question.
        letters (`str`), mode (`str`): arguments of `extract_choice`.
        modes (sequence of `str`): those of the benchmark.
    Returns:
        `tuple[list[float], int]`: 0 or 1 for each, and how many hold no letter that is offered.
    Raises:
        ValueError: on another mode, if the columns differ in length, and on a wrong reference, which is named.
    """
    check_choice(mode, "mode", modes)
    found = [extract_choice(prediction, letters, mode) for prediction in predictions]
    scores = score_each(lambda read, answer: letter_score(read, answer, letters), predictions=found, answers=answers)
    return scores, sum(letter is None or letter not in letters for letter in found)


def means_by_group(scores: Sequence[float], groups: Sequence[Hashable]) -> dict:
    """The mean score of each group, in order of first appearance.

    Args:
        scores (sequence of `float`), groups (sequence of hashables): one each for every question.
    Returns:
        `dict` of group to `float`.
    Raises:
        ValueError: if the two differ in length, or a score is not finite.
    """
    check_equal_lengths(scores=scores, groups=groups)
    for index, score in enumerate(scores):
        if not is_number(score) or not math.isfinite(score):
            raise ValueError(f"score {index} is {score}; expected a finite number (an unreadable answer scores 0).")
    return {group: float(np.mean([scores[at] for at in places])) for group, places in places_by_group(groups).items()}


def places_by_group(groups: Iterable[Hashable]) -> dict:
    """Where each group stands in a list of them, in order of first appearance."""
    places = defaultdict(list)
    for place, group in enumerate(groups):
        places[group].append(place)
    return places


def mean_or_nan(values: Iterable[float]) -> float:
    """The plain mean, NaN for no values."""
    values = list(values)
    return float(np.mean(values)) if values else math.nan


def mean_of_known(values: Iterable[float]) -> float:
    """The plain mean of the values that are not NaN; NaN for none."""
    return mean_or_nan(value for value in values if not math.isnan(value))


def _by_id(records, key, name):
    records = list(records)
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{name}[{index}] is {shorten(record)}; expected a dict with {key!r}.")
    without = sum(record.get(key) is None for record in records)
    if without:
        raise ValueError(f"{without} of {len(records)} {name} have no {key!r}.")
    check_unique([record[key] for record in records], name)
    return {record[key]: record for record in records}


def _some(names):
    return f" ({', '.join(map(repr, names[:5]))}{', ..' if len(names) > 5 else ''})" if names else ""
