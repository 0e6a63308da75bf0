"""MMSI-Bench as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.mmsi."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.letters import count_without_letter
from gap_mllm.evaluation.metrics.mmsi import LETTERS, MODES, mmsi_aggregate, mmsi_score
from gap_mllm.evaluation.metrics.records import check_choice
from gap_mllm.evaluation.metrics.shell import MetricShell


_DESCRIPTION = """\
MMSI-Bench: accuracy of four-way multiple choice on several pictures, over all questions and for each type.
"""
_INPUTS = """\
Args:
    predictions (list of str): the model's texts.
    references (list of dict): "answer" (letter) and "question_type" of each question.
    mode (str): "strict" (ours) or "mmsi" (the benchmark's rule).
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "overall", "by_type" (the mean of each type), "n", "num_unparsed" (answers without a letter, wrong).
Example:
    >>> metric = gap_mllm.evaluation.load_metric("mmsi")
    >>> metric.compute(predictions=["`B`"], references=[{"answer": "B", "question_type": "MSR"}])["overall"]
    1.0
"""
_CITATION = """\
@article{yang2025mmsi,
  title={MMSI-Bench: A Benchmark for Multi-Image Spatial Intelligence},
  author={Yang, Sihan and others},
  journal={arXiv:2505.23764},
  year={2025}
}
"""


class Mmsi(MetricShell):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": {"answer": text, "question_type": text}}),
        )

    def _compute(self, predictions, references, mode="strict"):
        check_choice(mode, "mode", MODES)
        answers = [reference["answer"] for reference in references]
        scores = self.score_each(lambda text, answer: mmsi_score(text, answer, mode), predictions, answers)
        result = mmsi_aggregate(scores, [reference["question_type"] for reference in references])
        return {**result, "num_unparsed": count_without_letter(predictions, LETTERS, mode)}
