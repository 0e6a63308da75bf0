"""Weights on the CPU or the disk between calls (hooks of accelerate): the same answers as without."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from accelerate.hooks import AlignDevicesHook, SequentialHook, add_hook_to_module
from PIL import Image
from torch import nn

from gap_mllm import (
    GapMllmForConditionalGeneration,
    GapMllmForPreTraining,
    GapMllmGeometryMapsConfig,
    GapMllmVggtForReconstruction,
    SceneSession,
)
from gap_mllm.hub import save_for_hub
from gap_mllm.processing.frame_sampling_gap_mllm import predict_points
from gap_mllm.processing.model_state_gap_mllm import input_device
from tests.modeling.test_known_geometry import MAPS


VIEWS = [Image.effect_noise((64, 64), 60 + 20 * index).convert("RGB") for index in range(2)]
QUESTION = "How many chairs are there?"
ON_CPU = dict.fromkeys(("model.visual", "model.geometry", "model.fusion", "model.language_model", "lm_head"), "cpu")
DEVICE_MAPS = {
    "all on disk": {"": "disk"},
    "tower on disk": {**ON_CPU, "model.visual": "disk"},
    "geometry on disk": {**ON_CPU, "model.geometry": "disk", "model.fusion": "disk"},
    "language on disk": {**ON_CPU, "model.language_model": "disk", "lm_head": "disk"},
}


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model(model_class=GapMllmForConditionalGeneration).eval()


@pytest.fixture(scope="module")
def answers(model, tiny_processor):
    """What the model says with its weights where they are."""
    return asked(model, tiny_processor)


@pytest.fixture(scope="module")
def folder(model, tiny_processor, tmp_path_factory):
    return save_for_hub(model, tiny_processor, tmp_path_factory.mktemp("offloaded"))


@pytest.fixture
def load(folder):
    def make(**options):
        return GapMllmForConditionalGeneration.from_pretrained(folder, dtype="float32", **options).eval()

    return make


def asked(model, processor):
    scene = SceneSession(model, processor, VIEWS)
    scene.ask(QUESTION, max_new_tokens=1)
    kept = list(scene._kept.values())
    chats = [scene.messages(text) for text in (QUESTION, "Is there a bed?")]
    both = [answer.text for answer in scene.ask_many(chats, max_new_tokens=5)]
    assert len(kept) == 1 and kept[0] is scene._kept[next(iter(scene._kept))]  # encoded once
    return [*both, scene.ask(QUESTION, max_new_tokens=5).text, *processor.ask(model, chats[:1], max_new_tokens=5)]


@pytest.mark.parametrize("device", ["cpu", None])
def test_offloaded_to_the_cpu(device, load, answers, tiny_processor):
    model = load()
    cpu_offload(model, execution_device=device and torch.device(device))
    assert model.device.type == "meta" and input_device(model).type == "cpu"
    assert asked(model, tiny_processor) == answers


def test_offloaded_to_the_disk(load, answers, tiny_processor, tmp_path):
    model = load()
    disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    assert asked(model, tiny_processor) == answers


@pytest.mark.parametrize("name", DEVICE_MAPS)
def test_loaded_with_a_device_map(name, load, answers, tiny_processor, tmp_path):
    model = load(device_map=DEVICE_MAPS[name], offload_folder=tmp_path)
    assert any(each.device.type == "meta" for each in model.parameters())
    assert asked(model, tiny_processor) == answers


def test_dispatched(load, answers, tiny_processor, tmp_path):
    parts = DEVICE_MAPS["language on disk"]
    model = dispatch_model(load(), parts, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)
    assert asked(model, tiny_processor) == answers


def reconstruction(tiny_config, tiny_model):
    torch.manual_seed(1)
    return GapMllmVggtForReconstruction(tiny_config().geometry_config)


def points_encoder(tiny_config, tiny_model):
    return tiny_model(geometry_config={"model_type": "gap_mllm_vggt_points"}).model.geometry


def maps_teacher(tiny_config, tiny_model):
    maps = GapMllmGeometryMapsConfig(**MAPS, teacher_config=tiny_config().geometry_config)
    return tiny_model(geometry_config=maps).model.geometry.teacher


def point_heads(tiny_config, tiny_model):
    return tiny_model(model_class=GapMllmForPreTraining)


@pytest.mark.parametrize("make", [reconstruction, points_encoder, maps_teacher, point_heads])
def test_points_of_offloaded_encoders(make, tiny_config, tiny_model):
    source = make(tiny_config, tiny_model).eval()
    points, sure = predict_points(source, VIEWS, 64, 14 if make is not point_heads else 32)
    cpu_offload(source, execution_device=torch.device("cpu"))
    assert all(each.device.type == "meta" for each in source.parameters())
    again, sure_again = predict_points(source, VIEWS, 64, 14 if make is not point_heads else 32)
    torch.testing.assert_close(again, points, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(sure_again, sure, rtol=0, atol=0, equal_nan=True)


def test_a_whole_scene_with_an_offloaded_encoder(load, tiny_processor):
    """The model's own encoder tells points, in a session."""
    model = load()
    source = GapMllmVggtForReconstruction(model.config.geometry_config).eval()
    source.picture_sizes = 56, 14
    plain = SceneSession(model, tiny_processor, VIEWS, points_from=source).points()
    cpu_offload(source, execution_device=torch.device("cpu"))
    scene = SceneSession(model, tiny_processor, VIEWS, points_from=source)
    torch.testing.assert_close(scene.points().points, plain.points, equal_nan=True)
    assert scene.points() is scene.points()


def test_inputs_go_where_hooks_compute():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert input_device(model).type == "cpu" and input_device(nn.Identity()).type == "cpu"
    model[0].to("meta")
    assert input_device(model).type == "cpu"  # of the second layer
    hooks = SequentialHook(AlignDevicesHook(io_same_device=True), AlignDevicesHook(torch.device("cpu")))
    add_hook_to_module(model.to("meta"), hooks)
    model._hf_hook.hooks[1].execution_device = torch.device("cuda:1")  # as if there were one
    assert input_device(model) == torch.device("cuda:1")
