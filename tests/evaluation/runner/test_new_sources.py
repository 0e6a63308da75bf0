"""Whole runs of the benchmarks on ScanNet's raw files and of those with letters, with the tiny model and baselines."""

import json
from dataclasses import replace

import pytest

from gap_mllm.evaluation.benchmarks import BENCHMARKS, find_benchmark
from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.evaluation.runner.questions import load_questions
from gap_mllm.processing.answers_gap_mllm import format_boxes
from tests.slow_cases import slow_but


ON_SCANNET = ("scanrefer", "scanrefer_two_stage", "nr3d", "nr3d_two_stage", "multi3drefer")
LETTERS = ("cv_bench", "blink", "mmsi")
NUM_QUESTIONS = {"scanrefer": 4, "nr3d": 1, "multi3drefer": 3, "cv_bench": 5, "blink": 4, "mmsi": 3}
HEADLINES = {"scanrefer": "acc25", "nr3d": "acc25", "multi3drefer": "f1_25"}


@pytest.fixture(autouse=True)
def short_answers(monkeypatch):
    """The tiny model has never seen these questions: what it writes is cut early, to save time."""
    for name in (*ON_SCANNET, *LETTERS):
        forms = tuple(replace(form, max_new_tokens=16) for form in BENCHMARKS[name].forms)
        monkeypatch.setitem(BENCHMARKS, name, replace(BENCHMARKS[name], forms=forms))


@pytest.fixture(scope="module")
def run(tmp_path_factory, model_path, formats, cache_dir):
    """A function (name, **settings): evaluate the tiny model on the fixture; returns metrics and the folder."""

    def evaluate(name, **settings):
        output = tmp_path_factory.mktemp(name)
        source = name.removesuffix("_two_stage")
        if name in ON_SCANNET:
            settings = {"posed_root": str(formats / "scannet_posed_images"), "num_views": 2, **settings}
        quiet = {"with_report": False, "show_progress": False, "device": "cpu", "cache_dir": cache_dir}
        settings = {**quiet, "batch_size": 2, **settings}
        return evaluate_model(model_path, name, formats / source, output, **settings), output

    return evaluate


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", slow_but(("scanrefer_two_stage", "blink"), [*ON_SCANNET, *LETTERS]))
def test_a_whole_run(name, run):
    metrics, output = run(name)
    source = name.removesuffix("_two_stage")
    headline = HEADLINES.get(source, "overall")
    assert metrics["headline"] == headline and metrics["n"] == metrics["num_in_benchmark"] == NUM_QUESTIONS[source]
    wanted = {"model", "blind", "first_view", "other_geometry", "constant"}
    assert set(metrics["scores"]) | set(metrics["left_out"]) == wanted | {"without_geometry"}
    assert {"model", "blind", "constant"} <= set(metrics["scores"])
    for baseline, scores in metrics["scores"].items():
        file = "predictions.jsonl" if baseline == "model" else f"predictions.{baseline}.jsonl"
        records = read_jsonl(output / file)
        assert len(records) == metrics["n"] and 0 <= scores[headline] <= 1
        assert scores["num_unreadable"] == sum(record["rejected"] is not None for record in records)
    assert metrics["scores"]["constant"]["num_unreadable"] == 0
    assert json.loads((output / "metrics.json").read_text())["scores"].keys() == metrics["scores"].keys()


@pytest.mark.slow
def test_geometry_of_another_scene_and_views_that_are_left_out(run):
    metrics, _ = run("scanrefer", split="train+val", baselines=["first_view", "other_geometry"])
    assert list(metrics["scores"]) == ["model", "first_view", "other_geometry"]
    assert metrics["num_scenes"] == 2 and metrics["n"] == 8
    metrics, _ = run("cv_bench", baselines=["first_view"])
    assert metrics["left_out"]["first_view"] == "every question shows a single view"
    metrics, _ = run("mmsi", baselines=["first_view"])
    assert list(metrics["scores"]) == ["model", "first_view"]


@pytest.mark.parametrize("name", ["scanrefer", "multi3drefer", "blink"])
def test_right_answers_of_a_file_are_right_and_drawn(name, formats, cache_dir, tmp_path):
    options = {"cache_dir": cache_dir}
    if name in ON_SCANNET:
        options |= {"posed_root": str(formats / "scannet_posed_images"), "num_views": 2}
    asked, _ = load_questions(find_benchmark(name), formats / name, **options)
    path = tmp_path / "given.jsonl"
    with open(path, "w") as file:
        for sample in asked:
            text = sample.answer
            if name == "multi3drefer":  # the stored answer has two decimals
                boxes = [sample.box_in_view(box, 0) for box in sample.boxes]
                text = format_boxes([None] * len(boxes), boxes, decimals=8)
            file.write(json.dumps({"id": sample.id, "text": text}) + "\n")
    metrics = evaluate_model(None, name, formats / name, tmp_path / "run", predictions=path, **options)
    model = metrics["scores"]["model"]
    assert model[metrics["headline"]] == 1 and model["num_unreadable"] == 0
    report = (tmp_path / "run" / "report.md").read_text()
    assert f"| **{metrics['headline']}** | 1.000 |" in report
    for picture in ("worst", "best", "histogram", "categories"):
        assert (tmp_path / "run" / f"{picture}.png").stat().st_size > 1000


def test_what_cannot_be_scored_is_said_before_the_model_loads(model_path, formats, cache_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("gap_mllm.evaluation.runner.answering.load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ValueError, match="of split 'test' has no answer"):
        evaluate_model(model_path, "blink", formats / "blink", tmp_path, split="test", cache_dir=cache_dir)
    with pytest.raises(FileNotFoundError, match="posed_root"):
        evaluate_model(model_path, "multi3drefer", formats / "multi3drefer", tmp_path, cache_dir=cache_dir)
