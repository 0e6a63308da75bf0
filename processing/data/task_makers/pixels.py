"""Marked pixels: one pixel with its label and point, sparse point maps of several, and where marks may lie.

A mark lies away from depth edges and borders. Its label comes from the one box around its point, or from a labelled
point of the row, or a labeller; where no label is known the question asks for the point alone.
Frame: camera of view 0. Units: metres.
"""

from dataclasses import replace

import numpy as np

from ...prompts_gap_mllm import name_marks
from ..record_errors import RecordError
from ..truth import Truth, answered
from .scene_cameras import SceneCamera
from .scene_objects import SceneObject
from .spatial_facts import visible_items
from .task_scene import CannotAskError, Draft, Marked, TaskScene, draw_one, remembered


OBJECT_SHARE = 0.6  # of the marked pixels, where objects and what is around them can be had
NUM_SPARSE = (3, 6)  # marks of a sparse point map, fewest and most
_NO_PIXEL = "no pixel is away from depth edges, the border and other marks"
_DRAWS = 32  # pixels of a view that are tried


def draw_mark(
    scene: TaskScene,
    rng: np.random.Generator,
    color: str,
    cameras: list[SceneCamera],
    item: SceneObject | None = None,
    taken: tuple[Marked, ...] = (),
    around: bool = False,
) -> Marked | None:
    """Draw a pixel that may be marked, in a view drawn from those that have one.

    Its label is known where an instance map tells it, or where it must show an object.

    Args:
        scene (`TaskScene`), rng (`numpy.random.Generator`), color (`str`)
        cameras (`list[SceneCamera]`): views to draw from, all with depth.
        item (`SceneObject`, *optional*): what the pixel must show.
        taken (`tuple[Marked, ...]`, defaults to `()`): other marks, to keep away from in the picture and in space.
        around (`bool`, defaults to False): where an instance map tells, the pixel must show no object of the scene,
            but floor, wall, ..
    Returns:
        `Marked`, or None if there is no such pixel.
    """
    for place in _order_of_views(scene, rng, cameras, item, around):
        camera = cameras[int(place)]
        allowed = _allowed_places(scene, camera, item, around)
        if not len(allowed):
            continue
        pixels = camera.grid.reshape(-1, 2)[allowed[rng.integers(len(allowed), size=_DRAWS)]]
        if camera.stride > 1:  # within the cells of the grid, and tested again there
            pixels = pixels + rng.integers(camera.stride, size=pixels.shape) - camera.stride // 2
            pixels = pixels[camera.is_markable(pixels)]
        points = camera.points_at(pixels)
        for index in np.flatnonzero(_is_free(scene, camera, pixels, points, taken)):
            if item is None or scene.objects.owner_of(pixels[index], points[index], camera.index) is item:
                x, y = pixels[index].astype(int)
                label = item.label if item else camera.label_at(pixels[index])
                return Marked(camera.index, (int(x), int(y)), points[index], color, item, label)
    return None


def _order_of_views(scene, rng, cameras, item, around):
    """Views in the order in which they are tried: by chance, with instance maps in proportion to their pixels."""
    if any(camera.instances is None for camera in cameras):
        return rng.permutation(len(cameras))
    counts = np.array([len(_allowed_places(scene, camera, item, around)) for camera in cameras], np.float64)
    if not counts.any():
        return []
    return rng.choice(len(cameras), size=np.count_nonzero(counts), replace=False, p=counts / counts.sum())


@remembered
def _allowed_places(scene, camera, item, around):
    """Where in the grid pixels may be marked, `(n,)` row by row; those that show an object where one is given."""
    allowed = camera.grid_markable
    if around and camera.instances is not None and scene.knows_objects:
        allowed = allowed & (scene.objects.owners[camera.index] < 0)
    if item is not None:
        allowed = allowed & scene.objects.inner[camera.index] & (scene.objects.owners[camera.index] == item.index)
    return np.flatnonzero(allowed)


def _is_free(scene, camera, pixels, points, taken):
    """Whether pixels `(n, 2)` keep away from other marks, in the picture and in space, `(n,)` bool."""
    free = np.ones(len(pixels), dtype=bool)
    for other in (*scene.taken, *taken):
        free &= np.linalg.norm(points - other.xyz, axis=-1) >= scene.margins.point_gap_m
        if other.view == camera.index:
            gap = scene.margins.mark_gap_share * camera.size[0]
            free &= np.linalg.norm(pixels - np.array(other.pixel), axis=-1) >= gap
    return free


