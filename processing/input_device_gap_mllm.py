"""Where the inputs of a model go, also where its weights are offloaded to the CPU or the disk."""

from collections.abc import Iterator

import torch
from torch import nn


def input_device(model: nn.Module) -> torch.device:
    """Return the device that a model takes its inputs on.

    Offloaded weights lie on "meta" between calls: hooks of accelerate then say where they are computed with.

    Args:
        model (`torch.nn.Module`): model, perhaps with `device_map`, `cpu_offload` or `disk_offload`.
    Returns:
        `torch.device`: that of the hooks, else of the first parameter or buffer that is not on "meta", else the CPU.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.processing.input_device_gap_mllm import input_device
        >>> input_device(torch.nn.Linear(4, 2))
        device(type='cpu')

        ```
    """
    device = next(_execution_devices(model), None)
    if device is not None:
        return device
    held = (tensor.device for tensors in (model.parameters(), model.buffers()) for tensor in tensors)
    return next((device for device in held if device.type != "meta"), torch.device("cpu"))


def _execution_devices(model) -> Iterator[torch.device]:
    """What the hooks say that bring inputs to the weights; `cpu_offload_with_hook` moves the model itself."""
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            device = getattr(each, "execution_device", None)
            if device is not None and hasattr(each, "io_same_device"):
                device = torch.device(device)
                if device.type != "meta":
                    yield device


__all__ = ["input_device"]
