"""Bootstrap intervals: known distributions, infinity, scenes as units, documented errors."""

import numpy as np
import pytest

from gap_mllm.evaluation import bootstrap_interval, with_interval


def slow_median(values):
    return np.median(values)


def test_a_constant_has_no_spread():
    assert bootstrap_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


def test_the_mean_of_a_normal_sample_has_its_textbook_interval():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    low, high = bootstrap_interval(values, np.mean)
    error = 1.96 * values.std() / np.sqrt(len(values))
    # Bounds from 2000 resamples scatter by about 5 % of the half width.
    assert low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_intervals_cover_the_true_median_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        low, high = bootstrap_interval(rng.exponential(1.0, 60), num_resamples=200, seed=seed)
        hits += low <= np.log(2) <= high
    assert 180 <= hits <= 200  # 95 % of 200 is 190, with a standard deviation of 3


def test_scenes_are_resampled_whole():
    rng = np.random.default_rng(2)
    scene_means = rng.normal(0, 1, 30)
    values = (scene_means[:, None] + rng.normal(0, 0.1, (30, 20))).ravel()
    scenes = np.repeat(np.arange(30), 20)
    low, high = bootstrap_interval(values, np.mean, groups=scenes)
    error = 1.96 * values.reshape(30, 20).mean(1).std() / np.sqrt(30)
    assert (high - low) / 2 == pytest.approx(error, rel=0.1)
    naive = bootstrap_interval(values, np.mean)
    assert high - low > 3 * (naive[1] - naive[0])  # 20 like answers count as one: sqrt(20) = 4.5


@pytest.mark.parametrize("num_scenes", [7, 40, 280])
def test_the_fast_median_is_numpys(num_scenes):
    values = np.random.default_rng(3).normal(size=280).round(1)
    values[::5] = np.inf
    groups = np.arange(280) % num_scenes
    assert bootstrap_interval(values, np.median, 200, groups=groups) == bootstrap_interval(
        values, slow_median, 200, groups=groups
    )


def test_misses_are_infinite_and_stay_so():
    metrics = with_interval("error", [0.1] * 40 + [np.inf] * 60)
    assert metrics["error"] == np.inf and metrics["error_ci95"][1] == np.inf
    low, high = bootstrap_interval([0.1] * 90 + [np.inf] * 10)
    assert (low, high) == (0.1, 0.1)
    assert bootstrap_interval([np.inf, np.inf]) == (np.inf, np.inf)


def test_one_scene_says_nothing_about_spread():
    assert np.isnan(bootstrap_interval([1.0, 2.0, 3.0], groups=["a", "a", "a"])).all()


def test_the_seed_decides():
    values = np.random.default_rng(4).normal(size=30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)


def test_documented_errors():
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="1 of 2 values are NaN"):
        bootstrap_interval([1.0, np.nan])
    with pytest.raises(ValueError, match="one entry for each of 2"):
        bootstrap_interval([1.0, 2.0], groups=[0])
    with pytest.raises(ValueError, match="confidence is 95"):
        bootstrap_interval([1.0, 2.0], confidence=95)
