"""The figures of `measure_rooms` in the form of a card's model-index: those that its table shows."""

import math

from huggingface_hub import EvalResult

from ...processing.scores.reference_checks import is_number
from .figures_table import DENSE, ENCODER, TASKS, blind_of_encoder


def room_eval_results(metrics: dict) -> list[EvalResult]:
    """Return the figures of a model or a geometry encoder on rooms, each with its 95 % interval and blind figures.

    Args:
        metrics (`dict`): what `measure_rooms` returns of one set of rooms, perhaps with the same of other rooms under
            "unseen".
    Returns:
        `list[EvalResult]`: a group for each set of rooms and task; figures that are not finite are left out.
    """
    results = []
    for given in filter(None, (metrics, metrics.get("unseen"))):
        last = given["first_room"] + given["num_rooms"] - 1
        for task, name, text, figures, blind in _figures(given):
            if not is_number(figures.get(name)) or not math.isfinite(figures[name]):
                continue
            interval = {"ci95": figures[f"{name}_ci95"]} if f"{name}_ci95" in figures else {}
            result = EvalResult(
                task_type="depth-estimation" if task == "geometry" else "image-text-to-text",
                dataset_type="synthetic_rooms",
                dataset_name=f"rendered rooms {given['first_room']} to {last} of the {given['split']} range",
                dataset_config=task,
                dataset_split=given["rooms"],
                metric_type=name,
                metric_name=text,
                metric_value=figures[name],
                metric_args={**interval, **({"baselines": blind} if blind else {})} or None,
            )
            results.append(result)
    return results


def _figures(given):
    """Task, name, text, the figures that it is one of, and blind figures beside it."""
    if "pose_rotation_error_deg" in given:
        for name, text, beside in ENCODER:
            yield "geometry", name, text, given, {blind_of_encoder(key): given[key] for key in beside if key in given}
        return
    for task, name, text, beside in TASKS:
        of = given.get("tasks", {}).get(task, {})
        model, blind = of.get("model", {}), {**of.get("model", {}), **of.get("blind", {})}
        yield task, name, text, model, {what: blind[key] for key, what in beside if key in blind}
    dense = given.get("dense", {})
    blind = {"median of each pixel": dense.get("pixel_prior_dense_point_error_m")} if dense else {}
    for name, text in DENSE:
        yield "dense", name, text, dense, blind


__all__ = ["room_eval_results"]
