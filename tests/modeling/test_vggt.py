"""VGGT against golden numbers of the reference, and the properties the port adds: scenes, mixed sizes, frugality."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from gap_mllm.configuration_gap_mllm import GapMllmVggtConfig
from gap_mllm.vggt_gap_mllm import GapMllmVggtModel, apply_rotary, patch_positions, rotary_table
from gap_mllm.vggt_heads_gap_mllm import (
    ADALN_EPS,
    GapMllmVggtForReconstruction,
    _sine_cosine_positions,
    cameras_to_pose_encoding,
    matrix_to_quaternion,
    pose_encoding_to_cameras,
    quaternion_to_matrix,
)


GOLDEN = Path(__file__).parents[1] / "fixtures" / "vggt"
TOLERANCE = 1e-4  # of the goldens' README; float32 noise of the reference itself is up to 3.2e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The golden checkpoint in the form of the official one: plain config, official keys, a tracker beside it."""
    folder = tmp_path_factory.mktemp("vggt")
    (folder / "config.json").write_text((GOLDEN / "config.json").read_text())
    weights = load_file(GOLDEN / "tiny_vggt.safetensors")
    save_file({**weights, "track_head.norm.weight": torch.ones(3)}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return GapMllmVggtForReconstruction.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def units():
    return load_file(GOLDEN / "units.safetensors")


def close(actual, expected, tolerance=TOLERANCE):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=1e-5)


@pytest.mark.parametrize("case", ["views3", "view1"])
@torch.no_grad()
def test_parity_end_to_end(model, case):
    golden = load_file(GOLDEN / f"case_{case}.safetensors")
    output = model(golden["images_uint8"].float() / 255)
    for layer, features in zip(model.config.tap_layers, output.geometry.tap_features, strict=True):
        close(features, golden[f"aggregator.{layer}"][:, :, 5:].reshape(features.shape))
    close(output.geometry.camera_tokens, golden["aggregator.3"][0, :, 0])
    close(output.pose_enc_iterations, golden["pose_enc_iters"])
    close(output.pose_enc, golden["pose_enc_iters"][-1])
    for name in ("depth", "depth_conf", "world_points", "world_points_conf", "extrinsics", "intrinsics"):
        close(getattr(output, name), golden[name])


@pytest.mark.parametrize("size", ["112x112", "56x224", "126x140"])
@torch.no_grad()
def test_parity_patch_embed(model, units, size):
    images = units[f"dino_{size}.images_uint8"].float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.config.image_mean, model.config.image_std))
    close(model.aggregator.patch_embed((images - mean) / std), units[f"dino_{size}.patch_tokens"])
    grid = tuple(int(side) // 14 for side in size.split("x"))
    if f"dino_pos_embed_{size}" in units:
        close(model.aggregator.patch_embed.interpolate_positions(grid), units[f"dino_pos_embed_{size}"])


@torch.no_grad()
def test_patch_embed_equals_transformers_dinov2(model):
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    ours = model.aggregator.patch_embed
    oracle = Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            hidden_size=48, num_hidden_layers=3, num_attention_heads=3, image_size=112, patch_size=14,
            num_register_tokens=4, mlp_ratio=4, layer_norm_eps=1e-6,
        )
    ).eval()  # fmt: skip
    state = {}
    for name, value in ours.state_dict().items():
        for old, new in (
            ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
            ("pos_embed", "embeddings.position_embeddings"),
            ("cls_token", "embeddings.cls_token"),
            ("mask_token", "embeddings.mask_token"),
            ("register_tokens", "embeddings.register_tokens"),
            ("blocks.", "encoder.layer."),
            ("attn.proj", "attention.o_proj"),
            ("ls1.gamma", "layer_scale1.lambda1"),
            ("ls2.gamma", "layer_scale2.lambda1"),
        ):
            name = name.replace(old, new)
        if "attn.qkv" in name:
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                state[name.replace("attn.qkv", f"attention.{part}_proj")] = rows
        else:
            state["layernorm" + name[4:] if name.startswith("norm.") else name] = value
    oracle.load_state_dict(state)
    images = torch.rand(2, 3, 98, 70)
    close(ours(images), oracle(images).last_hidden_state[:, 5:], 1e-5)


@torch.no_grad()
def test_parity_rotary(units):
    for batch in range(2):
        table = rotary_table(units["rope.positions"][batch], 16, 100.0)
        close(apply_rotary(units["rope.x"][batch : batch + 1], table), units["rope.out"][batch : batch + 1], 1e-5)
    positions = patch_positions((2, 3), 5, "cpu")
    assert positions[:5].eq(0).all() and positions[5:].tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]


