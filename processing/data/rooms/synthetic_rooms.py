"""`SyntheticRooms`: a `datasets` builder that renders labelled rooms from seeds, in the package's one schema.

Nothing is downloaded. Rendering is in renderer.py, questions are in tasks.py, the schema is in schema.py.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

import datasets
import numpy as np
from transformers.utils import logging

from ..instance_maps import InstanceMap
from ..prepared_source import PreparedSourceBuilder
from ..scene_sample import Box, Point, SceneMark, SceneSample, View
from ..schema import complete_row, scene_features
from .appearance import STRUCTURE_LABELS
from .attributes import piece_attributes
from .layout import SPLIT_SEEDS, room_seed
from .redraw import first_askable
from .renderer import RoomScene, render_room
from .tasks import ROOM_TASKS, RoomQuestion, make_question, visible_pieces


logger = logging.get_logger(__name__)


@dataclass
class SyntheticRoomsConfig(datasets.BuilderConfig):
    """How many rooms, which views and which questions.

    Args:
        num_train, num_selection, num_test (`int`): rooms of each split.
        num_views (`int`, defaults to 4), height (`int`, defaults to 128), width (`int`, defaults to 128): of a room.
        tasks (`tuple[str, ...]`): keys of `tasks.ROOM_TASKS`; each room gives rows for every task.
        questions_per_task (`int`, defaults to 1): rows for one room and task, with different questions;
            "detection3d" has one answer only and always gives one row.
    Raises:
        ValueError: if a task is unknown, a count is out of range or an image side is below 8 pixels.
    """

    num_train: int = 512
    num_selection: int = 64
    num_test: int = 64
    num_views: int = 4
    height: int = 128
    width: int = 128
    tasks: tuple[str, ...] = tuple(ROOM_TASKS)
    questions_per_task: int = 1

    def __post_init__(self):
        super().__post_init__()
        self.tasks = tuple(self.tasks)
        unknown = [task for task in self.tasks if task not in ROOM_TASKS]
        if unknown or not self.tasks:
            raise ValueError(f"tasks is {self.tasks}; expected one or more of {list(ROOM_TASKS)}.")
        for split, seeds in SPLIT_SEEDS.items():
            if not 0 <= self.num_rooms(split) <= len(seeds):
                raise ValueError(f"num_{split} is {self.num_rooms(split)}; expected 0 to {len(seeds)}.")
        if min(self.num_views, self.questions_per_task) < 1:
            raise ValueError(
                f"num_views is {self.num_views} and questions_per_task {self.questions_per_task}; expected 1 or more."
            )
        if min(self.height, self.width) < 8:
            raise ValueError(f"height x width is {self.height} x {self.width}; expected at least 8 x 8 pixels.")

    def num_rooms(self, split: str) -> int:
        """Return the number of rooms of "train", "selection" or "test"."""
        return getattr(self, f"num_{split}")


class SyntheticRooms(PreparedSourceBuilder):
    """Rendered rooms with exact depth, poses, boxes and labels, and questions about them.

    Splits "train", "selection" and "test" use disjoint seeds. The rooms of a split are the first ones of its seed
    range, so a larger data set contains the smaller one. For a room whose views do not show what a task needs,
    another room of the split stands in, the same whatever the length; they are counted in a warning.
    Frame: boxes and points in the camera of view 0, `camera_to_world` in an aligned world with +z up. Units: metres.

    Example:
        ```python
        builder = SyntheticRooms(num_train=64, tasks=("reconstruction",), cache_dir=folder)
        builder.download_and_prepare(num_proc=2)
        rows = builder.as_dataset(split="train")
        ```
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = SyntheticRoomsConfig

    def _info(self):
        return datasets.DatasetInfo(
            description="Furnished rooms rendered from seeds: views, depth, poses, boxes, questions and answers.",
            features=scene_features(),
            license="apache-2.0",
        )

    def split_names(self):
        return [split for split in SPLIT_SEEDS if self.config.num_rooms(split) > 0]

    def _split_generators(self, dl_manager):
        return self.wanted_splits(
            [
                datasets.SplitGenerator(
                    name=split, gen_kwargs={"split": split, "rooms": list(range(self.config.num_rooms(split)))}
                )
                for split in self.split_names()
            ]
        )

    def _generate_examples(self, split, rooms):
        redrawn = Counter()
        for index in rooms:
            draw = partial(self._draw, split, index)
            scene, questions = first_askable(draw, lambda error: redrawn.update([error.reason]))
            views = scene_views(scene)
            for name, question in questions.items():
                row_id = f"{split}-{index:06d}-{name}"
                yield row_id, scene_row(scene, question, views, split, row_id)
        if redrawn:
            logger.warning(f"Other rooms stand in for some of the {len(rooms)} of split {split!r}: {dict(redrawn)}.")

    def _draw(self, split, index, attempt):
        """Room `index` or one that stands in for it, and its questions by the end of their rows' names."""
        config = self.config
        scene = render_room(room_seed(split, index, attempt), config.num_views, config.height, config.width)
        return scene, {
            f"{task}-{number}": make_question(scene, task, number)
            for task in config.tasks
            for number in range(1 if task == "detection3d" else config.questions_per_task)
        }


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


