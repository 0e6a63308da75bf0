"""What the card of a trained model says of its making: licence of the weights, and the data, by the recipe."""

from pathlib import Path

from huggingface_hub import metadata_load, metadata_save

from ..publishing_gap_mllm import CARD, LICENSE_FIELDS, read_card


FROM_SCRATCH = "apache-2.0"  # of weights that begin at random, as this package's own
_STARTS = ("model_path", "geometry_encoder_path", "encoder_path")


def card_metadata(recipe_args: object) -> dict:
    """Return what a recipe says of the card of its model.

    Without a licence in the recipe: that of the folders that weights are taken from, if their cards agree, and
    "apache-2.0" where all weights begin at random.

    Args:
        recipe_args: arguments of a recipe, with `license`, `license_name`, `license_link` and `data`.
    Returns:
        `dict`: values of the card's metadata by name; no licence where it is not known.
    """
    terms = {"license": recipe_args.license} if recipe_args.license else _license_of_starts(recipe_args)
    if recipe_args.license == "other":  # a name of before does not go with another licence
        terms |= {"license_name": recipe_args.license_name, "license_link": recipe_args.license_link}
    return {name: value for name, value in {**terms, "datasets": _datasets(recipe_args)}.items() if value}


def _license_of_starts(recipe_args):
    """The licence that the weights at the beginning have in common."""
    starts = [path for name in _STARTS if (path := getattr(recipe_args, name, None))]
    if not starts:
        return {"license": FROM_SCRATCH}
    found = [{name: card[name] for name in LICENSE_FIELDS if name in card} for card in map(read_card, starts)]
    return found[0] if all(each == found[0] for each in found) else {}


def _datasets(recipe_args):
    """Names of the sources that are trained on."""
    data = recipe_args.data
    if not data:
        return ["synthetic_rooms"]
    sources = [data] if isinstance(data.get("name"), str) else list(data.values())
    return sorted({source["name"] for source in sources if isinstance(source, dict) and "name" in source})


def complete_card(folder: str | Path, metadata: dict) -> None:
    """Add to the card of a folder what its metadata lack, as those that PEFT writes for adapters.

    Args:
        folder (`str` or `Path`): folder with README.md; without one nothing is done.
        metadata (`dict`): result of `card_metadata`.
    """
    file = Path(folder) / CARD
    if not file.is_file():
        return
    data = metadata_load(file) or {}
    usual = {"pipeline_tag": "image-text-to-text", "language": "en"} if data.get("library_name") == "peft" else {}
    lacking = {name: value for name, value in {**metadata, **usual}.items() if value and not data.get(name)}
    if lacking:
        metadata_save(file, {**data, **lacking})
