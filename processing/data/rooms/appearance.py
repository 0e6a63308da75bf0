"""What the surfaces of a rendered room look like: colours, patterns, doors, windows, pictures, rugs and light.

Works on flat lists of ray hits, so it knows nothing about cameras. The shapes come from layout.py; the hits from
renderer.py. Every random choice is drawn from stream 1 of the seed.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


APPEARANCE_STREAM = 1

# Instance ids that are no furniture: 0 or negative. Piece number i of the layout has id i + 1.
STRUCTURE_LABELS = {0: "floor", -1: "wall", -2: "ceiling", -3: "door", -4: "window", -5: "picture", -6: "rug"}

# Primitive numbers: the six faces of the room in the order -x, +x, -y, +y, floor, ceiling; the block; furniture parts.
FLOOR, CEILING, BLOCK, FIRST_PART = 4, 5, 6, 7

PLAIN, CLOTH, WOOD, BOOKS, GLOW, TILES, CHECKER, PLANKS, CARPET, STRIPES, BRICKS, TWO_TONE, DOTS = range(13)

# Surface of a furniture part -> (takes the named colour?, brightness, pattern)
SURFACES = {
    "main": (True, 1.0, PLAIN),
    "main_shade": (True, 0.82, PLAIN),
    "main_cloth": (True, 1.0, CLOTH),
    "main_wood": (True, 1.0, WOOD),
    "main_glow": (True, 0.95, GLOW),
    "wood": (False, 1.0, WOOD),
    "metal": (False, 1.0, PLAIN),
    "dark": (False, 1.0, PLAIN),
    "white_cloth": (False, 1.0, CLOTH),
    "books": (False, 1.0, BOOKS),
}
_PLAIN_RGB = {"metal": (0.62, 0.62, 0.65), "dark": (0.12, 0.11, 0.11), "white_cloth": (0.9, 0.89, 0.86)}
_NAMED_RGB = {
    "red": (0.78, 0.12, 0.12),
    "yellow": (0.92, 0.78, 0.16),
    "green": (0.16, 0.55, 0.22),
    "blue": (0.14, 0.3, 0.75),
    "purple": (0.38, 0.17, 0.5),
    "brown": (0.45, 0.28, 0.15),
    "white": (0.92, 0.92, 0.9),
    "black": (0.09, 0.09, 0.1),
}
_WOODS = np.array([(0.55, 0.38, 0.22), (0.68, 0.52, 0.34), (0.38, 0.25, 0.15), (0.78, 0.66, 0.48)], np.float32)
_FLOORS = np.array(
    [(0.72, 0.68, 0.62), (0.62, 0.48, 0.33), (0.5, 0.36, 0.24), (0.55, 0.55, 0.55), (0.75, 0.62, 0.46),
     (0.42, 0.42, 0.46), (0.8, 0.78, 0.74), (0.46, 0.4, 0.36)], np.float32)  # fmt: skip
_WALLS = np.array(
    [(0.88, 0.87, 0.83), (0.82, 0.84, 0.86), (0.86, 0.8, 0.7), (0.7, 0.78, 0.74), (0.68, 0.74, 0.82),
     (0.84, 0.76, 0.74), (0.62, 0.6, 0.58), (0.9, 0.9, 0.9)], np.float32)  # fmt: skip


@dataclass
class Decoration:
    """A flat rectangle on a wall or on the floor. Frame: (u, v) of that face, see `face_coordinates`. Units: metres.

    Args:
        face (`int`): primitive number of the face.
        instance_id (`int`): a key of `STRUCTURE_LABELS`.
        center (`tuple[float, float]`), half (`tuple[float, float]`): the rectangle.
        rgb (`numpy.ndarray` of shape `(2, 3)`): inner colour and colour of the frame.
        style (`int`): which of the inner patterns.
    """

    face: int
    instance_id: int
    center: tuple
    half: tuple
    rgb: np.ndarray
    style: int


@dataclass
class Appearance:
    """Everything that is needed to colour the hits of a room.

    Args:
        rgb (`numpy.ndarray` of shape `(3, K)`): base colour of each primitive.
        second_rgb (`numpy.ndarray` of shape `(3, K)`): second colour of its pattern.
        pattern (`numpy.ndarray` of shape `(K,)`), period (`numpy.ndarray` of shape `(K,)`, metres): its pattern.
        instance_id (`numpy.ndarray` of shape `(K,)`): what it belongs to.
        decorations (`list[Decoration]`): drawn in order.
        light (`numpy.ndarray` of shape `(3,)`): position of the lamp, world, metres.
        light_rgb, ambient_rgb (`numpy.ndarray` of shape `(3,)`): their colours times strength.
        brightness (`float`), noise (`float`), vignette (`float`), blur (`float`): settings of the camera.
    """

    rgb: np.ndarray
    second_rgb: np.ndarray
    pattern: np.ndarray
    period: np.ndarray
    instance_id: np.ndarray
    decorations: list
    light: np.ndarray
    light_rgb: np.ndarray
    ambient_rgb: np.ndarray
    brightness: float
    noise: float
    vignette: float
    blur: float


@lru_cache(maxsize=1)
def _noise_tables():
    """Smooth periodic noise in [-1, 1], `(256, 256)`, and white random numbers in [0, 1), `(4096,)`."""
    rng = np.random.default_rng(20260)
    smooth = np.zeros((256, 256))
    for octave, weight in ((16, 0.35), (64, 0.35), (256, 0.3)):
        grid = rng.uniform(-1.0, 1.0, (octave, octave))
        repeat = 256 // octave
        big = np.kron(grid, np.ones((repeat, repeat)))
        for axis in (0, 1):  # box filter with wrap-around
            big = sum(np.roll(big, shift, axis) for shift in range(repeat)) / repeat
        smooth += weight * big / np.abs(big).max()
    return smooth.astype(np.float32), rng.random(4096).astype(np.float32)


def _noise(u, v):
    """Smooth noise at (u, v), one cell a unit."""
    return _noise_tables()[0].take((u.astype(np.int32) & 255) * 256 + (v.astype(np.int32) & 255))


def _random(i, j=0):
    """A fixed random number in [0, 1) for each pair of integers."""
    return _noise_tables()[1].take((i * 73 + j * 1543 + 811) & 4095)


def draw_appearance(layout) -> Appearance:
    """Draw colours, patterns, decorations and light for a layout.

    Source: our choice; half-metre floor tiles appear in about 40 % of the rooms, since their size is a metric cue.

    Args:
        layout (`RoomLayout`): the room; its seed decides.
    Returns:
        `Appearance`.
    """
    rng = np.random.default_rng((layout.seed, APPEARANCE_STREAM))
    num_parts = sum(len(piece.parts) for piece in layout.furniture)
    rgb = np.empty((FIRST_PART + num_parts, 3), np.float32)
    second = np.empty_like(rgb)
    pattern = np.zeros(len(rgb), np.int64)
    period = np.ones(len(rgb), np.float32)
    instance_id = np.empty(len(rgb), np.int16)
    _draw_structure(rng, rgb, second, pattern, period, instance_id)
    k = FIRST_PART
    for number, piece in enumerate(layout.furniture):
        named = np.asarray(_NAMED_RGB[piece.color])
        named = _jitter(rng, named + rng.uniform(0.0, 0.3) * (named.mean() - named), 0.03)  # less or more faded
        wood = _jitter(rng, _WOODS[rng.integers(len(_WOODS))], 0.04)
        for part in piece.parts:
            takes_name, bright, pattern[k] = SURFACES[part.surface]
            base = named if takes_name else wood if part.surface == "wood" else _PLAIN_RGB.get(part.surface, wood)
            rgb[k] = second[k] = np.clip(bright * np.asarray(base), 0.0, 1.0)
            instance_id[k] = number + 1
            k += 1
    if layout.style is not None:
        _change_textures(rng, layout, rgb, second, pattern, period)
    warm = rng.uniform(-0.08, 0.12)
    tint = np.array([1.0 + warm, 1.0, 1.0 - warm], np.float32)
    ambient = rng.uniform(0.4, 0.7)
    look = Appearance(
        rgb=np.ascontiguousarray(rgb.T),
        second_rgb=np.ascontiguousarray(second.T),
        pattern=pattern,
        period=period,
        instance_id=instance_id,
        decorations=_draw_decorations(rng, layout),
        light=(layout.size * np.array([*rng.uniform(0.2, 0.8, 2), rng.uniform(0.93, 0.97)])).astype(np.float32),
        light_rgb=((1.25 - ambient) * tint).astype(np.float32),
        ambient_rgb=(ambient * (0.5 + 0.5 * tint[::-1])).astype(np.float32),
        brightness=rng.uniform(0.38, 0.58),
        noise=rng.uniform(0.5, 5.0) / 255.0,
        vignette=rng.uniform(0.0, 0.25),
        blur=rng.uniform(0.04, 0.2),
    )
    return look if layout.style is None else _change_light(rng, layout, look)


def _change_textures(rng, layout, rgb, second, pattern, period):
    """Give surfaces any pattern in any two colours; without walls, what is far away is one plain sky."""
    changed = np.nonzero(rng.random(len(rgb)) < layout.style.texture_share)[0]
    rgb[changed], second[changed] = rng.uniform(0.05, 0.95, (2, len(changed), 3))
    pattern[changed] = rng.choice(list(_PATTERNS), size=len(changed))
    period[changed] = np.exp(rng.uniform(np.log(0.05), np.log(0.8), len(changed)))
    if layout.is_open:
        sky = [0, 1, 2, 3, CEILING]
        rgb[sky] = second[sky] = rng.uniform(0.3, 0.95, 3)
        pattern[sky] = PLAIN


def _change_light(rng, layout, look):
    """Another lamp, exposure and sensor in `light_share` of the rooms; without walls a lamp above the shapes."""
    if layout.is_open:
        middle = np.mean([piece.center for piece in layout.furniture], 0)
        look.decorations, look.light = [], (middle + rng.uniform((-4, -4, 3), (4, 4, 6))).astype(np.float32)
    elif rng.random() < 0.5:
        look.light = (layout.size * rng.uniform((0.1, 0.1, 0.7), (0.9, 0.9, 0.97))).astype(np.float32)
    if rng.random() < layout.style.light_share:
        share = rng.uniform(0.15, 0.85)  # of the light that comes from everywhere
        look.ambient_rgb = (share * rng.uniform(0.7, 1.1, 3)).astype(np.float32)
        look.light_rgb = ((1.25 - share) * rng.uniform(0.7, 1.1, 3)).astype(np.float32)
        look.brightness, look.noise = rng.uniform(0.22, 0.7), rng.uniform(0.0, 10.0) / 255.0
        look.vignette, look.blur = rng.uniform(0.0, 0.5), rng.uniform(0.0, 0.3)
    return look


def _jitter(rng, rgb, amount):
    """A nearby colour."""
    return np.clip(np.asarray(rgb) * rng.uniform(0.85, 1.12) + rng.uniform(-amount, amount, 3), 0.03, 0.97)


def _draw_structure(rng, rgb, second, pattern, period, instance_id):
    """Fill the entries of the room faces and the block."""
    wall = _jitter(rng, _WALLS[rng.integers(len(_WALLS))], 0.05)
    wall_pattern = rng.choice([PLAIN, STRIPES, BRICKS, TWO_TONE, DOTS], p=[0.5, 0.14, 0.1, 0.14, 0.12])
    wall_second = wall * rng.uniform(0.75, 0.93) if rng.random() < 0.6 else _jitter(rng, wall, 0.15)
    has_accent = rng.random() < 0.3
    accent, accent_face = _jitter(rng, rng.random(3) * 0.6 + 0.25, 0.02), rng.integers(4)
    for k in (0, 1, 2, 3, BLOCK):
        is_accent = has_accent and k == accent_face
        rgb[k] = accent if is_accent else wall
        second[k] = accent * 0.85 if is_accent else wall_second
        pattern[k] = wall_pattern
        period[k] = {STRIPES: rng.uniform(0.1, 0.4), BRICKS: 0.24, TWO_TONE: 0.9, DOTS: 0.25}.get(wall_pattern, 1.0)
        instance_id[k] = -1
    floor = _jitter(rng, _FLOORS[rng.integers(len(_FLOORS))], 0.06)
    pattern[FLOOR] = rng.choice([TILES, CHECKER, PLANKS, CARPET, PLAIN], p=[0.25, 0.15, 0.35, 0.15, 0.1])
    rgb[FLOOR] = floor
    second[FLOOR] = floor * rng.uniform(0.6, 0.85)
    period[FLOOR] = 0.5 if pattern[FLOOR] in (TILES, CHECKER) else rng.uniform(0.09, 0.2)
    instance_id[FLOOR] = 0
    rgb[CEILING] = second[CEILING] = _jitter(rng, (0.92, 0.92, 0.9), 0.03)
    pattern[CEILING] = PLAIN
    instance_id[CEILING] = -2


def _draw_decorations(rng, layout):
    """A door, some windows and pictures on the walls, sometimes a rug."""
    decorations = []
    size = layout.size

    def add(face, instance_id, middle_v, half, inner, frame, style):
        span = size[1] if face < 2 else size[0]
        if span > 2 * half[0] + 0.4:
            u = rng.uniform(half[0] + 0.2, span - half[0] - 0.2)
            colors = np.array([inner, frame], np.float32)
            near = [d for d in decorations if d.face == face and abs(d.center[0] - u) < d.half[0] + half[0] + 0.1]
            if not near:
                decorations.append(Decoration(face, instance_id, (u, middle_v), half, colors, style))

    door_wood = _jitter(rng, _WOODS[rng.integers(4)] if rng.random() < 0.5 else (0.88, 0.87, 0.84), 0.03)
    add(int(rng.integers(4)), -3, 1.02, (rng.uniform(0.4, 0.5), 1.02), door_wood, door_wood * 0.75, 0)
    for _ in range(rng.integers(1, 3)):
        sky = np.array([0.72, 0.84, 0.97]) * rng.uniform(0.8, 1.05)
        high = rng.uniform(0.45, 0.7)
        add(int(rng.integers(4)), -4, 0.9 + high, (rng.uniform(0.4, 0.9), high), sky, (0.93, 0.93, 0.92), 0)
    for _ in range(rng.integers(0, 5)):
        half = (rng.uniform(0.15, 0.45), rng.uniform(0.15, 0.35))
        frame = rng.choice(_WOODS) if rng.random() < 0.6 else rng.choice([0.1, 0.9]) * np.ones(3)
        add(int(rng.integers(4)), -5, rng.uniform(1.4, 1.7), half, rng.random(3), frame, int(rng.integers(3)))
    if rng.random() < 0.35:
        half = rng.uniform(0.5, 1.0, 2)
        center = rng.uniform(0.35, 0.65, 2) * size[:2]
        colors = np.array([rng.random(3) * 0.7 + 0.15, rng.random(3) * 0.7 + 0.15], np.float32)
        decorations.append(Decoration(FLOOR, -6, tuple(center), tuple(half), colors, int(rng.integers(2))))
    return decorations


def face_coordinates(local: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (u, v) on the face of a box: u to the side and v up on vertical faces, u = x and v = y on level ones.

    Frame: of the box. Units: metres.

    Args:
        local (`numpy.ndarray` of shape `(3, M)`): hits.
        axis (`numpy.ndarray` of shape `(M,)`): the axis that the face is perpendicular to.
    Returns:
        `tuple[numpy.ndarray, numpy.ndarray]`, each of shape `(M,)`.
    """
    return np.where(axis == 0, local[1], local[0]), np.where(axis == 2, local[1], local[2])


