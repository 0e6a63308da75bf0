"""The fusion alone: parity with the reference's goldens, exact end points of `strength`, sizes, videos and errors."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gap_mllm.configuration_gap_mllm import ATTENTION_METHODS, FUSION_FIELDS_OF, FUSION_METHODS, GapMllmFusionConfig
from gap_mllm.conversion.weight_names import reference_fusion_name
from gap_mllm.fusion_gap_mllm import GapMllmFusion, sine_cosine_position


GOLDEN = Path(__file__).parents[1] / "fixtures" / "gap_reference"
LEVELS = ["deepstack.0", "deepstack.1", "deepstack.2", "final"]
CASES = {
    "gated": {},
    "add": {"method": "add"},
    "concat": {"method": "concat"},
    "weighted": {"method": "weighted"},
    "cross_attention": {"method": "cross_attention"},
    "cross_attention_2": {"method": "cross_attention", "num_layers": 2},
    "avg": {"merger_type": "avg"},
}
TOLERANCE = 1e-4  # of the goldens' README; measured float noise is below 1e-5


def make_config(**changes):
    sizes = {"hidden_size": 64, "geometry_hidden_size": 96, "merger_hidden_size": 96, "init": "reference"}
    return GapMllmFusionConfig(**{**sizes, **changes})


def make_fusion(seed=0, **changes):
    """A tiny fusion with every weight random, so that no part of it is close to the identity by chance."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 8, "geometry_hidden_size": 6, "fused_levels": "all"}
    for (choice, values), names in FUSION_FIELDS_OF.items():
        if choice == "method" and changes.get("method", "gated") in values:
            small = {"merger_hidden_size": 10, "num_attention_heads": 2}
            sizes.update({name: small[name] for name in names if name in small})
    fusion = GapMllmFusion(GapMllmFusionConfig(**{**sizes, **changes})).eval()
    with torch.no_grad():
        for name, parameter in fusion.named_parameters():
            if not name.endswith("strength"):
                parameter.copy_(torch.rand_like(parameter) * 0.8 + 0.1)
    return fusion


