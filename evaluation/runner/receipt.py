"""The receipt of a run: what evaluated, what was shown and how it was asked, and what became of each question."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import torch
import transformers

from ... import __version__
from ...processing.data.scene_sample import SceneSample
from ..benchmarks import Benchmark
from .baseline_answers import MODEL
from .questions import QuestionSet


def make_receipt(
    benchmark: Benchmark, asked: QuestionSet, samples: Sequence[SceneSample], records: dict, run: dict
) -> dict:
    """What metrics.json holds under "receipt".

    Args:
        benchmark (`Benchmark`), asked (`QuestionSet`), samples (`list[SceneSample]`): what was asked.
        records (`dict[str, list[dict]]`): records of the model and each baseline, with "text" and "rejected".
        run (`dict`): what was run.
    Returns:
        `dict`: "evaluator" and "versions"; "frames" (`num_frames` and `sampling` of videos, fewest and most stored
        `views` of a question); "decoding"; "prompts_sha256", of the prompts with ids and form of the answers;
        "answers", by model and baseline the counts `asked`, `answered` (with any text) and `unreadable` (empty ones
        among them), and the `file` with every answer.
    """
    counts = [len(sample.views) for sample in samples if sample.views]
    frames = {"views": [min(counts), max(counts)]} if counts else {}
    if len(counts) < len(samples):
        frames |= {"num_frames": asked.frames.num_frames, "sampling": asked.frames.sampling}
    digest = hashlib.sha256(json.dumps([asdict(form) for form in benchmark.forms]).encode())
    for sample in samples:
        digest.update(json.dumps([sample.id, sample.system, sample.question]).encode() + b"\n")
    is_given = "predictions" in run
    return {
        "evaluator": f"gap-mllm {__version__}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "frames": frames,
        "decoding": "unknown: answers were read from a file" if is_given else "greedy",
        "prompts_sha256": digest.hexdigest(),
        "answers": {
            name: {
                "asked": len(samples),
                "answered": sum(bool((record["text"] or "").strip()) for record in rows),
                "unreadable": sum(record["rejected"] is not None for record in rows),
                "file": predictions_file(name),
            }
            for name, rows in records.items()
        },
    }


def predictions_file(name: str) -> str:
    """The name of the file with the answers of the model or a baseline."""
    return "predictions.jsonl" if name == MODEL else f"predictions.{name}.jsonl"
