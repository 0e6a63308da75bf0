"""Words that single out one object of a scene, and true clauses about its place. What is not clear is not said.

Frame: camera of view 0; "left" and "right" are those of the first frame's picture. Units: metres.
"""

import numpy as np

from .scene_objects import SceneObject, may_be_confused, same_name
from .spatial_facts import (
    closest_of,
    height_range,
    is_above,
    is_next_to,
    is_whole,
    share_footprint,
    side_in_view,
    visible_items,
)
from .task_scene import CannotAskError, TaskScene, draw_one, remembered


@remembered
def find_anchors(scene: TaskScene, view: int | None = None) -> list[SceneObject]:
    """The objects, visible in a view or in any, that their bare name singles out."""
    return [item for item in visible_items(scene, view) if not scene.objects.rivals[item.index]]


@remembered
def names_of(scene: TaskScene, item: SceneObject) -> list[str]:
    """All phrases of ours that fit one object only, among all that may be seen in some view.

    Args:
        scene (`TaskScene`), item (`SceneObject`): visible in some view.
    Returns:
        `list[str]`: "the sofa", or for instance "the chair closest to the sofa"; empty where nothing tells it apart.
    """
    rivals = scene.objects.rivals[item.index]
    if not rivals:
        return [f"the {item.name}"]
    found = []
    everyone = [item, *rivals]
    for anchor in find_anchors(scene):
        is_kin = same_name(anchor.kind, item.kind, scene.margins.name_groups)
        if not is_kin and closest_of(scene, everyone, anchor) is item:
            found.append(f"the {item.name} closest to the {anchor.name}")
    if scene.has_up:
        heights = {other.index: np.ptp(height_range(scene, other)) for other in everyone}
        rest = max(heights[other.index] for other in rivals)
        if heights[item.index] >= scene.margins.size_ratio * rest:
            found.append(f"the tallest {item.name}")
    sides = _sides_in_first(scene, item, rivals)
    if sides == {"left"}:
        found.append(f"the leftmost {item.name} in the first frame")
    elif sides == {"right"}:
        found.append(f"the rightmost {item.name} in the first frame")
    return found


def _sides_in_first(scene, item, rivals):
    """Where the first frame shows an object relative to those it could be taken for; {None} if that is not clear."""
    objects = scene.objects
    if not objects.is_visible[item.index, 0]:
        return {None}
    shown = [other for other in rivals if not objects.is_absent[other.index, 0]]
    if not all(objects.is_visible[other.index, 0] for other in shown):
        return {None}
    return {side_in_view(scene, item, other, 0) for other in shown}


def name_objects(scene: TaskScene, items: list[SceneObject], rng: np.random.Generator) -> dict[int, str]:
    """A phrase for each of the objects that can be singled out, by their index."""
    phrases = {item.index: names_of(scene, item) for item in items}
    return {index: draw_one(found, rng, "") for index, found in phrases.items() if found}


def named_items(scene: TaskScene, rng: np.random.Generator, fewest: str) -> tuple[list[SceneObject], dict[int, str]]:
    """The clearly visible objects that words single out, and these words; CannotAskError below "two" or "three"."""
    items = visible_items(scene, clear=True)
    names = name_objects(scene, items, rng)
    if len(names) < {"two": 2, "three": 3}[fewest]:
        raise CannotAskError(f"fewer than {fewest} visible objects are singled out by a description")
    return [item for item in items if item.index in names], names


def describe(scene: TaskScene, item: SceneObject, rng: np.random.Generator) -> str | None:
    """Words that single out an object, often with its size and a clause on its place; None where nothing does."""
    names = names_of(scene, item)
    if not names:
        return None
    name, size = draw_one(names, rng, ""), item.attributes.get("size")
    add_place = rng.random() < 0.5
    if name != f"the {item.name}":
        return name
    if size and rng.random() < 0.5:
        name = f"the {size} {item.name}"
    clauses = place_clauses(scene, item) if add_place else None
    return f"{name} {draw_one(clauses, rng, '')}" if clauses else name


@remembered
def place_clauses(scene: TaskScene, item: SceneObject) -> list[str]:
    """True clauses about where an object is, relative to those that their name singles out; in a fixed order."""
    anchors = [anchor for anchor in find_anchors(scene) if anchor is not item]
    groups = scene.margins.name_groups
    anchors = [anchor for anchor in anchors if not may_be_confused(anchor, item, groups)]
    found = []
    for anchor in anchors:
        if scene.has_up and share_footprint(scene, item, anchor):
            if is_above(scene, item, anchor):
                found.append(f"above the {anchor.name}")
            elif is_above(scene, anchor, item):
                found.append(f"below the {anchor.name}")
        elif is_next_to(scene, item, anchor):
            found.append(f"next to the {anchor.name}")
        both_in_first = scene.objects.is_visible[[item.index, anchor.index], 0].all()
        side = side_in_view(scene, item, anchor, 0) if both_in_first else None
        if side is not None:
            found.append(f"to the {side} of the {anchor.name} in the first frame")
    if "place" in item.attributes:
        found.append(item.attributes["place"])
    return found


def captions(scene: TaskScene, item: SceneObject) -> list[str]:
    """True sentences about one object: what it is, where it stands, how tall it is; none if its place is not clear."""
    clauses = place_clauses(scene, item)
    if not clauses:
        return []
    height = f"{np.ptp(height_range(scene, item)):.1f}" if scene.has_up and is_whole(scene, item) else "0.0"
    is_tall_enough = float(height) >= 0.2
    size = item.attributes.get("size")
    name = item.name if size is None else f"{size} {item.name}"
    name = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    where = clauses[0] if len(clauses) == 1 else f"{clauses[0]} and {clauses[-1]}"
    sentences = [f"This is {name}. It is {where}."]
    if size and item.color:
        sentences.append(f"The {item.kind} is {item.color} and {size}. It is {where}.")
    if is_tall_enough:
        sentences.append(f"This is {name}, about {height} metres tall. It is {where}.")
    sentences += [f"{name[0].upper()}{name[1:]} that is {clause}." for clause in clauses]
    return sentences
