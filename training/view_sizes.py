"""How many pixels the views of a row get: bounds that hold after the image processor's own rounding.

Qwen's rule makes sides whole merge cells, enlarges small pictures and never gives less than a cell a side, so that
the bound it is told is not what comes out. The sizes here are those that come out.
"""

import math
from collections import Counter

from transformers import BaseImageProcessor

from ..processing.data.record_errors import RecordError


def resized_pixels(image_processor: BaseImageProcessor, size: tuple[int, int], bounds: dict[str, int]) -> int:
    """Return the pixels that the image processor gives a picture.

    Args:
        image_processor (`BaseImageProcessor`): says how it resizes.
        size (`tuple[int, int]`): width and height of the picture in pixels.
        bounds (`dict[str, int]`): `shortest_edge` and `longest_edge`, least and most pixels, as the processor takes
            them.
    Returns:
        `int`.
    """
    width, height = size
    limits = {"min_pixels": bounds["shortest_edge"], "max_pixels": bounds["longest_edge"]}
    return image_processor.get_number_of_image_patches(height, width, limits) * image_processor.patch_size**2


def fit_views(
    image_processor: BaseImageProcessor,
    sizes: list[tuple[int, int]],
    max_view_pixels: int | None = None,
    max_sample_pixels: int | None = None,
    record_id: str | None = None,
):
    """Find the largest bounds for the image processor with which the views of one row stay within what they may have.

    All views of the row share the bounds, so that they shrink alike.

    Args:
        image_processor (`BaseImageProcessor`): says how it resizes.
        sizes (`list[tuple[int, int]]`): width and height of each view in pixels, at least one.
        max_view_pixels (`int`, *optional*): most pixels of a resized view, instead of the processor's own bound.
        max_sample_pixels (`int`, *optional*): most pixels of all resized views together.
        record_id (`str`, *optional*): the row, for errors.
    Returns:
        `tuple[dict[str, int], int, int]`: the `size` to give the processor, the pixels of the row without
        `max_sample_pixels`, and those with it.
    Raises:
        RecordError: if a bound cannot be met, or a picture is too narrow to be resized; names row and bound.
    """
    smallest, largest = image_processor.size["shortest_edge"], image_processor.size["longest_edge"]
    cell = (image_processor.patch_size * image_processor.merge_size) ** 2
    counts = Counter(sizes)
    bound, wanted = max_view_pixels or largest, None
    while bound > 0:
        bounds = {"shortest_edge": min(smallest, bound), "longest_edge": bound}
        try:
            pixels = {size: resized_pixels(image_processor, size, bounds) for size in counts}
        except ValueError as error:
            raise RecordError(f"a view cannot be resized: {error}.", "views", record_id=record_id) from None
        most, total = max(pixels.values()), sum(pixels[size] * count for size, count in counts.items())
        if most <= (max_view_pixels or math.inf):
            wanted = total if wanted is None else wanted
            if total <= (max_sample_pixels or math.inf):
                return bounds, wanted, total
        # A cell less; down to what the largest view has, and to where pictures are enlarged, nothing changes.
        bound = min((bound - 1) // cell * cell, max(most, smallest))
    if wanted is None:
        problem = f"a view takes at least {most} pixels, more than max_view_pixels={max_view_pixels}"
    else:
        problem = (
            f"its {len(sizes)} views take at least {total} pixels, more than max_sample_pixels={max_sample_pixels}"
        )
    raise RecordError(
        f"{problem}; a side is never less than {math.isqrt(cell)} pixels. Raise the bound, or show fewer views "
        "(max_views).",
        "views",
        record_id=record_id,
    )
