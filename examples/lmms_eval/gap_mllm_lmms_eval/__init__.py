"""Tells lmms-eval of the model `gap_mllm`. The model itself is in model.py, which loads when it is asked for."""


def manifest():
    """Return what lmms-eval's registry wants to know; the entry point of the group `lmms_eval.models`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="gap_mllm", chat_class_path="gap_mllm_lmms_eval.model.GapMllm")


__all__ = ["manifest"]
