"""Every phrasing takes its words, and answers read back as the parsers read them."""

import re
from difflib import SequenceMatcher

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_choice
from gap_mllm.processing.data.task_makers import templates
from gap_mllm.processing.data.task_makers.held_out_phrasings import HELD_OUT_CHOICE_ENDINGS
from gap_mllm.processing.data.task_makers.templates import (
    CHOICE_ENDING,
    COUNT_ENDINGS,
    HELD_OUT,
    NUMBER_ENDINGS,
    TEMPLATES,
    choice_answer,
    count_answer,
    mix_words,
    num_phrasings,
    number_answer,
    phrase,
    phrasing_text,
    reword_ending,
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
            assert "[1.0, 0.0, 2.35]" in text or "[1.0, 0.0, 2.34]" in text
        if "view" in words_for(kind):
            assert "the first frame" in text.lower()


GAP_TASKS = ("reconstruction", "detection3d", "grounding_frame", "grounding_box", "dense_caption")


def drawn(kind, phrasings, count=400, **words):
    rng = np.random.default_rng(0)
    return [phrase(kind, rng, phrasings, **(words or words_for(kind))) for _ in range(count)]


@pytest.mark.parametrize("kind", sorted(TEMPLATES))
def test_alternatives_are_chosen_and_leave_no_signs_behind(kind):
    texts = {text for _, text in drawn(kind, "all")} | {text for _, text in drawn(kind, "held_out", 40)}
    for text in texts:
        assert not re.search(r"[<>|$]|  | [.,?]|[.,?]{2}|None", text.replace(" ->", "")), text
        assert text[-1] in ".?\n", text
    if kind in GAP_TASKS:
        assert num_phrasings(kind) >= 9 and len(texts) > 60
    elif kind not in ("marked_point", "marked_points", "reasoning_segmentation"):
        assert num_phrasings(kind) >= 4


@pytest.mark.parametrize("kind", sorted(TEMPLATES))
def test_the_first_phrasing_is_drawn_in_one_case_of_three(kind):
    numbers = [int(name.split("/")[1]) for name, _ in drawn(kind, "all", 600)]
    share = min(num_phrasings(kind), 3)
    assert set(numbers) == set(range(num_phrasings(kind))) and abs(numbers.count(0) / 600 - 1 / share) < 0.06


@pytest.mark.parametrize("kind", sorted(TEMPLATES))
def test_held_out_phrasings_are_none_of_those_to_learn_from(kind):
    assert set(HELD_OUT) == set(TEMPLATES)
    assert len(set(HELD_OUT[kind])) == len(HELD_OUT[kind]) >= (6 if kind in GAP_TASKS else 2)
    words = words_for(kind)
    known = {text for _, text in drawn(kind, "all")} | {text for _, text in drawn(kind, "first", 1)}
    for name, text in dict(drawn(kind, "held_out", 100)).items():
        assert name.startswith(f"{kind}/held_out_") and all(
            str(value) in text or name in ("location", "view") for name, value in words.items()
        )
        assert max(SequenceMatcher(None, text.split(), other.split()).ratio() for other in known) < 0.75, text


@pytest.mark.parametrize("kind", ["reconstruction", "detection3d", "object_size"])
def test_three_of_four_other_wordings_are_mixed(kind, monkeypatch):
    words, mixed = words_for(kind), []
    monkeypatch.setattr(templates, "mix_words", lambda text, rng: mixed.append(mix_words(text, rng)) or mixed[-1])
    texts = [text for _, text in drawn(kind, "mixed", 300)]
    own = 1 / min(num_phrasings(kind), 3)
    assert abs(len(mixed) / 300 - (1 - own) * 3 / 4) < 0.1
    assert all(str(value) in text for text in texts for name, value in words.items() if name != "location")
    keys = [set(re.findall('"[a-z_0-9]+"', text)) for text in mixed]
    assert set().union(*keys) <= {'"label"', '"pointmap"', '"bbox_3d"'}


def test_words_are_kept_left_out_and_changed_in_shares():
    text, rng = 'Name what the {color} cross marks in "label".', np.random.default_rng(0)
    changed = [mix_words(text, rng).split() for _ in range(400)]
    assert all(each[-2:] == ["in", '"label".'] and "{color}" in each for each in changed)
    kept = [sum(word in each for word in ("Name", "what", "the", "cross", "marks")) for each in changed]
    assert abs(np.mean(kept) / 5 - 1 / 3) < 0.04  # two thirds are changed
    assert kept.count(5) > 4 and 60 < kept.count(0) < 180  # none of them, and all


@pytest.mark.parametrize("kind", sorted(TEMPLATES))
def test_mixed_words_leave_what_the_answer_needs(kind):
    words = words_for(kind)
    assert all(
        str(value) in text
        for _, text in drawn(kind, "mixed", 100)
        for name, value in words.items()
        if name not in ("location", "view")
    )


def test_mixed_words_come_from_other_questions():
    text, rng = 'Shortly {name} quietly stands in "label".', np.random.default_rng(1)
    mixed = [mix_words(text, rng).split() for _ in range(1500)]
    assert all("{name}" in each and each[-1] == '"label".' for each in mixed)
    # a question of any kind, and what asks for numbers and letters, may lend the words that begin it
    assert {"How", "Which", "Where", "Answer"} <= {each[0] for each in mixed}
    assert np.mean([each[0] == "Answer" for each in mixed]) > 0.01
    assert 8 <= max(len(each) for each in mixed) <= 12  # of 6 words
    assert abs(np.mean(["Shortly" in each for each in mixed]) - 1 / 3) < 0.05


def test_mixed_words_leave_out_lines_in_which_nothing_is_filled_in():
    rng = np.random.default_rng(0)
    texts = [mix_words('Box of {label}.\nAs "bbox_3d".\nOf {name}.', rng) for _ in range(400)]
    assert all("{label}" in text.split("\n")[0] and "{name}" in text.split("\n")[-1] for text in texts)
    assert 0.4 < np.mean(['"bbox_3d"' in text for text in texts]) < 0.6
    assert {len(text.split("\n")) for text in texts} == {2, 3}


def test_kinds_of_which_nothing_is_held_out_are_refused(monkeypatch):
    monkeypatch.delitem(HELD_OUT, "object_size")
    with pytest.raises(ValueError, match="no phrasing of 'object_size' is held out; add some to HELD_OUT"):
        phrase("object_size", np.random.default_rng(0), "held_out", name="the sofa")


def test_letters_are_asked_for_in_several_ways():
    choices, rng = ("A. the sofa", "B. the <odd|$x> bed"), np.random.default_rng(0)
    own = CHOICE_ENDING.format(options="\n".join(choices))
    assert reword_ending(own, choices, rng, "first") == own and reword_ending("\nMine.", choices, rng) == "\nMine."
    asked = [reword_ending(own, choices, rng) for _ in range(300)]
    assert len(set(asked)) > 10 and 0.25 < asked.count(own) / 300 < 0.42
    held_out = {reword_ending(own, choices, rng, "held_out") for _ in range(40)}
    assert len(held_out) == len(HELD_OUT_CHOICE_ENDINGS) >= 3 and not held_out & set(asked)
    for ending in held_out | set(asked):
        assert ending.startswith("\n") and "\n".join(choices) in ending
        assert not re.search("[<>|$]", ending.replace(choices[1], ""))


@pytest.mark.parametrize("kind", TASKS)
def test_the_first_phrasing_of_the_published_tasks_is_the_packages_prompt(kind):
    words = words_for(kind)
    name, text = phrase(kind, np.random.default_rng(0), "first", **words)
    assert name == f"{kind}/0" and text == prompt_text(kind, **words)


def test_all_phrasings_are_drawn():
    rng = np.random.default_rng(0)
    names = {phrase("object_size", rng, name="the sofa")[0] for _ in range(40)}
    assert names == {f"object_size/{number}" for number in range(5)}


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
