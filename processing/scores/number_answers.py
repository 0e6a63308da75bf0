"""Numbers and tagged answers in free text, and the mean relative accuracy of a number."""

import math
import re

import numpy as np

from .number_words import FRACTION, FRACTIONS, NUMBER_WORDS, SCALES, decimals, whole_number


_SCALE = rf"(?:\s+(?P<scale>{'|'.join(SCALES)})\b)?"
_DIGITS = r"(?<![\w^.])(?<!\^[-+])[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:e[-+]?\d+)?"
_SIGNED = re.compile(_DIGITS, re.IGNORECASE)
_NUMBER = re.compile(rf"(?:(?P<digits>{_DIGITS}){_SCALE}|{NUMBER_WORDS}){FRACTION}?")
RELATIVE_THRESHOLDS = np.linspace(0.5, 0.95, 10)


def first_number(text: str) -> float | None:
    """The first number in a text, in digits as `numbers_in` reads them or in English words; None where there is none.

    Words are read as one speaks: "two hundred and five" and "2 hundred and five chairs" begin with 205 and 200, "three
    point five" is 3.5, "2 and a half" 2.5. Words in a row that form no number are the first of them: "one two" is 1.

    Args:
        text (`str`): any text.
    Returns:
        `float` or None; infinite where a number is too large.

    Example:
        ```python
        >>> from gap_mllm.processing.scores import first_number
        >>> first_number("about two hundred and five")
        205.0

        ```
    """
    found = _NUMBER.search(text.replace("\u2212", "-").lower())
    if found is None:
        return None
    if found["digits"]:
        number = float(found["digits"].replace(",", "")) * SCALES.get(found["scale"], 1)
    else:
        number = float(f"{whole_number(found['whole'])}.{decimals(found['decimals'] or '')}")
    return number + FRACTIONS.get(found["fraction"], 0)


def numbers_in(text: str) -> list[float]:
    """Every number in a text, in digits: with its sign, "1,200" as 1200, "1e-2" as 0.01.

    Digits of a name ("m2"), of a power ("10^2" is 10) and of a second point ("2.5.1" is 2.5) are none, and a dash
    after a number is no sign ("3-4").

    Args:
        text (`str`): any text.
    Returns:
        `list[float]`: infinite where a number is too large.

    Example:
        ```python
        >>> from gap_mllm.processing.scores import numbers_in
        >>> numbers_in("1,200 mm, or -1.2 m2")
        [1200.0, -1.2]

        ```
    """
    return [float(found[0].replace(",", "")) for found in _SIGNED.finditer(text.replace("\u2212", "-"))]


def mean_relative_accuracy(prediction: float | None, target: float) -> float:
    """Share of the thresholds 0.5, 0.55, ..., 0.95 that a number keeps: |prediction - target| / |target| <= 1 - t.

    Source: VSI-Bench (arXiv:2412.14171). `Differs:` for target 0, where the ratio is undefined, 0 alone is right.

    Args:
        prediction (`float`, *optional*): None, NaN and infinity score 0.
        target (`float`): finite.
    Returns:
        `float` in 0..1.

    Example:
        ```python
        >>> from gap_mllm.processing.scores import mean_relative_accuracy
        >>> mean_relative_accuracy(4.0, 4.0), mean_relative_accuracy(5.0, 4.0)
        (1.0, 0.6)

        ```
    """
    if prediction is None or not math.isfinite(prediction):
        return 0.0
    if target == 0:
        return float(prediction == 0)
    return float(np.mean(abs(prediction - target) / abs(target) <= 1 - RELATIVE_THRESHOLDS))
