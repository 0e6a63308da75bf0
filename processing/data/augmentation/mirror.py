"""Mirroring a scene left to right: pictures, cameras, boxes, points, marks, and the words and numbers of its texts."""

from dataclasses import replace

import numpy as np
from PIL import Image

from ...answers_gap_mllm import BOX_KEYS
from ..answer_texts import has_own_truth, holds_numbers, read_location, read_truth
from ..scene_sample import SceneSample
from ..truth import MIRRORED, render_answer
from .crops import depth_values, mark_pixels, place_mark
from .mirror_words import mirror_text
from .texts import check_answers, check_places, check_task, refuse, replace_texts


MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
BOX_SIGNS = np.array(MIRRORED[BOX_KEYS[0]])  # the rotation M R M has the angles about z and y negated
UNSAFE_TYPES = ("map", "ocr", "text", "compass")  # parts of a question_type


def flip_horizontally(sample: SceneSample):
    """Mirror the scene left to right, in its pictures and in 3D alike.

    Every frame (camera, scan, aligned) is mirrored along its first axis: a point goes to (-x, y, z), a pose T to M T M
    with M = diag(-1, 1, 1, 1), a rotation again; pixels go to (W - 1 - x, y), the principal point too. A box of
    rotation R gets M R M, which in both Euler orders negates the angles about z and y; sizes stay. In texts left and
    right, clockwise and counter-clockwise, east and west are exchanged, and numbers of answers mirrored. Metadata
    stays as the source wrote it.
    Frame: as before, mirrored. Units: metres, radians, pixels with integer centres.

    Args:
        sample (`SceneSample`): sample; not changed.
    Returns:
        `SceneSample`; mirrored twice it is the sample again (up to the spelling of "counterclockwise").
    Raises:
        AugmentationRefused: if a text is about writing, maps, clock faces or coordinates, is not in Latin letters, or
            says "left" or "right" where that may not be a direction; if the task is not known.

    Example:
        ```python
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> from gap_mllm.processing.data.augmentation import flip_horizontally
        >>> sample = make_question(render_room(0), "reconstruction")
        >>> flipped = flip_horizontally(sample)
        >>> sample.points[0].xyz.round(2).tolist(), flipped.points[0].xyz.round(2).tolist()
        ([-0.19, 0.87, 1.9], [0.19, 0.87, 1.9])

        ```
    """
    step = "flip_horizontally"
    check_task(step, sample)
    if set((sample.question_type or "").lower().replace("-", "_").split("_")) & set(UNSAFE_TYPES):
        raise refuse(step, sample, f"questions of type {sample.question_type!r} are about writing or maps.")
    check_answers(step, sample)
    check_places(step, sample)

    def change(text: str):
        return mirror_text(render_answer(read_truth(sample, text).mirrored()) if holds_numbers(text) else text)

    try:
        truth = _mirror_truth(sample.truth) if has_own_truth(sample) else None
        location = read_location(sample)
        question = sample.question if location is None else render_answer(location.mirrored())
        flipped = replace_texts(replace(sample, question=question), change)
    except ValueError as error:
        raise refuse(step, sample, str(error)) from None
    sizes = [view.image.size for view in sample.views]
    return replace(
        flipped,
        truth=truth,
        views=tuple(map(_flip_view, sample.views)),
        world_to_aligned=None if sample.world_to_aligned is None else MIRROR @ sample.world_to_aligned @ MIRROR,
        boxes=tuple(map(_flip_box, flipped.boxes)),
        scene_boxes=tuple(map(_flip_box, sample.scene_boxes)),
        points=tuple(_flip_point(point, sizes) for point in flipped.points),
        marks=tuple(_flip_mark(mark, sizes[mark.view]) for mark in sample.marks),
    )


def _flip_box(box):
    return replace(box, numbers=np.asarray(box.numbers) * BOX_SIGNS + 0.0)


def _mirror_truth(truth):
    items = tuple(replace(item, label=item.label and mirror_text(item.label)) for item in truth.mirrored().items)
    return replace(truth, items=items, text=truth.text and mirror_text(truth.text))


def _flip_view(view):
    changes = {"picture": view.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)}
    if view.intrinsics is not None:
        changes["intrinsics"] = _flip_intrinsics(view.intrinsics, view.image.width)
    if view.depth_picture is not None:
        values = depth_values(view)
        changes["depth_picture"] = np.ascontiguousarray(values[:, ::-1])
        if view.depth_intrinsics is not None:
            changes["depth_intrinsics"] = _flip_intrinsics(view.depth_intrinsics, values.shape[1])
    if view.camera_to_world is not None:
        changes["camera_to_world"] = MIRROR @ view.camera_to_world @ MIRROR
    if view.instances is not None:
        labels = {number: mirror_text(label) for number, label in view.instances.labels.items()}
        changes["instances"] = replace(view.instances.mirrored(), labels=labels)
    return replace(view, **changes)


def _flip_intrinsics(intrinsics, width):
    flipped = np.array(intrinsics, dtype=np.float64)
    flipped[0, 1] = 0.0 - flipped[0, 1]
    flipped[0, 2] = width - 1 - flipped[0, 2]
    return flipped


def _flip_point(point, sizes):
    changes = {}
    if point.xyz is not None:
        changes["xyz"] = np.asarray(point.xyz) * np.array([-1, 1, 1])
    if point.pixel is not None and point.view is not None:
        changes["pixel"] = (sizes[point.view][0] - 1 - point.pixel[0], point.pixel[1])
    return replace(point, **changes)


def _flip_mark(mark, size):
    pixels = mark_pixels(mark, size)
    last = size[0] - 1
    if mark.kind == "box":
        pixels = (last - pixels[2], pixels[1], last - pixels[0], pixels[3])
    else:
        pixels = (last - pixels[0], pixels[1])
    return place_mark(mark, pixels, size)
