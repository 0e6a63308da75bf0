"""Answers that are valid by construction: the grammar takes what we write, and generation cannot leave it."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing import (
    build_tiny_tokenizer,
    format_box,
    format_boxes,
    format_frame,
    format_point,
    format_points,
    parse_boxes,
    parse_frame,
    parse_points,
)
from gap_mllm.processing.answer_grammar_gap_mllm import GrammarLogits, answer_grammar
from gap_mllm.processing.answers_gap_mllm import format_frame_box
from gap_mllm.processing.asking_gap_mllm import ANSWER_FORMS, AnswerForm, Asker


needs_grammar = pytest.mark.skipif(find_spec("xgrammar") is None, reason="needs xgrammar, the extra grammar")
BOX = [0.5, -0.04, 2, 1, 2, 0.05, -3.14, 0, 1.5]
WRITTEN = {
    "reconstruction": [format_point("bed", [0.5, -1, 12.25]), format_point('a "b"'[:1], [0, 0, 0], decimals=1)],
    "sparse_points": [format_points(["bed", "night table"], [[0, 0, 1], [1, -2, 3]])],
    "detection3d": [format_boxes(["bed", "door"], [BOX, BOX]), format_boxes([], [])],
    "grounding": [format_frame_box(3, BOX)],
    "grounding_frame": [format_frame(12)],
    "grounding_box": [format_box(BOX), format_box(BOX, decimals=3)],
}
REFUSED = {
    "reconstruction": ['```json\n{"pointmap"', '```json\n{"label": ""', '```json\n{"label": "bed", "pointmap": [1,'],
    "detection3d": ["[", '```json\n[\n\t{"label": "bed", "bbox_3d": [0.0, 0.0, 0.0, 0.0,'],
    "grounding_frame": ['```json\n\t{"frame": -1', '```json\n\t{"frame": 01'],
    "grounding_box": ['```json\n\t{"bbox_3d": [0.0, 0.0, 0.0, 1.0, 1.0, -'],
}


def byte_level_tokenizer():
    """A tokenizer of Qwen's kind: bytes, and merges that run across brackets, with ends of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    texts = [text for kind in WRITTEN.values() for text in kind] * 8
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_end|>", "<|endoftext|>"],
        max_token_length=6,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.backend_tokenizer.decoder = decoders.ByteLevel()
    return fast


TOKENIZERS = {"tiny": build_tiny_tokenizer, "byte level": byte_level_tokenizer}


