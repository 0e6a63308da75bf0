"""What can be answered without looking at the pictures: baselines fitted on training rooms.

A number of a model means little without them: rooms are alike, and where a pixel lies says much about what it shows.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..processing.data.rooms.renderer import RoomScene
from ..processing.data.rooms.room_scenes import make_questions
from ..processing.data.task_makers.pixels import OBJECT_SHARE


GRID = (32, 32)  # cells of the point priors, rows and columns
LABEL_GRID = (6, 6)  # coarser: a cell must hold enough marked pixels


@dataclass
class BlindBaselines:
    """Answers that use no pictures, at best the view and pixel that a question is about.

    All points are medians of each coordinate, of what was measured. Marked pixels lie on furniture more often than
    pixels do at large (`OBJECT_SHARE` of them), so what is asked about them has its own, stronger, prior.
    Frame: camera of the first view, OpenCV axes. Units: metres.

    Args:
        constant_point (`numpy.ndarray` of shape `(3,)`): median of the training questions about a marked pixel.
        constant_dense_point (`numpy.ndarray` of shape `(3,)`): median of all pixels.
        marked_prior_points (`numpy.ndarray` of shape `(V, h, w, 3)`): weighted median in each cell of each view, the
            furniture weighted as questions weight it.
        prior_points (`numpy.ndarray` of shape `(V, h, w, 3)`), prior_depth_m (`numpy.ndarray` of shape `(V, h, w)`):
            medians in each cell of each view, all pixels alike.
        majority_label (`str`): the most frequent label of the training questions.
        label_prior (`numpy.ndarray` of `str`): the most frequent label in each cell of `LABEL_GRID`, all views alike.
        scene_ids (`frozenset[str]`): the rooms that they were fitted on.
    """

    constant_point: np.ndarray
    constant_dense_point: np.ndarray
    marked_prior_points: np.ndarray
    prior_points: np.ndarray
    prior_depth_m: np.ndarray
    majority_label: str
    label_prior: np.ndarray
    scene_ids: frozenset

    def points_at(self, views: ArrayLike, pixels: ArrayLike, image_size: tuple[int, int]):
        """Return the prior point of marked pixels, `(n, 3)`. Frame: camera of the first view. Units: metres.

        Args:
            views (array-like of shape `(n,)`): index of the view.
            pixels (array-like of shape `(n, 2)`): (x, y), integer pixel centres.
            image_size (`tuple[int, int]`): width and height.
        Returns:
            `numpy.ndarray` of shape `(n, 3)`.
        Raises:
            ValueError: if a view or pixel lies outside of what the prior was fitted on.
        """
        views = np.asarray(views, dtype=int)
        if len(views) and not 0 <= views.min() <= views.max() < len(self.marked_prior_points):
            raise ValueError(f"views has entries up to {views.max()}; the prior knows {len(self.prior_points)} views.")
        rows, columns = _cells(pixels, image_size, self.marked_prior_points.shape[1:3])
        return self.marked_prior_points[views, rows, columns]

    def labels_at(self, pixels: ArrayLike, image_size: tuple[int, int]):
        """Return the label prior of marked pixels; arguments as for `points_at`. `numpy.ndarray` of `str`, `(n,)`."""
        return self.label_prior[_cells(pixels, image_size, self.label_prior.shape)]

    def point_maps(self, rows: int, columns: int):
        """Return the prior of all pixels, resampled (nearest) to `(V, rows, columns, 3)`.

        Frame: camera of the first view. Units: metres.
        """
        return _nearest(self.prior_points, rows, columns)

    def depth_maps(self, rows: int, columns: int):
        """Return the prior z-depth of all pixels, resampled (nearest) to `(V, rows, columns)`. Units: metres."""
        return _nearest(self.prior_depth_m, rows, columns)


def fit_baselines(scenes: Iterable[RoomScene], questions_per_scene: int = 8, grid: tuple[int, int] = GRID):
    """Fit the blind baselines on rooms, which should be those of the training split, in their default views.

    The rooms may come from a generator such as `render_split("train", 512)`: they are not kept.

    Args:
        scenes (iterable of `RoomScene`): all with the same number of views; sizes may differ.
        questions_per_scene (`int`, defaults to 8): marked pixels asked of each room.
        grid (`tuple[int, int]`, defaults to `GRID`): rows and columns of the point priors.
    Returns:
        `BlindBaselines`.
    Raises:
        ValueError: if there are no rooms, or their numbers of views differ.

    Example:
        ```python
        >>> from gap_mllm.evaluation import fit_baselines, render_split
        >>> baselines = fit_baselines(render_split("train", 2), questions_per_scene=1)
        >>> baselines.point_maps(4, 4).shape
        (4, 4, 4, 3)

        ```
    """
    points, depths, furniture, asked, scene_ids = [], [], [], [], []
    for scene in scenes:
        if points and len(scene.images) != len(points[0]):
            raise ValueError(
                f"room {scene.seed} has {len(scene.images)} views, the rooms before it {len(points[0])}; a prior for "
                "each view needs the same number everywhere."
            )
        rows, columns = _centers(scene.depth_m.shape[1:], grid)
        depth = scene.depth_m[:, rows[:, None], columns]
        depths.append(np.where(depth > 0, depth, np.nan))  # in the open nothing is measured
        points.append(np.where(depth[..., None] > 0, scene.points_in_first_view()[:, rows[:, None], columns], np.nan))
        furniture.append(scene.instance_ids[:, rows[:, None], columns] > 0)
        size = scene.images.shape[2], scene.images.shape[1]
        for question in make_questions(scene, "reconstruction", questions_per_scene) if questions_per_scene else ():
            cell, (answer,) = _cells([question.marks[0].xy], size, LABEL_GRID), question.truth.items
            asked.append((answer.numbers, answer.label, (int(cell[0][0]), int(cell[1][0]))))
        scene_ids.append(scene.scene_id)
    if not asked:
        raise ValueError("there are no rooms or no questions to fit baselines on.")
    points, depths, furniture = np.stack(points), np.stack(depths), np.stack(furniture)  # (N, V, h, w, 3), ..
    dense_point = np.nanmedian(points.reshape(-1, 3), axis=0).astype(np.float64)
    nowhere = np.isnan(depths).all(0)  # cells of which no room tells anything
    points[:, nowhere], depths[:, nowhere] = dense_point, np.nanmedian(depths)
    majority = Counter(label for _, label, _ in asked).most_common(1)[0][0]
    label_prior = np.full(LABEL_GRID, majority, dtype=object)
    for cell in {cell for _, _, cell in asked}:
        label_prior[cell] = Counter(label for _, label, where in asked if where == cell).most_common(1)[0][0]
    return BlindBaselines(
        constant_point=np.median([point for point, _, _ in asked], axis=0),
        constant_dense_point=dense_point,
        marked_prior_points=_weighted_median(points, _asked_weights(furniture) * ~np.isnan(depths)),
        prior_points=np.nanmedian(points, axis=0),
        prior_depth_m=np.nanmedian(depths, axis=0),
        majority_label=majority,
        label_prior=label_prior,
        scene_ids=frozenset(scene_ids),
    )


def _asked_weights(furniture):
    """Weights of pixels that put `OBJECT_SHARE` of the whole on furniture; 1 for all if one kind is absent."""
    share = furniture.mean()
    if share in (0.0, 1.0):
        return np.ones(furniture.shape)
    return np.where(furniture, OBJECT_SHARE / share, (1 - OBJECT_SHARE) / (1 - share))


def _weighted_median(points, weights):
    """Lower weighted median over the first dimension, coordinate by coordinate: (N, ..., 3) -> (...,  3)."""
    result = np.empty(points.shape[1:])
    for axis in range(3):
        values = points[..., axis]
        order = values.argsort(axis=0)
        total = np.take_along_axis(weights, order, 0).cumsum(axis=0)
        middle = (total >= total[-1] / 2).argmax(axis=0)[None]
        result[..., axis] = np.take_along_axis(values, np.take_along_axis(order, middle, 0), 0)[0]
    return result


def _centers(size, grid):
    """Rows and columns at the middle of each cell."""
    return tuple(((np.arange(n) + 0.5) * side / n).astype(int) for side, n in zip(size, grid, strict=True))


def _cells(pixels, image_size, grid):
    """Row and column of the cell that holds each pixel (x, y)."""
    pixels, size = np.asarray(pixels).reshape(-1, 2), np.asarray(image_size)
    if ((pixels < 0) | (pixels >= size)).any():
        raise ValueError(f"a pixel lies outside the picture of {size[0]} x {size[1]} (width x height).")
    cells = ((pixels + 0.5) * (grid[1], grid[0]) / size).astype(int)
    return cells[:, 1], cells[:, 0]


def _nearest(maps, rows, columns):
    i, j = _centers(maps.shape[1:3], (rows, columns))
    return maps[:, i[:, None], j]
