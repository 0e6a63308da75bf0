"""Read-out supervision: teach named attention heads to look at the marked place while they write the answer.

Only log-softmax(q k^T) of the named layers, heads and answer rows is formed, inside an attention function registered
with `AttentionInterface`; the output of attention is that of the model's own kernel. Nothing remains at inference.
Source: our choice; on tiny models it shortens the time until answers depend on the mark (see README).
"""

from contextlib import contextmanager

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3_vl.modeling_qwen3_vl import eager_attention_forward

from .layouts import PADDING, SHARED


READOUT_ATTENTION = "gap_mllm_readout"


class _Recording:
    """Which layers and heads are watched, the rows of the present batch, and the loss gathered from them."""

    def __init__(self, base: str, layers: list[int], heads: list[int]):
        self.base, self.layers, self.heads = base, set(layers), list(heads)
        self.rows, self.loss, self._parts = (), 0.0, None

    def watch(self, document_ids: torch.Tensor, targets: torch.Tensor):
        """Start afresh on a batch.

        Args:
            document_ids (`torch.Tensor` of shape `(B, S)`): documents, as the layouts make them.
            targets (`torch.Tensor` of shape `(B, S)`): column to look at of each query row, -1 for none.
        """
        self.rows = (targets != PADDING).nonzero()  # (R, 2): row of the batch, query position
        self.targets = targets[targets != PADDING]
        self.document_ids, self.loss, self._parts = document_ids, 0.0, None

    def add(self, query: torch.Tensor, key: torch.Tensor, scaling: float):
        """Add the negative log-probabilities of the targets. query (B, H, S, d), key (B, H_kv, S, d)."""
        shared_by = query.shape[1] // key.shape[1]  # query heads of one key head
        key_heads = [head // shared_by for head in self.heads]
        for row, position, targets, is_hidden in self._by_row():
            queries = query[row, self.heads][:, position].float()  # (heads, R, d)
            scores = queries @ key[row, key_heads].float().transpose(1, 2) * scaling  # (heads, R, S)
            scores = scores.masked_fill(is_hidden, float("-inf")).log_softmax(-1)
            self.loss = self.loss - scores.gather(2, targets.expand(len(self.heads), -1)[..., None]).sum()

    def _by_row(self):
        """Row of the batch, its watched positions (R,), their targets (R,), and what they may not see (R, S)."""
        if self._parts is None:
            self._parts = []
            columns = torch.arange(self.document_ids.shape[1], device=self.document_ids.device)
            for row in self.rows[:, 0].unique().tolist():
                is_here = self.rows[:, 0] == row
                position, documents = self.rows[is_here, 1], self.document_ids[row]
                is_seen = (documents == documents[position][:, None]) | (documents == SHARED)
                is_hidden = ~is_seen | (columns > position[:, None])
                self._parts.append((row, position, self.targets[is_here], is_hidden))
        return self._parts


_active = None


def _readout_attention(module, query, key, value, attention_mask, scaling=None, **kwargs):
    recording = _active
    base = "sdpa" if recording is None else recording.base
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(base, eager_attention_forward)
    if recording is not None and module.layer_idx in recording.layers and len(recording.rows):
        recording.add(query, key, scaling)
    return attend(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


def _readout_mask(*args, **kwargs):
    return ALL_MASK_ATTENTION_FUNCTIONS["sdpa" if _active is None else _active.base](*args, **kwargs)


AttentionInterface.register(READOUT_ATTENTION, _readout_attention)
AttentionMaskInterface.register(READOUT_ATTENTION, _readout_mask)


@contextmanager
def record_readout(language_model: PreTrainedModel, layers: list[int], heads: list[int]):
    """Watch attention heads inside a `with` block, which must hold the backward pass too.

    (With activation checkpointing the backward pass runs the layers again, and must find the same attention.) Inside
    another such block it is that block's recording.

    Args:
        language_model (`PreTrainedModel`): whose attention is watched; its kernel is restored afterwards.
        layers (`list[int]`), heads (`list[int]`): zero-based.
    Yields:
        a recording: call its `watch(document_ids, targets)` before the forward pass; after it, `loss` is the sum of
        the negative log-probabilities of the targets over rows, layers and heads.
    Raises:
        ValueError: if a layer or head does not exist.
    """
    global _active
    if _active is not None:
        yield _active
        return
    config = language_model.config
    if max(layers) >= config.num_hidden_layers or max(heads) >= config.num_attention_heads or min(*layers, *heads) < 0:
        raise ValueError(
            f"readout layers {list(layers)} and heads {list(heads)} must lie below {config.num_hidden_layers} and "
            f"{config.num_attention_heads}."
        )
    base = config._attn_implementation
    _active = _Recording(base, layers, heads)
    config._attn_implementation = READOUT_ATTENTION
    try:
        yield _active
    finally:
        config._attn_implementation = base
        _active = None
