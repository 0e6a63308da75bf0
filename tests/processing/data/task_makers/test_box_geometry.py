"""Boxes against rays, points and each other, checked by sampling."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from gap_mllm.processing.camera_geometry_gap_mllm import box_corners
from gap_mllm.processing.data.task_makers.box_geometry import (
    Solid,
    box_gap,
    contains,
    is_within,
    object_limits,
    ray_depths,
)
from tests.processing.data.task_makers.scenes import cast, look_at, pinhole


def random_solid(rng, spread=2.0):
    box = np.r_[rng.uniform(-spread, spread, 3), rng.uniform(0.2, 1.5, 3), rng.uniform(-3, 3, 3)]
    return box, Solid.from_numbers(box, "ZXY")


def surface(solid, count=24):
    """Points spread over the six sides."""
    line = np.linspace(-1, 1, count)
    a, b = (part.ravel() for part in np.meshgrid(line, line))
    sides = [np.insert(np.stack([a, b], -1), axis, sign, axis=1) for axis in range(3) for sign in (-1, 1)]
    return solid.center + (np.concatenate(sides) * solid.half) @ solid.rotation.T


def test_a_solid_keeps_its_box_in_both_euler_orders():
    box, solid = random_solid(np.random.default_rng(0))
    np.testing.assert_allclose(solid.corners(), box_corners(box, "ZXY"), atol=1e-12)
    np.testing.assert_allclose(Solid.from_numbers(solid.numbers(), "zxy").corners(), solid.corners(), atol=1e-12)
    assert contains(solid, solid.lattice(), 1e-9).all()


def test_the_gap_is_the_smallest_distance_between_points_of_both_surfaces():
    rng = np.random.default_rng(1)
    compared = 0
    for _ in range(60):
        (_, a), (_, b) = random_solid(rng), random_solid(rng)
        p, q = surface(a), surface(b)
        sampled = cKDTree(p).query(q)[0].min()
        gap = box_gap(a, b)
        step = max((2 * a.half / 23).max(), (2 * b.half / 23).max())
        overlap = contains(a, b.lattice(15), 0).any() or contains(b, a.lattice(15), 0).any()
        if overlap:
            assert gap == 0
        else:
            compared += 1
            assert gap <= sampled + 1e-9
            assert sampled <= gap + 1.5 * step
        assert gap == pytest.approx(box_gap(b, a), abs=1e-12)
    assert compared > 20


@pytest.mark.parametrize(
    ("offset", "turn", "gap"),
    [
        ((3, 0, 0), 0.0, 2.0),  # side to side
        ((3, 3, 0), 0.0, 2 * np.sqrt(2)),  # edge to edge, parallel
        ((3, 3, 3), 0.0, 2 * np.sqrt(3)),  # corner to corner
        ((3, 0, 0), np.pi / 4, 2.5 - np.sqrt(2) / 2),  # edge to side
        ((0.4, 0.2, 0), 0.0, 0.0),  # one in the other
        ((1, 0, 0), 0.0, 0.0),  # touching
    ],
)
def test_gaps_that_are_known(offset, turn, gap):
    a = Solid.from_numbers([0, 0, 0, 1, 1, 1, 0, 0, 0], "zxy")
    b = Solid.from_numbers([*offset, 1, 1, 1, turn, 0, 0], "zxy")
    assert box_gap(a, b) == pytest.approx(gap, abs=1e-9)


def test_two_boxes_that_cross_like_a_plus_sign_meet():
    a = Solid.from_numbers([0, 0, 0, 4, 0.2, 0.2, 0, 0, 0], "zxy")
    b = Solid.from_numbers([0, 0, 0, 0.3, 4, 0.1, 0, 0, 0], "zxy")
    assert box_gap(a, b) == 0


def test_rays_enter_where_a_renderer_hits():
    box = np.array([0.3, -0.2, 0.5, 1.0, 0.6, 1.0, 0.4, 0, 0])
    pose, intrinsics = look_at((2.5, -3.0, 1.6), (0, 0, 0.5)), pinhole(64, 48, 50.0)
    depth, ids = cast(pose, intrinsics, (64, 48), [box])
    v, u = np.mgrid[:48, :64]
    rays = np.stack([(u - 31.5) / 50, (v - 23.5) / 50, np.ones((48, 64))], -1) @ pose[:3, :3].T
    entry, leave = ray_depths(Solid.from_numbers(box, "zxy"), pose[:3, 3], rays)
    hit = (leave > entry) & (entry > 0)
    np.testing.assert_array_equal(hit, ids == 0)
    np.testing.assert_allclose(entry[hit], depth[hit], atol=1e-9)


def measured(boxes, solid, eye, slack=0.03, inset=0.05):
    """Which pixels are on the object of a box, and which one renders boxes there."""
    pose, intrinsics = look_at(eye, solid.center), pinhole(120, 90, 110.0)
    depth, ids = cast(pose, intrinsics, (120, 90), boxes)
    v, u = np.mgrid[:90, :120]
    rays = np.stack([(u - 59.5) / 110, (v - 44.5) / 110, np.ones((90, 120))], -1) @ pose[:3, :3].T
    points = pose[:3, 3] + rays * depth[..., None]
    limits = object_limits(solid, pose[:3, 3], rays, points, slack, inset)
    return is_within(solid, points, limits), ids, limits


def test_the_floor_under_a_table_and_the_wall_behind_a_rack_are_not_theirs():
    legs = [np.array([x, y, 0.35, 0.06, 0.06, 0.7, 0, 0, 0]) for x in (-0.47, 0.47) for y in (-0.47, 0.47)]
    top = np.array([0, 0, 0.72, 1.0, 1.0, 0.04, 0, 0, 0])
    table = Solid.from_numbers([0, 0, 0.37, 1.0, 1.0, 0.74, 0, 0, 0], "zxy")
    on, ids, limits = measured([*legs, top], table, (2.4, -1.2, 1.5))
    assert not (on & (ids < 0)).any()
    assert on[ids == 4].mean() > 0.95 and (ids == 4).sum() > 300
    assert limits[0, 2] == pytest.approx(-0.32)
    posts = [np.array([x, 5.9, 1.0, 0.05, 0.2, 2.0, 0, 0, 0]) for x in (-0.5, 0.0, 0.5)]
    rack = Solid.from_numbers([0, 5.9, 1.0, 1.05, 0.2, 2.0, 0, 0, 0], "zxy")
    on, ids, _ = measured(posts, rack, (0.5, 3.0, 1.2))
    assert not (on & (ids < 0)).any() and on.any()


def test_a_thin_back_in_the_middle_of_a_room_is_seen():
    back = np.array([0, 0.22, 0.5, 0.45, 0.03, 1.0, 0, 0, 0])
    chair = Solid.from_numbers([0, 0, 0.5, 0.45, 0.47, 1.0, 0, 0, 0], "zxy")
    on, ids, limits = measured([back], chair, (0, -2.5, 1.3))
    assert limits[1, 1] == pytest.approx(0.235)
    assert on[ids == 0].mean() > 0.7 and not (on & (ids < 0)).any()  # the rest is near the floor and the two sides


def test_unmeasured_points_are_in_no_box():
    _, solid = random_solid(np.random.default_rng(2))
    nothing = np.full((4, 3), np.nan)
    assert (
        not contains(solid, nothing, 1.0).any()
        and not is_within(solid, nothing, np.array([[-9.0] * 3, [9.0] * 3])).any()
    )
