# pyright: basic
"""GAP-MLLM for transformers: the public names, and the registration of its classes with the Auto classes."""

import transformers

from .configuration_gap_mllm import (
    GEOMETRY_CONFIGS,
    GapMllmConfig,
    GapMllmFusionConfig,
    GapMllmGeometryMapsConfig,
    GapMllmVggtConfig,
    GapMllmVggtPointsConfig,
)
from .fusion_gap_mllm import GapMllmFusion
from .known_geometry_gap_mllm import GapMllmGeometryMapsModel, KnownGeometry
from .modeling_gap_mllm import GEOMETRY_ENCODERS, GapMllmForConditionalGeneration, GapMllmModel
from .pretrained_gap_mllm import best_attn_implementation
from .pretraining_gap_mllm import GapMllmForPreTraining
from .processing.processing_gap_mllm import GapMllmProcessor
from .processing.scene_session_gap_mllm import SceneSession
from .publishing_gap_mllm import AUTO_MAPS, QUANTIZATION_SKIP_MODULES
from .vggt_gap_mllm import GapMllmGeometryOutput, GapMllmVggtModel
from .vggt_heads_gap_mllm import GapMllmVggtForReconstruction, GapMllmVggtPointsModel


__version__ = "0.1.0"

# The Auto classes give here what they give from a saved folder.
transformers.AutoProcessor.register(GapMllmConfig, GapMllmProcessor, exist_ok=True)
for _auto_map in AUTO_MAPS.values():
    _classes = {_auto: globals()[_reference.split(".")[1]] for _auto, _reference in _auto_map.items()}
    _config = _classes.pop("AutoConfig")
    transformers.AutoConfig.register(_config.model_type, _config, exist_ok=True)
    for _auto, _class in _classes.items():
        getattr(transformers, _auto).register(_config, _class, exist_ok=True)

__all__ = [
    "GEOMETRY_CONFIGS",
    "GEOMETRY_ENCODERS",
    "GapMllmConfig",
    "GapMllmForConditionalGeneration",
    "GapMllmForPreTraining",
    "GapMllmFusion",
    "GapMllmFusionConfig",
    "GapMllmGeometryMapsConfig",
    "GapMllmGeometryMapsModel",
    "GapMllmGeometryOutput",
    "GapMllmModel",
    "GapMllmProcessor",
    "GapMllmVggtConfig",
    "GapMllmVggtForReconstruction",
    "GapMllmVggtModel",
    "GapMllmVggtPointsConfig",
    "GapMllmVggtPointsModel",
    "KnownGeometry",
    "QUANTIZATION_SKIP_MODULES",
    "SceneSession",
    "best_attn_implementation",
]
