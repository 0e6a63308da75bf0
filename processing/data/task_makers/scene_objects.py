"""The objects of a scene as its boxes give them, and how much of each is seen in each view, tested against depth."""

from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import groupby

import numpy as np

from ..scene_sample import SceneSample
from .box_geometry import AROUND_M, Solid, box_gap, contains, is_within, object_limits, ray_depths
from .margins import TaskMargins
from .scene_cameras import SceneCamera


COMPLETE_TASKS = ("scene", "detection3d")  # rows that list every object; others hold the boxes of one question
SAME_BOX_M = 0.05  # two boxes of one label are one object if middles and sizes agree so far
TRUE_ROLES = (None, "target")


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One object.

    Frame: camera of view 0. Units: metres.

    Args:
        index (`int`): place in `SceneObjects.items`.
        label (`str`): label that the source writes.
        name (`str`): name that texts use: its kind, after its colour where that is known.
        instance_id (`str`, *optional*)
        solid (`Solid`): its box.
        kind (`str`): the label in plain words.
        attributes (`dict[str, str]`): see `Box`.
    """

    index: int
    label: str
    name: str
    instance_id: str | None
    solid: Solid
    kind: str
    attributes: dict[str, str] = field(default_factory=dict)

    @cached_property
    def numbers(self) -> np.ndarray:
        """Its box as nine numbers, see `Solid.numbers`."""
        return self.solid.numbers()

    @property
    def color(self) -> str | None:
        """The word for its colour, where that is known."""
        return self.attributes.get("color")


@cache
def same_name(a: str, b: str, groups) -> bool:
    """Whether one of two names may be taken for the other: equal, one ending in the other, or of one group."""
    if a == b or a.endswith(f" {b}") or b.endswith(f" {a}"):
        return True
    return any(_is_of(a, group) and _is_of(b, group) for group in groups)


def may_be_confused(a: SceneObject, b: SceneObject, groups) -> bool:
    """Whether the name of one object may be taken for that of the other: its kind, and no other colour."""
    is_other_color = None not in (a.color, b.color) and a.color != b.color
    return not is_other_color and same_name(a.kind, b.kind, groups)


def _is_of(name, group):
    return any(name == word or name.endswith(f" {word}") for word in group)


def read_objects(sample: SceneSample, margins: TaskMargins) -> list[SceneObject]:
    """Return the objects of a row that lists all of its scene's; structure and repetitions are left out.

    Frame: camera of view 0. Units: metres.

    Args:
        sample (`SceneSample`): sample of a task in `COMPLETE_TASKS`, each box of a role in `TRUE_ROLES` with a label.
        margins (`TaskMargins`)
    Returns:
        `list[SceneObject]`.
    Raises:
        RecordError: if a box stands in a frame that the poses do not reach.
    """
    boxes = [(box, " ".join(box.label.replace("_", " ").lower().split())) for box in sample.boxes if _is_true(box)]
    boxes = [(box, kind) for box, kind in boxes if kind not in margins.structure_names]
    found = []
    for (box, kind), solid in zip(boxes, _solids(sample, [box for box, _ in boxes]), strict=True):
        color = box.attributes.get("color")
        name = kind if color is None else f"{color} {kind}"
        if any(_is_same(box, name, solid, other) for other in found):
            continue
        found.append(SceneObject(len(found), box.label, name, box.instance_id, solid, kind, box.attributes))
    return found


def _is_true(box):
    return box.role in TRUE_ROLES


def _solids(sample, boxes):
    """The boxes in the camera of view 0; neighbours of one frame and order are read at once."""
    solids = []
    for (_, _, order), group in groupby(boxes, lambda box: (box.frame, box.frame_index, box.euler_order)):
        group = list(group)
        together = replace(group[0], numbers=np.stack([box.numbers for box in group]))
        solids += Solid.from_numbers(sample.box_in_view(together, 0), order)
    return solids


def _is_same(box, name, solid, other):
    if box.instance_id is not None and other.instance_id is not None:
        return box.instance_id == other.instance_id
    difference = np.concatenate([solid.center - other.solid.center, 2 * (solid.half - other.solid.half)])
    return name == other.name and bool((np.abs(difference) < SAME_BOX_M).all())


class SceneObjects:
    """Objects and their visibility. Shares are of the pixels of a picture, counted on the grid of the camera.

    Frame: camera of view 0. Units: metres.

    Args:
        items (`list[SceneObject]`)
        cameras (`list` of `SceneCamera` or None): one for each view.
        margins (`TaskMargins`)
    """

    def __init__(self, items: list[SceneObject], cameras: list[SceneCamera | None], margins: TaskMargins):
        self.items, self.cameras, self.margins = items, cameras, margins
        self._gaps = {}
        shape = (len(items), len(cameras))
        self.share, self.loose, self.missing = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.limits = np.full((*shape, 2, 3), np.nan)  # see object_limits
        self.owners = [None] * len(cameras)  # (h, w): index of the object that a grid pixel shows, -1 for none
        self.contested = [None] * len(cameras)  # (h, w): the point lies in the box of another object too
        numbers = _map_numbers(items)
        self._is_mapped = [camera is not None and None not in (camera.instances, numbers) for camera in cameras]
        for view, camera in enumerate(cameras):
            if camera is not None and camera.depth_m is not None:
                if self._is_mapped[view]:
                    self._look_up(view, camera, numbers)
                else:
                    self._look(view, camera)
                self.share[:, view] = self._shares(self.owners[view])

    def _look_up(self, view, camera, numbers):
        """Assign the pixels of a view to objects by its instance map, which says exactly what is seen."""
        owner_of_id = np.full(max(numbers) + 3, -1)  # from -1, which all that is below counts as, as what is beyond
        owner_of_id[np.array(numbers) + 1] = np.arange(len(numbers))
        owners = owner_of_id.take(np.add(camera.instances.ids, 1, dtype=np.int64), mode="clip")
        self.loose[:, view] = self._shares(owners)
        self.owners[view] = np.where(camera.grid_measured, camera.on_grid_of_map(owners), -1)

    def _shares(self, owners):
        """Share of the pixels that each object has."""
        return np.bincount(owners[owners >= 0], minlength=len(self.items)) / owners.size

    def _look(self, view, camera):
        """Assign the pixels of a view to objects; of several boxes around a point the smallest takes it."""
        margins, points = self.margins, camera.grid_points
        slack, inset = margins.box_slack_m, margins.box_inset_m
        owners = np.full(points.shape[:2], -1)
        num_boxes = np.zeros(points.shape[:2], dtype=np.int16)
        is_missing = np.isnan(points[..., 0])
        rays = camera.rays(camera.grid) @ camera.to_first[:3, :3].T
        for item in sorted(self.items, key=lambda item: (-np.prod(item.solid.half), item.index)):
            around = _picture_part(camera, item.solid, AROUND_M)
            limits = object_limits(item.solid, camera.center, rays[around], points[around], slack, inset)
            self.limits[item.index, view] = limits
            part = _picture_part(camera, item.solid, slack)
            inside = is_within(item.solid, points[part], limits)
            owners[part][inside] = item.index
            loose = contains(item.solid, points[part], slack)
            num_boxes[part] += loose
            entry, leave = ray_depths(item.solid, camera.center, rays[part])
            crossing = (leave > np.maximum(entry, 0)) & (leave > 0)
            self.loose[item.index, view] = loose.sum() / owners.size
            if crossing.any():
                self.missing[item.index, view] = (crossing & is_missing[part]).sum() / crossing.sum()
        self.owners[view], self.contested[view] = owners, num_boxes > 1

    @property
    def is_complete(self) -> bool:
        """Whether every view has a pose and a depth map, so that nothing is seen that is not known of."""
        return all(camera is not None and camera.depth_m is not None for camera in self.cameras)

    @cached_property
    def is_visible(self) -> np.ndarray:
        """`(objects, views)` bool."""
        return self.share >= self.margins.visible_share

    @cached_property
    def is_clear(self) -> np.ndarray:
        """`(objects, views)` bool: clearly visible."""
        return self.share >= self.margins.clear_share

    @cached_property
    def is_absent(self) -> np.ndarray:
        """`(objects, views)` bool: surely not seen. What is neither visible nor absent is not asked about."""
        known = np.array([camera is not None and camera.depth_m is not None for camera in self.cameras], dtype=bool)
        is_gone = (self.loose <= self.margins.absent_share) & (self.missing <= self.margins.missing_share)
        return is_gone & known

    @cached_property
    def is_present(self) -> np.ndarray:
        """`(objects,)` bool: may be seen in some view."""
        return ~self.is_absent.all(1)

    @cached_property
    def rivals(self) -> list[list[SceneObject]]:
        """For each object the others that may be seen in some view and that its name fits too."""
        groups = self.margins.name_groups
        present = [item for item in self.items if self.is_present[item.index]]
        return [
            [other for other in present if other is not item and may_be_confused(other, item, groups)]
            for item in self.items
        ]

    @cached_property
    def inner(self) -> list[np.ndarray | None]:
        """For each view the grid pixels whose eight neighbours show the same object, in no other box, `(h, w)`.

        Instance maps leave no doubt: there all of them.
        """
        return [
            None if owners is None else owners >= 0 if self.contested[view] is None else self._inner(view)
            for view, owners in enumerate(self.owners)
        ]

    def _inner(self, view):
        owners = self.owners[view]
        inner = np.zeros(owners.shape, dtype=bool)
        height, width = owners.shape
        middle = owners[1:-1, 1:-1]
        neighbours = [owners[y : height - 2 + y, x : width - 2 + x] == middle for y in range(3) for x in range(3)]
        inner[1:-1, 1:-1] = np.logical_and.reduce(neighbours)
        return inner & ~self.contested[view]

    def gap(self, a: SceneObject, b: SceneObject) -> float:
        """Smallest distance between the boxes of two objects."""
        key = (min(a.index, b.index), max(a.index, b.index))
        if key not in self._gaps:
            self._gaps[key] = box_gap(self.items[key[0]].solid, self.items[key[1]].solid)
        return self._gaps[key]

    def seen_pixels(self, item: SceneObject, view: int) -> np.ndarray:
        """The colour pixels `(n, 2)` of the grid that show an object in a view."""
        return self.cameras[view].grid.reshape(-1, 2)[np.flatnonzero(self.owners[view] == item.index)]

    def seen_points(self, item: SceneObject, view: int) -> np.ndarray:
        """The points `(n, 3)` that they see."""
        return self.cameras[view].grid_points.reshape(-1, 3)[np.flatnonzero(self.owners[view] == item.index)]

    def owner_of(self, pixel, point, view: int) -> SceneObject | None:
        """The object that a pixel of a view shows, with its point; None if the point is in no box, or in two."""
        if self._is_mapped[view]:
            found = str(int(self.cameras[view].instances_at(pixel)))
            return next((item for item in self.items if item.instance_id == found), None)
        near = [item for item in self.items if contains(item.solid, point, self.margins.box_slack_m)]
        if len(near) != 1:
            return None
        return near[0] if is_within(near[0].solid, point, self.limits[near[0].index, view]) else None


def _map_numbers(items) -> list[int] | None:
    """The numbers of the objects in instance maps; None if one has none there, so that maps do not know it."""
    numbers = [int(item.instance_id) if (item.instance_id or "").isdecimal() else None for item in items]
    return None if None in numbers else numbers


def _picture_part(camera, solid, slack):
    """The rows and columns of the grid that can show a box: all of them if it reaches behind the camera."""
    everything = (slice(None), slice(None))
    grown = Solid(solid.center, solid.half + slack, solid.rotation)
    pixels, depth = camera.project(grown.corners())
    if depth.min() < 0.05:
        return everything
    offset, stride = camera.stride // 2, camera.stride
    low = np.floor((pixels.min(0) - offset) / stride).astype(int)
    high = np.ceil((pixels.max(0) - offset) / stride).astype(int) + 1
    low, high = np.maximum(low, 0), np.maximum(high, 0)
    return slice(low[1], high[1]), slice(low[0], high[0])
