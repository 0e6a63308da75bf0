"""Points and cameras of a session: who tells them, in which frame, and what is said where nobody does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm import (
    GapMllmForPreTraining,
    GapMllmVggtForReconstruction,
    GapMllmVggtPointsModel,
    SceneSession,
)
from gap_mllm.processing.camera_geometry_gap_mllm import transform_points, unproject_depth
from gap_mllm.processing.frame_sampling_gap_mllm import predict_points, teacher_inputs


ENCODER = Path(__file__).parents[2] / "examples/assets/tiny_geometry_encoder"


@pytest.fixture(scope="module")
def encoder():
    return GapMllmVggtForReconstruction.from_pretrained(ENCODER, dtype=torch.float32).eval()


@pytest.fixture
def views():
    return [Image.effect_noise((96, 64), 60 + 20 * index).convert("RGB") for index in range(2)]


@pytest.fixture
def scene(tiny_model, tiny_processor, views, encoder):
    return SceneSession(tiny_model(), tiny_processor, views, points_from=encoder)


def test_points_lie_where_the_cameras_see_them(tiny_model, tiny_processor, views):
    """Depth heads: each point of a map is its pixel's ray, whatever the encoder's own world is."""
    encoder = GapMllmVggtPointsModel.from_pretrained(ENCODER, dtype=torch.float32).eval()
    scene = SceneSession(tiny_model(), tiny_processor, views, points_from=encoder)
    maps, cameras = scene.points(), scene.cameras()
    assert maps.confidence is not None and maps.source == "GapMllmVggtPointsModel"
    assert np.allclose(cameras.view_to_first_view[0], np.eye(4))
    for view in range(2):
        points = maps.points[view]
        own = transform_points(np.linalg.inv(cameras.view_to_first_view[view]), points.astype(np.float64))
        small = cameras.intrinsics[view].copy()
        scale = points.shape[1] / 96, points.shape[0] / 64
        small[:2, :2] *= np.diag(scale)
        small[:2, 2] = (cameras.intrinsics[view][:2, 2] + 0.5) * scale - 0.5
        assert np.allclose(unproject_depth(own[..., 2], small), own, atol=1e-3)
    with torch.no_grad():
        output = encoder(teacher_inputs(views, encoder.config.image_size, encoder.config.patch_size))
    assert np.allclose(output.points[1].numpy(), maps.points[1], atol=1e-4)
    assert len(predict_points(encoder, views)[0]) == 2


def test_points_of_views_of_unlike_sizes(tiny_model, tiny_processor, views, encoder):
    scene = SceneSession(
        tiny_model(), tiny_processor, [views[0], views[1].rotate(90, expand=True)], points_from=encoder
    )
    maps = scene.points()
    assert maps.points[0].shape == maps.points[1].swapaxes(0, 1).shape
    points, colors = maps.cloud()
    assert len(points) == len(colors) == sum(each[..., 0].size for each in maps.points) and colors.dtype == np.uint8
    assert len(points) / 2 <= len(maps.cloud(least_sure=0.5)[0]) < len(points)
    assert "with confidence" in str(maps)


def test_one_scene_is_told_once_and_anew_for_other_weights(scene, encoder, monkeypatch):
    calls, forward = [], encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    scene.points(), scene.cameras(), scene.points()
    assert len(calls) == 1
    with torch.no_grad():
        scene.model.lm_head.weight.mul_(2)
    scene.points()
    assert len(calls) == 2
    scene.close()
    with pytest.raises(ValueError, match="this session is closed"):
        scene.points()


def test_heads_of_pre_training_tell_points_and_no_cameras(tiny_model, tiny_processor, views):
    scene = SceneSession(tiny_model(model_class=GapMllmForPreTraining), tiny_processor, views)
    maps = scene.points()
    assert maps.confidence is None and maps.source == "GapMllmForPreTraining" and len(maps.points) == 2
    assert len(maps.cloud(least_sure=0.5)[0]) == 2 * maps.points[0][..., 0].size
    with pytest.raises(ValueError, match="GapMllmForPreTraining tells points, but no cameras"):
        scene.cameras()


def test_given_cameras_come_first(tiny_model, tiny_processor, views, encoder):
    poses = np.stack([np.eye(4)] * 2)
    poses[:, 0, 3] = 1, 3
    camera = np.array([[90.0, 0, 47.5], [0, 90, 31.5], [0, 0, 1]])
    scene = SceneSession(tiny_model(), tiny_processor, views, intrinsics=camera, poses=poses)
    cameras = scene.cameras()  # nothing has to tell them
    assert cameras.source == ("given", "given") and np.allclose(cameras.view_to_first_view[1][:3, 3], [2, 0, 0])
    assert np.allclose(cameras.camera_to_world[1], poses[1]) and "focal length 90 px, at (2.00" in str(cameras)
    scene = SceneSession(tiny_model(), tiny_processor, views, intrinsics=[camera, None], points_from=encoder)
    cameras = scene.cameras()
    assert cameras.source == ("given, else GapMllmVggtForReconstruction", "GapMllmVggtForReconstruction")
    assert np.allclose(cameras.intrinsics[0], camera) and not np.allclose(cameras.intrinsics[1], camera)


def test_a_model_that_tells_nothing_says_who_does(tiny_model, tiny_processor, views):
    scene = SceneSession(tiny_model(), tiny_processor, views)
    for tell in (scene.points, scene.cameras):
        with pytest.raises(ValueError, match="tells no points. Pass points_from=GapMllmVggtForReconstruction"):
            tell()
    assert scene.ask("What is there?", max_new_tokens=2).text
    with pytest.raises(TypeError, match="points_from is a str"):
        SceneSession(tiny_model(), tiny_processor, views, points_from="encoder")
