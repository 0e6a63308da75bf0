"""Results in a model card: valid, replaced not doubled, and all else as it was."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from gap_mllm.evaluation.runner.card import eval_results, update_card


ROOT = Path(__file__).parents[3]


def metrics(**changes):
    model = {"n": 4, "point_error_m": 0.9, "point_error_m_ci95": [0.7, 1.1], "near_share": 0.25}
    model["near_share_ci95"] = ["NaN", "NaN"]
    blind = {"point_error_m": "Infinity", "near_share": 0.0}
    base = {"benchmark": "synthetic_rooms", "title": "a marked pixel", "headline": "point_error_m", "split": "test"}
    base |= {"n": 4, "num_in_benchmark": 4, "seed": 0, "is_subset": False, "scores": {"model": model, "blind": blind}}
    return {**base, **changes}


@pytest.fixture
def run(tmp_path):
    """A function (**changes) -> a folder with metrics.json."""

    def write(**changes):
        (tmp_path / "metrics.json").write_text(json.dumps(metrics(**changes)))
        return tmp_path

    return write


@pytest.fixture
def card(tmp_path):
    path = tmp_path / "model_card.md"
    path.write_bytes((ROOT / "model_card.md").read_bytes())
    return path


def test_results_are_in_the_metadata_and_the_text_is_as_it_was(card, run):
    before = card.read_text()
    update_card(card, run())
    loaded, old = ModelCard.load(card), ModelCard(before)
    assert loaded.text == old.text
    assert [(result.metric_type, result.metric_value) for result in loaded.data.eval_results] == [
        ("point_error_m", 0.9),
        ("near_share", 0.25),
    ]
    assert loaded.data.eval_results[0].metric_args == {"ci95": [0.7, 1.1]}
    assert loaded.data.eval_results[1].metric_args == {"baselines": {"blind": 0.0}}
    assert loaded.data.model_name == "GAP-MLLM"
    others = {key: value for key, value in loaded.data.to_dict().items() if key != "model-index"}
    assert others == old.data.to_dict()
    keys = re.findall(r"^([a-z_-]+):", before.split("---")[1], re.MULTILINE)
    assert re.findall(r"^([a-z_-]+):", card.read_text().split("---")[1], re.MULTILINE)[: len(keys)] == keys


def test_a_second_run_replaces_and_another_benchmark_is_added(card, run):
    update_card(card, run())
    once = card.read_bytes()
    update_card(card, run())
    assert card.read_bytes() == once
    update_card(card, run(benchmark="vsibench"))
    update_card(card, run(n=2, is_subset=True))
    found = ModelCard.load(card).data.eval_results
    assert [(result.dataset_type, result.dataset_config) for result in found[::2]] == [
        ("synthetic_rooms", None),
        ("vsibench", None),
        ("synthetic_rooms", "subset: 2 of 4 questions, seed 0"),
    ]


def test_a_card_without_metadata_gets_some(tmp_path, run):
    path = tmp_path / "README.md"
    path.write_text("# My model\n\nIt answers.\n")
    update_card(path, run())
    assert path.read_text().endswith("\n---\n# My model\n\nIt answers.\n")
    assert ModelCard.load(path).data.model_name == "My model"


def test_line_ends_stay(tmp_path, run):
    path = tmp_path / "README.md"
    path.write_bytes(b"---\r\nlicense: mit\r\n---\r\n\r\n# Title\r\nText\r\n")
    update_card(path, run())
    assert path.read_bytes().endswith(b"\r\n---\r\n\r\n# Title\r\nText\r\n")
    assert b"\n" not in path.read_bytes().replace(b"\r\n", b"")


def test_what_cannot_be_written_is_refused(tmp_path, card, run):
    with pytest.raises(FileNotFoundError, match="expected the metrics of a finished run"):
        update_card(card, tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="expected a model card"):
        update_card(tmp_path / "none.md", run())
    with pytest.raises(FileNotFoundError, match="is a folder; expected a model card"):
        update_card(tmp_path, run())
    card.write_text("---\nlicense: [mit\n---\ntext\n")
    with pytest.raises(ValueError, match="metadata of .* cannot be read"):
        update_card(card, run())
    with pytest.raises(ValueError, match="no finite figure"):
        eval_results(metrics(scores={"model": {"point_error_m": "Infinity"}}))


def test_metrics_of_earlier_runs_are_read():
    """They name "arms" what is now "scores"."""
    now = metrics()
    then = {("arms" if key == "scores" else key): value for key, value in now.items()}
    assert [result.metric_value for result in eval_results(then)] == [
        result.metric_value for result in eval_results(now)
    ]
    assert eval_results(then)[0].metric_value == 0.9


def test_figures_of_rooms_are_groups_by_task_with_intervals_and_what_is_told_blindly():
    model = {"n": 2, "point_error_m": 0.5, "point_error_m_ci95": [0.4, 0.7], "parse_rate": 1.0}
    model |= {"label_accuracy": "NaN", "constant_point_error_m": 2.0}
    detection = {"model": {"n": 2, "f1": 0.25}, "blind": {"f1": 0.125}}
    rooms = {"first_room": 10, "num_rooms": 2, "split": "test", "rooms": "test"}
    dense = {"n": 2, "dense_point_error_m": 0.75, "pixel_prior_dense_point_error_m": 1.0}
    tasks = {"points": {"model": model}, "detection": detection}
    unseen = {**rooms, "first_room": 20, "rooms": "unseen", "dense": dense}
    found = eval_results({**rooms, "tasks": tasks, "unseen": unseen})
    assert [(each.dataset_config, each.metric_type, each.metric_value) for each in found] == [
        ("points", "parse_rate", 1.0),
        ("points", "point_error_m", 0.5),
        ("detection", "f1", 0.25),
        ("dense", "dense_point_error_m", 0.75),
    ]
    assert found[1].metric_args == {"ci95": [0.4, 0.7], "baselines": {"constant": 2.0}}
    assert found[2].metric_args == {"baselines": {"one list": 0.125}}
    assert found[3].metric_args == {"baselines": {"median of each pixel": 1.0}}
    assert [(each.dataset_name, each.dataset_split) for each in found[2:]] == [
        ("rendered rooms 10 to 11 of the test range", "test"),
        ("rendered rooms 20 to 21 of the test range", "unseen"),
    ]


def test_figures_of_an_encoder_are_those_of_its_table():
    figures = {"pose_rotation_error_deg": 6.0, "no_motion_rotation_error_deg": 20.0, "depth_abs_rel": "Infinity"}
    found = eval_results({"first_room": 0, "num_rooms": 2, "split": "test", "rooms": "test", "n": 2, **figures})
    assert [(each.task_type, each.metric_type, each.metric_args) for each in found] == [
        ("depth-estimation", "pose_rotation_error_deg", {"baselines": {"no motion": 20.0}})
    ]


@pytest.mark.parametrize("held", [{"accuracy": 1.0}, [1.0]])
def test_figures_of_nothing_that_we_measure_are_refused(held):
    with pytest.raises(ValueError, match="metrics.json holds no figures of `gap-mllm evaluate` or"):
        eval_results(held)
