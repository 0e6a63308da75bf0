"""Checks of the true side of a benchmark: a wrong reference stops the scoring and is named by its number or id.

A wrong prediction never does: it counts as wrong and as unparsed, see `as_text` in records.py.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np
import torch


class RecordValueError(ValueError):
    """An error in record `place` of a list: a shell that knows the record's id calls it by that.

    Args:
        kind (`str`): kind of record, as "scene". place (`int`): its number. problem (`str`): what is wrong with it.
    """

    def __init__(self, kind: str, place: int, problem: str):
        super().__init__(f"{kind} {place}: {problem}")
        self.place, self.problem = place, problem


@contextmanager
def naming(name: str, place: int | None = None):
    """Let an error of kind or value leave as ValueError, with the name of the record before its message.

    Args:
        name (`str`): name of the record, or with its `place` in a list the kind of record.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise (ValueError(f"{name}: {error}") if place is None else RecordValueError(name, place, error)) from error


def map_named(kind: str, function: Callable, *columns: Sequence) -> list:
    """What a function gives for each record; an error leaves as `naming` says, with the record's place.

    Args:
        kind (`str`): kind of record, as "scene". function (callable): called with one entry of each column.
        *columns (sequences): columns of one length.
    """
    results = []
    for place, row in enumerate(zip(*columns, strict=True)):
        with naming(kind, place):
            results.append(function(*row))
    return results


def check_record(record: dict, keys: dict, name: str = "the reference") -> None:
    """Raise ValueError unless a record is a dict with these keys.

    Args:
        record (any): record of a benchmark. keys (`dict`): each key with what is expected there, in words.
        name (`str`, defaults to "the reference"): name of the record, as "box 3".
    """
    if not isinstance(record, dict):
        raise ValueError(f"{name} is {shorten(record)}; expected a dict with {', '.join(map(repr, keys))}.")
    for key, expected in keys.items():
        if key not in record:
            raise ValueError(f"{name} has no {key!r}; expected {expected}.")


def check_true_text(value: object, name: str) -> str:
    """The value itself; ValueError if it is no text, or blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {shorten(value)}; expected text that is not blank.")
    return value


def true_numbers(value: object, name: str, count: int | None = None) -> np.ndarray:
    """The value as float64 of shape `(count,)`.

    Args:
        value (sequence of numbers), name (`str`), count (`int`, *optional*): how many there must be.
    Returns:
        `numpy.ndarray`.
    Raises:
        ValueError: if it is anything but so many finite numbers.
    """
    numbers = as_numbers(value)
    if numbers is None or not np.isfinite(numbers).all() or count not in (None, len(numbers)):
        wanted = "a list of" if count is None else count
        raise ValueError(f"{name} is {shorten(value)}; expected {wanted} finite numbers.")
    return numbers


def true_box(value: object, name: str, count: int) -> np.ndarray:
    """A true box as float64 of shape `(count,)`: centre, full sizes, and angles if there are nine numbers.

    Frame: any. Units: metres, radians.

    Args:
        value (sequence of numbers), name (`str`), count (`int`): 6 or 9.
    Returns:
        `numpy.ndarray`.
    Raises:
        ValueError: if it is not so many finite numbers, or a size is not positive.
    """
    numbers = true_numbers(value, name, count)
    if not (numbers[3:6] > 0).all():
        raise ValueError(f"{name} has sizes {numbers[3:6].tolist()}; expected positive ones.")
    return numbers


def true_array(value: object, name: str) -> np.ndarray:
    """The value as float64; ValueError if it is no regular array of numbers, as lists of unequal length."""
    array = as_array(value)
    if array is None:
        raise ValueError(f"{name} is {shorten(value)}; expected an array of numbers.")
    return array


def as_array(value: object) -> np.ndarray | None:
    """A regular array of numbers as float64, None for anything else, as one with True in it; None within it is NaN."""
    if isinstance(value, torch.Tensor):
        value = value.detach().double().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.astype(np.float64) if value.dtype.kind in "fiu" else None
    if not isinstance(value, list | tuple | np.ndarray | Real):
        return None
    try:
        array = np.array(value, dtype=object)  # keeps each number as it is
        kinds = set(map(type, array.flat)) - {type(None)}
        if not all(issubclass(kind, Real) and not issubclass(kind, bool | np.bool_) for kind in kinds):
            return None
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def as_numbers(value: object) -> np.ndarray | None:
    """A flat sequence of numbers as float64, None for anything else."""
    array = as_array(value)
    return array if array is not None and array.ndim == 1 else None


def is_list(value: object) -> bool:
    """Whether a value is a list, whatever it holds."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray | torch.Tensor) and value.ndim > 0)


def is_number(value: object) -> bool:
    """Whether a value is a real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def is_whole_number(value: object) -> bool:
    """Whether a value is a whole number by kind; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def shorten(value: object, length: int = 100) -> str:
    """How a value is written in a message."""
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}.."


def check_equal_lengths(**columns) -> int:
    """The common length of the columns; ValueError with all lengths if they differ."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"got {', '.join(f'{count} {name}' for name, count in lengths.items())}; give equally many.")
    return next(iter(lengths.values()))


def as_text(prediction: object) -> str | None:
    """The prediction if it is text, else None, which every metric counts as wrong and unparsed."""
    return prediction if isinstance(prediction, str) else None


def check_text(value: object, name: str) -> str:
    """The value itself; TypeError if it is no text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}; expected text.")
    return value


def check_choice(value: object, name: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless the value is one of the choices, which the message lists."""
    if value not in tuple(choices):
        raise ValueError(f"unknown {name} {value!r}; known are {', '.join(map(str, choices))}.")


def check_choices(values: Sequence, name: str, choices: Sequence[str]) -> None:
    """`check_choice` of each value, which the message names as a question."""
    map_named("question", lambda value: check_choice(value, name, choices), values)
