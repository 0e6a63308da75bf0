"""What stands where in a rendered room: its size, its furniture and the path of a hand-held camera. No pixels.

Everything follows from one integer, the seed. The appearance is drawn from a second stream of the same seed
(appearance.py), so surfaces can be changed without moving a camera.
"""

from dataclasses import dataclass

import numpy as np

from .furniture import FURNITURE, SHAPES, Part, build_furniture, build_shape
from .styles import USUAL_WALK, RoomStyle


# Disjoint seeds: what is trained on, what choices are made on, what is reported.
SPLIT_SEEDS = {
    "train": range(0, 1_000_000),
    "selection": range(1_000_000, 1_100_000),
    "test": range(1_100_000, 1_200_000),
}
COLOR_NAMES = ("red", "yellow", "green", "blue", "purple", "brown", "white", "black")

LAYOUT_STREAM = 0  # the appearance uses stream 1, questions stream 2
CAMERA_CLEARANCE = 0.4  # metres between a camera and anything
GAP = 0.04  # metres between two pieces of furniture
MAX_ATTEMPTS = 200
OPEN_RANGE = 10.0  # metres of z-depth that are known where there are no walls

_CATEGORIES = tuple(FURNITURE)
_WEIGHTS = (0.08, 0.08, 0.14, 0.17, 0.09, 0.09, 0.1, 0.08, 0.08, 0.09)
_BACK_TO_WALL = {"bed": 0.8, "cabinet": 0.9, "shelf": 0.9, "sofa": 0.7, "desk": 0.7}  # probability


@dataclass
class Furniture:
    """One piece of furniture in its place.

    Frame: world, +z up, floor at z = 0. Units: metres, radians.

    Args:
        label (`str`): category, a key of `furniture.FURNITURE`.
        color (`str`): one of `COLOR_NAMES`; (color, label) is unique in a room.
        parts (`list[Part]`): primitives in the frame of the piece.
        center (`numpy.ndarray` of shape `(3,)`): middle of the tight box.
        size (`numpy.ndarray` of shape `(3,)`): full size of the tight box along its own axes.
        yaw (`float`): rotation about +z; 0 means that its back looks along +y.
    """

    label: str
    color: str
    parts: list[Part]
    center: np.ndarray
    size: np.ndarray
    yaw: float

    @property
    def box(self) -> np.ndarray:
        """The 9-DoF box, `(9,)`: centre, full size, Euler angles "zxy" (z first), in the world."""
        return np.concatenate([self.center, self.size, [self.yaw, 0.0, 0.0]])


@dataclass
class RoomLayout:
    """A furnished room and the cameras that look at it.

    Frame: world, +z up, one floor corner at the origin, walls along x and y. Cameras: OpenCV (+x right, +y down,
    +z forward). Units: metres; `intrinsics` in pixels, integer pixel centres.

    Args:
        seed (`int`): the seed that it was drawn from.
        size (`numpy.ndarray` of shape `(3,)`): extent of the room.
        block (`numpy.ndarray` of shape `(6,)`, *optional*): a protruding piece of wall, lowest then highest corner.
        furniture (`list[Furniture]`): three to seven pieces.
        intrinsics (`numpy.ndarray` of shape `(V, 3, 3)`, float64).
        camera_to_world (`numpy.ndarray` of shape `(V, 4, 4)`, float64).
        style (`RoomStyle`, *optional*): what it was drawn with.
        is_open (`bool`, defaults to False): whether its walls stand far away and its depth ends at `OPEN_RANGE`.
    """

    seed: int
    size: np.ndarray
    block: np.ndarray | None
    furniture: list[Furniture]
    intrinsics: np.ndarray
    camera_to_world: np.ndarray
    style: RoomStyle | None = None
    is_open: bool = False


def room_seed(split: str, index: int, attempt: int = 0) -> int:
    """Return the seed of room number `index` of a split; seeds of different splits never meet.

    Args:
        split (`str`): "train", "selection" or "test".
        index (`int`): number of the room, from 0.
        attempt (`int`, defaults to 0): 1, 2, .. name other rooms of the split, drawn by chance, to stand in for it.
    Returns:
        `int`: the seed for `make_layout` and `render_room`.
    Raises:
        ValueError: if the split is unknown or the index lies outside its range.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room, room_seed
        >>> room = render_room(room_seed("test", 0))  # the first room of the test split

        ```
    """
    if split not in SPLIT_SEEDS:
        raise ValueError(f"split is {split!r}; expected one of {list(SPLIT_SEEDS)}.")
    seeds = SPLIT_SEEDS[split]
    if not 0 <= index < len(seeds):
        raise ValueError(f"index is {index}; split {split!r} holds rooms 0 to {len(seeds) - 1}.")
    if attempt:
        index = int(np.random.default_rng((seeds.start, index, attempt)).integers(len(seeds)))
    return seeds[index]


