"""Which view shows what: objects in views, first appearances, what hides what, and one point found again.

What is neither surely visible nor surely absent is not asked about. Frame: camera of view 0. Units: metres.
"""

from itertools import permutations

import numpy as np

from .descriptions import find_anchors
from .pixels import draw_mark, is_apart
from .scene_objects import may_be_confused
from .task_scene import CannotAskError, Draft, Marked, TaskScene, draw_one, draw_some, view_name
from .templates import choice_answer


MAX_OPTIONS = 4
NUM_ORDERED = 3  # objects in an order of appearance
_DRAWS = 12


def ask_object_view(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Which of several objects a view shows: one that is clear there, others that only other views show."""
    objects, groups = scene.objects, scene.margins.name_groups
    found = []
    for camera in scene.measured:
        here = camera.index
        shown = [item for item in objects.items if objects.is_clear[item.index, here]]
        unsure = [item for item in objects.items if not objects.is_absent[item.index, here]]
        elsewhere = [item for item in objects.items if objects.is_visible[item.index].any() and item not in unsure]
        gone = sorted(
            {item.name for item in elsewhere if not any(may_be_confused(item, other, groups) for other in unsure)}
        )
        if gone:
            found += [(here, item, gone) for item in shown]
    view, item, gone = draw_one(found, rng, "no view lacks an object that another view shows")
    others = draw_some(gone, MAX_OPTIONS - 1, rng)
    return Draft(
        "spatial_qa",
        "object_view",
        "object_view",
        {"view": view_name(view)},
        **choice_answer(item.name, others, rng),
        inputs=[item],
        named_views=[view],
        facts={"view": view, "share": float(objects.share[item.index, view])},
    )


def ask_view_of_object(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Which of several views shows an object: clear in one of them, absent from the others."""
    objects = scene.objects
    found = []
    for item in find_anchors(scene):
        absent = [int(view) for view in np.flatnonzero(objects.is_absent[item.index])]
        if absent:
            found += [(item, int(view), absent) for view in np.flatnonzero(objects.is_clear[item.index])]
    item, view, absent = draw_one(found, rng, "no object is clear in one view and absent from another")
    others = sorted(draw_some(absent, MAX_OPTIONS - 1, rng))
    answer = choice_answer(f"Frame-{view}", [f"Frame-{other}" for other in others], rng)
    return Draft(
        "spatial_qa",
        "view_of_object",
        "view_of_object",
        {"name": f"the {item.name}"},
        **answer,
        inputs=[item],
        named_views=[view, *others],
        number_views=True,
        facts={"view": view, "absent": absent},
    )


def _first_view(objects, item) -> int | None:
    """The view in which an object appears; None if an earlier one may show it."""
    visible = np.flatnonzero(objects.is_visible[item.index])
    if len(visible) and objects.is_absent[item.index, : visible[0]].all():
        return int(visible[0])
    return None


def ask_appearance_order(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """In which order three objects appear, each first in another view."""
    objects = scene.objects
    by_view = {}
    for item in find_anchors(scene):
        view = _first_view(objects, item)
        if view is not None:
            by_view.setdefault(view, []).append(item)
    if len(by_view) < NUM_ORDERED:
        raise CannotAskError("fewer than three objects appear one after the other")
    views = sorted(draw_some(sorted(by_view), NUM_ORDERED, rng))
    order = [draw_one(by_view[view], rng, "") for view in views]
    names = [f"the {item.name}" for item in order]
    wrong = [", ".join(other) for other in permutations(names) if list(other) != names]
    return Draft(
        "spatial_qa",
        "appearance_order",
        "appearance_order",
        {"names": ", ".join(draw_some(names, NUM_ORDERED, rng))},
        **choice_answer(", ".join(names), draw_some(wrong, MAX_OPTIONS - 1, rng), rng),
        inputs=order,
        facts={"views": dict(zip((item.label for item in order), views, strict=True))},
    )


def hidden_shares(scene: TaskScene, item, view: int) -> dict[int, float]:
    """Return which objects hide an object from a view, and how much of it.

    Points that other views show of the object are looked at from this view; where a nearer point is measured, the
    object that it belongs to hides them.

    Args:
        scene (`TaskScene`), item (`SceneObject`), view (`int`)
    Returns:
        `dict` from the index of a hiding object to its share of the points that fall into the picture.
    """
    objects, camera = scene.objects, scene.cameras[view]
    seen = [objects.seen_points(item, other.index) for other in scene.measured if other.index != view]
    points = np.concatenate(seen) if seen else np.zeros((0, 3))
    pixels, depth = camera.project(points)
    is_inside = camera.is_inside(pixels)
    if not is_inside.any():
        return {}
    pixels, depth = pixels[is_inside], depth[is_inside]
    is_hidden = camera.depth_at(pixels) + scene.margins.depth_gap_m <= depth
    width, height = objects.owners[view].shape[::-1]
    cells = np.floor(pixels[is_hidden] / camera.stride).astype(int).clip(0, (width - 1, height - 1))
    owners = objects.owners[view][cells[:, 1], cells[:, 0]]
    indices, counts = np.unique(owners[(owners >= 0) & (owners != item.index)], return_counts=True)
    return {int(index): float(count) / len(pixels) for index, count in zip(indices, counts, strict=True)}


def ask_occlusion(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Which object hides a part of another from a view; what is hidden is known from the other views."""
    margins, found = scene.margins, []
    for camera in scene.measured:
        shown = find_anchors(scene, camera.index)
        for item in shown:
            shares = hidden_shares(scene, item, camera.index)
            hiding = [other for other in shown if shares.get(other.index, 0) >= margins.hidden_share]
            free = [other for other in shown if other is not item and shares.get(other.index, 0) <= margins.free_share]
            if len(hiding) == 1 and free:
                found.append((camera.index, item, hiding[0], free, shares[hiding[0].index]))
    view, item, other, free, share = draw_one(found, rng, "no object clearly hides a part of another")
    free = draw_some(free, MAX_OPTIONS - 1, rng)
    return Draft(
        "spatial_qa",
        "occlusion",
        "occlusion",
        {"view": view_name(view), "name": f"the {item.name}"},
        **choice_answer(f"the {other.name}", [f"the {wrong.name}" for wrong in free], rng),
        inputs=[item, other, *free],
        named_views=[view],
        facts={"view": view, "hidden_share": share},
    )


def find_again(scene: TaskScene, mark: Marked, view: int) -> tuple[int, int] | None:
    """The whole pixel of another view that shows a marked point; None where it is hidden, unsure or outside."""
    camera = scene.cameras[view]
    pixel, _ = camera.project(mark.xyz)
    if not camera.is_inside(pixel):
        return None
    pixel = np.rint(pixel)
    if not camera.is_markable(pixel):
        return None
    distance = np.linalg.norm(camera.points_at(pixel) - mark.xyz)
    if distance > scene.margins.edge_bend * camera.depth_at(pixel):
        return None
    return int(pixel[0]), int(pixel[1])


def ask_point_match(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Which cross of one view marks the point under the red cross of another."""
    cameras = scene.measured
    if len(cameras) < 2:
        raise CannotAskError("fewer than two views have both a pose and a depth map")
    colors = scene.draw_colors(rng, MAX_OPTIONS - 1, besides="red")
    for _ in range(_DRAWS):
        before, after = draw_some(cameras, 2, rng)
        mark = draw_mark(scene, rng, "red", [before])
        pixel = find_again(scene, mark, after.index) if mark is not None else None
        if pixel is None:
            continue
        marks = [Marked(after.index, pixel, mark.xyz, colors[0])]
        if not is_apart(scene, marks[0]):
            continue
        for color in colors[1:]:
            other = draw_mark(scene, rng, color, [after], None, tuple(marks))
            marks += [] if other is None else [other]
        if len(marks) < 2:
            continue
        words = {"before": view_name(before.index), "after": view_name(after.index)}
        others = [other.color for other in marks[1:]]
        return Draft(
            "spatial_qa",
            "point_match",
            "point_match",
            words,
            **choice_answer(colors[0], others, rng),
            marks=[mark, *marks],
            named_views=[before.index, after.index],
            facts={"views": [before.index, after.index]},
        )
    raise CannotAskError("no marked point was found again in another view")


VISIBILITY_MAKERS = {
    "object_view": ask_object_view,
    "view_of_object": ask_view_of_object,
    "appearance_order": ask_appearance_order,
    "occlusion": ask_occlusion,
    "point_match": ask_point_match,
}
