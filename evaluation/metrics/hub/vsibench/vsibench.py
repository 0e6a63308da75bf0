"""VSI-Bench as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.vsibench."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.records import check_choice
from gap_mllm.evaluation.metrics.shell import MetricShell
from gap_mllm.evaluation.metrics.vsibench import (
    MODES,
    vsibench_aggregate,
    vsibench_is_unparsed,
    vsibench_score,
)


_DESCRIPTION = """\
VSI-Bench: exact match of the letter for six kinds of multiple choice (the three levels of relative direction are one
task), mean relative accuracy for four kinds of numbers, and the mean over the eight tasks.
"""
_INPUTS = """\
Args:
    predictions (list of str): the model's texts.
    references (list of dict): "answer" (letter or number, as text) and "question_type" of each question.
    mode (str): "strict" (official rule), "lenient" (the answer is looked for in the whole text), "lmms_eval" or
        "spatial_mllm" (the rules of these evaluators).
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "overall", the mean of each task, "n", "num_unparsed" (answers without a letter or number,
        wrong), "num_other_types", "missing" (tasks without a question).
Example:
    >>> metric = gap_mllm.evaluation.load_metric("vsibench")
    >>> metric.compute(predictions=["B"], references=[{"answer": "B", "question_type": "route_planning"}])["overall"]
    1.0
"""
_CITATION = """\
@article{yang2024thinking,
  title={Thinking in Space: How Multimodal Large Language Models See, Remember, and Recall Spaces},
  author={Yang, Jihan and Yang, Shusheng and Gupta, Anjali W. and Han, Rilyn and Fei-Fei, Li and Xie, Saining},
  journal={arXiv:2412.14171},
  year={2024}
}
"""


class VsiBench(MetricShell):
    def _info(self):
        reference = {"answer": datasets.Value("string"), "question_type": datasets.Value("string")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("string"), "references": reference}),
        )

    def _compute(self, predictions, references, mode="strict"):
        check_choice(mode, "mode", MODES)
        answers, kinds = ([reference[key] for reference in references] for key in ("answer", "question_type"))
        scores = self.score_each(lambda *row: vsibench_score(*row, mode), predictions, answers, kinds)
        pairs = zip(predictions, kinds, strict=True)
        num_unparsed = sum(vsibench_is_unparsed(prediction, kind, mode) for prediction, kind in pairs)
        return {**vsibench_aggregate(scores, kinds), "num_unparsed": num_unparsed}
