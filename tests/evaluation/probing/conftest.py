"""The shipped model with its processor, and rooms to fit probes on and to score them on."""

import pytest
import torch

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.data import load_multiview
from tests.test_examples import ASSETS


FOLDER = ASSETS / "tiny_gap_mllm"


@pytest.fixture(scope="package")
def shipped():
    return GapMllmForConditionalGeneration.from_pretrained(FOLDER).eval(), GapMllmProcessor.from_pretrained(FOLDER)


@pytest.fixture(scope="package")
def untrained(shipped):
    torch.manual_seed(0)
    return GapMllmForConditionalGeneration(shipped[0].config).eval()


@pytest.fixture(scope="package")
def rooms():
    """Some rooms of the training and of the test split, rendered once."""
    splits = {"train": 48, "test": 16}
    return {
        split: [*load_multiview("rendered_rooms", split=split, num_rooms=count)] for split, count in splits.items()
    }
