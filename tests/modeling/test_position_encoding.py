"""Positions of visual tokens in space: against loops in float64, beside every method, from what is known or told."""

import math
from pathlib import Path

import pytest
import torch

import gap_mllm.training.new_encoder as new_encoder
from gap_mllm import (
    GapMllmForConditionalGeneration,
    GapMllmForPreTraining,
    GapMllmFusion,
    GapMllmFusionConfig,
    GapMllmGeometryMapsConfig,
    GapMllmVggtForReconstruction,
    GapMllmVggtModel,
    GapMllmVggtPointsConfig,
    GapMllmVggtPointsModel,
    KnownGeometry,
)
from gap_mllm.hub import save_for_hub
from gap_mllm.patch_mergers_gap_mllm import merge_points, position_encoding, position_features, token_positions
from gap_mllm.processing.camera_geometry_gap_mllm import invert_rigid, transform_points, unproject_depth
from gap_mllm.training.module_groups import assign_groups


SIZES = [(64, 64), (64, 96)]
VISION = ("pixel_values", "image_grid_thw", "mm_token_type_ids")
MAPS = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "initializer_range": 0.2}


def room(sizes, seed=0):
    """Random points of each view, some of them unknown."""
    generator = torch.Generator().manual_seed(seed)
    points = [torch.randn(height, width, 3, generator=generator) * 4 for height, width in sizes]
    for view in points:
        view[torch.rand(view.shape[:2], generator=generator) < 0.3] = torch.nan
        view[: 2 * 16, : 2 * 16] = torch.nan  # a whole token
    return points


