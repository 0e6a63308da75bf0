"""Conversion of released checkpoints, and of Qwen3-VL with VGGT, to folders that `from_pretrained` loads."""

from .converting import convert_base_models, convert_checkpoint
from .source_configs import infer_vggt_config
from .weight_files import ConversionError


__all__ = ["ConversionError", "convert_base_models", "convert_checkpoint", "infer_vggt_config"]
