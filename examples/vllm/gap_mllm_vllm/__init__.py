"""GAP-MLLM as a model of vLLM, found by the entry point `vllm.general_plugins` in each of its processes."""

ARCHITECTURES = ("GapMllmForConditionalGeneration", "GapMllmForPreTraining")


def register() -> None:
    """Tell vLLM which class serves the architectures of our folders, and transformers which config they have.

    What is imported here is imported wherever vLLM starts, so the classes themselves are named as text.
    """
    from transformers import AutoConfig
    from vllm import ModelRegistry
    from vllm.renderers.registry import RENDERER_REGISTRY

    from gap_mllm import GapMllmConfig

    AutoConfig.register("gap_mllm", GapMllmConfig, exist_ok=True)  # so that trust_remote_code is not needed
    for name in ARCHITECTURES:
        ModelRegistry.register_model(name, "gap_mllm_vllm.model:GapMllmForConditionalGeneration")
    # Not by its register(), which warns of every name that is there: "hf" is how all tokenizers of the Hub are read.
    RENDERER_REGISTRY.renderers["hf"] = ("gap_mllm_vllm.renderer", "SceneRenderer")
