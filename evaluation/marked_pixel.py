"""The marked-pixel question: ask a model what a red cross marks and where it is, and score what it answers.

An answer that cannot be read counts as infinitely wrong and as a wrong label; none is left out.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..processing.answers_gap_mllm import POINT_KEY, parse_points
from ..processing.asking_gap_mllm import AnswerForm, Asker
from ..processing.data.rooms.tasks import RoomQuestion, make_question
from ..processing.prompts_gap_mllm import build_messages
from .intervals import with_interval


NEAR_M = 0.5  # an answer within this distance is counted as near


@dataclass
class MarkedPixelSample:
    """One question about a marked pixel, with the views that it is about.

    Args:
        scene_seed (`int`): the room; answers about one room are resampled together.
        images (`numpy.ndarray` of shape `(V, H, W, 3)`, uint8): the views, without the mark.
        question (`RoomQuestion`): of task "reconstruction".
    """

    scene_seed: int
    images: np.ndarray
    question: RoomQuestion


def make_marked_pixel_samples(scenes, questions_per_scene=1):
    """Ask questions about marked pixels of rooms, one red cross each.

    Args:
        scenes (iterable of `RoomScene`): for instance `render_split("test", 256)`.
        questions_per_scene (`int`, defaults to 1): different pixels of each room.
    Returns:
        `list[MarkedPixelSample]`.
    """
    return [
        MarkedPixelSample(scene.seed, scene.images, make_question(scene, "reconstruction", number))
        for scene in scenes
        for number in range(questions_per_scene)
    ]


def answer_marked_pixels(
    model, processor, samples, batch_size=16, max_new_tokens=48, arm=None, half_thickness=None, show_progress=True
):
    """Let a model answer, greedily, in left-padded batches; an answer ends with its JSON.

    Args:
        model (`GapMllmForConditionalGeneration`): put into evaluation mode for the time being.
        processor (`GapMllmProcessor`)
        samples (`list[MarkedPixelSample]`): the questions.
        batch_size (`int`), max_new_tokens (`int`): of generate().
        arm (`int`, *optional*), half_thickness (`int`, *optional*): of the cross, in pixels; default: as in training,
            see `GapMllmProcessor.apply_visual_prompt`.
        show_progress (`bool`): show a bar.
    Returns:
        `list[str]`: the answers, without special tokens.
    """
    was_training, asker, texts = model.training, Asker(model, processor), []
    form = AnswerForm(max_new_tokens, (POINT_KEY,))
    model.eval()
    try:
        for start in tqdm(range(0, len(samples), batch_size), desc="answers", disable=not show_progress):
            shown = samples[start : start + batch_size]
            texts += asker.answer([_messages(processor, sample, arm, half_thickness) for sample in shown], form)
    finally:
        model.train(was_training)
    return texts


def _messages(processor, sample, arm, half_thickness):
    views = [Image.fromarray(image) for image in sample.images]
    views = processor.apply_visual_prompt(views, sample.question.marks, arm, half_thickness)
    return build_messages("reconstruction", views, prompt=sample.question.question)


def score_marked_pixels(texts, samples, baselines=None, seed=0):
    """Score answers, next to what is answered blindly.

    Frame: camera of the first view, OpenCV axes. Units: metres. Every number comes with a bootstrap interval over
    scenes, `[low, high]` under its name + "_ci95".

    Args:
        texts (`list[str]`): generated answers, whatever they hold.
        samples (`list[MarkedPixelSample]`): their questions.
        baselines (`BlindBaselines`, *optional*): answer the same questions; fitted on other rooms.
        seed (`int`): of the bootstrap.
    Returns:
        `tuple[dict, list[dict]]`: the metrics: `n`, `num_scenes`, `parse_rate`, `point_error_m` (median; infinite
        where an answer could not be read), `near_share` (within `NEAR_M`), `label_accuracy`; for the baselines
        `constant_point_error_m`, `constant_near_share`, `pixel_prior_point_error_m`, `pixel_prior_near_share`,
        `majority_label_accuracy` and `pixel_prior_label_accuracy`. And a record for each answer: scene_seed, text,
        view, pixel, true and answered label and point, error_m, and why it was rejected (None if it was not).
    Raises:
        ValueError: if there are no answers, not as many as questions, a question is of another task, or a room was
            used to fit the baselines.
    """
    if not len(texts) or len(texts) != len(samples):
        raise ValueError(f"{len(texts)} answers came for {len(samples)} questions; expected one each, at least one.")
    for sample in samples:
        if sample.question.task != "reconstruction":
            raise ValueError(f"room {sample.scene_seed}: a question of task {sample.question.task!r} marks no pixel.")
    records = [_record(text, sample) for text, sample in zip(texts, samples, strict=True)]
    scenes = np.array([sample.scene_seed for sample in samples])
    points = np.array([sample.question.point for sample in samples])
    labels = np.array([sample.question.labels[0] for sample in samples], dtype=object)
    errors = np.array([record["error_m"] for record in records])
    is_parsed = [record["answered_point"] is not None for record in records]
    is_right = np.array([record["answered_label"] == record["label"] for record in records])

    def rate(name, hits):
        return with_interval(name, np.asarray(hits, dtype=float), np.mean, scenes, seed)

    def distance(prefix, values):
        median = with_interval(f"{prefix}point_error_m", values, np.median, scenes, seed)
        return median | rate(f"{prefix}near_share", values <= NEAR_M)

    metrics = {"n": len(texts), "num_scenes": len(set(scenes.tolist()))}
    metrics |= rate("parse_rate", is_parsed) | distance("", errors) | rate("label_accuracy", is_right)
    if baselines is not None:
        seen = sorted(baselines.seeds & set(scenes.tolist()))
        if seen:
            raise ValueError(f"rooms {seen[:5]} were used to fit the baselines; score other rooms.")
        marks = [sample.question.marks[0] for sample in samples]
        guesses, guessed_labels = _ask_blindly(baselines, samples, marks)
        metrics |= distance("constant_", np.linalg.norm(points - baselines.constant_point, axis=-1))
        metrics |= distance("pixel_prior_", np.linalg.norm(points - guesses, axis=-1))
        metrics |= rate("majority_label_accuracy", labels == baselines.majority_label)
        metrics |= rate("pixel_prior_label_accuracy", labels == guessed_labels)
        metrics["num_baseline_scenes"] = len(baselines.seeds)
    return metrics, records


def marked_pixel_scorer(processor, scenes, **options):
    """Build the `scorer` of a `GeometryAlignedTrainer`: it asks about one marked pixel of each room, and scores.

    Args:
        processor (`GapMllmProcessor`)
        scenes (iterable of `RoomScene`): such as `render_split("selection", 64)`; test rooms are for the end.
        **options: as for `answer_marked_pixels`.
    Returns:
        `Callable`: takes a model, returns the numbers of `score_marked_pixels` without intervals.
    """
    samples = make_marked_pixel_samples(scenes)

    def score(model):
        texts = answer_marked_pixels(model, processor, samples, **options)
        metrics, _ = score_marked_pixels(texts, samples)
        return {name: value for name, value in metrics.items() if isinstance(value, int | float)}

    return score


def _ask_blindly(baselines, samples, marks):
    points, labels = [], []
    for sample, mark in zip(samples, marks, strict=True):
        size = sample.images.shape[2], sample.images.shape[1]
        points.append(baselines.points_at([mark.view], [mark.pixel], size)[0])
        labels.append(baselines.labels_at([mark.pixel], size)[0])
    return np.array(points), np.array(labels, dtype=object)


def _record(text, sample):
    question = sample.question
    parsed = parse_points(text)
    answer = parsed.first
    error, reason = float("inf"), None
    if answer is not None:
        error = float(np.linalg.norm(np.asarray(answer.point) - question.point))
    elif parsed.rejected:
        reason = parsed.rejected[0].reason
    else:
        reason = "cut off" if parsed.truncated else "no object"
    return {
        "scene_seed": sample.scene_seed,
        "view": question.marks[0].view,
        "pixel": list(question.marks[0].pixel),
        "text": text,
        "label": question.labels[0],
        "point": question.point.tolist(),
        "answered_label": None if answer is None else answer.label,
        "answered_point": None if answer is None else list(answer.point),
        "rejected": reason,
        "error_m": error,
    }


__all__ = [
    "MarkedPixelSample",
    "answer_marked_pixels",
    "make_marked_pixel_samples",
    "marked_pixel_scorer",
    "score_marked_pixels",
]
