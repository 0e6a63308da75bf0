"""Samples of a report as a picture: views, truth and what the model answered, drawn into the same views."""

from dataclasses import replace
from pathlib import Path

from ...processing.data.contact_sheet import RowStyle, contact_sheet
from ...processing.data.scene_sample import Box, Point, SceneSample
from ...processing.scene_3d.scene_values import COLORS
from ..benchmarks import Benchmark
from .questions import QuestionSet


ANSWER = "ANSWER"
MAX_CHARS = 300
TRUE_COLOR, ANSWER_COLOR, OTHER_COLOR = COLORS["true"], COLORS["predicted"], (122, 122, 122)
KEY = "Green: the truth. Orange: what the model answers. Grey: what the question is given."
VERDICTS = {"error_m": "{:.2f} m off", "iou": "IoU {:.2f}", "score": "score {:.2f}"}


def draw_samples(benchmark: Benchmark, asked: QuestionSet, records: list[dict], path: str | Path, title: str) -> Path:
    """Draw answered questions below each other: truth in green, answer in orange, as in all pictures of answers.

    Args:
        benchmark (`Benchmark`), asked (`QuestionSet`): what was asked.
        records (`list[dict]`): records of the answers to draw, in this order.
        path (`str` or path): the PNG file. title (`str`): above all.
    Returns:
        `Path`.
    """
    samples, styles = [], []
    for record in records:
        sample = asked.sample(record["id"], with_frames=True)
        samples.append(with_answer(benchmark, sample, record))
        styles.append(RowStyle(_colors(samples[-1]), answer_lines(benchmark, sample, record)))
    contact_sheet(samples, title, max_views=8, styles=styles, key=KEY).save(path)
    return Path(path)


def _colors(sample):
    """Colours of boxes and points, by what they are."""
    boxes = [OTHER_COLOR if box.role in ("input", "proposal") else _color(box) for box in sample.boxes]
    return boxes, [_color(point) for point in sample.points]


def _color(item):
    return ANSWER_COLOR if (item.label or "").startswith(ANSWER) else TRUE_COLOR


def with_answer(benchmark: Benchmark, sample: SceneSample, record: dict) -> SceneSample:
    """The sample with what was answered beside the truth: boxes and points named "ANSWER ..", and the text."""
    is_drawn = benchmark.draw is not None and record["parsed"] is not None
    drawn = benchmark.draw(sample, record["parsed"]) if is_drawn else []
    drawn = [replace(item, label=f"{ANSWER} {item.label or ''}".strip()) for item in drawn]
    points, boxes = (tuple(item for item in drawn if isinstance(item, kind)) for kind in (Point, Box))
    text = "\n".join(line for line, _ in answer_lines(benchmark, sample, record))
    return replace(sample, points=sample.points + points, boxes=sample.boxes + boxes, answer=text)


def answer_lines(benchmark: Benchmark, sample: SceneSample, record: dict) -> list[tuple[str, tuple]]:
    """Truth and answer in words, each with its RGB colour.

    Args:
        benchmark (`Benchmark`), sample (`SceneSample`), record (`dict`): what was asked, and the record of its answer.
    Returns:
        `list[tuple[str, tuple]]`.
    """
    truth = " ".join((sample.answer or " / ".join(sample.references) or "as drawn").split())
    verdict = VERDICTS[benchmark.shown].format(record[benchmark.shown])
    if record["rejected"]:
        verdict = f"unreadable, {record['rejected']}"
    text = " ".join(record["text"].split()) or "(nothing)"
    return [
        (f"Truth: {_shorten(truth)}", TRUE_COLOR),
        (f"Answer ({verdict}): {_shorten(text)}", ANSWER_COLOR),
    ]


def _shorten(text):
    text = text.replace("```json", "").replace("```", "").strip()
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} ..."
