"""Geometry features made once and passed in: the same outputs, no second run of the encoder, and what is refused."""

import copy

import pytest
import torch

from gap_mllm import GapMllmForPreTraining


GREEDY = {"max_new_tokens": 6, "do_sample": False}
VISION = ("pixel_values", "image_grid_thw", "mm_token_type_ids")


@pytest.fixture(scope="module")
def inputs(make_inputs):
    return make_inputs([(64, 64), (64, 96)], [], [(96, 32)])


@pytest.fixture(scope="module")
def geometry(model, inputs):
    return model.model.get_geometry_features(**{name: inputs[name] for name in VISION})


@pytest.fixture(scope="module")
def pretraining_model(tiny_model):
    return tiny_model(model_class=GapMllmForPreTraining)


@pytest.fixture
def no_encoder(model):
    """The shared model, whose geometry encoder must not be called."""

    def refuse(*_):
        raise AssertionError("the geometry encoder ran")

    handle = model.model.geometry.register_forward_pre_hook(refuse)
    yield model
    handle.remove()


def test_features_have_a_row_for_each_patch(model, geometry):
    encoder = model.config.geometry_config
    assert geometry.shape == (len(encoder.tap_layers), 4 * 4 + 4 * 6 + 6 * 2, encoder.feature_size)
    assert not geometry.requires_grad


def test_forward_and_generate_give_the_same_without_the_encoder(model, inputs, geometry, request):
    logits, tokens = model(**inputs).logits, model.generate(**inputs, **GREEDY)
    no_encoder = request.getfixturevalue("no_encoder")
    assert torch.equal(no_encoder(**inputs, geometry_features=geometry).logits, logits)
    assert torch.equal(no_encoder.generate(**inputs, geometry_features=geometry, **GREEDY), tokens)


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"do_sample": True, "num_return_sequences": 3}])
def test_generate_in_several_sequences_a_row(model, make_inputs, options):
    inputs = make_inputs([(64, 64), (64, 96)])
    geometry = model.model.get_geometry_features(**{name: inputs[name] for name in VISION})
    answers = []
    for given in ({}, {"geometry_features": geometry}):
        torch.manual_seed(0)
        answers.append(model.generate(**inputs, **given, **{**GREEDY, **options}))
    assert torch.equal(*answers)


def test_other_features_change_the_answer(model, inputs, geometry):
    assert not torch.equal(
        model(**inputs, geometry_features=geometry.flip(1)).logits, model(**inputs, geometry_features=geometry).logits
    )


def test_the_last_view_as_frame(tiny_model, inputs):
    model = tiny_model(reference_frame="last")
    geometry = model.model.get_geometry_features(**{name: inputs[name] for name in VISION})
    assert torch.equal(model(**inputs, geometry_features=geometry).logits, model(**inputs).logits)


def test_pretraining_outputs_are_the_same(pretraining_model, make_inputs):
    inputs = dict(make_inputs([(64, 64), (64, 96)]))
    geometry = pretraining_model.model.get_geometry_features(**{name: inputs[name] for name in VISION})
    inputs["labels"] = inputs["input_ids"]
    given, own = pretraining_model(**inputs, geometry_features=geometry), pretraining_model(**inputs)
    assert torch.equal(given.answer_logits, own.answer_logits)
    for source in own.point_maps:
        assert torch.equal(given.point_maps[source], own.point_maps[source])


def test_ignored_by_plain_qwen(model, inputs, geometry):
    with model.geometry_disabled():
        assert torch.equal(model(**inputs, geometry_features=geometry).logits, model(**inputs).logits)


@pytest.mark.parametrize("broken", [lambda g: g[:-1], lambda g: g[:, 1:], lambda g: g[..., 1:], lambda g: g[0]])
def test_other_shapes_are_refused(model, inputs, geometry, broken):
    with pytest.raises(ValueError, match="geometry_features has shape .* levels, patches of all images, features"):
        model(**inputs, geometry_features=broken(geometry))


def test_features_without_pixels_are_refused(model, inputs, geometry):
    text = {"input_ids": inputs["input_ids"][1:2], "attention_mask": inputs["attention_mask"][1:2]}
    with pytest.raises(ValueError, match="geometry_features came without pixel_values"):
        model(**text, geometry_features=geometry)


def test_an_encoder_in_training_refuses_features(pretraining_model, make_inputs):
    model, inputs = copy.deepcopy(pretraining_model).train(), dict(make_inputs([(64, 64)]))
    geometry = model.model.get_geometry_features(**{name: inputs[name] for name in VISION})
    model.model.geometry.requires_grad_(True)
    with pytest.raises(ValueError, match="the geometry encoder is trained"):
        model(**inputs, labels=inputs["input_ids"], geometry_features=geometry)
