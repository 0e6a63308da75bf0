"""Curves of a run over its steps: losses by name, learning rate, and what evaluations measured.

Needs matplotlib (the extras "train" and "eval").
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..processing.drawing import VIEW_COLOR, new_figure


_SPEEDS = ("_runtime", "_per_second")
_HIGHER, _LOWER = ("_rate", "_accuracy", "_share", "_iou", "_f1", "reward", "/mean"), ("_m", "_deg")
_COUNTS = ("num_", "frac_", "step_time", "entropy")  # how names of counts and of TRL's statistics begin
MAX_PANELS = 12


def plot_curves(log_history: Sequence[dict], path: str | Path, baselines: dict[str, dict[str, float]] | None = None):
    """Draw the loss terms, the evaluation metrics and the learning rate of a run over its steps.

    Args:
        log_history (`list[dict]`): `trainer.state.log_history`: entries with "step" and numbers; "loss..." are
            drawn together on a logarithmic axis where they are positive, each "eval_..." metric for itself, at most
            `MAX_PANELS` in all. Counts, and what TRL logs of generated texts, are left out.
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
    losses = _series(log_history, is_loss)
    rates = _series(log_history, lambda key: key == "learning_rate")
    metrics = _series(log_history, _is_drawn)
    if not losses and not metrics:
        raise ValueError("log_history holds neither losses nor evaluation metrics; pass trainer.state.log_history.")
    eval_losses = {name: metrics.pop(name) for name in list(metrics) if "loss" in name}
    training = _series(log_history, lambda key: f"eval_{key}" in metrics)  # as the reward, which training logs as well
    panels = [("Training loss and its terms", losses)] if losses else []
    panels += [("Loss of evaluation and its terms", eval_losses)] if eval_losses else []
    panels += [(name, series) for name, series in metrics.items()] + [
        ("learning rate", each) for each in rates.values()
    ]
    panels = panels[:MAX_PANELS]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(5.2 * columns, 3.8 * rows)
    for place, (name, series) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_xlabel("optimiser step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if isinstance(series, dict):
            _draw_losses(axes, name, series)
        elif name == "learning rate":
            axes.plot(*series, marker="o" if len(series[0]) < 2 else None, markersize=4, color=VIEW_COLOR)
            axes.set(title="Learning rate", ylabel="of the first trained group of modules", ylim=(0, None))
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        else:
            short = name.removeprefix("eval_")
            _draw_metric(axes, short, series, training.get(short), (baselines or {}).get(short, {}))
    figure.tight_layout()
    figure.savefig(path, format="png")


def is_loss(key: str) -> bool:
    """Whether a name of the log is that of a training loss: the sum, or a term."""
    return key == "loss" or key.startswith("loss_")


def is_metric(key: str) -> bool:
    """Whether a name of the log is that of a metric of an evaluation, and not of its speed."""
    return key.startswith("eval_") and not key.endswith(_SPEEDS)


def is_more_better(name: str) -> bool | None:
    """Whether more of a metric is better, as its name says: "_m" is an error in metres, "_rate" a share; or None."""
    if "loss" in name or name.endswith(_LOWER):
        return False
    return True if name.endswith(_HIGHER) else None


def _is_drawn(key):
    """Metrics, but for counts and for statistics of generated texts, as TRL logs by the dozen."""
    name = key.removeprefix("eval_")
    if not is_metric(key) or name == "n" or name.startswith(_COUNTS):
        return False
    return is_more_better(key) is not None or not ("/" in name or name.endswith("_std"))


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


def _draw_losses(axes, title, losses):
    for key, (steps, values) in losses.items():
        is_sum = key in ("loss", "eval_loss")
        label = "sum, weighted" if is_sum else key.removeprefix("eval_").removeprefix("loss_").replace("_", " ")
        style = {"color": "black", "linewidth": 2} if is_sum else {"linewidth": 1.3}
        # One point is no line, and evaluations are few.
        axes.plot(
            steps, values, label=label, marker="o" if len(steps) < 2 or is_metric(key) else None, markersize=4, **style
        )
    if min(min(values) for _, values in losses.values()) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        low, high = axes.get_ylim()
        is_narrow = high < 20 * low  # else labels between the powers of ten would stand on each other
        axes.yaxis.set_minor_formatter("{x:g}" if is_narrow else "")
        axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.set(title=title, ylabel="loss, average of each term's items")
    if len(losses) > 1:
        axes.legend(fontsize=8)


def _draw_metric(axes, name, series, training, baselines):
    title, unit = _describe_metric(name)
    if training is not None:
        axes.plot(*training, linewidth=1, color="grey", label="while training")
    axes.plot(*series, marker="o", markersize=3, color=VIEW_COLOR, label="model")
    styles = ("--", ":", "-.")
    for number, (label, value) in enumerate(baselines.items()):
        axes.axhline(value, linestyle=styles[number % len(styles)], color="grey", label=f"{label}: {value:.2f}")
    axes.set(title=title, ylabel=unit)
    if min([*series[1], *(training[1] if training else ())]) >= 0:
        axes.set_ylim(0, 1.02 if unit.startswith("share") else 1.05 * axes.get_ylim()[1])
    if training or baselines:
        axes.legend(fontsize=8)


def _describe_metric(name):
    """Title and axis label of a metric: units are the ends of our names."""
    title = name.removeprefix("rewards/").removesuffix("/mean").replace("_", " ")
    for end, unit in (("_m", "metres"), ("_deg", "degrees")):
        if name.endswith(end):
            return title.rpartition(" ")[0], f"{unit} (lower is better)"
    if name.endswith(("_rate", "_accuracy", "_share")):
        return title, "share of answers (higher is better)"
    better = {True: " (higher is better)", False: " (lower is better)", None: ""}[is_more_better(name)]
    return title, f"value{better}"
