# pyright: basic
"""Teachers by name, from views to `TeacherTargets`: what was recorded, VGGT, Depth Anything 3, or a cache of any."""

import inspect
from collections.abc import Callable

from ...processing.argument_checks import check_names, nearest_name
from .cached_teacher import CachedTeacher
from .depth_anything_teacher import DepthAnythingTeacher
from .model_teacher import ModelTeacher
from .recorded_teacher import RecordedTeacher
from .teacher_targets import SceneTeacher, TeacherTargets


TEACHERS: dict[str, Callable[..., SceneTeacher]] = {
    "recorded": RecordedTeacher,
    "vggt": ModelTeacher.from_pretrained,
    "depth_anything_3": DepthAnythingTeacher.from_pretrained,
    "cache": CachedTeacher,
}


def make_teacher(name: str, **settings) -> SceneTeacher:
    """Make a teacher by its name, as a recipe does.

    Args:
        name (`str`): one of `TEACHERS`.
        settings: arguments of that teacher, as `path` of "vggt"; the `teacher` of "cache" also by its name, or a
            mapping of name and settings.
    Returns:
        `SceneTeacher`.
    Raises:
        ValueError: for a name or setting that is not known, where the nearest one is named, or a setting that is
            needed and missing.

    Example:
        ```python
        >>> from gap_mllm.training.teachers import make_teacher
        >>> make_teacher("recorded", poses=False)
        RecordedTeacher(poses=False, normalise=False)

        ```
    """
    if name not in TEACHERS:
        raise ValueError(f"teacher is {name!r}{nearest_name(name, TEACHERS)}; expected one of {', '.join(TEACHERS)}.")
    parameters = inspect.signature(TEACHERS[name]).parameters
    check_names(f"teacher {name}", settings, parameters)
    needed = [key for key, each in parameters.items() if each.default is each.empty and key not in settings]
    if needed:
        example = ", ".join([f"name: {name}", *(f"{key}: .." for key in needed)])
        raise ValueError(f"teacher {name} needs {', '.join(needed)}; give its settings, too, as {{{example}}}.")
    if isinstance(told := settings.get("teacher"), str | dict):
        told = {"name": told} if isinstance(told, str) else dict(told)
        settings["teacher"] = make_teacher(told.pop("name", ""), **told)
    return TEACHERS[name](**settings)


__all__ = [
    "TEACHERS",
    "CachedTeacher",
    "DepthAnythingTeacher",
    "ModelTeacher",
    "RecordedTeacher",
    "SceneTeacher",
    "TeacherTargets",
    "make_teacher",
]
