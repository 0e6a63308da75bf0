"""SPAR-Bench as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.spar_bench."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.records import check_choice
from gap_mllm.evaluation.metrics.shell import MetricShell
from gap_mllm.evaluation.metrics.spar_bench import (
    MODES,
    spar_bench_aggregate,
    spar_bench_is_unparsed,
    spar_bench_score,
)


_DESCRIPTION = """\
SPAR-Bench: accuracy of eleven tasks of choice, mean relative accuracy of eight tasks of numbers and of the camera's
motion; the mean over the 20 tasks, and over those of the levels low, middle and high.
"""
_INPUTS = """\
Args:
    predictions (list of str): the model's texts.
    references (list of dict): "answer" and "task" of each question.
    mode (str): "corrected" (ours) or "reference" (the published evaluator with its faults).
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "overall", "low", "middle", "high", the mean of each task, "n", "num_unparsed" (answers that hold nothing of
    the kind asked for), "missing" (tasks without a question).
Example:
    >>> metric = gap_mllm.evaluation.load_metric("spar_bench")
    >>> references = [{"answer": "2.5", "task": "depth_prediction_oc"}]
    >>> metric.compute(predictions=["2.5 m"], references=references)["low"]
    1.0
"""
_CITATION = """\
@article{zhang2025spar,
  title={From Flatland to Space: Teaching Vision-Language Models to Perceive and Reason in 3D},
  author={Zhang, Jiahui and others},
  journal={arXiv:2503.22976},
  year={2025}
}
"""


class SparBench(MetricShell):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": {"answer": text, "task": text}}),
        )

    def _compute(self, predictions, references, mode="corrected"):
        check_choice(mode, "mode", MODES)
        answers, tasks = ([reference[key] for reference in references] for key in ("answer", "task"))
        columns = predictions, answers, tasks
        scores = self.score_each(lambda *row: spar_bench_score(*row, mode), *columns)
        num_unparsed = sum(spar_bench_is_unparsed(*row, mode) for row in zip(*columns, strict=True))
        return {**spar_bench_aggregate(scores, tasks, mode), "num_unparsed": num_unparsed}
