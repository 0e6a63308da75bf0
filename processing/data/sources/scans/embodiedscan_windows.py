"""Detection questions out of EmbodiedScan's scenes, built as VG-LLM builds its files.

Frame: boxes in the camera of the window's first view, OpenCV axes, angles in "zxy", as in the released data and its
prompt. Units: metres, radians.
"""

from collections import Counter

import numpy as np

from ....answers_gap_mllm import format_boxes
from ....camera_geometry_gap_mllm import invert_rigid
from ....prompts_gap_mllm import DETECTION_PROMPT, IMAGE_TAG
from ...box_rows import box_in_camera, box_numbers, box_row
from ...record_errors import RecordError
from ...stored_frames import frame_number


LEFT_OUT = ("wall", "ceiling", "floor", "object")  # of the detection files


def detection_rows(posed, boxes: list[dict], visible, windows: tuple[int, int], world_to_aligned: np.ndarray):
    """Yield the windows of a scene: name, frames, and the fields that are not views.

    Every listed frame whose window stays within a run of evenly numbered frames begins one. Boxes are those that any
    of its frames shows, in the order in which they become visible, without walls, ceilings, floors and "object".

    Args:
        posed (list of ((index, image), pose)): usable frames in the order of the file.
        boxes (list of `dict`, *optional*): boxes of the scene, in the aligned frame; None where they are not known, as
            in test scenes, whose questions have no answer.
        visible (list of list of `int`): places of the boxes that each listed frame shows.
        windows (`tuple[int, int]`): views, and how many listed frames apart.
        world_to_aligned (`np.ndarray` of shape `(4, 4)`, *optional*)
    Yields:
        `tuple`: name of the first frame, list of ((index, image), pose), `dict` of fields for `complete_row`.
    Raises:
        RecordError: if the scene has boxes, but no axis alignment.
    """
    if boxes and world_to_aligned is None:
        raise RecordError("boxes cannot be moved to a camera without the axis alignment.", "axis_align_matrix")
    num_views, stride = windows
    for run in _runs(posed):
        for start in range(len(run) - (num_views - 1) * stride):
            chosen = run[start : start + (num_views - 1) * stride + 1 : stride]
            name = f"{frame_number(chosen[0][0][1]['img_path']):05d}"
            fields = {"question": IMAGE_TAG * num_views + DETECTION_PROMPT}
            if boxes is not None:
                fields["boxes"] = _shown_boxes(chosen, boxes, visible, world_to_aligned)
                numbers = [box_numbers(box) for box in fields["boxes"]]
                fields["answer"] = format_boxes([box["label"] for box in fields["boxes"]], numbers)
            yield name, chosen, fields


def _shown_boxes(chosen, boxes, visible, world_to_aligned):
    """What a window shows, in the camera of its first view, in the order in which it becomes visible."""
    (first, _), pose = chosen[0]
    seen = dict.fromkeys(place for (index, _), _ in chosen for place in visible[index])
    to_camera = invert_rigid(world_to_aligned @ pose)
    return [
        {
            **boxes[place],
            **box_row(box_in_camera(boxes[place], to_camera), "zxy", "camera", frame_index=0),
            "in_reference": place in visible[first],
        }
        for place in seen
        if boxes[place]["label"] not in LEFT_OUT
    ]


def _runs(posed):
    """Frames whose numbers follow each other evenly; frames without a number are in none."""
    numbered = [(frame_number(image["img_path"]), ((index, image), pose)) for (index, image), pose in posed]
    numbered = [(number, frame) for number, frame in numbered if number is not None]
    if not numbered:
        return []
    steps = [after - before for (before, _), (after, _) in zip(numbered, numbered[1:], strict=False)]
    usual = Counter(step for step in steps if step > 0).most_common(1)
    runs = [[numbered[0][1]]]
    for step, (_, frame) in zip(steps, numbered[1:], strict=True):
        if usual and step == usual[0][0]:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    return runs
