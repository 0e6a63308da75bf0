"""Recipes: one YAML file holds one run, or what it changes of another's. Read by name or path; flags override."""

import json
import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser

from ..processing.argument_checks import check_kinds, nearest_name


RECIPE_FOLDER = Path(__file__).parent / "recipes"


class _RecipeLoader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as it is in YAML 1.2; PyYAML follows 1.1, where it is a text."""


class _RecipeDumper(yaml.SafeDumper):
    """Writes what `_RecipeLoader` reads: the text "1e-4" in quotes."""


for _kind in (_RecipeLoader, _RecipeDumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def find_recipe(recipe: str | Path):
    """Path of a recipe, given its name in training/recipes or a path.

    A name that begins with an underscore is a base of others, and no recipe of its own.

    Raises:
        FileNotFoundError: if neither exists; lists the names there are.
    """
    for path in (Path(recipe), RECIPE_FOLDER / f"{recipe}.yaml"):
        if path.is_file():
            return path
    names = sorted(path.stem for path in RECIPE_FOLDER.glob("[!_]*.yaml"))
    raise FileNotFoundError(f"There is no recipe {str(recipe)!r}. Give the path of a YAML file, or one of {names}.")


def load_recipe(path: str | Path) -> dict:
    """The values of a recipe's file, with those of the recipe that it names in `base` beneath them.

    A key takes the place of the base's whole value; one with a dot sets an entry of a dict, as flags do:
    `variety.mark_arms: [3, 4]`. A base may have a base.

    Args:
        path (`str` or `Path`): a file, see `find_recipe`.
    Returns:
        `dict`: values by key, without `base`.
    Raises:
        FileNotFoundError: if there is no such base. ValueError: if a file is no YAML (with its line) or no mapping, or
            a recipe is built on itself.
    """
    return _load_recipe(Path(path), ())


def _load_recipe(path, above):
    if path.resolve() in above:
        raise ValueError(f"{path} is its own base, by {' and '.join(each.name for each in above)}.")
    own = read_yaml(path.read_bytes(), str(path))
    if not isinstance(own, dict):
        raise ValueError(f"{path} must hold a mapping of argument names to values.")
    base = own.pop("base", None)
    if base is not None and not isinstance(base, str):
        raise ValueError(f"{path} has the base {base!r}; expected the name of a recipe, or the path of a YAML file.")
    beside = path.parent / f"{base}"
    found = base and (beside if beside.is_file() else find_recipe(base))
    values = _load_recipe(found, (*above, path.resolve())) if found else {}
    for name, value in own.items():
        first, *keys = str(name).split(".")
        values[first] = _with_entry(values.get(first), keys, value, first)
    return values


def _mapping(text):
    """The value of a flag that is a dict, in one line of JSON or YAML."""
    try:
        value = yaml.load(text, _RecipeLoader)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        raise ArgumentTypeError(f'{text!r} is no mapping; give JSON, for example \'{{"name": "scannet"}}\'')
    return value


def read_recipe(parser: HfArgumentParser, recipe: str | Path, overrides: Sequence[str] = ()):
    """Parse a recipe with an `HfArgumentParser`; flags in `overrides` replace its values.

    Args:
        parser (`HfArgumentParser`), recipe (`str` or `Path`), overrides (`list[str]`, defaults to `()`): arguments of
            `resolve_recipe`.
    Returns:
        `tuple`: one instance for each dataclass of the parser.
    Raises:
        FileNotFoundError, ValueError: as `resolve_recipe`.
    """
    return parser.parse_dict(resolve_recipe(parser, recipe, overrides))


def resolve_recipe(parser: HfArgumentParser, recipe: str | Path, overrides: Sequence[str] = ()) -> dict:
    """Read a recipe's values, and put those of the flags in `overrides` in their place.

    A key of a dict is a flag with a dot, whose value is read as YAML: `--module_learning_rates.fusion 1e-4`.

    Args:
        parser (`HfArgumentParser`): parser of the dataclasses whose fields the keys are.
        recipe (`str` or `Path`): see `find_recipe`.
        overrides (`list[str]`, defaults to `()`): flags, as
            `["--output_dir", "outputs/run", "--data.name", "scannet"]`.
    Returns:
        `dict`: values by key, as `parser.parse_dict` and `recipe_text` take them.
    Raises:
        FileNotFoundError: see `find_recipe`. ValueError: as `load_recipe`, and if a key or flag is in none of the
            dataclasses (with the nearest one), a value does not fit, a dotted flag is about no dict, or
            epochs are asked for that the recipe's max_steps would overrule.
    """
    parser.error = _refuse  # argparse would print all flags, and exit
    path = find_recipe(recipe)
    values = load_recipe(path)
    for action in parser._actions:  # argparse would call dict() on the text
        action.type = _mapping if action.type is dict else action.type
    known = {action.dest for action in parser._actions}
    unknown = sorted(str(key) for key in set(values) - known)
    if unknown:
        raise ValueError(
            f"{path} has the unknown keys {unknown}{nearest_name(unknown[0], known)}. Recipes of train, "
            "train-geometry-encoder and train-grpo have different keys."
        )
    overrides, dotted = _split_dotted(list(overrides))
    flags = {flag.split("=")[0].lstrip("-").replace("-", "_") for flag in overrides if flag.startswith("--")}
    given, rest = parser.parse_known_args(overrides)
    rest += sorted(flags - known)  # argparse takes abbreviations; a recipe does not
    if rest:
        raise ValueError(
            f"Unknown flags {rest}{nearest_name(rest[-1], known)}. Flags are the keys of a recipe, for example "
            "--max_steps 100."
        )
    if "num_train_epochs" in flags and "max_steps" not in flags and (values.get("max_steps") or -1) > 0:
        raise ValueError(
            f"--num_train_epochs is given, but max_steps: {values['max_steps']} of the recipe would overrule it. Give "
            "--max_steps -1 as well, and for rooms --num_rooms, the rooms of an epoch."
        )
    values.update({name: getattr(given, name) for name in flags})
    for name, value in dotted:
        _set_entry(values, name, value, parser)
    for kind in parser.dataclass_types:  # parse_dict checks no types
        check_kinds(kind, {key: values[key] for key in number_keys(kind) if key in values})
    return values


def recipe_text(values: dict) -> str:
    """Write the values of a recipe as YAML that `read_recipe` reads.

    Args:
        values (`dict`): values by key, from `resolve_recipe`.
    Returns:
        `str`: the YAML file.
    """
    plain = json.loads(json.dumps(values, default=str))  # no enums or tuples
    head = (
        "# The recipe of this run with its flags. The same command goes on with it, or in another --output_dir anew."
    )
    return f"{head}\n{yaml.dump(plain, Dumper=_RecipeDumper, sort_keys=False, allow_unicode=True)}"


def number_keys(kind):
    """Fields of a dataclass that take a number or a flag, and perhaps None."""
    hints = get_type_hints(kind).items()
    return [key for key, hint in hints if {*(get_args(hint) or (hint,))} <= {int, float, bool, NoneType}]


def _refuse(message):
    raise ValueError(f"{message}. Flags are the keys of a recipe, for example --max_steps 100.")


def read_yaml(text: str | bytes, name: str):
    """Read YAML; `name` says in a ValueError whose it was."""
    try:
        return yaml.load(text, _RecipeLoader)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise ValueError(f"{name}{place} is not YAML: {problem or error}.") from None


def _split_dotted(words):
    """Flags without a dot, and (name, value) of those with one: `--a.b 3` and `--a.b=3`."""
    plain, dotted = [], []
    while words:
        word = words.pop(0)
        name, has_value, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or "." not in name:
            plain.append(word)
            continue
        if not has_value:
            if not words or words[0].startswith("--"):
                raise ValueError(f"{word} has no value; give it as {word} VALUE.")
            value = words.pop(0)
        dotted.append((name, read_yaml(value, word)))
    return plain, dotted


def _set_entry(values, name, value, parser):
    """Set an entry of a dict of a recipe, that of "questions.counts.detection3d" two levels deep."""
    first, *keys = name.split(".")
    kinds = {key: kind for each in parser.dataclass_types for key, kind in get_type_hints(each).items()}
    dicts = [
        key for key, kind in kinds.items() if dict in (kind, *(get_origin(part) or part for part in get_args(kind)))
    ]
    if first not in dicts or not all(keys):
        raise ValueError(
            f"Unknown flags ['--{name}']{nearest_name(first, dicts)}. A flag with a dot is a key of one of the dicts "
            f"of a recipe, which are {', '.join(sorted(dicts))}."
        )
    entry = values.get(first) or {}
    if isinstance(entry, str):  # JSON, as these flags take it
        entry = json.loads(entry)
    values[first] = _with_entry(entry, keys, value, first)


def _with_entry(entry, keys, value, name):
    """The dict with a value some keys deep; None on the way becomes a dict."""
    if not keys:
        return value
    entry = {} if entry is None else entry
    if not isinstance(entry, dict):
        raise ValueError(f"{name} is {entry!r}, which has no key {keys[0]!r}.")
    key, *rest = keys
    return {**entry, key: _with_entry(entry.get(key), rest, value, f"{name}.{key}")}
