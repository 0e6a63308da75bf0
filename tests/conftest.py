"""Fixtures that many tests share: the tiny tokenizer and processor, and small pictures from a seed."""

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.tiny_tokenizer import build_tiny_processor, build_tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_tokenizer():
    return build_tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_processor():
    """Session-wide: tests must not change it."""
    return build_tiny_processor()


@pytest.fixture
def make_image():
    """A function (width, height, seed) -> RGB picture of smooth random colours."""

    def make(width: int = 160, height: int = 120, seed: int = 0) -> Image.Image:
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    return make
