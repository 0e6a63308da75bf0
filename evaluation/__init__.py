# pyright: basic
"""Scores of 3D answers next to blind baselines, dense point errors, and plots."""

from ..processing.data.rooms.renderer import render_split
from ..processing.drawing import AnswerExample, draw_answers, project_wireframe
from ..processing.metrics_file import load_metrics, save_metrics
from ..processing.scores import (
    GroundedBox,
    box_intersection_9dof,
    box_iou_9dof,
    box_iou_axis_aligned,
    choice_score,
    extract_choice,
    ground_box,
    read_detections,
)
from ..training.curves import plot_curves
from ..training.marked_pixel_scorer import answer_marked_pixels, make_marked_pixel_samples, marked_pixel_scorer
from .baselines import BlindBaselines, fit_baselines
from .dense_points import (
    evaluate_geometry_encoder,
    evaluate_point_maps,
    geometry_of_other_scenes,
    pose_errors,
    summarize_errors,
)
from .intervals import bootstrap_interval, with_interval
from .marked_pixel import score_marked_pixels
from .metrics import METRICS, load_metric
from .metrics.answer_cleaning import clean_answer
from .metrics.average_precision import average_precision
from .metrics.blink import blink_aggregate
from .metrics.ca_vqa import ca_vqa_aggregate, ca_vqa_rate, ca_vqa_read
from .metrics.camera_pose import camera_pose_score, pose_auc, relative_pose_errors
from .metrics.captions import caption_scores
from .metrics.cv_bench import cv_bench_aggregate
from .metrics.depth import depth_errors, depth_score
from .metrics.detection3d import detection_aggregate, detection_counts, detection_score
from .metrics.frame_accuracy import frame_accuracy, read_frame
from .metrics.grounding3d import grounding_of_texts, grounding_score
from .metrics.grounding_axis_aligned import grounding_axis_aligned_score
from .metrics.mmsi import mmsi_aggregate
from .metrics.multi3drefer import multi3drefer_f1, multi3drefer_score, select_proposals
from .metrics.reconstruction import align_points, point_cloud_errors, reconstruction_scene, reconstruction_score
from .metrics.records import align_by_id
from .metrics.scanqa import scanqa_aggregate, scanqa_score
from .metrics.spar_bench import spar_bench_aggregate, spar_bench_is_unparsed, spar_bench_score
from .metrics.sqa3d import sqa3d_aggregate, sqa3d_question_type, sqa3d_score
from .metrics.vsibench import vsibench_aggregate, vsibench_is_unparsed, vsibench_overall, vsibench_score
from .metrics.vstibench import vstibench_aggregate, vstibench_rate, vstibench_read
from .probing import (
    CorrespondenceScore,
    correspondence_score,
    draw_gate_maps,
    gate_maps,
    probe_model,
    relate_run,
    relate_to_task,
    token_points,
)


__all__ = [
    "METRICS",
    "AnswerExample",
    "BlindBaselines",
    "CorrespondenceScore",
    "GroundedBox",
    "align_by_id",
    "align_points",
    "answer_marked_pixels",
    "average_precision",
    "blink_aggregate",
    "bootstrap_interval",
    "box_intersection_9dof",
    "box_iou_9dof",
    "box_iou_axis_aligned",
    "camera_pose_score",
    "caption_scores",
    "choice_score",
    "clean_answer",
    "correspondence_score",
    "cv_bench_aggregate",
    "depth_errors",
    "depth_score",
    "detection_aggregate",
    "detection_counts",
    "detection_score",
    "draw_answers",
    "draw_gate_maps",
    "evaluate_geometry_encoder",
    "evaluate_point_maps",
    "extract_choice",
    "fit_baselines",
    "frame_accuracy",
    "gate_maps",
    "geometry_of_other_scenes",
    "ground_box",
    "grounding_axis_aligned_score",
    "grounding_of_texts",
    "grounding_score",
    "load_metric",
    "load_metrics",
    "make_marked_pixel_samples",
    "marked_pixel_scorer",
    "mmsi_aggregate",
    "multi3drefer_f1",
    "multi3drefer_score",
    "plot_curves",
    "point_cloud_errors",
    "pose_auc",
    "pose_errors",
    "probe_model",
    "project_wireframe",
    "read_detections",
    "read_frame",
    "reconstruction_scene",
    "reconstruction_score",
    "relate_run",
    "relate_to_task",
    "relative_pose_errors",
    "render_split",
    "save_metrics",
    "scanqa_aggregate",
    "scanqa_score",
    "score_marked_pixels",
    "select_proposals",
    "spar_bench_aggregate",
    "spar_bench_is_unparsed",
    "spar_bench_score",
    "sqa3d_aggregate",
    "sqa3d_question_type",
    "sqa3d_score",
    "summarize_errors",
    "token_points",
    "vsibench_aggregate",
    "vsibench_is_unparsed",
    "vsibench_overall",
    "vsibench_score",
    "with_interval",
    "ca_vqa_aggregate",
    "ca_vqa_rate",
    "ca_vqa_read",
    "vstibench_aggregate",
    "vstibench_rate",
    "vstibench_read",
]
