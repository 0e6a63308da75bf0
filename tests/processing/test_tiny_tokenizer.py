"""The tiny tokenizer: any text round-trips, answers are short, ids never change."""

import unicodedata

from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, Qwen2Tokenizer

from gap_mllm.processing import build_messages, build_tiny_processor, build_tiny_tokenizer, format_boxes, format_point
from gap_mllm.processing.tiny_tokenizer import COLORS, LABELS, SPECIAL_TOKENS


TOKENIZER = build_tiny_tokenizer()


def test_answers_are_short():
    ids = TOKENIZER(format_point("table", [1.41, 0.37, 1.43])).input_ids
    assert TOKENIZER.convert_ids_to_tokens(ids) == [
        *('```json\n{"label": "', "table", '", "pointmap": [', "1", ".", "4", "1", ", "),
        *("0", ".", "3", "7", ", ", "1", ".", "4", "3", "]}\n```"),
    ]
    assert len(TOKENIZER(format_point("chair", [-1.4, 0.3, 1.4], decimals=1)).input_ids) == 16
    assert len(TOKENIZER(format_boxes([], [])).input_ids) == 1


def test_words_and_prompts_are_single_tokens():
    for word in (*LABELS, *COLORS, *(f" {word}" for word in (*LABELS, *COLORS)), *SPECIAL_TOKENS, *"0123456789.-"):
        assert len(TOKENIZER(word).input_ids) == 1, word
    text = build_tiny_processor().apply_chat_template(build_messages("reconstruction", 1), add_generation_prompt=True)
    assert len(TOKENIZER(text).input_ids) == 17


def test_size_specials_and_determinism():
    assert 256 < len(TOKENIZER) < 600
    assert isinstance(TOKENIZER, Qwen2Tokenizer) and TOKENIZER.padding_side == "left"
    assert (TOKENIZER.pad_token, TOKENIZER.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert build_tiny_tokenizer().get_vocab() == TOKENIZER.get_vocab()
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(len(TOKENIZER)))
    ids = [TOKENIZER.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS]
    assert len(set(ids)) == 7 and TOKENIZER.decode(ids, skip_special_tokens=True) == ""


def test_save_and_auto_load(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = format_point("table", [1.41, 0.37, 1.43]) + " the red chair, 漢字"
    assert type(loaded) is Qwen2Tokenizer and loaded.padding_side == "left"
    assert loaded.get_vocab() == TOKENIZER.get_vocab() and loaded(text).input_ids == TOKENIZER(text).input_ids
    assert loaded.all_special_tokens == TOKENIZER.all_special_tokens
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@example(' the others\' chairs\t\r\n```json\n{"label": "x')
@example("  two  spaces , and . dots ")
@example("1234 -0.5 \x00 \u2028 🙂 漢字")
def test_any_text_round_trips(text):
    text = unicodedata.normalize("NFC", text)  # Qwen's tokenizers normalise
    assert TOKENIZER.decode(TOKENIZER(text).input_ids) == text
