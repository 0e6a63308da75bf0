"""The encoder of depth and normal maps: what it sees, its teacher, scenes and sizes, and its folders."""

import copy

import pytest
import torch

from gap_mllm import (
    GapMllmConfig,
    GapMllmForConditionalGeneration,
    GapMllmGeometryMapsConfig,
    GapMllmGeometryMapsModel,
    GapMllmVggtConfig,
    KnownGeometry,
)
from gap_mllm.hub import save_for_hub
from gap_mllm.known_geometry_gap_mllm import NUM_MAPS
from gap_mllm.processing.camera_geometry_gap_mllm import invert_rigid
from gap_mllm.training.losses import normals_from_depth


MAPS = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "layer_scale_init_value": 1.0,
    "initializer_range": 0.2,
}


def camera(height, width, focal=70.0):
    return torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def scene(sizes, seed=0):
    """Random views and smooth depth before them."""
    generator = torch.Generator().manual_seed(seed)
    views, maps, poses = [], [], []
    for index, (height, width) in enumerate(sizes):
        views.append(torch.rand(3, height, width, generator=generator))
        slope = torch.rand(2, generator=generator)
        maps.append(2 + slope[0] * torch.linspace(0, 1, height)[:, None] + slope[1] * torch.linspace(0, 1, width))
        pose = torch.eye(4)
        pose[:3, 3] = 0.3 * index * torch.rand(3, generator=generator)
        poses.append(pose)
    return views, KnownGeometry([camera(*size) for size in sizes], poses, maps)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return GapMllmGeometryMapsModel(GapMllmGeometryMapsConfig(**MAPS)).eval()


@pytest.fixture(scope="module")
def vggt_config(tiny_config):
    return tiny_config().geometry_config


@pytest.fixture(scope="module")
def taught(vggt_config):
    """With a teacher of random weights."""
    torch.manual_seed(1)
    model = GapMllmGeometryMapsModel(GapMllmGeometryMapsConfig(**MAPS, teacher_config=vggt_config)).eval()
    with torch.no_grad():  # poses that differ, a usual field of view, and depth of some metres
        pose, depth = model.teacher.camera_head.pose_branch.fc2, model.teacher.depth_head.scratch.output_conv2[2]
        pose.weight.normal_(std=0.1)
        pose.weight[7:], depth.weight[:] = 0, depth.weight * 0.01
        pose.bias[3:] = torch.tensor([0, 0, 0, 1, 0.25, 0.25])  # of each of the iterations
    return model


@pytest.fixture(scope="module")
def taught_model(tiny_model, vggt_config):
    return tiny_model(geometry_config=GapMllmGeometryMapsConfig(**MAPS, teacher_config=vggt_config))


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_maps_are_depth_normals_and_what_is_known(encoder):
    depth = 2 + 0.5 * torch.linspace(0, 1, 28).expand(28, 28)
    depth[3:5, 6] = 0
    maps, points = encoder._maps(depth, camera(28, 28), (28, 28))
    normals, valid = normals_from_depth(depth, camera(28, 28))
    assert maps.shape == (NUM_MAPS, 28, 28) and not valid[4, 5] and valid[10, 10]
    torch.testing.assert_close(maps[1:4].permute(1, 2, 0), normals)
    assert torch.equal(maps[4], (depth > 0).float()) and maps[0, 3, 6] == 0
    torch.testing.assert_close(maps[0, 10], depth[10].log())
    assert points[3, 6].isnan().all() and points[10, 10].isfinite().all()


def test_pixels_do_not_count_where_all_is_known(encoder, taught):
    views, known = scene([(28, 42), (28, 42)])
    for model in (encoder, taught):
        seen = model(views, known_geometry=known)
        again = model([1 - view for view in views], known_geometry=known)
        assert all(map(torch.equal, seen.tap_features, again.tap_features))
        other = KnownGeometry(known.intrinsics, known.poses, [known.depth[0], known.depth[1] + 0.5])
        changed = model(views, known_geometry=other)
        patches = seen.tap_features[0].split(6)  # the first frame attention, then the whole scene
        assert (changed.tap_features[-1] - seen.tap_features[-1]).abs().max() > 1e-3
        assert torch.equal(changed.tap_features[0].split(6)[0][:, :16], patches[0][:, :16])


