"""The arithmetic of examples/benchmarks/serving_memory.py, against figures by hand and published counts."""

import runpy
from pathlib import Path

import pytest


SCRIPT = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "benchmarks" / "serving_memory.py"))
GIB = 2**30


@pytest.mark.parametrize(
    ("size", "billions", "cache"), [("2B", 2.13, 114_688), ("4B", 4.44, 147_456), ("8B", 8.77, 147_456)]
)
def test_weights_and_cache(size, billions, cache):
    memory = SCRIPT["serving_memory"](size, views=8, patches=1200)
    assert (memory.language + memory.vision) * GIB / 2 == pytest.approx(billions * 1e9, rel=0.003)  # as published
    assert memory.cache_bytes == cache  # keys and values of 28 or 36 layers, 8 heads of 128, 2 bytes each
    assert memory.encoder * GIB / 2 == pytest.approx(909e6, rel=0.01)  # VGGT without heads
    assert memory.encoder_activations * GIB == 8 * 1205 * 18 * 1024 * 2


def test_what_fits():
    memory = SCRIPT["ServingMemory"](4.0, 1.0, 1.5, 0.5, 100_000, 0.5)
    left = 0.9 * 20 - 5 - 2.5 - 1.5  # nine GiB
    assert memory.scenes(20, 3000) == int(left * GIB / 3e8) == 32
    assert memory.scenes(20, 3000, parallel=2) == int((0.9 * 20 - 2.5 - 2.5 - 1.5) * GIB * 2 / 3e8) == 82
    assert memory.scenes(8, 3000) == 0
