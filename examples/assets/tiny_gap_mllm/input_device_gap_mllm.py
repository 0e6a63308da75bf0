"""Where the inputs of a model go, also where its weights are offloaded to the CPU or the disk."""

from collections.abc import Iterator
from itertools import chain

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
    held = (tensor.device for tensor in chain(model.parameters(), model.buffers()))
    devices = chain(_execution_devices(model), held, [torch.device("cpu")])
    return next(device for device in devices if device.type != "meta")


def _execution_devices(model) -> Iterator[torch.device]:
    """Where hooks bring inputs and weights together; that of `cpu_offload_with_hook` moves the model itself."""
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            if hasattr(each, "io_same_device") and each.execution_device is not None:
                yield torch.device(each.execution_device)


__all__ = ["input_device"]
