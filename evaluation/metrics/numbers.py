"""Numbers and tagged answers in free text, and the mean relative accuracy of a number."""

import math
import re

import numpy as np


WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_VALUES = {word: value for value, word in enumerate(WORDS)} | {word: 20 + 10 * i for i, word in enumerate(TENS)}
_DIGITS = r"-?\d+(?:\.\d+)?"
_THOUSANDS = r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?"
_WORD = rf"(?:{'|'.join(TENS)})(?:[- ](?:{'|'.join(WORDS[1:10])}))?|{'|'.join(sorted(WORDS, key=len, reverse=True))}"
_NUMBER = re.compile(rf"(?P<digits>{_DIGITS})|\b(?P<word>{_WORD})\b", re.IGNORECASE)
_LONG_NUMBER = re.compile(rf"(?P<digits>{_THOUSANDS}|{_DIGITS})|\b(?P<word>{_WORD})\b", re.IGNORECASE)
_SIGNED = re.compile(
    r"(?<![\w^.])(?<!\^[-+])[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE
)
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
RELATIVE_THRESHOLDS = np.linspace(0.5, 0.95, 10)


def first_number(text: str, thousands: bool = False) -> float | None:
    """The first number in a text, in digits or as an English word below a hundred; None where there is none.

    Args:
        text (`str`): any text.
        thousands (`bool`): read "1,200" as 1200, not as 1.
    Returns:
        `float` or None.
    """
    found = (_LONG_NUMBER if thousands else _NUMBER).search(text)
    if found is None:
        return None
    if found["digits"]:
        return float(found["digits"].replace(",", ""))
    return float(sum(_VALUES[part] for part in re.split(r"[- ]", found["word"].lower())))


def numbers_in(text: str) -> list[float]:
    """Every number in a text, in digits: with its sign, "1,200" as 1200, "1e-2" as 0.01.

    Digits of a name ("m2"), of a power ("10^2" is 10) and of a second point ("2.5.1" is 2.5) are none, and a dash
    after a number is no sign ("3-4").

    Args:
        text (`str`): any text.
    Returns:
        `list[float]`: infinite where a number is too large.
    """
    return [float(found[0].replace(",", "")) for found in _SIGNED.finditer(text.replace("\u2212", "-"))]


def last_answer_tag(text: str) -> str:
    """What the last `<answer>...</answer>` of a text holds, or the text itself without one."""
    found = _TAG.findall(text)
    return found[-1] if found else text


def mean_relative_accuracy(prediction: float | None, target: float) -> float:
    """Share of the thresholds 0.5, 0.55, ..., 0.95 that a number keeps: |prediction - target| / |target| <= 1 - t.

    Source: VSI-Bench (arXiv:2412.14171). `Differs:` for target 0, where the ratio is undefined, 0 alone is right.

    Args:
        prediction (`float`, *optional*): None, NaN and infinity score 0.
        target (`float`): finite.
    Returns:
        `float` in 0..1.
    """
    if prediction is None or not math.isfinite(prediction):
        return 0.0
    if target == 0:
        return float(prediction == 0)
    return float(np.mean(abs(prediction - target) / abs(target) <= 1 - RELATIVE_THRESHOLDS))


__all__ = ["RELATIVE_THRESHOLDS", "first_number", "last_answer_tag", "mean_relative_accuracy", "numbers_in"]