def walk(tokenizer, task, text):
    """Whether the grammar allows all tokens of a text, one after the other, and the mask behind the last one."""
    form, ends = ANSWER_FORMS[task], [tokenizer.eos_token_id]
    logits = GrammarLogits(tokenizer, answer_grammar(form.written, form.is_list), 1, 4096, ends)
    tokens = [0, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    for place in range(1, len(tokens) + 1):
        mask = logits(torch.tensor([tokens[:place]]), torch.zeros(1, len(tokenizer) + 3))[0]
        if place == len(tokens):
            return True, mask
        if mask[tokens[place]] < 0:
            return False, mask


@needs_grammar
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_grammar_takes_what_we_write_and_then_the_end(kind):
    tokenizer = TOKENIZERS[kind]()
    for task, texts in WRITTEN.items():
        for text in texts:
            is_taken, mask = walk(tokenizer, task, text)
            assert is_taken, text
            assert torch.nonzero(mask == 0).flatten().tolist() == [tokenizer.eos_token_id], text
    for task, texts in REFUSED.items():
        for text in texts:
            assert not walk(tokenizer, task, text)[0], text


@needs_grammar
@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("task", WRITTEN)
def test_random_tokens_become_valid_answers(kind, task):
    tokenizer, form = TOKENIZERS[kind](), ANSWER_FORMS[task]
    budget = 400
    logits = GrammarLogits(tokenizer, answer_grammar(form.written, form.is_list), 1, budget, [tokenizer.eos_token_id])
    generator = torch.Generator().manual_seed(0)
    rows = torch.full((3, 1), 5)
    favoured = torch.zeros(len(tokenizer))
    favoured[tokenizer(",\n\t{", add_special_tokens=False)["input_ids"]] = 6.0  # would go on for ever
    for _ in range(budget):
        scores = torch.randn((3, len(tokenizer)), generator=generator) + favoured
        scores = logits(rows, scores)
        ended = (rows == tokenizer.eos_token_id).any(1)
        chosen = torch.where(ended, torch.tensor(tokenizer.pad_token_id), scores.argmax(-1))
        rows = torch.cat([rows, chosen[:, None]], 1)
    read = parse_frame if "frame" in task else parse_points if "point" in str(form.keys) else parse_boxes
    for row in rows[:, 1:].tolist():
        assert tokenizer.eos_token_id in row, "the answer has to be closed in time"
        text = tokenizer.decode(row, skip_special_tokens=True)
        answer = read(text)
        assert not answer.rejected and not answer.truncated and text.endswith("```"), text
        assert form.is_list or len(answer.items) == 1


@needs_grammar
def test_beams_that_change_places_keep_their_state():
    tokenizer = build_tiny_tokenizer()
    tokens = tokenizer(WRITTEN["grounding_box"][0], add_special_tokens=False)["input_ids"]
    other = tokenizer(WRITTEN["grounding_box"][1], add_special_tokens=False)["input_ids"]
    grammar = answer_grammar(("bbox_3d",))
    logits = GrammarLogits(tokenizer, grammar, 0, 500, [tokenizer.eos_token_id])
    for place in range(1, min(len(tokens), len(other))):
        rows = [tokens[:place], other[:place]]
        rows = rows[::-1] if place % 3 == 0 else [rows[0]] * 2 if place % 5 == 0 else rows
        together = logits(torch.tensor(rows), torch.zeros(2, len(tokenizer)))
        for row, mask in zip(rows, together, strict=True):
            fresh = GrammarLogits(tokenizer, grammar, 0, 500, [tokenizer.eos_token_id])
            assert torch.equal(fresh(torch.tensor([row]), torch.zeros(1, len(tokenizer)))[0], mask)


@pytest.fixture(scope="module")
def random_model(tiny_model):
    return tiny_model(model_class=GapMllmForConditionalGeneration).eval()


@pytest.fixture
def views():
    return _noise(0)


def _noise(seed):
    """Two views. (PIL's own noise comes from the state of the process, which other tests change.)"""
    noise = np.random.default_rng(seed).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    return [Image.fromarray(view) for view in noise]


@needs_grammar
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"do_sample": True, "temperature": 3.0, "top_k": 0}], ids=str
)
def test_a_random_model_answers_validly_in_batches(random_model, tiny_processor, views, options):
    processor = tiny_processor
    chats = [
        processor.build_messages("detection3d", views),
        processor.build_messages("detection3d", views, prompt="Where is everything? " * 5),  # left padding differs
        processor.build_messages("detection3d", _noise(1)),  # this model finds nothing in it, and has to end there
    ]
    torch.manual_seed(0)
    texts = processor.ask(random_model, chats, task="detection3d", constrained=True, max_new_tokens=220, **options)
    for answer in processor.post_process_boxes(texts, require_label=True):
        assert not answer.rejected and not answer.truncated
    alone = processor.ask(random_model, chats[:1], task="grounding_frame", constrained=True)
    assert processor.post_process_frame(alone)[0].first is not None


@needs_grammar
def test_an_asker_may_constrain_all_but_free_text(random_model, tiny_processor, views):
    processor = tiny_processor
    asker = Asker(random_model, processor, constrained=True)
    chats = [processor.build_messages("grounding_box", views, description="the bed")]
    text = asker.answer(chats, ANSWER_FORMS["grounding_box"])[0]
    assert parse_boxes(text).first is not None
    free = asker.answer(chats, AnswerForm(8))
    assert free == Asker(random_model, processor).answer(chats, AnswerForm(8))
    with pytest.raises(ValueError, match="constrained=True needs.*reconstruction.*not free text"):
        processor.ask(random_model, chats, constrained=True)


def test_unknown_keys_are_named():
    with pytest.raises(ValueError, match=r"\['depth'\]; expected some of label, pointmap, bbox_3d, frame"):
        answer_grammar(("depth",))
    with pytest.raises(ValueError, match="expected some of"):
        answer_grammar(())


def test_without_the_extra_the_error_names_it(monkeypatch):
    def refuse(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("gap_mllm.processing.answer_grammar_gap_mllm.import_module", refuse)
    with pytest.raises(ImportError, match=r"pip install gap-mllm\[grammar\]"):
        GrammarLogits(build_tiny_tokenizer(), answer_grammar(("frame",)), 0, 32, [0])
