"""A layout and its edits: a small grammar of words, relations as constraints, and places that fulfil them.

Sides are those that the first camera sees, in metres right and ahead of it; see edit_layout.py for the grammar.
"""

import re
from dataclasses import dataclass

import numpy as np
from example_geometry import footprint
from scipy.optimize import minimize

from gap_mllm.processing.camera_geometry_gap_mllm import box_corners, transform_box


SIDES = {"left of": (-1, 0), "right of": (1, 0), "in front of": (0, -1), "behind": (0, 1)}  # right, ahead
PUT = re.compile(rf"(?:put|move|place) the (.+?) ({'|'.join(SIDES)}) the (.+?)(?:,? (\d+(?:\.\d+)?) ?m)?")
TURN = re.compile(r"(?:turn|rotate) the (.+?) by (-?\d+(?:\.\d+)?) ?(?:degrees?|deg|°)")
GAP_M, LEAST_GAP_M = 0.1, 0.001  # where an edit tells none, and in any case
CLEARANCE_M, TOLERANCE_M = 2e-4, 1e-4
NUM_STARTS = 24


@dataclass(frozen=True)
class Put:
    """Object `moved` stands beside object `fixed`, by a gap in metres along `side` (right, ahead)."""

    moved: int
    side: tuple[int, int]
    fixed: int
    gap: float


def parse_edits(text: str, labels: list[str]) -> list[Put | tuple[int, float]]:
    """Read edits: `Put`, or number and degrees of a turn. Raises ValueError for what the grammar does not say."""
    edits = []
    for part in filter(None, (part.strip() for part in text.lower().split(";"))):
        put, turn = PUT.fullmatch(part), TURN.fullmatch(part)
        if put:
            moved, fixed = find_object(put[1], labels), find_object(put[3], labels)
            if moved == fixed:
                raise ValueError(f"{part!r} puts an object beside itself")
            edits.append(Put(moved, SIDES[put[2]], fixed, max(float(put[4] or GAP_M), LEAST_GAP_M)))
        elif turn:
            edits.append((find_object(turn[1], labels), float(turn[2])))
        else:
            raise ValueError(f"{part!r} is no edit; expected as 'put the chair left of the bed, 0.5 m'")
    return edits


def find_object(name: str, labels: list[str]) -> int:
    label, _, number = name.rpartition(" ") if name[-1].isdigit() else (name, "", "1")
    places = [place for place, each in enumerate(labels) if each == label]
    if not 1 <= int(number) <= len(places):
        raise ValueError(f"there is no {name!r} among {labels}")
    return places[int(number) - 1]


def separation(first: np.ndarray, second: np.ndarray) -> float:
    """Largest gap between two convex polygons over the directions of their edges; below 0 they overlap."""
    gaps = []
    for one, other in ((first, second), (second, first)):  # corners are counter-clockwise, normals point outwards
        edges = np.roll(one, -1, 0) - one
        normals = np.stack([edges[:, 1], -edges[:, 0]], 1) / np.linalg.norm(edges, axis=1, keepdims=True)
        gaps.append(((other @ normals.T).min(0) - (one * normals).sum(1)).max())
    return max(gaps)


def solve(boxes: np.ndarray, edits: list, level: np.ndarray, walls: np.ndarray | None = None) -> np.ndarray:
    """Boxes `(N, 9)` after the edits, in the first camera. Raises ValueError where no place is free."""
    boxes = np.array(boxes, float)
    for number, degrees in (edit for edit in edits if not isinstance(edit, Put)):
        x, y, z = level[2] * np.deg2rad(degrees)
        angle, skew = np.deg2rad(degrees), np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = np.eye(4)
        if angle:
            turn[:3, :3] += np.sin(angle) / angle * skew + (1 - np.cos(angle)) / angle**2 * skew @ skew
        turn[:3, 3] = boxes[number, :3] - turn[:3, :3] @ boxes[number, :3]
        boxes[number] = transform_box(boxes[number], turn, "zxy")
    puts = [edit for edit in edits if isinstance(edit, Put)]
    moved = sorted({put.moved for put in puts})
    polygons = [footprint(box, level) for box in boxes]
    ups = np.array([(corners.min(), corners.max()) for corners in box_corners(boxes, "zxy") @ level[2]])
    named = {edit.moved if isinstance(edit, Put) else edit[0] for edit in edits}
    pairs = [
        (a, b) for a in named for b in range(len(boxes))
        if (b not in named or a < b) and max(ups[a, 0], ups[b, 0]) < min(ups[a, 1], ups[b, 1])
    ]  # fmt: skip
    limits = None if walls is None else np.roll(walls, -1, 0) - walls

    def placed(shifts):
        shifts = dict(zip(moved, shifts.reshape(-1, 2), strict=True))
        return [polygon + shifts.get(number, 0) for number, polygon in enumerate(polygons)]

    def gaps(shifts):
        at = placed(shifts)
        return np.array([
            (at[put.moved] @ put.side).min() - (at[put.fixed] @ put.side).max() - put.gap for put in puts
        ])  # fmt: skip

    def room(shifts):
        at = placed(shifts)
        told = [separation(at[a], at[b]) - CLEARANCE_M for a, b in pairs]
        if walls is not None:
            inward = np.stack([-limits[:, 1], limits[:, 0]], 1) / np.linalg.norm(limits, axis=1, keepdims=True)
            told += [((at[number][:, None] - walls) * inward).sum(-1).min() for number in named]
        return np.array(told or [1.0])

    def cost(shifts):
        at = placed(shifts)
        beside = [((at[put.moved].mean(0) - at[put.fixed].mean(0)) @ put.side[::-1]) ** 2 for put in puts]
        return sum(beside) + 0.01 * (shifts**2).sum()

    rules = [{"type": "eq", "fun": gaps}] * bool(puts) + [{"type": "ineq", "fun": room}]
    best, rng = None, np.random.default_rng(0)
    for start in rng.normal(0, 1.5, (NUM_STARTS, 2 * len(moved))) * (np.arange(NUM_STARTS)[:, None] > 0):
        found = minimize(cost, start, method="SLSQP", constraints=rules).x if puts else start
        if room(found).min() > -TOLERANCE_M and abs(gaps(found)).max(initial=0) < TOLERANCE_M:
            best = found if best is None or cost(found) < cost(best) else best
    if best is None:
        raise ValueError("no place is free that fits all edits without overlaps; give other sides or gaps")
    for number, shift in zip(moved, best.reshape(-1, 2), strict=True):
        boxes[number, :3] += shift @ level[:2]
    return boxes
