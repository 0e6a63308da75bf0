"""The geometry encoder that a new model begins with: a trained one, with its heads, or inside one of depth maps."""

import json
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from ..configuration_gap_mllm import (
    GEOMETRY_CONFIGS,
    GapMllmGeometryMapsConfig,
    GapMllmVggtConfig,
    GapMllmVggtPointsConfig,
)
from ..known_geometry_gap_mllm import GapMllmGeometryMapsModel
from ..model_loading import check_kind, load_pretrained, model_folder
from ..vggt_gap_mllm import GapMllmVggtModel
from ..vggt_heads_gap_mllm import GapMllmVggtForReconstruction


MAPS_TYPE, POINTS_TYPE = GapMllmGeometryMapsConfig.model_type, GapMllmVggtPointsConfig.model_type


def starts_afresh(model_config: dict) -> bool:
    """Whether a new model needs no trained encoder: one of depth and normal maps, whose depth is known."""
    return (model_config.get("geometry_config") or {}).get("model_type") == MAPS_TYPE


def start_encoder_config(geometry_config: dict | None, path: str | Path | None) -> PreTrainedConfig | None:
    """Config of the encoder of a new model; arguments and errors as of `start_encoder`.

    Returns:
        `PreTrainedConfig`; None where neither argument says anything.
    """
    settings = dict(geometry_config or {})
    if path is None:
        kind = settings.pop("model_type", None)
        return GEOMETRY_CONFIGS[kind](**settings) if kind in GEOMETRY_CONFIGS else None
    folder = model_folder(path)
    if _kind(folder) == MAPS_TYPE:
        return GapMllmGeometryMapsConfig.from_pretrained(folder)
    check_kind(GapMllmVggtModel, folder)
    config = GapMllmVggtConfig.from_pretrained(folder)
    wanted = settings.pop("model_type", None)
    if wanted == MAPS_TYPE:
        return GapMllmGeometryMapsConfig(**settings, teacher_config=config)
    if wanted == POINTS_TYPE:
        told = {name: getattr(config, name) for name in GapMllmVggtConfig.__annotations__}
        return GapMllmVggtPointsConfig(**{name: value for name, value in told.items() if not name.startswith("_")})
    return config


def start_encoder(
    geometry_config: dict | None, path: str | Path | None
) -> tuple[PreTrainedConfig | None, dict[str, torch.Tensor]]:
    """Read the encoder of a new model.

    Args:
        geometry_config (`dict`, *optional*): `geometry_config` of the new model's config; with the `model_type`
            "gap_mllm_geometry_maps" a VGGT at `path` becomes the teacher of such an encoder, which starts at random;
            with "gap_mllm_vggt_points" it is taken with its heads.
        path (`str` or `Path`, *optional*): folder of a `GapMllmVggtForReconstruction`, `GapMllmVggtModel` or
            `GapMllmGeometryMapsModel`, or its name on the Hub; None for an encoder that starts at random.
    Returns:
        `tuple[PreTrainedConfig, dict[str, torch.Tensor]]`: config, and weights by name, those that are there.
    Raises:
        FileNotFoundError, ValueError: as `model_folder`, `load_pretrained` and the config.
    """
    config = start_encoder_config(geometry_config, path)
    if path is None:
        return config, {}
    folder = model_folder(path)
    if config.model_type == _kind(folder):
        kind = GapMllmGeometryMapsModel if config.model_type == MAPS_TYPE else GapMllmVggtModel
        return config, load_pretrained(kind, folder, dtype="float32").state_dict()
    whole = load_pretrained(GapMllmVggtForReconstruction, folder, dtype="float32").state_dict()
    if config.model_type == MAPS_TYPE:
        return config, {f"teacher.{name}": value for name, value in whole.items()}
    names = {name: name.removeprefix("aggregator.") for name in whole if not name.startswith("point_head.")}
    return config, {new: whole[name] for name, new in names.items()}


def _kind(folder):
    """The model_type that the config of a folder names."""
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # check_kind says what is wrong
    return told.get("model_type") if isinstance(told, dict) else None
