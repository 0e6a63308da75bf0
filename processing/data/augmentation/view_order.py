"""Dropping and reordering the views of a sample: boxes, points, marks, tags and answers follow, or it is refused."""

from dataclasses import replace

import numpy as np

from ...camera_geometry_gap_mllm import transform_box, transform_points
from ..answer_texts import in_answered_camera, location_span
from ..record_errors import RecordError
from ..scene_sample import SceneSample
from ..view_selection import named_views, place_views
from .answers import follow_views, move_location
from .texts import (
    asks_first_clear,
    check_answers,
    check_coordinates,
    check_mentions,
    check_task,
    check_time,
    check_viewpoint,
    names_view,
    refuse,
)
from .visible_boxes import find_lost


def reorder_views(sample: SceneSample, order: list[int], view_words: str = "refuse"):
    """Put the views in another order; any of them may become the first, and thereby the reference.

    Boxes and points in the camera of view 0 move to the camera of the new view 0, and with them the numbers of answers
    and the location given in a caption's question. "Frame-i:" tags, `target_frame`, marks and the frame of an answer
    follow. `in_reference` is not known for another view 0 and becomes None. Metadata stays as the source wrote it.
    Frame: camera of the new view 0. Units: metres, radians.

    Args:
        sample (`SceneSample`): sample; not changed.
        order (`list[int]`): old indices of the views in their new order, each once.
        view_words (`str`, defaults to "refuse"): what to do where view 0 changes and the texts say "left", "behind",
            "camera" or the like; "keep" takes them as not meant from view 0 (descriptions of ScanRefer).
    Returns:
        `SceneSample`.
    Raises:
        ValueError: if `order` does not hold every view once, or `view_words` is another one.
        AugmentationRefused: if the texts speak of views by number, of time, or (see `view_words`) from a viewpoint; if
            poses that are needed are not there; if the answer cannot be rewritten; if the first clear view is asked
            for and a later one would come before it; if the task is not known.

    Example:
        ```python
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> from gap_mllm.processing.data.augmentation import reorder_views
        >>> sample = make_question(render_room(0), "reconstruction")
        >>> moved = reorder_views(sample, [1, 0, 2, 3])  # view 1 becomes the reference, the point moves to its camera
        >>> sample.answer != moved.answer
        True

        ```
    """
    order = [int(view) for view in order]
    if sorted(order) != list(range(len(sample.views))):
        raise ValueError(f"order is {order}; expected every view from 0 to {len(sample.views) - 1} once.")
    return _select("reorder_views", sample, order, view_words, check_visibility=False)


def drop_views(sample: SceneSample, views: list[int], check_visibility: bool = True, view_words: str = "refuse"):
    """Leave out some of the views; the others keep their order. Moves what has to move as `reorder_views` does.

    Objects that no remaining view shows are taken out of detection answers.
    Frame: camera of the new view 0. Units: metres, radians.

    Args:
        sample (`SceneSample`): sample; not changed.
        views (`list[int]`): which to drop.
        check_visibility (`bool`, defaults to True): look into the depth maps whether the objects are still seen.
            Without depth maps, and for questions whose objects are not known, that is refused.
        view_words (`str`, defaults to "refuse"): see `reorder_views`.
    Returns:
        `SceneSample`.
    Raises:
        ValueError: if a view is not there or given twice, or all are dropped, or `view_words` is another one.
        AugmentationRefused: as `reorder_views`; if marks, points or answers speak of a dropped view; if what is asked
            for is no longer visible.

    Example:
        ```python
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> from gap_mllm.processing.data.augmentation import drop_views, droppable_views
        >>> sample = make_question(render_room(0), "reconstruction")
        >>> len(drop_views(sample, droppable_views(sample)).views)
        2

        ```
    """
    views, num_views = [int(view) for view in views], len(sample.views)
    if len(set(views)) < len(views) or not set(views) <= set(range(num_views)) or len(views) == num_views:
        raise ValueError(f"views is {views}; expected different views below {num_views}, and not all of them.")
    keep = [view for view in range(num_views) if view not in views]
    return _select("drop_views", sample, keep, view_words, check_visibility)


