"""Focal lengths in the prompt: one sentence that tells that of each view, in pixels of what the model sees of it.

Source: a camera whose focal length is not told leaves the metric depth of a picture open, which LLMI3D
(arXiv:2408.07422) answers by the focal length; the sentence is ours.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from .prompts_gap_mllm import IMAGE_TAG


def focal_lengths(
    image_processor, sizes: Sequence[tuple[int, int]], intrinsics: Sequence, bounds: dict[str, int] | None = None
) -> list[int]:
    """Return the horizontal focal length of each view after the image processor's resizing.

    Units: pixels of the resized view; the vertical one follows from its sides where pixels were square.

    Args:
        image_processor (`BaseImageProcessor`): image processor, which says how it resizes.
        sizes (list of pairs): width and height of each view, as given to the processor.
        intrinsics (array-like of shape `(3, 3)` or `(V, 3, 3)`): cameras in pixels of these views.
        bounds (`dict[str, int]`, *optional*): `shortest_edge` and `longest_edge` instead of the processor's.
    Returns:
        `list[int]`: one for each view, rounded.
    Raises:
        ValueError: if the shape is none of these, a focal length is not positive and finite, or a view cannot be
            resized.

    Example:
        ```python
        >>> from gap_mllm.processing import GapMllmProcessor, focal_lengths
        >>> processor = GapMllmProcessor.from_pretrained(folder)  # its views are made 128 x 128 pixels
        >>> focal_lengths(processor.image_processor, [(640, 640)], [[500, 0, 319.5], [0, 500, 319.5], [0, 0, 1]])
        [100]

        ```
    """
    cameras = np.asarray(intrinsics, np.float64)
    if cameras.shape == (3, 3):
        cameras = np.broadcast_to(cameras, (len(sizes), 3, 3))
    if cameras.shape != (len(sizes), 3, 3):
        raise ValueError(
            f"intrinsics has shape {cameras.shape}; expected (3, 3), or ({len(sizes)}, 3, 3) for {len(sizes)} views."
        )
    bounds, cell = bounds or image_processor.size, image_processor.patch_size * image_processor.merge_size
    found = []
    for view, ((width, height), camera) in enumerate(zip(sizes, cameras, strict=True)):
        if not (np.isfinite(camera[0, 0]) and camera[0, 0] > 0):
            raise ValueError(f"the focal length of view {view} is {camera[0, 0]}; expected pixels above 0.")
        _, resized = smart_resize(height, width, cell, bounds["shortest_edge"], bounds["longest_edge"])
        found.append(round(float(camera[0, 0]) * resized / width))
    return found


def focal_text(focal_px: Sequence[int]) -> str:
    """Write the sentence that stands before a question.

    Args:
        focal_px (list of `int`): focal length of each view, in pixels.
    Returns:
        `str`: one number where all are equal.

    Example:
        ```python
        >>> from gap_mllm.processing import focal_text
        >>> focal_text([100, 100]), focal_text([100, 120])
        ('The focal length of the frames is 100 pixels.\\n', 'The focal lengths of the frames are 100, 120 pixels.\\n')

        ```
    """
    if len(set(focal_px)) == 1:
        return f"The focal length of the frames is {focal_px[0]} pixels.\n"
    return f"The focal lengths of the frames are {', '.join(map(str, focal_px))} pixels.\n"


def insert_focal_text(question: str, focal_px: Sequence[int]) -> str:
    """Put the sentence before a question, behind the views where it places them itself.

    Args:
        question (`str`): text, perhaps with `<image>` tags.
        focal_px (list of `int`): focal lengths, see `focal_text`.
    Returns:
        `str`.
    """
    head, tag, tail = question.rpartition(IMAGE_TAG)
    break_line = "\n" if tag and tail.startswith("\n") else ""
    return head + tag + break_line + focal_text(focal_px) + tail.removeprefix(break_line)


def tell_focal_lengths(sample, processor, bounds: dict[str, int] | None = None):
    """Put the focal lengths of its views into the question of a sample.

    Args:
        sample (`SceneSample`): question about views with intrinsics.
        processor (`GapMllmProcessor`): the model's processor.
        bounds (`dict[str, int]`, *optional*): see `focal_lengths`.
    Returns:
        `SceneSample`: the same where it shows no views.
    Raises:
        ValueError: if a view has no intrinsics, or as `focal_lengths`; names the sample.
    """
    if not sample.views:
        return sample
    lacking = [index for index, view in enumerate(sample.views) if view.intrinsics is None]
    if lacking:
        raise ValueError(
            f"{sample.id}: view {lacking[0]} has no intrinsics, which intrinsics_in_prompt writes; leave such rows "
            "out, or do without."
        )
    sizes, cameras = zip(*[(view.size, view.intrinsics) for view in sample.views], strict=True)
    focal_px = focal_lengths(processor.image_processor, sizes, cameras, bounds)
    return replace(sample, question=insert_focal_text(sample.question or "", focal_px))


def as_trained(sample, processor):
    """A question as the model was trained on such: with focal lengths, where its processor says so.

    Args:
        sample (`SceneSample`): question. processor (`GapMllmProcessor`): the model's processor.
    Returns:
        `SceneSample`: the same, or that of `tell_focal_lengths`, which also says what it raises.
    """
    return tell_focal_lengths(sample, processor) if processor.intrinsics_in_prompt else sample


__all__ = ["as_trained", "focal_lengths", "focal_text", "insert_focal_text", "tell_focal_lengths"]
