"""Learning rates by module: every trainable parameter belongs to exactly one named group."""

import re
from collections.abc import Callable

from torch import nn
from transformers.utils import logging


logger = logging.get_logger(__name__)

# Module prefixes of GapMllmForPreTraining, from the geometry up to the heads.
MODULE_GROUPS = {
    "geometry": ("model.geometry.",),
    "vision": ("model.visual.",),
    "mergers": ("model.fusion.mergers.",),
    "fusion": ("model.fusion.levels.", "model.fusion.position."),
    "language": ("model.language_model.", "lm_head."),
    "point_maps": ("point_map_heads.",),
}
HEAD_GROUP = {"heads": ("training_heads.",)}  # of models that have such heads

# What wrappers put into the names of the modules that they wrap: DistributedDataParallel, and PEFT's adapters.
_WRAPPERS = re.compile(r"^(module\.)?(base_model\.model\.)?|(base_layer|original_module|modules_to_save\.[^.]+)\.")


def groups_of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return `MODULE_GROUPS`, and "heads" for a model that has heads on hidden states."""
    has_heads = any(_WRAPPERS.sub("", name).startswith(HEAD_GROUP["heads"]) for name, _ in model.named_parameters())
    return MODULE_GROUPS | HEAD_GROUP if has_heads else MODULE_GROUPS


def assign_groups(model: nn.Module, groups: dict[str, tuple[str, ...]] | None = None):
    """Name the group of every parameter.

    Args:
        model (`nn.Module`): model, or PEFT's adapters of one; theirs belong to the modules that they adapt.
        groups (`dict[str, tuple[str, ...]]`, *optional*): name prefixes of each group, by default those of
            `groups_of`.
    Returns:
        `dict[str, list[str]]`: parameter names of each group.
    Raises:
        ValueError: if a parameter is in no group or in two; names it.
    """
    groups = groups_of(model) if groups is None else groups
    members = {name: [] for name in groups}
    for parameter, _ in model.named_parameters():
        name = _WRAPPERS.sub("", parameter)
        hits = [group for group, prefixes in groups.items() if name.startswith(tuple(prefixes))]
        if len(hits) != 1:
            where = f"in the groups {hits}" if hits else "in none of the groups"
            raise ValueError(f"Parameter {name!r} is {where} {list(groups)}; it must be in exactly one.")
        members[hits[0]].append(parameter)
    return members


def freeze_groups(
    model: nn.Module, learning_rates: dict[str, float], groups: dict[str, tuple[str, ...]] | None = None
):
    """Let exactly the groups with a positive learning rate be trained, through their parameters.

    Parameters that are frozen by construction (an unused mask token, a fixed fusion strength) stay frozen.

    Args:
        learning_rates (`dict[str, float]`): rate of each group; 0 freezes it.
    Raises:
        ValueError: if a group has no learning rate, or an unknown one has.
    """
    members = assign_groups(model, groups)
    unknown, missing = set(learning_rates) - set(members), set(members) - set(learning_rates)
    if unknown or missing:
        raise ValueError(
            f"Learning rates must name the groups {list(members)}: unknown {sorted(unknown)}, missing "
            f"{sorted(missing)}."
        )
    parameters = dict(model.named_parameters())
    for group, names in members.items():
        if learning_rates[group] == 0:
            for name in names:
                parameters[name].requires_grad_(False)


def parameter_groups(
    model: nn.Module,
    learning_rates: dict[str, float],
    weight_decay: float,
    decayed: list[str],
    groups: dict[str, tuple[str, ...]] | None = None,
    show: Callable = logger.info,
):
    """Build optimiser groups and show a table of them.

    Args:
        learning_rates (`dict[str, float]`): rate of each group.
        weight_decay (`float`): decay of the parameters named in `decayed`.
        decayed (`list[str]`): names that `Trainer.get_decay_parameter_names` gives.
        show (`Callable`): takes the table, a text; by default it is only logged.
    Returns:
        `list[dict]`: for torch optimisers; trainable parameters only.
    """
    decayed, parameters, optimised = set(decayed), dict(model.named_parameters()), []
    rows = [f"{'group':<12} {'parameters':>14} {'trainable':>14} {'learning rate':>14}"]
    for group, names in assign_groups(model, groups).items():
        trainable = [name for name in names if parameters[name].requires_grad]
        sizes = [sum(parameters[name].numel() for name in some) for some in (names, trainable)]
        rate = f"{learning_rates[group]:.3g}" if trainable else "frozen"
        rows.append(f"{group:<12} {sizes[0]:>14,} {sizes[1]:>14,} {rate:>14}")
        for is_decayed in (True, False):
            chosen = [parameters[name] for name in trainable if (name in decayed) == is_decayed]
            decay = weight_decay if is_decayed else 0.0
            if chosen:
                optimised.append({"params": chosen, "lr": learning_rates[group], "weight_decay": decay, "name": group})
    show("\n".join(rows))
    return optimised
