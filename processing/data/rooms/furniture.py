"""Furniture for the rendered rooms: each piece is a handful of boxes, frusta and ellipsoids that a person recognises.

Only shapes live here. Where a piece stands is decided in layout.py, what its surfaces look like in
appearance.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Part(NamedTuple):
    """One convex primitive of a piece of furniture.

    Frame: of the piece: origin on the floor below its middle, +x to its right, +y to its back, +z up. Units: metres.

    Args:
        shape (`str`): "box"; "frustum" (vertical axis, an ellipse at the bottom, scaled by `taper` at the top);
            "ellipsoid".
        center (`tuple[float, float, float]`): middle of the part.
        half (`tuple[float, float, float]`): half extents along x, y and z.
        surface (`str`): key of `appearance.SURFACES`; "main" and the other "main_*" take the named colour.
        taper (`float`, defaults to 1.0): top radius over bottom radius, in (0, 1]; frusta only.
    """

    shape: str
    center: tuple
    half: tuple
    surface: str
    taper: float = 1.0


def _box(x0, x1, y0, y1, z0, z1, surface):
    """A box from its two extreme corners."""
    center = ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2)
    return Part("box", center, ((x1 - x0) / 2, (y1 - y0) / 2, (z1 - z0) / 2), surface)


def _disc(x, y, radius, z0, z1, surface, taper=1.0):
    """An upright cylinder, or a cone with `taper` < 1."""
    return Part("frustum", (x, y, (z0 + z1) / 2), (radius, radius, (z1 - z0) / 2), surface, taper)


def _legs(half_x, half_y, z1, thickness, surface, is_round):
    """Four legs at (+-half_x, +-half_y), from the floor to `z1`."""
    r = thickness / 2
    corners = [(sx * half_x, sy * half_y) for sx in (-1, 1) for sy in (-1, 1)]
    if is_round:
        return [_disc(x, y, r, 0.0, z1, surface) for x, y in corners]
    return [_box(x - r, x + r, y - r, y + r, 0.0, z1, surface) for x, y in corners]


def _bed(rng):
    w, d, seat = rng.uniform(0.9, 1.8), rng.uniform(1.9, 2.1), rng.uniform(0.4, 0.55)
    x, y, base = w / 2, d / 2, rng.uniform(0.18, 0.3)
    parts = _legs(x - 0.06, y - 0.06, 0.1, 0.07, "wood", False)
    parts += [
        _box(-x, x, -y, y, 0.1, base, "wood"),
        _box(-x + 0.02, x - 0.02, -y + 0.02, y - 0.06, base, seat, "white_cloth"),
        _box(-x, x, y - 0.06, y, 0.1, rng.uniform(0.75, 1.1), "wood" if rng.random() < 0.6 else "main"),
    ]
    blanket = rng.uniform(0.0, 0.25) * d
    parts.append(_box(-x - 0.015, x + 0.015, -y - 0.01, blanket, base - 0.04, seat + 0.025, "main_cloth"))
    num_pillows = 2 if w > 1.3 else 1
    for i in range(num_pillows):
        middle = (i - (num_pillows - 1) / 2) * w / 2
        parts.append(Part("ellipsoid", (middle, y - 0.3, seat + 0.05), (0.2 * w + 0.08, 0.19, 0.1), "white_cloth"))
    return parts


def _sofa(rng):
    w, d, seat = rng.uniform(1.4, 2.2), rng.uniform(0.8, 0.95), rng.uniform(0.38, 0.45)
    x, y, arm, back = w / 2, d / 2, rng.uniform(0.12, 0.22), rng.uniform(0.18, 0.25)
    top, arm_top = rng.uniform(0.75, 0.92), seat + rng.uniform(0.12, 0.22)
    parts = _legs(x - 0.08, y - 0.08, 0.07, 0.05, "dark", True)
    parts += [
        _box(-x + arm, x - arm, -y + 0.03, y - back, 0.07, seat - 0.13, "main_shade"),
        _box(-x, -x + arm, -y, y, 0.07, arm_top, "main_cloth"),
        _box(x - arm, x, -y, y, 0.07, arm_top, "main_cloth"),
        _box(-x + arm, x - arm, y - back, y, 0.07, top, "main_cloth"),
    ]
    num_seats = 3 if w > 1.8 else 2
    step = (w - 2 * arm) / num_seats
    for i in range(num_seats):
        left = -x + arm + i * step
        parts.append(_box(left + 0.01, left + step - 0.01, -y, y - back, seat - 0.13, seat, "main_cloth"))
        parts.append(_box(left + 0.02, left + step - 0.02, y - back - 0.09, y - back, seat, top - 0.05, "main_shade"))
    return parts


def _chair(rng):
    w, seat, top = rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.48), rng.uniform(0.82, 1.02)
    x = w / 2
    cushion = [_box(-x, x, -x, x, seat - 0.05, seat, "main")]
    if rng.random() < 0.3:  # swivel chair: star base, column, cushions
        spokes = [
            _box(-0.26, 0.26, -0.025, 0.025, 0.04, 0.08, "dark"),
            _box(-0.025, 0.025, -0.26, 0.26, 0.04, 0.08, "dark"),
        ]
        wheels = [_disc(a, b, 0.03, 0.0, 0.05, "dark") for a, b in ((-0.23, 0), (0.23, 0), (0, -0.23), (0, 0.23))]
        column = [_disc(0.0, 0.0, 0.03, 0.06, seat - 0.05, "metal")]
        back = [
            _box(-0.03, 0.03, x - 0.03, x + 0.01, seat, seat + 0.2, "dark"),
            _box(-x + 0.02, x - 0.02, x - 0.06, x, seat + 0.12, top, "main_cloth"),
        ]
        return spokes + wheels + column + [_box(-x, x, -x, x, seat - 0.08, seat, "main_cloth")] + back
    surface = "main" if rng.random() < 0.5 else "wood"
    parts = _legs(x - 0.02, x - 0.02, seat - 0.05, 0.04, surface, rng.random() < 0.5) + cushion
    posts = [_box(s * (x - 0.02) - 0.02, s * (x - 0.02) + 0.02, x - 0.04, x, seat, top, surface) for s in (-1, 1)]
    if rng.random() < 0.5:  # slats
        slats = [_box(-x + 0.04, x - 0.04, x - 0.03, x - 0.01, top - z - 0.09, top - z, "main") for z in (0.0, 0.16)]
    else:  # one panel
        slats = [_box(-x + 0.04, x - 0.04, x - 0.035, x - 0.005, seat + 0.12, top, "main")]
    arms = []
    if rng.random() < 0.25:
        for s in (-1, 1):
            side = s * (x - 0.02)
            arms.append(_box(side - 0.02, side + 0.02, -x, x - 0.04, seat + 0.18, seat + 0.21, surface))
            arms.append(_box(side - 0.02, side + 0.02, -x, -x + 0.04, seat, seat + 0.18, surface))
    return parts + posts + slats + arms


def _stool(rng):
    radius, top = rng.uniform(0.16, 0.22), rng.uniform(0.42, 0.68)
    leg = radius * 0.66
    parts = _legs(leg, leg, top - 0.05, 0.035, "metal" if rng.random() < 0.5 else "wood", True)
    ring = top * 0.35
    if rng.random() < 0.6:
        parts += [_box(-leg, leg, s * leg - 0.012, s * leg + 0.012, ring, ring + 0.025, "metal") for s in (-1, 1)]
    return parts + [_disc(0.0, 0.0, radius, top - 0.05, top, "main")]


def _table(rng):
    top = rng.uniform(0.68, 0.78) if rng.random() < 0.7 else rng.uniform(0.38, 0.5)
    if rng.random() < 0.3:
        radius = rng.uniform(0.4, 0.6)
        return [
            _disc(0.0, 0.0, radius * 0.55, 0.0, 0.03, "metal"),
            _disc(0.0, 0.0, 0.04, 0.03, top - 0.04, "metal"),
            _disc(0.0, 0.0, radius, top - 0.04, top, "main_wood"),
        ]
    x, y = rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.45)
    inset = rng.uniform(0.03, 0.08)
    surface = "main_wood" if rng.random() < 0.6 else "wood"
    parts = _legs(x - inset, y - inset, top - 0.04, 0.06, surface, rng.random() < 0.3)
    parts += [
        _box(-x + inset, x - inset, s * (y - inset) - 0.01, s * (y - inset) + 0.01, top - 0.12, top - 0.04, surface)
        for s in (-1, 1)
    ]
    return parts + [_box(-x, x, -y, y, top - 0.04, top, "main_wood")]


def _drawers(x0, x1, front, z0, z1, count, surface):
    """Fronts with a knob each, one above the other, standing 1.5 cm proud of the plane y = front."""
    parts, step = [], (z1 - z0) / count
    for i in range(count):
        low = z0 + i * step
        parts.append(_box(x0 + 0.012, x1 - 0.012, front - 0.015, front, low + 0.01, low + step - 0.01, surface))
        middle, grip = (x0 + x1) / 2, low + 0.6 * step
        reach = min(0.08, (x1 - x0) / 5)
        parts.append(_box(middle - reach, middle + reach, front - 0.035, front - 0.015, grip, grip + 0.02, "metal"))
    return parts


def _desk(rng):
    x, y, top = rng.uniform(0.5, 0.75), rng.uniform(0.3, 0.38), rng.uniform(0.7, 0.77)
    side = 1 if rng.random() < 0.5 else -1
    w = rng.uniform(0.35, 0.45)
    x0, x1 = (x - w, x - 0.02) if side > 0 else (-x + 0.02, -x + w)
    leg = -side * (x - 0.03)
    return [
        _box(-x, x, -y, y, top - 0.035, top, "main_wood"),
        _box(x0, x1, -y + 0.05, y - 0.02, 0.03, top - 0.035, "main_wood"),
        _box(leg - 0.02, leg + 0.02, -y + 0.03, y - 0.02, 0.0, top - 0.035, "main_wood"),
        _box(-x + 0.04, x - 0.04, y - 0.04, y - 0.02, top - 0.4, top - 0.035, "wood"),
        _box(x0 + 0.02, x1 - 0.02, -y + 0.08, y - 0.05, 0.0, 0.03, "dark"),
    ] + _drawers(x0, x1, -y + 0.05, 0.04, top - 0.05, 3, "wood")


def _cabinet(rng):
    is_tall = rng.random() < 0.4
    x, y = rng.uniform(0.35, 0.7), rng.uniform(0.2, 0.3)
    top = rng.uniform(1.6, 2.05) if is_tall else rng.uniform(0.6, 1.1)
    parts = [
        _box(-x + 0.03, x - 0.03, -y + 0.05, y, 0.0, 0.08, "dark"),
        _box(-x, x, -y + 0.02, y, 0.08, top - 0.03, "main"),
        _box(-x - 0.01, x + 0.01, -y, y, top - 0.03, top, "main_shade"),
    ]
    if not is_tall and rng.random() < 0.5:
        columns = 2 if x > 0.5 else 1
        for i in range(columns):
            left = -x + 2 * x * i / columns
            parts += _drawers(left, left + 2 * x / columns, -y + 0.02, 0.1, top - 0.05, 3, "main_shade")
        return parts
    for s in (-1, 1):  # two doors with handles beside the gap
        parts.append(
            _box(
                min(s * 0.008, s * (x - 0.02)),
                max(s * 0.008, s * (x - 0.02)),
                -y + 0.005,
                -y + 0.02,
                0.11,
                top - 0.05,
                "main_shade",
            )
        )
        grip = top * 0.5 if is_tall else top * 0.6
        parts.append(_box(s * 0.06 - 0.01, s * 0.06 + 0.01, -y - 0.02, -y + 0.005, grip, grip + 0.14, "metal"))
    return parts


def _shelf(rng):
    x, y, top = rng.uniform(0.35, 0.6), rng.uniform(0.13, 0.2), rng.uniform(1.0, 2.0)
    levels = max(2, round(top / rng.uniform(0.33, 0.42)))
    step = (top - 0.06) / levels
    parts = [
        _box(-x, -x + 0.025, -y, y, 0.0, top, "main"),
        _box(x - 0.025, x, -y, y, 0.0, top, "main"),
        _box(-x + 0.025, x - 0.025, y - 0.015, y, 0.0, top, "main_shade"),
    ]
    for i in range(levels + 1):
        parts.append(_box(-x + 0.025, x - 0.025, -y, y - 0.015, 0.04 + i * step - 0.02, 0.04 + i * step, "main"))
    for i in range(levels):
        if rng.random() < 0.8:
            width = rng.uniform(0.35, 0.95) * (2 * x - 0.07)
            left = rng.uniform(-x + 0.03, x - 0.035 - width)
            height = rng.uniform(0.5, 0.85) * (step - 0.02)
            low = 0.04 + i * step
            parts.append(_box(left, left + width, -y + 0.03, y - 0.03, low, low + height, "books"))
    return parts


def _lamp(rng):
    top, radius = rng.uniform(1.3, 1.75), rng.uniform(0.15, 0.24)
    height = rng.uniform(0.22, 0.35)
    return [
        _disc(0.0, 0.0, radius * 0.75, 0.0, 0.03, "dark"),
        _disc(0.0, 0.0, 0.018, 0.03, top - height + 0.05, "metal"),
        _disc(0.0, 0.0, radius, top - height, top, "main_glow", rng.uniform(0.5, 0.85)),
    ]


def _bin(rng):
    radius, top = rng.uniform(0.13, 0.2), rng.uniform(0.3, 0.6)
    parts = [_disc(0.0, 0.0, radius, 0.0, top - 0.02, "main")]
    if rng.random() < 0.5:  # open
        return parts + [_disc(0.0, 0.0, radius * 0.88, top - 0.02, top - 0.012, "dark")]
    lid = Part("ellipsoid", (0.0, 0.0, top - 0.02), (radius, radius, 0.07), "metal")
    return parts + [_disc(0.0, 0.0, radius, 0.0, 0.03, "dark"), lid]


# Name of the category -> function from a random generator to its parts.
FURNITURE: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "bed": _bed,
    "bin": _bin,
    "cabinet": _cabinet,
    "chair": _chair,
    "desk": _desk,
    "lamp": _lamp,
    "shelf": _shelf,
    "sofa": _sofa,
    "stool": _stool,
    "table": _table,
}


def build_furniture(label: str, rng: np.random.Generator) -> tuple[list[Part], np.ndarray]:
    """Draw one piece of furniture and its tight box.

    Frame: of the piece, shifted so that the middle of its tight box lies above the origin and its lowest point at
    z = 0. Units: metres. Source: our choice.

    Args:
        label (`str`): a key of `FURNITURE`.
        rng (`numpy.random.Generator`): the source of its proportions.
    Returns:
        `tuple[list[Part], numpy.ndarray]`: the parts, and the full size of the tight box, shape `(3,)`.
    Raises:
        ValueError: if `label` names no category.
    """
    if label not in FURNITURE:
        raise ValueError(f"label is {label!r}; expected one of {sorted(FURNITURE)}.")
    parts = FURNITURE[label](rng)
    centers = np.array([part.center for part in parts])
    halves = np.array([part.half for part in parts])
    low, high = (centers - halves).min(0), (centers + halves).max(0)
    shift = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    moved = [part._replace(center=tuple(center)) for part, center in zip(parts, centers - shift, strict=True)]
    return moved, high - low


SHAPES = ("box", "cylinder", "ball")


def build_shape(label: str, rng: np.random.Generator) -> tuple[Part, np.ndarray]:
    """Draw a single body of any size, on the floor or above it.

    Args:
        label (`str`): one of `SHAPES`.
        rng (`numpy.random.Generator`): source of the draws.
    Returns:
        `tuple[Part, numpy.ndarray]`: the body, and its full size `(3,)` in metres.
    """
    half = np.exp(rng.uniform(np.log(0.1), np.log(0.6), 3))
    bottom = rng.uniform(0.0, 1.2) if rng.random() < 0.3 else 0.0
    if label == "box":
        half[2] *= rng.uniform(1.0, 2.0)
    else:
        half[:2] = half[0]
    if label == "ball":
        half[2] = half[0] * rng.uniform(0.6, 1.2)
    shape = {"box": "box", "cylinder": "frustum", "ball": "ellipsoid"}[label]
    taper = float(rng.uniform(0.3, 1.0)) if label == "cylinder" and rng.random() < 0.4 else 1.0
    surface = ("main", "main_cloth", "main_wood", "main_shade")[rng.integers(4)]
    return Part(shape, (0.0, 0.0, bottom + half[2]), tuple(half), surface, taper), 2 * half
