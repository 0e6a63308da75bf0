"""Run a model that has no memory: shapes on the meta device, whole numbers as they are; count its work and its memory.

Whole numbers and masks decide about shapes (where pictures go in a text, which tokens are supervised), so they stay
on the CPU with their values; numbers with a fraction have shapes only. So the real forward pass runs, whatever its
size.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS


FUSED_ATTENTION = "gap_mllm_fused"  # attention that keeps no matrix of scores, as on a GPU

_aten = torch.ops.aten
_INDEXING = (_aten.index, _aten.index_put, _aten.index_put_)


class _MetaDispatch(TorchDispatchMode):
    """Lets tensors of the CPU meet those of the meta device, and adds up what lives there."""

    def __init__(self, model):
        super().__init__()
        self.live = self.peak = 0
        kept = [*model.parameters(), *model.buffers()]
        self._seen = {each.untyped_storage()._cdata for each in kept}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        if any(each.is_meta for each in tensors):
            if func.overloadpacket in _INDEXING:  # masks say here how many there are
                args = (args[0], [part for index in args[1] for part in _positions(index)], *args[2:])
            args, kwargs = tree_map(_to_meta, (args, kwargs))
        elif tensors and kwargs.get("device") is not None and not tensors[0].is_floating_point():
            kwargs = {**kwargs, "device": tensors[0].device}
        result = func(*args, **kwargs)
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.is_meta:
                self._note(each.untyped_storage())
        return result

    def _note(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self._seen.discard(key)
        self.live -= size


def _positions(index):
    return index.nonzero().unbind(1) if index is not None and index.dtype == torch.bool else [index]


def _to_meta(value):
    return value.to("meta") if isinstance(value, torch.Tensor) and not value.is_meta else value


def _fused_attention(module, query, key, value, attention_mask, **kwargs):
    shared_by = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(shared_by, 1) if shared_by > 1 else each for each in (key, value))
    return _aten._scaled_dot_product_flash_attention(query, key, value)[0].transpose(1, 2), None


AttentionInterface.register(FUSED_ATTENTION, _fused_attention)
AttentionMaskInterface.register(FUSED_ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


@contextmanager
def running_on_meta(model: nn.Module) -> Iterator[_MetaDispatch]:
    """Let a model of the meta device run on a batch of the CPU inside a `with` block, forward and backward.

    Gradients of parameters are thrown away as soon as they are whole. Give the model `FUSED_ATTENTION` where a GPU
    would run SDPA or FlashAttention: all scores are counted, masked or not, and none are kept.

    Args:
        model (`nn.Module`): model on the meta device, whose pictures and numbers are not looked at.
    Yields:
        what was noted: `peak`, the most bytes that lived at once, without parameters and their gradients.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.meta_device import running_on_meta
        >>> with torch.device("meta"):
        ...     model = torch.nn.Linear(1000, 4000)
        >>> with running_on_meta(model) as noted:
        ...     model(torch.zeros(2, 1000)).sum().backward()
        >>> noted.peak >= 4000 * 1000 * 4  # the gradient of the weight, in float32
        True

        ```
    """
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda each: setattr(each, "grad", None))
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    noted = _MetaDispatch(model)
    try:
        with noted:
            yield noted
    finally:
        for hook in hooks:
            hook.remove()
