"""Recipes: one YAML file holds one run. Read by name from the package, or by path; flags override."""

from argparse import ArgumentTypeError
from pathlib import Path

import yaml


RECIPE_FOLDER = Path(__file__).parent / "recipes"


def find_recipe(recipe):
    """Path of a recipe, given its name in training/recipes or a path.

    Raises:
        FileNotFoundError: if neither exists; lists the names there are.
    """
    for path in (Path(recipe), RECIPE_FOLDER / f"{recipe}.yaml"):
        if path.is_file():
            return path
    names = sorted(path.stem for path in RECIPE_FOLDER.glob("*.yaml"))
    raise FileNotFoundError(f"There is no recipe {str(recipe)!r}. Give the path of a YAML file, or one of {names}.")


def _mapping(text):
    """The value of a flag that is a dict, in one line of JSON or YAML."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        raise ArgumentTypeError(f'{text!r} is no mapping; give JSON, for example \'{{"name": "scannet"}}\'')
    return value


def read_recipe(parser, recipe, overrides=()):
    """Parse a recipe with an `HfArgumentParser`; flags in `overrides` replace its values.

    Args:
        parser (`HfArgumentParser`)
        recipe (`str` or `Path`): see `find_recipe`.
        overrides (`list[str]`): for example `["--output_dir", "outputs/run", "--max_steps", "100"]`.
    Returns:
        `tuple`: one instance for each dataclass of the parser.
    Raises:
        FileNotFoundError: see `find_recipe`. ValueError: if a key or flag is in none of the dataclasses.
    """
    path = find_recipe(recipe)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of argument names to values.")
    for action in parser._actions:  # argparse would call dict() on the text
        action.type = _mapping if action.type is dict else action.type
    known = {action.dest for action in parser._actions}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{path} has the unknown keys {unknown}.")
    flags = {flag.split("=")[0].lstrip("-").replace("-", "_") for flag in overrides if flag.startswith("--")}
    given, rest = parser.parse_known_args(list(overrides))
    rest += sorted(flags - known)  # argparse takes abbreviations; a recipe does not
    if rest:
        raise ValueError(f"Unknown flags {rest}. Flags are the keys of a recipe, for example --max_steps 100.")
    values.update({name: getattr(given, name) for name in flags})
    return parser.parse_dict(values)
