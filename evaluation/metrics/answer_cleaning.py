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
_SEPARATOR = re.compile(r"[;|\n\r()\u3001]|[,/.:](?!\d)|(?<!\d)[,/](?=\d)|\b(?:or|and)\b")
MAX_LIST_WORDS = 4  # of an answer in a row that mean something alone: "large wooden brown desk"
_MAX_ITEM_WORDS = 2  # of one thing of a list
_NEGATION_REACH = 3  # words before the truth within which "not" is about it
_NEGATIONS = frozenset("not no never neither nor cannot without".split())
_CHOICES = frozenset("or nor versus vs".split())
_RANGES = ("to", "and")  # between two values of one kind: "2 to 3"
_NOTHING_ALONE = frozenset("a an the of to in on at by for with is it and there this that".split())
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
            same text but for blanks; an empty answer is never right, nor one of words that say nothing alone ("on"),
            nor one that says more than the truth and denies it or lists alternatives. "reference": any characters,
            blanks taken out first. `Differs:` there an empty answer is always within, and "no" is within "north wall".

    An answer denies the truth if each place that names it has "not", "no" or the like within three words before it
    ("There is no chair"). It lists alternatives if it offers a choice ("brown or white chair"); if beside a colour,
    number, side, shape, yes or no another stands at once ("brown white", "2 to 3"), or alone in another part ("brown,
    white"; see `CleanedAnswer`); if it is a bare list, of two words ("chair, table") or of three and more short parts;
    or if more than `MAX_LIST_WORDS` words that mean something alone stand in a row with the truth among them.
    A sentence that says more than the truth is a match ("Two, one on each side.").

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
        return not _NOTHING_ALONE.issuperset(first.split())
    return f" {second} " in f" {first} " and not _is_denied(first, second) and not _lists_alternatives(first, second)


def _is_denied(answer, truth):
    """Whether "not" or the like stands before each place that names the truth; see `match_cleaned`."""
    if _NEGATIONS.intersection(truth.split()) or truth == _NUMBERS["0"]:
        return False
    before_each = [before for part in _parts(answer) for before, _ in _places(part, truth)]
    return bool(before_each) and all(any(map(_is_negation, before)) for before in before_each)


def _is_negation(word):
    return word in _NEGATIONS or word.endswith("n't")


def _lists_alternatives(answer, truth):
    """Whether an answer that holds the truth also offers something else; see `match_cleaned`."""
    known = set(truth.split())
    if _CHOICES.intersection(answer.split()) - known:
        return True
    parts = [part.split() for part in _parts(answer)]
    others = [part for part in parts if not any(_overlap(" ".join(part), each) for each in _parts(truth))]
    groups = [group for group in _OPPOSITES if known & group]
    for group in groups:
        rivals = group - known
        if any(rivals.issuperset(_meaningful(part)) for part in others if _meaningful(part)):
            return True
        if any(rivals.intersection(beside) for part in _parts(answer) for beside in _neighbours(part, truth)):
            return True
    return _is_bare_list(parts, others, truth) or any(_longest_run(part, known) > MAX_LIST_WORDS for part in parts)


def _is_bare_list(parts, others, truth):
    """Whether an answer is nothing but a list of short things, and not yes or no with a word about it."""
    if not others or truth in ("yes", "no") or any(len(part) > _MAX_ITEM_WORDS for part in parts):
        return False
    return len(parts) > 2 or (len(parts) == 2 and all(len(part) == 1 for part in parts))


def _parts(answer):
    return getattr(answer, "parts", ()) or (answer,)


def _places(text, truth):
    """The words before and behind each place of a text that names the truth, the nearest `_NEGATION_REACH`."""
    words, named = text.split(), truth.split()
    for start in range(len(words) - len(named) + 1):
        end = start + len(named)
        if words[start:end] == named:
            yield words[max(0, start - _NEGATION_REACH) : start], words[end : end + _NEGATION_REACH]


def _neighbours(text, truth):
    """The word at once before and behind the truth, or behind "to" and "and"."""
    for before, behind in _places(text, truth):
        yield _nearest(before[::-1]) + _nearest(behind)


def _nearest(words):
    return words[1:2] if words[:1] and words[0] in _RANGES else words[:1]


def _meaningful(words):
    return [word for word in words if word not in _FUNCTION_WORDS and word.strip("-'")]


def _longest_run(words, known):
    """Words in a row that mean something alone, of the longest such row with a word of the truth."""
    longest, row = 0, []
    for word in [*words, "the"]:
        if word in _FUNCTION_WORDS:
            longest, row = max(longest, len(row) if known.intersection(row) else 0), []
        else:
            row.append(word)
    return longest


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
