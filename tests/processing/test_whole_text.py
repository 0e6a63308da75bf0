"""Halves of characters: found, mended where a question holds them, and told of."""

import io
import json

import ijson
import pytest
from PIL import Image
from transformers.utils import logging

from gap_mllm import GapMllmForConditionalGeneration, SceneSession
from gap_mllm.processing.answer_folder import write_answers
from gap_mllm.processing.data.folder_writing import write_atomically
from gap_mllm.processing.input_checks_gap_mllm import find_half, mend_chat, whole_text
from gap_mllm.processing.json_halves import HalfKeeper, restore_halves


CUT = "where is it? \ud83d"  # the first half of an emoji
MENDED = "where is it? \ufffd"


@pytest.fixture
def warnings(monkeypatch):
    """What is warned of."""
    told = []
    for name in ("warning", "warning_once"):
        monkeypatch.setattr(logging.get_logger("gap_mllm"), name, told.append, raising=False)
    monkeypatch.setattr("gap_mllm.processing.input_checks_gap_mllm.logger.warning_once", told.append)
    return told


@pytest.fixture
def model(tiny_model):
    return tiny_model(model_class=GapMllmForConditionalGeneration)


@pytest.fixture
def views():
    return [Image.effect_noise((96, 64), 60 + 20 * index).convert("RGB") for index in range(2)]


@pytest.mark.parametrize(
    ("text", "half", "whole"),
    [
        ("plain", None, "plain"),
        ("\U0001f600 \u4f60", None, "\U0001f600 \u4f60"),
        ("a \ud83d", "\\ud83d", "a \ufffd"),
        ("\ude00 b", "\\ude00", "\ufffd b"),
        ("\ud83d\ude00", "\\ud83d", "\U0001f600"),  # two halves that belong together
        ("\ude00\ud83d", "\\ude00", "\ufffd\ufffd"),
        ("\udce4\udcbd\udca0\udce5", "\\udce4", "\u4f60\ufffd"),  # bytes of a command line under LC_ALL=C
    ],
)
def test_a_half_is_found_and_what_can_be_read_is_read(text, half, whole):
    assert find_half(text) == half and whole_text(text) == whole


def test_a_chat_is_mended_and_pictures_and_paths_stay():
    picture = {"type": "image", "image": "\udce4.png"}
    chat = [{"role": "user", "content": [picture, {"type": "text", "text": CUT}]}, {"role": "user", "content": CUT}]
    mended = mend_chat(chat)
    assert mended[0]["content"][0] is picture and mended[0]["content"][1]["text"] == MENDED
    assert mended[1]["content"] == MENDED and chat[1]["content"] == CUT
    assert mend_chat(mended) is mended and mend_chat([chat])[0][1]["content"] == MENDED


def test_a_session_answers_a_cut_question_and_says_what_it_asked(model, tiny_processor, views, warnings):
    with SceneSession(model, tiny_processor, views) as scene:
        expected = scene.ask(MENDED, max_new_tokens=4)
        assert warnings == []
        answer = scene.ask(CUT, max_new_tokens=4)
        assert (answer.question, answer.text) == (MENDED, expected.text)
        assert len(warnings) == 1 and "\\ud83d" in warnings[0] and "U+FFFD" in warnings[0]
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": CUT}]}]
        assert scene.ask(chat, max_new_tokens=4).question == MENDED
        assert scene.ground(CUT, max_new_tokens=4).question == MENDED
        assert scene.detect([CUT], max_new_tokens=4).question == MENDED
        assert "".join(scene.stream(CUT, max_new_tokens=4)) == expected.text


def test_the_processor_takes_cut_texts(model, tiny_processor, views, warnings):
    messages = tiny_processor.build_messages("grounding_box", views, description=CUT)
    assert MENDED in messages[-1]["content"][-1]["text"]
    chat = [{"role": "user", "content": CUT}]
    assert MENDED in tiny_processor.apply_chat_template(chat, tokenize=False)
    asked = tiny_processor.apply_chat_template(chat, tokenize=True, return_dict=True)
    expected = tiny_processor.apply_chat_template(
        [{"role": "user", "content": MENDED}], tokenize=True, return_dict=True
    )
    assert asked["input_ids"] == expected["input_ids"]
    assert tiny_processor(text=[CUT])["input_ids"] == tiny_processor(text=[MENDED])["input_ids"]
    assert tiny_processor(text=CUT)["input_ids"] == tiny_processor(text=MENDED)["input_ids"]
    assert len(tiny_processor.ask(model, [chat], max_new_tokens=2)) == 1
    assert len(warnings) >= 4


def test_answers_about_files_whose_names_are_no_text_are_written(model, tiny_processor, views, tmp_path):
    named = [view.copy() for view in views]
    paths = [tmp_path / "a\udce4.png", tmp_path / "b.png"]
    for view, path in zip(named, paths, strict=True):
        view.save(path)
    with SceneSession(model, tiny_processor, paths) as scene:
        files, _ = write_answers(scene, [scene.ask(CUT, max_new_tokens=2)], tmp_path / "out", ["html"], title=CUT)
    told = json.loads(files[0].read_text(encoding="utf-8"))
    assert [view["name"] for view in told["views"]] == ["a\ufffd.png", "b.png"]
    assert told["answers"][0]["question"] == MENDED
    assert MENDED in files[-1].read_text(encoding="utf-8")


def test_a_file_is_written_with_what_stands_for_a_half(tmp_path):
    write_atomically(tmp_path / "a.txt", CUT)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == MENDED


# JSON that is streamed

PIECES = [r"\ud83d", r"\ude00", r"\uD83D\uDE00", r"\\", r"\"", "a", "\u00e9", r"\u4f60", "ud83d", "\ud83d", "\udc80"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 4096])
def test_a_streaming_parser_reads_halves_as_json_does(size):
    texts = ["".join(PIECES[place:] + PIECES[:place]) for place in range(len(PIECES))]
    text = f'[{{"{texts[0]}": [1, "{texts[1]}"]}}, "' + '", "'.join(texts) + '"]'
    data, keeper = text.encode("utf-8", "surrogatepass"), HalfKeeper()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    kept = b"".join(map(keeper.feed, pieces)) + keeper.feed(b"", is_end=True)
    parsed = list(ijson.items(io.BytesIO(kept), "item", use_float=True))
    assert restore_halves(parsed) == json.loads(text) and keeper.num_found > 0


def test_json_without_halves_reaches_the_parser_as_it_is():
    keeper, data = HalfKeeper(), rb'["\\ud83d", "\ud83d\ude00", "\u4f60", "' + "\ud7ff\u4f60".encode() + b'"]'
    assert keeper.feed(data) + keeper.feed(b"", is_end=True) == data and keeper.num_found == 0
