"""`FrameChoice`: which frames of a video to take, the same for the processor, `evaluate` and `data label`.

The rules themselves are in frame_sampling_gap_mllm.py; here those that need pictures get their points from a model.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from .frame_sampling_gap_mllm import fps_sample, space_aware_sample, uniform_sample
from .input_device_gap_mllm import input_device
from .number_checks_gap_mllm import check_count, check_positive
from .video_decoding_gap_mllm import frame_rate


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
        >>> from gap_mllm.processing.frame_choice_gap_mllm import FrameChoice
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


__all__ = [
    "SAMPLINGS",
    "FrameChoice",
    "check_points_source",
    "check_sampling",
    "picture_sizes",
    "predict_points",
    "run_on_pictures",
    "teacher_inputs",
    "teacher_size",
]
