"""Casts after loading: what is kept in float32 stays so, and a cast model is the one that loads in that dtype."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from gap_mllm import GapMllmForConditionalGeneration, GapMllmVggtForReconstruction, SceneSession
from gap_mllm.hub import save_for_hub
from gap_mllm.processing.frame_sampling_gap_mllm import teacher_inputs
from gap_mllm.vggt_heads_gap_mllm import pose_encoding_to_cameras


ASSETS = Path(__file__).parents[2] / "examples/assets"
VIEWS = [Image.effect_noise((96, 64), 60 + 20 * index).convert("RGB") for index in range(2)]
CASTS = {
    "to": lambda model: model.to(torch.bfloat16),
    "bfloat16": lambda model: model.bfloat16(),
    "half": lambda model: model.half(),
    "type": lambda model: model.type(torch.bfloat16),
    "device and dtype": lambda model: model.to("cpu", torch.float16),
}


@pytest.fixture
def encoder():
    return GapMllmVggtForReconstruction.from_pretrained(ASSETS / "tiny_geometry_encoder", dtype=torch.float32).eval()


@pytest.mark.parametrize("cast", CASTS)
def test_a_cast_encoder_is_the_one_that_loads_in_that_dtype(cast, encoder):
    CASTS[cast](encoder)
    dtype = encoder.aggregator.camera_token.dtype
    assert dtype in (torch.float16, torch.bfloat16)
    heads = (encoder.camera_head, encoder.depth_head, encoder.point_head)
    assert {each.dtype for head in heads for each in head.parameters()} == {torch.float32}
    loaded = GapMllmVggtForReconstruction.from_pretrained(ASSETS / "tiny_geometry_encoder", dtype=dtype).eval()
    pictures = torch.stack(teacher_inputs(VIEWS, 56, 14))
    with torch.no_grad():
        found, expected = encoder(pictures), loaded(pictures)
    assert torch.equal(found.pose_enc, expected.pose_enc)
    assert torch.equal(found.world_points, expected.world_points)


def test_wider_casts_and_moves_are_as_in_torch(encoder):
    assert {each.dtype for each in encoder.double().parameters()} == {torch.float64}
    assert {each.dtype for each in encoder.float().parameters()} == {torch.float32}
    assert {each.device.type for each in encoder.to("meta", torch.float16).parameters()} == {"meta"}
    assert encoder.camera_head.token_norm.weight.dtype == torch.float32


def test_gradients_go_with_their_parameters(encoder):
    for parameter in encoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    encoder.to(torch.bfloat16)
    assert all(each.grad.dtype == each.dtype for each in encoder.parameters())


def test_a_cast_model_answers_as_the_one_that_loads_in_that_dtype(tiny_model, tiny_processor, tmp_path):
    model = tiny_model(
        model_class=GapMllmForConditionalGeneration, geometry_config={"model_type": "gap_mllm_vggt_points"}
    )
    folder = save_for_hub(model, tiny_processor, tmp_path)
    frequencies = model.model.language_model.rotary_emb.inv_freq.clone()
    model.to(torch.bfloat16)
    assert torch.equal(model.model.language_model.rotary_emb.inv_freq, frequencies)
    assert {each.dtype for each in model.model.geometry.camera_head.parameters()} == {torch.float32}
    assert model.lm_head.weight.dtype == torch.bfloat16
    loaded = GapMllmForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).eval()
    ids = torch.arange(5, 700)[None] % 50
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)


def test_cameras_of_a_cast_encoder_are_told(encoder, tiny_model, tiny_processor):
    scene = SceneSession(tiny_model(), tiny_processor, VIEWS, points_from=encoder)
    expected = scene.cameras()
    encoder.to(torch.bfloat16)
    assert abs(scene.cameras().view_to_first_view[1] - expected.view_to_first_view[1]).max() < 0.1
    encoder.camera_head.to(torch.bfloat16)  # on purpose; rotations are rotations all the same
    turn = scene.cameras().view_to_first_view[1][:3, :3]
    assert abs(turn @ turn.T - torch.eye(3).numpy()).max() < 1e-6


def test_rotations_of_half_precision_are_rotations():
    encoding = torch.tensor([1.0, 2, 3, 0.1, 0.7, -0.3, 0.6, 1, 1], dtype=torch.bfloat16)
    extrinsics, intrinsics = pose_encoding_to_cameras(encoding, (64, 64))
    assert extrinsics.dtype == intrinsics.dtype == torch.float32
    torch.testing.assert_close(extrinsics[:, :3] @ extrinsics[:, :3].T, torch.eye(3), rtol=0, atol=1e-6)
    assert extrinsics[:, 3].tolist() == [1, 2, 3]


def test_poses_that_another_model_tells_in_half_precision(tiny_model, tiny_processor):
    angle = torch.tensor(0.7)
    turn = torch.eye(4)[:3].repeat(2, 1, 1)
    turn[1, :2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])

    class Output:
        world_points = torch.ones(2, 4, 4, 3)
        extrinsics = turn.bfloat16()

    scene = SceneSession(tiny_model(), tiny_processor, VIEWS, points_from=lambda images: Output)
    told = scene._reconstructed()[2]
    assert abs(told[1][:2, :2] - turn[1, :2, :2].T.numpy()).max() < 0.01  # of world to camera the inverse
    assert abs(told[1][:3, :3] @ told[1][:3, :3].T - torch.eye(3).numpy()).max() < 1e-9
