"""From a labelled reconstruction to rows of the schema: views with depth and cameras, and a row for each question."""

from collections import Counter

import numpy as np
from PIL import Image

from ..schema import complete_row
from ..source_files import encode_png
from .pixels import LabelPixels
from .questions import QUESTIONS, LabelClip, Labeller, NoQuestionError, QuestionRules


SOURCE = "video_labels"
MAX_CODE = 65535  # of a 16-bit PNG
FAR_FACTOR = 131  # times the median depth; farther is left out, so that a step is at most 1/500 of the median
ATTEMPTS = 10  # draws for each question wanted


def encode_depth(depth: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, float, dict[str, int]]:
    """Store z-depth in 16 bits with the finest step that its range allows.

    Depths up to the farthest valid one are spread over all codes. Where that is more than `FAR_FACTOR` times the
    median, what is farther is left out, since it would make the rest coarse.

    Args:
        depth (`np.ndarray` of shape `(H, W)`): any unit.
        valid (`np.ndarray` of bool): pixels to store; the others become 0, no measurement.
    Returns:
        `tuple` of the codes (uint16), the depth scale (depth = code / scale; a float32 value) and counts of valid
        pixels that were left out: "too_far", and "too_near" where the code would be 0.
    """
    counts = {"too_far": 0, "too_near": 0}
    valid = valid & (depth > 0)
    if not valid.any():
        return np.zeros(depth.shape, np.uint16), 1.0, counts
    depth = depth.astype(np.float64)
    far = min(depth[valid].max(), FAR_FACTOR * float(np.median(depth[valid])))
    scale = float(np.float32(MAX_CODE / far))
    is_far = valid & (depth > far)
    codes = np.where(valid & ~is_far, np.rint(depth * scale).clip(0, MAX_CODE), 0).astype(np.uint16)
    counts = {"too_far": int(is_far.sum()), "too_near": int((valid & ~is_far & (codes == 0)).sum())}
    return codes, scale, counts


def label_views(views: list[dict], pixels: LabelPixels) -> tuple[list[dict], Counter]:
    """Add depth and cameras to views of the schema.

    Depth is stored where the teacher is sure and other views do not contradict it, at the size at which it works,
    edges included.

    Args:
        views (`list[dict]`): as `read_video_views` gives them.
        pixels (`LabelPixels`): of the same views.
    Returns:
        `tuple` of new views and the counts of `encode_depth`.
    """
    labelled, left_out = [], Counter()
    reconstruction = pixels.reconstruction
    for index, view in enumerate(views):
        codes, scale, counts = encode_depth(reconstruction.depth[index], pixels.sure(index))
        left_out.update(counts)
        cameras = {
            "intrinsics": pixels.intrinsics[index],
            "depth_intrinsics": reconstruction.intrinsics[index],
            "camera_to_world": reconstruction.camera_to_world[index],
        }
        labelled.append({**view, **cameras, "depth": encode_png(codes), "depth_scale": scale})
    return labelled, left_out


def plan_clips(num_views: int, views_per_row: int) -> list[list[int]]:
    """Divide the views of a video into those of each row: consecutive ones, the last clip as long as the others.

    Raises:
        ValueError: if there are fewer than two views to a row.
    """
    if views_per_row < 2:
        raise ValueError(f"views_per_row is {views_per_row}; expected at least 2.")
    length = min(num_views, views_per_row)
    starts = [*range(0, num_views - length, length), num_views - length]
    return [list(range(start, start + length)) for start in starts]


def make_rows(
    views: list[dict],
    images: list[Image.Image],
    pixels: LabelPixels,
    scene_id: str,
    metadata: dict,
    split: str = "train",
    views_per_row: int = 8,
    questions_per_clip: dict[str, int] | None = None,
    labeller: Labeller | None = None,
    rules: QuestionRules | None = None,
    seed: int = 0,
) -> tuple[list[dict], dict[str, Counter]]:
    """Ask questions about every clip of a labelled scene.

    Deterministic by `seed`. The rows of a clip share its views.

    Args:
        views (`list[dict]`): of `label_views`.
        images (`list[PIL.Image.Image]`): the pictures of these views.
        pixels (`LabelPixels`), scene_id (`str`), metadata (`dict`, goes into every row), split (`str`)
        views_per_row (`int`): see `plan_clips`.
        questions_per_clip (`dict[str, int]`, *optional*): how many of each kind of `QUESTIONS`; of those not named,
            none. By default eight marked pixels and up to four of each relation.
        labeller (`Labeller`, *optional*), rules (`QuestionRules`, *optional*), seed (`int`)
    Returns:
        `tuple` of rows, and for each kind a `Counter` of rows ("written") and of draws that gave none, by reason.
    Raises:
        ValueError: if a kind is unknown, a number negative, or as `plan_clips`.
    """
    wanted = default_questions() if questions_per_clip is None else dict(questions_per_clip)
    check_questions(wanted)
    rows, counts = [], {kind: Counter(written=0) for kind in wanted}
    for clip_number, places in enumerate(plan_clips(len(views), views_per_row)):
        clip = LabelClip(pixels, places, [images[p] for p in places], labeller, rules or QuestionRules())
        clip_views = [complete_row(views=[views[p]])["views"][0] for p in places]
        for kind, number in wanted.items():
            rng = np.random.default_rng((seed, clip_number, list(QUESTIONS).index(kind)))
            for question in _ask(kind, number, clip, rng, counts[kind]):
                fields = {name: getattr(question, name) for name in question.__dataclass_fields__}
                fields |= {"answer": question.answer, "choice_index": fields.pop("truth").choice}
                details = {**metadata, **fields.pop("details"), "clip": clip_number, "video_views": places}
                name = f"{scene_id}-{clip_number:03d}-{kind}-{counts[kind]['written']:03d}"
                place = {"id": name, "source": SOURCE, "split": split, "scene_id": scene_id, "pose_frame": "scan"}
                row = complete_row(**place, **fields, metadata=details)
                rows.append({**row, "views": clip_views})
                counts[kind]["written"] += 1
    return rows, counts


def check_questions(questions_per_clip: dict[str, int]) -> None:
    """Refuse what `make_rows` cannot ask.

    Raises:
        ValueError: if a kind is unknown or a number negative.
    """
    if not set(questions_per_clip) <= set(QUESTIONS) or any(number < 0 for number in questions_per_clip.values()):
        raise ValueError(
            f"questions_per_clip is {dict(questions_per_clip)}; expected numbers of at least 0 for {list(QUESTIONS)}."
        )


def default_questions() -> dict[str, int]:
    """How many questions of each kind a clip gets if nothing else is said."""
    return {kind: 8 if kind == "marked_pixel" else 4 for kind in QUESTIONS}


def _ask(kind, number, clip, rng, counts):
    """Up to `number` different questions of one kind; what could not be asked is counted by its reason."""
    seen = set()
    for attempt in range(ATTEMPTS * number):
        if len(seen) == number:
            return
        try:
            question = QUESTIONS[kind](clip, rng, attempt)
        except NoQuestionError as reason:
            counts[str(reason)] += 1
            continue
        key = str(question.marks)
        if key in seen:
            counts["repeated"] += 1
            continue
        seen.add(key)
        yield question


__all__ = ["SOURCE", "check_questions", "default_questions", "encode_depth", "label_views", "make_rows", "plan_clips"]
