"""Benchmarks asked about rendered rooms: those that can be, what is refused, and what files say of it."""

import json

import pytest

from gap_mllm.evaluation import relate_run
from gap_mllm.evaluation.benchmarks import BENCHMARKS, find_benchmark, on_rooms
from gap_mllm.evaluation.benchmarks.on_rooms import room_tasks
from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.evaluation.runner.card import eval_results
from gap_mllm.evaluation.runner.questions import load_questions
from gap_mllm_cli import main
from tests.slow_cases import slow_but


ABOUT_ROOMS = [name for name, benchmark in BENCHMARKS.items() if room_tasks(benchmark)]


def test_what_rooms_allow():
    two_stages = {"gap_mllm_grounding_two_stage", "scanrefer_two_stage", "nr3d_two_stage"}
    with_files = {"gap_mllm_reconstruction", "gap_mllm_detection", "gap_mllm_captions"}
    own = {name for name, benchmark in BENCHMARKS.items() if benchmark.source == "synthetic_rooms"}
    assert set(ABOUT_ROOMS) == two_stages | with_files | own
    for name in own:
        assert on_rooms(find_benchmark(name)) is find_benchmark(name)
    for name in set(BENCHMARKS) - set(ABOUT_ROOMS):
        with pytest.raises(ValueError, match=f"'{name}' asks .*, which rooms cannot be asked; leave out --data"):
            on_rooms(find_benchmark(name))


@pytest.mark.parametrize("name", slow_but(set(ABOUT_ROOMS) - {"gap_mllm_captions"}, ABOUT_ROOMS))
def test_true_answers_about_rooms_can_be_read(name, rooms):
    bench = on_rooms(find_benchmark(name))
    asked, total = load_questions(bench, **rooms)
    samples = list(asked)
    assert total >= 4 and {sample.source for sample in samples} == {"synthetic_rooms"}
    columns = {"text": [sample.answer for sample in samples], "frame": [0] * len(samples)}
    _, records = bench.score(samples, *(columns[field] for field in bench.answer_fields))
    assert not [record["rejected"] for record in records if record["rejected"] is not None]


def test_a_run_about_rooms_says_so(command_words, tmp_path, capsys):
    words = ["--benchmark", "gap_mllm_reconstruction", "--data", "rooms", "--baselines", "blind", "constant"]
    assert main(command_words(tmp_path, *words)) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["benchmark"] == "gap_mllm_reconstruction" and metrics["data"] == "rooms" and metrics["n"] == 4
    assert "rendered rooms" in metrics["title"] and metrics["constant_fitted_on"].startswith("4 of 4")
    result = eval_results(metrics)[0]
    assert (result.dataset_type, result.dataset_config) == ("synthetic_rooms", "gap_mllm_reconstruction")
    capsys.readouterr()
    assert main(command_words(tmp_path, "--benchmark", "gap_mllm_reconstruction")) == 2  # its own data now
    assert capsys.readouterr().err


def test_a_run_about_rooms_is_related_to_rooms(loaded, model_path, tmp_path, cache_dir):
    options = {"num_train": 0, "num_test": 4, "cache_dir": cache_dir, "show_progress": False}
    run = {"output": tmp_path, "baselines": [], "with_report": False, "data": "rooms"}
    evaluate_model(model_path, "gap_mllm_reconstruction", **run, **options)
    related, records = relate_run(*loaded, tmp_path, voxel_size_m=0.5, cache_dir=cache_dir, show_progress=False)
    assert related["benchmark"] == "gap_mllm_reconstruction" and len(records) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--benchmark", "vsibench", "--data", "rooms"], "which rooms cannot be asked"),
        (["--data", "scannet"], "unknown data 'scannet'; known are rooms"),
        (["--data", "rooms", "--data-dir", "there"], "leave out data_dir, 'there'"),
    ],
)
def test_what_does_not_go_with_rooms_is_refused(words, message, command_words, tmp_path, capsys):
    assert main(command_words(tmp_path / "out", *words)) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
