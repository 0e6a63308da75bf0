"""What a model is asked about rooms, how answers to each task are scored, and the blind baseline that stands beside.

Benchmarks of the same tasks give the scores; here are figures of all rooms together, each with its interval.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.benchmarks.gap_mllm_captions_benchmark import constant as commonest_caption
from gap_mllm.evaluation.benchmarks.gap_mllm_detection_benchmark import constant as constant_detection
from gap_mllm.evaluation.benchmarks.marked_points import MARKED_POINTS
from gap_mllm.evaluation.benchmarks.posed_boxes import aligned_target, constant_box
from gap_mllm.evaluation.intervals import with_interval
from gap_mllm.evaluation.metrics.captions import caption_scores
from gap_mllm.processing.asking_gap_mllm import ANSWER_FORMS, AnswerForm
from gap_mllm.processing.data.scene_sample import SceneSample
from gap_mllm.processing.data.truth import LETTERS
from gap_mllm.processing.scores.letters import letter_score, read_choice


IOU = 0.25  # overlap from which a grounded box counts; of detection, it must be exceeded


def score_detection(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0) -> dict:
    """F1, precision and recall at an overlap of 0.25 over all objects of all rooms, and the mean F1 of rooms."""
    metrics, records = find_benchmark("gap_mllm_detection").score(samples, texts, seed=seed)
    counts = np.array(
        [[sum(each[name] for each in record["counts"].values()) for name in ("tp", "fp", "fn")] for record in records]
    )

    def f1(rooms: np.ndarray):
        tp, fp, fn = counts[rooms.astype(int)].sum(0)
        return 2 * tp / max(2 * tp + fp + fn, 1)

    found = with_interval("f1", np.arange(len(samples)), f1, _scenes(samples), seed)
    found |= {name: metrics["micro"][name] for name in ("precision", "recall")}
    found |= {name: metrics[name] for name in ("scene_f1", "scene_f1_ci95", "num_objects", "num_truths")}
    return _with_parse_rate(found, samples, records, seed)


def score_grounding(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0) -> dict:
    """Share of boxes that overlap the true one by 0.25 or more, mean overlap, and how far centres are off, in metres.

    The distance is a median, infinite where nothing could be read. Boxes are in view 0.
    """
    bench = find_benchmark("gap_mllm_grounding_two_stage")  # whose second stage answers in the first view it is shown
    _, records = bench.score(samples, texts, [0] * len(samples), seed=seed)
    ious = np.array([record["iou"] for record in records])
    found = with_interval("iou25_share", ious >= IOU, np.mean, _scenes(samples), seed)
    found |= with_interval("mean_iou", ious, np.mean, _scenes(samples), seed)
    boxes = [record["parsed"] and record["parsed"]["bbox_3d_aligned"] for record in records]
    centers = [aligned_target(sample)[0][:3] for sample in samples]
    pairs = zip(boxes, centers, strict=True)
    errors = [np.inf if box is None else np.linalg.norm(np.subtract(box[:3], center)) for box, center in pairs]
    found |= with_interval("center_error_m", errors, np.median, _scenes(samples), seed)
    return _with_parse_rate(found, samples, records, seed)


def score_choices(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0) -> dict:
    """Share of right letters, by kind of question, too; `chance` is what drawing letters would give."""
    read = [read_choice(text, LETTERS[: len(sample.choices)]) for text, sample in zip(texts, samples, strict=True)]
    hits = [letter_score(each.first, LETTERS[s.choice_index], LETTERS) for each, s in zip(read, samples, strict=True)]
    records = [{"rejected": None if each.items else each.rejected[0].reason} for each in read]
    kinds, chance = defaultdict(list), [1 / len(sample.choices) for sample in samples]
    for sample, hit in zip(samples, hits, strict=True):
        kinds[sample.question_type].append(hit)
    found = with_interval("accuracy", hits, np.mean, _scenes(samples), seed)
    found |= {
        "chance": float(np.mean(chance)),
        "by_kind": {kind: float(np.mean(kinds[kind])) for kind in sorted(kinds)},
    }
    return _with_parse_rate(found, samples, records, seed)


def score_captions(samples: Sequence[SceneSample], texts: Sequence[str], seed: int = 0) -> dict:
    """CIDEr, BLEU-4 and ROUGE-L, and the share of captions that name the object.

    Raises:
        ImportError: without the package pycocoevalcap.
    """
    references = [list(sample.references) for sample in samples]
    metrics = caption_scores(texts, references, meteor=False, per_item=True)
    records = [{"rejected": None if text.strip() else "empty"} for text in texts]
    named = [s.metadata["maker_facts"]["label"] in text.lower() for s, text in zip(samples, texts, strict=True)]
    found = {name: metrics[name] for name in ("cider", "bleu_4", "rouge_l")}
    cider = with_interval("cider", metrics["per_item"]["cider"], np.mean, _scenes(samples), seed)
    found["cider_ci95"] = cider["cider_ci95"]  # words keep the weights that they have in all captions
    found |= with_interval("names_object_share", named, np.mean, _scenes(samples), seed)
    return _with_parse_rate(found, samples, records, seed)


def _scenes(samples):
    return [sample.scene_id for sample in samples]


def _with_parse_rate(found, samples, records, seed):
    parsed = [record["rejected"] is None for record in records]
    counts = {"n": len(samples), "num_scenes": len(set(_scenes(samples)))}
    return counts | with_interval("parse_rate", parsed, np.mean, _scenes(samples), seed) | found


def box_of_label(samples: Sequence[SceneSample]) -> Callable:
    """The median box of the objects of the label that the question speaks of; of all for a label never seen."""
    by_label = defaultdict(list)
    for sample in samples:
        by_label[sample.boxes[0].label].append(sample)
    answers = {label: constant_box(members)(None) for label, members in by_label.items()}
    overall = constant_box(samples)(None)
    return lambda sample: answers.get(sample.boxes[0].label, overall)


def commonest_option(samples: Sequence[SceneSample]) -> Callable:
    """The option that was right most often in questions of a kind, among those that are offered."""
    counts = defaultdict(Counter)
    for sample in samples:
        counts[sample.question_type][_option(sample, sample.choice_index)] += 1

    def answer(sample: SceneSample) -> str:
        known = counts[sample.question_type]
        return LETTERS[max(range(len(sample.choices)), key=lambda place: known[_option(sample, place)])]

    return answer


def _option(sample, place):
    """The text of an option, without its letter."""
    return sample.choices[place].partition(". ")[2]


@dataclass(frozen=True)
class RoomTask:
    """One kind of questions about rooms.

    Args:
        counts (`dict[str, int]`): questions about a room by their makers.
        form (`AnswerForm`): where an answer ends.
        score (`Callable`, *optional*): (samples, texts, seed) -> figures with intervals; None for marked pixels, which
            `score_marked_pixels` scores beside fitted baselines.
        blind (`Callable`, *optional*): (samples of training rooms) -> a function from sample to the blind baseline.
    """

    counts: dict[str, int]
    form: AnswerForm
    score: Callable | None = None
    blind: Callable | None = None


CHOICE_KINDS = ("left_right", "front_behind", "facing_direction", "closest_object", "camera_turn")
ROOM_TASKS = {
    "points": RoomTask({"reconstruction": 2}, MARKED_POINTS["forms"][0]),
    "detection": RoomTask({"detection3d": 1}, ANSWER_FORMS["detection3d"], score_detection, constant_detection),
    "grounding": RoomTask({"grounding_box": 2}, ANSWER_FORMS["grounding_box"], score_grounding, box_of_label),
    "choices": RoomTask(dict.fromkeys(CHOICE_KINDS, 1), AnswerForm(16), score_choices, commonest_option),
    "captions": RoomTask({"dense_caption": 1}, ANSWER_FORMS["dense_caption"], score_captions, commonest_caption),
}
