# pyright: basic
"""Losses as pure functions, a file a family; each gives a `LossSum`, a sum over items and their number."""

from .camera_losses import (
    field_of_view_loss,
    pose_encoding_loss,
    pose_loss,
    relative_pose_loss,
    rotation_loss,
    translation_loss,
)
from .correspondence_losses import (
    VOXEL_EXTENT_M,
    point_consistency_loss,
    point_contrast_loss,
    point_pixel_contrast_loss,
    voxel_ids,
    voxel_indices,
)
from .depth_losses import depth_gradient_loss, log_depth_loss, scale_invariant_depth_loss, trimmed_depth_loss
from .feature_losses import (
    feature_distillation_loss,
    layer_distillation_loss,
    pool_features,
    relational_distillation_loss,
)
from .geovr_losses import GEOVR_WEIGHTS, geovr_losses
from .language_losses import (
    SHAPE_WORDS,
    SPATIAL_RELATIONS,
    label_map_loss,
    pool_regions,
    region_text_contrast_loss,
    region_text_sigmoid_loss,
    relation_alignment_loss,
    spatial_relations,
)
from .loss_sum import LossSum, weighted_loss
from .metric_scale_losses import metric_scale_loss, metric_scale_target
from .normal_losses import normal_loss, normals_from_depth, normals_from_points, quadrant_normals
from .point_losses import confidence_loss, normalise_points, point_loss, point_map_loss
from .shape_losses import chamfer_loss, occupancy_loss
from .text_loss import IGNORE_INDEX, number_loss, text_loss


__all__ = [
    "GEOVR_WEIGHTS",
    "IGNORE_INDEX",
    "SHAPE_WORDS",
    "SPATIAL_RELATIONS",
    "VOXEL_EXTENT_M",
    "LossSum",
    "chamfer_loss",
    "confidence_loss",
    "depth_gradient_loss",
    "feature_distillation_loss",
    "field_of_view_loss",
    "geovr_losses",
    "label_map_loss",
    "layer_distillation_loss",
    "log_depth_loss",
    "metric_scale_loss",
    "metric_scale_target",
    "normal_loss",
    "normalise_points",
    "normals_from_depth",
    "normals_from_points",
    "number_loss",
    "occupancy_loss",
    "point_consistency_loss",
    "point_contrast_loss",
    "point_loss",
    "point_map_loss",
    "point_pixel_contrast_loss",
    "pool_features",
    "pool_regions",
    "pose_encoding_loss",
    "pose_loss",
    "quadrant_normals",
    "region_text_contrast_loss",
    "region_text_sigmoid_loss",
    "relation_alignment_loss",
    "relational_distillation_loss",
    "relative_pose_loss",
    "rotation_loss",
    "scale_invariant_depth_loss",
    "spatial_relations",
    "text_loss",
    "translation_loss",
    "trimmed_depth_loss",
    "voxel_ids",
    "voxel_indices",
    "weighted_loss",
]
