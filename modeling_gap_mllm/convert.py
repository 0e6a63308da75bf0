"""Conversion of released weights to GAP-MLLM folders that the Auto classes read, with this package or without.

`convert_checkpoint` takes a checkpoint of the reference release, `convert_base_models` a Qwen3-VL and a VGGT folder.
Both work from the names that our model expects, keep every tensor's dtype, and list what is missing or left over.
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen3VLConfig
from transformers.utils import logging

from .configuration_gap_mllm import GapMllmConfig, GapMllmFusionConfig, GapMllmVggtConfig
from .fusion_gap_mllm import GapMllmFusion
from .hub import add_remote_code
from .modeling_gap_mllm import GapMllmForConditionalGeneration
from .processing.processing_gap_mllm import GapMllmProcessor, check_image_statistics, default_image_processor
from .weight_files import ConversionError, WeightFiles, listed, read_json, write_shards


logger = logging.get_logger(__name__)

GEOMETRY_PREFIX, FUSION_PREFIX = "model.geometry.", "model.fusion."
EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"

# Parts of the full VGGT that no GAP-MLLM model holds: reconstruction heads and tracker.
VGGT_HEADS = ("camera_head.", "depth_head.", "point_head.", "track_head.")

# config.json of the reference -> ours, with the defaults that the release's source uses where a key is missing.
REFERENCE_FUSION_KEYS = {
    "feature_fusion_method": ("method", "add"),
    "fusion_num_layers": ("num_layers", 1),
    "fusion_attention_heads": ("num_attention_heads", 8),
    "fusion_dropout": ("dropout", 0.1),
    "geometry_merger_type": ("merger_type", "mlp"),
    "geometry_merger_hidden_dim": ("merger_hidden_size", 4096),
}
REFERENCE_TAP_KEY, REFERENCE_TAP_LAYERS = "intermediate_layer_idx", (4, 11, 17, 23)
REFERENCE_KEYS = {
    "use_geometry_encoder",
    "geometry_encoder_type",
    "reference_frame",
    REFERENCE_TAP_KEY,
    *REFERENCE_FUSION_KEYS,
}

# Keys of a Qwen3-VL config.json that say how the file came about or how a run went, which transformers drops too; and
# those that it carries without being fields.
_DROPPED_KEYS = {
    "model_type",
    "architectures",
    "transformers_version",
    "auto_map",
    "torch_dtype",
    "use_cache",
    "attn_implementation",
    "_name_or_path",
    "_attn_implementation_autoset",
}
_CARRIED_KEYS = {"bos_token_id", "eos_token_id", "pad_token_id"}

# Names of the reference's mergers and fusion modules -> ours.
_MERGER_NAMES = {"norm": "ln_q", "linear_fc1": "mlp.0", "linear_fc2": "mlp.2"}
_FUSION_NAMES = {
    "visual_norm": "norm1",
    "geometry_norm": "norm2",
    "gate": "gate_projection.0",
    "projection": "projection",
    "visual_weight": "weight_2d",
    "geometry_weight": "weight_3d",
}
_BLOCK_NAMES = {
    "query_norm": "norm1_query",
    "key_norm": "norm1_key",
    "value_norm": "norm1_value",
    "mlp_norm": "norm2",
    "output": "cross_attention.out_proj",
    "linear_fc1": "mlp.0",
    "linear_fc2": "mlp.3",
}
_BLOCK_PROJECTIONS = ("query", "key", "value")  # in the order of the rows of in_proj

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")


def convert_checkpoint(
    source: str | Path, output: str | Path, geometry_config: dict | str | Path | None = None
) -> Path:
    """Convert a checkpoint folder of the reference release.

    The fusion gets `strength` 1, frozen, so that the converted model computes what the checkpoint computes.

    Args:
        source (`str` or `Path`): folder with config.json and weights. The names of mergers, fusion and encoder may
            stand at top level, under `model.`, or both, if equal; a copy of a tied `lm_head.weight` must be equal.
        output (`str` or `Path`): folder to write; must not exist, or be empty.
        geometry_config (`dict`, `str` or `Path`, *optional*): sizes of the VGGT, or a JSON file of them, in VGGT's
            own form or ours. By default they are read off the shapes of the weights.
    Returns:
        `Path`: the output folder.
    Raises:
        ConversionError: on config keys or values that are not supported, and on missing, unknown, misshapen or
            contradicting weights; all are listed.
        FileNotFoundError: if the folder, its config.json or weights are not there.
        FileExistsError: if the output folder is not empty.
    """
    source, output = Path(source), _check_output(output)
    qwen = _read_qwen_config(source)
    weights = WeightFiles(source)
    config = _reference_config(qwen, weights.shapes, geometry_config, source)
    expected = _expected_shapes(config)
    if not config.use_geometry and not any(_is_geometry(name) for name in weights.shapes):
        expected = {name: shape for name, shape in expected.items() if not _is_ours(name)}
    strengths = {name: expected.pop(name) for name in list(expected) if name.endswith(".strength")}
    last_level = config.gap_fusion_config.num_levels - 1
    entries = _match(weights, expected, lambda target: _reference_names(target, last_level), config)
    dtype = _set_dtype(config, weights)

    def tensors():
        yield from _read(weights, entries)
        yield from ((name, torch.ones(shape, dtype=dtype)) for name, shape in strengths.items())

    return _write(tensors(), config, source, output)


def convert_base_models(
    qwen: str | Path, vggt: str | Path, output: str | Path, fusion_config: dict | None = None
) -> Path:
    """Join a Qwen3-VL and a VGGT folder to a GAP-MLLM that starts as plain Qwen3-VL.

    Mergers and fusion are new (seed 0), with `init="identity"` unless `fusion_config` says otherwise. VGGT's heads and
    tracker are left out. A VGGT folder without config.json has its sizes read off the shapes of the weights.

    Args:
        qwen (`str` or `Path`): folder of Qwen3-VL, with config.json.
        vggt (`str` or `Path`): folder or file of VGGT's weights, safetensors or .pt.
        output (`str` or `Path`): folder to write; must not exist, or be empty.
        fusion_config (`dict`, *optional*): fields of `GapMllmFusionConfig` that differ from the defaults.
    Returns:
        `Path`: the output folder.
    Raises:
        ConversionError: as `convert_checkpoint`.
        FileNotFoundError: if a folder, the config.json of Qwen3-VL or weights are not there.
        FileExistsError: if the output folder is not empty.
    """
    qwen, vggt, output = Path(qwen), Path(vggt), _check_output(output)
    data = _read_qwen_config(qwen)
    if REFERENCE_KEYS & set(data):
        raise ConversionError(f"{qwen} is a GAP-MLLM reference checkpoint, not plain Qwen3-VL. Convert it by itself.")
    qwen_weights, vggt_weights = WeightFiles(qwen), WeightFiles(vggt)
    config = _build_config(data, _vggt_config(vggt, vggt_weights.shapes), fusion_config or {}, qwen)
    expected = _expected_shapes(config)
    plain = {name: shape for name, shape in expected.items() if not _is_ours(name)}
    geometry = {name: shape for name, shape in expected.items() if name.startswith(GEOMETRY_PREFIX)}
    qwen_entries = _match(qwen_weights, plain, lambda target: ((target,), None), config)
    vggt_entries = _match(vggt_weights, geometry, _vggt_names, config)
    fusion = _new_fusion(config.gap_fusion_config, _set_dtype(config, qwen_weights))

    def tensors():
        yield from _read(qwen_weights, qwen_entries)
        yield from _read(vggt_weights, vggt_entries)
        yield from ((FUSION_PREFIX + name, tensor) for name, tensor in fusion.state_dict().items())

    return _write(tensors(), config, qwen, output)


def infer_vggt_config(shapes: dict[str, tuple[int, ...]]) -> GapMllmVggtConfig:
    """Read the sizes of a VGGT off the shapes of its weights, named as in the official checkpoint or without prefix.

    Not in the shapes, hence assumed: rope_theta 100, and heads of the patch embedding as wide as the aggregator's.

    Raises:
        ConversionError: if the names are not VGGT's.
    """
    shapes = {name.removeprefix("aggregator."): shape for name, shape in shapes.items()}
    try:
        hidden_size = shapes["camera_token"][-1]
        head_size = shapes["frame_blocks.0.attn.q_norm.weight"][0]
        grid = round((shapes["patch_embed.pos_embed"][1] - 1) ** 0.5)
        patch_size = shapes["patch_embed.patch_embed.proj.weight"][-1]
        return GapMllmVggtConfig(
            hidden_size=hidden_size,
            num_hidden_layers=_count_blocks(shapes, "frame_blocks"),
            num_attention_heads=hidden_size // head_size,
            mlp_ratio=shapes["frame_blocks.0.mlp.fc1.weight"][0] / hidden_size,
            image_size=grid * patch_size,
            patch_size=patch_size,
            num_register_tokens=shapes["register_token"][2],
            patch_embed_depth=_count_blocks(shapes, "patch_embed.blocks"),
            patch_embed_num_heads=hidden_size // head_size,
            patch_embed_mlp_ratio=shapes["patch_embed.blocks.0.mlp.fc1.weight"][0] / hidden_size,
            patch_embed_num_register_tokens=shapes["patch_embed.register_tokens"][1],
        )
    except KeyError as error:
        raise ConversionError(
            f"The weights are not those of VGGT: {error.args[0]} is missing, so its sizes cannot be read."
        ) from None


def _count_blocks(shapes, prefix):
    return 1 + max(int(name[len(prefix) + 1 :].split(".")[0]) for name in shapes if name.startswith(prefix + "."))


def _reference_config(qwen, shapes, geometry_config, source):
    """Translate a reference config.json; every key is carried over, or refused by name."""
    if "use_geometry_encoder" not in qwen:
        raise ConversionError(
            f"{source / 'config.json'} has no use_geometry_encoder, so it is no GAP-MLLM checkpoint. To start from "
            "Qwen3-VL, give its folder and VGGT's: gap-mllm convert --qwen DIR --vggt DIR OUT."
        )
    encoder = qwen.get("geometry_encoder_type", "vggt")
    if encoder != "vggt":
        raise ConversionError(f"geometry_encoder_type={encoder!r} is not supported. Only 'vggt' is built here.")
    taps = list(qwen.get(REFERENCE_TAP_KEY, REFERENCE_TAP_LAYERS))
    fusion = {ours: qwen.get(key, default) for key, (ours, default) in REFERENCE_FUSION_KEYS.items()}
    names = {name.removeprefix("model.") for name in shapes}
    layer_norm = "geometry_merger.ln_q.bias" in names  # only the LayerNorm of the release's fallback has a bias
    fusion.update(init="reference", merger_norm="layer_norm" if layer_norm else "rms_norm")
    prefix = "geometry_encoder.vggt."
    encoder_shapes = {
        name.removeprefix("model.").removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.removeprefix("model.").startswith(prefix)
    }
    if geometry_config is not None or encoder_shapes:
        geometry = _vggt_config(source, encoder_shapes, geometry_config, {"tap_layers": taps})
    else:
        geometry = GapMllmVggtConfig(tap_layers=taps)
    top = {"reference_frame": qwen.get("reference_frame", "first"), "use_geometry": bool(qwen["use_geometry_encoder"])}
    data = {key: value for key, value in qwen.items() if key not in REFERENCE_KEYS}
    return _build_config(data, geometry, fusion, source, **top)


def _vggt_config(folder, shapes, given=None, changes=None):
    """Return the encoder's config from what is given, else the folder's config.json, else the shapes."""
    if given is None and changes is None and (folder / "config.json").exists():
        given = folder / "config.json"
    if given is None:
        data = infer_vggt_config(shapes).to_dict()
    else:
        data = dict(given) if isinstance(given, dict) else read_json(given)
    try:
        for change in ({}, changes or {}):  # one after the other: VGGT's own form may name tap layers too
            data = {key: value for key, value in data.items() if key not in _DROPPED_KEYS | {"dtype"}}
            data = GapMllmVggtConfig(**{**data, **change}).to_dict()
    except (ValueError, TypeError) as error:
        raise ConversionError(f"The VGGT configuration cannot be used: {error}") from error
    return GapMllmVggtConfig.from_dict(data)


def _build_config(data, geometry, fusion, source, **top):
    known = set(Qwen3VLConfig.__dataclass_fields__) | _DROPPED_KEYS | _CARRIED_KEYS
    unknown = sorted(set(data) - known)
    if unknown:
        raise ConversionError(
            f"{source / 'config.json'} has keys that no GAP-MLLM or Qwen3-VL model reads: {', '.join(unknown)}. "
            "Remove those that do not change what the model computes."
        )
    carried = {key: value for key, value in data.items() if key not in _DROPPED_KEYS}
    carried.setdefault("dtype", data.get("torch_dtype"))
    carried.setdefault("tie_word_embeddings", data.get("text_config", {}).get("tie_word_embeddings", False))
    carried["text_config"] = {**data["text_config"], "tie_word_embeddings": carried["tie_word_embeddings"]}
    carried.update(_image_statistics(source))
    try:
        return GapMllmConfig(
            **carried,
            **top,
            geometry_config=geometry,
            gap_fusion_config=fusion,
            architectures=[GapMllmForConditionalGeneration.__name__],
        )
    except (ValueError, TypeError) as error:
        raise ConversionError(f"{source / 'config.json'} cannot be used: {error}") from error


def _image_statistics(source):
    """Take mean and std from the image processor's file, if there is one, so that model and processor agree."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (source / name).exists():
            data = read_json(source / name)
            data = data.get("image_processor", data)
            if "image_mean" in data:
                return {"image_mean": data["image_mean"], "image_std": data["image_std"]}
    return {}


