"""Rooms in styles: what may leave the usual, and that nothing else does."""

import numpy as np
import pytest

from gap_mllm.processing.data import RoomStyle, RoomVariety, render_room
from gap_mllm.processing.data.rooms.layout import OPEN_RANGE, make_layout
from gap_mllm.processing.data.rooms.rendered_rooms import RenderedRooms
from gap_mllm.processing.data.rooms.styles import Walk


SHAPES = {"box", "cylinder", "ball"}


def test_a_style_draws_within_its_ranges():
    style = RoomStyle(fields_of_view=(90.0, 100.0), num_shapes=(2, 3), open_share=0.0)
    walk, angles = style.walk, []
    for seed in range(40):
        layout = make_layout(seed, style=style)
        angles.append(2 * np.degrees(np.arctan(64 / layout.intrinsics[0, 0, 0])))
        assert sum(piece.label in SHAPES for piece in layout.furniture) <= 3 and not layout.is_open
        steps = np.linalg.norm(np.diff(layout.camera_to_world[:, :3, 3], axis=0), axis=-1)
        assert (steps >= walk.step_metres[0] - 1e-9).all() and (steps <= walk.step_metres[1] + 1e-9).all()
    assert min(angles) >= 90 - 1e-6 and max(angles) <= 100 + 1e-6 and max(angles) - min(angles) > 5


def test_without_walls_depth_ends():
    rooms = [render_room(seed, style=RoomStyle(open_share=1.0)) for seed in range(12)]
    assert all(set(room.labels) <= SHAPES and len(room.labels) >= 3 for room in rooms)
    assert all(room.depth_m.max() <= OPEN_RANGE and np.isfinite(room.depth_m).all() for room in rooms)
    assert sum((room.depth_m == 0).any() for room in rooms) > 6  # a horizon is in sight
    assert all((room.instance_ids[room.depth_m == 0] <= 0).all() for room in rooms)


def test_boxes_of_shapes_hold_their_points():
    found = 0
    for seed in range(20):
        room = render_room(seed, style=RoomStyle(open_share=0.5))
        points = room.points_in_first_view() @ room.camera_to_world[0, :3, :3].T + room.camera_to_world[0, :3, 3]
        for number, (label, box) in enumerate(zip(room.labels, room.boxes, strict=True)):
            seen = points[(room.instance_ids == number + 1) & (room.depth_m > 0)]
            if label in SHAPES and len(seen):
                c, s = np.cos(box[6]), np.sin(box[6])
                local = (seen - box[:3]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
                assert (np.abs(local) <= box[3:6] / 2 + 1e-3).all(), (seed, label)
                found += 1
    assert found > 20


def test_light_and_textures_change_pictures_only():
    plain = RoomStyle(open_share=0.0, texture_share=0.0, light_share=0.0)
    textured = RoomStyle(open_share=0.0, texture_share=1.0, light_share=1.0)
    first, second = render_room(3, style=plain), render_room(3, style=textured)
    assert (first.depth_m == second.depth_m).all() and (first.instance_ids > 0).sum() == (
        second.instance_ids > 0
    ).sum()
    assert np.abs(first.images.astype(int) - second.images).mean() > 10


@pytest.mark.slow
def test_a_share_of_the_rooms_has_the_style_and_the_others_stay():
    usual = RenderedRooms("train", 24, RoomVariety(mark_share=0.0))
    mixed = RenderedRooms("train", 24, RoomVariety(mark_share=0.0, style={"open_share": 1.0}, style_share=0.5))
    opened = [{box.label for box in room.boxes} <= SHAPES for room in mixed]
    assert 6 <= sum(opened) <= 18
    again = RenderedRooms("train", 24, RoomVariety(mark_share=0.0, style={"open_share": 1.0}, style_share=0.5))
    assert (again[5].views[0].picture == mixed[5].views[0].picture).all()
    assert [room.metadata["furniture"] for room in usual] != [room.metadata["furniture"] for room in mixed]


def test_eight_views():
    room = RenderedRooms("train", 1, RoomVariety(num_views=(8,), num_views_shares=(1.0,)))[0]
    poses = np.stack([view.camera_to_world for view in room.views])
    assert len(poses) == 8 and len(np.unique(poses.round(6), axis=0)) == 8


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"open_share": 1.5}, "open_share is 1.5"),
        ({"fields_of_view": (100.0, 45.0)}, "fields_of_view is (100.0, 45.0)"),
        ({"num_shapes": (3,)}, "num_shapes"),
        ({"walk": {"step_metres": (0.5, 9.0)}}, "walk.step_metres"),
        ({"walk": Walk(pitch=(80.0, 90.0))}, "walk.pitch"),
    ],
)
def test_ranges_that_make_no_sense_are_named(options, named):
    with pytest.raises(ValueError, match="expected") as error:
        RoomStyle(**options)
    assert named in str(error.value)


def test_a_share_needs_a_style():
    with pytest.raises(ValueError, match="style_share is 0.5 with style None"):
        RoomVariety(style_share=0.5)
