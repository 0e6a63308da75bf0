"""A model taken apart for engines: plain Qwen3-VL gives the tokens of the whole model from a scene's embeddings."""

import dataclasses

import pytest
import torch
from transformers import AutoConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from gap_mllm import GapMllmForConditionalGeneration, GapMllmProcessor
from gap_mllm.processing.data import render_room
from gap_mllm.serving import SceneEncoder, to_serving
from tests.modeling.test_serving import MODEL


@pytest.fixture(scope="module")
def model():
    return GapMllmForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor():
    return GapMllmProcessor.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    before = model.state_dict()
    folder = to_serving(model, tmp_path_factory.mktemp("serving"))
    assert {name: id(value) for name, value in model.state_dict().items()}.keys() == before.keys()  # left as it was
    assert model.config.text_config.vocab_size > 1 and model.model.language_model.layers
    return folder


def as_output(scene, levels):
    """A scene's embeddings as what the tower of transformers' model gives for its pictures."""
    sizes = (scene.image_grid_thw.prod(-1) // scene.merge_size**2).tolist()
    final, *deep = scene.image_embeds.chunk(levels, dim=-1)
    return BaseModelOutputWithDeepstackFeatures(
        pooler_output=torch.split(final, sizes), deepstack_features=[torch.split(level, sizes) for level in deep]
    )


@pytest.mark.parametrize("num_views", [1, 4])
def test_plain_qwen_answers_as_the_whole_model(model, processor, served, num_views):
    views = list(render_room(0).images)[:num_views]
    plain = Qwen3VLForConditionalGeneration.from_pretrained(served / "qwen3_vl", dtype=torch.float32).eval()
    encoder = SceneEncoder.from_pretrained(served / "scene_encoder")
    scene = encoder(views)
    assert torch.equal(scene.image_embeds, SceneEncoder(model, processor)(views).image_embeds)
    inputs = processor.apply_chat_template(
        processor.build_messages("detection3d", views), add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )  # fmt: skip
    greedy = {"max_new_tokens": 24, "do_sample": False}
    expected = model.generate(**inputs, **greedy)
    given = {name: value for name, value in inputs.items() if name != "pixel_values"}
    levels = scene.image_embeds.shape[1] // model.config.text_config.hidden_size
    answered = plain.generate(**given, mm_encoder_outputs={"image": as_output(scene, levels)}, **greedy)
    assert torch.equal(answered, expected)
    without = plain.generate(**inputs, **greedy)  # the tower alone, without geometry
    assert not torch.equal(without, expected)


def test_the_plain_folder_is_of_stock_qwen(served):
    config = AutoConfig.from_pretrained(served / "qwen3_vl")
    assert config.model_type == "qwen3_vl" and config.architectures == ["Qwen3VLForConditionalGeneration"]
    assert not list((served / "qwen3_vl").glob("*.py"))


def test_forms_for_engines(model, processor):
    scene = SceneEncoder(model, processor)(list(render_room(1).images)[:2])
    image = scene.for_vllm()["image"]
    (item,) = scene.for_sglang()
    assert image["image_embeds"] is item["feature"] and image["image_grid_thw"] is item["image_grid_thw"]
    assert item["format"] == "precomputed_embedding"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"image_embeds": s.image_embeds[:-1]}, r"image_embeds has shape \(31, 512\).*\(32, 512\)"),
        (lambda s: {"image_embeds": s.image_embeds[:, :128]}, r"image_embeds has shape \(32, 128\)"),
        (lambda s: {"image_embeds": s.image_embeds.long()}, "torch.int64.*floating-point"),
        (lambda s: {"image_embeds": s.image_embeds * float("nan")}, "not finite"),
        (lambda s: {"image_grid_thw": s.image_grid_thw[:1]}, r"ask for \(16, 512\)"),
        (lambda s: {"image_grid_thw": s.image_grid_thw.float()}, "positive integers"),
        (lambda s: {"image_grid_thw": s.image_grid_thw[0]}, r"expected \(views, 3\)"),
        (lambda s: {"image_grid_thw": s.image_grid_thw[:, [0, 0, 2]]}, "must divide by 2"),
    ],
)
def test_shapes_that_would_end_an_engine_are_refused(model, processor, change, message):
    scene = SceneEncoder(model, processor)(list(render_room(1).images)[:2])
    assert tuple(scene.image_embeds.shape) == (32, 512)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(scene, **change(scene))


def test_what_is_no_scene_and_no_model(model, processor, tmp_path):
    with pytest.raises(ValueError, match="there are no views"):
        SceneEncoder(model, processor)([])
    with pytest.raises(TypeError, match="expected a GapMllmForConditionalGeneration"):
        to_serving(model.model, tmp_path)
