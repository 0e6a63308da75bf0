"""Samples of a report as a picture: views, truth and what the model answered, drawn into the same views."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ...processing.data.contact_sheet import contact_sheet
from ...processing.data.scene_sample import Box, Point, SceneSample
from .questions import QuestionSet
from .score_grounding import answer_order


ANSWER = "ANSWER"
MAX_CHARS = 300


def draw_samples(asked: QuestionSet, records: list[dict], path: str | Path, title: str) -> Path:
    """Draw answered questions below each other.

    Args:
        asked (`QuestionSet`): their questions.
        records (`list[dict]`): records of the answers to draw, in this order.
        path (`str` or path): the PNG file. title (`str`): above all.
    Returns:
        `Path`.
    """
    samples = [with_answer(asked.sample(record["id"], with_frames=True), record) for record in records]
    contact_sheet(samples, title, max_views=8).save(path)
    return Path(path)


def with_answer(sample: SceneSample, record: dict) -> SceneSample:
    """The sample with what was answered beside the truth: boxes and points named "ANSWER ..", and the text."""
    points, boxes = list(sample.points), list(sample.boxes)
    parsed = record["parsed"]
    if isinstance(parsed, dict) and "pointmap" in parsed:
        label = f"{ANSWER} {parsed['label'] or ''}".strip()
        points.append(Point(view=None, pixel=None, xyz=np.asarray(parsed["pointmap"], float), label=label))
    order = answer_order(sample)
    for numbers, label, frame in _boxes_of(parsed):
        index = 0 if frame == "camera" else None
        boxes.append(Box(np.asarray(numbers, float), order, frame, index, f"{ANSWER} {label}".strip(), role="target"))
    truth = " ".join((sample.answer or " / ".join(sample.references) or "as drawn").split())
    verdict = f"unreadable, {record['rejected']}" if record["rejected"] else _score(record)
    text = " ".join(record["text"].split()) or "(nothing)"
    text = f"of the model ({verdict}): {_shorten(text)}\nTRUTH: {_shorten(truth)}"
    return replace(sample, points=tuple(points), boxes=tuple(boxes), answer=text)


def _boxes_of(parsed):
    """Numbers, label and frame of the boxes of an answer."""
    for entry in parsed if isinstance(parsed, list) else [parsed]:
        if isinstance(entry, dict) and "bbox_3d" in entry:
            yield entry["bbox_3d"], entry["label"] or "", "camera"
        elif isinstance(entry, dict) and "bbox_3d_aligned" in entry:
            yield entry["bbox_3d_aligned"], f"in view {entry['frame']}", "aligned"


def _shorten(text):
    text = text.replace("```json", "").replace("```", "").strip()
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} ..."


def _score(record):
    if "error_m" in record:
        return f"{record['error_m']:.2f} m off"
    return f"IoU {record['iou']:.2f}" if "iou" in record else f"score {record['score']:.2f}"


__all__ = ["draw_samples", "with_answer"]
