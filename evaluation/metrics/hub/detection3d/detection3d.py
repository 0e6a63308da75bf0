"""3D detection as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.detection3d."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.detection3d import detection_score
from gap_mllm.evaluation.metrics.shell import MetricShell


_DESCRIPTION = """\
3D object detection in text answers: precision, recall and F1 per category and averaged over lists of 8, 20 and 31
categories of ScanNet, over all objects (micro), and average precision at an IoU of 0.25 and 0.5.
"""
_INPUTS = """\
Args:
    predictions (list of str): the model's texts, one a scene.
    references (list of dict): "boxes", a list of {"label", "bbox_3d"}: nine numbers in the camera of the first view,
        metres and radians.
    scores (list of lists of float): how sure the model is of each object that is read, in text order (optional).
    mode (str): "corrected" (ours), or "reference" (VG-LLM's and GAP-MLLM's reading, Euler order and lists).
    euler_order (str): "zxy" or "ZXY", instead of the mode's.
    threshold (float): overlap that a hit of precision, recall and F1 must exceed, 0.25.
    rejected_as_fp (bool): count objects that cannot be read as false positives.
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "precision", "recall", "f1" (means over the 31 categories), "cate8", "cate20", "cate31", "occurring" (means
    over the "num_categories" that occur), "micro", "ap25", "ap50", "per_category", "n", "num_truths", "num_objects",
    "num_other_truths" and "num_other_objects" (of labels outside the 31), "num_rejected", "num_truncated",
    "num_unparsed". 0 where nothing counts, but NaN for AP without true boxes.
Example:
    >>> metric = gap_mllm.evaluation.load_metric("detection3d")
    >>> references = [{"boxes": [{"label": "bed", "bbox_3d": [0, 0, 2, 1, 2, 1, 0, 0, 0]}]}]
    >>> text = '[{"label": "bed", "bbox_3d": [0, 0, 2, 1, 2, 1, 0, 0, 0]}]'
    >>> metric.compute(predictions=[text], references=references)["micro"]["f1"]
    1.0
"""
_CITATION = """\
@article{zheng2025learning,
  title={Learning from Videos for 3D World: Enhancing MLLMs with 3D Vision Geometry Priors},
  author={Zheng, Duo and Huang, Shijia and Li, Yanyang and Wang, Liwei},
  journal={arXiv:2505.24625},
  year={2025}
}
"""


class Detection3D(MetricShell):
    def _info(self):
        box = {"label": datasets.Value("string"), "bbox_3d": datasets.List(datasets.Value("float64"))}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": {"boxes": datasets.List(box)}}
            ),
        )

    def _compute(
        self,
        predictions,
        references,
        scores=None,
        mode="corrected",
        euler_order=None,
        threshold=0.25,
        rejected_as_fp=False,
    ):
        boxes = [reference["boxes"] for reference in references]
        return detection_score(predictions, boxes, scores, mode, euler_order, threshold, rejected_as_fp)
