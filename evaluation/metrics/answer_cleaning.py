"""Short free answers brought to one form, and the two matches that ScanQA and SQA3D count.

Source: the cleaning of SQA3D (arXiv:2210.07474) and LEO (arXiv:2311.12871), which VLM-3R and Video-3D-LLM score with,
is mode "reference".
"""

import re
import unicodedata
from collections.abc import Iterable

from ...processing.scores.number_words import TENS, WORDS
from ...processing.scores.reference_checks import check_choice, check_text


CLEANING_MODES = ("corrected", "reference")
_SPELLINGS = {
    "letf": "left",
    "let": "left",
    "tehre": "there",
    "rigth": "right",
    "rght": "right",
    "behine": "behind",
    "tv": "TV",
    "chai": "chair",
    "wasing": "washing",
    "waslked": "walked",
    "oclock": "o'clock",
}
_PUBLISHED_NUMBERS = {str(value): word for value, word in enumerate([*WORDS, "twenty"])} | {"23": "twenty-three"}
_NUMBERS = {str(value): word for value, word in enumerate(WORDS)} | {
    str(20 + 10 * ten + one): f"{word}-{WORDS[one]}" if one else word
    for ten, word in enumerate(TENS)
    for one in range(10)
}
_TENS_AND_ONE = re.compile(rf"\b({'|'.join(TENS)}) ({'|'.join(WORDS[1:10])})\b")
# Where an answer goes on to something else: not within numbers, as "1,200", "2.5" and "3/4".
_SEPARATOR = re.compile(r"[;|\n\r]|[,/.](?!\d)|(?<!\d)[,/](?=\d)|\b(?:or|and)\b")
MAX_FURTHER_WORDS = 3  # of a match that says more than the truth, without those that say nothing alone
_FUNCTION_WORDS = frozenset(
    "a an the this that these those there here it its it's he she they them his her their i you we is are was were "
    "be been being has have had do does did can could will would may might must of in on at to from by with for as "
    "into onto over under near next between behind beside besides above below across along around up down off out "
    "than then what which who whose where when how very just only also both each all some any".split()
)
_OPPOSITES = tuple(  # words of which one answer means one
    frozenset(words.split())
    for words in (
        "black white gray grey brown tan beige red orange yellow green blue purple violet pink silver gold golden "
        "cream maroon turquoise teal",
        "left right",
        "front back behind",
        "above below",
        "yes no",
        "square round rectangular rectangle circular circle oval triangular triangle cylindrical",
    )
) + (frozenset(_NUMBERS.values()),)
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": " ", "\u201d": " "})
_ARTICLES = ("a", "an", "the")


class CleanedAnswer(str):
    """A cleaned answer, and `parts`, what it says one after the other: parted by commas, full stops, "or", "and"."""

    parts: tuple[str, ...] = ()


def clean_answer(text: str, mode: str = "corrected") -> str:
    """Bring a short answer to the form in which answers are compared.

    Lower case; punctuation, articles and known misspellings go; "TV" is upper case, small numbers become words, and a
    digit that ends a word is cut off ("table1").

    Args:
        text (`str`): an answer.
        mode (`str`, defaults to "corrected"): "corrected" or "reference". `Differs:` the reference drops a character
            where a blank belongs ("white/black", "1.5" is then fifteen), loses accented letters, takes away one of
            several articles, keeps double blanks, commas and hyphens, and knows the numbers up to 20, and 23; ours
            know them below a hundred.
    Returns:
        `str`: may be empty.
    Raises:
        TypeError: if `text` is no string. ValueError: on an unknown mode.

    Example:
        ```python
        >>> from gap_mllm.evaluation import clean_answer
        >>> clean_answer("The 2 brown chairs.")
        'two brown chairs'

        ```
    """
    check_choice(mode, "mode", CLEANING_MODES)
    text = check_text(text, "text").lower()
    if mode == "reference":
        return _clean_as_published(text)
    cleaned = CleanedAnswer(_clean(text))
    cleaned.parts = tuple(part for part in map(_clean, filter(str.strip, _SEPARATOR.split(text))) if part)
    return cleaned


