"""Labels from any RGB video: a reconstruction teacher in windows, metric scale, and questions in the schema.

`label_video` in labelling.py runs it all.
"""

from .depth_teacher import Reconstruction, Teacher, load_teacher
from .label_options import LabelOptions
from .labelling import label_video
from .metric_scale import KnownBaseline, KnownDepth, ScaleEstimator, UserFactor, known_depth_from_folder
from .teacher_windows import reconstruct_in_windows


__all__ = [
    "KnownBaseline",
    "KnownDepth",
    "LabelOptions",
    "Reconstruction",
    "ScaleEstimator",
    "Teacher",
    "UserFactor",
    "known_depth_from_folder",
    "label_video",
    "load_teacher",
    "reconstruct_in_windows",
]
