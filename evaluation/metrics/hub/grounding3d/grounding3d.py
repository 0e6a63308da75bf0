"""Grounding with poses as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.grounding3d."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.grounding3d import grounding_of_texts, grounding_score
from gap_mllm.evaluation.metrics.shell import MetricShell


_DESCRIPTION = """\
3D visual grounding in posed views: the answered box, moved from the camera of its view to the aligned world, against
the true one. Accuracy at an IoU of 0.25 and 0.5, and mean IoU.
"""
_INPUTS = """\
Args:
    predictions (list of str): the model's texts: frame and box, or the box alone with `frames`.
    references (list of dict): "bbox_3d" (nine numbers in the aligned world, metres and radians), "camera_to_world"
        (a 4x4 pose for every view, not finite where tracking was lost), "axis_align_matrix" (4x4; not needed where
        poses are aligned).
    frames (list of int): the views chosen in a first stage (optional).
    question_types (list of str): as "unique" or "multiple", to report each (optional).
    mode (str): "corrected" (ours) or "reference" (VG-LLM's and GAP-MLLM's reading and Euler orders).
    euler_order (str): "zxy" or "ZXY", instead of the mode's.
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "acc25", "acc50", "miou" in 0 to 1, "n", "num_unparsed", "per_type" with question types.
Example:
    >>> metric = gap_mllm.evaluation.load_metric("grounding3d")
    >>> pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    >>> box = [0, 0, 2, 1, 1, 1, 0, 0, 0]
    >>> references = [{"bbox_3d": box, "camera_to_world": [pose], "axis_align_matrix": pose}]
    >>> metric.compute(predictions=[f'{{"frame": 0, "bbox_3d": {box}}}'], references=references)["acc50"]
    1.0
"""
_CITATION = """\
@inproceedings{chen2020scanrefer,
  title={ScanRefer: 3D Object Localization in RGB-D Scans using Natural Language},
  author={Chen, Dave Zhenyu and Chang, Angel X and Nie{\\ss}ner, Matthias},
  booktitle={ECCV},
  year={2020}
}
"""


class Grounding3D(MetricShell):
    OPTIONAL_KEYS = ("axis_align_matrix",)

    def _info(self):
        row = datasets.List(datasets.Value("float64"))
        matrix = datasets.List(row)
        reference = {"bbox_3d": row, "camera_to_world": datasets.List(matrix), "axis_align_matrix": matrix}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("string"), "references": reference}),
        )

    def _compute(self, predictions, references, frames=None, question_types=None, mode="corrected", euler_order=None):
        answers = grounding_of_texts(predictions, references, frames, mode, euler_order)
        return grounding_score(answers, question_types)
