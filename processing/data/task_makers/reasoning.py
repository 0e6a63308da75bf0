"""Reasoning segmentation: an object is asked for by its name, a relation or its use, and answered with points on it.

Source: the task is that of MLLM-For3D (arXiv:2503.18135); uses, wording and margins are our choice.
Frame: camera of view 0. Units: metres.
"""

import numpy as np

from ..truth import Truth, answered
from .descriptions import describe, find_anchors
from .scene_objects import SceneObject, same_name
from .spatial_facts import NEXT_TO_M, closest_of, is_next_to, visible_items
from .task_scene import CannotAskError, Draft, Marked, TaskScene, draw_one, remembered


NUM_POINTS = 3  # of an answer, at most
# What an object is for, the names that are asked for by it, and other names that it may fit as well. Names of a group
# of the margins count as one.
USES = (
    ("something to sit on", ("chair", "sofa", "bench", "ottoman"), ("bed",)),
    ("something to sleep in", ("bed",), ("sofa",)),
    ("something to work or eat at", ("table",), ("bench", "bar")),
    ("something to keep books in", ("shelf",), ("cabinet",)),
    ("something to keep clothes in", ("cabinet",), ("shelf", "box", "bag")),
    ("something that gives light", ("lamp",), ("window", "tv", "candle")),
    ("something to throw waste into", ("bin",), ("box", "bag")),
    ("something to watch films on", ("tv",), ("laptop",)),
    ("something to wash hands in", ("sink",), ("bathtub",)),
    ("something that keeps food cold", ("refrigerator", "fridge"), ()),
)


def _fits(scene, item, names):
    return any(same_name(item.kind, name, scene.margins.name_groups) for name in names)


@remembered
def uses_of(scene: TaskScene, item: SceneObject) -> list[str]:
    """Phrases that ask for one object by its use, where no other that may be seen fits; in a fixed order.

    Args:
        scene (`TaskScene`), item (`SceneObject`): visible in some view.
    Returns:
        `list[str]`: "something to sit on", or for instance "something to sit on next to the table"; empty where its
        use is not known or singles nothing out.
    """
    use, names, others = next((told for told in USES if _fits(scene, item, told[1])), (None, (), ()))
    if use is None:
        return []
    present = [other for other in scene.objects.items if other is not item and scene.objects.is_present[other.index]]
    rivals = [other for other in present if _fits(scene, other, (*names, *others))]
    if not rivals:
        return [use]
    found = []
    for anchor in find_anchors(scene):
        if anchor is item or anchor in rivals:
            continue
        gaps = [scene.objects.gap(other, anchor) for other in rivals]
        if is_next_to(scene, item, anchor) and min(gaps) >= NEXT_TO_M + scene.margins.closer_m:
            found.append(f"{use} next to the {anchor.name}")
        elif closest_of(scene, [item, *rivals], anchor) is item:
            found.append(f"{use}, the closest to the {anchor.name}")
    return found


def points_on(scene: TaskScene, item: SceneObject, count: int = NUM_POINTS) -> list[Marked]:
    """Points on what the views show of an object, away from its borders: the middle one first, then far apart.

    Args:
        scene (`TaskScene`), item (`SceneObject`): the object.
        count (`int`, defaults to 3): most points.
    Returns:
        `list[Marked]`: without a colour; empty where nothing of it is seen clearly.
    """
    seen = []
    for camera in scene.measured:
        is_inner = scene.objects.inner[camera.index] & (scene.objects.owners[camera.index] == item.index)
        is_inner &= camera.grid_markable
        seen += [(camera, row, column) for row, column in np.argwhere(is_inner)]
    if not seen:
        return []
    points = np.stack([camera.grid_points[row, column] for camera, row, column in seen])
    far = np.linalg.norm(points - np.median(points, axis=0), axis=-1)
    chosen = [int(far.argmin())]
    distance = np.linalg.norm(points - points[chosen[0]], axis=-1)
    while len(chosen) < count and distance.max() >= scene.margins.point_gap_m:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=-1))
    found = []
    for place in chosen:
        camera, row, column = seen[place]
        x, y = camera.grid[row, column].astype(int)
        found.append(Marked(camera.index, (int(x), int(y)), points[place], "", item, item.label))
    return found


def ask_reasoning_segmentation(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Points on an object that is asked for by its use, where that singles it out, or else by name and relation."""
    items = visible_items(scene, clear=True)
    by_use = rng.random() < 0.5
    for wanted in (by_use, not by_use):
        for place in rng.permutation(len(items)):
            item = items[int(place)]
            uses = uses_of(scene, item)
            description = (draw_one(uses, rng, "") if uses else None) if wanted else describe(scene, item, rng)
            points = points_on(scene, item) if description else []
            if points:
                return _draft(item, description, points, wanted)
    raise CannotAskError("no visible object is singled out by a description or its use")


def _draft(item, description, points, by_use):
    kind = "use" if by_use else "label" if description == f"the {item.name}" else "relation"
    return Draft(
        task="reasoning_segmentation",
        question_type="reasoning_segmentation",
        kind="reasoning_segmentation",
        words={"description": description},
        truth=Truth("points", answered([p.xyz for p in points], [item.label] * len(points)), description=description),
        targets=[item],
        points=points,
        facts={"description": description, "asked_by": kind},
    )


REASONING_MAKERS = {"reasoning_segmentation": ask_reasoning_segmentation}
