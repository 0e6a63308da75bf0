"""Rendered rooms: a marked pixel's name and place. It needs no download; other rooms fit the constant answer."""

from .benchmark import Benchmark
from .marked_points import MARKED_POINTS


SYNTHETIC_ROOMS = Benchmark(
    "synthetic_rooms",
    "a marked pixel of a rendered room: what is it, and where",
    source="synthetic_rooms",
    split="test",
    options={"num_train": 256, "num_selection": 0, "num_test": 128, "questions_per_task": 2},
    **MARKED_POINTS,
)
