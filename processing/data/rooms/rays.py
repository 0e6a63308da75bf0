"""Analytic ray casting for the rendered rooms: what each ray hits first, the surface there, and shadows. Numpy only.

Works on a RoomLayout (layout.py); the shapes of furniture are boxes, frusta and ellipsoids (furniture.py).
A primitive is only tested inside its screen rectangle. Colours are left to appearance.py.
"""

from dataclasses import dataclass

import numpy as np

from . import appearance
from .layout import RoomLayout


_TINY = np.float32(1e-6)  # direction components are kept this far from 0, so that no grazing ray divides by it
_SHAPES = {"box": 0, "frustum": 1, "ellipsoid": 2}


@dataclass
class Parts:
    """All parts of a room in arrays; entry k is primitive `FIRST_PART + k`. World frame, metres."""

    shape: np.ndarray  # (K,) values of _SHAPES
    center: np.ndarray  # (K, 3) in the frame of its piece
    half: np.ndarray  # (K, 3)
    taper: np.ndarray  # (K,)
    piece: np.ndarray  # (K,) number of the piece
    cos: np.ndarray  # (K,) of its yaw
    sin: np.ndarray
    base: np.ndarray  # (K, 3) world position of the origin of the piece


def collect_parts(layout: RoomLayout) -> Parts:
    """Return the parts of all furniture of a layout. Frame: world and piece, see `Parts`. Units: metres."""
    rows = [(number, piece, part) for number, piece in enumerate(layout.furniture) for part in piece.parts]
    yaws = np.array([piece.yaw for _, piece, _ in rows])
    return Parts(
        shape=np.array([_SHAPES[part.shape] for _, _, part in rows]),
        center=np.array([part.center for _, _, part in rows]),
        half=np.array([part.half for _, _, part in rows]),
        taper=np.array([part.taper for _, _, part in rows]),
        piece=np.array([number for number, _, _ in rows]),
        cos=np.cos(yaws),
        sin=np.sin(yaws),
        base=np.array([(*piece.center[:2], 0.0) for _, piece, _ in rows]),
    )


def ray_directions(layout: RoomLayout, height: int, width: int) -> list[np.ndarray]:
    """Return the direction of every pixel's ray, scaled to unit z-depth, so that distances along it are z-depths.

    Frame: world; integer pixel centres. Units: metres per metre of z-depth.

    Args:
        layout (`RoomLayout`): the room and its cameras.
        height (`int`), width (`int`): image size in pixels.
    Returns:
        `list` of x, y and z, each `numpy.ndarray` of shape `(V, H, W)`, float32; no component is exactly 0.
    """
    inverse = np.linalg.inv(layout.intrinsics)
    x = inverse[:, 0, 0, None] * np.arange(width) + inverse[:, 0, 2, None]  # (V, W)
    y = inverse[:, 1, 1, None] * np.arange(height) + inverse[:, 1, 2, None]  # (V, H)
    rotation = layout.camera_to_world[:, :3, :3]
    planes = []
    for a in range(3):
        row = rotation[:, a, 0, None] * x
        column = rotation[:, a, 1, None] * y + rotation[:, a, 2, None]
        planes.append(_away_from_zero((row[:, None, :] + column[:, :, None]).astype(np.float32)))
    return planes


def _away_from_zero(values):
    return np.where(np.abs(values) < _TINY, _TINY, values)


