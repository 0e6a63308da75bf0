"""Samples of a report as a picture: views, truth and what the model answered, drawn into the same views."""

from dataclasses import replace
from pathlib import Path

from ...processing.data.contact_sheet import contact_sheet
from ...processing.data.scene_sample import Box, Point, SceneSample
from ..benchmarks import Benchmark
from .questions import QuestionSet


ANSWER = "ANSWER"
MAX_CHARS = 300
VERDICTS = {"error_m": "{:.2f} m off", "iou": "IoU {:.2f}", "score": "score {:.2f}"}


def draw_samples(benchmark: Benchmark, asked: QuestionSet, records: list[dict], path: str | Path, title: str) -> Path:
    """Draw answered questions below each other.

    Args:
        benchmark (`Benchmark`), asked (`QuestionSet`): what was asked.
        records (`list[dict]`): records of the answers to draw, in this order.
        path (`str` or path): the PNG file. title (`str`): above all.
    Returns:
        `Path`.
    """
    samples = [with_answer(benchmark, asked.sample(record["id"], with_frames=True), record) for record in records]
    contact_sheet(samples, title, max_views=8).save(path)
    return Path(path)


def with_answer(benchmark: Benchmark, sample: SceneSample, record: dict) -> SceneSample:
    """The sample with what was answered beside the truth: boxes and points named "ANSWER ..", and the text."""
    is_drawn = benchmark.draw is not None and record["parsed"] is not None
    drawn = benchmark.draw(sample, record["parsed"]) if is_drawn else []
    drawn = [replace(item, label=f"{ANSWER} {item.label or ''}".strip()) for item in drawn]
    points, boxes = (tuple(item for item in drawn if isinstance(item, kind)) for kind in (Point, Box))
    truth = " ".join((sample.answer or " / ".join(sample.references) or "as drawn").split())
    verdict = VERDICTS[benchmark.shown].format(record[benchmark.shown])
    if record["rejected"]:
        verdict = f"unreadable, {record['rejected']}"
    text = " ".join(record["text"].split()) or "(nothing)"
    text = f"of the model ({verdict}): {_shorten(text)}\nTRUTH: {_shorten(truth)}"
    return replace(sample, points=sample.points + points, boxes=sample.boxes + boxes, answer=text)


def _shorten(text):
    text = text.replace("```json", "").replace("```", "").strip()
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} ..."


__all__ = ["draw_samples", "with_answer"]
