"""The names of `gap_mllm.conversion`, where they were imported from before it was a folder."""

from .conversion import ConversionError, convert_base_models, convert_checkpoint, infer_vggt_config
from .conversion.source_configs import REFERENCE_KEYS
from .conversion.weight_names import reference_fusion_name


__all__ = [
    "REFERENCE_KEYS",
    "ConversionError",
    "convert_base_models",
    "convert_checkpoint",
    "infer_vggt_config",
    "reference_fusion_name",
]
