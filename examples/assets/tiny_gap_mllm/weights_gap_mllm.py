"""How weights are read: all of them or an error that names what is missing, and what quantisation and casts leave."""

import re
from copy import copy

import torch

from .compatibility_gap_mllm import needed_from_transformers


with needed_from_transformers():
    from safetensors import safe_open
    from transformers.modeling_utils import load_state_dict
    from transformers.quantizers import AutoQuantizationConfig


# The encoder's features and the fusion work in metres, on ranges that low-bit weights do not hold; heads as usual.
# With and without the prefix of the base model.
QUANTIZATION_SKIP_MODULES = (
    *("model.geometry", "model.fusion", "geometry", "fusion"),
    *("lm_head", "point_map_heads", "training_heads"),
)
SKIP_LISTS = ("llm_int8_skip_modules", "modules_to_not_convert")  # of bitsandbytes, of the other configs


HALF_PRECISION = (torch.float16, torch.bfloat16)
ROTARY_BUFFERS = ("inv_freq", "original_inv_freq")  # in half precision long prompts would lose their positions


class WholeModel:
    """For models: `from_pretrained` refuses to go on with random numbers in the place of missing weights.

    What it keeps in float32 (`_keep_in_fp32_modules_strict`, and the frequencies of rotary positions) stays so when
    the loaded model is cast, by `half()` or `to(torch.bfloat16)`, too.
    """

    _may_start_afresh = ()  # beginnings of names of weights that a checkpoint may lack

    def _apply(self, fn, *args, **kwargs):
        """As in torch; moves what stays in float32, but does not cast it to half precision."""
        kept = self._float32_tensors()

        def convert(tensor):
            converted = fn(tensor)
            if id(tensor) in kept and tensor.dtype == torch.float32 and converted.dtype in HALF_PRECISION:
                return tensor.to(converted.device)
            return converted

        return super()._apply(convert, *args, **kwargs)

    def _float32_tensors(self):
        """Tensors that stay in float32, with their gradients, by identity."""
        parts = [f".{name}." for name in self._keep_in_fp32_modules_strict or ()]
        kept = [each for name, each in self.named_parameters() if any(part in f".{name}" for part in parts)]
        kept += [each for name, each in self.named_buffers() if name.split(".")[-1] in ROTARY_BUFFERS]
        kept += [each.grad for each in kept if each.grad is not None]
        return {id(each): each for each in kept}  # the tensors live on, so that no other gets the identity

    @classmethod
    def _finalize_model_loading(cls, model, load_config, loading_info):
        """As in transformers; `ignore_mismatched_sizes=True` lets missing weights start at random, too.

        Raises:
            ValueError: if weights are missing; they are named.
        """
        loading_info = super()._finalize_model_loading(model, load_config, loading_info)
        for module in model.modules():
            if getattr(module, "stays_frozen", False):  # loading has put trainable parameters in place of its own
                module.requires_grad_(False)
        missing = sorted(name for name in loading_info.missing_keys if not name.startswith(cls._may_start_afresh))
        if missing and not load_config.ignore_mismatched_sizes:
            names = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            is_plain = all(re.match(r"(model\.)?(geometry|fusion)\.", name) for name in missing)
            raise ValueError(
                f"{load_config.pretrained_model_name_or_path} lacks {len(missing)} weights of {cls.__name__}, which "
                f"would be random: {names}. Load a folder that holds them, or pass ignore_mismatched_sizes=True to "
                f"let them start at random{', or use_geometry=False for plain Qwen3-VL' if is_plain else ''}."
            )
        return loading_info


def with_skip_list(quantization_config):
    """Return a quantisation config that leaves `QUANTIZATION_SKIP_MODULES` as they are, unless it has a list.

    Args:
        quantization_config (`QuantizationConfigMixin` or `dict`): config of any method, left as it is.
    """
    if isinstance(quantization_config, dict):
        quantization_config = AutoQuantizationConfig.from_dict(quantization_config)
    for name in SKIP_LISTS:
        if getattr(quantization_config, name, ()) is None:
            quantization_config = copy(quantization_config)
            setattr(quantization_config, name, list(QUANTIZATION_SKIP_MODULES))
    return quantization_config


def stored_weights(file: str) -> dict:
    """Return the weights of a checkpoint's file by name: of safetensors slices that are read when they are used."""
    if not file.endswith(".safetensors"):
        return load_state_dict(file)
    with safe_open(file, "pt") as opened:
        return {name: opened.get_slice(name) for name in opened.keys()}


__all__ = ["QUANTIZATION_SKIP_MODULES", "WholeModel", "stored_weights", "with_skip_list"]
