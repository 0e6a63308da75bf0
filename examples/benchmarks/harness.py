"""What the benchmarks here share: variants that run by turns, medians with their spread, ratios, and JSON."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def benchmark_parser(description: str, runs: int | None = 5) -> argparse.ArgumentParser:
    """A parser with the flags of benchmarks: `--output`, and `--runs` unless there is one run only (None)."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw, allow_abbrev=False)
    if runs is not None:
        parser.add_argument("--runs", type=int, default=runs, help=f"measured runs of each variant; default: {runs}")
    parser.add_argument("--output", metavar="FILE", help="write the figures as JSON, too")
    return parser


def compare(
    variants: Mapping[str, Callable],
    runs: int = 5,
    clock: Callable[[], float] | None = time.process_time,
    warm_up: int = 1,
) -> dict[str, dict]:
    """Run each variant once, in their order, and again; so a busy machine slows all of them alike.

    Args:
        variants (`dict[str, Callable]`): functions without arguments by name; the others are held to the first.
        runs (`int`, defaults to 5): measured runs of each.
        clock (`Callable`, *optional*): tells seconds; by default processor time, which other load on the machine
            hardly moves. With None a variant returns its own reading, as megabytes.
        warm_up (`int`, defaults to 1): runs before that do not count.
    Returns:
        `dict[str, dict]`: see `figures_of`.
    Raises:
        ValueError: for runs below 1.
    """
    if runs < 1:
        raise ValueError(f"runs is {runs}; expected 1 or more.")
    readings = {name: [] for name in variants}
    for number in range(warm_up + runs):
        for name, run in variants.items():
            start = clock() if clock else None
            result = run()
            reading = clock() - start if clock else result
            if number >= warm_up:
                readings[name].append(reading)
    return figures_of(readings)


def figures_of(readings: Mapping[str, Sequence[float]]) -> dict[str, dict]:
    """Sum up the readings of each variant.

    Args:
        readings (`dict[str, list[float]]`): by name; the others are held to the first.
    Returns:
        `dict[str, dict]`: by name "median", "least" and "most", "ratio" (the median over that of the first variant,
        NaN where that is 0), and "readings".
    """
    medians = {name: statistics.median(values) for name, values in readings.items()}
    first = next(iter(medians.values()))
    return {
        name: {
            "median": medians[name],
            "least": min(values),
            "most": max(values),
            "ratio": medians[name] / first if first else float("nan"),
            "readings": list(values),
        }
        for name, values in readings.items()
    }


def show(what: str, figures: Mapping[str, dict], unit: str = "s", scale: float = 1.0) -> None:
    """Print a line for each variant: the median, its range, and the ratio to the first.

    Args:
        what (`str`): what was measured.
        figures (`dict[str, dict]`): of `compare` or `figures_of`.
        unit (`str`, defaults to "s"), scale (`float`, defaults to 1.0): readings times `scale` are in this unit.
    """
    print(f"{what}:")
    first = next(iter(figures))
    for name, of in figures.items():
        low, middle, high = (scale * of[key] for key in ("least", "median", "most"))
        beside = "" if name == first else f"; {of['ratio']:.3g} of {first}"
        print(f"  {name:32} {middle:10.4g} {unit} (from {low:.4g} to {high:.4g}){beside}")


def save(output: str | None, figures: Mapping[str, object]) -> None:
    """Write figures as JSON, where a file was named."""
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
