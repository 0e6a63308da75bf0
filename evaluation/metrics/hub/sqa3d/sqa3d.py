"""SQA3D as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.sqa3d."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.records import check_choice
from gap_mllm.evaluation.metrics.scanqa import is_empty_answer
from gap_mllm.evaluation.metrics.shell import MetricShell
from gap_mllm.evaluation.metrics.sqa3d import MODES, sqa3d_aggregate, sqa3d_question_type, sqa3d_score


_DESCRIPTION = """\
SQA3D: exact match and refined match of cleaned answers, over all questions and per type, which is the question's first
word (what, is, how, can, which, others).
"""
_INPUTS = """\
Args:
    predictions (list of str): the model's texts.
    references (list of dict): "answer" and "question" of each; the question without the situation.
    mode (str): "corrected" (ours) or "reference" (published rules; an empty answer is a refined match).
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "em", "em_refined", both per type ("em_what", ..), "n", "missing" (types without a question), "num_unparsed"
    (answers of which cleaning leaves nothing).
Example:
    >>> metric = gap_mllm.evaluation.load_metric("sqa3d")
    >>> references = [{"answer": "two", "question": "How many chairs are there?"}]
    >>> metric.compute(predictions=["2"], references=references)["em_how"]
    1.0
"""
_CITATION = """\
@inproceedings{ma2023sqa3d,
  title={SQA3D: Situated Question Answering in 3D Scenes},
  author={Ma, Xiaojian and Yong, Silong and Zheng, Zilong and Li, Qing and Liang, Yitao and Zhu, Song-Chun and
    Huang, Siyuan},
  booktitle={ICLR},
  year={2023}
}
"""


class Sqa3d(MetricShell):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": {"answer": text, "question": text}}),
        )

    def _compute(self, predictions, references, mode="corrected"):
        check_choice(mode, "mode", MODES)
        answers = [reference["answer"] for reference in references]
        scores = self.score_each(lambda text, answer: sqa3d_score(text, answer, mode), predictions, answers)
        kinds = [sqa3d_question_type(reference["question"], mode) for reference in references]
        num_unparsed = sum(is_empty_answer(prediction, mode) for prediction in predictions)
        return {**sqa3d_aggregate(scores, kinds), "num_unparsed": num_unparsed}
