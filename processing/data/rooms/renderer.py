"""Renders a furnished room in numpy: colour, depth, normals and instance ids of every view.

A room is closed, so every pixel has a finite depth, unless its style takes the walls away. Shapes and cameras come
from layout.py, hits and shadows from rays.py, colours from appearance.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...camera_geometry_gap_mllm import (
    transform_box,
    transform_points,
    unproject_depth,
    view_to_first_view,
)
from . import appearance
from .layout import OPEN_RANGE, make_layout, room_seed
from .rays import cast_rays, cast_shadows, collect_parts, find_surface, ray_directions
from .styles import RoomStyle


@dataclass
class RoomScene:
    """A rendered room.

    Frame: world, +z up, floor at z = 0; cameras OpenCV (+x right, +y down, +z forward). Units: metres, radians;
    intrinsics in pixels with integer pixel centres. Boxes: centre, full size, Euler angles in order "zxy".

    Args:
        seed (`int`): what it was drawn from.
        images (`numpy.ndarray` of shape `(V, H, W, 3)`, uint8): RGB.
        depth_m (`numpy.ndarray` of shape `(V, H, W)`, float32): z-depth; finite and positive everywhere, but for rooms
            without walls, where it is 0 beyond `layout.OPEN_RANGE`.
        normals (`numpy.ndarray` of shape `(V, H, W, 3)`, float32): unit normals towards the camera, camera frame.
        instance_ids (`numpy.ndarray` of shape `(V, H, W)`, int16): i + 1 for piece i of furniture; 0 floor, -1 wall,
            -2 ceiling, -3 door, -4 window, -5 picture, -6 rug (`appearance.STRUCTURE_LABELS`).
        intrinsics (`numpy.ndarray` of shape `(V, 3, 3)`, float64).
        camera_to_world (`numpy.ndarray` of shape `(V, 4, 4)`, float64).
        boxes (`numpy.ndarray` of shape `(N, 9)`, float64): tight boxes of the furniture, world frame.
        labels (`list[str]`), colors (`list[str]`): category and named colour of each piece.
        room_size (`numpy.ndarray` of shape `(3,)`): extent of the room.
        euler_order (`str`, defaults to "zxy"): Euler order of `boxes`, always "zxy".
    """

    seed: int
    images: np.ndarray
    depth_m: np.ndarray
    normals: np.ndarray
    instance_ids: np.ndarray
    intrinsics: np.ndarray
    camera_to_world: np.ndarray
    boxes: np.ndarray
    labels: list[str]
    colors: list[str]
    room_size: np.ndarray
    euler_order: str = "zxy"

    @property
    def scene_id(self) -> str:
        """Its name in samples: "room_0000031"."""
        return f"room_{self.seed:07d}"

    @property
    def view_to_first_view(self) -> np.ndarray:
        """Poses relative to view 0, `(V, 4, 4)`, float64."""
        return view_to_first_view(self.camera_to_world)

    def points_in_first_view(self) -> np.ndarray:
        """Return the point that each pixel sees.

        Frame: camera of view 0, OpenCV axes. Units: metres.

        Returns:
            `numpy.ndarray` of shape `(V, H, W, 3)`, float32: finite everywhere.
        """
        points = unproject_depth(self.depth_m.astype(np.float64), self.intrinsics)
        return transform_points(self.view_to_first_view, points).astype(np.float32)

    def boxes_in_first_view(self) -> np.ndarray:
        """Return the furniture boxes, `(N, 9)`, Euler order "zxy". Frame: camera of view 0. Units: metres, radians."""
        return transform_box(self.boxes, np.linalg.inv(self.camera_to_world[0]), self.euler_order)

    def reorder_views(self, order: list[int]) -> "RoomScene":
        """Return the same room with its views in another order (or fewer of them); the first becomes the reference.

        Args:
            order (`list[int]`): view indices, each at most once.
        Returns:
            `RoomScene`.
        Raises:
            ValueError: if an index is missing from the scene or given twice, or the list is empty.
        """
        order = list(order)
        if not order or len(set(order)) < len(order) or not set(order) <= set(range(len(self.images))):
            raise ValueError(f"order is {order}; expected different view indices from 0 to {len(self.images) - 1}.")
        names = ("images", "depth_m", "normals", "instance_ids", "intrinsics", "camera_to_world")
        return replace(self, **{name: getattr(self, name)[order] for name in names})

    def as_sample(self):
        """The room as a `SceneSample` of the task "scene"; see `room_scenes.room_sample`."""
        from .room_scenes import room_sample  # samples need `datasets`, rendering does not

        return room_sample(self)

    def label_of(self, instance_id: int) -> str:
        """Return the label of an instance id: a furniture category, "floor", "wall", "ceiling", "door", ..

        Raises:
            ValueError: if the room has no such instance.
        """
        if 1 <= instance_id <= len(self.labels):
            return self.labels[instance_id - 1]
        if instance_id not in appearance.STRUCTURE_LABELS:
            raise ValueError(
                f"instance_id is {instance_id}; expected {min(appearance.STRUCTURE_LABELS)} to {len(self.labels)}."
            )
        return appearance.STRUCTURE_LABELS[int(instance_id)]


def render_room(
    seed: int,
    num_views: int = 4,
    height: int = 128,
    width: int = 128,
    use_colors: bool = True,
    style: RoomStyle | None = None,
) -> RoomScene:
    """Render a furnished room from a seed.

    Frame: see `RoomScene`. Units: metres. Source: our choice; the paper trains on ScanNet scans.

    Args:
        seed (`int`): same seed and arguments, same bytes. `layout.room_seed` gives the seeds of a split.
        num_views (`int`, defaults to 4): views along a hand-held path.
        height (`int`, defaults to 128), width (`int`, defaults to 128): image size in pixels.
        use_colors (`bool`, defaults to True): False leaves the images black, in half the time.
        style (`RoomStyle`, *optional*): how the room leaves the usual.
    Returns:
        `RoomScene`.
    Raises:
        ValueError: if an argument is out of range, see `layout.make_layout`.
        RuntimeError: if no path of so many views fits, see `layout.make_layout`.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> room = render_room(0, num_views=2)
        >>> room.images.shape, room.depth_m.shape, room.boxes.shape[1]
        ((2, 128, 128, 3), (2, 128, 128), 9)

        ```
    """
    layout = make_layout(seed, num_views, height, width, style)
    look = appearance.draw_appearance(layout)
    parts = collect_parts(layout)
    directions = ray_directions(layout, height, width)
    depth, primitive = cast_rays(layout, parts, directions)
    shape = depth.shape
    origin = layout.camera_to_world[:, :3, 3].astype(np.float32)
    points = np.stack([(depth * directions[a] + origin[:, a, None, None]).reshape(-1) for a in range(3)])  # (3, V*H*W)
    hit = primitive.reshape(-1).astype(np.intp)
    normals, u, v = find_surface(layout, parts, hit, points)
    ids, on_decorations = appearance.identify(look, hit, u, v)
    if use_colors:
        rgb = appearance.paint(look, hit, u, v, on_decorations)
        cell = max(0.04, float(layout.size[:2].max()) / 150.0)  # of the shadow map, whose size is bounded
        is_lit = cast_shadows(layout, parts, look.light, points + np.float32(0.05) * normals, cell)
        rgb = appearance.light_up(look, layout.size, rgb, hit, points, normals, is_lit)
        images = _develop(look, rgb.reshape(3, *shape), seed)
    else:
        images = np.zeros((*shape, 3), np.uint8)
    if layout.is_open:
        depth = np.where(depth > np.float32(OPEN_RANGE), np.float32(0.0), depth)
    rotation = layout.camera_to_world[:, :3, :3].astype(np.float32)
    world_normals = np.moveaxis(normals.reshape(3, *shape), 0, -1).reshape(num_views, -1, 3)
    return RoomScene(
        seed=seed,
        images=images,
        depth_m=depth,
        normals=(world_normals @ rotation).reshape(*shape, 3),
        instance_ids=ids.reshape(shape),
        intrinsics=layout.intrinsics,
        camera_to_world=layout.camera_to_world,
        boxes=np.stack([piece.box for piece in layout.furniture]),
        labels=[piece.label for piece in layout.furniture],
        colors=[piece.color for piece in layout.furniture],
        room_size=layout.size,
    )


def render_split(
    split: str, num_scenes: int, first_scene: int = 0, height: int = 128, width: int = 128
) -> Iterator[RoomScene]:
    """Yield rooms of a split in their default views, one at a time.

    Args:
        split (`str`): "train", "selection" or "test".
        num_scenes (`int`): how many rooms.
        first_scene (`int`, defaults to 0): number of the first room in the split.
        height (`int`, defaults to 128), width (`int`, defaults to 128): image size in pixels.
    Returns:
        iterator of `RoomScene`.
    Raises:
        ValueError: if the split is unknown or has fewer rooms.

    Example:
        ```python
        >>> from gap_mllm.evaluation import render_split
        >>> [room.seed for room in render_split("test", 2, height=32, width=32)]
        [1100000, 1100001]

        ```
    """
    for index in range(first_scene, first_scene + num_scenes):
        yield render_room(room_seed(split, index), height=height, width=width)


def _develop(look, rgb, seed):
    """Expose, vignette, blur, add sensor noise and quantise: (3, V, H, W) to (V, H, W, 3) uint8."""
    _, num_views, height, width = rgb.shape
    rng = np.random.default_rng((seed, appearance.APPEARANCE_STREAM, 1))
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)
    fall = 1.0 - np.float32(look.vignette) * (x * x + (y * y)[:, None]) / 2
    gain = np.clip(look.brightness / max(float(rgb.mean()), 1e-3), 0.7, 1.25)
    gain = gain * rng.uniform(0.94, 1.06, (num_views, 1, 1))
    rgb = rgb * (fall * gain.astype(np.float32))
    peak = np.maximum(np.maximum(rgb[0], rgb[1]), rgb[2])
    excess = np.maximum(peak - np.float32(0.75), 0.0)
    rgb *= (peak - excess + excess / (1.0 + 4.0 * excess)) / np.maximum(peak, np.float32(1e-3))  # keeps the hue
    rgb = _blur(_blur(rgb, look.blur, 2), look.blur, 3)
    rgb += np.float32(look.noise) * rng.standard_normal(rgb.shape, dtype=np.float32)
    pixels = (np.clip(rgb, 0.0, 1.0) * np.float32(255.0) + np.float32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))


def _blur(rgb, weight, axis):
    """Three-tap blur along rows or columns of every view; the border keeps its value."""
    inner, before, after = (tuple([slice(None)] * axis + [part]) for part in (slice(1, -1), slice(-2), slice(2, None)))
    blurred = rgb.copy()
    blurred[inner] = np.float32(1.0 - 2.0 * weight) * rgb[inner]
    blurred[inner] += np.float32(weight) * (rgb[before] + rgb[after])
    return blurred
