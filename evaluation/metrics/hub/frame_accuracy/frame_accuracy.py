"""Frame accuracy as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.frame_accuracy."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.frame_accuracy import frame_accuracy
from gap_mllm.evaluation.metrics.shell import MetricShell


_DESCRIPTION = """\
The first stage of two-stage grounding: the share of answers that name the right view of those shown.
"""
_INPUTS = """\
Args:
    predictions (list of str): the model's texts, as {"frame": 3}.
    references (list of dict): "frames" (the right views, counted from 0) and "num_frames" (views shown) of each.
    mode (str): "corrected" (ours), or "reference" (GAP-MLLM's reading: text without JSON means view 0).
    tolerance (int): a view is right up to so many places from a right one, 0.
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "accuracy", "mean_distance" (places, over answers that can be read), "n", "num_unparsed" (wrong).
Example:
    >>> metric = gap_mllm.evaluation.load_metric("frame_accuracy")
    >>> metric.compute(predictions=['{"frame": 3}'], references=[{"frames": [3], "num_frames": 32}])["accuracy"]
    1.0
"""


class FrameAccuracy(MetricShell):
    def _info(self):
        reference = {"frames": datasets.List(datasets.Value("int64")), "num_frames": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("string"), "references": reference}),
        )

    def _compute(self, predictions, references, mode="corrected", tolerance=0):
        frames, num_frames = ([reference[key] for reference in references] for key in ("frames", "num_frames"))
        return frame_accuracy(predictions, frames, num_frames, mode, tolerance)
