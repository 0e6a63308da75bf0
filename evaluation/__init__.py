"""Scores of 3D answers next to blind baselines, dense point errors, and plots."""

from .baselines import BlindBaselines, fit_baselines, render_split
from .boxes import box_intersection_9dof, box_iou_9dof, box_iou_axis_aligned
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
from .metrics.answer_cleaning import clean_answer
from .metrics.blink import blink_aggregate, blink_score
from .metrics.captions import caption_scores
from .metrics.cv_bench import cv_bench_aggregate, cv_bench_score
from .metrics.letters import choice_score, extract_choice
from .metrics.mmsi import mmsi_aggregate, mmsi_score
from .metrics.records import align_by_id
from .metrics.scanqa import scanqa_aggregate, scanqa_score
from .metrics.spar_bench import spar_bench_aggregate, spar_bench_is_unparsed, spar_bench_score
from .metrics.sqa3d import sqa3d_aggregate, sqa3d_question_type, sqa3d_score
from .metrics.vsibench import vsibench_aggregate, vsibench_is_unparsed, vsibench_score
from .metrics_file import save_metrics
from .plots import AnswerExample, draw_answers, plot_curves, project_wireframe


__all__ = [
    "METRICS",
    "AnswerExample",
    "BlindBaselines",
    "MarkedPixelSample",
    "align_by_id",
    "answer_marked_pixels",
    "blink_aggregate",
    "blink_score",
    "bootstrap_interval",
    "box_intersection_9dof",
    "box_iou_9dof",
    "box_iou_axis_aligned",
    "caption_scores",
    "choice_score",
    "clean_answer",
    "cv_bench_aggregate",
    "cv_bench_score",
    "draw_answers",
    "evaluate_geometry_encoder",
    "evaluate_point_maps",
    "extract_choice",
    "fit_baselines",
    "geometry_of_another_scene",
    "load_metric",
    "make_marked_pixel_samples",
    "marked_pixel_scorer",
    "mmsi_aggregate",
    "mmsi_score",
    "plot_curves",
    "pose_errors",
    "project_wireframe",
    "render_split",
    "save_metrics",
    "scanqa_aggregate",
    "scanqa_score",
    "score_marked_pixels",
    "spar_bench_aggregate",
    "spar_bench_is_unparsed",
    "spar_bench_score",
    "sqa3d_aggregate",
    "sqa3d_question_type",
    "sqa3d_score",
    "summarize_errors",
    "vsibench_aggregate",
    "vsibench_is_unparsed",
    "vsibench_score",
    "with_interval",
]
