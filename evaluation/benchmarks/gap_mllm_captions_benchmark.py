"""GAP-MLLM's captions, of Scan2Cap: describe the object at a place, by captioning metrics over the whole corpus."""

from collections import Counter
from collections.abc import Callable, Sequence

from ...processing.asking_gap_mllm import ANSWER_FORMS
from ...processing.data.scene_sample import SceneSample
from ..metrics.captions import caption_scores
from .benchmark import Benchmark


GATE = 0.5  # overlap of the proposal's box with the true one, below which a caption counts as empty


def read(sample: SceneSample, text: str) -> str:
    """A caption is its text."""
    return text


def rate(samples: Sequence[SceneSample], captions: Sequence[str], interval: Callable):
    """Score captions as Scan2Cap does at an overlap of 0.5, by the corrected rule and under "reference_..".

    The overlap is that of the proposal that the question speaks of, which the file brings; it does not depend on the
    model. Questions of files without it are not gated.

    Args:
        samples (`list[SceneSample]`), captions (`list[str]`), interval (`Callable`): questions, answers, and see
            `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: what `caption_scores` gives; "cider" with an interval, by which words keep the
        weights that they have in the whole corpus; records.
    Raises:
        ImportError: without the package pycocoevalcap.
    """
    references = [list(sample.references) for sample in samples]
    ious = [float(sample.metadata.get("iou", 1.0)) for sample in samples]
    gate = {"ious": ious, "iou_threshold": GATE}
    metrics = caption_scores(captions, references, per_item=True, **gate)
    items = metrics.pop("per_item")
    published = caption_scores(captions, references, mode="reference", meteor=False, **gate)
    metrics |= {f"reference_{name}": value for name, value in published.items() if isinstance(value, float)}
    metrics["cider_ci95"] = interval("cider", items["cider"])["cider_ci95"]
    records = [
        {
            "parsed": text.strip() or None,
            "rejected": None if text.strip() else "empty",
            "score": float(cider),
            "category": sample.question_type,
            "is_gated": iou < GATE,
        }
        for sample, text, cider, iou in zip(samples, captions, items["cider"], ious, strict=True)
    ]
    return metrics, records


def constant(samples: Sequence[SceneSample]) -> Callable:
    """One caption to all: the commonest."""
    counts = Counter(text for sample in samples for text in sample.references)
    text = counts.most_common(1)[0][0] if counts else ""
    return lambda sample: text


GAP_MLLM_CAPTIONS = Benchmark(
    "gap_mllm_captions",
    "Scan2Cap: describe the object at a place",
    source="gap_mllm",
    split="val",
    tasks=("dense_caption",),
    read=read,
    rate=rate,
    constant=constant,
    headline="cider",
    forms=(ANSWER_FORMS["dense_caption"],),
)
