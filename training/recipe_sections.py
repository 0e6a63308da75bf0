"""The dicts of a recipe, as `augmentation` or `variety`: which keys each may have, checked before any loading."""

import inspect
from dataclasses import fields

from ..processing.argument_checks import check_counts, check_kinds, check_names
from ..processing.data import RoomVariety
from ..processing.data.augmentation import AugmentationConfig
from ..processing.data.former_names import task_name
from ..processing.data.loading import source_options
from ..processing.data.task_makers import TASK_MAKERS
from ..processing.input_checks_gap_mllm import check_flag
from ..processing.tiny_tokenizer import build_tiny_processor
from .cold_start import ColdStartQuestions
from .frozen_geometry import FrozenGeometry
from .recipe_sources import LOADING, SECTIONS, SHARES, read_evaluation, read_sources
from .rewards import compose_rewards
from .rooms import RoomQuestions
from .scene_collator import SceneCollator
from .scene_geometry import SceneGeometryDataset
from .scene_questions import SceneQuestionDataset, read_tasks
from .schedule import read_weight, read_weights


_CONFIGS = {"questions": RoomQuestions, "variety": RoomVariety, "augmentation": AugmentationConfig}
_ABOUT_DATA = {  # whose arguments they are, but for those that the run itself fills in
    "scene_tasks": (SceneQuestionDataset, {"rows", "augmentation"}),
    "collation": (
        SceneCollator,
        {"processor", "layout", "for_pretraining", "point_map_side", "answer_weights", "geometry", "known_geometry"}
        | {"teaching"},
    ),
    "scenes": (SceneGeometryDataset, {"rows"}),
    "augmentation": (AugmentationConfig, ()),
}
_SECTIONS = (
    "data",
    "eval_data",
    "questions",
    "variety",
    "cold_start",
    "frozen_geometry",
    "tiny_processor",
    *_ABOUT_DATA,
)


def check_sections(recipe_args: object) -> None:
    """Refuse misspelt keys in the dicts of a recipe; the nearest one that there is stands in the message.

    Args:
        recipe_args (`GeometryAlignedModelArguments` or `GeometryEncoderArguments`)
    Raises:
        ValueError: for a key that is not known, with those that are; if `data` or one of its sources names no source,
            or one that is not known; for a weight or limit that is none, or if `data` is missing for a section that is
            about it, or streamed for a cold start.
    """
    sections = {each.name: getattr(recipe_args, each.name) for each in fields(recipe_args)}
    sections = {name: sections[name] for name in _SECTIONS if name in sections}
    for name, section in sections.items():
        if section and name in _ABOUT_DATA and not sections["data"]:
            raise ValueError(f"{name} is for data, and the recipe has none: name a source, or leave it out.")
        _check_section(name, section)
    sources = read_sources(sections["data"])
    evaluation = read_evaluation(sections["data"], sections["eval_data"])
    for section, given in (("data", sources), ("eval_data", evaluation)):
        for name, source in given.items():
            _check_source(f"{section}.{name}".rstrip("."), source, sections, section == "data" and name != "")
    if sources:
        read_weights("data", {name: source.get("weight", 1.0) for name, source in sources.items()})
    if cold_start := sections.get("cold_start"):
        check_names("cold_start", cold_start, _parameters(ColdStartQuestions, {"questions", "processor", "write"}))
        compose_rewards(cold_start.get("rewards", {}))
        if any(source.get("streaming") for source in sources.values()):
            raise ValueError("data has streaming=True, but cold_start looks for the answers that are worth learning.")
    check_names("frozen_geometry", sections.get("frozen_geometry", ()), _parameters(FrozenGeometry, {"model"}))
    check_names("tiny_processor", sections.get("tiny_processor", ()), _parameters(build_tiny_processor))
    check_names("questions.counts", map(task_name, sections.get("questions", {}).get("counts", ())), TASK_MAKERS)
    RoomQuestions(**sections.get("questions", {}))
    bounds = {f"collation.{name}": value for name, value in sections.get("collation", {}).items()}
    check_flag("collation.intrinsics_in_prompt", bounds.pop("collation.intrinsics_in_prompt", False))
    check_counts(**bounds)


def _check_source(name, source, sections, is_weighted):
    """Refuse misspelt keys of a source before any is read."""
    own = {key for key in SECTIONS if key in sections} - ({"augmentation"} if name.startswith("eval") else set())
    known = [*LOADING, *(SHARES if is_weighted else SHARES[1:]), *sorted(own)]
    check_names(name, source, known if "name" not in source else [*known, *source_options(source["name"])])
    if "name" not in source:
        raise ValueError(f"{name} has no name: give the source, as {{name: scannet_posed, data_dir: DIR}}.")
    check_counts(**{f"{name}.limit": source.get("limit")})
    read_weight(f"{name}.weight", source.get("weight", 1.0), least=0.0)
    for key in own & {*source}:
        check_names(f"{name}.{key}", source[key], _parameters(*_ABOUT_DATA[key], "length"))
        _check_section(f"{name}.{key}", source[key], key)


def _check_section(name, section, kind=None):
    """Refuse misspelt keys of a section, and values that cannot be."""
    if not isinstance(section, dict):
        raise ValueError(f"{name} is {section!r}; expected a mapping of names to values.")
    kind = kind or name
    if kind in _CONFIGS:
        check_names(name, section, [field.name for field in fields(_CONFIGS[kind])])
        try:
            check_kinds(_CONFIGS[kind], section)
        except ValueError as error:
            raise type(error)(f"{name}.{error}") from None
    elif kind in _ABOUT_DATA:
        check_names(name, section, _parameters(*_ABOUT_DATA[kind]))
    if kind == "scene_tasks":
        read_tasks(section.get("tasks"))


def _parameters(function, without=(), *others):
    named = inspect.signature(function).parameters.values()
    return [each.name for each in named if each.kind is not each.VAR_KEYWORD and each.name not in {*without, *others}]
