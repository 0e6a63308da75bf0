"""Weights that stand apart, are missing, or belong to parts that are not built: all ways to load agree."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from accelerate import infer_auto_device_map
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, TorchAoConfig
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers.quantizers_utils import should_convert_module
from transformers.utils.quantization_config import QuantizationConfigMixin

import gap_mllm.modeling_gap_mllm
from gap_mllm import GapMllmForConditionalGeneration, GapMllmForPreTraining, GapMllmModel, GapMllmVggtForReconstruction
from gap_mllm.hub import save_for_hub
from gap_mllm.publishing_gap_mllm import QUANTIZATION_SKIP_MODULES


PARTS = ("model.visual", "model.language_model", "model.geometry", "model.fusion", "lm_head")


@pytest.fixture(scope="module")
def inputs(make_inputs):
    return make_inputs([(64, 96), (64, 64)])


@pytest.fixture(scope="module")
def encoder_folder(small_folder):
    return Path(json.loads((small_folder / "config.json").read_text())["geometry_weights"])


def load(folder, **options):
    return AutoModelForImageTextToText.from_pretrained(folder, **options)


def bytes_of(model):
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


# The encoder's weights stand apart


def test_encoder_weights_left_out_are_read_from_where_the_config_says(small_folder, model, tmp_path):
    assert not any(name.startswith("model.geometry.") for name in load_file(small_folder / "model.safetensors"))
    assert "geometry_weights" in (small_folder / "README.md").read_text()
    loaded, info = load(small_folder, output_loading_info=True)
    assert not info["missing_keys"] and loaded.config.geometry_weights is None
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    loaded.save_pretrained(tmp_path)  # whole again
    assert any(name.startswith("model.geometry.") for name in load_file(tmp_path / "model.safetensors"))
    half = load(small_folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.model.geometry.parameters()} == {torch.bfloat16}
    assert torch.equal(half.model.geometry.camera_token, expected["model.geometry.camera_token"].bfloat16())


def test_encoder_weights_that_cannot_be_read_are_reported_with_what_to_do(small_folder, encoder_folder, tmp_path):
    with pytest.raises(OSError, match="not part of this checkpoint.*geometry_weights=FOLDER.*use_geometry=False"):
        load(small_folder, geometry_weights=str(tmp_path / "nowhere"))
    weights = load_file(encoder_folder / "model.safetensors")
    del weights["camera_token"]
    (tmp_path / "partial").mkdir()
    save_file(weights, tmp_path / "partial" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"partial lacks 1 weights of GapMllmVggtModel, .*random: camera_token\."):
        load(small_folder, geometry_weights=str(tmp_path / "partial"))


def test_encoder_weights_apart_are_refused_where_models_are_split_before_they_are_read(small_folder, monkeypatch):
    monkeypatch.setattr(gap_mllm.modeling_gap_mllm, "is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(ValueError, match="ZeRO-3 they cannot join. Load the model once without it"):
        load(small_folder)


def device_maps(size):
    """By name: what `from_pretrained` is given, for a model of `size` bytes."""
    on_cpu = dict.fromkeys(PARTS, "cpu")
    return {
        "auto": {"device_map": "auto"},
        "name": {"device_map": "cpu"},
        "dict": {"device_map": on_cpu},
        "encoder on disk": {"device_map": on_cpu | {"model.geometry": "disk"}},
        "all on disk": {"device_map": {"": "disk"}},
        "some in memory": {"device_map": "auto", "max_memory": {"cpu": size * 2 // 3}},
        "most in memory": {"device_map": "auto", "max_memory": {"cpu": size * 4 // 5}},
    }


@pytest.mark.parametrize("name", device_maps(0))
@torch.no_grad()
def test_device_maps_and_offloading_give_the_same_model(name, small_folder, model, inputs, tmp_path):
    options = device_maps(bytes_of(model))[name]
    loaded = load(small_folder, offload_folder=tmp_path / "offloaded", **options)
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    places = {place for part, place in getattr(loaded, "hf_device_map", {}).items() if "model.geometry" in part}
    assert "memory" not in name or places == {"disk"}  # the parts come in the order of PARTS, the encoder whole


@torch.no_grad()
def test_checkpoints_in_several_files_are_joined_too(small_folder, model, inputs, tmp_path):
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("model.geometry.")}
    model.save_pretrained(tmp_path, state_dict=weights, max_shard_size="50KB")
    (tmp_path / "config.json").write_text((small_folder / "config.json").read_text())
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    for options in ({}, {"device_map": {"": "disk"}, "offload_folder": tmp_path / "offloaded"}):
        assert torch.equal(load(tmp_path, **options)(**inputs).logits, model(**inputs).logits)


@torch.no_grad()
def test_every_class_joins_the_encoder(small_folder, model):
    for model_class in (GapMllmModel, GapMllmForPreTraining):
        geometry = model_class.from_pretrained(small_folder).base_model.geometry
        expected = model.model.geometry.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in geometry.state_dict().items())


def test_the_encoder_is_never_split_over_devices(tiny_model):
    model = tiny_model(geometry_config={"num_hidden_layers": 16, "tap_layers": [3, 7, 11, 15]})
    for whole, part in (
        (model, "model.geometry"),
        (GapMllmVggtForReconstruction(model.config.geometry_config), "aggregator"),
    ):

        def numbers_of_places(classes, whole=whole, part=part):
            """Of the whole and of the encoder, for several sizes of the first device."""
            for tenths in range(4, 10):
                limits = {"cpu": bytes_of(whole) * tenths // 10, "disk": bytes_of(whole)}
                placed = infer_auto_device_map(whole, limits, no_split_module_classes=list(classes))
                yield len(set(placed.values())), len({placed[name] for name in placed if name.startswith(part)})

        assert (2, 1) in numbers_of_places(whole._no_split_modules)
        assert not any(places == 2 for _, places in numbers_of_places(whole._no_split_modules))
        assert (2, 2) in numbers_of_places(["GapMllmVggtBlock"])  # else it would be


# Quantisation


@register_quantization_config("rounding")
class RoundingConfig(QuantizationConfigMixin):
    def __init__(self, modules_to_not_convert=None, **kwargs):
        self.quant_method, self.modules_to_not_convert = "rounding", modules_to_not_convert


class Round(ConversionOps):
    def convert(self, input_dict, **kwargs):
        ((name, (value,)),) = input_dict.items()
        step = value.abs().amax() / 127
        return {name: (value / step).round() * step}


@register_quantizer("rounding")
class RoundingQuantizer(HfQuantizer):
    """Weights of linear layers are rounded to 8 bits while they are loaded, as real quantisers replace them."""

    requires_calibration = False

    def _process_model_before_weight_loading(self, model, **kwargs):
        self.skipped = self.get_modules_to_not_convert(model, self.quantization_config.modules_to_not_convert)

    def param_needs_quantization(self, model, param_name, **kwargs):
        module, is_weight = param_name.removesuffix(".weight"), param_name.endswith(".weight")
        is_linear = is_weight and isinstance(model.get_submodule(module), nn.Linear)
        return is_linear and should_convert_module(module, self.skipped)

    def get_quantize_ops(self):
        return Round()

    is_trainable = property(lambda self: False)

    def is_serializable(self, **kwargs):
        return True


def rounded_parts(loaded, model):
    before = model.state_dict()
    changed = (name for name, value in loaded.state_dict().items() if not torch.equal(value, before[name]))
    return {part for name in changed for part in PARTS if name.startswith(part)}


@pytest.mark.parametrize("skipped", [None, ["lm_head"], ["model.visual", "model.geometry"]])
def test_quantisation_sees_the_encoder_as_if_it_were_in_the_folder(skipped, small_folder, model, tmp_path):
    """And by default leaves encoder, fusion and heads as they are."""
    model.save_pretrained(tmp_path)
    config = RoundingConfig(skipped)
    loaded, whole = (load(folder, quantization_config=config) for folder in (small_folder, tmp_path))
    assert config.modules_to_not_convert == skipped  # the user's own is left as it is
    told = {"quant_method": "rounding", "modules_to_not_convert": skipped}
    as_dict = load(tmp_path, quantization_config=told).state_dict()
    assert all(torch.equal(value, as_dict[name]) for name, value in loaded.state_dict().items())
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    left = set(QUANTIZATION_SKIP_MODULES if skipped is None else skipped)
    assert rounded_parts(loaded, model) == set(PARTS) - left - {"lm_head"}  # tied to the embedding, which is none


def real_config(name):
    if name == "torchao":
        quantization = pytest.importorskip("torchao.quantization")
        return TorchAoConfig(quantization.Int8WeightOnlyConfig())
    pytest.importorskip("bitsandbytes")
    return BitsAndBytesConfig(**{name: True})


@pytest.fixture(scope="module")
def sized_model(tiny_model):
    """Of sizes that blocks of 64 weights fill."""
    text = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 32}
    text["rope_parameters"] = {"mrope_section": [8, 4, 4]}
    vision = {"hidden_size": 64, "intermediate_size": 64, "out_hidden_size": 64}
    return tiny_model(text_config=text, vision_config=vision)


@pytest.mark.parametrize("name", ["load_in_4bit", "load_in_8bit", "torchao"])
@torch.no_grad()
def test_real_quantisers_do_the_same(name, sized_model, tiny_processor, inputs, tmp_path):
    config, model = real_config(name), sized_model
    geometry = {"include_geometry_weights": False, "geometry_weights": str(tmp_path / "encoder")}
    model.model.geometry.save_pretrained(tmp_path / "encoder")
    save_for_hub(model, tiny_processor, tmp_path / "small", **geometry)
    model.save_pretrained(tmp_path / "whole")
    loaded, whole = (load(tmp_path / folder, quantization_config=config) for folder in ("small", "whole"))
    save_for_hub(
        loaded, tiny_processor, tmp_path / "again", **geometry
    )  # first: bitsandbytes repacks what it has used
    logits = loaded(**inputs).logits
    assert torch.equal(logits, whole(**inputs).logits)
    before = model(**inputs).logits  # answers of unlike models are 1.1 standard deviations apart, those of 4 bits 0.4
    assert 0 < (logits - before).abs().mean() < 0.6 * before.std()
    kinds = Counter((name.split(".")[1], type(part), type(part.weight)) for name, part in linear_layers(loaded))
    assert {kind[1:] for kind in kinds if kind[0] in ("geometry", "fusion")} == {(nn.Linear, nn.Parameter)}
    assert {kind[1:] for kind in kinds if kind[0] in ("visual", "language_model")} != {(nn.Linear, nn.Parameter)}
    assert torch.equal(load(tmp_path / "again")(**inputs).logits, logits)  # quantised, encoder apart


def linear_layers(model):
    return [(name, part) for name, part in model.model.named_modules(prefix="model") if isinstance(part, nn.Linear)]


def test_a_quantised_encoder_is_not_left_out(small_folder, tiny_processor, tmp_path):
    loaded = load(small_folder, quantization_config=RoundingConfig(["lm_head"]))
    with pytest.raises(ValueError, match="encoder is quantised.*include_geometry_weights=True.*'model.geometry'"):
        save_for_hub(loaded, tiny_processor, tmp_path, include_geometry_weights=False)


# Without geometry


@torch.no_grad()
def test_plain_qwen_builds_no_encoder_and_reads_none(small_folder, model, inputs, tmp_path):
    loaded, info = load(
        small_folder, use_geometry=False, geometry_weights=str(tmp_path / "nowhere"), output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.model.geometry is None and loaded.model.fusion is None
    with model.geometry_disabled():
        expected = model(**inputs).logits
    assert torch.equal(loaded(**inputs).logits, expected)
    assert torch.equal(loaded.train()(**inputs).logits, expected)
    with loaded.geometry_disabled():
        assert torch.equal(loaded(**inputs).logits, expected)


@torch.no_grad()
def test_plain_qwen_of_a_whole_folder_is_saved_whole(model, inputs, tmp_path):
    model.save_pretrained(tmp_path / "whole")
    loaded, info = load(tmp_path / "whole", use_geometry=False, output_loading_info=True)
    assert not info["unexpected_keys"]  # there, and left aside
    loaded.save_pretrained(tmp_path / "plain")
    assert not any("geometry" in name or "fusion" in name for name in load_file(tmp_path / "plain/model.safetensors"))
    again = load(tmp_path / "plain")
    assert not again.config.use_geometry and torch.equal(again(**inputs).logits, loaded(**inputs).logits)
    with pytest.raises(ValueError, match=r"plain lacks \d+ weights .*model.fusion.*use_geometry=False for plain Qwen"):
        load(tmp_path / "plain", use_geometry=True)
    assert torch.equal(load(tmp_path / "whole", use_geometry=True)(**inputs).logits, model(**inputs).logits)


def test_geometry_that_was_not_built_cannot_be_switched_on(tiny_model, inputs):
    model = tiny_model(use_geometry=False)
    vision = {name: inputs[name] for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}
    with pytest.raises(ValueError, match="holds no geometry encoder. Load it again with use_geometry=True"):
        model.model.get_geometry_features(**vision)
    model.config.use_geometry = True
    with pytest.raises(ValueError, match="holds no geometry encoder"):
        model(**inputs)


# Missing weights


@pytest.mark.parametrize(
    "lost", ["model.fusion.levels.0.strength", "model.visual.", "model.language_model.norm.weight"]
)
def test_missing_weights_are_refused_by_name_unless_they_may_be_random(lost, model, tmp_path):
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith(lost)}
    count = len(model.state_dict()) - len(weights)
    model.save_pretrained(tmp_path, state_dict=weights)
    for model_class in (GapMllmForConditionalGeneration, GapMllmModel, GapMllmForPreTraining):
        prefix = "model." if model_class is not GapMllmModel else ""
        name = prefix + lost.removeprefix("model.").rstrip(".")
        with pytest.raises(ValueError, match=f"lacks {count} weights of {model_class.__name__}, .*random: {name}"):
            model_class.from_pretrained(tmp_path)
        model_class.from_pretrained(tmp_path, ignore_mismatched_sizes=True)


def test_missing_weights_of_parts_are_refused_by_name(tiny_model, tmp_path):
    model = tiny_model()
    for part, lost in ((model.model.geometry, "camera_token"), (model.model.fusion, "levels.0.strength")):
        weights = {name: value for name, value in part.state_dict().items() if name != lost}
        part.save_pretrained(tmp_path, state_dict=weights)
        with pytest.raises(
            ValueError, match=f"lacks 1 weights of .*would be random: {lost}. Load a folder .* start at random.$"
        ):
            type(part).from_pretrained(tmp_path)


def test_heads_of_training_may_start_afresh(tiny_model, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "inference")
    GapMllmForPreTraining.from_pretrained(tmp_path / "inference")
    model.model.geometry.save_pretrained(tmp_path / "encoder")
    GapMllmVggtForReconstruction.from_pretrained(tmp_path / "encoder")
