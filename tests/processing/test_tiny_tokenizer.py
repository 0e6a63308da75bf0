"""The tiny tokenizer: any text round-trips, words are tokens, answers are short, ids never change."""

import re
import unicodedata
from collections import Counter
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoTokenizer, Qwen2Tokenizer

from gap_mllm.processing import build_tiny_processor, build_tiny_tokenizer, format_boxes, format_point
from gap_mllm.processing.data.rooms.appearance import STRUCTURE_LABELS
from gap_mllm.processing.data.rooms.furniture import FURNITURE, SHAPES
from gap_mllm.processing.data.task_makers.phrasings import CHOICE_ENDINGS, TEMPLATES
from gap_mllm.processing.data.task_makers.templates import CHOICE_ENDING, COUNT_ENDINGS, NUMBER_ENDINGS, choose_words
from gap_mllm.processing.prompts_gap_mllm import TASKS, prompt_text
from gap_mllm.processing.tiny_tokenizer import SPECIAL_TOKENS
from gap_mllm.processing.tiny_vocabulary import SENTENCE_STARTS, WORDS
from gap_mllm.processing.visual_prompt_gap_mllm import MARK_COLORS


TOKENIZER = build_tiny_tokenizer()
WITH_NUMBERS = build_tiny_tokenizer(number_pieces=True)
PROMPTS = [
    prompt_text(task, description="the white sofa", location=[0.5, 0.1, 2.0], crosses="1 (red), 2 (blue)")
    for task in TASKS
]


def pieces(text, tokenizer=TOKENIZER):
    return [tokenizer.decode(token) for token in tokenizer(text).input_ids]


def test_answers_are_short():
    ids = TOKENIZER(format_point("table", [1.41, 0.37, 1.43])).input_ids
    assert TOKENIZER.convert_ids_to_tokens(ids) == [
        *('```json\n{"label": "', "table", '", "pointmap": [', "1", ".", "4", "1", ", "),
        *("0", ".", "3", "7", ", ", "1", ".", "4", "3", "]}\n```"),
    ]
    assert len(TOKENIZER(format_point("chair", [-1.4, 0.3, 1.4], decimals=1)).input_ids) == 16
    assert len(TOKENIZER(format_boxes([], [])).input_ids) == 1


def test_words_are_single_tokens_in_a_line_at_its_start_and_in_quotes():
    known = [word for words in WORDS.values() for word in words]
    assert 1000 < len(known) == len(set(known)) < 2000
    for word in (*known, *(word.capitalize() for word in SENTENCE_STARTS)):
        assert len(TOKENIZER(word).input_ids) == len(TOKENIZER(f" {word}").input_ids) == 1, word
    assert {*MARK_COLORS, *STRUCTURE_LABELS.values(), *FURNITURE, *SHAPES} <= {*known}
    for token in (*SPECIAL_TOKENS, *"0123456789.-"):
        assert len(TOKENIZER(token).input_ids) == 1, token
    quoted = pieces('Where is "sofa"?\n')
    assert quoted == ["Where", " is", ' "', "sofa", '"?', "\n"]


def test_prompts_have_a_token_a_word_and_none_for_several():
    endings = [*COUNT_ENDINGS, *(ending for ending, _ in NUMBER_ENDINGS), CHOICE_ENDING]
    rng = np.random.default_rng(0)
    templates = [choose_words(text, rng) for texts in TEMPLATES.values() for text in texts for _ in range(20)]
    templates += [choose_words(text, rng) for text in CHOICE_ENDINGS for _ in range(20)] + endings
    for text in (*PROMPTS, *(re.sub(r"\{\w+\}", "sofa", text) for text in templates)):
        words = re.findall(r"[^\W\d]+|\d|[^\w\s]|\n", text)
        assert len(pieces(text)) <= len(words), (text, pieces(text))
        assert all(len(piece.split()) <= 1 for piece in pieces(text)), pieces(text)
    assert [len(pieces(text)) for text in PROMPTS[:5]] == [55, 62, 34, 64, 27]


def test_words_that_are_not_known_take_a_few_parts():
    words = "zebra wobbly tangerine sconce credenza chandelier hammock bassinet recliner velvet puddle cinnamon tripod"
    counts = [len(pieces(f" {word}")) for word in words.split()]
    assert max(counts) <= 5 and np.mean(counts) < 4, counts
    assert pieces(" sofabed") == [" sofa", "bed"]