def identify(look: Appearance, primitive, u, v) -> tuple[np.ndarray, list[tuple]]:
    """Return the instance id of every hit, and the hits on each decoration.

    Args:
        look (`Appearance`): colours and patterns of the room.
        primitive (`numpy.ndarray` of shape `(M,)`): primitive numbers.
        u (`numpy.ndarray` of shape `(M,)`), v (`numpy.ndarray` of shape `(M,)`): face coordinates in metres.
    Returns:
        `tuple[numpy.ndarray, list[tuple]]`: ids `(M,)`, int16; and for each decoration that is hit a tuple of it, the
        numbers `(K,)` of its hits, and their two coordinates from its middle, `(K,)` each.
    """
    ids, on_decorations = look.instance_id[primitive], []
    for decoration in look.decorations:
        face = np.nonzero(primitive == decoration.face)[0]
        x, y = u[face] - decoration.center[0], v[face] - decoration.center[1]
        inside = np.nonzero((np.abs(x) < decoration.half[0]) & (np.abs(y) < decoration.half[1]))[0]
        if len(inside):
            ids[face[inside]] = decoration.instance_id
            on_decorations.append((decoration, face[inside], x[inside], y[inside]))
    return ids, on_decorations


def paint(look: Appearance, primitive, u, v, on_decorations) -> np.ndarray:
    """Return the unlit colour of every hit, `(3, M)` in 0..1; arguments and results of `identify`."""
    rgb = look.rgb.take(primitive, 1)
    pattern = look.pattern[primitive]
    for kind in np.unique(look.pattern):
        where = np.nonzero(pattern == kind)[0]
        if len(where):
            color = _PATTERNS[kind](look, primitive[where], rgb.take(where, 1), u[where], v[where])
            for c in range(3):
                rgb[c][where] = color[c]
    on_wall = np.nonzero((primitive < 4) & (v < 0.09))[0]
    rgb[:, on_wall] = 0.25 * rgb[:, on_wall] + 0.6  # skirting board
    for decoration, hits, x, y in on_decorations:
        rgb[:, hits] = _decorate(decoration, x, y)
    return rgb


