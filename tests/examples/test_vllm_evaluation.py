"""`gap-mllm evaluate --engine vllm` writes the results of transformers, and resumes. Run by `make test-vllm`."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from gap_mllm.evaluation.runner import evaluate_model


pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm")

MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
SETTINGS = {"max_model_len": 2048, "enforce_eager": True, "distributed_executor_backend": "uni"}
RESULTS = ("metrics.json", "predictions.jsonl", "predictions.blind.jsonl", "predictions.first_view.jsonl")


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        patch.setenv("VLLM_NO_USAGE_STATS", "1")
        yield


def evaluate(output, tmp_path_factory, **engine):
    cache = tmp_path_factory.getbasetemp() / "cache"
    chosen = {"baselines": ["blind", "first_view"], "dtype": "float32", "device": "cpu", "batch_size": 4}
    rooms = {"num_train": 0, "num_test": 4, "cache_dir": cache, "show_progress": False}
    return evaluate_model(MODEL, output=output, **chosen, **rooms, **engine)


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
