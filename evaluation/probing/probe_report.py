"""Probes as a table to read, as CSV and as a plot."""

import csv
import io
from pathlib import Path

from ...processing.drawing import new_figure
from .probe_model import CONSTANT, POSITION, SHUFFLED


ANSWER, PIXEL_PRIOR = "answer", "pixel_prior"  # the decoded text, and the blind baseline of marked pixels
FIGURES = {  # name of a figure -> heading of its column, label of its axis
    "depth_error_m": ("depth (m)", "mean error of depth (m)"),
    "depth_abs_rel": ("relative", "mean relative error of depth"),
    "normal_error_deg": ("normals (deg)", "mean angle between normals (degrees)"),
    "correspondence": ("same spot", "mean cosine of tokens of two views"),
    "any_pair_cosine": ("any pair", "mean cosine of tokens of two views"),
    "point_error_m": ("point (m)", "median error of the marked point (m)"),
    "label_accuracy": ("name", "share of names that are right"),
    "head_point_error_m": ("head (m)", "median error of the marked point (m)"),
}
_PANELS = ("depth_error_m", "normal_error_deg", "correspondence", "point_error_m", "label_accuracy")
_BESIDE = {"correspondence": "any_pair_cosine", "point_error_m": "head_point_error_m"}  # drawn in the same panel
_LABELS = {"correspondence": "that see one spot", "any_pair_cosine": "whatever they see"}
_LABELS |= {"head_point_error_m": "heads of pre-training"}
_LINES = {  # what is no place of the model
    POSITION: ("#e69f00", "--", "position alone"),
    CONSTANT: ("#8a8a8a", ":", "constant"),
    PIXEL_PRIOR: ("#7a3e9d", "--", "median by pixel"),
    ANSWER: ("#2e8b57", "-", "decoded answer"),
}
_COLOR, _BESIDE_COLOR, _SHUFFLED_COLOR = "#1f4e9c", "#56b4e9", "#cc3311"


def probe_table(found: dict) -> str:
    """Write what probes found as a table: a line for each place, shuffled figures in brackets.

    Args:
        found (`dict`): result of `probe_model`, or figures of other places under "probes".
    Returns:
        `str`.

    Example:
        ```python
        >>> from gap_mllm.evaluation.probing import probe_table
        >>> found = {"probes": {"constant": {"depth_error_m": 0.8, "shuffled_depth_error_m": 0.81}}}
        >>> print(probe_table(found))
        place     depth (m)
        constant  0.800 (0.810)

        ```
    """
    names = [name for name in FIGURES if any(name in figures for figures in found["probes"].values())]
    lines = [["place", *(FIGURES[name][0] for name in names)]]
    for place, figures in found["probes"].items():
        lines.append([place, *(_cell(figures, name) for name in names)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(figures, name):
    if name not in figures:
        return ""
    digits = 1 if name.endswith("_deg") else 3
    shuffled = figures.get(SHUFFLED + name)
    return f"{figures[name]:.{digits}f}" + ("" if shuffled is None else f" ({shuffled:.{digits}f})")


def probe_csv(found: dict) -> str:
    """Write what was found as CSV: a line for each place, a column for each figure and end of its interval.

    Args:
        found (`dict`): result of `probe_model`, or figures of other places under "probes".
    Returns:
        `str`.

    Example:
        ```python
        >>> from gap_mllm.evaluation.probing import probe_csv
        >>> print(probe_csv({"probes": {"constant": {"depth_error_m": 0.8, "depth_error_m_ci95": [0.7, 0.9]}}}))
        place,depth_error_m,depth_error_m_low,depth_error_m_high
        constant,0.8,0.7,0.9
        <BLANKLINE>

        ```
    """
    rows = []
    for place, figures in found["probes"].items():
        row = {"place": place}
        for name, value in figures.items():
            ends = zip(("_low", "_high"), value, strict=True) if isinstance(value, list) else [("", value)]
            row |= {name.removesuffix("_ci95") + end: number for end, number in ends}
        rows.append(row)
    file = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def plot_probes(found: dict, path: str | Path) -> Path:
    """Draw what probes found over the places of the model, beside the blind baseline.

    Args:
        found (`dict`): result of `probe_model`, or figures of other places under "probes".
        path (`str` or path): the PNG file to write.
    Returns:
        `Path`.
    Raises:
        ImportError: without matplotlib.
    """
    probes = found["probes"]
    places = [place for place in probes if place not in _LINES]
    panels = [name for name in _PANELS if any(name in probes[place] for place in places)]
    figure = new_figure(max(4.2, 1.2 + 0.34 * len(places)) * len(panels), 4.4)
    for number, name in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        _draw_line(axes, probes, places, name, _COLOR, _LABELS.get(name, "read off the tokens"))
        beside = _BESIDE.get(name)
        if any(beside in probes[place] for place in places):
            style = "none" if beside == "head_point_error_m" else "--"  # heads stand at two places only
            _draw_line(axes, probes, places, beside, _BESIDE_COLOR, _LABELS[beside], style)
        if all(SHUFFLED + name in probes[place] for place in places):
            shuffled = [probes[place][SHUFFLED + name] for place in places]
            axes.plot(shuffled, color=_SHUFFLED_COLOR, linewidth=1, marker="x", markersize=4, label="shuffled targets")
        for place, (color, style, label) in _LINES.items():
            if name in probes.get(place, ()):
                axes.axhline(probes[place][name], color=color, linestyle=style, label=label)
        if name != "correspondence":
            axes.set_ylim(0, None)
        axes.set_xticks(range(len(places)), places, rotation=60, ha="right", fontsize=8)
        axes.set_title(FIGURES[name][1], fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(f"Linear probes on visual tokens: {found['num_scenes']} scenes not fitted on", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, format="png")
    return Path(path)


def _draw_line(axes, probes, places, name, color, label, linestyle="-"):
    """A line over the places, with intervals."""
    known = [(number, place) for number, place in enumerate(places) if name in probes[place]]
    values = [probes[place][name] for _, place in known]
    bounds = [probes[place][f"{name}_ci95"] for _, place in known]
    where = [number for number, _ in known]
    axes.plot(where, values, color=color, linestyle=linestyle, marker="o", markersize=4, label=label)
    if linestyle == "none":
        axes.vlines(where, *zip(*bounds, strict=True), color=color, alpha=0.6)
    else:
        axes.fill_between(where, *zip(*bounds, strict=True), color=color, alpha=0.15, linewidth=0)