@torch.no_grad()
def test_parity_camera_head(model, units):
    tokens = units["camera.tokens"][:, :, :]
    head = model.camera_head
    golden = units["camera.pose_enc_iters"]
    tokens = tokens.reshape(*golden.shape[1:3], -1)
    close(head(tokens), golden)
    bias = head.pose_branch.fc2.bias
    bias[7:9] -= 0.5  # the raw field of view turns negative: the output is 0, the raw value is fed back
    try:
        close(head(tokens), units["camera.pose_enc_iters_fovshift"])
    finally:
        bias[7:9] += 0.5


def test_parity_pose_encoding(units):
    extrinsics, intrinsics = pose_encoding_to_cameras(units["pose.enc"], (70, 98))
    close(extrinsics, units["pose.extrinsics"], 1e-5)
    close(intrinsics, units["pose.intrinsics"])
    close(cameras_to_pose_encoding(extrinsics, intrinsics, (70, 98)), units["pose.enc_roundtrip"], 1e-5)


def test_quaternions_round_trip_near_every_branch():
    torch.manual_seed(0)
    quaternion = torch.nn.functional.normalize(torch.randn(500, 4, dtype=torch.float64), dim=-1)
    quaternion = torch.cat([quaternion, torch.eye(4, dtype=torch.float64)])
    quaternion = torch.where(quaternion[:, 3:] < 0, -quaternion, quaternion)
    matrix = quaternion_to_matrix(3 * quaternion)
    assert torch.linalg.det(matrix).sub(1).abs().max() < 1e-12
    torch.testing.assert_close(matrix_to_quaternion(matrix), quaternion, atol=1e-12, rtol=0)


@torch.no_grad()
def test_parity_dpt_stages(model, units):
    golden = load_file(GOLDEN / "case_view1.safetensors")
    seen = {}
    scratch = model.depth_head.scratch
    modules = {f"project{k}": model.depth_head.projects[k] for k in range(4)}
    modules |= {f"layer{k}_rn": getattr(scratch, f"layer{k}_rn") for k in range(1, 5)}
    modules |= {f"refinenet{k}": getattr(scratch, f"refinenet{k}") for k in range(1, 5)}
    modules["output_conv1"] = scratch.output_conv1
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
        for name, module in modules.items()
    ]
    model.depth_head([golden[f"aggregator.{k}"][0, :, 5:] for k in range(4)], (7, 5))
    for hook in hooks:
        hook.remove()
    for name, value in seen.items():
        close(value, units[f"dpt_depth_view1.{name}"])


