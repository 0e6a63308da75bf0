"""Caption scores as an `evaluate.Metric`; the arithmetic is in gap_mllm.evaluation.metrics.captions."""

import datasets
import evaluate

from gap_mllm.evaluation.metrics.captions import caption_scores
from gap_mllm.evaluation.metrics.shell import MetricShell


_DESCRIPTION = """\
CIDEr, BLEU-1 to 4, ROUGE-L and METEOR of captions over a whole corpus, by pycocoevalcap; captions of boxes below an
IoU can count as empty (Scan2Cap's m@kIoU). METEOR is computed where Java is.
"""
_INPUTS = """\
Args:
    predictions (list of str): one caption an item, empty where the model gave none.
    references (list of dict): "captions" (list of str, the true ones) and "iou" (float; not needed where there
        is no gate) of each item.
    mode (str): "corrected" (ours; a gated caption earns nothing), "reference" (Scan2Cap as published, between "sos"
        and "eos") or "scanqa" (texts as they are).
    iou_threshold (float, optional): captions of a lower IoU count as empty; 0.25 and 0.5 are usual.
    meteor (bool, optional): by default where Java is.
    per_item (bool): add the scores of each item.
    ids, prediction_ids (list of str or int): of references and predictions (optional): errors name them, predictions
        are put in the order of the references, and ids that repeat or do not match are an error.
Returns:
    dict: "cider", "bleu_1" to "bleu_4", "rouge_l", "meteor" (None where it was not computed; "meteor_missing" says
    why), "n", "num_gated", "num_empty"; fractions, of which tables print a hundredfold.
Example:
    >>> metric = gap_mllm.evaluation.load_metric("captions")
    >>> references = [{"captions": ["a brown chair"], "iou": 0.7}]
    >>> result = metric.compute(predictions=["A brown chair"], references=references, iou_threshold=0.5)
    >>> result["rouge_l"]
    1.0
"""
_CITATION = """\
@inproceedings{chen2021scan2cap,
  title={Scan2Cap: Context-aware Dense Captioning in RGB-D Scans},
  author={Chen, Dave Zhenyu and Gholami, Ali and Nie{\\ss}ner, Matthias and Chang, Angel X.},
  booktitle={CVPR},
  year={2021}
}
"""


class Captions(MetricShell):
    OPTIONAL_KEYS = ("iou",)

    def _info(self):
        text = datasets.Value("string")
        reference = {"captions": datasets.List(text), "iou": datasets.Value("float64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": reference}),
        )

    def _compute(self, predictions, references, mode="corrected", iou_threshold=None, meteor=None, per_item=False):
        captions, ious = ([reference[key] for reference in references] for key in ("captions", "iou"))
        return caption_scores(predictions, captions, mode, ious, iou_threshold, meteor, per_item)
