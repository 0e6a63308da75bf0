"""A time trial: two arms, one with geometry, measured beside blind baselines; curves over seconds."""

import json

import pytest
from ablations import ablation_curves
from ablations.ablation_curves import draw_arms
from time_trial import TrialRooms, run_time_trial


ENCODER = "examples/assets/tiny_geometry_encoder"
FEW = {"max_steps": 2, "per_device_train_batch_size": 1, "dataloader_num_workers": 0, "eval_steps": 1}


@pytest.mark.slow
def test_two_arms_are_trained_measured_and_not_trained_again(tmp_path, capsys):
    told = run_time_trial(tmp_path, ENCODER, 60, TrialRooms(2, 2, 2), **FEW)
    with_geometry, without = told["arms"]["with_geometry"], told["arms"]["without_geometry"]
    for arm in (with_geometry, without):
        assert arm["steps"] == 2 and "--max_seconds 60.0" in arm["command"]
        assert {"parse_rate_ci95", "dense_point_error_m_ci95", "pixel_prior_point_error_m_ci95"} <= {*arm}
    assert "--model_config.use_geometry false" in without["command"]
    assert "use_geometry" not in with_geometry["command"]
    assert "shuffled_geometry_dense_point_error_m" in with_geometry and (tmp_path / "curves_by_seconds.png").is_file()
    assert told["curve_blind"]["pixel_prior_dense_point_error_m"] > 0
    assert json.loads((tmp_path / "metrics.json").read_text())["arms"]["with_geometry"]["steps"] == 2
    log = (tmp_path / "runs" / "with_geometry" / "seed_0" / "log.jsonl").read_text().splitlines()
    evaluated = [json.loads(line) for line in log if "eval_dense_point_error_m" in line]
    assert len(evaluated) == 2 and all({"seconds", "eval_parse_rate"} <= {*entry} for entry in evaluated)
    capsys.readouterr()
    assert run_time_trial(tmp_path, ENCODER, 60, TrialRooms(2, 2, 2), **FEW)["arms"] == told["arms"]
    assert "step 1 of" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="max_seconds"):
        run_time_trial(tmp_path, ENCODER, 30, TrialRooms(2, 2, 2), **FEW)


def test_too_few_rooms_are_refused():
    for wrong in ({"num_rooms": 1}, {"num_curve_rooms": 1}, {"num_baseline_rooms": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TrialRooms(**wrong)


def test_curves_over_seconds_have_blind_lines(tmp_path, monkeypatch):
    figures = []
    make = ablation_curves.new_figure
    monkeypatch.setattr(ablation_curves, "new_figure", lambda *size: figures.append(make(*size)) or figures[-1])
    log = [
        {"step": 4 * k, "seconds": 10.0 * k, "eval_point_error_m": 2.0 / k, "eval_parse_rate": 0.5, "eval_x_m": 1.0}
        for k in (1, 2, 3)
    ]
    blind = {"constant_point_error_m": 1.5, "pixel_prior_point_error_m": 1.2}
    assert draw_arms({None: {("one", 0): [*log, {"step": 5, "loss_text": 1.0}]}}, tmp_path / "c.png", "seconds", blind)
    first, second = sorted(figures[0].axes, key=lambda axes: axes.get_title())
    assert [first.get_title(), second.get_title()] == ["parse rate", "point error m"]
    assert second.get_lines()[0].get_xdata().tolist() == [10, 20, 30] and second.get_xlabel() == "seconds of training"
    labels = [text.get_text() for text in second.get_legend().get_texts()]
    assert labels == ["one", "blind, constant: 1.50", "blind, pixel prior: 1.20"]
