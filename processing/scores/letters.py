"""Letters of multiple-choice answers, by our rule and by those of published evaluators.

CV-Bench, BLINK, MMSI and SPAR-Bench score with these.
"""

import re

from ..answers_gap_mllm import ParsedAnswer, parse_choice
from .reference_checks import as_text, check_choice


EXTRACTION_MODES = ("strict", "vgllm", "lmms", "spar", "mmsi")
_UNWRAPPED = (re.compile(r"``([^`]*)``"), re.compile(r"`([^`]*)`"), re.compile(r"\{([^}]*)\}"))


def extract_choice(text: str, letters: str = "ABCDEF", mode: str = "strict") -> str | None:
    """Find the letter that an answer chooses.

    Args:
        text (`str`): a generated answer, whatever it holds.
        letters (`str`, defaults to "ABCDEF"): the capitals that are offered.
        mode (`str`, defaults to "strict"): "strict": `parse_choice`, which takes tags, brackets and sentences and
            refuses what is not clear. "vgllm": the first capital that is offered, wherever it stands ("Answer: C" is
            A). "lmms": the letter that the text begins with, offered or not ("The answer is B" is T). "spar": the
            first character. "mmsi": the first offered letter that stands alone, in any case, and not before a word.
    Returns:
        `str` or None: a capital, or None where the rule finds none, or the answer is no text.
    Raises:
        ValueError: on an unknown mode, or if `letters` is not of capitals A to Z.

    Example:
        ```python
        >>> from gap_mllm.evaluation import extract_choice
        >>> extract_choice("The answer is (B)."), extract_choice("The answer is B", mode="lmms")
        ('B', 'T')

        ```
    """
    return read_choice(text, letters, mode).first


def read_choice(text: str, letters: str = "ABCDEF", mode: str = "strict") -> ParsedAnswer[str]:
    """Read the letter of an answer as `extract_choice`; in mode "strict" with the reason where there is none.

    Args:
        text (`str`), letters (`str`, defaults to "ABCDEF"), mode (`str`, defaults to "strict"): arguments of
            `extract_choice`.
    Returns:
        `ParsedAnswer[str]`: one capital, or none.
    Raises:
        ValueError: as `extract_choice`.
    """
    check_choice(mode, "mode", EXTRACTION_MODES)
    if not isinstance(letters, str) or not re.fullmatch("[A-Z]+", letters):
        raise ValueError(f"letters must be capitals from A to Z, got {letters!r}.")
    if as_text(text) is None:
        return ParsedAnswer()
    if mode == "strict":
        return parse_choice(text, letters)
    if mode == "mmsi":
        for wrapped in _UNWRAPPED:
            # Only as far as one could end: else many that stay open take quadratic time.
            found = wrapped.search(text[: text.rfind("}") + 1] if "}" in wrapped.pattern else text)
            text = found[1] if found else text
    pattern = {
        "vgllm": rf"([{letters}])",
        "lmms": r"\A\s*\(?([A-Za-z])",
        "spar": rf"\A([{letters}{letters.lower()}])",
        "mmsi": rf"\b([{letters}{letters.lower()}])\b(?!\s[A-Za-z])",
    }[mode]
    found = re.search(pattern, text)
    return ParsedAnswer((found[1].upper(),)) if found else ParsedAnswer()


def answer_letter(answer: str) -> str:
    """The letter of a true answer, given as "B" or "(B)".

    Args:
        answer (`str`): answer of an annotation.
    Returns:
        `str`: a capital.
    Raises:
        ValueError: if it is anything else.
    """
    found = re.fullmatch(r"\s*(?:\(([A-Za-z])\)|([A-Za-z]))\s*", answer) if isinstance(answer, str) else None
    if found is None:
        raise ValueError(f'the true answer is {answer!r}; expected one letter, as "B" or "(B)".')
    return (found[1] or found[2]).upper()


def choice_score(prediction: str, answer: str, letters: str = "ABCDEF", mode: str = "strict") -> float:
    """1 if the letter of an answer is the true one, else 0; without a readable letter 0.

    Args:
        prediction (`str`): a generated answer.
        answer (`str`): the true letter, as "B" or "(B)".
        letters (`str`, defaults to "ABCDEF"), mode (`str`, defaults to "strict"): arguments of `extract_choice`.
    Returns:
        `float`: 0 or 1.
    Raises:
        ValueError: as `extract_choice` and `answer_letter`; also if the true letter is none of `letters`.

    Example:
        ```python
        >>> from gap_mllm.evaluation import choice_score
        >>> choice_score("B. The chair", "(B)")
        1.0

        ```
    """
    return letter_score(extract_choice(prediction, letters, mode), answer, letters)


def letter_score(letter: str | None, answer: str, letters: str = "ABCDEF") -> float:
    """1 if a letter that was read is the true one, else 0; arguments and errors as `choice_score`."""
    truth = answer_letter(answer)
    if truth not in letters:
        raise ValueError(f"the true answer is {answer!r}; expected one of the letters {letters}.")
    return float(letter == truth)