def _plain(look, primitive, rgb, u, v):
    return rgb * (1.0 + 0.03 * _noise(u * 40, v * 40))


def _cloth(look, primitive, rgb, u, v):
    return rgb * (1.0 + 0.1 * _noise(u * 90, v * 90) + 0.06 * _noise(u * 9, v * 9))


def _wood(look, primitive, rgb, u, v):
    return rgb * (1.0 + 0.16 * _noise(u * 8, v * 110 + 37))


def _books(look, primitive, rgb, u, v):
    place = u / 0.035
    number = np.floor(place).astype(np.int64)
    color = np.stack([0.15 + 0.7 * _random(number, primitive * 3 + c) for c in range(3)])
    return color * np.where(place - number < 0.12, np.float32(0.35), np.float32(1.0))


def _glow(look, primitive, rgb, u, v):
    return rgb


def _tiles(look, primitive, rgb, u, v):
    a, b = u / look.period[primitive], v / look.period[primitive]
    i, j = np.floor(a).astype(np.int64), np.floor(b).astype(np.int64)
    is_joint = (np.abs(a - i - 0.5) > 0.478) | (np.abs(b - j - 0.5) > 0.478)
    shade = 0.94 + 0.12 * _random(i, j) + 0.04 * _noise(u * 30, v * 30)
    return np.where(is_joint, look.second_rgb.take(primitive, 1) * 0.8, rgb * shade)


