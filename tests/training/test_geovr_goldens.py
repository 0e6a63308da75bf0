"""GeoVR's tokens, heads and whole forward pass against golden data of its release; see tests/fixtures/distill.

The release ran in float32: 1e-5 relative. Its ReLU on fields of view and its signed quaternions are options here.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gap_mllm import GapMllmConfig, GapMllmForConditionalGeneration, GapMllmForPreTraining
from gap_mllm.training.losses import (
    GEOVR_WEIGHTS,
    geovr_losses,
    layer_distillation_loss,
    metric_scale_target,
    weighted_loss,
)
from gap_mllm.training_heads_gap_mllm import (
    GapMllmCameraHead,
    GapMllmDistillationHead,
    GapMllmDptDepthHead,
    GapMllmScaleHead,
    bounded_exp,
)


FIXTURES = Path(__file__).parents[1] / "fixtures" / "distill"
LAYERS = [1, 3, 4, 6]  # of the tiny model, as deep as the teacher's four
# The modules of the release in the order of its state dict, by their names here.
LINEARS = ("norm", "fc1", "fc2", "output")
PYRAMID = ("norm", *(f"projects.{level}" for level in range(4)), *(f"resize_layers.{level}" for level in (0, 1, 3)))
PYRAMID += tuple(f"scratch.layer{level}_rn" for level in range(1, 5))
UNITS = ("out_conv", "resConfUnit1.conv1", "resConfUnit1.conv2", "resConfUnit2.conv1", "resConfUnit2.conv2")
PYRAMID += tuple(f"scratch.refinenet{level}.{unit}" for level in range(1, 4) for unit in UNITS)
PYRAMID += tuple(f"scratch.refinenet4.{unit}" for unit in (UNITS[0], *UNITS[3:])) + ("output_conv",)


@pytest.fixture(scope="module")
def geovr():
    found = load_file(FIXTURES / "geovr.safetensors")
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def fill(module, names, amplitude):
    """Weights of the fixtures: a sine of the number of a parameter and of its flat element."""
    with torch.no_grad():
        modules, number = dict(module.named_modules()), 0
        for name in names:
            for parameter_name, parameter in modules[name].named_parameters(recurse=False):
                wave = 0.37 * torch.arange(parameter.numel(), dtype=torch.float64) + 1.1 * number
                values = (amplitude * wave.sin()).float().view_as(parameter)
                is_scale = isinstance(modules[name], nn.LayerNorm) and parameter_name == "weight"
                parameter.copy_(values + 1 if is_scale else values)
                number += 1
    assert number == sum(not name.startswith("tokens") for name, _ in module.named_parameters())
    return module


def camera_head(width, amplitude=0.05):
    """The release has an output layer for each part; their weights are rows of ours."""
    head = GapMllmCameraHead(width, [-1], tokens=True, fov_activation="relu")
    fill(head, LINEARS, amplitude)
    with torch.no_grad():
        for number, rows in ((6, slice(0, 3)), (8, slice(3, 7)), (10, slice(7, 9))):
            for offset, parameter in enumerate((head.output.weight, head.output.bias)):
                part = parameter[rows]
                wave = 0.37 * torch.arange(part.numel(), dtype=torch.float64) + 1.1 * (number + offset)
                part.copy_((amplitude * wave.sin()).float().view_as(part))
    return head


def distillation_head(width, size, layers, amplitude=0.3):
    head = GapMllmDistillationHead(width, layers, size, projector_size=size, norm=True)
    for projector in head.projectors:
        fill(projector, LINEARS[:3], amplitude)
    return head


def close(value, expected, rtol=1e-5):
    torch.testing.assert_close(value, expected, rtol=rtol, atol=rtol * float(expected.detach().abs().max()))


def test_the_camera_head_reads_a_token(geovr):
    states = geovr["camera_head.in"][0]
    close(camera_head(16)([states], [(3, 4)] * 3, [3]), geovr["camera_head.out"][0])
    soft = GapMllmCameraHead(16, [-1], tokens=True)
    encodings = soft([states - 100], [(3, 4)] * 3, [3])
    assert (encodings[:, 7:] > 0).all()  # and so never without gradient, as that of the release may be
    with pytest.raises(ValueError, match="fov_activation is 'gelu'; expected one of softplus, relu"):
        GapMllmCameraHead(16, [-1], fov_activation="gelu")


def test_the_scale_head_reads_a_token(geovr):
    head = fill(GapMllmScaleHead(16, [-1], tokens=True), LINEARS[:3], 0.05)
    close(head([geovr["scale_head.in"]], [(3, 4)] * 4, [1] * 4), geovr["scale_head.out"])


def test_exponentials_of_heads_stay_finite():
    logits = torch.tensor([-3.0, 9.9, 200.0], requires_grad=True)
    values = bounded_exp(logits)
    close(values[:2].detach(), logits[:2].detach().exp())
    values[2].backward()
    assert values[2].isfinite() and logits.grad[2] > 1e4


@pytest.mark.parametrize(("form", "grid"), [("same", None), ("resized", [(2, 3)] * 2)])
def test_the_depth_head_is_that_of_the_release(geovr, form, grid):
    head = fill(GapMllmDptDepthHead(12, [1, 2, 3, 4], 28, 8, (4, 8, 8, 8)), PYRAMID, 0.12)
    states = [geovr[f"dense_head.hidden{layer}"][0].flatten(0, 1) for layer in (1, 2, 3, 4)]
    maps = head(states, [(3, 4)] * 2, [2], *([] if grid is None else [grid]))
    close(torch.stack(maps), geovr[f"dense_head.depth_{form}"][0])
    alone = head([level[12:] for level in states], [(3, 4)], [1], None if grid is None else grid[1:])
    close(alone[0], maps[1])


@pytest.mark.parametrize("case", ["same", "up", "odd"])
def test_the_projector_resizes_the_student_to_the_teacher(geovr, case):
    student, teacher = (geovr[f"distill.{case}.{role}"] for role in ("student", "teacher"))
    student.requires_grad_()
    pooled = nn.functional.avg_pool2d(teacher.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    grids = [[tuple(each.shape[1:3])] * 2 for each in (student, pooled)]
    found = distillation_head(10, 6, [0])([student.flatten(0, 2)], grids[0], [2], grids[1])
    close(found[0].view_as(pooled), geovr[f"distill.{case}.head_out"])
    loss = layer_distillation_loss(found, [pooled.flatten(0, 2)]).mean
    assert loss.item() == pytest.approx(float(geovr[f"distill.{case}.loss"]), rel=1e-5)
    loss.backward()
    close(student.grad, geovr[f"distill.{case}.grad_student"], 2e-5)


@pytest.fixture(scope="module")
def told():
    return json.loads((FIXTURES / "geovr_e2e.json").read_text())


@pytest.fixture(scope="module")
def make_model(told):
    """A function training heads -> the tiny model of the release, without a geometry encoder."""
    weights = load_file(FIXTURES / "geovr_e2e.safetensors")
    weights = {name[7:]: value.float() for name, value in weights.items() if name.startswith("model::")}

    def make(heads, kind=GapMllmForPreTraining):
        config = GapMllmConfig(**told["config"], use_geometry=False, training_heads=heads)
        config._attn_implementation = "eager"
        model = kind._from_config(config, attn_implementation="eager", dtype=torch.float32)
        model.load_state_dict(weights, strict=False)
        return model.eval()

    return make


@pytest.mark.parametrize("form", ["camera", "camera_scale", "scale"])
def test_tokens_are_put_behind_the_patches(geovr, make_model, form):
    heads = {
        name: {"layers": [-1], "tokens": True}
        for name, kind in (("camera", "camera"), ("metric_scale", "scale"))
        if kind in form
    }
    names = {"input_ids": "ids", "attention_mask": "attn", "mm_token_type_ids": "mm", "labels": "labels"}
    inputs = {name: geovr[f"tokens.{key}"] for name, key in names.items()} | {"video_grid_thw": geovr["tokens.thw"]}
    found = make_model(heads).insert_geometry_tokens(inputs)
    for name, key in (names | {"position_ids": "position_ids"}).items():
        assert torch.equal(found[name], geovr[f"tokens.{form}.{key}"]), name
    last = (found["position_ids"].amax((0, 2)) + 1 - found["attention_mask"].sum(1))[:, None]
    assert torch.equal(last, geovr[f"tokens.{form}.rope_delta"])


HEADS = {
    "distillation": {"layers": LAYERS, "feature_size": 6, "projector_size": 6, "norm": True},
    "depth": {"layers": LAYERS, "method": "dpt", "side": 8, "features": 8, "out_channels": [4, 8, 8, 8]},
    "camera": {"layers": [-1], "tokens": True, "fov_activation": "relu"},
    "metric_scale": {"layers": [-1], "tokens": True},
}


def filled(model):
    heads = model.training_heads
    heads["camera"].load_state_dict(camera_head(32).state_dict(), strict=False)
    fill(heads["metric_scale"], LINEARS[:3], 0.05)
    fill(heads["depth"], PYRAMID, 0.12)
    heads["distillation"].load_state_dict(distillation_head(32, 6, LAYERS).state_dict())
    for name in ("camera", "metric_scale"):
        with torch.no_grad():
            table = heads[name].tokens.weight
            table.copy_((0.3 * (0.37 * torch.arange(table.numel(), dtype=torch.float64)).sin()).float().view_as(table))
    return model


def test_one_forward_pass_of_the_release(make_model, told):
    golden = load_file(FIXTURES / "geovr_e2e.safetensors")
    golden = {name: value.float() if value.is_floating_point() else value for name, value in golden.items()}
    names = ("input_ids", "labels", "mm_token_type_ids", "video_grid_thw", "pixel_values_videos")
    model = filled(make_model(HEADS))
    inputs = model.insert_geometry_tokens({name: golden[name] for name in names})
    output = model(**inputs)
    found = output.head_outputs
    assert output.loss.item() == pytest.approx(told["loss"], rel=1e-5)
    close(found["camera"], golden["out.pred_pose_enc"][0])
    close(torch.stack(found["depth"]), golden["out.pred_depth"][0])
    assert found["metric_scale"].item() == pytest.approx(told["pred_scale"][0], rel=1e-5)
    features = [golden[f"teacher_feat_{layer}"] for layer in (4, 11, 17, 23)]
    pooled = [nn.functional.avg_pool2d(each.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1) for each in features]
    focal = (torch.tensor([24, 16]) / 2 / (golden["teacher_pose_enc"][..., 7:] / 2).tan()).mean()
    scale, _ = metric_scale_target(
        golden["teacher_depth"],
        golden["metric_depth"] * focal / 300,
        golden["sky"] < 0.3,
        golden["teacher_depth_conf"],
    )
    losses = geovr_losses(
        found["camera"],
        torch.stack(found["depth"]),
        [each.view(2, 3, 2, -1) for each in found["distillation"]],
        found["metric_scale"][0],
        target_pose_enc=golden["teacher_pose_enc"][0],
        target_depth=golden["teacher_depth"][0],
        target_features=pooled,
        target_scale=scale[0],
        free_sign=False,
    )
    for name, value in losses.items():
        expected = told["distill_loss" if name == "distillation" else f"{name}_loss"]
        assert value.mean.item() == pytest.approx(expected, rel=1e-5), name
    total = output.loss + weighted_loss(losses, {name: GEOVR_WEIGHTS[name] for name in losses})
    assert total.item() == pytest.approx(told["total_2.5_1_1_1"], rel=1e-5) == pytest.approx(11.16716, abs=1e-5)
    total.backward()
    language = model.model.language_model
    for name, parameter in {
        "camera_token": model.training_heads["camera"].tokens.weight,
        "scale_token": model.training_heads["metric_scale"].tokens.weight,
        "embed_tokens": language.embed_tokens.weight,
        "layers.2.mlp.up_proj": language.layers[2].mlp.up_proj.weight,
    }.items():
        assert parameter.grad.norm().item() == pytest.approx(told[f"grad_norm.{name}"], rel=1e-4), name


def test_hidden_states_of_patches_are_those_of_the_release(make_model):
    golden = load_file(FIXTURES / "geovr_e2e.safetensors")
    names = ("input_ids", "labels", "mm_token_type_ids", "video_grid_thw", "pixel_values_videos")
    model, read = filled(make_model(HEADS)), {}
    head = model.training_heads["distillation"]
    head.register_forward_pre_hook(lambda module, args: read.update(enumerate(args[0])))
    inputs = {name: golden[name] for name in names} | {"pixel_values_videos": golden[names[-1]].float()}
    model(**model.insert_geometry_tokens(inputs))
    for index, layer in enumerate(LAYERS):
        close(read[index].view(2, 6, -1), golden[f"out.video_hidden_{layer}"])


def test_without_labels_it_is_plain_qwen(make_model):
    golden = load_file(FIXTURES / "geovr_e2e.safetensors")
    inputs = {name: golden[name] for name in ("input_ids", "mm_token_type_ids", "video_grid_thw")}
    inputs["pixel_values_videos"] = golden["pixel_values_videos"].float()
    for model in (filled(make_model(HEADS)), make_model(None, GapMllmForConditionalGeneration)):
        logits = model(**inputs).logits
        torch.testing.assert_close(logits, golden["out.logits_inference_no_tokens"], rtol=0, atol=2e-6)
