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
        text = _without_blocks(text, opening, closing)
        if opening not in text and closing in text:
            text = text.rsplit(closing, 1)[1]
    return text.strip()


def _without_blocks(text, opening, closing):
    """Cut the first block again and again, as long as one has an end; in one pass.

    What stood around a block may form a tag, which then opens the next one, as where the text is made anew each time.
    """
    kept, place, start, length = [], 0, text.find(opening), len(opening)  # kept: characters
    while True:
        last = "".join(kept[1 - length :])
        joined = (last + text[place : place + length - 1]).find(opening)
        if joined >= 0:
            after = place + joined + length - len(last)
        elif start >= 0:
            after = start + length
        end = text.find(closing, after) if joined >= 0 or start >= 0 else -1
        if end < 0:
            return "".join(kept) + text[place:]
        if joined >= 0:
            del kept[len(kept) - len(last) + joined :]
        else:
            kept.extend(text[place:start])
        place = end + len(closing)
        if 0 <= start < place:
            start = text.find(opening, place)
