"""Axis-aligned grounding as an `evaluate.Metric`; see gap_mllm.evaluation.metrics.grounding_axis_aligned."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.grounding_axis_aligned import grounding_axis_aligned_score
from gap_mllm.evaluation.metrics.reference_checks import as_numbers
from gap_mllm.evaluation.metrics.shell import MetricShell


_DESCRIPTION = """\
3D visual grounding with axis-aligned boxes (ScanRefer, Nr3D): accuracy at an IoU of 0.25 and 0.5, and mean IoU, for
all questions and by type.
"""
_INPUTS = """\
Args:
    predictions (list of lists of float): answered boxes, centre and full sizes in metres; None or an empty list for an
        answer that could not be read.
    references (list of lists of float): true boxes.
    question_types (list of str): one for each question (optional).
    mode (str): "corrected" (exact), or "reference" (1e-8 added to the union, as 3DRS and Video-3D-LLM do).
    nr3d (bool): read types as Nr3D's: easy or hard, view-dep or view-indep.
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "acc25", "acc50", "miou" in 0 to 1, "n", "num_unparsed", "per_type" with question types.
Example:
    >>> metric = gap_mllm.evaluation.load_metric("grounding_axis_aligned")
    >>> metric.compute(predictions=[[0, 0, 0, 1, 1, 0.5]], references=[[0, 0, 0, 1, 1, 1]])["acc50"]
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


class GroundingAxisAligned(MetricShell):
    def _info(self):
        box = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": box, "references": box}),
        )

    def read_prediction(self, prediction):
        """The numbers of a box, an empty list for anything else."""
        numbers = as_numbers(prediction)
        return [] if numbers is None else numbers.tolist()

    def _compute(self, predictions, references, question_types=None, mode="corrected", nr3d=False):
        return grounding_axis_aligned_score(predictions, references, question_types, mode, nr3d)
