"""Captions of objects and free answers: CIDEr, BLEU-1 to 4, ROUGE-L and METEOR over a whole corpus.

Source: Scan2Cap (arXiv:2012.02206), whose published evaluators are mode "reference", and ScanQA's use of the same
scores (mode "scanqa"). The scores themselves are pycocoevalcap's.
"""

import contextlib
import math
import re
import shutil
from collections.abc import Sequence

from ...processing.scores.reference_checks import (
    RecordValueError,
    as_text,
    check_choice,
    check_equal_lengths,
    check_text,
    is_number,
    map_named,
    shorten,
)
from .records import check_unique


MODES = ("corrected", "reference", "scanqa")
IOU_THRESHOLDS = (0.25, 0.5)  # the published gates
SCORES = ("cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor")


def caption_scores(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    mode: str = "corrected",
    ious: Sequence[float] | None = None,
    iou_threshold: float | None = None,
    meteor: bool | None = None,
    per_item: bool = False,
    ids: Sequence | None = None,
) -> dict:
    """Score the captions of a whole corpus.

    CIDEr weighs words by how many items of this corpus they are in, and BLEU counts over all of them: scores of parts
    cannot be averaged, and the CIDEr of one item alone is 0.

    Args:
        predictions (sequence of `str`): one caption an item, empty where the model gave none; so is what is no text.
        references (sequence of sequences of `str`): the true captions of each item, at least one.
        mode (`str`, defaults to "corrected"): "corrected": lower case, "." and "," as words, single blanks.
            "reference": the same without care for blanks, between the words "sos" and "eos". "scanqa": as they are,
            but for full stops that end a prediction. `Differs:` in the reference an empty or gated caption earns
            ROUGE-L, METEOR and BLEU-1 by the two words around it; in ours it earns nothing, while BLEU still counts
            the words that it should have had.
        ious (sequence of `float`, *optional*): IoU of each item's box with the true one; None where there is no gate.
        iou_threshold (`float`, *optional*): captions of a lower IoU count as empty; 0.25 and 0.5 are usual. None: no
            gate.
        meteor (`bool`, *optional*): whether METEOR is computed; by default where Java is, whose start takes seconds
            and 2 GB.
        per_item (`bool`, defaults to False): add "per_item", a `dict` of the same scores for each item (BLEU's are not
            part of the corpus score).
        ids (sequence, *optional*): ids of the items, to see that none is there twice.
    Returns:
        `dict`: `SCORES` as fractions ("meteor" is None where it was not computed, and then "meteor_missing" says why),
        "n", "num_gated", "num_empty" (captions that were empty, or no text, to begin with). NaN for no items.
    Raises:
        ValueError: on an unknown mode, differing lengths, an item whose references are no list of texts or hold no
            word, a gate without IoUs, an IoU outside 0..1, ids that repeat. ImportError: without pycocoevalcap, or
            with `meteor=True` without Java.
        RuntimeError: if Java is there but cannot run METEOR.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> references = [{"captions": ["a brown chair"], "iou": 0.7}]
        >>> options = {"iou_threshold": 0.5, "meteor": False}
        >>> load_metric("captions").compute(predictions=["A brown chair"], references=references, **options)["rouge_l"]
        1.0

        ```
    """
    check_choice(mode, "mode", MODES)
    predictions = [as_text(prediction) or "" for prediction in predictions]
    references = map_named("item", _true_captions, references)
    check_equal_lengths(predictions=predictions, references=references)
    if ids is not None:
        check_equal_lengths(predictions=predictions, ids=ids)
        check_unique(ids)
    gated = _gate(len(predictions), ious, iou_threshold)
    kept = ["" if is_out else prediction for prediction, is_out in zip(predictions, gated, strict=True)]
    why_no_meteor = _why_no_meteor(meteor)
    hypotheses = {index: [_normalize(text, mode, is_prediction=True)] for index, text in enumerate(kept)}
    truths = {index: [_normalize(text, mode) for text in texts] for index, texts in enumerate(references)}
    corpus, items = _score(hypotheses, truths, why_no_meteor is None)
    counts = {
        "n": len(predictions),
        "num_gated": sum(gated),
        "num_empty": sum(not prediction.strip() for prediction in predictions),
    }
    missing = {"meteor_missing": why_no_meteor} if why_no_meteor else {}
    return {**corpus, **missing, **counts, **({"per_item": items} if per_item else {})}


