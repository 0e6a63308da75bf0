"""The name under which exact IoU is known to users of evaluation; it is worked out in `gap_mllm.processing.scores`."""

from ..processing.scores.exact_iou import box_intersection_9dof, box_iou_9dof, box_iou_axis_aligned  # noqa: F401
