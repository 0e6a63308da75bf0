"""What sessions notice: every change that an answer depends on, and none that it does not."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gap_mllm import GapMllmForConditionalGeneration, GapMllmVggtForReconstruction, SceneSession
from gap_mllm.processing.model_state_gap_mllm import SAMPLES, ModelState, models_of, processor_state, sampled_values


ENCODER = Path(__file__).parents[2] / "examples/assets/tiny_geometry_encoder"
VIEWS = [Image.effect_noise((96, 64), 60 + 20 * index).convert("RGB") for index in range(2)]
QUESTION = "How many chairs are there?"


@pytest.fixture
def scene(tiny_model, tiny_processor):
    model = tiny_model(model_class=GapMllmForConditionalGeneration)
    return SceneSession(model, copy.deepcopy(tiny_processor), VIEWS)


@pytest.fixture
def encoder():
    return GapMllmVggtForReconstruction.from_pretrained(ENCODER, dtype=torch.float32).eval()


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()


def scale_all(model):
    for parameter in model.parameters():
        parameter.data.mul_(1.25)


def average(model):
    for parameter in model.parameters():
        parameter.data = 0.5 * parameter.data + 0.1


def swap(model):
    torch.utils.swap_tensors(model[0].weight, nn.Parameter(torch.ones(4, 6)))


def load(model, **options):
    model.load_state_dict({name: 1 + value for name, value in model.state_dict().items()}, **options)


def freeze_and_change(model):
    with torch.inference_mode():
        model[2].weight.add_(1)


def one_value_of_a_small_tensor(model):
    model[0].bias.data[2] += 1


def not_a_number(model):
    model[0].bias.data[2] = float("nan")


@pytest.mark.parametrize(
    "change",
    [
        scale_all,
        average,
        swap,
        load,
        partial(load, assign=True),
        freeze_and_change,
        one_value_of_a_small_tensor,
        not_a_number,
        lambda model: model[1].running_mean.data.add_(1),
        lambda model: model.half(),
        lambda model: model.double(),
        lambda model: model.to(torch.bfloat16),
        lambda model: model.to("meta"),
        lambda model: model.train(),
        lambda model: setattr(model, "1", nn.Identity()),
        lambda model: model[0].register_forward_hook(lambda *a: None),
        lambda model: setattr(model[0], "weight", nn.Parameter(model[0].weight.detach().clone())),
    ],
)
def test_changes_of_a_module_are_noticed_and_no_others(change):
    model = small_model()
    before = ModelState.of(model)
    model(torch.ones(3, 6))
    model.train().eval()
    assert ModelState.of(model) == before
    change(model)
    after = ModelState.of(model)
    assert after != before
    assert ModelState.of(model) == after  # also with what is not a number


def test_values_are_read_bit_for_bit_whatever_their_dtype_and_place():
    tensors = [
        torch.arange(3, dtype=torch.uint8),
        torch.tensor(True),
        torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        torch.arange(12.0).view(3, 4).T,
        torch.tensor([7.0]).expand(5),
        torch.empty(0),
        torch.empty(3, device="meta"),
        torch.eye(3).to_sparse(),
    ]
    read = sampled_values(tensors)
    assert len(read) == 3 + 1 + 2 * 2 + 12 * 4 + 4
    assert read[:4] == bytes([0, 1, 2, 1]) and sampled_values([]) == b""
    large = torch.zeros(100_000)
    assert SAMPLES * 4 <= len(sampled_values([large])) <= 2 * SAMPLES * 4 + 4


def test_quantised_and_sharded_tensors_are_read_by_their_parts():
    class Parts:
        def __init__(self, **parts):
            self.__dict__.update(parts)

        def __tensor_flatten__(self):
            return list(self.__dict__), None

    layer, parts = nn.Module(), Parts(values=torch.ones(3), scale=torch.ones(1))
    layer._buffers["weight"] = parts
    before = ModelState.of(layer)
    parts.scale.data.mul_(2)
    assert ModelState.of(layer) != before


def test_the_models_behind_a_callable_are_found():
    model = small_model()

    class Holder:
        def __init__(self):
            self.model, self.other = model, 3

        def __call__(self, images):
            return self.model(images)

    def ask(images):
        return model(images)

    for source in (model, model.forward, partial(ask), ask, partial(model, 1), Holder()):
        assert models_of(source) == [model], source
    assert models_of({"a": [model]}) == models_of([model, ask]) == [model]
    assert models_of(len) == [] and ModelState.of(len) == ModelState.of(len)


def features(session):
    return session._encoded([session.messages("What?")], tuple(range(len(VIEWS))), ()).features.pooler_output


def another_encoder(scene):
    other = copy.deepcopy(scene.model.model.geometry)
    other.camera_token.data.add_(1)
    scene.model.model.geometry = other


SCENE_CHANGES = {
    "half": lambda scene: scene.model.half(),
    "bfloat16": lambda scene: scene.model.to(torch.bfloat16),
    "data": lambda scene: scale_all(scene.model.model.fusion),
    "averaged": lambda scene: average(scene.model.model.visual),
    "buffer": lambda scene: [level.strength.data.fill_(0.5) for level in scene.model.model.fusion.levels],
    "another encoder": another_encoder,
    "no geometry": lambda scene: setattr(scene.model.config, "use_geometry", False),
    "reference": lambda scene: setattr(scene.model.config, "reference_frame", "last"),
    "smaller pictures": lambda scene: setattr(
        scene.processor.image_processor, "size", {"shortest_edge": 1024, "longest_edge": 32 * 32 * 2}
    ),
    "another image processor": lambda scene: setattr(
        scene.processor,
        "image_processor",
        type(scene.processor.image_processor)(
            **{**scene.processor.image_processor.to_dict(), "size": {"shortest_edge": 1024, "longest_edge": 2048}}
        ),
    ),
}


@pytest.mark.parametrize("change", SCENE_CHANGES)
def test_after_a_change_a_session_answers_as_a_fresh_one(change, scene):
    before, found = scene.ask(QUESTION, max_new_tokens=4).text, features(scene)
    assert all(own is again for own, again in zip(found, features(scene), strict=True))
    SCENE_CHANGES[change](scene)
    fresh = SceneSession(scene.model, scene.processor, VIEWS)
    changed, expected = features(scene), features(fresh)
    assert all(map(torch.equal, changed, expected))
    assert any(a.dtype != b.dtype or a.shape != b.shape or not a.equal(b) for a, b in zip(found, changed, strict=True))
    assert scene.ask(QUESTION, max_new_tokens=4) == fresh.ask(QUESTION, max_new_tokens=4)
    assert isinstance(before, str)


def test_the_language_model_through_data(scene):
    before = scene.ask(QUESTION, max_new_tokens=6).text
    average(scene.model.model.language_model)
    answer = scene.ask(QUESTION, max_new_tokens=6)
    assert answer == SceneSession(scene.model, scene.processor, VIEWS).ask(QUESTION, max_new_tokens=6)
    assert answer.text != before


def test_crosses_of_another_size_are_drawn_and_seen(scene):
    def seen(session):
        session.locate(0, 40, 30, max_new_tokens=1)
        return next(reversed(session._kept.values())).features.pooler_output

    small = seen(scene)
    scene.processor.set_training_views(None, mark_arm=25, mark_half_thickness=6)
    large = seen(scene)
    assert all(map(torch.equal, large, seen(SceneSession(scene.model, scene.processor, VIEWS))))
    assert not torch.equal(small[0], large[0])


def test_what_answers_do_not_depend_on_leaves_all_that_is_kept(scene):
    answers, found = [scene.ask(QUESTION, max_new_tokens=4).text for _ in range(2)], features(scene)
    scene.model.generation_config.repetition_penalty = 1.5
    scene.processor.tokenizer.padding_side = "right"
    scene.model.train().eval()
    scene.ask("Is there a bed?", max_new_tokens=4)
    assert answers[0] == answers[1] and features(scene)[0] is found[0]


def test_pixels_that_the_model_would_read_wrongly_are_refused_at_the_next_question(scene):
    scene.ask(QUESTION, max_new_tokens=1)
    scene.processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match="the image processor has image_mean"):
        scene.ask(QUESTION, max_new_tokens=1)
    assert processor_state(scene.processor) != processor_state(
        copy.deepcopy(scene.processor).__class__(tokenizer=scene.processor.tokenizer)
    )


@pytest.mark.parametrize("call", ["model", "partial", "closure"])
def test_points_follow_the_weights_of_what_tells_them(call, scene, encoder):
    source = {"model": encoder, "partial": partial(encoder), "closure": lambda images: encoder(images)}[call]
    source.picture_sizes = 84, 14

    def open_another():
        return SceneSession(scene.model, scene.processor, VIEWS, points_from=source)

    session = open_another()
    first = session.points()
    assert session.points() is first
    encoder.point_head.scratch.output_conv2[2].bias.data += 1
    changed, fresh = (each.points().points[0] for each in (session, open_another()))
    assert np.array_equal(changed, fresh) and not np.array_equal(changed, first.points[0])
    encoder.to(torch.bfloat16)
    assert np.array_equal(session.points().points[1], open_another().points().points[1])


def test_a_refresh_sees_what_is_not_noticed(scene):
    found = features(scene)
    weight = next(each for each in scene.model.model.visual.parameters() if each.numel() > 2000)
    weight.data.flatten()[1] += 100  # between the values that are read
    assert features(scene)[0] is found[0]
    scene.refresh()
    assert all(map(torch.equal, features(scene), features(SceneSession(scene.model, scene.processor, VIEWS))))
    scene.close()
    with pytest.raises(ValueError, match="this session is closed"):
        scene.refresh()


def test_adapters_and_their_scale(scene):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    names = r".*language_model.*\.(q_proj|v_proj)"
    config = peft.LoraConfig(r=4, target_modules=names, init_lora_weights=False)
    model = peft.get_peft_model(scene.model, config).eval()
    model.add_adapter("other", config)
    model.eval()
    session, states = SceneSession(model, scene.processor, VIEWS), []

    def check():
        states.append(ModelState.of(session.model))
        fresh = SceneSession(model, scene.processor, VIEWS)
        assert session.ask(QUESTION, max_new_tokens=4) == fresh.ask(QUESTION, max_new_tokens=4)

    check()
    for layer in [each for each in model.modules() if isinstance(getattr(each, "scaling", None), dict)]:
        layer.scaling["default"] *= -8
    check()
    model.set_adapter("other")
    check()
    model.add_weighted_adapter(["default", "other"], [0.5, 2.0], "both", combination_type="linear")
    model.set_adapter("both")
    check()
    model.delete_adapter("other")
    check()
    with model.disable_adapter():
        check()
    assert all(states[place] != states[place + 1] for place in range(len(states) - 1))