def _checker(look, primitive, rgb, u, v):
    i, j = np.floor(u / look.period[primitive]), np.floor(v / look.period[primitive])
    is_second = np.mod(i + j, 2.0) > 0.5
    return np.where(is_second, look.second_rgb.take(primitive, 1), rgb) * (1.0 + 0.05 * _noise(u * 30, v * 30))


def _planks(look, primitive, rgb, u, v):
    b = v / look.period[primitive]
    j = np.floor(b).astype(np.int64)
    a = u / np.float32(1.2) + _random(j)
    i = np.floor(a).astype(np.int64)
    is_joint = (np.abs(b - j - 0.5) > 0.47) | (np.abs(a - i - 0.5) > 0.496)
    shade = 0.82 + 0.36 * _random(i, j) + 0.12 * _noise(u * 8 + j * 31, v * 110)
    return rgb * np.where(is_joint, 0.6, shade).astype(np.float32)


def _carpet(look, primitive, rgb, u, v):
    return rgb * (1.0 + 0.14 * _noise(u * 120, v * 120) + 0.06 * _noise(u * 6, v * 6))


def _stripes(look, primitive, rgb, u, v):
    is_second = np.mod(u / look.period[primitive], 1.0) > 0.5
    return np.where(is_second, look.second_rgb.take(primitive, 1), rgb)


