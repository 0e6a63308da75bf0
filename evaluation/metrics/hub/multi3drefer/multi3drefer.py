"""Multi3DRefer as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.multi3drefer."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.multi3drefer import is_list, multi3drefer_score, select_proposals
from gap_mllm.evaluation.metrics.records import check_equal_lengths
from gap_mllm.evaluation.metrics.reference_checks import as_numbers
from gap_mllm.evaluation.metrics.shell import MetricShell


_DESCRIPTION = """\
Multi3DRefer: F1 of a set of answered boxes against a set of true ones (none, one or many) at an IoU of 0.25 and 0.5,
averaged over questions, and by type.
"""
_INPUTS = """\
Args:
    predictions (list of lists of boxes): answered boxes of each question, six numbers (centre, full sizes, metres) or
        nine (and angles in radians). None stands for an answer that could not be read.
    references (list of lists of boxes): true boxes of each question.
    question_types (list of str): zt_wo_d, zt_w_d, st_wo_d, st_w_d or mt of each (optional).
    scores (list of lists of float): of the answered boxes as proposals and, last, of "nothing is meant": boxes are
        then selected by softmax(scores / 0.07) until 0.4 is reached, as published (optional).
    mode (str): "corrected" (exact), or "reference" (1e-8 in the denominator, IoU in float32).
    euler_order (str): "zxy" (default) or "ZXY", of boxes with nine numbers.
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "f1_25", "f1_50" in 0 to 1, "n", "num_unparsed" (answers that could not be read, or none of whose boxes
    can), "num_rejected" (boxes that cannot be read), "per_type" with question types.
Example:
    >>> metric = gap_mllm.evaluation.load_metric("multi3drefer")
    >>> metric.compute(predictions=[[[0, 0, 0, 1, 1, 1]]], references=[[[0, 0, 0, 1, 1, 1]]])["f1_50"]
    1.0
"""
_CITATION = """\
@inproceedings{zhang2023multi3drefer,
  title={Multi3DRefer: Grounding Text Description to Multiple 3D Objects},
  author={Zhang, Yiming and Gong, ZeMing and Chang, Angel X},
  booktitle={ICCV},
  year={2023}
}
"""


class Multi3DRefer(MetricShell):
    def _info(self):
        boxes = datasets.List(datasets.List(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": boxes, "references": boxes}),
        )

    def read_prediction(self, prediction):
        """Boxes as lists of numbers, empty for what is no box; None for what is no list."""
        if not is_list(prediction):
            return None
        numbers = [as_numbers(box) for box in prediction]
        return [[] if box is None else box.tolist() for box in numbers]

    def _compute(self, predictions, references, question_types=None, scores=None, mode="corrected", euler_order=None):
        if scores is not None:
            check_equal_lengths(predictions=predictions, scores=scores)
            predictions = self.score_each(_select, predictions, scores)
        return multi3drefer_score(predictions, references, question_types, mode, euler_order)


def _select(boxes, scores):
    return boxes if boxes is None else select_proposals(boxes, scores)
