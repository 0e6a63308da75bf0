"""Objects as boxes and words: detection, grounding in two stages, captions.

Frame: boxes in the camera of view 0, angles "zxy". Units: metres, radians.
"""

import numpy as np

from ..truth import Truth, answered
from .descriptions import captions, describe
from .spatial_facts import visible_items
from .task_scene import CannotAskError, Draft, TaskScene


def ask_detection3d(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """All visible objects in the order in which the views first show them.

    Objects that hardly show are left out and named in the facts. Where much is measured in a box, but too near to the
    floor or wall behind it to be told from these, the object may be in clear view: then nothing is asked.
    """
    objects = scene.all_seen
    shown = visible_items(scene)
    if not shown:
        raise CannotAskError("no object is visible")
    if (objects.loose[~objects.is_visible.any(1)] >= scene.margins.clear_share).any():
        raise CannotAskError("an object may be in clear view, but cannot be told from what is behind it")
    first = objects.is_visible.argmax(1)
    shown = sorted(shown, key=lambda item: (first[item.index], item.index))
    boxes = [item.numbers for item in shown]
    unsure = [item.label for item in objects.items if objects.is_present[item.index] and item not in shown]
    return Draft(
        task="detection3d",
        question_type="detection3d",
        kind="detection3d",
        truth=Truth("boxes", answered(boxes, [item.label for item in shown])),
        targets=shown,
        facts={"hardly_visible": unsure},
    )


def _clear_frame(scene: TaskScene, item) -> int | None:
    """The first view that shows an object clearly; None if an earlier one nearly does, or is not known."""
    objects, margins = scene.objects, scene.margins
    clear = np.flatnonzero(objects.is_clear[item.index])
    if not len(clear):
        return None
    before = objects.share[item.index, : clear[0]]
    limit = max(margins.visible_share, 0.5 * margins.clear_share)
    cameras = scene.cameras[: clear[0]]
    is_known = all(camera is not None and camera.depth_m is not None for camera in cameras)
    return int(clear[0]) if is_known and (before < limit).all() else None


def _described(scene: TaskScene, items, rng):
    """One of the objects and words that single it out."""
    for place in rng.permutation(len(items)):
        item = items[int(place)]
        description = describe(scene, item, rng)
        if description:
            return item, description
    raise CannotAskError("no visible object is singled out by a description")


def ask_grounding_frame(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Grounding, stage 1: the first view that shows the described object clearly."""
    frames = {item.index: _clear_frame(scene, item) for item in scene.objects.items}
    items = [item for item in scene.objects.items if frames[item.index] is not None]
    if not items:
        raise CannotAskError("no object has a first view that shows it clearly")
    item, description = _described(scene, items, rng)
    frame = frames[item.index]
    return Draft(
        task="grounding_frame",
        question_type="grounding_frame",
        kind="grounding_frame",
        words={"description": description},
        truth=Truth("frame", frame=frame, description=description),
        targets=[item],
        number_views=True,
        facts={"description": description, "share": float(scene.objects.share[item.index, frame])},
    )


def ask_grounding_box(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Grounding, stage 2: the box of the described object.

    Differs: the reference puts the chosen view first; here the views keep their order, so that one encoding of the
    scene serves every question about it.
    """
    items = visible_items(scene, clear=True)
    if not items:
        raise CannotAskError("no object is clearly visible")
    item, description = _described(scene, items, rng)
    return Draft(
        task="grounding_box",
        question_type="grounding_box",
        kind="grounding_box",
        words={"description": description},
        truth=Truth("box", answered([item.numbers]), description=description),
        targets=[item],
        facts={"description": description},
    )


def ask_dense_caption(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """What is at a given place: the middle of an object's box, with no other middle near."""
    items = visible_items(scene, clear=True)
    if not items:
        raise CannotAskError("no object is clearly visible")
    for place in rng.permutation(len(items)):
        item = items[int(place)]
        references = captions(scene, item) if _is_alone(scene, item) else []
        if references:
            break
    else:
        raise CannotAskError("no place of an object can be told clearly")
    start = int(rng.integers(len(references)))
    references = references[start:] + references[:start]
    return Draft(
        task="dense_caption",
        question_type="dense_caption",
        kind="dense_caption",
        words={"location": item.solid.center},
        truth=Truth("text", text=references[0]),
        targets=[item],
        references=tuple(references),
        facts={"label": item.label},
    )


def _is_alone(scene, item):
    gaps = [
        np.linalg.norm(other.solid.center - item.solid.center) for other in scene.objects.items if other is not item
    ]
    return min(gaps, default=np.inf) >= scene.margins.location_gap_m


OBJECT_MAKERS = {
    "detection3d": ask_detection3d,
    "grounding_frame": ask_grounding_frame,
    "grounding_box": ask_grounding_box,
    "dense_caption": ask_dense_caption,
}