def loops(points, grid, size, voxel, cell):
    """Encodings of the tokens of each view, in float64, as Video-3D-LLM makes them of blocks of pixels."""
    rows = []
    limits = (15.0, 5.0, 15.0)
    for view, (height, width) in zip(points, grid, strict=True):
        for top in range(0, height, 2):
            for left in range(0, width, 2):
                block = view[top * cell : (top + 2) * cell, left * cell : (left + 2) * cell].double().reshape(-1, 3)
                seen = [point for point in block if not point.isnan().any()]
                row = [0.0] * size
                for axis in range(3) if seen else ():
                    mean = sum(float(point[axis]) for point in seen) / len(seen)
                    place = round((min(max(mean, -limits[axis]), limits[axis]) + limits[axis]) / voxel)
                    count = size // 3
                    for index in range(count):
                        angle = place / 10000 ** (2 * (index // 2) / count)
                        row[axis * count + index] = math.sin(angle) if index % 2 == 0 else math.cos(angle)
                rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("camera_tokens", [0, 1])
def test_encodings_are_those_of_loops_in_any_dtype(dtype, camera_tokens):
    grid = [(4, 4), (4, 6)]
    points = room(SIZES)
    level = position_features(points, grid, 32, camera_tokens).to(dtype)
    assert level.shape == (16 + 24 + 2 * camera_tokens, 32) and level.isfinite().all()
    found, known = token_positions(level, grid, [1, 1], 2, camera_tokens=camera_tokens)
    encoding = position_encoding(found, 32, 0.1) * known[:, None]
    torch.testing.assert_close(encoding.double(), loops(points, grid, 32, 0.1, 16), rtol=0, atol=1e-4)
    assert known.tolist() == [False, *[True] * 3, False, *[True] * 5] and (encoding[:, 30:] == 0).all()


def test_points_outside_are_on_the_border_and_frames_are_averaged():
    far = position_encoding(torch.tensor([[40.0, -9.0, 15.0]]), 12)
    assert torch.equal(far, position_encoding(torch.tensor([[15.0, -5.0, 15.0]]), 12))
    pair = [torch.full((32, 32, 3), 1.0), torch.full((32, 32, 3), 3.0)]
    pair[1][:, :16] = torch.nan  # and so it counts half
    level = position_features([*pair, None], [(2, 2)] * 3, 16)
    for frames, expected in (("mean", 5 / 3), ("first", 1.0)):
        found, known = token_positions(level, [(2, 2)] * 3, [2, 1], 2, frames)
        torch.testing.assert_close(found, torch.tensor([[expected] * 3, [0.0] * 3]), rtol=0, atol=1e-6)
        assert known.tolist() == [True, False]


def known_views(depth=2.0):
    cameras = [torch.tensor([[60.0, 0, w / 2], [0, 60.0, h / 2], [0, 0, 1]]) for h, w in SIZES]
    poses = [torch.eye(4) for _ in SIZES]
    poses[1][0, 3] = 1.0
    return {
        "intrinsics": cameras,
        "poses": poses,
        "depth": [depth + torch.linspace(0, 1, w).expand(h, w) for h, w in SIZES],
    }


@pytest.fixture(scope="module")
def inputs(make_inputs):
    return make_inputs(SIZES)


@pytest.mark.parametrize("method", ["gated", "vlm3r", "spatial_mllm", "bidirectional"])
def test_beside_any_method_from_known_depth_and_poses(tiny_model, inputs, method):
    """VGGT reads pixels alone: what changes is the final tokens, by the encoding of their own points."""
    changes = {"method": method, "position_encoding": "position_3d"}
    model = tiny_model(gap_fusion_config=changes)
    vision = {name: inputs[name] for name in VISION}
    known = known_views()
    given = model.model.get_geometry_features(**vision, **known)
    levels, rows, _ = given.shape
    assert levels == 5 and rows == 40 + 2 * (method == "vlm3r")
    fused = model.model.get_image_features(**vision, geometry_features=given, return_dict=True)
    with torch.no_grad():
        model.model.fusion.position.strength.zero_()
        plain = model.model.get_image_features(**vision, geometry_features=given, return_dict=True)
        model.model.fusion.position.strength.fill_(1)
    points = KnownGeometry(**known).checked(SIZES, [2]).points()
    expected = loops(points, [(4, 4), (4, 6)], 32, 0.1, 16)
    added = torch.cat(fused.pooler_output) - torch.cat(plain.pooler_output)
    torch.testing.assert_close(added.double(), expected, rtol=0, atol=1e-3)
    for one, other in zip(fused.deepstack_features, plain.deepstack_features, strict=True):
        assert all(map(torch.equal, one, other))
    direct = model(**inputs, geometry_features=KnownGeometry(**known)).logits
    assert torch.equal(direct, model(**inputs, geometry_features=given).logits)


def test_identity_is_plain_and_learns(tiny_model, inputs):
    changes = {"init": "identity", "position_encoding": "position_3d"}
    model = tiny_model(gap_fusion_config=changes, model_class=GapMllmForPreTraining)
    known = KnownGeometry(**known_views())
    with torch.no_grad():
        logits = model(**inputs, geometry_features=known).logits
        with model.geometry_disabled():
            assert torch.equal(model(**inputs).logits, logits)
    model.train()
    model.model.geometry.requires_grad_(False)
    model(**inputs, labels=inputs["input_ids"], geometry_features=known).loss.backward()
    assert model.model.fusion.position.strength.grad.abs().sum() > 0
    groups = assign_groups(model)
    assert "model.fusion.position.strength" in groups["fusion"]
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    is_text = inputs["mm_token_type_ids"][0] == 0
    text = {name: each[:, is_text] for name, each in text.items()}
    model.zero_grad()
    model(**text, labels=text["input_ids"]).loss.backward()  # a batch without views
    assert model.model.fusion.position.strength.grad is not None


def test_from_the_encoders_points(tiny_model, tiny_config, inputs, to_patches):
    maps = GapMllmGeometryMapsConfig(**MAPS, teacher_config=tiny_config().geometry_config)
    model = tiny_model(geometry_config=maps, gap_fusion_config={"position_encoding": "position_3d"})
    nothing = model(**inputs).logits
    assert nothing.isfinite().all()
    known = model(**inputs, geometry_features=KnownGeometry(**known_views())).logits
    assert (known - nothing).abs().max() > 1e-3
    pixels, grid = to_patches(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    video = model.model.get_video_features(pixels, grid, return_dict=True).pooler_output[0]
    assert video.isfinite().all() and len(video) == 8


ENCODER = Path(__file__).parents[2] / "examples/assets/tiny_geometry_encoder"


def test_vggt_with_its_heads_tells_points():
    """The weights of a whole VGGT; the features of its aggregator, and the points of its depth and cameras."""
    encoder = GapMllmVggtPointsModel.from_pretrained(ENCODER, dtype=torch.float32).eval()
    whole = GapMllmVggtForReconstruction.from_pretrained(ENCODER, dtype=torch.float32).eval()
    plain = GapMllmVggtModel.from_pretrained(ENCODER, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    views = [torch.rand(3, 56, 84, generator=generator), torch.rand(3, 84, 56, generator=generator)]
    with torch.no_grad():
        output, said = encoder([*views, views[0]], [2, 1]), whole([*views, views[0]], [2, 1])
        assert all(map(torch.equal, output.tap_features, plain([*views, views[0]], [2, 1]).tap_features))
    last = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    to_world = [invert_rigid(torch.cat([each, last])) for each in said.extrinsics]
    for view, first in enumerate((0, 0, 2)):
        seen = unproject_depth(said.depth[view][..., 0], said.intrinsics[view])
        expected = transform_points(invert_rigid(to_world[first]) @ to_world[view], seen)
        torch.testing.assert_close(output.points[view], expected, rtol=1e-4, atol=1e-4)
    trained = {name.split(".")[0] for name, each in encoder.named_parameters() if each.requires_grad}
    assert not trained & {"camera_head", "depth_head"} and "frame_blocks" in trained


@pytest.fixture(scope="module")
def points_model(tiny_model, tiny_config):
    sizes = {
        name: value for name, value in tiny_config().geometry_config.to_diff_dict().items() if name != "model_type"
    }
    config = GapMllmVggtPointsConfig(**sizes)
    model = tiny_model(geometry_config=config, gap_fusion_config={"position_encoding": "position_3d"})
    with torch.no_grad():  # a usual field of view, and depth of some metres
        pose = model.model.geometry.camera_head.pose_branch.fc2
        depth = model.model.geometry.depth_head.scratch.output_conv2[2]
        pose.weight[3:], depth.weight[:] = 0, depth.weight * 0.01
        pose.bias[3:] = torch.tensor([0, 0, 0, 1, 0.25, 0.25])
    return model


@pytest.mark.slow
def test_vggts_own_points_where_nothing_is_known(points_model, inputs, tmp_path, tiny_processor, load_without_package):
    own = points_model(**inputs).logits
    with torch.no_grad():
        points_model.model.fusion.position.strength.zero_()
        assert (points_model(**inputs).logits - own).abs().max() > 1e-3
        points_model.model.fusion.position.strength.fill_(1)
    known = points_model(**inputs, geometry_features=KnownGeometry(**known_views())).logits
    assert (known - own).abs().max() > 1e-3
    encoder = points_model.model.geometry
    encoder.save_pretrained(tmp_path / "encoder")
    save_for_hub(
        points_model,
        tiny_processor,
        tmp_path / "out",
        include_geometry_weights=False,
        geometry_weights=str(tmp_path / "encoder"),
    )
    loaded = GapMllmForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(loaded(**inputs).logits, own)
    half = GapMllmForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.bfloat16).model.geometry
    assert half.depth_head.norm.weight.dtype == torch.float32 and half.camera_token.dtype == torch.bfloat16
    found = load_without_package(tmp_path / "encoder", tmp_path / "out")
    assert found["encoder"]["classes"]["AutoModel"] == "GapMllmVggtPointsModel"
    assert found["encoder_again"]["sum"] == pytest.approx(found["encoder"]["sum"])


def test_points_that_are_told_take_the_scale_of_those_known():
    told = [torch.full((2, 2, 3), float(value)) for value in (1, 2, 3)]
    known = [3 * told[0], None, None]
    known[0][0, 0] = torch.nan
    merged = merge_points(known, told, [2, 1])
    assert merged[0] is known[0] and torch.equal(merged[1], 3 * told[1]) and torch.equal(merged[2], told[2])
    assert merge_points(known, None, [2, 1]) is known


def test_a_new_model_begins_with_the_heads_of_a_folder():
    config, weights = new_encoder.start_encoder({"model_type": "gap_mllm_vggt_points"}, ENCODER)
    model = GapMllmVggtPointsModel(config)
    assert config.feature_size == 224 and model.state_dict().keys() == weights.keys()


@pytest.mark.slow
def test_saved_and_loaded_with_remote_code(tiny_model, tiny_processor, inputs, tmp_path, load_without_package):
    changes = {"position_encoding": "position_3d", "position_voxel_size": 0.25}
    model = tiny_model(gap_fusion_config=changes)
    torch.nn.init.normal_(model.model.fusion.position.strength)
    model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    known = KnownGeometry(**known_views())
    loaded = GapMllmForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    assert loaded.config.gap_fusion_config.position_voxel_size == 0.25
    logits = model(**inputs, geometry_features=known).logits
    assert torch.equal(loaded(**inputs, geometry_features=known).logits, logits)
    found = load_without_package(tmp_path / "model")
    assert found["model"]["sum"] == pytest.approx(found["model_again"]["sum"])


def test_what_cannot_be_is_refused(tiny_model, inputs):
    model = tiny_model(gap_fusion_config={"position_encoding": "position_3d"})
    with pytest.raises(ValueError, match="'position_3d' needs the points .*GapMllmVggtModel gives none.*depth"):
        model(**inputs)
    features = tiny_model().model.get_geometry_features(**{name: inputs[name] for name in VISION})
    with pytest.raises(ValueError, match=r"geometry_features has shape \(4, .* need \(5,"):
        model(**inputs, geometry_features=features)
    for changes, message in [
        ({"position_encoding": "3d"}, "position_encoding='3d' is not known. Choose one of .*position_3d"),
        ({"position_voxel_size": 0.2}, "position_voxel_size=0.2 has no effect with position_encoding=None"),
        ({"position_encoding": "position_3d", "position_voxel_size": 0.0}, "must be above 0"),
        ({"position_encoding": "position_3d", "geometry_hidden_size": 8}, "needs 10 channels of geometry"),
    ]:
        with pytest.raises(ValueError, match=message):
            GapMllmFusionConfig(**changes)
    sizes = {"hidden_size": 32, "geometry_hidden_size": 24, "merger_hidden_size": 48}
    fusion = GapMllmFusion(GapMllmFusionConfig(**sizes, position_encoding="position_3d"))
    with pytest.raises(ValueError, match="4 tap_features, .* and one of position_features behind them"):
        fusion([torch.rand(6, 32)] * 4, (torch.rand(24, 24),) * 4, [(4, 6)])
