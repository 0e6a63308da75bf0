"""Depth as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.depth."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.depth import depth_score
from gap_mllm.evaluation.metrics.shell import MetricShell


_DESCRIPTION = """\
Depth maps against measured depth: mean relative error, root mean square error, and the share of pixels whose ratio to
the truth is below 1.25, 1.25^2 and 1.25^3; averaged over maps.
"""
_INPUTS = """\
Args:
    predictions (list of 2D arrays): depth in metres; NaN, 0 or less where there is none.
    references (list of 2D arrays): measured depth in metres; 0 or NaN where nothing was measured.
    masks (list of 2D arrays of bool): pixels that may count (optional).
    alignment (str): "none", or "median" to scale each map to the median of the truth.
    max_depth_m (float): true depth beyond which a pixel does not count (optional).
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "abs_rel", "rmse_m", "delta1", "delta2", "delta3", "coverage", "n", "num_without_truth",
    "num_without_prediction", "per_map".
Example:
    >>> metric = gap_mllm.evaluation.load_metric("depth")
    >>> metric.compute(predictions=[[[1.0, 2.2]]], references=[[[1.0, 2.0]]])["delta1"]
    1.0
"""
_CITATION = """\
@inproceedings{eigen2014depth,
  title={Depth Map Prediction from a Single Image using a Multi-Scale Deep Network},
  author={Eigen, David and Puhrsch, Christian and Fergus, Rob},
  booktitle={NeurIPS},
  year={2014}
}
"""


class Depth(MetricShell):
    def _info(self):
        depth = datasets.List(datasets.List(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": depth, "references": depth}),
        )

    def read_prediction(self, prediction):
        return self.read_array(prediction, 2)

    def _compute(self, predictions, references, masks=None, alignment="none", max_depth_m=None):
        return depth_score(predictions, references, masks, alignment, max_depth_m)
