"""Reconstruction as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.reconstruction."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.reconstruction import reconstruction_score
from gap_mllm.evaluation.metrics.shell import MetricShell


_DESCRIPTION = """\
Points that a model answers for marked pixels: accuracy, completion and their mean (Chamfer distance) by scene, as
answered and after alignment with a similarity, and the mean error of points.
"""
_INPUTS = """\
Args:
    predictions (list of str): the model's texts, as {"label": "bed", "pointmap": [0.1, 0.2, 2.0]}.
    references (list of dict): "point" (three numbers, camera of the first view, metres) and "scene_id" of each.
    penalty_m (float): distance that an answer adds which cannot be read; without it they are left out, as published.
    first_views (list of str): what names the first view of each question, to find scenes that mix frames (optional).
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "acc_metric", "comp_metric", "overall_metric", "acc_align", "comp_align", "overall_align",
    "overall_metric_all", "mean_point_error", "mean_point_score", "coverage", "n", "num_unparsed", "num_scenes",
    "scenes_without_alignment", "scenes_without_points", "scenes_of_mixed_frames", "per_scene".
Example:
    >>> metric = gap_mllm.evaluation.load_metric("reconstruction")
    >>> references = [{"point": [0, 0, 2], "scene_id": "a"}]
    >>> metric.compute(predictions=['{"pointmap": [0, 0, 2.5]}'], references=references)["mean_point_error"]
    0.5
"""
_CITATION = """\
@article{gapmllm2026,
  title={GAP-MLLM: Geometry-Aligned Pre-training for Multimodal Large Language Models},
  journal={arXiv:2603.16461},
  year={2026}
}
"""


class Reconstruction(MetricShell):
    def _info(self):
        reference = {"point": datasets.List(datasets.Value("float64")), "scene_id": datasets.Value("string")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("string"), "references": reference}),
        )

    def _compute(self, predictions, references, penalty_m=None, first_views=None):
        points, scene_ids = ([reference[key] for reference in references] for key in ("point", "scene_id"))
        return reconstruction_score(predictions, points, scene_ids, penalty_m, first_views)
