"""Choice of the attention kernel for a device."""

import torch
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, is_flash_attn_4_available


def best_attn_implementation(device: str | torch.device, dtype: torch.dtype):
    """Name the fastest attention that can run: FlashAttention 4, 3 or 2 on CUDA in half precision, else SDPA.

    transformers never falls back by itself: a kernel that is not installed is an error there, and one that the GPU is
    too old or too new for fails in the first forward pass. Use it for the whole model, or for parts:
    `attn_implementation={"": best, "geometry_config": "sdpa"}`.

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
    if torch.device(device).type == "cuda" and torch.cuda.is_available() and dtype in (torch.float16, torch.bfloat16):
        generation = torch.cuda.get_device_capability(device)[0]
        for name, is_available, runs_here in (
            ("flash_attention_4", is_flash_attn_4_available, generation in (9, 10)),  # Hopper, Blackwell
            ("flash_attention_3", is_flash_attn_3_available, generation == 9),  # Hopper
            ("flash_attention_2", is_flash_attn_2_available, generation >= 8),  # Ampere and later
        ):
            if runs_here and is_available():
                return name
    return "sdpa"


__all__ = ["best_attn_implementation"]
