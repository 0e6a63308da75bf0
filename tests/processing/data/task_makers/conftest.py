"""Thirty rooms, and two questions of every maker about each."""

import pytest

from gap_mllm.processing.data import render_room
from gap_mllm.processing.data.task_makers import make_tasks
from tests.processing.data.task_makers.scenes import scene_of_room


NUM_ROOMS = 30


@pytest.fixture(scope="session")
def rooms():
    return [render_room(seed, num_views=5, height=72, width=96) for seed in range(NUM_ROOMS)]


@pytest.fixture(scope="session")
def scenes(rooms):
    return [scene_of_room(room) for room in rooms]


@pytest.fixture(scope="session")
def made(scenes):
    """Questions of each room, in the order of `rooms`."""
    return [make_tasks(scene, num_per_task=2, seed=7) for scene in scenes]
