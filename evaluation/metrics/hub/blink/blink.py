"""BLINK as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.blink."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.blink import LETTERS, MODES, blink_aggregate, blink_score
from gap_mllm.evaluation.metrics.letters import count_without_letter
from gap_mllm.evaluation.metrics.records import check_choice
from gap_mllm.evaluation.metrics.shell import MetricShell


_DESCRIPTION = """\
BLINK: accuracy of multiple choice per task, the mean over tasks, and the mean over the three spatial ones (multi-view
reasoning, relative depth, spatial relation).
"""
_INPUTS = """\
Args:
    predictions (list of str): the model's texts.
    references (list of dict): "answer" (letter, as "(B)" or "B") and "task" of each question.
    mode (str): "strict" (ours), "vgllm" or "lmms" (the rules of these evaluators).
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "overall", "spatial", the mean of each task, "n", "num_unparsed" (answers without a letter, wrong), "missing"
    (tasks without a question).
Example:
    >>> metric = gap_mllm.evaluation.load_metric("blink")
    >>> references = [{"answer": "(B)", "task": "Relative_Depth"}]
    >>> metric.compute(predictions=["B"], references=references)["spatial"]
    1.0
"""
_CITATION = """\
@article{fu2024blink,
  title={BLINK: Multimodal Large Language Models Can See but Not Perceive},
  author={Fu, Xingyu and others},
  journal={arXiv:2404.12390},
  year={2024}
}
"""


class Blink(MetricShell):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": {"answer": text, "task": text}}),
        )

    def _compute(self, predictions, references, mode="strict"):
        check_choice(mode, "mode", MODES)
        answers = [reference["answer"] for reference in references]
        scores = self.score_each(lambda text, answer: blink_score(text, answer, mode), predictions, answers)
        result = blink_aggregate(scores, [reference["task"] for reference in references])
        return {**result, "num_unparsed": count_without_letter(predictions, LETTERS, mode)}
