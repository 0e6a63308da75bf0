"""Keys in the parts of a chat that change nothing are told of, in every way of asking."""

import pytest
from PIL import Image

from gap_mllm import GapMllmForConditionalGeneration, SceneSession
from gap_mllm.processing.input_checks_gap_mllm import FRAME_KEYS, SIZE_KEYS, warn_of_unread_keys


@pytest.fixture
def warnings(monkeypatch):
    told = []
    monkeypatch.setattr("gap_mllm.processing.input_checks_gap_mllm.logger.warning_once", told.append)
    return told


@pytest.fixture
def model(tiny_model):
    return tiny_model(model_class=GapMllmForConditionalGeneration)


@pytest.fixture
def picture():
    return Image.effect_noise((96, 64), 60).convert("RGB")


def chat_of(part):
    return [{"role": "user", "content": [part, {"type": "text", "text": "What is it?"}]}]


@pytest.mark.parametrize("kind", ["image", "video", "image_url"])
@pytest.mark.parametrize("key", [*FRAME_KEYS, *SIZE_KEYS, "crop", "detail"])
def test_every_key_that_nothing_reads_is_told_with_what_to_give(warnings, kind, key):
    warn_of_unread_keys([{"type": kind, kind: "a", key: 5, "text": None}, {"type": "text", "text": "a", key: 5}])
    expected = "choose no frames" if key in FRAME_KEYS else "set no size" if key in SIZE_KEYS else "are not read"
    assert len(warnings) == 1 and warnings[0].startswith(f"{key} in") and expected in warnings[0]


def test_what_is_read_or_not_given_is_no_reason_to_warn(warnings):
    parts = [{"type": "image", key: "a", "fps": None} for key in ("image", "url", "path", "base64")]
    parts += [{"type": "video", key: "a", "max_pixels": None} for key in ("video", "url", "path")]
    warn_of_unread_keys([*parts, {"type": "image_url", "image_url": {"url": "a"}}, {"type": "image"}])
    assert warnings == []


def test_the_detail_of_an_address_is_not_read(warnings):
    warn_of_unread_keys([{"type": "image_url", "image_url": {"url": "a", "detail": "low"}}])
    assert warnings == ["detail in the parts of a chat are not read and change nothing."]


def test_all_that_is_wrong_with_a_chat_is_told_together(warnings, tiny_processor, picture):
    part = {"type": "image", "image": picture, "max_pixels": 4096, "min_pixels": 1024, "fps": 2}
    tokens = {"tokenize": True, "return_dict": True}
    asked = tiny_processor.apply_chat_template(chat_of(part), **tokens)
    plain = chat_of({"type": "image", "image": picture})
    assert len(warnings) == 2 and warnings[1].startswith("max_pixels, min_pixels in the parts of a chat set no size")
    assert asked["input_ids"] == tiny_processor.apply_chat_template(plain, **tokens)["input_ids"]
    # What the warning says does set a size.
    size = {"size": {"shortest_edge": 1024, "longest_edge": 4096}}
    fewer = tiny_processor.apply_chat_template(plain, **tokens, processor_kwargs=size)
    assert fewer["image_grid_thw"][0][1] < asked["image_grid_thw"][0][1]


def test_asking_and_sessions_tell_it_too(warnings, model, tiny_processor, picture):
    chat = chat_of({"type": "image", "image": picture, "resized_height": 32})
    expected = tiny_processor.ask(model, [chat_of({"type": "image", "image": picture})], max_new_tokens=3)
    assert warnings == []
    assert tiny_processor.ask(model, [chat], max_new_tokens=3) == expected and len(warnings) == 1
    with SceneSession(model, tiny_processor, [picture]) as scene:
        assert scene.ask(chat, max_new_tokens=3).text == expected[0] and len(warnings) == 2
