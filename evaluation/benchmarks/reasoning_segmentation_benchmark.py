"""Reasoning segmentation of rooms: a text, points of the answer, and the masks that grow from them in every view.

The rooms are rendered again to score an answer: their depth grows the masks, their instance maps are the truth.
Beside the answers stand the masks from the middle of the first view, which looks at no text, and those from the true
points, the most that growing can give.
Source: the task is that of MLLM-For3D (arXiv:2503.18135); see processing/segmentation.py.
`reasoning_segmentation_boxes` asks for the same objects by the prompt of `grounding_box`, which released checkpoints
and the shipped tiny model know: masks then grow from the middle of the box.
Frame: camera of the first view, OpenCV axes. Units: metres.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ...processing.answers_gap_mllm import format_points, parse_boxes, parse_points
from ...processing.asking_gap_mllm import ANSWER_FORMS, AnswerForm, Asker
from ...processing.data.answer_texts import read_description
from ...processing.data.record_errors import RecordError
from ...processing.data.rooms.renderer import render_room
from ...processing.data.scene_sample import Point, SceneSample, View
from ...processing.scores.mask_overlaps import MaskOverlap, mask_overlap
from ...processing.scores.point_answers import why_rejected
from ...processing.segmentation import SceneSurface
from .benchmark import Benchmark
from .two_stage import ask_for_objects, object_chat


HIT_IOUS = (0.25, 0.5)


@dataclass(frozen=True)
class PointsAnswer:
    """What a text answers: points, or the middles of boxes where it holds no point, the label of the first, and why
    nothing could be read."""

    points: tuple[tuple[float, float, float], ...]
    label: str | None
    rejected: str | None


def read_points(sample: SceneSample, text: str) -> PointsAnswer:
    """Read all points of an answer, or else the middles of its boxes."""
    answer, boxes = parse_points(text), parse_boxes(text)
    if answer.items:
        return PointsAnswer(tuple(item.point for item in answer.items), answer.first.label, None)
    if boxes.items:
        return PointsAnswer(tuple(item.bbox_3d[:3] for item in boxes.items), boxes.first.label, None)
    return PointsAnswer((), None, why_rejected(answer))


def rate_masks(samples: Sequence[SceneSample], answers: Sequence[PointsAnswer], interval: Callable):
    """Grow masks from answers and hold them to those of the rooms; an answer without points covers nothing.

    Args:
        samples (`list[SceneSample]`): questions of task "reasoning_segmentation" about rendered rooms.
        answers (`list[PointsAnswer]`), interval (`Callable`): their readings, and see `Benchmark`.
    Returns:
        `tuple[dict, list[dict]]`: `miou` (over all views of a scene, mean over questions), `view_miou` (over the views
        of a question, then questions), `hit25` and `hit50` (share of `miou` above), `parse_rate`, `label_accuracy`,
        each with its interval; `center_miou` and `true_points_miou`, what grows from the middle of the first view and
        from the true points; records.
    """
    pairs = zip(samples, answers, strict=True)
    found = [
        [_overlap(sample, points) for points in (answer.points, None, true_points(sample))] for sample, answer in pairs
    ]
    overlaps, center, most = zip(*found, strict=True)
    ious = np.array([overlap.iou for overlap in overlaps])
    metrics = interval("miou", ious) | interval("view_miou", [overlap.mean_view_iou for overlap in overlaps])
    for least in HIT_IOUS:
        metrics |= interval(f"hit{100 * least:.0f}", ious > least)
    metrics |= interval("parse_rate", [bool(answer.points) for answer in answers])
    labels = [sample.boxes[0].label for sample in samples]
    pairs = zip(answers, labels, strict=True)
    metrics |= interval("label_accuracy", [answer.label == label for answer, label in pairs])
    metrics |= interval("center_miou", [overlap.iou for overlap in center])
    metrics |= interval("true_points_miou", [overlap.iou for overlap in most])
    return metrics, [_record(*each) for each in zip(samples, answers, overlaps, strict=True)]


def _record(sample, answer, overlap):
    return {
        "parsed": {"label": answer.label, "points": [list(point) for point in answer.points]}
        if answer.points
        else None,
        "rejected": answer.rejected,
        "score": overlap.iou,
        "category": sample.metadata["maker_facts"]["asked_by"],
        "iou": overlap.iou,
        "view_iou": overlap.mean_view_iou,
    }


def true_points(sample: SceneSample) -> tuple[tuple[float, ...], ...]:
    """The true points of a question, in the camera of the first view."""
    return tuple(tuple(map(float, sample.point_in_view(point))) for point in sample.points)


def _overlap(sample, points):
    intrinsics = sample.views[0].intrinsics
    width, height = (round(2 * float(middle)) + 1 for middle in intrinsics[:2, 2])  # rooms look through their middle
    room = (sample.metadata["room_seed"], len(sample.views), height, width)
    return _overlap_of(room, int(sample.boxes[0].instance_id), points)


@lru_cache(maxsize=4096)  # middle and true points are asked for again beside every baseline
def _overlap_of(room, instance, points) -> MaskOverlap:
    """The overlap of what grows from points, or for None from the middle of the first view."""
    scene, surface = _render(room)
    truth = scene.instance_ids == instance
    if points is None:
        points = scene.points_in_first_view()[0, room[2] // 2, room[3] // 2][None]
    if not len(points):
        return mask_overlap(np.zeros_like(truth), truth)
    return mask_overlap(surface.segment(points, reach_m=None), truth)


@lru_cache(maxsize=2)
def _render(room):
    seed, num_views, height, width = room
    scene = render_room(seed, num_views, height, width)
    return scene, SceneSurface(scene.depth_m, scene.intrinsics, scene.camera_to_world)


def constant_point(samples: Sequence[SceneSample]) -> Callable:
    """One answer to all: the commonest label, and the median of the first points."""
    points = np.array([true_points(sample)[0] for sample in samples])
    label = Counter(sample.boxes[0].label for sample in samples).most_common(1)[0][0]
    text = format_points([label], [np.median(points, axis=0)])
    return lambda sample: text


def answer_with_boxes(
    baseline: str,
    asker: Asker,
    forms: tuple[AnswerForm],
    samples: Sequence[SceneSample],
    partner: SceneSample | None,
    batch_size: int,
) -> list[dict]:
    """Ask for the objects of questions about one set of views by their boxes; arguments as `answer_in_two_stages`."""
    views = samples[0].views[:1] if baseline == "first_view" else samples[0].views
    shown, others = () if baseline == "blind" else views, None if partner is None else partner.views
    described = [read_description(sample) for sample in samples]
    texts = ask_for_objects(asker, forms[0], "grounding_box", shown, others, described, batch_size)
    return [{"id": sample.id, "text": text} for sample, text in zip(samples, texts, strict=True)]


def box_requests(
    forms: tuple[AnswerForm], samples: Sequence[SceneSample]
) -> Iterator[tuple[str, AnswerForm, list[dict], list[View]]]:
    """Tell what `answer_with_boxes` asks; arguments and what comes as `two_stage_requests`."""
    for sample in samples:
        views = list(sample.views)
        yield sample.id, forms[0], object_chat("grounding_box", len(views), read_description(sample)), views


def check_room(sample: SceneSample) -> None:
    """Refuse rows whose true masks cannot be rendered; raises RecordError."""
    if "room_seed" not in sample.metadata or not sample.boxes or not sample.points:
        problem = "the row is not about a rendered room with its object; true masks are known of these alone."
        raise RecordError(problem, "metadata", record_id=sample.id)


def draw_answer(sample: SceneSample, parsed: dict) -> list[Point]:
    """The answered points, to be drawn."""
    return [Point(None, None, np.asarray(point, float), label=parsed["label"]) for point in parsed["points"]]


REASONING_SEGMENTATION = Benchmark(
    "reasoning_segmentation",
    "an object of a rendered room by its name, relation or use: its masks in all views",
    source="synthetic_rooms",
    split="test",
    tasks=("reasoning_segmentation",),
    read=read_points,
    rate=rate_masks,
    constant=constant_point,
    headline="miou",
    check=check_room,
    forms=(ANSWER_FORMS["reasoning_segmentation"],),
    draw=draw_answer,
    shown="iou",
    options={"num_train": 256, "num_selection": 0, "num_test": 128},
)
REASONING_SEGMENTATION_BOXES = replace(
    REASONING_SEGMENTATION,
    name="reasoning_segmentation_boxes",
    title="an object of a rendered room by its name, relation or use, as a box: its masks in all views",
    forms=(ANSWER_FORMS["grounding_box"],),
    ask=answer_with_boxes,
    requests=box_requests,
)
