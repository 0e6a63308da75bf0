"""States of chosen layers: read where they arise, so that those of the others are not kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


TOWER, TOWER_INDEX = "tower", -1


def layer_index(layer: int | str, num_layers: int) -> int:
    """Return the index of hidden states from 0: of the embeddings 0, of the last layer, after its norm, `num_layers`.

    Args:
        layer (`int` or `str`): index of hidden states; -1 is the last layer, -2 the one before, and so on. "tower" are
            the visual tokens as the vision tower makes them, before geometry joins: `TOWER_INDEX`.
        num_layers (`int`): decoder layers of the language model.
    Returns:
        `int`.
    Raises:
        ValueError: if there is no such layer.
    """
    if layer == TOWER:
        return TOWER_INDEX
    if not isinstance(layer, int) or isinstance(layer, bool) or not -num_layers - 1 <= layer <= num_layers:
        raise ValueError(
            f"layer {layer!r} is none of the language model; expected 0, its embeddings, to {num_layers}, its last "
            f"layer, or -1 for that; or {TOWER!r}."
        )
    return layer % (num_layers + 1)


def map_layers(num_layers: int, teacher_layers: Sequence[int], num_teacher_layers: int) -> list[int]:
    """Return the language layer that is as deep as each layer of a teacher, by index of hidden states.

    Halves are rounded to even numbers. Source: GeoVR (arXiv:2606.05833).

    Args:
        num_layers (`int`): decoder layers of the language model.
        teacher_layers (`Sequence[int]`): zero-based layers of the teacher.
        num_teacher_layers (`int`): layers of the teacher.
    Returns:
        `list[int]`.

    Example:
        ```python
        >>> from gap_mllm.hidden_states_gap_mllm import map_layers
        >>> map_layers(28, [4, 11, 17, 23], 24)  # of VGGT onto Qwen3-VL 2B
        [6, 14, 21, 28]

        ```
    """
    return [round((layer + 1) / num_teacher_layers * num_layers) for layer in teacher_layers]


@contextmanager
def read_hidden_states(language_model: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Keep the hidden states of some layers of one forward pass inside a `with` block.

    As in transformers, those of index k are the output of decoder layer k, before DeepStack adds to it, and those of
    the last layer come after the final norm.

    Args:
        language_model (`nn.Module`): Qwen3-VL's text model, with `layers` and `norm`.
        layers (`Sequence[int]`): indices of hidden states, as of `layer_index`.
    Yields:
        `dict[int, torch.Tensor]`: hidden states `(B, S, D)` by the index from 0, once the model has run.
    Raises:
        ValueError: as `layer_index`.
    """
    num_layers, kept, handles = len(language_model.layers), {}, []

    def keep_input(module, args, kwargs):
        kept[0] = args[0] if args else kwargs["hidden_states"]

    def keeper(index):
        def keep(module, args, output):
            kept[index] = output if isinstance(output, torch.Tensor) else output[0]

        return keep

    try:
        for index in {layer_index(layer, num_layers) for layer in layers}:
            if index == 0:
                handles.append(language_model.layers[0].register_forward_pre_hook(keep_input, with_kwargs=True))
            else:
                module = language_model.norm if index == num_layers else language_model.layers[index - 1]
                handles.append(module.register_forward_hook(keeper(index)))
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def read_tower(visual: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Keep what the vision tower makes of pictures inside a `with` block.

    Args:
        visual (`nn.Module`): Qwen3-VL's vision tower.
    Yields:
        `list[torch.Tensor]`: merged tokens `(T, D)` of each call, in its order.
    """
    kept = []
    handle = visual.register_forward_hook(lambda module, args, output: kept.append(output.pooler_output))
    try:
        yield kept
    finally:
        handle.remove()


__all__ = ["TOWER", "TOWER_INDEX", "layer_index", "map_layers", "read_hidden_states", "read_tower"]
