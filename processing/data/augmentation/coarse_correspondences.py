"""Coarse Correspondences (arXiv:2408.00754): one number on the same thing in every view, as a visual prompt.

What may be marked comes from correspondence_candidates.py; here it is chosen, placed and drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...visual_prompt_gap_mllm import MARK_COLORS
from ..scene_sample import SceneMark, SceneSample
from .correspondence_candidates import (
    PLACE_GAP_M,
    Candidate,
    instance_candidates,
    point_candidates,
    square_cover,
    surface_candidates,
    track_candidates,
)


SOURCES = ("instances", "points", "tracks", "geometry")
MIN_RADIUS_PX = 6  # smaller digits cannot be read
MIN_COVER = 0.5  # of the square around a disc must lie on the instance
GAP_PX = 2  # between two discs
CORRESPONDENCE_PROMPT = (
    "Numbered discs mark things that several of the frames show: the same number is the same thing."
)


@dataclass(frozen=True)
class MarkedThing:
    """What one number stands for.

    Args:
        number (`int`): number as drawn, from 1.
        key (`str`): instance id, number of the track, or where a place was found.
        label (`str`, *optional*)
        pixels (`dict[int, tuple[int, int]]`): centre (x, y) of the disc in every view that carries the number.
    """

    number: int
    key: str
    label: str | None
    pixels: dict[int, tuple[int, int]]

    @property
    def views(self) -> list[int]:
        """The views that carry the number, ascending."""
        return sorted(self.pixels)


@dataclass(frozen=True)
class CoarseCorrespondences:
    """Marked pictures and what their numbers mean.

    Args:
        images (`list[PIL.Image.Image]`): pictures of all views, in order.
        things (`tuple[MarkedThing, ...]`): things in the order of their numbers; empty where no two views share
            anything.
        radius_px (`tuple[int, ...]`): radius of the discs in each view.
        color (`str`): colour of the discs.
    """

    images: list
    things: tuple[MarkedThing, ...]
    radius_px: tuple[int, ...]
    color: str

    @property
    def marks(self) -> tuple[SceneMark, ...]:
        """The same as marks of a sample; `draw_scene_marks` writes their text beside the disc."""
        return tuple(
            SceneMark(view, "point", self.color, tuple(map(float, thing.pixels[view])), text=str(thing.number))
            for thing in self.things
            for view in thing.views
        )


def coarse_correspondences(
    sample: SceneSample,
    num_marks: int = 5,
    source: str = "points",
    instance_ids: Sequence | None = None,
    tracks: Sequence | None = None,
    mark_size: float = 0.03,
    color: str = "red",
    min_views: int = 2,
) -> CoarseCorrespondences:
    """Mark the things that most views share, each with its number, as white digits on a disc.

    Things seen in more views come first, then those that cover more of them. A disc lies inside its instance, at the
    place with most of the instance around it that is nearest to the middle; discs of one view do not overlap. A thing
    that cannot be marked so in enough views gives its number to the next. Pictures are marked as they are: augment
    first, since a mirrored digit cannot be read.
    Frame: pixels (x, y) with integer centres.
    Source: Coarse Correspondences: of the instances that a tracker follows, those in most frames are marked with
    unique numbers; size, place and colour of the marks are our choice. Differs: ids, points and geometry may take
    the tracker's place.

    Args:
        sample (`SceneSample`)
        num_marks (`int`, defaults to 5): numbers at most.
        source (`str`, defaults to "points"): "points" (those that share an instance id), "instances" (needs
            `instance_ids`), "tracks" (needs `tracks`) or "geometry" (surfaces found by depth and poses).
        instance_ids, tracks: see `instance_candidates` and `track_candidates`.
        mark_size (`float`, defaults to 0.03): radius of a disc, as a share of the picture's shorter side; at least
            `MIN_RADIUS_PX`.
        color (`str`, defaults to "red"): a name in `MARK_COLORS`.
        min_views (`int`, defaults to 2): a number is given only to what so many views can carry.
    Returns:
        `CoarseCorrespondences`.
    Raises:
        ValueError: if the source, the colour or a number is out of range, or the source's own data is missing or
            given for another source.
        RecordError: for "geometry", if no two views have depth and poses; if a picture cannot be decoded.

    Example:
        ```python
        >>> from gap_mllm.processing.data import coarse_correspondences, load_multiview
        >>> scenes = load_multiview("rendered_rooms", split="train", num_rooms=1)
        >>> found = coarse_correspondences(scenes[0], num_marks=2, source="geometry")
        >>> [(thing.number, sorted(thing.pixels)) for thing in found.things]  # numbers, and the views that have them
        [(1, [1, 2, 3]), (2, [1, 2, 3])]

        ```
    """
    if num_marks < 1 or min_views < 2 or not 0 < mark_size <= 0.5:
        raise ValueError(
            f"num_marks is {num_marks}, min_views {min_views}, mark_size {mark_size}; expected at least 1, at least "
            "2, and more than 0 up to 0.5."
        )
    if color not in MARK_COLORS:
        raise ValueError(f"color is {color!r}; expected one of {', '.join(MARK_COLORS)}.")
    images = [view.image for view in sample.views]
    radii = tuple(max(MIN_RADIUS_PX, round(mark_size * min(image.size))) for image in images)
    candidates = _candidates(sample, source, instance_ids, tracks, radii)
    things = _choose(candidates, num_marks, min_views, [image.size for image in images], radii)
    marked = [
        draw_numbers(
            image, {thing.number: thing.pixels[view] for thing in things if view in thing.pixels}, radius, color
        )
        for view, (image, radius) in enumerate(zip(images, radii, strict=True))
    ]
    return CoarseCorrespondences(marked, tuple(things), radii, color)


def _candidates(sample, source, instance_ids, tracks, radii):
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}; expected one of {', '.join(SOURCES)}.")
    for name, value, needs in (("instance_ids", instance_ids, "instances"), ("tracks", tracks, "tracks")):
        if value is not None and source != needs:
            raise ValueError(f"{name} is given, but source is {source!r}; pass source={needs!r}.")
    if source == "instances":
        return instance_candidates(sample, instance_ids)
    if source == "tracks":
        return track_candidates(sample, tracks)
    return point_candidates(sample) if source == "points" else surface_candidates(sample, radii)


def _choose(candidates, num_marks, min_views, sizes, radii) -> list[MarkedThing]:
    """The candidates to mark, best first, each with its places."""
    rest = [candidate for candidate in candidates if len(candidate.weights) >= min_views]
    rest.sort(key=lambda candidate: (-len(candidate.weights), -sum(candidate.weights.values())))
    taken: dict[int, list] = {view: [] for view in range(len(sizes))}
    chosen, things = [], []
    while rest and len(things) < num_marks:
        candidate = _next(rest, chosen)
        rest = [other for other in rest if other is not candidate]
        pixels = {
            view: pixel
            for view in candidate.weights
            if (pixel := _place(candidate, view, taken[view], sizes[view], radii[view])) is not None
        }
        if len(pixels) < min_views:
            continue
        for view, pixel in pixels.items():
            taken[view].append(pixel)
        chosen.append(candidate)
        rest = [other for other in rest if not _are_near(candidate, other)]
        things.append(MarkedThing(len(things) + 1, candidate.key, candidate.label, dict(sorted(pixels.items()))))
    return things


def _next(rest, chosen) -> Candidate:
    """The best candidate; among equally good places that which is farthest from those marked."""
    best = rest[0]
    if best.xyz is None or not chosen:
        return best
    equal = [candidate for candidate in rest if len(candidate.weights) == len(best.weights)]
    marked = np.array([other.xyz for other in chosen])
    gaps = np.linalg.norm(np.array([candidate.xyz for candidate in equal])[:, None] - marked, axis=-1).min(1)
    return equal[int(gaps.argmax())]


def _are_near(candidate, other) -> bool:
    return candidate.xyz is not None and bool(np.linalg.norm(candidate.xyz - other.xyz) < PLACE_GAP_M)


def _place(candidate, view, taken, size, radius):
    """The centre of the disc in a view, clear of the border and of other discs; None where there is none."""
    width, height = size
    if view in candidate.pixels:
        x, y = candidate.pixels[view]
        is_inside = radius <= x < width - radius and radius <= y < height - radius
        return (x, y) if is_inside and all(_is_clear((x, y), other, radius) for other in taken) else None
    mask = candidate.masks[view]
    cover = square_cover(mask, radius)
    allowed = mask & (cover >= MIN_COVER)
    allowed[:radius], allowed[height - radius :] = False, False
    allowed[:, :radius], allowed[:, width - radius :] = False, False
    for other in taken:
        ys, xs = np.ogrid[:height, :width]
        allowed &= _is_clear((xs, ys), other, radius)
    if not allowed.any():
        return None
    rows, columns = np.nonzero(allowed & (cover >= cover[allowed].max() - 1e-9))
    middle_y, middle_x = (part.mean() for part in np.nonzero(mask))
    nearest = np.hypot(rows - middle_y, columns - middle_x).argmin()
    return int(columns[nearest]), int(rows[nearest])


def _is_clear(pixel, other, radius):
    return (pixel[0] - other[0]) ** 2 + (pixel[1] - other[1]) ** 2 >= (2 * radius + 1 + GAP_PX) ** 2


def draw_numbers(image: Image.Image, pixels: dict, radius: int, color: str = "red") -> Image.Image:
    """Draw numbers on discs: white digits, black ones on light colours, in the middle of each disc.

    Args:
        image (`PIL.Image.Image`): RGB; not changed.
        pixels (`dict[int, tuple[int, int]]`): centre (x, y) of every number's disc.
        radius (`int`): radius of the discs, in pixels.
        color (`str`, defaults to "red"): a name in `MARK_COLORS`.
    Returns:
        `PIL.Image.Image`: a new picture, or the one given where there is nothing to draw.

    Example:
        ```python
        >>> from PIL import Image
        >>> from gap_mllm.processing.data.augmentation import draw_numbers
        >>> marked = draw_numbers(Image.new("RGB", (160, 120)), {1: (40, 40), 2: (100, 80)}, radius=10)
        >>> marked.getpixel((32, 40))
        (255, 0, 0)

        ```
    """
    if not pixels:
        return image
    picture, rgb = image.copy(), MARK_COLORS[color]
    draw = ImageDraw.Draw(picture)
    ink = "black" if 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 170 else "white"
    for number, (x, y) in pixels.items():
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=rgb)
        text = str(number)
        font = ImageFont.load_default(1.9 * radius / max(1.0, 0.75 * len(text)))
        left, top, right, bottom = font.getbbox(text)
        draw.text((x + 0.5 - (left + right) / 2, y + 0.5 - (top + bottom) / 2), text, font=font, fill=ink)
    return picture


def marked_sample(sample: SceneSample, correspondences: CoarseCorrespondences, prompt: str = CORRESPONDENCE_PROMPT):
    """Return the sample with the marked pictures in place of its own, and a sentence on the numbers in its question.

    Args:
        sample (`SceneSample`), correspondences (`CoarseCorrespondences`): correspondences of this sample.
        prompt (`str`, defaults to `CORRESPONDENCE_PROMPT`): goes before the text of the question, behind leading
            `<image>` tags; "" adds nothing.
    Returns:
        `SceneSample`: with metadata["coarse_correspondences"], the table of numbers.
    Raises:
        ValueError: if the correspondences are of another number of views.

    Example:
        ```python
        >>> from gap_mllm.processing.data import coarse_correspondences, make_question, render_room
        >>> from gap_mllm.processing.data.augmentation import marked_sample
        >>> sample = make_question(render_room(0), "detection3d")
        >>> found = coarse_correspondences(sample, source="geometry")
        >>> marked_sample(sample, found).question.startswith("Numbered discs mark things")
        True

        ```
    """
    if len(correspondences.images) != len(sample.views):
        raise ValueError(f"{len(correspondences.images)} marked pictures for {len(sample.views)} views.")
    views = [replace(view, picture=image) for view, image in zip(sample.views, correspondences.images, strict=True)]
    question = sample.question or ""
    start = question.rfind("<image>") + len("<image>") if "<image>" in question else 0
    body = question[start:].lstrip("\n")
    gap = question[start : len(question) - len(body)]
    if prompt and correspondences.things:
        question = question[:start] + gap + prompt + "\n" + body
    table = [
        {
            "number": thing.number,
            "key": thing.key,
            "label": thing.label,
            "pixels": [{"view": view, "pixel": list(thing.pixels[view])} for view in thing.views],
        }
        for thing in correspondences.things
    ]
    metadata = {**sample.metadata, "coarse_correspondences": table}
    return replace(sample, views=tuple(views), question=question or sample.question, metadata=metadata)