def _bricks(look, primitive, rgb, u, v):
    b = v / np.float32(0.085)
    j = np.floor(b).astype(np.int64)
    a = u / look.period[primitive] + np.float32(0.5) * (j & 1)
    i = np.floor(a).astype(np.int64)
    is_joint = (b - j < 0.12) | (a - i < 0.05)
    shade = 0.85 + 0.3 * _random(i, j)
    return np.where(is_joint, look.second_rgb.take(primitive, 1) * 0.8, rgb * shade)


def _two_tone(look, primitive, rgb, u, v):
    edge = look.period[primitive]
    lower = np.where(np.abs(v - edge) < 0.02, np.float32(0.93), look.second_rgb.take(primitive, 1))
    return np.where(v < edge + 0.02, lower, rgb)


def _dots(look, primitive, rgb, u, v):
    b = v / look.period[primitive]
    j = np.floor(b)
    a = u / look.period[primitive] + 0.5 * np.mod(j, 2.0)
    is_dot = np.square(a - np.floor(a) - 0.5) + np.square(b - j - 0.5) < 0.05
    return np.where(is_dot, look.second_rgb.take(primitive, 1), rgb)


_PATTERNS = {
    PLAIN: _plain, CLOTH: _cloth, WOOD: _wood, BOOKS: _books, GLOW: _glow, TILES: _tiles, CHECKER: _checker,
    PLANKS: _planks, CARPET: _carpet, STRIPES: _stripes, BRICKS: _bricks, TWO_TONE: _two_tone, DOTS: _dots,
}  # fmt: skip