def cast_rays(layout: RoomLayout, parts: Parts, directions: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return what every ray hits first.

    Frame: world. Units: metres.

    Args:
        layout (`RoomLayout`): the room; its cameras are the origins.
        parts (`Parts`): its furniture.
        directions (`list[numpy.ndarray]`): directions that `ray_directions` gives.
    Returns:
        `tuple[numpy.ndarray, numpy.ndarray]`, both `(V, H, W)`: z-depth, float32, always finite; and the number of
        the primitive, int16, as in appearance.py.
    """
    origin = layout.camera_to_world[:, :3, 3]
    exits = []
    for a in range(3):
        start = origin[:, a, None, None].astype(np.float32)
        exits.append(
            (np.where(directions[a] > 0, np.float32(layout.size[a]), np.float32(0.0)) - start) / directions[a]
        )
    depth = np.minimum(np.minimum(exits[0], exits[1]), exits[2])
    axis = np.where(exits[0] == depth, 0, np.where(exits[1] == depth, 2, 4)).astype(np.int16)
    is_high = np.where(axis == 0, directions[0], np.where(axis == 2, directions[1], directions[2])) > 0
    primitive = axis + is_high  # faces in the order -x, +x, -y, +y, floor, ceiling
    if layout.block is not None:
        _cast_block(layout.block, origin, directions, depth, primitive)
    rectangles = _screen_rectangles(parts, layout.intrinsics, layout.camera_to_world, *depth.shape[1:])
    for view in range(len(depth)):
        planes = [plane[view] for plane in directions]
        _cast_parts(parts, rectangles[view], origin[view], planes, depth[view], primitive[view])
    return depth, primitive


def _cast_parts(parts, rectangles, origin, directions, depth, primitive):
    """Keep what is nearer than `depth` among all furniture, for the rays of one view."""
    is_seen = rectangles[:, 1] > rectangles[:, 0]
    for number in range(parts.piece[-1] + 1):
        members = np.nonzero((parts.piece == number) & is_seen)[0]
        if len(members):
            _cast_piece(parts, members, rectangles, origin, directions, depth, primitive)


def cast_shadows(layout: RoomLayout, parts: Parts, light, points, cell: float = 0.04) -> np.ndarray:
    """Return which share of the lamp points see: a shadow map from a pinhole at the lamp, looking down.

    The map covers three times the extent of the room on the floor plane, so that it also reaches up the walls.
    Frame: world. Units: metres.

    Args:
        layout (`RoomLayout`), parts (`Parts`): the room.
        light (`numpy.ndarray` of shape `(3,)`): the lamp.
        points (`numpy.ndarray` of shape `(3, M)`): lifted a little off their surfaces, which else shade themselves.
        cell (`float`, defaults to 0.04): width of a cell of the map on the floor.
    Returns:
        `numpy.ndarray` of shape `(M,)`, float32: 0, 0.5 or 1.
    """
    extent = 3.0 * layout.size[:2]
    width, height = (int(side / cell) for side in extent)
    down = np.array([[1.0, 0, 0, light[0]], [0, -1.0, 0, light[1]], [0, 0, -1.0, light[2]], [0, 0, 0, 1.0]])
    focal = light[2] / cell  # one cell is `cell` wide on the floor
    left, top = -layout.size[0], 2.0 * layout.size[1]  # world x of column 0, world y of row 0
    k = np.array([[focal, 0, (light[0] - left) / cell], [0, focal, (top - light[1]) / cell], [0, 0, 1.0]])
    rectangles = _screen_rectangles(parts, k[None], down[None], height, width)[0]
    x = ((np.arange(width) - k[0, 2]) / focal).astype(np.float32)
    y = ((k[1, 2] - np.arange(height)) / focal).astype(np.float32)
    directions = [np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))]
    directions.append(np.broadcast_to(np.float32(-1.0), (height, width)))
    depth = np.full((height, width), np.float32(light[2]) + 1.0)
    _cast_parts(parts, rectangles, light.astype(np.float64), directions, depth, np.zeros(depth.shape, np.int16))
    z = np.maximum(np.float32(light[2]) - points[2], np.float32(0.05))
    scale = np.float32(focal) / z
    column = (points[0] - light[0]) * scale + np.float32(k[0, 2])
    row = (light[1] - points[1]) * scale + np.float32(k[1, 2])
    is_lit = np.zeros(len(z), np.float32)
    for shift in (0.0, 1.0):  # two look-ups soften the edge
        i = np.clip(row + shift, 0, height - 1).astype(np.int32)
        j = np.clip(column + shift, 0, width - 1).astype(np.int32)
        is_lit += 0.5 * (depth.take(i * width + j) > z - np.float32(0.04))
    return is_lit


def _cast_block(block, origin, directions, depth, primitive):
    """Intersect all rays with the protruding block."""
    near, far = np.float32(0.0), np.float32(np.inf)
    for a in range(3):
        low = (block[a] - origin[:, a, None, None]).astype(np.float32) / directions[a]
        high = (block[a + 3] - origin[:, a, None, None]).astype(np.float32) / directions[a]
        near, far = np.maximum(near, np.minimum(low, high)), np.minimum(far, np.maximum(low, high))
    _keep_nearer((near < far) & (near > 0), near, appearance.BLOCK, depth, primitive)


def _keep_nearer(is_hit, distance, number, depth, primitive):
    is_hit &= distance < depth
    np.copyto(depth, distance, where=is_hit)
    np.copyto(primitive, number, where=is_hit)


def _screen_rectangles(parts, intrinsics, camera_to_world, height, width):
    """Rows and columns that can see each part: (V, K, 4) as row start, row end, column start, column end."""
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    local = parts.center[:, None] + parts.half[:, None] * signs  # (K, 8, 3)
    c, s = parts.cos[:, None], parts.sin[:, None]
    x, y, z = np.moveaxis(local, -1, 0)
    world = np.stack([c * x - s * y, s * x + c * y, z], -1) + parts.base[:, None]
    offset = world[None] - camera_to_world[:, None, None, :3, 3]  # (V, K, 8, 3)
    camera = offset @ camera_to_world[:, None, :3, :3]
    z = np.maximum(camera[..., 2], 1e-3)
    k = intrinsics[:, None, None]
    column = k[..., 0, 0] * camera[..., 0] / z + k[..., 0, 2]
    row = k[..., 1, 1] * camera[..., 1] / z + k[..., 1, 2]
    bounds = [np.floor(row.min(-1)), np.ceil(row.max(-1)) + 1, np.floor(column.min(-1)), np.ceil(column.max(-1)) + 1]
    is_cut = camera[..., 2].min(-1) < 1e-2
    bounds = [np.where(is_cut, full, b) for full, b in zip((0, height, 0, width), bounds, strict=True)]
    bounds[0][camera[..., 2].max(-1) < 1e-2] = height  # behind the camera: an empty rectangle
    limits = np.array([height, height, width, width])
    rectangles = np.clip(np.stack(bounds, -1), 0, limits).astype(np.int64)
    rectangles[rectangles[..., 3] <= rectangles[..., 2], 1] = 0
    return rectangles


def _cast_piece(parts, members, rectangles, origin, directions, depth, primitive):
    """Intersect the rays of one view with the parts of one piece of furniture."""
    boxes = rectangles[members]
    top, left = boxes[:, 0].min(), boxes[:, 2].min()
    window = np.s_[top : boxes[:, 1].max(), left : boxes[:, 3].max()]
    first = members[0]
    cos, sin = np.float32(parts.cos[first]), np.float32(parts.sin[first])
    dx, dy, dz = (plane[window] for plane in directions)
    local = [_away_from_zero(cos * dx + sin * dy), _away_from_zero(cos * dy - sin * dx), dz]
    inverse = [1.0 / plane for plane in local]
    start = origin - parts.base[first]
    start = np.array([parts.cos[first] * start[0] + parts.sin[first] * start[1],
                      parts.cos[first] * start[1] - parts.sin[first] * start[0], start[2]])  # fmt: skip
    for k in members:
        row0, row1, column0, column1 = rectangles[k]
        part = np.s_[row0 - top : row1 - top, column0 - left : column1 - left]
        screen = np.s_[row0:row1, column0:column1]
        offset = start - parts.center[k]
        if parts.shape[k] == 0:
            is_hit, distance = _hit_box(offset, parts.half[k], [plane[part] for plane in inverse])
        else:
            scaled = [plane[part] * np.float32(1.0 / h) for plane, h in zip(local, parts.half[k], strict=True)]
            hit = _hit_frustum if parts.shape[k] == 1 else _hit_ellipsoid
            is_hit, distance = hit((offset / parts.half[k]).astype(np.float32), scaled, parts.taper[k])
        _keep_nearer(is_hit, distance, appearance.FIRST_PART + k, depth[screen], primitive[screen])


def _hit_box(offset, half, inverse):
    """Slab test: nearest positive distance along each ray. `inverse` holds 1 / direction."""
    near = far = None
    for a in range(3):
        low = np.float32(-half[a] - offset[a]) * inverse[a]
        high = np.float32(half[a] - offset[a]) * inverse[a]
        enter, leave = np.minimum(low, high), np.maximum(low, high)
        near = enter if near is None else np.maximum(near, enter, out=near)
        far = leave if far is None else np.minimum(far, leave, out=far)
    return (near < far) & (near > 0), near


def _hit_ellipsoid(offset, direction, taper):
    """Unit sphere in scaled coordinates."""
    a = direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2
    b = offset[0] * direction[0] + offset[1] * direction[1] + offset[2] * direction[2]
    root = b * b - a * (np.dot(offset, offset) - np.float32(1.0))
    distance = (-b - np.sqrt(np.maximum(root, 0.0))) / a
    return (root > 0) & (distance > 0), distance


def _hit_frustum(offset, direction, taper):
    """Cone or cylinder between z = -1 and 1 with radius 1 at the bottom and `taper` at the top, scaled coordinates."""
    middle, slope = np.float32((1.0 + taper) / 2), np.float32((taper - 1.0) / 2)
    dx, dy, dz = direction
    ox, oy, oz = offset
    radius = middle + slope * oz
    a = dx * dx + dy * dy - slope * slope * dz * dz
    b = ox * dx + oy * dy - slope * radius * dz
    root = b * b - a * (ox * ox + oy * oy - radius * radius)
    a = _away_from_zero(a)
    spread = np.sqrt(np.maximum(root, 0.0))
    best = np.full(dx.shape, np.inf, np.float32)
    for distance in ((-b - spread) / a, (-b + spread) / a):
        is_hit = (root > 0) & (np.abs(oz + distance * dz) <= 1.0) & (distance > 0)
        np.copyto(best, distance, where=is_hit & (distance < best))
    cap = np.float32(1.0 if oz > 0 else -1.0)  # the only cap that can be seen from outside
    distance = (cap - oz) / dz
    is_hit = (ox + distance * dx) ** 2 + (oy + distance * dy) ** 2 <= (middle + slope * cap) ** 2
    np.copyto(best, distance, where=is_hit & (distance > 0) & (distance < best))
    return best < np.inf, best


def find_surface(layout: RoomLayout, parts: Parts, hit, points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the normal and the place on its face of every hit.

    Frame: normals in the world, pointing out of what was hit; u and v as in `appearance.face_coordinates`.
    Units: metres.

    Args:
        layout (`RoomLayout`), parts (`Parts`): the room.
        hit (`numpy.ndarray` of shape `(M,)`): primitive numbers.
        points (`numpy.ndarray` of shape `(3, M)`): where, in the world.
    Returns:
        `tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]`: normals `(3, M)`, u `(M,)` and v `(M,)`.
    """
    face_normals = np.zeros((3, appearance.FIRST_PART + len(parts.piece)), np.float32)
    face_normals[[0, 1, 2], [0, 2, 4]] = 1.0
    face_normals[[0, 1, 2], [1, 3, 5]] = -1.0
    normals = face_normals.take(hit, 1)
    u, v = appearance.face_coordinates(points, hit >> 1)
    blocks = np.nonzero(hit == appearance.BLOCK)[0]
    if len(blocks):
        middle = ((layout.block[:3] + layout.block[3:]) / 2).astype(np.float32)
        half = ((layout.block[3:] - layout.block[:3]) / 2).astype(np.float32)
        axis, normals[:, blocks] = _box_normals((points[:, blocks] - middle[:, None]) / half[:, None])
        u[blocks], v[blocks] = appearance.face_coordinates(points[:, blocks], axis)
    where = np.nonzero(hit >= appearance.FIRST_PART)[0]
    if len(where):
        surface = _part_surface(parts, hit[where] - appearance.FIRST_PART, points[:, where])
        normals[:, where], u[where], v[where] = surface
    return normals, u, v


def _box_normals(scaled):
    """Axis (M,) and outward normal (3, M) of hits on the cube [-1, 1]^3."""
    x, y, z = np.abs(scaled)
    axis = np.where(x >= y, np.where(x >= z, 0, 2), np.where(y >= z, 1, 2))
    normals = np.stack([np.where(axis == a, np.sign(scaled[a]), np.float32(0.0)) for a in range(3)])
    return axis, normals


def _part_surface(parts, k, points):
    """Normals (3, M), u and v (M,) of hits on furniture parts `k`."""
    cos, sin = parts.cos.astype(np.float32)[k], parts.sin.astype(np.float32)[k]
    half = parts.half.T.astype(np.float32)[:, k]
    x, y, z = points - parts.base.T.astype(np.float32)[:, k]
    local = np.stack([cos * x + sin * y, cos * y - sin * x, z])
    scaled = (local - parts.center.T.astype(np.float32)[:, k]) / half
    axis, normals = _box_normals(scaled)
    shape = parts.shape[k]
    balls = np.nonzero(shape == 2)[0]
    normals[:, balls] = _unit(scaled[:, balls] / half[:, balls])
    rounds = np.nonzero(shape == 1)[0]
    if len(rounds):
        taper = parts.taper.astype(np.float32)[k[rounds]]
        slope = (taper - 1.0) / 2
        x, y, z = scaled[:, rounds]
        radius = (1.0 + taper) / 2 + slope * z
        on_side = np.abs(np.hypot(x, y) - radius) < 1.0 - np.abs(z)
        side = _unit(np.stack([x, y, -slope * radius]) / half[:, rounds])
        normals[:, rounds] = np.where(on_side, side, np.stack([0 * z, 0 * z, np.sign(z)]))
        axis[rounds] = np.where(on_side, axis[rounds] % 2, 2)
    u, v = appearance.face_coordinates(local, axis)
    x, y, z = normals
    return np.stack([cos * x - sin * y, sin * x + cos * y, z]), u, v


def _unit(vectors):
    return vectors / np.sqrt(vectors[0] ** 2 + vectors[1] ** 2 + vectors[2] ** 2)
