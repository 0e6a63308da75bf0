"""Metrics as strict JSON, which knows no infinity: it is written as text, so that every reader takes the file."""

import json
import math
from pathlib import Path


def save_metrics(metrics: dict, path: str):
    """Write metrics to a JSON file, sorted as given.

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
    Path(path).write_text(json.dumps(_plain(metrics), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "item"):  # a number of numpy or torch
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


__all__ = ["save_metrics"]
