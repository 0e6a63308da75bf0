# pyright: basic
"""GAP-MLLM for transformers: the public names, and the registration of its classes with the Auto classes."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForDepthEstimation,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForPreTraining,
    AutoProcessor,
)

from .attention import best_attn_implementation
from .configuration_gap_mllm import GEOMETRY_CONFIGS, GapMllmConfig, GapMllmFusionConfig, GapMllmVggtConfig
from .fusion_gap_mllm import GapMllmFusion
from .modeling_gap_mllm import GEOMETRY_ENCODERS, GapMllmForConditionalGeneration, GapMllmModel
from .pretraining_gap_mllm import GapMllmForPreTraining
from .processing.processing_gap_mllm import GapMllmProcessor
from .vggt_gap_mllm import GapMllmGeometryOutput, GapMllmVggtModel
from .vggt_heads_gap_mllm import GapMllmVggtForReconstruction


__version__ = "0.1.0"

# A notebook user who says AutoModel wants to call generate(): it gives the class with the language-modelling head.
AutoConfig.register("gap_mllm", GapMllmConfig, exist_ok=True)
AutoModel.register(GapMllmConfig, GapMllmForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(GapMllmConfig, GapMllmForConditionalGeneration, exist_ok=True)
AutoModelForMultimodalLM.register(GapMllmConfig, GapMllmForConditionalGeneration, exist_ok=True)
AutoModelForPreTraining.register(GapMllmConfig, GapMllmForPreTraining, exist_ok=True)
AutoProcessor.register(GapMllmConfig, GapMllmProcessor, exist_ok=True)
AutoModelForDepthEstimation.register(GapMllmVggtConfig, GapMllmVggtForReconstruction, exist_ok=True)
for _config, _model in ((GapMllmVggtConfig, GapMllmVggtModel), (GapMllmFusionConfig, GapMllmFusion)):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)

__all__ = [
    "GEOMETRY_CONFIGS",
    "GEOMETRY_ENCODERS",
    "GapMllmConfig",
    "GapMllmForConditionalGeneration",
    "GapMllmForPreTraining",
    "GapMllmFusion",
    "GapMllmFusionConfig",
    "GapMllmGeometryOutput",
    "GapMllmModel",
    "GapMllmProcessor",
    "GapMllmVggtConfig",
    "GapMllmVggtForReconstruction",
    "GapMllmVggtModel",
    "best_attn_implementation",
]
