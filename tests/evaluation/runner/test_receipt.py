"""Every metrics.json carries a receipt: what evaluated, what was shown, and what became of each question."""

import json

import torch
import transformers

import gap_mllm
from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.evaluation.runner.questions import even_subset, load_questions


QUIET = {"with_report": False, "show_progress": False, "device": "cpu"}


def test_a_run_with_a_model(model_path, formats, cache_dir, tmp_path):
    settings = {**QUIET, "cache_dir": cache_dir, "baselines": ["blind"], "batch_size": 4}
    evaluate_model(model_path, "vstibench", formats / "vstibench", tmp_path, **settings)
    receipt = json.loads((tmp_path / "metrics.json").read_text())["receipt"]
    assert receipt["evaluator"] == f"gap-mllm {gap_mllm.__version__}" and receipt["decoding"] == "greedy"
    assert receipt["versions"] == {"torch": torch.__version__, "transformers": transformers.__version__}
    assert receipt["frames"] == {"num_frames": 32, "sampling": "uniform"} and len(receipt["prompts_sha256"]) == 64
    for name, file in (("model", "predictions.jsonl"), ("blind", "predictions.blind.jsonl")):
        counts, lines = receipt["answers"][name], (tmp_path / file).read_text().splitlines()
        assert counts["file"] == file and counts["asked"] == len(lines) == 6
        records = [json.loads(line) for line in lines]
        assert counts["answered"] == sum(bool(record["text"].strip()) for record in records)
        assert counts["unreadable"] == sum(record["rejected"] is not None for record in records)


def given(path, texts):
    path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
    return path


def test_counts_and_prompts(formats, cache_dir, tmp_path):
    asked, _ = load_questions(find_benchmark("ca_vqa"), formats / "ca_vqa", cache_dir=cache_dir)
    texts = dict.fromkeys(asked.ids, "")
    texts |= {"binary-0": "Yes", "regression-0": "far", "cardinality-0": "1"}

    def run(name, **options):
        settings = {**QUIET, "cache_dir": cache_dir, "predictions": given(tmp_path / "given.jsonl", texts), **options}
        return evaluate_model(None, "ca_vqa", formats / "ca_vqa", tmp_path / name, **settings)

    metrics = run("one")
    receipt = metrics["receipt"]
    assert receipt["answers"]["model"] == {
        "asked": 6,
        "answered": 3,
        "unreadable": 4,  # three that are empty, and a distance without a number
        "file": "predictions.jsonl",
    }
    assert metrics["scores"]["model"]["overall"] == (0.5 + 1 + 0 + 0) / 4
    assert receipt["decoding"].startswith("unknown") and receipt["frames"] == {"views": [1, 1]}
    more = run("more", support_frames=2)["receipt"]
    assert more["frames"] == {"views": [3, 3]} and more["prompts_sha256"] == receipt["prompts_sha256"]
    texts = dict.fromkeys(even_subset(asked.ids, 1), "Yes")
    few = run("few", limit=1)["receipt"]
    assert few["prompts_sha256"] != receipt["prompts_sha256"] and few["answers"]["model"]["asked"] == 1
