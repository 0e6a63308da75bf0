"""`gap-mllm evaluate --engine vllm` writes the results of transformers, and resumes. Run by `make test-vllm`."""

import json
import multiprocessing
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.model_loading import load_processor


pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm")

MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
SETTINGS = {"enforce_eager": True, "distributed_executor_backend": "uni"}
RESULTS = ("metrics.json", "predictions.jsonl", "predictions.blind.jsonl", "predictions.first_view.jsonl")


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        patch.setenv("VLLM_NO_USAGE_STATS", "1")
        yield


def evaluate(output, tmp_path_factory, model=MODEL, **engine):
    cache = tmp_path_factory.getbasetemp() / "cache"
    chosen = {"baselines": ["blind", "first_view"], "dtype": "float32", "device": "cpu", "batch_size": 4}
    rooms = {"num_train": 0, "num_test": 4, "cache_dir": cache, "show_progress": False}
    return evaluate_model(model, output=output, **{**chosen, **engine}, **rooms)


@pytest.fixture
def with_settings(tmp_path):
    """A function (**settings) -> a folder of the model with other generation settings."""

    def change(**settings):
        folder = shutil.copytree(MODEL, tmp_path / f"model{len(list(tmp_path.iterdir()))}")
        file = folder / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))
        return folder

    return change


@pytest.fixture
def engines(monkeypatch):
    """What each engine was started with, and the processes of engines that were there before it."""
    import vllm

    started, start = [], vllm.LLM.__init__

    def note(self, model, **settings):
        started.append((settings, engine_processes()))
        start(self, model, **settings)

    monkeypatch.setattr(vllm.LLM, "__init__", note)
    return started


def engine_processes():
    return [process for process in multiprocessing.active_children() if "Engine" in process.name]


def test_results_are_those_of_transformers_and_a_run_resumes(tmp_path, tmp_path_factory):
    by_vllm = {"engine": "vllm", "engine_options": SETTINGS}
    metrics = evaluate(tmp_path / "transformers", tmp_path_factory)
    evaluate(tmp_path / "vllm", tmp_path_factory, **by_vllm)
    assert metrics["n"] == 8 and metrics["scores"]["model"]["num_unreadable"] < 8
    for name in RESULTS:
        assert (tmp_path / "vllm" / name).read_bytes() == (tmp_path / "transformers" / name).read_bytes()
    timing = json.loads((tmp_path / "vllm" / "timing.json").read_text())
    assert timing["engine"] == "vllm" and timing["model"]["questions_per_second"] > 0
    assert "Throughput of the model by vllm" in (tmp_path / "vllm" / "report.md").read_text()

    half = tmp_path / "half"
    shutil.copytree(tmp_path / "vllm", half)
    (half / "metrics.json").unlink()
    (half / "batches" / "model" / "000001.jsonl").unlink()
    evaluate(half, tmp_path_factory, **by_vllm)
    assert json.loads((half / "timing.json").read_text())["model"]["batches"] == 1
    assert (half / "metrics.json").read_bytes() == (tmp_path / "vllm" / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match="engine"):
        evaluate(half, tmp_path_factory)  # a folder of vLLM is not gone on with by transformers


def test_generation_settings_give_the_answers_of_transformers(tmp_path, tmp_path_factory, with_settings):
    plain = evaluate(tmp_path / "plain", tmp_path_factory, baselines=[])
    texts = texts_of(tmp_path / "plain")
    tokens = load_processor(MODEL).tokenizer
    never = tokens.encode(texts[0], add_special_tokens=False)[3]
    folder = with_settings(
        repetition_penalty=1.3,
        suppress_tokens=[never],
        bad_words_ids=[[tokens.encode(texts[1], add_special_tokens=False)[4]]],
        sequence_bias=[[[tokens.encode(texts[2], add_special_tokens=False)[5]], -3.0]],
        min_new_tokens=6,
        do_sample=True,
        temperature=2.0,
    )
    comma = tokens.encode(texts[0], add_special_tokens=False)[4]
    ending, stopping = with_settings(eos_token_id=comma), with_settings(stop_strings=['"pointmap'])
    for name, model in (("settings", folder), ("ending", ending), ("stopping", stopping)):
        evaluate(tmp_path / f"{name}_transformers", tmp_path_factory, model=model, baselines=[])
        by_vllm = {"engine": "vllm", "engine_options": SETTINGS, "baselines": []}
        evaluate(tmp_path / f"{name}_vllm", tmp_path_factory, model=model, **by_vllm)
        assert texts_of(tmp_path / f"{name}_vllm") == texts_of(tmp_path / f"{name}_transformers") != texts
    assert plain["n"] == 8


def texts_of(folder):
    return [json.loads(line)["text"] for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_an_engine_and_its_process_are_gone_before_the_next(
    tmp_path, tmp_path_factory, with_settings, engines, monkeypatch
):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    by_vllm = {"engine": "vllm", "engine_options": SETTINGS, "baselines": []}
    evaluate(tmp_path / "run", tmp_path_factory, without_geometry=with_settings(repetition_penalty=1.3), **by_vllm)
    assert [before for _, before in engines] == [[], []] and engine_processes() == []
    assert all(settings["max_model_len"] < 512 for settings, _ in engines)
    with pytest.raises(Exception, match="Engine core"):
        evaluate(tmp_path / "bad", tmp_path_factory, **by_vllm | {"engine_options": {"load_format": "none such"}})
    assert engine_processes() == []


def test_memory_is_measured_with_the_views_that_are_asked(tmp_path, tmp_path_factory, monkeypatch):
    from gap_mllm_vllm.scene_processing import SceneDummyInputsBuilder, SceneProcessingInfo

    dummies, tokens = [], []
    make, count = SceneDummyInputsBuilder.get_dummy_mm_data, SceneProcessingInfo.get_mm_max_tokens_per_item
    monkeypatch.setattr(
        SceneDummyInputsBuilder,
        "get_dummy_mm_data",
        lambda *given: dummies.append(make(*given)["image"]) or make(*given),
    )
    monkeypatch.setattr(
        SceneProcessingInfo, "get_mm_max_tokens_per_item", lambda *a, **k: tokens.append(count(*a, **k)) or tokens[-1]
    )
    options = {"engine": "vllm", "engine_options": SETTINGS, "baselines": []}
    evaluate(tmp_path / "run", tmp_path_factory, **options)
    assert dummies and {tuple(view.size for view in views) for views in dummies} == {((128, 128),) * 4}
    assert {each["image"] for each in tokens} == {64}
