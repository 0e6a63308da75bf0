"""From a labelled reconstruction to samples: clips of a video as scenes, and the task makers' questions about them."""

from collections import Counter
from dataclasses import replace

import numpy as np

from ..scene_sample import Point, SceneSample, View
from ..task_makers import TaskMargins, TaskScene, make_tasks
from ..task_makers.task_scene import Labeller, Marked
from ..task_makers.visibility import find_again
from .sure_pixels import LabelPixels


SOURCE = "video_labels"
MAX_CODE = 65535  # of a 16-bit PNG
FAR_FACTOR = 131  # times the median depth; farther is left out, so that a step is at most 1/500 of the median
MAX_MATCHES = 3  # other views in which the point of a marked pixel is stored


def encode_depth(depth: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, float, dict[str, int]]:
    """Store z-depth in 16 bits with the finest step that its range allows.

    Depths up to the farthest valid one are spread over all codes. Where that is more than `FAR_FACTOR` times the
    median, what is farther is left out, since it would make the rest coarse.

    Args:
        depth (`np.ndarray` of shape `(H, W)`): z-depth in any unit.
        valid (`np.ndarray` of bool, shape `(H, W)`): pixels to store; the others become 0, no measurement.
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


def label_views(views: list[View], pixels: LabelPixels) -> tuple[list[View], Counter]:
    """Add depth and cameras to views.

    Depth is stored where the teacher is sure and other views do not contradict it, at the size at which it works,
    edges included; elsewhere it is 0.
    Frame: world of the reconstruction. Units: those of the reconstruction.

    Args:
        views (`list[View]`): pictures of a video.
        pixels (`LabelPixels`): what is sure of them.
    Returns:
        `tuple` of new views and the counts of `encode_depth`.
    """
    labelled, left_out = [], Counter()
    reconstruction = pixels.reconstruction
    for index, view in enumerate(views):
        codes, scale, counts = encode_depth(reconstruction.depth[index], pixels.sure[index])
        left_out.update(counts)
        known = replace(
            view,
            depth_picture=codes,
            depth_scale=scale,
            intrinsics=pixels.intrinsics[index],
            depth_intrinsics=reconstruction.intrinsics[index],
            camera_to_world=reconstruction.camera_to_world[index],
        )
        labelled.append(known)
    return labelled, left_out


def plan_clips(num_views: int, views_per_row: int) -> list[list[int]]:
    """Divide the views of a video into clips: consecutive ones, the last as long as the others.

    Raises:
        ValueError: if there are fewer than two views to a clip.
    """
    if views_per_row < 2:
        raise ValueError(f"views_per_row is {views_per_row}; expected at least 2.")
    length = min(num_views, views_per_row)
    starts = [*range(0, num_views - length, length), num_views - length]
    return [list(range(start, start + length)) for start in starts]


def clip_scenes(
    views: list[View], scene_id: str, metadata: dict, split: str = "train", views_per_row: int = 8
) -> list[SceneSample]:
    """The clips of a labelled video as samples of the task "scene", which task makers ask about.

    Args:
        views (`list[View]`): views with depth and cameras, see `label_views`.
        scene_id (`str`): name of the video.
        metadata (`dict`): what every sample says of its origin. With a false "is_metric" nothing is asked in metres.
        split (`str`, defaults to "train"): name of the split.
        views_per_row (`int`, defaults to 8): number of views of a clip, see `plan_clips`.
    Returns:
        `list[SceneSample]`: "clip" and "video_views" in their metadata say which views of the video they show.
    Raises:
        ValueError: as `plan_clips`.
    """
    return [
        SceneSample(
            id=f"{scene_id}-{number:03d}",
            source=SOURCE,
            split=split,
            task="scene",
            scene_id=scene_id,
            views=tuple(views[place] for place in places),
            pose_frame="scan",
            metadata={**metadata, "clip": number, "video_views": places},
        )
        for number, places in enumerate(plan_clips(len(views), views_per_row))
    ]


def ask_about_clip(
    scene: SceneSample,
    pixels: LabelPixels,
    questions: dict[str, int],
    margins: TaskMargins | None = None,
    labeller: Labeller | None = None,
    seed: int = 0,
) -> tuple[list[SceneSample], Counter]:
    """Ask the questions of the task makers about a clip.

    Points have the teacher's confidence; that of a marked pixel is also stored in other views that see the same place.

    Args:
        scene (`SceneSample`): clip of `clip_scenes`.
        pixels (`LabelPixels`): reconstruction of the whole video.
        questions (`dict[str, int]`): number of questions of each task maker.
        margins (`TaskMargins`, *optional*): how clear a thing must be, by default the makers' own.
        labeller (`Labeller`, *optional*): says what a marked pixel shows; None of it leaves the label out.
        seed (`int`, defaults to 0): same seed, same questions.
    Returns:
        `tuple` of samples, and a `Counter` of what was not asked, by (maker, reason).
    Raises:
        ValueError: as `make_tasks`.
    """
    made = make_tasks(scene, questions, seed=seed, margins=margins, labeller=labeller)
    looked_at, samples = TaskScene(scene, margins), []
    for question in made:
        points = [_with_confidence(point, scene, pixels) for point in question.points]
        if question.task == "reconstruction" and len(points) == 1:
            points = _with_matches(points[0], looked_at, pixels, question.id)
        samples.append(replace(question, points=tuple(points), metadata={**scene.metadata, **question.metadata}))
    return samples, made.refused


def _with_confidence(point: Point, scene, pixels):
    return replace(point, confidence=pixels.confidence_at(scene.metadata["video_views"][point.view], point.pixel))


def _with_matches(point, looked_at, pixels, name):
    """A marked point, and the same place in the views that see it most surely; they share an `instance_id`."""
    mark, matches = Marked(point.view, point.pixel, point.xyz, ""), []
    for camera in looked_at.measured:
        if camera.index != point.view and find_again(looked_at, mark, camera.index) is not None:
            pixel = tuple(camera.project(point.xyz)[0].tolist())
            seen = _with_confidence(replace(point, view=camera.index, pixel=pixel), looked_at.sample, pixels)
            matches.append(replace(seen, confidence=min(seen.confidence, point.confidence)))
    matches = sorted(matches, key=lambda match: -match.confidence)[:MAX_MATCHES]
    return [replace(seen, instance_id=name if matches else None) for seen in (point, *matches)]
