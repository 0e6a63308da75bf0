"""Scores of 3D answers next to blind baselines, dense point errors, and plots."""

from .baselines import BlindBaselines, fit_baselines, render_split
from .dense_points import (
    evaluate_geometry_encoder,
    evaluate_point_maps,
    geometry_of_another_scene,
    pose_errors,
    summarize_errors,
)
from .intervals import bootstrap_interval, with_interval
from .marked_pixel import (
    MarkedPixelSample,
    answer_marked_pixels,
    make_marked_pixel_samples,
    marked_pixel_scorer,
    score_marked_pixels,
)
from .metrics import METRICS, load_metric
from .metrics.vsibench import vsibench_aggregate, vsibench_score
from .metrics_file import save_metrics
from .plots import AnswerExample, draw_answers, plot_curves, project_wireframe


__all__ = [
    "METRICS",
    "AnswerExample",
    "BlindBaselines",
    "MarkedPixelSample",
    "answer_marked_pixels",
    "bootstrap_interval",
    "draw_answers",
    "evaluate_geometry_encoder",
    "evaluate_point_maps",
    "fit_baselines",
    "geometry_of_another_scene",
    "load_metric",
    "make_marked_pixel_samples",
    "marked_pixel_scorer",
    "plot_curves",
    "pose_errors",
    "project_wireframe",
    "render_split",
    "save_metrics",
    "score_marked_pixels",
    "summarize_errors",
    "vsibench_aggregate",
    "vsibench_score",
    "with_interval",
]
