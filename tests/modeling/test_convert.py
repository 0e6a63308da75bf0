"""Conversion: parity with the reference's goldens end to end, every form of the checkpoint, and every refusal."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, Qwen3VLForConditionalGeneration

from gap_mllm.configuration_gap_mllm import GapMllmVggtConfig
from gap_mllm.conversion import (
    ConversionError,
    convert_base_models,
    convert_checkpoint,
    infer_vggt_config,
    weight_files,
)
from gap_mllm.conversion.source_configs import REFERENCE_KEYS
from gap_mllm.conversion.weight_names import reference_fusion_name
from gap_mllm.fusion_gap_mllm import GapMllmFusion
from gap_mllm.hub import remote_code_files
from gap_mllm.modeling_gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing import GapMllmProcessor, build_tiny_tokenizer
from gap_mllm.publishing_gap_mllm import AUTO_MAPS
from gap_mllm.vggt_gap_mllm import GapMllmVggtModel
from gap_mllm_cli import main
from tests.slow_cases import slow_but


FIXTURES = Path(__file__).parents[1] / "fixtures"
GOLDEN = FIXTURES / "gap_reference"
LEVELS = ["deepstack.0", "deepstack.1", "deepstack.2", "final"]
FUSED_TOLERANCE, LOGITS_TOLERANCE = 1e-4, 3e-4  # of the goldens' README; measured float noise is below 1e-5
OVERRIDES = json.loads((GOLDEN / "variants" / "config_overrides.json").read_text())
EMBEDDING = "model.language_model.embed_tokens.weight"


def shard(number, folder="checkpoint"):
    return load_file(GOLDEN / folder / f"model-{number:05d}-of-00004.safetensors")


def reference_weights(variant="gated"):
    """The reference's weights of one golden case, by the names of its checkpoint."""
    weights = {**shard(1), **shard(2)}
    if variant == "avg":
        return {**weights, **shard(3, "checkpoint_model_prefix"), **shard(4, "checkpoint_model_prefix")}
    weights.update(shard(3))
    if variant in ("gated", "last"):
        return {**weights, **shard(4)}
    if variant != "add":
        weights.update(load_file(GOLDEN / "variants" / f"{variant.removesuffix('_2')}.safetensors"))
    if variant == "cross_attention_2":  # block 1 of a level is block 0 of the next
        order = ["feature_fusion", *(f"deepstack_feature_fusion_list.{k}" for k in range(3))]
        for level, following in zip(order, order[1:] + order[:1], strict=True):
            block = f"{following}.cross_attn_blocks.0."
            for name in [name for name in weights if name.startswith(block)]:
                weights[f"{level}.cross_attn_blocks.1.{name.removeprefix(block)}"] = weights[name].clone()
    return weights


