"""Numbers that follow the share of a run that is done: values between points, forms of recipes, what is refused."""

import json
import math

import numpy as np
import pytest

from gap_mllm.training import Schedule
from gap_mllm.training.schedule import draw_weighted, read_weight, read_weights, turning_points


def test_values_between_points_and_outside_of_them():
    line, steps = Schedule({0.2: 1.0, 0.6: 0.0}), Schedule({0.2: 1.0, 0.6: 0.0}, "step")
    done = np.array([0.0, 0.2, 0.4, 0.5, 0.6, 1.0])
    np.testing.assert_allclose(line(done), [1.0, 1.0, 0.5, 0.25, 0.0, 0.0], atol=1e-12)
    assert steps(done).tolist() == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert [steps(float(each)) for each in done] == steps(done).tolist() and isinstance(line(0.3), float)
    assert Schedule({0: 3})(0.7) == 3.0


def test_a_schedule_counts_as_none_if_it_is_0_throughout():
    assert Schedule({0: 0.0, 0.5: 1e-3}) and not Schedule({0: 0.0, 1: 0})


def test_forms_of_recipes_are_read():
    schedule = Schedule({0.0: 1.0, 0.5: 0.2}, "step")
    assert read_weight("weight", {0: 1, 0.5: 0.2, "kind": "step"}) == schedule
    assert read_weight("weight", json.loads(json.dumps(schedule.as_dict()))) == schedule
    assert read_weight("weight", schedule) is schedule and read_weight("weight", 2) == 2.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({0: 1, "kind": "liner"}, r"w: kind is 'liner' \(did you mean 'linear'\?\); expected one of linear, step"),
        ({0: 1, "knd": "step"}, r"w has the unknown key 'knd' \(did you mean 'kind'\?\)"),
        ({0.5: 1, 0.2: 0}, r"w: the shares of the run are \[0.5, 0.2\]; expected each above the one before"),
        ({0: 1, 500: 0}, "w: a share of the run is 500; expected a number from 0 to 1"),
        ({-0.1: 1}, "w: a share of the run is -0.1"),
        ({0: math.nan}, "w: the value at 0 is nan; expected a finite number"),
        ({0: "1"}, "w: the value at 0 is '1'; expected a finite number"),
        ({0: -1.0, 1: 2.0}, "w at 0 is -1.0; expected a finite number of at least 0"),
        ({"kind": "step"}, "w: a schedule has no points"),
        (True, "w is True; expected a finite number"),
    ],
)
def test_what_is_no_weight_is_named(value, message):
    with pytest.raises(ValueError, match=message):
        read_weight("w", value, least=0.0)


def test_points_are_a_mapping():
    with pytest.raises(TypeError, match=r"the points are \[1\]; expected values by shares of the run"):
        Schedule([1])


def test_something_can_be_drawn_at_every_time():
    read_weights("w", {"a": {0: 1, 1: 0}, "b": {0: 0, 1: 1}})
    with pytest.raises(
        ValueError, match="w has no weight above 0 when 0.5 of the run is done; nothing could be drawn"
    ):
        read_weights("w", {"a": {0: 1, 0.5: 0}, "b": {0: 0, 0.5: 0, 1: 1}})
    assert turning_points([Schedule({0.5: 1.0}), 2.0]) == [0.0, 0.5, 1.0, 0.25, 0.75]


def test_draws_follow_weights():
    uniform = (np.arange(1000) + 0.5) / 1000
    drawn = draw_weighted({"a": 1.0, "none": 0.0, "b": Schedule({0: 0.0, 1: 3.0})}, uniform, 1.0)
    assert np.bincount(drawn).tolist() == [250, 0, 750]
    assert (draw_weighted({"a": 1.0, "b": Schedule({0: 0.0, 1: 3.0})}, uniform, np.zeros(1000)) == 0).all()
