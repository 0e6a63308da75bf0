"""Descriptions of an object at a place, by the captioning metrics over the whole corpus; see score_points.py."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...processing.data.scene_sample import SceneSample
from ..intervals import with_interval
from ..metrics.captions import caption_scores


GATE = 0.5  # overlap of the proposal's box with the true one, below which a caption counts as empty


def score(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0):
    """Score captions as Scan2Cap does at an overlap of 0.5, by the corrected rule and under "reference_..".

    The overlap is that of the proposal that the question speaks of, which the file brings; it does not depend on the
    model. Questions of files without it are not gated.

    Args:
        samples (`list[SceneSample]`), texts (`list[str]`), seed (`int`)
    Returns:
        `tuple[dict, list[dict]]`: what `caption_scores` gives; "cider" with an interval, by which words keep the
        weights that they have in the whole corpus; records.
    Raises:
        ImportError: without the package pycocoevalcap.
    """
    references = [list(sample.references) for sample in samples]
    ious = [float(sample.metadata.get("iou", 1.0)) for sample in samples]
    gate = {"ious": ious, "iou_threshold": GATE}
    metrics = caption_scores(texts, references, per_item=True, **gate)
    items = metrics.pop("per_item")
    published = caption_scores(texts, references, mode="reference", meteor=False, **gate)
    metrics |= {f"reference_{name}": value for name, value in published.items() if isinstance(value, float)}
    scenes = [str(sample.scene_id) for sample in samples]
    metrics["cider_ci95"] = with_interval("cider", items["cider"], np.mean, scenes, seed)["cider_ci95"]
    records = [
        {
            "parsed": text.strip() or None,
            "rejected": None if text.strip() else "empty",
            "score": float(cider),
            "category": sample.question_type,
            "is_gated": iou < GATE,
        }
        for sample, text, cider, iou in zip(samples, texts, items["cider"], ious, strict=True)
    ]
    return metrics, records


def constant(samples: Sequence[SceneSample]):
    """One caption to all: the commonest."""
    counts = Counter(text for sample in samples for text in sample.references)
    text = counts.most_common(1)[0][0] if counts else ""
    return lambda sample: text


__all__ = ["GATE", "constant", "score"]
