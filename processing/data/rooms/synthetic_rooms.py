"""`SyntheticRooms`: a `datasets` builder that renders labelled rooms from seeds, in the package's one schema.

Nothing is downloaded. Rendering is in renderer.py, questions are in tasks.py, the schema is in schema.py.
"""

import io
import json
from dataclasses import dataclass

import datasets
import numpy as np
from PIL import Image

from ..prepared_source import PreparedSourceBuilder
from ..schema import scene_features
from .layout import SPLIT_SEEDS, room_seed
from .renderer import RoomScene, render_room
from .tasks import ROOM_TASKS, RoomQuestion, make_question, visible_pieces


DEPTH_SCALE = 1000.0  # depth PNGs hold millimetres


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
    range, so a larger data set contains the smaller one.
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
        config = self.config
        for index in rooms:
            scene = render_room(room_seed(split, index), config.num_views, config.height, config.width)
            views = scene_views(scene)
            for task in config.tasks:
                for number in range(1 if task == "detection3d" else config.questions_per_task):
                    row_id = f"{split}-{index:06d}-{task}-{number}"
                    yield row_id, scene_row(scene, make_question(scene, task, number), views, split, row_id)


def _encode_png(array: np.ndarray) -> dict:
    """A picture as the `datasets.Image` feature stores it."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}


def _float32_list(values) -> list:
    """Nested lists of numbers that float32 holds exactly: streamed rows are not cast to their features."""
    return np.asarray(values, dtype=np.float32).tolist()


def scene_views(scene: RoomScene) -> list[dict]:
    """Return the "views" of a row: PNG images and 16-bit depth in millimetres, intrinsics and poses."""
    millimetres = np.round(scene.depth_m * DEPTH_SCALE).astype(np.uint16)
    return [
        {
            "image": _encode_png(scene.images[view]),
            "image_path": None,
            "frame_id": view,
            "timestamp": None,
            "depth": _encode_png(millimetres[view]),
            "depth_scale": DEPTH_SCALE,
            "intrinsics": _float32_list(scene.intrinsics[view]),
            "depth_intrinsics": _float32_list(scene.intrinsics[view]),
            "camera_to_world": scene.camera_to_world[view].tolist(),
        }
        for view in range(len(scene.images))
    ]


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
    seen_first = set(np.unique(scene.instance_ids[0]).tolist())
    boxes = [
        {
            "center": _float32_list(box[:3]),
            "size": _float32_list(box[3:6]),
            "euler": _float32_list(box[6:9]),
            "euler_order": scene.euler_order,
            "frame": "camera",
            "frame_index": 0,
            "label": label,
            "instance_id": str(instance),
            "role": "target",
            "in_reference": instance in seen_first,
        }
        for box, label, instance in zip(question.boxes, question.labels, question.instances, strict=False)
    ]
    points, marks = [], []
    for mark in question.marks:
        pixel, xyz, label = _float32_list(mark.pixel), _float32_list(question.point), question.labels[0]
        points.append({"view": mark.view, "pixel": pixel, "xyz": xyz, "frame": "camera", "label": label})
        drawn = {"view": mark.view, "kind": "cross", "color": mark.color, "xy": pixel}
        marks.append({**drawn, "unit": "pixel", "text": None})
    metadata = {
        "seed": scene.seed,
        "room_size": scene.room_size.tolist(),
        "furniture": [f"{color} {label}" for color, label in zip(scene.colors, scene.labels, strict=True)],
        "visible": visible_pieces(scene),
        "description": question.description,
    }
    return {
        "id": row_id,
        "source": "synthetic_rooms",
        "split": split,
        "task": question.task,
        "scene_id": f"room_{scene.seed:07d}",
        "views": views,
        "video": None,
        "world_to_aligned": np.eye(4).tolist(),
        "pose_frame": "aligned",
        "system": None,
        "question": question.question,
        "answer": question.answer,
        "references": question.references,
        "boxes": boxes,
        "points": points,
        "marks": marks,
        "target_frame": question.target_frame,
        "choices": [],
        "choice_index": None,
        "number": None,
        "question_type": None,
        "metadata": json.dumps(metadata),
    }
