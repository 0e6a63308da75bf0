"""Plots of a report: how errors are spread, what each kind of question reaches, precision and recall over overlaps.

Needs matplotlib (the extra "eval"). Each function returns the file it wrote, or None where there is nothing to draw.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from ...processing.drawing import new_figure
from .baseline_answers import MODEL


VALUES = {  # field of a record -> label of the axis, and whether lower is better
    "error_m": ("distance from the true point (m)", True),
    "iou": ("overlap with the true box (IoU)", False),
    "score": ("score of an answer", False),
}
COLORS = {
    MODEL: "#1f4e9c",
    "blind": "#8a8a8a",
    "first_view": "#e69f00",
    "other_geometry": "#cc3311",
    "without_geometry": "#7a3e9d",
    "constant": "#2e8b57",
}
MAX_CATEGORIES = 24


def plot_histogram(records: dict, field: str, path: str | Path) -> Path:
    """Draw how the values of single answers are spread, the model as bars and the others as steps.

    Args:
        records (`dict[str, list[dict]]`): records of the model and each baseline.
        field (`str`): what is drawn of them, a key of `VALUES`.
        path (`str` or path): the PNG file.
    Returns:
        `Path`.
    """
    label, _ = VALUES[field]
    values = {
        baseline: np.array([record[field] for record in given], dtype=float) for baseline, given in records.items()
    }
    finite = np.concatenate([part[np.isfinite(part)] for part in values.values()])
    top = 1.0 if field != "error_m" else float(np.quantile(finite, 0.98)) if len(finite) else 1.0
    edges = np.linspace(0, max(top, 1e-6), 25)
    figure = new_figure(8.5, 1.1 + 1.35 * len(values))
    panels = figure.subplots(len(values), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (baseline, part) in zip(panels, values.items(), strict=True):
        shown = np.clip(part, edges[0], edges[-1] * (1 - 1e-9))  # what lies beyond stands in the last bar
        axes.hist(shown, edges, weights=np.full(len(part), 1 / len(part)), color=COLORS[baseline], edgecolor="white")
        missed = int((~np.isfinite(part)).sum())
        name = f"{baseline}, {missed} of {len(part)} unreadable" if missed else baseline
        axes.set_title(name, fontsize=10, loc="left", pad=3)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    panels[len(panels) // 2].set_ylabel("share of answers")
    beyond = "; the last bar holds all beyond it and all unreadable answers" if field == "error_m" else ""
    panels[-1].set_xlabel(f"{label}{beyond}")
    return _save(figure, path)


def plot_categories(records: dict, field: str, path: str | Path) -> Path | None:
    """Draw what each kind of question reaches: the median error or the mean score, model and others side by side.

    Args:
        records (`dict[str, list[dict]]`): records of the model and each baseline, with "category".
        field (`str`): what is drawn of them, a key of `VALUES`.
        path (`str` or path): the PNG file.
    Returns:
        `Path`, or None without categories.
    """
    label, is_error = VALUES[field]
    statistic = np.median if is_error else np.mean
    counts = Counter(record["category"] for record in records[MODEL] if record["category"] is not None)
    names = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_CATEGORIES]
    if not names:
        return None
    figure = new_figure(9.0, 1.8 + 0.13 * len(names) * (len(records) + 1))
    axes = figure.add_subplot()
    height = 0.85 / len(records)
    for place, (baseline, given) in enumerate(records.items()):
        values = [statistic([record[field] for record in given if record["category"] == name]) for name in names]
        places = np.arange(len(names)) + place * height
        shown = np.where(np.isfinite(values), values, 0)
        axes.barh(places, shown, height, color=COLORS[baseline], label=baseline)
        for where, value in zip(places, values, strict=True):
            if not np.isfinite(value):
                axes.text(0, where, " mostly unreadable", va="center", fontsize=7, color=COLORS[baseline])
    axes.set_yticks(np.arange(len(names)) + 0.425 - height / 2, [f"{name} ({counts[name]})" for name in names])
    axes.set_ylim(len(names) - 0.02, -0.15)
    kind = "median " if is_error else "mean "
    axes.set_xlabel(f"{kind}{label}, {'lower' if is_error else 'higher'} is better")
    more = f" (the {len(names)} commonest of {len(counts)})" if len(counts) > len(names) else ""
    axes.set_title(f"By kind of question, with its number of questions{more}")
    axes.legend(fontsize=9)
    axes.grid(alpha=0.3, axis="x")
    return _save(figure, path)


def plot_thresholds(curves: dict, path: str | Path) -> Path:
    """Draw precision and recall over the overlap that makes a hit.

    Text answers carry no confidence, so precision over recall is one point for each overlap, drawn on the right.

    Args:
        curves (`dict[str, dict]`): "overlap", "precision" and "recall" of the model and each
            baseline, lists of one length.
        path (`str` or path): the PNG file.
    Returns:
        `Path`.
    """
    figure = new_figure(11.0, 4.6)
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    for baseline, curve in curves.items():
        thresholds, precisions, recalls = curve["overlap"], curve["precision"], curve["recall"]
        left.plot(thresholds, precisions, color=COLORS[baseline], label=f"{baseline}, precision")
        left.plot(thresholds, recalls, color=COLORS[baseline], linestyle="--", label=f"{baseline}, recall")
        right.plot(recalls, precisions, color=COLORS[baseline], marker="o", markersize=3, label=baseline)
    left.set(title="All objects of all labels", xlabel="overlap that makes a hit (IoU)", ylabel="precision, recall")
    right.set(title="The same, one point for each overlap", xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02))
    for axes in (left, right):
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return _save(figure, path)


def _save(figure, path):
    figure.tight_layout()
    figure.savefig(path, format="png")
    return Path(path)
