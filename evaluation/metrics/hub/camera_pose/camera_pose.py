"""Camera poses as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.camera_pose."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.camera_pose import camera_pose_score
from gap_mllm.evaluation.metrics.shell import MetricShell


_DESCRIPTION = """\
Camera poses: angles by which relative rotations and directions of translation are wrong, over all pairs of views, and
the area under the curve of the larger of both up to 3, 5, 15 and 30 degrees.
"""
_INPUTS = """\
Args:
    predictions (list of arrays of shape (V, 4, 4)): camera_to_world of each scene, in any world and scale.
    references (list of arrays of shape (V, 4, 4)): the true poses.
    mode (str): "corrected" (ours), or "reference" (VGGT: bins of one degree, opposite directions count as equal).
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "auc3", "auc5", "auc15", "auc30", "rotation_acc5", "rotation_acc15", "rotation_acc30", "translation_acc5",
    "translation_acc15", "translation_acc30", "rotation_median_deg", "translation_median_deg", "n", "num_pairs",
    "num_without_direction", "num_invalid".
Example:
    >>> metric = gap_mllm.evaluation.load_metric("camera_pose")
    >>> views = [[[1, 0, 0, x], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]] for x in (0, 1)]
    >>> metric.compute(predictions=[views], references=[views])["auc30"]
    1.0
"""
_CITATION = """\
@inproceedings{wang2025vggt,
  title={VGGT: Visual Geometry Grounded Transformer},
  author={Wang, Jianyuan and Chen, Minghao and Karaev, Nikita and Vedaldi, Andrea and Rupprecht, Christian and
    Novotny, David},
  booktitle={CVPR},
  year={2025}
}
"""


class CameraPose(MetricShell):
    def _info(self):
        poses = datasets.List(datasets.List(datasets.List(datasets.Value("float64"))))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": poses, "references": poses}),
        )

    def read_prediction(self, prediction):
        return self.read_array(prediction, 3)

    def _compute(self, predictions, references, mode="corrected"):
        return camera_pose_score(predictions, references, mode)
