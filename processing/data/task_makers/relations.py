"""Where one object is relative to another: left or right, nearer or farther, above or below, and as seen by a person.

Left and right are those of the picture of the view that the question names; above follows gravity and is asked only
where the aligned world is known. Frame: camera of view 0. Units: metres, degrees.
"""

from itertools import permutations

import numpy as np

from .descriptions import find_anchors, named_items
from .scene_objects import SceneObject
from .spatial_facts import is_above, is_nearer, share_footprint, share_x, side_in_view
from .task_scene import CannotAskError, Draft, TaskScene, draw_one, view_name
from .templates import choice_answer


_DRAWS = 500


def _pairs_in_views(scene: TaskScene):
    """(view, a, b) for all pairs of visible objects with names of their own, in both orders."""
    views = [camera.index for camera in scene.measured]
    found = [(view, a, b) for view in views for a, b in permutations(find_anchors(scene, view), 2)]
    if not found:
        raise CannotAskError("no view shows two objects that their names single out")
    return found


def _draft(kind, question_type, a, b, answer, view, facts):
    words = {"first": f"the {a.name}", "second": f"the {b.name}"}
    if view is not None:
        words["view"] = view_name(view)
    views = [] if view is None else [view]
    return Draft("spatial_qa", question_type, kind, words, **answer, inputs=[a, b], named_views=views, facts=facts)


def ask_left_right(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """On which side of one object another appears in the picture of a view."""
    found = []
    for view, a, b in _pairs_in_views(scene):
        side = side_in_view(scene, a, b, view)
        if side is not None:
            found.append((view, a, b, side))
    view, a, b, side = draw_one(found, rng, "no object is clearly to one side of another")
    options = {"left": "to the left", "right": "to the right"}
    answer = choice_answer(options.pop(side), list(options.values()), rng)
    return _draft("left_right", "left_right", a, b, answer, view, {"view": view, "relation": side})


def ask_front_behind(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Which of two objects is nearer to the camera of a view; "in front of" where one is before the other."""
    found = [(view, a, b) for view, a, b in _pairs_in_views(scene) if is_nearer(scene, a, b, view)]
    view, near, far = draw_one(found, rng, "no object is clearly nearer to a camera than another")
    is_lined_up = share_x(scene, near, far, view)
    options = ["in front of it", "behind it"] if is_lined_up else ["nearer", "farther away"]
    kind = "front_behind" if is_lined_up else "near_far"
    a, b = (near, far) if rng.random() < 0.5 else (far, near)
    true = options[0] if a is near else options[1]
    answer = choice_answer(true, [option for option in options if option != true], rng)
    return _draft(kind, "front_behind", a, b, answer, view, {"view": view, "nearer": near.label})


def ask_above_below(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Which of two objects begins where the other ends, or higher; "above" where it is straight over the other.

    Things on one floor are neither, so rendered rooms, whose furniture all stands on it, are never asked this.
    """
    _ = scene.up
    anchors = find_anchors(scene)
    found = [(a, b) for a, b in permutations(anchors, 2) if is_above(scene, a, b)]
    high, low = draw_one(found, rng, "no object is clearly above another")
    is_over = share_footprint(scene, high, low)
    options = ["above", "below"] if is_over else ["higher", "lower"]
    a, b = (high, low) if rng.random() < 0.5 else (low, high)
    true = options[0] if a is high else options[1]
    answer = choice_answer(true, [option for option in options if option != true], rng)
    kind = "above_below" if is_over else "higher_lower"
    return _draft(kind, "above_below", a, b, answer, None, {"higher": high.label})


def direction_from(scene: TaskScene, position: SceneObject, facing: SceneObject, target: SceneObject) -> float | None:
    """Angle at which `target` lies for one who stands at `position` and faces `facing`, in degrees.

    Seen from above: 0 straight ahead, 90 to the right, -90 to the left. None if two middles are nearer to each other
    than `margins.distance_m`, seen from above.
    """
    up = scene.up
    ahead, there = (item.solid.center - position.solid.center for item in (facing, target))
    ahead, there = ahead - up * (up @ ahead), there - up * (up @ there)
    if min(np.linalg.norm(ahead), np.linalg.norm(there)) < scene.margins.distance_m:
        return None
    right = np.cross(ahead, up)
    return float(np.degrees(np.arctan2(there @ right / np.linalg.norm(right), there @ ahead / np.linalg.norm(ahead))))


def _direction_word(angle: float, margin: float) -> tuple[str, list[str]] | None:
    """The quadrant of an angle and the others; None within the margin of a border between two."""
    if min(abs(abs(angle) - border) for border in (0, 90, 180)) < margin:
        return None
    words = ["front-left", "front-right", "back-left", "back-right"]
    true = f"{'front' if abs(angle) < 90 else 'back'}-{'right' if angle > 0 else 'left'}"
    return true, [word for word in words if word != true]


def ask_facing_direction(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """In which quadrant an object lies for one who stands at a second and faces a third."""
    _ = scene.up
    items, names = named_items(scene, rng, "three")
    for place in rng.permutation(len(items) ** 3)[:_DRAWS]:
        trio = [items[int(index)] for index in np.unravel_index(int(place), (len(items),) * 3)]
        angle = direction_from(scene, *trio) if len({item.index for item in trio}) == 3 else None
        told = None if angle is None else _direction_word(angle, scene.margins.direction_deg)
        if told is not None:
            words = dict(zip(("position", "facing", "target"), (names[item.index] for item in trio), strict=True))
            return Draft(
                "spatial_qa",
                "facing_direction",
                "facing_direction",
                words,
                **choice_answer(*told, rng),
                inputs=trio,
                facts={"angle_deg": angle},
            )
    raise CannotAskError("no direction is far enough from the border to the next")


RELATION_MAKERS = {
    "left_right": ask_left_right,
    "front_behind": ask_front_behind,
    "above_below": ask_above_below,
    "facing_direction": ask_facing_direction,
}
