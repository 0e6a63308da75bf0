"""Numbers and objects exchanged in the text of an answer, all else as it was.

The number of decimals, the fence, the order of the objects and their labels stay as the source wrote them. The keys
are those of answers_gap_mllm.py, which also reads the result back.
"""

import json
import re

import numpy as np

from ...answers_gap_mllm import BOX_KEYS, POINT_KEY


NUMBER_LIST = re.compile(rf'"(?P<key>{"|".join((*BOX_KEYS, POINT_KEY))})"\s*:\s*(?P<list>\[[^\[\]]*\])')
_OBJECT = re.compile(r"\{[^{}]*\}")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_DECIMALS = re.compile(r"\d\.(\d+)")


def read_numbers(text: str) -> list[float]:
    """The numbers of a text, such as "[1.5, 0.25]"."""
    return [float(number) for number in _NUMBER.findall(text)]


def num_decimals(text: str) -> int:
    """The largest number of digits after the point among the numbers of a text."""
    return max(map(len, _DECIMALS.findall(text)), default=0)


def write_numbers(text: str, numbers, decimals: int, is_padded: bool = False) -> str:
    """Put other numbers in the places of the numbers of a list, spaces and commas kept.

    Numbers that did not change keep their spelling.

    Args:
        text (`str`): such as "[1.5, 0.25]".
        numbers (sequence of `float`): as many as the text holds.
        decimals (`int`): digits after the point.
        is_padded (`bool`, defaults to False): whether zeros fill up to that number of digits.
    Returns:
        `str`.
    """
    numbers = iter(numbers)

    def write(found):
        number = round(float(next(numbers)), decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
        if number == float(found.group(0)):
            return found.group(0)
        if is_padded or decimals == 0:
            return f"{number:.{decimals}f}"
        return json.dumps(number)

    return _NUMBER.sub(write, text)


def rewrite_lists(text: str, move, min_decimals: int = 0) -> str:
    """Apply `move(key, numbers, index) -> numbers` to every list of an answer; `index` counts them.

    As many decimals are written as the answer has, and at least `min_decimals`.
    """
    lists = [found.group("list") for found in NUMBER_LIST.finditer(text)]
    decimals = max([min_decimals, *map(num_decimals, lists)])
    is_padded = decimals > 1 and any(
        number.endswith("0") and len(number.partition(".")[2]) == decimals
        for entry in lists
        for number in _NUMBER.findall(entry)
    )
    count = iter(range(len(lists)))

    def write(found):
        numbers = read_numbers(found.group("list"))
        moved = write_numbers(found.group("list"), move(found.group("key"), numbers, next(count)), decimals, is_padded)
        start, end = found.span("list")
        return found.group(0)[: start - found.start()] + moved + found.group(0)[end - found.start() :]

    return NUMBER_LIST.sub(write, text)


def mirror_numbers(text: str) -> str:
    """Mirror the numbers of an answer: x of a point; of a box x and the angles about z and y, whatever its order.

    Raises:
        ValueError: if a list holds too few or too many numbers.
    """
    signs = {POINT_KEY: np.array([-1, 1, 1]), **dict.fromkeys(BOX_KEYS, np.array([-1, 1, 1, 1, 1, 1, -1, 1, -1]))}

    def move(key, numbers, index):
        if len(numbers) != len(signs[key]):
            raise ValueError(f"its answer holds {len(numbers)} numbers in {key!r}, expected {len(signs[key])}.")
        return np.array(numbers) * signs[key]

    return rewrite_lists(text, move)


def remove_objects(text: str, gone: set[int]) -> str:
    """Take objects out of an answer's list, with the separators between; without any left the list is empty."""
    if not gone:
        return text
    spans = [found.span() for found in _OBJECT.finditer(text)]
    between = text[spans[0][1] : spans[1][0]] if len(spans) > 1 else ""
    kept = [text[start:end] for index, (start, end) in enumerate(spans) if index not in gone]
    return text[: spans[0][0]] + between.join(kept) + text[spans[-1][1] :]


__all__ = [
    "NUMBER_LIST",
    "mirror_numbers",
    "num_decimals",
    "read_numbers",
    "remove_objects",
    "rewrite_lists",
    "write_numbers",
]
