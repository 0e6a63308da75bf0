"""What a model's visual tokens know of 3D: correspondence of views, linear probes by layer, maps of its gates."""

from .correspondence import CorrespondenceScore, correspondence_score, token_points
from .gate_maps import draw_gate_maps, gate_maps
from .probe_model import probe_model
from .probe_report import probe_csv, probe_table
from .run_relation import relate_run
from .task_relation import relate_to_task


__all__ = [
    "CorrespondenceScore",
    "correspondence_score",
    "draw_gate_maps",
    "gate_maps",
    "probe_csv",
    "probe_model",
    "probe_table",
    "relate_run",
    "relate_to_task",
    "token_points",
]
