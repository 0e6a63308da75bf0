"""Changes of a scene's views that keep geometry and answers true, and marks that tie views together.

`SceneAugmentation` draws from all of them; scene_augmentation.py is where to begin.
"""

from .coarse_correspondences import CoarseCorrespondences, coarse_correspondences, draw_numbers, marked_sample
from .crops import crop_views, random_crop, resize_views
from .mirror import flip_horizontally
from .scene_augmentation import AugmentationConfig, SceneAugmentation, jitter_colors, jitter_views
from .texts import AugmentationRefused
from .view_order import drop_views, droppable_views, random_order, reorder_views


__all__ = [
    "AugmentationConfig",
    "AugmentationRefused",
    "CoarseCorrespondences",
    "SceneAugmentation",
    "coarse_correspondences",
    "crop_views",
    "draw_numbers",
    "drop_views",
    "droppable_views",
    "flip_horizontally",
    "jitter_colors",
    "jitter_views",
    "marked_sample",
    "random_crop",
    "random_order",
    "reorder_views",
    "resize_views",
]
