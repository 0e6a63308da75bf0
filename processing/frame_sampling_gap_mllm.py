"""Which frames of a video or scan a model gets to see: evenly spaced, by frame rate, or those that cover most space.

Works on indices and point maps only. Videos are decoded in video_decoding_gap_mllm.py; geometry comes either from
VGGT's point head (covering_frames_gap_mllm.py) or from a depth sensor (depth_points.py).

`FrameChoice` is the choice that the processor, `evaluate` and `data label` share.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from .input_checks_gap_mllm import check_count, check_flag, check_positive
from .model_state_gap_mllm import input_device
from .video_decoding_gap_mllm import frame_rate


Array = np.ndarray | torch.Tensor

SAMPLING_MODES = ("robust", "reference")

CONFIDENCE_PERCENTILE = 50
MIN_CONFIDENCE = 0.1  # VGGT's confidences start at 1; this sorts out sensor pixels without a reading
VOXELS_PER_THINNEST_SIDE = 20
MAX_VOXELS_PER_LONGEST_SIDE = 100
BOX_PERCENTILES = (1.0, 99.0)
BOX_MARGIN = 0.5  # of the longest side


@dataclass(frozen=True)
class FrameVoxels:
    """Which voxels each candidate frame sees.

    Frame: axes of the world points. Units: those of the world points.

    Args:
        voxels_per_frame (`list[numpy.ndarray]`): voxels of each frame as numbers from 0 to `num_voxels` - 1,
            ascending, each once.
        num_voxels (`int`): voxels that at least one frame sees.
        voxel_size (`float`): edge length.
        box_min (`numpy.ndarray` of shape `(3,)`), box_max (same): the box from which the voxel size follows, unless
            a fixed one was given.
        confidence_threshold (`float`): points below it were left out.
    """

    voxels_per_frame: list[np.ndarray]
    num_voxels: int
    voxel_size: float
    box_min: np.ndarray
    box_max: np.ndarray
    confidence_threshold: float


def uniform_sample(num_candidates: int, num_frames: int) -> list[int]:
    """Return evenly spaced frame indices, first and last included: linspace(0, num_candidates - 1), truncated.

    Source: the rule that Spatial-MLLM and its neighbours use, so that equal counts give equal frames.

    Args:
        num_candidates (`int`): frames there are.
        num_frames (`int`): frames wanted; all candidates come back where there are not so many.
    Returns:
        `list[int]`: ascending, each once.
    Raises:
        TypeError: if a count is not an integer.
        ValueError: if a count is below 1.

    Example:
        ```python
        >>> from gap_mllm.processing import uniform_sample
        >>> uniform_sample(100, 4)
        [0, 33, 66, 99]

        ```
    """
    num_candidates = check_count("num_candidates", num_candidates)
    num_frames = check_count("num_frames", num_frames)
    return np.linspace(0, num_candidates - 1, min(num_frames, num_candidates)).astype(int).tolist()


def fps_sample(num_frames_total: int, video_fps: float, target_fps: float, max_frames: int | None = None) -> list[int]:
    """Return the frames on screen at the times 0, 1 / target_fps, 2 / target_fps, ..

    A target above the video's own rate gives every frame once. If there are more than `max_frames`, `uniform_sample`
    of the whole video takes their place. Source: our choice; recipes of the field round differently.

    Args:
        num_frames_total (`int`): frames of the video.
        video_fps (`float`): frames per second of the video.
        target_fps (`float`): frames per second wanted.
        max_frames (`int`, *optional*): upper bound on the frames returned.
    Returns:
        `list[int]`: ascending, each once.
    Raises:
        TypeError: if a count is not an integer, or a rate no number.
        ValueError: if a count is below 1, or a rate is not a positive finite number.

    Example:
        ```python
        >>> from gap_mllm.processing import fps_sample
        >>> fps_sample(num_frames_total=90, video_fps=30, target_fps=2)
        [0, 15, 30, 45, 60, 75]

        ```
    """
    num_frames_total = check_count("num_frames_total", num_frames_total)
    check_positive("video_fps", video_fps)
    check_positive("target_fps", target_fps)
    step = min(max(video_fps / target_fps, 1.0), float(num_frames_total))
    positions = np.arange(int(np.ceil(num_frames_total / step)) + 1) * step
    frames = np.floor(positions + 1e-6).astype(np.int64)  # 0.3 / 0.1 is a little less than 3
    frames = frames[frames < num_frames_total]
    if max_frames is not None and len(frames) > check_count("max_frames", max_frames):
        return uniform_sample(num_frames_total, max_frames)
    return frames.tolist()


def space_aware_sample(
    world_points: Array,
    confidence: Array,
    num_frames: int,
    mode: str = "robust",
    voxel_size: float | None = None,
    keep_first: bool = False,
) -> list[int]:
    """Choose the frames that together see most of the space: greedy maximum coverage of voxels.

    "reference" is the published rule: the voxel size follows from the box of all points, and fewer frames than asked
    come back when no frame sees anything new. "robust" (the default) takes its box from percentiles, so that a few
    wild points do not blow the voxels up, and fills up to `num_frames` with the frames farthest in time from those
    already chosen. Neither looks at camera poses. Of equal frames the earliest wins.

    Frame: any, the same for all frames. Units: any; VGGT's points are not metric.
    Source: Spatial-MLLM (arXiv:2505.23747), space-aware frame sampling; "robust" is our choice.

    Args:
        world_points (`numpy.ndarray` or `torch.Tensor` of shape `(S, H, W, 3)`): what each pixel of each candidate
            frame sees; may be NaN where the confidence is 0.
        confidence (`numpy.ndarray` or `torch.Tensor` of shape `(S, H, W)`): used are points whose confidence is at
            least the median of all and above 0.1.
        num_frames (`int`): frames wanted.
        mode (`str`, defaults to "robust"): "robust" or "reference".
        voxel_size (`float`, *optional*): fixed edge length in the units of the points, for "robust" only.
        keep_first (`bool`, defaults to `False`): choose frame 0 before all others (it is the one to which VGGT and
            GAP-MLLM refer their coordinates), for "robust" only.
    Returns:
        `list[int]`: ascending, each once; `num_frames` of them or all S, whichever is less. "reference" may return
        fewer.
    Raises:
        TypeError: if `num_frames` is not an integer, `keep_first` no bool, or `voxel_size` no number.
        ValueError: if `num_frames` is below 1, the mode is unknown or does not take an option, or for what
            `voxelize_frames` raises.

    Example:
        ```python
        >>> from gap_mllm.processing import space_aware_sample, world_points_from_depth
        >>> from gap_mllm.processing.data import render_room
        >>> room = render_room(0, num_views=8)
        >>> points, confidence = world_points_from_depth(room.depth_m, room.intrinsics, room.camera_to_world)
        >>> frames = space_aware_sample(points, confidence, num_frames=3)  # or of GapMllmVggtForReconstruction:
        >>> len(frames)  # world_points[0] and world_points_conf[0] of its output
        3

        ```
    """
    num_frames, keep_first = check_count("num_frames", num_frames), check_flag("keep_first", keep_first)
    if mode == "reference" and keep_first:
        raise ValueError('keep_first is True, but mode="reference" has no such rule; use mode="robust".')
    voxels = voxelize_frames(world_points, confidence, mode, voxel_size)
    chosen, _ = greedy_coverage(voxels.voxels_per_frame, num_frames, keep_first)
    if mode == "robust":  # Differs: the reference returns fewer frames, at which its own evaluation stops.
        chosen = _fill_up(chosen, len(voxels.voxels_per_frame), num_frames)
    return sorted(chosen)


def voxelize_frames(
    world_points: Array, confidence: Array, mode: str = "robust", voxel_size: float | None = None
) -> FrameVoxels:
    """Tell which voxels each frame sees, the first half of `space_aware_sample`.

    Frame: any, the same for all frames. Units: any. "robust" is computed in float64, "reference" in the floating
    dtype of `world_points` (half precision in float32), since rounding decides about points on a voxel's face.

    Args:
        world_points, confidence, mode, voxel_size: see `space_aware_sample`.
    Returns:
        `FrameVoxels`.
    Raises:
        TypeError: if the voxel size is no number.
        ValueError: if a shape does not fit, the mode is unknown or does not take a voxel size, a confidence is not
            finite, a point with a confidence above 0 is not finite, no confidence is above 0.1, the scene has no
            extent along an axis ("reference"), or the voxel size is not positive or too small for the scene.

    Example:
        ```python
        >>> from gap_mllm.processing import greedy_coverage, voxelize_frames, world_points_from_depth
        >>> from gap_mllm.processing.data import render_room
        >>> room = render_room(0)
        >>> voxels = voxelize_frames(*world_points_from_depth(room.depth_m, room.intrinsics, room.camera_to_world))
        >>> frames, _ = greedy_coverage(voxels.voxels_per_frame, num_frames=2)  # those that see most of the room
        >>> len(frames)
        2

        ```
    """
    if mode not in SAMPLING_MODES:
        raise ValueError(f'mode is {mode!r}; expected "robust" or "reference".')
    if voxel_size is not None:
        check_positive("voxel_size", voxel_size)
        if mode == "reference":
            raise ValueError(f'voxel_size is {voxel_size}, but mode="reference" derives its own; use mode="robust".')
    points, confidence = _check_point_maps(_as_numpy(world_points), _as_numpy(confidence))
    threshold = np.percentile(confidence, CONFIDENCE_PERCENTILE)
    is_used = (confidence >= threshold) & (confidence > MIN_CONFIDENCE)
    if not is_used.any():
        raise ValueError(
            f"confidence is {confidence.max():.4g} at most; expected some points above {MIN_CONFIDENCE}. A sensor's "
            "confidence is 1 where it has a reading, VGGT's is never below 1."
        )
    frames = np.repeat(np.arange(len(points)), is_used.sum((1, 2)))  # (P,)
    used = np.ascontiguousarray(points[is_used].T)  # (3, P): extremes along rows are several times faster
    if mode == "reference":
        box_min, box_max = used.min(1), used.max(1)
    else:
        # Differs: the reference's box holds all points, so that one wild point makes all voxels large.
        used = used.astype(np.float64)
        box_min, box_max = np.percentile(used, BOX_PERCENTILES, axis=1)
        margin = BOX_MARGIN * (box_max - box_min).max()
        is_near = ((used >= (box_min - margin)[:, None]) & (used <= (box_max + margin)[:, None])).all(0)
        frames, used = frames[is_near], used[:, is_near]
    size = _derive_voxel_size(box_max - box_min, mode) if voxel_size is None else voxel_size
    voxels_per_frame, num_voxels = _number_voxels(used, size, frames, len(points))
    return FrameVoxels(voxels_per_frame, num_voxels, float(size), box_min, box_max, float(threshold))


def greedy_coverage(
    voxels_per_frame: Sequence[Sequence[int]], num_frames: int, keep_first: bool = False
) -> tuple[list[int], list[int]]:
    """Choose frames one by one, each time the one with most voxels that no chosen frame has; the earliest of equals.

    Stops early when no frame has anything new. Gains are kept up to date rather than counted afresh, so each voxel
    is dealt with once.

    Args:
        voxels_per_frame (`list` of integer arrays): the voxels that each frame sees.
        num_frames (`int`): upper bound on the frames chosen; 0 chooses none.
        keep_first (`bool`, defaults to `False`): start with frame 0 whatever it sees.
    Returns:
        `tuple` of two `list[int]`: the frames in the order chosen, and the new voxels that each brought.

    Example:
        ```python
        >>> from gap_mllm.processing import greedy_coverage
        >>> greedy_coverage([[0, 1], [0, 1, 2, 3], [4]], num_frames=3)  # nothing is new in frame 0
        ([1, 2], [4, 1])

        ```
    """
    num_candidates = len(voxels_per_frame)
    arrays = [np.asarray(voxels, dtype=np.int64) for voxels in voxels_per_frame]
    frames = np.repeat(np.arange(num_candidates), [len(array) for array in arrays])
    names, voxels = np.unique(np.concatenate([*arrays, np.empty(0, np.int64)]), return_inverse=True)
    frames, voxels = np.divmod(_sort_distinct(frames * max(len(names), 1) + voxels), max(len(names), 1))
    gains = np.bincount(frames, minlength=num_candidates)
    chosen, brought = [], []
    while len(chosen) < min(num_frames, num_candidates):
        is_first_kept = keep_first and not chosen
        best = 0 if is_first_kept else int(gains.argmax())
        if gains[best] == 0 and not is_first_kept:
            break
        chosen.append(best)
        brought.append(int(gains[best]))
        is_new = np.zeros(len(names), dtype=bool)
        is_new[voxels[frames == best]] = True
        is_covered = is_new[voxels]
        gains -= np.bincount(frames[is_covered], minlength=num_candidates)
        frames, voxels = frames[~is_covered], voxels[~is_covered]
    return chosen, brought


def _fill_up(chosen, num_candidates, num_frames):
    """Add the frames farthest in time from all chosen ones, the earliest of equals, until there are `num_frames`."""
    chosen, times = list(chosen), np.arange(num_candidates)
    distance = np.abs(times[:, None] - np.array(chosen)).min(-1)  # (S,)
    while len(chosen) < min(num_frames, num_candidates):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.abs(times - chosen[-1]))
    return chosen


def _derive_voxel_size(sides, mode):
    """Edge length of a voxel from the three sides of the box, in their dtype."""
    size = sides.min() / sides.dtype.type(VOXELS_PER_THINNEST_SIDE)
    if mode == "reference":
        if size == 0:
            raise ValueError(
                f"world_points span {sides.tolist()}: no extent along one axis, so the voxel size of "
                'mode="reference" is 0. Use mode="robust" for flat scenes.'
            )
        return size
    # Differs: the reference has no lower bound, which makes voxels of flat scenes smaller than the points' noise.
    size = max(size, sides.max() / sides.dtype.type(MAX_VOXELS_PER_LONGEST_SIDE))
    return size if size > 0 else 1.0  # all points coincide


def _number_voxels(points, voxel_size, frames, num_frames):
    """(3, P) points and the frame of each -> the voxels of each frame as numbers from 0, and how many there are."""
    origin = points.min(1)
    num_cells = (points.max(1).astype(np.float64) - origin) / float(voxel_size) + 2  # at most, per axis
    if not num_cells.prod() * num_frames < 2**62:
        raise ValueError(
            f"voxel_size {float(voxel_size):.4g} cuts the scene into {' x '.join(f'{n:.3g}' for n in num_cells)} "
            'voxels, too many to number. Give a larger voxel_size with mode="robust".'
        )
    cells = np.floor((points - origin[:, None]) / points.dtype.type(voxel_size)).astype(np.int64)
    planes, rows, columns = (cells.max(1) + 1).tolist()
    keys = ((frames * planes + cells[0]) * rows + cells[1]) * columns + cells[2]
    frames, keys = np.divmod(_sort_distinct(keys), planes * rows * columns)
    names, voxels = np.unique(keys, return_inverse=True)
    return np.split(voxels, np.searchsorted(frames, np.arange(1, num_frames))), len(names)


def _sort_distinct(numbers):
    """What `numpy.unique` returns; its hashing is several times slower on numbers that are nearly in order."""
    numbers = np.sort(numbers)
    is_last = np.ones(len(numbers), dtype=bool)
    is_last[:-1] = numbers[1:] != numbers[:-1]
    return numbers[is_last]


def _as_numpy(array):
    """Any array as numpy floats of at least 32 bits."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    array = np.asarray(array)
    return array.astype(np.result_type(array, np.float32), copy=False)