def _labelled_points(scene: TaskScene) -> list[Marked]:
    """Points that the row brings with a label and a whole pixel; their depth map, if any, must agree."""
    found = []
    for point in scene.sample.points:
        if not point.label or point.view is None or point.pixel is None or point.xyz is None:
            continue
        camera = scene.cameras[point.view]
        pixel = np.array(point.pixel, np.float64)
        if camera is None or (pixel != np.rint(pixel)).any() or not camera.is_inside(pixel):
            continue
        try:
            xyz = scene.sample.point_in_view(point, 0)
        except RecordError:  # in a frame that the poses do not reach
            continue
        depth = camera.depth_at(pixel)
        if np.isfinite(depth) and np.linalg.norm(camera.points_at(pixel) - xyz) > scene.margins.edge_bend * depth:
            continue
        found.append(Marked(point.view, (int(pixel[0]), int(pixel[1])), xyz, "", None, point.label))
    return found


def _draw_labelled(scene, rng, color, taken=()):
    """A mark whose label is known: on a visible object, each equally likely, or a labelled point of the row."""
    try:
        items = visible_items(scene)
    except CannotAskError:
        points = [mark for mark in _labelled_points(scene) if is_apart(scene, mark, taken)]
        if not points:
            return None
        mark = draw_one(points, rng, "")
        mark.color = color
        return mark
    for place in rng.permutation(len(items)):
        item = items[int(place)]
        shown = [camera for camera in scene.measured if scene.objects.is_visible[item.index, camera.index]]
        mark = draw_mark(scene, rng, color, shown, item, taken)
        if mark is not None:
            return mark
    return None


def is_apart(scene: TaskScene, mark: Marked, taken: tuple[Marked, ...] = ()) -> bool:
    """Whether a mark keeps away from others, those of questions in the same pictures included."""
    camera = scene.cameras[mark.view]
    return bool(_is_free(scene, camera, np.array([mark.pixel], np.float64), mark.xyz[None], taken)[0])


def _draw_around(scene, rng, color):
    """A mark on what is around the objects, where that is known, else anywhere."""
    mark = draw_mark(scene, rng, color, scene.measured, around=True)
    return draw_mark(scene, rng, color, scene.measured) if mark is None else mark


def ask_reconstruction(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Label and point of one marked pixel: on an object, or around; there the point alone if no label is known."""
    (color,) = scene.draw_colors(rng, 1)
    mark = None
    if rng.random() < OBJECT_SHARE or not _has_depth(scene):
        mark = _draw_labelled(scene, rng, color)
    if mark is None:
        mark = _draw_around(scene, rng, color)
    if mark is None:
        raise CannotAskError(_NO_PIXEL)
    return draft_of_mark(scene, mark)


def draft_of_mark(scene: TaskScene, mark: Marked) -> Draft:
    """The question about one marked pixel: its point, and its label where that is known."""
    label = scene.label_of(mark)
    return Draft(
        task="reconstruction",
        question_type="reconstruction",
        kind="reconstruction" if label else "marked_point",
        words={"color": mark.color},
        truth=Truth("point", answered([mark.xyz], [label])),
        marks=[mark],
        facts={"label": label},
    )


def _has_depth(scene):
    return any(camera is not None and camera.depth_m is not None for camera in scene.cameras)


def ask_sparse_points(scene: TaskScene, rng: np.random.Generator) -> Draft:
    """Points, and labels where all are known, of several marked pixels: a sparse point map."""
    count = int(rng.integers(NUM_SPARSE[0], NUM_SPARSE[1] + 1))
    colors, marks = scene.draw_colors(rng, count), []
    if rng.random() < OBJECT_SHARE or not _has_depth(scene):
        marks = draw_marks(scene, rng, colors, with_labels=True)
    if len(marks) < NUM_SPARSE[0]:
        marks = draw_marks(scene, rng, colors)
    if len(marks) < NUM_SPARSE[0]:
        raise CannotAskError(_NO_PIXEL)
    marks = [replace(mark, text=str(number)) for number, mark in enumerate(marks, 1)]
    labels = [scene.label_of(mark) for mark in marks]
    is_labelled = all(labels)
    return Draft(
        task="sparse_points",
        question_type="sparse_points",
        kind="sparse_points" if is_labelled else "marked_points",
        words={"crosses": name_marks(marks)},
        truth=Truth("points", answered([mark.xyz for mark in marks], labels if is_labelled else None)),
        marks=marks,
        facts={"labels": labels},
    )


def draw_marks(
    scene: TaskScene, rng: np.random.Generator, colors: list[str], with_labels: bool = False
) -> list[Marked]:
    """Marks away from each other, one of each colour until no pixel is found; `with_labels` on what has a label."""
    marks = []
    for color in colors:
        taken = tuple(marks)
        if with_labels:
            mark = _draw_labelled(scene, rng, color, taken)
        else:
            mark = draw_mark(scene, rng, color, scene.measured, None, taken)
        if mark is None:
            break
        marks.append(mark)
    return marks


PIXEL_MAKERS = {"reconstruction": ask_reconstruction, "sparse_points": ask_sparse_points}
