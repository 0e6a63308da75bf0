"""How the camera moved between two views: direction and length of its path, direction and angle of its turn.

Also which of several views was taken farthest from another. Directions are those of the camera of the earlier view.
Frame: OpenCV axes. Units: metres, degrees.
"""

import numpy as np

from ...camera_geometry_gap_mllm import invert_rigid
from .task_scene import CannotAskError, Draft, TaskScene, draw_one, draw_some, view_name
from .templates import choice_answer, number_answer


MAX_OPTIONS = 4  # of the views that may be the farthest
_PATHS = (("to the left", "to the right"), ("up", "down"), ("backward", "forward"))  # along x, y, z, minus then plus
_TURNS = (("to the left", "to the right"), ("down", "up"))  # yaw and pitch, minus then plus


def motion_between(scene: TaskScene, before: int, after: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return how one camera stands to another.

    Frame: camera of view `before`. Units: metres, degrees.

    Args:
        scene (`TaskScene`), before (`int`), after (`int`): views with a pose.
    Returns:
        `tuple` of the path `(3,)`; yaw and pitch `(2,)` of the viewing direction, to the right and up; and the angle
        between the two viewing directions.
    """
    cameras = scene.cameras
    motion = invert_rigid(cameras[before].to_first) @ cameras[after].to_first
    x, y, z = motion[:3, 2]
    turn = np.degrees([np.arctan2(x, z), np.arctan2(-y, np.hypot(x, z))])
    return motion[:3, 3], turn, float(np.degrees(np.arctan2(np.hypot(x, y), z)))


def _pairs(scene: TaskScene):
    views = [camera.index for camera in scene.cameras if camera is not None]
    if len(views) < 2:
        raise CannotAskError("fewer than two views have a pose")
    return [(a, b) for a in views for b in views if a < b]


def _draft(kind, pair, answer, facts):
    words = {"before": view_name(pair[0]), "after": view_name(pair[1])}
    return Draft("spatial_qa", kind, kind, words, **answer, named_views=list(pair), facts={"views": pair, **facts})


def _main_word(values, names, dominance):
    """The name of the direction that outweighs the others, and the names of the rest; None if none does."""
    sizes = np.abs(values)
    axis = int(np.argmax(sizes))
    if sizes[axis] < dominance * np.delete(sizes, axis).max():
        return None
    true = names[axis][int(values[axis] > 0)]
    return true, [name for pair in names for name in pair if name != true]


def ask_camera_motion(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """In which direction the camera moved, as seen by its earlier self."""
    found = []
    for pair in _pairs(scene):
        path, _, _ = motion_between(scene, *pair)
        told = _main_word(path, _PATHS, scene.margins.dominance)
        if told is not None and np.linalg.norm(path) >= scene.margins.move_m:
            found.append((pair, told, path))
    pair, (true, others), path = draw_one(found, rng, "the camera does not clearly move in one direction")
    answer = choice_answer(true, draw_some(others, 3, rng), rng)
    return _draft("camera_motion", pair, answer, {"path": path.tolist()})


def ask_camera_turn(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """In which direction the camera turned."""
    found = []
    for pair in _pairs(scene):
        _, turn, angle = motion_between(scene, *pair)
        told = _main_word(turn, _TURNS, scene.margins.dominance)
        if told is not None and scene.margins.turn_deg <= angle <= scene.margins.max_turn_deg:
            found.append((pair, told, turn))
    pair, (true, others), turn = draw_one(found, rng, "the camera does not clearly turn in one direction")
    return _draft("camera_turn", pair, choice_answer(true, others, rng), {"turn_deg": turn.tolist()})


def ask_camera_path(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """How far apart two cameras are."""
    lengths = {pair: float(np.linalg.norm(motion_between(scene, *pair)[0])) for pair in _pairs(scene)}
    found = [(pair, length) for pair, length in lengths.items() if length >= scene.margins.move_m]
    pair, length = draw_one(found, rng, "the camera hardly moves")
    answer = number_answer(length, "metres", 2, rng)
    return _draft("camera_path", pair, answer, {"value": length, "unit": "metres"})


def ask_camera_angle(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """The angle between two viewing directions."""
    angles = {pair: motion_between(scene, *pair)[2] for pair in _pairs(scene)}
    found = [(pair, angle) for pair, angle in angles.items() if angle >= scene.margins.turn_deg]
    pair, angle = draw_one(found, rng, "the camera hardly turns")
    answer = number_answer(angle, "degrees", 0, rng)
    return _draft("camera_angle", pair, answer, {"value": angle, "unit": "degrees"})


def ask_farthest_view(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Which of several views was taken farthest from another one."""
    views = [camera.index for camera in scene.cameras if camera is not None]
    if len(views) < 3:
        raise CannotAskError("fewer than three views have a pose")
    lengths = {(a, b): float(np.linalg.norm(motion_between(scene, a, b)[0])) for a in views for b in views if a != b}
    found = []
    for (base, view), length in lengths.items():
        limit = min(length / scene.margins.closer_ratio, length - scene.margins.move_m)
        nearer = [other for other in views if lengths.get((base, other), np.inf) <= limit]
        if nearer:
            found.append((base, view, nearer))
    base, farthest, nearer = draw_one(found, rng, "no view is clearly farther from another than a third")
    others = sorted(nearer[int(place)] for place in rng.permutation(len(nearer))[: MAX_OPTIONS - 1])
    return Draft(
        "spatial_qa",
        "farthest_view",
        "farthest_view",
        {"view": view_name(base)},
        **choice_answer(f"Frame-{farthest}", [f"Frame-{other}" for other in others], rng),
        named_views=[base, farthest, *others],
        number_views=True,
        facts={"view": base, "distances": {view: lengths[base, view] for view in (farthest, *others)}},
    )


CAMERA_MAKERS = {
    "camera_motion": ask_camera_motion,
    "camera_turn": ask_camera_turn,
    "camera_path": ask_camera_path,
    "camera_angle": ask_camera_angle,
    "farthest_view": ask_farthest_view,
}
