"""Grounding in two stages: which views are shown, encoded once, and what baselines leave out."""

import pytest

from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.benchmarks.two_stage import answer_in_two_stages, views_around
from gap_mllm.evaluation.runner.questions import load_questions
from gap_mllm.processing.asking_gap_mllm import AnswerForm, Asker
from gap_mllm.processing.data.answer_texts import read_description
from gap_mllm.processing.data.scene_sample import SceneSample, View


FORMS = (AnswerForm(24, ("frame",)), AnswerForm(64, ("bbox_3d",)))


@pytest.fixture(scope="module")
def grounding(formats, cache_dir):
    benchmark = find_benchmark("gap_mllm_grounding_two_stage")
    return load_questions(benchmark, formats / "gap_mllm", cache_dir=cache_dir)[0]


class FixedFrames(Asker):
    """Answers the first stage with given frames, and counts what is encoded and asked."""

    def __init__(self, loaded, frames):
        super().__init__(*loaded)
        self.frames, self.encoded, self.chats = list(frames), [], []

    def encode(self, view_sets, geometry_sets=None):
        self.encoded.append([len(views) for views in view_sets])
        return super().encode(view_sets, geometry_sets)

    def ask(self, chats, form, encoded=None, scenes=None):
        self.chats += chats
        if form.keys == ("frame",):
            return [self.frames.pop(0) for _ in chats]
        return super().ask(chats, form, encoded, scenes)


def answer(asker, grounding, baseline="model", batch_size=16):
    return answer_in_two_stages(baseline, asker, FORMS, list(grounding), None, batch_size)


def test_each_set_of_views_is_encoded_once(loaded, grounding):
    asker = FixedFrames(loaded, ['{"frame": 2}', '{"frame": 2}'])
    records = answer(asker, grounding, batch_size=1)
    # frame 00040 is view 2; of 00000 .. 00110 in the folder seven follow it and four stand before
    assert asker.encoded == [[6], [12]]
    assert [record["frame"] for record in records] == [2, 2]
    different = FixedFrames(loaded, ['{"frame": 0}', '{"frame": 5}'])
    answer(different, grounding)
    assert different.encoded == [[6], [10], [11]]


def test_an_answer_without_a_frame_means_the_first_view_and_is_told(loaded, grounding):
    records = answer(FixedFrames(loaded, ["no idea", '{"frame": 6}']), grounding)
    assert [record["frame"] for record in records] == [0, 0]
    assert [record["frame_rejected"] for record in records] == ["no frame", "frame is outside 0..5"]


def test_arms_see_less(loaded, grounding):
    blind = FixedFrames(loaded, ['{"frame": 2}', '{"frame": 2}'])
    answer(blind, grounding, "blind")
    assert blind.encoded == []
    parts = [part for chat in blind.chats for part in chat[-1]["content"]]
    assert all(part["type"] == "text" and "Frame" not in part["text"] for part in parts)
    first = FixedFrames(loaded, ['{"frame": 0}', '{"frame": 2}'])
    records = answer(first, grounding, "first_view")
    assert first.encoded == [[1], [1]] and [record["frame"] for record in records] == [0, 0]


def test_the_second_stage_is_plain_generate(loaded, grounding):
    model, processor = loaded
    text = answer(FixedFrames(loaded, ['{"frame": 2}', '{"frame": 2}']), grounding, batch_size=1)[0]["text"]
    sample = grounding.sample(grounding.ids[0])
    images = [view.image for view in views_around(sample, 2)]
    chat = processor.build_messages("grounding_box", images, description=read_description(sample))
    inputs = processor.apply_chat_template(
        [chat], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    plain = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
    assert text and plain.startswith(text)


def test_views_around_are_the_files_that_are_there(grounding):
    sample = grounding.sample(grounding.ids[0])
    names = [view.picture["path"].rsplit("/", 1)[1][:5] for view in views_around(sample, 2)]
    after, before = [f"000{n}0" if n < 10 else f"00{n}0" for n in range(5, 12)], ["00030", "00020", "00010", "00000"]
    assert names == ["00040", *after, *before]


def test_views_without_numbers_keep_their_order():
    views = tuple(View(picture={"path": None, "bytes": b""}, frame_id=number) for number in range(4))
    found = views_around(SceneSample(views=views), 1)
    assert [view.frame_id for view in found] == [1, 2, 3, 0]


def test_a_question_must_describe_its_object():
    assert read_description(SceneSample(question="Find.\nText: a red\nchair \nOutput a JSON")) == "a red\nchair"
    with pytest.raises(ValueError, match="question 'q' has no 'Text"):
        read_description(SceneSample(id="q", question="Text: \nOutput a JSON"))
