"""Wording: a phrasing is drawn, its alternatives are chosen, and words are filled in; and how answers are asked for.

The phrasings are data: those to learn from in phrasings.py, those to measure with in held_out_phrasings.py.
"""

import json
import re
from string import Formatter

import numpy as np

from ...prompts_gap_mllm import TASKS, prompt_text
from ...tiny_vocabulary import WORDS
from ..truth import LETTERS, Truth
from .held_out_phrasings import HELD_OUT, HELD_OUT_CHOICE_ENDINGS
from .phrasings import CHOICE_ENDINGS, PHRASES, TEMPLATES


NUMBER_ENDINGS = (  # how a number is asked for, and whether its unit is written
    ("\nAnswer with a plain number in {unit}.", False),
    ("\nGive the answer as one number, in {unit}.", False),
    ("\nAnswer with the number and its unit ({unit}).", True),
)
COUNT_ENDINGS = ("\nAnswer with a plain number.", "\nGive the count as one number.")
CHOICE_ENDING = "\nOptions:\n{options}\nAnswer with the option's letter from the given choices directly."
PHRASINGS = ("all", "first", "held_out", "mixed")
TRAINING_PHRASINGS = tuple(each for each in PHRASINGS if each != "held_out")  # which is for measuring
OWN_SHARE = 3  # one question in three is worded in the first way
UNMIXED_SHARE = 4  # of the other wordings one in four keeps its words, where words are mixed
_PHRASE, _ALTERNATIVES = re.compile(r"\$([a-z_]+)"), re.compile("<([^<>]*)>")  # the innermost first
_PLAIN_WORD = re.compile(r'(?<![\w{"])[A-Za-z]{3,}(?![\w}"])')  # neither in braces nor a key of JSON
_ANY_WORDS = sorted({word for words in WORDS.values() for word in words})
_FIXED = re.compile(r'\{[^{}]*\}|"[^"]*"')  # what is filled in, and keys of JSON
_RUN = re.compile(r"\b[A-Za-z]+\b(?: [A-Za-z]+\b){0,2}")  # up to three words
_ENDINGS = (*(text for text, _ in NUMBER_ENDINGS), *COUNT_ENDINGS, *CHOICE_ENDINGS)
_LENDERS = (*TEMPLATES.values(), *[_ENDINGS] * 10)  # what asks for numbers and letters, as often as ten kinds


def num_phrasings(kind: str) -> int:
    """How many phrasings a kind of question has, the package's own prompt included; KeyError for unknown kinds."""
    return len(TEMPLATES[kind]) + (kind in TASKS)


def template_words(kind: str) -> set[str]:
    """The words in braces that the phrasings of a kind take together."""
    return {name for text in TEMPLATES[kind] for _, name, _, _ in Formatter().parse(text) if name}


def phrase(kind: str, rng: np.random.Generator, phrasings: str = "all", **words) -> tuple[str, str]:
    """Word a question.

    Args:
        kind (`str`): key of `TEMPLATES`.
        rng (`numpy.random.Generator`): chooses the phrasing, and among its alternatives.
        phrasings (`str`, defaults to "all"): "all", the first in one case of three; "first" for the first always;
            "mixed" as "all", but three quarters of the others with words changed (`mix_words`); or "held_out" for
            those of `HELD_OUT`, which nothing is trained on.
        **words: words for the braces; `location` of captions as 3 numbers.
    Returns:
        `tuple` of the name of the phrasing, such as "detection3d/1", and the text.
    Raises:
        KeyError: if the kind is unknown or a word is missing.
        ValueError: if `phrasings` is another word, or nothing is held out of the kind.
    """
    check_phrasings(phrasings)
    if phrasings == "held_out":
        if kind not in HELD_OUT:
            raise ValueError(f"no phrasing of {kind!r} is held out; add some to HELD_OUT, or leave {kind!r} out.")
        number = int(rng.integers(len(HELD_OUT[kind])))
        return f"{kind}/held_out_{number}", _fill(HELD_OUT[kind][number], words)
    count = num_phrasings(kind)
    number = int(rng.integers(min(count, OWN_SHARE)))
    if phrasings == "first":
        number = 0
    elif number and count > OWN_SHARE:
        number = 1 + int(rng.integers(count - 1))
    if phrasings == "mixed" and number and rng.integers(UNMIXED_SHARE):
        return f"{kind}/{number}", _fill(mix_words(_template(kind, number, rng), rng), words)
    return f"{kind}/{number}", phrasing_text(kind, number, rng, **words)


def check_phrasings(phrasings: str, known: tuple[str, ...] = PHRASINGS) -> None:
    """Raise ValueError unless it is one of the known words."""
    if phrasings not in known:
        raise ValueError(f"phrasings is {phrasings!r}; expected one of {', '.join(known)}.")


def phrasing_text(kind: str, number: int, rng: np.random.Generator | None = None, **words) -> str:
    """Fill in one phrasing, by its number; raises as `phrase`, and IndexError for a number that is not there.

    Without `rng` each alternative is the first.
    """
    if kind in TASKS and number == 0:
        return prompt_text(kind, **words)
    return _fill(_template(kind, number, rng), words)


def _template(kind, number, rng):
    """A phrasing but the package's own prompt, before words are filled in."""
    return choose_words(TEMPLATES[kind][number - (kind in TASKS)], rng)


