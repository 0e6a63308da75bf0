"""From answers to files: predictions, metrics, times and the report."""

import json
import math
from pathlib import Path

from ...processing.data.folder_writing import write_atomically
from ...processing.metrics_file import save_metrics
from ..benchmarks import Benchmark
from .baseline_answers import DAMAGE_NOTE
from .files import write_jsonl
from .questions import QuestionSet
from .receipt import make_receipt, predictions_file


METRICS_FILE, TIMING_FILE = "metrics.json", "timing.json"
_INFINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}


def save_results(
    output: str | Path,
    benchmark: Benchmark,
    asked: QuestionSet,
    texts: dict[str, dict],
    run: dict,
    total: int,
    left_out: dict[str, str],
    timing: dict,
    with_report: bool,
):
    """Score the model and its baselines and write predictions, metrics.json, timing.json and report.md.

    Args:
        output (`str` or path): the folder.
        benchmark (`Benchmark`), asked (`QuestionSet`)
        texts (`dict[str, dict]`): answers of the model and each baseline, by id.
        run (`dict`): what was run, for metrics.json. total (`int`): questions of the whole benchmark.
        left_out (`dict[str, str]`): baselines that were not run, and why.
        timing (`dict`): goes to a file of its own, so that metrics.json is the same in every run.
        with_report (`bool`)
    Returns:
        `dict`: what metrics.json holds.
    """
    output = Path(output)
    samples = asked.without_pictures()
    all_scores, records = {}, {}
    for baseline, answers in texts.items():
        columns = [[answers[row_id].get(name) for row_id in asked.ids] for name in benchmark.answer_fields]
        scores, of_samples = benchmark.score(samples, *columns, seed=run["seed"])
        records[baseline] = [
            {"id": sample.id, "scene_id": sample.scene_id, "text": text, **answers[sample.id], **record}
            for sample, text, record in zip(samples, columns[0], of_samples, strict=True)
        ]
        all_scores[baseline] = {
            "num_unreadable": sum(record["rejected"] is not None for record in of_samples),
            **scores,
        }
        write_jsonl(output / predictions_file(baseline), [_plain(record) for record in records[baseline]])
    metrics = {**run, "title": benchmark.title, "headline": benchmark.headline, "n": len(samples)}
    metrics |= {"num_in_benchmark": total, "num_scenes": len({sample.scene_id for sample in samples})}
    metrics["is_subset"] = len(samples) < total
    metrics["receipt"] = make_receipt(benchmark, asked, samples, records, run)
    metrics |= {"scores": all_scores, "left_out": left_out, "notes": [DAMAGE_NOTE] if len(all_scores) > 1 else []}
    save_metrics(metrics, output / METRICS_FILE)
    write_atomically(output / TIMING_FILE, json.dumps(timing, indent=2) + "\n")
    if with_report:
        from .report import write_report

        write_report(output, benchmark, asked, metrics, records, timing)
    return metrics


def _plain(record):
    """Infinite numbers as text: JSON knows none."""
    return {key: _INFINITE.get(value, value) if isinstance(value, float) else value for key, value in record.items()}
