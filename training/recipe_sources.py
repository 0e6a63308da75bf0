"""The sources that a recipe trains and evaluates on: one, or several by name, each with a weight and a limit.

`data: {name: scannet_posed, data_dir: DIR}` is one source. `data: {scans: {name: scannet_posed, data_dir: DIR,
weight: 2.0, limit: 5000, scene_tasks: {num_views: 8}}, rooms: {name: rendered_rooms, weight: {0: 1.0, 0.5: 0.2}}}` are
two, and `eval_data` takes the same two forms.
"""

import inspect
from collections.abc import Callable

from torch.utils.data import Dataset, IterableDataset
from transformers import TrainingArguments

from ..processing.data import load_multiview
from ..processing.data.augmentation import AugmentationConfig, SceneAugmentation
from .mixtures import MixedDataset, MixedStream
from .scene_questions import SceneQuestionDataset, SceneQuestionStream


SHARES = ("weight", "limit")  # what a source has beside the arguments of load_multiview,
SECTIONS = ("scene_tasks", "augmentation", "scenes")  # and sections of the recipe that it may have keys of its own in
LOADING = tuple(
    each.name for each in inspect.signature(load_multiview).parameters.values() if each.kind is not each.VAR_KEYWORD
)


def read_sources(section: dict) -> dict[str, dict]:
    """Read `data` or `eval_data` of a recipe.

    Args:
        section (`dict`): one source, or several by name.
    Returns:
        `dict[str, dict]`: sources by name; one alone has the name "".
    """
    is_one = not all(isinstance(value, dict) for value in section.values())
    if is_one or {*section} & {*LOADING, *SHARES, *SECTIONS}:
        return {"": section}
    return section


def read_evaluation(data: dict, eval_data: dict) -> dict[str, dict]:
    """Read `eval_data` of a recipe: a set that names no source is of that of `data` which has the set's name.

    Args:
        data (`dict`), eval_data (`dict`): sections of a recipe.
    Returns:
        `dict[str, dict]`: sets by name, one alone has the name "". Each of the split "val" where it names none, of
        rooms "selection".
    """
    sources, sets = read_sources(data), {}
    for name, given in read_sources(eval_data).items():
        base = {} if "name" in given else sources.get(name, sources.get("", {}))
        base = {key: value for key, value in base.items() if key not in ("streaming", "split", *SHARES)}
        merged = {**base, **given}
        sets[name] = {"split": "selection" if merged.get("name") == "rendered_rooms" else "val", **merged}
    return sets


def follows_run(recipe_args: object) -> bool:
    """Whether what is drawn or asked follows the run: a weight of a source or task, a count or style of rooms."""
    weights = [*getattr(recipe_args, "questions", {}).get("counts", {}).values()]
    weights.append(getattr(recipe_args, "variety", {}).get("style_share"))
    for source in read_sources(recipe_args.data).values():
        tasks = sections_of(recipe_args, source)["scene_tasks"].get("tasks")
        weights += [source.get("weight"), *(tasks.values() if isinstance(tasks, dict) else ())]
    return any(isinstance(weight, dict) for weight in weights)


def training_items(
    recipe_args: object, args: TrainingArguments, make: Callable[..., Dataset]
) -> Dataset | IterableDataset:
    """Items of the sources of a recipe for every step of the run, mixed where there are several.

    Args:
        recipe_args (`DataArguments`), args (`TrainingArguments`): arguments of a recipe.
        make (`Callable`): `make(rows, sections, length)` gives a dataset of rows, or a stream; `sections` are those of
            the recipe with the keys of the source.
    Returns:
        `Dataset` or `IterableDataset`: what `make` gives where there is one source without limit, and nothing follows
        the run.
    Raises:
        as `load_multiview`, `make`, `MixedDataset` and `MixedStream`.
    """
    sources, items, limits = read_sources(recipe_args.data), {}, {}
    given = [getattr(recipe_args, section, {}).get("length") for section in SECTIONS]
    length, whole = next(filter(None, given), None), args.num_train_items
    for name, source in sources.items():
        rows, limit = _load({"split": "train", **source}), source.get("limit")
        is_streamed = isinstance(rows, IterableDataset)
        if is_streamed:
            rows = rows if limit is None else rows.take(limit)
            rows = rows.shuffle(seed=args.seed).decode(False)  # no sampler can; samples decode what they show
        elif limit is not None:
            limits[name] = limit
        own = None if is_streamed else length or max(len(rows), whole or 0)
        items[name] = make(rows, sections_of(recipe_args, source), own)
        if len(sources) == 1 and not limits and not getattr(items[name], "is_scheduled", False):
            return items[name]
    weights = {name: source.get("weight", 1.0) for name, source in sources.items()}
    kind = MixedStream if any(isinstance(each, IterableDataset) for each in items.values()) else MixedDataset
    return kind(items, weights, limits, length or whole, args.seed)


def evaluation_items(
    recipe_args: object, args: TrainingArguments, make: Callable[..., Dataset]
) -> Dataset | dict[str, Dataset] | None:
    """Items to evaluate on: the same every time, nothing augmented.

    Args:
        recipe_args (`DataArguments`), args (`TrainingArguments`), make (`Callable`): arguments of `training_items`.
    Returns:
        `Dataset`, or several by name as `Trainer` takes them, or None without `eval_data`.
    Raises:
        as `load_multiview` and `make`.
    """
    sets = {}
    for name, source in read_evaluation(recipe_args.data, recipe_args.eval_data).items():
        sets[name] = make(_load(source), {**sections_of(recipe_args, source), "augmentation": {}}, None)
        if "limit" in source:
            sets[name] = MixedDataset({name: sets[name]}, limits={name: source["limit"]}, seed=args.seed)
    return sets.get("", sets or None)


def each_set(sets: Dataset | dict[str, Dataset] | None, make: Callable[[Dataset], object]) -> object:
    """Make something of an evaluation set, or of each of several; None of none."""
    if isinstance(sets, dict):
        return {name: make(each) for name, each in sets.items()}
    return None if sets is None else make(sets)


def training_questions(recipe_args: object, args: TrainingArguments) -> Dataset | IterableDataset:
    """Questions about the sources of a recipe for every step of the run, see `training_items`."""
    return training_items(recipe_args, args, lambda *made: _questions(args.seed, *made))


def evaluation_questions(recipe_args: object, args: TrainingArguments) -> Dataset | dict[str, Dataset] | None:
    """Questions to evaluate on, see `evaluation_items`."""
    return evaluation_items(recipe_args, args, lambda *made: _questions(args.seed, *made))


def _questions(seed, rows, sections, length):
    options = {"seed": seed, **sections["scene_tasks"]}
    if sections["augmentation"]:
        augmentation = AugmentationConfig(**{"seed": seed, **sections["augmentation"]})
        options["augmentation"] = SceneAugmentation(augmentation)
    if isinstance(rows, IterableDataset):
        return SceneQuestionStream(rows, **options)
    return SceneQuestionDataset(rows, length, **options)


def _load(source):
    return load_multiview(**{key: value for key, value in source.items() if key not in (*SHARES, *SECTIONS)})


def sections_of(recipe_args: object, source: dict) -> dict[str, dict]:
    """Sections of the recipe about data, with the keys of a source; but for "length", which is that of the run."""
    merged = {name: {**getattr(recipe_args, name, {}), **source.get(name, {})} for name in SECTIONS}
    return {name: {key: value for key, value in each.items() if key != "length"} for name, each in merged.items()}
