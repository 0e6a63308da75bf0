"""Numbers in answers, in digits and in English words, by our rule and by lmms-eval's."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gap_mllm.evaluation.metrics.lmms_eval_rules import lmms_eval_number, lmms_eval_text
from gap_mllm.processing.scores.number_answers import first_number
from gap_mllm.processing.scores.number_words import SCALES, TENS, WORDS, whole_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("two hundred and five", 205),
        ("Two Hundred And Five chairs", 205),
        ("two hundred five", 205),
        ("a hundred", 100),
        ("hundred and one", 101),
        ("twelve hundred", 1200),
        ("one thousand two hundred and thirty-four", 1234),
        ("two thousand and five", 2005),
        ("one hundred and twenty thousand", 120000),
        ("three million five thousand and one", 3005001),
        ("zero hundred", 0),
        ("twenty-one", 21),
        ("twenty  one", 21),
        ("twenty\u2212one", 21),
        ("There are twenty chairs", 20),
        ("seventy", 70),
        ("three point five metres", 3.5),
        ("two hundred point zero five", 200.05),
        ("two and a half metres", 2.5),
        ("2 and a half", 2.5),
        ("one and one quarter", 1.25),
        ("2 hundred", 200),
        ("1.5 million", 1500000),
        ("1,200", 1200),
        (".5 m", 0.5),
        ("1e2", 100),
        ("-3", -3),
        ("room2 has 4 chairs", 4),
    ],
)
def test_numbers_are_read_as_one_speaks(text, number):
    assert first_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("one two", 1),  # words that form no number: the first
        ("two, three hundred", 2),
        ("twenty twelve", 20),
        ("five and six", 5),
        ("two hundred and", 200),
        ("hundreds of chairs", None),
        ("one3", None),
        ("someone", None),
        ("a chair", None),
        ("half a metre", None),
        ("two and a half-open door", 2),
        ("three point", 3),
        ("\u017fix", None),  # a long s is no s
        ("", None),
    ],
)
def test_what_is_no_composed_number(text, number):
    assert first_number(text) == number


def test_a_number_too_large_is_infinite():
    assert first_number("9" * 5000) == math.inf and first_number("1e999 million") == math.inf


def spell(number):
    """English words for a number below a thousand million."""
    for name, scale in sorted(SCALES.items(), key=lambda pair: -pair[1]):
        if number >= scale:
            rest = number % scale
            words = f"{spell(number // scale)} {name}"
            return words if not rest else f"{words} {'and ' if rest < 100 else ''}{spell(rest)}"
    if number < 20:
        return WORDS[number]
    return TENS[number // 10 - 2] + (f"-{WORDS[number % 10]}" if number % 10 else "")


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**9 - 1))
def test_every_number_is_read_back(number):
    words = spell(number)
    assert whole_number(words) == number == first_number(words) == first_number(f"It is {words.title()}, I think.")


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from([*WORDS, *TENS, *SCALES, "and", "a", "point", "half", "-", "3", "1,000", "x"])))
@example(["one"] * 2000)
@example(["hundred", "and"] * 1000)
def test_no_run_of_words_fails(words):
    for gap in (" ", "-", ""):
        text = gap.join(words)
        for number in (first_number(text), lmms_eval_number(text)):
            assert number is None or number >= 0 or "-" in text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("two hundred and five", 205),
        ("one two", 3),
        ("two two", 4),
        ("one3", 1),
        ("3one", 3),
        ("two, three hundred chairs", 500),
        ("five and six", 11),
        ("thousand hundred", 1100),
        ("one apple, room 2", 1),
        ("room 2 has one apple", 2),
        ("two million", 2),
        ("1,200", 1),
        (".5", 5),
        ("and", None),
        ("", None),
    ],
)
def test_numbers_by_the_rule_of_lmms_eval(text, number):
    assert lmms_eval_number(text) == number


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (" A\n", "A"),
        ("<think>so B</think> A", "A"),
        ("<think>a</think>x<think>b</think> y<analysis>c</analysis>", "x y"),
        ("so B</think>A", "A"),
        ("<think>never closed", "<think>never closed"),
        ("<THINK>a</THINK>b", "<THINK>a</THINK>b"),
    ],
)
def test_texts_are_cut_as_lmms_eval_cuts_them(text, cut):
    assert lmms_eval_text(text) == cut
