"""Rooms that PyBullet renders: where their pixels lie, and what a model is asked about them. Needs PyBullet."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from bullet_rooms import THINGS, main, render_bullet_room

from gap_mllm.processing.camera_geometry_gap_mllm import transform_points
from tests.test_examples import ASSETS


NEEDS_PYBULLET = pytest.mark.skipif(find_spec("pybullet") is None, reason="PyBullet is not installed")


@NEEDS_PYBULLET
@pytest.mark.parametrize("seed", [1, 2])
def test_pixels_lie_on_what_they_show(seed):
    room = render_bullet_room(seed, num_views=3, height=96, width=128)
    assert room.images.shape == (3, 96, 128, 3) and room.images.std() > 10
    world = transform_points(room.camera_to_world[0], room.points_in_first_view().astype(np.float64))
    assert np.abs(world[room.instance_ids == 0][:, 2]).max() < 0.05  # the floor
    half = room.room_size[:2] / 2
    assert np.abs(np.abs(world[room.instance_ids == -1][:, :2]) - half).min(-1).max() < 0.05  # walls
    seen = [place for place in range(len(room.labels)) if (room.instance_ids == place + 1).any()]
    assert len(seen) > 1 and set(room.labels) <= set(THINGS)
    for place in seen:
        off = np.abs(world[room.instance_ids == place + 1] - room.boxes[place, :3]) - room.boxes[place, 3:6] / 2
        assert off.max() < 0.05


@NEEDS_PYBULLET
def test_a_model_is_asked_beside_blind_answers(capsys):
    main([str(ASSETS / "tiny_gap_mllm"), "--rooms", "3", "--baseline-rooms", "4"])
    said = capsys.readouterr().out
    found = json.loads(said[said.index("{") :])  # PyBullet speaks before
    assert list(found) == ["model", "other_geometry", "geometry_off"]
    assert all(each["n"] == 12 and each["constant_point_error_m"] > 0 for each in found.values())
    assert found["model"]["point_error_m"] != found["geometry_off"]["point_error_m"]


@pytest.mark.skipif(find_spec("pybullet") is not None, reason="PyBullet is installed")
def test_without_pybullet_it_is_said():
    with pytest.raises(ImportError, match="pip install pybullet"):
        render_bullet_room(0)
