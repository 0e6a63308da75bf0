"""Whole runs: one process, two, killed and resumed give equal bytes; what is wrong is said before a model loads."""

import json
import re
import time

import pytest
import torch

from gap_mllm.evaluation.runner import answering, evaluate_model
from gap_mllm.evaluation.runner.models import load_model
from gap_mllm.processing.data.record_errors import RecordError
from gap_mllm_cli import main


BASELINES = ("--baselines", "blind", "constant")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model_path, rooms):
    """A run in this process; returns its folder."""
    output = tmp_path_factory.mktemp("run")
    chosen = {"baselines": list(BASELINES[1:]), "with_report": False, "show_progress": False, "device": "cpu"}
    evaluate_model(model_path, output=output, batch_size=1, **chosen, **rooms)
    return output


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_writes_answers_and_metrics(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    answers = read_jsonl(finished / "predictions.jsonl")
    assert metrics["n"] == metrics["num_in_benchmark"] == len(answers) == 4
    assert list(metrics["scores"]) == ["model", "blind", "constant"]
    errors = sorted(float(answer["error_m"]) for answer in answers)
    assert metrics["scores"]["model"]["point_error_m"] == pytest.approx((errors[1] + errors[2]) / 2)
    assert "seconds" not in (finished / "metrics.json").read_text()
    assert json.loads((finished / "timing.json").read_text())["processes"] == 1
    assert metrics["constant_fitted_on"] == "4 of 4 questions of the training split"


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(finished, command_words, tmp_path):
    assert main(command_words(tmp_path, *BASELINES, "--processes", "2")) == 0
    assert json.loads((tmp_path / "timing.json").read_text())["processes"] == 2
    for name in ("metrics.json", "predictions.jsonl"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(finished, start_command, tmp_path, model_path, rooms):
    process = start_command(tmp_path, *BASELINES)
    first = tmp_path / "batches" / "model" / "000000.jsonl"
    deadline = time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert first.exists() and not (tmp_path / "metrics.json").exists()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "batches").rglob("*.jsonl")}
    chosen = {"baselines": list(BASELINES[1:]), "with_report": False, "show_progress": False, "device": "cpu"}
    evaluate_model(model_path, output=tmp_path, batch_size=1, **chosen, **rooms)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())  # nothing is asked twice
    for name in ("metrics.json", "predictions.jsonl"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


def test_another_plan_is_refused_before_the_model_loads(finished, model_path, rooms, monkeypatch):
    monkeypatch.setattr("gap_mllm.evaluation.runner.answering.load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ValueError, match="batch_size: 1 there, 2 now"):
        evaluate_model(model_path, output=finished, batch_size=2, baselines=[], device="cpu", **rooms)


def test_missing_videos_are_listed_before_the_model_loads(tmp_path, model_path, formats, cache_dir, monkeypatch):
    monkeypatch.setattr("gap_mllm.evaluation.runner.answering.load_model", lambda *_: pytest.fail("loaded"))
    folder = formats / "damaged" / "vsibench_missing_video"
    with pytest.raises((RecordError, FileNotFoundError), match=r"\.mp4"):
        evaluate_model(model_path, "vsibench", folder, tmp_path, cache_dir=cache_dir)


def test_predictions_of_a_file_are_scored(finished, tmp_path, rooms):
    answers = [{"id": answer["id"], "text": answer["text"]} for answer in read_jsonl(finished / "predictions.jsonl")]
    answers[0]["text"], answers[1]["text"] = "no idea", '{"label": "bed", "pointmap": [NaN, 0, 1]}'
    path = tmp_path / "given.jsonl"
    path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    metrics = evaluate_model(predictions=path, output=tmp_path, with_report=False, baselines=[], **rooms)
    model = metrics["scores"]["model"]
    assert model["num_unreadable"] == 2 and model["parse_rate"] == 0.5
    assert model["point_error_m"] == float("inf")  # the median of two finite errors and two misses
    records = read_jsonl(tmp_path / "predictions.jsonl")
    assert [record["rejected"] for record in records[:2]] == ["no object", records[1]["rejected"]]
    assert records[0]["error_m"] == "Infinity"
    assert json.loads((tmp_path / "metrics.json").read_text())["scores"]["model"]["point_error_m"] == "Infinity"


def test_a_limit_says_so(tmp_path, finished, rooms):
    path = tmp_path / "given.jsonl"
    answers = read_jsonl(finished / "predictions.jsonl")
    with pytest.raises(ValueError, match="4 questions|2 ids are not asked"):
        path.write_text("".join(json.dumps({"id": answer["id"], "text": ""}) + "\n" for answer in answers))
        evaluate_model(predictions=path, output=tmp_path, limit=2, baselines=[], **rooms)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_path": "x", "benchmark": "none"}, "unknown benchmark 'none'; known are synthetic_rooms"),
        ({}, "either model_path, or predictions"),
        ({"model_path": "x", "limit": 0}, "limit is 0"),
        ({"model_path": "x", "threads": 0}, "threads is 0; expected 1 or more"),
        ({"model_path": "x", "device": "foo"}, "device is 'foo', which cannot be used here: .* Give one such as cpu"),
        ({"model_path": "x", "dtype": "half"}, "dtype is 'half'; expected one of auto, float32, bfloat16, float16"),
        ({"model_path": "x", "split": "foo"}, "split 'foo' is not in the source; there are"),
        ({"model_path": "x", "baselines": ["wild"]}, "unknown baseline 'wild'"),
        ({"model_path": "x", "baselines": ["without_geometry"]}, "needs a model: give --without-geometry"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tmp_path, rooms):
    with pytest.raises(ValueError, match=message):
        evaluate_model(output=tmp_path, **arguments, **rooms)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes", "0"], "--processes is 0; expected 1 or more"),
        (["--update-card", "none.md"], "none.md does not exist; expected a model card"),
    ],
)
def test_what_comes_last_is_checked_first(words, message, command_words, tmp_path, capsys):
    assert main(command_words(tmp_path / "out", *words)) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_attention_and_dtype_are_flags(command_words, tmp_path, monkeypatch, capsys):
    loaded = []
    monkeypatch.setattr(answering, "load_model", lambda *given: loaded.append(given[1:]) or load_model(*given))
    words = ["--attn-implementation", '{"text_config": "eager"}', "--dtype", "bfloat16", "--baselines"]
    assert main(command_words(tmp_path, *words)) == 0, capsys.readouterr().err
    assert loaded == [(torch.device("cpu"), "bfloat16", {"text_config": "eager"})]
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (plan["dtype"], plan["attn_implementation"]) == ("bfloat16", {"text_config": "eager"})
    for wrong, message in (
        ("{sdpa", "neither a name nor JSON"),
        ("sdpa", "run .attn_implementation: .*eager"),
    ):
        assert main(command_words(tmp_path, "--attn-implementation", wrong, *words[2:])) == 2
        assert re.search(message, capsys.readouterr().err)


