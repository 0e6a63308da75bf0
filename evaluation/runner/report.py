"""report.md: the model and what stands beside it in tables with intervals, plots, and the worst and best samples."""

import math
from pathlib import Path

from ...processing.data.folder_writing import write_atomically
from ...processing.scores.reference_checks import is_number
from ..benchmarks import Benchmark
from .baseline_answers import BASELINES, MODEL
from .questions import QuestionSet
from .report_pictures import draw_samples
from .report_plots import plot_categories, plot_histogram, plot_thresholds


NUM_SHOWN = 3  # worst samples, and best


def write_report(
    output: str | Path, benchmark: Benchmark, asked: QuestionSet, metrics: dict, records: dict, timing: dict
) -> None:
    """Write report.md and its pictures into the folder of a run.

    Args:
        output (`str` or path): the folder.
        benchmark (`Benchmark`), asked (`QuestionSet`)
        metrics (`dict`): what metrics.json holds.
        records (`dict[str, list[dict]]`): records of the model and each baseline.
        timing (`dict`): what timing.json holds.
    """
    output = Path(output)
    lines = [f"# {benchmark.name}", "", f"{benchmark.title[0].upper()}{benchmark.title[1:]}.", ""]
    lines += [*_facts(metrics, timing), "", "## Figures", "", *_table(metrics["scores"], benchmark), ""]
    lines += ["In brackets: 95 % bootstrap intervals over scenes.", "", *_who(metrics), ""]
    lines += [
        *_plots(output, benchmark, metrics["scores"], records),
        *_samples(output, benchmark, asked, records[MODEL]),
    ]
    write_atomically(output / "report.md", "\n".join(lines).rstrip() + "\n")


def _facts(metrics, timing):
    count, total = metrics["n"], metrics["num_in_benchmark"]
    asked = f"all {total} questions" if not metrics["is_subset"] else (
        f"**{count} of {total} questions**, an even subset drawn by seed {metrics['seed']}: not the benchmark's figure"
    )  # fmt: skip
    yield f"- Asked: {asked}, about {metrics['num_scenes']} scenes of split {metrics['split']!r}."
    if "models" in metrics:
        hashes = ", ".join(f"{name} `{value}`" for name, value in metrics["models"].items())
        yield f"- Weights and settings (hash): {hashes}. Greedy answers, batches of {metrics['batch_size']}."
    else:
        yield "- The answers were read from a file."
    yield f"- Time of the last call: {timing['seconds']:.0f} s, {timing['processes']} process(es); see timing.json."
    rate = timing.get(MODEL, {}).get("questions_per_second")
    if rate:
        yield f"- Throughput of the model by {timing['engine']}: {rate:.2f} questions a second in a process."


def _table(all_scores, benchmark):
    """All plain numbers, one row each, the headline first."""
    names = list(dict.fromkeys(name for scores in all_scores.values() for name in scores))
    names = [name for name in names if not name.endswith("_ci95") and is_number(all_scores[MODEL].get(name))]
    names.sort(key=lambda name: name != benchmark.headline)
    yield f"| | {' | '.join(all_scores)} |"
    yield f"|---{'|---:' * len(all_scores)}|"
    for name in names:
        shown = f"**{name}**" if name == benchmark.headline else name
        yield f"| {shown} | {' | '.join(_cell(scores, name) for scores in all_scores.values())} |"


def _cell(scores, name):
    value, interval = scores.get(name), scores.get(f"{name}_ci95")
    if not is_number(value):
        return ""
    text = _number(value)
    if interval and not any(math.isnan(bound) for bound in interval):
        text += f" [{_number(interval[0])}, {_number(interval[1])}]"
    return text


def _number(value):
    if isinstance(value, int) or not math.isfinite(value):
        return str(value).replace("inf", "∞").replace("nan", "n/a")
    return f"{value:.3f}"


def _who(metrics):
    yield f"- **{MODEL}**: all views."
    yield from (f"- **{name}**: {BASELINES[name]}." for name in metrics["scores"] if name != MODEL)
    if "constant_fitted_on" in metrics:
        yield f"- The constant answers were fitted on {metrics['constant_fitted_on']}."
    yield from (f"- Not run: {name} ({why})." for name, why in metrics["left_out"].items())
    for note in metrics["notes"]:
        yield from ("", note)


def _plots(output, benchmark, all_scores, records):
    direction = "higher" if benchmark.higher_is_better else "lower"
    drawn = {
        "How good the single answers are": plot_histogram(records, benchmark.shown, output / "histogram.png"),
        "By kind of question": plot_categories(records, benchmark.shown, output / "categories.png"),
    }
    curves = {name: scores["precision_recall"] for name, scores in all_scores.items() if "precision_recall" in scores}
    if curves:
        drawn["Precision and recall at each overlap"] = plot_thresholds(curves, output / "precision_recall.png")
    if any(drawn.values()):
        yield from ("## Plots", "", f"For the headline, {benchmark.headline}, {direction} is better.", "")
    for title, path in drawn.items():
        if path is not None:
            yield from (f"![{title}]({path.name})", "")


def _samples(output, benchmark, asked, records):
    ranked = sorted(records, key=lambda record: (record["score"], record["id"]))
    count = min(NUM_SHOWN, len(ranked) // 2) or 1
    for name, chosen in (("worst", ranked[:count]), ("best", ranked[::-1][:count])):
        if name == "best" and len(ranked) == 1:
            continue
        path = draw_samples(benchmark, asked, chosen, output / f"{name}.png", f"The {name} answers")
        yield from (f"## The {name} answers", "", f"![The {name} answers]({path.name})", "")
