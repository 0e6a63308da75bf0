"""English words for numbers: "twenty-one", "two hundred and five", "three point five", "two and a half"."""

import re


WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = {"hundred": 100, "thousand": 1000, "million": 1000000}
FRACTIONS = {"half": 0.5, "quarter": 0.25}
_VALUES = {word: value for value, word in enumerate(WORDS)} | {word: 20 + 10 * i for i, word in enumerate(TENS)}


def _any_of(words):
    return f"(?:{'|'.join(sorted(words, key=len, reverse=True))})"


_GAP = r"(?:\s+|\s*-\s*)"
_AND = rf"(?:{_GAP}and)?{_GAP}"
_BELOW_100 = rf"(?:{_any_of(TENS)}(?:{_GAP}{_any_of(WORDS[1:10])})?|{_any_of(WORDS)})"
_WHOLE = _BELOW_100
for _scale in SCALES:  # each scale takes a number of the smaller ones before it and after it
    _WHOLE = rf"(?:(?:(?:{_WHOLE}|an?){_GAP})?{_scale}(?:{_AND}{_WHOLE})?|{_WHOLE})"
FRACTION = rf"(?:\s+and\s+(?:a|one)\s+(?P<fraction>{_any_of(FRACTIONS)})\b(?!-))"
NUMBER_WORDS = rf"\b(?P<whole>{_WHOLE})(?:{_GAP}point(?P<decimals>(?:{_GAP}{_any_of(WORDS[:10])}\b)+))?\b"


def whole_number(words: str) -> int:
    """The value of words that `NUMBER_WORDS` found as "whole": "two thousand and five" is 2005.

    Args:
        words (`str`): words in lower case.
    Returns:
        `int`.
    """
    total, current = 0, None
    for word in re.findall("[a-z]+", words):
        if word in _VALUES:
            current = (current or 0) + _VALUES[word]
        elif word in SCALES:
            current = SCALES[word] * (1 if current is None else current)
            if word != "hundred":
                total, current = total + current, None
    return total + (current or 0)


def decimals(words: str) -> str:
    """The digits of words that `NUMBER_WORDS` found as "decimals": "five zero" is "50"."""
    return "".join(str(_VALUES[word]) for word in re.findall("[a-z]+", words))