def _decorate(decoration, x, y):
    """Colours (3, M) inside a door, window, picture or rug; x and y from its middle, in metres."""
    half_x, half_y = decoration.half
    inner, frame = decoration.rgb[:, :, None]
    border = {-3: 0.06, -4: 0.06, -5: 0.03, -6: 0.1}[decoration.instance_id]
    rgb = np.repeat(inner, len(x), 1)
    if decoration.instance_id == -3:  # two panels and a handle
        panel = (np.abs(x) < half_x - 0.14) & (np.abs(np.abs(y) - half_y / 2) < half_y / 2 - 0.13)
        rgb[:, panel] *= 0.88
        rgb[:, (np.abs(x - half_x + 0.12) < 0.05) & (np.abs(y) < 0.025)] = 0.35
    elif decoration.instance_id == -4:  # sky, trees, glazing bars
        rgb *= 0.85 + 0.15 * (y + half_y) / (2 * half_y)
        trees = y + half_y < half_y * (0.55 + 0.3 * _noise(x * 20 + 50, 0 * x + 9))
        leaves = np.array([[0.3], [0.42], [0.25]], np.float32) * (1.0 + 0.4 * _noise(x * 60, y * 60))
        rgb = np.where(trees, leaves, rgb)
        rgb = np.where((np.abs(x) < 0.02) | (np.abs(y) < 0.02), frame, rgb)
    elif decoration.instance_id == -5:
        tone = [_noise(x * 25, y * 25), np.sign(np.sin(x * 18) * np.sin(y * 18)), 1.6 * y / half_y][decoration.style]
        rgb = np.clip(inner + 0.45 * tone * (0.6 - inner[::-1]), 0.0, 1.0)
    else:
        rings = np.mod(np.maximum(np.abs(x) / half_x, np.abs(y) / half_y) * 4, 1.0) > 0.6
        bars = np.mod(y * 5, 1.0) > 0.6
        rgb = np.where(rings if decoration.style == 0 else bars, frame * 0.8 + 0.1, rgb)
        rgb = rgb * (1.0 + 0.12 * _noise(x * 120, y * 120))
    return np.where((np.abs(x) > half_x - border) | (np.abs(y) > half_y - border), frame, rgb)


def light_up(look: Appearance, size, rgb, primitive, points, normals, is_lit) -> np.ndarray:
    """Return the lit colours: one lamp below the ceiling, ambient light and darker corners.

    Frame: world. Units: metres. Source: Lambert's law; the darkening of corners is our choice.

    Args:
        look (`Appearance`): colours and patterns of the room.
        size (`numpy.ndarray` of shape `(3,)`): extent of the room.
        rgb (`numpy.ndarray` of shape `(3, M)`): unlit colours.
        primitive (`numpy.ndarray` of shape `(M,)`): what was hit.
        points (`numpy.ndarray` of shape `(3, M)`), normals (`numpy.ndarray` of shape `(3, M)`): where.
        is_lit (`numpy.ndarray` of shape `(M,)`): share of the lamp that each point sees, 0..1.
    Returns:
        `numpy.ndarray` of shape `(3, M)`: colours, not clipped.
    """
    to_light = look.light[:, None] - points
    squared = to_light[0] ** 2 + to_light[1] ** 2 + to_light[2] ** 2
    slant = to_light[0] * normals[0] + to_light[1] * normals[1] + to_light[2] * normals[2]
    direct = is_lit * np.maximum(slant, 0.0) / np.sqrt(squared) * (2.2 / (1.0 + squared / 6.0))
    shade = 0.8 + 0.2 * normals[2]
    for axis in range(3):
        near = np.minimum(points[axis], np.float32(size[axis]) - points[axis])
        near = 1.0 - 0.045 / (0.15 + np.maximum(near, 0.0))
        shade *= near
        direct *= near
    lit = np.stack([rgb[c] * (look.ambient_rgb[c] * shade + look.light_rgb[c] * direct) for c in range(3)])
    shines = np.nonzero(look.pattern[primitive] == GLOW)[0]
    lit[:, shines] = np.maximum(lit[:, shines], rgb[:, shines])
    return lit
