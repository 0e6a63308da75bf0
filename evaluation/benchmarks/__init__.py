"""The benchmarks by name, one file each; files without `_benchmark` hold what several of them share.

`BENCHMARKS` is the one list of them. Your own: `BENCHMARKS["mine"] = Benchmark("mine", ...)`.
"""

from .benchmark import Benchmark
from .blink_benchmark import BLINK
from .ca_vqa_benchmark import CA_VQA
from .cv_bench_benchmark import CV_BENCH
from .gap_mllm_captions_benchmark import GAP_MLLM_CAPTIONS
from .gap_mllm_detection_benchmark import GAP_MLLM_DETECTION
from .gap_mllm_grounding_benchmark import GAP_MLLM_GROUNDING, GAP_MLLM_GROUNDING_TWO_STAGE
from .gap_mllm_reconstruction_benchmark import GAP_MLLM_RECONSTRUCTION
from .mmsi_benchmark import MMSI
from .multi3drefer_benchmark import MULTI3DREFER
from .nr3d_benchmark import NR3D, NR3D_TWO_STAGE
from .on_rooms import on_rooms
from .reasoning_segmentation_benchmark import REASONING_SEGMENTATION, REASONING_SEGMENTATION_BOXES
from .scanqa_benchmark import SCANQA
from .scanrefer_benchmark import SCANREFER, SCANREFER_TWO_STAGE
from .spar_bench_benchmark import SPAR_BENCH
from .sparse_points_benchmark import SPARSE_POINTS
from .sqa3d_benchmark import SQA3D
from .synthetic_rooms_benchmark import SYNTHETIC_ROOMS
from .vsibench_benchmark import VSIBENCH
from .vstibench_benchmark import VSTIBENCH


_ALL = (
    SYNTHETIC_ROOMS,
    SPARSE_POINTS,
    REASONING_SEGMENTATION,
    REASONING_SEGMENTATION_BOXES,
    GAP_MLLM_RECONSTRUCTION,
    GAP_MLLM_DETECTION,
    GAP_MLLM_GROUNDING,
    GAP_MLLM_GROUNDING_TWO_STAGE,
    SCANREFER,
    SCANREFER_TWO_STAGE,
    NR3D,
    NR3D_TWO_STAGE,
    MULTI3DREFER,
    GAP_MLLM_CAPTIONS,
    VSIBENCH,
    VSTIBENCH,
    SPAR_BENCH,
    CV_BENCH,
    BLINK,
    MMSI,
    CA_VQA,
    SCANQA,
    SQA3D,
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in _ALL}


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name.

    Raises:
        ValueError: if there is none; the message lists them.

    Example:
        ```python
        >>> from gap_mllm.evaluation.benchmarks import find_benchmark
        >>> find_benchmark("vsibench").source
        'vsibench'

        ```
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; known are {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]


__all__ = ["BENCHMARKS", "Benchmark", "find_benchmark", "on_rooms"]