def test_positions_of_the_dense_heads_need_no_float64_on_the_device():
    """Apple's GPUs have none; "meta" stands for such a device."""

    class NoFloat64(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            assert not isinstance(made, torch.Tensor) or made.device.type == "cpu" or made.dtype != torch.float64
            return made

    with NoFloat64():
        positions = _sine_cosine_positions(8, (2, 3), (28, 42), torch.device("meta"))
    assert (positions.device.type, positions.dtype, tuple(positions.shape)) == ("meta", torch.float32, (8, 2, 3))


def test_eps_that_goldens_cannot_see(model):
    config = GapMllmVggtConfig()
    assert config.layer_norm_eps == 1e-5 and config.patch_embed_layer_norm_eps == 1e-6 and ADALN_EPS == 1e-6
    camera = model.camera_head
    norms = [camera.token_norm, camera.trunk_norm, model.depth_head.norm, model.point_head.norm]
    norms += [norm for block in camera.trunk for norm in (block.norm1, block.norm2)]
    for block in (*model.aggregator.frame_blocks, *model.aggregator.global_blocks):
        norms += [block.norm1, block.norm2, block.attn.q_norm, block.attn.k_norm]
    assert {norm.eps for norm in norms} == {1e-5}
    patch_embed = model.aggregator.patch_embed
    assert {n.eps for b in patch_embed.blocks for n in (b.norm1, b.norm2)} | {patch_embed.norm.eps} == {1e-6}


@torch.no_grad()
def test_scenes_of_a_batch_do_not_meet(model):
    torch.manual_seed(0)
    images = torch.rand(3, 2, 3, 42, 56)
    batch = model(images)
    for index in range(3):
        single = model(images[index : index + 1])
        for name in ("pose_enc", "depth", "world_points", "extrinsics", "intrinsics"):
            close(getattr(batch, name)[index], getattr(single, name)[0], 1e-5)


@torch.no_grad()
def test_equal_sizes_by_list_and_by_tensor(model):
    torch.manual_seed(0)
    images = torch.rand(2, 3, 3, 42, 56)
    by_tensor = model(images)
    by_list = model(list(images.flatten(0, 1)), [3, 3])
    close(by_list.pose_enc, by_tensor.pose_enc.flatten(0, 1), 1e-5)
    close(torch.stack(by_list.depth), by_tensor.depth.flatten(0, 1), 1e-5)


@torch.no_grad()
def test_scenes_of_unlike_lengths_and_sizes_equal_each_alone(model):
    torch.manual_seed(0)
    sizes = [(42, 56), (56, 42), (42, 56), (28, 28), (42, 56), (28, 28)]
    views = [torch.rand(3, *size) for size in sizes]
    lengths = [3, 1, 2]
    together = model(views, lengths)
    start, start_patch = 0, 0
    for length in lengths:
        alone = model(views[start : start + length], [length])
        close(together.pose_enc[start : start + length], alone.pose_enc, 1e-5)
        for index in range(length):
            close(together.depth[start + index], alone.depth[index], 1e-5)
            close(together.world_points[start + index], alone.world_points[index], 1e-5)
        patches = sum(height * width for height, width in alone.geometry.grid)
        for mine, other in zip(together.geometry.tap_features, alone.geometry.tap_features, strict=True):
            close(mine[start_patch : start_patch + patches], other, 1e-5)
        start, start_patch = start + length, start_patch + patches


@torch.no_grad()
def test_mixed_scene_equals_an_explicit_loop_over_views(model):
    """The same arithmetic written out with neither batching nor index tables: one view at a time."""
    torch.manual_seed(0)
    aggregator, config = model.aggregator, model.config
    views = [torch.rand(3, 42, 56), torch.rand(3, 28, 70), torch.rand(3, 42, 56)]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.image_mean, config.image_std))
    tokens, tables = [], []
    for index, view in enumerate(views):
        special = torch.cat([aggregator.camera_token, aggregator.register_token], dim=2)[:, min(index, 1)]
        tokens.append(torch.cat([special, aggregator.patch_embed(((view - mean) / std)[None])], dim=1))
        positions = patch_positions((view.shape[1] // 14, view.shape[2] // 14), 5, "cpu")
        tables.append(rotary_table(positions, 16, config.rope_theta))
    joint = tuple(torch.cat([table[part] for table in tables]) for part in (0, 1))
    taps = []
    for frame_block, global_block in zip(aggregator.frame_blocks, aggregator.global_blocks, strict=True):
        frames = [frame_block(token, table) for token, table in zip(tokens, tables, strict=True)]
        tokens = global_block(torch.cat(frames, dim=1), joint).split([frame.shape[1] for frame in frames], dim=1)
        pairs = zip(frames, tokens, strict=True)
        taps.append(torch.cat([torch.cat([f, g], dim=-1)[0, 5:] for f, g in pairs]))
    output = aggregator(views, [3])
    for mine, other in zip(output.tap_features, taps, strict=True):
        close(mine, other, 1e-5)


@torch.no_grad()
def test_later_views_permute_and_the_first_is_special(model):
    torch.manual_seed(0)
    images = torch.rand(1, 3, 3, 42, 42)
    base, swapped = model(images).depth, model(images[:, [0, 2, 1]]).depth
    close(base[:, [0, 2, 1]], swapped, 1e-4)
    assert (model(images[:, [1, 0, 2]]).depth[:, [1, 0, 2]] - base).abs().max() > 0.1


@torch.no_grad()
def test_untapped_layers_are_freed(folder):
    model = GapMllmVggtModel.from_pretrained(folder, tap_layers=[3]).eval()
    outputs = []
    for block in model.global_blocks:
        block.register_forward_hook(lambda _, __, out: outputs.append(weakref.ref(out)))
    result = model(torch.rand(1, 2, 3, 42, 42))
    gc.collect()
    assert len(result.tap_features) == 1 and len(outputs) == 4
    assert [reference() is None for reference in outputs] == [True] * 4


@torch.no_grad()
def test_aggregator_alone_loads_from_the_full_checkpoint(folder, model, caplog):
    alone, report = GapMllmVggtModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for mine, other in zip(alone.parameters(), model.aggregator.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_published_size_builds_on_meta_and_counts():
    with torch.device("meta"):
        model = GapMllmVggtForReconstruction(GapMllmVggtConfig(img_size=518, patch_size=14, embed_dim=1024))
    count = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    assert count == {
        "aggregator": 909_112_320,
        "camera_head": 216_174_610,
        "depth_head": 32_654_562,
        "point_head": 32_654_628,
    }
    assert len(model.aggregator.state_dict()) == 1210


@torch.no_grad()
def test_bfloat16_keeps_heads_and_statistics(folder, model):
    half = GapMllmVggtForReconstruction.from_pretrained(folder, dtype=torch.bfloat16)
    assert half.aggregator.camera_token.dtype == torch.bfloat16
    assert half.camera_head.embed_pose.weight.dtype == half.depth_head.norm.weight.dtype == torch.float32
    assert tuple(half.config.image_mean) == (0.485, 0.456, 0.406)
    images = torch.rand(1, 2, 3, 42, 42)
    features, reference = half(images).geometry.tap_features[-1].float(), model(images).geometry.tap_features[-1]
    assert features.isfinite().all()
    assert (features - reference).norm() / reference.norm() < 0.05  # 0.9 % was measured for the reference's own


@torch.no_grad()
def test_token_and_frame_chunks_do_not_change_the_result(folder, model):
    torch.manual_seed(0)
    images = torch.rand(1, 3, 3, 42, 42)
    chunked = GapMllmVggtForReconstruction.from_pretrained(folder, token_chunk_size=5, frames_chunk_size=2)
    close(chunked(images).depth, model(images).depth, 1e-4)


def test_gradient_checkpointing_gives_the_same_gradients(folder, enable_checkpointing):
    torch.manual_seed(0)
    images = torch.rand(1, 2, 3, 42, 42)
    gradients = []
    for checkpointed in (False, True):
        model = GapMllmVggtForReconstruction.from_pretrained(folder).train()
        if checkpointed:
            enable_checkpointing(model)
        output = model(images)
        (output.depth.mean() + output.world_points.mean() + output.pose_enc.sum()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients[1][name], gradient, atol=0, rtol=0, msg=name)


def test_save_and_load_are_bit_exact(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = GapMllmVggtForReconstruction.from_pretrained(tmp_path)
    paths = {"_name_or_path": None}
    assert again.config.to_dict() | paths == model.config.to_dict() | paths
    for (name, mine), other in zip(again.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name


def test_eager_and_sdpa_agree(folder, model):
    eager = GapMllmVggtForReconstruction.from_pretrained(folder, attn_implementation="eager").eval()
    images = torch.rand(1, 2, 3, 42, 42)
    with torch.no_grad():
        close(eager(images).depth, model(images).depth)


@pytest.mark.parametrize(
    ("images", "lengths", "message"),
    [
        (torch.rand(2, 3, 40, 42), None, "View 0 is 40 x 42 pixels"),
        (torch.rand(2, 4, 42, 42), None, "images must have shape"),
        ([torch.rand(3, 42, 42)] * 3, [2], r"scene_lengths=\[2\] must be positive and sum to the 3 views"),
        ([torch.rand(3, 42, 42)] * 3, [3, 0], "must be positive"),
        ([], None, "sum to the 0 views"),
        ([torch.rand(3, 42, 42), torch.rand(4, 42, 42)], None, r"View 1 has shape \(4, 42, 42\)"),
        ([torch.rand(2, 3, 42, 42)], None, r"View 0 has shape \(2, 3, 42, 42\)"),
        (torch.rand(1, 2, 3, 0, 42), None, "images must have shape"),
        (torch.full((2, 3, 42, 42), 255, dtype=torch.uint8), None, "View 0 has dtype torch.uint8.* divide bytes"),
        (torch.stack([torch.rand(3, 42, 42), torch.full((3, 42, 42), torch.nan)]), None, r"views \[1\] hold NaN"),
        (torch.rand(2, 2, 3, 42, 42), [1, 3], "which says the scenes itself"),
    ],
)
def test_bad_input_is_named(model, images, lengths, message):
    with pytest.raises(ValueError, match=message):
        model(images, lengths)


def test_views_that_are_no_tensors_are_named(model):
    with pytest.raises(TypeError, match="View 0 is a ndarray"):
        model([torch.rand(3, 42, 42).numpy()])


@torch.no_grad()
def test_a_tensor_of_views_may_hold_scenes_of_unlike_lengths(model):
    torch.manual_seed(0)
    images = torch.rand(3, 3, 28, 28)
    output = model(images, [1, 2])
    close(output.pose_enc[1:], model(images[1:]).pose_enc[0], 1e-5)
    close(output.depth[0], model(images[:1]).depth[0, 0], 1e-5)


def test_config_reads_the_official_forms_and_refuses_the_rest():
    assert GapMllmVggtConfig(img_size=518, patch_size=14, embed_dim=1024).tap_layers == [4, 11, 17, 23]
    assert GapMllmVggtConfig(embed_dim=48, depth=4, num_heads=3, patch_embed={"num_heads": 3}).tap_layers == [
        0,
        1,
        2,
        3,
    ]
    with pytest.raises(ValueError, match=r"does not know the keys \['aa_order'\]"):
        GapMllmVggtConfig(aa_order=["frame"])
    with pytest.raises(ValueError, match=r"keys \['window'\] of patch_embed"):
        GapMllmVggtConfig(patch_embed={"window": 3})
    with pytest.raises(ValueError, match="patch_embed must be a mapping .* got 'dinov2_vitl14_reg'"):
        GapMllmVggtConfig(patch_embed="dinov2_vitl14_reg")
    with pytest.raises(ValueError, match="enable_point must be true"):
        GapMllmVggtConfig(enable_point=False)
    with pytest.raises(ValueError, match="head size that is a multiple of 4"):
        GapMllmVggtConfig(num_attention_heads=5)
    with pytest.raises(ValueError, match="must be divisible by patch_embed_num_heads=5"):
        GapMllmVggtConfig(patch_embed_num_heads=5)
    with pytest.raises(ValueError, match="must be four multiples of 4"):
        GapMllmVggtConfig(dpt_out_channels=[256, 512, 1024])
    with pytest.raises(ValueError, match="dpt_features=12 a multiple of 8"):
        GapMllmVggtConfig(dpt_features=12)
    with pytest.raises(ValueError, match=r"tap_layers=\[4, 11, 23\] must be four"), torch.device("meta"):
        GapMllmVggtForReconstruction(GapMllmVggtConfig(tap_layers=[4, 11, 23]))
    with pytest.raises(ValueError, match="depth_head.activation must be 'exp'"):
        GapMllmVggtConfig(depth_head={"activation": "relu"})
    with pytest.raises(ValueError, match="lie outside the 4 layers"):
        GapMllmVggtConfig(num_hidden_layers=4, tap_layers=[0, 1, 2, 4])
    with pytest.raises(ValueError, match="rising order"):
        GapMllmVggtConfig(tap_layers=[11, 4, 17, 23])
    with pytest.raises(ValueError, match=r"tap_layers=\[0, 1, 2, 3\] and dpt.intermediate_layer_idx=\[4"):
        GapMllmVggtConfig(tap_layers=[0, 1, 2, 3], dpt={"intermediate_layer_idx": [4, 11, 17, 23]})


@torch.no_grad()
def test_every_parameter_is_initialised_where_a_checkpoint_lacks_it(model):
    """from_pretrained leaves memory as it found it where `_init_weights` does not know a parameter."""
    fresh = GapMllmVggtForReconstruction(model.config)
    for module in fresh.modules():
        module._is_hf_initialized = False
    for parameter in fresh.parameters():
        parameter.fill_(torch.nan)
    fresh.initialize_weights()
    assert not [name for name, parameter in fresh.named_parameters() if not parameter.isfinite().all()]
    assert not fresh.camera_head.empty_pose_tokens.any()


@torch.no_grad()
def test_weights_under_another_name_are_found_by_their_keys(folder, tmp_path):
    """The folder of goldens as it is: weights and cases side by side, none called model.safetensors."""
    loaded = GapMllmVggtForReconstruction.from_pretrained(GOLDEN, dtype=torch.float32)
    usual = GapMllmVggtForReconstruction.from_pretrained(folder)
    for (name, mine), other in zip(loaded.state_dict().items(), usual.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name
    assert GapMllmVggtModel.from_pretrained(GOLDEN, tap_layers=[3]).config.tap_layers == [3]
    loaded.save_pretrained(tmp_path)
    again = GapMllmVggtForReconstruction.from_pretrained(tmp_path)
    assert torch.equal(again.aggregator.camera_token, loaded.aggregator.camera_token)
