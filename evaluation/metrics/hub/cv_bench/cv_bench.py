"""CV-Bench as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.cv_bench."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.cv_bench import LETTERS, MODES, cv_bench_aggregate, cv_bench_score
from gap_mllm.evaluation.metrics.letters import count_without_letter
from gap_mllm.evaluation.metrics.records import check_choice
from gap_mllm.evaluation.metrics.shell import MetricShell


_DESCRIPTION = """\
CV-Bench: accuracy of multiple choice, per source and task; the two sources of 2D questions are averaged first, then 2D
and 3D.
"""
_INPUTS = """\
Args:
    predictions (list of str): the model's texts.
    references (list of dict): "answer" (letter, as "(B)" or "B"), "source" (ADE20K, COCO or Omni3D) and "task"
        (Count, Relation, Depth or Distance) of each question.
    mode (str): "strict" (ours), "vgllm" or "lmms" (the rules of these evaluators).
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "overall", "accuracy_2d", "accuracy_3d", the mean of each source and task, "n", "num_unparsed" (answers
    without a letter, wrong), "missing" (sources without a question).
Example:
    >>> metric = gap_mllm.evaluation.load_metric("cv_bench")
    >>> references = [{"answer": "(B)", "source": "COCO", "task": "Count"}]
    >>> metric.compute(predictions=["B"], references=references)["accuracy_2d"]
    1.0
"""
_CITATION = """\
@article{tong2024cambrian,
  title={Cambrian-1: A Fully Open, Vision-Centric Exploration of Multimodal LLMs},
  author={Tong, Shengbang and others},
  journal={arXiv:2406.16860},
  year={2024}
}
"""


class CvBench(MetricShell):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": text, "references": {"answer": text, "source": text, "task": text}}
            ),
        )

    def _compute(self, predictions, references, mode="strict"):
        check_choice(mode, "mode", MODES)
        answers = [reference["answer"] for reference in references]
        scores = self.score_each(lambda text, answer: cv_bench_score(text, answer, mode), predictions, answers)
        sources, tasks = ([reference[key] for reference in references] for key in ("source", "task"))
        num_unparsed = count_without_letter(predictions, LETTERS, mode)
        return {**cv_bench_aggregate(scores, sources, tasks), "num_unparsed": num_unparsed}
