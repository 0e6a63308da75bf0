"""Every metric as one line: the function that scores, the form of what it takes, and where it comes from.

`adapter.py` makes `evaluate.Metric`s of these; a new metric is a function and a line here. The words of a metric are
those of its function's docstring.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from .blink import blink_metric
from .ca_vqa import ca_vqa_metric
from .camera_pose import camera_pose_score
from .captions import caption_scores
from .cv_bench import cv_bench_metric
from .depth import depth_score
from .detection3d import detection_score
from .frame_accuracy import frame_accuracy
from .grounding3d import grounding3d_metric
from .grounding_axis_aligned import grounding_axis_aligned_score
from .mmsi import mmsi_metric
from .multi3drefer import multi3drefer_metric
from .reconstruction import reconstruction_score
from .scanqa import scanqa_metric
from .spar_bench import spar_bench_metric
from .sqa3d import sqa3d_metric
from .vsibench import vsibench_metric
from .vstibench import vstibench_metric


# Forms of values: a list is a list of its one entry, a dict has these keys.
TEXT, NUMBER, FLOAT32, WHOLE = "string", "float64", "float32", "int64"
BOX, MATRIX, DEPTH = [NUMBER], [[NUMBER]], [[FLOAT32]]


@dataclass(frozen=True)
class MetricLine:
    """One metric.

    Args:
        function (`Callable`): takes predictions, references and options; gives a `dict`.
        citation (`str`): title and place of the benchmark's paper.
        references (form): one reference.
        predictions (form, defaults to text): one prediction.
        columns (`dict[str, str]`): argument of the function that takes the list of values of each key of a reference;
            without any the references come as they are.
        optional (`tuple[str, ...]`, defaults to `()`): keys of a reference that may be missing or None.
    """

    function: Callable
    citation: str
    references: str | list | dict
    predictions: str | list = TEXT
    columns: dict = field(default_factory=dict)
    optional: tuple[str, ...] = ()


def _questions(function, citation, **columns):
    """A metric of texts whose references hold texts alone."""
    return MetricLine(function, citation, dict.fromkeys(columns, TEXT), columns=columns)


_SCANREFER = "Chen et al.: ScanRefer, ECCV 2020, arXiv:1912.08830"
TABLE = {
    "blink": _questions(blink_metric, "Fu et al.: BLINK, arXiv:2404.12390", answer="answers", task="tasks"),
    "captions": MetricLine(
        caption_scores,
        "Chen et al.: Scan2Cap, CVPR 2021, arXiv:2012.02206",
        {"captions": [TEXT], "iou": NUMBER},
        columns={"captions": "references", "iou": "ious"},
        optional=("iou",),
    ),
    "ca_vqa": _questions(
        ca_vqa_metric, "Daxberger et al.: MM-Spatial, ICCV 2025, arXiv:2503.13111", answer="answers", task="tasks"
    ),
    "camera_pose": MetricLine(camera_pose_score, "Wang et al.: VGGT, CVPR 2025, arXiv:2503.11651", [MATRIX], [MATRIX]),
    "cv_bench": _questions(
        cv_bench_metric, "Tong et al.: Cambrian-1, arXiv:2406.16860", answer="answers", source="sources", task="tasks"
    ),
    "depth": MetricLine(depth_score, "Eigen et al., NeurIPS 2014, arXiv:1406.2283", DEPTH, DEPTH),
    "detection3d": MetricLine(
        detection_score,
        "Zheng et al.: Learning from Videos for 3D World, arXiv:2505.24625",
        {"boxes": [{"label": TEXT, "bbox_3d": BOX}]},
        columns={"boxes": "boxes"},
    ),
    "frame_accuracy": MetricLine(
        frame_accuracy,
        "GAP-MLLM, arXiv:2603.16461",
        {"frames": [WHOLE], "num_frames": WHOLE},
        columns={"frames": "frames", "num_frames": "num_frames"},
    ),
    "grounding3d": MetricLine(
        grounding3d_metric,
        _SCANREFER,
        {"bbox_3d": BOX, "camera_to_world": [MATRIX], "axis_align_matrix": MATRIX},
        optional=("axis_align_matrix",),
    ),
    "grounding_axis_aligned": MetricLine(grounding_axis_aligned_score, _SCANREFER, BOX, BOX),
    "mmsi": _questions(
        mmsi_metric, "Yang et al.: MMSI-Bench, arXiv:2505.23764", answer="answers", question_type="question_types"
    ),
    "multi3drefer": MetricLine(
        multi3drefer_metric, "Zhang et al.: Multi3DRefer, ICCV 2023, arXiv:2309.05251", [BOX], [BOX]
    ),
    "reconstruction": MetricLine(
        reconstruction_score,
        "GAP-MLLM, arXiv:2603.16461",
        {"point": [NUMBER], "scene_id": TEXT},
        columns={"point": "points", "scene_id": "scene_ids"},
    ),
    "scanqa": MetricLine(
        scanqa_metric,
        "Azuma et al.: ScanQA, CVPR 2022, arXiv:2112.10482",
        {"answers": [TEXT]},
        columns={"answers": "answers"},
    ),
    "spar_bench": _questions(
        spar_bench_metric, "Zhang et al.: SPAR, arXiv:2503.22976", answer="answers", task="tasks"
    ),
    "sqa3d": _questions(
        sqa3d_metric, "Ma et al.: SQA3D, ICLR 2023, arXiv:2210.07474", answer="answers", question="questions"
    ),
    "vsibench": _questions(
        vsibench_metric,
        "Yang et al.: Thinking in Space, arXiv:2412.14171",
        answer="answers",
        question_type="question_types",
    ),
    "vstibench": _questions(
        vstibench_metric,
        "Fan et al.: VLM-3R, arXiv:2505.20279",
        answer="answers",
        question_type="question_types",
    ),
}