def _check_point_maps(points, confidence):
    if points.ndim == 5 or confidence.ndim == 4:
        raise ValueError(
            f"world_points has shape {points.shape} and confidence {confidence.shape}; expected (S, H, W, 3) and "
            "(S, H, W) of one scene: index the batch dimension first, world_points[0] and world_points_conf[0]."
        )
    if points.ndim != 4 or points.shape[-1] != 3 or points.shape[:-1] != confidence.shape or not confidence.size:
        raise ValueError(
            f"world_points has shape {points.shape} and confidence {confidence.shape}; expected (S, H, W, 3) and "
            "(S, H, W) with equal S, H and W, none of them 0."
        )
    _check_finite("confidence", np.isfinite(confidence), "numbers everywhere; 0 marks a pixel without a point")
    is_good = np.isfinite(points).all(-1) | (confidence <= 0)
    _check_finite("world_points", is_good, "finite points wherever the confidence is above 0")
    return points, confidence


def _check_finite(name, is_good, expected):
    """Name the first frame with a bad pixel; `is_good` has shape (S, H, W)."""
    if is_good.all():
        return
    num_bad = (~is_good).sum((1, 2))
    frame = int(num_bad.nonzero()[0][0])
    raise ValueError(
        f"{name} of frame {frame} is NaN or infinite at {num_bad[frame]} pixels; expected {expected}. Set the "
        "confidence to 0 there, or leave the frame out."
    )


