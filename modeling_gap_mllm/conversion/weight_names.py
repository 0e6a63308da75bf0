"""Names of released weights for those that our model expects, and what is missing, left over or does not fit."""

from collections.abc import Callable, Iterator
from copy import copy

import torch

from ..configuration_gap_mllm import GapMllmConfig
from ..modeling_gap_mllm import GapMllmForConditionalGeneration
from .weight_files import ConversionError, WeightFiles, listed


GEOMETRY_PREFIX, FUSION_PREFIX = "model.geometry.", "model.fusion."
EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"

# Parts of the full VGGT that no GAP-MLLM model holds: reconstruction heads and tracker.
VGGT_HEADS = ("camera_head.", "depth_head.", "point_head.", "track_head.")

# Names of the reference's mergers and fusion modules -> ours.
_MERGER_NAMES = {"norm": "ln_q", "linear_fc1": "mlp.0", "linear_fc2": "mlp.2"}
_FUSION_NAMES = {
    "visual_norm": "norm1",
    "geometry_norm": "norm2",
    "gate": "gate_projection.0",
    "projection": "projection",
    "visual_weight": "weight_2d",
    "geometry_weight": "weight_3d",
}
_BLOCK_NAMES = {
    "query_norm": "norm1_query",
    "key_norm": "norm1_key",
    "value_norm": "norm1_value",
    "mlp_norm": "norm2",
    "output": "cross_attention.out_proj",
    "linear_fc1": "mlp.0",
    "linear_fc2": "mlp.3",
}
_BLOCK_PROJECTIONS = ("query", "key", "value")  # in the order of the rows of in_proj


def expected_shapes(config: GapMllmConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights that the model reads, with its geometry; nothing is allocated."""
    config = copy(config)
    config.use_geometry = True
    with torch.device("meta"):
        model = GapMllmForConditionalGeneration(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop(HEAD, None)
    return shapes


def is_ours(name: str) -> bool:
    """Whether a weight of ours is none of plain Qwen3-VL."""
    return name.startswith((GEOMETRY_PREFIX, FUSION_PREFIX))


def is_geometry(name: str) -> bool:
    """Whether a weight of the reference is of its encoder, mergers or fusion."""
    return name.removeprefix("model.").startswith(("geometry_", "feature_fusion.", "deepstack_feature_fusion_list."))


def reference_names(target: str, last_level: int) -> tuple[tuple[str, ...], int | None]:
    """Names under which the reference stores a weight of ours, and which third of its rows it is (None: all)."""
    if target.startswith(GEOMETRY_PREFIX):
        name, part = "geometry_encoder.vggt.aggregator." + target.removeprefix(GEOMETRY_PREFIX), None
    elif target.startswith(FUSION_PREFIX):
        name, part = reference_fusion_name(target.removeprefix(FUSION_PREFIX), last_level)
    else:
        return (target,), None
    return (name, "model." + name), part


def reference_fusion_name(target: str, last_level: int) -> tuple[str, int | None]:
    """Name in the reference of a weight of `GapMllmFusion`, and which third of its rows it is (None: all).

    The last level is the final visual tokens', which the reference keeps apart from the DeepStack levels'.
    """
    kind, level, name = target.split(".", 2)
    final = int(level) == last_level
    if kind == "mergers":
        module, _, leaf = name.rpartition(".")
        prefix = "geometry_merger" if final else f"geometry_deepstack_merger_list.{level}"
        return f"{prefix}.{_MERGER_NAMES[module]}.{leaf}", None
    prefix = "feature_fusion" if final else f"deepstack_feature_fusion_list.{level}"
    parts = name.removeprefix("fuse.").split(".")
    if parts[0] != "blocks":
        return ".".join([prefix, _FUSION_NAMES[parts[0]], *parts[1:]]), None
    _, block, module, leaf = parts
    prefix = f"{prefix}.cross_attn_blocks.{block}"
    if module in _BLOCK_PROJECTIONS:
        return f"{prefix}.cross_attention.in_proj_{leaf}", _BLOCK_PROJECTIONS.index(module)
    return f"{prefix}.{_BLOCK_NAMES[module]}.{leaf}", None


def vggt_names(target: str) -> tuple[tuple[str, ...], None]:
    """Names under which VGGT's own files store a weight of ours; no thirds."""
    name = target.removeprefix(GEOMETRY_PREFIX)
    return ("aggregator." + name, name), None


def match_weights(weights: WeightFiles, expected: dict, names_of: Callable, config: GapMllmConfig) -> dict:
    """Find the stored name of every expected weight, as ours -> (stored name, third or None).

    Raises:
        ConversionError: with all that is missing, unknown, misshapen, or stored twice and unequal.
    """
    entries, missing, problems, used, unequal = {}, [], [], set(), []
    for target, shape in expected.items():
        names, part = names_of(target)
        found = [name for name in names if name in weights.shapes]
        if not found:
            missing.append(names[0])
            continue
        used.update(found)
        entries[target] = (found[0], part)
        stored_shape = (3 * shape[0], *shape[1:]) if part is not None else shape
        for name in found:
            if weights.shapes[name] != stored_shape:
                problems.append(f"{name} has shape {list(weights.shapes[name])}, expected {list(stored_shape)}")
        if len(found) == 2 and not part and not _equal(weights, *found):  # thirds 1 and 2 share the test of third 0
            unequal.append(" and ".join(found))
    if config.tie_word_embeddings and HEAD in weights.shapes and EMBEDDING in expected:
        used.add(HEAD)
        if EMBEDDING in weights.shapes and not _equal(weights, HEAD, EMBEDDING):
            unequal.append(f"{HEAD} and {EMBEDDING} (tie_word_embeddings is true)")
    surplus = sorted(name for name in set(weights.shapes) - used if not _is_left_out(name))
    if missing:
        problems.append(f"missing weights: {listed(sorted(set(missing)))}")
    if surplus:
        problems.append(f"unknown weights: {listed(surplus)}")
    if unequal:
        problems.append(f"copies of one weight that differ: {listed(unequal)}")
    if problems:
        raise ConversionError(f"The weights of {weights.path} do not fit its configuration; {'; '.join(problems)}.")
    return entries


def _is_left_out(name):
    name = name.removeprefix("model.").removeprefix("geometry_encoder.vggt.")
    return name.startswith(VGGT_HEADS)


def _equal(weights, first, second):
    first, second = weights[first], weights[second]
    return first.dtype == second.dtype and torch.equal(first, second)


def read_weights(weights: WeightFiles, entries: dict) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield weights under our names, one at a time; entries as `match_weights` returns them."""
    for target, (name, part) in entries.items():
        tensor = weights[name]
        # A copy of the third: safetensors refuses to save tensors that share memory.
        yield target, tensor.contiguous() if part is None else tensor.chunk(3)[part].clone()
