"""The dicts of a recipe, as `augmentation` or `variety`: which keys each may have, checked before any loading."""

import inspect
from dataclasses import fields

from ..processing.argument_checks import check_counts, check_kinds, check_names
from ..processing.data import RoomVariety, load_multiview
from ..processing.data.augmentation import AugmentationConfig
from ..processing.data.former_names import task_name
from ..processing.data.loading import source_options
from ..processing.data.task_makers import TASK_MAKERS
from .rooms import RoomQuestions
from .scene_collator import SceneCollator
from .scene_geometry import SceneGeometryDataset
from .scene_questions import SceneQuestionDataset


_CONFIGS = {"questions": RoomQuestions, "variety": RoomVariety, "augmentation": AugmentationConfig}
_ABOUT_DATA = {  # whose arguments they are, but for those that the run itself fills in
    "scene_tasks": (SceneQuestionDataset, {"rows", "augmentation"}),
    "collation": (
        SceneCollator,
        {"processor", "layout", "for_pretraining", "point_map_side", "answer_weights", "geometry"},
    ),
    "scenes": (SceneGeometryDataset, {"rows"}),
    "augmentation": (AugmentationConfig, ()),
}
_SECTIONS = ("data", "eval_data", "questions", "variety", *_ABOUT_DATA)


def check_sections(recipe_args: object) -> None:
    """Refuse misspelt keys in the dicts of a recipe; the nearest one that there is stands in the message.

    Args:
        recipe_args (`GeometryAlignedModelArguments` or `GeometryEncoderArguments`)
    Raises:
        ValueError: for a key that is not known, with those that are; if `data` names no source, or one that is not
            known; if `data` is missing for a section that is about it.
    """
    sections = {each.name: getattr(recipe_args, each.name) for each in fields(recipe_args)}
    sections = {name: sections[name] for name in _SECTIONS if name in sections}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise ValueError(f"{name} is {section!r}; expected a mapping of names to values.")
    source = None
    for name in ("data", "eval_data"):
        if sections[name]:
            source = sections[name].get("name", source)
            known = _parameters(load_multiview)
            check_names(name, sections[name], known if source is None else [*known, *source_options(source)])
            if source is None:
                raise ValueError(f"{name} has no name: give the source, as {{name: scannet_posed, data_dir: DIR}}.")
    for name, section in sections.items():
        if section and name in _ABOUT_DATA and not sections["data"]:
            raise ValueError(f"{name} is for data, and the recipe has none: name a source, or leave it out.")
        if name in _CONFIGS:
            check_names(name, section, [field.name for field in fields(_CONFIGS[name])])
            try:
                check_kinds(_CONFIGS[name], section)
            except ValueError as error:
                raise type(error)(f"{name}.{error}") from None
        elif name in _ABOUT_DATA:
            check_names(name, section, _parameters(*_ABOUT_DATA[name]))
    check_names("questions.counts", map(task_name, sections.get("questions", {}).get("counts", ())), TASK_MAKERS)
    check_counts(**{f"collation.{name}": bound for name, bound in sections.get("collation", {}).items()})


def _parameters(function, without=()):
    named = inspect.signature(function).parameters.values()
    return [each.name for each in named if each.kind is not each.VAR_KEYWORD and each.name not in without]


__all__ = ["check_sections"]
