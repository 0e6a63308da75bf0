"""report.md, ablation.json and curves.png of an ablation: means and spreads over seeds, and paired differences.

A difference is that of two arms with the same seed, so with the same rooms in the same order; its interval is
Student's over seeds, which holds what chance does in training. With three seeds it is wide, and honest.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ...processing.data.folder_writing import write_atomically
from ...processing.drawing import new_figure
from ...processing.metrics_file import save_metrics
from ...training.curves import MAX_PANELS, is_loss, is_metric, is_more_better


BLIND = ("constant_", "pixel_prior_", "majority_")
_COUNTS = ("n", "num_")
_COLORS = ("#7f7f7f", "#1f4e9c", "#e69f00", "#2e8b57", "#cc3311", "#7a3e9d", "#56b4e9", "#8c564b")


def paired_difference(values: Sequence[float], reference: Sequence[float], confidence: float = 0.95) -> dict:
    """Mean difference of two arms over seeds, with Student's interval of paired values.

    Args:
        values (`Sequence[float]`), reference (`Sequence[float]`): figures of both arms, seed by seed.
        confidence (`float`, defaults to 0.95): share of intervals that hold the true difference.
    Returns:
        `dict`: "mean", and "interval", None for a single seed or where a figure is not finite.
    Raises:
        ValueError: if they differ in number.

    Example:
        ```python
        >>> from gap_mllm.evaluation import paired_difference
        >>> difference = paired_difference([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])
        >>> difference["mean"], [round(bound, 3) for bound in difference["interval"]]
        (2.0, [-0.484, 4.484])

        ```
    """
    from scipy import stats  # the extra "eval"

    if len(values) != len(reference) or not len(values):
        raise ValueError(f"{len(values)} and {len(reference)} values came; expected one of each seed for both.")
    with np.errstate(invalid="ignore"):
        differences = np.subtract(values, reference, dtype=float)
    mean, count = float(differences.mean()), len(differences)
    if count < 2 or not np.isfinite(differences).all():
        return {"mean": mean, "interval": None}
    half = stats.t.ppf((1 + confidence) / 2, count - 1) * differences.std(ddof=1) / math.sqrt(count)
    return {"mean": mean, "interval": [mean - float(half), mean + float(half)]}


def write_ablation_report(
    ablation: object, output: str | Path, scores: Mapping, logs: Mapping, smoke: Mapping
) -> dict:
    """Write report.md, ablation.json and, with matplotlib, curves.png.

    Args:
        ablation (`Ablation`)
        output (`str` or `Path`): folder to write into.
        scores (`dict[tuple[str, int], dict]`): figures of each arm and seed.
        logs (`dict[tuple[str, int], list[dict]]`): entries of the log of each.
        smoke (`dict[str, dict]`): "first" and "last" loss of each term that was run for a few steps.
    Returns:
        `dict`: what ablation.json holds: "ablation" (its fields), "arms" (of each arm and metric the values of all
        seeds), "spread" ("mean", and "std", the standard deviation over seeds), "differences" (by reference, arm and
        metric, as `paired_difference`), "blind" (baselines on the same rooms), "steps" of each arm, and "smoke".
    """
    output = Path(output)
    numbers = {key: _numbers(told) for key, told in scores.items()}
    blind = {name: value for told in numbers.values() for name, value in told.items() if name.startswith(BLIND)}
    arms = {arm: _over_seeds(ablation.seeds, arm, numbers) for arm in ablation.arms}
    spread = {arm: {name: _spread(values) for name, values in figures.items()} for arm, figures in arms.items()}
    differences = {
        reference: {
            arm: {
                name: paired_difference(figures[name], arms[reference][name])
                for name in figures
                if name in arms[reference]
            }
            for arm, figures in arms.items()
            if arm != reference
        }
        for reference in ablation.references
    }
    steps = {arm: max(_steps(logs[arm, seed]) for seed in ablation.seeds) for arm in ablation.arms}
    told = {"ablation": asdict(ablation), "steps": steps, "arms": arms, "spread": spread, "differences": differences}
    told |= {"blind": blind, "smoke": dict(smoke)}
    save_metrics(told, output / "ablation.json")
    has_curves = draw_arms(logs, output / "curves.png")
    write_atomically(output / "report.md", "\n".join(_lines(ablation, told, has_curves)) + "\n")
    return told


def _numbers(told):
    """Plain numbers of a dict of figures, infinities among them as JSON holds them; no counts and bounds."""
    numbers = {}
    for name, value in told.items():
        value = float(value) if value in ("Infinity", "-Infinity", "NaN") else value
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and not name.startswith(_COUNTS[1]) and name != _COUNTS[0]:
            numbers[name] = value
    return numbers


def _over_seeds(seeds, arm, numbers):
    """Of each metric of an arm the values of all seeds; a metric that a seed lacks is left out."""
    first = numbers[arm, seeds[0]]
    names = [name for name in first if not name.startswith(BLIND)]
    return {
        name: [numbers[arm, seed][name] for seed in seeds]
        for name in names
        if all(name in numbers[arm, seed] for seed in seeds)
    }


def _spread(values):
    is_spread = len(values) > 1 and np.isfinite(values).all()
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if is_spread else None}


def _steps(log):
    return max((entry.get("step", 0) for entry in log), default=0)


def _lines(ablation, told, has_curves):
    arms, spread, blind = list(ablation.arms), told["spread"], told["blind"]
    names = list(dict.fromkeys(name for arm in arms for name in spread[arm]))
    yield f"# Ablation {ablation.name}"
    yield ""
    steps = sorted(set(told["steps"].values()))
    count = f"{steps[0]} steps" if len(steps) == 1 else "**different numbers of steps**"
    yield f"Recipe `{ablation.recipe}`, {len(arms)} arms of {count}, seeds {', '.join(map(str, ablation.seeds))};"
    yield "mean and standard deviation over seeds. Blind answers are about the same rooms."
    yield ""
    yield f"| | {' | '.join(arms)} | blind |"
    yield f"|---|{'---|' * (len(arms) + 1)}"
    for name in names:
        cells = [_cell(spread[arm].get(name)) for arm in arms]
        priors = {prefix: blind[prefix + name] for prefix in BLIND if prefix + name in blind}
        beside = ", ".join(f"{prefix.replace('_', ' ')}{value:.3f}" for prefix, value in priors.items())
        yield f"| {_title(name)} | {' | '.join(cells)} | {beside or '-'} |"
    for reference, others in told["differences"].items():
        yield from ("", f"## Differences to {reference}", "")
        yield "Pairs of runs with one seed; in brackets 95 % intervals over seeds (Student)."
        yield ""
        yield f"| | {' | '.join(others)} |"
        yield f"|---|{'---|' * len(others)}"
        for name in names:
            cells = [_difference(others[arm].get(name)) for arm in others]
            if any(cell != "-" for cell in cells):
                yield f"| {_title(name)} | {' | '.join(cells)} |"
    if told["smoke"]:
        yield from ("", "## Smoke: every other term, a few steps", "")
        yield "That a run with the term ends and its loss falls; no claim about what the term is worth."
        yield ""
        yield "| term | steps | loss at first | at last | finite, and fell |"
        yield "|---|---|---|---|---|"
        for name, run in told["smoke"].items():
            fell = "yes" if run["fell"] else "**no**"
            yield f"| {name} | {run['steps']} | {run['first']:.4g} | {run['last']:.4g} | {fell} |"
    if has_curves:
        yield from ("", "![Curves of the arms: mean over seeds, band from least to greatest](curves.png)")


def _title(name):
    better = {True: " (more is better)", False: " (less is better)", None: ""}[is_more_better(name)]
    return f"{name}{better}"


def _cell(spread):
    if spread is None or math.isnan(spread["mean"]):
        return "-"
    return f"{spread['mean']:.3f}" + ("" if spread["std"] is None else f" ± {spread['std']:.3f}")


def _difference(told):
    if told is None or math.isnan(told["mean"]):
        return "-"
    bounds = "" if told["interval"] is None else " [{:+.3f}, {:+.3f}]".format(*told["interval"])
    return f"{told['mean']:+.3f}{bounds}"


def draw_arms(logs: Mapping, path: str | Path) -> bool:
    """Draw what all arms log over their steps: the mean over seeds, and a band from the least to the greatest.

    Args:
        logs (`dict[tuple[str, int], list[dict]]`): entries of the log of each arm and seed.
        path (`str` or `Path`): PNG file.
    Returns:
        `bool`: whether there was anything to draw, and matplotlib to draw with.
    """
    arms = list(dict.fromkeys(arm for arm, _ in logs))
    keys = list(dict.fromkeys(key for log in logs.values() for entry in log for key in entry))
    evaluated = [key for key in keys if is_metric(key) and is_more_better(key) is not None]
    losses = [key for key in keys if is_loss(key) and key != "loss"]
    panels = [key for key in [*evaluated, *losses] if any(len(_mean_and_band(logs, arm, key)[0]) > 1 for arm in arms)]
    panels = panels[:MAX_PANELS]
    columns = min(3, len(panels))
    try:
        figure = new_figure(5.2 * max(columns, 1), 3.6 * max(-(-len(panels) // 3), 1))
    except ImportError:
        return False
    if not panels:
        return False
    for place, key in enumerate(panels, 1):
        axes = figure.add_subplot(-(-len(panels) // columns), columns, place)
        for arm, color in zip(arms, _COLORS * len(arms), strict=False):
            steps, mean, low, high = _mean_and_band(logs, arm, key)
            axes.plot(steps, mean, color=color, label=arm, linewidth=1.5)
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        kind = "rooms of evaluation" if is_metric(key) else "training"
        better = {True: "more is better", False: "less is better", None: ""}[is_more_better(key)]
        axes.set(title=key.removeprefix("eval_").replace("_", " "), xlabel="optimiser step")
        axes.set_ylabel(f"{kind}; {better}")
        if is_loss(key):
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, format="png")
    return True


def _mean_and_band(logs, arm, key):
    """Steps at which every seed of an arm has a finite value, and mean, least and greatest of these."""
    series = [
        {entry["step"]: float(entry[key]) for entry in log if key in entry and np.isfinite(float(entry[key]))}
        for (name, _), log in logs.items()
        if name == arm
    ]
    steps = sorted(set.intersection(*map(set, series))) if series else []
    values = np.array([[each[step] for step in steps] for each in series]).reshape(len(series), -1)
    return steps, values.mean(0), values.min(0), values.max(0)


__all__ = ["draw_arms", "paired_difference", "write_ablation_report"]
