"""GAP-MLLM's reconstruction: marked pixels of ScanNet scenes, one by one and as the cloud of each scene."""

from collections.abc import Callable, Sequence

from ...processing.data.scene_sample import SceneSample
from ...processing.scores.point_answers import PointAnswer
from ..metrics.reconstruction import score_answered_points, within_float32
from .benchmark import Benchmark
from .marked_points import MARKED_POINTS, rate_points


def rate(samples: Sequence[SceneSample], answers: Sequence[PointAnswer], interval: Callable):
    """`rate_points`, and accuracy and completion of each scene's cloud as published; see `reconstruction_score`."""
    metrics, records = rate_points(samples, answers, interval)
    clouds = score_answered_points(
        [within_float32(answer.point) for answer in answers],
        [sample.point_in_view(sample.points[0]) for sample in samples],
        [str(sample.scene_id) for sample in samples],
        first_views=[sample.views[0].image_path or sample.views[0].frame_id for sample in samples],
    )
    return metrics | {name: value for name, value in clouds.items() if name != "per_scene"}, records


GAP_MLLM_RECONSTRUCTION = Benchmark(
    "gap_mllm_reconstruction",
    "a marked pixel of a ScanNet scene: what is it, and where",
    source="gap_mllm",
    split="val",
    **{**MARKED_POINTS, "rate": rate},
)