def _read_qwen_config(folder):
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder. Download the checkpoint there first.")
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} has no config.json. Give the folder that holds the checkpoint.")
    data = read_json(folder / "config.json")
    if data.get("model_type") != "qwen3_vl":
        raise ConversionError(
            f"{folder / 'config.json'} has model_type={data.get('model_type')!r}, expected 'qwen3_vl': only the dense "
            "Qwen3-VL models can be converted."
        )
    for key in ("text_config", "vision_config"):
        if not isinstance(data.get(key), dict):
            raise ConversionError(f"{folder / 'config.json'} has no {key}.")
    return data


def _check_output(output):
    output = Path(output).absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} already exists and is not an empty folder. Name a new one.")
    return output


def _expected_shapes(config):
    """Names and shapes of all weights that the model reads; nothing is allocated."""
    with torch.device("meta"):
        model = GapMllmForConditionalGeneration(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop(HEAD, None)
    return shapes


def _is_ours(name):
    return name.startswith((GEOMETRY_PREFIX, FUSION_PREFIX))


def _is_geometry(name):
    return name.removeprefix("model.").startswith(("geometry_", "feature_fusion.", "deepstack_feature_fusion_list."))


def _reference_names(target, last_level):
    """Names under which the reference stores a weight of ours, and which third of its rows it is (None: all)."""
    if target.startswith(GEOMETRY_PREFIX):
        name, part = "geometry_encoder.vggt.aggregator." + target.removeprefix(GEOMETRY_PREFIX), None
    elif target.startswith(FUSION_PREFIX):
        name, part = reference_fusion_name(target.removeprefix(FUSION_PREFIX), last_level)
    else:
        return (target,), None
    return (name, "model." + name), part


def reference_fusion_name(target, last_level):
    """Name in the reference of a weight of `GapMllmFusion`, and which third of its rows it is (None: all).

    The last level is the final visual tokens', which the reference keeps apart from the DeepStack levels'.
    """
    kind, level, name = target.split(".", 2)
    final = int(level) == last_level
    if kind == "mergers":
        module, _, leaf = name.rpartition(".")
        prefix = "geometry_merger" if final else f"geometry_deepstack_merger_list.{level}"
        return f"{prefix}.{_MERGER_NAMES[module]}.{leaf}", None
    prefix = "feature_fusion" if final else f"deepstack_feature_fusion_list.{level}"
    parts = name.removeprefix("fuse.").split(".")
    if parts[0] != "blocks":
        return ".".join([prefix, _FUSION_NAMES[parts[0]], *parts[1:]]), None
    _, block, module, leaf = parts
    prefix = f"{prefix}.cross_attn_blocks.{block}"
    if module in _BLOCK_PROJECTIONS:
        return f"{prefix}.cross_attention.in_proj_{leaf}", _BLOCK_PROJECTIONS.index(module)
    return f"{prefix}.{_BLOCK_NAMES[module]}.{leaf}", None


def _vggt_names(target):
    name = target.removeprefix(GEOMETRY_PREFIX)
    return ("aggregator." + name, name), None


def _match(weights: WeightFiles, expected: dict, names_of: Callable, config: GapMllmConfig) -> dict:
    """Find the stored name of every expected weight; raise with all that is missing, unknown or does not fit."""
    entries, missing, problems, used, unequal = {}, [], [], set(), []
    for target, shape in expected.items():
        names, part = names_of(target)
        found = [name for name in names if name in weights.shapes]
        if not found:
            missing.append(names[0])
            continue
        used.update(found)
        entries[target] = (found[0], part)
        stored_shape = (3 * shape[0], *shape[1:]) if part is not None else shape
        for name in found:
            if weights.shapes[name] != stored_shape:
                problems.append(f"{name} has shape {list(weights.shapes[name])}, expected {list(stored_shape)}")
        if len(found) == 2 and not part and not _equal(weights, *found):  # thirds 1 and 2 share the test of third 0
            unequal.append(" and ".join(found))
    if config.tie_word_embeddings and HEAD in weights.shapes and EMBEDDING in expected:
        used.add(HEAD)
        if EMBEDDING in weights.shapes and not _equal(weights, HEAD, EMBEDDING):
            unequal.append(f"{HEAD} and {EMBEDDING} (tie_word_embeddings is true)")
    surplus = sorted(name for name in set(weights.shapes) - used if not _is_left_out(name))
    if missing:
        problems.append(f"missing weights: {listed(sorted(set(missing)))}")
    if surplus:
        problems.append(f"unknown weights: {listed(surplus)}")
    if unequal:
        problems.append(f"copies of one weight that differ: {listed(unequal)}")
    if problems:
        raise ConversionError(f"The weights of {weights.path} do not fit its configuration; {'; '.join(problems)}.")
    return entries


def _is_left_out(name):
    name = name.removeprefix("model.").removeprefix("geometry_encoder.vggt.")
    return name.startswith(VGGT_HEADS)


def _equal(weights, first, second):
    first, second = weights[first], weights[second]
    return first.dtype == second.dtype and torch.equal(first, second)


def _read(weights, entries):
    for target, (name, part) in entries.items():
        tensor = weights[name]
        # A copy of the third: safetensors refuses to save tensors that share memory.
        yield target, tensor.contiguous() if part is None else tensor.chunk(3)[part].clone()


def _set_dtype(config, weights):
    """Return the dtype of the language model, and name it in the config where the source does not.

    A float32 encoder beside a half-precision language model would else decide what `from_pretrained` loads.
    """
    dtype = weights[EMBEDDING].dtype
    if config.dtype is None:
        config.dtype = str(dtype).removeprefix("torch.")
    return dtype


def _new_fusion(config: GapMllmFusionConfig, dtype) -> GapMllmFusion:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GapMllmFusion(config).to(dtype)


def _write(tensors: Iterable, config: GapMllmConfig, source: Path, output: Path) -> Path:
    """Write weights, config, tokenizer, processor and code beside the output, then move all into place at once."""
    partial = output.with_name(output.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        write_shards(tensors, partial)
        config.save_pretrained(partial)
        if (source / "generation_config.json").exists():
            shutil.copyfile(source / "generation_config.json", partial / "generation_config.json")
        if any((source / name).exists() for name in _TOKENIZER_FILES):
            _write_processor(source, partial, config)
        add_remote_code(partial)
    except BaseException:
        shutil.rmtree(partial)
        raise
    if output.exists():
        output.rmdir()
    partial.rename(output)
    logger.info(f"Wrote {output}.")
    return output


def _write_processor(source, folder, config):
    """Save a `GapMllmProcessor` with the source's tokenizer.

    `Differs:` pixel bounds and chat template are the processor's own defaults, since the release's scripts set theirs
    by hand and Qwen's allow views far larger than geometry was trained on.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise ConversionError(f"The tokenizer in {source} cannot be loaded: {error}") from error
    statistics = {"image_mean": list(config.image_mean), "image_std": list(config.image_std)}
    processor = GapMllmProcessor(
        image_processor=default_image_processor(**statistics), tokenizer=tokenizer, video_processor=statistics
    )
    check_image_statistics(processor, config)
    processor.save_pretrained(folder)


__all__ = ["ConversionError", "convert_base_models", "convert_checkpoint", "infer_vggt_config"]
