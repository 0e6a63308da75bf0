"""`processor.ask`: a whole conversation in, its answer out; equal to plain generate() and to one chat at a time."""

import pytest
import torch
from PIL import Image

from gap_mllm import GapMllmForConditionalGeneration
from tests.processing.small_videos import write_video


@pytest.fixture
def model(tiny_model):
    return tiny_model(model_class=GapMllmForConditionalGeneration).eval()


@pytest.fixture
def views():
    return [Image.effect_noise((96, 64), 60 + 20 * index).convert("RGB") for index in range(3)]


def plain(model, processor, chat, choice=None, **options):
    """What generate() answers to one chat."""
    inputs = processor.apply_chat_template(
        [chat],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=choice or {},
    )
    output = model.generate(**inputs, do_sample=False, **options)
    return processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]


def test_chats_are_answered_as_by_generate_and_shared_views_are_seen_once(model, tiny_processor, views, monkeypatch):
    chats = [
        tiny_processor.build_messages("grounding_box", views, description="the chair"),
        tiny_processor.build_messages("detection3d", views),
        tiny_processor.build_messages("reconstruction", views[:2]),
    ]
    expected = [plain(model, tiny_processor, chat, max_new_tokens=12) for chat in chats]
    encode, calls = model.model.get_image_features, []
    monkeypatch.setattr(
        model.model, "get_image_features", lambda *a, **k: calls.append(k["scene_lengths"]) or encode(*a, **k)
    )
    assert tiny_processor.ask(model, chats, max_new_tokens=12) == expected
    assert calls == [[3, 2]]


def test_options_reach_generate(model, tiny_processor, views):
    chat = tiny_processor.build_messages("reconstruction", views)
    options = {"do_sample": True, "temperature": 5.0, "max_new_tokens": 8}
    torch.manual_seed(0)
    first = tiny_processor.ask(model, [chat], **options)
    torch.manual_seed(1)
    assert tiny_processor.ask(model, [chat], **options) != first
    stopped = tiny_processor.ask(model, [chat], max_new_tokens=8)[0]
    assert tiny_processor.ask(model, [chat], max_new_tokens=8, stop_strings=[stopped[:2]])[0].startswith(stopped[:2])


def test_a_text_only_chat(model, tiny_processor):
    chat = [{"role": "user", "content": [{"type": "text", "text": "How far is it?"}]}]
    assert tiny_processor.ask(model, [chat], max_new_tokens=6) == [
        plain(model, tiny_processor, chat, max_new_tokens=6)
    ]


def test_bad_chats_are_named(model, tiny_processor, views):
    chat = tiny_processor.build_messages("reconstruction", views)
    with pytest.raises(TypeError, match=r"a list of conversations; for a single one write \[messages\]"):
        tiny_processor.ask(model, chat)
    with pytest.raises(ValueError, match="unknown task 'point'; known are reconstruction"):
        tiny_processor.ask(model, [chat], task="point")
    placeholders = tiny_processor.build_messages("reconstruction", 2)
    with pytest.raises(ValueError, match="an image part of a chat holds no picture"):
        tiny_processor.ask(model, [placeholders])
    with pytest.raises(ValueError, match="some chats show pictures and others none"):
        tiny_processor.ask(model, [chat, [{"role": "user", "content": "Where?"}]])
    with pytest.raises(FileNotFoundError, match=r"clip\.mp4 does not exist"):
        tiny_processor.ask(model, [[{"role": "user", "content": [{"type": "video", "path": "clip.mp4"}]}]])


def test_videos_beside_pictures_and_text(model, tiny_processor, views, tmp_path):
    paths = [write_video(tmp_path / f"{length}.mp4", frames=range(length)) for length in (8, 12)]
    shown = [[{"type": "video", "path": str(path)}] for path in paths]
    shown += [[*shown[0], {"type": "image", "image": views[0]}], []]
    chats = [[{"role": "user", "content": [*parts, {"type": "text", "text": "Where?"}]}] for parts in shown]
    choice = {"sampling": "uniform", "num_frames": 4}
    answers = tiny_processor.ask(model, chats, max_new_tokens=6, **choice)
    for chat, answer in zip(chats, answers, strict=True):
        assert tiny_processor.ask(model, [chat], max_new_tokens=6, **choice) == [answer]
        assert plain(model, tiny_processor, chat, dict(choice), max_new_tokens=6) == answer
