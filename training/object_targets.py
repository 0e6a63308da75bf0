"""The objects that views show: which visual tokens see each, points on its surface, and its name.

What a pixel shows is read off the instance map of its view, where there is one, else off the boxes of the scene, or
of the questions where they were not made from one: its 3D point lies in one of them.
Frame: camera of the first view, OpenCV axes. Units: metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..processing.camera_geometry_gap_mllm import euler_to_matrix
from ..processing.data.augmentation.visible_boxes import BOX_SLACK_M
from ..processing.data.record_errors import RecordError
from ..processing.data.scene_sample import SceneSample, View
from ..processing.data.task_makers.margins import STRUCTURE_NAMES
from .teachers.teacher_targets import TeacherTargets


CELLS = 8  # places along each side of a visual token that are looked at
TOKEN_SHARE = 0.25  # of a token's places, from which on it sees an object; of several the one with most
NUM_SURFACE_POINTS = 64
LEAST_POINTS = 16  # places with depth that an object needs
MOST_POINTS = 2048  # of an object, among which its surface points are chosen


@dataclass(frozen=True)
class ObjectTargets:
    """Objects of one scene. Frame: camera of the first view. Units: metres, or the teacher's.

    Args:
        tokens (`torch.Tensor` of shape `(T,)`, int64): object that each visual token of all views sees, from 0; -1 for
            none.
        labels (`list[str]`): label of each object.
        points (`torch.Tensor` of shape `(O, 64, 3)`): points on what the views see of each.
        is_known (`list[bool]`): whether the objects of each view are known.
        names (`list[str]`): labels of all that is seen, each once; walls, floors and the like too, where an instance
            map tells them.
        places (`torch.Tensor` of shape `(T, 8, 8)`, int64): what each place of a token shows, as index of `names`; -1
            where it is not known.
        crosses (`list[list]`): crosses that questions draw in views that are known: colour, token, row and column of
            the place.
    """

    tokens: torch.Tensor
    labels: list[str]
    points: torch.Tensor
    is_known: list[bool]
    names: list[str]
    places: torch.Tensor
    crosses: list[list]

    @property
    def centers(self) -> torch.Tensor:
        """The mean surface point `(O, 3)` of each object."""
        return self.points.mean(1)


def find_objects(
    told: TeacherTargets, views: Sequence[View], grids: list[tuple[int, int]], samples: Sequence[SceneSample] = ()
) -> ObjectTargets:
    """Find the objects that the views of a scene show, and where.

    Walls, floors and the like are none, nor is what no token sees, or what has less than 16 of the places with depth
    that are looked at, 8 x 8 in each token.

    Args:
        told (`TeacherTargets`): depth, intrinsics and poses; boxes need a teacher that tells metres.
        views (`Sequence[View]`): views of the scene.
        grids (`list[tuple[int, int]]`): height and width of each view in visual tokens.
        samples (`Sequence[SceneSample]`): questions about these views, whose `scene_boxes`, else `boxes`, are objects.
    Returns:
        `ObjectTargets`.
    Raises:
        ValueError: if the teacher does not tell depth, intrinsics or poses.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training.object_targets import find_objects
        >>> from gap_mllm.training.teachers import RecordedTeacher
        >>> room = load_multiview("rendered_rooms", split="train", num_rooms=1)[0]
        >>> found = find_objects(RecordedTeacher()(room.views), room.views, [(4, 4)] * 4)
        >>> tuple(found.tokens.shape), tuple(found.points.shape[1:]), "floor" in found.labels
        ((64,), (64, 3), False)

        ```
    """
    without_map = any(view.instances is None for view in views)
    boxes = labelled_boxes(samples) if told.is_metric and without_map else []
    resized = told.resized([(rows * CELLS, columns * CELLS) for rows, columns in grids])
    labels, owners, is_known = {}, [], []  # objects by their key, and which each place shows
    names, shown = {}, []  # labels of all that is seen, and which each place shows
    points = [each.cpu().numpy() for each in resized.points()]
    for view, seen in zip(views, points, strict=True):
        is_known.append(view.instances is not None or bool(boxes) and bool(np.isfinite(seen).any()))
        if view.instances is not None:
            owners.append(_from_map(view.instances, seen.shape[:2], labels, names, shown))
        else:
            owners.append(_from_boxes(boxes, seen, labels))
            numbers = [names.setdefault(label, len(names)) for _, label in labels.values()]
            shown.append(np.array([*numbers, -1])[owners[-1]])
    tokens, kept, surfaces = [_seen_by_tokens(each, len(labels)) for each in owners], [], []
    places, owner_of_place = (
        np.concatenate([each.reshape(-1, 3) for each in points]),
        np.concatenate([each.reshape(-1) for each in owners]),
    )
    tokens, is_measured = np.concatenate(tokens), np.isfinite(places).all(-1)
    for number in range(len(labels)):
        surface = places[(owner_of_place == number) & is_measured]
        if len(surface) >= LEAST_POINTS and (tokens == number).any():
            kept.append(number)
            surfaces.append(spread_points(surface, NUM_SURFACE_POINTS))
    renumbered = np.full(len(labels) + 1, -1)  # the last is of none
    renumbered[kept] = np.arange(len(kept))
    label_of = [label for _, label in labels.values()]
    return ObjectTargets(
        torch.from_numpy(renumbered[tokens]),
        [label_of[number] for number in kept],
        torch.as_tensor(np.array(surfaces).reshape(-1, NUM_SURFACE_POINTS, 3), dtype=torch.float32),
        is_known,
        list(names),
        torch.from_numpy(np.concatenate([_cells(each) for each in shown])).long(),
        [cross for view, *cross in _crosses(samples, views, grids) if is_known[view]],
    )


def spread_points(points: np.ndarray, count: int) -> np.ndarray:
    """Choose points that lie far apart, the first farthest from the middle, each next from those before.

    Args:
        points (`np.ndarray` of shape `(N, 3)`): points, one or more.
        count (`int`): how many to choose; of fewer points some come again.
    Returns:
        `np.ndarray` of shape `(count, 3)`.
    """
    points = points[:: -(-len(points) // MOST_POINTS)]
    distance, chosen = np.linalg.norm(points - points.mean(0), axis=1), []
    for _ in range(count):
        chosen.append(int(distance.argmax()))
        apart = np.linalg.norm(points - points[chosen[-1]], axis=1)
        distance = apart if len(chosen) == 1 else np.minimum(distance, apart)
    return points[chosen]


def _crosses(samples, views, grids):
    """Each cross of the questions once, with the place that it is drawn on."""
    before = np.cumsum([0, *(rows * columns for rows, columns in grids)])
    marks = {(mark.view, mark.xy): mark for sample in samples for mark in sample.marks}
    found = []
    for mark in marks.values():
        if mark.kind == "cross" and mark.unit == "pixel" and isinstance(mark.color, str):
            shares = (np.array(mark.xy) + 0.5) / views[mark.view].size
            column, row = (shares * grids[mark.view][::-1] * CELLS).astype(int).tolist()
            token = before[mark.view] + row // CELLS * grids[mark.view][1] + column // CELLS
            found.append((mark.view, mark.color, int(token), row % CELLS, column % CELLS))
    return found


def labelled_boxes(samples: Sequence[SceneSample]) -> list[tuple[str, str, np.ndarray, str]]:
    """The boxes of questions about one scene that are objects, each once, the largest first.

    Args:
        samples (`Sequence[SceneSample]`): questions, whose `scene_boxes`, else `boxes`, count.
    Returns:
        `list[tuple]`: key, label, the nine numbers in the camera of the first view (metres, radians), and the order of
            their angles.
    """
    found = {}
    for sample in samples:
        for box in sample.scene_boxes or sample.boxes:
            if not box.label or box.label in STRUCTURE_NAMES:
                continue
            try:
                numbers = sample.box_in_view(box, 0)
            except RecordError:  # its frame cannot be reached without a pose
                continue
            key = box.instance_id or (box.label, *numbers.round(2).tolist())
            found[str(key)] = (box.label, numbers, box.euler_order)
    return sorted(((key, *box) for key, box in found.items()), key=lambda box: -np.prod(box[2][3:6]))


def _number(labels, key, label):
    """Number of an object, which is added to `labels` where it is new."""
    return labels.setdefault(str(key), (len(labels), label))[0]


def _from_map(instances, size, labels, names, shown):
    height, width = instances.ids.shape
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(int)
    ids, owners = instances.ids[rows[:, None], columns], np.full(size, -1)
    shown.append(np.full(size, -1))
    for number in np.unique(ids).tolist():
        label = instances.labels.get(number)
        if label is None:
            continue
        shown[-1][ids == number] = names.setdefault(label, len(names))
        if number > 0 and label not in STRUCTURE_NAMES:
            owners[ids == number] = _number(labels, number, label)
    return owners


def _from_boxes(boxes, points, labels):
    owners = np.full(points.shape[:2], -1)
    for key, label, numbers, order in boxes:  # a smaller one stands in or on a larger one
        local = (points - numbers[:3]) @ euler_to_matrix(numbers[6:], order)
        inside = (np.abs(local) <= numbers[3:6] / 2 + BOX_SLACK_M).all(-1)
        if inside.any():
            owners[inside] = _number(labels, key, label)
    return owners


def _cells(places):
    """The places of each token of a view, `(tokens, 8, 8)`."""
    rows, columns = places.shape[0] // CELLS, places.shape[1] // CELLS
    return places.reshape(rows, CELLS, columns, CELLS).swapaxes(1, 2).reshape(-1, CELLS, CELLS)


def _seen_by_tokens(owners, num_objects):
    """The object that each token of a view sees, `(tokens,)`, -1 for none."""
    cells = _cells(owners).reshape(-1, CELLS * CELLS)
    if not num_objects:
        return np.full(len(cells), -1)
    shares = np.stack([(cells == number).mean(1) for number in range(num_objects)], 1)
    return np.where(shares.max(1) >= TOKEN_SHARE, shares.argmax(1), -1)