def make_inputs(sizes, slices=None, seed=1, dtype=torch.float32, camera_tokens=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(h * w // 4 for h, w in slices or sizes)
    visual = [torch.randn(tokens, 8, generator=generator).to(dtype) for _ in range(4)]
    rows = sum(h * w + camera_tokens for h, w in sizes)
    taps = tuple(torch.randn(rows, 6, generator=generator).to(dtype) for _ in range(4))
    return visual, taps


def same_bits(a, b):
    integer = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[a.dtype]
    return a.dtype == b.dtype and torch.equal(a.view(integer), b.view(integer))


def reference_weights(name):
    """The reference's weights for a golden case, in float32, by the reference's names."""
    folder = "checkpoint_model_prefix" if name == "avg" else "checkpoint"
    weights = load_file(GOLDEN / folder / "model-00003-of-00004.safetensors")
    if name in ("gated", "avg"):
        weights.update(load_file(GOLDEN / folder / "model-00004-of-00004.safetensors"))
    elif name != "add":
        weights.update(load_file(GOLDEN / "variants" / f"{name.removesuffix('_2')}.safetensors"))
    weights = {key.removeprefix("model."): value.float() for key, value in weights.items()}
    if name == "cross_attention_2":  # block 1 of a level is block 0 of the next
        order = ["feature_fusion", *(f"deepstack_feature_fusion_list.{k}" for k in range(3))]
        for level, following in zip(order, order[1:] + order[:1], strict=True):
            block = f"{following}.cross_attn_blocks.0."
            for key in [key for key in weights if key.startswith(block)]:
                weights[f"{level}.cross_attn_blocks.1.{key.removeprefix(block)}"] = weights[key]
    return weights


def golden_fusion(name):
    fusion, weights = GapMllmFusion(make_config(**CASES[name])).eval(), reference_weights(name)
    with torch.no_grad():
        for target, parameter in fusion.named_parameters():
            if not target.endswith("strength"):
                source, part = reference_fusion_name(target, last_level=3)
                parameter.copy_(weights[source] if part is None else weights[source].chunk(3)[part])
    return fusion


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_levels_match_the_reference_from_its_merged_geometry(name):
    fusion = golden_fusion(name)
    inputs, case = load_file(GOLDEN / "cases/a_gated.safetensors"), load_file(GOLDEN / f"cases/a_{name}.safetensors")
    geometry = case if name == "avg" else inputs
    for level, label in zip(fusion.levels, LEVELS, strict=True):
        fused, gate = level(inputs[f"visual.{label}"], geometry[f"geometry.{label}"].view(36, 64), [(3, 4)] * 3)
        torch.testing.assert_close(fused, case[f"fused.{label}"], atol=TOLERANCE, rtol=0)
        if f"gate.{label}" in case:
            torch.testing.assert_close(gate, case[f"gate.{label}"].view(36, 64), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_forward_matches_the_reference_from_the_patch_features_of_one_view(name):
    fusion = golden_fusion(name)
    inputs, case = load_file(GOLDEN / "cases/a_gated.safetensors"), load_file(GOLDEN / f"cases/a_{name}.safetensors")
    visual = [inputs[f"visual.{label}"][12:24] for label in LEVELS]
    taps = tuple(inputs["vggt_patch_features_view1"].flatten(1, 2))
    output = fusion(visual, taps, torch.tensor([[6, 8]]), output_details=True)
    geometry = case if name == "avg" else inputs
    for k, label in enumerate(LEVELS):
        torch.testing.assert_close(output.fused[k], case[f"fused.{label}"][12:24], atol=TOLERANCE, rtol=0)
        expected = geometry[f"geometry.{label}"][1].view(12, 64)
        torch.testing.assert_close(output.geometry[k], expected, atol=TOLERANCE, rtol=0)
        if f"gate.{label}" in case:
            expected = case[f"gate.{label}"][1].view(12, 64)
            torch.testing.assert_close(output.gates[k], expected, atol=TOLERANCE, rtol=0)
    if name in ("add", "concat", "cross_attention", "cross_attention_2"):
        assert output.gates is None


def test_norms_have_the_reference_eps_and_kind():
    # The goldens do not tell these eps apart at their tolerance.
    gated = GapMllmFusion(make_config())
    assert [merger.norm.variance_epsilon for merger in gated.mergers] == [1e-6] * 4
    norms = [module for module in gated.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 8 and all(norm.eps == 1e-5 for norm in norms)
    blocks = GapMllmFusion(make_config(method="cross_attention", num_layers=2, merger_norm="layer_norm"))
    assert all(merger.norm.eps == 1e-6 and merger.norm.bias is not None for merger in blocks.mergers)
    norms = [module for module in blocks.levels.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 4 * 2 * 4 and all(norm.eps == 1e-5 for norm in norms)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", FUSION_METHODS)
@torch.no_grad()
def test_strength_0_gives_the_visual_tokens_and_1_the_fused_ones_bit_for_bit(method, dtype):
    fusion = make_fusion(method=method, init="identity").to(dtype)
    visual, taps = make_inputs([(4, 6)], dtype=dtype, camera_tokens=fusion.config.camera_tokens)
    for tokens in visual:
        tokens[0, :4] = torch.tensor([-0.0, 0.0, 1e-38, -1e30])
    taps[1][3] = float("inf")  # geometry that overflowed
    for before, after in zip(visual, fusion(visual, taps, [(4, 6)]), strict=True):
        assert same_bits(before, after)
    for level in fusion.levels:
        level.strength.fill_(1)
    taps[1][3] = 0
    output = fusion(visual, taps, [(4, 6)], output_details=True)
    for level, before, geometry, after in zip(fusion.levels, visual, output.geometry, output.fused, strict=True):
        assert same_bits(after, level.fuse(before, geometry, [(2, 3)])[0])


@torch.no_grad()
def test_strength_1_keeps_signed_zeros_and_ignores_non_finite_visual_tokens():
    fusion = make_fusion(method="add", init="reference")
    level = fusion.levels[0]
    level.fuse.forward = lambda visual, geometry, sizes: (geometry, None)
    geometry = torch.full((6, 8), -0.0)
    visual = torch.full((6, 8), float("nan"))
    visual[0] = 1e38
    assert same_bits(level(visual, geometry, [(2, 3)])[0], geometry)


@torch.no_grad()
def test_strength_between_0_and_1_interpolates_each_channel():
    fusion = make_fusion(method="add", init="identity")
    visual, taps = make_inputs([(4, 6)])
    strength = torch.linspace(0, 1, 8)
    fusion.levels[2].strength.copy_(strength)
    output = fusion(visual, taps, [(4, 6)], output_details=True)
    torch.testing.assert_close(output.fused[2], visual[2] + strength * output.geometry[2])
    assert torch.equal(output.fused[2][:, -1], (visual[2] + output.geometry[2])[:, -1])


def test_gradient_is_that_of_lerp_and_reaches_only_strength_from_zero():
    fusion = make_fusion(init="identity").double()
    visual, taps = make_inputs([(4, 6)], dtype=torch.float64)
    visual[3].requires_grad_(True)
    fused = fusion(visual, taps, [(4, 6)])
    weight = torch.arange(48, dtype=torch.float64).view(6, 8)
    (fused[3] * weight).sum().backward()
    level = fusion.levels[3]
    with torch.no_grad():
        output = fusion(visual, taps, [(4, 6)], output_details=True)
        difference = level.fuse(visual[3], output.geometry[3], [(2, 3)])[0] - visual[3]
    torch.testing.assert_close(level.strength.grad, (weight * difference).sum(0), rtol=1e-6, atol=0)
    assert torch.equal(visual[3].grad, weight)
    others = [p.grad for name, p in fusion.named_parameters() if ".3." in name and not name.endswith("strength")]
    assert others and all(grad is None or not grad.any() for grad in others)

    with torch.no_grad():
        level.strength.copy_(torch.linspace(0, 1, 8))
    level.strength.grad = None
    fusion(visual, taps, [(4, 6)])[3].sum().backward()
    assert all(p.grad.any() for p in [*level.parameters(), *fusion.mergers[3].parameters()])


@pytest.mark.parametrize(
    ("changes", "value", "is_trained"),
    [
        ({"init": "identity"}, 0.0, True),
        ({"init": "reference"}, 1.0, False),
        ({"init": "reference", "train_strength": True}, 1.0, True),
        ({"init": "identity", "train_strength": False}, 0.0, False),
    ],
)
def test_strength_start_and_training_hold_after_loading(tmp_path, changes, value, is_trained):
    fusion = GapMllmFusion(make_config(**changes))
    with torch.no_grad():
        fusion.levels[1].strength[3] = 0.25
    fusion.save_pretrained(tmp_path)
    loaded = GapMllmFusion.from_pretrained(tmp_path)
    for model in (fusion, loaded, loaded.to(torch.float64)):
        assert [level.strength.requires_grad for level in model.levels] == [is_trained] * 4
        assert sum(name.endswith("strength") for name, _ in model.named_parameters()) == 4 * is_trained
        assert all(p.requires_grad for name, p in model.named_parameters() if not name.endswith("strength"))
        assert torch.equal(model.levels[0].strength, torch.full((64,), value, dtype=model.dtype))
        assert model.levels[1].strength[3] == 0.25
    if is_trained:  # a user's own choice stays
        assert not loaded.train().levels[0].strength.requires_grad_(False).requires_grad


def test_weights_that_a_checkpoint_may_lack_are_initialised(tmp_path):
    fusion = make_fusion(method="weighted", init="reference")
    state = {name: tensor for name, tensor in fusion.state_dict().items() if name.startswith("mergers.0.")}
    fusion.save_pretrained(tmp_path, state_dict=state)
    loaded = GapMllmFusion.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    assert torch.equal(loaded.mergers[0].linear_fc1.weight, fusion.mergers[0].linear_fc1.weight)
    for merger, level in zip(loaded.mergers[1:], loaded.levels[1:], strict=True):
        assert torch.equal(level.strength, torch.ones(8))
        assert level.fuse.visual_weight.item() == level.fuse.geometry_weight.item() == 0.5
        assert not merger.linear_fc1.bias.any() and torch.equal(merger.norm.weight, torch.ones(6))
        assert 0.01 < merger.linear_fc1.weight.std() < 0.03


@pytest.mark.parametrize(
    "changes", [*({"method": method} for method in FUSION_METHODS), {"method": "gated", "merger_type": "avg"}]
)
@torch.no_grad()
def test_views_of_mixed_sizes_give_what_each_gives_alone(changes):
    fusion = make_fusion(init="reference", **changes)
    sizes = [(4, 6), (4, 6), (2, 8), (4, 6), (6, 4)]
    camera_tokens = fusion.config.camera_tokens
    visual, taps = make_inputs(sizes, camera_tokens=camera_tokens)
    together = fusion(visual, taps, sizes)
    tokens = patches = 0
    for size in sizes:
        count = size[0] * size[1]
        alone = fusion(
            [level[tokens : tokens + count // 4] for level in visual],
            tuple(tap[patches : patches + count + camera_tokens] for tap in taps),
            [size],
        )
        for level, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(level[tokens : tokens + count // 4], expected, atol=1e-5, rtol=1e-5)
        tokens, patches = tokens + count // 4, patches + count + camera_tokens


@pytest.mark.parametrize("video_frames", ["mean", "first"])
@torch.no_grad()
def test_views_of_one_slice_are_averaged_or_the_first_is_taken(video_frames):
    fusion = make_fusion(method="add", init="reference", video_frames=video_frames)
    sizes, counts = [(4, 6), (2, 4), (2, 4), (2, 4), (2, 4), (4, 4)], torch.tensor([1, 2, 2, 1])
    visual, taps = make_inputs(sizes, slices=[(4, 6), (2, 4), (2, 4), (4, 4)])
    output = fusion(visual, taps, sizes, counts, output_details=True)
    views = fusion.mergers[1](taps[1], sizes).split([6, 2, 2, 2, 2, 4])
    pairs = [(views[1], views[2]), (views[3], views[4])]
    middle = [(a + b) / 2 if video_frames == "mean" else a for a, b in pairs]
    expected = torch.cat([views[0], *middle, views[5]])
    torch.testing.assert_close(output.geometry[1], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.fused[1], visual[1] + expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_dropout_acts_in_attention_only_and_only_in_training():
    for method in FUSION_METHODS:
        dropout = {"dropout": 0.5} if method in ATTENTION_METHODS else {}
        fusion = make_fusion(method=method, init="reference", **dropout)
        visual, taps = make_inputs([(4, 6)], camera_tokens=fusion.config.camera_tokens)
        before, training = fusion(visual, taps, [(4, 6)]), fusion.train()(visual, taps, [(4, 6)])
        assert torch.equal(before[0], training[0]) is (method not in ATTENTION_METHODS)


@pytest.mark.parametrize(
    "changes",
    [{"method": "cross_attention", "num_layers": 2}, *({"method": method} for method in ATTENTION_METHODS[1:])],
)
@torch.no_grad()
def test_eager_attention_equals_sdpa(changes):
    fusion = make_fusion(init="reference", **changes)
    visual, taps = make_inputs([(4, 6), (2, 4)], camera_tokens=fusion.config.camera_tokens)
    sdpa = fusion(visual, taps, [(4, 6), (2, 4)])
    fusion.set_attn_implementation("eager")
    for a, b in zip(sdpa, fusion(visual, taps, [(4, 6), (2, 4)]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_inputs_of_another_dtype_are_cast_in_and_out():
    fusion = make_fusion(init="reference")
    visual, taps = make_inputs([(4, 6)], dtype=torch.bfloat16)
    fused = fusion(visual, tuple(tap.double() for tap in taps), [(4, 6)])
    expected = fusion([level.float() for level in visual], tuple(tap.float() for tap in taps), [(4, 6)])
    assert all(same_bits(a, b.bfloat16()) for a, b in zip(fused, expected, strict=True))


def test_position_code_has_rows_first_and_sine_before_cosine():
    code = sine_cosine_position(3, 4, 8).view(3, 4, 8)
    angle = torch.tensor([1.0, 0.01])  # frequencies 10000^(-k/2)
    expected = torch.cat([(2 * angle).sin(), (2 * angle).cos(), (3 * angle).sin(), (3 * angle).cos()])
    torch.testing.assert_close(code[2, 3], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual_levels": 3}, "3 visual_levels"),
        ({"tap_features": 5}, "5 tap_features"),
        ({"grid": [(4, 5)]}, "multiples of spatial_merge_size=2"),
        ({"grid": [(4, 4)]}, "makes 16 patches"),
        ({"views_per_slice": [2]}, "sum to the 1 views"),
        ({"views_per_slice": [0, 1]}, "must be positive"),
        ({"grid": [(2, 6), (6, 2)], "views_per_slice": [2]}, "must share one grid"),
        ({"grid": [(2, 6), (2, 6)], "views_per_slice": [2]}, "makes 3 tokens"),
    ],
)
def test_numbers_that_do_not_agree_are_refused(change, message):
    visual, taps = make_inputs([(4, 6)])
    arguments = {"visual_levels": visual, "tap_features": taps, "grid": [(4, 6)], "views_per_slice": None, **change}
    for name in ("visual_levels", "tap_features"):
        if isinstance(arguments[name], int):
            arguments[name] = [visual[0]] * arguments[name]
    with pytest.raises(ValueError, match=message):
        make_fusion()(**arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 2}, "gap_fusion_config.num_layers=2 has no effect with method='gated', only with 'cross_att"),
        ({"method": "add", "dropout": 0.5}, "dropout=0.5 has no effect with method='add'"),
        ({"method": "concat", "num_attention_heads": 4}, "num_attention_heads=4 has no effect with method='concat'"),
        ({"merger_type": "avg", "merger_norm": "layer_norm"}, "merger_norm='layer_norm' .* merger_type='avg', only"),
        ({"merger_type": "avg", "merger_norm_eps": 1e-5}, "merger_norm_eps=1e-05 has no effect"),
        (
            {"method": "spatial_mllm"},
            "merger_hidden_size=96 has no effect with method='spatial_mllm', only with 'gated'",
        ),
    ],
)
def test_fields_that_nothing_would_read_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_config(**changes)


@torch.no_grad()
def test_fused_levels_final_leaves_deepstack_as_it_is_and_is_kept(tmp_path):
    fusion = make_fusion(fused_levels="final", init="reference")
    visual, taps = make_inputs([(4, 6)])
    output = fusion(visual, taps, [(4, 6)], output_details=True)
    assert all(before is after for before, after in zip(visual[:3], output.fused[:3], strict=True))
    assert output.geometry[:3] == output.gates[:3] == [None] * 3
    torch.testing.assert_close(output.geometry[3], fusion.mergers[0](taps[3], [(4, 6)]))
    assert torch.equal(output.fused[3], fusion.levels[0](visual[3], output.geometry[3], [(2, 3)])[0])
    fusion.save_pretrained(tmp_path)
    again = GapMllmFusion.from_pretrained(tmp_path)(visual, taps, [(4, 6)])
    assert all(torch.equal(a, b) for a, b in zip(output.fused, again, strict=True))


def test_fused_levels_follow_from_the_method_and_unknown_ones_are_refused():
    found = {method: GapMllmFusionConfig(method=method).fused_levels for method in FUSION_METHODS}
    assert found.pop("spatial_mllm") == found.pop("vlm3r") == "final" and set(found.values()) == {"all"}
    with pytest.raises(ValueError, match="gap_fusion_config.fused_levels='deepstack'.*'all', 'final'"):
        make_config(fused_levels="deepstack")


def test_unknown_merger_norm_is_refused():
    with pytest.raises(ValueError, match="merger_norm='batch_norm'.*rms_norm"):
        make_config(merger_norm="batch_norm")
