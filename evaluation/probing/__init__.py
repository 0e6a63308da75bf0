"""What a model's visual tokens know of 3D: correspondence of views, linear probes by layer, maps of its gates."""

from .correspondence import CorrespondenceScore, correspondence_score, token_points
from .task_relation import relate_to_task


__all__ = ["CorrespondenceScore", "correspondence_score", "relate_to_task", "token_points"]
