"""Figures of a model or a geometry encoder on rendered rooms, as metrics.json of the shipped folders holds them.

Here they take the form of a card's model-index. They are measured by examples/experiments/measure_rooms.py.
"""

import math

from huggingface_hub import EvalResult

from ...processing.scores.reference_checks import is_number


TASKS = (  # task, figure, its name, and names of the blind figures beside it, with what they are
    ("points", "parse_rate", "marked pixels: answers that can be read", ()),
    (
        "points",
        "point_error_m",
        "point at the cross, decoded (m)",
        (("pixel_prior_point_error_m", "median of each pixel"), ("constant_point_error_m", "constant")),
    ),
    ("points", "point_error_ratio", "the same over the median of each pixel", ()),
    (
        "points",
        "label_accuracy",
        "label at the cross, share right",
        (("pixel_prior_label_accuracy", "commonest there"), ("majority_label_accuracy", "commonest")),
    ),
    ("detection", "parse_rate", "detection: answers that can be read", ()),
    ("detection", "f1", "detection, F1 at IoU 0.25", (("f1", "one list"),)),
    ("grounding", "parse_rate", "grounding: answers that can be read", ()),
    ("grounding", "iou25_share", "grounding, share of IoU 0.25", (("iou25_share", "median box of the label"),)),
    ("choices", "parse_rate", "multiple choice: answers that can be read", ()),
    ("choices", "accuracy", "multiple choice, share right", (("accuracy", "commonest"), ("chance", "chance"))),
    ("captions", "names_object_share", "captions that name the object", (("names_object_share", "commonest"),)),
    ("captions", "cider", "captions, CIDEr", (("cider", "commonest"),)),
)
DENSE = (
    ("dense_point_error_m", "dense points, fused visual tokens (m)"),
    ("language_dense_point_error_m", "dense points, language states (m)"),
)
ENCODER = (
    ("dense_point_error_m", "points (m)", ("pixel_prior_dense_point_error_m", "constant_dense_point_error_m")),
    (
        "dense_point_error_m_later_views",
        "points of views 1 and later (m)",
        ("pixel_prior_dense_point_error_m_later_views", "constant_dense_point_error_m_later_views"),
    ),
    ("unprojected_point_error_m", "points from depth and cameras (m)", ()),
    ("depth_abs_rel", "depth, mean relative error", ("pixel_prior_depth_abs_rel",)),
    ("pose_rotation_error_deg", "rotation (degrees)", ("no_motion_rotation_error_deg",)),
    ("pose_translation_error_m", "translation (m)", ("no_motion_translation_error_m",)),
    ("pose_right_error_m", "of it to the right (m)", ("no_motion_right_error_m",)),
    ("pose_down_error_m", "of it down (m)", ("no_motion_down_error_m",)),
    ("pose_forward_error_m", "of it forward (m)", ("no_motion_forward_error_m",)),
)
_BLIND_OF_ENCODER = {"pixel": "median of each pixel", "constant": "constant", "no": "no motion"}


def blind_of_encoder(name: str) -> str:
    """What a blind figure of an encoder is, for people."""
    return _BLIND_OF_ENCODER[name.split("_")[0]]


def room_eval_results(metrics: dict) -> list[EvalResult]:
    """Return the figures of a model or a geometry encoder on rooms, each with its 95 % interval and blind figures.

    Args:
        metrics (`dict`): what metrics.json holds of one set of rooms, perhaps with the same of other rooms under
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
