"""Checks of what a caller passes: each error says which argument it is, what was got and what was expected.

For the borders of the package only; fields of records are checked in data/source_files.py.
"""

import difflib
import json
import math
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from .input_checks_gap_mllm import WrongKindError, check_count


def check_counts(least: int = 1, **values: object) -> None:
    """`check_count` of each value that is not None, by its name."""
    for name, value in values.items():
        if value is not None:
            check_count(name, value, least)


def check_names(name: str, given: Iterable, known: Iterable[str]) -> None:
    """Refuse names that are not known; the nearest one that is stands in the message.

    Args:
        name (`str`): what they are names in, as "augmentation". given (iterable): the names. known (iterable of `str`)
    Raises:
        ValueError: if one is not known.
    """
    known = list(known)
    for word in given:
        if word not in known:
            nearest = nearest_name(word, known)
            raise ValueError(
                f"{name} has the unknown key {word!r}{nearest}; it takes {', '.join(known) or 'no keys'}."
            )


def nearest_name(word: object, known: Iterable[str]) -> str:
    """Return " (did you mean 'max_steps'?)" for the nearest known name, or nothing where none is near."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_device(device: object = None):
    """Return a device that can be used here; for None the best there is, CUDA before the CPU.

    Raises:
        TypeError: if it is neither text nor `torch.device`. ValueError: if it cannot be used.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(device, str | torch.device):
        raise WrongKindError(f"device is {device!r}; expected a text such as cpu or cuda:0.")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(
            f"device is {str(device)!r}, which cannot be used here: {reason}. Give one such as cpu or cuda:0."
        ) from None
    return found


def check_dtype(dtype: object, known: Sequence[str] = ("auto", "float32", "bfloat16", "float16")):
    """Return the name of a kind of number.

    Raises:
        ValueError: if it is none of `known`.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in known:
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(known)}.")
    return name


def check_text(name: str, value: object, expected: str = "a text") -> str:
    """Return a text that is not empty; `expected` says what it should be.

    Raises:
        TypeError: if it is no text. ValueError: if it is empty.
    """
    if not isinstance(value, str):
        raise WrongKindError(f"{name} is {value!r}; expected {expected}.")
    if not value:
        raise ValueError(f"{name} is empty; expected {expected}.")
    return value


def check_path(name: str, value: object, expected: str = "the path of a file or folder") -> Path:
    """Return a path; an empty text is none, which would be the working folder.

    Raises:
        TypeError: if it is neither text nor path. ValueError: if it is empty.
    """
    if not isinstance(value, str | os.PathLike):
        raise WrongKindError(f"{name} is {value!r}; expected {expected}, as text or Path.")
    if value == "":
        raise ValueError(f"{name} is empty; expected {expected}.")
    return Path(value)


def check_output_folder(name: str, value: object) -> Path:
    """Return the path of a folder to write to, before any work is done for it.

    Raises:
        TypeError, ValueError: as `check_path`. NotADirectoryError: if there is a file of that name, or on the way.
    """
    path = check_path(name, value, "the folder to write to")
    for part in (path, *path.parents):
        if part.exists():
            if not part.is_dir():
                raise NotADirectoryError(f"{name} is {path}, but {part} is a file; give a folder to write to.")
            break
    return path


def check_output_file(name: str, value: object) -> Path:
    """Return the path of a file to write, before any work is done for it.

    Raises:
        TypeError, ValueError: as `check_path`. IsADirectoryError: if it is a folder. NotADirectoryError: if a file
            stands in the place of its folder.
    """
    path = check_path(name, value, "the file to write")
    if path.is_dir():
        raise IsADirectoryError(f"{name} is {path}, which is a folder; give a file to write.")
    check_output_folder(name, path.parent)
    return path


def check_kinds(config_class: type, values: Mapping) -> None:
    """Check values for the fields of a dataclass by the types that it declares, element by element.

    A path may stand for a text, a list for a tuple, a whole number for a number; a bool is never a number.

    Args:
        config_class (`type`): the dataclass.
        values (`Mapping`): values by name of the field; not all are needed.
    Raises:
        TypeError: if a value is of another type. ValueError: if a number is NaN, or a text empty.
    """
    kinds = typing.get_type_hints(config_class)
    for name, value in values.items():
        if not _fits(value, kinds[name]):
            raise WrongKindError(f"{name} is {value!r}; expected {_describe(kinds[name])}.")
        if isinstance(value, str) and not value:
            raise ValueError(f"{name} is empty; expected {_describe(kinds[name])}.")
        if isinstance(value, float | np.floating) and math.isnan(value):
            raise ValueError(f"{name} is nan; expected {_describe(kinds[name])}, not NaN.")


def _fits(value, kind) -> bool:
    origin, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in parts)
    if origin in (int, float):
        return isinstance(value, Real if origin is float else Integral) and not isinstance(value, bool)
    if origin is str:
        return isinstance(value, str | os.PathLike)
    if origin is tuple:
        return isinstance(value, tuple | list) and (not parts or _fit_elements(value, parts))
    if origin is list:
        return isinstance(value, tuple | list) and (not parts or _fit_elements(value, (*parts, ...)))
    if origin is dict:
        names, entries = parts or (object, object)
        return isinstance(value, Mapping) and all(_fits(k, names) and _fits(v, entries) for k, v in value.items())
    return origin is typing.Any or isinstance(value, origin)


def _fit_elements(values, kinds):
    kinds = kinds[:1] * len(values) if kinds[-1] is Ellipsis else kinds
    return len(values) == len(kinds) and all(_fits(v, kind) for v, kind in zip(values, kinds, strict=True))


_WORDS = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a text",
    tuple: "a list",
    list: "a list",
    dict: "a mapping",
    types.NoneType: "None",
}


def _describe(kind) -> str:
    origin, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_describe(part) for part in parts)
    text = _WORDS.get(origin, getattr(origin, "__name__", str(origin)))
    parts = [_describe(part) for part in parts if part is not Ellipsis]
    if origin is dict and parts:
        return f"{text} from {parts[0]} to {parts[1]}"
    return f"{text} of {' and '.join(parts)}" if parts else text


def check_same_run(folder: str | Path, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Refuse to go on in a folder that another run wrote.

    Args:
        folder (`str` or `Path`): folder of the results, for the message.
        before (`dict`): settings of what is there, JSON values.
        now (`dict`): settings of the present run, JSON values.
    Raises:
        ValueError: if a setting differs, or only one of the two has it; each is named.
    """
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differing:
        shown = "; ".join(f"{key}: {_short(before.get(key))} there, {_short(now.get(key))} now" for key in differing)
        raise ValueError(
            f"{folder} holds results of another run ({shown}). Give another output folder, or that run's settings."
        )


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