def room_sample(
    scene: RoomScene, question: RoomQuestion | None = None, split: str | None = None, sample_id: str | None = None
) -> SceneSample:
    """A room as a sample: with a question, or as a scene that task makers ask about.

    Frame: boxes and points of a question in the camera of view 0, boxes of a scene in the aligned world, +z up. Units:
    metres.

    Args:
        scene (`RoomScene`): the room.
        question (`RoomQuestion`, *optional*): what is asked about it; None gives the task "scene", with the boxes of
            all furniture.
        split (`str`, *optional*), sample_id (`str`, *optional*): unique name, by default that of the room.
    Returns:
        `SceneSample`.
    """
    name = f"room_{scene.seed:07d}"
    room = {"room_size": scene.room_size.tolist(), "visible": visible_pieces(scene), "seed": scene.seed}
    room["furniture"] = [f"{color} {label}" for color, label in zip(scene.colors, scene.labels, strict=True)]
    sample = SceneSample(
        id=sample_id or name,
        source="synthetic_rooms",
        split=split,
        task="scene",
        scene_id=name,
        views=room_views(scene),
        world_to_aligned=np.eye(4),
        pose_frame="aligned",
        metadata=room,
    )
    if question is not None:
        return room_question(sample, scene, question)
    instances = range(1, len(scene.labels) + 1)
    return replace(sample, boxes=_boxes(scene, scene.boxes, scene.labels, instances, "aligned"))


def room_question(sample: SceneSample, scene: RoomScene, question: RoomQuestion, **changes) -> SceneSample:
    """A question about a room whose sample is there: all its questions share the views, and what is known of it.

    Frame: boxes and points in the camera of view 0. Units: metres.

    Args:
        sample (`SceneSample`): `room_sample` of the room.
        scene (`RoomScene`), question (`RoomQuestion`): the room, and what is asked about it.
        **changes: further fields of the sample, as its `id`.
    Returns:
        `SceneSample`.
    """
    points, marks = [], []
    for mark in question.marks:
        pixel = tuple(map(float, mark.pixel))
        points.append(Point(mark.view, pixel, question.point, label=question.labels[0]))
        marks.append(SceneMark(mark.view, "cross", mark.color, pixel))
    return replace(
        sample,
        task=question.task,
        question=question.question,
        answer=question.answer,
        truth=question.truth,
        references=tuple(question.references),
        boxes=_boxes(scene, question.boxes, question.labels, question.instances, "camera"),
        points=tuple(points),
        marks=tuple(marks),
        target_frame=question.target_frame,
        metadata={**sample.metadata, "description": question.description},
        **changes,
    )


def _boxes(scene, boxes, labels, instances, frame):
    seen_first, index = set(np.unique(scene.instance_ids[0]).tolist()), 0 if frame == "camera" else None
    words = piece_attributes(scene)
    found = []
    for box, label, instance in zip(boxes, labels, instances, strict=False):
        told = {} if instance < 1 else words[instance - 1]
        shown = instance in seen_first
        found.append(Box(box, scene.euler_order, frame, index, label, str(instance), "target", shown, told))
    return tuple(found)


def scene_views(scene: RoomScene) -> list[dict]:
    """Return the "views" of a row: PNG images and 16-bit depth in millimetres, intrinsics and poses."""
    return complete_row(views=[view.row() for view in room_views(scene)])["views"]


def scene_row(scene: RoomScene, question: RoomQuestion, views: list[dict], split: str, row_id: str) -> dict:
    """Return one row of the schema.

    Args:
        scene (`RoomScene`): the room.
        question (`RoomQuestion`): what is asked about it.
        views (`list[dict]`): its `scene_views`, encoded once for all rows of the room.
        split (`str`): name of the split.
        row_id (`str`): unique name of the row.
    Returns:
        `dict`: keys of `schema.scene_features`.
    """
    sample = replace(room_sample(scene, question, split, row_id), views=())
    return {**sample.to_row(), "views": views}
