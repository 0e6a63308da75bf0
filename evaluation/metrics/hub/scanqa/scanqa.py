"""ScanQA as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.scanqa."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.records import check_choice
from gap_mllm.evaluation.metrics.scanqa import MODES, is_empty_answer, scanqa_aggregate, scanqa_score
from gap_mllm.evaluation.metrics.shell import MetricShell


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
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "em", "em_refined" (None in mode "spatial_mllm"), "n", "num_unparsed" (answers of which cleaning leaves
    nothing), "num_without_answer" (questions without a true one: nothing is right there).
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


class ScanQa(MetricShell):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": {"answers": datasets.List(text)}}),
        )

    def _compute(self, predictions, references, mode="corrected"):
        check_choice(mode, "mode", MODES)
        answers = [reference["answers"] for reference in references]
        scores = self.score_each(lambda text, true: scanqa_score(text, true, mode), predictions, answers)
        return {
            **scanqa_aggregate(scores),
            "num_unparsed": sum(is_empty_answer(prediction, mode) for prediction in predictions),
            "num_without_answer": sum(not any(text.strip() for text in texts) for texts in answers),
        }
