"""Metrics as strict JSON, which knows no infinity: it is written as text, so that every reader takes the file."""

import json
import math
from pathlib import Path

from .data.folder_writing import write_atomically


def save_metrics(metrics: dict, path: str | Path):
    """Write metrics to a JSON file, sorted as given; the file is there whole or as it was.

    Args:
        metrics (`dict`): numbers, texts, lists and dicts of them; "Infinity", "-Infinity" and "NaN" are written as
            text.
        path (`str` or path): the file.
    Raises:
        TypeError: if a value is of another kind.

    Example:
        ```python
        >>> from gap_mllm.evaluation import save_metrics
        >>> save_metrics({"point_error_m": float("inf")}, "metrics.json")
        >>> print(open("metrics.json").read().strip())
        {
          "point_error_m": "Infinity"
        }

        ```
    """
    write_atomically(path, json.dumps(strict_json(metrics), indent=2, allow_nan=False) + "\n")


def strict_json(value: object) -> object:
    """Numbers, texts, lists and dicts of them as strict JSON can hold them: "Infinity" and "NaN" as texts."""
    if isinstance(value, dict):
        return {str(key): strict_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(entry) for entry in value]
    if hasattr(value, "item"):  # a number of numpy or torch
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def load_metrics(path: str | Path) -> dict:
    """Read what `save_metrics` wrote, infinities and NaN as numbers again.

    Args:
        path (`str` or path): the file.
    Returns:
        `dict`: the metrics.
    Raises:
        FileNotFoundError: without the file. json.JSONDecodeError: if it holds no JSON.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metrics, save_metrics
        >>> save_metrics({"point_error_m": float("inf"), "parse_rate": 0.0}, "metrics.json")
        >>> load_metrics("metrics.json")
        {'point_error_m': inf, 'parse_rate': 0.0}

        ```
    """
    return _with_numbers(json.loads(Path(path).read_text(encoding="utf-8")))


def _with_numbers(value):
    if isinstance(value, dict):
        return {key: _with_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_numbers(entry) for entry in value]
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value
