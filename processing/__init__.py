# pyright: basic
"""Processor, answers, visual prompts, camera geometry and data for GAP-MLLM."""

from .answers_gap_mllm import (
    LabelledBox,
    LabelledPoint,
    ParsedAnswer,
    Rejection,
    format_box,
    format_boxes,
    format_frame,
    format_point,
    format_points,
    parse_boxes,
    parse_choice,
    parse_frame,
    parse_points,
)
from .asking_gap_mllm import check_image_statistics
from .depth_points import world_points_from_depth
from .frame_sampling_gap_mllm import (
    FrameVoxels,
    fps_sample,
    greedy_coverage,
    space_aware_sample,
    uniform_sample,
    voxelize_frames,
)
from .processing_gap_mllm import GapMllmProcessor, default_image_processor
from .prompts_gap_mllm import (
    TASKS,
    build_messages,
    focal_lengths,
    focal_text,
    name_marks,
    number_marks,
    prompt_text,
    split_image_tags,
)
from .scale_calibration import MetricScale, scale_from_distance, scale_from_size
from .segmentation import SceneSurface, draw_masks, segment_from_points
from .tiny_tokenizer import build_tiny_processor, build_tiny_tokenizer
from .visual_prompt_gap_mllm import (
    MARK_COLORS,
    CrossSize,
    Mark,
    apply_visual_prompt,
    draw_box,
    draw_cross,
    draw_point,
    draw_scene_marks,
    marks_to_tokens,
    pixel_to_token,
    to_rgb_image,
)


__all__ = [
    "MARK_COLORS",
    "TASKS",
    "CrossSize",
    "FrameVoxels",
    "GapMllmProcessor",
    "LabelledBox",
    "LabelledPoint",
    "Mark",
    "MetricScale",
    "ParsedAnswer",
    "Rejection",
    "SceneSurface",
    "apply_visual_prompt",
    "build_messages",
    "build_tiny_processor",
    "build_tiny_tokenizer",
    "check_image_statistics",
    "default_image_processor",
    "draw_box",
    "draw_cross",
    "draw_masks",
    "draw_point",
    "draw_scene_marks",
    "focal_lengths",
    "focal_text",
    "format_box",
    "format_boxes",
    "format_frame",
    "format_point",
    "format_points",
    "fps_sample",
    "greedy_coverage",
    "marks_to_tokens",
    "name_marks",
    "number_marks",
    "parse_boxes",
    "parse_choice",
    "parse_frame",
    "parse_points",
    "pixel_to_token",
    "prompt_text",
    "scale_from_distance",
    "scale_from_size",
    "segment_from_points",
    "space_aware_sample",
    "split_image_tags",
    "to_rgb_image",
    "uniform_sample",
    "voxelize_frames",
    "world_points_from_depth",
]
