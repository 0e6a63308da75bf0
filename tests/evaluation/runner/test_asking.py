"""Asking a model: equal to plain generate, each set of views encoded once, baselines that see less."""

import numpy as np
import pytest
import torch

from gap_mllm.evaluation.runner.baseline_answers import answer_batch
from gap_mllm.evaluation.runner.questions import question_messages
from gap_mllm.processing import draw_cross
from gap_mllm.processing.asking_gap_mllm import AnswerForm, Asker


FORM = AnswerForm(40, ("pointmap",))


def plain_answers(model, processor, chats, form):
    """What generate() answers without anything of the runner."""
    inputs = processor.apply_chat_template(
        chats,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )
    output = model.generate(**inputs, max_new_tokens=form.max_new_tokens, do_sample=False)
    return processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_answers_are_those_of_plain_generate(loaded, questions):
    samples = list(questions)
    chats = [question_messages(sample, sample.marked_images(loaded[1].cross_size)) for sample in samples]
    records = answer_batch("model", Asker(*loaded), FORM, questions, questions.ids)
    assert [record["text"] for record in records] == plain_answers(*loaded, chats, FORM)
    assert [record["id"] for record in records] == questions.ids


def test_stop_strings_of_the_model_end_answers_too(loaded, questions, monkeypatch):
    sample, asker = questions.sample(questions.ids[0]), Asker(*loaded)
    chats = [question_messages(sample, sample.marked_images(loaded[1].cross_size))]
    scene = asker.encode([sample.marked_images(loaded[1].cross_size)])
    (whole,) = asker.ask(chats, AnswerForm(40), scene, [0])
    stop = whole[4:7]
    monkeypatch.setattr(loaded[0].generation_config, "stop_strings", [stop])
    (answer,) = asker.generate_answers(chats, AnswerForm(40), scene, [0])
    assert whole.startswith(answer.text) and stop in answer.text and len(answer.text) < len(whole)
    assert not answer.truncated


def test_views_are_encoded_once_for_several_questions(loaded, questions, monkeypatch):
    model, processor = loaded
    asker, images = Asker(model, processor), questions.sample(questions.ids[0]).marked_images()
    encode, calls = model.model._encode_images, []
    monkeypatch.setattr(model.model, "_encode_images", lambda *given: calls.append(list(given[3])) or encode(*given))
    chats = [
        processor.build_messages("reconstruction", images, prompt=prompt) for prompt in ("What is at the cross?", "?")
    ]
    together = asker.ask(chats, FORM, asker.encode([images]), [0, 0])
    assert calls == [[len(images)]]
    assert together == plain_answers(model, processor, chats, FORM)


def test_stopping_does_not_change_an_answer(loaded, questions, monkeypatch):
    stopped = answer_batch("model", Asker(*loaded), FORM, questions, questions.ids)
    lengths = []
    generate = loaded[0].generate

    def count(**inputs):
        output = generate(**{**inputs, "eos_token_id": [], "stopping_criteria": inputs.get("stopping_criteria")})
        lengths.append(output.shape[1] - inputs["input_ids"].shape[1])
        return output

    monkeypatch.setattr(loaded[0], "generate", count)
    assert answer_batch("model", Asker(*loaded), FORM, questions, questions.ids) == stopped
    assert lengths[0] < FORM.max_new_tokens  # although nothing else ends an answer
    monkeypatch.setattr(loaded[0], "generate", lambda **inputs: generate(**{**inputs, "stopping_criteria": None}))
    assert answer_batch("model", Asker(*loaded), FORM, questions, questions.ids) == stopped


def test_geometry_comes_from_the_partner(loaded, questions):
    model, processor = loaded
    asker = Asker(model, processor)
    own, other = ([questions.sample(row_id).marked_images()] for row_id in questions.ids[:2])
    with torch.no_grad():
        same, swapped = asker.encode(own, own).features, asker.encode(own, other).features
        plain = asker.encode(own).features
    assert torch.equal(same.pooler_output[0], plain.pooler_output[0])
    assert not torch.allclose(swapped.pooler_output[0], plain.pooler_output[0], atol=1e-3)


def test_blind_and_first_view_see_less(loaded, questions):
    seen = []

    class Listener(Asker):
        def ask(self, chats, form, encoded=None, scenes=None):
            seen.append(sum(part["type"] == "image" for part in chats[0][-1]["content"]))
            return super().ask(chats, form, encoded, scenes)

    for baseline in ("model", "first_view", "blind"):
        answer_batch(baseline, Listener(*loaded), FORM, questions, questions.ids[:1])
    assert seen == [4, 1, 0]


def test_chats_must_show_what_their_scene_has(loaded, questions):
    asker, images = Asker(*loaded), questions.sample(questions.ids[0]).marked_images()
    chat = loaded[1].build_messages("reconstruction", images[:2])
    with pytest.raises(ValueError, match="the chat shows 2 pictures, but its scene has 4"):
        asker.ask([chat], FORM, asker.encode([images]), [0])


def test_crosses_are_those_that_the_processor_says(loaded, questions, monkeypatch):
    """A model of views half as wide gets crosses twice as large; one of views of this width those of before."""
    model, processor = loaded
    shown = []
    monkeypatch.setattr(Asker, "encode", lambda self, pictures, others=None: shown.append(pictures[0]))
    monkeypatch.setattr(Asker, "ask", lambda self, chats, *rest: [""] * len(chats))
    for name in ("mark_arm", "mark_half_thickness"):  # crosses of the field's size, not the shipped model's
        monkeypatch.setattr(processor, name, None)
    sample = questions.sample(questions.ids[0])
    mark, width = sample.marks[0], sample.views[0].image.width
    for view_width in (None, width, width // 2):
        size = view_width and {"height": 96, "width": view_width}
        monkeypatch.setattr(processor, "training_view_size", size)
        answer_batch("model", Asker(model, processor), FORM, questions, questions.ids[:1])
    plain, same, large = (np.asarray(images[mark.view]) for images in shown)
    expected = draw_cross(sample.views[mark.view].image, mark.xy, mark.color, arm=20, half_thickness=5)
    assert np.array_equal(plain, same) and not np.array_equal(plain, large)
    assert np.array_equal(large, np.asarray(expected))