def mix_words(text: str, rng: np.random.Generator) -> str:
    """Put other words in the place of some of a phrasing's, and leave some out, so that a model relies on none alone.

    How many is drawn: from none to all, two thirds on average. Half of these are left out, a quarter become another
    word, and a quarter one to three words of another question: a phrasing of a kind drawn at random, or what asks for
    numbers and letters. "How far" or "in metres" may then stand in a question that asks for a box, and tell too little
    alone. A word that begins a sentence becomes one that does. What stands in braces, keys of JSON in quotes and words
    below three letters stay. Lines after the first without braces, which mostly say in which form to answer, are left
    out in half of the cases.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.data.task_makers.templates import mix_words
        >>> mix_words('Where is the {label} in these pictures? Answer with "bbox_3d".', np.random.default_rng(1))
        'Where is {label} in how far apart? "bbox_3d".'

        ```
    """
    share = rng.random() ** 0.5
    first, *lines = text.split("\n")
    text = "\n".join([first, *[line for line in lines if "{" in line or rng.integers(2)]])

    def change(found):
        if rng.random() >= share:
            return found[0]
        if rng.integers(2):
            return ""
        begins = found[0][0].isupper()
        if rng.integers(2):
            return _some_words(rng, begins)
        word = _ANY_WORDS[int(rng.integers(len(_ANY_WORDS)))]
        return word.capitalize() if begins else word

    return re.sub(" {2,}", " ", _PLAIN_WORD.sub(change, text)).strip(" ")


def _some_words(rng, begins):
    """One to three words of some question, the first of a sentence if they are to begin one."""
    phrasings = _LENDERS[int(rng.integers(len(_LENDERS)))]
    text = choose_words(phrasings[int(rng.integers(len(phrasings)))], rng)
    text = text.replace("{unit}", ("metres", "degrees")[int(rng.integers(2))])
    runs = _RUN.findall(_FIXED.sub(".", text))
    if begins:
        runs = [run for run in runs if run[0].isupper()] or runs
    run = runs[int(rng.integers(len(runs)))]
    return (run[0].upper() if begins else run[0].lower()) + run[1:]


def choose_words(text: str, rng: np.random.Generator | None = None) -> str:
    """Put phrases in the place of their names, and one alternative in the place of several; see phrasings.py.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.data.task_makers.templates import choose_words
        >>> choose_words("<Find|Locate> the <sofa|<red|blue> bed>.", np.random.default_rng(0))
        'Locate the blue bed.'

        ```
    """

    def choose(found):
        words = found[1].split("|")
        return words[0 if rng is None else int(rng.integers(len(words)))]

    while _PHRASE.search(text):
        text = _PHRASE.sub(lambda found: PHRASES[found[1]], text)
    while _ALTERNATIVES.search(text):
        text = _ALTERNATIVES.sub(choose, text)
    return text


def _fill(text, words):
    if "location" in words:
        words["location"] = json.dumps([round(float(value), 2) + 0.0 for value in words["location"]])
    if "view" in words:
        words["view_start"] = words["view"][0].upper() + words["view"][1:]
    return text.format(**words)


def reword_ending(ending: str, choices: tuple[str, ...], rng: np.random.Generator, phrasings: str = "all") -> str:
    """Ask for a letter in other words, two times of three; what is not the ending of `choice_answer` stays."""
    options = "\n".join(choices)
    if phrasings == "first" or not choices or ending != CHOICE_ENDING.format(options=options):
        return ending
    if phrasings == "all" and rng.integers(OWN_SHARE) == 0:
        return ending
    others = HELD_OUT_CHOICE_ENDINGS if phrasings == "held_out" else CHOICE_ENDINGS
    return choose_words(others[int(rng.integers(len(others)))], rng).format(options=options)


def number_answer(value: float, unit: str, decimals: int, rng: np.random.Generator) -> dict:
    """The fields of a `Draft` for a number: how it is asked for, as text with or without its unit, and as a number.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.data.task_makers import number_answer
        >>> truth = number_answer(1.234, "m", 2, np.random.default_rng(0))["truth"]
        >>> truth.number, truth.unit, truth.decimals
        (1.234, 'm', 2)

        ```
    """
    ending, with_unit = NUMBER_ENDINGS[int(rng.integers(len(NUMBER_ENDINGS)))]
    truth = Truth("number", number=value, unit=unit if with_unit else None, decimals=decimals)
    return {"ending": ending.format(unit=unit), "truth": truth}


def count_answer(count: int, rng: np.random.Generator) -> dict:
    """The fields of a `Draft` for a count.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.data.task_makers import count_answer
        >>> count_answer(3, np.random.default_rng(0))["truth"].number
        3

        ```
    """
    ending = COUNT_ENDINGS[int(rng.integers(len(COUNT_ENDINGS)))]
    return {"ending": ending, "truth": Truth("number", number=count, decimals=0)}


def choice_answer(true_option: str, others: list[str], rng: np.random.Generator) -> dict:
    """The fields of a `Draft` for a choice: options in random order, and the letter of the true one.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.data.task_makers import choice_answer
        >>> choice_answer("chair", ["bed", "table"], np.random.default_rng(0))["choices"]
        ('A. table', 'B. chair', 'C. bed')

        ```
    """
    options = [true_option, *others]
    order = rng.permutation(len(options))
    choices = tuple(f"{letter}. {options[int(place)]}" for letter, place in zip(LETTERS, order, strict=False))
    index = int(np.flatnonzero(order == 0)[0])
    ending = CHOICE_ENDING.format(options="\n".join(choices))
    return {"ending": ending, "truth": Truth("choice", choice=index), "choices": choices}
