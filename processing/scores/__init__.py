# pyright: basic
"""Scores of one answer: exact IoU and matching of boxes, points, letters and numbers read out of text.

What is averaged over answers, and the rules of published benchmarks, are in `gap_mllm.evaluation`; rewards and scorers
of training stand on these functions alone. Nothing here needs a model.
"""

from .box_overlaps import box_overlaps, match_in_order
from .detection_answers import SceneDetections, detect_scene, detect_scenes, read_detections
from .exact_iou import box_intersection_9dof, box_iou_9dof, box_iou_axis_aligned
from .grounding_answers import GroundedBox, ground_box
from .letters import choice_score, extract_choice
from .mask_overlaps import MaskOverlap, mask_overlap
from .number_answers import first_number, mean_relative_accuracy, numbers_in
from .point_answers import PointAnswer, SparsePoints, read_point_answer, read_sparse_points


__all__ = [
    "GroundedBox",
    "MaskOverlap",
    "PointAnswer",
    "SceneDetections",
    "SparsePoints",
    "box_intersection_9dof",
    "box_iou_9dof",
    "box_iou_axis_aligned",
    "box_overlaps",
    "choice_score",
    "detect_scene",
    "detect_scenes",
    "extract_choice",
    "first_number",
    "ground_box",
    "mask_overlap",
    "match_in_order",
    "mean_relative_accuracy",
    "numbers_in",
    "read_detections",
    "read_point_answer",
    "read_sparse_points",
]
