"""GAP-MLLM's grounding, of ScanRefer: the view and the box of a described object, in one stage or two.

Boxes are compared as they stand; the published arithmetic is beside it under "reference_...".
"""

from collections.abc import Callable, Sequence

from ...processing.data.scene_sample import SceneSample
from ..metrics.grounding3d import grounding_score
from .benchmark import Benchmark
from .posed_boxes import GROUNDING, ONE_STAGE, TWO_STAGES, grounding_record, read_box


MODES = ("corrected", "reference")


def read(sample: SceneSample, text: str, frame: int | None = None) -> dict:
    """Read the box of an answer by the corrected and by the published rule; see `read_box`."""
    return {mode: read_box(sample, text, frame, mode) for mode in MODES}


def rate(samples: Sequence[SceneSample], answers: Sequence[dict], interval: Callable):
    """Score grounded boxes by the corrected rule; the published one stands beside it under "reference_...".

    Args:
        samples (`list[SceneSample]`), answers (`list[dict]`), interval (`Callable`): questions, their readings, and
            see `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: what `grounding_score` gives, "miou" with its interval; records.
    """
    boxes, published = ([answer[mode] for answer in answers] for mode in MODES)
    metrics = grounding_score(boxes, [sample.question_type or "all" for sample in samples])
    reference = grounding_score(published)
    metrics |= {f"reference_{name}": value for name, value in reference.items() if isinstance(value, float)}
    records = [grounding_record(answer, sample) for answer, sample in zip(boxes, samples, strict=True)]
    return metrics | interval("miou", [answer.iou for answer in boxes]), records


_COMMON = {**GROUNDING, "source": "gap_mllm", "split": "val", "read": read, "rate": rate, "headline": "miou"}
GAP_MLLM_GROUNDING = Benchmark(
    "gap_mllm_grounding", "ScanRefer in one stage: view and box of a described object", **_COMMON, **ONE_STAGE
)
GAP_MLLM_GROUNDING_TWO_STAGE = Benchmark(
    "gap_mllm_grounding_two_stage",
    "ScanRefer in two stages: the view of a described object, then its box",
    **_COMMON,
    **TWO_STAGES,
)
