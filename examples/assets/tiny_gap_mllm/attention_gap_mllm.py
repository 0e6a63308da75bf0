"""Choice of the attention kernel for a device, and for each part of a model by what it computes in."""

import torch
from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, is_flash_attn_4_available


HALF_PRECISION = (torch.float16, torch.bfloat16)  # FlashAttention takes nothing else

# Sub-configs, by which transformers' `attn_implementation={...}` goes, and the modules that they describe.
PARTS = {
    "text_config": "language_model",
    "vision_config": "visual",
    "geometry_config": "geometry",
    "gap_fusion_config": "fusion",
}


def best_attn_implementation(device: str | torch.device, dtype: torch.dtype):
    """Name the fastest attention that can run: FlashAttention 4, 3 or 2 on CUDA in half precision, else SDPA.

    transformers never falls back by itself: a kernel that is not installed is an error there, and one that the GPU is
    too old or too new for fails in the first forward pass.

    Args:
        device (`str` or `torch.device`): where the model will run.
        dtype (`torch.dtype`): dtype of its parameters.
    Returns:
        `str`: for `from_pretrained(..., attn_implementation=...)` or `model.set_attn_implementation`.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm import best_attn_implementation
        >>> best_attn_implementation("cpu", torch.float32)
        'sdpa'

        ```
    """
    if torch.device(device).type == "cuda" and torch.cuda.is_available() and dtype in HALF_PRECISION:
        generation = torch.cuda.get_device_capability(device)[0]
        for name, is_available, runs_here in (
            ("flash_attention_4", is_flash_attn_4_available, generation in (9, 10)),  # Hopper, Blackwell
            ("flash_attention_3", is_flash_attn_3_available, generation == 9),  # Hopper
            ("flash_attention_2", is_flash_attn_2_available, generation >= 8),  # Ampere and later
        ):
            if runs_here and is_available():
                return name
    return "sdpa"


def set_attention(
    model: PreTrainedModel,
    attn_implementation: str | dict[str, str] | None = None,
    device: str | torch.device | None = None,
    autocast_dtype: torch.dtype | None = None,
):
    """Give each part of a loaded model the attention that is asked for, or the best where nothing is.

    Args:
        model (`GapMllmModel` or a model around one)
        attn_implementation (`str` or `dict[str, str]`, *optional*): kernel of all parts, or of those that it names by
            `PARTS`; by default `best_attn_implementation` of each.
        device (`str` or `torch.device`, *optional*): where the model will run, by default where it is.
        autocast_dtype (`torch.dtype`, *optional*): dtype of the autocast that it will run under; the geometry encoder
            leaves it.
    Raises:
        ValueError: on an unknown part or kernel, or for FlashAttention on the CPU or in float32.
        ImportError: for a kernel that is not installed.
    """
    modules = {part: getattr(model.base_model, name) for part, name in PARTS.items()}
    modules = {
        part: module
        for part, module in modules.items()
        if module is not None and any(True for _ in module.parameters())
    }
    places = {part: _device_and_dtype(part, module, device, autocast_dtype) for part, module in modules.items()}
    if attn_implementation is None:
        chosen = {part: _best_of(modules[part], *place) for part, place in places.items()}
        if any(name != modules[part].config._attn_implementation for part, name in chosen.items()):
            model.set_attn_implementation({"": chosen["text_config"], **chosen})
        return
    model.config.check_attn_implementation(attn_implementation)
    for part, (where, dtype) in places.items():
        asked = attn_implementation.get(part) if isinstance(attn_implementation, dict) else attn_implementation
        if asked is not None and "flash" in asked and (where.type == "cpu" or dtype not in HALF_PRECISION):
            raise ValueError(
                f"attn_implementation={asked!r} runs in float16 or bfloat16 on a GPU, but {part} would run in {dtype} "
                f"on {where.type}. Give dtype='bfloat16' and a GPU, or another kernel for this part: "
                f"{{{part!r}: 'sdpa', ...}}, of {', '.join(PARTS)}."
            )
    model.set_attn_implementation(attn_implementation)


def _best_of(module, device, dtype):
    """The best attention that a part knows: an encoder of one's own may have none of these."""
    best = best_attn_implementation(device, dtype)
    if "flash" in best and not module._supports_flash_attn:
        best = "sdpa"
    return best if best != "sdpa" or module._supports_sdpa else module.config._attn_implementation


def _device_and_dtype(part, module, device, autocast_dtype):
    """Where a part will compute, and in what."""
    parameter = next(module.parameters())
    dtype = parameter.dtype if autocast_dtype is None or part == "geometry_config" else autocast_dtype
    return torch.device(device or parameter.device), dtype


__all__ = ["PARTS", "best_attn_implementation", "set_attention"]
