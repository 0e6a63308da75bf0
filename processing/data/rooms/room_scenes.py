"""Rendered rooms as samples: scenes that task makers ask about, and questions about one room.

Nothing is encoded before it is stored. Layout and pictures are in layout.py and renderer.py.
"""

from dataclasses import replace

import numpy as np

from ..cannot_ask import CannotAskError
from ..former_names import task_name
from ..instance_maps import InstanceMap
from ..scene_sample import Box, SceneSample, View
from ..schema import complete_row
from ..task_makers import make_tasks
from .appearance import STRUCTURE_LABELS
from .attributes import piece_attributes
from .renderer import RoomScene


# Those of GAP-MLLM, which every room is asked by default.
ROOM_TASKS = ("reconstruction", "detection3d", "grounding_frame", "grounding_box", "dense_caption")


def room_views(scene: RoomScene) -> tuple[View, ...]:
    """The views of a room: pictures, metric depth and what each pixel shows, as rendered; nothing is encoded."""
    labels = STRUCTURE_LABELS | dict(enumerate(scene.labels, 1))
    return tuple(
        View(
            picture=scene.images[view],
            depth_picture=scene.depth_m[view],
            frame_id=view,
            intrinsics=scene.intrinsics[view],
            depth_intrinsics=scene.intrinsics[view],
            camera_to_world=scene.camera_to_world[view],
            instances=InstanceMap(scene.instance_ids[view], labels),
        )
        for view in range(len(scene.images))
    )


def room_sample(scene: RoomScene, split: str | None = None, sample_id: str | None = None) -> SceneSample:
    """A room as a sample of the task "scene", with the boxes of all furniture: task makers ask about it.

    Frame: boxes in the aligned world, +z up. Units: metres.

    Args:
        scene (`RoomScene`): the room.
        split (`str`, *optional*), sample_id (`str`, *optional*): unique name, by default that of the room.
    Returns:
        `SceneSample`.
    """
    ids = scene.instance_ids[0]
    pixels_in_first = np.bincount(ids[ids > 0], minlength=len(scene.boxes) + 1)
    boxes = tuple(
        Box(box, scene.euler_order, "aligned", None, label, str(number), "target", bool(pixels), told)
        for number, (box, label, pixels, told) in enumerate(
            zip(scene.boxes, scene.labels, pixels_in_first[1:], piece_attributes(scene), strict=True), 1
        )
    )
    return SceneSample(
        id=sample_id or scene.scene_id,
        source="synthetic_rooms",
        split=split,
        task="scene",
        scene_id=scene.scene_id,
        views=room_views(scene),
        world_to_aligned=np.eye(4),
        pose_frame="aligned",
        boxes=boxes,
        metadata={
            "room_seed": scene.seed,
            "room_size": scene.room_size.tolist(),
            "furniture": [f"{color} {label}" for color, label in zip(scene.colors, scene.labels, strict=True)],
        },
    )


def make_questions(
    scene: RoomScene, task: str, count: int = 1, seed: int = 0, color: str = "red"
) -> list[SceneSample]:
    """Ask several questions of one kind about a room, worded as the package's own prompts; none is left out.

    Frame: boxes and points in the camera of view 0, OpenCV axes. Units: metres, radians.

    Args:
        scene (`RoomScene`): the room.
        task (`str`): a key of `TASK_MAKERS`.
        count (`int`, defaults to 1): number of different questions.
        seed (`int`, defaults to 0): same room and seed, same questions.
        color (`str`, defaults to "red"): colour of the cross of "reconstruction"; questions with several crosses take
            the colours that they need.
    Returns:
        `list[SceneSample]`: see `make_tasks`, which asks with margins, options and other wordings.
    Raises:
        ValueError: if the task is unknown, or a number out of range.
        CannotAskError: if the views do not show what is asked for.
    """
    colors = (color,) if task_name(task) == "reconstruction" else None
    made = make_tasks(room_sample(scene), {task: count}, seed=seed, phrasings="first", mark_colors=colors)
    for _, reason in made.refused:
        text = f"room {scene.seed} cannot be asked a question of {task!r} in its {len(scene.depth_m)} views: {reason}."
        raise CannotAskError(text, reason)
    return list(made)


def make_question(scene: RoomScene, task: str, task_seed: int = 0, color: str = "red") -> SceneSample:
    """Ask one question about a room; arguments and errors as `make_questions`.

    Example:
        ```python
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> question = make_question(render_room(0), "reconstruction")
        >>> question.task, question.marks[0].color, len(question.views)
        ('reconstruction', 'red', 4)

        ```
    """
    return make_questions(scene, task, 1, task_seed, color)[0]


def scene_views(scene: RoomScene) -> list[dict]:
    """Return the "views" of a row: PNG images and 16-bit depth in millimetres, intrinsics and poses."""
    return complete_row(views=[view.row() for view in room_views(scene)])["views"]


def scene_row(scene: RoomScene, question: SceneSample, views: list[dict], split: str, row_id: str) -> dict:
    """Return one row of the schema.

    Args:
        scene (`RoomScene`): the room.
        question (`SceneSample`): what is asked about it.
        views (`list[dict]`): its `scene_views`, encoded once for all rows of the room.
        split (`str`): name of the split.
        row_id (`str`): unique name of the row.
    Returns:
        `dict`: keys of `schema.scene_features`.
    """
    known = {**room_sample(scene).metadata, **question.metadata}
    if question.truth is not None:
        known["description"] = question.truth.description
    return {**replace(question, views=(), split=split, id=row_id, metadata=known).to_row(), "views": views}
