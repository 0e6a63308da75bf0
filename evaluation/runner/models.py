"""Load the model of a run, and say by a hash which one it was."""

import hashlib
from pathlib import Path

import torch

from ...attention_gap_mllm import set_attention
from ...model_loading import load_pretrained
from ...modeling_gap_mllm import GapMllmForConditionalGeneration
from ...processing import GapMllmProcessor


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
):
    """Return model and processor of a folder, in evaluation mode; raises as `load_pretrained` and `set_attention`."""
    model = load_pretrained(GapMllmForConditionalGeneration, folder, dtype=dtype).to(device).eval()
    set_attention(model, attn_implementation)
    return model, GapMllmProcessor.from_pretrained(folder)


__all__ = ["load_model", "model_fingerprint"]
