"""Curves of an ablation: each arm as a mean over seeds, with a band from the least to the greatest.

Needs matplotlib (the extras "train" and "eval").
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gap_mllm.processing.drawing import new_figure
from gap_mllm.training.curves import MAX_PANELS, is_loss, is_metric, is_more_better


_COLORS = ("#7f7f7f", "#1f4e9c", "#e69f00", "#2e8b57", "#cc3311", "#7a3e9d", "#56b4e9", "#8c564b")


_BLIND = (("constant_", "--"), ("majority_", ":"), ("pixel_prior_", "-."), ("category_prior_", ":"))


def draw_arms(logs: Mapping, path: str | Path, over: str = "step", blind: Mapping | None = None) -> bool:
    """Draw what all arms log over the steps of all their stages; a row of panels for each figure with variants.

    Args:
        logs (`dict[str | None, dict[tuple[str, int], list[dict]]]`): entries of the log of each arm and seed, by
            variant (None where there are none).
        path (`str` or `Path`): PNG file.
        over (`str`, defaults to "step"): entry of the log that they are drawn over: "step" or, of arms with
            `max_seconds`, "seconds".
        blind (`dict[str, float]`, *optional*): blind figures, as `score_marked_pixels` names them, drawn as lines;
            only evaluations that have one, and shares of answers that could be read, are then drawn.
    Returns:
        `bool`: whether there was anything to draw, and matplotlib to draw with.
    """
    everything = [log for runs in logs.values() for log in runs.values()]
    keys = list(dict.fromkeys(key for log in everything for entry in log for key in entry))
    evaluated = [key for key in keys if is_metric(key) and is_more_better(key) is not None]
    losses = [key for key in keys if is_loss(key) and key != "loss"]
    if blind is not None:
        told = {name.removeprefix(kind) for name in blind for kind, _ in _BLIND}
        evaluated, losses = [key for key in evaluated if key[5:] in told or key.endswith("parse_rate")], []
    panels = {}
    for key in [*evaluated, *losses]:
        for variant, runs in logs.items():
            series = {arm: _mean_and_band(runs, arm, key, over) for arm in dict.fromkeys(arm for arm, _ in runs)}
            if any(len(steps) > 1 for steps, *_ in series.values()):
                panels[key, variant] = series
    shown = list(panels)[: MAX_PANELS if len(logs) == 1 else None]
    label = {"step": "optimiser step", "seconds": "seconds of training"}[over]
    columns = 3 if len(logs) == 1 and blind is None else 2 if blind is not None else len(logs)

    def draw(axes, key, variant):
        for (arm, series), color in zip(panels[key, variant].items(), _COLORS * 9, strict=False):
            steps, mean, low, high = series
            above = 2 + 1 / (1 + len(steps))  # a shorter arm may be the beginning of a longer one
            marker = None if blind is None else "o"
            axes.plot(steps, mean, color=color, label=arm, linewidth=1.5, marker=marker, zorder=above)
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        _draw_blind(axes, blind or {}, key.removeprefix("eval_"))
        if blind is not None:
            axes.set_ylim(0, max(axes.get_ylim()[1], 0.1))
        axes.set_xlabel(label)
        axes.set_ylabel("rooms of evaluation" if is_metric(key) else "training")
        if is_loss(key):
            axes.set_yscale("log")

    return _draw_panels(shown, columns, draw, path)


def _draw_blind(axes, blind, name):
    """What blind baselines reach in a figure, as lines."""
    for kind, style in _BLIND:
        if np.isfinite(blind.get(kind + name, np.nan)):
            label = f"blind, {kind.strip('_').replace('_', ' ')}: {blind[kind + name]:.2f}"
            axes.axhline(blind[kind + name], color="black", linestyle=style, linewidth=1, label=label)


def draw_variants(compared: Mapping, path: str | Path) -> bool:
    """Draw the scores of all arms over the variants, with bars from the least to the greatest seed.

    Args:
        compared (`dict[str, dict]`): "arms" and "blind" by variant, as `write_ablation_report` returns them.
        path (`str` or `Path`): PNG file.
    Returns:
        `bool`: whether there was anything to draw, and matplotlib to draw with.
    """
    names = {name for told in compared.values() for figures in told["arms"].values() for name in figures}
    arms = list(next(iter(compared.values()))["arms"])
    shown = [(name, None) for name in sorted(names) if is_more_better(name) is not None][:MAX_PANELS]

    def draw(axes, name, _):
        for place, (arm, color) in enumerate(zip(arms, _COLORS * 9, strict=False)):
            seeds = {at: told["arms"][arm].get(name) for at, told in enumerate(compared.values())}
            seeds = {at: values for at, values in seeds.items() if values and np.isfinite(values).all()}
            values, at = np.array([*seeds.values()]), np.array([*seeds]) + 0.04 * place
            if len(at):
                mean = values.mean(1)
                bars = mean - values.min(1), values.max(1) - mean
                axes.errorbar(at, mean, bars, color=color, label=arm, marker="o", markersize=4, capsize=3)
        _draw_blind(axes, next(iter(compared.values()))["blind"], name)
        axes.set_xticks(range(len(compared)), list(map(str, compared)))
        axes.set_ylabel("test rooms")

    return _draw_panels(shown, 3, draw, path)


def _draw_panels(panels, columns, draw, path):
    """Draw each panel, named by a figure and perhaps a variant, and save all as one picture."""
    columns = min(columns, len(panels))
    try:
        figure = new_figure(5.2 * max(columns, 1), 3.6 * max(-(-len(panels) // max(columns, 1)), 1))
    except ImportError:
        return False
    if not panels:
        return False
    for place, (key, variant) in enumerate(panels, 1):
        axes = figure.add_subplot(-(-len(panels) // columns), columns, place)
        draw(axes, key, variant)
        title = key.removeprefix("eval_").replace("_", " ")
        axes.set_title(title if variant is None else f"{title}: {variant}")
        better = {True: "more is better", False: "less is better", None: ""}[is_more_better(key)]
        axes.set_ylabel(f"{axes.get_ylabel()}; {better}")
        axes.grid(alpha=0.3)
    for axes in figure.axes:
        if any(label.startswith("blind") for label in axes.get_legend_handles_labels()[1]):
            axes.legend(fontsize=8)
    if not any(axes.get_legend() for axes in figure.axes):
        max(figure.axes, key=lambda axes: len(axes.get_legend_handles_labels()[1])).legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, format="png")
    return True


def _mean_and_band(logs, arm, key, over="step"):
    """Steps (or seconds) at which every seed of an arm has a finite value, and mean, least and greatest of these."""
    series = [
        {entry[over]: float(entry[key]) for entry in log if {key, over} <= {*entry} and np.isfinite(float(entry[key]))}
        for (name, _), log in logs.items()
        if name == arm
    ]
    steps = sorted(set.intersection(*map(set, series))) if series else []
    values = np.array([[each[step] for step in steps] for each in series]).reshape(len(series), -1)
    return steps, values.mean(0), values.min(0), values.max(0)
