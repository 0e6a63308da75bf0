"""Configs of released folders as ours: every key is carried over, or refused by name."""

from pathlib import Path

from transformers import Qwen3VLConfig

from ..configuration_gap_mllm import FUSION_FIELDS_OF, GapMllmConfig, GapMllmVggtConfig
from ..modeling_gap_mllm import GapMllmForConditionalGeneration
from .weight_files import ConversionError, read_json


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


def reference_config(
    qwen: dict, shapes: dict[str, tuple[int, ...]], geometry_config: dict | str | Path | None, source: Path
) -> GapMllmConfig:
    """Translate a reference config.json; raises ConversionError for a key that is neither carried over nor known.

    Args:
        qwen (`dict`): its content.
        shapes (`dict[str, tuple[int, ...]]`): shapes of the weights by their names.
        geometry_config (`dict`, `str` or `Path`, *optional*): sizes of the VGGT, see `convert_checkpoint`.
        source (`Path`): the checkpoint's folder.
    """
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
    for (choice, values), unread in FUSION_FIELDS_OF.items():
        if fusion.get(choice) not in values:  # nor does the release read them
            fusion = {name: given for name, given in fusion.items() if name not in unread}
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
        geometry = vggt_config(source, encoder_shapes, geometry_config, {"tap_layers": taps})
    else:
        geometry = GapMllmVggtConfig(tap_layers=taps)
    top = {"reference_frame": qwen.get("reference_frame", "first"), "use_geometry": bool(qwen["use_geometry_encoder"])}
    data = {key: value for key, value in qwen.items() if key not in REFERENCE_KEYS}
    return build_config(data, geometry, fusion, source, **top)


def vggt_config(
    folder: Path,
    shapes: dict[str, tuple[int, ...]],
    given: dict | str | Path | None = None,
    changes: dict | None = None,
) -> GapMllmVggtConfig:
    """Return the encoder's config from what is given, else the folder's config.json, else the shapes.

    Raises:
        ConversionError: if it is not one of a VGGT.
    """
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


def infer_vggt_config(shapes: dict[str, tuple[int, ...]]) -> GapMllmVggtConfig:
    """Read the sizes of a VGGT off the shapes of its weights, named as in the official checkpoint or without prefix.

    Not in the shapes, hence assumed: rope_theta 100, and heads of the patch embedding as wide as the aggregator's.

    Raises:
        ConversionError: if the names are not VGGT's.

    Example:
        ```python
        >>> from safetensors import safe_open
        >>> from gap_mllm.conversion import infer_vggt_config
        >>> with safe_open(encoder_folder / "model.safetensors", "pt") as weights:
        ...     shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}
        >>> infer_vggt_config(shapes).hidden_size
        112

        ```
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


def build_config(data: dict, geometry: GapMllmVggtConfig, fusion: dict, source: Path, **top: object) -> GapMllmConfig:
    """Put a Qwen3-VL config.json, an encoder and fusion fields together; ConversionError for keys nobody reads."""
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


def read_qwen_config(folder: Path) -> dict:
    """Read the config.json of a dense Qwen3-VL model.

    Raises:
        FileNotFoundError: if there is no such folder or file. ConversionError: if it is of another model.
    """
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
