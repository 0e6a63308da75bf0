"""Blind baselines: medians of the rooms given and of no others, at the right cells."""

from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.evaluation import fit_baselines, render_split
from gap_mllm.processing.data import SPLIT_SEEDS
from gap_mllm.processing.data.rooms.room_scenes import make_questions


def test_they_know_the_rooms_given_and_no_others(train_rooms, baselines):
    assert baselines.scene_ids == {room.scene_id for room in train_rooms}
    assert all(room.seed in SPLIT_SEEDS["train"] for room in train_rooms)
    other = fit_baselines(train_rooms[:3], questions_per_scene=4)
    assert not np.array_equal(other.prior_points, baselines.prior_points)
    again = fit_baselines(iter(train_rooms), questions_per_scene=4)
    assert np.array_equal(again.marked_prior_points, baselines.marked_prior_points)


def test_constants_and_majority_are_those_of_the_questions(train_rooms, baselines):
    asked = [question for room in train_rooms for question in make_questions(room, "reconstruction", 4)]
    answers = [question.truth.items[0] for question in asked]
    np.testing.assert_allclose(baselines.constant_point, np.median([a.numbers for a in answers], axis=0))
    labels = [answer.label for answer in answers]
    assert labels.count(baselines.majority_label) == max(labels.count(label) for label in labels)
    assert baselines.label_prior.shape == (6, 6) and set(baselines.label_prior.ravel()) <= set(labels)


def test_the_dense_prior_is_the_median_of_each_pixel(train_rooms):
    rooms = train_rooms[:3]
    priors = fit_baselines(rooms, questions_per_scene=1, grid=(128, 128))
    points = np.stack([room.points_in_first_view() for room in rooms])
    np.testing.assert_array_equal(priors.prior_points, np.median(points, axis=0))
    np.testing.assert_allclose(priors.constant_dense_point, np.median(points.reshape(-1, 3), axis=0), rtol=1e-6)
    np.testing.assert_array_equal(priors.prior_depth_m, np.median([room.depth_m for room in rooms], axis=0))
    assert priors.depth_maps(4, 4).shape == (4, 4, 4)
    # Cell (row 1, column 3) of 4 x 4 over 128 pixels has its middle at row 48, column 112.
    np.testing.assert_array_equal(priors.point_maps(4, 4)[2, 1, 3], priors.prior_points[2, 48, 112])


def test_one_room_is_its_own_prior(train_rooms):
    room = train_rooms[0]
    priors = fit_baselines([room], questions_per_scene=1, grid=(128, 128))
    points = room.points_in_first_view()
    guess = priors.points_at([3, 0], [(17, 90), (127, 0)], (128, 128))
    np.testing.assert_array_equal(guess, [points[3, 90, 17], points[0, 0, 127]])


def test_furniture_weighs_as_in_the_questions(train_rooms):
    # Three rooms of constant depth, 1, 2 and 9 m; only the last shows furniture, on every pixel.
    base = train_rooms[0]
    size, identity = base.depth_m.shape, np.tile(np.eye(4), (4, 1, 1))
    rooms = [
        replace(
            base,
            seed=base.seed + number,
            depth_m=np.full(size, depth, np.float32),
            instance_ids=np.full(size, instance, np.int16),
            camera_to_world=identity,
        )
        for number, (depth, instance) in enumerate([(1.0, -1), (2.0, -1), (9.0, 1)])
    ]
    priors = fit_baselines(rooms, questions_per_scene=1)
    assert (priors.prior_points[..., 2] == 2.0).all()
    assert (priors.marked_prior_points[..., 2] == 9.0).all()  # 60 % of the weight


def test_documented_errors(train_rooms, baselines):
    with pytest.raises(ValueError, match="no rooms"):
        fit_baselines([])
    with pytest.raises(ValueError, match="has 3 views, the rooms before it 4"):
        fit_baselines([train_rooms[0], train_rooms[1].reorder_views([0, 1, 2])])
    with pytest.raises(ValueError, match="knows 4 views"):
        baselines.points_at([4], [(0, 0)], (128, 128))
    with pytest.raises(ValueError, match="outside the picture of 128 x 96"):
        baselines.points_at([0], [(0, 96)], (128, 96))
    with pytest.raises(ValueError, match="split is 'validation'"):
        list(render_split("validation", 1))
