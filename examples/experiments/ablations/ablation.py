"""What an ablation compares, read from a YAML file: one recipe, and arms that are changes of its values.

An arm is a mapping of the recipe's keys, those of its dicts with a dot, or a list of such mappings: stages that are
trained one after the other. A stage may name a recipe of its own, and `{previous}` in a text is the folder of the
stage before it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path

from gap_mllm.processing.argument_checks import check_names
from gap_mllm.training.recipes import read_yaml

from .room_scores import RoomTest


ABLATION_FOLDER = Path(__file__).parent
PREVIOUS = "{previous}"
_OURS = ("output_dir", "seed")  # of every run, by its place


@dataclass(frozen=True)
class Ablation:
    """Arms of one recipe, and how they are compared.

    Args:
        name (`str`): name for titles.
        recipe (`str`): recipe that the arms change, by name or path.
        arms (`dict[str, dict | list[dict]]`): changes of each arm; `{}` is the recipe as it is.
        seeds (`list[int]`, defaults to `[0, 1, 2]`): seeds of each arm.
        overrides (`dict`, defaults to `{}`): changes of all arms; those of an arm beat them.
        variants (`dict[str, dict]`, defaults to `{}`): further changes by name, as amounts of data; every arm is
            trained with each of them, and beats them, too.
        compare_to (`list[str]`, *optional*): arms that the others are held to; by default the first.
        only (`list[str]`, *optional*): arms that are trained and compared; by default all.
        test (`dict`, defaults to `{}`): fields of `RoomTest`.
        smoke (`dict`, defaults to `{}`): short runs of all terms that no arm weighs: `arm`, whose changes they begin
            from, `overrides` on top, and `terms` with settings by name.
    Raises:
        ValueError: for no arms or seeds, an arm that is no mapping or changes what every run has of its own, or
            names that are not known.
    """

    name: str
    recipe: str
    arms: dict
    seeds: list = field(default_factory=lambda: [0, 1, 2])
    overrides: dict = field(default_factory=dict)
    variants: dict = field(default_factory=dict)
    compare_to: list = field(default_factory=list)
    only: list = field(default_factory=list)
    test: dict = field(default_factory=dict)
    smoke: dict = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.arms, Mapping) or not self.arms or not isinstance(self.recipe, str):
            raise ValueError(f"The ablation {self.name!r} needs a recipe, and arms: {{name: {{key: value}}, ..}}.")
        if not self.seeds or not all(type(seed) is int and seed >= 0 for seed in self.seeds):
            raise ValueError(f"seeds is {self.seeds!r}; expected one or more whole numbers from 0, as [0, 1, 2].")
        for each in ("seeds", "compare_to"):
            if len(set(getattr(self, each))) < len(getattr(self, each)):
                raise ValueError(f"{each} is {getattr(self, each)!r}, which names one twice.")
        check_names("compare_to", self.compare_to, self.arms)
        check_names("arms", self.only, self.arms)
        check_names("smoke", self.smoke, ("arm", "overrides", "terms"))
        check_names("smoke.arm", [self.smoke["arm"]] if "arm" in self.smoke else [], self.arms)
        if not isinstance(self.variants, Mapping) or not all(isinstance(of, Mapping) for of in self.variants.values()):
            raise ValueError(f"variants is {self.variants!r}; expected changes by name, as {{few: {{num_rooms: 9}}}}.")
        for name in (*self.arms, *self.variants):
            if not re.fullmatch(r"[\w.+-]+", str(name)):
                raise ValueError(f"{name!r} names a folder of runs: give letters, digits, and one of _ . + -.")
        for arm, variant in product(self.arms, self.variants or [None]):
            for _, values in self.stages(arm, variant):
                if taken := [key for key in _OURS if key in values]:
                    raise ValueError(f"The arm {arm!r} changes {taken}, which every run has of its own.")
        check_names("test", self.test, [each.name for each in fields(RoomTest)])
        RoomTest(**self.test)

    @property
    def chosen(self) -> list[str]:
        """Arms that are trained and compared, in the order of `arms`."""
        return [arm for arm in self.arms if arm in (self.only or self.arms)]

    @property
    def references(self) -> list[str]:
        """Arms that the others are held to."""
        return [arm for arm in self.compare_to if arm in self.chosen] or self.chosen[:1]

    def stages(self, arm: str, variant: str | None = None) -> list[tuple[str, dict]]:
        """Recipe and changes of each training of an arm, in order.

        Args:
            arm (`str`): name of the arm.
            variant (`str`, *optional*): name of the variant; none of them by default.
        Returns:
            `list[tuple[str, dict]]`.
        """
        stages = self.arms[arm] if isinstance(self.arms[arm], list) else [self.arms[arm] or {}]
        if not stages or not all(isinstance(stage, Mapping) for stage in stages):
            raise ValueError(f"The arm {arm!r} is {self.arms[arm]!r}; expected changes as {{key: value}}, or a list.")
        told = [{**self.overrides, **self.variants.get(variant, {}), **stage} for stage in stages]
        return [(stage.pop("recipe", self.recipe), stage) for stage in told]


def read_ablation(ablation: str | Path | Mapping, overrides: Mapping | None = None, **changes) -> Ablation:
    """Read an ablation by name from examples/experiments/ablations, or by path.

    Args:
        ablation (`str`, `Path` or `dict`): name, YAML file, or what stands in one.
        overrides (`dict`, *optional*): further changes of all arms.
        **changes: other fields in place of the file's, as `seeds=[0]`; None changes nothing. `arms` may be a list of
            names, which are kept.
    Returns:
        `Ablation`.
    Raises:
        FileNotFoundError: if there is no such ablation; lists those there are. ValueError: if the file is no YAML,
            and as `Ablation`.
    """
    name = "ablation"
    if isinstance(ablation, Mapping):
        told = dict(ablation)
    else:
        path = _find(ablation)
        told, name = read_yaml(path.read_bytes(), str(path)), path.stem
        if not isinstance(told, dict):
            raise ValueError(f"{path} must hold a mapping with recipe and arms.")
    check_names(f"The ablation {name!r}", told, [each.name for each in fields(Ablation)])
    told = {"name": name, "recipe": None, "arms": None, **told}
    arms = changes.pop("arms", None)
    if arms is not None:
        told["only"] = list(arms)
    told |= {key: value for key, value in changes.items() if value is not None}
    told["overrides"] = {**(told.get("overrides") or {}), **(overrides or {})}
    return Ablation(**told)


def _find(ablation):
    for path in (Path(ablation), ABLATION_FOLDER / f"{ablation}.yaml"):
        if path.is_file():
            return path
    names = sorted(path.stem for path in ABLATION_FOLDER.glob("*.yaml"))
    raise FileNotFoundError(
        f"There is no ablation {str(ablation)!r}. Give the path of a YAML file, or one of {names}."
    )


def read_flags(words: Sequence[str]) -> dict:
    """Flags of a command line, `--max_steps 9 --terms.depth.weight=1`, as changes by key.

    Args:
        words (`Sequence[str]`): words of the command line.
    Returns:
        `dict`: texts, and lists of them where a flag has several.
    Raises:
        ValueError: for a word without a flag before it, and a flag without a value.
    """
    values = {}
    for word in words:
        if word.startswith("--"):
            key, has_value, value = word.removeprefix("--").partition("=")
            values[key] = [value] if has_value else []
        elif not values:
            raise ValueError(f"{word!r} stands alone; changes of all arms are flags, as --max_steps 100.")
        else:
            values[list(values)[-1]].append(word)
    if empty := [key for key, given in values.items() if not given]:
        raise ValueError(f"--{empty[0]} has no value; give it as --{empty[0]} VALUE.")
    return {key: given[0] if len(given) == 1 else given for key, given in values.items()}


def flags_of(values: Mapping) -> list[str]:
    """Changes of a recipe as flags of its command: a mapping or a dotted value as JSON, a list in words.

    Args:
        values (`Mapping`): changes by key.
    Returns:
        `list[str]`.
    """
    flags = []
    for key, value in values.items():
        is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
        if isinstance(value, Sequence) and not isinstance(value, str) and "." not in key:
            flags += [f"--{key}", *map(str, value)]
        else:
            flags += [f"--{key}", str(value) if is_plain else json.dumps(value)]
    return flags
