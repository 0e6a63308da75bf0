"""Whether references have the form that a metric's `datasets.Features` describe: all keys, and the kinds of values.

`evaluate` itself takes a missing key for None and a number for a text, and names no record. Values that have the right
kind but mean nothing, as NaN in a box, are for the metric to refuse.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np

from ...processing.scores.reference_checks import as_array, is_number, is_whole_number, shorten


def check_form(value: Any, feature: Any, name: str, optional: Sequence[str] = ()) -> None:
    """Raise ValueError where a value departs from a feature, with the path to it, as "reference 3, boxes[0].label".

    Args:
        value (any): a reference. feature (`datasets` feature, or dict of them): what it should be.
        name (`str`): how messages call the value.
        optional (sequence of `str`, defaults to `()`): keys of the reference that may be missing or None.
    """
    if isinstance(feature, datasets.List):
        _check_list(value, feature.feature, name)
    elif isinstance(feature, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is {shorten(value)}; expected {_describe(feature)}.")
        for key, inner in feature.items():
            if key in optional and value.get(key) is None:
                continue
            if key not in value:
                raise ValueError(f"{name} has no {key!r}; expected {_describe(inner)}.")
            check_form(value[key], inner, f"{name}.{key}" if "," in name else f"{name}, {key}")
    elif not _is_of_kind(value, feature.dtype):
        raise ValueError(f"{name} is {shorten(value)}; expected {_describe(feature)}.")


def _check_list(value, feature, name):
    depth, inner = 1, feature
    while isinstance(inner, datasets.List):
        depth, inner = depth + 1, inner.feature
    if not isinstance(inner, Mapping) and not isinstance(value, str) and inner.dtype != "string":
        array = as_array(value)  # quick where a map has many numbers
        if array is not None and array.ndim == depth and "int" not in inner.dtype:
            return
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence | np.ndarray):
        raise ValueError(f"{name} is {shorten(value)}; expected {_describe(datasets.List(feature))}.")
    for place, entry in enumerate(value):
        check_form(entry, feature, f"{name}[{place}]")


def _is_of_kind(value, dtype):
    if dtype == "string":
        return isinstance(value, str)
    return is_whole_number(value) if dtype.startswith("int") else is_number(value)


def _describe(feature, are_many=False):
    if isinstance(feature, datasets.List):
        return f"{'lists' if are_many else 'a list'} of {_describe(feature.feature, True)}"
    if isinstance(feature, Mapping):
        return f"{'dicts' if are_many else 'a dict'} with {', '.join(map(repr, feature))}"
    kind = "text" if feature.dtype == "string" else "whole number" if feature.dtype.startswith("int") else "number"
    return f"{kind}s" if are_many else kind if kind == "text" else f"a {kind}"