SAMPLINGS = ("uniform", "fps", "space_aware")
NUM_CANDIDATES = 128  # as Spatial-MLLM
IMAGE_SIZE, PATCH_SIZE = 518, 14  # of VGGT-1B, for a model that has no config to say so


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a video to take.

    Args:
        num_frames (`int`, *optional*): most frames to take; "uniform" and "space_aware" need it.
        fps (`float`, *optional*): frames per second, for "fps", and for the candidates of "space_aware".
        sampling (`str`, *optional*): "uniform" (evenly spaced, see `uniform_sample`), "fps" (see `fps_sample`) or
            "space_aware" (those that see most of the space, see `space_aware_sample`); by default "fps" where a rate
            is given, else "uniform".
        points_from (`Callable`, *optional*): model that tells what each candidate sees, for "space_aware":
            `GapMllmForPreTraining`, `GapMllmVggtForReconstruction`, or anything that takes pictures `(S, 3, H, W)` of
            one scene, RGB in 0..1, and gives `world_points` and `world_points_conf` as these do, by a method
            `predict_points` or when called.
        num_candidates (`int`, *optional*): most frames to choose from, evenly spaced, for "space_aware"; by
            default 128.
        image_size (`int`, *optional*), patch_size (`int`, *optional*): sizes of that model's pictures and patches, in
            pixels; by default its `picture_sizes`, those of its config, else VGGT's.
    Raises:
        TypeError, ValueError: if a number is out of range, the sampling is unknown, or what it needs is missing.

    Example:
        ```python
        >>> from gap_mllm.processing.frame_sampling_gap_mllm import FrameChoice
        >>> seconds = [index / 10 for index in range(24)]  # a video of 24 frames, 10 a second
        >>> FrameChoice(num_frames=3).candidates(seconds), FrameChoice(fps=2).candidates(seconds)
        ([0, 11, 23], [0, 5, 10, 15, 20])

        ```
    """

    num_frames: int | None = None
    fps: float | None = None
    sampling: str | None = None
    points_from: Callable[[torch.Tensor], Any] | None = None
    num_candidates: int | None = None
    image_size: int | None = None
    patch_size: int | None = None

    def __post_init__(self):
        if self.sampling is None:
            object.__setattr__(self, "sampling", "uniform" if self.fps is None else "fps")
        check_sampling(self.sampling)
        for name in ("num_frames", "num_candidates"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.fps is not None:
            check_positive("fps", self.fps)
        needed = {"uniform": ("num_frames",), "fps": ("fps",), "space_aware": ("num_frames", "points_from")}
        missing = [name for name in needed[self.sampling] if getattr(self, name) is None]
        if missing:
            raise ValueError(f"sampling is {self.sampling!r}, which needs {' and '.join(missing)}.")
        if self.sampling == "uniform" and self.fps is not None:
            raise ValueError(f"fps is {self.fps}, but sampling is 'uniform'; give one of them.")
        if self.is_space_aware:
            check_points_source(self.points_from)
        for name in ("points_from", "num_candidates"):
            if not self.is_space_aware and getattr(self, name) is not None:
                raise ValueError(f"{name} is given, but sampling is {self.sampling!r}; expected 'space_aware'.")

    @property
    def is_space_aware(self) -> bool:
        """Whether the candidates have to be seen, and narrowed down by `narrow`."""
        return self.sampling == "space_aware"

    def candidates(self, seconds: Sequence[float | None]) -> list[int]:
        """Places of the frames to decode, from the times of all; for "space_aware" the choice is made among them."""
        limit = (self.num_candidates or NUM_CANDIDATES) if self.is_space_aware else self.num_frames
        rate = None if self.fps is None else frame_rate(list(seconds))
        if rate is None:
            return uniform_sample(len(seconds), limit or len(seconds))
        return fps_sample(len(seconds), rate, self.fps, max_frames=limit)

    def narrow(self, images: Iterable[Image.Image]) -> list[int]:
        """Places among the candidates of the frames to take; they are looked at for "space_aware" only."""
        images = list(images)
        if not self.is_space_aware or len(images) <= self.num_frames:
            return list(range(len(images)))
        points, confidence = predict_points(self.points_from, images, self.image_size, self.patch_size)
        return space_aware_sample(points, confidence, self.num_frames)


def check_sampling(name: str) -> None:
    """Refuse what is no rule by which frames are chosen. Raises ValueError."""
    if name not in SAMPLINGS:
        raise ValueError(f"sampling is {name!r}; expected one of {', '.join(SAMPLINGS)}.")


def check_points_source(model: object) -> None:
    """Refuse what gives no points, before a video is read. Raises TypeError."""
    name = type(model).__name__
    if not callable(model):
        raise TypeError(f"points_from is a {name}; expected a model such as GapMllmVggtForReconstruction.")
    is_language_model = getattr(getattr(model, "config", None), "model_type", None) in ("gap_mllm", "qwen3_vl")
    if is_language_model and not hasattr(model, "predict_points"):
        raise TypeError(
            f"points_from is a {name}, which has no heads for points. If its folder holds those of pre-training "
            "(point_map_heads), load it with AutoModelForPreTraining or GapMllmForPreTraining; else give a geometry "
            "encoder with its heads, GapMllmVggtForReconstruction.from_pretrained(FOLDER)."
        )


def predict_points(
    model: Callable, images: Sequence[Image.Image], image_size: int | None = None, patch_size: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each picture of a scene sees, as `space_aware_sample` takes it.

    Frame: that of the model, the camera of the first picture. Units: the model's own.

    Args:
        model (`Callable`), image_size (`int`, *optional*), patch_size (`int`, *optional*): fields of `FrameChoice`.
        images (`list[PIL.Image.Image]`): RGB pictures of one size.
    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: points `(S, H, W, 3)` and confidences `(S, H, W)`.
    Raises:
        TypeError: if the model gives none. ValueError: if the pictures differ in size.
    """
    sizes = sorted({image.size for image in images})
    if len(sizes) > 1:
        raise ValueError(f"the frames have {len(sizes)} sizes, as {sizes[0]} and {sizes[1]}; 'space_aware' needs one.")
    output = run_on_pictures(model, teacher_inputs(images, *picture_sizes(model, image_size, patch_size)))
    points, confidence = (getattr(output, name, None) for name in ("world_points", "world_points_conf"))
    if points is None or confidence is None:
        raise TypeError(f"points_from ({type(model).__name__}) gives no world_points and world_points_conf.")
    if isinstance(points, list):
        points, confidence = torch.stack(points), torch.stack(confidence)
    return (points[0], confidence[0]) if points.ndim == 5 else (points, confidence)


