"""report.md and ablation.json of an ablation: means and spreads over seeds, and paired differences.

A difference is that of two arms with the same seed, so with the same rooms in the same order; its interval is
Student's over seeds, which holds what chance does in training. With three seeds it is wide, and honest.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from gap_mllm.processing.data.folder_writing import write_atomically
from gap_mllm.processing.metrics_file import save_metrics
from gap_mllm.training.curves import is_more_better

from .ablation_curves import draw_arms, draw_variants


BLIND = ("constant_", "pixel_prior_", "category_prior_", "majority_")
_COUNTS = ("n", "num_")


def paired_difference(values: Sequence[float], reference: Sequence[float], confidence: float = 0.95) -> dict:
    """Mean difference of two arms over seeds, with Student's interval of paired values.

    Args:
        values (`Sequence[float]`), reference (`Sequence[float]`): figures of both arms, seed by seed.
        confidence (`float`, defaults to 0.95): share of intervals that hold the true difference.
    Returns:
        `dict`: "mean", and "interval", None for a single seed or where a figure is not finite.
    Raises:
        ValueError: if they differ in number.
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
    """Write report.md, ablation.json and, with matplotlib, curves.png and by_variant.png.

    Args:
        ablation (`Ablation`)
        output (`str` or `Path`): folder to write into.
        scores (`dict[str | None, dict[tuple[str, int], dict]]`): figures of each arm and seed, by variant (None
            where there are none).
        logs (`dict[str | None, dict[tuple[str, int], list[dict]]]`): entries of the log of each.
        smoke (`dict[str, dict]`): "first" and "last" loss of each term that was run for a few steps.
    Returns:
        `dict`: what ablation.json holds: "ablation" (its fields), "arms" (of each arm and metric the values of all
        seeds), "spread" ("mean", and "std", the standard deviation over seeds), "differences" (by reference, arm and
        metric, as `paired_difference`), "blind" (baselines on the same rooms), "steps" of each arm, those of all its
        stages, and "smoke". With variants these, but for the first and the last, stand by name in "variants".
    """
    output, told = Path(output), {"ablation": asdict(ablation)}
    compared = {variant: _compare(ablation, scores[variant], logs[variant]) for variant in scores}
    told |= compared[None] if None in compared else {"variants": compared}
    told["smoke"] = dict(smoke)
    save_metrics(told, output / "ablation.json")
    pictures = {}
    if draw_arms(logs, output / "curves.png"):
        pictures["curves.png"] = "Curves of the arms: mean over seeds, band from least to greatest"
    if len(compared) > 1 and draw_variants(compared, output / "by_variant.png"):
        pictures["by_variant.png"] = "Scores by variant: mean over seeds, bar from least to greatest"
    lines = [*_lines(ablation, compared, told["smoke"], pictures), ""]
    write_atomically(output / "report.md", "\n".join(lines))
    return told


def _compare(ablation, scores, logs):
    """Arms beside each other: figures, spreads, differences and steps, as `write_ablation_report` returns them."""
    numbers = {key: _numbers(told) for key, told in scores.items()}
    blind = {name: value for told in numbers.values() for name, value in told.items() if name.startswith(BLIND)}
    arms = {arm: _over_seeds(ablation.seeds, arm, numbers) for arm in ablation.chosen}
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
    steps = {arm: max(_steps(logs[arm, seed]) for seed in ablation.seeds) for arm in ablation.chosen}
    return {"steps": steps, "arms": arms, "spread": spread, "differences": differences, "blind": blind}


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


def _lines(ablation, compared, smoke, pictures):
    yield f"# Ablation {ablation.name}"
    yield ""
    steps = {arm: count for told in compared.values() for arm, count in told["steps"].items()}
    counts = ", ".join(f"`{arm}` {count}" for arm, count in steps.items())
    count = f"{next(iter(steps.values()))} steps" if len({*steps.values()}) == 1 else "**different numbers of steps**"
    yield f"Recipe `{ablation.recipe}`, {len(steps)} arms of {count}, seeds {', '.join(map(str, ablation.seeds))};"
    yield "mean and standard deviation over seeds. Blind baselines are about the same rooms."
    if len({*steps.values()}) > 1:
        yield f"Steps, those of all stages: {counts}."
    for variant, told in compared.items():
        if variant is not None:
            yield from ("", f"## {variant}")
        yield from _tables(told, "##" if variant is None else "###")
    if smoke:
        yield from ("", "## Smoke: every other term, a few steps", "")
        yield "That a run with the term ends and its loss falls; no claim about what the term is worth."
        yield ""
        yield "| term | steps | loss at first | at last | finite, and fell |"
        yield "|---|---|---|---|---|"
        for name, run in smoke.items():
            fell = "yes" if run["fell"] else "**no**"
            yield f"| {name} | {run['steps']} | {run['first']:.4g} | {run['last']:.4g} | {fell} |"
    for file, title in pictures.items():
        yield from ("", f"![{title}]({file})")


def _tables(told, heading):
    """Tables of the figures of all arms, and of their differences."""
    spread, blind = told["spread"], told["blind"]
    names = list(dict.fromkeys(name for figures in spread.values() for name in figures))
    yield ""
    yield f"| | {' | '.join(spread)} | blind |"
    yield f"|---|{'---|' * (len(spread) + 1)}"
    for name in names:
        cells = [_cell(figures.get(name)) for figures in spread.values()]
        priors = {prefix: blind[prefix + name] for prefix in BLIND if prefix + name in blind}
        beside = ", ".join(f"{prefix.replace('_', ' ')}{value:.3f}" for prefix, value in priors.items())
        yield f"| {_title(name)} | {' | '.join(cells)} | {beside or '-'} |"
    for reference, others in told["differences"].items():
        yield from ("", f"{heading} Differences to {reference}", "")
        yield "Pairs of runs with one seed; in brackets 95 % intervals over seeds (Student)."
        yield ""
        yield f"| | {' | '.join(others)} |"
        yield f"|---|{'---|' * len(others)}"
        for name in names:
            cells = [_difference(others[arm].get(name)) for arm in others]
            if any(cell != "-" for cell in cells):
                yield f"| {_title(name)} | {' | '.join(cells)} |"


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
