"""ScanQA as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.scanqa."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.records import check_unique
from gap_mllm.evaluation.metrics.scanqa import is_empty_answer, scanqa_aggregate, scanqa_score


_DESCRIPTION = """\
ScanQA: exact match of cleaned answers, and the refined match, by which one text within the other is right too. CIDEr,
BLEU, ROUGE-L and METEOR of the same answers are in the metric "captions", mode "scanqa".
"""
_INPUTS = """\
Args:
    predictions (list of str): the model's texts.
    references (list of dict): "answers" (list of str) of each question.
    mode (str): "corrected" (ours), "reference" (LEO's rules; an empty answer is a refined match) or "spatial_mllm"
        (raw texts).
    ids (list of str, optional): of the questions; given twice is an error.
Returns:
    dict: "em", "em_refined" (None in mode "spatial_mllm"), "n", "num_unparsed" (answers of which cleaning leaves
    nothing).
Example:
    >>> metric = gap_mllm.evaluation.load_metric("scanqa")
    >>> metric.compute(predictions=["The brown cabinet."], references=[{"answers": ["brown cabinet"]}])["em"]
    1.0
"""
_CITATION = """\
@inproceedings{azuma2022scanqa,
  title={ScanQA: 3D Question Answering for Spatial Scene Understanding},
  author={Azuma, Daichi and Miyanishi, Taiki and Kurita, Shuhei and Kawanabe, Motoaki},
  booktitle={CVPR},
  year={2022}
}
"""


class ScanQa(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": {"answers": datasets.List(text)}}),
        )

    def _compute(self, predictions, references, mode="corrected", ids=None):
        if ids is not None:
            check_unique(ids)
        scores = [
            scanqa_score(prediction, reference["answers"], mode)
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        num_unparsed = sum(is_empty_answer(prediction, mode) for prediction in predictions)
        return {**scanqa_aggregate(scores), "num_unparsed": num_unparsed}
