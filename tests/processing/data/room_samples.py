"""Rendered rooms as samples, and what must hold for every sample: pixels, points, depth and boxes agree."""

import hashlib
from dataclasses import replace
from functools import cache

import numpy as np

from gap_mllm.processing.camera_geometry_gap_mllm import (
    box_corners,
    check_rigid,
    project_points,
    transform_points,
    unproject_depth,
)
from gap_mllm.processing.data import make_question, render_room
from gap_mllm.processing.data.rooms.room_scenes import scene_row, scene_views
from gap_mllm.processing.data.scene_sample import SceneSample


HEIGHT, WIDTH, NUM_VIEWS = 72, 96, 4


@cache
def room(seed=0):
    return render_room(seed, NUM_VIEWS, HEIGHT, WIDTH)


@cache
def _views(seed):
    return scene_views(room(seed))


def room_sample(task, seed=0, number=0, **changes):
    """A question about a room, as a row that does not list the views it needs; "scene" gives views and boxes alone."""
    scene = room(seed)
    question = make_question(scene, "detection3d" if task == "scene" else task, number)
    row = scene_row(scene, question, _views(seed), "train", f"{seed}-{task}-{number}")
    sample = SceneSample.from_row(row)
    sample.metadata.pop("keep_views", None)
    if task == "scene":
        sample = replace(sample, task="scene", question=None, answer=None)
    return replace(sample, **changes)


def check_stream(questions, digest):
    """Marks, truths and texts of questions are those of the digest; numbers to six digits after the point."""
    told = []
    for question in questions:
        truth = question.truth
        items = [(item.label, [round(number, 6) + 0.0 for number in item.numbers]) for item in truth.items]
        number = None if truth.number is None else round(truth.number, 6)
        marks = [(mark.view, tuple(map(int, mark.xy)), mark.color) for mark in question.marks]
        told.append((truth.kind, items, truth.frame, truth.choice, number, truth.text, truth.description, marks))
        told.append((question.question, question.answer, question.references, question.choices))
    found = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    assert found == digest, (
        f"{len(questions)} questions about rooms have the digest {found}, before {digest}: training data and test "
        "rooms are asked something else. If that is meant, put the new digest here, say so in CHANGELOG.md, and "
        "measure the shipped model anew (make demo); if not, a random number is drawn in another place."
    )


def world_points(view):
    """What the depth pixels of a view see, `(H, W, 3)`, in the world of the poses."""
    camera = view.depth_intrinsics if view.depth_intrinsics is not None else view.intrinsics
    points = unproject_depth(view.depth_m.astype(np.float64), camera)
    return transform_points(view.camera_to_world, points)


def corner_pixels(sample, view):
    """Where the corners of all boxes are seen, `(boxes, 8, 2)`; NaN behind the camera."""
    boxes = [box_corners(sample.box_in_view(box, view), box.euler_order) for box in sample.boxes]
    return project_points(np.array(boxes), sample.views[view].intrinsics)[0]


def check_geometry(sample, tolerance_px=0.05):
    """Points project onto their pixels, depth there agrees, poses are rigid; returns how many points were checked."""
    count = 0
    for point in sample.points:
        if point.view is None or point.xyz is None:
            continue
        view = sample.views[point.view]
        in_view = sample.point_in_view(point, point.view)
        pixel, depth = project_points(in_view, view.intrinsics)
        assert np.abs(pixel - np.array(point.pixel)).max() < tolerance_px
        camera = view.depth_intrinsics if view.depth_intrinsics is not None else view.intrinsics
        column, row = np.rint(project_points(in_view, camera)[0]).astype(int)
        measured = view.depth_m[row, column]
        assert abs(measured - depth) < 0.05 * depth
        assert 0 <= point.pixel[0] <= view.image.width - 1 and 0 <= point.pixel[1] <= view.image.height - 1
        count += 1
    for view in sample.views:
        if view.camera_to_world is not None:
            check_rigid(view.camera_to_world)
    if sample.world_to_aligned is not None:
        check_rigid(sample.world_to_aligned)
    return count


def same_corners(found, expected, tolerance=0.02):
    """Whether two sets of corners `(boxes, 8, 2)` are the same, in whatever order the eight come."""
    keep = np.isfinite(expected).all((1, 2))
    assert keep.any() and (np.isfinite(found).all((1, 2)) == keep).all()
    apart = np.linalg.norm(found[keep][:, :, None] - expected[keep][:, None], axis=-1)
    limit = tolerance * np.maximum(1, np.abs(expected[keep]).max((1, 2)) / 100)[:, None]
    return bool((apart.min(2) < limit).all() and (apart.min(1) < limit).all())
