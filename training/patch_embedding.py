"""The vision tower's patch embedding as a matrix product, while training."""

from contextlib import contextmanager

import torch
from torch import nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel


@contextmanager
def linear_patch_embedding(visual: Qwen3VLVisionModel):
    """Compute Qwen3-VL's patch embedding as a linear map inside a `with` block.

    Its kernel is as large as its input, so the convolution is a matrix product. The result differs by rounding only,
    and forward and backward pass take a small part of the convolution's time (measured on CPUs by
    examples/benchmarks/embed_patches.py). A projection that is not a plain `nn.Conv3d` over exactly its input
    (one wrapped by an adapter, say) is left as it is.

    Args:
        visual (`Qwen3VLVisionModel`): the vision tower. Module hooks run as ever, and nothing of it is saved.
    """
    projection = visual.patch_embed.proj
    is_plain = type(projection) is nn.Conv3d and projection.kernel_size == projection.stride
    if not is_plain or projection.padding != (0, 0, 0) or projection.groups != 1:
        yield
        return

    def forward(patches: torch.Tensor):
        if patches.shape[2:] != projection.kernel_size:
            return nn.Conv3d.forward(projection, patches)
        embedded = nn.functional.linear(patches.flatten(1), projection.weight.flatten(1), projection.bias)
        return embedded[:, :, None, None, None]

    projection.forward = forward
    try:
        yield
    finally:
        del projection.forward
