"""The figures of `measure_rooms` as tables for people: in a terminal, and in a model card."""

from pathlib import Path

from gap_mllm.evaluation.runner.room_results import DENSE, ENCODER, TASKS, blind_of_encoder
from gap_mllm.processing.data.folder_writing import write_atomically


BEGIN, END = "<!-- figures of metrics.json -->", "<!-- end of figures -->"
_POINTS = ("parse_rate", "point_error_m", "pixel_prior_point_error_m", "point_error_ratio", "label_accuracy")


def figures_table(metrics: dict) -> str:
    """Return the figures of a model or a geometry encoder as tables in Markdown, each with its 95 % interval.

    Args:
        metrics (`dict`): what `measure_rooms` returns, or what its metrics.json holds.
    Returns:
        `str`: tables of what was measured, in its order.
    """
    parts = {group: metrics[group] for group in ("wordings", "views", "styles", "sizes") if group in metrics}
    if "pose_rotation_error_deg" in metrics:
        return "\n\n".join(filter(None, [_encoder_table(metrics), _encoder_parts(parts)]))
    tables = [_task_table(metrics.get("tasks", {}), metrics.get("dense", {})), _part_table(parts)]
    return "\n\n".join(filter(None, tables))


def _task_table(tasks, dense):
    rows = []
    for task, name, text, beside in TASKS:
        of = tasks.get(task, {})
        model = of.get("model", {})
        if name not in model:
            continue
        blind = {**model, **of.get("blind", {})}
        told = ", ".join(f"{what} {_figure(blind, key)}" for key, what in beside if key in blind)
        given = [_figure(of.get(geometry, {}), name) for geometry in ("model", "other_geometry", "geometry_off")]
        rows.append([f"{text} (n = {model['n']})", *given, told])
    for name, text in DENSE:
        if name in dense:
            names = (name, f"shuffled_geometry_{name}", f"geometry_off_{name}")
            told = f"median of each pixel {_figure(dense, 'pixel_prior_dense_point_error_m')}"
            rows.append([f"{text} (n = {dense['n']} rooms)", *(_figure(dense, key) for key in names), told])
    return _table(["", "this model", "geometry of another room", "no geometry", "blind"], rows)


def _part_table(groups):
    rows = [
        [f"{group}: {name}", part.get("n", "-"), *(_figure(part, key) for key in _POINTS)]
        for group, parts in groups.items()
        for name, part in parts.items()
    ]
    heads = ["marked pixels", "n", "can be read", "point (m)", "median of each pixel (m)", "ratio", "label right"]
    return _table(heads, rows)


def _encoder_table(metrics):
    rows = []
    for name, text, beside in ENCODER:
        if name not in metrics:  # of an earlier version
            continue
        told = [f"{blind_of_encoder(key)} {_figure(metrics, key)}" for key in beside]
        rows.append([text, _figure(metrics, name), ", ".join(told)])
    return _table([f"{metrics['n']} rooms", "this encoder", "blind"], rows)


def _encoder_parts(groups):
    names = ("dense_point_error_m", "pixel_prior_dense_point_error_m", "pose_rotation_error_deg")
    names += ("no_motion_rotation_error_deg", "pose_translation_error_m", "no_motion_translation_error_m")
    rows = [
        [f"{group}: {name}", part["n"], *(_figure(part, key) for key in names)]
        for group, parts in groups.items()
        for name, part in parts.items()
    ]
    heads = ["rooms", "n", "points (m)", "median of each pixel", "rotation (deg)", "no motion", "translation (m)"]
    return _table([*heads, "no motion"], rows)


def _figure(figures, name):
    """A figure with its interval; metrics.json holds what is not finite as text."""
    if name not in figures:
        return "-"
    text, interval = f"{float(figures[name]):.2f}", figures.get(f"{name}_ci95")
    return text if interval is None else f"{text} [{float(interval[0]):.2f}, {float(interval[1]):.2f}]"


def _table(heads, rows):
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |".replace("|  |", "| |") for line in lines)


def card_text(metrics: dict) -> str:
    """What a card says of a shipped folder: where it comes from, and its figures.

    Args:
        metrics (`dict`): what `measure_rooms` returns of the set "test", perhaps with the same of other rooms under
            "unseen", and with "provenance", texts and numbers by name.
    Returns:
        `str`: tables in Markdown.
    """
    rows = [[name, told] for name, told in metrics.get("provenance", {}).items()]
    texts = [_table(["provenance", ""], rows)] if rows else []
    for given in (metrics, metrics.get("unseen")):
        if given:
            last = given["first_room"] + given["num_rooms"] - 1
            what = f"Rooms {given['first_room']} to {last} of the {given['split']} range"
            texts += [
                f"{what}, medians or shares with bootstrap 95 % intervals over rooms; blind baselines fitted on "
                f"{given['num_baseline_rooms']} training rooms; by `{given['command']}`:",
                figures_table(given),
            ]
    return "\n\n".join(texts)


def write_figures(card: str | Path, metrics: dict) -> None:
    """Put `card_text` between the two marks of a card, whose other text stays.

    Args:
        card (`str` or path): Markdown file with a line `BEGIN` and a line `END`.
        metrics (`dict`): figures, see `card_text`.
    Raises:
        FileNotFoundError: if there is no card. ValueError: if it lacks one of the two lines.
    """
    text = Path(card).read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{card} has no lines {BEGIN!r} and {END!r}; figures are written between them.")
    write_atomically(card, f"{before}{BEGIN}\n\n{card_text(metrics)}\n\n{END}{after}")
