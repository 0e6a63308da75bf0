"""Checks of numbers and flags that a caller passes; those of other arguments are in argument_checks.py."""

import math
import operator
from numbers import Real

import numpy as np


class WrongKindError(TypeError, ValueError):
    """An argument of the wrong kind. A ValueError, too: the command line reports those in one line."""


def check_flag(name: str, value: object) -> bool:
    """Return a flag; texts and numbers are none, as "no" counts as true.

    Raises:
        TypeError: if it is no bool.
    """
    if not isinstance(value, bool | np.bool_):
        raise WrongKindError(f"{name} is {value!r}; expected True or False.")
    return bool(value)


def check_count(name: str, value: object, least: int | None = 1) -> int:
    """Return a whole number of at least `least`, or any for None, as an `int`.

    Raises:
        TypeError: if it is no integer (a bool is none, nor is 2.0). ValueError: if it is below `least`.
    """
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None:
        bound = "" if least is None else f" of at least {least}"
        raise WrongKindError(f"{name} is {value!r}; expected an integer{bound}.")
    if least is not None and count < least:
        raise ValueError(f"{name} is {value}; expected {least} or more.")
    return count


def check_number(name: str, value: object, least: float = -math.inf, most: float = math.inf) -> float:
    """Return a finite number of a range, both ends included, as a `float`.

    Raises:
        TypeError: if it is no number (a bool is none). ValueError: if it is NaN, infinite or out of range.
    """
    expected = f"a finite number of at least {least:g}" if math.isfinite(least) else "a finite number"
    if math.isfinite(most):
        expected = f"a number from {least:g} to {most:g}"
    return _check_real(name, value, lambda number: math.isfinite(number) and least <= number <= most, expected)


def _check_real(name, value, is_good, expected):
    if isinstance(value, bool) or not isinstance(value, Real):
        raise WrongKindError(f"{name} is {value!r}; expected {expected}.")
    if not is_good(value):
        raise ValueError(f"{name} is {value}; expected {expected}.")
    return float(value)


def check_positive(name: str, value: object) -> float:
    """Return a finite number above 0 as a `float`.

    Raises:
        TypeError: if it is no number (a bool is none). ValueError: if it is NaN, infinite, 0 or negative.
    """
    return _check_real(name, value, lambda number: 0 < number < math.inf, "a positive finite number")


__all__ = ["WrongKindError", "check_count", "check_flag", "check_number", "check_positive"]