def test_numbers_of_one_decimal_are_single_tokens_where_asked_for():
    text = format_point("chair", [-1.4, 0.3, 12.5], decimals=1)
    assert pieces(text, WITH_NUMBERS)[3:] == ["-1.4", ", ", "0.3", ", ", *"12.5", "]}\n```"]
    assert pieces("1.41 -0.25, 1.5-2.5", WITH_NUMBERS) == [*"1.41", " ", *"-0.25", ", ", "1.5", *"-2.5"]
    numbers = {text for text in WITH_NUMBERS.get_vocab() if re.fullmatch(r"-?\d\.\d", text)}
    assert len(numbers) == 199 and "-0.0" not in numbers
    assert len(WITH_NUMBERS) == len(TOKENIZER) + 199  # ids of all other tokens stay
    assert TOKENIZER.get_vocab().items() <= WITH_NUMBERS.get_vocab().items()
    processor = build_tiny_processor(number_pieces=True)
    assert processor.tokenizer.get_vocab() == WITH_NUMBERS.get_vocab()


def test_size_specials_and_determinism():
    assert 5000 < len(TOKENIZER) < 6000
    assert isinstance(TOKENIZER, Qwen2Tokenizer) and TOKENIZER.padding_side == "left"
    assert (TOKENIZER.pad_token, TOKENIZER.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert build_tiny_tokenizer().get_vocab() == TOKENIZER.get_vocab()
    assert sha256(repr(sorted(TOKENIZER.get_vocab().items())).encode()).hexdigest()[:16] == "c08d3d5c0f02eb31"
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(len(TOKENIZER)))
    ids = [TOKENIZER.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS]
    assert len(set(ids)) == 7 and TOKENIZER.decode(ids, skip_special_tokens=True) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number_pieces": "no"}, "number_pieces is 'no'"),
        ({"max_pixels": 0}, "max_pixels is 0"),
        ({"min_pixels": 2.5}, "min_pixels is 2.5"),
        ({"max_pixels": 64, "min_pixels": 65}, "min_pixels is 65 and max_pixels 64"),
    ],
)
def test_settings_of_the_processor_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_tiny_processor(**options)


@pytest.mark.parametrize(
    ("aspect", "sizes"),
    [
        ((1, 1), {(128, 128)}),
        ((4, 3), {(128, 160), (96, 160)}),
        ((3, 4), {(160, 128), (160, 96)}),
        ((16, 9), {(96, 192), (96, 160)}),
        ((9, 16), {(192, 96), (160, 96)}),
        ((3, 2), {(96, 160), (128, 160)}),
        ((2, 3), {(160, 96), (160, 128)}),
    ],
)
def test_bounds_bring_pictures_of_any_size_to_a_few_sizes(aspect, sizes):
    """The bounds that docs/recipes.md names; (height, width), the commonest first."""
    processor, found = build_tiny_processor(24_000, 96 * 160).image_processor, Counter()
    for long_side in range(96, 1025, 16):
        width, height = (max(round(long_side * side / max(aspect)), 1) for side in aspect)
        if min(width, height) >= 96:
            grid = processor(Image.new("RGB", (width, height)), return_tensors="pt")["image_grid_thw"][0]
            found[tuple((grid[1:] * processor.patch_size).tolist())] += 1
    assert set(found) <= sizes and found.most_common(1)[0][1] > 0.9 * found.total()
    for height, width in sizes:  # what rooms are rendered in is not resized
        grid = processor(Image.new("RGB", (width, height)), return_tensors="pt")["image_grid_thw"][0]
        assert (grid[1:] * processor.patch_size).tolist() == [height, width]


@pytest.mark.parametrize("tokenizer", [TOKENIZER, WITH_NUMBERS], ids=["digits", "numbers"])
def test_save_and_auto_load(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = format_point("table", [1.41, 0.37, 1.43]) + " the red chair, 漢字"
    assert type(loaded) is Qwen2Tokenizer and loaded.padding_side == "left"
    assert loaded.get_vocab() == tokenizer.get_vocab() and loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.all_special_tokens == tokenizer.all_special_tokens
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@example(' the others\' chairs\t\r\n```json\n{"label": "x')
@example("  two  spaces , and . dots ")
@example("10.25 -9.9 9.99 1.0.1 -1.2-3.4x5.6")
@example("1234 -0.5 \x00 \u2028 🙂 漢字")
def test_any_text_round_trips(text):
    text = unicodedata.normalize("NFC", text)  # Qwen's tokenizers normalise
    for tokenizer in (TOKENIZER, WITH_NUMBERS):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
