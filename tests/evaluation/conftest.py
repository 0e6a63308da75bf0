"""A few rooms of each split, rendered once, and baselines fitted on the training rooms."""

import pytest

from gap_mllm.evaluation import fit_baselines, render_split


@pytest.fixture(scope="session")
def train_rooms():
    return list(render_split("train", 24))


@pytest.fixture(scope="session")
def test_rooms():
    return list(render_split("test", 4))


@pytest.fixture(scope="session")
def baselines(train_rooms):
    return fit_baselines(train_rooms, questions_per_scene=4)
