"""ScanRefer from its own files: the view and the box of a described object, by axis-aligned bounds.

Source: ScanRefer (arXiv:1912.08830), asked as VG-LLM does.
"""

from .axis_aligned_boxes import AXIS_ALIGNED
from .benchmark import Benchmark
from .posed_boxes import ONE_STAGE, TWO_STAGES


_COMMON = {**AXIS_ALIGNED, "source": "scanrefer", "split": "val"}
SCANREFER = Benchmark(
    "scanrefer",
    "ScanRefer's own files, in one stage: view and box of a described object",
    **_COMMON,
    **ONE_STAGE,
)
SCANREFER_TWO_STAGE = Benchmark(
    "scanrefer_two_stage",
    "ScanRefer's own files, in two stages: the view of a described object, then its box",
    **_COMMON,
    **TWO_STAGES,
)
