"""`SyntheticRooms`: a `datasets` builder that renders labelled rooms from seeds, in the package's one schema.

Nothing is downloaded. Rendering is in renderer.py, rooms as samples are in room_scenes.py, the schema is in schema.py.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial

import datasets
from transformers.utils import logging

from ..former_names import task_name
from ..prepared_source import PreparedSourceBuilder
from ..schema import scene_features
from ..task_makers import TASK_MAKERS
from .layout import SPLIT_SEEDS, room_seed
from .redraw import first_askable
from .renderer import render_room
from .room_scenes import ROOM_TASKS, make_questions, scene_row, scene_views


logger = logging.get_logger(__name__)


@dataclass
class SyntheticRoomsConfig(datasets.BuilderConfig):
    """How many rooms, which views and which questions.

    Args:
        num_train, num_selection, num_test (`int`, defaults to 512, 64 and 64): rooms of each split.
        num_views (`int`, defaults to 4), height (`int`, defaults to 128), width (`int`, defaults to 128): views of a
            room, and their size in pixels.
        tasks (`tuple[str, ...]`, defaults to `ROOM_TASKS`): keys of `TASK_MAKERS`; each room gives rows for every
            one.
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
    tasks: tuple[str, ...] = ROOM_TASKS
    questions_per_task: int = 1

    def __post_init__(self):
        super().__post_init__()
        self.tasks = tuple(map(task_name, self.tasks))
        unknown = [task for task in self.tasks if task not in TASK_MAKERS]
        if unknown or not self.tasks:
            raise ValueError(f"tasks is {self.tasks}; expected one or more of {list(TASK_MAKERS)}.")
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
        >>> from gap_mllm.processing.data import SyntheticRooms
        >>> sizes = {"num_train": 2, "num_selection": 0, "num_test": 0}
        >>> builder = SyntheticRooms(**sizes, tasks=("detection3d",), cache_dir="cache")
        >>> builder.download_and_prepare()  # num_proc=2 renders in two processes
        >>> len(builder.as_dataset(split="train"))
        2

        ```
    """

    VERSION = datasets.Version("1.1.0")
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
        questions = {}
        for task in config.tasks:
            count = 1 if task == "detection3d" else config.questions_per_task
            made = make_questions(scene, task, count)
            questions |= {f"{task}-{number}": question for number, question in enumerate(made)}
        return scene, questions