def make_layout(
    seed: int, num_views: int = 4, height: int = 128, width: int = 128, style: RoomStyle | None = None
) -> RoomLayout:
    """Draw a furnished room with cameras inside.

    Frame: world, +z up. Units: metres. Source: our choice (the paper trains on ScanNet; the ranges here are those of
    hand-held scans of ordinary rooms).

    Args:
        seed (`int`): same seed and same arguments, same room.
        num_views (`int`, defaults to 4): cameras on the path.
        height (`int`, defaults to 128), width (`int`, defaults to 128): image size in pixels.
        style (`RoomStyle`, *optional*): how the room leaves the usual.
    Returns:
        `RoomLayout`.
    Raises:
        ValueError: if the seed is negative, `num_views` is below 1 or an image side is below 8 pixels.
        RuntimeError: if no camera path fits into the room (too many views).

    Example:
        ```python
        >>> from gap_mllm.processing.data import make_layout
        >>> layout = make_layout(0, num_views=2)
        >>> layout.camera_to_world.shape
        (2, 4, 4)

        ```
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more.")
    if num_views < 1:
        raise ValueError(f"num_views is {num_views}; expected 1 or more.")
    if min(height, width) < 8:
        raise ValueError(f"height x width is {height} x {width}; expected at least 8 x 8 pixels.")
    rng = np.random.default_rng((seed, LAYOUT_STREAM))
    focal = 0.5 / np.tan(np.deg2rad(rng.uniform(55.0, 75.0)) / 2)  # of an image one unit wide
    off_center = rng.uniform(-0.015, 0.015, 2)
    is_open = False
    if style is not None:
        focal = 0.5 / np.tan(np.deg2rad(rng.uniform(*style.fields_of_view)) / 2)
        is_open = bool(rng.random() < style.open_share)
    walk = USUAL_WALK if style is None else style.walk
    for _ in range(MAX_ATTEMPTS):
        size, block, furniture = _furnish(rng)
        if style is not None:
            block = None if is_open else block
            furniture = _add_shapes(rng, size, block, [] if is_open else furniture, style.num_shapes)
        path = _camera_path(rng, num_views, size, block, furniture, 0.5 / focal, walk)
        if path is None:
            continue
        if is_open:
            size = _open_up(rng, size, furniture, path)
        intrinsics = np.eye(3)
        intrinsics[0, 0] = intrinsics[1, 1] = focal * width
        intrinsics[0, 2] = (width - 1) / 2 + off_center[0] * width
        intrinsics[1, 2] = (height - 1) / 2 + off_center[1] * height
        intrinsics = np.repeat(intrinsics[None], num_views, 0)
        return RoomLayout(seed, size, block, furniture, intrinsics, path, style, is_open)
    raise RuntimeError(f"seed {seed}: no path of {num_views} views found in {MAX_ATTEMPTS} rooms; use fewer views.")


def _furnish(rng):
    """Draw the room, perhaps a protruding block in a corner, and three to seven pieces that do not touch."""
    size = np.array([rng.uniform(3.0, 6.0), rng.uniform(3.0, 6.0), rng.uniform(2.4, 3.2)])
    block, footprints = None, np.zeros((0, 5))
    if rng.random() < 0.25:
        extent = rng.uniform(0.3, 1.0, 2)
        low = np.where(rng.random(2) < 0.5, 0.0, size[:2] - extent)
        block = np.concatenate([low, [0.0], low + extent, [size[2]]])
        footprints = np.array([[*(low + extent / 2), *(extent / 2), 0.0]])
    weights = np.array(_WEIGHTS)
    count = int(np.clip(round(rng.normal(2.6 + size[0] * size[1] / 8.0, 1.0)), 3, 7))
    pool = rng.choice(len(_CATEGORIES), size=count + 3, p=weights / weights.sum())
    furniture, taken = [], set()
    for index in pool:
        label = _CATEGORIES[index]
        color = COLOR_NAMES[rng.integers(len(COLOR_NAMES))]
        if len(furniture) == count or (color, label) in taken or sum(f.label == label for f in furniture) == 2:
            continue
        parts, extent = build_furniture(label, rng)
        place = _place(rng, label, extent, size, footprints, furniture)
        if place is None:
            continue
        footprints = np.concatenate([footprints, [[*place[:2], *(extent[:2] / 2), place[2]]]])
        center = np.array([place[0], place[1], extent[2] / 2])
        furniture.append(Furniture(label, color, parts, center, extent, float(place[2])))
        taken.add((color, label))
    return size, block, furniture


def _add_shapes(rng, size, block, furniture, num_shapes):
    """Furniture, and boxes, cylinders and balls of any size between, some of them above the floor."""
    boxes = [] if block is None else [[*(block[:2] + block[3:5]) / 2, *(block[3:5] - block[:2]) / 2, 0.0]]
    boxes += [[*piece.center[:2], *(piece.size[:2] / 2), piece.yaw] for piece in furniture]
    footprints, added = np.array(boxes).reshape(-1, 5), []
    low, high = num_shapes if furniture else (max(num_shapes[0], 6), max(num_shapes[1], 14))
    for _ in range(rng.integers(low, high + 1)):
        label, color = SHAPES[rng.integers(len(SHAPES))], COLOR_NAMES[rng.integers(len(COLOR_NAMES))]
        part, extent = build_shape(label, rng)
        place = _place(rng, label, extent, size, footprints, furniture)
        if place is None or (color, label) in {(piece.color, piece.label) for piece in added}:
            continue
        footprints = np.concatenate([footprints, [[*place[:2], *(extent[:2] / 2), place[2]]]])
        added.append(Furniture(label, color, [part], np.array([*place[:2], part.center[2]]), extent, float(place[2])))
    return furniture + added


def _open_up(rng, size, furniture, path):
    """Move the walls far away, in place for furniture and cameras; the new extent."""
    margin = rng.uniform(1.5, 2.5) * OPEN_RANGE
    for moved in (*(piece.center for piece in furniture), *path[:, :3, 3]):
        moved[:2] += margin
    return size + np.array([2 * margin, 2 * margin, margin])


def _place(rng, label, extent, size, footprints, furniture, num_tries=48):
    """Return (x, y, yaw) of a free place, or None."""
    tries = np.zeros((num_tries, 3))
    half = extent[:2] / 2
    if rng.random() < _BACK_TO_WALL.get(label, 0.0):
        wall = rng.integers(4, size=num_tries)  # 0: +y, 1: -x, 2: -y, 3: +x
        along = rng.random(num_tries)
        gap = half[1] + rng.uniform(0.01, 0.06, num_tries)
        span = np.where(wall % 2 == 0, size[0], size[1])
        along = half[0] + 0.01 + along * np.maximum(span - extent[0] - 0.02, 0.0)
        tries[:, 0] = np.choose(wall, [along, gap, along, size[0] - gap])
        tries[:, 1] = np.choose(wall, [size[1] - gap, along, gap, along])
        tries[:, 2] = wall * np.pi / 2
    else:
        tries[:, :2] = rng.uniform(0.0, 1.0, (num_tries, 2)) * size[:2]
        tries[:, 2] = rng.uniform(-np.pi, np.pi, num_tries)
        aligned = rng.random(num_tries) < 0.4
        tries[aligned, 2] = rng.integers(4, size=aligned.sum()) * np.pi / 2
        desks = [piece for piece in furniture if piece.label in ("table", "desk")]
        if label in ("chair", "stool") and desks and rng.random() < 0.6:
            _sit_at(rng, desks[rng.integers(len(desks))], half, tries)
    tries[:, 2] = np.mod(tries[:, 2] + np.pi, 2 * np.pi) - np.pi
    cos, sin = np.abs(np.cos(tries[:, 2])), np.abs(np.sin(tries[:, 2]))
    reach = np.stack([cos * half[0] + sin * half[1], sin * half[0] + cos * half[1]], -1)
    fits = ((tries[:, :2] - reach > 0.0) & (tries[:, :2] + reach < size[:2])).all(-1)
    rectangles = np.concatenate([tries[:, :2], np.broadcast_to(half, (num_tries, 2)), tries[:, 2:]], -1)
    free = np.nonzero(fits & ~_rectangles_overlap(rectangles, footprints, GAP).any(-1))[0]
    return tries[free[0]] if len(free) else None


def _sit_at(rng, desk, half, tries):
    """Overwrite the tries by places in front of a table or desk, facing it."""
    num_tries = len(tries)
    turn = np.zeros(num_tries, dtype=int) if desk.label == "desk" else rng.integers(4, size=num_tries)
    reach = np.where(turn % 2 == 0, desk.size[1], desk.size[0]) / 2 + half[1] + rng.uniform(0.06, 0.25, num_tries)
    side = np.where(turn % 2 == 0, desk.size[0], desk.size[1]) * rng.uniform(-0.25, 0.25, num_tries)
    angle = desk.yaw + turn * np.pi / 2  # the chair stands on the -y side of a desk turned by `angle`
    tries[:, 0] = desk.center[0] + reach * np.sin(angle) + side * np.cos(angle)
    tries[:, 1] = desk.center[1] - reach * np.cos(angle) + side * np.sin(angle)
    tries[:, 2] = angle + np.pi + rng.uniform(-0.3, 0.3, num_tries)  # its back is away from the desk


def _rectangles_overlap(first, second, gap):
    """Separating-axis test of rectangles (x, y, half_x, half_y, yaw): (K, 5) against (M, 5) -> bool (K, M)."""
    delta = second[None, :, :2] - first[:, None, :2]  # (K, M, 2)
    turn = second[None, :, 4] - first[:, None, 4]
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    overlap = np.ones(delta.shape[:2], dtype=bool)
    for own, other in ((first[:, None], second[None]), (second[None], first[:, None])):
        c, s = np.cos(own[..., 4]), np.sin(own[..., 4])
        x = np.abs(c * delta[..., 0] + s * delta[..., 1])
        y = np.abs(-s * delta[..., 0] + c * delta[..., 1])
        overlap &= x < own[..., 2] + cos * other[..., 2] + sin * other[..., 3] + gap
        overlap &= y < own[..., 3] + sin * other[..., 2] + cos * other[..., 3] + gap
    return overlap


def _camera_path(rng, num_views, size, block, furniture, half_width, walk, num_tries=64):
    """Walk through the room looking at the furniture: (V, 4, 4) camera-to-world, or None if no start fits."""
    solids = np.array([[*f.center, *(f.size / 2), f.yaw] for f in furniture]).reshape(-1, 7)
    centers = solids[:, :3]
    if block is not None:
        solids = np.concatenate([solids, [[*(block[:3] + block[3:]) / 2, *(block[3:] - block[:3]) / 2, 0.0]]])
    if len(centers) < 3:
        return None
    low = np.array([CAMERA_CLEARANCE, CAMERA_CLEARANCE, walk.height[0]])
    high = np.array([*(size[:2] - CAMERA_CLEARANCE), walk.height[1]])
    pitch = rng.uniform(*np.deg2rad(walk.pitch))
    pan = 1.0 if rng.random() < 0.5 else -1.0
    starts = rng.uniform(low, high, (num_tries, 3))
    target = centers[rng.integers(len(centers), size=num_tries)]
    half_sweep = np.deg2rad(14.0) * min(num_views - 1, 6) / 2
    yaws = np.arctan2(target[:, 1] - starts[:, 1], target[:, 0] - starts[:, 0])
    yaws = yaws - pan * half_sweep + rng.normal(0.0, np.deg2rad(12.0), num_tries)
    rolls = rng.uniform(-1.0, 1.0, num_tries) * np.deg2rad(walk.roll)
    pitches = np.full(num_tries, pitch)
    good = _is_free(starts, yaws, pitches, solids, size)
    good &= np.linalg.norm(target[:, :2] - starts[:, :2], axis=-1) > 1.1
    good &= _num_seen(starts, yaws + pan * half_sweep, centers) >= 2
    for start in np.nonzero(good)[0][:6]:
        state = (starts[start], yaws[start], pitches[start], rolls[start])
        path = [state]
        while len(path) < num_views:
            state = _step(rng, state, pan, pitch, low, high, solids, size, walk)
            if state is None:
                break
            path.append(state)
        if len(path) == num_views:
            poses = np.stack([_pose(*state) for state in path])
            if _sees_furniture(poses, centers, block, half_width):
                return poses
    return None


def _sees_furniture(poses, centers, block, half_width):
    """Is the middle of some piece well inside some view (of usual shape), and not behind the block?

    `half_width` is half the width of an image at unit distance.
    """
    offset = centers[None] - poses[:, None, :3, 3]  # (V, N, 3)
    local = offset @ poses[:, :3, :3]
    is_inside = (np.abs(local[..., 0]) < 0.9 * half_width * local[..., 2]) & (local[..., 2] > 0.5)
    is_inside &= np.abs(local[..., 1]) < 0.75 * half_width * local[..., 2]
    if block is not None:
        way = poses[:, None, None, :3, 3] + np.linspace(0.0, 1.0, 20)[:, None] * offset[:, :, None]  # (V, N, 20, 3)
        is_inside &= ~((way > block[:3]) & (way < block[3:])).all(-1).any(-1)
    return is_inside.any()


def _step(rng, state, pan, base_pitch, low, high, solids, size, walk, num_tries=48):
    """One step of the hand-held walk, or None."""
    position, yaw, pitch, roll = state
    reach = rng.uniform(*walk.step_metres, num_tries)
    heading = rng.uniform(-np.pi, np.pi, num_tries)
    rise = rng.uniform(-0.2, 0.2, num_tries)
    direction = np.stack([np.cos(heading), np.sin(heading), rise], -1)
    positions = position + reach[:, None] * direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    sign = np.where(rng.random(num_tries) < 0.15, -pan, pan)
    yaws = yaw + sign * np.deg2rad(rng.uniform(walk.step_degrees[0], walk.step_degrees[1] - 1.0, num_tries))
    pitches = base_pitch + np.deg2rad(rng.normal(0.0, 1.5, num_tries))
    rolls = rng.uniform(-1.0, 1.0, num_tries) * np.deg2rad(walk.roll)
    good = ((positions > low) & (positions < high)).all(-1) & _is_free(positions, yaws, pitches, solids, size)
    before = _pose(*state)[:3, :3]
    for index in np.nonzero(good)[0]:
        after = _pose(positions[index], yaws[index], pitches[index], rolls[index])[:3, :3]
        turn = np.rad2deg(np.arccos(np.clip((np.sum(before * after) - 1.0) / 2.0, -1.0, 1.0)))
        if walk.step_degrees[0] <= turn <= walk.step_degrees[1]:
            return positions[index], yaws[index], pitches[index], rolls[index]
    return None


def _is_free(positions, yaws, pitches, solids, size):
    """Clear of every solid (K, 7: centre, half, yaw) by `CAMERA_CLEARANCE`, with a free view of 0.9 m ahead."""
    ahead = np.stack([np.cos(yaws) * np.cos(pitches), np.sin(yaws) * np.cos(pitches), -np.sin(pitches)], -1)
    free = np.ones(len(positions), dtype=bool)
    for reach in (0.0, 0.3, 0.6, 0.9):
        points = positions + reach * ahead
        offset = points[:, None] - solids[None, :, :3]  # (T, K, 3)
        c, s = np.cos(solids[:, 6]), np.sin(solids[:, 6])
        local = np.stack([c * offset[..., 0] + s * offset[..., 1], -s * offset[..., 0] + c * offset[..., 1]], -1)
        local = np.concatenate([local, offset[..., 2:]], -1)
        distance = np.linalg.norm(np.maximum(np.abs(local) - solids[None, :, 3:6], 0.0), axis=-1)
        free &= (distance > (CAMERA_CLEARANCE if reach == 0.0 else 0.15)).all(-1)
        free &= ((points > 0.15) & (points < size - 0.15)).all(-1)
    return free


def _num_seen(positions, yaws, centers):
    """How many furniture centres lie within 35 degrees of the horizontal viewing direction, 0.8 m away or more."""
    offset = centers[None, :, :2] - positions[:, None, :2]
    distance = np.linalg.norm(offset, axis=-1)
    ahead = np.stack([np.cos(yaws), np.sin(yaws)], -1)[:, None]
    return ((np.sum(offset * ahead, -1) > np.cos(np.deg2rad(35.0)) * distance) & (distance > 0.8)).sum(-1)


def _pose(position, yaw, pitch, roll):
    """Camera-to-world, (4, 4): looking along `yaw`, tilted down by `pitch`, turned about its axis by `roll`."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = c * right + s * down, c * down - s * right, forward
    pose[:3, 3] = position
    return pose