def write_checkpoint(folder, weights=None, drop=(), **changes):
    """A reference folder: the tiny checkpoint with its config changed and its weights replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((GOLDEN / "checkpoint" / "config.json").read_text())
    config = {key: value for key, value in {**config, **changes}.items() if key not in drop}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(reference_weights() if weights is None else weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def load(folder):
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def stored(folder):
    return load_file(folder / "model.safetensors")


def same_weights(a, b):
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def inputs():
    case = load_file(GOLDEN / "cases/a_inputs.safetensors")
    pixels = case["pixel_patches_uint8"].float() / 255 * 2 - 1
    pixel_values = pixels[:, :, None].expand(-1, -1, 2, -1, -1).reshape(144, 1536)
    assert torch.equal(pixel_values[[0, 60, 143]], case["pixel_values_rows_0_60_143"])
    names = ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw")
    return {**{name: case[name] for name in names}, "pixel_values": pixel_values}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return convert_checkpoint(GOLDEN / "checkpoint", tmp_path_factory.mktemp("converted") / "out")


# Parity


@torch.no_grad()
def test_gated_checkpoint_computes_what_the_reference_computes(converted, inputs):
    model, golden = load(converted), load_file(GOLDEN / "cases/a_gated.safetensors")
    assert type(model) is GapMllmForConditionalGeneration
    output = model(**inputs)
    torch.testing.assert_close(output.logits, golden["logits"], atol=LOGITS_TOLERANCE, rtol=0)
    images = {name: inputs[name] for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}
    features = model.get_image_features(**images, return_dict=True)
    fused = [torch.cat(level) for level in (*features.deepstack_features, features.pooler_output)]
    for level, label in zip(fused, LEVELS, strict=True):
        torch.testing.assert_close(level, golden[f"fused.{label}"], atol=FUSED_TOLERANCE, rtol=0)
    tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert tokens[0, 60:].tolist() == golden["greedy_new_tokens"].tolist()
    with model.geometry_disabled():
        plain = model(**inputs).logits[:, -4:]
    assert torch.equal(plain, golden["logits_without_geometry_last4"])


@torch.no_grad()
def test_position_ids_are_those_of_the_reference(converted, inputs):
    case = load_file(GOLDEN / "cases/a_inputs.safetensors")
    model = load(converted)
    positions, deltas = model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    assert torch.equal(positions[-3:], case["position_ids"]) and torch.equal(deltas, case["rope_deltas"])


@torch.no_grad()
def test_text_alone_computes_what_the_reference_computes(converted):
    case = load_file(GOLDEN / "cases/c.safetensors")
    names = ("input_ids", "attention_mask", "mm_token_type_ids")
    logits = load(converted)(**{name: case[name] for name in names}).logits
    torch.testing.assert_close(logits, case["logits"], atol=LOGITS_TOLERANCE, rtol=0)


@pytest.mark.parametrize("variant", OVERRIDES)
@torch.no_grad()
def test_every_variant_computes_what_the_reference_computes(tmp_path, inputs, variant):
    source = write_checkpoint(tmp_path / "in", reference_weights(variant), **OVERRIDES[variant])
    model = load(convert_checkpoint(source, tmp_path / "out", GOLDEN / "vggt_config.json"))
    details = []
    model.model.fusion.register_forward_pre_hook(
        lambda fusion, args: details.append(GapMllmFusion.forward(fusion, *args, output_details=True))
    )
    logits = model(**inputs).logits[:, -4:]
    golden = load_file(GOLDEN / f"cases/a_{variant}.safetensors")
    torch.testing.assert_close(logits, golden["logits_last4"], atol=LOGITS_TOLERANCE, rtol=0)
    for kind, levels in (("fused", details[0].fused), ("geometry", details[0].geometry), ("gate", details[0].gates)):
        for k, label in enumerate(LEVELS):
            if f"{kind}.{label}" in golden:
                expected = golden[f"{kind}.{label}"].view(36, 64)
                torch.testing.assert_close(levels[k], expected, atol=FUSED_TOLERANCE, rtol=0)


# Forms of the checkpoint


@pytest.mark.parametrize("form", ["model_prefix", "both_prefixes", "own_prefix_for_some"])
def test_every_form_of_the_names_gives_the_same_weights(tmp_path, converted, form):
    weights = reference_weights()
    ours = [name for name in weights if not name.startswith("model.")]
    if form == "model_prefix":
        weights = {(f"model.{name}" if name in ours else name): value for name, value in weights.items()}
    elif form == "both_prefixes":
        weights.update({f"model.{name}": weights[name].clone() for name in ours})
        weights["lm_head.weight"] = weights[EMBEDDING].clone()
    else:
        weights = {(f"model.{n}" if n in ours[::2] else n): value for n, value in weights.items()}
    output = convert_checkpoint(write_checkpoint(tmp_path / "in", weights), tmp_path / "out")
    assert same_weights(stored(output), stored(converted))
    assert (output / "config.json").read_text() == (converted / "config.json").read_text()


def test_dtype_and_every_value_are_kept(converted):
    source, output = reference_weights(), stored(converted)
    assert {tensor.dtype for tensor in output.values()} == {torch.bfloat16}
    assert json.loads((converted / "config.json").read_text())["dtype"] == "bfloat16"
    assert torch.equal(output["model.fusion.levels.1.strength"], torch.ones(64, dtype=torch.bfloat16))
    assert len(output) == len(source) + 4  # nothing lost, one strength for each level
    pairs = {
        EMBEDDING: EMBEDDING,
        "model.geometry.frame_blocks.2.attn.qkv.weight": (
            "geometry_encoder.vggt.aggregator.frame_blocks.2.attn.qkv.weight"
        ),
        "model.fusion.mergers.1.linear_fc2.bias": "geometry_deepstack_merger_list.1.mlp.2.bias",
        "model.fusion.mergers.3.norm.weight": "geometry_merger.ln_q.weight",
        "model.fusion.levels.0.fuse.gate.weight": "deepstack_feature_fusion_list.0.gate_projection.0.weight",
        "model.fusion.levels.3.fuse.geometry_norm.bias": "feature_fusion.norm2.bias",
    }
    assert all(torch.equal(output[ours], source[theirs]) for ours, theirs in pairs.items())


def test_encoder_stored_in_another_dtype_keeps_it(tmp_path):
    weights = {
        name: value.float() if name.startswith("geometry_encoder") else value
        for name, value in reference_weights().items()
    }
    output = stored(convert_checkpoint(write_checkpoint(tmp_path / "in", weights), tmp_path / "out"))
    assert output["model.geometry.camera_token"].dtype == torch.float32
    assert output["model.fusion.levels.0.strength"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("target", "source", "part"),
    [
        ("mergers.2.linear_fc1.weight", "geometry_deepstack_merger_list.2.mlp.0.weight", None),
        ("mergers.3.linear_fc2.bias", "geometry_merger.mlp.2.bias", None),
        ("levels.3.fuse.visual_norm.weight", "feature_fusion.norm1.weight", None),
        ("levels.0.fuse.projection.bias", "deepstack_feature_fusion_list.0.projection.bias", None),
        ("levels.1.fuse.visual_weight", "deepstack_feature_fusion_list.1.weight_2d", None),
        ("levels.3.fuse.geometry_weight", "feature_fusion.weight_3d", None),
        ("levels.3.fuse.blocks.1.key.bias", "feature_fusion.cross_attn_blocks.1.cross_attention.in_proj_bias", 1),
        (
            "levels.2.fuse.blocks.0.value.weight",
            "deepstack_feature_fusion_list.2.cross_attn_blocks.0.cross_attention.in_proj_weight",
            2,
        ),
        ("levels.3.fuse.blocks.0.mlp_norm.bias", "feature_fusion.cross_attn_blocks.0.norm2.bias", None),
        ("levels.3.fuse.blocks.0.linear_fc2.weight", "feature_fusion.cross_attn_blocks.0.mlp.3.weight", None),
        (
            "levels.3.fuse.blocks.0.output.weight",
            "feature_fusion.cross_attn_blocks.0.cross_attention.out_proj.weight",
            None,
        ),
    ],
)
def test_fusion_weights_have_these_names_in_the_reference(target, source, part):
    assert reference_fusion_name(target, last_level=3) == (source, part)


def test_sharded_output_is_complete_and_equal(tmp_path, converted, monkeypatch):
    monkeypatch.setattr(weight_files, "MAX_SHARD_BYTES", 400_000)
    output = convert_checkpoint(GOLDEN / "checkpoint", tmp_path / "out")
    index = json.loads((output / "model.safetensors.index.json").read_text())
    files = sorted(output.glob("*.safetensors"))
    assert len(files) > 3 and sorted(set(index["weight_map"].values())) == [file.name for file in files]
    merged = {name: value for file in files for name, value in load_file(file).items()}
    assert same_weights(merged, stored(converted))
    assert index["metadata"]["total_size"] == sum(value.numel() * 2 for value in merged.values())
    assert not list(output.glob("shard-*"))
    with safe_open(files[0], "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert same_weights(load(output).state_dict(), load(converted).state_dict())


def test_layer_norm_of_the_releases_fallback_is_kept(tmp_path):
    weights = reference_weights()
    for name in [name for name in weights if name.endswith("ln_q.weight")]:
        weights[name.replace("weight", "bias")] = torch.full((96,), 0.5, dtype=torch.bfloat16)
    model = load(convert_checkpoint(write_checkpoint(tmp_path / "in", weights), tmp_path / "out"))
    for merger in model.model.fusion.mergers:
        assert isinstance(merger.norm, torch.nn.LayerNorm) and merger.norm.eps == 1e-6
        assert torch.equal(merger.norm.bias, torch.full((96,), 0.5))


def test_heads_inside_the_reference_encoder_are_left_out(tmp_path, converted):
    weights = {**reference_weights(), "geometry_encoder.vggt.track_head.x": torch.ones(2)}
    output = convert_checkpoint(write_checkpoint(tmp_path / "in", weights), tmp_path / "out")
    assert same_weights(stored(output), stored(converted))


# Configuration


def test_every_reference_key_is_carried_over(tmp_path):
    weights = reference_weights("cross_attention_2")
    changes = {
        "feature_fusion_method": "cross_attention",
        "fusion_num_layers": 2,
        "fusion_attention_heads": 4,
        "fusion_dropout": 0.25,
        "reference_frame": "last",
        "use_cache": False,
        "eos_token_id": 498,
    }
    output = convert_checkpoint(write_checkpoint(tmp_path / "in", weights, **changes), tmp_path / "out")
    config = load(output).config
    fusion = config.gap_fusion_config
    assert (fusion.method, fusion.num_layers, fusion.num_attention_heads, fusion.dropout) == (
        "cross_attention",
        2,
        4,
        0.25,
    )
    assert (fusion.merger_type, fusion.merger_hidden_size, fusion.init) == ("mlp", 96, "reference")
    assert (config.reference_frame, config.use_geometry, config.eos_token_id) == ("last", True, 498)
    assert config.text_config.use_cache  # top-level use_cache was a setting of the training run
    assert config.geometry_config.tap_layers == [0, 1, 2, 3]
    assert (config.image_token_id, config.video_token_id, config.vision_start_token_id) == (505, 506, 502)
    assert not (set(REFERENCE_KEYS) - {"reference_frame"}) & set(config.to_dict())


def test_sizes_of_cross_attention_are_dropped_where_the_release_ignores_them_too(tmp_path):
    changes = {"fusion_num_layers": 3, "fusion_attention_heads": 4, "fusion_dropout": 0.5}
    source = write_checkpoint(tmp_path / "in", reference_weights("add"), feature_fusion_method="add", **changes)
    fusion = load(convert_checkpoint(source, tmp_path / "out")).config.gap_fusion_config
    assert (fusion.method, fusion.num_layers, fusion.num_attention_heads, fusion.dropout) == ("add", 1, 8, 0.1)


def test_missing_keys_get_the_releases_defaults(tmp_path):
    drop = ("feature_fusion_method", "fusion_num_layers", "reference_frame", "geometry_encoder_type")
    source = write_checkpoint(tmp_path / "in", reference_weights("add"), drop=drop)
    config = load(convert_checkpoint(source, tmp_path / "out")).config
    assert config.gap_fusion_config.method == "add" and config.reference_frame == "first"
    assert config.gap_fusion_config.num_attention_heads == 8 and config.gap_fusion_config.dropout == 0.1


def test_tap_layers_are_the_checkpoints_and_not_the_given_configs(tmp_path):
    given = json.loads((GOLDEN / "vggt_config.json").read_text())
    given["dpt"] = {"intermediate_layer_idx": [0, 1, 2, 2], "out_channels": [16, 24, 32, 40], "features": 16}
    output = convert_checkpoint(GOLDEN / "checkpoint", tmp_path / "out", given)
    assert load(output).config.geometry_config.tap_layers == [0, 1, 2, 3]


@torch.no_grad()
def test_checkpoint_without_geometry_becomes_plain_qwen(tmp_path, inputs):
    source = write_checkpoint(tmp_path / "in", shard(1), use_geometry_encoder=False)
    model = load(convert_checkpoint(source, tmp_path / "out", GOLDEN / "vggt_config.json"))
    assert model.config.use_geometry is False
    golden = load_file(GOLDEN / "cases/a_gated.safetensors")
    assert torch.equal(model(**inputs).logits[:, -4:], golden["logits_without_geometry_last4"])


def test_geometry_that_the_checkpoint_holds_but_does_not_use_is_kept(tmp_path, converted):
    source = write_checkpoint(tmp_path / "in", use_geometry_encoder=False)
    output = convert_checkpoint(source, tmp_path / "out")
    assert same_weights(stored(output), stored(converted)) and load(output).config.use_geometry is False


def test_untied_head_is_kept(tmp_path):
    weights = {**reference_weights(), "lm_head.weight": torch.randn(512, 64).bfloat16()}
    text = json.loads((GOLDEN / "checkpoint" / "config.json").read_text())["text_config"]
    changes = {"tie_word_embeddings": False, "text_config": {**text, "tie_word_embeddings": False}}
    model = load(convert_checkpoint(write_checkpoint(tmp_path / "in", weights, **changes), tmp_path / "out"))
    assert torch.equal(model.lm_head.weight, weights["lm_head.weight"].float())
    assert torch.equal(model.model.language_model.embed_tokens.weight, weights[EMBEDDING].float())


def test_vggt_sizes_are_read_off_the_weights():
    weights = load_file(FIXTURES / "vggt" / "tiny_vggt.safetensors")
    config = infer_vggt_config({name: tuple(value.shape) for name, value in weights.items()})
    sizes = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.image_size)
    assert sizes == (48, 4, 3, 112)
    patches = (config.patch_embed_depth, config.patch_embed_num_heads, config.patch_size, config.num_register_tokens)
    assert patches == (3, 3, 14, 4) and config.tap_layers == [0, 1, 2, 3]


def test_published_sizes_are_read_off_the_names_and_shapes_of_vggt_1b():
    with torch.device("meta"):
        encoder = GapMllmVggtModel(GapMllmVggtConfig())
    shapes = {f"aggregator.{name}": tuple(value.shape) for name, value in encoder.state_dict().items()}
    assert len(shapes) == 1210
    assert infer_vggt_config(shapes).to_dict() == GapMllmVggtConfig().to_dict()


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"geometry_encoder_type": "pi3"}, "geometry_encoder_type='pi3'.*Only 'vggt'"),
        ({"reference_frame": "middle"}, "reference_frame='middle'.*first.*last"),
        ({"feature_fusion_method": "mean"}, "method='mean'.*gated"),
        ({"geometry_merger_type": "conv"}, "merger_type='conv'.*avg"),
        ({"geometry_extra": 1, "another": 2}, "another, geometry_extra"),
        ({"intermediate_layer_idx": [0, 1, 2, 9]}, r"tap_layers=\[0, 1, 2, 9\]"),
        ({"intermediate_layer_idx": [0, 3]}, "taps 2 layers"),
        ({"model_type": "qwen2_5_vl"}, "model_type='qwen2_5_vl'"),
        ({"text_config": None}, "has no text_config"),
    ],
)
def test_configuration_that_is_not_supported_is_refused_by_name(tmp_path, changes, message):
    source = write_checkpoint(tmp_path / "in", **changes)
    with pytest.raises(ConversionError, match=message):
        convert_checkpoint(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_plain_qwen_folder_is_refused_with_what_to_do(tmp_path):
    source = write_checkpoint(tmp_path / "in", shard(1), drop=REFERENCE_KEYS)
    with pytest.raises(ConversionError, match="use_geometry_encoder.*--qwen"):
        convert_checkpoint(source, tmp_path / "out")


def test_missing_and_unknown_weights_are_all_listed(tmp_path):
    weights = reference_weights()
    gone = ["geometry_merger.ln_q.weight", "feature_fusion.gate_projection.0.bias", "model.visual.pos_embed.weight"]
    for name in gone:
        del weights[name]
    extra = ["model.language_model.layers.9.mlp.up_proj.weight", "geometry_encoder.pi3.decoder.weight", "stray"]
    weights.update({name: torch.zeros(2) for name in extra})
    with pytest.raises(ConversionError) as error:
        convert_checkpoint(write_checkpoint(tmp_path / "in", weights), tmp_path / "out")
    missing, unknown = str(error.value).split("unknown weights")
    assert all(name in missing for name in gone) and all(name in unknown for name in extra)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
    for name in [name for name in weights if name.startswith("geometry_encoder")]:
        del weights[name]
    source = write_checkpoint(tmp_path / "without", weights)
    with pytest.raises(ConversionError, match=r"aggregator.*and \d+ more"):
        convert_checkpoint(source, tmp_path / "out", GOLDEN / "vggt_config.json")


@pytest.mark.parametrize("name", ["geometry_merger.mlp.0.bias", "geometry_encoder.vggt.aggregator.camera_token"])
def test_copies_that_differ_are_refused(tmp_path, name):
    weights = reference_weights()
    weights[f"model.{name}"] = weights[name] + 1
    with pytest.raises(ConversionError, match=f"copies of one weight that differ: {name} and model.{name}"):
        convert_checkpoint(write_checkpoint(tmp_path / "in", weights), tmp_path / "out")


def test_tied_head_that_differs_is_refused(tmp_path):
    weights = reference_weights()
    weights["lm_head.weight"] = weights[EMBEDDING] + 1
    with pytest.raises(ConversionError, match="lm_head.weight and .*tie_word_embeddings is true"):
        convert_checkpoint(write_checkpoint(tmp_path / "in", weights), tmp_path / "out")


def test_wrong_shape_is_refused_with_both_shapes(tmp_path):
    weights = {**reference_weights(), "feature_fusion.norm1.weight": torch.ones(32)}
    with pytest.raises(ConversionError, match=r"feature_fusion.norm1.weight has shape \[32\], expected \[64\]"):
        convert_checkpoint(write_checkpoint(tmp_path / "in", weights), tmp_path / "out")


def test_incomplete_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        convert_checkpoint(tmp_path / "nowhere", tmp_path / "out")
    source = tmp_path / "in"
    source.mkdir()
    with pytest.raises(FileNotFoundError, match="no config.json"):
        convert_checkpoint(source, tmp_path / "out")
    (source / "config.json").write_text("{")
    with pytest.raises(ConversionError, match="config.json is not JSON"):
        convert_checkpoint(source, tmp_path / "out")
    shutil.copy(GOLDEN / "checkpoint" / "config.json", source)
    with pytest.raises(FileNotFoundError, match="has no weights"):
        convert_checkpoint(source, tmp_path / "out")
    shutil.copy(GOLDEN / "checkpoint" / "model.safetensors.index.json", source)
    with pytest.raises(FileNotFoundError, match="model-00001-of-00004.safetensors.*model-00004-of-00004.safetensors"):
        convert_checkpoint(source, tmp_path / "out")
    (source / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ConversionError, match="must hold a JSON object"):
        convert_checkpoint(source, tmp_path / "out")


def test_index_that_names_absent_weights_is_refused(tmp_path):
    source = write_checkpoint(tmp_path / "in")
    index = {"weight_map": {"ghost": "model.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConversionError, match="lacks weights that its index names: ghost"):
        convert_checkpoint(source, tmp_path / "out")
    (source / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ConversionError, match="has no weight_map"):
        convert_checkpoint(source, tmp_path / "out")


def test_output_that_is_not_empty_is_refused(tmp_path, converted):
    before = sorted(converted.iterdir())
    with pytest.raises(FileExistsError, match="not an empty folder"):
        convert_checkpoint(GOLDEN / "checkpoint", converted)
    assert sorted(converted.iterdir()) == before
    (tmp_path / "empty").mkdir()
    assert (convert_checkpoint(GOLDEN / "checkpoint", tmp_path / "empty") / "config.json").exists()


# Joining base models


@pytest.fixture(scope="module")
def base_folders(tmp_path_factory):
    """A plain Qwen3-VL folder with a tokenizer, and the tiny VGGT with its config in the nested form."""
    folder = tmp_path_factory.mktemp("base")
    drop = {*REFERENCE_KEYS, "dtype"}  # Qwen's own files name it in text_config only
    qwen = write_checkpoint(folder / "qwen", shard(1), drop=drop)
    build_tiny_tokenizer().save_pretrained(qwen)
    (qwen / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4] * 3, "image_std": [0.25] * 3}))
    shutil.copy(GOLDEN / "checkpoint" / "generation_config.json", qwen)
    vggt = folder / "vggt"
    vggt.mkdir()
    shutil.copy(FIXTURES / "vggt" / "tiny_vggt.safetensors", vggt)
    shutil.copy(FIXTURES / "vggt" / "config.json", vggt)
    return qwen, vggt


@pytest.fixture(scope="module")
def joined(base_folders, tmp_path_factory):
    return convert_base_models(*base_folders, tmp_path_factory.mktemp("joined") / "out", {"merger_hidden_size": 96})


@pytest.mark.parametrize(
    "method", slow_but(("spatial_mllm",), ["spatial_mllm", "vlm3r", "geothinker", "bidirectional"])
)
@torch.no_grad()
def test_a_joined_model_has_the_fusion_that_is_asked_for(base_folders, inputs, tmp_path, method):
    model = load(convert_base_models(*base_folders, tmp_path / "out", {"method": method}))
    assert model.config.gap_fusion_config.method == method
    plain = Qwen3VLForConditionalGeneration.from_pretrained(base_folders[0], dtype=torch.float32).eval()
    assert torch.equal(model(**inputs).logits, plain(**inputs).logits)
    model.model.fusion.levels[-1].strength.fill_(1)
    assert not torch.equal(model(**inputs).logits, plain(**inputs).logits)


@torch.no_grad()
def test_joined_model_starts_as_plain_qwen_with_vggts_weights(joined, base_folders, inputs):
    qwen, vggt = base_folders
    model, weights = load(joined), stored(joined)
    plain = Qwen3VLForConditionalGeneration.from_pretrained(qwen, dtype=torch.float32).eval()
    assert torch.equal(model(**inputs).logits, plain(**inputs).logits)
    assert all(level.strength.requires_grad and not level.strength.any() for level in model.model.fusion.levels)
    for name, value in load_file(vggt / "tiny_vggt.safetensors").items():
        if name.startswith("aggregator."):
            ours = weights[f"model.geometry.{name.removeprefix('aggregator.')}"]
            assert ours.dtype == torch.float32 and torch.equal(ours, value)
    assert not any("head" in name for name in weights)
    assert weights["model.fusion.mergers.0.linear_fc1.weight"].dtype == torch.bfloat16  # as Qwen's
    model.model.fusion.levels[3].strength.fill_(1)
    assert (model(**inputs).logits - plain(**inputs).logits).abs().max() > 0.1


def test_joined_folder_has_a_processor_that_agrees_with_the_model(joined):
    config = json.loads((joined / "config.json").read_text())
    processor = GapMllmProcessor.from_pretrained(joined)
    assert config["image_mean"] == [0.4] * 3 == list(processor.image_processor.image_mean)
    assert config["image_std"] == [0.25] * 3 == list(processor.image_processor.image_std)
    assert processor.tokenizer.get_vocab() == build_tiny_tokenizer().get_vocab()
    saved = json.loads((joined / "processor_config.json").read_text())
    assert saved["auto_map"] == {"AutoProcessor": "processing_gap_mllm.GapMllmProcessor"}
    assert config["auto_map"] == AUTO_MAPS["gap_mllm"]
    assert {file.name for file in joined.glob("*.py")} == {file.name for file in remote_code_files()}
    assert (joined / "generation_config.json").exists()
    assert config["dtype"] == "bfloat16"
    assert AutoModelForImageTextToText.from_pretrained(joined).dtype == torch.bfloat16


def test_new_weights_are_the_same_each_time(base_folders, joined, tmp_path):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again = convert_base_models(*base_folders, tmp_path / "out", {"merger_hidden_size": 96})
    assert same_weights(stored(again), stored(joined)) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("form", ["model.pt", "weights.pt", "old.pth", "file", "bare.safetensors", "official.json"])
def test_vggt_is_read_from_every_form(base_folders, joined, tmp_path, form):
    qwen, vggt = base_folders
    weights = load_file(vggt / "tiny_vggt.safetensors")
    folder = tmp_path / "vggt"
    folder.mkdir()
    source = folder
    if form == "bare.safetensors":
        names = [name for name in weights if name.startswith("aggregator.")]
        save_file({name.removeprefix("aggregator."): weights[name] for name in names}, folder / form)
    elif form == "official.json":
        sizes = {"img_size": 112, "patch_size": 14, "embed_dim": 48, "enable_track": True}
        more = {"depth": 4, "num_heads": 3, "patch_embed": {"depth": 3, "num_heads": 3}}
        (folder / "config.json").write_text(json.dumps({**sizes, **more}))
        save_file({**weights, "track_head.x": torch.ones(2)}, folder / "model.safetensors")
    else:
        file = folder / ("model.pt" if form == "file" else form)
        torch.save(weights, file, _use_new_zipfile_serialization=form != "old.pth")
        source = file if form == "file" else folder
    output = convert_base_models(qwen, source, tmp_path / "out", {"merger_hidden_size": 96})
    assert same_weights(stored(output), stored(joined))


def test_vggt_that_does_not_fit_is_refused(base_folders, tmp_path):
    qwen, vggt = base_folders
    weights = load_file(vggt / "tiny_vggt.safetensors")

    def attempt(changed, config=None):
        folder = tmp_path / f"vggt{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        save_file(changed, folder / "model.safetensors")
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ConversionError) as error:
            convert_base_models(qwen, folder, tmp_path / "out")
        return str(error.value)

    changed = {name: value for name, value in weights.items() if name != "aggregator.frame_blocks.1.ls1.gamma"}
    message = attempt({**changed, "aggregator.surplus": torch.ones(1)})
    assert "missing weights: aggregator.frame_blocks.1.ls1.gamma" in message
    assert "unknown weights: aggregator.surplus" in message
    assert "not those of VGGT: camera_token" in attempt({"x": torch.ones(1)})
    assert "['colour']" in attempt(weights, {"img_size": 112, "embed_dim": 48, "colour": 1})
    assert "expected [1, 2, 1, 96]" in attempt(weights, {**json.loads(_nested()), "embed_dim": 96, "num_heads": 6})
    with pytest.raises(ConversionError, match="use_geometry_encoder|reference checkpoint"):
        convert_base_models(GOLDEN / "checkpoint", vggt, tmp_path / "out")


def _nested():
    config = json.loads((GOLDEN / "vggt_config.json").read_text())
    del config["patch_embed"]
    return json.dumps(config)


def test_weight_files_that_are_not_weights_are_refused(base_folders, tmp_path):
    qwen, _ = base_folders
    folder = tmp_path / "vggt"
    folder.mkdir()
    torch.save({"model": object()}, folder / "model.pt")  # would run code without weights_only
    with pytest.raises(ConversionError, match="more than weights"):
        convert_base_models(qwen, folder, tmp_path / "out")
    torch.save([torch.ones(1)], folder / "model.pt")
    with pytest.raises(ConversionError, match="one dictionary"):
        convert_base_models(qwen, folder, tmp_path / "out")
    (folder / "model.pt").rename(folder / "a.pt")
    torch.save({}, folder / "b.pt")
    with pytest.raises(ConversionError, match="several weight files and no index: a.pt, b.pt"):
        convert_base_models(qwen, folder, tmp_path / "out")
    (folder / "model.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(ConversionError, match="not a safetensors file, or is damaged"):
        convert_base_models(qwen, folder, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        convert_base_models(qwen, tmp_path / "nowhere", tmp_path / "out")


def test_tokenizer_that_cannot_be_read_is_refused(tmp_path):
    source = write_checkpoint(tmp_path / "in")
    (source / "tokenizer.json").write_text("{}")
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    with pytest.raises(ConversionError, match="tokenizer in .* cannot be loaded"):
        convert_checkpoint(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]  # nothing half-written


# Command line


def test_command_converts_checkpoints_and_joins_base_models(tmp_path, base_folders, converted, capsys):
    config, source = ["--geometry-config", str(GOLDEN / "vggt_config.json")], str(GOLDEN / "checkpoint")
    for name in ("a", "between", "before"):
        output = str(tmp_path / name)
        orders = {"a": [source, output, *config], "between": [source, *config, output]}
        assert main(["convert", *orders.get(name, [*config, source, output])]) == 0
        assert capsys.readouterr().out == f"wrote {output}\n"
        assert same_weights(stored(tmp_path / name), stored(converted))
    qwen, vggt = base_folders
    assert main(["convert", "--qwen", str(qwen), "--vggt", str(vggt), str(tmp_path / "b")]) == 0
    assert load(tmp_path / "b").config.gap_fusion_config.merger_hidden_size == 4096
    words = ["convert", "--qwen", str(qwen), "--vggt", str(vggt), "--fusion", "vlm3r", str(tmp_path / "c")]
    assert main(words) == 0 and load(tmp_path / "c").config.gap_fusion_config.method == "vlm3r"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out"], "nowhere is not a folder"),
        (["nowhere"], "give SRC OUT"),
        (["--qwen", "a", "out"], "--qwen DIR --vggt DIR OUT"),
        (["--qwen", "a", "--vggt", "b", "out", "more"], "--qwen DIR --vggt DIR OUT"),
        (["a", "b", "--fusion", "vlm3r"], "which alone takes --fusion"),
        (["--qwen", "a", "--vggt", "b", "--geometry-config", "c", "out"], "no --geometry-config"),
    ],
)
def test_command_reports_errors_on_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gap-mllm: error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["a", "b", "--geometry", "c", "--quen", "d"], ["a", "b", "--vgg-t"]])
def test_command_refuses_unknown_flags(arguments, capsys):
    with pytest.raises(SystemExit) as exit_error:
        main(["convert", *arguments])
    assert exit_error.value.code == 2 and "unrecognized arguments: --" in capsys.readouterr().err


def test_command_without_subcommand_says_how(capsys):
    with pytest.raises(SystemExit) as exit_error:
        main([])
    assert exit_error.value.code == 2 and "COMMAND" in capsys.readouterr().err