def test_the_model_of_an_evaluation_has_the_attention_that_was_asked_for(model_path):
    model, _ = load_model(model_path, "cpu", "bfloat16", {"text_config": "eager"})
    assert model.dtype == torch.bfloat16 and model.model.visual.config._attn_implementation == "sdpa"
    assert model.model.language_model.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="text_config would run in torch.float32 on cpu"):
        load_model(model_path, "cpu", attn_implementation="flash_attention_2")


def test_a_model_that_is_not_there_is_named(tmp_path, rooms, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        evaluate_model(tmp_path, output=tmp_path / "out", baselines=[], **rooms)


@pytest.mark.slow
def test_a_model_without_geometry_stands_beside(finished, tmp_path, model_path, rooms):
    quiet = {"baselines": [], "with_report": False, "show_progress": False, "device": "cpu"}
    metrics = evaluate_model(model_path, output=tmp_path, batch_size=1, without_geometry=model_path, **quiet, **rooms)
    assert metrics["scores"]["without_geometry"] == metrics["scores"]["model"]  # it is the very same model
    assert metrics["models"]["without_geometry"] == metrics["models"]["model"]
    before = json.loads((finished / "metrics.json").read_text())
    assert metrics["scores"]["model"]["point_error_m"] == before["scores"]["model"]["point_error_m"]
