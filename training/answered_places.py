"""Where the views show what an answer is about: marked pixels, or the objects whose boxes are answered."""

import numpy as np

from ..processing.camera_geometry_gap_mllm import project_points
from ..processing.data.box_projection import NEAR_M, is_hidden
from ..processing.data.record_errors import RecordError
from ..processing.data.scene_sample import Box, SceneSample
from ..processing.visual_prompt_gap_mllm import Mark


def answered_places(sample: SceneSample, with_boxes: bool = False) -> list[Mark]:
    """The places that an answer is about, in its order: one, or one for each entry of a list.

    An object is where most of it is seen: by the instance map of a view the middle one of its pixels, else where the
    middle of its box projects to, next to the middle of a picture, unless the depth map shows something in front.

    Args:
        sample (`SceneSample`): question with its answer.
        with_boxes (`bool`, defaults to False): whether the boxes of an answer count, where it is about no mark.
    Returns:
        `list[Mark]`: empty where the answer is about none, or a place of one of several is not known.
    """
    crosses = [mark for mark in sample.marks if mark.kind == "cross" and mark.unit == "pixel"]
    if crosses or not with_boxes:
        is_list = sample.task == "sparse_points" and sample.answer.count("{") == len(crosses)
        return [Mark(mark.view, mark.xy, mark.color) for mark in crosses] if len(crosses) == 1 or is_list else []
    if len(sample.boxes) != 1 and not (sample.task == "detection3d" and sample.answer.count("{") == len(sample.boxes)):
        return []
    frame = None if sample.truth is None else sample.truth.frame
    views = range(len(sample.views)) if frame is None else [frame]
    places = [_place_of(sample, box, views) for box in sample.boxes]
    return [] if None in places else places


def _place_of(sample: SceneSample, box: Box, views) -> Mark | None:
    """Where an object is seen best, None where it is not known."""
    seen = []
    for view in views:
        shown = sample.views[view].instances
        found = _in_map(shown, box) if shown is not None else _in_picture(sample, box, view)
        if found is not None:
            seen.append((*found, view))
    if not seen:
        return None
    _, pixel, view = max(seen, key=lambda each: each[0])
    size = np.array(sample.views[view].size)
    pixel = np.floor(pixel * size).astype(int).clip(0, size - 1)
    return Mark(view, (int(pixel[0]), int(pixel[1])))


def _in_map(shown, box):
    """Number of pixels of an object in an instance map, and the one nearest to their mean, as shares of the sides."""
    places = np.argwhere(shown.ids == int(box.instance_id)) if str(box.instance_id).isdigit() else ()
    if not len(places):
        return None
    middle = places[np.linalg.norm(places - places.mean(0), axis=1).argmin()]
    return len(places), (middle[::-1] + 0.5) / np.array(shown.ids.shape[::-1])


def _in_picture(sample, box, view):
    """Minus the distance of the projected middle of a box from that of the picture, and where it is, as shares."""
    try:
        numbers = sample.box_in_view(box, view)
    except RecordError:  # without a pose
        return None
    intrinsics = sample.views[view].intrinsics
    if intrinsics is None or numbers[2] <= NEAR_M:
        return None
    front = 1 - np.linalg.norm(numbers[3:6]) / 2 / np.linalg.norm(numbers[:3])  # its near side, at the farthest
    share = (project_points(numbers[:3], intrinsics)[0] + 0.5) / np.array(sample.views[view].size)
    if (share < 0).any() or (share >= 1).any() or is_hidden(numbers[:3] * max(front, 0.0), sample.views[view]):
        return None
    return -float(np.linalg.norm(share - 0.5)), share
