"""Curves of a run over its steps; answers are drawn by `gap_mllm.processing.drawing`, whose names stand here, too.

Needs matplotlib (the extra "eval").
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..processing.drawing import VIEW_COLOR, AnswerExample, draw_answers, new_figure, project_wireframe


def plot_curves(log_history: Sequence[dict], path: str | Path, baselines: dict[str, dict[str, float]] | None = None):
    """Draw the loss terms and the evaluation metrics of a run over its steps.

    Args:
        log_history (`list[dict]`): `trainer.state.log_history`: entries with "step" and numbers; "loss..." are
            drawn together on a logarithmic axis where they are positive, each "eval_..." metric for itself.
        path (`str` or path): the PNG file to write.
        baselines (`dict[str, dict[str, float]]`, *optional*): what blind baselines reach in each metric (without
            "eval_"), by name; drawn as dashed lines.
    Raises:
        ValueError: if the history holds nothing to draw. ImportError: without matplotlib.

    Example:
        ```python
        >>> from gap_mllm.evaluation import plot_curves
        >>> plot_curves([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], "curves.png")

        ```
    """
    losses = _series(log_history, lambda key: key == "loss" or key.startswith("loss_"))
    skipped = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    metrics = _series(log_history, lambda key: key.startswith("eval_") and key not in skipped)
    if not losses and not metrics:
        raise ValueError("log_history holds neither losses nor evaluation metrics; pass trainer.state.log_history.")
    names = (["loss"] if losses else []) + list(metrics)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(5.2 * columns, 3.8 * rows)
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_xlabel("optimiser step")
        axes.grid(alpha=0.3)
        if name == "loss":
            _draw_losses(axes, losses)
        else:
            _draw_metric(axes, name.removeprefix("eval_"), metrics[name], baselines or {})
    figure.tight_layout()
    figure.savefig(path, format="png")


def _series(log_history, is_wanted):
    """{key: (steps, values)} of the finite numbers under the wanted keys."""
    series = {}
    for entry in log_history:
        for key, value in entry.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
            if is_wanted(key) and is_number and "step" in entry:
                steps, values = series.setdefault(key, ([], []))
                steps.append(entry["step"])
                values.append(value)
    return series


def _draw_losses(axes, losses):
    for key, (steps, values) in losses.items():
        is_sum = key == "loss"
        label = "sum, weighted" if is_sum else key.removeprefix("loss_").replace("_", " ")
        style = {"color": "black", "linewidth": 2} if is_sum else {"linewidth": 1.3}
        axes.plot(steps, values, label=label, marker="o" if len(steps) == 1 else None, **style)  # one point is no line
    if min(min(values) for _, values in losses.values()) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        low, high = axes.get_ylim()
        is_narrow = high < 20 * low  # else labels between the powers of ten would stand on each other
        axes.yaxis.set_minor_formatter("{x:g}" if is_narrow else "")
        axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.set(title="Training loss and its terms", ylabel="loss, average of each term's items")
    axes.legend(fontsize=8)


def _draw_metric(axes, name, series, baselines):
    title, unit = _describe_metric(name)
    axes.plot(*series, marker="o", markersize=3, color=VIEW_COLOR, label="model")
    styles = ("--", ":", "-.")
    for number, (label, value) in enumerate(baselines.get(name, {}).items()):
        axes.axhline(value, linestyle=styles[number % len(styles)], color="grey", label=f"{label}: {value:.2f}")
    axes.set(title=title, ylabel=unit, ylim=(0, 1.02 if unit.startswith("share") else None))
    axes.legend(fontsize=8)


def _describe_metric(name):
    """Title and axis label of a metric: units are the ends of our names."""
    for end, unit in (("_m", "metres"), ("_deg", "degrees")):
        if name.endswith(end):
            return name.removesuffix(end).replace("_", " "), f"{unit} (lower is better)"
    if name.endswith(("_rate", "_accuracy", "_share")):
        return name.replace("_", " "), "share of answers (higher is better)"
    return name.replace("_", " "), name.replace("_", " ")


__all__ = ["AnswerExample", "draw_answers", "plot_curves", "project_wireframe"]
