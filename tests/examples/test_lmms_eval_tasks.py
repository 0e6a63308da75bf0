"""The tasks that lmms-eval gets from our benchmarks: their YAML files, documents, chats and figures.

The last test needs lmms-eval itself; all others call what the YAML files name.
"""

import importlib
import json
import shutil
import sys
from importlib.util import find_spec

import pytest
import yaml

from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.runner import evaluate_model
from tests.examples.harness_run import EXAMPLE, MODEL, run_harness
from tests.slow_cases import slow_but
from tests.test_structure import ROOT


FORMATS = ROOT / "tests" / "fixtures" / "formats"
POSED = {"posed_root": str(FORMATS / "scannet_posed_images"), "num_views": 2}
CASES = {  # task: data, split, options of the source, and the figure that stands for all
    "scanrefer": ("scanrefer", "val", POSED, "acc25"),
    "scan2cap": ("gap_mllm", "val", {}, "cider"),
    "scanqa": ("scanqa", "val", POSED, "em"),
    "sqa3d": ("sqa3d", "val", POSED, "em"),
    "detection_9dof": ("gap_mllm", "val", {}, "f1"),
}


@pytest.fixture(autouse=True)
def plugin(monkeypatch):
    """The plug-in on the path, and no Java, whose start takes seconds."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setattr("gap_mllm.evaluation.metrics.captions.shutil.which", lambda name: None)
    yield importlib.import_module("gap_mllm_lmms_eval.benchmark_task")
    for name in [name for name in sys.modules if name.partition(".")[0] == "gap_mllm_lmms_eval"]:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    """A function from a task to its folder, its YAML file as functions, and its documents."""

    def write_one(task, **options):
        data, split, own, _ = CASES[task]
        module = importlib.import_module("gap_mllm_lmms_eval.write_task")
        folder, settings = tmp_path / f"of_{task}", {"split": split, "cache_dir": tmp_path / "cache", **own, **options}
        count = module.write_task(task, FORMATS / data, folder, **settings)
        documents = [json.loads(line) for line in (folder / "documents.jsonl").read_text().splitlines()]
        assert len(documents) == count > 0
        return folder, load_yaml(folder / f"{task}.yaml"), documents

    return write_one


def load_yaml(path):
    """A YAML file as lmms-eval reads it."""

    class Loader(yaml.SafeLoader):
        pass

    def function(loader, node):
        module, _, name = node.value.rpartition(".")
        return getattr(importlib.import_module(module), name)

    Loader.add_constructor("!function", function)
    return yaml.load(path.read_text(), Loader)


def score(task, documents, texts):
    """What lmms-eval does with answers."""
    kept = [task["process_results"](doc, [text]) for doc, text in zip(documents, texts, strict=True)]
    return {each["metric"]: each["aggregation"]([row[each["metric"]] for row in kept]) for each in task["metric_list"]}


@pytest.mark.parametrize("name", slow_but(("scanrefer",), CASES))
def test_figures_are_those_of_our_runner(name, write, plugin):
    folder, task, documents = write(name)
    assert task["task"] == name and {row["metric"] for row in task["metric_list"]} == set(
        plugin.FIGURES[json.loads((folder / "benchmark.json").read_text())["benchmark"]]
    )
    benchmark, asked = plugin.open_questions(str(folder))
    assert task["generation_kwargs"]["max_new_tokens"] == benchmark.forms[0].max_new_tokens
    data, split, options, headline = CASES[name]
    asked_here = {"benchmark": benchmark.name, "data_dir": FORMATS / data, "split": split, **options}
    settings = {"output": folder / "evaluation", "cache_dir": folder.parent / "cache", "with_report": False}
    metrics = evaluate_model(MODEL, baselines=[], show_progress=False, **asked_here, **settings)
    lines = (folder / "evaluation" / "predictions.jsonl").read_text().splitlines()
    texts = {line["id"]: line["text"] for line in map(json.loads, lines)}
    ours = metrics["scores"]["model"]
    theirs = score(task, documents, [texts[doc["id"]] for doc in documents])
    assert theirs == {figure: ours[figure] for figure in theirs}
    assert theirs[headline] is not None and headline == task["metric_list"][0]["metric"]
    right = [task["doc_to_target"](doc) for doc in documents]
    assert score(task, documents, right)[headline] > score(task, documents, [""] * len(documents))[headline] == 0
    assert len(asked) == len(documents)


@pytest.mark.parametrize("name", CASES)
def test_all_views_stand_in_one_message_before_the_words(name, write):
    _, task, documents = write(name)
    *_, message = task["doc_to_messages"](documents[0])
    kinds = [part["type"] for part in message["content"]]
    views = task["doc_to_visual"](documents[0])
    shown = [part["url"] for part in message["content"] if part["type"] == "image"]
    assert [view.tobytes() for view in shown] == [view.tobytes() for view in views] and len(views) > 1
    assert kinds[-1] == "text" and "<image>" not in task["doc_to_text"](documents[0])


def test_a_json_answer_is_cut_where_ours_stops(write):
    _, task, documents = write("detection_9dof")
    answer = '[{"label": "chair", "bbox_3d": [0, 0, 2, 1, 1, 1, 0, 0, 0]}]'
    kept = task["process_results"](documents[0], [answer + ' [{"label": "lamp"'])
    assert kept["f1"]["text"] == answer


def test_what_is_wrong_is_named(write, plugin, tmp_path):
    module = importlib.import_module("gap_mllm_lmms_eval.write_task")
    with pytest.raises(ValueError, match="unknown task 'scanrefer2'; known are scanrefer"):
        module.write_task("scanrefer2", FORMATS, tmp_path / "out")
    with pytest.raises(ValueError, match="--tasks sqa3d for a folder of that name"):
        module.write_task("sqa3d", FORMATS / "sqa3d", tmp_path / "sqa3d")
    folder, _, documents = write("sqa3d")
    with pytest.raises(FileExistsError, match="is not empty"):
        write("sqa3d")
    shutil.rmtree(folder)
    plugin.open_questions.cache_clear()
    with pytest.raises(FileNotFoundError, match="holds no benchmark.json"):
        plugin.doc_to_text(documents[0])


def test_the_command_says_what_was_wrong_and_what_to_run_next(tmp_path, capsys, monkeypatch):
    module = importlib.import_module("gap_mllm_lmms_eval.write_task")
    given = ["write_task", "scanrefer", "--data-dir", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 1 and "nowhere" in capsys.readouterr().err and not (tmp_path / "out").exists()
    given[3] = str(FORMATS / "scanrefer")
    monkeypatch.setattr(sys, "argv", [*given, "--option", f"posed_root={POSED['posed_root']}", "--limit", "2"])
    module.main()
    assert f"2 questions. lmms-eval --tasks scanrefer --include_path {tmp_path / 'out'}" in capsys.readouterr().out


def test_every_task_is_packed():
    module = importlib.import_module("gap_mllm_lmms_eval.write_task")
    tasks = EXAMPLE / "gap_mllm_lmms_eval" / "tasks"
    assert {path.name for path in tasks.iterdir()} == {*module.TASKS, "vsibench_local"} == {*CASES, "vsibench_local"}
    assert all((tasks / name / f"{name}.yaml").is_file() for name in module.TASKS)
    assert all(find_benchmark(name) for name in module.TASKS.values())
    assert '"tasks/*/*"' in (EXAMPLE / "pyproject.toml").read_text()


@pytest.mark.skipif(find_spec("lmms_eval") is None, reason="lmms-eval is not installed")
@pytest.mark.parametrize("name", ["scanrefer", "detection_9dof", "sqa3d"])
def test_the_harness_gives_our_texts_and_figures(name, write, tmp_path):
    folder, _, _ = write(name)
    theirs, samples = run_harness(name, folder, tmp_path, batch_size=16)
    data, split, options, _ = CASES[name]
    asked = {"data_dir": FORMATS / data, "split": split, **options}
    benchmark = json.loads((folder / "benchmark.json").read_text())["benchmark"]
    settings = {"output": tmp_path / "evaluation", "cache_dir": tmp_path / "cache", "with_report": False}
    metrics = evaluate_model(MODEL, benchmark, baselines=[], show_progress=False, **asked, **settings)
    ours = metrics["scores"]["model"]
    figures = {key.removesuffix(",none"): value for key, value in theirs.items() if key.removesuffix(",none") in ours}
    assert figures and figures == {figure: pytest.approx(ours[figure]) for figure in figures}
    lines = (tmp_path / "evaluation" / "predictions.jsonl").read_text().splitlines()
    texts = {line["id"]: line["text"] for line in map(json.loads, lines)}
    kept = [sample[next(iter(figures))] for sample in samples]
    assert {answer["id"]: answer["text"] for answer in kept} == {name: text.strip() for name, text in texts.items()}