def _clean(text):
    """Our rules in their order."""
    plain = unicodedata.normalize("NFKD", text.translate(_QUOTES))
    text = "".join(character for character in plain if not unicodedata.combining(character))
    text = re.sub(r"(?<!\d)\.(?=\d)", "0.", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"(?<!\d)[.,]|[.,](?!\d)|[^a-z0-9.,'\s\-]", " ", text)
    text = _replace_words(text, _SPELLINGS | {"none": "zero"})
    text = re.sub(r"\bo'\s+clock\b", "o'clock", text)
    text = re.sub(r"\b([a-z]+)[0-9]\b", r"\1", text)
    text = re.sub(r"(?<=[a-zA-Z])-(?=[a-zA-Z])|(?<=\d)-(?=\d)", " ", text)
    text = _TENS_AND_ONE.sub(r"\1-\2", text)
    words = [_NUMBERS.get(word, word) for word in _replace_words(text, {"backwards": "backward"}).split()]
    kept = [word for word in words if word not in _ARTICLES]
    return " ".join(kept or words)


def match_cleaned(cleaned: str, answers: Iterable[str], mode: str = "corrected") -> tuple[bool, bool]:
    """Compare a cleaned answer with the true ones.

    Args:
        cleaned (`str`), answers (iterable of `str`): what `clean_answer` gave; true answers, which are cleaned here.
        mode (`str`, defaults to "corrected"): "corrected": one is within the other as whole words in a row, or the
            same text but for blanks; an empty answer is never right, nor one that says more than the truth and lists
            alternatives. "reference": any characters, blanks taken out
            first. `Differs:` there an empty answer is always within, and "no" is within "north wall".

    An answer lists alternatives if it has several parts (see `CleanedAnswer`) of which one neither holds the truth or
    a part of it nor is within it ("brown, white"); if beside a colour, number, side, shape, yes or no it names
    another ("brown white"); or if it has more than `MAX_FURTHER_WORDS` words beside the truth that
    mean something alone.

    Returns:
        `tuple[bool, bool]`: whether it is one of the true ones, and whether one of the two is within the other.
    Raises:
        TypeError, ValueError: as `clean_answer`.
    """
    truths = [clean_answer(answer, mode) for answer in answers]
    is_exact = cleaned in truths and bool(cleaned or mode == "reference")
    return is_exact, any(_is_within(cleaned, truth, mode) for truth in truths)


def _is_within(first, second, mode):
    if mode == "reference":
        first, second = ("".join(text.split()) for text in (first, second))
        return first in second or second in first
    if not first or not second:
        return False
    if first.replace(" ", "") == second.replace(" ", ""):
        return True
    if f" {first} " in f" {second} ":
        return True
    return f" {second} " in f" {first} " and not _lists_alternatives(first, second)


def _lists_alternatives(answer, truth):
    """Whether an answer that holds the truth also says something else; see `match_cleaned`."""
    parts, truths = getattr(answer, "parts", ()), (truth, *getattr(truth, "parts", ()))
    if len(parts) > 1 and not all(any(_overlap(part, each) for each in truths) for part in parts):
        return True
    words, known = answer.split(), set(truth.split())
    further = [word for word in words if word not in known]
    if any(known & group and group.intersection(further) for group in _OPPOSITES):
        return True
    return sum(word not in _FUNCTION_WORDS for word in further) > MAX_FURTHER_WORDS


def _overlap(part, truth):
    return f" {part} " in f" {truth} " or f" {truth} " in f" {part} "


def _clean_as_published(text):
    """The reference's rules in its order."""
    text = re.sub(" {2,}", " ", text.strip(" "))
    text = re.sub(r"[^a-z0-9,'\s\-:]+", "", re.sub(r"\. {2,}", ". ", text))
    text = _replace_words(text, _SPELLINGS)
    text = re.sub(r"\bo' +clock\b", "o'clock", text)
    text = _replace_words(text, _PUBLISHED_NUMBERS | {"none": "zero"})
    text = re.sub(r"\b([a-zA-Z]+)[0-9]\b", r"\1", text)
    for article in _ARTICLES:
        text = re.sub(rf"\b{article} ([a-zA-Z]+)", r"\1", text)
    return _replace_words(text, {"backwards": "backward"})


def _replace_words(text, table):
    return re.sub(rf"\b(?:{'|'.join(table)})\b", lambda found: table[found[0]], text)