def random_order(sample: SceneSample, rng: np.random.Generator) -> list[int]:
    """Draw an order of the views in which the first clear view stays so, where that is asked for.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> from gap_mllm.processing.data.augmentation import random_order, reorder_views
        >>> sample = make_question(render_room(0), "reconstruction")
        >>> order = random_order(sample, np.random.default_rng(0))
        >>> reorder_views(sample, order).views[0] is sample.views[order[0]]
        True

        ```
    """
    order = [int(view) for view in rng.permutation(len(sample.views))]
    if asks_first_clear(sample):
        later = [place for place, view in enumerate(order) if view >= sample.target_frame]
        place = order.index(sample.target_frame)
        order[later[0]], order[place] = order[place], order[later[0]]
    return order


def droppable_views(sample: SceneSample) -> list[int]:
    """Return the views that nothing speaks of; view 0 is not among them.

    Raises:
        AugmentationRefused: if a text says "Frame-3", and the tags do not number the views.

    Example:
        ```python
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> from gap_mllm.processing.data.augmentation import droppable_views
        >>> sample = make_question(render_room(0), "reconstruction")
        >>> sample.marks[0].view, droppable_views(sample)
        (2, [1, 3])

        ```
    """
    named = _named("drop_views", sample)
    return [view for view in range(1, len(sample.views)) if view not in named]


def _named(step, sample) -> set[int]:
    try:
        return named_views(sample)
    except RecordError as error:
        raise refuse(step, sample, error.reason) from None


def _select(step, sample, keep, view_words, check_visibility):
    """Views `keep` in this order."""
    check_task(step, sample)
    if keep == list(range(len(sample.views))):
        return sample
    places = {old: new for new, old in enumerate(keep)}
    check_answers(step, sample)
    check_mentions(step, sample)
    if keep != sorted(keep):
        check_time(step, sample)
    if keep[0] != 0:
        check_viewpoint(step, sample, view_words)
        check_coordinates(step, sample)
    _check_first_clear(step, sample, places)
    own_camera = in_answered_camera(sample)
    _check_named(step, sample, places, own_camera)
    try:
        moved = _move(step, sample, keep, own_camera)
    except RecordError as error:
        raise refuse(step, sample, f"its boxes, points or tags cannot follow: {error}") from None
    lost = find_lost(step, sample, moved, keep) if check_visibility and len(keep) < len(sample.views) else set()
    return follow_views(step, sample, moved, places, lost)


def _check_first_clear(step, sample, places):
    target = sample.target_frame
    if not asks_first_clear(sample) or target not in places:
        return
    before = [old for old, new in places.items() if old > target and new < places[target]]
    if before:
        reason = f"it asks for the first clear view, which is {target}, and view {before[0]} would come before it."
        raise refuse(step, sample, reason)


def _check_named(step, sample, places, own_camera):
    named = _named(step, sample)
    shown = {sample.target_frame, *(mark.view for mark in sample.marks), *(point.view for point in sample.points)}
    shown.update(sample.metadata.get("keep_views", ()))
    if 0 not in shown and not own_camera and not names_view(sample, 0):
        named.discard(0)  # boxes in its camera move to that of the new view 0
    lost = sorted(named - set(places))
    if lost:
        raise refuse(step, sample, f"marks, points or its answer speak of view {lost[0]}, which is not kept.")


def _move(step, sample, keep, own_camera):
    """Views, boxes, points, marks and tags in their new places; answers are still the old ones."""
    moved, first = place_views(sample, keep), keep[0]
    if first == 0:
        return moved
    boxes = tuple(_move_box(sample, *pair, first, own_camera) for pair in zip(sample.boxes, moved.boxes, strict=True))
    points = tuple(_move_point(sample, *pair, first) for pair in zip(sample.points, moved.points, strict=True))
    moved = replace(moved, boxes=boxes, points=points, scene_boxes=())  # which may be in the camera that was first
    if location_span(sample) is None:
        return moved
    return replace(moved, question=move_location(step, sample, moved.question, _from_first(sample, first)))


def _from_first(sample, first):
    return sample.frame_to_camera("camera", 0, first)


def _move_box(sample, old, new, first, own_camera):
    new = replace(new, in_reference=None)
    if old.frame != "camera" or old.frame_index or own_camera:
        return new
    return replace(new, numbers=transform_box(old.numbers, _from_first(sample, first), old.euler_order), frame_index=0)


def _move_point(sample, old, new, first):
    if old.frame != "camera" or old.xyz is None:
        return new
    return replace(new, xyz=transform_points(_from_first(sample, first), old.xyz))
