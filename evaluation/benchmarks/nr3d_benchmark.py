"""Nr3D: an object among others of its class, by axis-aligned bounds, for each difficulty and viewpoint.

Source: ReferIt3D (ECCV 2020), which evaluates on utterances that name the class.
"""

from functools import partial

from .axis_aligned_boxes import AXIS_ALIGNED, rate_bounds
from .benchmark import Benchmark
from .posed_boxes import ONE_STAGE, TWO_STAGES


_COMMON = {**AXIS_ALIGNED, "source": "nr3d", "split": "test", "rate": partial(rate_bounds, nr3d=True)}
_COMMON["options"] = {**AXIS_ALIGNED["options"], "mentions_target_class_only": True}
NR3D = Benchmark(
    "nr3d", "Nr3D: an object among others of its class, view and box in one stage", **_COMMON, **ONE_STAGE
)
NR3D_TWO_STAGE = Benchmark(
    "nr3d_two_stage", "Nr3D in two stages: the view of an object, then its box", **_COMMON, **TWO_STAGES
)
