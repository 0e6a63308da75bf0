"""How lmms-eval 0.7.3 reads answers to VSI-Bench, which mode "lmms_eval" of vsibench.py scores by.

Ours are in numbers.py and number_words.py; they read "one two" as one, this rule as three.
"""

import re

from ...processing.scores.number_words import SCALES, TENS, WORDS


REASONING_TAGS = ("think", "analysis")
_VALUES = {word: value for value, word in enumerate(WORDS)} | {word: 20 + 10 * i for i, word in enumerate(TENS)}
_VALUES |= {name: SCALES[name] for name in ("hundred", "thousand")}


def lmms_eval_number(text: str) -> float | None:
    """The number of an answer by lmms-eval: the first digits, or the words for numbers if they come earlier.

    Words in a row are added up whatever stands between them, "and", digits and signs, until another word comes;
    hundred and thousand multiply what precedes them. So "one two" is 3, "2 or three" 2, "one3" 1, "two, three" 5.

    Args:
        text (`str`): an answer.
    Returns:
        `float` or None where there is no number.
    """
    text = text.lower()
    digits = re.search(r"-?\d+(?:\.\d+)?", text)
    words = list(re.finditer("[a-z]+", text))
    first = next((place for place, word in enumerate(words) if word[0] in _VALUES), None)
    if digits and (first is None or digits.start() < words[first].start()):
        return float(digits[0])
    if first is None:
        return None
    total = current = 0.0
    for word in words[first:]:
        if word[0] == "and":
            continue
        if word[0] not in _VALUES:
            break
        value = _VALUES[word[0]]
        if value == 1000:
            total, current = total + 1000 * max(current, 1.0), 0.0
        else:
            current = 100 * max(current, 1.0) if value == 100 else current + value
    return total + current


def lmms_eval_text(text: str) -> str:
    """An answer as lmms-eval hands it to the scorer by default: without reasoning, and white space around it cut.

    Blocks of `<think>` and `<analysis>` go; of an end without a beginning, all before it; a beginning alone stays.

    Args:
        text (`str`): what the model wrote.
    Returns:
        `str`.
    """
    for tag in REASONING_TAGS:
        opening, closing = f"<{tag}>", f"</{tag}>"
        while opening in text:
            before, rest = text.split(opening, 1)
            if closing not in rest:
                break
            text = before + rest.split(closing, 1)[1]
        if opening not in text and closing in text:
            text = text.rsplit(closing, 1)[1]
    return text.strip()


__all__ = ["REASONING_TAGS", "lmms_eval_number", "lmms_eval_text"]
