"""The shipped model with its processor, and rooms to fit probes on and to score them on."""

import pytest

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.data import load_multiview
from tests.test_examples import ASSETS


FOLDER = ASSETS / "tiny_gap_mllm"


@pytest.fixture(scope="package")
def shipped():
    return GapMllmForConditionalGeneration.from_pretrained(FOLDER).eval(), GapMllmProcessor.from_pretrained(FOLDER)


@pytest.fixture(scope="package")
def rooms():
    """Some rooms of the training and of the test split, rendered once."""
    return {
        split: [*load_multiview("rendered_rooms", split=split, num_rooms=count)]
        for split, count in (("train", 24), ("test", 16))
    }
