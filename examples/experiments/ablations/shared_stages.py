"""Where each training of an ablation lies: stages that resolve to the same settings are one training."""

from itertools import product

from transformers import HfArgumentParser

from gap_mllm.training.geometry_aligned_trainer import GeometryAlignedTrainingArguments
from gap_mllm.training.recipes import resolve_recipe
from gap_mllm.training.train_geometry_aligned import GeometryAlignedModelArguments

from .ablation import Ablation, flags_of


def place_stages(ablation: Ablation) -> dict[tuple[str | None, str], list[tuple[str, dict, str]]]:
    """Resolve the recipes of all arms, and find a folder for each training.

    A training is known by its settings and by those of the stages before it: where two arms begin alike, the folder
    is that of the first, in the order of the file, chosen or not, and stands for both.

    Args:
        ablation (`Ablation`): arms and variants.
    Returns:
        `dict`: by variant (None where there are none) and arm, for the chosen arms: of each stage the recipe, its
        changes, and the folder, in which "{seed}" is to be filled in.
    Raises:
        FileNotFoundError, ValueError: as `resolve_recipe`. ValueError: if two chosen arms, or variants of one, are the
            same training.
    """
    parser = HfArgumentParser((GeometryAlignedModelArguments, GeometryAlignedTrainingArguments))
    defaults = {action.dest: action.default for action in parser._actions}
    known, placed, wholes = [], {}, []
    for variant, arm in product(ablation.variants or [None], ablation.arms):
        stages, told, chain = ablation.stages(arm, variant), [], []
        folder = "/".join(["runs", arm, *([] if variant is None else [str(variant)]), "seed_{seed}"])
        for number, (recipe, values) in enumerate(stages, 1):
            chain = [*chain, {**defaults, **resolve_recipe(parser, recipe, flags_of(values))}]
            own = folder if len(stages) == 1 else f"{folder}/stage_{number}"
            place = next((place for each, place in known if each == chain), own)
            known.append((chain, place))
            told.append((recipe, values, place))
        if arm not in ablation.chosen:
            continue
        name = repr(arm) if variant is None else f"{arm!r} with {variant!r}"
        if twin := next((twin for each, twin in wholes if each == chain), None):
            raise ValueError(
                f"The arms {twin} and {name} resolve to the same settings, so that nothing would be compared. Change "
                "one of them (flags change all arms, but an arm beats them), or choose others with --arms."
            )
        wholes.append((chain, name))
        placed[variant, arm] = told
    return placed