def test_scenes_and_sizes_do_not_mix(encoder):
    one, known_one = scene([(28, 42), (42, 28), (28, 42)], seed=1)
    two, known_two = scene([(28, 28)], seed=2)
    joint = KnownGeometry(
        *([*getattr(known_one, name), *getattr(known_two, name)] for name in ("intrinsics", "poses", "depth"))
    )
    together = encoder([*one, *two], [3, 1], joint)
    alone = [encoder(one, known_geometry=known_one), encoder(two, known_geometry=known_two)]
    assert together.grid == [(2, 3), (3, 2), (2, 3), (2, 2)] and together.camera_tokens.shape == (4, 32)
    for level, parts in enumerate(zip(*(each.tap_features for each in alone), strict=True)):
        close(together.tap_features[level], torch.cat(parts))
    for points, pose, depth in zip(together.points, joint.poses, joint.depth, strict=True):
        close(points[..., 2] - pose[2, 3], depth)  # turned by nothing


def test_without_known_depth_the_teacher_tells(taught):
    views, _ = scene([(28, 42), (42, 28)])
    said = taught.teacher(views)
    poses = [invert_rigid(torch.cat([each, torch.tensor([[0.0, 0, 0, 1]])])) for each in said.extrinsics.double()]
    known = KnownGeometry(list(said.intrinsics), poses, [depth[..., 0] for depth in said.depth])
    found, same = taught(views), taught(views, known_geometry=known)
    for one, other in zip(found.tap_features, same.tap_features, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert (taught([view.flip(-1) for view in views]).tap_features[-1] - found.tap_features[-1]).abs().max() > 1e-4
    with pytest.raises(ValueError, match="No depth is known of the views of scene 1"):
        encoder = GapMllmGeometryMapsModel(GapMllmGeometryMapsConfig(**MAPS))
        half = KnownGeometry([camera(28, 42), None], None, [torch.ones(28, 42), None])
        encoder(views, [1, 1], half)


def test_the_teacher_takes_the_scale_of_what_is_known(taught):
    views, _ = scene([(28, 42), (28, 42), (28, 42)])
    own = taught(views)
    depth = [own.points[0][..., 2] * 3, None, None]
    scaled = taught(views, known_geometry=KnownGeometry(depth=depth))
    for one, other in zip(own.points, scaled.points, strict=True):
        torch.testing.assert_close(3 * one, other, rtol=1e-3, atol=1e-4)
    said = [torch.cat([each, torch.tensor([[0.0, 0, 0, 1]])]) for each in taught.teacher(views).extrinsics]
    poses = [each.double().inverse() for each in said]
    for pose in poses:
        pose[:3, 3] *= 5
        pose[:3, :3] = torch.linalg.qr(pose[:3, :3])[0] * torch.linalg.qr(pose[:3, :3])[1].diagonal().sign()
    farther = taught(views, known_geometry=KnownGeometry(poses=poses))
    for one, other in zip(own.points, farther.points, strict=True):
        torch.testing.assert_close(5 * one, other, rtol=1e-2, atol=1e-2)


def test_the_teacher_is_never_trained(taught_model, taught, tmp_path):
    taught_model.save_pretrained(tmp_path)
    loaded = GapMllmForConditionalGeneration.from_pretrained(tmp_path)
    for model in (taught_model.model.geometry, taught, loaded.model.geometry):
        assert not any(each.requires_grad for each in model.teacher.parameters())
        assert all(each.requires_grad for name, each in model.named_parameters() if not name.startswith("teacher."))
    half = GapMllmForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16).model.geometry
    assert half.teacher.depth_head.norm.weight.dtype == torch.float32
    assert half.patch_embed.proj.weight.dtype == half.teacher.aggregator.camera_token.dtype == torch.bfloat16