def run_on_pictures(model: Callable, views: list[torch.Tensor]) -> Any:
    """What a model that tells points gives for the views `(3, h, w)` of one scene, stacked where they are alike."""
    if isinstance(model, torch.nn.Module):
        device = input_device(model)
        views = [view.to(device) for view in views]
    with torch.no_grad():
        same = len({view.shape for view in views}) == 1
        return getattr(model, "predict_points", model)(torch.stack(views) if same else views)


def picture_sizes(model: object, image_size: int | None = None, patch_size: int | None = None) -> tuple[int, int]:
    """Longer side of a geometry model's pictures, and side of a patch: as given, by itself, or VGGT's; pixels."""
    config = getattr(model, "config", None)
    known = getattr(config, "image_size", IMAGE_SIZE), getattr(config, "patch_size", PATCH_SIZE)
    known = getattr(model, "picture_sizes", known)
    return image_size or known[0], patch_size or known[1]


def teacher_size(size: tuple[int, int], image_size: int, patch_size: int) -> tuple[int, int]:
    """Return the size at which a teacher sees a picture: its longer side `image_size`, both multiples of a patch.

    `Differs:` VGGT's own loader makes every picture `image_size` wide and crops tall ones; here nothing is cropped.

    Args:
        size (`tuple[int, int]`): width and height.
        image_size (`int`), patch_size (`int`): longer side of its pictures, and side of a patch, in pixels.
    Returns:
        `tuple[int, int]`: width and height.
    Raises:
        ValueError: if the image size is below a patch.
    """
    if not 0 < patch_size <= image_size:
        raise ValueError(f"image_size is {image_size} and patch_size {patch_size}; expected image_size >= patch_size.")
    scale = image_size / max(size)
    return tuple(max(1, round(side * scale / patch_size)) * patch_size for side in size)


def teacher_inputs(
    images: Sequence[Image.Image], image_size: int = IMAGE_SIZE, patch_size: int = PATCH_SIZE
) -> list[torch.Tensor]:
    """Resize RGB pictures to `teacher_size` (bicubic) and return `(3, h, w)` float32 tensors in 0..1."""
    inputs = []
    for image in images:
        resized = image.resize(teacher_size(image.size, image_size, patch_size), Image.Resampling.BICUBIC)
        inputs.append(torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255)  # (3, h, w)
    return inputs