def _true_captions(texts):
    if not isinstance(texts, list | tuple):
        raise TypeError(f"its references are {shorten(texts)}; expected a list of texts.")
    texts = [check_text(text, "a reference") for text in texts]
    if not any(text.strip() for text in texts):
        raise ValueError("it has no reference with a word in it; give at least one true caption.")
    return texts


def _gate(count, ious, threshold):
    """Whether each caption is out; all stay without a threshold."""
    if threshold is not None and not (is_number(threshold) and 0 <= threshold <= 1):
        raise ValueError(f"iou_threshold is {threshold!r}; expected a number in 0..1, such as 0.5, or None.")
    if ious is None and threshold is not None:
        raise ValueError(f"iou_threshold={threshold} needs ious, one for each prediction.")
    ious = [None] * count if ious is None else list(ious)
    if len(ious) != count:
        raise ValueError(f"got {count} predictions, {len(ious)} ious; give equally many.")
    for index, iou in enumerate(ious):
        is_known = is_number(iou) and 0 <= iou <= 1 + 1e-6
        if not is_known and not (iou is None and threshold is None):
            raise RecordValueError("item", index, f"its IoU is {iou!r}; expected a number in 0..1.")
    return [threshold is not None and iou < threshold for iou in ious]


def _normalize(text, mode, is_prediction=False):
    if mode == "scanqa":
        return text.rstrip(".") if is_prediction else text
    text = text.replace(".", " . ").replace(",", " , ").lower()
    return f"sos {text} eos" if mode == "reference" else " ".join(text.split())


def _score(hypotheses, truths, with_meteor):
    """Corpus scores, and those of each item."""
    if not hypotheses:
        nothing = dict.fromkeys(SCORES, math.nan)
        return {**nothing, "meteor": math.nan if with_meteor else None}, {name: [] for name in SCORES}
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise ImportError("Caption scores need the package pycocoevalcap: pip install gap-mllm[caption].") from error
    cider, cider_items = Cider().compute_score(truths, hypotheses)
    bleu, bleu_items = Bleu(4).compute_score(truths, hypotheses, verbose=0)
    rouge, rouge_items = Rouge().compute_score(truths, hypotheses)
    meteor, meteor_items = _meteor(truths, hypotheses) if with_meteor else (None, None)
    corpus = dict(zip(SCORES, (cider, *bleu, rouge, meteor), strict=True))
    items = dict(zip(SCORES, (cider_items, *bleu_items, rouge_items, meteor_items), strict=True))
    return (
        {name: None if value is None else float(value) for name, value in corpus.items()},
        {name: None if values is None else [float(value) for value in values] for name, values in items.items()},
    )


def _why_no_meteor(wanted):
    if wanted is False:
        return "meteor=False"
    if shutil.which("java"):
        return None
    if wanted:
        raise ImportError("METEOR needs Java: install a runtime with the command java, or pass meteor=False.")
    return "METEOR needs Java, and there is no command java"


def _meteor(truths, hypotheses):
    """METEOR 1.5 in a Java process that reads a line a text: no text may hold a line end or the field mark."""
    from pycocoevalcap.meteor.meteor import Meteor

    def one_line(text: str):
        return re.sub(r"[\r\n]+|\|\|\|", " ", text).encode(errors="replace").decode()

    truths = {index: [one_line(text) for text in texts] for index, texts in truths.items()}
    hypotheses = {index: [one_line(text) for text in texts] for index, texts in hypotheses.items()}
    scorer = Meteor()
    try:
        return scorer.compute_score(truths, hypotheses)
    except (OSError, ValueError) as error:
        scorer.meteor_p.kill()
        said = scorer.meteor_p.stderr.read().decode(errors="replace").strip()[-500:]
        raise RuntimeError(
            f"METEOR's Java process failed; pass meteor=False to do without. It said: {said}"
        ) from error
    finally:
        if scorer.lock.locked():
            scorer.lock.release()  # its destructor waits for the lock, which an error leaves taken
        for pipe in (scorer.meteor_p.stdin, scorer.meteor_p.stdout, scorer.meteor_p.stderr):
            with contextlib.suppress(OSError):
                pipe.close()