def test_in_a_model_with_images_and_videos(taught_model, make_inputs, to_patches):
    inputs = make_inputs([(64, 64), (64, 96)], [], [(96, 32)])
    logits = taught_model(**inputs).logits
    assert logits.isfinite().all()
    features = taught_model.model.get_geometry_features(
        **{name: inputs[name] for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}
    )
    assert torch.equal(taught_model(**inputs, geometry_features=features).logits, logits)
    alone = make_inputs([(64, 64), (64, 96)], question="whi")  # what the first of several rows is asked
    is_row = inputs["attention_mask"][0].bool()
    torch.testing.assert_close(logits[0][is_row], taught_model(**alone).logits[0], rtol=1e-3, atol=1e-3)
    pixels, grid = to_patches(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    video = taught_model.model.get_video_features(pixels, grid, return_dict=True)
    with taught_model.geometry_disabled():
        plain = taught_model.model.get_video_features(pixels, grid, return_dict=True)
    assert (video.pooler_output[0] - plain.pooler_output[0]).abs().max() > 1e-3


@pytest.mark.parametrize("method", ["vlm3r", "spatial_mllm", "geothinker", "bidirectional", "add"])
def test_with_every_kind_of_fusion(tiny_model, make_inputs, method):
    model = tiny_model(geometry_config=GapMllmGeometryMapsConfig(**MAPS), gap_fusion_config={"method": method})
    inputs = make_inputs([(64, 64)])
    known = KnownGeometry([camera(64, 64)], None, [torch.full((64, 64), 2.0)])
    nearer = KnownGeometry(known.intrinsics, None, [torch.full((64, 64), 1.0)])
    logits = model(**inputs, geometry_features=known).logits
    assert (model(**inputs, geometry_features=nearer).logits - logits).abs().max() > 1e-4


def test_text_beside_a_trained_encoder(tiny_model, make_inputs):
    """A batch without views runs the trained encoder on nothing, with all of its parameters in the graph."""
    model = tiny_model(geometry_config=GapMllmGeometryMapsConfig(**MAPS)).train()
    inputs = make_inputs([])
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    lacking = [name for name, each in model.model.geometry.named_parameters() if each.grad is None]
    assert not lacking


@pytest.mark.slow
def test_folders_with_remote_code_and_left_out_weights(taught_model, tiny_processor, tmp_path, load_without_package):
    base, encoder = tmp_path, taught_model.model.geometry
    taught_model.save_pretrained(base / "model")
    tiny_processor.save_pretrained(base / "model")
    encoder.save_pretrained(base / "encoder")
    save_for_hub(
        taught_model,
        tiny_processor,
        base / "out",
        include_geometry_weights=False,
        geometry_weights=str(base / "encoder"),
    )
    sums = sum(each.double().sum().item() for each in encoder.parameters())
    again = GapMllmGeometryMapsModel.from_pretrained(base / "encoder")
    assert all(map(torch.equal, again.state_dict().values(), encoder.state_dict().values()))
    whole = GapMllmForConditionalGeneration.from_pretrained(base / "out")
    for one, other in zip(whole.parameters(), taught_model.parameters(), strict=True):
        assert torch.equal(one, other)
    loaded = load_without_package(base / "model", base / "encoder", base / "out")
    assert loaded["encoder"]["classes"]["AutoModel"] == "GapMllmGeometryMapsModel"
    for name in ("encoder", "encoder_again"):
        assert loaded[name]["sum"] == pytest.approx(sums)
    assert loaded["model"]["sum"] == pytest.approx(loaded["out"]["sum"])
    assert not loaded["leaked"]


def test_the_config_reads_back_and_refuses(vggt_config):
    config = GapMllmGeometryMapsConfig(**MAPS, teacher_config=vggt_config.to_dict())
    assert isinstance(config.teacher_config, GapMllmVggtConfig) and config.patch_size == 14
    whole = GapMllmConfig(geometry_config={"model_type": "gap_mllm_geometry_maps", **MAPS})
    assert isinstance(copy.deepcopy(whole).geometry_config, GapMllmGeometryMapsConfig)
    again = GapMllmConfig.from_dict(whole.to_dict())
    assert again.geometry_config.to_dict() == whole.geometry_config.to_dict()
    for changes, message in [
        ({"image_size": 518}, r"GapMllmGeometryMapsConfig does not know the keys \['image_size'\]"),
        ({"tap_layers": [0, 1, 2, 4]}, "tap_layers=.* lie outside the 4 layers"),
        ({"num_attention_heads": 3}, "head size that is a multiple of 4"),
        ({"patch_size": 16, "teacher_config": vggt_config}, "patch_size=16 and that of the teacher, 14, differ"),
        ({"teacher_config": {"model_type": "pi3"}}, "teacher_config.model_type='pi3' is not known"),
        ({"teacher_config": {"depths": 2}}, r"GapMllmVggtConfig does not know the keys \['depths'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            GapMllmGeometryMapsConfig(**{**MAPS, **changes})
