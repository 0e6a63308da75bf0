"""Every phrasing takes its words, and answers read back as the parsers read them."""

import re

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_choice
from gap_mllm.processing.data.task_makers.templates import (
    COUNT_ENDINGS,
    NUMBER_ENDINGS,
    TEMPLATES,
    choice_answer,
    count_answer,
    num_phrasings,
    number_answer,
    phrase,
    phrasing_text,
    template_words,
)
from gap_mllm.processing.data.truth import render_answer, rounded_number
from gap_mllm.processing.prompts_gap_mllm import TASKS, prompt_text


WORDS = {
    "color": "red", "colors": "red, blue", "location": (1.0, -0.004, 2.345), "view": "the first frame",
    "crosses": "1 (red), 2 (blue)",
    "before": "the first frame", "after": "Frame-2", "name": "the sofa", "names": "the sofa, the bed",
    "first": "the sofa", "second": "the bed", "anchor": "the lamp", "description": "the {odd} bed",
    "position": "the a", "facing": "the b", "target": "the c",
}  # fmt: skip


def words_for(kind):
    return {name: WORDS[name] for name in template_words(kind) - {"view_start"}}


@pytest.mark.parametrize("kind", sorted(TEMPLATES))
def test_every_kind_has_several_different_phrasings_that_hold_all_its_words(kind):
    count = num_phrasings(kind)
    texts = [phrasing_text(kind, number, **words_for(kind)) for number in range(count)]
    assert len(set(texts)) == count >= 2
    start = 1 if kind in TASKS else 0
    for number, text in enumerate(texts):
        left = re.sub(r"\{odd\}", "", text)
        assert "{" not in left and "}" not in left and "None" not in text
        for name, value in words_for(kind).items():
            if number < start or name in ("location", "view"):
                continue
            assert str(value) in text, (kind, number, name)
        if "location" in words_for(kind):
            assert "located at [1.0, 0.0, 2.35]" in text or "located at [1.0, 0.0, 2.34]" in text
        if "view" in words_for(kind):
            assert "the first frame" in text.lower()


@pytest.mark.parametrize("kind", TASKS)
def test_the_first_phrasing_of_the_published_tasks_is_the_packages_prompt(kind):
    words = words_for(kind)
    name, text = phrase(kind, np.random.default_rng(0), "first", **words)
    assert name == f"{kind}/0" and text == prompt_text(kind, **words)


def test_all_phrasings_are_drawn():
    rng = np.random.default_rng(0)
    names = {phrase("object_size", rng, name="the sofa")[0] for _ in range(40)}
    assert names == {"object_size/0", "object_size/1", "object_size/2"}


def test_unknown_kinds_words_and_choices_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(KeyError, match="nothing"):
        phrase("nothing", rng)
    with pytest.raises(KeyError, match="name"):
        phrase("object_size", rng)
    with pytest.raises(ValueError, match="phrasings is 'some'"):
        phrase("object_size", rng, "some", name="the sofa")


def test_numbers_are_written_with_or_without_their_unit_as_the_ending_says():
    rng = np.random.default_rng(0)
    endings = set()
    for _ in range(30):
        fields = number_answer(1.236, "metres", 2, rng)
        endings.add(fields["ending"])
        assert rounded_number(fields["truth"]) == 1.24 and "metres" in fields["ending"]
        assert render_answer(fields["truth"]) == ("1.24 metres" if "its unit" in fields["ending"] else "1.24")
    assert len(endings) == len(NUMBER_ENDINGS)
    assert rounded_number(number_answer(29.6, "degrees", 0, rng)["truth"]) == 30
    counts = [count_answer(3, rng) for _ in range(20)]
    assert {fields["ending"] for fields in counts} == set(COUNT_ENDINGS)
    assert all(render_answer(fields["truth"]) == "3" and rounded_number(fields["truth"]) == 3.0 for fields in counts)


def test_choices_are_lettered_in_random_order_and_the_letter_names_the_true_one():
    rng = np.random.default_rng(0)
    letters = set()
    for _ in range(40):
        fields = choice_answer("left", ["right", "behind"], rng)
        index, answer = fields["truth"].choice, render_answer(fields["truth"])
        assert fields["choices"][index] == f"{answer}. left"
        assert sorted(choice[3:] for choice in fields["choices"]) == ["behind", "left", "right"]
        assert fields["ending"].startswith("\nOptions:\nA. ") and all(c in fields["ending"] for c in fields["choices"])
        assert parse_choice(answer, "ABC").first == "ABC"[index]
        letters.add(answer)
    assert letters == {"A", "B", "C"}
