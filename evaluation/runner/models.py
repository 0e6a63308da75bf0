"""Load the model of a run, and say by a hash which one it was."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from ...configuration_gap_mllm import GapMllmConfig
from ...model_loading import load_pretrained, load_processor
from ...modeling_gap_mllm import GapMllmForConditionalGeneration
from ...pretrained_gap_mllm import set_attention
from ...pretraining_gap_mllm import GapMllmForPreTraining
from ...processing.data.video_labels import load_teacher


_HASHED = ("*.safetensors", "config.json", "generation_config.json", "*processor_config.json", "tokenizer*.json")
_HASHED += ("chat_template.*", "merges.txt", "vocab.json")


def model_fingerprint(folder: str | Path) -> str:
    """Hash of a model's weights, settings and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _HASHED for path in Path(folder).glob(pattern)}):
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def load_model(
    folder: str | Path,
    device: str | torch.device,
    dtype: str = "auto",
    attn_implementation: str | dict[str, str] | None = None,
    model_class: type[GapMllmForConditionalGeneration] = GapMllmForConditionalGeneration,
):
    """Return model and processor of a folder, in evaluation mode; raises as `load_pretrained` and `set_attention`."""
    model = load_pretrained(model_class, folder, dtype=dtype).to(device).eval()
    set_attention(model, attn_implementation)
    return model, load_processor(folder)


def load_points_source(folder: str | Path, device: str | torch.device) -> Callable:
    """Return what tells the points that frames see: a GAP-MLLM with its heads of pre-training, or a VGGT with its own.

    Raises:
        ValueError, TypeError, OSError: as `load_pretrained`, which names heads that are missing, and `load_teacher`.
    """
    if PreTrainedConfig.get_config_dict(folder)[0].get("model_type") != GapMllmConfig.model_type:
        return load_teacher(folder, device)
    try:
        return load_pretrained(GapMllmForPreTraining, folder, dtype="auto").to(device).eval()
    except ValueError as error:
        raise ValueError(f"{error} For sampling='space_aware' give the points_from of another.") from None
