"""Streaming: pieces that together are the answer, boxes as they close, and what happens to those who leave."""

import json
import threading

import pytest
from PIL import Image

from gap_mllm import SceneSession
from gap_mllm.processing import parse_boxes
from gap_mllm.processing.answer_grammar_gap_mllm import closed_objects, cut_after_json
from gap_mllm.processing.asking_gap_mllm import AnswerForm


@pytest.fixture
def scene(tiny_model, tiny_processor):
    views = [Image.effect_noise((96, 64), 60 + 20 * index).convert("RGB") for index in range(2)]
    return SceneSession(tiny_model(), tiny_processor, views)


def in_pieces(text, size):
    for start in range(0, len(text), size):
        yield text[start : start + size]
    return "done"


def test_pieces_are_the_answer(scene):
    answer = scene.ask("What is there?", max_new_tokens=20)
    stream = scene.stream("What is there?", max_new_tokens=20)
    pieces = list(stream)
    assert len(pieces) > 5 and "".join(pieces) == answer.text
    assert stream.result == answer and answer.truncated
    assert scene.stream("What is there?", max_new_tokens=20).result == answer  # without reading it
    chat = scene.messages("What is there?")
    assert "".join(scene.stream(chat, max_new_tokens=20)) == answer.text
    sampled = {"do_sample": True, "max_new_tokens": 6, "temperature": 5.0}
    stream = scene.stream("What is there?", **sampled)
    assert "".join(stream) == stream.result.text


def test_who_leaves_midway_finds_the_session_as_it_was(scene):
    answer = scene.ask("What is there?", max_new_tokens=6)
    for piece in scene.stream("What is there?", max_new_tokens=4000):
        assert piece
        break
    assert scene.ask("What is there?", max_new_tokens=6) == answer  # would wait for 4,000 tokens
    held = scene.stream("What is there?", max_new_tokens=4000)
    next(held)
    held.close()
    assert scene.ask("What is there?", max_new_tokens=6) == answer and held.result is None
    never = scene.stream("What is there?", max_new_tokens=4000)  # and nobody reads it
    assert scene.ask("What is there?", max_new_tokens=6) == answer
    del never
    both = [scene.stream("What is there?", max_new_tokens=6) for _ in range(2)]
    assert ["".join(pair) for pair in zip(*both, strict=True)]
    assert [stream.result for stream in both] == [answer] * 2
    assert not [each for each in threading.enumerate() if each.name == "answer" and not each.daemon]


def test_errors_come_where_the_answer_is_read(scene):
    stream = scene.stream("What is there?", max_new_tokens=6, no_such_option=1)
    with pytest.raises(ValueError, match="no_such_option"):
        list(stream)
    assert scene.ask("What is there?", max_new_tokens=2).text
    with pytest.raises(ValueError, match="num_beams is 3; what is streamed is one answer"):
        scene.stream("What is there?", num_beams=3)
    with pytest.raises(ValueError, match="the question is empty"):
        scene.stream(" ")


BOX = {"label": "bed", "bbox_3d": [0, 0, 2, 1, 1, 1, 0, 0, 0]}
TEXTS = {
    "list": "```json\n[\n\t" + ",\n\t".join(json.dumps(BOX) for _ in range(3)) + "\n]```",
    "cut off": f"[{json.dumps(BOX)}, {json.dumps(BOX)[:-9]}",
    "brackets in a label": json.dumps([{**BOX, "label": "a}b{"}, BOX]),
    "nested": json.dumps({"objects": [BOX, {**BOX, "part": BOX}]}),
    "around and never closed": '{"objects": [' + json.dumps(BOX) + ", " + json.dumps(BOX),
    "refused": json.dumps([{"label": "x"}, {"bbox_3d": [1]}, BOX]),
    "an apostrophe": "it's {a 'quote\n" + json.dumps(BOX),
    "nothing": "no objects",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_objects_that_close_are_those_of_the_whole_answer(text, size):
    assert list(closed_objects(in_pieces(text, size), parse_boxes, lambda item: item)) == list(parse_boxes(text).items)


def test_an_object_comes_when_it_closes():
    text = TEXTS["list"]
    read = []

    def pieces():
        for piece in in_pieces(text, 1):
            read.append(piece)
            yield piece

    objects = closed_objects(pieces(), parse_boxes, lambda item: item)
    next(objects)
    assert "".join(read) == text[: text.index("}") + 1]


def test_boxes_of_a_session(scene, monkeypatch):
    other = {**BOX, "label": "lamp"}
    text = json.dumps([BOX, other, {"label": "no box"}]) + " and more"

    def generate(**inputs):
        """As if the model said the text."""
        tokens = scene.processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        ids = inputs["input_ids"]
        if "streamer" in inputs:
            inputs["streamer"].put(ids)
            for token in tokens[0]:
                inputs["streamer"].put(token[None])
        return scene.model.get_input_embeddings().weight.new_tensor([[*ids[0], *tokens[0]]]).long()

    monkeypatch.setattr(scene.model, "generate", generate)
    found = scene.detect(["bed", "sofa"])
    stream = scene.stream_boxes(["bed", "sofa"])
    boxes = list(stream)
    assert tuple(boxes) == found.boxes and len(boxes) == 1 and stream.result == found
    assert [each.text for each in found.rejected] == ['{"label": "no box"}', "sofa"]
    assert list(scene.stream_boxes()) == list(scene.detect().boxes) and len(scene.detect()) == 2
    assert found.text == cut_after_json(text, ("bbox_3d",), is_list=True)
    assert AnswerForm().keys == ()
