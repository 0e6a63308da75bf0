"""Numbers and orders: distances, gaps, sizes, counts, what is nearest, which point is how far.

Frame: camera of view 0. Units: metres, and centimetres where the question says so. Distances between objects are those
of their boxes, and the questions say whether from middle to middle or between the nearest points.
"""

from itertools import permutations

import numpy as np

from .descriptions import find_anchors, name_objects, named_items
from .pixels import draw_mark, draw_marks
from .scene_objects import same_name
from .spatial_facts import closest_of, height_range, is_less_far, is_nearer, is_whole, visible_items
from .task_scene import CannotAskError, Draft, TaskScene, draw_one, draw_some, view_name
from .templates import choice_answer, count_answer, number_answer


MAX_OPTIONS = 4
NUM_ORDERED = (3, 2)  # points of a depth order, the second where no three are clear
_DRAWS = 12


def ask_camera_distance(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """How far a marked point is from the camera that sees it, along a straight line."""
    (color,) = scene.draw_colors(rng, 1)
    mark = draw_mark(scene, rng, color, scene.measured)
    if mark is None:
        raise CannotAskError("no pixel is away from depth edges and the border")
    distance = float(np.linalg.norm(mark.xyz - scene.cameras[mark.view].center))
    return _number_draft("camera_distance", {"color": color}, distance, "metres", 2, rng, marks=[mark])


def ask_point_distance(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """How far apart two marked points are, of one view or of two."""
    first, second = scene.draw_colors(rng, 2)
    marks = draw_marks(scene, rng, [first, second])
    distance = float(np.linalg.norm(marks[0].xyz - marks[1].xyz)) if len(marks) == 2 else 0
    if distance < scene.margins.distance_m:
        raise CannotAskError("no pixels are far enough apart")
    words = {"first": first, "second": second}
    return _number_draft("point_distance", words, distance, "metres", 2, rng, marks=marks)


def _number_draft(kind, words, value, unit, decimals, rng, **fields):
    facts = {"value": value, "unit": unit}
    return Draft("spatial_qa", kind, kind, words, **number_answer(value, unit, decimals, rng), facts=facts, **fields)


def named_pair(scene: TaskScene, rng: np.random.Generator, is_wanted):
    """Two clearly visible objects that words single out, for which `is_wanted(a, b)`; and these words."""
    items, names = named_items(scene, rng, "two")
    pairs = [(a, b) for a, b in permutations(items, 2) if is_wanted(a, b)]
    a, b = draw_one(pairs, rng, "no two objects are far enough apart")
    return a, b, {"first": names[a.index], "second": names[b.index]}


def ask_object_distance(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Distance between the middles of two objects' boxes."""

    def distance(a, b):
        return float(np.linalg.norm(a.solid.center - b.solid.center))

    a, b, words = named_pair(scene, rng, lambda a, b: distance(a, b) >= scene.margins.distance_m)
    return _number_draft("object_distance", words, distance(a, b), "metres", 2, rng, inputs=[a, b])


def ask_object_gap(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Smallest distance between the boxes of two objects."""
    gap = scene.objects.gap
    a, b, words = named_pair(scene, rng, lambda a, b: gap(a, b) >= scene.margins.distance_m)
    return _number_draft("object_gap", words, gap(a, b), "metres", 2, rng, inputs=[a, b])


def ask_closest_object(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Which of several objects has the smallest gap to another."""
    items, names = named_items(scene, rng, "three")
    for _ in range(_DRAWS):
        order = draw_some(items, len(items), rng)
        anchor, options = order[0], order[1 : 1 + MAX_OPTIONS]
        options = [item for item in options if anchor.name not in names[item.index]]
        best = closest_of(scene, options, anchor) if len(options) > 1 else None
        if best is not None:
            others = [names[item.index] for item in options if item is not best]
            gaps = {names[item.index]: scene.objects.gap(item, anchor) for item in options}
            return Draft(
                "spatial_qa",
                "closest_object",
                "closest_object",
                {"anchor": names[anchor.index]},
                **choice_answer(names[best.index], others, rng),
                inputs=[anchor, *options],
                facts={"gaps": gaps},
            )
    raise CannotAskError("no object is clearly the closest to another")


def _whole_named(scene, rng):
    items = [item for item in visible_items(scene, clear=True) if is_whole(scene, item)]
    if not items:
        raise CannotAskError("no view holds the whole of a clearly visible object")
    names = name_objects(scene, items, rng)
    item = draw_one(
        [item for item in items if item.index in names], rng, "no whole object is singled out by a description"
    )
    return item, names[item.index]


def ask_object_size(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """The longest side of an object's box, in centimetres."""
    item, name = _whole_named(scene, rng)
    size = float(2 * item.solid.half.max())
    return _number_draft("object_size", {"name": name}, 100 * size, "centimetres", 0, rng, inputs=[item])


def ask_object_height(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """How tall an upright box is along gravity, in centimetres."""
    up = scene.up
    item, name = _whole_named(scene, rng)
    if item.solid.tilt_deg(up) > scene.margins.upright_deg:
        raise CannotAskError("the box does not stand upright")
    height = float(np.ptp(height_range(scene, item)))
    return _number_draft("object_height", {"name": name}, 100 * height, "centimetres", 0, rng, inputs=[item])


def ask_object_count(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """How many objects of a name are visible; not asked where one is hardly visible or goes by a related name."""
    objects = scene.all_seen
    present = [item for item in objects.items if objects.is_present[item.index]]
    names = []
    for name in sorted({item.kind for item in present}):
        kin = [item for item in present if same_name(item.kind, name, scene.margins.name_groups)]
        if all(item.kind == name and objects.is_visible[item.index].any() for item in kin):
            names.append(name)
    name = draw_one(names, rng, "of every name an object is hardly visible, or has a related name")
    counted = [item for item in present if item.kind == name]
    return Draft(
        "spatial_qa",
        "object_count",
        "object_count",
        {"name": name},
        **count_answer(len(counted), rng),
        targets=counted,
        facts={"value": len(counted), "unit": "objects"},
    )


def ask_depth_order(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Three marked points of one view from near to far, or two; clear by depth and along straight lines."""
    drawn = scene.draw_colors(rng, max(NUM_ORDERED))
    for colors in (drawn[:count] for count in NUM_ORDERED for _ in range(_DRAWS)):
        camera = scene.measured[int(rng.integers(len(scene.measured)))]
        marks = []
        for color in colors:
            mark = draw_mark(scene, rng, color, [camera], None, tuple(marks))
            if mark is not None:
                marks.append(mark)
        if len(marks) < len(colors):
            continue
        depths = {mark.color: float(camera.depth_at(np.array(mark.pixel, np.float64))) for mark in marks}
        straight = {mark.color: float(np.linalg.norm(mark.xyz - camera.center)) for mark in marks}
        order = sorted(colors, key=depths.get)
        steps = list(zip(order, order[1:], strict=False))
        if all(is_less_far(scene, far[a], far[b]) for far in (depths, straight) for a, b in steps):
            others = [", ".join(wrong) for wrong in permutations(order) if list(wrong) != order]
            others = draw_some(others, MAX_OPTIONS - 1, rng)
            return Draft(
                "spatial_qa",
                "depth_order",
                "depth_order",
                {"view": view_name(camera.index), "colors": ", ".join(colors)},
                **choice_answer(", ".join(order), others, rng),
                marks=marks,
                named_views=[camera.index],
                facts={"depths": depths},
            )
    raise CannotAskError("no two pixels of a view lie clearly behind each other")


def ask_nearest_object(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Which object is nearest to the camera of a view: all that is seen of it is nearer than all of the others."""
    found = []
    for camera in scene.measured:
        shown = find_anchors(scene, camera.index)
        for item in shown:
            others = [other for other in shown if other is not item and is_nearer(scene, item, other, camera.index)]
            if others:
                found.append((camera.index, item, others))
    view, item, others = draw_one(found, rng, "no object is clearly nearer to a camera than another")
    others = draw_some(others, MAX_OPTIONS - 1, rng)
    return Draft(
        "spatial_qa",
        "nearest_object",
        "nearest_object",
        {"view": view_name(view)},
        **choice_answer(f"the {item.name}", [f"the {other.name}" for other in others], rng),
        inputs=[item, *others],
        named_views=[view],
        facts={"view": view},
    )


MEASUREMENT_MAKERS = {
    "camera_distance": ask_camera_distance,
    "point_distance": ask_point_distance,
    "depth_order": ask_depth_order,
    "object_distance": ask_object_distance,
    "object_gap": ask_object_gap,
    "closest_object": ask_closest_object,
    "object_size": ask_object_size,
    "object_height": ask_object_height,
    "object_count": ask_object_count,
    "nearest_object": ask_nearest_object,
}
